//! A real virtual machine moves between sites while it runs: nobody who talks to it loses more than over one bridge.
//!
//! The same as a story: `cargo run --example live_migration`
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::time::Duration;

use lab::relocation::{boot_in, inner_address_of_host, over_a_plain_bridge, relocate};
use lab::{Nat, World};

const MEETING: Duration = Duration::from_secs(15);
/// Pings of 50 a second that may be lost beyond those lost over a plain bridge.
const LOST_MORE: u32 = 5;

#[test]
fn a_virtual_machine_that_moves_to_another_site_keeps_its_connections() {
    let plain = over_a_plain_bridge();
    eprintln!("one plain bridge: {plain}");
    let world = World::new(&[Nat::PortRestricted; 3]);
    world.wait_paths("direct", MEETING);
    let mut vm = boot_in(&world);
    let [_, to, watcher] = &world.nodes[..] else { panic!("three nodes") };
    let moved = relocate(&world.lab, &mut vm, (&to.host, inner_address_of_host(2)), &watcher.guest);
    eprintln!("from site to site: {moved}");
    assert!(moved.lost <= plain.lost + LOST_MORE, "{moved}, and over a plain bridge {plain}");
    let entry = watcher.daemon.fdb().into_iter().find(|entry| entry.mac == vm.mac.to_string()).unwrap();
    assert_eq!((entry.port.as_str(), entry.frozen), ("n2", false));
}
