//! From the underlay towards the TAPs: unwrap, open, judge, join. [`outbound`](super::outbound) mirrors it.

use std::mem;
use std::net::{IpAddr, SocketAddr};

use super::buf::{Datagrams, OverlayIndex};
use super::fdb::{PortId, TAP};
use super::frame::Header;
use super::lane::Role;
use super::outbound::is_for_one;
use super::pairs::{Side, Volume};
use super::path::Path;
use super::port::Generation;
use super::segment::Work;
use super::stats::DropReason;
use super::switch::Verdict;
use super::{Datapath, Notice};
use crate::time::Time;
use crate::wire::data::{self, Checksum, Fragment, FrameKind, Meta};
use crate::wire::handshake::Envelope;
use crate::wire::{Kind, inventory, relay as relay_wire, session};

impl Datapath {
    /// Datagrams off the underlay, towards the TAPs. Opened in place. Nothing is held beyond the batch.
    pub fn handle_datagrams(&mut self, now: Time, datagrams: &mut Datagrams) {
        for index in 0..datagrams.len() {
            let Some((buffer, origin)) = datagrams.get_mut(index) else { break };
            let to = origin.to.filter(|_| self.sources.are_kept());
            let (from, stride) = (origin.from, origin.stride.max(1));
            let mut heard = None;
            for datagram in buffer.chunks_mut(stride) {
                self.inbound(now, (from, to), &mut heard, datagram);
            }
        }
        self.joining.close(&mut self.deliveries);
    }

    /// One of a buffer, all of which came from one address; `heard` is kept by [`Self::open`].
    fn inbound(
        &mut self,
        now: Time,
        (from, to): (SocketAddr, Option<IpAddr>),
        heard: &mut Option<u32>,
        datagram: &mut [u8],
    ) {
        if !self.is_alone() && self.is_anothers(now, (from, to), datagram) {
            return;
        }
        match datagram.first().copied().and_then(Kind::of) {
            Some(Kind::Init | Kind::Resp) => {
                self.sources.note(from, to);
                self.handshake(Path::Direct(from), datagram);
            }
            Some(Kind::Data | Kind::Session) => self.open(now, (Path::Direct(from), to), heard, datagram),
            Some(Kind::Relay) => self.relayed(now, (from, to), datagram),
            Some(Kind::Observed) => self.notices.push_back(Notice::Observed { packet: datagram.to_vec() }),
            Some(Kind::Opener) => self.notices.push_back(Notice::Opener { from }),
            Some(Kind::Quic) => {}
            // Questions are for whoever serves, who takes them before.
            Some(Kind::Observe) | None => self.node_stats.dropped(DropReason::UnknownKind),
        }
    }

    /// A RELAY packet: on its way up to another member, or down to us.
    fn relayed(&mut self, now: Time, from: (SocketAddr, Option<IpAddr>), packet: &mut [u8]) {
        let Ok(header) = relay_wire::Header::parse(packet) else {
            return self.node_stats.dropped(DropReason::Malformed);
        };
        if !header.down {
            return match self.channels.forward(now, (from, header), packet, &mut self.transmits) {
                Ok(()) => self.node_stats.relayed_packet(packet.len()),
                Err(reason) => self.node_stats.dropped(reason),
            };
        }
        match self.legs.unwrap(from, header, packet) {
            Ok(path) => {
                let inner = &mut packet[relay_wire::HEADER_LEN..];
                match inner.first().copied().and_then(Kind::of) {
                    Some(Kind::Init | Kind::Resp) => self.handshake(path, inner),
                    Some(Kind::Data | Kind::Session) => self.open(now, (path, None), &mut None, inner),
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
    ///
    /// `heard` is the index of the packet that was opened before, if it came in the same buffer by the same path: what
    /// has the same index is no news.
    pub(super) fn open(
        &mut self,
        now: Time,
        (path, to): (Path, Option<IpAddr>),
        heard: &mut Option<u32>,
        packet: &mut [u8],
    ) {
        let header = match data::Header::parse(packet) {
            Ok(header) => header,
            Err(error) => return self.node_stats.dropped(error.into()),
        };
        // The other streams have one way only, so that each replay window has one owner.
        if header.stream() != 0 && !(header.is_data && path.is_direct()) {
            return self.node_stats.dropped(DropReason::Reserved);
        }
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
        let overlay = port.overlay;
        if header.is_data {
            port.activity.rx_bytes += plain.len() as u64 - 1;
            port.activity.longest_heard = plain.len().max(port.activity.longest_heard);
            if port.note_busy() {
                self.notices.push_back(Notice::Busy { overlay });
            }
            if is_use(plain) && port.note_used(now) {
                self.notices.push_back(Notice::Used { port: id });
            }
        }
        if heard.replace(header.receiver) != Some(header.receiver) {
            self.hear(now, (id, generation, header.receiver), (path, to));
        }
        if header.is_data {
            self.frame(now, (overlay, id), header.stream(), plain);
        } else if plain.first() == Some(&session::CLAIM) {
            // Here, not in the control room: frames behind it in this batch are judged by it.
            self.claimed(now, id, plain);
        } else if plain.first() == Some(&inventory::INVENTORY) {
            self.told(now, id, plain);
        } else {
            self.notices.push_back(Notice::Session { port: id, path, message: plain.to_vec() });
        }
    }

    /// The peer at `id` was heard, and has the keys of `index`.
    fn hear(
        &mut self,
        now: Time,
        (id, generation, index): (PortId, Generation, u32),
        (path, to): (Path, Option<IpAddr>),
    ) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        if let (Path::Direct(from), Some(to)) = (path, to)
            && port.note_source(from, to)
            && let Role::First(first) = &mut self.role
        {
            first.pass_source_on(id, from, to);
        }
        if port.hear(now, path) {
            self.notices.push_back(Notice::Heard { port: id, path });
        }
        if generation == Generation::Next {
            self.confirm(now, id, index, path);
        }
    }

    /// The plain part of DATA: a frame, or a piece of one.
    fn frame(&mut self, now: Time, from: (OverlayIndex, PortId), stream: u8, plain: &[u8]) {
        let stats = &mut self.stats[from.0.0];
        let Some((Ok(meta), rest)) = plain.split_first().map(|(meta, rest)| (Meta::parse(*meta), rest)) else {
            return stats.dropped(DropReason::Reserved);
        };
        if meta.kind == FrameKind::Tree && stream != 0 {
            return stats.dropped(DropReason::Reserved);
        }
        if !meta.fragment {
            return self.whole(now, from, meta, rest);
        }
        let (fragment, bytes) = match Fragment::parse(rest) {
            Ok(parsed) => parsed,
            Err(error) => return stats.dropped(error.into()),
        };
        let Some(port) = self.ports.get_mut(&from.1) else { return };
        let mut reassembly = mem::take(port.reassembly(stream));
        stats.dropped_many(DropReason::Reassembly, reassembly.take_lost());
        if let Some(frame) = reassembly.accept(now, fragment.id, fragment.part, bytes) {
            self.whole(now, from, meta, frame);
        }
        if let Some(port) = self.ports.get_mut(&from.1) {
            *port.reassembly(stream) = reassembly;
        }
    }

    fn whole(&mut self, now: Time, from: (OverlayIndex, PortId), meta: Meta, frame: &[u8]) {
        match meta.kind {
            FrameKind::Tree => self.branch(now, from, meta.checksum, frame),
            kind @ (FrameKind::Direct | FrameKind::Copy | FrameKind::Moved) => {
                self.deliver(now, from, (kind, meta.checksum), frame);
            }
        }
    }

    /// A whole frame from a peer, to the TAP, or once on to where its machine went.
    pub(super) fn deliver(
        &mut self,
        now: Time,
        from: (OverlayIndex, PortId),
        (kind, checksum): (FrameKind, Checksum),
        frame: &[u8],
    ) {
        // What continues the frame before it has the same header, so it was judged with it.
        if self.joining.extend(&mut self.deliveries, from, checksum, frame) {
            self.stats[from.0.0].joined += 1;
            return self.delivered(from, frame);
        }
        if !self.is_alone() && self.hands_opened(now, from, (kind, checksum), frame) {
            return;
        }
        let Some(header) = Header::parse(frame) else { return self.stats[from.0.0].dropped(DropReason::Runt) };
        let verdict = self.switches[from.0.0].judge_inbound(now, (from.1, kind), frame, &header);
        self.publish(now, from.0);
        match verdict {
            Verdict::Forward(TAP) => self.push(from, checksum, &header, frame),
            Verdict::SendOn(port) => {
                self.stats[from.0.0].moved += 1;
                self.send(now, port, frame, Work::Whole(checksum), FrameKind::Moved);
            }
            Verdict::Forward(_)
            | Verdict::Flood
            | Verdict::Group
            | Verdict::Ruled
            | Verdict::Answered
            | Verdict::Ask(_) => self.stats[from.0.0].dropped(DropReason::Elsewhere),
            Verdict::Drop(reason) => self.stats[from.0.0].dropped(reason),
        }
    }

    fn push(&mut self, from: (OverlayIndex, PortId), checksum: Checksum, header: &Header, frame: &[u8]) {
        let takes = self.switches[from.0.0].tap();
        match self.joining.push(&mut self.deliveries, from, takes, checksum, header, frame) {
            Ok(()) => self.delivered(from, frame),
            Err(reason) => self.stats[from.0.0].dropped(reason),
        }
    }

    fn delivered(&mut self, (overlay, port): (OverlayIndex, PortId), frame: &[u8]) {
        self.stats[overlay.0].frame_out(frame.len());
        self.switches[overlay.0].count_pair(Side::In(port), frame, Volume { frames: 1, bytes: frame.len() as u64 });
    }
}

/// Whether the plain part of DATA is a frame for one machine alone. Of a second piece nobody can tell.
fn is_use(plain: &[u8]) -> bool {
    let Some((Ok(meta), rest)) = plain.split_first().map(|(meta, rest)| (Meta::parse(*meta), rest)) else {
        return false;
    };
    if !meta.fragment {
        return is_for_one(meta.kind, rest);
    }
    Fragment::parse(rest).is_ok_and(|(fragment, bytes)| fragment.part == 0 && is_for_one(meta.kind, bytes))
}

#[cfg(test)]
mod tests;
