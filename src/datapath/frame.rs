//! Ethernet frames as the switch reads them: addresses, outer VLAN, EtherType.
//!
//! [`Header::parse`] runs for every frame in both directions and touches the first bytes only; the
//! rest rejects by EtherType before it looks further. Frames are borrowed, never changed or copied,
//! and no input panics. Read first: IEEE 802.3 clause 3, 802.1Q clause 9, RFC 826, RFC 4861 4.4.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use etherparse::icmpv6::TYPE_NEIGHBOR_ADVERTISEMENT;
use etherparse::{ArpHardwareId, ArpPacketSlice, EtherType, Icmpv6Slice, Icmpv6Type, IpNumber, Ipv6HeaderSlice};

use crate::wire::DISCOVER;
use crate::wire::discovery::{GROUP_MACS, PACKET_LEN};

/// Destination, source and EtherType; a frame that is shorter is a runt.
pub const HEADER: usize = 14;

/// Both addresses.
const ADDRESSES: usize = 12;
/// The VLAN identifier within a tag's control information; above it are priority and drop bit.
const VID: u16 = 0x0fff;
/// Customer tag, IEEE 802.1Q.
pub(super) const TAG_8021Q: u16 = 0x8100;
/// Service tag, IEEE 802.1ad.
const TAG_8021AD: u16 = 0x88a8;
pub(super) const IPV4: u16 = EtherType::IPV4.0;
pub(super) const IPV6: u16 = EtherType::IPV6.0;
pub(super) const ARP: u16 = EtherType::ARP.0;
/// Reverse ARP: what hypervisors send for a machine that has just arrived.
const RARP: u16 = 0x8035;
pub(super) const IPV4_HEADER: usize = 20;
pub(super) const IPV6_HEADER: usize = 40;
pub(super) const UDP_HEADER: usize = 8;
/// "More fragments" and the offset; both zero in an unfragmented IPv4 packet.
pub(super) const IPV4_FRAGMENT: u16 = 0x3fff;
/// Neighbour discovery from another link has passed a router and is refused (RFC 4861 7.1.2).
pub(super) const ND_HOP_LIMIT: u8 = 255;

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether it names a group of stations (multicast and broadcast), which no frame comes from.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether it is all zeroes, which is nobody.
    pub const fn is_zero(self) -> bool {
        matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Text that is no MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a MAC address is six pairs of hexadecimal digits like 02:00:5e:10:00:01")]
pub struct MacError;

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let mut mac = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut mac {
            let pair = pairs.next().ok_or(MacError)?;
            if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(MacError);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| MacError)?;
        }
        if pairs.next().is_some() { Err(MacError) } else { Ok(Self(mac)) }
    }
}

/// What the switch decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where the frame goes.
    pub dst: Mac,
    /// Where it comes from.
    pub src: Mac,
    /// VLAN identifier of the outer 802.1Q or 802.1ad tag; 0 = no tag, or a tag for the priority only.
    pub vlan: u16,
    /// EtherType after all tags; a length if below 0x600 (IEEE 802.3 with LLC).
    pub ethertype: u16,
    /// Where the payload starts: behind tags and EtherType.
    pub payload: usize,
}

impl Header {
    /// Reads the header of `frame`; `None` if it ends within the header or a tag.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let (dst, rest) = frame.split_first_chunk()?;
        let (src, _) = rest.split_first_chunk()?;
        let mut ethertype = word(frame, ADDRESSES)?;
        let mut payload = HEADER;
        let mut vlan = 0;
        while matches!(ethertype, TAG_8021Q | TAG_8021AD) {
            let tag = word(frame, payload)?;
            if payload == HEADER {
                vlan = tag & VID;
            }
            ethertype = word(frame, payload + 2)?;
            payload += 4;
        }
        Some(Self { dst: Mac(*dst), src: Mac(*src), vlan, ethertype, payload })
    }
}

/// The two bytes at `at`, big-endian.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|word| u16::from_be_bytes(*word))
}

/// Whether the sender announces where it is now, as a machine does that has moved or started:
/// gratuitous ARP, RARP, or a neighbour advertisement that nobody asked for.
pub fn announces(frame: &[u8], header: &Header) -> bool {
    let payload = || frame.get(header.payload..).unwrap_or_default();
    match header.ethertype {
        ARP => is_gratuitous_arp(payload()),
        RARP => ArpPacketSlice::from_slice(payload()).is_ok(),
        IPV6 => is_unsolicited_advertisement(payload()),
        _ => false,
    }
}

/// The IP address that a frame's packet comes from.
pub fn ip_source(frame: &[u8], header: &Header) -> Option<IpAddr> {
    let packet = frame.get(header.payload..)?;
    match header.ethertype {
        IPV4 => Some(IpAddr::from(*packet.get(12..)?.first_chunk::<4>()?)),
        IPV6 => Some(IpAddr::from(*packet.get(8..)?.first_chunk::<16>()?)),
        _ => None,
    }
}

/// The code point (RFC 2474) of the packet in a frame; 0 if it carries none.
pub fn dscp(frame: &[u8], header: &Header) -> u8 {
    let Some(start) = word(frame, header.payload) else { return 0 };
    match header.ethertype {
        IPV4 => (start as u8) >> 2,
        IPV6 => (start >> 6) as u8 & 0x3f,
        _ => 0,
    }
}

/// ARP about the sender's own address: request and reply are both in use (RFC 5227 3).
fn is_gratuitous_arp(packet: &[u8]) -> bool {
    ArpPacketSlice::from_slice(packet).is_ok_and(|arp| {
        arp.hw_addr_type() == ArpHardwareId::ETHERNET
            && arp.proto_addr_type() == EtherType::IPV4
            && arp.hw_addr_size() == 6
            && arp.proto_addr_size() == 4
            && matches!(arp.operation().0, 1 | 2)
            && arp.sender_protocol_addr() == arp.target_protocol_addr()
    })
}

fn is_unsolicited_advertisement(packet: &[u8]) -> bool {
    if packet.get(IPV6_HEADER) != Some(&TYPE_NEIGHBOR_ADVERTISEMENT) {
        return false;
    }
    let (Ok(ip), Some(body)) = (Ipv6HeaderSlice::from_slice(packet), packet.get(IPV6_HEADER..)) else {
        return false;
    };
    let body = body.get(..usize::from(ip.payload_length())).unwrap_or_default();
    if ip.next_header() != IpNumber::IPV6_ICMP || ip.hop_limit() != ND_HOP_LIMIT {
        return false;
    }
    // The advertised address follows the ICMPv6 header and is part of the fixed format.
    let Ok(icmp) = Icmpv6Slice::from_slice(body) else { return false };
    icmp.payload().len() >= 16
        && matches!(icmp.icmp_type(), Icmpv6Type::NeighborAdvertisement(flags) if !flags.solicited)
}

/// What to do with the groups that IEEE 802.1D keeps from crossing a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLocal {
    /// Carried like any frame: a long wire passes what a wire passes (EAPOL, LLDP).
    Pass,
    /// Spanning tree: carried, unless BPDUs are turned off.
    Stp,
    /// Pause and slow protocols (LACP): they speak about this very cable and end here.
    Never,
}

/// Which of them `dst` is; any other address passes.
pub const fn link_local(dst: Mac) -> LinkLocal {
    match dst.0 {
        [0x01, 0x80, 0xc2, 0, 0, 0x00] => LinkLocal::Stp,
        [0x01, 0x80, 0xc2, 0, 0, 0x01 | 0x02] => LinkLocal::Never,
        _ => LinkLocal::Pass,
    }
}

/// What a UDP packet carries, if `frame` is a whole one: IPv4 unfragmented, or IPv6 without
/// extension headers. By it our own sealed packets are recognised when they come out of a TAP.
pub fn udp_payload<'frame>(frame: &'frame [u8], header: &Header) -> Option<&'frame [u8]> {
    let udp = match header.ethertype {
        IPV4 => ipv4_udp(frame.get(header.payload..)?)?,
        IPV6 => ipv6_udp(frame.get(header.payload..)?)?,
        _ => return None,
    };
    // Ethernet pads short packets, and so might anybody: only the packet's own length counts.
    udp.get(UDP_HEADER..usize::from(word(udp, 4)?))
}

/// Whether `frame` is a daemon's announcement to its own link (protocol.md section 8).
pub fn is_announcement(frame: &[u8], header: &Header) -> bool {
    let is_one = |payload: &[u8]| payload.len() == PACKET_LEN && payload[0] == DISCOVER;
    GROUP_MACS.contains(&header.dst.0) && udp_payload(frame, header).is_some_and(is_one)
}

fn ipv4_udp(packet: &[u8]) -> Option<&[u8]> {
    let header: &[u8; IPV4_HEADER] = packet.first_chunk()?;
    let fragment = u16::from_be_bytes([header[6], header[7]]) & IPV4_FRAGMENT;
    if header[9] != IpNumber::UDP.0 || header[0] >> 4 != 4 || fragment != 0 {
        return None;
    }
    let start = usize::from(header[0] & 0x0f) * 4;
    let end = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if start < IPV4_HEADER { None } else { packet.get(start..end) }
}

fn ipv6_udp(packet: &[u8]) -> Option<&[u8]> {
    let header: &[u8; IPV6_HEADER] = packet.first_chunk()?;
    if header[6] != IpNumber::UDP.0 || header[0] >> 4 != 6 {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    packet.get(IPV6_HEADER..IPV6_HEADER + length)
}

#[cfg(test)]
mod tests;
