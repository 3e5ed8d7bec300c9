//! Questions for IP addresses answered at home, with the kernel's own ARP, neighbour discovery and duplicate detection.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::time::Duration;

use lab::frame::gratuitous_arp;
use lab::{Capture, Guest, Nat, PacketSocket, Ping, World, wait_for};

const MEETING: Duration = Duration::from_secs(15);
/// A machine that is gone is noticed within this time: half a minute of silence and two questions.
const GONE: Duration = Duration::from_secs(45);
const ARP: [u8; 2] = [0x08, 0x06];
/// An address that moves from machine to machine.
const SERVICE: &str = "10.77.0.200";

/// Three nodes that know the addresses of each other's guests.
fn world() -> World {
    let world = World::new(&[Nat::Open; 3]);
    world.wait_paths("direct", MEETING);
    wait_for("all addresses are known", MEETING, || (0..3).all(|node| bindings(&world, node) == 3).then_some(()));
    world
}

fn bindings(world: &World, node: usize) -> u64 {
    let status = world.nodes[node].daemon.try_ask("status").unwrap();
    status["overlays"][0]["bindings"].as_u64().unwrap()
}

fn answered(world: &World, node: usize) -> u64 {
    world.nodes[node].daemon.counters()["answered"]
}

/// Frames of `guest` to everybody, or to a group, that are ARP or neighbour solicitations.
fn questions(frames: &[Vec<u8>], guest: &Guest) -> usize {
    let is_question = |frame: &&Vec<u8>| {
        let is_solicitation = frame.len() > 54 && frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && frame[54] == 135;
        frame[0] & 1 == 1 && frame[6..12] == guest.mac.0 && (frame[12..14] == ARP || is_solicitation)
    };
    frames.iter().filter(is_question).count()
}

/// What the kernel of `guest` takes to be the MAC address of `ip`.
fn resolved(guest: &Guest, ip: &str) -> String {
    guest.space.ip(&format!("neigh show {ip} dev eth0"))
}

#[test]
fn a_known_machine_is_reached_without_a_question_on_any_other_segment() {
    let world = world();
    let [one, two, three] = [0, 1, 2].map(|node| &world.nodes[node].guest);
    one.flush_neighbours();
    let before = answered(&world, 0);
    let captures = [two, three].map(|guest| Capture::start(&guest.space, "eth0"));
    let report = Ping::count(&one.space, two.address, 5);
    assert_eq!(report.lost(), 0, "{report:?}");
    let frames = captures.map(Capture::stop);
    assert_eq!(frames.each_ref().map(|frames| questions(frames, one)), [0, 0]);
    assert!(answered(&world, 0) > before);
    assert!(resolved(one, &two.address.to_string()).contains(&two.mac.to_string()));
}

#[test]
fn an_address_that_moves_to_another_machine_is_followed_at_once() {
    let world = world();
    let [one, two, three] = [0, 1, 2].map(|node| &world.nodes[node].guest);
    let service = SERVICE.parse().unwrap();
    let wires = [two, three].map(|guest| PacketSocket::open(&guest.space, "eth0"));
    for round in 0..4 {
        let (from, to) = if round % 2 == 0 { (three, two) } else { (two, three) };
        if round > 0 {
            from.space.ip(&format!("addr del {SERVICE}/32 dev eth0"));
        }
        to.space.ip(&format!("addr add {SERVICE}/32 dev eth0"));
        wires[round % 2].send(&gratuitous_arp(to.mac, service)).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        // With what it knows, and asking anew.
        for flushed in [false, true] {
            if flushed {
                one.flush_neighbours();
            }
            let report = Ping::count(&one.space, service, 3);
            assert_eq!(report.lost(), 0, "round {round}, flushed: {flushed}: {report:?}");
            assert!(resolved(one, SERVICE).contains(&to.mac.to_string()), "{}", resolved(one, SERVICE));
        }
    }
}

#[test]
fn a_duplicate_address_is_found_across_sites_by_ipv4_and_ipv6() {
    let world = world();
    let [one, two, three] = [0, 1, 2].map(|node| &world.nodes[node].guest);
    let probe = |ip: &str| one.space.run(&["busybox", "arping", "-D", "-I", "eth0", "-c", "3", "-w", "3", ip]);
    let taken = probe(&two.address.to_string());
    assert!(!taken.status.success(), "taken: {}", String::from_utf8_lossy(&taken.stdout));
    assert!(String::from_utf8_lossy(&taken.stdout).contains("Unicast reply"));
    assert!(probe("10.77.0.99").status.success(), "this one is free");
    for guest in [one, two, three] {
        guest.space.sysctl("ipv6/conf/eth0/disable_ipv6", "0");
        guest.space.sysctl("ipv6/conf/eth0/accept_dad", "1");
    }
    two.space.ip("addr add fd77::2/64 dev eth0");
    let state = |guest: &Guest| guest.space.ip("-6 addr show dev eth0 to fd77::2");
    wait_for("the first one has it", MEETING, || {
        (state(two).contains("fd77::2") && !state(two).contains("tentative")).then_some(())
    });
    one.space.ip("addr add fd77::2/64 dev eth0");
    wait_for("the second one is refused", MEETING, || state(one).contains("dadfailed").then_some(()));
    assert!(!state(two).contains("dadfailed"));
}

#[test]
fn neighbours_of_ipv6_are_answered_for_too() {
    let world = world();
    let [one, two, three] = [0, 1, 2].map(|node| &world.nodes[node].guest);
    for (guest, last) in [(one, 1), (two, 2), (three, 3)] {
        guest.space.sysctl("ipv6/conf/eth0/disable_ipv6", "0");
        guest.space.ip(&format!("addr add fd77::{last}/64 dev eth0 nodad"));
    }
    let ping = || one.space.run(&["ping", "-6", "-c", "3", "-i", "0.2", "-W", "1", "fd77::2"]).status.success();
    assert!(ping());
    // Both have spoken now; what they said has been told.
    std::thread::sleep(Duration::from_secs(3));
    one.flush_neighbours();
    let before = answered(&world, 0);
    let captures = [two, three].map(|guest| Capture::start(&guest.space, "eth0"));
    assert!(ping());
    let frames = captures.map(Capture::stop);
    assert_eq!(frames.each_ref().map(|frames| questions(frames, one)), [0, 0]);
    assert!(answered(&world, 0) > before);
    assert!(resolved(one, "fd77::2").contains(&two.mac.to_string()));
    assert!(!resolved(one, "fd77::2").contains("router"), "it is none");
}

#[test]
fn a_machine_that_is_gone_is_forgotten() {
    let world = world();
    world.nodes[1].guest.space.ip("link set eth0 down");
    wait_for("its address is known no more", GONE, || (bindings(&world, 0) == 2).then_some(()));
    let one = &world.nodes[0].guest;
    one.flush_neighbours();
    let before = answered(&world, 0);
    let report = Ping::count(&one.space, world.nodes[1].guest.address, 2);
    assert_eq!((report.replies.len(), answered(&world, 0)), (0, before));
}
