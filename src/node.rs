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

mod seam;

pub use seam::{
    Deadline, Event, HandshakeKind, LinkCommand, LinkEvent, LinkId, Memory, Output, OverlaySettings, RememberedPeer,
    ServeSettings, Settings, SupernodeSettings,
};

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::control::report::{Request, Response};
use crate::datapath::buf::{Datagrams, Deliveries, Frames, OverlayIndex, Transmits};
use crate::time::{Time, WallTime};

/// One member of its overlays, and a supernode if asked to be one.
pub struct Node {
    outputs: VecDeque<Output>,
}

impl Node {
    /// A node that has done nothing yet. `seed` is all the chance it will ever have.
    pub fn new(_settings: Settings, _seed: [u8; 32], _now: Time, _wall: WallTime) -> Self {
        Self { outputs: VecDeque::new() }
    }

    /// Frames that came out of the TAP of `overlay`.
    pub fn handle_frames(&mut self, _now: Time, _overlay: OverlayIndex, _frames: &Frames) {}

    /// Datagrams that came to the underlay socket. They are opened in place. What belongs to QUIC
    /// (protocol.md section 1) may be left in; it is ignored.
    pub fn handle_datagrams(&mut self, _now: Time, _datagrams: &mut Datagrams) {}

    /// Something happened to a control link.
    pub fn handle_link(&mut self, _now: Time, _event: LinkEvent) {}

    /// The host's own addresses and the port of the underlay socket, at the start and when they change.
    pub fn handle_addresses(&mut self, _now: Time, _port: u16, _addresses: Vec<IpAddr>) {}

    /// A question or order from this machine.
    pub fn handle_request(&mut self, _now: Time, _request: &Request) -> Response {
        Response::Done
    }

    /// The deadline of the last [`Output::Wait`] has come.
    pub fn handle_timeout(&mut self, _now: Time) {}

    /// Tells the other members that this node leaves, as its last act.
    pub fn handle_leave(&mut self, _now: Time) {}

    /// What to do next. Pops a queue; decides nothing.
    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or(Output::Wait(Deadline { at: Time::NEVER, reason: "nothing to do" }))
    }

    /// Takes back a drained batch, so that its memory is used again.
    pub fn recycle_transmits(&mut self, _batch: Transmits) {}

    /// Takes back a drained batch, so that its memory is used again.
    pub fn recycle_deliveries(&mut self, _batch: Deliveries) {}
}
