//! The overlay adapts: narrow trunks are found by the traffic that suffers from them, and another member carries.
//!
//! Three sites whose uplinks have 100 Mb/s. From site 1 to site 2 and back the trunk has 20 Mb/s, all others 90.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod lab;

use std::time::Duration;

use lab::{Iperf, Lab, Nat, World};

const MEETING: Duration = Duration::from_secs(20);
/// Mb/s of the uplinks, of the narrow trunk, of the others.
const UPLINK: u32 = 100;
const NARROW: u32 = 20;
const WIDE: u32 = 90;
/// By then the better way carries.
const ADAPTED: usize = 10;
/// Eight tenths of what a plain TCP relay reached on these links (85 Mb/s), and what is had directly.
const RATE_MIN: f64 = 68.0;
const GAIN_MIN: f64 = 3.5;

/// Gives each pair of sites its trunk, in both directions: a class of the uplink for each destination.
fn shape(world: &World) {
    for (number, node) in world.nodes.iter().enumerate() {
        let tc = |words: &str| {
            let words: Vec<&str> = ["tc"].into_iter().chain(words.split_whitespace()).collect();
            let output = node.site.router.run(&words);
            assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        tc("qdisc add dev wan0 root handle 1: htb default 99 r2q 100");
        tc(&format!("class add dev wan0 parent 1: classid 1:1 htb rate {UPLINK}mbit ceil {UPLINK}mbit burst 16k"));
        // The way to the supernode, among others.
        tc(&format!("class add dev wan0 parent 1:1 classid 1:99 htb rate 1mbit ceil {NARROW}mbit burst 16k"));
        for (other, there) in world.nodes.iter().enumerate().filter(|(other, _)| *other != number) {
            let trunk = if number + other == 1 { NARROW } else { WIDE };
            let class = other + 10;
            // Their guarantees must not add up past the uplink: a small rate, and the trunk as the ceiling.
            let rates = format!("rate 1mbit ceil {trunk}mbit burst 16k cburst 16k quantum 3000");
            tc(&format!("class add dev wan0 parent 1:1 classid 1:{class} htb {rates}"));
            let to = there.host.address;
            tc(&format!("filter add dev wan0 parent 1: protocol ip prio 5 u32 match ip dst {to}/32 flowid 1:{class}"));
        }
    }
}

/// Mb/s second by second.
fn rates(run: &Iperf) -> Vec<f64> {
    let intervals = run.json["intervals"].as_array().unwrap();
    intervals.iter().map(|one| one["sum"]["bits_per_second"].as_f64().unwrap() / 1e6).collect()
}

fn mean(rates: &[f64]) -> f64 {
    rates.iter().sum::<f64>() / rates.len() as f64
}

#[test]
fn a_bulk_pair_over_a_narrow_trunk_goes_by_a_member_at_a_third_site() {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let places = (1..=3).map(|number| {
        let site = lab.site(&format!("s{number}"), Nat::Open);
        let host = lab.host(&site, &format!("h{number}"));
        (site, host)
    });
    let places = places.collect();
    let world = World::with_words(lab, server, places, &["--relay=on", "--relay=on", "--relay=on"]);
    world.wait_paths("direct", MEETING);
    shape(&world);

    let (from, to) = (&world.nodes[0].guest, &world.nodes[1].guest);
    let run = Iperf::run(from, to, &["-t", "25"]);
    let rates = rates(&run);
    let (direct, adapted) = (mean(&rates[1..3]), mean(&rates[ADAPTED..]));
    eprintln!("{direct:.1} Mb/s directly, {adapted:.1} Mb/s adapted: {rates:.0?}");
    eprintln!("{}", world.nodes[0].daemon.show(&["explain", "n2"]));
    assert!(adapted >= RATE_MIN, "{adapted:.1} Mb/s from second {ADAPTED} on");
    assert!(adapted >= GAIN_MIN * direct, "{adapted:.1} Mb/s after {direct:.1}");
}
