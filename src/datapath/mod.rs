//! The corridor: one frame, in order of travel.
//!
//! Towards the peers: [`frame`] reads the header, `switch` and [`fdb`] decide, `port` names keys and
//! path, [`seal`] makes a packet, `relay` puts a leg in front, [`buf`] carries it out. Back the other
//! way. No await, no lock, no clock, no log, no allocation per frame. It meets the control room only
//! through [`Command`] and [`Notice`], which `node.rs` carries.

pub mod buf;

pub mod frame;

pub mod offload;

mod switch;

pub mod fdb;

pub mod limit;

pub mod clamp;

mod port;

pub mod seal;

pub mod replay;

pub mod fragment;

mod relay;

pub mod stats;

mod command;

mod orders;

pub use command::{Command, Notice};
pub use port::{Activity, LegId, Path};
pub use switch::SwitchSettings;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;

use buf::{Datagrams, Deliveries, Delivery, Frames, OverlayIndex, Target, Transmits};
use fdb::{PortId, TAP};
use frame::Header;
use offload::Virtio;
use port::{Generation, Port};
use relay::{Channels, Legs};
use stats::{DropReason, Stats};
use switch::{Switch, Verdict};

use crate::time::Time;
use crate::wire::data::{self, Checksum, FRAGMENT_LEN, Fragment, HEADER_LEN, Meta, OVERHEAD, TAG_LEN};
use crate::wire::handshake::Envelope;
use crate::wire::{Kind, relay as relay_wire};

/// The largest IP packet sent before a path was measured: it passes PPPoE (1492), the clouds' networks
/// (1450, 1460) and most tunnels. Larger ones vanish there without a word, and full frames are cut anyway.
const UNDERLAY_MTU: usize = 1400;
/// What fits an IPv4 datagram.
const LIMIT_V4: usize = UNDERLAY_MTU - 20 - 8;
/// What fits an IPv6 datagram.
const LIMIT_V6: usize = UNDERLAY_MTU - 40 - 8;

/// The corridor of a node: all its overlays, ports, keys and legs.
pub struct Datapath {
    switches: Vec<Switch>,
    ports: BTreeMap<PortId, Port>,
    by_index: HashMap<u32, PortId, ahash::RandomState>,
    remote_indices: HashSet<u32, ahash::RandomState>,
    legs: Legs,
    channels: Channels,
    stats: Vec<Stats>,
    node_stats: Stats,
    transmits: Transmits,
    deliveries: Deliveries,
    scratch: Vec<u8>,
    notices: VecDeque<Notice>,
}

/// The longest frame that travels in one packet on `path`, whose next stop is `to`.
fn frame_limit(path: Path, to: SocketAddr) -> usize {
    let datagram = if to.is_ipv4() { LIMIT_V4 } else { LIMIT_V6 };
    datagram - lead(path) - OVERHEAD
}

/// Bytes in front of a packet on `path`: the relay header, or nothing.
const fn lead(path: Path) -> usize {
    if path.is_direct() { 0 } else { relay_wire::HEADER_LEN }
}

impl Datapath {
    /// Frames out of the TAP of `overlay`, towards the peers. [`Datapath::handle_datagrams`] mirrors it.
    pub fn handle_frames(&mut self, now: Time, overlay: OverlayIndex, frames: &Frames) {
        for (frame, _virtio) in frames.iter() {
            self.outbound(now, overlay, frame);
        }
    }

    fn outbound(&mut self, now: Time, overlay: OverlayIndex, frame: &[u8]) {
        self.stats[overlay.0].frame_in(frame.len());
        let Some(header) = Header::parse(frame) else {
            return self.stats[overlay.0].dropped(DropReason::Runt);
        };
        if self.is_own_packet(frame, &header) {
            self.notices.push_back(Notice::UnderlayLoop { overlay });
            return self.stats[overlay.0].dropped(DropReason::UnderlayLoop);
        }
        match self.switches[overlay.0].judge_outbound(now, frame, &header) {
            Verdict::Forward(port) => self.send(now, port, frame),
            Verdict::Flood => {
                self.stats[overlay.0].floods += 1;
                self.flood(now, overlay, frame);
            }
            Verdict::Drop(reason) => self.stats[overlay.0].dropped(reason),
        }
    }

    /// Whether a frame carries a packet that we sealed: then the overlay is about to run through itself.
    fn is_own_packet(&self, frame: &[u8], header: &Header) -> bool {
        let Some(payload) = frame::udp_payload(frame, header) else { return false };
        let inner = match payload.first() {
            Some(&relay_wire::RELAY) => payload.get(relay_wire::HEADER_LEN..).unwrap_or_default(),
            _ => payload,
        };
        data::Header::parse(inner).is_ok_and(|header| self.remote_indices.contains(&header.receiver))
    }

    /// Once to each peer. A peer that cannot be sent to does not keep it from the others.
    fn flood(&mut self, now: Time, overlay: OverlayIndex, frame: &[u8]) {
        let ports = std::mem::take(&mut self.switches[overlay.0].ports);
        for port in &ports {
            self.send(now, *port, frame);
        }
        self.switches[overlay.0].ports = ports;
    }

    /// To one peer: seals it, or keeps it until there are keys and a path.
    fn send(&mut self, now: Time, id: PortId, frame: &[u8]) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        let stats = &mut self.stats[port.overlay.0];
        let (Some(path), true) = (port.path, port.sending(now).is_some()) else {
            self.notices.push_back(Notice::NeedKeys { port: id });
            return if !port.hold(now, frame) {
                stats.dropped(DropReason::QueueFull)
            };
        };
        let Some(to) = self.legs.address(path) else { return stats.dropped(DropReason::NoPath) };
        if port.note_sent(now, frame.len()) {
            self.notices.push_back(Notice::Active { port: id });
        }
        let limit = frame_limit(path, to);
        let mut scratch = std::mem::take(&mut self.scratch);
        let clamps = self.switches[port.overlay.0].clamps_mss();
        let frame = if clamps { clamp::clamp_mss(frame, limit, &mut scratch) } else { frame };
        self.pack(now, id, path, limit, frame);
        self.scratch = scratch;
    }

    /// One frame as one packet, or as two if it has more than `limit` bytes.
    fn pack(&mut self, now: Time, id: PortId, path: Path, limit: usize, frame: &[u8]) {
        if frame.len() <= limit {
            let whole = Meta { fragment: false, checksum: Checksum::Finished }.byte();
            return self.transmit(now, id, path, None, (true, &[&[whole], frame]));
        }
        let Some(port) = self.ports.get_mut(&id) else { return };
        let stats = &mut self.stats[port.overlay.0];
        let Some(cut) = fragment::split(frame.len(), limit - FRAGMENT_LEN) else {
            return stats.dropped(DropReason::Jumbo);
        };
        stats.splits += 1;
        port.fragment_id = port.fragment_id.wrapping_add(1);
        let (fragment_id, piece) = (port.fragment_id, Meta { fragment: true, checksum: Checksum::Finished }.byte());
        for (part, bytes) in [(0, &frame[..cut]), (1, &frame[cut..])] {
            let fragment = Fragment { id: fragment_id, part }.bytes();
            self.transmit(now, id, path, None, (true, &[&[piece], &fragment, bytes]));
        }
    }

    /// Seals `parts` as one packet to `id` and puts it on `path`.
    fn transmit(&mut self, now: Time, id: PortId, path: Path, hops: Option<u8>, (is_data, parts): (bool, &[&[u8]])) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        let stats = &mut self.stats[port.overlay.0];
        let (Some(epoch), Some(to)) = (port.sending(now), self.legs.address(path)) else { return };
        stats.datagrams_out += 1;
        let lead = lead(path);
        let len = lead + HEADER_LEN + parts.iter().map(|part| part.len()).sum::<usize>() + TAG_LEN;
        let packet = &mut self.transmits.reserve(len)[..len];
        let mut at = lead + HEADER_LEN;
        for part in parts {
            packet[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        epoch.sealer.seal(is_data, &mut packet[lead..]);
        self.legs.wrap(path, packet);
        self.transmits.commit(len, Target { to, hops });
    }

    /// Datagrams off the underlay, towards the TAPs. Opened in place.
    pub fn handle_datagrams(&mut self, now: Time, datagrams: &mut Datagrams) {
        for index in 0..datagrams.len() {
            let Some((buffer, origin)) = datagrams.get_mut(index) else { return };
            let (from, stride) = (origin.from, origin.stride.max(1));
            for datagram in buffer.chunks_mut(stride) {
                self.inbound(now, from, datagram);
            }
        }
    }

    fn inbound(&mut self, now: Time, from: SocketAddr, datagram: &mut [u8]) {
        match datagram.first().copied().and_then(Kind::of) {
            Some(Kind::Init | Kind::Resp) => self.handshake(Path::Direct(from), datagram),
            Some(Kind::Data | Kind::Session) => self.open(now, Path::Direct(from), datagram),
            Some(Kind::Relay) => self.relayed(now, from, datagram),
            Some(Kind::Observed) => self.notices.push_back(Notice::Observed { packet: datagram.to_vec() }),
            Some(Kind::Opener) => self.notices.push_back(Notice::Opener { from }),
            Some(Kind::Quic) => {}
            // Questions are for whoever serves, who takes them before.
            Some(Kind::Observe) | None => self.node_stats.dropped(DropReason::UnknownKind),
        }
    }

    /// A RELAY packet: on its way up to another member, or down to us.
    fn relayed(&mut self, now: Time, from: SocketAddr, packet: &mut [u8]) {
        let Ok(header) = relay_wire::Header::parse(packet) else {
            return self.node_stats.dropped(DropReason::Malformed);
        };
        if !header.down {
            return match self.channels.forward(from, header, packet, &mut self.transmits) {
                Ok(()) => self.node_stats.relayed_packet(packet.len()),
                Err(reason) => self.node_stats.dropped(reason),
            };
        }
        match self.legs.unwrap(from, header, packet) {
            Ok(path) => {
                let inner = &mut packet[relay_wire::HEADER_LEN..];
                match inner.first().copied().and_then(Kind::of) {
                    Some(Kind::Init | Kind::Resp) => self.handshake(path, inner),
                    Some(Kind::Data | Kind::Session) => self.open(now, path, inner),
                    Some(Kind::Relay | Kind::Quic | Kind::Observe | Kind::Observed | Kind::Opener) | None => {
                        self.node_stats.dropped(DropReason::UnknownKind);
                    }
                }
            }
            Err(reason) => self.node_stats.dropped(reason),
        }
    }

    fn handshake(&mut self, path: Path, packet: &[u8]) {
        if Envelope::parse(packet).is_ok() {
            self.notices.push_back(Notice::Handshake { path, packet: packet.to_vec() });
        } else {
            self.node_stats.dropped(DropReason::Malformed);
        }
    }

    /// A sealed packet: finds its keys by the receiver index, opens it, takes note of who was heard where.
    fn open(&mut self, now: Time, path: Path, packet: &mut [u8]) {
        let header = match data::Header::parse(packet) {
            Ok(header) => header,
            Err(error) => return self.node_stats.dropped(error.into()),
        };
        let found = self.by_index.get(&header.receiver).and_then(|id| Some((*id, self.ports.get_mut(id)?)));
        let Some((id, port)) = found else { return self.node_stats.dropped(DropReason::UnknownIndex) };
        let stats = &mut self.stats[port.overlay.0];
        let Some((generation, epoch)) = port.epoch(header.receiver) else {
            return stats.dropped(DropReason::UnknownIndex);
        };
        if epoch.is_expired(now) {
            return stats.dropped(DropReason::Expired);
        }
        let plain = match epoch.opener.open(header, packet) {
            Ok(plain) => plain,
            Err(error) => return stats.dropped(error.into()),
        };
        stats.datagrams_in += 1;
        if port.hear(now, path) {
            self.notices.push_back(Notice::Heard { port: id, path });
        }
        if generation == Generation::Next {
            self.confirm(now, id, path);
        }
        if header.is_data {
            self.frame(now, id, plain);
        } else {
            self.notices.push_back(Notice::Session { port: id, path, message: plain.to_vec() });
        }
    }

    /// The plain part of DATA: a frame, or a piece of one.
    fn frame(&mut self, now: Time, id: PortId, plain: &[u8]) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        let overlay = port.overlay;
        let stats = &mut self.stats[overlay.0];
        let Some((Ok(meta), rest)) = plain.split_first().map(|(meta, rest)| (Meta::parse(*meta), rest)) else {
            return stats.dropped(DropReason::Reserved);
        };
        if !meta.fragment {
            return self.deliver(now, id, overlay, rest);
        }
        match Fragment::parse(rest) {
            Ok((fragment, bytes)) => {
                stats.dropped_many(DropReason::Reassembly, port.reassembly.take_lost());
                let whole = port.reassembly.accept(now, fragment.id, fragment.part, bytes).map(<[u8]>::to_vec);
                if let Some(frame) = whole {
                    self.deliver(now, id, overlay, &frame);
                }
            }
            Err(error) => stats.dropped(error.into()),
        }
    }

    /// A whole frame from a peer, to the TAP.
    fn deliver(&mut self, now: Time, id: PortId, overlay: OverlayIndex, frame: &[u8]) {
        let stats = &mut self.stats[overlay.0];
        let Some(header) = Header::parse(frame) else { return stats.dropped(DropReason::Runt) };
        match self.switches[overlay.0].judge_inbound(now, id, frame, &header) {
            Verdict::Forward(TAP) => {
                stats.frame_out(frame.len());
                if let Some(port) = self.ports.get_mut(&id) {
                    port.activity.rx_bytes += frame.len() as u64;
                }
                self.deliveries.push(frame, Delivery { overlay, virtio: Virtio::default() });
            }
            Verdict::Forward(_) | Verdict::Flood => stats.dropped(DropReason::Elsewhere),
            Verdict::Drop(reason) => stats.dropped(reason),
        }
    }
}
