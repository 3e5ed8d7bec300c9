//! The smallest world: a supernode and two members on one wire without delay. `sim/` has the large ones.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::control::report::PathKind;
use crate::datapath::buf::Origin;
use crate::datapath::offload::Virtio;
use crate::keys::{Fingerprint, Identity, OverlayKey, OverlaySecrets};

struct Wire {
    now: Time,
    nodes: Vec<Node>,
    addrs: Vec<SocketAddr>,
    deadlines: Vec<Time>,
    delivered: Vec<Vec<Vec<u8>>>,
    events: Vec<(usize, Event)>,
    accepted: Vec<usize>,
    /// Datagrams between members are lost.
    only_relay: bool,
}

enum Todo {
    Datagram(usize, SocketAddr, Vec<u8>),
    Link(usize, LinkEvent),
}

fn settings(number: u8, key: u8) -> Settings {
    let secrets = OverlaySecrets::derive("lab", &OverlayKey::from_bytes([key; 32]));
    let overlay = OverlaySettings::new("lab", secrets, crate::datapath::SwitchSettings::default());
    let is_supernode = number == 0;
    let supernode = SupernodeSettings { address: "sn:7777".into(), pin: None };
    Settings {
        identity: Identity::from_secret(&[number; 32]),
        name: format!("node{number}"),
        overlays: if is_supernode { Vec::new() } else { vec![overlay] },
        supernodes: if is_supernode { Vec::new() } else { vec![supernode] },
        serve: is_supernode.then(ServeSettings::default),
        relaying: crate::seam::RelaySettings::default(),
        uplink: None,
        links: crate::seam::budget::LinkBudget::default(),
        memory: Memory::default(),
        birthday: true,
        handshake: HandshakeKind::Noise,
        discovery: false,
        has_aes: true,
    }
}

impl Wire {
    fn new(keys: &[u8]) -> Self {
        let mut wire = Self {
            now: Time::START,
            nodes: Vec::new(),
            addrs: Vec::new(),
            deadlines: Vec::new(),
            delivered: Vec::new(),
            events: Vec::new(),
            accepted: Vec::new(),
            only_relay: false,
        };
        for number in 0..=keys.len() {
            let key = if number == 0 { 0 } else { keys[number - 1] };
            let number_byte = u8::try_from(number).expect("a few nodes");
            let wall = WallTime::since_1970(Duration::from_secs(1_700_000_000));
            wire.nodes.push(Node::new(settings(number_byte, key), [number_byte; 32], Time::START, wall));
            wire.addrs.push(SocketAddr::from(([198, 51, 100, number_byte + 1], 7777)));
            wire.deadlines.push(Time::START);
            wire.delivered.push(Vec::new());
        }
        for number in 0..wire.nodes.len() {
            let ip = wire.addrs[number].ip();
            wire.nodes[number].handle_addresses(Time::START, 7777, vec![ip]);
        }
        wire.run(Duration::from_millis(1));
        wire
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.drain();
            let (at, number) = self.deadlines.iter().enumerate().map(|(n, at)| (*at, n)).min().expect("nodes");
            if at > end {
                break;
            }
            self.now = at.max(self.now);
            self.nodes[number].handle_timeout(self.now);
        }
        self.now = end;
    }

    fn drain(&mut self) {
        let mut todo = VecDeque::new();
        loop {
            for number in 0..self.nodes.len() {
                self.drain_one(number, &mut todo);
            }
            match todo.pop_front() {
                Some(Todo::Datagram(to, from, bytes)) => {
                    let mut batch = Datagrams::default();
                    batch.push(&bytes, Origin { from, to: None, stride: bytes.len() });
                    self.nodes[to].handle_datagrams(self.now, &mut batch);
                }
                Some(Todo::Link(to, event)) => self.nodes[to].handle_link(self.now, event),
                None => break,
            }
        }
    }

    fn drain_one(&mut self, number: usize, todo: &mut VecDeque<Todo>) {
        loop {
            match self.nodes[number].poll_output() {
                Output::Transmit(batch) => {
                    for (bytes, target) in batch.iter().filter(|(_, target)| target.hops.is_none()) {
                        let to = self.addrs.iter().position(|addr| *addr == target.to);
                        let passes = !self.only_relay || number == 0 || to == Some(0);
                        if let Some(to) = to.filter(|_| passes) {
                            todo.push_back(Todo::Datagram(to, self.addrs[number], bytes.to_vec()));
                        }
                    }
                    self.nodes[number].recycle_transmits(batch);
                }
                Output::Deliver(batch) => {
                    let is_probe = |bytes: &[u8]| bytes.starts_with(&crate::wire::probe::GROUP);
                    let frames = batch.iter().map(|(bytes, _)| bytes.to_vec()).filter(|bytes| !is_probe(bytes));
                    self.delivered[number].extend(frames);
                    self.nodes[number].recycle_deliveries(batch);
                }
                Output::Link(command) => self.link(number, command, todo),
                Output::Event(event) => self.events.push((number, event)),
                Output::Remember(_) | Output::Announce(_) | Output::Door(_) | Output::Lane(..) => {}
                Output::Wait(deadline) => break self.deadlines[number] = deadline.at,
            }
        }
    }

    fn link(&mut self, number: usize, command: LinkCommand, todo: &mut VecDeque<Todo>) {
        let (own, sn, exporter) = (self.addrs[number], self.addrs[0], [7; 32]);
        match command {
            LinkCommand::Dial { link, .. } => {
                let accepted = LinkId::Accepted(self.accepted.len() as u64);
                self.accepted.push(number);
                let up =
                    |link, remote, fingerprint| LinkEvent::Up { link, remote, origin: remote, exporter, fingerprint };
                todo.push_back(Todo::Link(0, up(accepted, own, None)));
                todo.push_back(Todo::Link(number, up(link, sn, Some(Fingerprint([1; 32])))));
            }
            LinkCommand::Send { link: LinkId::Dialled(_), message } => {
                let message = message.into();
                let id = self.accepted.iter().rposition(|node| *node == number).expect("dialled before") as u64;
                todo.push_back(Todo::Link(0, LinkEvent::Message { link: LinkId::Accepted(id), remote: own, message }));
            }
            LinkCommand::Send { link: LinkId::Accepted(id), message } => {
                let message = message.into();
                let to = self.accepted[usize::try_from(id).expect("small")];
                todo.push_back(Todo::Link(to, LinkEvent::Message { link: LinkId::Dialled(0), remote: sn, message }));
            }
            LinkCommand::Close { .. } | LinkCommand::Detour { .. } => {}
        }
    }

    fn send(&mut self, from: usize, frame: &[u8]) {
        let mut batch = Frames::default();
        batch.push(frame, Virtio::default());
        self.nodes[from].handle_frames(self.now, OverlayIndex(0), &batch);
        self.drain();
    }

    fn paths(&mut self, number: usize) -> Vec<PathKind> {
        let response = self.nodes[number].handle_request(self.now, &Request::Status);
        let Response::Status(status) = response else { panic!("not a status: {response:?}") };
        status.overlays[0].peers.iter().map(|peer| peer.path.kind).collect()
    }
}

fn broadcast(source: u8, fill: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, source, 0x88, 0xb6]);
    frame.resize(len, fill);
    frame
}

#[test]
fn the_first_frame_goes_by_the_relay_and_is_not_lost() {
    let mut wire = Wire::new(&[9, 9]);
    wire.only_relay = true;
    wire.run(Duration::from_secs(1));
    assert_eq!(wire.paths(1), [PathKind::Relayed], "{:?}", wire.events);
    let frame = broadcast(1, 0xaa, 1514);
    wire.send(1, &frame);
    assert_eq!(wire.delivered[2], [frame], "whole, though it left in two pieces");
}

#[test]
fn a_direct_path_is_found_within_a_second() {
    let mut wire = Wire::new(&[9, 9, 9]);
    wire.run(Duration::from_secs(1));
    for number in 1..=3 {
        assert_eq!(wire.paths(number), [PathKind::Direct; 2], "{:?}", wire.events);
    }
    wire.send(1, &broadcast(1, 1, 60));
    assert_eq!((wire.delivered[1].len(), wire.delivered[2].len(), wire.delivered[3].len()), (0, 1, 1));
}

#[test]
fn another_key_is_another_overlay() {
    let mut wire = Wire::new(&[9, 9, 8]);
    wire.run(Duration::from_secs(11));
    assert_eq!(wire.paths(3), []);
    assert!(wire.events.contains(&(3, Event::Alone { overlay: OverlayIndex(0) })));
    wire.send(1, &broadcast(1, 1, 60));
    assert_eq!((wire.delivered[2].len(), wire.delivered[3].len()), (1, 0));
}

#[test]
fn a_direct_path_that_dies_falls_to_the_relay_and_comes_back() {
    let mut wire = Wire::new(&[9, 9]);
    wire.run(Duration::from_secs(1));
    wire.only_relay = true;
    for step in 0..40 {
        wire.send(1, &broadcast(1, step, 60));
        wire.run(Duration::from_millis(100));
    }
    assert_eq!(wire.paths(1), [PathKind::Relayed], "{:?}", wire.events);
    let arrived = wire.delivered[2].len();
    assert!(arrived >= 40 - 13, "1.25 s of silence at most, {arrived} of 40 arrived");
    wire.only_relay = false;
    wire.run(Duration::from_secs(50));
    assert_eq!(wire.paths(1), [PathKind::Direct], "{:?}", wire.events);
}

#[test]
fn keys_change_in_service_and_no_frame_is_lost() {
    let mut wire = Wire::new(&[9, 9]);
    wire.run(Duration::from_secs(1));
    for step in 0..500 {
        wire.send(1, &broadcast(1, u8::try_from(step % 251).expect("small"), 60));
        wire.send(2, &broadcast(2, 1, 60));
        wire.run(Duration::from_secs(1));
    }
    assert_eq!((wire.delivered[1].len(), wire.delivered[2].len()), (500, 500), "{:?}", wire.events);
}

#[test]
fn a_quiet_overlay_is_quiet() {
    let mut wire = Wire::new(&[9, 9]);
    wire.run(Duration::from_secs(400));
    assert_eq!(wire.paths(1), [PathKind::Direct], "{:?}", wire.events);
    let changes = wire.events.iter().filter(|(_, event)| matches!(event, Event::PathChanged { .. })).count();
    assert!(changes <= 4, "{:?}", wire.events);
}
