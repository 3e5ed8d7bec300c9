//! Members as relays: who carries for two that never reach each other, for how long, and for whom not.

mod common;

use std::time::Duration;

use common::Lab;
use longwire::control::report::{PathKind, Request, Response};
use longwire::node::HandshakeKind;
use longwire::sim::kernel::Stream;
use longwire::sim::{Behaviour, Conditions, HostId, HostSpec, SiteSpec};
use longwire::wire::carry::RelayFor;

const STEP: Duration = Duration::from_millis(10);
const SYMMETRIC: Option<Behaviour> = Some(Behaviour::symmetric());
/// What a relayed pair may lose when its relay dies and there is another.
const RELAY_GAP_MAX: f64 = 2.0;
/// Of a million packets that cross one link so many are lost: of those between two sites a fourth, of probes with their
/// answers nearly half.
const LOSSY: u32 = 134_000;
/// Each ten seconds: longer than a lease of a relay.
const LOOKS: usize = 20;
/// Frames flow, the first round of punching fails, neighbours are compared, a leg is measured.
const FOUND_AFTER: Duration = Duration::from_secs(15);

/// Two members that never reach each other, and a supernode this far away from everybody.
fn far_supernode(seed: u64, delay_ms: u64) -> Lab {
    let mut lab = Lab::empty(seed, 0, HandshakeKind::Noise);
    let delay = Duration::from_millis(delay_ms);
    let site =
        lab.world.site(SiteSpec { conditions: Conditions { delay, ..Conditions::default() }, ..SiteSpec::default() });
    let supernode = lab.world.host(HostSpec::new(site, "s0").serving());
    lab.supernodes.push(supernode);
    for _ in 0..2 {
        let site = lab.site(SYMMETRIC);
        lab.member(site);
    }
    lab
}

/// A third member with a public address, this far away from everybody.
fn third(lab: &mut Lab, delay_ms: u64, shape: impl FnOnce(HostSpec) -> HostSpec) -> HostId {
    let delay = Duration::from_millis(delay_ms);
    let site =
        lab.world.site(SiteSpec { conditions: Conditions { delay, ..Conditions::default() }, ..SiteSpec::default() });
    let spec = shape(lab.spec(site).member(lab.overlay));
    lab.add(spec)
}

fn relaying(spec: HostSpec) -> HostSpec {
    spec.relaying(RelayFor::Everyone)
}

/// The user at a member orders how its frames reach a peer.
fn order(lab: &mut Lab, at: usize, peer: &str, via: &str) {
    let request = Request::Via { peer: peer.into(), via: via.into() };
    assert_eq!(lab.world.ask(lab.hosts[at], &request), Some(Response::Done));
}

/// The users at both members of a pair order that a supernode carries.
fn order_by_supernode(lab: &mut Lab) {
    order(lab, 0, "n1", "supernode");
    order(lab, 1, "n0", "supernode");
}

/// Who carries frames from `from` to `to`.
fn carrier(lab: &mut Lab, from: usize, to: usize) -> String {
    let peer = lab.world.peer(lab.hosts[from], lab.hosts[to], lab.overlay).expect("they have met");
    match (peer.path.kind, peer.path.via) {
        (PathKind::Relayed, Some(via)) => via,
        (kind, via) => panic!("{kind:?} {via:?}\n{}", lab.tale()),
    }
}

fn supernode(lab: &Lab) -> String {
    lab.world.as_supernode(lab.supernodes[0]).address
}

/// One of a host's counters.
fn count(lab: &mut Lab, host: HostId, counter: &str) -> u64 {
    lab.world.status(host).expect("it runs").overlays[0].counters[counter]
}

/// A pair that the third member, near to both, carries for.
fn carried(seed: u64) -> Lab {
    let mut lab = far_supernode(seed, 50);
    third(&mut lab, 2, relaying);
    lab.settle();
    lab.stream(0, 1, STEP * 5, FOUND_AFTER);
    assert_eq!([carrier(&mut lab, 0, 1), carrier(&mut lab, 1, 0)], ["n2", "n2"], "{}", lab.tale());
    lab
}

#[test]
fn a_member_that_is_nearer_than_the_supernode_carries_and_opens_nothing() {
    for seed in 1..4 {
        let mut lab = carried(seed);
        let third = lab.hosts[2];
        let (relayed, out) = (count(&mut lab, third, "relayed"), count(&mut lab, third, "frames_out"));
        let pings = lab.stream(0, 1, STEP, Duration::from_secs(5));
        lab.run(1.0);
        assert_eq!(lab.lost(&pings), &[] as &[f64], "{}", lab.tale());
        assert!(count(&mut lab, third, "relayed") >= relayed + 1000, "500 pings and their answers");
        assert_eq!(count(&mut lab, third, "frames_out"), out, "no frame of theirs comes out there");
        lab.check();
    }
}

#[test]
fn a_member_that_is_farther_than_the_supernode_stands_by() {
    let mut lab = far_supernode(4, 2);
    third(&mut lab, 50, relaying);
    lab.settle();
    lab.stream(0, 1, STEP * 5, FOUND_AFTER);
    assert_eq!(carrier(&mut lab, 0, 1), supernode(&lab), "{}", lab.tale());
    lab.check();
}

#[test]
fn when_the_relaying_member_dies_the_supernode_carries_within_two_seconds() {
    for seed in 10..15 {
        let mut lab = carried(seed);
        lab.world.kill(lab.hosts[2]);
        let pings = lab.stream(0, 1, STEP, Duration::from_secs(30));
        lab.run(1.0);
        assert!(lab.gap(&pings) <= RELAY_GAP_MAX, "gap of {} s\n{}", lab.gap(&pings), lab.tale());
        let lost = lab.lost(&pings);
        assert!(lost.len() <= 200, "once, not again and again: {} lost\n{}", lost.len(), lab.tale());
        assert_eq!([carrier(&mut lab, 0, 1), carrier(&mut lab, 1, 0)], [supernode(&lab), supernode(&lab)]);
        lab.check();
    }
}

#[test]
fn a_member_that_leaves_in_good_order_costs_nearly_nothing() {
    let mut lab = carried(16);
    lab.world.leave(lab.hosts[2]);
    let pings = lab.stream(0, 1, STEP, Duration::from_secs(10));
    lab.run(1.0);
    assert!(lab.gap(&pings) <= 0.3, "gap of {} s\n{}", lab.gap(&pings), lab.tale());
}

#[test]
fn a_pair_lives_on_by_a_member_when_its_supernode_dies() {
    for (seed, delay) in [(20, 2), (21, 50), (22, 100)] {
        let mut lab = far_supernode(seed, 25);
        third(&mut lab, delay, relaying);
        lab.settle();
        lab.stream(0, 1, STEP * 5, FOUND_AFTER);
        lab.world.kill(lab.supernodes[0]);
        let pings = lab.stream(0, 1, STEP, Duration::from_secs(200));
        lab.run(1.0);
        assert!(lab.gap(&pings) <= RELAY_GAP_MAX, "{delay} ms: gap of {} s\n{}", lab.gap(&pings), lab.tale());
        assert_eq!(carrier(&mut lab, 0, 1), "n2", "through a change of keys");
        lab.check();
    }
}

#[test]
fn a_pair_that_asked_nobody_before_finds_a_member_when_its_supernode_dies() {
    let mut lab = far_supernode(25, 25);
    third(&mut lab, 10, relaying);
    lab.settle();
    lab.world.kill(lab.supernodes[0]);
    let pings = lab.stream(0, 1, STEP, Duration::from_secs(20));
    lab.run(1.0);
    assert!(lab.gap(&pings) <= 5.0, "gap of {} s\n{}", lab.gap(&pings), lab.tale());
    assert_eq!(carrier(&mut lab, 0, 1), "n2");
}

#[test]
fn a_relaying_member_that_restarts_carries_again() {
    let mut lab = carried(26);
    lab.world.restart(lab.hosts[2]);
    let pings = lab.stream(0, 1, STEP, Duration::from_secs(100));
    assert!(lab.gap(&pings) <= RELAY_GAP_MAX, "gap of {} s\n{}", lab.gap(&pings), lab.tale());
    assert_eq!(carrier(&mut lab, 0, 1), "n2", "{}", lab.tale());
    lab.check();
}

#[test]
fn an_end_that_restarts_gets_a_leg_that_carries() {
    let mut lab = carried(27);
    lab.world.restart(lab.hosts[1]);
    lab.stream(0, 1, STEP * 5, Duration::from_secs(100));
    assert_eq!([carrier(&mut lab, 0, 1), carrier(&mut lab, 1, 0)], ["n2", "n2"], "{}", lab.tale());
    assert!(lab.answers(0, 1));
    lab.check();
}

#[test]
fn who_does_not_want_to_relay_is_not_made_to() {
    let nobody = |spec: HostSpec| spec.relaying(RelayFor::Nobody);
    let elsewhere = |spec: HostSpec| spec.relaying(RelayFor::Site).at_site("attic");
    for (seed, shape) in [(30, Box::new(nobody) as Box<dyn Fn(HostSpec) -> HostSpec>), (31, Box::new(elsewhere))] {
        let mut lab = far_supernode(seed, 50);
        let third = third(&mut lab, 2, shape);
        lab.settle();
        lab.stream(0, 1, STEP * 5, FOUND_AFTER);
        assert_eq!(carrier(&mut lab, 0, 1), supernode(&lab), "{}", lab.tale());
        assert_eq!(count(&mut lab, third, "relayed"), 0);
        lab.check();
    }
}

#[test]
fn a_member_of_the_same_site_relays_for_it() {
    let mut lab = Lab::empty(32, 1, HandshakeKind::Noise);
    lab.world.worsen(lab.world.site_of(lab.supernodes[0]), |now| now.delay = Duration::from_millis(50));
    for name in ["", "mill"] {
        let site = lab.site(SYMMETRIC);
        let spec = lab.spec(site).member(lab.overlay).at_site(name);
        lab.add(spec);
    }
    third(&mut lab, 2, |spec| spec.at_site("mill"));
    lab.settle();
    lab.stream(0, 1, STEP * 5, FOUND_AFTER);
    assert_eq!(carrier(&mut lab, 0, 1), "n2", "{}", lab.tale());
}

#[test]
fn no_more_than_the_share_is_passed_on_and_what_is_more_is_counted() {
    let share = 50_000;
    let mut lab = far_supernode(33, 50);
    let third = third(&mut lab, 2, |spec| relaying(spec).sharing(share));
    lab.settle();
    lab.stream(0, 1, STEP * 5, FOUND_AFTER);
    let before = count(&mut lab, third, "relayed_bytes");
    let seconds = 10;
    for _ in 0..seconds * 100 {
        lab.world.ping(lab.vms[0], lab.vms[1], 1400);
        lab.run(0.01);
    }
    let passed = count(&mut lab, third, "relayed_bytes") - before;
    let most = u64::from(share) * seconds + 65_536;
    assert!(passed <= most, "{passed} bytes in {seconds} s, {most} may be");
    assert!(count(&mut lab, third, "relay_share") > 0);
}

#[test]
fn an_order_beats_the_local_choice_while_it_can_be_obeyed() {
    let mut lab = far_supernode(34, 2);
    third(&mut lab, 50, relaying);
    lab.settle();
    let follow = |lab: &mut Lab, via: &str| {
        order(lab, 0, "n1", via);
        lab.stream(0, 1, STEP * 5, Duration::from_secs(10));
    };
    follow(&mut lab, "n2");
    assert_eq!(carrier(&mut lab, 0, 1), "n2", "though it is slow\n{}", lab.tale());
    follow(&mut lab, "direct");
    assert_eq!(carrier(&mut lab, 0, 1), supernode(&lab), "there is no direct path\n{}", lab.tale());
    follow(&mut lab, "n2");
    lab.world.kill(lab.hosts[2]);
    let pings = lab.stream(0, 1, STEP, Duration::from_secs(10));
    assert!(lab.gap(&pings) <= RELAY_GAP_MAX, "gap of {} s\n{}", lab.gap(&pings), lab.tale());
    assert_eq!(carrier(&mut lab, 0, 1), supernode(&lab));
    lab.check();
}

#[test]
fn the_member_of_before_takes_over_from_a_supernode_that_was_ordered_and_dies() {
    for seed in [38, 39, 40] {
        let mut lab = carried(seed);
        order_by_supernode(&mut lab);
        lab.stream(0, 1, STEP * 5, Duration::from_secs(100));
        assert_eq!(carrier(&mut lab, 0, 1), supernode(&lab), "though the member is nearer\n{}", lab.tale());
        lab.world.kill(lab.supernodes[0]);
        let pings = lab.stream(0, 1, STEP, Duration::from_secs(20));
        lab.run(1.0);
        assert!(lab.gap(&pings) <= RELAY_GAP_MAX, "gap of {} s\n{}", lab.gap(&pings), lab.tale());
        assert_eq!([carrier(&mut lab, 0, 1), carrier(&mut lab, 1, 0)], ["n2", "n2"], "{}", lab.tale());
        lab.check();
    }
}

#[test]
fn who_was_ordered_to_the_supernode_finds_a_member_when_it_dies() {
    let mut lab = far_supernode(41, 25);
    third(&mut lab, 10, relaying);
    lab.settle();
    order_by_supernode(&mut lab);
    lab.stream(0, 1, STEP * 5, FOUND_AFTER);
    assert_eq!(carrier(&mut lab, 0, 1), supernode(&lab), "{}", lab.tale());
    lab.world.kill(lab.supernodes[0]);
    let pings = lab.stream(0, 1, STEP, Duration::from_secs(20));
    lab.run(1.0);
    assert!(lab.gap(&pings) <= 5.0, "gap of {} s\n{}", lab.gap(&pings), lab.tale());
    assert_eq!(carrier(&mut lab, 0, 1), "n2");
}

#[test]
fn a_pair_that_is_direct_takes_a_relay_by_order_and_returns() {
    let mut lab = Lab::three(35);
    let spec = lab.spec(lab.world.site_of(lab.hosts[0])).member(lab.overlay).relaying(RelayFor::Everyone);
    lab.add(spec);
    lab.settle();
    for (via, kind) in [("n3", PathKind::Relayed), ("auto", PathKind::Direct)] {
        order(&mut lab, 0, "n1", via);
        let pings = lab.stream(0, 1, STEP, Duration::from_secs(60));
        lab.run(1.0);
        assert_eq!(lab.lost(&pings), &[] as &[f64], "{}", lab.tale());
        let peer = lab.world.peer(lab.hosts[0], lab.hosts[1], lab.overlay).expect("they have met");
        assert_eq!(peer.path.kind, kind, "{via}: {}", lab.tale());
    }
    lab.check();
}

#[test]
fn a_member_whose_own_frames_go_by_another_still_carries() {
    let mut lab = Lab::three(37);
    for _ in 0..2 {
        let spec = lab.spec(lab.world.site_of(lab.hosts[0])).member(lab.overlay).relaying(RelayFor::Everyone);
        lab.add(spec);
    }
    lab.settle();
    let talk = |lab: &mut Lab, seconds: u32| {
        for _ in 0..seconds * 2 {
            for from in [0, 3] {
                lab.world.stream(lab.vms[from], lab.vms[1], Stream::Udp, 4, 1_000);
            }
            lab.run(0.5);
        }
    };
    order(&mut lab, 3, "n1", "n4");
    talk(&mut lab, 10);
    assert_eq!(carrier(&mut lab, 3, 1), "n4");
    order(&mut lab, 0, "n1", "n3");
    talk(&mut lab, 10);
    assert_eq!(carrier(&mut lab, 0, 1), "n3", "it reaches n1 itself, though it does not go there\n{}", lab.tale());
    talk(&mut lab, 120);
    assert_eq!([carrier(&mut lab, 0, 1), carrier(&mut lab, 3, 1)], ["n3", "n4"], "{}", lab.tale());
    lab.check();
}

/// A network of three pairs, and so many members that relay for everybody.
fn with_relays(seed: u64, count: usize) -> Lab {
    let mut lab = Lab::three(seed);
    for _ in 0..count {
        let spec = lab.spec(lab.world.site_of(lab.hosts[0])).member(lab.overlay).relaying(RelayFor::Everyone);
        lab.add(spec);
    }
    lab.settle();
    lab
}

#[test]
fn a_pair_that_is_sent_by_one_member_after_another_takes_each() {
    const RELAYS: usize = 10;
    let mut lab = with_relays(40, RELAYS);
    // Within the lease of the first.
    for relay in 3..3 + RELAYS {
        let relay = format!("n{relay}");
        order(&mut lab, 0, "n1", &relay);
        lab.stream(0, 1, STEP, Duration::from_secs(5));
        assert_eq!(carrier(&mut lab, 0, 1), relay, "{}", lab.tale());
    }
    lab.check();
}

/// Of one world's twenty orders anything between eleven and twenty are, by chance: many worlds tell.
#[test]
fn an_order_is_carried_out_in_five_seconds_where_a_third_of_all_packets_is_lost() {
    const ORDERS: usize = 20;
    const WORLDS: u64 = 20;
    let mut obeyed = 0;
    for seed in 41..41 + WORLDS {
        let mut lab = with_relays(seed, 2);
        let a_third = LOSSY * 13 / 10;
        for host in 0..3 {
            let site = lab.world.site_of(lab.hosts[host]);
            lab.world.worsen(site, |conditions| conditions.loss = a_third);
        }
        for number in 0..ORDERS {
            let relay = ["n3", "n4"][number % 2];
            order(&mut lab, 0, "n1", relay);
            lab.stream(0, 1, STEP * 5, Duration::from_secs(5));
            let path = lab.world.peer(lab.hosts[0], lab.hosts[1], lab.overlay).expect("they have met").path;
            obeyed += usize::from(path.via.as_deref() == Some(relay));
        }
        lab.check();
    }
    let all = ORDERS * WORLDS as usize;
    assert!(obeyed >= all * 8 / 10, "{obeyed} of {all}");
}

#[test]
fn where_every_fourth_packet_is_lost_orders_stand_and_direct_paths_live() {
    let mut lab = Lab::three(38);
    let spec = lab.spec(lab.world.site_of(lab.hosts[0])).member(lab.overlay).relaying(RelayFor::Everyone);
    lab.add(spec);
    lab.settle();
    order(&mut lab, 0, "n1", "n3");
    lab.stream(0, 1, STEP, Duration::from_secs(5));
    for host in 0..3 {
        let site = lab.world.site_of(lab.hosts[host]);
        lab.world.worsen(site, |conditions| conditions.loss = LOSSY);
    }
    let (mut as_ordered, mut direct) = (0, 0);
    for _ in 0..LOOKS {
        lab.stream(0, 1, STEP * 5, Duration::from_secs(5));
        lab.stream(2, 1, STEP * 5, Duration::from_secs(5));
        let mut path =
            |from: usize| lab.world.peer(lab.hosts[from], lab.hosts[1], lab.overlay).expect("they have met").path;
        as_ordered += usize::from(path(0).via.as_deref() == Some("n3"));
        direct += usize::from(path(2).kind == PathKind::Direct);
    }
    assert!(as_ordered >= LOOKS * 9 / 10, "{as_ordered} of {LOOKS} as ordered\n{}", lab.tale());
    assert!(direct >= LOOKS * 9 / 10, "{direct} of {LOOKS} direct\n{}", lab.tale());
    lab.check();
}

#[test]
fn a_pair_that_rested_for_minutes_speaks_again_at_once() {
    for (seed, rest) in [(42, 185.0), (43, 200.0), (44, 260.0), (45, 300.0)] {
        let mut lab = carried(seed);
        lab.run(rest);
        let pings = lab.stream(0, 1, STEP, Duration::from_secs(10));
        lab.run(1.0);
        assert!(lab.gap(&pings) <= 0.3, "{rest} s: gap of {} s\n{}", lab.gap(&pings), lab.tale());
        lab.check();
    }
}

#[test]
fn what_is_not_used_any_more_ends_and_the_world_goes_quiet() {
    let mut lab = carried(36);
    lab.run(300.0);
    assert_eq!(lab.world.chatter(Duration::from_secs(100)), &[] as &[String]);
    lab.stream(0, 1, STEP * 5, FOUND_AFTER);
    assert_eq!(carrier(&mut lab, 0, 1), "n2", "and it is found again\n{}", lab.tale());
    lab.check();
}
