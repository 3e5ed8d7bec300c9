//! Correctness under speed: whatever is cut, sealed, joined and written as superframes, the machines
//! at both ends see their own bytes, in order, with right checksums, on any underlay.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use lab::frame::{self, TcpSegment};
use lab::{Capture, Guest, Impairment, Nat, PacketSocket, World};

const MEETING: Duration = Duration::from_secs(15);
/// Where the stream goes.
const PORT: u16 = 5_001;
/// Data in a segment of the guests, at most.
const SEGMENT_MAX: u64 = 1_460;
/// A transfer that takes longer is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// Byte `at` of the stream.
fn pattern(at: usize) -> u8 {
    (at.wrapping_mul(0x9e37_79b9) >> 13).to_le_bytes()[0]
}

/// Sends `len` bytes over TCP; panics unless they arrive as they were.
fn transfer(from: &Guest, to: &Guest, len: usize) {
    let listener = to.space.inside(|| TcpListener::bind((to.address, PORT))).unwrap();
    let taking = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(STUCK)).unwrap();
        let (mut at, mut room) = (0, vec![0; 65_536]);
        loop {
            match stream.read(&mut room).expect("bytes within the time") {
                0 => return at,
                got => {
                    let wrong = room[..got].iter().zip(at..).position(|(byte, place)| *byte != pattern(place));
                    assert_eq!(wrong.map(|place| at + place), None, "a byte changed on its way");
                    at += got;
                }
            }
        }
    });
    let mut stream = from.space.inside(|| TcpStream::connect((to.address, PORT))).unwrap();
    stream.set_write_timeout(Some(STUCK)).unwrap();
    let bytes = (0..len).map(pattern).collect::<Vec<_>>();
    stream.write_all(&bytes).unwrap();
    drop(stream);
    assert_eq!(taking.join().unwrap(), len);
}

/// Two members with a guest each, the first behind a link like this.
fn world(impairment: Impairment) -> World {
    world_with(impairment, &[])
}

fn world_with(impairment: Impairment, words: &[&str]) -> World {
    let mut lab = lab::Lab::new();
    let server = lab.supernode_host("sn");
    let places = [lab.emulated_site("s1", Nat::Open, impairment), lab.site("s2", Nat::Open)].map(|site| {
        let host = lab.host(&site, &format!("h{}", site.name));
        (site, host)
    });
    let world = World::with_words(lab, server, places.into(), words);
    world.wait_paths("direct", MEETING);
    world
}

/// Has the kernel cut and sum what goes to the second guest, so that its card sees what a cable carries.
fn as_on_a_cable(world: &World) {
    let port = &world.nodes[1].guest.port;
    let off = ["ethtool", "-K", port, "tx", "off", "tso", "off", "gso", "off"];
    assert!(world.nodes[1].host.space.run(&off).status.success(), "ethtool is needed");
}

/// The segments with data that came in at the second guest while `work` ran; every checksum is right.
fn segments_of(world: &World, work: impl FnOnce()) -> Vec<TcpSegment> {
    as_on_a_cable(world);
    let from = world.nodes[0].guest.address;
    let capture = Capture::start(&world.nodes[1].guest.space, "eth0");
    work();
    let frames = capture.stop();
    let segments = frames.iter().filter_map(|frame| TcpSegment::read(frame)).filter(|segment| segment.from == from);
    let segments = segments.collect::<Vec<_>>();
    let bad = segments.iter().filter(|segment| !segment.sums_hold).count();
    assert_eq!(bad, 0, "of {} segments with a bad checksum", segments.len());
    segments.into_iter().filter(|segment| segment.len > 0).collect()
}

/// No byte comes twice or late, but for what the sender's TCP itself sent again.
fn assert_nothing_twice(world: &World, segments: &[TcpSegment]) {
    // In the 32-bit circle of sequence numbers; a capture may have gaps.
    let is_before = |one: u32, other: u32| one.wrapping_sub(other) > 1 << 31;
    let (mut next, mut highest) = (segments[0].sequence, segments[0].sequence);
    let (mut late, mut behind) = (0, 0);
    for segment in segments {
        late += u64::from(is_before(segment.sequence, next));
        behind += if is_before(segment.sequence, highest) { u64::from(segment.len) } else { 0 };
        next = segment.sequence.wrapping_add(segment.len);
        highest = if is_before(highest, next) { next } else { highest };
    }
    let again = retransmitted(&world.nodes[0].guest);
    assert!(late <= again, "{late} segments out of order, {again} sent again");
    // In bytes: until the path's MTU is known, what was sent as one segment may arrive as two.
    assert!(behind <= again * SEGMENT_MAX, "{behind} bytes behind later ones, {again} segments sent again");
}

/// In any order: no more bytes come twice than the sender's TCP itself sent again.
fn assert_no_copies(world: &World, segments: &[TcpSegment]) {
    let origin = segments[0].sequence.wrapping_sub(1 << 30);
    let part = |segment: &TcpSegment| (segment.sequence.wrapping_sub(origin), segment.len);
    let mut parts = segments.iter().map(part).collect::<Vec<_>>();
    parts.sort_unstable();
    let (mut end, mut twice) = (0_u32, 0);
    for (start, len) in parts {
        twice += u64::from(end.min(start + len).saturating_sub(start));
        end = end.max(start + len);
    }
    let again = retransmitted(&world.nodes[0].guest);
    assert!(twice <= again * SEGMENT_MAX, "{twice} bytes came twice, {again} segments sent again");
}

/// Segments that the guest's TCP has sent again.
fn retransmitted(guest: &Guest) -> u64 {
    let table = guest.space.inside(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).unwrap();
    let mut lines = table.lines().filter(|line| line.starts_with("Tcp:")).map(str::split_whitespace);
    let (mut names, mut values) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.position(|name| name == "RetransSegs").unwrap();
    values.nth(place).unwrap().parse().unwrap()
}

/// What the overlay carried in superframes: the test is void if there were none.
fn assert_joined(world: &World) {
    let counters = world.nodes[1].daemon.counters();
    let (frames, joined) = (counters["frames_out"], counters["joined"]);
    assert!(20 * joined > frames, "only {joined} of {frames} frames were joined to the one before");
}

#[test]
fn a_clean_underlay_keeps_every_byte_once_and_in_order() {
    let world = world(Impairment::NONE);
    let segments = segments_of(&world, || transfer(&world.nodes[0].guest, &world.nodes[1].guest, 20_000_000));
    assert_nothing_twice(&world, &segments);
    assert_joined(&world);
}

#[test]
fn duplicates_on_the_underlay_end_there() {
    let world = world(Impairment { duplicate: 0.2, ..Impairment::NONE });
    let segments = segments_of(&world, || transfer(&world.nodes[0].guest, &world.nodes[1].guest, 5_000_000));
    assert_nothing_twice(&world, &segments);
    assert!(world.nodes[1].daemon.counters()["replayed"] > 100, "the link doubled packets");
}

/// What is lost leaves a gap, which nothing fills but what TCP sends again.
#[test]
fn what_the_underlay_loses_puts_nothing_else_out_of_order() {
    for (loss, len) in [(0.01, 5_000_000), (0.05, 1_000_000)] {
        let world = world(Impairment::NONE);
        world.nodes[0].site.impair(Impairment { loss, ..Impairment::NONE });
        let segments = segments_of(&world, || transfer(&world.nodes[0].guest, &world.nodes[1].guest, len));
        assert_nothing_twice(&world, &segments);
    }
}

/// A host whose kernel or user knows no offloads, and one with all of them.
#[test]
fn bytes_survive_between_a_plain_tap_and_an_offloading_one() {
    for words in [["--no-tap-offload", ""], ["", "--no-tap-offload"], ["--no-tap-offload"; 2]] {
        let world = world_with(Impairment::NONE, &words);
        segments_of(&world, || {
            transfer(&world.nodes[0].guest, &world.nodes[1].guest, 3_000_000);
            transfer(&world.nodes[1].guest, &world.nodes[0].guest, 3_000_000);
        });
    }
}

/// What the underlay puts out of order arrives so; its copies do not arrive.
#[test]
fn bytes_survive_loss_and_disorder() {
    for (loss, len) in [(0.01, 5_000_000), (0.05, 1_000_000)] {
        let disorder = Impairment {
            delay: Duration::from_millis(1),
            loss,
            duplicate: 0.02,
            reorder: 0.02,
            hold: Duration::from_millis(2),
            ..Impairment::NONE
        };
        let world = world(Impairment::NONE);
        world.nodes[0].site.impair(disorder);
        let segments = segments_of(&world, || {
            transfer(&world.nodes[0].guest, &world.nodes[1].guest, len);
            transfer(&world.nodes[1].guest, &world.nodes[0].guest, len);
        });
        assert_no_copies(&world, &segments);
        assert!(world.nodes[1].daemon.counters()["replayed"] > 0, "the link doubled packets");
    }
}

/// A sender without offloads finishes its checksums itself; a wrong one is evidence and stays wrong.
#[test]
fn a_finished_checksum_is_never_touched() {
    let world = world(Impairment::NONE);
    let (one, other) = (&world.nodes[0].guest, &world.nodes[1].guest);
    let (sender, receiver) = (PacketSocket::open(&one.space, "eth0"), PacketSocket::open(&other.space, "eth0"));
    let nobody = Ipv4Addr::new(10, 77, 9, 9);
    for number in 0..20_u8 {
        let payload = vec![number; 600 + 40 * usize::from(number)];
        let mut sent = frame::udp((one.mac, one.address, 9), (other.mac, nobody, 9), &payload);
        sent[40..42].copy_from_slice(&[0xba, number]);
        sender.send(&sent).unwrap();
        let came = receiver.collect(Duration::from_secs(2), |frames| frames.contains(&sent));
        assert!(came.contains(&sent), "frame {number} came as it was");
    }
}

/// Datagrams that an application hands over in one piece (UDP segmentation offload) arrive one by one.
#[test]
fn datagrams_of_one_send_arrive_each_and_in_order() {
    let world = world(Impairment::NONE);
    let (one, other) = (&world.nodes[0].guest, &world.nodes[1].guest);
    // Each at a port of its own: a child that another test has just forked may still hold the one before.
    for (size, port) in [64_u16, 1_000, 1_400].into_iter().zip(PORT..) {
        let taker = other.space.inside(|| std::net::UdpSocket::bind((other.address, port))).unwrap();
        taker.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let sender = one.space.inside(|| std::net::UdpSocket::bind((one.address, 0))).unwrap();
        let bytes = (0..40 * usize::from(size) + 7).map(pattern).collect::<Vec<_>>();
        lab::send_segmented(&sender, &bytes, size, (other.address, port)).expect("UDP_SEGMENT");
        for (number, expected) in bytes.chunks(usize::from(size)).enumerate() {
            let mut room = [0; 2_000];
            let len = taker.recv(&mut room).unwrap_or_else(|error| panic!("datagram {number} of {size}: {error}"));
            assert_eq!(&room[..len], expected, "datagram {number} of {size}");
        }
    }
}
