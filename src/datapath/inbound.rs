//! From the underlay towards the TAPs: unwrap, open, judge, join. [`outbound`](super::outbound) mirrors it.

use std::mem;
use std::net::SocketAddr;

use super::buf::{Datagrams, OverlayIndex};
use super::fdb::{PortId, TAP};
use super::frame::Header;
use super::port::{Generation, Path};
use super::stats::DropReason;
use super::switch::Verdict;
use super::{Datapath, Notice};
use crate::time::Time;
use crate::wire::data::{self, Checksum, Fragment, Meta};
use crate::wire::handshake::Envelope;
use crate::wire::{Kind, relay as relay_wire};

impl Datapath {
    /// Datagrams off the underlay, towards the TAPs. Opened in place. Nothing is held beyond the batch.
    pub fn handle_datagrams(&mut self, now: Time, datagrams: &mut Datagrams) {
        for index in 0..datagrams.len() {
            let Some((buffer, origin)) = datagrams.get_mut(index) else { break };
            let (from, stride) = (origin.from, origin.stride.max(1));
            for datagram in buffer.chunks_mut(stride) {
                self.inbound(now, from, datagram);
            }
        }
        self.joining.close(&mut self.deliveries);
    }

    fn inbound(&mut self, now: Time, from: SocketAddr, datagram: &mut [u8]) {
        if !self.is_alone() && self.is_anothers(now, from, datagram) {
            return;
        }
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
    pub(super) fn open(&mut self, now: Time, path: Path, packet: &mut [u8]) {
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
        }
        if port.hear(now, path) {
            self.notices.push_back(Notice::Heard { port: id, path });
        }
        if generation == Generation::Next {
            self.confirm(now, id, header.receiver, path);
        }
        if header.is_data {
            self.frame(now, (overlay, id), header.stream(), plain);
        } else {
            self.notices.push_back(Notice::Session { port: id, path, message: plain.to_vec() });
        }
    }

    /// The plain part of DATA: a frame, or a piece of one.
    fn frame(&mut self, now: Time, from: (OverlayIndex, PortId), stream: u8, plain: &[u8]) {
        let stats = &mut self.stats[from.0.0];
        let Some((Ok(meta), rest)) = plain.split_first().map(|(meta, rest)| (Meta::parse(*meta), rest)) else {
            return stats.dropped(DropReason::Reserved);
        };
        if !meta.fragment {
            return self.deliver(now, from, meta.checksum, rest);
        }
        let (fragment, bytes) = match Fragment::parse(rest) {
            Ok(parsed) => parsed,
            Err(error) => return stats.dropped(error.into()),
        };
        let Some(port) = self.ports.get_mut(&from.1) else { return };
        let mut reassembly = mem::take(port.reassembly(stream));
        stats.dropped_many(DropReason::Reassembly, reassembly.take_lost());
        if let Some(frame) = reassembly.accept(now, fragment.id, fragment.part, bytes) {
            self.deliver(now, from, meta.checksum, frame);
        }
        if let Some(port) = self.ports.get_mut(&from.1) {
            *port.reassembly(stream) = reassembly;
        }
    }

    /// A whole frame from a peer, to the TAP.
    pub(super) fn deliver(&mut self, now: Time, from: (OverlayIndex, PortId), checksum: Checksum, frame: &[u8]) {
        // What continues the frame before it has the same header, so it was judged with it.
        if self.joining.extend(&mut self.deliveries, from, checksum, frame) {
            self.stats[from.0.0].joined += 1;
        } else if !self.is_alone() && self.hands_opened(now, from, checksum, frame) {
            return;
        } else if let Err(reason) = self.judge_and_push(now, from, checksum, frame) {
            return self.stats[from.0.0].dropped(reason);
        }
        self.stats[from.0.0].frame_out(frame.len());
    }

    fn judge_and_push(
        &mut self,
        now: Time,
        from: (OverlayIndex, PortId),
        checksum: Checksum,
        frame: &[u8],
    ) -> Result<(), DropReason> {
        let header = Header::parse(frame).ok_or(DropReason::Runt)?;
        let switch = &mut self.switches[from.0.0];
        match switch.judge_inbound(now, from.1, frame, &header) {
            Verdict::Forward(TAP) => {
                self.joining.push(&mut self.deliveries, from, switch.tap(), checksum, &header, frame)
            }
            Verdict::Forward(_) | Verdict::Flood => Err(DropReason::Elsewhere),
            Verdict::Drop(reason) => Err(reason),
        }
    }
}
