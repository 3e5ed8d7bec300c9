//! Frames for the raw sockets: Ethernet, VLAN tags, ARP, RARP, a bit of IPv4.

use std::fmt;
use std::net::Ipv4Addr;

/// IEEE's local experimental EtherType: nobody answers it.
pub const EXPERIMENT: u16 = 0x88b5;

/// A customer's tag (802.1Q).
pub const C_TAG: u16 = 0x8100;

/// A service tag (802.1ad).
pub const S_TAG: u16 = 0x88a8;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const RARP: u16 = 0x8035;

/// A MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// To everyone.
    pub const BROADCAST: Mac = Mac([0xff; 6]);
    const NONE: Mac = Mac([0; 6]);

    /// An address of nobody in the lab, each number its own.
    pub const fn foreign(number: u8) -> Mac {
        Mac([0x52, 0x54, 0x00, 0xf0, 0x0d, number])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A frame with this payload.
pub fn ethernet(dst: Mac, src: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&dst.0[..], &src.0, &ethertype.to_be_bytes(), payload].concat()
}

/// A frame that says nothing but who it is: its payload begins with `mark`, 46 bytes long.
pub fn marked(dst: Mac, src: Mac, mark: u64) -> Vec<u8> {
    let mut payload = vec![0x5a; 46];
    payload[..8].copy_from_slice(&mark.to_be_bytes());
    ethernet(dst, src, EXPERIMENT, &payload)
}

/// The same frame with a VLAN tag outside of what it has.
pub fn tagged(frame: &[u8], tpid: u16, vlan: u16, priority: u8) -> Vec<u8> {
    let tci = u16::from(priority) << 13 | vlan;
    let mut whole = frame.to_vec();
    whole.splice(12..12, [tpid.to_be_bytes(), tci.to_be_bytes()].concat());
    whole
}

/// "Who has `ip`?", to everyone.
pub fn arp_request(mac: Mac, own: Ipv4Addr, ip: Ipv4Addr) -> Vec<u8> {
    let body = arp(1, (mac, own), (Mac::NONE, ip));
    ethernet(Mac::BROADCAST, mac, ARP, &body)
}

/// "`own` is at `mac`", to one.
pub fn arp_reply(mac: Mac, own: Ipv4Addr, to: Mac, to_ip: Ipv4Addr) -> Vec<u8> {
    ethernet(to, mac, ARP, &arp(2, (mac, own), (to, to_ip)))
}

/// The announcement of a VM that has moved (as QEMU and Linux send it).
pub fn gratuitous_arp(mac: Mac, own: Ipv4Addr) -> Vec<u8> {
    let body = arp(1, (mac, own), (Mac::NONE, own));
    ethernet(Mac::BROADCAST, mac, ARP, &body)
}

/// The other announcement of a VM that has moved (as libvirt and VMware send it).
pub fn rarp(mac: Mac) -> Vec<u8> {
    let nowhere = Ipv4Addr::UNSPECIFIED;
    let body = arp(3, (mac, nowhere), (mac, nowhere));
    ethernet(Mac::BROADCAST, mac, RARP, &body)
}

fn arp(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4];
    body.extend(operation.to_be_bytes());
    for (mac, ip) in [sender, target] {
        body.extend(mac.0);
        body.extend(ip.octets());
    }
    body.resize(46, 0);
    body
}

/// A UDP datagram in IPv4 in Ethernet (no UDP checksum, which IPv4 allows).
pub fn udp(
    (src_mac, src, src_port): (Mac, Ipv4Addr, u16),
    (dst_mac, dst, dst_port): (Mac, Ipv4Addr, u16),
    payload: &[u8],
) -> Vec<u8> {
    let udp_len = 8 + payload.len();
    let total = u16::try_from(20 + udp_len).unwrap_or(u16::MAX);
    let mut ip = vec![0x45, 0];
    ip.extend(total.to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    ip.extend(src.octets());
    ip.extend(dst.octets());
    let sum = checksum(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    ip.extend(src_port.to_be_bytes());
    ip.extend(dst_port.to_be_bytes());
    ip.extend(u16::try_from(udp_len).unwrap_or(u16::MAX).to_be_bytes());
    ip.extend([0, 0]);
    ip.extend(payload);
    ethernet(dst_mac, src_mac, IPV4, &ip)
}

/// The question of a machine that boots from the network (RFC 2131, vendor class of PXE).
pub fn dhcp_discover(mac: Mac, transaction: u32) -> Vec<u8> {
    let mut bootp = vec![1, 1, 6, 0];
    bootp.extend(transaction.to_be_bytes());
    bootp.extend([0, 4, 0x80, 0]);
    bootp.resize(28, 0);
    bootp.extend(mac.0);
    bootp.resize(236, 0);
    bootp.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 60, 9]);
    bootp.extend(b"PXEClient");
    bootp.push(255);
    bootp.resize(300, 0);
    udp((mac, Ipv4Addr::UNSPECIFIED, 68), (Mac::BROADCAST, Ipv4Addr::BROADCAST, 67), &bootp)
}

/// The UDP payload of an untagged IPv4 frame, with its ports.
pub fn udp_payload(frame: &[u8]) -> Option<(u16, u16, &[u8])> {
    let ip = frame.get(14..)?;
    if frame[12..14] != IPV4.to_be_bytes() || *ip.get(9)? != 17 {
        return None;
    }
    let udp = ip.get(usize::from(ip[0] & 15) * 4..)?;
    let len = usize::from(u16::from_be_bytes([*udp.get(4)?, *udp.get(5)?]));
    let ports = [[udp[0], udp[1]], [udp[2], udp[3]]].map(u16::from_be_bytes);
    Some((ports[0], ports[1], udp.get(8..len)?))
}

/// Marks the UDP checksum of an untagged IPv4 frame as not used: a captured one may be unfinished.
pub fn drop_udp_checksum(frame: &mut [u8]) {
    let start = 14 + usize::from(frame[14] & 15) * 4 + 6;
    frame[start..start + 2].fill(0);
}

/// A TCP segment in an untagged IPv4 frame, as a receiver judges it.
#[derive(Clone, Copy, Debug)]
pub struct TcpSegment {
    /// The sender.
    pub from: Ipv4Addr,
    /// Number of its first byte.
    pub sequence: u32,
    /// Payload bytes.
    pub len: u32,
    /// Whether the checksums of IPv4 and TCP are right.
    pub sums_hold: bool,
}

impl TcpSegment {
    /// Reads it; `None` for other frames.
    pub fn read(frame: &[u8]) -> Option<TcpSegment> {
        let packet = frame.get(14..)?;
        if frame[12..14] != IPV4.to_be_bytes() || *packet.get(9)? != 6 {
            return None;
        }
        let start = usize::from(packet[0] & 15) * 4;
        let end = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        let (ip, tcp) = packet.get(..end)?.split_at_checked(start)?;
        let data = usize::from(*tcp.get(12)? >> 4) * 4;
        let length = u16::try_from(tcp.len()).ok()?.to_be_bytes();
        let pseudo = [&ip[12..20], &[0, 6], &length[..], tcp].concat();
        Some(TcpSegment {
            from: Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]),
            sequence: u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?),
            len: u32::try_from(tcp.len().checked_sub(data)?).ok()?,
            sums_hold: checksum(ip) == 0 && checksum(&pseudo) == 0,
        })
    }
}

fn checksum(words: &[u8]) -> u16 {
    let sum: u32 =
        words.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
