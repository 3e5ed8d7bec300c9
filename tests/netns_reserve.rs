//! Reservation between real guests: caps, guarantees over a narrow link, marks, and the kernel's own classes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::time::Duration;

use lab::{Capture, Daemon, Iperf, Nat, Ping, World};

const MEETING: Duration = Duration::from_secs(20);
/// Of an Ethernet frame with an IPv4 packet: where the TOS is, and where the receiver is.
const TOS_AT: usize = 15;
const RECEIVER_AT: usize = 30;

/// What the daemon says to an order; the sentence on stderr if it refuses.
fn order(daemon: &Daemon, words: &str) -> Result<String, String> {
    let output = daemon.run(&words.split(' ').collect::<Vec<_>>());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn megabits(iperf: &Iperf) -> f64 {
    iperf.bits_per_second / 1e6
}

/// The marks of packets from the first host to the second one, while the first guest pings with this TOS.
fn marks(world: &World, tos: &str) -> Vec<u8> {
    let (from, to) = (&world.nodes[0], &world.nodes[1]);
    let capture = Capture::start(&from.host.space, "eth0");
    let ping = Ping::start(&from.guest.space, to.guest.address, Duration::from_millis(50), &["-Q", tos, "-c", "20"]);
    assert!(ping.wait(MEETING).replies.len() >= 15);
    let frames = capture.stop();
    let there = to.host.address.octets();
    let is_there = |frame: &&Vec<u8>| frame.get(RECEIVER_AT..RECEIVER_AT + 4) == Some(&there[..]);
    frames.iter().filter(is_there).map(|frame| frame[TOS_AT]).collect()
}

fn marked(marks: &[u8], tos: u8) -> usize {
    marks.iter().filter(|mark| **mark == tos).count()
}

#[test]
fn caps_hold_guarantees_are_kept_and_packets_are_marked() {
    let world = World::new(&[Nat::Open; 3]);
    world.wait_paths("direct", MEETING);
    let (guests, daemon) = (world.nodes.iter().map(|node| &node.guest).collect::<Vec<_>>(), &world.nodes[0].daemon);
    let space = &world.nodes[0].host.space;

    order(daemon, "reserve n2 --cap 20").unwrap();
    let capped = megabits(&Iperf::tcp(guests[0], guests[1], 4));
    let free = megabits(&Iperf::tcp(guests[0], guests[2], 2));
    eprintln!("TCP with a cap of 20 Mb/s: {capped:.1} Mb/s; beside it, without one: {free:.0} Mb/s");
    assert!((10.0..=21.0).contains(&capped), "{capped:.1} Mb/s");
    assert!(free > 40.0, "{free:.1} Mb/s");

    let narrow = "tc qdisc add dev eth0 root tbf rate 50mbit burst 64kb latency 50ms";
    assert!(space.run(&narrow.split(' ').collect::<Vec<_>>()).status.success());
    order(daemon, "reserve n2 --cap 0 --rate 30 --uplink 40").unwrap();
    let flood = ["-u", "-b", "60M", "-l", "1400", "-t", "5"];
    let (kept, rest) = std::thread::scope(|scope| {
        let rest = scope.spawn(|| Iperf::run(guests[0], guests[2], &flood));
        (megabits(&Iperf::run(guests[0], guests[1], &flood)), megabits(&rest.join().unwrap()))
    });
    eprintln!("60 + 60 Mb/s offered to an uplink of 40: {kept:.1} with a guarantee of 30, {rest:.1} without");
    assert!(kept >= 26.0 && kept + rest <= 44.0 && kept >= 1.5 * rest, "{kept:.1} and {rest:.1} Mb/s");
    assert!(daemon.counters()["rate_limit"] > 1000);
    let refused = order(daemon, "reserve n3 --rate 20").unwrap_err();
    assert!(refused.contains("more is guaranteed than the uplink carries"), "{refused}");

    let script = order(daemon, "reserve --print").unwrap();
    space.run(&["tc", "qdisc", "del", "dev", "eth0", "root"]);
    let ran = space.run(&["sh", "-ec", &script]);
    assert!(ran.status.success(), "{script}\n{}", String::from_utf8_lossy(&ran.stderr));
    order(daemon, "reserve n2 --rate 0 --uplink 0").unwrap();
    Iperf::tcp(guests[0], guests[1], 2);
    let classes = space.run(&["tc", "-s", "class", "show", "dev", "eth0", "classid", "1:10"]);
    let classes = String::from_utf8_lossy(&classes.stdout).into_owned();
    eprintln!("{classes}");
    let sent = classes.split("Sent ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    assert!(sent.is_some_and(|bytes| bytes > 1_000_000), "its own class carries the peer:\n{classes}");

    assert_eq!(marked(&marks(&world, "0xb8"), 0xb8), 0, "nothing is marked by default");
    order(daemon, "reserve --dscp inherit").unwrap();
    let inherited = marks(&world, "0xb8");
    assert!(marked(&inherited, 0xb8) >= 15 && marked(&marks(&world, "0x00"), 0xb8) == 0, "{inherited:?}");
    order(daemon, "reserve --dscp 10").unwrap();
    let fixed = marks(&world, "0xb8");
    assert!(fixed.len() >= 15 && fixed.iter().all(|mark| *mark == 10 << 2), "{fixed:?}");
    assert!(order(daemon, "reserve --dscp 64").unwrap_err().contains("code point from 0 to 63"));
}
