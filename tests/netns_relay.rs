//! A member relays for two others behind NATs that never let them meet: how fast, and who takes its place.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::time::Duration;

use lab::{Daemon, Impairment, Iperf, Lab, Nat, Ping, Stream, World, wait_for};

const MEETING: Duration = Duration::from_secs(20);
/// Frames flow, the first round of punching fails, neighbours are compared, a leg is measured.
const FOUND: Duration = Duration::from_secs(30);
/// One way to the supernode.
const FAR: Duration = Duration::from_millis(40);
/// What a relayed stream may lose when its relay dies and there is another.
const GAP_MAX: Duration = Duration::from_secs(2);
/// Datagrams per second of a stream.
const RATE: u32 = 200;

fn via(daemon: &Daemon, peer: &str) -> Option<String> {
    let status = daemon.status();
    let peer = status.overlays[0].peers.iter().find(|one| one.name.as_deref() == Some(peer))?;
    peer.path.as_ref()?.via.clone()
}

fn wait_via(world: &World, relay: &str) {
    for (one, other) in [(0, "n2"), (1, "n1")] {
        wait_for(&format!("{relay} carries to {other}"), FOUND, || {
            (via(&world.nodes[one].daemon, other).as_deref() == Some(relay)).then_some(())
        });
    }
}

fn order(world: &World, via: &str) {
    for (one, other) in [(0, "n2"), (1, "n1")] {
        let answer = world.nodes[one].daemon.run(&["via", other, via]);
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    }
}

fn stream(world: &World) -> Stream {
    let (from, to) = (&world.nodes[0].guest, &world.nodes[1].guest);
    Stream::start(&from.space, (&to.space, to.address), RATE)
}

/// How long nothing passed while `end` ended something.
fn hole(world: &World, end: impl FnOnce()) -> Duration {
    let stream = stream(world);
    std::thread::sleep(Duration::from_secs(2));
    end();
    std::thread::sleep(Duration::from_secs(4));
    let report = stream.finish();
    assert_eq!(report.duplicates(), 0);
    report.longest_hole()
}

#[test]
fn a_near_member_carries_faster_than_a_far_supernode_and_each_takes_the_others_place() {
    let mut lab = Lab::new();
    let far = lab.emulated_site("far", Nat::Open, Impairment::delay(FAR));
    let server = lab.host(&far, "sn");
    let places = [Nat::Symmetric, Nat::Symmetric, Nat::Open].into_iter().enumerate().map(|(number, nat)| {
        let site = lab.site(&format!("s{}", number + 1), nat);
        let host = lab.host(&site, &format!("h{}", number + 1));
        (site, host)
    });
    let places = places.collect();
    // Without plans: what is looked at is what the members do by themselves.
    let words = ["--no-adapt", "--no-adapt", "--no-adapt --relay=on"];
    let mut world = World::with_words(lab, server, places, &words);
    let (supernode, third) = (world.supernode.address.clone(), "n3");
    for (one, other) in [(0, "n2"), (1, "n1")] {
        assert!(world.nodes[one].daemon.wait_path(other, "relayed", MEETING).is_some());
    }
    Ping::until_answered(&world.nodes[0].guest.space, world.nodes[1].guest.address, MEETING);
    let tcp = |world: &World| Iperf::tcp(&world.nodes[0].guest, &world.nodes[1].guest, 3).bits_per_second / 1e6;

    order(&world, "direct");
    wait_via(&world, &supernode);
    let by_supernode = tcp(&world);
    order(&world, "auto");
    let warm = stream(&world);
    wait_via(&world, third);
    warm.finish();
    let by_member = tcp(&world);
    let counters = world.nodes[2].daemon.counters();
    eprintln!("TCP by the supernode {by_supernode:.0} Mb/s, by the member {by_member:.0} Mb/s");
    eprintln!("the member relayed {} packets, {} bytes", counters["relayed"], counters["relayed_bytes"]);
    assert!(counters["relayed_bytes"] > 1_000_000);
    assert!(by_member > by_supernode, "a round trip of 160 ms is left out");

    let gap = hole(&world, || world.supernode.process().kill());
    eprintln!("the supernode dies: nothing passes for {gap:?}");
    assert!(gap < Duration::from_millis(200), "the member carries on: nothing passed for {gap:?}");
    assert_eq!(via(&world.nodes[0].daemon, "n2").as_deref(), Some(third));

    world.supernode.start_again();
    wait_for("both are registered again", FOUND, || {
        let is_up = |one: usize| world.nodes[one].daemon.status().overlays[0].supernodes[0].state == "up";
        (is_up(0) && is_up(1)).then_some(())
    });
    let gap = hole(&world, || world.nodes[2].daemon.process().kill());
    eprintln!("the member dies: nothing passes for {gap:?}");
    assert!(gap <= GAP_MAX, "nothing passed for {gap:?}");
    assert_eq!(via(&world.nodes[0].daemon, "n2"), Some(supernode));
}
