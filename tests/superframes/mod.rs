//! Packets as values: what cutting and joining is held against, slow and byte by byte.
//!
//! Nothing here uses longwire: a packet is built, cut and summed from what the RFCs say.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

const TCP: u8 = 6;
const UDP: u8 = 17;
pub(crate) const FIN: u8 = 1;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;
pub(crate) const ECE: u8 = 64;
pub(crate) const CWR: u8 = 128;

/// A TCP or UDP packet in its frame. What follows from the rest (lengths, checksums) is zero in the headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Ethernet with its tags.
    pub(crate) link: Vec<u8>,
    /// IP with options or extension headers.
    pub(crate) ip: Vec<u8>,
    /// Of IPv4.
    pub(crate) id: u16,
    /// TCP or UDP with options.
    pub(crate) transport: Vec<u8>,
    pub(crate) seq: u32,
    pub(crate) flags: u8,
    pub(crate) is_tcp: bool,
    pub(crate) payload: Vec<u8>,
}

impl Packet {
    pub(crate) fn is_v6(&self) -> bool {
        self.ip[0] >> 4 == 6
    }

    /// Whether nobody may look at its identification (RFC 6864).
    pub(crate) fn is_atomic(&self) -> bool {
        self.is_v6() || self.ip[6] & 0x40 != 0
    }

    pub(crate) fn transport_start(&self) -> usize {
        self.link.len() + self.ip.len()
    }

    pub(crate) fn headers(&self) -> usize {
        self.transport_start() + self.transport.len()
    }

    pub(crate) fn checksum_offset(&self) -> usize {
        if self.is_tcp { 16 } else { 6 }
    }

    /// Its bytes, with the checksum done or with the pseudo header's sum in its place.
    pub(crate) fn encode(&self, is_finished: bool) -> Vec<u8> {
        let mut ip = self.ip.clone();
        let len = self.transport.len() + self.payload.len();
        let total = ip.len() + len;
        if self.is_v6() {
            ip[4..6].copy_from_slice(&short(total - 40));
        } else {
            ip[2..4].copy_from_slice(&short(total));
            ip[4..6].copy_from_slice(&self.id.to_be_bytes());
            let checksum = !slow_sum(&ip);
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        let mut transport = self.transport.clone();
        if self.is_tcp {
            transport[4..8].copy_from_slice(&self.seq.to_be_bytes());
            transport[13] = self.flags;
        } else {
            transport[4..6].copy_from_slice(&short(len));
        }
        let mut bytes = [self.link.as_slice(), &ip, &transport, &self.payload].concat();
        let at = self.transport_start() + self.checksum_offset();
        bytes[at..at + 2].copy_from_slice(&self.pseudo_sum(len).to_be_bytes());
        if is_finished {
            slow_finish(&mut bytes, self.transport_start(), self.checksum_offset());
        }
        bytes
    }

    fn pseudo_sum(&self, len: usize) -> u16 {
        let addresses = if self.is_v6() { &self.ip[8..40] } else { &self.ip[12..20] };
        let len = u32::try_from(len).expect("64 KB at most").to_be_bytes();
        let protocol = [0, 0, 0, if self.is_tcp { TCP } else { UDP }];
        slow_sum(&[addresses, &len, &protocol].concat())
    }

    /// What it is cut into, as segmentation offload promises.
    pub(crate) fn cut(&self, size: usize) -> Vec<Packet> {
        let parts = self.payload.chunks(size).count();
        let cut = |(index, part): (usize, &[u8])| {
            let mut flags = self.flags;
            if index + 1 < parts {
                flags &= !(FIN | PSH);
            }
            if index > 0 {
                flags &= !CWR;
            }
            let done = u32::try_from(index * size).expect("64 KB at most");
            let seq = if self.is_tcp { self.seq.wrapping_add(done) } else { 0 };
            let id = if self.is_v6() { 0 } else { self.id.wrapping_add(u16::try_from(index).expect("few")) };
            let (link, ip, transport) = (self.link.clone(), self.ip.clone(), self.transport.clone());
            Packet { link, ip, id, transport, seq, flags, is_tcp: self.is_tcp, payload: part.to_vec() }
        };
        self.payload.chunks(size).enumerate().map(cut).collect()
    }

    /// Reads what was encoded; options and extension headers are those that [`Chance::packet`] gives.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut at = 12;
        while matches!(bytes[at..at + 2], [0x81, 0] | [0x88, 0xa8]) {
            at += 4;
        }
        let (link, packet) = bytes.split_at(at + 2);
        let is_v6 = packet[0] >> 4 == 6;
        let (mut end, mut number) = if is_v6 { (40, packet[6]) } else { (usize::from(packet[0] & 15) * 4, packet[9]) };
        while is_v6 && [0, 43, 60].contains(&number) {
            number = packet[end];
            end += 8 * (1 + usize::from(packet[end + 1]));
        }
        let (mut ip, is_tcp) = (packet[..end].to_vec(), number == TCP);
        let id = if is_v6 { 0 } else { u16::from_be_bytes([ip[4], ip[5]]) };
        if is_v6 {
            ip[4..6].fill(0);
        } else {
            ip[2..6].fill(0);
            ip[10..12].fill(0);
        }
        let header = if is_tcp { usize::from(packet[end + 12] >> 4) * 4 } else { 8 };
        let mut transport = packet[end..end + header].to_vec();
        let (mut seq, mut flags) = (0, 0);
        if is_tcp {
            seq = u32::from_be_bytes(*transport[4..].first_chunk().expect("20 bytes"));
            flags = transport[13];
            transport[4..8].fill(0);
            transport[13] = 0;
            transport[16..18].fill(0);
        } else {
            transport[4..8].fill(0);
        }
        let payload = packet[end + header..].to_vec();
        Self { link: link.to_vec(), ip, id, transport, seq, flags, is_tcp, payload }
    }
}

fn short(len: usize) -> [u8; 2] {
    u16::try_from(len).expect("an IP packet has 64 KB at most").to_be_bytes()
}

/// RFC 1071, as it stands there.
pub(crate) fn slow_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded at each step")
}

/// Finishes a partial checksum.
pub(crate) fn slow_finish(frame: &mut [u8], start: usize, offset: usize) {
    let checksum = Some(!slow_sum(&frame[start..])).filter(|checksum| *checksum != 0).unwrap_or(0xffff);
    frame[start + offset..start + offset + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Choices from a seed.
pub(crate) struct Chance(ChaCha8Rng);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.0.next_u64() % (end.max(1) as u64)).expect("below a usize")
    }

    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    fn byte(&mut self) -> u8 {
        self.0.next_u32().to_le_bytes()[0]
    }

    /// A packet of `len` bytes of payload, or of as much as fits.
    pub(crate) fn packet(&mut self, len: usize) -> Packet {
        let (is_v6, is_tcp) = (self.one_in(2), !self.one_in(4));
        let mut link = vec![2; 12];
        for _ in 0..self.below(6).saturating_sub(3) {
            link.extend(if self.one_in(2) { [0x81, 0] } else { [0x88, 0xa8] });
            link.extend(self.bytes(2));
        }
        link.extend(if is_v6 { [0x86, 0xdd] } else { [8, 0] });
        let number = if is_tcp { TCP } else { UDP };
        let ip = if is_v6 { self.ipv6(number) } else { self.ipv4(number) };
        let mut transport = self.bytes(if is_tcp { 20 } else { 8 });
        transport[4..8].fill(0);
        let mut flags = 0;
        if is_tcp {
            transport[16..20].fill(0);
            let options = if self.one_in(3) { self.below(11) * 4 } else { 12 };
            transport.extend(self.bytes(options));
            transport[12] = u8::try_from(transport.len() / 4).expect("60 at most") << 4;
            transport[13] = 0;
            flags = ACK | [0, PSH, FIN, PSH | FIN][self.below(4)] | [0, 0, ECE, CWR, CWR | ECE][self.below(5)];
        }
        let most = 65_535 - ip.len() - transport.len();
        let payload = self.bytes(len.min(most));
        let (id, seq) = (self.0.next_u32(), self.0.next_u32());
        // Both wrap round often.
        let near = |value: u32| if value & 0x0100 == 0 { value | 0xffff_fff0 } else { value };
        let seq = if is_tcp { near(seq) } else { 0 };
        let id = if is_v6 { 0 } else { u16::try_from(near(id) & 0xffff).expect("masked") };
        Packet { link, ip, id, transport, seq, flags, is_tcp, payload }
    }

    fn ipv4(&mut self, number: u8) -> Vec<u8> {
        let options = if self.one_in(8) { self.below(11) * 4 } else { 0 };
        let mut ip = self.bytes(20 + options);
        ip[0] = 0x40 | u8::try_from(5 + options / 4).expect("15 at most");
        ip[2..6].fill(0);
        ip[6..8].copy_from_slice(&[if self.one_in(2) { 0x40 } else { 0 }, 0]);
        ip[9..12].copy_from_slice(&[number, 0, 0]);
        ip
    }

    fn ipv6(&mut self, number: u8) -> Vec<u8> {
        let mut ip = self.bytes(40);
        ip[0] = 0x60 | ip[0] & 15;
        ip[4..6].fill(0);
        ip[6] = number;
        let (mut next, mut last) = (6, 0);
        while self.one_in(8) && last < 60 && ip.len() < 200 {
            // Hop-by-hop, routing without segments left, or destination options.
            let kind = [0, 43, 60].into_iter().find(|kind| *kind > last || ip.len() == 40).expect("60 is last");
            let kind = if self.one_in(2) { kind } else { 60 };
            ip[next] = kind;
            (next, last) = (ip.len(), kind.max(1));
            let len = self.below(3);
            let rest = self.bytes(4 + 8 * len);
            ip.extend([number, u8::try_from(len).expect("2 at most"), self.byte(), 0]);
            ip.extend(rest);
        }
        ip
    }
}
