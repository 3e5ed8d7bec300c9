//! DATA and SESSION packets: the clear header and the meta byte (protocol.md section 5).

use super::codec::DecodeError;

/// First byte of a sealed frame.
pub const DATA: u8 = 0x04;
/// First byte of a sealed message.
pub const SESSION: u8 = 0x05;
/// Bytes of the clear header.
pub const HEADER_LEN: usize = 16;
/// Bytes of the AEAD's tag.
pub const TAG_LEN: usize = 16;
/// Bytes of the fragment field.
pub const FRAGMENT_LEN: usize = 4;
/// Where the counter is in the clear header; its first four bits are the stream.
pub const COUNTER_AT: usize = 8;
/// Streams of a key: sequences of counters that know nothing of each other.
pub const STREAMS: usize = 16;
/// Bits of the counter behind the stream.
const PLACE_BITS: u32 = 60;
/// What a whole frame grows by: header, meta byte, tag.
pub const OVERHEAD: usize = HEADER_LEN + 1 + TAG_LEN;

/// The clear header: `kind 1 | reserved 3 | receiver index 4 | counter 8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// DATA (`true`) or SESSION.
    pub is_data: bool,
    /// Chosen by the receiver; selects session and key.
    pub receiver: u32,
    /// The nonce: stream and place.
    pub counter: u64,
}

/// The first counter of `stream`.
pub const fn first_counter(stream: u8) -> u64 {
    (stream as u64) << PLACE_BITS
}

impl Header {
    /// Reads it; the rest of the packet is the sealed part and its tag, at least one byte long.
    pub fn parse(packet: &[u8]) -> Result<Self, DecodeError> {
        let (head, sealed) = packet.split_first_chunk::<HEADER_LEN>().ok_or(DecodeError::Short)?;
        if sealed.len() < 1 + TAG_LEN {
            return Err(DecodeError::Short);
        }
        let is_data = match head[0] {
            DATA => true,
            SESSION => false,
            _ => return Err(DecodeError::Range),
        };
        let [_, r1, r2, r3, i0, i1, i2, i3, counter @ ..] = *head;
        if [r1, r2, r3] != [0; 3] {
            return Err(DecodeError::Reserved);
        }
        let receiver = u32::from_be_bytes([i0, i1, i2, i3]);
        Ok(Self { is_data, receiver, counter: u64::from_be_bytes(counter) })
    }

    /// Which sequence of counters it belongs to.
    pub const fn stream(self) -> u8 {
        (self.counter >> PLACE_BITS) as u8
    }

    /// The counter within its stream.
    pub const fn place(self) -> u64 {
        self.counter & (u64::MAX >> (u64::BITS - PLACE_BITS))
    }

    /// Its bytes.
    pub fn bytes(self) -> [u8; HEADER_LEN] {
        let mut head = [0; HEADER_LEN];
        head[0] = if self.is_data { DATA } else { SESSION };
        head[4..8].copy_from_slice(&self.receiver.to_be_bytes());
        head[COUNTER_AT..].copy_from_slice(&self.counter.to_be_bytes());
        head
    }
}

/// What is known of the transport checksum of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Whatever the sender put there; it is never touched.
    #[default]
    Finished,
    /// TCP's field holds the sum of the pseudo header only, not complemented.
    TcpPartial,
    /// UDP's does.
    UdpPartial,
}

/// What the receiver may do with a frame. No kind is ever sent on as itself but TREE, whose list gets shorter each
/// time: so no table can make a loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FrameKind {
    /// From whoever has the sender behind its TAP: delivered, or sent on as [`FrameKind::Moved`].
    #[default]
    Direct,
    /// The same, but one of several: another node has one too. Delivered or dropped.
    Copy,
    /// Sent on by the node that the machine has left. Delivered or dropped.
    Moved,
    /// For everybody, with the list of those to whom the receiver hands it on ([`tree`](super::tree)).
    Tree,
}

/// The first sealed byte of DATA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// What may become of the frame.
    pub kind: FrameKind,
    /// Whether the fragment field follows.
    pub fragment: bool,
    /// Of the frame.
    pub checksum: Checksum,
}

/// Frame kinds in bits 7-6, and that of a copy in bit 0 too.
const KIND_DIRECT: u8 = 2 << 6;
const KIND_COPY: u8 = KIND_DIRECT | 1;
const KIND_MOVED: u8 = 1 << 6;
const KIND_TREE: u8 = 0;
const TCP_PARTIAL: u8 = 1 << 4;
const UDP_PARTIAL: u8 = 2 << 4;
const CHECKSUM: u8 = 3 << 4;
const FRAGMENT: u8 = 1 << 3;

impl Meta {
    /// Reads it; what is reserved is refused.
    pub const fn parse(byte: u8) -> Result<Self, DecodeError> {
        let kind = match byte & !(FRAGMENT | CHECKSUM) {
            KIND_DIRECT => FrameKind::Direct,
            KIND_COPY => FrameKind::Copy,
            KIND_MOVED => FrameKind::Moved,
            KIND_TREE => FrameKind::Tree,
            _ => return Err(DecodeError::Reserved),
        };
        let checksum = match byte & CHECKSUM {
            0 => Checksum::Finished,
            TCP_PARTIAL => Checksum::TcpPartial,
            UDP_PARTIAL => Checksum::UdpPartial,
            _ => return Err(DecodeError::Reserved),
        };
        Ok(Self { kind, fragment: byte & FRAGMENT != 0, checksum })
    }

    /// Its byte.
    pub const fn byte(self) -> u8 {
        let checksum = match self.checksum {
            Checksum::Finished => 0,
            Checksum::TcpPartial => TCP_PARTIAL,
            Checksum::UdpPartial => UDP_PARTIAL,
        };
        let kind = match self.kind {
            FrameKind::Direct => KIND_DIRECT,
            FrameKind::Copy => KIND_COPY,
            FrameKind::Moved => KIND_MOVED,
            FrameKind::Tree => KIND_TREE,
        };
        kind | checksum | if self.fragment { FRAGMENT } else { 0 }
    }
}

/// The fragment field: `id 2 | part 1 | reserved 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The same for both pieces of a frame.
    pub id: u16,
    /// 0 for the first piece, 1 for the second.
    pub part: u8,
}

impl Fragment {
    /// Reads it from the front of what follows the meta byte.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let ([id0, id1, part, reserved], rest) = bytes.split_first_chunk::<FRAGMENT_LEN>().ok_or(DecodeError::Short)?;
        match (*part, *reserved) {
            (0 | 1, 0) => Ok((Self { id: u16::from_be_bytes([*id0, *id1]), part: *part }, rest)),
            (_, 0) => Err(DecodeError::Range),
            _ => Err(DecodeError::Reserved),
        }
    }

    /// Its bytes.
    pub const fn bytes(self) -> [u8; FRAGMENT_LEN] {
        let [id0, id1] = self.id.to_be_bytes();
        [id0, id1, self.part, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_its_bytes() {
        let header = Header { is_data: true, receiver: 0x0102_0304, counter: u64::MAX - 1 };
        let packet = [header.bytes().as_slice(), &[0; 17]].concat();
        assert_eq!(Header::parse(&packet), Ok(header));
        assert_eq!(Header::parse(&packet[..32]), Err(DecodeError::Short));
    }

    #[test]
    fn the_first_four_bits_of_the_counter_are_the_stream() {
        let header = Header { is_data: true, receiver: 7, counter: first_counter(5) + 9 };
        assert_eq!((header.stream(), header.place()), (5, 9));
        assert_eq!(header.bytes()[COUNTER_AT], 0x50);
        let last = Header { counter: u64::MAX, ..header };
        assert_eq!((usize::from(last.stream()), last.place()), (STREAMS - 1, (1 << 60) - 1));
    }

    #[test]
    fn reserved_bits_are_refused() {
        let mut packet = [0; 40];
        packet[0] = DATA;
        assert!(Header::parse(&packet).is_ok());
        packet[2] = 1;
        assert_eq!(Header::parse(&packet), Err(DecodeError::Reserved));
        let known = (0..=255).filter(|byte| Meta::parse(*byte).is_ok()).collect::<Vec<u8>>();
        let bodies = [0x00, 0x08, 0x10, 0x18, 0x20, 0x28];
        let expected = [0x00, 0x40, 0x80].map(|kind| bodies.map(|body| kind | body)).concat();
        let copies = bodies.map(|body| 0x81 | body);
        let mut expected = [&expected[..], &copies].concat();
        expected.sort_unstable();
        assert_eq!(known, expected);
    }
}
