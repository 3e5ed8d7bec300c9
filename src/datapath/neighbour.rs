//! ARP and neighbour discovery as they are snooped and answered: who says that an address is whose, who asks, and
//! the answer in the name of the one that is asked for.
//!
//! What is odd in any way says nothing and asks nothing here, and is carried as any frame: two VLAN tags, a MAC address
//! that is not the sender's (proxies, virtual routers), extension headers. No input panics.
//! Read first: RFC 826, RFC 5227, RFC 4861 4.3, 4.4 and 7.2, RFC 4862 5.4.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::icmpv6::{TYPE_NEIGHBOR_ADVERTISEMENT as ADVERTISEMENT, TYPE_NEIGHBOR_SOLICITATION as SOLICITATION};
use etherparse::{ArpHardwareId, ArpPacketSlice, EtherType};

use super::ask::{self, ICMPV6, solicited_node};
use super::frame::{ARP, HEADER, Header, IPV6, IPV6_HEADER, Mac, ND_HOP_LIMIT, TAG_8021Q};

/// Type, code, checksum, flags and the target.
const FIXED: usize = 24;
/// Flags of an advertisement: it is a router, it was asked, it shall replace what is known.
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// Options with a MAC address: the source's, the target's.
const SOURCE_OPTION: u8 = 1;
const TARGET_OPTION: u8 = 2;

/// What its sender says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// "This address is mine"; whether it is a router's.
    Holds(IpAddr, bool),
    /// It has this address, but does not say all that others have to know of it.
    Uses(IpAddr),
}

/// "Who has the first address? The second one asks", to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// By ARP.
    Arp(Ipv4Addr, Ipv4Addr),
    /// By neighbour discovery.
    Nd(Ipv6Addr, Ipv6Addr),
}

impl Question {
    /// The address that is looked for.
    pub(super) const fn target(self) -> IpAddr {
        match self {
            Self::Arp(target, _) => IpAddr::V4(target),
            Self::Nd(target, _) => IpAddr::V6(target),
        }
    }
}

/// What a frame says and asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// An address of the sender's, by which it may be asked whether it is still there: from odd frames too.
    pub address: Option<IpAddr>,
    /// What others may be told of it.
    pub speaker: Option<Speaker>,
    /// What it asks everybody.
    pub question: Option<Question>,
}

/// Reads ARP and neighbour discovery; nothing in all other frames.
pub fn read(frame: &[u8], header: &Header) -> Heard {
    let is_plain =
        header.payload == HEADER || (header.payload == HEADER + 4 && frame[12..14] == TAG_8021Q.to_be_bytes());
    let packet = frame.get(header.payload..).unwrap_or_default();
    let heard = match header.ethertype {
        ARP => read_arp(packet, header),
        IPV6 => read_nd(packet, header),
        _ => None,
    };
    let heard = heard.unwrap_or_default();
    if is_plain { heard } else { Heard { address: heard.address, ..Heard::default() } }
}

fn read_arp(packet: &[u8], header: &Header) -> Option<Heard> {
    let arp = ArpPacketSlice::from_slice(packet).ok().filter(|arp| {
        arp.hw_addr_type() == ArpHardwareId::ETHERNET
            && arp.proto_addr_type() == EtherType::IPV4
            && arp.sender_hw_addr() == header.src.0
            && matches!(arp.operation().0, 1 | 2)
    })?;
    // Without an address of its own it asks whether one is free: that only the owner may answer.
    let sender = four(arp.sender_protocol_addr()).filter(|sender| is_host(*sender))?;
    let target = four(arp.target_protocol_addr())?;
    let asks = arp.operation().0 == 1 && header.dst.is_group() && target != sender && is_host(target);
    let (address, question) = (IpAddr::V4(sender), asks.then_some(Question::Arp(target, sender)));
    Some(Heard { address: Some(address), speaker: Some(Speaker::Holds(address, false)), question })
}

fn four(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

const fn is_host(ip: Ipv4Addr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast() && !ip.is_loopback()
}

fn read_nd(packet: &[u8], header: &Header) -> Option<Heard> {
    let (ip, rest) = packet.split_first_chunk::<IPV6_HEADER>()?;
    if ip[6] != ICMPV6 || ip[7] != ND_HOP_LIMIT || ip[0] >> 4 != 6 {
        return None;
    }
    let body = rest.get(..usize::from(u16::from_be_bytes([ip[4], ip[5]])))?;
    let (fixed, options) = body.split_first_chunk::<FIXED>()?;
    let [source, to, target] = [&ip[8..24], &ip[24..40], &fixed[8..]].map(six);
    let target = target.filter(|target| !target.is_multicast() && !target.is_unspecified())?;
    match (fixed[0], fixed[1]) {
        (SOLICITATION, 0) => read_solicitation(header, (source?, to?, target), options),
        (ADVERTISEMENT, 0) => {
            let is_own = fixed[4] & OVERRIDE != 0 && option(options, TARGET_OPTION) == Some(header.src);
            let speaker = is_own.then_some(Speaker::Holds(IpAddr::V6(target), fixed[4] & ROUTER != 0));
            Some(Heard { address: Some(IpAddr::V6(target)), speaker, question: None })
        }
        _ => None,
    }
}

/// Without a source it asks whether an address is free: that only the owner may answer.
fn read_solicitation(
    header: &Header,
    (source, to, target): (Ipv6Addr, Ipv6Addr, Ipv6Addr),
    options: &[u8],
) -> Option<Heard> {
    if source.is_unspecified() || source.is_multicast() {
        return None;
    }
    let address = Some(IpAddr::V6(source));
    if option(options, SOURCE_OPTION) != Some(header.src) {
        return Some(Heard { address, ..Heard::default() });
    }
    let asks = header.dst.is_group() && to == solicited_node(target) && target != source;
    let question = asks.then_some(Question::Nd(target, source));
    Some(Heard { address, speaker: address.map(Speaker::Uses), question })
}

fn six(bytes: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from)
}

/// The MAC address in the first option of this kind.
fn option(mut options: &[u8], kind: u8) -> Option<Mac> {
    while let [found, units, rest @ ..] = options {
        let len = usize::from(*units) * 8;
        if *found == kind {
            return rest.first_chunk().filter(|_| len == 8).map(|mac| Mac(*mac));
        }
        options = options.get(len.max(8)..)?;
    }
    None
}

/// Answers the question of `frame` in the name of the machine at `mac`, to the asker alone.
pub(super) fn answer(frame: &[u8], header: &Header, question: Question, (mac, is_router): (Mac, bool)) -> Vec<u8> {
    let mut answer = [header.src.0, mac.0].concat();
    answer.extend(&frame[12..header.payload]);
    match question {
        Question::Arp(target, asker) => {
            answer.extend([0, 1, 8, 0, 6, 4, 0, 2]);
            answer.extend(mac.0);
            answer.extend(target.octets());
            answer.extend(header.src.0);
            answer.extend(asker.octets());
        }
        Question::Nd(target, asker) => {
            let start = answer.len();
            answer.extend([0x60, 0, 0, 0, 0, 32, ICMPV6, ND_HOP_LIMIT]);
            answer.extend(target.octets());
            answer.extend(asker.octets());
            let router = if is_router { ROUTER } else { 0 };
            answer.extend([ADVERTISEMENT, 0, 0, 0, router | SOLICITED | OVERRIDE, 0, 0, 0]);
            answer.extend(target.octets());
            answer.extend([TARGET_OPTION, 1]);
            answer.extend(mac.0);
            ask::finish(&mut answer, (start, start + IPV6_HEADER));
        }
    }
    answer
}

#[cfg(test)]
mod tests;
