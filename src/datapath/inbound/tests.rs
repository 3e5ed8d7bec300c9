use std::iter;
use std::net::Ipv4Addr;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::datapath::buf::{Frames, Origin};
use crate::datapath::layout::tests::tcp4;
use crate::datapath::offload::Virtio;
use crate::datapath::seal::{Sealer, SessionKeys, Share};
use crate::datapath::segment::tests::TSO4;
use crate::datapath::{Command, LegId, SwitchSettings};
use crate::keys::OverlayId;
use crate::wire::data::{FRAGMENT_LEN, HEADER_LEN, TAG_LEN};
use crate::wire::handshake::Suite;
use crate::wire::relay::{LegKey, RelayId};
use crate::wire::tree::ShortId;

const OVERLAY: OverlayIndex = OverlayIndex(0);
const PORTS: [PortId; 2] = [PortId(1), PortId(2)];
/// Of the first peer's keys.
const INDEX: u32 = 11;
const FRAME_LEN: usize = 60;
const OUTSIDE: [SocketAddr; 2] = [address(1), address(2)];

const fn address(last: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), 7777)
}

fn at(ms: u64) -> Time {
    Time::START + Duration::from_millis(ms)
}

fn keys(index: u32) -> SessionKeys {
    let (suite, key) = (Suite::StandIn, [7; 32]);
    SessionKeys { suite, send: key, receive: key, local_index: index, remote_index: index, streams: true }
}

/// Two peers have keys, and no path is in use.
fn corridor() -> Datapath {
    let mut datapath = Datapath::new(&[SwitchSettings::default()], &mut ChaCha8Rng::seed_from_u64(1));
    for (number, port) in (0..).zip(PORTS) {
        datapath.handle_command(at(0), Command::OpenPort { port, overlay: OVERLAY, short: ShortId(number) });
        datapath.handle_command(at(0), Command::Install { port, keys: keys(INDEX + number), confirmed: true });
    }
    notices(&mut datapath);
    datapath
}

fn sealer(index: u32) -> Sealer {
    Sealer::new(&keys(index), Share::WHOLE)
}

/// A packet with a frame of `len` bytes.
fn packet(sealer: &mut Sealer, len: usize) -> Vec<u8> {
    let meta = Meta { kind: FrameKind::Direct, fragment: false, checksum: Checksum::Finished }.byte();
    let mut packet = [&[0; HEADER_LEN][..], &[meta], &vec![2; len], &[0; TAG_LEN]].concat();
    sealer.seal(true, &mut packet);
    packet
}

fn packets(sealer: &mut Sealer, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|_| packet(sealer, FRAME_LEN)).collect()
}

/// A buffer's origin, and its packets, of one length.
type Buffer = ((SocketAddr, Option<IpAddr>), Vec<Vec<u8>>);

/// All in one wakeup.
fn receive(datapath: &mut Datapath, now: Time, buffers: &[Buffer]) {
    let mut batch = Datagrams::default();
    for ((from, to), packets) in buffers {
        batch.push(&packets.concat(), Origin { from: *from, to: *to, stride: packets[0].len() });
    }
    datapath.handle_datagrams(now, &mut batch);
}

fn notices(datapath: &mut Datapath) -> Vec<Notice> {
    iter::from_fn(|| datapath.poll_notice()).collect()
}

/// Who was heard by which path, in the order of the notices.
fn heard(datapath: &mut Datapath) -> Vec<(PortId, Path)> {
    let heard = |notice| if let Notice::Heard { port, path } = notice { Some((port, path)) } else { None };
    notices(datapath).into_iter().filter_map(heard).collect()
}

#[test]
fn two_peers_in_one_buffer_are_each_heard() {
    let (mut datapath, mut one, mut other) = (corridor(), sealer(INDEX), sealer(INDEX + 1));
    let runs = [packets(&mut one, 2), packets(&mut other, 2), packets(&mut one, 1)];
    receive(&mut datapath, at(5), &[((OUTSIDE[0], None), runs.concat())]);
    assert_eq!(datapath.stats(OVERLAY).datagrams_in, 5);
    assert_eq!(heard(&mut datapath), PORTS.map(|port| (port, Path::Direct(OUTSIDE[0]))));
    assert_eq!(PORTS.map(|port| datapath.activity(port).heard), [Some(at(5)); 2]);
}

#[test]
fn new_keys_behind_old_ones_in_a_buffer_are_confirmed_once() {
    let (mut datapath, next) = (corridor(), INDEX + 10);
    datapath.handle_command(at(0), Command::Install { port: PORTS[0], keys: keys(next), confirmed: false });
    let runs = [packets(&mut sealer(INDEX), 2), packets(&mut sealer(next), 2)];
    receive(&mut datapath, at(5), &[((OUTSIDE[0], None), runs.concat())]);
    assert_eq!(datapath.stats(OVERLAY).datagrams_in, 4);
    let confirmed = |notice: &Notice| matches!(notice, Notice::Confirmed { port, .. } if *port == PORTS[0]);
    assert_eq!(notices(&mut datapath).iter().filter(|notice| confirmed(notice)).count(), 1);
}

#[test]
fn what_does_not_open_is_not_heard_and_what_follows_it_is() {
    let (mut datapath, mut sealer) = (corridor(), sealer(INDEX));
    let mut forged = packet(&mut sealer, FRAME_LEN);
    forged[HEADER_LEN] ^= 1;
    receive(&mut datapath, at(5), &[((OUTSIDE[0], None), vec![forged.clone()])]);
    assert_eq!(heard(&mut datapath), []);
    receive(&mut datapath, at(5), &[((OUTSIDE[0], None), vec![forged, packet(&mut sealer, FRAME_LEN)])]);
    assert_eq!(heard(&mut datapath), [(PORTS[0], Path::Direct(OUTSIDE[0]))]);
}

#[test]
fn another_address_is_heard_though_the_keys_are_the_same() {
    let (mut datapath, mut sealer) = (corridor(), sealer(INDEX));
    let buffers = OUTSIDE.map(|from| ((from, None), packets(&mut sealer, 2)));
    receive(&mut datapath, at(5), &buffers);
    assert_eq!(heard(&mut datapath), OUTSIDE.map(|from| (PORTS[0], Path::Direct(from))));
}

#[test]
fn every_wakeup_hears_the_peer_answer() {
    let (mut datapath, mut sealer) = (corridor(), sealer(INDEX));
    datapath.handle_command(at(0), Command::UsePath { port: PORTS[0], path: Some(Path::Direct(OUTSIDE[0])) });
    for now in [at(7), at(8)] {
        receive(&mut datapath, now, &[((OUTSIDE[0], None), packets(&mut sealer, 2))]);
        assert_eq!(datapath.activity(PORTS[0]).answered, Some(now));
    }
}

#[test]
fn answers_leave_from_the_address_that_the_last_buffer_came_to() {
    let (mut datapath, mut sealer) = (corridor(), sealer(INDEX));
    let (port, path) = (PORTS[0], Path::Direct(OUTSIDE[0]));
    datapath.handle_command(at(0), Command::KeepSources { keep: true });
    datapath.handle_command(at(0), Command::UsePath { port, path: Some(path) });
    let own = [1, 2].map(|last| IpAddr::from([198, 51, 100, last]));
    let buffers = own.map(|to| ((OUTSIDE[0], Some(to)), packets(&mut sealer, 2)));
    receive(&mut datapath, at(5), &buffers);
    datapath.handle_command(at(5), Command::SendSession { port, path, message: vec![1], hops: None });
    let (transmits, _) = datapath.take_batches(Default::default());
    assert_eq!(transmits.get(0).map(|(_, target)| target.from), Some(Some(own[1])));
}

#[test]
fn a_path_over_a_relay_is_heard_among_direct_packets_of_the_same_buffer() {
    let (mut datapath, mut sealer) = (corridor(), sealer(INDEX));
    let (leg, key, relay) = (LegId(1), LegKey([9; 16]), RelayId(5));
    datapath.handle_command(at(0), Command::SetLeg { leg, relay: OUTSIDE[0], key });
    let direct = packet(&mut sealer, FRAME_LEN);
    // As long as a direct one with its relay header.
    let inner = packet(&mut sealer, FRAME_LEN - relay_wire::HEADER_LEN);
    let mut relayed = [vec![0; relay_wire::HEADER_LEN], inner].concat();
    relay_wire::Header { down: true, relay, counter: 0 }.write(key, &mut relayed);
    let buffer = vec![direct, relayed, packet(&mut sealer, FRAME_LEN)];
    receive(&mut datapath, at(5), &[((OUTSIDE[0], None), buffer)]);
    assert_eq!(datapath.stats(OVERLAY).datagrams_in, 3);
    let paths = [Path::Direct(OUTSIDE[0]), Path::Relayed(leg, relay)];
    assert_eq!(heard(&mut datapath), paths.map(|path| (PORTS[0], path)));
}

#[test]
fn a_run_that_is_relayed_leaves_as_one_run() {
    let (mut datapath, mut sealer) = (corridor(), sealer(INDEX));
    let (members, keys) = ([RelayId(1), RelayId(2)], [LegKey([1; 16]), LegKey([2; 16])]);
    for place in [0, 1] {
        let (relay, overlay, addr, key) = (members[place], OverlayId([3; 32]), OUTSIDE[place], keys[place]);
        datapath.handle_command(at(0), Command::SetChannel { relay, overlay, addr, key });
    }
    let up = |(counter, inner): (u64, Vec<u8>)| {
        let mut packet = [vec![0; relay_wire::HEADER_LEN], inner].concat();
        relay_wire::Header { down: false, relay: members[1], counter }.write(keys[0], &mut packet);
        packet
    };
    let run = (0..).zip(packets(&mut sealer, 5)).map(up).collect::<Vec<_>>();
    receive(&mut datapath, at(5), &[((OUTSIDE[0], None), run.clone())]);
    let (transmits, _) = datapath.take_batches(Default::default());
    let pieces = transmits.iter().collect::<Vec<_>>();
    assert_eq!(pieces.len(), run.len());
    for (place, (packet, target)) in pieces.iter().enumerate() {
        assert_eq!(packet[relay_wire::HEADER_LEN..], run[place][relay_wire::HEADER_LEN..], "in order");
        assert_eq!((packet.len(), target.to), (run[0].len(), OUTSIDE[1]));
    }
    // UDP GSO takes neighbours of one size to one target.
    for pair in pieces.windows(2) {
        assert_eq!(pair[0].1, pair[1].1, "one target");
        assert_eq!(pair[0].0.as_ptr_range().end, pair[1].0.as_ptr(), "back to back");
    }
}

#[test]
fn a_frame_for_one_machine_is_use_and_a_flooded_one_is_not() {
    let plain = |kind, first| [Meta { kind, fragment: false, checksum: Checksum::Finished }.byte(), first, 0, 0, 0];
    assert!(is_use(&plain(FrameKind::Direct, 0x02)) && is_use(&plain(FrameKind::Moved, 0x02)));
    assert!(!is_use(&plain(FrameKind::Copy, 0x02)), "an unknown address is flooded");
    assert!(!is_use(&plain(FrameKind::Tree, 0x02)), "a list comes first");
    assert!(!is_use(&plain(FrameKind::Direct, 0x33)) && !is_use(&plain(FrameKind::Direct, 0xff)), "groups");
    assert!(!is_use(&[]));
}

#[test]
fn of_two_pieces_the_first_tells() {
    let meta = Meta { kind: FrameKind::Direct, fragment: true, checksum: Checksum::Finished }.byte();
    let piece = |part, first: u8| [[meta].as_slice(), &Fragment { id: 7, part }.bytes()[..], &[first; 8]].concat();
    assert_eq!(piece(0, 0).len(), 1 + FRAGMENT_LEN + 8);
    assert!(is_use(&piece(0, 0x02)));
    assert!(!is_use(&piece(0, 0xff)) && !is_use(&piece(1, 0x02)));
}

#[test]
fn lying_notes_are_counted_and_nothing_leaves() {
    let (mut datapath, mut tcp) = (corridor(), tcp4(&[1; 250]));
    tcp[..6].fill(6);
    datapath.handle_command(at(0), Command::UsePath { port: PORTS[0], path: Some(Path::Direct(OUTSIDE[0])) });
    let lies = [
        Virtio { header_len: 305, ..TSO4 },
        Virtio { csum_start: 305, ..TSO4 },
        Virtio { gso_size: 0, ..TSO4 },
        Virtio { gso_size: 305, ..TSO4 },
    ];
    for (number, lie) in (1..).zip(lies) {
        let mut frames = Frames::default();
        frames.push(&tcp, lie);
        datapath.handle_frames(at(1), OVERLAY, &frames);
        assert_eq!(datapath.stats(OVERLAY).count(DropReason::Offload), number, "{lie:?}");
    }
    assert!(!datapath.has_batches());
    let mut frames = Frames::default();
    frames.push(&tcp, TSO4);
    datapath.handle_frames(at(1), OVERLAY, &frames);
    assert_eq!(datapath.take_batches(Default::default()).0.len(), 3, "the truth is sent");
}
