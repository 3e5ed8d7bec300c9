//! How large packets may be, over real links without a word of ICMP: found, lost, and found again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::time::Duration;

use lab::{Iperf, Lab, Nat, Node, World, wait_for};

const MEETING: Duration = Duration::from_secs(15);

/// From the first large frame to the end of the search, and from a black hole to the new size.
const SEARCH: Duration = Duration::from_secs(8);

/// A TCP transfer and its reports, in seconds.
const TRANSFER: u32 = 24;
const REPORT: &str = "0.5";

/// How long it may stand still, in seconds: a black hole is known after 2.1, and TCP, which doubles its waits, tries
/// again after at most twice that time.
const STANDSTILL_MAX: f64 = 5.0;

/// Routers that tell nobody that a packet was too large.
const SILENT: &str = "table ip silent { chain out { type filter hook output priority 0; \
     icmp type destination-unreachable drop; }; }";

fn scene(mtu: u16) -> World {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let places: Vec<_> = ["1", "2"]
        .map(|number| {
            let site = lab.site(&format!("s{number}"), Nat::Open);
            let host = lab.host(&site, &format!("h{number}"));
            site.router.nft(SILENT);
            (site, host)
        })
        .into();
    lab.inet().nft(SILENT);
    let world = World::with_hosts(lab, server, places);
    set_link(&world, mtu);
    world
}

/// The MTU of the link between the inet and the second site.
fn set_link(world: &World, mtu: u16) {
    let site = &world.nodes[1].site;
    world.lab.inet().ip(&format!("link set {} mtu {mtu}", site.inet_link));
    site.router.ip(&format!("link set wan0 mtu {mtu}"));
}

/// What `longwire peers` tells of the only peer: size and state.
fn shown(node: &Node) -> Option<(u64, String)> {
    let peers = node.daemon.try_ask("peers")?;
    let peer = peers.as_array()?.first()?.clone();
    Some((peer["mtu"].as_u64()?, peer["mtu_state"].as_str()?.to_owned()))
}

#[track_caller]
fn wait_found(node: &Node, sizes: std::ops::RangeInclusive<u64>) {
    wait_for(&format!("an MTU of {sizes:?}, not {:?}", shown(node)), SEARCH, || {
        shown(node).filter(|(mtu, state)| sizes.contains(mtu) && state == "found")
    });
}

/// The longest time in which nothing arrived, in seconds.
fn standstill(iperf: &Iperf) -> f64 {
    let intervals = iperf.json["intervals"].as_array().unwrap().iter().map(|interval| &interval["sum"]);
    let mut longest = 0.0_f64;
    let mut present = 0.0;
    for sum in intervals {
        // The sender fills its buffer even when nothing passes.
        let is_still = sum["bits_per_second"].as_f64().unwrap() < 10_000.0;
        present = if is_still { present + sum["seconds"].as_f64().unwrap() } else { 0.0 };
        longest = longest.max(present);
    }
    longest
}

#[test]
fn a_black_hole_under_a_tcp_transfer_is_survived_and_the_new_size_is_shown() {
    let mut world = scene(1400);
    world.wait_paths("direct", MEETING);
    let (from, to) = (world.nodes[0].guest.clone(), world.nodes[1].guest.clone());
    let options = ["-t", &TRANSFER.to_string(), "-i", REPORT];
    let iperf = std::thread::scope(|scope| {
        let transfer = scope.spawn(|| Iperf::run(&from, &to, &options));
        wait_found(&world.nodes[0], 1400..=1400);
        set_link(&world, 1300);
        std::thread::sleep(Duration::from_secs(1));
        wait_found(&world.nodes[0], 1290..=1300);
        transfer.join().unwrap()
    });
    let still = standstill(&iperf);
    eprintln!("{:.0} Mb/s, {still:.1} s without progress", iperf.bits_per_second / 1e6);
    assert!(still <= STANDSTILL_MAX, "nothing passed for {still} s: {}", iperf.json["intervals"]);
    let table = world.nodes[0].daemon.show(&["peers"]);
    assert!(table.lines().next().is_some_and(|heading| heading.contains("MTU")), "{table}");
    let why = world.nodes[0].daemon.show(&["explain", "n2"]);
    assert!(why.contains("1400 had passed before and vanished"), "{why}");

    // The link is repaired, and a path that begins anew is measured anew.
    set_link(&world, 1500);
    world.nodes[1].daemon.process().kill();
    world.nodes[1].daemon.start_again();
    world.wait_paths("direct", MEETING);
    let again = Iperf::tcp(&from, &to, 5);
    assert!(again.bits_per_second > 0.0);
    assert_eq!(shown(&world.nodes[0]), Some((1500, "found".to_owned())), "{}", world.nodes[0].daemon.show(&["peers"]));
}

#[test]
fn a_link_narrower_than_what_is_assumed_carries_tcp_from_the_start() {
    let world = scene(1300);
    world.wait_paths("direct", MEETING);
    let (from, to) = (&world.nodes[0].guest, &world.nodes[1].guest);
    let iperf = Iperf::run(from, to, &["-t", "10", "-i", REPORT]);
    let still = standstill(&iperf);
    eprintln!("{:.0} Mb/s, {still:.1} s without progress", iperf.bits_per_second / 1e6);
    assert!(still <= STANDSTILL_MAX, "nothing passed for {still} s: {}", iperf.json["intervals"]);
    wait_found(&world.nodes[0], 1290..=1300);
}
