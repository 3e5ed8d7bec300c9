//! Two members' bridges joined by a cable, with no spanning tree: the loop ends, and frames come once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod lab;

use std::time::{Duration, Instant};

use lab::frame::marked;
use lab::{Mac, Nat, PacketSocket, Ping, World, join_bridges, wait_for};

const MEETING: Duration = Duration::from_secs(15);
/// A loop is over after this time.
const PATIENCE: Duration = Duration::from_secs(3);
/// What a node floods per second, and at once.
const RATE: u64 = 1_000;
const BURST: u64 = 2_000;
/// In this time a frame has crossed the overlay, or will not.
const CROSSING: Duration = Duration::from_millis(300);

fn floods(world: &World) -> Vec<u64> {
    world.nodes.iter().map(|node| node.daemon.counters()["floods"]).collect()
}

/// How often each guest hears a broadcast of guest `from`; what it may hear of its own segment is left out.
fn heard(world: &World, from: usize, mark: u64) -> Vec<usize> {
    let wires: Vec<_> = world.nodes.iter().map(|node| PacketSocket::open(&node.guest.space, "eth0")).collect();
    let frame = marked(Mac::BROADCAST, Mac::foreign(u8::try_from(mark).unwrap()), mark);
    wires[from].send(&frame).unwrap();
    let end = Instant::now() + CROSSING;
    let copies = |wire: &PacketSocket| {
        let frames = wire.collect(end.saturating_duration_since(Instant::now()), |_| false);
        frames.iter().filter(|heard| **heard == frame).count()
    };
    wires.iter().map(copies).collect()
}

#[test]
fn a_loop_closed_by_a_cable_is_over_within_three_seconds_and_then_every_frame_comes_once() {
    let world = World::new(&[Nat::Open; 3]);
    world.wait_paths("direct", MEETING);
    let [one, two, three] = &world.nodes[..] else { panic!("three nodes") };
    let before = floods(&world);
    join_bridges(&one.host, &two.host);
    let closed = Instant::now();
    let wire = PacketSocket::open(&one.guest.space, "eth0");
    for mark in 100..110 {
        wire.send(&marked(Mac::BROADCAST, Mac::foreign(u8::try_from(mark).unwrap()), mark)).unwrap();
    }
    let shared = || {
        let says = |node: &lab::Node| node.daemon.process().stderr().contains("another member's too");
        (says(one) && says(two)).then_some(())
    };
    wait_for("both know", PATIENCE, shared);
    eprintln!("found out after {:?}", closed.elapsed());
    std::thread::sleep(PATIENCE.saturating_sub(closed.elapsed()));
    let during = floods(&world);
    for (before, during) in before.iter().zip(&during) {
        eprintln!("flooded {} frames within {:?}", during - before, closed.elapsed());
        assert!(during - before <= BURST + RATE * (closed.elapsed().as_secs() + 1));
    }
    std::thread::sleep(Duration::from_secs(1));
    let after: u64 = floods(&world).iter().zip(&during).map(|(after, during)| after - during).sum();
    assert!(after < 50, "{after} frames were flooded in a quiet second");

    assert_eq!(heard(&world, 2, 1), [1, 1, 0], "from outside to both guests of the segment");
    assert_eq!(heard(&world, 0, 2), [0, 1, 1], "from the segment to its other guest, and outside");
    assert_eq!(heard(&world, 1, 3), [1, 0, 1]);
    for (from, to) in [(one, three), (two, three), (three, one), (three, two), (one, two)] {
        let answered = || {
            let report = Ping::count(&from.guest.space, to.guest.address, 3);
            (report.replies.len() == 3 && report.duplicates == 0).then_some(())
        };
        wait_for("three pings, each answered once", Duration::from_secs(10), answered);
    }
}
