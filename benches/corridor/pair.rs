//! Two corridors that have each other's keys, and frames that go from one to the other.
//!
//! The "wire" between them joins equal packets as UDP GRO does; its copy is part of the time.

use std::net::SocketAddr;

use longwire::datapath::buf::{Datagrams, Deliveries, Frames, Origin, OverlayIndex, Transmits};
use longwire::datapath::fdb::PortId;
use longwire::datapath::offload::{Gso, TapOffload, Virtio};
use longwire::datapath::seal::SessionKeys;
use longwire::datapath::{Command, Datapath, Notice, Path, SwitchSettings};
use longwire::time::Time;
use longwire::wire::handshake::Suite;
use longwire::wire::tree::ShortId;

const NOW: Time = Time::START;
const OVERLAY: OverlayIndex = OverlayIndex(0);
const PORT: PortId = PortId(1);
/// What UDP GRO joins at most.
const JOINED_MAX: usize = 65_000;
/// Segments of the superframe: what fits 64 KB.
const SEGMENTS: u16 = 46;
/// TCP payload of each.
const SEGMENT: u16 = 1400;
/// Ethernet, IPv4 and TCP headers.
const HEADERS: usize = 14 + 20 + 20;
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// Two corridors that have each other's keys, and batches that go round.
pub struct Pair {
    ends: [Datapath; 2],
    spare: [(Transmits, Deliveries); 2],
    wire: Datagrams,
}

fn address(end: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, u8::try_from(end).expect("two ends")], 7777))
}

fn corridor(end: usize, suite: Suite, adapts: bool) -> Datapath {
    let mut rng = <rand_chacha::ChaCha20Rng as rand_chacha::rand_core::SeedableRng>::from_seed([7; 32]);
    let settings = SwitchSettings { tap: TapOffload::Tcp, adapts, ..SwitchSettings::default() };
    let mut datapath = Datapath::new(&[settings], &mut rng);
    let (own, other) = ([1, 2][end], [2, 1][end]);
    let index = |number: u8| u32::from(number) + 100;
    let keys = SessionKeys {
        suite,
        send: [own; 32],
        receive: [other; 32],
        local_index: index(own),
        remote_index: index(other),
        streams: true,
    };
    datapath.handle_command(NOW, Command::OpenPort { port: PORT, overlay: OVERLAY, short: ShortId(1) });
    datapath.handle_command(NOW, Command::Install { port: PORT, keys, confirmed: true });
    let path = Some(Path::Direct(address(1 - end)));
    datapath.handle_command(NOW, Command::UsePath { port: PORT, path });
    datapath
}

impl Pair {
    /// Whose switches know both machines.
    pub fn new(suite: Suite, adapts: bool) -> Self {
        let mut pair = Self {
            ends: [0, 1].map(|end| corridor(end, suite, adapts)),
            spare: Default::default(),
            wire: Datagrams::default(),
        };
        for end in [0, 1] {
            let frames = frames(&[frame(end, 64)]);
            assert_eq!(pair.carry(end, &frames), 64);
        }
        pair
    }

    /// From the TAP of `end` to packets.
    pub fn outbound(&mut self, end: usize, frames: &Frames) -> Transmits {
        self.ends[end].handle_frames(NOW, OVERLAY, frames);
        while self.ends[end].poll_notice().is_some() {}
        let spare = std::mem::take(&mut self.spare[end]);
        let (transmits, deliveries) = self.ends[end].take_batches(spare);
        self.spare[end].1 = deliveries;
        transmits
    }

    /// Packets that nobody needs any more.
    pub fn recycle(&mut self, end: usize, mut transmits: Transmits) {
        transmits.clear();
        self.spare[end].0 = transmits;
    }

    /// Reads what both ends counted; pairs of hosts.
    pub fn tally(&mut self) -> usize {
        let mut ports = 0;
        for end in &mut self.ends {
            end.handle_command(NOW, Command::Tally { overlay: OVERLAY });
            while let Some(notice) = end.poll_notice() {
                ports += if let Notice::Tallied { ports, .. } = notice { ports.len() } else { 0 };
            }
        }
        ports
    }

    /// From the TAP of `end` to the other one; bytes that came out.
    pub fn carry(&mut self, end: usize, frames: &Frames) -> usize {
        let transmits = self.outbound(end, frames);
        self.wire.clear();
        join(&transmits, &mut self.wire, address(end));
        self.recycle(end, transmits);
        let other = 1 - end;
        self.ends[other].handle_datagrams(NOW, &mut self.wire);
        while self.ends[other].poll_notice().is_some() {}
        let spare = std::mem::take(&mut self.spare[other]);
        let (transmits, mut deliveries) = self.ends[other].take_batches(spare);
        let bytes = deliveries.byte_len();
        deliveries.clear();
        self.spare[other] = (transmits, deliveries);
        bytes
    }
}

/// As UDP GRO does: equal neighbours become one buffer, which a shorter one ends.
fn join(transmits: &Transmits, wire: &mut Datagrams, from: SocketAddr) {
    let mut run = 0..0;
    let mut stride = 0;
    let mut bytes = 0;
    for (index, (packet, _)) in transmits.iter().enumerate() {
        let ended = run.len() * stride != bytes || packet.len() > stride || bytes + packet.len() > JOINED_MAX;
        if ended && !run.is_empty() {
            wire.push(transmits.span(run.clone()), Origin { from, to: None, stride });
            run = index..index;
        }
        if run.is_empty() {
            (stride, bytes) = (packet.len(), 0);
        }
        bytes += packet.len();
        run.end = index + 1;
    }
    if !run.is_empty() {
        wire.push(transmits.span(run), Origin { from, to: None, stride });
    }
}

/// A frame of `len` bytes from the machine at `end` to the other one.
pub fn frame(end: usize, len: usize) -> Vec<u8> {
    let head = [&MACS[1 - end][..], &MACS[end], &[0x88, 0xb5]].concat();
    head.into_iter().chain(std::iter::repeat(0x5a)).take(len).collect()
}

pub fn frames(all: &[Vec<u8>]) -> Frames {
    let mut frames = Frames::default();
    for frame in all {
        frames.push(frame, Virtio::default());
    }
    frames
}

/// A TCP superframe as the kernel hands it over: cut nowhere, its checksum a pseudo-header sum.
pub fn superframe() -> Frames {
    let tcp_len = 20 + SEGMENTS * SEGMENT;
    let (source, target) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let mut ip = vec![0x45, 0];
    ip.extend((20 + tcp_len).to_be_bytes());
    ip.extend([0, 1, 0x40, 0, 64, 6, 0, 0]);
    ip.extend([source, target].concat());
    let checksum = !sum(&ip, 0);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    // Ports 40000 and 5201, sequence 1, acknowledgement 1, ACK, window 512.
    let mut tcp = vec![0x9c, 0x40, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 2, 0, 0, 0, 0, 0];
    let pseudo = sum(&[source, target].concat(), 6 + u32::from(tcp_len));
    tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
    let mut bytes = [&MACS[1][..], &MACS[0], &[0x08, 0]].concat();
    bytes.extend(ip);
    bytes.extend(tcp);
    bytes.resize(HEADERS + usize::from(SEGMENTS * SEGMENT), 0x5a);
    let virtio = Virtio {
        needs_csum: true,
        gso: Gso::TcpV4,
        ecn: false,
        header_len: HEADERS as u16,
        gso_size: SEGMENT,
        csum_start: 34,
        csum_offset: 16,
    };
    let mut frames = Frames::default();
    frames.push(&bytes, virtio);
    frames
}

/// The Internet checksum's sum, not complemented.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut total = start;
    for pair in bytes.chunks(2) {
        total += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).expect("folded")
}
