//! The whole path as a user sees it: iperf3 between two guests, through longwire and through vpncloud.
//!
//! Both tunnels stand on the same two hosts at the same time, on bridges of their own; the runs are
//! interleaved, because only ratios of one run mean anything. Run it as root:
//!
//! ```sh
//! cargo install vpncloud && cargo bench --bench tunnel -- [ROUNDS] [SECONDS]
//! ```
//!
//! Prints each round, then medians and their ratio.
#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]

#[path = "../tests/lab/mod.rs"]
mod lab;

use std::path::PathBuf;
use std::time::Duration;

use lab::{Guest, Iperf, Nat, Ping, Process, World, wait_for};

const ROUNDS: u32 = 5;
const SECONDS: u32 = 3;
/// Guests of the peer's tunnel, beside longwire's 10.77.0.1 and 10.77.0.2.
const PEER_GUESTS: [[u8; 4]; 2] = [[10, 77, 1, 1], [10, 77, 1, 2]];

fn vpncloud() -> PathBuf {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let installed = home.map(|home| home.join("bin/vpncloud"));
    let named = std::env::var_os("VPNCLOUD").map(PathBuf::from);
    let found = named.into_iter().chain(installed).find(|path| path.exists());
    found.expect("vpncloud is needed: `cargo install vpncloud`, or name it in the environment as VPNCLOUD")
}

/// Starts vpncloud on both hosts, its TAPs on `br1`; gives the largest MTU its guests can use.
fn start_vpncloud(world: &World) -> Vec<Process> {
    let program = vpncloud().display().to_string();
    let hosts = || world.nodes.iter().map(|node| &node.host);
    let others = hosts().map(|host| host.address).rev().collect::<Vec<_>>();
    let start = |(host, other): (&lab::Host, &std::net::Ipv4Addr)| {
        let words = [&program, "--type", "tap", "--mode", "switch", "--device", "vpn0", "--listen", "3210"];
        let more = ["--password", "a bench of tunnels", "--no-port-forwarding", "--peer"];
        let mut words = words.iter().chain(&more).map(ToString::to_string).collect::<Vec<_>>();
        words.push(format!("{other}:3210"));
        let process = host.space.spawn("vpncloud", &words);
        wait_for("vpncloud's TAP", Duration::from_secs(10), || host.space.has_link("vpn0").then_some(()));
        host.space.ip("link set vpn0 master br1");
        host.space.ip("link set vpn0 up");
        process
    };
    hosts().zip(&others).map(start).collect()
}

fn device_mtu(host: &lab::Host) -> u32 {
    let text = String::from_utf8_lossy(&host.space.run(&["cat", "/sys/class/net/vpn0/mtu"]).stdout).into_owned();
    text.trim().parse().unwrap_or(1400)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn reach(from: &Guest, to: &Guest) {
    wait_for("the guests meet", Duration::from_secs(20), || {
        (Ping::count(&from.space, to.address, 1).lost() == 0).then_some(())
    });
}

fn main() {
    let numbers = std::env::args().filter_map(|word| word.parse().ok()).collect::<Vec<u32>>();
    let rounds = numbers.first().copied().unwrap_or(ROUNDS);
    let seconds = numbers.get(1).copied().unwrap_or(SECONDS);
    let mut world = World::new(&[Nat::Open, Nat::Open]);
    world.wait_paths("direct", Duration::from_secs(10));
    let hosts = world.nodes.iter().map(|node| node.host.clone()).collect::<Vec<_>>();
    let guest = |(index, host): (usize, &lab::Host)| {
        world.lab.guest_on(host, "br1", &format!("v{}", index + 1), PEER_GUESTS[index].into())
    };
    let peers = hosts.iter().enumerate().map(guest).collect::<Vec<_>>();
    let _running = start_vpncloud(&world);
    let mtu = device_mtu(&hosts[0]);
    for peer in &peers {
        peer.space.ip(&format!("link set eth0 mtu {mtu}"));
    }
    let (own, other) = ([&world.nodes[0].guest, &world.nodes[1].guest], [&peers[0], &peers[1]]);
    reach(own[0], own[1]);
    reach(other[0], other[1]);
    println!("TCP, one stream, cubic, {seconds} s; longwire at guest MTU 1500, vpncloud at {mtu}; Gb/s");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let options = ["-C", "cubic", "-O", "1", "-t", &(seconds + 1).to_string()].map(str::to_owned);
    let options = options.iter().map(String::as_str).collect::<Vec<_>>();
    for round in 1..=rounds {
        ours.push(Iperf::run(own[0], own[1], &options).bits_per_second / 1e9);
        theirs.push(Iperf::run(other[0], other[1], &options).bits_per_second / 1e9);
        println!("round {round}: longwire {:.3}, vpncloud {:.3}", ours[ours.len() - 1], theirs[theirs.len() - 1]);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("median: longwire {ours:.3}, vpncloud {theirs:.3}, ratio {:.2}", ours / theirs);
}
