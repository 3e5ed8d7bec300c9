//! Virtual machines behind the TAPs and the frames they send, every one numbered, so that the world
//! knows where each went.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::kernel::{self, Stream};
use super::underlay::HostId;
use crate::time::Time;

/// The EtherType of test frames: "local experimental 2" of IEEE 802.
const TEST: u16 = 0x88b6;
const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const VLAN_TAG: u16 = 0x8100;
const SERVICE_TAG: u16 = 0x88a8;
/// Destination, source and EtherType.
const ETHERNET: usize = 14;
/// Kind, id and what is asked: the fixed part of a test frame.
const TEST_BODY: usize = 17;
/// An ARP packet for IPv4 over Ethernet.
const ARP_BODY: usize = 28;
/// Everyone's MAC address.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// An Ethernet of the world, known to all its members by name and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OverlayNo(pub usize);

/// A virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmId(pub usize);

/// A frame that a virtual machine sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId(pub usize);

/// A virtual machine: one MAC address in one VLAN behind one host.
#[derive(Clone, Copy, Debug)]
pub struct Vm {
    /// Its address.
    pub mac: [u8; 6],
    /// Its VLAN; 0 = untagged.
    pub vlan: u16,
    /// The Ethernet it is plugged into.
    pub overlay: OverlayNo,
    /// Where it runs now.
    pub host: HostId,
}

/// What a test frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Nothing but to arrive.
    Data,
    /// To be answered by this machine.
    Ping(VmId),
    /// The answer to this frame.
    Pong(FrameId),
    /// A gratuitous ARP: "I am here now".
    Announce,
    /// An ARP request: "who has the address of this machine?"
    WhoHas(VmId),
    /// The answer to this one.
    IsAt(FrameId),
}

/// What became of a frame.
#[derive(Clone, Debug)]
pub struct Sent {
    /// When it was sent.
    pub at: Time,
    /// By whom.
    pub vm: VmId,
    /// From where.
    pub host: HostId,
    /// In which Ethernet.
    pub overlay: OverlayNo,
    /// Fingerprint of its bytes.
    pub digest: u64,
    /// How often each node wrote it to its TAP.
    pub delivered: BTreeMap<HostId, u32>,
    /// Who heard it, and when first.
    pub heard: BTreeMap<VmId, Time>,
    /// When its answer came back.
    pub answered: Option<Time>,
}

/// What a frame says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// For whom.
    pub to: [u8; 6],
    /// Its VLAN; 0 = untagged.
    pub vlan: u16,
    /// Its number.
    pub id: FrameId,
    /// What for.
    pub purpose: Purpose,
}

/// All machines and all frames.
#[derive(Debug, Default)]
pub struct Traffic {
    /// The machines.
    pub vms: Vec<Vm>,
    /// The frames, by [`FrameId`].
    pub frames: Vec<Sent>,
    /// The last ARP request of each machine for each address.
    pub asked: BTreeMap<(VmId, [u8; 4]), FrameId>,
    /// The multicast groups that machines have joined.
    pub joined: BTreeSet<(VmId, [u8; 4])>,
}

impl Traffic {
    /// Numbers and builds a frame of `vm` with at least `payload` bytes after its headers.
    pub fn build(&mut self, now: Time, vm: VmId, to: [u8; 6], purpose: Purpose, payload: usize) -> (FrameId, Vec<u8>) {
        let Vm { mac, vlan, .. } = self.vms[vm.0];
        let id = FrameId(self.frames.len());
        let target = match purpose {
            Purpose::WhoHas(wanted) => {
                let target = ip_of(self.vms[wanted.0].mac);
                self.asked.insert((vm, target), id);
                target
            }
            Purpose::IsAt(asked) => ip_of(self.vms[self.frames[asked.0].vm.0].mac),
            Purpose::Data | Purpose::Ping(_) | Purpose::Pong(_) | Purpose::Announce => ip_of(mac),
        };
        let bytes = encode((mac, target), Label { to, vlan, id, purpose }, payload);
        self.note(now, vm, &bytes);
        (id, bytes)
    }

    /// Numbers and builds a frame of a stream of `vm`, with `payload` bytes after its headers.
    pub fn build_stream(&mut self, now: Time, vm: VmId, to: [u8; 6], stream: Stream, payload: usize) -> Vec<u8> {
        let Vm { mac, vlan, .. } = self.vms[vm.0];
        let id = FrameId(self.frames.len());
        let bytes = encode_stream(mac, Label { to, vlan, id, purpose: Purpose::Data }, stream, payload);
        self.note(now, vm, &bytes);
        bytes
    }

    /// Numbers and builds a frame of `vm` with an IPv4 packet; its number stands behind that, as padding does.
    pub fn build_ipv4(&mut self, now: Time, vm: VmId, to: [u8; 6], packet: &[u8]) -> (FrameId, Vec<u8>) {
        let Vm { mac, vlan, .. } = self.vms[vm.0];
        let id = FrameId(self.frames.len());
        let mut bytes = addressed(mac, Label { to, vlan, id, purpose: Purpose::Data });
        bytes.extend_from_slice(&IPV4.to_be_bytes());
        bytes.extend_from_slice(packet);
        bytes.extend_from_slice(&(id.0 as u64).to_be_bytes());
        self.note(now, vm, &bytes);
        (id, bytes)
    }

    fn note(&mut self, now: Time, vm: VmId, bytes: &[u8]) {
        let Vm { overlay, host, .. } = self.vms[vm.0];
        let digest = digest(bytes);
        let (delivered, heard) = (BTreeMap::new(), BTreeMap::new());
        self.frames.push(Sent { at: now, vm, host, overlay, digest, delivered, heard, answered: None });
    }

    /// The machines behind `host` that a frame in `overlay` is for.
    pub fn receivers(&self, host: HostId, overlay: OverlayNo, label: &Label) -> Vec<VmId> {
        let group = label.to[0] & 1 == 1;
        let fits = |vm: &Vm| {
            vm.host == host && vm.overlay == overlay && vm.vlan == label.vlan && (group || vm.mac == label.to)
        };
        self.vms.iter().enumerate().filter(|(_, vm)| fits(vm)).map(|(number, _)| VmId(number)).collect()
    }
}

/// A fingerprint of bytes.
pub fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish()
}

fn addressed(from: [u8; 6], label: Label) -> Vec<u8> {
    let mut bytes = [label.to, from].concat();
    if label.vlan != 0 {
        bytes.extend_from_slice(&VLAN_TAG.to_be_bytes());
        bytes.extend_from_slice(&label.vlan.to_be_bytes());
    }
    bytes
}

/// A test frame in a TCP segment or UDP datagram over IPv6, its checksum finished.
fn encode_stream(from: [u8; 6], label: Label, stream: Stream, payload: usize) -> Vec<u8> {
    let mut bytes = addressed(from, label);
    let payload = payload.max(TEST_BODY);
    let header = stream.header(label.id.0, payload);
    let length = u16::try_from(header.len() + payload).expect("a test frame is short").to_be_bytes();
    bytes.extend_from_slice(&kernel::IPV6.to_be_bytes());
    bytes.extend_from_slice(&[0x60, 0, 0, 0, length[0], length[1], stream.next_header(), 64]);
    for mac in [from, label.to] {
        bytes.extend_from_slice(&[&[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0][..], &mac[..]].concat());
    }
    let end = bytes.len() + header.len() + payload;
    bytes.extend(header);
    let number = (label.id.0 as u64).to_be_bytes();
    bytes.push(0);
    bytes.extend_from_slice(&number);
    bytes.extend_from_slice(&[0; 8]);
    fill(&mut bytes, end, number[7]);
    kernel::finish(&mut bytes);
    bytes
}

fn fill(bytes: &mut Vec<u8>, end: usize, salt: u8) {
    while bytes.len() < end {
        bytes.push(bytes.len().to_le_bytes()[0] ^ salt);
    }
}

fn encode((from, target): ([u8; 6], [u8; 4]), label: Label, payload: usize) -> Vec<u8> {
    let mut bytes = addressed(from, label);
    let start = bytes.len() + 2;
    let number = (label.id.0 as u64).to_be_bytes();
    let (kind, subject) = match label.purpose {
        Purpose::Data | Purpose::Announce => (0, 0),
        Purpose::Ping(vm) => (1, vm.0 as u64),
        Purpose::Pong(frame) => (2, frame.0 as u64),
        Purpose::WhoHas(vm) => (1, vm.0 as u64),
        Purpose::IsAt(frame) => (2, frame.0 as u64),
    };
    if matches!(label.purpose, Purpose::Announce | Purpose::WhoHas(_) | Purpose::IsAt(_)) {
        bytes.extend_from_slice(&ARP.to_be_bytes());
        bytes.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, if kind == 2 { 2 } else { 1 }]);
        bytes.extend_from_slice(&[&from[..], &ip_of(from), &[0; 6], &target].concat());
        bytes.extend_from_slice(&number);
        bytes.extend_from_slice(&subject.to_be_bytes());
    } else {
        bytes.extend_from_slice(&TEST.to_be_bytes());
        bytes.push(kind);
        bytes.extend_from_slice(&number);
        bytes.extend_from_slice(&subject.to_be_bytes());
    }
    let end = start + payload;
    fill(&mut bytes, end, number[7]);
    bytes
}

/// A machine's IP address is made from its MAC.
const fn ip_of(mac: [u8; 6]) -> [u8; 4] {
    [10, mac[3], mac[4], mac[5]]
}

/// What a node asks its segment: an ARP request of its own, for a machine that may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    station: [u8; 6],
    vlan: u16,
    ip: [u8; 4],
}

impl Question {
    /// Reads it; `None` for every other frame. A test frame is longer.
    pub fn read(frame: &[u8]) -> Option<Self> {
        let station = *frame.get(6..)?.first_chunk()?;
        let tagged = frame.get(12..14)? == VLAN_TAG.to_be_bytes();
        let vlan = if tagged { u16::from_be_bytes(*frame.get(14..)?.first_chunk()?) } else { 0 };
        let arp = frame.get(if tagged { 18 } else { 14 }..)?;
        let is_question = arp.len() == ARP_BODY && arp[..8] == [0, 1, 8, 0, 6, 4, 0, 1] && arp[14..18] == [0; 4];
        is_question.then_some(())?;
        Some(Self { station, vlan, ip: *arp.get(24..)?.first_chunk()? })
    }

    /// Whether `frame` is an answer to any: such a one may stray where segments are cabled.
    pub fn is_answer(frame: &[u8]) -> bool {
        let ends = |body: &[u8]| body.ends_with(&[0; 4]) && body.get(..8) == Some(&[0, 1, 8, 0, 6, 4, 0, 2]);
        frame.len().checked_sub(ARP_BODY).is_some_and(|start| start >= ETHERNET && ends(&frame[start..]))
    }

    /// The answer of `vm`, if it is the one that is asked.
    pub fn answer(&self, vm: &Vm) -> Option<Vec<u8>> {
        let Self { station, vlan, ip } = *self;
        if vm.vlan != vlan || ip_of(vm.mac) != ip {
            return None;
        }
        let mut bytes = [station, vm.mac].concat();
        if vlan != 0 {
            bytes.extend([VLAN_TAG, vlan].map(u16::to_be_bytes).concat());
        }
        bytes.extend([&ARP.to_be_bytes()[..], &[0, 1, 8, 0, 6, 4, 0, 2], &vm.mac, &ip, &station, &[0; 4]].concat());
        Some(bytes)
    }
}

/// What a node answers in the name of a machine far away: a bare ARP reply to one of its own machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomeAnswer {
    /// To this machine.
    pub to: [u8; 6],
    /// In this VLAN.
    pub vlan: u16,
    /// The address that was asked for.
    pub ip: [u8; 4],
    /// Whose it is.
    pub mac: [u8; 6],
}

impl HomeAnswer {
    /// Reads it; `None` for every other frame. A test frame is longer.
    pub fn read(frame: &[u8]) -> Option<Self> {
        let tagged = frame.get(12..14)? == VLAN_TAG.to_be_bytes();
        let vlan = if tagged { u16::from_be_bytes(*frame.get(14..)?.first_chunk()?) } else { 0 };
        let arp = frame.get(if tagged { 18 } else { 14 }..)?;
        if arp.len() != ARP_BODY || arp[..8] != [0, 1, 8, 0, 6, 4, 0, 2] || arp[24..] == [0; 4] {
            return None;
        }
        let (to, mac, ip) = (*frame.first_chunk()?, *arp[8..].first_chunk()?, *arp[14..].first_chunk()?);
        Some(Self { to, vlan, ip, mac })
    }

    /// Whether it says the truth of `vm`.
    pub fn is_true_of(&self, vm: &Vm) -> bool {
        vm.vlan == self.vlan && vm.mac == self.mac && ip_of(vm.mac) == self.ip
    }
}

/// Reads a frame of the world; `None` if it is none.
pub fn decode(frame: &[u8]) -> Option<Label> {
    let to = *frame.first_chunk()?;
    let (mut at, mut vlan) = (12, 0);
    let mut kind = u16::from_be_bytes(*frame.get(at..)?.first_chunk()?);
    while kind == VLAN_TAG || kind == SERVICE_TAG {
        vlan = u16::from_be_bytes(*frame.get(at + 2..)?.first_chunk()?) & 0x0fff;
        at += 4;
        kind = u16::from_be_bytes(*frame.get(at..)?.first_chunk()?);
    }
    let body = if kind == kernel::IPV6 { kernel::payload(frame)? } else { frame.get(at + 2..)? };
    let number =
        |at: usize| -> Option<usize> { usize::try_from(u64::from_be_bytes(*body.get(at..)?.first_chunk()?)).ok() };
    let first = body.first();
    let (id, purpose) = match kind {
        ARP => {
            let (operation, id, subject) = (*body.get(7)?, number(ARP_BODY)?, number(ARP_BODY + 8)?);
            let is_own = body.get(14..18)? == body.get(24..28)?;
            match operation {
                1 if is_own => (id, Purpose::Announce),
                1 => (id, Purpose::WhoHas(VmId(subject))),
                _ => (id, Purpose::IsAt(FrameId(subject))),
            }
        }
        IPV4 => (number(usize::from(u16::from_be_bytes([*body.get(2)?, *body.get(3)?])))?, Purpose::Data),
        TEST | kernel::IPV6 if first == Some(&0) => (number(1)?, Purpose::Data),
        TEST if first == Some(&1) => (number(1)?, Purpose::Ping(VmId(number(9)?))),
        TEST if first == Some(&2) => (number(1)?, Purpose::Pong(FrameId(number(9)?))),
        _ => return None,
    };
    Some(Label { to, vlan, id: FrameId(id), purpose })
}

/// The shortest and the longest test frame of an untagged machine, as payload after its headers.
pub const PAYLOADS: std::ops::RangeInclusive<usize> = TEST_BODY..=1514 - ETHERNET;

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(vlan: u16) -> Traffic {
        let vm = Vm { mac: [2, 0, 0, 0, 0, 1], vlan, overlay: OverlayNo(0), host: HostId(0) };
        Traffic { vms: vec![vm], ..Traffic::default() }
    }

    #[test]
    fn every_frame_is_known_again() {
        for vlan in [0, 10] {
            for purpose in [Purpose::Data, Purpose::Ping(VmId(3)), Purpose::Pong(FrameId(4)), Purpose::Announce] {
                let mut traffic = traffic(vlan);
                traffic.build(Time::START, VmId(0), BROADCAST, Purpose::Data, 0);
                let (id, bytes) = traffic.build(Time::START, VmId(0), BROADCAST, purpose, 46);
                assert_eq!(decode(&bytes), Some(Label { to: BROADCAST, vlan, id, purpose }));
                assert_eq!(id, FrameId(1));
            }
        }
    }

    #[test]
    fn payloads_span_the_whole_mtu() {
        let mut traffic = traffic(0);
        let (_, longest) = traffic.build(Time::START, VmId(0), BROADCAST, Purpose::Data, *PAYLOADS.end());
        let (_, shortest) = traffic.build(Time::START, VmId(0), BROADCAST, Purpose::Data, 0);
        assert_eq!((shortest.len(), longest.len()), (31, 1514));
    }

    #[test]
    fn other_frames_are_not_ours() {
        assert_eq!(decode(&[0; 60]), None);
        assert_eq!(decode(&[0; 5]), None);
        assert_eq!(decode(&[&[2; 12][..], &[0x88, 0xb6]].concat()), None);
    }
}
