//! A virtual machine moves from one site to another while it runs, and nobody who talks to it notices.
//!
//! ```text
//! cargo run --example live_migration
//! ```
//!
//! Boots Debian's kernel in QEMU (no KVM needed), first on three hosts with one plain bridge, then at the first of
//! three sites behind NATs that longwire joins; moves it to the second, while a guest of the third pings it 50 times a
//! second and holds a TCP connection to it. Needs root, `apt-get install --no-install-recommends qemu-system-x86
//! busybox-static cpio`, and Debian's cloud kernel, which it fetches into `target/guest` (27 MB). Takes about 20 s;
//! ends with an error if anything does not work.
#![allow(clippy::print_stdout, reason = "the example shows what it does")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use lab::relocation::Shuttle;
use lab::{Lab, Nat, World, fail};

/// Until the three sites have met.
const MEETING: Duration = Duration::from_secs(15);

/// Pings of 50 a second that the overlay may cost beyond the plain bridge.
const LOST_MORE: u32 = 5;

const PICTURE: &str = r"
      site 1                     site 2                     site 3
      VM 10.77.0.9  -- moves --> VM 10.77.0.9               guest 10.77.0.3
         | br0                      | br0                      | br0
      host h1 10.77.1.1          host h2 10.77.1.2          host h3
         |                          |                          |
      router, NAT                router, NAT                router, NAT
         '-------------------- internet, supernode ------------'
";

fn main() -> ExitCode {
    lab::example("live_migration", show)
}

fn show() {
    // Brought up to date first, so that the clock starts after the build.
    lab::program();
    let start = Instant::now();
    println!("A virtual machine moves between hosts while a third host pings it 50 times a second and");
    println!("talks to it over one TCP connection, all in network namespaces of this machine.");

    println!("\n[1/3] What a move costs where three hosts share one plain bridge");
    let mut lab = Lab::new();
    let plain = Shuttle::over_a_plain_bridge(&mut lab).go(&lab);
    drop(lab);
    println!("  {plain}");

    println!("\n[2/3] Three sites behind NATs, joined by longwire\n{PICTURE}");
    let world = World::new(&[Nat::PortRestricted; 3]);
    let met = world.wait_paths("direct", MEETING);
    println!("  All paths are direct after {:.1} s.", met.as_secs_f64());
    let mut shuttle = Shuttle::between_sites(&world);
    let mac = shuttle.vm.mac.to_string();
    println!("  The virtual machine {mac} is up on {}.", shuttle.vm.host().name);

    println!(
        "\n[3/3] It moves from site 1 to site 2, over the overlay itself: the hosts reach each other by nothing else"
    );
    let moved = shuttle.go(&world.lab);
    println!("  {moved}");
    let watcher = &world.nodes[2].daemon;
    let seen = watcher.fdb().into_iter().find(|entry| entry.mac == mac);
    let seen = seen.map_or_else(|| "nowhere".into(), |entry| entry.port);
    println!("  {} sees it at {seen} now.", watcher.node);
    if moved.lost > plain.lost + LOST_MORE {
        fail(format_args!("{} pings were lost, and {} over a plain bridge", moved.lost, plain.lost));
    }
    drop(shuttle);
    drop(world);
    println!("\nEverything worked. That was {:.0} s.", start.elapsed().as_secs_f64());
}
