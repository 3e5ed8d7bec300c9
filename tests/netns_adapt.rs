//! The overlay adapts: narrow trunks are found by the traffic that suffers from them, and another member carries.
//!
//! Three sites whose uplinks have 100 Mb/s. From site 1 to site 2 and back the trunk has 20 Mb/s, all others 90.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::time::Duration;

use lab::{By, Iperf, Nat, Rates, World};

const MEETING: Duration = Duration::from_secs(20);
/// Mb/s of the uplinks, of the narrow trunk, of the others.
const UPLINK: f64 = 100.0;
const NARROW: f64 = 20.0;
const WIDE: f64 = 90.0;
/// By then the better way carries.
const ADAPTED: usize = 10;
/// Eight tenths of what a plain TCP relay reached on these links (85 Mb/s), and what is had directly.
const RATE_MIN: f64 = 68.0;
const GAIN_MIN: f64 = 3.5;

/// Gives each pair of sites its trunk, in both directions: a part of the uplink for each destination.
fn shape(world: &World) {
    for (number, node) in world.nodes.iter().enumerate() {
        let others = world.nodes.iter().enumerate().filter(|(other, _)| *other != number);
        let trunk = |other: usize| if number + other == 1 { NARROW } else { WIDE };
        let parts: Vec<_> = others.map(|(other, there)| (there.host.address, trunk(other))).collect();
        let rates = Rates { all: UPLINK, rest: NARROW, by: By::Destination, parts: &parts };
        node.site.router.shape("wan0", rates);
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
    let world = World::new_with(&[Nat::Open; 3], "--relay=on");
    world.wait_paths("direct", MEETING);
    shape(&world);

    let (from, to) = (&world.nodes[0].guest, &world.nodes[1].guest);
    let run = Iperf::run(from, to, &["-t", "18"]);
    let rates = rates(&run);
    // Directly no more gets across than the trunk has. A sender counts more at first, what it puts into queues.
    let adapted = mean(&rates[ADAPTED..]);
    eprintln!("{NARROW:.0} Mb/s directly, {adapted:.1} Mb/s adapted: {rates:.0?}");
    eprintln!("{}", world.nodes[0].daemon.show(&["explain", "n2"]));
    assert!(adapted >= RATE_MIN, "{adapted:.1} Mb/s from second {ADAPTED} on");
    assert!(adapted >= GAIN_MIN * NARROW, "{adapted:.1} Mb/s over a trunk of {NARROW}");
}
