//! Offloads between the kernel and us: what a frame still lacks when it crosses a TAP.
//!
//! The kernel hands a whole superframe over and leaves cutting and checksums to whoever sends it on;
//! it takes the same from us. [`Virtio`] is its note in front of each frame, checked here before
//! anything believes it. Read first: Virtio 1.2 5.1.6, `include/uapi/linux/virtio_net.h`.

/// Bytes of the header in front of each frame (`struct virtio_net_hdr`).
pub const VIRTIO_LEN: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum field holds the pseudo-header sum only.
const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// `VIRTIO_NET_HDR_GSO_ECN`: the first segment carries CWR.
const GSO_ECN: u8 = 0x80;

/// What a TAP takes and gives besides whole frames with finished checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TapOffload {
    /// Nothing: every frame is whole and finished.
    #[default]
    None,
    /// Partial checksums and TCP superframes.
    Tcp,
    /// UDP superframes too (Linux 6.2 and later).
    TcpAndUdp,
}

/// How a superframe is to be cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gso {
    /// Not at all: it is one frame.
    #[default]
    None,
    /// Into TCP segments over IPv4.
    TcpV4,
    /// Into TCP segments over IPv6.
    TcpV6,
    /// Into UDP datagrams.
    Udp,
}

/// What the kernel says of a frame, or we say to it.
///
/// `flags 1 | GSO type 1 | header length 2 | GSO size 2 | checksum start 2 | checksum offset 2`, in the
/// host's byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Virtio {
    /// The checksum is partial: to be summed from `csum_start` and stored `csum_offset` behind it.
    pub needs_csum: bool,
    /// How it is to be cut.
    pub gso: Gso,
    /// The superframe carries CWR, for its first segment only.
    pub ecn: bool,
    /// Bytes of all headers; a hint, never believed.
    pub header_len: u16,
    /// Payload bytes of each segment but the last.
    pub gso_size: u16,
    /// Where the sum starts: at the transport header.
    pub csum_start: u16,
    /// Where the checksum is, from there.
    pub csum_offset: u16,
}

impl Virtio {
    /// Reads it; `None` if it asks for what we never offered.
    pub fn parse(bytes: [u8; VIRTIO_LEN]) -> Option<Self> {
        let [flags, gso, l0, l1, g0, g1, s0, s1, o0, o1] = bytes;
        let kind = match gso & !GSO_ECN {
            GSO_NONE => Gso::None,
            GSO_TCPV4 => Gso::TcpV4,
            GSO_TCPV6 => Gso::TcpV6,
            GSO_UDP_L4 => Gso::Udp,
            _ => return None,
        };
        Some(Self {
            needs_csum: flags & NEEDS_CSUM != 0,
            gso: kind,
            ecn: gso & GSO_ECN != 0,
            header_len: u16::from_ne_bytes([l0, l1]),
            gso_size: u16::from_ne_bytes([g0, g1]),
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        })
    }

    /// Its bytes.
    pub fn bytes(self) -> [u8; VIRTIO_LEN] {
        let kind = match self.gso {
            Gso::None => GSO_NONE,
            Gso::TcpV4 => GSO_TCPV4,
            Gso::TcpV6 => GSO_TCPV6,
            Gso::Udp => GSO_UDP_L4,
        };
        let [l0, l1] = self.header_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        let ecn = if self.ecn { GSO_ECN } else { 0 };
        [u8::from(self.needs_csum), kind | ecn, l0, l1, g0, g1, s0, s1, o0, o1]
    }
}
