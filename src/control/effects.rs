//! What the control room wants done: orders, link commands, events, deadlines.
//!
//! One value that every part of the control room writes into and the node drains. It also holds the
//! present time and the node's only source of chance, so that no part has its own.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::doors::Doors;
use super::timers::Timers;
use crate::datapath::fdb::PortId;
use crate::datapath::limit::Bucket;
use crate::datapath::stats::DropReason;
use crate::datapath::{Command, LegId, Path};
use crate::seam::{Announce, Event, LinkCommand, LinkId};
use crate::time::{Time, WallTime};
use crate::wire::{message, session};

/// Packets per second to one address that never answered, for all peers that name it...
const TARGET_RATE: u32 = 20;
/// ...and at once: sixty peers behind one NAT.
const TARGET_BURST: u32 = 600;
/// Addresses remembered for that; beyond it all are forgotten, and each peer's own limit holds alone.
const TARGETS_MAX: usize = 4096;

/// Everything that goes out of the control room.
pub struct Effects {
    /// The present time of the call in progress.
    pub now: Time,
    /// All deadlines.
    pub timers: Timers,
    /// Orders for the corridor.
    pub commands: VecDeque<Command>,
    /// For control links.
    pub links: VecDeque<LinkCommand>,
    /// For the host's own links.
    pub announces: VecDeque<Announce>,
    /// For doors.
    pub doors: Doors,
    /// For the user.
    pub events: VecDeque<Event>,
    /// The node's chance.
    pub rng: ChaCha20Rng,
    /// Packets to addresses that never answered, by address.
    targets: BTreeMap<IpAddr, Bucket>,
    /// Receiver indices in use, and whose they are.
    pub indices: BTreeMap<u32, PortId>,
    /// Outer MACs of the INITs answered last, and whose they are: a retransmission costs no Diffie-Hellman.
    pub answered: BTreeMap<[u8; 16], PortId>,
    /// A path has fallen silent: our own way out may have changed.
    pub is_uneasy: bool,
    leg_names: BTreeMap<LegId, String>,
    start: (Time, WallTime),
    last_timestamp: WallTime,
    next_port: u32,
    next_leg: u32,
}

impl Effects {
    /// With nothing to do yet.
    pub fn new(seed: [u8; 32], now: Time, wall: WallTime) -> Self {
        Self {
            now,
            timers: Timers::default(),
            commands: VecDeque::new(),
            links: VecDeque::new(),
            announces: VecDeque::new(),
            doors: Doors::default(),
            events: VecDeque::new(),
            rng: ChaCha20Rng::from_seed(seed),
            targets: BTreeMap::new(),
            indices: BTreeMap::new(),
            answered: BTreeMap::new(),
            is_uneasy: false,
            leg_names: BTreeMap::new(),
            start: (now, wall),
            last_timestamp: wall,
            next_port: 1,
            next_leg: 1,
        }
    }

    /// Takes chance and calendar anew.
    pub fn reseed(&mut self, seed: [u8; 32], now: Time, wall: WallTime) {
        // What was drawn before goes in too, so that a poor seed makes nothing worse.
        let mut mixed = [0; 32];
        self.rng.fill_bytes(&mut mixed);
        mixed.iter_mut().zip(seed).for_each(|(byte, new)| *byte ^= new);
        self.rng = ChaCha20Rng::from_seed(mixed);
        self.start = (now, wall);
    }

    /// A port id that was never used.
    pub fn new_port(&mut self) -> PortId {
        let port = PortId(self.next_port);
        self.next_port += 1;
        port
    }

    /// A leg id that was never used, at the supernode with this `host:port`.
    pub fn new_leg(&mut self, supernode: &str) -> LegId {
        let leg = LegId(self.next_leg);
        self.next_leg += 1;
        self.leg_names.insert(leg, supernode.to_owned());
        leg
    }

    /// A leg is closed.
    pub fn drop_leg(&mut self, leg: LegId) {
        self.leg_names.remove(&leg);
        self.commands.push_back(Command::DropLeg { leg });
    }

    /// A path in words.
    pub fn describe(&self, path: Option<Path>) -> String {
        match path {
            Some(Path::Direct(addr)) => format!("direct {addr}"),
            Some(Path::Relayed(leg, _)) => {
                format!("relayed by {}", self.leg_names.get(&leg).map_or("a supernode", String::as_str))
            }
            None => "none".to_owned(),
        }
    }

    /// A receiver index that is not in use.
    pub fn new_index(&mut self, port: PortId) -> u32 {
        loop {
            let index = self.rng.next_u32();
            if let std::collections::btree_map::Entry::Vacant(free) = self.indices.entry(index) {
                free.insert(port);
                return index;
            }
        }
    }

    /// A TAI64N label later than every one before, whatever the wall clock does.
    pub fn timestamp(&mut self) -> [u8; 12] {
        let now = self.start.1 + self.now.since(self.start.0);
        self.last_timestamp = now.max(self.last_timestamp + Duration::from_nanos(1));
        self.last_timestamp.tai64n()
    }

    /// Whether one more packet may go to an address that never answered, whoever named it.
    pub fn may_try(&mut self, target: IpAddr) -> bool {
        if self.targets.len() >= TARGETS_MAX && !self.targets.contains_key(&target) {
            self.targets.clear();
        }
        let limit = self.targets.entry(target).or_insert_with(|| Bucket::new(TARGET_RATE, TARGET_BURST));
        limit.take(self.now)
    }

    /// `base` and up to a quarter more.
    pub fn jittered(&mut self, base: Duration) -> Duration {
        let quarter = u64::try_from(base.as_nanos() / 4).unwrap_or(u64::MAX).max(1);
        base + Duration::from_nanos(self.rng.next_u64() % quarter)
    }

    /// Less than `span`, by chance.
    pub fn within(&mut self, span: Duration) -> Duration {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX).max(1);
        Duration::from_nanos(self.rng.next_u64() % nanos)
    }

    /// A packet ends in the control room.
    pub fn dropped(&mut self, reason: DropReason) {
        self.commands.push_back(Command::CountDrop { reason });
    }

    /// Seals `message` to `port` and sends it on `path`.
    pub fn send(&mut self, port: PortId, path: Path, message: &session::Message) {
        self.commands.push_back(Command::SendSession { port, path, message: message.bytes(), hops: None });
    }

    /// Sends a message on a control link.
    pub fn tell(&mut self, link: LinkId, message: &message::Message) {
        self.tell_bytes(link, message.bytes().into());
    }

    /// Sends a message on a control link, one that may go to others too.
    pub fn tell_bytes(&mut self, link: LinkId, message: Bytes) {
        self.links.push_back(LinkCommand::Send { link, message });
    }
}
