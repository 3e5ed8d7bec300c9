//! Superframes out of the TAP, cut into frames that travel alone.
//!
//! [`inspect`] holds the kernel's note against the frame, [`Segments`] writes the pieces: each a complete
//! frame, whose checksum stays partial, so no byte of payload is looked at. As TCP does not care where it
//! is cut, a superframe may be cut smaller than its sender meant, and one long frame with a partial
//! checksum can be cut too ([`tcp_cut`]). No allocation, no state beyond one superframe.
//! Read first: Linux `include/linux/virtio_net.h`, `net/ipv4/tcp_offload.c`.

use super::checksum::{finish_ipv4, fold, pseudo_header};
use super::frame::{Header, word};
use super::layout::{Layout, Transport, packet_end};
use super::offload::{Gso, Virtio};
use super::stats::DropReason;
use crate::wire::data::Checksum;

/// More segments than this are no superframe but a flood: TCP sends 8 payload bytes at least (an MSS of
/// 48, less 40 of options), 128 datagrams are the kernel's most for UDP.
pub const SEGMENTS_MAX: usize = 8192;

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const URG: u8 = 0x20;
pub(super) const CWR: u8 = 0x80;
/// Where the TCP header has its sequence number.
pub(super) const TCP_SEQ: usize = 4;
/// Where it has its flags.
pub(super) const TCP_FLAGS: usize = 13;
/// Where the UDP header has its length.
pub(super) const UDP_LEN: usize = 4;

/// What is to be done with a frame out of the TAP, after the kernel's note was checked against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// It travels as it is, with this said of it.
    Whole(Checksum),
    /// It is a superframe.
    Cut {
        /// Of the superframe.
        layout: Layout,
        /// Payload bytes of each segment but the last.
        size: usize,
        /// Of every segment.
        checksum: Checksum,
    },
    /// The partial checksum is not that of a plain TCP or UDP packet, perhaps of a packet in a packet:
    /// it must be finished before the frame travels.
    FinishFirst {
        /// Where the sum starts.
        start: usize,
        /// Where the checksum is, from there.
        offset: usize,
    },
}

/// Checks what the kernel says of `frame`. What does not fit is [`DropReason::Offload`].
pub fn inspect(frame: &[u8], header: &Header, virtio: Virtio) -> Result<Work, DropReason> {
    let is_plain = virtio.gso == Gso::None;
    if usize::from(virtio.header_len) > frame.len() || (is_plain && virtio.ecn) {
        return Err(DropReason::Offload);
    }
    if !virtio.needs_csum {
        return if is_plain { Ok(Work::Whole(Checksum::Finished)) } else { Err(DropReason::Offload) };
    }
    let (start, offset) = (usize::from(virtio.csum_start), usize::from(virtio.csum_offset));
    let Some(layout) = Layout::find(frame, header).filter(|layout| layout.transport == start) else {
        let end = packet_end(frame, header).unwrap_or(frame.len());
        let is_within = start >= header.payload && start + offset + 2 <= end;
        return if is_plain && is_within { Ok(Work::FinishFirst { start, offset }) } else { Err(DropReason::Offload) };
    };
    if offset != layout.protocol.checksum_offset() {
        return Err(DropReason::Offload);
    }
    let checksum = partial(layout.protocol);
    if is_plain { Ok(Work::Whole(checksum)) } else { superframe(frame, layout, virtio).ok_or(DropReason::Offload) }
}

/// What a frame with a partial checksum of `protocol` says of it.
const fn partial(protocol: Transport) -> Checksum {
    match protocol {
        Transport::Tcp => Checksum::TcpPartial,
        Transport::Udp => Checksum::UdpPartial,
    }
}

fn superframe(frame: &[u8], layout: Layout, virtio: Virtio) -> Option<Work> {
    let fits = match virtio.gso {
        Gso::None => false,
        Gso::TcpV4 => layout.protocol == Transport::Tcp && !layout.is_v6,
        Gso::TcpV6 => layout.protocol == Transport::Tcp && layout.is_v6,
        Gso::Udp => layout.protocol == Transport::Udp && !virtio.ecn,
    };
    let size = usize::from(virtio.gso_size);
    // The kernel never pads a superframe, and one of more than 64 KB (BIG TCP) was not offered.
    if !fits || size == 0 || size > frame.len() || layout.end(frame) != frame.len() {
        return None;
    }
    let payload = frame.len() - layout.payload;
    let checksum = partial(layout.protocol);
    match payload.div_ceil(size) {
        // The kernel takes such a note for a frame that is none, so it is not for us to refuse.
        0 | 1 => Some(Work::Whole(checksum)),
        2..=SEGMENTS_MAX => Some(Work::Cut { layout, size, checksum }),
        _ => None,
    }
}

/// How many bytes of payload each segment of `frame`, a TCP packet with a partial checksum, may have, so
/// that no segment is longer than `frame_limit`. `None` if it cannot be cut.
pub fn tcp_cut(frame: &[u8], layout: Layout, frame_limit: usize) -> Option<usize> {
    let size = frame_limit.checked_sub(layout.payload).filter(|size| *size > 0)?;
    let payload = frame.len().checked_sub(layout.payload).filter(|payload| *payload > 0)?;
    let is_tcp = layout.protocol == Transport::Tcp && layout.end(frame) == frame.len();
    // These speak of one place in the stream, and would of another in the next segment.
    let can_repeat = frame.get(layout.transport + TCP_FLAGS)? & (SYN | RST | URG) == 0;
    (is_tcp && can_repeat && payload.div_ceil(size) <= SEGMENTS_MAX).then_some(size)
}

/// The segments of a superframe, in order.
#[derive(Debug)]
pub struct Segments<'f> {
    frame: &'f [u8],
    layout: Layout,
    size: usize,
    /// Segments written.
    index: u16,
    /// The next segment's payload.
    at: usize,
    /// The sum of the pseudo header without a length.
    pseudo: u16,
}

impl<'f> Segments<'f> {
    /// Cuts `frame`, whose layout is `layout`, into segments of `size` bytes of payload, the last of less.
    pub fn new(frame: &'f [u8], layout: Layout, size: usize) -> Self {
        let pseudo = if layout.is_v6 && layout.has_ip_options() {
            // A routing header may hide the destination that was summed: take the kernel's word for it.
            let field = word(frame, layout.transport + layout.protocol.checksum_offset()).unwrap_or(0);
            fold(u64::from(field) + u64::from(!fold(frame.len().saturating_sub(layout.transport) as u64)))
        } else {
            pseudo_header(frame, &layout, 0)
        };
        Self { frame, layout, size: size.max(1), index: 0, at: layout.payload, pseudo }
    }

    /// Bytes of the next segment's frame; `None` after the last.
    pub fn next_len(&self) -> Option<usize> {
        let left = self.frame.len().checked_sub(self.at).filter(|left| *left > 0)?;
        Some(self.layout.payload + left.min(self.size))
    }

    /// Writes the next segment to the first [`Segments::next_len`] bytes of `room`; nothing after the last.
    ///
    /// # Panics
    /// If there is less room.
    pub fn write_next(&mut self, room: &mut [u8]) {
        let Some(len) = self.next_len() else { return };
        let (room, layout) = (&mut room[..len], self.layout);
        let (head, payload) = room.split_at_mut(layout.payload);
        let end = self.at + payload.len();
        payload.copy_from_slice(&self.frame[self.at..end]);
        head.copy_from_slice(&self.frame[..layout.payload]);
        self.write_ip(head, len);
        let transport = &mut head[layout.transport..];
        match layout.protocol {
            Transport::Tcp => self.write_tcp(transport, end == self.frame.len()),
            Transport::Udp => put(transport, UDP_LEN, short(len - layout.transport)),
        }
        let pseudo = fold(u64::from(self.pseudo) + (len - layout.transport) as u64);
        put(transport, layout.protocol.checksum_offset(), pseudo);
        self.index = self.index.wrapping_add(1);
        self.at = end;
    }

    fn write_ip(&self, head: &mut [u8], len: usize) {
        let Layout { ip, transport, is_v6, .. } = self.layout;
        let header = &mut head[ip..transport];
        if is_v6 {
            return put(header, 4, short(len - ip - 40));
        }
        put(header, 2, short(len - ip));
        let id = u16::from_be_bytes([header[4], header[5]]);
        put(header, 4, id.wrapping_add(self.index));
        finish_ipv4(header);
    }

    fn write_tcp(&self, header: &mut [u8], is_last: bool) {
        let (seq, _) = header[TCP_SEQ..].split_first_chunk_mut().expect("a TCP header has 20 bytes");
        let done = u32::try_from(self.at - self.layout.payload).unwrap_or(u32::MAX);
        *seq = u32::from_be_bytes(*seq).wrapping_add(done).to_be_bytes();
        if !is_last {
            header[TCP_FLAGS] &= !(FIN | PSH);
        }
        if self.index > 0 {
            header[TCP_FLAGS] &= !CWR;
        }
    }
}

/// Writes `word` to the two bytes at `at`.
pub(super) fn put(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

/// A length as IP writes it; no packet that was found whole has a longer one.
pub(super) fn short(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

#[cfg(test)]
pub(super) mod tests;
