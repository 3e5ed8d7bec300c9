//! Bytes into live nodes: whole datagrams, frames and control messages, most of them bent genuine ones.
//!
//! Nothing panics, every datagram and frame is counted, nothing bent is delivered, and afterwards the
//! overlay works as before. No sockets and no clock: the wire is a queue, the clock a number.

mod bytes;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, feed, share};
use longwire::control::report::{PathKind, PeerState, Request, Response, Status};
use longwire::datapath::buf::{Datagrams, Frames, Origin, OverlayIndex};
use longwire::datapath::offload::Virtio;
use longwire::keys::{Fingerprint, Identity, OverlayKey, OverlaySecrets};
use longwire::node::{
    HandshakeKind, LinkCommand, LinkEvent, LinkId, Memory, Node, Output, OverlaySettings, RelaySettings, ServeSettings,
    Settings, SupernodeSettings,
};
use longwire::time::{Time, WallTime};
use longwire::wire::{Kind, relay};

/// Between two inputs: slow enough for the limits, quick enough for the sessions to stay.
const STEP: Duration = Duration::from_micros(200);

/// Inputs between two honest moments, in which the nodes talk to each other.
const ROUND: u64 = 500;

/// After the storm all is well again within this time.
const CALM: Duration = Duration::from_secs(20);

/// Nobody's address.
const STRANGER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)), 9);

/// The supernode, and two members.
const SUPERNODE: usize = 0;
const NODES: usize = 3;

#[test]
fn every_datagram_of_a_storm_is_counted_and_none_is_delivered() {
    let mut world = World::new();
    let mut genuine = std::mem::take(&mut world.heard.datagrams);
    // Who saw a question can answer it, and that is no drop.
    genuine.retain(|datagram| Kind::of(datagram[0]) != Some(Kind::Observe));
    let mut storm = Bytes::new("datagrams", genuine);
    let mut fed = 0;
    feed(share(60), &mut storm, |input| {
        let to = usize::try_from(fed).expect("small") % NODES;
        // From a stranger, or from where the other member or the supernode is.
        let from = match fed % 7 {
            0 | 1 => STRANGER,
            2 | 3 => world.addrs[SUPERNODE],
            _ => world.addrs[3 - to.max(1)],
        };
        let ours = input.first().is_some_and(|first| Kind::of(*first) != Some(Kind::Quic));
        let before = if ours { world.counted(to) } else { 0 };
        world.datagram(to, from, input);
        if ours {
            assert!(world.counted(to) > before, "no counter took it");
        }
        world.now += STEP;
        fed += 1;
        world.pass_on(fed);
    });
    assert!(world.delivered.iter().all(Vec::is_empty), "a bent datagram was delivered");
    world.works_again();
}

/// What a stranger can forge, bend or replay of what it saw, in somebody else's name: that somebody gets no more bytes
/// than were sent, not even later. (QUIC's own datagrams: `io/quic/tests.rs`; questions: `control/reflect.rs`.)
#[test]
fn nobody_gets_more_bytes_than_a_stranger_sent_in_its_name() {
    let mut world = World::new();
    let mut genuine = std::mem::take(&mut world.heard.datagrams);
    // What members told each other by the supernode, as if it had come straight.
    let relayed = genuine.iter().filter(|datagram| Kind::of(datagram[0]) == Some(Kind::Relay));
    genuine.extend(relayed.map(|datagram| datagram[relay::HEADER_LEN..].to_vec()).collect::<Vec<_>>());
    for kind in [Kind::Init, Kind::Resp, Kind::Data, Kind::Session, Kind::Relay, Kind::Observe] {
        assert!(genuine.iter().any(|datagram| Kind::of(datagram[0]) == Some(kind)), "no {kind:?} was heard");
    }
    let mut storm = Bytes::new("strangers", genuine);
    let (mut fed, mut sent) = (0, 0);
    feed(share(60), &mut storm, |input| {
        let to = usize::try_from(fed).expect("small") % NODES;
        let before = world.to_stranger;
        world.datagram(to, STRANGER, input);
        let answer = world.to_stranger - before;
        assert!(answer <= input.len(), "{answer} bytes for {}: {input:02x?}", input.len());
        world.now += STEP;
        (fed, sent) = (fed + 1, sent + input.len());
        world.pass_on(fed);
        assert!(world.to_stranger <= sent, "{} bytes for {sent}", world.to_stranger);
    });
    world.run(Duration::from_secs(120));
    assert!(world.to_stranger <= sent, "{} bytes for {sent}", world.to_stranger);
    world.works_again();
}

#[test]
fn every_frame_of_a_storm_is_counted() {
    let mut world = World::new();
    let mut storm = Bytes::new("frames", vec![broadcast(1), unicast(2, 1), vlan(1), arp(1)]);
    let mut fed = 0;
    feed(share(25), &mut storm, |input| {
        let before = world.status(1).overlays[0].counters["frames_in"];
        let mut batch = Frames::default();
        batch.push(input, Virtio::default());
        world.nodes[1].handle_frames(world.now, OverlayIndex(0), &batch);
        world.drain_one(1);
        assert_eq!(world.status(1).overlays[0].counters["frames_in"], before + 1);
        world.now += STEP;
        fed += 1;
        world.pass_on(fed);
    });
    for frame in world.delivered.iter().flatten() {
        assert!(frame.len() >= 14, "a runt crossed: {frame:?}");
    }
    world.works_again();
}

#[test]
fn a_storm_of_control_messages_does_no_lasting_harm() {
    let mut world = World::new();
    let mut storm = Bytes::new("messages", std::mem::take(&mut world.heard.messages));
    let mut fed = 0;
    feed(share(15), &mut storm, |input| {
        // Each member's link, from either end; and a link of a stranger that was only just accepted.
        let (to, link, remote) = match fed % 5 {
            0 | 1 => (1, LinkId::Dialled(0), world.addrs[SUPERNODE]),
            2 => (2, LinkId::Dialled(0), world.addrs[SUPERNODE]),
            3 => (SUPERNODE, world.accepted_link(1), world.addrs[1]),
            _ => (SUPERNODE, LinkId::Accepted(1_000_000), STRANGER),
        };
        let event = LinkEvent::Message { link, remote, message: input.to_vec() };
        world.nodes[to].handle_link(world.now, event);
        world.drain_one(to);
        world.now += STEP;
        fed += 1;
        world.pass_on(fed);
    });
    world.redial();
    world.works_again();
}

/// What crossed while all was well.
#[derive(Default)]
struct Heard {
    datagrams: Vec<Vec<u8>>,
    messages: Vec<Vec<u8>>,
}

enum Todo {
    Datagram(usize, SocketAddr, Vec<u8>),
    Link(usize, LinkEvent),
}

/// Two members and a supernode on one wire without delay.
struct World {
    now: Time,
    nodes: Vec<Node>,
    addrs: Vec<SocketAddr>,
    deadlines: Vec<Time>,
    delivered: Vec<Vec<Vec<u8>>>,
    todo: VecDeque<Todo>,
    /// Who dialled each link that was accepted.
    accepted: Vec<usize>,
    heard: Heard,
    /// Bytes that were sent to it.
    to_stranger: usize,
    /// Datagrams between members are lost.
    only_relay: bool,
}

impl World {
    /// A world in which the members have met, by a relay first and directly then.
    fn new() -> Self {
        let mut world = Self {
            now: Time::START,
            nodes: Vec::new(),
            addrs: Vec::new(),
            deadlines: vec![Time::START; NODES],
            delivered: vec![Vec::new(); NODES],
            todo: VecDeque::new(),
            accepted: Vec::new(),
            heard: Heard::default(),
            to_stranger: 0,
            only_relay: true,
        };
        let wall = WallTime::since_1970(Duration::from_secs(1_700_000_000));
        for number in 0..u8::try_from(NODES).expect("few") {
            world.nodes.push(Node::new(settings(number), [number; 32], Time::START, wall));
            world.addrs.push(SocketAddr::from(([198, 51, 100, number + 1], 7777)));
        }
        for number in 0..NODES {
            let ip = world.addrs[number].ip();
            world.nodes[number].handle_addresses(Time::START, 7777, vec![ip]);
        }
        world.run(Duration::from_secs(1));
        world.send(1, &broadcast(1));
        assert_eq!(world.delivered[2].len(), 1, "the relay carries");
        world.only_relay = false;
        world.redial();
        world.works_again();
        world
    }

    /// Both members see each other directly, and a broadcast crosses once.
    #[track_caller]
    fn works_again(&mut self) {
        let end = self.now + CALM;
        while self.now < end && !self.members_met() {
            self.run(Duration::from_millis(100));
        }
        assert!(self.members_met(), "{:#?}", self.status(1).overlays[0].peers);
        // Whatever was learned of the storm's addresses: a broadcast goes to everybody.
        self.run(Duration::from_secs(2));
        self.delivered = vec![Vec::new(); NODES];
        let frame = broadcast(0x77);
        self.send(1, &frame);
        assert_eq!(self.delivered[2], [frame], "not once");
        self.delivered = vec![Vec::new(); NODES];
    }

    fn members_met(&mut self) -> bool {
        [1, 2].into_iter().all(|number| {
            let peers = &self.status(number).overlays[0].peers;
            matches!(&peers[..], [peer] if peer.state == PeerState::Up && peer.path.kind == PathKind::Direct)
        })
    }

    /// Now and then an honest moment, and time passes for the timers.
    fn pass_on(&mut self, fed: u64) {
        if fed.is_multiple_of(ROUND) {
            self.run(Duration::ZERO);
        }
    }

    fn status(&mut self, number: usize) -> Status {
        let response = self.nodes[number].handle_request(self.now, &Request::Status);
        let Response::Status(status) = response else { panic!("not a status: {response:?}") };
        status
    }

    /// All that a node has counted.
    fn counted(&mut self, number: usize) -> u64 {
        let status = self.status(number);
        let serving = status.serving.map(|serving| serving.counters);
        let tables = status.overlays.into_iter().map(|overlay| overlay.counters).chain(serving);
        tables.flat_map(BTreeMap::into_values).sum()
    }

    fn datagram(&mut self, to: usize, from: SocketAddr, bytes: &[u8]) {
        let mut batch = Datagrams::default();
        batch.push(bytes, Origin { from, to: None, stride: bytes.len().max(1) });
        self.nodes[to].handle_datagrams(self.now, &mut batch);
        self.drain_one(to);
    }

    /// A frame out of the TAP, and the honest moment after it.
    fn send(&mut self, from: usize, frame: &[u8]) {
        let mut batch = Frames::default();
        batch.push(frame, Virtio::default());
        self.nodes[from].handle_frames(self.now, OverlayIndex(0), &batch);
        self.run(Duration::from_millis(10));
    }

    /// Lets the nodes talk for a while.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.drain();
            let soonest = self.deadlines.iter().enumerate().map(|(number, at)| (*at, number)).min();
            let (at, number) = soonest.expect("three nodes");
            if at > end {
                break;
            }
            self.now = at.max(self.now);
            self.nodes[number].handle_timeout(self.now);
        }
        self.now = end;
    }

    fn drain(&mut self) {
        loop {
            for number in 0..NODES {
                self.drain_one(number);
            }
            match self.todo.pop_front() {
                Some(Todo::Datagram(to, from, bytes)) => self.datagram(to, from, &bytes),
                Some(Todo::Link(to, event)) => self.nodes[to].handle_link(self.now, event),
                None => break,
            }
        }
    }

    fn drain_one(&mut self, number: usize) {
        loop {
            match self.nodes[number].poll_output() {
                Output::Transmit(batch) => {
                    for (bytes, target) in batch.iter() {
                        if target.to == STRANGER {
                            self.to_stranger += bytes.len();
                        }
                        let to = self.addrs.iter().position(|addr| *addr == target.to);
                        let passes =
                            target.hops.is_none() && (!self.only_relay || number == SUPERNODE || to == Some(SUPERNODE));
                        let Some(to) = to.filter(|_| passes) else { continue };
                        self.heard.datagrams.push(bytes.to_vec());
                        self.todo.push_back(Todo::Datagram(to, self.addrs[number], bytes.to_vec()));
                    }
                    self.nodes[number].recycle_transmits(batch);
                }
                Output::Deliver(batch) => {
                    // Loop probes are the node's own.
                    let of_others = batch.iter().filter(|(bytes, _)| bytes.get(12..14) != Some(&[0x88, 0xb5]));
                    self.delivered[number].extend(of_others.map(|(bytes, _)| bytes.to_vec()));
                    self.nodes[number].recycle_deliveries(batch);
                }
                Output::Link(command) => self.link(number, command),
                Output::Event(_) | Output::Remember(_) | Output::Announce(_) | Output::Door(_) | Output::Lane(..) => {}
                Output::Wait(deadline) => break self.deadlines[number] = deadline.at,
            }
        }
    }

    fn link(&mut self, number: usize, command: LinkCommand) {
        match command {
            LinkCommand::Dial { link, .. } => {
                let accepted = LinkId::Accepted(self.accepted.len() as u64);
                self.accepted.push(number);
                let (own, supernode) = (self.addrs[number], self.addrs[SUPERNODE]);
                let up = |link, remote, fingerprint| LinkEvent::Up {
                    link,
                    remote,
                    origin: remote,
                    exporter: [7; 32],
                    fingerprint,
                };
                self.todo.push_back(Todo::Link(SUPERNODE, up(accepted, own, None)));
                self.todo.push_back(Todo::Link(number, up(link, supernode, Some(Fingerprint([1; 32])))));
            }
            LinkCommand::Send { link, message } => {
                let (to, link) = match link {
                    LinkId::Dialled(_) => (SUPERNODE, self.accepted_link(number)),
                    LinkId::Accepted(id) => match self.accepted.get(usize::try_from(id).expect("small")) {
                        // Only the newest link of a node still stands.
                        Some(node) if self.accepted_link(*node) == link => (*node, LinkId::Dialled(0)),
                        Some(_) | None => return,
                    },
                };
                let message = Vec::from(message);
                self.heard.messages.push(message.clone());
                let remote = self.addrs[number];
                self.todo.push_back(Todo::Link(to, LinkEvent::Message { link, remote, message }));
            }
            LinkCommand::Close { .. } | LinkCommand::Detour { .. } => {}
        }
    }

    fn accepted_link(&self, node: usize) -> LinkId {
        let id = self.accepted.iter().rposition(|dialler| *dialler == node).expect("it has dialled");
        LinkId::Accepted(id as u64)
    }

    /// Every link breaks; the members dial again by themselves.
    fn redial(&mut self) {
        for number in 1..NODES {
            let reason = || "the test broke it".to_owned();
            let accepted = self.accepted_link(number);
            self.nodes[SUPERNODE].handle_link(self.now, LinkEvent::Down { link: accepted, reason: reason() });
            let dialled = LinkId::Dialled(0);
            self.nodes[number].handle_link(self.now, LinkEvent::Down { link: dialled, reason: reason() });
        }
    }
}

fn settings(number: u8) -> Settings {
    let is_supernode = usize::from(number) == SUPERNODE;
    let secrets = OverlaySecrets::derive("lab", &OverlayKey::from_bytes([9; 32]));
    let overlay = OverlaySettings::new("lab", secrets, longwire::datapath::SwitchSettings::default());
    let supernode = SupernodeSettings { address: "sn:7777".into(), pin: None };
    Settings {
        identity: Identity::from_secret(&[number; 32]),
        name: format!("node{number}"),
        overlays: if is_supernode { Vec::new() } else { vec![overlay] },
        supernodes: if is_supernode { Vec::new() } else { vec![supernode] },
        serve: is_supernode.then(ServeSettings::default),
        relaying: RelaySettings::default(),
        uplink: None,
        links: longwire::node::LinkBudget::default(),
        memory: Memory::default(),
        birthday: true,
        handshake: HandshakeKind::Noise,
        discovery: false,
        has_aes: true,
    }
}

fn mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number]
}

fn ethernet(dst: [u8; 6], src: [u8; 6], rest: &[u8]) -> Vec<u8> {
    let mut frame = [&dst, &src, rest].concat();
    frame.resize(60.max(frame.len()), 0x5a);
    frame
}

fn broadcast(source: u8) -> Vec<u8> {
    ethernet([0xff; 6], mac(source), &[0x88, 0xb6])
}

fn unicast(to: u8, from: u8) -> Vec<u8> {
    ethernet(mac(to), mac(from), &[0x88, 0xb6])
}

fn vlan(source: u8) -> Vec<u8> {
    ethernet([0xff; 6], mac(source), &[0x81, 0, 0, 10, 0x88, 0xb6])
}

fn arp(source: u8) -> Vec<u8> {
    let own = [mac(source).as_slice(), &[10, 0, 0, 1]].concat();
    let head = [8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    ethernet([0xff; 6], mac(source), &[&head, own.as_slice(), &[0, 0, 0, 0, 0, 0, 10, 0, 0, 1]].concat())
}
