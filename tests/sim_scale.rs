//! Many nodes at once, with the stand-in handshake.
//!
//! The world of 1,000 nodes takes about 7 minutes and 10 GB: `cargo test --test sim_scale -- --ignored`

mod common;

use std::time::Duration;

use common::Lab;
use longwire::control::report::PathKind;
use longwire::node::HandshakeKind;
use longwire::sim::Behaviour;

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
