//! Frames off the tunnel, joined to superframes for the TAP.
//!
//! The kernel takes forty segments of one flow for little more than one. A frame continues the open
//! superframe, which is the last piece of the batch, or it ends it: so no frame passes another, and one
//! open slot is enough, as runs of a flow arrive together. The rules are those of the kernel's GRO, and only
//! partial checksums are joined: a finished one speaks for its own bytes, and joining would vouch for
//! damaged ones. No allocation per frame; [`Coalescer::extend`] runs for every frame.
//! Read first: Linux `net/ipv4/tcp_offload.c`, `net/ipv4/af_inet.c`; RFC 6864.

use std::ops::Range;

use super::buf::{Deliveries, Delivery, OverlayIndex};
use super::checksum::{finish, finish_ipv4, pseudo_header, sum};
use super::fdb::PortId;
use super::frame::{Header, word};
use super::layout::{Layout, Transport};
use super::offload::{Gso, TapOffload, Virtio};
use super::segment::{CWR, FIN, PSH, TCP_FLAGS, TCP_SEQ, UDP_LEN, put, short};
use super::stats::DropReason;
use crate::wire::data::Checksum;

/// Longest headers of a superframe: Ethernet with three tags, IPv6, the longest TCP header.
const HEADERS_MAX: usize = 128;
/// The longest IP packet, so of a superframe without Ethernet.
const PACKET_MAX: usize = 65_535;
/// TCP segments of less payload are not worth joining, and the kernel's own are never smaller.
const TCP_PAYLOAD_MIN: usize = 8;
/// `UDP_MAX_SEGMENTS` of the kernels that took the fewest.
const DATAGRAMS_MAX: usize = 64;
/// "Don't fragment", in the byte of an IPv4 header behind the identification.
const DONT_FRAGMENT: u8 = 0x40;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;

/// Joins frames to the last piece of a batch.
#[derive(Debug, Default)]
pub struct Coalescer {
    open: Option<Open>,
}

/// The superframe that may grow.
#[derive(Debug)]
struct Open {
    /// Its place in the batch; if another piece followed, it cannot grow.
    piece: usize,
    from: (OverlayIndex, PortId),
    checksum: Checksum,
    layout: Layout,
    /// Payload of the first segment, and so of all but the last.
    size: usize,
    segments: usize,
    /// Bytes of the frame until now.
    len: usize,
    next_seq: u32,
    /// PSH and FIN of any segment; either ends it.
    flags: u8,
    /// The IPv4 identification of the next segment; `None` if it may be anything.
    next_id: Option<u16>,
    /// The first segment's headers, and the bits in which the next one's must be the same.
    header: [u8; HEADERS_MAX],
    mask: [u8; HEADERS_MAX],
}

impl Coalescer {
    /// Appends `frame` to the open superframe if it continues it; whether it did.
    ///
    /// A frame that did has the addresses and the VLAN of the one before it, by the same port.
    pub fn extend(
        &mut self,
        batch: &mut Deliveries,
        from: (OverlayIndex, PortId),
        checksum: Checksum,
        frame: &[u8],
    ) -> bool {
        let Some(open) = &mut self.open else { return false };
        let is_next = open.piece + 1 == batch.len() && open.from == from && open.checksum == checksum;
        if !is_next || !open.continues(frame) {
            return false;
        }
        batch.extend_last(&frame[open.layout.payload..]);
        if open.grow(frame) {
            self.close(batch);
        }
        true
    }

    /// Appends `frame` as a piece of its own, which the next frames may continue if the TAP takes that. A
    /// TAP that `takes` nothing gets it finished.
    ///
    /// A partial checksum of no whole TCP or UDP packet is [`DropReason::Offload`].
    #[expect(clippy::too_many_arguments, reason = "six besides self: where it goes, what is known of it")]
    pub fn push(
        &mut self,
        batch: &mut Deliveries,
        from: (OverlayIndex, PortId),
        takes: TapOffload,
        checksum: Checksum,
        header: &Header,
        frame: &[u8],
    ) -> Result<(), DropReason> {
        self.close(batch);
        let protocol = match checksum {
            Checksum::Finished => {
                batch.push(frame, Delivery { overlay: from.0, virtio: Virtio::default() });
                return Ok(());
            }
            Checksum::TcpPartial => Transport::Tcp,
            Checksum::UdpPartial => Transport::Udp,
        };
        let layout = Layout::find(frame, header).filter(|layout| layout.protocol == protocol);
        let layout = layout.ok_or(DropReason::Offload)?;
        let virtio = if takes == TapOffload::None { Virtio::default() } else { lone(layout)? };
        batch.push(frame, Delivery { overlay: from.0, virtio });
        if takes == TapOffload::None {
            if let Some((piece, _)) = batch.last_mut() {
                finish(piece, layout.transport, protocol.checksum_offset());
            }
        } else if protocol == Transport::Tcp || takes == TapOffload::TcpAndUdp {
            self.open = Open::start(batch.len() - 1, from, checksum, layout, frame);
        }
        Ok(())
    }

    /// Ends the open superframe: it is ready for the TAP. Before anything else is appended to the batch, and
    /// before the batch is drained.
    pub fn close(&mut self, batch: &mut Deliveries) {
        let Some(open) = self.open.take().filter(|open| open.segments > 1 && open.piece + 1 == batch.len()) else {
            return;
        };
        let Some((frame, delivery)) = batch.last_mut() else { return };
        let Layout { ip, transport, is_v6, protocol, .. } = open.layout;
        let len = frame.len();
        if is_v6 {
            put(frame, ip + 4, short(len - ip - 40));
        } else {
            put(frame, ip + 2, short(len - ip));
            finish_ipv4(&mut frame[ip..transport]);
        }
        match protocol {
            Transport::Tcp => frame[transport + TCP_FLAGS] |= open.flags,
            Transport::Udp => put(frame, transport + UDP_LEN, short(len - transport)),
        }
        let pseudo = pseudo_header(frame, &open.layout, len - transport);
        put(frame, transport + protocol.checksum_offset(), pseudo);
        let virtio = &mut delivery.virtio;
        virtio.gso = match (protocol, is_v6) {
            (Transport::Tcp, false) => Gso::TcpV4,
            (Transport::Tcp, true) => Gso::TcpV6,
            (Transport::Udp, _) => Gso::Udp,
        };
        virtio.ecn = protocol == Transport::Tcp && frame[transport + TCP_FLAGS] & CWR != 0;
        virtio.gso_size = short(open.size);
        virtio.header_len = short(open.layout.payload);
    }
}

impl Open {
    /// Begins with `frame`, piece `piece`; `None` if no frame may continue it.
    fn start(
        piece: usize,
        from: (OverlayIndex, PortId),
        checksum: Checksum,
        layout: Layout,
        frame: &[u8],
    ) -> Option<Self> {
        let Layout { ip, transport, payload, is_v6, protocol } = layout;
        let size = frame.len() - payload;
        let may_grow = size > 0
            && payload <= HEADERS_MAX
            && !layout.has_ip_options()
            && is_sound(frame, &layout)
            && (is_v6 || frame[ip + 6] & !DONT_FRAGMENT == 0)
            && (protocol == Transport::Udp || is_plain_tcp(&frame[transport..], size));
        if !may_grow {
            return None;
        }
        let mut header = [0; HEADERS_MAX];
        header[..payload].copy_from_slice(&frame[..payload]);
        let has_id = !is_v6 && frame[ip + 6] & DONT_FRAGMENT == 0;
        Some(Self {
            piece,
            from,
            checksum,
            layout,
            size,
            segments: 1,
            len: frame.len(),
            next_seq: seq(frame, &layout).wrapping_add(u32::from(short(size))),
            flags: 0,
            next_id: if has_id { word(frame, ip + 4).map(|id| id.wrapping_add(1)) } else { None },
            header,
            mask: mask(&layout),
        })
    }

    /// Whether `frame` is the next segment.
    fn continues(&self, frame: &[u8]) -> bool {
        let layout = &self.layout;
        let Some((header, payload)) = frame.split_at_checked(layout.payload) else { return false };
        if payload.is_empty() || payload.len() > self.size || self.len - layout.ip + payload.len() > PACKET_MAX {
            return false;
        }
        let bytes = header.iter().zip(&self.header).zip(&self.mask);
        let difference = bytes.fold(0, |difference, ((new, first), mask)| difference | ((new ^ first) & mask));
        difference == 0
            && self.next_id.is_none_or(|id| word(frame, layout.ip + 4) == Some(id))
            && is_sound(frame, layout)
            && match layout.protocol {
                Transport::Tcp => seq(frame, layout) == self.next_seq && frame[layout.transport + TCP_FLAGS] & CWR == 0,
                Transport::Udp => true,
            }
    }

    /// Takes note of `frame`, which was appended; whether it was the last.
    fn grow(&mut self, frame: &[u8]) -> bool {
        let payload = frame.len() - self.layout.payload;
        self.segments += 1;
        self.len += payload;
        self.next_seq = self.next_seq.wrapping_add(u32::from(short(payload)));
        self.next_id = self.next_id.map(|id| id.wrapping_add(1));
        let is_full = match self.layout.protocol {
            Transport::Tcp => {
                self.flags = frame[self.layout.transport + TCP_FLAGS] & (PSH | FIN);
                self.flags != 0
            }
            Transport::Udp => self.segments == DATAGRAMS_MAX,
        };
        is_full || payload < self.size
    }
}

/// What the TAP is told of a frame with a partial checksum.
fn lone(layout: Layout) -> Result<Virtio, DropReason> {
    let csum_start = u16::try_from(layout.transport).map_err(|_| DropReason::Offload)?;
    let csum_offset = short(layout.protocol.checksum_offset());
    Ok(Virtio { needs_csum: true, csum_start, csum_offset, ..Virtio::default() })
}

/// Whether the lengths in the headers are the frame's, without padding, and IPv4's checksum is right.
fn is_sound(frame: &[u8], layout: &Layout) -> bool {
    let Layout { ip, transport, is_v6, protocol, .. } = *layout;
    layout.end(frame) == frame.len()
        && (is_v6 || sum(&frame[ip..transport]) == 0xffff)
        && (protocol == Transport::Tcp || word(frame, transport + UDP_LEN) == Some(short(frame.len() - transport)))
}

/// Whether more may follow a first segment with this TCP header, of `size` bytes of payload.
fn is_plain_tcp(header: &[u8], size: usize) -> bool {
    size >= TCP_PAYLOAD_MIN && header[12] & 0x0f == 0 && header[TCP_FLAGS] & !(CWR | ECE) == ACK
}

/// TCP's sequence number; of UDP anything.
fn seq(frame: &[u8], layout: &Layout) -> u32 {
    let field = frame.get(layout.transport + TCP_SEQ..).and_then(<[u8]>::first_chunk);
    field.map_or(0, |seq| u32::from_be_bytes(*seq))
}

/// Ones where the headers of two segments are the same: everywhere but lengths, identification, checksums,
/// sequence number, and the flags that only the first or the last may have.
fn mask(layout: &Layout) -> [u8; HEADERS_MAX] {
    let mut mask = [0xff; HEADERS_MAX];
    let mut differs = |from: usize, range: Range<usize>| mask[from + range.start..from + range.end].fill(0);
    if layout.is_v6 {
        differs(layout.ip, 4..6);
    } else {
        differs(layout.ip, 2..6);
        differs(layout.ip, 10..12);
    }
    match layout.protocol {
        Transport::Tcp => {
            differs(layout.transport, 4..8);
            differs(layout.transport, 16..18);
            mask[layout.transport + TCP_FLAGS] = !(CWR | PSH | FIN);
        }
        Transport::Udp => differs(layout.transport, 4..8),
    }
    mask
}

#[cfg(test)]
mod tests;
