//! The world: hosts on an underlay, one event after the other.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::net::SocketAddr;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::chance::{Chance, Dice};
use super::heap::EventHeap;
use super::host::{Host, HostSpec, Overlay};
use super::laws::Laws;
use super::links::{Links, Segment};
use super::pipe::Loss;
use super::traffic::{OverlayNo, Traffic, Vm, VmId};
use super::underlay::{HostId, Packet, Place, SiteId, SiteSpec, Step, Underlay};
use crate::node::{Event, HandshakeKind, SupernodeSettings};
use crate::time::{Time, WallTime};

/// From the socket back to the same host.
const LOCAL_DELAY: Duration = Duration::from_micros(10);
/// When every world begins: 2023-11-14.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);
/// Events kept for tests to read; the older half goes when there are more.
const EVENTS_KEPT: usize = 200_000;
/// Events in one second, at most.
const BUSY: u64 = 200_000;
/// And for each pair of hosts: a second in which all make keys.
const BUSY_PER_PAIR: u64 = 200;
/// Hops of an ordinary packet.
const HOPS: u8 = 64;

/// What a packet of the underlay carries.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    Datagram(Vec<u8>),
    Segment(Segment),
}

/// What happens.
#[derive(Debug)]
pub(super) enum Happening {
    Packet { place: Place, packet: Packet<Payload> },
    Read { host: HostId, boot: u64 },
    Alarm { host: HostId, boot: u64 },
    Resend(Segment),
    Beat { link: u64 },
    DialTimeout { link: u64 },
}

/// A deterministic world of nodes.
pub struct World {
    pub(super) now: Time,
    pub(super) heap: EventHeap<Happening>,
    pub(super) chance: Chance,
    pub(super) dice: Dice,
    /// How much a host reads at once.
    pub(super) reads: Dice,
    pub(super) underlay: Underlay,
    pub(super) sites: Vec<SiteSpec>,
    pub(super) overlays: Vec<Overlay>,
    pub(super) hosts: Vec<Host>,
    pub(super) links: Links,
    pub(super) traffic: Traffic,
    /// Cables between the segments of two hosts, past all TAPs.
    pub(super) cables: Vec<(HostId, HostId)>,
    pub(super) laws: Laws,
    pub(super) handshake: HandshakeKind,
    pub(super) names: BTreeMap<String, SocketAddr>,
    pub(super) events: Vec<(Time, HostId, Event)>,
    pub(super) trace: SipHasher13,
    pub(super) steps: Vec<Step<Payload>>,
    pub(super) happened: u64,
    /// The present second, and how much happened in it.
    second: (u64, u64),
}

impl World {
    /// An empty world in which keys are agreed on by Noise.
    pub fn new(seed: u64) -> Self {
        Self::with_handshake(seed, HandshakeKind::Noise)
    }

    /// An empty world. The stand-in handshake is for large ones.
    pub fn with_handshake(seed: u64, handshake: HandshakeKind) -> Self {
        let chance = Chance::new(seed);
        Self {
            now: Time::START,
            heap: EventHeap::default(),
            dice: chance.stream("world", 0),
            reads: chance.stream("reads", 0),
            underlay: Underlay::new(chance.clone()),
            chance,
            sites: Vec::new(),
            overlays: Vec::new(),
            hosts: Vec::new(),
            links: Links::default(),
            traffic: Traffic::default(),
            cables: Vec::new(),
            laws: Laws::default(),
            handshake,
            names: BTreeMap::new(),
            events: Vec::new(),
            trace: SipHasher13::new(),
            steps: Vec::new(),
            happened: 0,
            second: (0, 0),
        }
    }

    /// Founds an Ethernet with a key of its own.
    pub fn overlay(&mut self, name: &str) -> OverlayNo {
        let number = self.overlays.len();
        let key = self.chance.stream("overlay key", number).bytes();
        self.overlays.push(Overlay::new(name, key));
        OverlayNo(number)
    }

    /// Builds a site.
    pub fn site(&mut self, spec: SiteSpec) -> SiteId {
        self.sites.push(spec);
        self.underlay.add(spec)
    }

    /// Sets up a host and starts its node.
    pub fn host(&mut self, spec: HostSpec) -> HostId {
        let host = self.install(spec);
        self.start(host);
        host
    }

    /// Sets up a host without starting its node.
    pub fn install(&mut self, spec: HostSpec) -> HostId {
        let id = HostId(self.hosts.len());
        let secret = self.chance.stream("node secret", id.0).bytes();
        self.hosts.push(Host::new(spec, secret));
        self.settle_in(id);
        id
    }

    /// Gives a host addresses at its site.
    pub(super) fn settle_in(&mut self, id: HostId) {
        let HostSpec { site, ipv6, .. } = self.hosts[id.0].spec;
        let mut addresses = vec![self.underlay.attach(site, id, false)];
        if ipv6 {
            addresses.push(self.underlay.attach(site, id, true));
        }
        self.hosts[id.0].addresses = addresses;
    }

    /// Sets up a public supernode and starts it.
    pub fn supernode(&mut self, name: &str) -> HostId {
        let site = self.site(SiteSpec::default());
        self.host(HostSpec::new(site, name).serving())
    }

    /// How others name `host` as their supernode, pinned.
    pub fn as_supernode(&self, host: HostId) -> SupernodeSettings {
        SupernodeSettings { address: self.socket(host).to_string(), pin: Some(self.fingerprint(host)) }
    }

    /// Makes `name` (`host:port`) resolve to `address`.
    pub fn name(&mut self, name: &str, address: SocketAddr) {
        self.names.insert(name.to_owned(), address);
    }

    /// Plugs a machine in behind `host`.
    pub fn vm(&mut self, host: HostId, overlay: OverlayNo, mac: [u8; 6], vlan: u16) -> VmId {
        self.traffic.vms.push(Vm { mac, vlan, overlay, host });
        VmId(self.traffic.vms.len() - 1)
    }

    /// The present time.
    pub const fn now(&self) -> Time {
        self.now
    }

    /// The calendar of `host` at the present time.
    pub(super) fn wall_at(&self, host: HostId) -> WallTime {
        let behind = self.hosts[host.0].clock_behind;
        WallTime::since_1970((EPOCH + self.now.since(Time::START)).saturating_sub(behind))
    }

    /// Lets `span` pass.
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now + span);
    }

    /// Lets everything up to and including `until` happen.
    pub fn run_until(&mut self, until: Time) {
        while let Some((at, happening)) = self.heap.pop_until(until) {
            self.now = at;
            self.happened += 1;
            if self.is_too_busy() {
                return;
            }
            self.happen(happening);
        }
        self.now = self.now.max(until);
    }

    /// Whether packets beget packets: then the world stands still, and a law is broken.
    fn is_too_busy(&mut self) -> bool {
        let second = self.now.since(Time::START).as_secs();
        if second != self.second.0 {
            self.second = (second, 0);
        }
        self.second.1 += 1;
        let limit = BUSY + BUSY_PER_PAIR * (self.hosts.len() as u64).pow(2);
        if self.second.1 == limit {
            self.laws.broken(self.now, &format!("more than {limit} events in one second"));
        }
        self.second.1 >= limit
    }

    /// Runs in steps of `step` until `done` or for `limit`. Answers how long it took.
    pub fn run_until_true(
        &mut self,
        step: Duration,
        limit: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> Option<Duration> {
        let start = self.now;
        loop {
            if done(self) {
                return Some(self.now.since(start));
            }
            if self.now.since(start) >= limit {
                return None;
            }
            self.run_for(step);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Packet { place: Place::Host(host), packet } => self.arrive(host, packet),
            Happening::Packet { place, packet } => self.carry(place, packet),
            Happening::Read { host, boot } => self.read(host, boot),
            Happening::Alarm { host, boot } => self.ring(host, boot),
            Happening::Resend(segment) => self.send_segment(segment),
            Happening::Beat { link } => self.beat(link),
            Happening::DialTimeout { link } => self.dial_timeout(link),
        }
    }

    /// `host` sends a packet from its underlay socket.
    pub(super) fn launch(&mut self, id: HostId, to: SocketAddr, hops: Option<u8>, payload: Payload) {
        self.launch_by(id, self.hosts[id.0].spec.port, (to, hops), payload);
    }

    /// `host` sends a packet from the socket on `port`.
    pub(super) fn launch_by(&mut self, id: HostId, port: u16, (to, hops): (SocketAddr, Option<u8>), payload: Payload) {
        self.hosts[id.0].crossings.on_sent(&payload);
        let host = &self.hosts[id.0];
        let origin = host.spec.site;
        let len = payload.len();
        let own = to.ip().is_loopback() || host.addresses.contains(&to.ip());
        let from = if own { Some(SocketAddr::new(to.ip(), port)) } else { host.source(to.ip(), port) };
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let hops = hops.unwrap_or(HOPS);
        let packet = Packet { from: from.unwrap_or(nowhere), to, hops, origin, len, copy: false, payload };
        if from.is_none() {
            return self.lost(Loss::Route, packet);
        }
        if own {
            self.heap.push(self.now + LOCAL_DELAY, Happening::Packet { place: Place::Host(id), packet });
        } else {
            self.carry(Place::Up(origin), packet);
        }
    }

    fn carry(&mut self, place: Place, packet: Packet<Payload>) {
        let mut steps = std::mem::take(&mut self.steps);
        if let Some(packet) = self.underlay.carry(self.now, place, packet, &mut steps) {
            self.on_lost(packet);
        }
        for Step { at, place, packet } in steps.drain(..) {
            self.heap.push(at, Happening::Packet { place, packet });
        }
        self.steps = steps;
    }

    /// A packet is at a host, which may be another one now, or none.
    fn arrive(&mut self, id: HostId, packet: Packet<Payload>) {
        let host = &self.hosts[id.0];
        let own = packet.to.ip().is_loopback() || host.addresses.contains(&packet.to.ip());
        let stalled = matches!(packet.payload, Payload::Segment(_)) && self.links.stalled.contains(&id);
        if !own || stalled || !host.is_awake() {
            return self.lost(Loss::Dead, packet);
        }
        self.hosts[id.0].crossings.on_received(&packet.payload);
        let Some(packet) = self.at_door(id, packet) else { return };
        if packet.to.port() != self.hosts[id.0].spec.port {
            return self.lost(Loss::Dead, packet);
        }
        match packet.payload {
            Payload::Datagram(bytes) => {
                self.note(b'd', id, &bytes);
                self.hosts[id.0].datagrams.push((packet.from, bytes));
                self.wake(id);
            }
            Payload::Segment(segment) => self.take_segment(id, packet.from, segment),
        }
    }

    fn lost(&mut self, loss: Loss, packet: Packet<Payload>) {
        *self.underlay.losses.entry(loss).or_default() += 1;
        self.on_lost(packet);
    }

    fn on_lost(&mut self, packet: Packet<Payload>) {
        match packet.payload {
            Payload::Segment(segment) if !packet.copy => self.segment_lost(segment),
            Payload::Segment(_) | Payload::Datagram(_) => {}
        }
    }

    /// Writes what happens to the trace.
    pub(super) fn note(&mut self, kind: u8, host: HostId, bytes: &[u8]) {
        self.trace.write_u64(self.now.as_nanos());
        self.trace.write_u8(kind);
        self.trace.write_usize(host.0);
        self.trace.write(bytes);
    }

    /// Writes what a user would read to the trace and the list.
    pub(super) fn note_event(&mut self, host: HostId, event: Event) {
        self.note(b'e', host, format!("{event:?}").as_bytes());
        if self.events.len() >= EVENTS_KEPT {
            self.events.drain(..EVENTS_KEPT / 2);
        }
        self.events.push((self.now, host, event));
    }
}

impl Payload {
    /// Bytes after the UDP header; segments always fit.
    const fn len(&self) -> usize {
        match self {
            Self::Datagram(bytes) => bytes.len(),
            Self::Segment(_) => 100,
        }
    }
}
