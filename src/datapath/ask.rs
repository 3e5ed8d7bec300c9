//! Questions to our own segment: is the machine still there? An ARP request or a neighbour solicitation for its
//! address, from this daemon itself.
//!
//! Sent to a group, though we know whom we ask: the segment's bridge has just heard the machine's address come
//! out of the TAP and would send nothing for it anywhere else. Read first: RFC 826, RFC 5227 2.1.1, RFC 4861 4.3.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::IpNumber;

use super::checksum;
use super::fdb::Address;
use super::frame::{ARP, IPV6, IPV6_HEADER, Mac, TAG_8021Q};

/// A neighbour solicitation with the option that names its sender.
const SOLICITATION: usize = 24 + 8;
pub(super) const ICMPV6: u8 = IpNumber::IPV6_ICMP.0;

/// The question for the machine with `ip`, in the VLAN of `about`, from `station`.
pub(super) fn question(station: Mac, about: Address, ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => arp(station, about.vlan, ip),
        IpAddr::V6(ip) => solicitation(station, about.vlan, ip),
    }
}

/// The same to the machine alone, where it is known that it is there: nobody else is to hear of it.
pub(super) fn reminder(station: Mac, about: Address, ip: IpAddr) -> Vec<u8> {
    let mut frame = question(station, about, ip);
    frame[..6].copy_from_slice(&about.mac.0);
    frame
}

pub(super) fn ethernet(dst: Mac, src: Mac, vlan: u16, ethertype: u16) -> Vec<u8> {
    let mut frame = [dst.0, src.0].concat();
    if vlan != 0 {
        frame.extend([TAG_8021Q, vlan].map(u16::to_be_bytes).concat());
    }
    frame.extend(ethertype.to_be_bytes());
    frame
}

/// Without an address of our own: every machine answers such a probe for its address, and none notes us down.
fn arp(station: Mac, vlan: u16, ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(Mac([0xff; 6]), station, vlan, ARP);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(station.0);
    frame.extend([0; 4 + 6]);
    frame.extend(ip.octets());
    frame
}

/// From our link-local address: without one it would mean that we want the machine's address for ourselves.
fn solicitation(station: Mac, vlan: u16, ip: Ipv6Addr) -> Vec<u8> {
    let [.., x, y, z] = ip.octets();
    let mut frame = ethernet(Mac([0x33, 0x33, 0xff, x, y, z]), station, vlan, IPV6);
    let start = frame.len();
    let length = u8::try_from(SOLICITATION).expect("32 bytes");
    frame.extend([0x60, 0, 0, 0, 0, length, ICMPV6, 255]);
    frame.extend(link_local(station).octets());
    frame.extend(solicited_node(ip).octets());
    frame.extend([135, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend(ip.octets());
    frame.extend([1, 1]);
    frame.extend(station.0);
    finish(&mut frame, (start, start + IPV6_HEADER));
    frame
}

/// RFC 4291 2.7.1.
pub(super) fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., x, y, z] = ip.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z])
}

/// Sums the ICMPv6 message at `icmp` in the IPv6 packet that begins at `ip`.
pub(super) fn finish(frame: &mut [u8], (ip, icmp): (usize, usize)) {
    let addresses = u64::from(checksum::sum(&frame[ip + 8..ip + IPV6_HEADER]));
    let pseudo = checksum::fold(addresses + (frame.len() - icmp) as u64 + u64::from(ICMPV6));
    frame[icmp + 2..icmp + 4].copy_from_slice(&pseudo.to_be_bytes());
    checksum::finish(frame, icmp, 2);
}

/// RFC 4291, appendix A.
pub(super) fn link_local(Mac([a, b, c, d, e, f]): Mac) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{ArpPacketSlice, Icmpv6Slice, Icmpv6Type, SlicedPacket, TransportSlice};

    const STATION: Mac = Mac([2, 1, 2, 3, 4, 5]);
    const VM: Mac = Mac([2, 0, 0, 0, 0, 9]);

    #[test]
    fn an_arp_probe_names_the_machine_and_gives_no_address_of_ours() {
        let frame = question(STATION, Address { vlan: 0, mac: VM }, IpAddr::from([10, 0, 0, 9]));
        let arp = ArpPacketSlice::from_slice(&frame[14..]).expect("an ARP packet");
        assert_eq!((arp.operation().0, arp.target_protocol_addr()), (1, &[10, 0, 0, 9][..]));
        assert_eq!((arp.sender_hw_addr(), arp.sender_protocol_addr()), (&STATION.0[..], &[0; 4][..]));
    }

    #[test]
    fn a_solicitation_is_whole_and_stays_in_its_vlan() {
        let ip = Ipv6Addr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab, 0xcd]);
        for vlan in [0, 10] {
            let frame = question(STATION, Address { vlan, mac: VM }, IpAddr::V6(ip));
            let packet = SlicedPacket::from_ethernet(&frame).expect("a whole packet");
            assert_eq!(packet.link_exts.len(), usize::from(vlan != 0));
            let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("ICMPv6") };
            let ip_header = frame.len() - SOLICITATION - IPV6_HEADER;
            let ends = [8, 24].map(|at| *frame[ip_header + at..].first_chunk::<16>().expect("an address"));
            assert!(is_solicitation(&icmp) && icmp.is_checksum_valid(ends[0], ends[1]), "the sum is right");
        }
    }

    fn is_solicitation(icmp: &Icmpv6Slice<'_>) -> bool {
        matches!(icmp.icmp_type(), Icmpv6Type::NeighborSolicitation)
    }
}
