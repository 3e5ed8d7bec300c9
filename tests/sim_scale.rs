//! Many nodes at once, with the stand-in handshake.
//!
//! The world of 1,000 nodes takes about 7 minutes and 10 GB: `cargo test --test sim_scale -- --ignored`

mod common;

use std::time::Duration;

use common::Lab;
use longwire::control::report::PathKind;
use longwire::node::{Event, HandshakeKind};
use longwire::sim::{Behaviour, HostId};
use longwire::time::Time;

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

/// The supernode is restarted: everybody registers again in time, and goes on meanwhile.
fn come_back(lab: &mut Lab) {
    let registered = |(at, _, event): &&(Time, HostId, Event), since: Time| {
        *at >= since && matches!(event, Event::Registered { .. })
    };
    let (start, supernode, count) = (lab.world.now(), lab.supernodes[0], lab.hosts.len());
    lab.world.restart(supernode);
    let took = lab.world.run_until_true(STEP, RETURN_MAX, |world| {
        world.events().iter().filter(|event| registered(event, start)).count() >= count
    });
    let came = lab.world.events().iter().filter(|event| registered(event, start)).count();
    eprintln!("{came} of {count} registered again after {took:?}");
    assert!(took.is_some(), "{came} of {count} registered again within {RETURN_MAX:?}");
    lab.check();
}

#[test]
fn three_hundred_nodes_join_in_the_same_second() {
    settles(300, Duration::from_secs(60));
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
