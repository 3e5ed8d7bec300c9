//! The way out to one peer: its keys, its path, and room for packets. Cuts what is too long, seals, wraps.

use super::buf::{Target, Transmits};
use super::fdb::PortId;
use super::frame::{self, Header};
use super::layout::{Layout, Transport};
use super::path::Path;
use super::port::{Epoch, MTU_HOPED};
use super::relay::Legs;
use super::reserve::Marking;
use super::segment::{self, SEGMENTS_MAX, Segments, Work};
use super::stats::{DropReason, Stats};
use super::{Datapath, MTU_ASSUMED, MTU_FLOOR, clamp, fragment, frame_limit, lead};
use crate::time::Time;
use crate::wire::data::{Checksum, FRAGMENT_LEN, Fragment, FrameKind, HEADER_LEN, Meta, TAG_LEN};

/// What a packet to one peer needs.
pub(super) struct Way<'a> {
    epoch: &'a mut Epoch,
    legs: &'a mut Legs,
    transmits: &'a mut Transmits,
    stats: &'a mut Stats,
    fragment_id: &'a mut u16,
    longest: &'a mut usize,
    path: Path,
    /// Of the frames that are sent.
    pub(super) kind: FrameKind,
    target: Target,
    /// Packets are marked as what they carry.
    inherits: bool,
    /// The longest frame that travels in one packet.
    limit: usize,
    /// TCP is asked for segments whose frames are no longer, if at all.
    clamp: Option<usize>,
}

/// The segments of `frame` that fit `limit`; of `size` bytes of payload where they cannot be made to fit. `None` if headers
/// leave so little room that there would be too many.
pub(super) fn fitting(frame: &[u8], layout: Layout, size: usize, limit: usize) -> Option<Segments<'_>> {
    let size = match layout.protocol {
        Transport::Tcp if limit > layout.payload => size.min(limit - layout.payload),
        Transport::Tcp | Transport::Udp => size,
    };
    let count = frame.len().saturating_sub(layout.payload).div_ceil(size.max(1));
    (count <= SEGMENTS_MAX).then(|| Segments::new(frame, layout, size))
}

impl Datapath {
    /// The way on `path` to the peer at `id`; `None` without keys, or if the path's leg is closed.
    pub(super) fn way(&mut self, now: Time, id: PortId, path: Path, hops: Option<u8>) -> Option<Way<'_>> {
        let port = self.ports.get_mut(&id)?;
        let to = self.legs.address(path)?;
        let from = match path {
            Path::Relayed(..) => self.legs.source(path),
            Path::Direct(_) if port.path == Some(path) => port.source(path),
            Path::Direct(_) => port.source(path).or_else(|| self.sources.noted(path)),
        };
        let switch = &self.switches[port.overlay.0];
        // Nobody asked how much another way carries, as a rule may choose: no more than any does.
        let is_usual = port.path == Some(path);
        let assumed = if is_usual { MTU_ASSUMED } else { MTU_FLOOR };
        let mtu = port.mtu.filter(|_| is_usual);
        Some(Way {
            epoch: Epoch::usable(&mut port.current, now)?,
            legs: &mut self.legs,
            transmits: &mut self.transmits,
            stats: &mut self.stats[port.overlay.0],
            fragment_id: &mut port.fragment_id,
            longest: &mut port.activity.longest_sent,
            path,
            kind: FrameKind::Direct,
            target: Target { to, hops, from, tos: fixed(switch.marking) },
            inherits: switch.marking == Marking::Inherit,
            limit: frame_limit(path, to, mtu.unwrap_or(assumed)).min(switch.frame_max()),
            clamp: switch.clamps_mss().then(|| frame_limit(path, to, mtu.unwrap_or(MTU_HOPED))),
        })
    }

    /// The longest frame that travels to the peer at `id` in one packet.
    pub(super) fn limit(&self, id: PortId) -> Option<usize> {
        let port = self.ports.get(&id)?;
        let path = port.path?;
        let limit = frame_limit(path, self.legs.address(path)?, port.mtu.unwrap_or(MTU_ASSUMED));
        Some(limit.min(self.switches[port.overlay.0].frame_max()))
    }
}

/// The byte with the code point for every packet; ECN is left alone.
const fn fixed(marking: Marking) -> u8 {
    match marking {
        Marking::Fixed(dscp) => dscp << 2,
        Marking::None | Marking::Inherit => 0,
    }
}

impl Way<'_> {
    /// What `frame` becomes is marked as it is, if the overlay wants that.
    pub(super) fn mark(&mut self, frame: &[u8]) {
        if self.inherits {
            self.target.tos = Header::parse(frame).map_or(0, |header| frame::dscp(frame, &header)) << 2;
        }
    }

    /// Sends what came out of a TAP. `scratch` is room for a frame that has to be changed.
    pub(super) fn send(&mut self, frame: &[u8], work: Work, scratch: &mut Vec<u8>) {
        match work {
            Work::Whole(checksum) => {
                // What stands behind a list is left as it is: others seal it again, for other paths.
                let clamp = self.clamp.filter(|_| self.kind != FrameKind::Tree);
                let frame = clamp.map_or(frame, |limit| clamp::clamp_mss(frame, checksum, limit, scratch));
                self.whole(frame, checksum);
            }
            // Such a frame was finished before it came here.
            Work::FinishFirst { .. } => self.stats.dropped(DropReason::Offload),
            Work::Cut { layout, size, checksum } => self.cut(frame, layout, size, checksum, scratch),
        }
    }

    /// A superframe: each segment is a packet of its own.
    fn cut(&mut self, frame: &[u8], layout: Layout, size: usize, checksum: Checksum, scratch: &mut Vec<u8>) {
        let Some(mut segments) = fitting(frame, layout, size, self.limit) else {
            return self.stats.dropped(DropReason::Offload);
        };
        let meta = Meta { kind: self.kind, fragment: false, checksum }.byte();
        while let Some(len) = segments.next_len() {
            if len <= self.limit {
                self.seal(true, 1 + len, |plain| {
                    plain[0] = meta;
                    segments.write_next(&mut plain[1..]);
                });
            } else {
                scratch.resize(len, 0);
                segments.write_next(scratch);
                self.pieces(scratch, checksum);
            }
        }
    }

    /// One frame: as one packet; as two segments if it is TCP that nobody has summed yet; as two pieces.
    fn whole(&mut self, frame: &[u8], checksum: Checksum) {
        if frame.len() <= self.limit {
            let meta = Meta { kind: self.kind, fragment: false, checksum };
            return self.seal_parts(true, &[&[meta.byte()], frame]);
        }
        if self.kind == FrameKind::Tree {
            return self.pieces(frame, checksum);
        }
        let layout = Header::parse(frame).and_then(|header| Layout::find(frame, &header));
        let cut = layout.and_then(|layout| Some((layout, segment::tcp_cut(frame, layout, self.limit)?)));
        match cut.filter(|_| checksum == Checksum::TcpPartial) {
            Some((layout, size)) => self.cut(frame, layout, size, checksum, &mut Vec::new()),
            None => self.pieces(frame, checksum),
        }
    }

    /// One frame as two packets.
    fn pieces(&mut self, frame: &[u8], checksum: Checksum) {
        let Some(cut) = fragment::split(frame.len(), self.limit - FRAGMENT_LEN) else {
            return self.stats.dropped(DropReason::Jumbo);
        };
        self.stats.splits += 1;
        *self.fragment_id = self.fragment_id.wrapping_add(1);
        let (id, meta) = (*self.fragment_id, Meta { kind: self.kind, fragment: true, checksum }.byte());
        for (part, bytes) in [(0, &frame[..cut]), (1, &frame[cut..])] {
            self.seal_parts(true, &[&[meta], &Fragment { id, part }.bytes(), bytes]);
        }
    }

    /// Seals `parts` as one packet.
    pub(super) fn seal_parts(&mut self, is_data: bool, parts: &[&[u8]]) {
        self.seal(is_data, parts.iter().map(|part| part.len()).sum(), |mut plain| {
            for part in parts {
                let (place, rest) = plain.split_at_mut(part.len());
                place.copy_from_slice(part);
                plain = rest;
            }
        });
    }

    /// Seals one packet whose plain part of `len` bytes is made by `write`, in place.
    fn seal(&mut self, is_data: bool, len: usize, write: impl FnOnce(&mut [u8])) {
        let head = lead(self.path) + HEADER_LEN;
        let packet_len = head + len + TAG_LEN;
        if is_data {
            *self.longest = len.max(*self.longest);
        }
        let packet = &mut self.transmits.reserve(packet_len)[..packet_len];
        write(&mut packet[head..head + len]);
        self.epoch.sealer.seal(is_data, &mut packet[head - HEADER_LEN..]);
        self.legs.wrap(self.path, packet);
        self.transmits.commit(packet_len, self.target);
        self.stats.datagrams_out += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::layout::tests::{find, tcp4};

    #[test]
    fn headers_that_leave_room_for_too_many_segments_are_refused() {
        let frame = tcp4(&[1; SEGMENTS_MAX + 1]);
        let layout = find(&frame).expect("whole");
        let fits = |room: usize| fitting(&frame, layout, 1000, layout.payload + room).is_some();
        assert_eq!([1, 2, 2000].map(fits), [false, true, true]);
    }
}
