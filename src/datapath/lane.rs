//! Lanes: several threads that carry frames, each with a datapath of its own.
//!
//! Lane 0 is the whole datapath and the only one that the control room knows. A further [`Lane`] is a copy
//! that carries what is plain: known unicast between its queue of each TAP and peers on direct paths.
//! Everything else it hands to lane 0 ([`Handed`]), which teaches it in return ([`Order::Done`]). A copy is
//! changed by [`Order`]s only, and tells what it did now and then ([`Report`]).
//!
//! Nonces: a lane seals with the stream of its number (protocol.md section 5). Replay windows: whatever
//! lane receives a packet, `stream % lanes` opens it. Order: the kernel puts a flow into one queue, a queue
//! is a lane, a lane is a stream, a stream is a lane at the other end. Where a flow passes from lane 0 to
//! another lane, which is when its addresses become known, that lane reads nothing more until lane 0 has
//! sent what was handed to it ([`Lane::wants_input`]).
//!
//! Values, like everything here: `io/lanes` has the threads.

mod first;

mod further;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use super::buf::{Batch, Datagrams, Deliveries, Frames, OverlayIndex, Transmits};
use super::fdb::PortId;
use super::frame::Mac;
use super::pairs::{MacPair, Volume};
use super::path::Path;
use super::port::Activity;
use super::rules::Rules;
use super::seal::Share;
use super::stats::Stats;
use super::{Command, Datapath, Notice};
use crate::time::Time;
use crate::wire::data::{COUNTER_AT, Checksum, DATA, FrameKind, HEADER_LEN, STREAMS};
use first::First;
use further::Further;

/// Most lanes: a key has no more streams.
pub const LANES_MAX: usize = STREAMS;
/// Between reports of a busy lane. A tenth of the silence that lets the control room doubt a path.
const REPORT_EVERY: Duration = Duration::from_millis(50);
/// Between reports of addresses heard: a fifth of [`QUIET`](super::fdb::QUIET).
const SEEN_EVERY: Duration = Duration::from_secs(1);
/// Between reports of which machines talk: as often as the control room reads it.
const PAIRS_EVERY: Duration = Duration::from_millis(500);

/// Which lane a datapath is.
pub(super) enum Role {
    /// The only one.
    Alone,
    /// Lane 0 of several.
    First(Box<First>),
    /// Another one.
    Further(Box<Further>),
}

impl Role {
    pub(super) fn share(&self) -> Share {
        match self {
            Self::Alone => Share::WHOLE,
            Self::First(first) => Share::of(0, first.lanes),
            Self::Further(lane) => Share::of(lane.number, lane.lanes),
        }
    }
}

/// From lane 0 to another.
#[derive(Debug)]
pub enum Order {
    /// Of the control room's, carried out by every lane.
    Command(Command),
    /// The peer has shown that it has the keys of this receiver index: they are the present ones.
    Promote {
        /// Of this port.
        port: PortId,
        /// Names the keys.
        index: u32,
    },
    /// An address is not where it was.
    Forget {
        /// In this overlay.
        overlay: OverlayIndex,
        /// In this VLAN.
        vlan: u16,
        /// The address.
        mac: Mac,
    },
    /// Packets to this peer leave from there: its own came to it.
    Source {
        /// Its port.
        port: PortId,
        /// Where its packets came from.
        peer: SocketAddr,
        /// The address of ours.
        own: IpAddr,
    },
    /// Packets that are this lane's to open, and came to another.
    Datagrams(Datagrams),
    /// What was handed over first of all that is under way is done, and taught this.
    Done(Vec<Known>),
}

/// Where an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Known {
    /// In this overlay.
    pub overlay: OverlayIndex,
    /// In this VLAN.
    pub vlan: u16,
    /// The address.
    pub mac: Mac,
    /// There.
    pub port: PortId,
    /// When it was heard last.
    pub heard: Time,
}

/// What is not a further lane's business.
#[derive(Debug, Default)]
pub struct Handed {
    /// Out of the TAPs, by overlay.
    pub(super) frames: Vec<Frames>,
    /// Off the underlay, unopened.
    pub(super) datagrams: Datagrams,
    /// Opened by the lane.
    pub(super) opened: Batch<Opened>,
}

/// What is known of an opened frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    pub(super) from: (OverlayIndex, PortId),
    pub(super) kind: FrameKind,
    pub(super) checksum: Checksum,
}

impl Handed {
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Frames and packets in it.
    fn len(&self) -> usize {
        self.frames.iter().map(Batch::len).sum::<usize>() + self.datagrams.len() + self.opened.len()
    }
}

/// What a further lane did since the last one.
#[derive(Debug)]
pub struct Report {
    pub(super) ports: Vec<(PortId, Activity)>,
    pub(super) seen: Vec<Known>,
    pub(super) confirmed: Vec<(PortId, u32, Path)>,
    pub(super) notices: Vec<Notice>,
    pub(super) stats: Vec<Stats>,
    pub(super) node_stats: Stats,
    pub(super) machines: Vec<(OverlayIndex, Vec<(MacPair, Volume)>)>,
}

/// Whose packet this is to open, of so many lanes: `None` if it is no DATA.
fn owner(packet: &[u8], lanes: u8) -> Option<u8> {
    let is_data = packet.len() > HEADER_LEN && packet[0] == DATA;
    is_data.then(|| (packet[COUNTER_AT] >> 4) % lanes)
}

impl Datapath {
    /// Whether there are no other lanes, and so nothing is another's business.
    pub(super) const fn is_alone(&self) -> bool {
        matches!(self.role, Role::Alone)
    }

    /// Makes this one lane 0 of `lanes`; gives the others.
    ///
    /// # Panics
    /// If `lanes` is 0 or more than [`LANES_MAX`].
    pub fn split(&mut self, lanes: usize, seed: [u8; 32]) -> Vec<Lane> {
        assert!((1..=LANES_MAX).contains(&lanes), "as many lanes as a key has streams");
        if lanes == 1 {
            return Vec::new();
        }
        let count = u8::try_from(lanes).expect("at most as many as a key has streams");
        let mut rng = ChaCha20Rng::from_seed(seed);
        let further = (1..count).map(|number| self.copy((number, count), &mut rng)).collect();
        self.switches.iter_mut().for_each(|switch| switch.fdb.note_changes());
        self.role = Role::First(Box::new(First::new(count)));
        further
    }

    /// With the ports that there are; nobody has keys yet.
    fn copy(&self, (number, lanes): (u8, u8), rng: &mut ChaCha20Rng) -> Lane {
        let settings = self.switches.iter().map(|switch| switch.settings()).collect::<Vec<_>>();
        let mut datapath = Self::new(&settings, rng);
        for (id, port) in &self.ports {
            datapath
                .handle_command(Time::START, Command::OpenPort { port: *id, overlay: port.overlay, short: port.short });
        }
        for (switch, copy) in self.switches.iter().zip(&mut datapath.switches) {
            copy.marking = switch.marking;
            copy.rules = switch.rules.as_ref().and_then(|rules| Rules::new(rules.all(), None));
        }
        datapath.reserve.clone_from(&self.reserve);
        datapath.role = Role::Further(Box::new(Further::new(number, lanes, settings.len())));
        Lane(datapath)
    }
}

/// A further lane.
pub struct Lane(Datapath);

impl Lane {
    /// From 1.
    pub fn number(&self) -> u8 {
        self.own().number
    }

    /// Frames out of this lane's queue of a TAP.
    pub fn handle_frames(&mut self, now: Time, overlay: OverlayIndex, frames: &Frames) {
        self.0.handle_frames(now, overlay, frames);
        self.own_mut().worked(now);
    }

    /// Datagrams off this lane's socket.
    pub fn handle_datagrams(&mut self, now: Time, datagrams: &mut Datagrams) {
        self.0.handle_datagrams(now, datagrams);
        self.own_mut().worked(now);
    }

    /// Lane 0 says so.
    pub fn handle_order(&mut self, now: Time, order: Order) {
        self.0.obey(now, order);
        self.own_mut().worked(now);
    }

    /// Whether there is anything to be said against new frames and datagrams: what lane 0 was handed of the same flows
    /// must be on its way first.
    pub fn wants_input(&self) -> bool {
        self.own().known.is_empty()
    }

    /// What is to be sent and delivered since the last call; `spare` batches take their places.
    pub fn take_batches(&mut self, spare: (Transmits, Deliveries)) -> (Transmits, Deliveries) {
        self.0.take_batches(spare)
    }

    /// Whether lane 0 is to do something.
    pub fn has_handed(&self) -> bool {
        !self.own().handed.is_empty()
    }

    /// What lane 0 is to do. It will answer each with one [`Order::Done`].
    pub fn take_handed(&mut self) -> Handed {
        self.own_mut().take_handed()
    }

    /// Lane 0 takes no more: what was for it is dropped and counted.
    pub fn drop_handed(&mut self) {
        self.0.drop_handed();
    }

    /// When [`Lane::take_report`] has something to say.
    pub fn report_at(&self) -> Time {
        self.own().report_at
    }

    /// What was done since the last one.
    pub fn take_report(&mut self, now: Time) -> Report {
        self.0.take_report(now)
    }

    /// Nobody takes a report now.
    pub fn put_report_off(&mut self, now: Time) {
        self.own_mut().report_at = now + REPORT_EVERY;
    }

    fn own(&self) -> &Further {
        let Role::Further(lane) = &self.0.role else { unreachable!("made so, and never changed") };
        lane
    }

    fn own_mut(&mut self) -> &mut Further {
        let Role::Further(lane) = &mut self.0.role else { unreachable!("made so, and never changed") };
        lane
    }
}

#[cfg(test)]
mod tests;
