//! A real virtual machine moves between sites while it runs: nobody who talks to it loses more than over one bridge.
//!
//! The same as a story: `cargo run --example live_migration`
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::time::Duration;

use lab::relocation::Shuttle;
use lab::{Lab, Nat, World};

const MEETING: Duration = Duration::from_secs(15);
/// Pings of 50 a second that may be lost beyond those lost over a plain bridge.
const LOST_MORE: u32 = 5;
/// Moves over each of both, by turns, of which the middle one counts: how long QEMU itself stands still is up to
/// the machine under it. Five in three minutes would freeze the address.
const MOVES: usize = 3;

#[test]
fn a_virtual_machine_that_moves_to_another_site_keeps_its_connections() {
    let mut lab = Lab::new();
    let mut over_a_bridge = Shuttle::over_a_plain_bridge(&mut lab);
    let world = World::new(&[Nat::PortRestricted; 3]);
    world.wait_paths("direct", MEETING);
    let mut between_sites = Shuttle::between_sites(&world);
    let mut lost = Vec::new();
    for _ in 0..MOVES {
        let (plain, moved) = (over_a_bridge.go(&lab), between_sites.go(&world.lab));
        eprintln!("one plain bridge: {plain}\nfrom site to site: {moved}");
        lost.push([plain.lost, moved.lost]);
    }
    let middle = |place: usize| {
        let mut sorted: Vec<u32> = lost.iter().map(|lost| lost[place]).collect();
        sorted.sort_unstable();
        sorted[MOVES / 2]
    };
    let (plain, moved) = (middle(0), middle(1));
    assert!(moved <= plain + LOST_MORE, "{moved} pings are lost, and over a plain bridge {plain}: {lost:?}");
    let watcher = &world.nodes[2].daemon;
    let entry = watcher.fdb().into_iter().find(|entry| entry.mac == between_sites.vm.mac.to_string()).unwrap();
    assert_eq!((entry.port.as_str(), entry.frozen), ("n2", false));
}
