//! Where the headers of a TCP or UDP packet lie within a frame.
//!
//! [`Layout::find`] reads whole packets only: unfragmented, all headers there, the IP packet within the
//! frame. What cuts, joins and sums goes by these offsets and looks at nothing again. No input panics.
//! Read first: RFC 791 3.1, RFC 8200 4, RFC 9293 3.1, RFC 768.

use super::frame::{Header, IPV4, IPV4_FRAGMENT, IPV4_HEADER, IPV6, IPV6_HEADER, UDP_HEADER, word};

pub(super) const TCP_HEADER: usize = 20;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;
/// Extension headers walked over: each kind once is what RFC 8200 4.1 asks for (destination options
/// twice), so more is nobody's traffic.
const EXTENSIONS_MAX: usize = 8;

/// What the IP packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Its number in the IP header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Where its checksum is, from the transport header.
    pub const fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }

    const fn of(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }
}

/// Offsets from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The IP header.
    pub ip: usize,
    /// The TCP or UDP header.
    pub transport: usize,
    /// What it carries; the end of all headers.
    pub payload: usize,
    /// IPv6, or else IPv4.
    pub is_v6: bool,
    /// TCP or UDP.
    pub protocol: Transport,
}

impl Layout {
    /// Finds them in `frame`, whose header is `header`; `None` if it is no whole TCP or UDP packet.
    pub fn find(frame: &[u8], header: &Header) -> Option<Self> {
        let ip = header.payload;
        let packet = frame.get(ip..packet_end(frame, header)?)?;
        let is_v6 = header.ethertype == IPV6;
        let (transport, number) = if is_v6 { behind_ipv6(packet)? } else { behind_ipv4(packet)? };
        let protocol = Transport::of(number)?;
        let segment = packet.get(transport..)?;
        let len = match protocol {
            Transport::Tcp => usize::from(*segment.get(12)? >> 4) * 4,
            Transport::Udp => UDP_HEADER,
        };
        let is_whole = len <= segment.len() && (protocol == Transport::Udp || len >= TCP_HEADER);
        let transport = ip + transport;
        is_whole.then_some(Self { ip, transport, payload: transport + len, is_v6, protocol })
    }

    /// Where the IP packet in `frame` says that it ends; what is behind it is Ethernet's padding.
    pub(super) fn end(&self, frame: &[u8]) -> usize {
        if self.is_v6 {
            self.ip + IPV6_HEADER + length(frame, self.ip + 4)
        } else {
            self.ip + length(frame, self.ip + 2)
        }
    }

    /// Whether there is anything between IP's fixed header and the transport header.
    pub(super) const fn has_ip_options(&self) -> bool {
        self.transport - self.ip != if self.is_v6 { IPV6_HEADER } else { IPV4_HEADER }
    }
}

/// Where the IP packet in `frame` ends by its own length; `None` if it is no IP packet or not all there.
pub(super) fn packet_end(frame: &[u8], header: &Header) -> Option<usize> {
    let packet = frame.get(header.payload..)?;
    let (fixed, version, len) = match header.ethertype {
        IPV4 => (IPV4_HEADER, 4, usize::from(word(packet, 2)?)),
        IPV6 => (IPV6_HEADER, 6, IPV6_HEADER + usize::from(word(packet, 4)?)),
        _ => return None,
    };
    let is_there = packet[0] >> 4 == version && (fixed..=packet.len()).contains(&len);
    is_there.then_some(header.payload + len)
}

fn length(frame: &[u8], at: usize) -> usize {
    word(frame, at).map_or(0, usize::from)
}

/// Where the payload of an IPv4 packet begins, and what it is.
fn behind_ipv4(packet: &[u8]) -> Option<(usize, u8)> {
    let len = usize::from(packet.first()? & 0x0f) * 4;
    let is_whole = len >= IPV4_HEADER && word(packet, 6)? & IPV4_FRAGMENT == 0;
    is_whole.then_some((len, *packet.get(9)?))
}

/// The same of an IPv6 packet, behind its extension headers.
fn behind_ipv6(packet: &[u8]) -> Option<(usize, u8)> {
    let (mut at, mut next) = (IPV6_HEADER, *packet.get(6)?);
    for _ in 0..=EXTENSIONS_MAX {
        if !matches!(next, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS) {
            return Some((at, next));
        }
        next = *packet.get(at)?;
        at += (usize::from(*packet.get(at + 1)?) + 1) * 8;
    }
    None
}

#[cfg(test)]
pub(super) mod tests;
