//! What an outsider on the underlay sees and can do: nothing inner, and nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::collections::BTreeMap;
use std::time::Duration;

use lab::frame::{drop_udp_checksum, udp_payload};
use lab::{Capture, Daemon, Iperf, Join, Nat, PacketSocket, Ping, World, inner_address, new_key, poll_for, wait_for};

const MEETING: Duration = Duration::from_secs(15);

/// Bytes of every ping: 16 of them repeat.
const PATTERN: &[u8] = b"longwire-payload";

/// iperf3's `--repeating-payload`.
const IPERF_PATTERN: &[u8] = b"01234567890123456789";

/// Enough to be told from all else that is counted meanwhile.
const SHOTS: u64 = 200;

fn contains(frames: &[Vec<u8>], needle: &[u8]) -> bool {
    let holds = |frame: &Vec<u8>| frame.windows(needle.len()).any(|part| part == needle);
    frames.iter().any(holds)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Captures a site's link, and the inner one for comparison, while the guests talk.
fn nothing_inner_is_seen(nat: Nat, kind: &str) {
    let world = World::new(&[nat; 2]);
    world.wait_paths(kind, MEETING);
    let (one, other) = (&world.nodes[0], &world.nodes[1]);
    let outside = Capture::start(world.lab.inet(), &one.site.inet_link);
    let inside = Capture::start(&one.guest.space, "eth0");
    let pattern = hex(PATTERN);
    one.guest.flush_neighbours();
    let big = ["-p", &pattern, "-s", "1472"];
    let report = Ping::count_with(&one.guest.space, other.guest.address, 5, &big);
    assert_eq!(report.replies.len(), 5);
    // A rate that a capture in the test process takes without loss.
    let options = ["-t", "2", "-b", "20M", "--repeating-payload"];
    Iperf::run(&one.guest, &other.guest, &options);
    let (outside, inside) = (outside.stop(), inside.stop());

    let addresses = [one.guest.address.octets(), other.guest.address.octets()].concat();
    let secrets: [(&str, &[u8]); 5] = [
        ("a guest's MAC", &one.guest.mac.0),
        ("the other guest's MAC", &other.guest.mac.0),
        ("the inner addresses", &addresses),
        ("the payload of ping", PATTERN),
        ("the payload of iperf3", IPERF_PATTERN),
    ];
    for (what, secret) in secrets {
        assert!(contains(&inside, secret), "{what}: not even there inside");
        assert!(!contains(&outside, secret), "{what} is seen on the underlay ({kind})");
    }
    let sealed: usize = outside.iter().map(Vec::len).sum();
    assert!(sealed > 4_000_000, "captured only {sealed} bytes outside");
    assert!(!contains(&outside, world.key.as_bytes()), "the key is seen");
}

#[test]
fn the_underlay_shows_no_inner_byte_on_a_direct_path() {
    nothing_inner_is_seen(Nat::PortRestricted, "direct");
}

#[test]
fn the_underlay_shows_no_inner_byte_on_a_relayed_path() {
    nothing_inner_is_seen(Nat::Symmetric, "relayed");
}

#[test]
fn a_node_with_another_key_gets_nowhere_and_says_so() {
    let mut world = World::new(&[Nat::Open; 2]);
    world.wait_paths("direct", MEETING);
    let site = world.lab.site("s3", Nat::Open);
    let host = world.lab.host(&site, "h3");
    let guest = world.lab.guest(&host, "g3", inner_address(3));
    let join = Join::new("lan", &new_key(), "n3").supernode(&world.supernode.address).bridge("br0");
    let stranger = Daemon::start(&world.lab, &host, &join);
    wait_for("the warning", MEETING, || {
        let said = stranger.process().stderr();
        said.contains("alone in lan").then_some(())
    });
    for (from, to) in [(&guest, &world.nodes[0].guest), (&world.nodes[0].guest, &guest)] {
        assert_eq!(Ping::count(&from.space, to.address, 3).replies.len(), 0);
    }
    assert!(stranger.status().overlays[0].peers.is_empty());
    let known = &world.nodes[0].daemon.status().overlays[0].peers;
    assert_eq!(known.len(), 1, "members do not see the stranger: {known:?}");
    world.wait_paths("direct", MEETING);
}

/// A world with a direct path, and a sealed data packet of it as it left the first site.
struct Tapped {
    world: World,
    packet: Vec<u8>,
    injector: PacketSocket,
}

impl Tapped {
    fn new() -> Tapped {
        let world = World::new(&[Nat::PortRestricted; 2]);
        world.wait_paths("direct", MEETING);
        let (one, other) = (&world.nodes[0], &world.nodes[1]);
        let capture = Capture::start(world.lab.inet(), &one.site.inet_link);
        let large = ["-s", "300"];
        let report = Ping::count_with(&one.guest.space, other.guest.address, 3, &large);
        assert_eq!(report.replies.len(), 3);
        let toward = other.site.outside.octets();
        let packet = capture.stop().into_iter().find(|frame| {
            let long = udp_payload(frame).is_some_and(|(_, _, payload)| payload.len() > 300);
            long && frame[30..34] == toward
        });
        let mut packet = packet.expect("the ping crossed in a datagram of its own");
        drop_udp_checksum(&mut packet);
        // As if from the first site's router: the second one's NAT takes it for an answer.
        let injector = PacketSocket::open(&one.site.router, "wan0");
        Tapped { world, packet, injector }
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        self.world.nodes[1].daemon.counters()
    }

    /// Sends copies of the packet; the counters that took them all.
    fn shoot(&self, change: impl Fn(u64, &mut Vec<u8>)) -> Vec<String> {
        let before = self.counters();
        for shot in 0..SHOTS {
            let mut packet = self.packet.clone();
            change(shot, &mut packet);
            self.injector.send(&packet).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        let counted = || {
            let after = self.counters();
            let grown = |name: &&String| after[*name] >= before.get(*name).copied().unwrap_or(0) + SHOTS;
            let names: Vec<String> = after.keys().filter(grown).cloned().collect();
            (!names.is_empty()).then_some(names)
        };
        poll_for(Duration::from_secs(3), counted).unwrap_or_default()
    }
}

#[test]
fn a_replayed_datagram_is_refused_and_counted() {
    let tapped = Tapped::new();
    let (one, other) = (&tapped.world.nodes[0].guest, &tapped.world.nodes[1].guest);
    let heard = Capture::start(&other.space, "eth0");
    let counters = tapped.shoot(|_, _| {});
    assert!(counters.iter().any(|name| name.contains("replay")), "counted as {counters:?}");
    let again = heard.stop().iter().filter(|frame| frame.len() > 300).count();
    assert_eq!(again, 0, "replayed frames reached the guest");
    let report = Ping::count(&one.space, other.address, 5);
    assert_eq!((report.replies.len(), report.duplicates), (5, 0));
}

#[test]
fn a_forged_datagram_is_refused_and_counted_and_disturbs_nothing() {
    let tapped = Tapped::new();
    let (one, other) = (&tapped.world.nodes[0].guest, &tapped.world.nodes[1].guest);
    let ping = Ping::start(&one.space, other.address, Duration::from_millis(20), &[]);
    let heard = Capture::start(&other.space, "eth0");
    // A flipped bit in the sealed part, another one each time, from the end on.
    let counters = tapped.shoot(|shot, packet| {
        let place = packet.len() - 1 - usize::try_from(shot).unwrap();
        packet[place] ^= 1 << (shot % 8);
    });
    assert!(!counters.is_empty(), "no counter took them: {:?}", tapped.counters());
    let forged = heard.stop().iter().filter(|frame| frame.len() > 300).count();
    assert_eq!(forged, 0, "forged frames reached the guest");
    let report = ping.finish();
    assert_eq!((report.lost(), report.duplicates), (0, 0), "{report:?}");
}

#[test]
fn junk_on_the_port_is_not_answered() {
    let mut world = World::new(&[Nat::Open; 2]);
    world.wait_paths("direct", MEETING);
    let site = world.lab.site("s3", Nat::Open);
    let outsider = world.lab.host(&site, "h3");
    let socket = outsider.space.inside(|| std::net::UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let node = format!("{}:7777", world.nodes[0].host.address);
    for target in [node.as_str(), &world.supernode.address] {
        let mut sent = 0;
        for len in (0..1200).step_by(7) {
            // Each first byte; never one that QUIC would take for a first flight.
            let byte = u8::try_from(len % 256).unwrap() & 0x3f;
            sent += socket.send_to(&vec![byte; len], target).unwrap();
        }
        let mut buffer = [0; 2000];
        let mut answered = 0;
        while let Ok((len, _)) = socket.recv_from(&mut buffer) {
            answered += len;
        }
        assert_eq!(answered, 0, "{target} answered {sent} bytes of junk");
    }
    world.wait_paths("direct", MEETING);
}
