//! The daemon as one value: frames and datagrams in, frames and datagrams out.
//!
//! No socket, no clock, no thread, no randomness but its seed. `io/driver` feeds it from the kernel,
//! `sim/` from a made-up world; both obey one contract:
//!
//! 1. Call one `handle_*` with the present time.
//! 2. Call [`Node::poll_output`] until it answers [`Output::Wait`]; do what it says, in order.
//! 3. Wait for input or for that deadline ([`Node::handle_timeout`]), then go to 1.
//!
//! An early or repeated `handle_timeout` does nothing. After it, the next deadline is later than `now`.
//! The corridor (`datapath`) and the control room (`control`) meet only here, through
//! [`Command`](crate::datapath::Command) and [`Notice`](crate::datapath::Notice).

pub use crate::seam::budget::LinkBudget;
pub use crate::seam::reserve::{MEGABIT, RESERVED_MAX, ReserveSettings, contradiction};
pub use crate::seam::rule::{LINKS_MAX, LinkSettings, LinkTo, RouteSettings, Target, check_source};
pub use crate::seam::{
    Announce, Deadline, DoorCommand, DoorId, Event, HandshakeKind, LinkCommand, LinkEvent, LinkId, Memory,
    NetworkRoute, Output, OverlaySettings, RelaySettings, RememberedPeer, ServeSettings, Settings, SupernodeSettings,
};

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use crate::control::Control;
use crate::control::report::{Request, Response};
use crate::datapath::buf::{Datagrams, Deliveries, Frames, OverlayIndex, Transmits};
use crate::datapath::frame::Mac;
use crate::datapath::lane::{Handed, Lane, Order, Report};
use crate::datapath::{Datapath, SwitchSettings};
use crate::time::{Time, WallTime};
use crate::wire::tree::ShortId;

/// Spare batches kept for reuse.
const SPARES: usize = 4;

/// One member of its overlays, and a supernode if asked to be one.
pub struct Node {
    datapath: Datapath,
    control: Control,
    outputs: VecDeque<Output>,
    spare_transmits: Vec<Transmits>,
    spare_deliveries: Vec<Deliveries>,
}

impl Node {
    /// A node that has done nothing yet. `seed` is all the chance it will ever have.
    pub fn new(settings: Settings, seed: [u8; 32], now: Time, wall: WallTime) -> Self {
        let mut rng = <rand_chacha::ChaCha20Rng as rand_chacha::rand_core::SeedableRng>::from_seed(seed);
        let id = settings.identity.id();
        let (station, short) = (Mac(id.station()), ShortId::of(id));
        let switch = |overlay: &OverlaySettings| SwitchSettings { station, short, ..overlay.switch };
        let switches = settings.overlays.iter().map(switch).collect::<Vec<_>>();
        let datapath = Datapath::new(&switches, &mut rng);
        let mut control_seed = [0; 32];
        rand_chacha::rand_core::RngCore::fill_bytes(&mut rng, &mut control_seed);
        let control = Control::new(settings, control_seed, now, wall);
        let mut node = Self {
            datapath,
            control,
            outputs: VecDeque::new(),
            spare_transmits: Vec::new(),
            spare_deliveries: Vec::new(),
        };
        node.settle(now);
        node
    }

    /// Splits the corridor into `lanes`, of which this node keeps the first; gives the others, to be driven by threads of
    /// their own. Once, before anything is handed in.
    pub fn split(&mut self, lanes: usize, seed: [u8; 32]) -> Vec<Lane> {
        self.datapath.split(lanes, seed)
    }

    /// What another lane leaves to us.
    pub fn handle_handed(&mut self, now: Time, lane: u8, handed: Handed) {
        let known = self.datapath.handle_handed(now, handed);
        self.settle(now);
        // Behind the packets that this makes: the lane must not overtake them.
        self.outputs.push_back(Output::Lane(lane, Order::Done(known)));
    }

    /// What another lane did.
    pub fn handle_report(&mut self, now: Time, report: Report) {
        self.datapath.handle_report(now, report);
        self.settle(now);
    }

    /// Frames that came out of the TAP of `overlay`.
    pub fn handle_frames(&mut self, now: Time, overlay: OverlayIndex, frames: &Frames) {
        self.datapath.handle_frames(now, overlay, frames);
        self.settle(now);
    }

    /// Datagrams that came to the underlay socket. They are opened in place. What belongs to QUIC
    /// (protocol.md section 1) may be left in; it is ignored.
    pub fn handle_datagrams(&mut self, now: Time, datagrams: &mut Datagrams) {
        self.datapath.handle_datagrams(now, datagrams);
        self.settle(now);
    }

    /// Something happened to a control link.
    pub fn handle_link(&mut self, now: Time, event: LinkEvent) {
        self.control.handle_link(now, event);
        self.settle(now);
    }

    /// The host's own addresses and the port of the underlay socket, at the start and when they change.
    pub fn handle_addresses(&mut self, now: Time, port: u16, addresses: Vec<IpAddr>) {
        self.control.handle_addresses(now, port, addresses);
        self.settle(now);
    }

    /// The host's routes that lead into overlays, and those that lead out of them again.
    pub fn handle_routes(&mut self, now: Time, routes: Vec<NetworkRoute>) {
        self.control.handle_routes(now, routes);
        self.settle(now);
    }

    /// The address at which the host's router lets strangers in to the underlay socket, when it changes.
    pub fn handle_mapped(&mut self, now: Time, mapped: Option<SocketAddr>) {
        self.control.handle_mapped(now, mapped);
        self.settle(now);
    }

    /// How much of the time tasks wait for a processor at this host, in percent, if the kernel tells.
    pub fn handle_pressure(&mut self, now: Time, load: Option<u8>) {
        self.control.handle_pressure(now, load);
        self.settle(now);
    }

    /// A DISCOVER that was heard on one of the host's links.
    pub fn handle_announcement(&mut self, now: Time, from: SocketAddr, packet: &[u8]) {
        self.control.handle_announcement(now, from, packet);
        self.settle(now);
    }

    /// A question or order from this machine.
    pub fn handle_request(&mut self, now: Time, request: &Request) -> Response {
        let response = self.control.handle_request(now, &mut self.datapath, request);
        self.settle(now);
        response
    }

    /// This host was restored from a snapshot, or may have been: keys, links and chance of before are given up, and
    /// made anew with `seed`.
    pub fn handle_resumed(&mut self, now: Time, wall: WallTime, seed: [u8; 32]) {
        self.control.handle_resumed(now, wall, seed);
        self.settle(now);
    }

    /// The deadline of the last [`Output::Wait`] has come.
    pub fn handle_timeout(&mut self, now: Time) {
        while self.deadline().at <= now {
            self.control.handle_timeout(now);
            self.settle(now);
        }
    }

    /// Tells the other members that this node leaves, as its last act.
    pub fn handle_leave(&mut self, now: Time) {
        self.control.handle_leave(now);
        self.settle(now);
    }

    /// Carries notices to the control room and orders to the corridor until both are silent.
    fn settle(&mut self, now: Time) {
        loop {
            if let Some(command) = self.control.fx.commands.pop_front() {
                self.datapath.handle_command(now, command);
            } else if let Some(notice) = self.datapath.poll_notice() {
                self.control.handle_notice(now, notice);
            } else {
                break;
            }
        }
        self.outputs.extend(self.control.fx.doors.commands.drain(..).map(Output::Door));
        // Before the packets: the lanes have keys before a peer hears of them.
        self.outputs.extend(self.datapath.take_orders().into_iter().map(|(lane, order)| Output::Lane(lane, order)));
        if self.datapath.has_batches() {
            let spare =
                (self.spare_transmits.pop().unwrap_or_default(), self.spare_deliveries.pop().unwrap_or_default());
            let (transmits, deliveries) = self.datapath.take_batches(spare);
            self.queue_batches(transmits, deliveries);
        }
        self.outputs.extend(self.control.fx.links.drain(..).map(Output::Link));
        self.outputs.extend(self.control.fx.announces.drain(..).map(Output::Announce));
        self.outputs.extend(self.control.fx.events.drain(..).map(Output::Event));
        self.outputs.extend(self.control.take_memory().map(Output::Remember));
    }

    fn queue_batches(&mut self, transmits: Transmits, deliveries: Deliveries) {
        if transmits.is_empty() {
            self.recycle_transmits(transmits);
        } else {
            self.outputs.push_back(Output::Transmit(transmits));
        }
        if deliveries.is_empty() {
            self.recycle_deliveries(deliveries);
        } else {
            self.outputs.push_back(Output::Deliver(deliveries));
        }
    }

    /// What to do next. Pops a queue; decides nothing.
    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| Output::Wait(self.deadline()))
    }

    fn deadline(&self) -> Deadline {
        match self.control.fx.timers.next() {
            Some((at, timer)) => Deadline { at, reason: timer.reason() },
            None => Deadline { at: Time::NEVER, reason: "nothing to do" },
        }
    }

    /// Takes back a drained batch, so that its memory is used again.
    pub fn recycle_transmits(&mut self, mut batch: Transmits) {
        batch.clear();
        if self.spare_transmits.len() < SPARES {
            self.spare_transmits.push(batch);
        }
    }

    /// Takes back a drained batch, so that its memory is used again.
    pub fn recycle_deliveries(&mut self, mut batch: Deliveries) {
        batch.clear();
        if self.spare_deliveries.len() < SPARES {
            self.spare_deliveries.push(batch);
        }
    }
}

#[cfg(test)]
mod tests;
