//! What crosses a host's underlay socket, by kind: what the overlay costs beside the frames that it carries.
//!
//! Bytes are those of the wire, with the headers of IPv4 and UDP. Of a sealed message only the length is known here,
//! and it tells the frequent ones apart. A control link is counted as QUIC would send it: each message in a packet of
//! its own, and for each that comes an acknowledgement, which in truth often rides with something else.

use std::collections::BTreeMap;

use super::links::{Body, Item};
use super::world::Payload;
use crate::wire::{HEADERS_V4, Kind, relay};

/// Of a QUIC packet: flags, connection id, packet number and tag; and a stream frame with the message's length.
const QUIC: usize = 1 + 8 + 2 + 16;
const STREAM: usize = 8;
/// An acknowledgement: a packet with one ACK frame.
const ACKNOWLEDGEMENT: usize = HEADERS_V4 + QUIC + 6;
/// A sealed PROBE or ANSWER: both are equally long. Longer ones than this are MTU probes.
const PROBE: usize = 16 + 1 + 26 + 16;
const MTU_PROBE: usize = 1_000;

/// Bytes that carry frames; everything else is control.
pub const FRAMES: &str = "frames";

/// Bytes by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(pub BTreeMap<&'static str, u64>);

/// Both ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crossings {
    /// What went out.
    pub sent: Tally,
    /// What came in.
    pub received: Tally,
    /// Packets with frames, or pieces of frames, that went out.
    pub copies: u64,
}

impl Crossings {
    pub(super) fn on_sent(&mut self, payload: &Payload) {
        self.sent.add(kind(payload), size(payload));
        self.copies += u64::from(kind(payload) == FRAMES);
    }

    pub(super) fn on_received(&mut self, payload: &Payload) {
        self.received.add(kind(payload), size(payload));
        if let Payload::Segment(segment) = payload
            && matches!(segment.body, Body::Item { .. })
        {
            self.sent.add("link: acknowledgement", ACKNOWLEDGEMENT);
        }
    }
}

impl Tally {
    fn add(&mut self, kind: &'static str, bytes: usize) {
        *self.0.entry(kind).or_default() += bytes as u64;
    }

    /// What came since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let grown = |(kind, bytes): (&&'static str, &u64)| (*kind, bytes - before.0.get(kind).unwrap_or(&0));
        Self(self.0.iter().map(grown).collect())
    }

    /// Bytes that are not frames.
    pub fn control(&self) -> u64 {
        self.0.iter().filter(|(kind, _)| **kind != FRAMES).map(|(_, bytes)| bytes).sum()
    }
}

fn size(payload: &Payload) -> usize {
    match payload {
        Payload::Datagram(bytes) => HEADERS_V4 + bytes.len(),
        Payload::Segment(segment) => {
            let message = match &segment.body {
                Body::Item { item: Item::Message(message), .. } => STREAM + message.len(),
                Body::Hello | Body::Accept { .. } | Body::Item { .. } | Body::Beat | Body::Reset => 0,
            };
            HEADERS_V4 + QUIC + message
        }
    }
}

fn kind(payload: &Payload) -> &'static str {
    match payload {
        Payload::Datagram(bytes) => kind_of_datagram(bytes),
        Payload::Segment(segment) => match &segment.body {
            Body::Item { item: Item::Message(message), .. } => kind_of_message(message),
            Body::Hello | Body::Accept { .. } | Body::Item { .. } | Body::Beat | Body::Reset => "link: upkeep",
        },
    }
}

fn kind_of_datagram(bytes: &[u8]) -> &'static str {
    match bytes.first().copied().and_then(Kind::of) {
        Some(Kind::Data) => FRAMES,
        Some(Kind::Session) if bytes.len() == PROBE => "probe, answer",
        Some(Kind::Session) if bytes.len() >= MTU_PROBE => "MTU probe",
        Some(Kind::Session) => "session, other",
        Some(Kind::Init | Kind::Resp) => "handshake",
        Some(Kind::Relay) => kind_of_datagram(bytes.get(relay::HEADER_LEN..).unwrap_or_default()),
        Some(Kind::Quic | Kind::Observe | Kind::Observed | Kind::Opener) | None => "addresses",
    }
}

/// By protocol.md section 7.
fn kind_of_message(message: &[u8]) -> &'static str {
    match message.first() {
        Some(0x02 | 0x83) => "link: ping, pong",
        Some(0x05) => "link: report",
        Some(0x84 | 0x85) => "link: roster",
        Some(0x87) => "link: plan",
        Some(_) | None => "link: other",
    }
}
