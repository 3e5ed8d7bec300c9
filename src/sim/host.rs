//! A host: a [`Node`] with its addresses, its queues, and what survives its death.

use std::net::{IpAddr, SocketAddr};

use super::doors::Doors;
use super::tally::Crossings;
use super::traffic::OverlayNo;
use super::underlay::SiteId;
use crate::control::reflect::Reflector;
use crate::datapath::SwitchSettings;
use crate::datapath::offload::{TapOffload, Virtio};
use crate::keys::{Identity, OverlayKey, OverlaySecrets};
use crate::node::{
    HandshakeKind, LinkBudget, Memory, Node, OverlaySettings, RelaySettings, RouteSettings, ServeSettings, Settings,
    SupernodeSettings,
};
use crate::time::Time;
use crate::wire::DEFAULT_PORT;
use crate::wire::carry::RelayFor;

/// How a host is set up.
#[derive(Clone, Debug)]
pub struct HostSpec {
    /// Where it is.
    pub site: SiteId,
    /// What people call it.
    pub name: String,
    /// What it is a member of.
    pub overlays: Vec<OverlayNo>,
    /// Where it registers.
    pub supernodes: Vec<SupernodeSettings>,
    /// Set if it is a supernode.
    pub serve: Option<ServeSettings>,
    /// What it does for others.
    pub relaying: RelaySettings,
    /// Of its underlay socket.
    pub port: u16,
    /// Whether it has IPv6 beside IPv4.
    pub ipv6: bool,
    /// Whether it tries many ports where that may help.
    pub birthday: bool,
    /// Static rules of its first overlay.
    pub routes: Vec<RouteSettings>,
    /// How many links it keeps awake.
    pub links: LinkBudget,
    /// Copies of what is for everybody that leave it at once; the usual number if `None`.
    pub fan_out: Option<usize>,
    /// Whether it prunes multicast.
    pub snoops: bool,
    /// Whether it counts, reports and obeys plans.
    pub adapts: bool,
}

impl HostSpec {
    /// A host that is nothing yet.
    pub fn new(site: SiteId, name: &str) -> Self {
        let name = name.to_owned();
        Self {
            site,
            name,
            overlays: Vec::new(),
            supernodes: Vec::new(),
            serve: None,
            relaying: RelaySettings::default(),
            port: DEFAULT_PORT,
            ipv6: false,
            birthday: true,
            routes: Vec::new(),
            links: LinkBudget::default(),
            fan_out: None,
            snoops: false,
            adapts: true,
        }
    }

    /// As a member of `overlay`.
    #[must_use]
    pub fn member(mut self, overlay: OverlayNo) -> Self {
        self.overlays.push(overlay);
        self
    }

    /// Registering at a supernode.
    #[must_use]
    pub fn at(mut self, supernode: SupernodeSettings) -> Self {
        self.supernodes.push(supernode);
        self
    }

    /// As a supernode.
    #[must_use]
    pub fn serving(mut self) -> Self {
        self.serve = Some(ServeSettings::default());
        self
    }

    /// Telling its members of another supernode.
    #[must_use]
    pub fn telling(mut self, other: SupernodeSettings) -> Self {
        self.serve.get_or_insert_default().peers.push(other);
        self
    }

    /// Relaying for these members.
    #[must_use]
    pub const fn relaying(mut self, carries: RelayFor) -> Self {
        self.relaying.carries = carries;
        self
    }

    /// Passing on so many bytes per second at most.
    #[must_use]
    pub const fn sharing(mut self, bytes_per_s: u32) -> Self {
        self.relaying.share = Some(bytes_per_s);
        self
    }

    /// At a site of this name.
    #[must_use]
    pub fn at_site(mut self, name: &str) -> Self {
        name.clone_into(&mut self.relaying.site);
        self
    }

    /// With its socket on another port.
    #[must_use]
    pub const fn on_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Without trying many ports at a peer.
    #[must_use]
    pub const fn without_birthday(mut self) -> Self {
        self.birthday = false;
        self
    }

    /// Without counting, reports and plans.
    #[must_use]
    pub const fn without_adapting(mut self) -> Self {
        self.adapts = false;
        self
    }

    /// With this static rule in its first overlay.
    #[must_use]
    pub fn ruled(mut self, route: RouteSettings) -> Self {
        self.routes.push(route);
        self
    }

    /// Keeping so many links awake.
    #[must_use]
    pub const fn keeping(mut self, links: LinkBudget) -> Self {
        self.links = links;
        self
    }

    /// With no more copies of what is for everybody at once.
    #[must_use]
    pub const fn fanning_out(mut self, copies: usize) -> Self {
        self.fan_out = Some(copies);
        self
    }

    /// Sending frames for groups only to those that want to hear them.
    #[must_use]
    pub const fn snooping(mut self) -> Self {
        self.snoops = true;
        self
    }

    /// With IPv6 too.
    #[must_use]
    pub const fn with_ipv6(mut self) -> Self {
        self.ipv6 = true;
        self
    }
}

/// An Ethernet: what its members share.
#[derive(Debug)]
pub(super) struct Overlay {
    pub(super) name: String,
    pub(super) secrets: OverlaySecrets,
}

impl Overlay {
    pub(super) fn new(name: &str, key: [u8; 32]) -> Self {
        let secrets = OverlaySecrets::derive(name, &OverlayKey::from_bytes(key));
        Self { name: name.to_owned(), secrets }
    }
}

/// What a host sent, to see whether it goes quiet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sending {
    /// Datagrams, without the control link.
    pub datagrams: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Messages on control links.
    pub messages: u64,
}

/// A host of the world.
pub(super) struct Host {
    pub(super) spec: HostSpec,
    pub(super) secret: [u8; 32],
    pub(super) identity: Identity,
    pub(super) addresses: Vec<IpAddr>,
    /// From the last `Output::Remember`.
    pub(super) memory: Memory,
    /// The running process; taken out while it is driven.
    pub(super) node: Option<Node>,
    /// Sockets beside the underlay socket.
    pub(super) doors: Doors,
    /// Answers OBSERVE, on a supernode.
    pub(super) reflector: Option<Reflector>,
    pub(super) alive: bool,
    pub(super) asleep: bool,
    /// How far its calendar is behind.
    pub(super) clock_behind: std::time::Duration,
    /// How often it was started: what belongs to an earlier process is void.
    pub(super) boot: u64,
    pub(super) deadline: Time,
    /// What the deadline is for.
    pub(super) reason: &'static str,
    /// When the earliest alarm in the heap rings.
    pub(super) alarm: Option<Time>,
    /// Whether a read of the queues is in the heap.
    pub(super) reading: bool,
    pub(super) datagrams: Vec<(SocketAddr, Vec<u8>)>,
    pub(super) frames: Vec<(usize, Vec<u8>, Virtio)>,
    pub(super) sending: Sending,
    pub(super) crossings: Crossings,
}

impl Host {
    pub(super) fn new(spec: HostSpec, secret: [u8; 32]) -> Self {
        Self {
            spec,
            secret,
            identity: Identity::from_secret(&secret),
            addresses: Vec::new(),
            memory: Memory::default(),
            node: None,
            doors: Doors::default(),
            reflector: None,
            alive: false,
            asleep: false,
            clock_behind: std::time::Duration::ZERO,
            boot: 0,
            deadline: Time::NEVER,
            reason: "",
            alarm: None,
            reading: false,
            datagrams: Vec::new(),
            frames: Vec::new(),
            sending: Sending::default(),
            crossings: Crossings::default(),
        }
    }

    /// Whether it takes part in anything now.
    pub(super) const fn is_awake(&self) -> bool {
        self.alive && !self.asleep
    }

    /// What its node is told at a start.
    pub(super) fn settings(&self, overlays: &[Overlay], handshake: HandshakeKind) -> Settings {
        let overlay = |number: &OverlayNo| {
            let Overlay { name, secrets } = &overlays[number.0];
            let usual = SwitchSettings::default();
            let fan_out = self.spec.fan_out.unwrap_or(usual.fan_out);
            let switch = SwitchSettings {
                tap: self.tap(),
                fan_out,
                snoops: self.spec.snoops,
                adapts: self.spec.adapts,
                ..usual
            };
            let routes = if self.spec.overlays.first() == Some(number) { self.spec.routes.clone() } else { Vec::new() };
            OverlaySettings { routes, ..OverlaySettings::new(name, secrets.clone(), switch) }
        };
        Settings {
            identity: Identity::from_secret(&self.secret),
            name: self.spec.name.clone(),
            overlays: self.spec.overlays.iter().map(overlay).collect(),
            supernodes: self.spec.supernodes.clone(),
            serve: self.spec.serve.clone(),
            relaying: self.spec.relaying.clone(),
            uplink: None,
            links: self.spec.links,
            memory: self.memory.clone(),
            birthday: self.spec.birthday,
            handshake,
            discovery: false,
            // Some machines have the instructions and some have not.
            has_aes: self.secret[0] & 1 == 0,
        }
    }

    /// Some kernels do more than others.
    pub(super) const fn tap(&self) -> TapOffload {
        match self.secret[1] % 3 {
            0 => TapOffload::None,
            1 => TapOffload::Tcp,
            _ => TapOffload::TcpAndUdp,
        }
    }

    /// The process is no more.
    pub(super) fn end(&mut self) {
        self.node = None;
        self.doors = Doors::default();
        self.alive = false;
        self.asleep = false;
        self.deadline = Time::NEVER;
        self.alarm = None;
        self.reading = false;
        self.datagrams.clear();
        self.frames.clear();
    }

    /// The source address of a datagram to `to`, if the host has one of that family.
    pub(super) fn source(&self, to: IpAddr, port: u16) -> Option<SocketAddr> {
        let ip = self.addresses.iter().find(|own| own.is_ipv6() == to.is_ipv6())?;
        Some(SocketAddr::new(*ip, port))
    }
}
