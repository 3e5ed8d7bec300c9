//! Command one: two sites behind NATs become one Ethernet, on this machine, before your eyes.
//!
//! ```text
//! cargo run --example two_sites
//! ```
//!
//! Builds two sites with home routers and a supernode in network namespaces, starts the real
//! daemons, shows what happens, cleans up. Needs root or user namespaces, and the tools that it
//! names if they are missing. Takes about 20 s; ends with an error if anything does not work.
#![allow(clippy::print_stdout, reason = "the example shows what it does")]

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use lab::{
    Daemon, Guest, Host, Iperf, Join, Lab, Nat, Ping, Supernode, fail, inner_address, new_key, poll_for, wait_for,
};

/// Nothing here takes longer when it works.
const PATIENCE: Duration = Duration::from_secs(10);

const PICTURE: &str = r"
      site A                                 site B
      guest g1 (a VM)                        guest g2 (a VM)
      10.77.0.1                              10.77.0.2
         | bridge br0                           | bridge br0
      host a1                                host b1
      10.1.0.11                              10.2.0.11
         |                                      |
      router, NAT                            router, NAT
      198.18.1.2                             198.18.2.2
         '-------------- internet --------------'
                             |
                      supernode host
                       203.0.113.2
";

fn main() -> ExitCode {
    lab::example("two_sites", show)
}

fn show() {
    // Brought up to date first, so that the clock starts after the build.
    lab::program();
    let mut lab = Lab::new();
    let start = Instant::now();
    println!("Two sites behind NATs become one Ethernet. All of it happens in network");
    println!("namespaces of this machine; nothing is changed outside of them.");

    let (server, [a1, b1]) = build(&mut lab);

    step(2, "One secret for the overlay, and a supernode");
    let key = new_key();
    command("anywhere", "longwire keygen > lan.key");
    println!("      {}...  (whoever has this line is a member)", key.get(..16).unwrap_or(&key));
    let supernode = Supernode::start(&lab, &server, &[]);
    command("supernode", &format!("longwire supernode --listen {}", supernode.address));
    println!("  It introduces members and relays what cannot go directly. It has no key: it can");
    println!("  read nothing.");

    step(3, "One command per host");
    let daemons = [&a1, &b1].map(|host| up(&lab, host, &key, &supernode));
    let up_at = SystemTime::now();
    for host in [&a1, &b1] {
        wait_for("`longwire up --bridge br0` makes the bridge", PATIENCE, || host.space.has_link("br0").then_some(()));
    }
    println!("  Each made a bridge br0 with a TAP device in it: the plug of the long wire.");
    let guests =
        [(&a1, "g1", 1), (&b1, "g2", 2)].map(|(host, name, number)| lab.guest(host, name, inner_address(number)));
    println!("  The guests are plugged into the bridges, as a VM would be.");

    first_contact(&daemons, &guests, up_at);
    figures(&guests);
    what_is_known(&daemons[0]);

    step(7, "Cleaning up");
    for daemon in &daemons {
        let status = daemon.process().terminate(PATIENCE);
        if !status.is_some_and(|status| status.success()) {
            fail(format_args!("{} did not end cleanly on SIGTERM", daemon.node));
        }
    }
    drop(daemons);
    drop(supernode);
    drop(lab);
    println!("  The daemons left, the namespaces are gone. That was {:.0} s.", start.elapsed().as_secs_f64());
    println!("\nEverything worked.");
}

fn step(number: u32, title: &str) {
    println!("\n[{number}/7] {title}");
}

fn command(place: &str, words: &str) {
    println!("  {place:>9} $ {words}");
}

/// Step 1: the boxes and cables.
fn build(lab: &mut Lab) -> (Host, [Host; 2]) {
    step(1, "Two sites with home routers, and a host that both reach");
    println!("{PICTURE}");
    println!("  The routers are NATs that let in only answers (\"port-restricted\"): neither host");
    println!("  can be reached from outside. The guests know nothing of longwire.");
    let server = lab.supernode_host("sn");
    let hosts = [("a", "a1"), ("b", "b1")].map(|(site, name)| {
        let site = lab.site(site, Nat::PortRestricted);
        lab.host(&site, name)
    });
    unreachable_before(&hosts[0], &hosts[1]);
    (server, hosts)
}

fn unreachable_before(a1: &Host, b1: &Host) {
    let report = Ping::count_with(&a1.space, b1.address, 1, &["-W", "1"]);
    if !report.replies.is_empty() {
        fail("the lab is wrong: the hosts reach each other without longwire");
    }
    println!("  a1 pings b1 at 10.2.0.11: no answer, as it must be.");
}

fn up(lab: &Lab, host: &Host, key: &str, supernode: &Supernode) -> Daemon {
    let join = Join::new("lan", key, &host.name).supernode(&supernode.address).bridge("br0");
    command(&host.name, &format!("longwire up lan --key-file lan.key --supernode {} --bridge br0", supernode.address));
    let daemon = Daemon::start(lab, host, &join);
    daemon.status();
    daemon
}

/// The first ping, the path it took, and the change to the direct path.
fn first_contact(daemons: &[Daemon; 2], guests: &[Guest; 2], up_at: SystemTime) {
    step(4, "The first ping, and the way to a direct path");
    let [g1, g2] = guests;
    let interval = Duration::from_millis(50);
    let ping = Ping::start(&g1.space, g2.address, interval, &[]);
    let first = wait_for("g1 pings g2 through the overlay", PATIENCE, || ping.so_far().replies.first().copied());
    let kind = daemons[0].path_to("b1");
    println!(
        "  g1 pings g2: answered {:.2} s after the last `up`, round trip {:.2} ms, path: {kind}",
        first.at.duration_since(up_at).unwrap_or_default().as_secs_f64(),
        first.rtt.as_secs_f64() * 1000.0
    );
    println!("  Meanwhile both daemons send to where the supernode sees the other: each packet");
    println!("  out opens the own NAT for the other's packets in.");
    let direct = poll_for(PATIENCE, || {
        let both = daemons[0].path_to("b1") == "direct" && daemons[1].path_to("a1") == "direct";
        both.then(SystemTime::now)
    });
    let Some(direct) = direct else {
        println!("{}", daemons[0].show(&["explain", "b1"]));
        fail("no direct path between two port-restricted NATs within 10 s")
    };
    println!(
        "  Direct: {:.2} s after the last `up`. {}",
        direct.duration_since(up_at).unwrap_or_default().as_secs_f64(),
        remote_of(&daemons[0])
    );
    std::thread::sleep(Duration::from_millis(500));
    let report = ping.finish();
    let lost = report.missing_after_first();
    println!("  Pings lost on the way from the first answer to here: {} of {}.", lost.len(), report.sent);
    if !lost.is_empty() {
        fail("pings were lost while the path became direct");
    }
}

fn remote_of(daemon: &Daemon) -> String {
    let status = daemon.status();
    let peers = status.overlays.iter().flat_map(|overlay| &overlay.peers);
    let remotes: Vec<&str> = peers.filter_map(|peer| peer.path.as_ref()?.remote.as_deref()).collect();
    format!("a1 sends to {} now.", remotes.join(", "))
}

fn figures(guests: &[Guest; 2]) {
    step(5, "Figures of the direct path");
    let [g1, g2] = guests;
    command("g1", "ping -c 20 -i 0.2 10.77.0.2");
    let report = Ping::count(&g1.space, g2.address, 20);
    let (least, median, most) = report.rtt_ms().unwrap_or_default();
    println!(
        "      {} of {} answered, round trip {least:.2} / {median:.2} / {most:.2} ms (least, median, most)",
        report.replies.len(),
        report.sent
    );
    if report.lost() > 0 {
        fail("pings were lost on the direct path");
    }
    command("g1", "ping -M do -s 1472 10.77.0.2        # 1500 bytes, not to be fragmented");
    let report = Ping::count_with(&g1.space, g2.address, 3, &["-M", "do", "-s", "1472"]);
    println!("      {} of 3 answered: a full Ethernet frame fits", report.replies.len());
    if report.replies.len() != 3 {
        fail("packets of 1500 bytes do not cross");
    }
    for (from, to) in [(g1, g2), (g2, g1)] {
        command(&from.name, &format!("iperf3 -c {} -t 3", to.address));
        let speed = Iperf::tcp(from, to, 3);
        println!(
            "      {:.0} Mbit/s TCP, {} retransmits (all boxes share this machine's cores)",
            speed.bits_per_second / 1e6,
            speed.retransmits
        );
    }
}

fn what_is_known(daemon: &Daemon) {
    step(6, "What the daemon on a1 knows");
    for words in [["status"], ["peers"], ["fdb"]] {
        command("a1", &format!("longwire {}", words.join(" ")));
        for line in daemon.show(&words).lines() {
            println!("      {line}");
        }
    }
}
