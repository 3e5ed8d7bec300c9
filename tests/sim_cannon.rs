//! Members and supernodes that lie about addresses: a node must not be turned into a cannon.

mod common;

use std::time::Duration;

use common::Lab;
use longwire::control::report::PathKind;
use longwire::sim::pipe::Loss;
use longwire::sim::{Behaviour, HostSpec};

/// A member that names a victim's address, at other ports all the time.
#[test]
fn a_member_that_names_a_victim_aims_little_at_it() {
    let mut lab = Lab::new(1, 1, &[Some(Behaviour::symmetric()), Some(Behaviour::symmetric())]);
    let site = lab.site(None);
    // A computer that runs nothing of ours.
    let victim = lab.world.install(HostSpec::new(site, "victim"));
    let address = lab.world.socket(victim).ip();
    lab.settle();
    let [liar, honest] = [lab.hosts[0], lab.hosts[1]];
    let dead = |lab: &Lab| lab.world.losses().get(&Loss::Dead).copied().unwrap_or_default();
    let (before, sent) = (dead(&lab), lab.world.sending(honest));
    for round in 0..600_u16 {
        lab.world.claim(liar, 1000 + round, vec![address; 1]);
        lab.run(0.1);
    }
    // The liar itself does not aim at its own address.
    let (hits, now) = (dead(&lab) - before, lab.world.sending(honest));
    assert!(hits > 10, "the attack works at all: {hits}");
    assert!(hits <= 216 + 5 * 60, "{hits} packets hit the victim in a minute");
    let bytes = now.bytes - sent.bytes;
    assert!(bytes < 200_000, "an honest member sent {bytes} bytes in a minute");
    assert_eq!(lab.world.path(honest, liar, lab.overlay), PathKind::Relayed);
    lab.check();
}

/// Twenty members that conspire: what one node sends to one target stays the same.
#[test]
fn many_members_that_name_one_victim_share_one_limit() {
    const NODES: u64 = 21;
    let boxes = vec![Some(Behaviour::symmetric()); NODES as usize];
    let mut lab = Lab::new(2, 1, &boxes);
    let site = lab.site(None);
    let victim = lab.world.install(HostSpec::new(site, "victim"));
    let address = lab.world.socket(victim).ip();
    lab.settle();
    let dead = |lab: &Lab| lab.world.losses().get(&Loss::Dead).copied().unwrap_or_default();
    let before = dead(&lab);
    for round in 0..60_u16 {
        for liar in lab.hosts.clone() {
            lab.world.claim(liar, 1000 + round, vec![address]);
        }
        lab.run(1.0);
    }
    // All of them believe each other: each has twenty that name the victim, and the limit of one target.
    let hits = dead(&lab) - before;
    assert!(hits > 20 * 216, "the attack works at all: {hits}");
    assert!(hits <= NODES * (600 + 20 * 61), "{hits} packets hit the victim in a minute");
    lab.check();
}

/// An honest member that moves between networks is not kept from being direct by the limits.
#[test]
fn a_member_that_moves_often_is_direct_after_each_move() {
    let mut lab = Lab::new(3, 1, &[Some(Behaviour::port_restricted()), Some(Behaviour::port_restricted())]);
    lab.settle();
    for _ in 0..20 {
        let site = lab.site(Some(Behaviour::port_restricted()));
        lab.world.migrate(lab.hosts[0], site);
        lab.run(15.0);
        assert_eq!(lab.world.path(lab.hosts[1], lab.hosts[0], lab.overlay), PathKind::Direct, "{}", lab.tale());
    }
    let settled = lab.world.settle(Duration::from_secs(5));
    assert!(settled.is_ok(), "{settled:?}");
    lab.check();
}
