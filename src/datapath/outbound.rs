//! From the TAPs towards the peers: judge, cut, seal. [`inbound`](super::inbound) mirrors it.

use std::mem;

use super::buf::{Frames, OverlayIndex};
use super::fdb::PortId;
use super::frame::{self, Header};
use super::layout::Transport;
use super::pairs::{Side, Volume};
use super::rules::RuleWay;
use super::segment::{self, Segments, Work};
use super::stats::DropReason;
use super::switch::{Hop, Verdict};
use super::{Datapath, Notice, checksum, gate, way};
use crate::time::Time;
use crate::wire::data::{self, Checksum, FrameKind};
use crate::wire::{relay as relay_wire, tree};

impl Datapath {
    /// Frames out of the TAP of `overlay`, towards the peers.
    pub fn handle_frames(&mut self, now: Time, overlay: OverlayIndex, frames: &Frames) {
        let mut order = mem::take(&mut self.order);
        order.each(frames, |frame, virtio| {
            if !self.is_alone() && self.hands_over(now, overlay, frame, virtio) {
                return;
            }
            self.stats[overlay.0].frame_in(frame.len());
            let Some(header) = Header::parse(frame) else {
                return self.stats[overlay.0].dropped(DropReason::Runt);
            };
            match segment::inspect(frame, &header, virtio) {
                Ok(Work::FinishFirst { start, offset }) => self.finish(now, overlay, &header, frame, (start, offset)),
                Ok(work) => self.outbound(now, overlay, &header, frame, work),
                Err(reason) => self.stats[overlay.0].dropped(reason),
            }
        });
        self.order = order;
    }

    /// A partial checksum that the meta byte has no name for is summed here.
    fn finish(&mut self, now: Time, overlay: OverlayIndex, header: &Header, frame: &[u8], at: (usize, usize)) {
        let mut whole = mem::take(&mut self.finished);
        whole.clear();
        whole.extend_from_slice(frame);
        if checksum::finish(&mut whole, at.0, at.1) {
            self.outbound(now, overlay, header, &whole, Work::Whole(Checksum::Finished));
        } else {
            self.stats[overlay.0].dropped(DropReason::Offload);
        }
        self.finished = whole;
    }

    fn outbound(&mut self, now: Time, overlay: OverlayIndex, header: &Header, frame: &[u8], work: Work) {
        if frame::is_announcement(frame, header) {
            return self.stats[overlay.0].dropped(DropReason::Announcement);
        }
        if let Some(body) = gate::probe_body(frame, header) {
            if self.switches[overlay.0].probe_limit.take(now) {
                self.notices.push_back(Notice::LoopProbe { overlay, body: body.to_vec() });
            }
            return self.stats[overlay.0].dropped(DropReason::Announcement);
        }
        if self.is_own_packet(frame, header) {
            self.notices.push_back(Notice::UnderlayLoop { overlay });
            return self.stats[overlay.0].dropped(DropReason::UnderlayLoop);
        }
        let verdict = self.switches[overlay.0].judge_outbound(now, frame, header, longest(frame, work));
        self.publish(now, overlay);
        match verdict {
            Verdict::Forward(port) | Verdict::SendOn(port) => {
                self.switches[overlay.0].count_pair(Side::Out(port), frame, Volume::of(frame, &work));
                self.send(now, port, frame, work, FrameKind::Direct);
            }
            Verdict::Answered => self.deliver_answer(overlay),
            Verdict::Ask(port) => {
                self.stats[overlay.0].asked += 1;
                self.send(now, port, frame, work, FrameKind::Direct);
            }
            Verdict::Flood => {
                self.stats[overlay.0].floods += 1;
                let kind = if header.dst.is_group() { FrameKind::Direct } else { FrameKind::Copy };
                let switch = &mut self.switches[overlay.0];
                switch.receivers.clear();
                switch.receivers.extend(&switch.ports);
                self.flood(now, overlay, frame, work, kind);
            }
            Verdict::Group => {
                self.stats[overlay.0].pruned += 1;
                self.flood(now, overlay, frame, work, FrameKind::Direct);
            }
            Verdict::Ruled => self.send_ruled(now, overlay, header, frame, work),
            Verdict::Drop(reason) => self.stats[overlay.0].dropped(reason),
        }
    }

    /// To each peer that the rules name. What several get is nobody's to send on.
    fn send_ruled(&mut self, now: Time, overlay: OverlayIndex, header: &Header, frame: &[u8], work: Work) {
        let hops = mem::replace(&mut self.switches[overlay.0].hops, mem::take(&mut self.ruled));
        let kind = if hops.len() > 1 && !header.dst.is_group() { FrameKind::Copy } else { FrameKind::Direct };
        for Hop { port, way } in &hops {
            if self.ports.contains_key(port) {
                if !header.dst.is_group() {
                    self.switches[overlay.0].count_pair(Side::Out(*port), frame, Volume::of(frame, &work));
                }
                self.send_by(now, *port, frame, work, (kind, *way));
            } else {
                self.stats[overlay.0].dropped(DropReason::NoPeer);
            }
        }
        self.ruled = hops;
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

    /// To all receivers. One that cannot be sent to does not keep it from the others.
    fn flood(&mut self, now: Time, overlay: OverlayIndex, frame: &[u8], work: Work, kind: FrameKind) {
        let receivers = mem::take(&mut self.switches[overlay.0].receivers);
        match work {
            Work::Whole(checksum) => self.spread(now, (overlay, &receivers), &[frame], (kind, checksum)),
            Work::Cut { layout, size, checksum } => {
                // Cut once, so that it fits them all; sealed for each.
                let limit = receivers.iter().filter_map(|id| self.limit(*id)).min().unwrap_or(usize::MAX);
                match way::fitting(frame, layout, size, limit) {
                    Some(segments) => self.spread_cut(now, (overlay, &receivers), segments, (kind, checksum)),
                    None => self.stats[overlay.0].dropped(DropReason::Offload),
                }
            }
            // Such a frame was finished before it came here.
            Work::FinishFirst { .. } => self.stats[overlay.0].dropped(DropReason::Offload),
        }
        self.switches[overlay.0].receivers = receivers;
    }

    fn spread_cut(
        &mut self,
        now: Time,
        to: (OverlayIndex, &[PortId]),
        mut segments: Segments<'_>,
        how: (FrameKind, Checksum),
    ) {
        let mut cut = mem::take(&mut self.cut);
        while let Some(len) = segments.next_len() {
            segments.write_next(cut.reserve(len));
            cut.commit(len, ());
        }
        let frames = cut.iter().map(|(segment, ())| segment).collect::<Vec<_>>();
        self.spread(now, to, &frames, how);
        cut.clear();
        self.cut = cut;
    }

    /// To one peer: seals it, or keeps it until there are keys and a path.
    pub(super) fn send(&mut self, now: Time, id: PortId, frame: &[u8], work: Work, kind: FrameKind) {
        self.send_by(now, id, frame, work, (kind, RuleWay::Usual));
    }

    /// The same, by the way that a rule wants.
    fn send_by(&mut self, now: Time, id: PortId, frame: &[u8], work: Work, how: (FrameKind, RuleWay)) {
        if self.reserve.is_none() || !self.holds_back(now, id, frame, work, how) {
            self.send_now(now, id, frame, work, how);
        }
    }

    /// The same, whatever is reserved.
    pub(super) fn send_now(
        &mut self,
        now: Time,
        id: PortId,
        frame: &[u8],
        work: Work,
        (kind, way): (FrameKind, RuleWay),
    ) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        if is_for_one(kind, frame) && port.note_used(now) {
            self.notices.push_back(Notice::Used { port: id });
        }
        let stats = &mut self.stats[port.overlay.0];
        let kind = match kind {
            FrameKind::Moved if !port.follows => return stats.dropped(DropReason::Elsewhere),
            FrameKind::Copy if !port.follows => FrameKind::Direct,
            FrameKind::Tree if !port.trees => return stats.dropped(DropReason::Elsewhere),
            FrameKind::Direct | FrameKind::Copy | FrameKind::Moved | FrameKind::Tree => kind,
        };
        let (Some(path), true) = (port.ways.by(way).or(port.path), port.can_send(now)) else {
            self.notices.push_back(Notice::NeedKeys { port: id });
            return if !port.hold(now, frame, work, kind) {
                stats.dropped(DropReason::QueueFull)
            };
        };
        if port.note_busy() {
            self.notices.push_back(Notice::Busy { overlay: port.overlay });
        }
        if port.note_sent(now, frame.len(), path) {
            self.notices.push_back(Notice::Active { port: id });
        }
        let (overlay, mut scratch) = (port.overlay, mem::take(&mut self.scratch));
        match self.way(now, id, path, None) {
            Some(mut way) => {
                way.kind = kind;
                way.mark(if kind == FrameKind::Tree { tree::frame(frame) } else { frame });
                way.send(frame, work, &mut scratch);
            }
            None => self.stats[overlay.0].dropped(DropReason::NoPath),
        }
        self.scratch = scratch;
    }
}

/// Whether a frame is for one machine alone, and it is known where that is. Its first byte tells, as on any wire.
pub(super) fn is_for_one(kind: FrameKind, frame: &[u8]) -> bool {
    let is_flooded = matches!(kind, FrameKind::Copy | FrameKind::Tree);
    !is_flooded && frame.first().is_some_and(|first| first & 1 == 0)
}

/// The longest frame that `work` makes of `frame` at any limit: what an overlay's MTU is held against.
/// TCP is cut to whatever fits.
const fn longest(frame: &[u8], work: Work) -> usize {
    match work {
        Work::Whole(_) | Work::FinishFirst { .. } => frame.len(),
        Work::Cut { layout, size, .. } => match layout.protocol {
            Transport::Tcp => 0,
            Transport::Udp => layout.payload + size,
        },
    }
}
