//! Two members' bridges joined by a cable, with no spanning tree: the loop ends, and frames come once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::time::{Duration, Instant};

use lab::frame::marked;
use lab::{Mac, Nat, PacketSocket, Ping, World, heard, join_bridges, wait_for};

const MEETING: Duration = Duration::from_secs(15);
/// A loop is over after this time.
const PATIENCE: Duration = Duration::from_secs(3);
/// What a node floods per second, and at once.
const RATE: u64 = 1_000;
const BURST: u64 = 2_000;
/// How often a storm is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// In this time a frame has crossed the overlay, or will not.
const CROSSING: Duration = Duration::from_millis(300);

fn floods(world: &World) -> Vec<u64> {
    world.nodes.iter().map(|node| node.daemon.counters()["floods"]).collect()
}

/// A broadcast of guest `from` is heard so often by each guest.
#[track_caller]
fn expect_heard(world: &World, from: usize, mark: u64, expected: [usize; 3]) {
    let wires: Vec<_> = world.nodes.iter().map(|node| PacketSocket::open(&node.guest.space, "eth0")).collect();
    let frame = marked(Mac::BROADCAST, Mac::foreign(u8::try_from(mark).unwrap()), mark);
    wires[from].send(&frame).unwrap();
    assert_eq!(heard(&wires, &frame, &expected), expected, "from guest {}", from + 1);
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
    // The storm, looked at until the time for it is over: when did the last frame of it cross the overlay?
    let (mut last, mut seen) = (closed.elapsed(), floods(&world));
    while closed.elapsed() < PATIENCE {
        std::thread::sleep(LOOK);
        let now = floods(&world);
        if now.iter().zip(&seen).any(|(now, seen)| now > seen) {
            last = closed.elapsed();
        }
        seen = now;
    }
    eprintln!("ended {last:?} after closing");
    let during = floods(&world);
    for (before, during) in before.iter().zip(&during) {
        eprintln!("flooded {} frames within {:?}", during - before, closed.elapsed());
        assert!(during - before <= BURST + RATE * (closed.elapsed().as_secs() + 1));
    }
    std::thread::sleep(Duration::from_secs(1));
    let after: u64 = floods(&world).iter().zip(&during).map(|(after, during)| after - during).sum();
    assert!(after < 50, "{after} frames were flooded in a quiet second");

    // From outside to both guests of the segment; from the segment to its other guest, and outside.
    expect_heard(&world, 2, 1, [1, 1, 0]);
    expect_heard(&world, 0, 2, [0, 1, 1]);
    expect_heard(&world, 1, 3, [1, 0, 1]);
    for (from, to) in [(one, three), (two, three), (three, one), (three, two), (one, two)] {
        let answered = || {
            let report = Ping::count(&from.guest.space, to.guest.address, 3);
            (report.replies.len() == 3 && report.duplicates == 0).then_some(())
        };
        wait_for("three pings, each answered once", Duration::from_secs(10), answered);
    }
}

/// A weakness that we know: its TAP holds broadcasts for 30 ms only. On a busy host the other member's probe comes later
/// than that in one start of three, and then frames do run in circles, as long as in a loop that is closed later.
#[test]
fn a_loop_that_a_member_comes_up_inside_is_over_within_three_seconds() {
    let world = World::new(&[Nat::Open; 3]);
    world.wait_paths("direct", MEETING);
    let World { mut nodes, lab, supernode: _supernode, .. } = world;
    assert!(nodes[1].daemon.process().terminate(PATIENCE).is_some());
    join_bridges(&nodes[0].host, &nodes[1].host);
    let wire = PacketSocket::open(&nodes[2].guest.space, "eth0");
    let ears = PacketSocket::open(&nodes[0].guest.space, "eth0");
    nodes[1].daemon.start_again();
    let frame = |mark| marked(Mac::BROADCAST, Mac::foreign(1), mark);
    // One broadcast each 10 ms, from before its TAP is there until after both have told each other.
    for mark in 0..400 {
        wire.send(&frame(mark)).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    let says = |node: &lab::Node| node.daemon.process().stderr().contains("another member's too");
    wait_for("both know", PATIENCE, || nodes[..2].iter().all(says).then_some(()));
    let heard = ears.collect(CROSSING, |_| false);
    let copies = |mark| heard.iter().filter(|heard| **heard == frame(mark)).count();
    let counts: Vec<usize> = (0..400).map(copies).collect();
    let more = counts.iter().filter(|count| **count > 1).count();
    let missing = counts.iter().filter(|count| **count == 0).count();
    eprintln!("of 400 broadcasts {more} came more than once, at most {:?} times, {missing} not", counts.iter().max());
    let late = usize::try_from(PATIENCE.as_millis() / 10).unwrap();
    assert!(counts[late..].iter().all(|count| *count <= 1), "{counts:?}");
    assert!(counts.iter().sum::<usize>() as u64 <= BURST + RATE * 5, "{counts:?}");
    drop((nodes, lab));
}
