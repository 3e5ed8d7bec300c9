//! Machines that move, and machines that pretend: with real bridges, real ARP, and the kernel's own answers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::thread::sleep;
use std::time::{Duration, SystemTime};

use lab::frame::{gratuitous_arp, marked, rarp};
use lab::{Capture, Impairment, Lab, Nat, Node, PacketSocket, Ping, PingReport, World, wait_for};

const MEETING: Duration = Duration::from_secs(15);
/// Between the pings that measure.
const EVERY: Duration = Duration::from_millis(10);
/// A forged announcement is undone in this time.
const BACK: Duration = Duration::from_millis(300);
/// How long a machine that has moved may be out of reach, beside its round trips.
const BLACKOUT: Duration = Duration::from_millis(100);
/// What is measured after each event.
const CALM: Duration = Duration::from_secs(1);

/// Pings the second guest from the first; waits until it answers.
fn watch(world: &World) -> Ping {
    let ping = Ping::start(&world.nodes[0].guest.space, world.nodes[1].guest.address, EVERY, &[]);
    wait_for("a first answer", MEETING, || (!ping.so_far().replies.is_empty()).then_some(()));
    ping
}

/// The longest time without an answer in the second after `start`.
fn gap(report: &PingReport, start: SystemTime) -> Duration {
    let within = |at: &SystemTime| *at >= start && *at < start + CALM;
    let times = report.replies.iter().map(|reply| reply.at).filter(within);
    let times: Vec<_> = std::iter::once(start).chain(times).chain([start + CALM]).collect();
    times.windows(2).filter_map(|pair| pair[1].duration_since(pair[0]).ok()).max().unwrap_or(Duration::MAX)
}

/// What the forwarding database of a node says of the second guest: its place, and whether it is frozen there.
fn place(node: &Node, mac: &str) -> Option<(String, bool)> {
    let entry = node.daemon.fdb().into_iter().find(|entry| entry.mac == mac)?;
    Some((entry.port, entry.frozen))
}

#[test]
fn ordinary_frames_with_anothers_address_divert_no_frame() {
    let world = World::new(&[Nat::Open; 3]);
    world.wait_paths("direct", MEETING);
    let [one, two, three] = &world.nodes[..] else { panic!("three nodes") };
    let ping = watch(&world);
    let thief = PacketSocket::open(&three.guest.space, "eth0");
    for mark in 0..20 {
        thief.send(&marked(one.guest.mac, two.guest.mac, mark)).unwrap();
        sleep(Duration::from_millis(100));
    }
    let stolen = thief.collect(Duration::ZERO, |_| false);
    let stolen = stolen.iter().filter(|frame| frame[..6] == two.guest.mac.0 && frame[6..12] == one.guest.mac.0);
    let stolen = stolen.count();
    let report = ping.finish();
    eprintln!("after 20 forged frames: {stolen} frames at the thief, {} of {} pings lost", report.lost(), report.sent);
    assert_eq!(stolen, 0, "frames came to the thief");
    assert_eq!(report.lost(), 0, "{report:?}");
}

#[test]
fn a_forged_announcement_is_undone_and_repeated_ones_are_frozen_out() {
    let world = World::new(&[Nat::Open; 3]);
    world.wait_paths("direct", MEETING);
    let two = &world.nodes[1];
    let mac = two.guest.mac.to_string();
    let thief = PacketSocket::open(&world.nodes[2].guest.space, "eth0");
    let ping = watch(&world);
    let mut starts = Vec::new();
    for _ in 0..4 {
        starts.push(SystemTime::now());
        thief.send(&gratuitous_arp(two.guest.mac, two.guest.address)).unwrap();
        sleep(CALM);
    }
    let report = ping.finish();
    let gaps: Vec<_> = starts.into_iter().map(|start| gap(&report, start)).collect();
    eprintln!("longest gaps after forged announcements: {gaps:?}");
    assert!(gaps.iter().all(|gap| *gap <= BACK), "{gaps:?}");
    let places: Vec<_> = world.nodes.iter().map(|node| place(node, &mac)).collect();
    assert_eq!(places[1..], [Some(("tap".into(), true)), Some(("n2".into(), true))]);
    // Who only listens may hear a claim behind its answer, and has counted less then.
    assert!(places[0].as_ref().is_some_and(|(port, _)| port == "n2"), "{places:?}");
    let said = two.daemon.process().stderr();
    assert!(said.contains("claimed by a peer, but its machine answers here"), "{said}");
    assert!(said.contains("two machines have this address"), "{said}");
    let shown = two.daemon.show(&["fdb"]);
    assert!(shown.contains("(frozen)"), "{shown}");
}

/// How it becomes known where a machine is now.
#[derive(Clone, Copy, PartialEq)]
enum Told {
    /// By the machine's own gratuitous ARP.
    Arp,
    /// By a RARP, as QEMU sends.
    Rarp,
    /// By `longwire mac claim` at its new host.
    ByHand,
}

/// How long the first guest has to wait for an answer when the second one has moved, in the middle of three such worlds:
/// once in three, a machine that has other things to do may be late.
fn migrate(world: impl Fn() -> World, told: Told) -> Duration {
    let mut waited = [(); 3].map(|()| {
        let world = world();
        world.wait_paths("direct", MEETING);
        migrate_once(&world, told)
    });
    eprintln!("followed after {waited:?}, no frame at the host that it left");
    waited.sort_unstable();
    waited[1]
}

/// Moves the second guest to the third host. How long after that is told the first guest had to wait for an answer.
fn migrate_once(world: &World, told: Told) -> Duration {
    let [_, from, to] = &world.nodes[..] else { panic!("three nodes") };
    let guest = &from.guest;
    let wire = PacketSocket::open(&guest.space, "eth0");
    // Its kernel forgets neighbours with the cable; asking for them is not the overlay's round trip.
    let asker = &world.nodes[0].guest;
    guest.space.ip(&format!("neigh replace {} lladdr {} dev eth0 nud permanent", asker.address, asker.mac));
    let ping = watch(world);
    guest.move_to(&from.host, &to.host, "br0");
    wait_for("the cable is in", Duration::from_secs(3), || {
        guest.space.ip("link show dev eth0").contains("state UP").then_some(())
    });
    // What comes before that is lost in it.
    wait_for("the bridge forwards", Duration::from_secs(3), || {
        to.host.space.ip(&format!("-d link show dev {}", guest.port)).contains("state forwarding").then_some(())
    });
    let start = SystemTime::now();
    match told {
        Told::Arp => wire.send(&gratuitous_arp(guest.mac, guest.address)).unwrap(),
        Told::Rarp => wire.send(&rarp(guest.mac)).unwrap(),
        Told::ByHand => {
            let output = to.daemon.run(&["mac", "claim", &guest.mac.to_string(), "--ip", &guest.address.to_string()]);
            assert!(output.status.success(), "{output:?}");
        }
    }
    sleep(CALM);
    let stale = Capture::start(&from.host.space, "lw-lan");
    sleep(CALM);
    let waited = gap(&ping.finish(), start);
    let for_guest = stale.stop().iter().filter(|frame| frame[..6] == guest.mac.0).count();
    assert_eq!(for_guest, 0, "frames still come to the host that it left");
    let mac = guest.mac.to_string();
    for (node, port) in world.nodes.iter().zip(["n3", "n3", "tap"]) {
        assert_eq!(place(node, &mac), Some((port.into(), false)), "at {}", node.daemon.node);
    }
    waited
}

#[test]
fn a_machine_that_moves_and_says_so_is_followed_within_a_tenth_of_a_second() {
    for told in [Told::Arp, Told::Rarp] {
        let waited = migrate(|| World::new(&[Nat::Open; 3]), told);
        assert!(waited <= BLACKOUT, "{waited:?}");
    }
}

#[test]
fn a_silent_machine_is_followed_when_its_new_host_claims_it() {
    let waited = migrate(|| World::new(&[Nat::Open; 3]), Told::ByHand);
    // Starting the program takes its time too.
    assert!(waited <= BLACKOUT * 3, "{waited:?}");
}

#[test]
fn far_away_a_move_takes_a_round_trip_and_a_half_more() {
    let delay = Duration::from_millis(20);
    let waited = migrate(|| far_away(delay), Told::Arp);
    let rtt = delay * 4;
    assert!(waited <= rtt * 3 / 2 + BLACKOUT, "{waited:?}");
}

/// Three nodes, each so far from the middle of the internet.
fn far_away(delay: Duration) -> World {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let places = ["1", "2", "3"].map(|number| {
        let impairment = Impairment::delay(delay);
        let site = lab.emulated_site(&format!("s{number}"), Nat::Open, impairment);
        let host = lab.host(&site, &format!("h{number}"));
        (site, host)
    });
    World::with_hosts(lab, server, places.into())
}
