//! Static rules, world-wide: they beat learning, each of several gets its frame once, and no set of them makes a loop.

mod common;

use std::time::Duration;

use common::Lab;
use longwire::control::report::rules::{LinkRequest, RouteRequest, RouteRow};
use longwire::control::report::{PathKind, Request, Response};
use longwire::node::RouteSettings;
use longwire::sim::chance::{Chance, Dice};
use longwire::sim::{FrameId, HostId};
use longwire::wire::carry::RelayFor;

/// An address that nobody has.
const NOBODY: [u8; 6] = [2, 9, 9, 0, 0, 1];

/// `route add` at a host, in the words of the command line; prio last, if at all.
fn add(lab: &mut Lab, host: usize, text: &str) -> Result<u32, String> {
    let (words, prio) = text.split_once(" prio ").unwrap_or((text, "0"));
    let (pair, via) = words.split_once(" via ").expect("a target");
    let (src, dst) = pair.split_once(' ').expect("two patterns");
    let order = RouteRequest::Add {
        overlay: None,
        src: src.into(),
        dst: dst.into(),
        via: via.into(),
        prio: prio.parse().expect("a priority"),
        src_if: "any".into(),
    };
    match lab.world.ask(lab.hosts[host], &Request::Route(order)) {
        Some(Response::Routes(rows)) => Ok(rows.first().expect("the new one").id),
        Some(Response::Error(why)) => Err(why),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn rule(lab: &mut Lab, host: usize, text: &str) -> u32 {
    add(lab, host, text).unwrap_or_else(|why| panic!("{text}: {why}"))
}

fn rows(lab: &mut Lab, host: usize) -> Vec<RouteRow> {
    match lab.world.ask(lab.hosts[host], &Request::Route(RouteRequest::Show)) {
        Some(Response::Routes(rows)) => rows,
        other => panic!("{other:?}"),
    }
}

/// Where a frame came out, and how often in all.
fn delivered(lab: &Lab, frame: FrameId) -> Vec<(HostId, u32)> {
    lab.world.sent(frame).delivered.iter().map(|(host, count)| (*host, *count)).collect()
}

/// Sends one from the first machine and says where it came out, by the number of the host.
fn heard(lab: &mut Lab, to: [u8; 6]) -> Vec<usize> {
    let frame = lab.world.send_to(lab.vms[0], to, 100);
    lab.run(0.5);
    let out = delivered(lab, frame);
    assert!(out.iter().all(|(_, count)| *count == 1), "{out:?}");
    out.iter().filter_map(|(host, _)| lab.hosts.iter().position(|known| known == host)).collect()
}

fn mac(lab: &Lab, vm: usize) -> [u8; 6] {
    lab.world.vm_state(lab.vms[vm]).mac
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// What a host passed on for others.
fn relayed(lab: &mut Lab, host: HostId) -> u64 {
    let status = lab.world.status(host).expect("it runs");
    let own = status.overlays.first().map(|overlay| overlay.counters["relayed"]);
    own.unwrap_or_default() + status.serving.map_or(0, |serving| serving.counters["relayed"])
}

/// Public hosts that relay for everybody, at rest.
fn willing(seed: u64, count: usize) -> Lab {
    let mut lab = Lab::new(seed, 1, &[]);
    for _ in 0..count {
        let site = lab.site(None);
        let spec = lab.spec(site).member(lab.overlay).relaying(RelayFor::Everyone);
        lab.add(spec);
    }
    lab.settle();
    lab
}

#[test]
fn each_of_several_equal_rules_gets_the_frame_once_and_the_default_none() {
    let mut lab = willing(1, 4);
    assert_eq!(heard(&mut lab, NOBODY), [1, 2, 3], "flooded without rules");
    rule(&mut lab, 0, "any any via n3");
    let one = rule(&mut lab, 0, &format!("any {} via n1", text(NOBODY)));
    rule(&mut lab, 0, &format!("any {} via n2", text(NOBODY)));
    assert_eq!(heard(&mut lab, NOBODY), [1, 2]);
    assert_eq!(heard(&mut lab, [0xff; 6]), [3], "the rest goes by default");
    let counted = rows(&mut lab, 0).into_iter().map(|row| (row.frames, row.state)).collect::<Vec<_>>();
    assert_eq!(counted, [1, 1, 1].map(|frames| (frames, "in force".to_owned())));
    let deleted = lab.world.ask(lab.hosts[0], &Request::Route(RouteRequest::Del { id: one }));
    assert!(matches!(deleted, Some(Response::Routes(_))));
    assert_eq!(heard(&mut lab, NOBODY), [2]);
    lab.check();
}

#[test]
fn what_was_learned_counts_less_than_a_rule() {
    let mut lab = Lab::three(2);
    let there = mac(&lab, 2);
    assert_eq!(heard(&mut lab, there), [2]);
    let away = rule(&mut lab, 0, &format!("any {} via n1", text(there)));
    assert_eq!(heard(&mut lab, there), [0; 0], "n1 knows it elsewhere and is nobody's relay");
    rule(&mut lab, 0, &format!("any {} via drop prio 1", text(there)));
    assert_eq!(heard(&mut lab, there), [0; 0]);
    let counted = rows(&mut lab, 0).into_iter().map(|row| row.frames).collect::<Vec<_>>();
    assert_eq!(counted, [1, 1]);
    lab.world.ask(lab.hosts[0], &Request::Route(RouteRequest::Del { id: away + 1 }));
    lab.world.ask(lab.hosts[0], &Request::Route(RouteRequest::Del { id: away }));
    assert_eq!(heard(&mut lab, there), [2], "as before");
    lab.check();
}

#[test]
fn one_prefix_per_host_and_an_exception_for_who_moved() {
    let mut lab = Lab::three(3);
    rule(&mut lab, 0, "any 02:1f:01:00:00:00/24 via n1");
    rule(&mut lab, 0, "any 02:1f:02:00:00:00/24 via n2");
    rule(&mut lab, 0, "any 02:1f:01:00:00:07 via n2");
    // The same rules may be at every host: a host's own prefix is here.
    rule(&mut lab, 0, "any 02:1f:00:00:00:00/24 via n0");
    for (to, expected) in
        [([1, 0, 0, 6], vec![1]), ([2, 0, 0, 7], vec![2]), ([1, 0, 0, 7], vec![2]), ([0, 0, 0, 1], vec![])]
    {
        let [host, a, b, c] = to;
        assert_eq!(heard(&mut lab, [2, 0x1f, host, a, b, c]), expected, "{to:?}");
    }
    assert_eq!(heard(&mut lab, [2, 0x1f, 3, 0, 0, 1]), [1, 2], "no rule: as learned");
    lab.check();
}

#[test]
fn frames_go_by_the_member_that_a_rule_names_and_others_do_not() {
    let mut lab = willing(4, 3);
    let there = mac(&lab, 2);
    rule(&mut lab, 0, &format!("any {} via path n1,n2", text(there)));
    lab.run(5.0);
    let carrier = lab.hosts[1];
    let before = relayed(&mut lab, carrier);
    for _ in 0..10 {
        assert_eq!(heard(&mut lab, there), [2]);
    }
    assert!(relayed(&mut lab, carrier) >= before + 10);
    assert_eq!(lab.world.path(lab.hosts[0], lab.hosts[2], lab.overlay), PathKind::Direct, "the others' way");
    // It dies: the usual way takes the frames over within seconds.
    lab.world.kill(carrier);
    let pings = lab.stream(0, 2, Duration::from_millis(100), Duration::from_secs(15));
    assert!(lab.gap(&pings) < 6.0, "a gap of {} s", lab.gap(&pings));
    assert!(lab.answers(0, 2));
    lab.check();
}

#[test]
fn frames_go_by_the_supernode_where_a_rule_says_so() {
    let mut lab = Lab::three(5);
    let supernode = lab.supernodes[0];
    let there = mac(&lab, 2);
    rule(&mut lab, 0, "any any via supernode");
    let straight = format!("{} {} via direct", text(mac(&lab, 0)), text(mac(&lab, 1)));
    rule(&mut lab, 0, &straight);
    for vm in [1, 2] {
        assert!(lab.answers(0, vm));
    }
    lab.run(3.0);
    let before = relayed(&mut lab, supernode);
    for _ in 0..10 {
        assert_eq!(heard(&mut lab, there), [2]);
    }
    let by_supernode = relayed(&mut lab, supernode);
    assert!(by_supernode >= before + 10, "{before} to {by_supernode}");
    // Probes go there all the time, a few a second; these frames do not.
    let (before, to) = (relayed(&mut lab, supernode), mac(&lab, 1));
    let burst = (0..200).map(|_| lab.world.send_to(lab.vms[0], to, 100)).collect::<Vec<_>>();
    lab.run(0.5);
    assert!(burst.iter().all(|frame| delivered(&lab, *frame) == [(lab.hosts[1], 1)]));
    let passed = relayed(&mut lab, supernode) - before;
    assert!(passed < 50, "{passed} went by the supernode");
    lab.check();
}

#[test]
fn a_rule_of_the_config_waits_for_its_member_and_for_its_return() {
    let mut lab = Lab::new(6, 1, &[]);
    let pattern = |text: &str| text.parse().expect("a pattern");
    let route =
        RouteSettings { src: pattern("any"), dst: pattern(&text(NOBODY)), via: "n2".parse().expect("n2"), prio: 0 };
    let site = lab.site(None);
    let spec = lab.spec(site).member(lab.overlay).ruled(route);
    lab.add(spec);
    let site = lab.site(None);
    lab.member(site);
    lab.settle();
    assert_eq!(rows(&mut lab, 0)[0].state, "waits for n2");
    assert_eq!(heard(&mut lab, NOBODY), [1], "as if there were no rule");
    let site = lab.site(None);
    lab.member(site);
    lab.settle();
    assert_eq!(heard(&mut lab, NOBODY), [2]);
    let gone = lab.hosts[2];
    lab.world.leave(gone);
    lab.run(3.0);
    assert_eq!(heard(&mut lab, NOBODY), [1]);
    lab.world.restart(gone);
    lab.settle();
    assert_eq!(heard(&mut lab, NOBODY), [2]);
    lab.check();
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let mut lab = Lab::three(7);
    rule(&mut lab, 0, &format!("any {} via n1", text(NOBODY)));
    let own = text(lab.world.node_id(lab.hosts[0]).station());
    let same = |via: &str| format!("any {} via {via}", text(NOBODY));
    for (order, why) in [
        (same("n1"), "contradicts rule 1: it is there already"),
        (same("drop"), "one drops what the other sends"),
        (same("path n2,n1"), "both lead to the same member"),
        (same("mill"), "no member is called \"mill\""),
        ("any any via path n1,mill".into(), "no member is called \"mill\""),
        ("any any via path n0,n1".into(), "a path begins at another member"),
        ("any any via path n1,n2".into(), "n1 relays for its own site only: it needs relay = \"on\""),
        (format!("any {own} via n1"), "this daemon's own address"),
        ("any 02:00 via n1".into(), "six pairs"),
    ] {
        let refused = add(&mut lab, 0, &order).expect_err(&order);
        assert!(refused.contains(why), "{order}: {refused}");
    }
    let link = |to: &str, pin| Request::Link(LinkRequest::Add { overlay: None, to: to.into(), pin });
    let itself = lab.world.socket(lab.hosts[0]).to_string();
    for (to, pin, why) in [
        ("mill", false, "no member"),
        ("n0", false, "itself"),
        ("127.0.0.1", false, "no other host"),
        (&itself, false, "itself"),
    ] {
        match lab.world.ask(lab.hosts[0], &link(to, pin)) {
            Some(Response::Error(refused)) => assert!(refused.contains(why), "{to}: {refused}"),
            other => panic!("{to}: {other:?}"),
        }
    }
    assert_eq!(rows(&mut lab, 0).len(), 1);
    lab.check();
}

#[test]
fn who_is_not_there_is_said() {
    let mut lab = willing(8, 2);
    let mut refusal = |request: &Request| match lab.world.ask(lab.hosts[0], request) {
        Some(Response::Error(why)) => why,
        other => panic!("{other:?}"),
    };
    let elsewhere = LinkRequest::Add { overlay: Some("nosuch".into()), to: "n1".into(), pin: false };
    let said = refusal(&Request::Link(elsewhere));
    assert!(said.starts_with("there is no overlay nosuch here, but these: "), "{said}");
    let own = Request::Explain { peer: "n0".into() };
    assert_eq!(refusal(&own), "\"n0\" is this node itself");
}

#[test]
fn a_pinned_link_and_an_order_to_relay_contradict_each_other() {
    let mut lab = willing(8, 3);
    let pin = Request::Link(LinkRequest::Add { overlay: None, to: "n1".into(), pin: true });
    let del = Request::Link(LinkRequest::Del { overlay: None, to: "n1".into() });
    let via = |via: &str| Request::Via { peer: "n1".into(), via: via.into() };
    let mut refusal = |request: &Request| match lab.world.ask(lab.hosts[0], request) {
        Some(Response::Error(why)) => why,
        _ => String::new(),
    };
    assert_eq!(refusal(&pin), "");
    assert_eq!(refusal(&via("n2")), "the link to n1 is pinned; `longwire link del n1` takes that back");
    assert_eq!((refusal(&del), refusal(&via("n2"))), Default::default());
    assert_eq!(refusal(&pin), "another member was ordered to relay; `longwire via n1 auto` takes that back");
    assert_eq!((refusal(&via("auto")), refusal(&pin)), Default::default());
}

#[test]
fn no_set_of_rules_makes_a_loop_or_a_second_copy() {
    for seed in 0..12 {
        let mut lab = willing(seed, 4);
        let mut dice = Chance::new(seed).stream("rules", 0);
        let pool = |lab: &Lab, dice: &mut Dice| match dice.below(6) {
            0 => "any".to_owned(),
            1 => "none".to_owned(),
            2 => format!("not-{}", text(mac(lab, dice.below_usize(4)))),
            3 => "02:00:00:00:00:00/40".to_owned(),
            4 => "ff:ff:ff:ff:ff:ff".to_owned(),
            _ => text(mac(lab, dice.below_usize(4))),
        };
        let mut taken = 0;
        for _ in 0..40 {
            let host = dice.below_usize(4);
            let (src, dst) = (pool(&lab, &mut dice), pool(&lab, &mut dice));
            let via = match dice.below(7) {
                0 => "drop".to_owned(),
                1 => "supernode".to_owned(),
                2 => "direct".to_owned(),
                3 => format!("path n{},n{}", dice.below(4), dice.below(4)),
                _ => format!("n{}", dice.below(4)),
            };
            taken += u32::from(add(&mut lab, host, &format!("{src} {dst} via {via} prio {}", dice.below(2))).is_ok());
        }
        assert!(taken > 10, "{taken} rules of seed {seed}");
        lab.run(5.0);
        for round in 0..60 {
            let (from, to) = (dice.below_usize(4), dice.below_usize(4));
            match round % 3 {
                0 => drop(lab.world.broadcast(lab.vms[from])),
                1 => drop(lab.world.send_to(lab.vms[from], NOBODY, 100)),
                _ => drop(lab.world.send(lab.vms[from], lab.vms[to], 1400)),
            }
            lab.run(0.05);
        }
        lab.run(1.0);
        lab.check();
    }
}
