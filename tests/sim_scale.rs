//! Many nodes at once, with the stand-in handshake.
//!
//! The world of 1,000 nodes takes about 7 minutes and 10 GB: `cargo test --test sim_scale -- --ignored`

mod common;

use std::time::Duration;

use common::Lab;
use longwire::control::report::PathKind;
use longwire::node::HandshakeKind;
use longwire::sim::{Behaviour, HostId, World};

/// How often a world that comes back is looked at, and by when it must be.
const STEP: Duration = Duration::from_millis(100);
const RETURN_MAX: Duration = Duration::from_secs(10);

/// `count` nodes that all join within one second, on every kind of access.
fn crowd(count: usize) -> Lab {
    let mut lab = Lab::empty(1, 1, HandshakeKind::StandIn);
    let boxes = [None, Some(Behaviour::port_restricted()), Some(Behaviour::firewall()), Some(Behaviour::symmetric())];
    for number in 0..count {
        let site = lab.site(boxes[number % boxes.len()]);
        lab.member(site);
        lab.world.run_for(Duration::from_secs(1) / u32::try_from(count).expect("small"));
    }
    lab
}

/// Joins, floods, pings at random; then everything at rest.
fn settles(count: usize, limit: Duration) {
    let mut lab = crowd(count);
    let settled = lab.world.settle(limit);
    assert!(settled.is_ok(), "{:?}", settled.map_err(|wrong| wrong.into_iter().take(20).collect::<Vec<_>>()));
    for from in [0, count / 2, count - 1] {
        let frame = lab.world.broadcast(lab.vms[from]);
        lab.run(2.0);
        assert_eq!(lab.world.missed(frame), &[] as &[String]);
    }
    let pings: Vec<_> = (0..count).map(|from| lab.world.call(lab.vms[from], lab.vms[(from * 7 + 1) % count])).collect();
    lab.run(3.0);
    let asked = pings.iter().enumerate().filter(|(from, _)| (from * 7 + 1) % count != *from);
    let lost: Vec<_> = asked.filter(|(_, ping)| !lab.answered(**ping)).map(|(from, _)| from).collect();
    assert_eq!(lost, &[] as &[usize]);
    come_back(&mut lab);
}

/// The supernode is restarted: everybody registers again in time.
fn come_back(lab: &mut Lab) {
    let (supernode, count) = (lab.supernodes[0], lab.hosts.len());
    lab.world.restart(supernode);
    let took = lab.world.run_until_true(STEP, RETURN_MAX, |world| registered(world, supernode) >= count);
    let came = registered(&mut lab.world, supernode);
    eprintln!("{came} of {count} registered again after {took:?}");
    assert!(took.is_some(), "{came} of {count} registered again within {RETURN_MAX:?}");
    lab.check();
}

/// How many members a supernode has, by its own word.
fn registered(world: &mut World, supernode: HostId) -> usize {
    let serving = world.status(supernode).and_then(|status| status.serving).expect("it serves");
    serving.overlays.iter().map(|overlay| overlay.members.len()).sum()
}

#[test]
fn a_thousand_nodes_of_twenty_overlays_come_back_after_a_restart() {
    let mut lab = Lab::empty(2, 1, HandshakeKind::StandIn);
    let overlays: Vec<_> = (0..20).map(|number| lab.world.overlay(&format!("o{number}"))).collect();
    for number in 0..1000 {
        let site = lab.site(Some(Behaviour::port_restricted()));
        let spec = lab.spec(site).member(overlays[number % overlays.len()]);
        let host = lab.world.host(spec);
        lab.hosts.push(host);
    }
    let supernode = lab.supernodes[0];
    let took = lab.world.run_until_true(STEP, RETURN_MAX, |world| registered(world, supernode) == 1000);
    eprintln!("1000 registered at the start after {took:?}");
    assert!(took.is_some());
    lab.run(20.0);
    come_back(&mut lab);
}

#[test]
fn two_hundred_nodes_join_in_the_same_second() {
    settles(200, Duration::from_secs(60));
}

#[test]
#[ignore = "long: half a million pairs, 7 minutes and 10 GB; `cargo test --test sim_scale -- --ignored`"]
fn a_thousand_nodes_join_in_the_same_second() {
    settles(1000, Duration::from_secs(120));
}

#[test]
fn a_newcomer_reaches_each_of_a_hundred() {
    let mut lab = crowd(100);
    lab.run(30.0);
    let site = lab.site(Some(Behaviour::port_restricted()));
    let host = lab.member(site);
    lab.run(2.0);
    let frame = lab.world.broadcast(lab.vms[100]);
    lab.run(1.0);
    assert_eq!(lab.world.missed(frame), &[] as &[String]);
    let reached = lab
        .hosts
        .clone()
        .into_iter()
        .filter(|other| *other != host && lab.world.path(host, *other, lab.overlay) != PathKind::None);
    assert_eq!(reached.count(), 100);
    lab.check();
}
