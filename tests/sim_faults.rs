//! One fault at a time: who notices, and how long nothing passes.

mod common;

use std::time::Duration;

use common::Lab;
use longwire::control::report::PathKind;
use longwire::sim::{Behaviour, HostId, MILLION};

const TEN_MS: Duration = Duration::from_millis(10);
const RESTRICTED: Option<Behaviour> = Some(Behaviour::port_restricted());
const SYMMETRIC: Option<Behaviour> = Some(Behaviour::symmetric());

/// A pair that is direct, at rest.
fn direct_pair(seed: u64, supernodes: usize) -> Lab {
    let mut lab = Lab::new(seed, supernodes, &[RESTRICTED, RESTRICTED]);
    lab.settle();
    lab
}

fn path(lab: &mut Lab, from: usize, to: usize) -> PathKind {
    lab.world.path(lab.hosts[from], lab.hosts[to], lab.overlay)
}

#[test]
fn a_direct_pair_does_not_notice_that_its_supernode_died() {
    let mut lab = direct_pair(1, 1);
    lab.world.kill(lab.supernodes[0]);
    let pings = lab.stream(0, 1, TEN_MS * 10, Duration::from_secs(300));
    lab.run(1.0);
    assert_eq!(lab.lost(&pings), &[] as &[f64], "{}", lab.tale());
    assert_eq!(path(&mut lab, 0, 1), PathKind::Direct);
    lab.check();
}

#[test]
fn known_members_go_on_when_every_supernode_is_dead_new_broadcasts_included() {
    let mut lab = Lab::new(2, 2, &[RESTRICTED, None, Some(Behaviour::firewall())]);
    lab.settle();
    for supernode in lab.supernodes.clone() {
        lab.world.kill(supernode);
    }
    for round in 0..12 {
        lab.run(30.0);
        let newcomer = lab.world.vm(lab.hosts[round % 3], lab.overlay, [2, 0, 0, 5, 5, round as u8], 0);
        let call = lab.world.call(newcomer, lab.vms[(round + 1) % 3]);
        lab.run(1.0);
        assert!(lab.answered(call), "round {round}\n{}", lab.tale());
        assert_eq!(lab.world.missed(call), &[] as &[String]);
    }
    lab.check();
}

#[test]
fn a_relayed_pair_takes_the_other_supernode() {
    let mut lab = Lab::new(3, 2, &[SYMMETRIC, SYMMETRIC]);
    lab.settle();
    for supernode in 0..2 {
        lab.world.start(lab.supernodes[1 - supernode]);
        lab.run(30.0);
        lab.world.kill(lab.supernodes[supernode]);
        let pings = lab.stream(0, 1, TEN_MS * 2, Duration::from_secs(10));
        lab.run(1.0);
        assert!(lab.gap(&pings) <= 3.0, "gap of {} s\n{}", lab.gap(&pings), lab.tale());
    }
    lab.check();
}

#[test]
fn a_supernode_that_comes_back_relays_again() {
    let mut lab = Lab::new(4, 1, &[SYMMETRIC, SYMMETRIC]);
    lab.settle();
    lab.world.kill(lab.supernodes[0]);
    lab.run(100.0);
    assert!(!lab.answers(0, 1), "there is no way");
    lab.world.start(lab.supernodes[0]);
    let pings = lab.stream(0, 1, TEN_MS * 10, Duration::from_secs(15));
    lab.run(1.0);
    assert!(lab.gap(&pings) <= 8.0, "gap of {} s\n{}", lab.gap(&pings), lab.tale());
    lab.check();
}

#[test]
fn a_restarted_supernode_is_joined_again_without_a_gap_for_direct_pairs() {
    let mut lab = direct_pair(5, 1);
    lab.world.restart(lab.supernodes[0]);
    let pings = lab.stream(0, 1, TEN_MS, Duration::from_secs(20));
    lab.run(1.0);
    assert_eq!(lab.lost(&pings), &[] as &[f64], "{}", lab.tale());
    let site = lab.site(None);
    let newcomer = lab.member(site);
    lab.settle();
    assert_eq!(lab.world.path(newcomer, lab.hosts[0], lab.overlay), PathKind::Direct);
    lab.check();
}

#[test]
fn a_killed_node_is_back_within_two_seconds() {
    for boxes in [[RESTRICTED, RESTRICTED], [SYMMETRIC, SYMMETRIC], [None, SYMMETRIC]] {
        let mut lab = Lab::new(6, 1, &boxes);
        lab.settle();
        for node in [0, 1] {
            lab.world.kill(lab.hosts[node]);
            lab.run(0.5);
            lab.world.start(lab.hosts[node]);
            let pings = lab.stream(node, 1 - node, TEN_MS * 5, Duration::from_secs(6));
            let back = lab.stream(1 - node, node, TEN_MS * 5, Duration::from_secs(2));
            lab.run(1.0);
            assert!(lab.gap(&pings) <= 2.0, "{boxes:?}: gap of {} s\n{}", lab.gap(&pings), lab.tale());
            assert_eq!(lab.lost(&back), &[] as &[f64], "{boxes:?}\n{}", lab.tale());
        }
        lab.check();
    }
}

#[test]
fn a_killed_node_finds_its_direct_peer_again_without_any_supernode() {
    let mut lab = Lab::new(7, 1, &[None, None]);
    lab.settle();
    lab.run(30.0);
    lab.world.kill(lab.supernodes[0]);
    lab.world.restart(lab.hosts[0]);
    let pings = lab.stream(0, 1, TEN_MS * 5, Duration::from_secs(20));
    lab.run(1.0);
    assert!(lab.gap(&pings) <= 10.0, "gap of {} s\n{}", lab.gap(&pings), lab.tale());
    lab.check();
}

#[test]
fn a_clean_leave_is_known_at_once_and_the_way_back_is_short() {
    let mut lab = Lab::new(8, 1, &[RESTRICTED, RESTRICTED, SYMMETRIC]);
    lab.settle();
    lab.world.leave(lab.hosts[0]);
    lab.run(1.0);
    for other in [1, 2] {
        let peer = lab.world.peer(lab.hosts[other], lab.hosts[0], lab.overlay);
        let gone = peer.is_none_or(|peer| peer.path.kind == PathKind::None);
        assert!(gone, "\n{}", lab.tale());
    }
    lab.world.start(lab.hosts[0]);
    lab.settle();
    assert!(lab.answers(0, 1) && lab.answers(2, 0));
    lab.check();
}

#[test]
fn a_peer_that_died_is_gone_after_65_s() {
    let mut lab = direct_pair(9, 1);
    lab.world.kill(lab.hosts[0]);
    lab.run(75.0);
    assert_eq!(path(&mut lab, 1, 0), PathKind::None, "{}", lab.tale());
    lab.check();
}

#[test]
fn a_bad_line_loses_what_it_loses_and_nothing_comes_twice() {
    let mut lab = direct_pair(10, 1);
    let site = lab.world.site_of(lab.hosts[0]);
    lab.world.worsen(site, |now| {
        now.loss = MILLION / 20;
        now.duplication = MILLION / 20;
        now.reordering = MILLION / 10;
        now.jitter = Duration::from_millis(5);
    });
    let pings = lab.stream(0, 1, TEN_MS, Duration::from_secs(100));
    lab.run(1.0);
    let lost = lab.lost(&pings).len();
    assert!((700..1300).contains(&lost), "{lost} of {} lost: 2 x 5 %\n{}", pings.len(), lab.tale());
    lab.check();
    lab.world.calm();
    lab.run(15.0);
    assert_eq!(lab.world.unsettled(), &[] as &[String], "{}", lab.tale());
}

#[test]
fn joining_works_over_a_bad_line() {
    for seed in 0..10 {
        let mut lab = Lab::new(100 + seed, 1, &[]);
        for behaviour in [RESTRICTED, RESTRICTED] {
            let site = lab.site(behaviour);
            lab.world.worsen(site, |now| now.loss = MILLION / 10);
            lab.member(site);
        }
        lab.run(10.0);
        lab.world.calm();
        lab.settle();
        assert!(lab.answers(0, 1));
    }
}

#[test]
fn a_peer_that_moves_to_another_site_is_followed() {
    for other in [RESTRICTED, None, SYMMETRIC] {
        let mut lab = direct_pair(11, 1);
        let site = lab.site(other);
        lab.world.migrate(lab.hosts[0], site);
        let pings = lab.stream(0, 1, TEN_MS * 2, Duration::from_secs(10));
        lab.run(1.0);
        assert!(lab.gap(&pings) <= 3.0, "{other:?}: gap of {} s\n{}", lab.gap(&pings), lab.tale());
        lab.settle();
    }
}

#[test]
fn a_rebooted_translator_is_survived() {
    for (behaviour, readdress) in [(RESTRICTED, false), (RESTRICTED, true), (SYMMETRIC, true)] {
        for random in [false, true] {
            let here = behaviour.map(|behaviour| if random { behaviour.random_ports() } else { behaviour });
            let mut lab = Lab::new(12, 1, &[here, None]);
            lab.settle();
            let site = lab.world.site_of(lab.hosts[0]);
            lab.world.flush_nat(site, readdress);
            let pings = lab.stream(1, 0, TEN_MS * 2, Duration::from_secs(10));
            lab.run(1.0);
            assert!(lab.gap(&pings) <= 1.6, "{here:?} {readdress}: gap of {} s\n{}", lab.gap(&pings), lab.tale());
            lab.settle();
        }
    }
}

#[test]
fn a_rebooted_translator_of_a_port_restricted_pair_is_survived() {
    for readdress in [false, true] {
        let random = Some(Behaviour::port_restricted().random_ports());
        let mut lab = Lab::new(13, 1, &[random, RESTRICTED]);
        lab.settle();
        let site = lab.world.site_of(lab.hosts[0]);
        lab.world.flush_nat(site, readdress);
        let pings = lab.stream(1, 0, TEN_MS * 2, Duration::from_secs(10));
        lab.run(1.0);
        assert!(lab.gap(&pings) <= 3.0, "gap of {} s\n{}", lab.gap(&pings), lab.tale());
        lab.settle();
    }
}

#[test]
fn a_one_way_cut_falls_to_the_relay_and_heals() {
    for reverse in [false, true] {
        let mut lab = direct_pair(14, 1);
        let sites = [0, 1].map(|host| lab.world.site_of(lab.hosts[host]));
        let [from, to] = if reverse { [sites[1], sites[0]] } else { sites };
        // The machines know each other's addresses already.
        lab.stream(0, 1, TEN_MS * 2, TEN_MS * 10);
        lab.run(1.0);
        lab.world.cut(from, to);
        let pings = lab.stream(0, 1, TEN_MS * 2, Duration::from_secs(20));
        lab.run(1.0);
        assert!(lab.gap(&pings) <= 1.5, "gap of {} s\n{}", lab.gap(&pings), lab.tale());
        assert_eq!(path(&mut lab, 0, 1), PathKind::Relayed);
        assert_eq!(path(&mut lab, 1, 0), PathKind::Relayed);
        lab.world.mend(from, to);
        let pings = lab.stream(0, 1, TEN_MS * 2, Duration::from_secs(40));
        lab.run(1.0);
        assert_eq!(lab.lost(&pings), &[] as &[f64]);
        assert_eq!(path(&mut lab, 0, 1), PathKind::Direct, "{}", lab.tale());
        lab.check();
    }
}

#[test]
fn a_direct_path_that_was_cut_is_left_at_once_and_taken_again_soon_after_it_heals() {
    for (seed, seconds) in (0..).zip([2.0, 7.0, 31.0, 64.0, 130.0, 290.0]) {
        for boxes in [[RESTRICTED, RESTRICTED], [None, SYMMETRIC], [RESTRICTED, None]] {
            let mut lab = Lab::new(40 + seed, 1, &boxes);
            lab.settle();
            let sites = [0, 1].map(|host| lab.world.site_of(lab.hosts[host]));
            lab.world.cut(sites[0], sites[1]);
            lab.world.cut(sites[1], sites[0]);
            let pings = lab.stream(0, 1, TEN_MS * 2, Duration::from_secs_f64(seconds));
            lab.world.mend(sites[0], sites[1]);
            lab.world.mend(sites[1], sites[0]);
            let after = lab.stream(0, 1, TEN_MS * 2, Duration::from_secs(35));
            lab.run(1.0);
            assert!(lab.gap(&pings) <= 1.5, "{boxes:?} {seconds} s: gap of {} s\n{}", lab.gap(&pings), lab.tale());
            assert_eq!(lab.lost(&after), &[] as &[f64], "{boxes:?} {seconds} s\n{}", lab.tale());
            assert_eq!(path(&mut lab, 0, 1), PathKind::Direct, "{boxes:?} {seconds} s\n{}", lab.tale());
            assert_eq!(path(&mut lab, 1, 0), PathKind::Direct, "{boxes:?} {seconds} s\n{}", lab.tale());
            lab.check();
        }
    }
}

#[test]
fn a_long_round_trip_is_no_reason_to_suspect_each_other() {
    let mut lab = Lab::new(60, 1, &[]);
    for _ in 0..2 {
        let site = lab.site(RESTRICTED);
        lab.world.worsen(site, |now| now.delay = Duration::from_millis(150));
        lab.member(site);
    }
    lab.settle();
    let before = lab.world.events().len();
    let sent = lab.world.sending(lab.hosts[0]).datagrams;
    let pings = lab.stream(0, 1, TEN_MS * 10, Duration::from_secs(60));
    lab.run(2.0);
    assert_eq!(lab.world.events().len(), before, "{}", lab.tale());
    let beside = lab.world.sending(lab.hosts[0]).datagrams - sent - pings.len() as u64;
    assert!(beside < 60 * 5, "{beside} datagrams beside the pings");
    lab.check();
}

#[test]
fn a_partition_of_ten_minutes_heals() {
    let mut lab = Lab::new(15, 1, &[RESTRICTED, None, SYMMETRIC]);
    lab.settle();
    let site = lab.world.site_of(lab.hosts[0]);
    lab.world.worsen(site, |now| now.loss = MILLION);
    lab.run(600.0);
    lab.world.calm();
    let pings = lab.stream(0, 1, TEN_MS * 10, Duration::from_secs(20));
    lab.run(1.0);
    assert!(lab.gap(&pings) <= 8.0, "gap of {} s\n{}", lab.gap(&pings), lab.tale());
    lab.settle();
}

#[test]
fn a_node_that_slept_for_an_hour_is_back_soon() {
    for boxes in [[RESTRICTED, RESTRICTED], [SYMMETRIC, RESTRICTED], [None, None]] {
        let mut lab = Lab::new(16, 1, &boxes);
        lab.settle();
        lab.world.suspend(lab.hosts[0]);
        lab.run(3600.0);
        lab.world.resume(lab.hosts[0]);
        let pings = lab.stream(0, 1, TEN_MS * 10, Duration::from_secs(20));
        lab.run(1.0);
        assert!(lab.gap(&pings) <= 5.0, "{boxes:?}: gap of {} s\n{}", lab.gap(&pings), lab.tale());
        lab.settle();
    }
}

#[test]
fn keys_are_renewed_under_traffic_without_a_loss() {
    for boxes in [[RESTRICTED, RESTRICTED], [SYMMETRIC, SYMMETRIC]] {
        let mut lab = Lab::new(17, 1, &boxes);
        lab.settle();
        let pings = lab.stream(0, 1, TEN_MS * 2, Duration::from_secs(500));
        lab.run(1.0);
        assert_eq!(lab.lost(&pings), &[] as &[f64], "{boxes:?}\n{}", lab.tale());
        lab.check();
    }
}

#[test]
fn a_pair_that_was_silent_for_an_hour_answers_the_first_ping() {
    for boxes in [[RESTRICTED, RESTRICTED], [SYMMETRIC, SYMMETRIC]] {
        let mut lab = Lab::new(18, 1, &boxes);
        lab.settle();
        for _ in 0..12 {
            lab.run(300.0);
            assert!(lab.answers(0, 1), "{boxes:?}\n{}", lab.tale());
        }
        assert_eq!(lab.world.unsettled(), &[] as &[String], "{}", lab.tale());
        lab.check();
    }
}

#[test]
fn broken_and_stalled_control_links_do_not_disturb_frames() {
    for boxes in [[RESTRICTED, RESTRICTED], [SYMMETRIC, SYMMETRIC]] {
        let mut lab = Lab::new(19, 1, &boxes);
        lab.settle();
        lab.world.break_links(lab.hosts[0]);
        let pings = lab.stream(0, 1, TEN_MS * 2, Duration::from_secs(10));
        lab.world.stall_links(lab.hosts[1], true);
        lab.run(5.0);
        lab.world.stall_links(lab.hosts[1], false);
        let direct = boxes == [RESTRICTED, RESTRICTED];
        lab.run(10.0);
        assert!(!direct || lab.lost(&pings).is_empty(), "{:?}\n{}", lab.lost(&pings), lab.tale());
        assert!(lab.gap(&pings) <= 3.0, "{boxes:?}: gap of {} s\n{}", lab.gap(&pings), lab.tale());
        lab.settle();
    }
}

#[test]
fn a_supernode_with_another_key_is_refused() {
    let mut lab = Lab::new(20, 1, &[]);
    let site = lab.site(None);
    let mut spec = lab.spec(site).member(lab.overlay);
    spec.supernodes[0].pin = Some(longwire::keys::Fingerprint([7; 32]));
    lab.add(spec);
    lab.run(10.0);
    let lost = lab.world.events().iter().any(|(_, host, event)| {
        *host == lab.hosts[0]
            && matches!(event, longwire::node::Event::SupernodeLost { reason, .. } if reason.contains("another key"))
    });
    assert!(lost, "{}", lab.tale());
    lab.check();
}

#[test]
fn a_supernode_is_trusted_on_first_use_and_held_to_it() {
    let mut lab = Lab::new(21, 1, &[]);
    let site = lab.site(None);
    let mut spec = lab.spec(site).member(lab.overlay);
    spec.supernodes[0].pin = None;
    let host = lab.add(spec);
    lab.run(3.0);
    let registered = |lab: &Lab, from: longwire::time::Time| {
        let registers = |event: &longwire::node::Event| matches!(event, longwire::node::Event::Registered { .. });
        lab.world.events().iter().any(|(at, who, event)| *at >= from && *who == host && registers(event))
    };
    assert!(registered(&lab, longwire::time::Time::START), "{}", lab.tale());
    lab.world.kill(host);
    // Another machine takes the supernode's address.
    let old = lab.supernodes[0];
    lab.world.kill(old);
    let impostor_site = lab.site(None);
    let impostor = lab.world.host(longwire::sim::HostSpec::new(impostor_site, "impostor").serving());
    let address = lab.world.socket(impostor);
    lab.world.name(&lab.world.socket(old).to_string(), address);
    let from = lab.world.now();
    lab.world.start(host);
    lab.run(10.0);
    assert!(!registered(&lab, from), "{}", lab.tale());
    lab.check();
}

#[test]
fn a_lone_member_says_so() {
    let mut lab = Lab::new(22, 1, &[None]);
    lab.run(11.0);
    let alone = |(_, host, event): &(_, HostId, longwire::node::Event)| {
        *host == lab.hosts[0] && matches!(event, longwire::node::Event::Alone { .. })
    };
    assert_eq!(lab.world.events().iter().filter(|event| alone(event)).count(), 1, "{}", lab.tale());
}

#[test]
fn ten_idle_peers_cost_less_than_a_kilobyte_per_second() {
    let boxes: Vec<_> = (0..11).map(|number| [RESTRICTED, None, SYMMETRIC, RESTRICTED][number % 4]).collect();
    let mut lab = Lab::new(23, 1, &boxes);
    lab.settle();
    lab.run(60.0);
    let before: Vec<_> = lab.hosts.iter().map(|host| lab.world.sending(*host)).collect();
    assert_eq!(lab.world.chatter(Duration::from_secs(300)), &[] as &[String]);
    for (host, before) in lab.hosts.iter().zip(before) {
        let now = lab.world.sending(*host);
        let bytes = now.bytes - before.bytes + 28 * (now.datagrams - before.datagrams);
        assert!(bytes < 300 * 1000, "{host:?} sends {} bytes/s", bytes / 300);
    }
    lab.check();
}
