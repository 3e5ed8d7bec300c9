//! Frames for everybody by trees: eight copies at each member, once to each, whatever goes wrong meanwhile.
//!
//! The world of 1,000 members takes long and much memory: `cargo test --test sim_tree -- --ignored --nocapture`

mod common;

use std::time::Duration;

use common::Lab;
use longwire::node::HandshakeKind;
use longwire::sim::{Behaviour, Conditions, FrameId, HostId, SiteSpec};

/// Copies of a frame that leave one member.
const COPIES_MAX: u64 = 8;
/// A dead member is found out by silence of half a second and three probes; then another one hands on.
const GAP_MAX: Duration = Duration::from_millis(2_500);

/// `count` members, each at a site of its own, that are at rest.
fn crowd(count: usize, behaviour: impl Fn(usize) -> Option<Behaviour>) -> Lab {
    let mut lab = Lab::empty(3, 1, HandshakeKind::StandIn);
    for number in 0..count {
        let site = lab.site(behaviour(number));
        lab.member(site);
        lab.run(0.01);
    }
    lab.settle();
    lab
}

fn mixed(number: usize) -> Option<Behaviour> {
    [None, Some(Behaviour::port_restricted()), Some(Behaviour::firewall()), Some(Behaviour::symmetric())][number % 4]
}

fn copies(lab: &Lab) -> Vec<u64> {
    lab.hosts.iter().map(|host| lab.world.crossings(*host).copies).collect()
}

/// A question for an address that nobody ever heard. Copies at each member.
fn ask_in_vain(lab: &mut Lab, from: usize) -> Vec<u64> {
    // A place without an overlay.
    let nobody = lab.world.vm(lab.supernodes[0], lab.overlay, [2, 0, 0, 0xff, 0, 1], 0);
    let before = copies(lab);
    let asked = lab.world.ask_for(lab.vms[from], nobody);
    lab.run(2.0);
    assert_eq!(lab.world.missed(asked), &[] as &[String]);
    copies(lab).iter().zip(before).map(|(after, before)| after - before).collect()
}

fn reaches_all_by_few_copies(count: usize) {
    let mut lab = crowd(count, mixed);
    for from in [0, count / 2, count - 1] {
        let copies = ask_in_vain(&mut lab, from);
        let (most, all) = (copies.iter().max().copied().unwrap_or(0), copies.iter().sum::<u64>());
        eprintln!("{count} members: {most} copies at most, {all} in all");
        assert!(most <= COPIES_MAX, "{most} copies at one member");
        assert_eq!(all, count as u64 - 1);
    }
    lab.check();
}

#[test]
fn a_question_for_nobody_leaves_each_of_a_hundred_members_in_eight_copies_at_most() {
    reaches_all_by_few_copies(100);
}

#[test]
#[ignore = "long: half a million pairs; `cargo test --test sim_tree -- --ignored --nocapture`"]
fn a_question_for_nobody_leaves_each_of_a_thousand_members_in_eight_copies_at_most() {
    reaches_all_by_few_copies(1_000);
}

#[test]
fn few_members_get_copies_from_the_root_itself() {
    let mut lab = crowd(9, |_| None);
    let copies = ask_in_vain(&mut lab, 4);
    assert_eq!(copies, [0, 0, 0, 0, 8, 0, 0, 0, 0]);
    lab.check();
}

#[test]
fn while_members_come_and_go_nobody_gets_a_frame_twice_and_afterwards_everybody_gets_it() {
    let mut lab = crowd(30, mixed);
    for round in 0..60 {
        let from = (round * 11 + 1) % lab.hosts.len();
        lab.world.broadcast(lab.vms[from]);
        let victim = lab.hosts[(round * 7) % 30];
        match round % 4 {
            0 => lab.world.kill(victim),
            1 => lab.world.restart(lab.hosts[((round - 1) * 7) % 30]),
            2 => lab.world.leave(victim),
            _ => lab.world.start(lab.hosts[((round - 1) * 7) % 30]),
        }
        if round % 20 == 10 {
            let site = lab.site(mixed(round));
            lab.member(site);
        }
        // Less than a frame needs from the root to the last one.
        lab.run(0.03);
        lab.world.broadcast(lab.vms[(from + 3) % lab.hosts.len()]);
        lab.run(0.3);
    }
    lab.run(80.0);
    lab.settle();
    let frames = lab.vms.clone().into_iter().map(|vm| lab.world.broadcast(vm)).collect::<Vec<_>>();
    lab.run(2.0);
    for frame in frames {
        assert_eq!(lab.world.missed(frame), &[] as &[String]);
    }
    lab.check();
}

/// The longest time without a delivery at `host` of frames sent every `step`.
fn longest_gap(lab: &Lab, frames: &[FrameId], host: HostId, step: Duration) -> Duration {
    let came = |frame: &FrameId| lab.world.sent(*frame).delivered.contains_key(&host);
    let gaps = frames.split(came).map(|missed| u32::try_from(missed.len()).expect("few"));
    step * gaps.max().unwrap_or(0)
}

#[test]
fn those_behind_a_member_that_dies_miss_what_is_sent_until_its_silence_is_noticed() {
    let mut lab = crowd(40, |_| None);
    let step = Duration::from_millis(100);
    let before = copies(&lab);
    lab.world.broadcast(lab.vms[0]);
    lab.run(1.0);
    let handing = copies(&lab).iter().zip(before).map(|(after, before)| after - before).collect::<Vec<_>>();
    let dead = (1..40).max_by_key(|member| handing[*member]).expect("forty");
    assert!(handing[dead] > 0, "nobody hands on");
    lab.world.kill(lab.hosts[dead]);
    let mut frames = Vec::new();
    for _ in 0..50 {
        frames.push(lab.world.broadcast(lab.vms[0]));
        lab.world.run_for(step);
    }
    lab.run(2.0);
    let living = (1..40).filter(|member| *member != dead).map(|member| lab.hosts[member]);
    let gap = living.map(|host| longest_gap(&lab, &frames, host, step)).max().unwrap_or_default();
    eprintln!("{} behind the dead one; longest gap {gap:?}", handing[dead]);
    assert!(gap > Duration::ZERO && gap <= GAP_MAX, "{gap:?}");
    lab.check();
}

#[test]
fn whom_only_the_root_can_reach_the_root_serves() {
    // All but the root are behind NATs that keep them from each other: with the supernode dead, they are apart.
    let mut lab = crowd(14, |number| Some(Behaviour::symmetric()).filter(|_| number > 0));
    lab.world.kill(lab.supernodes[0]);
    lab.run(5.0);
    let frames = (0..5).map(|_| {
        lab.run(0.5);
        lab.world.broadcast(lab.vms[0])
    });
    let frames = frames.collect::<Vec<_>>();
    lab.run(2.0);
    let all = (1..14).map(|member| lab.hosts[member]).collect::<Vec<_>>();
    for frame in frames {
        let delivered = &lab.world.sent(frame).delivered;
        let missed = all.iter().filter(|host| delivered.get(host) != Some(&1)).count();
        assert_eq!(missed, 0);
    }
    lab.check();
}

/// Ten members at each of ten sites: milliseconds from a broadcast to its arrival, sorted.
fn delays(fan_out: usize) -> Vec<f64> {
    let mut lab = Lab::empty(5, 1, HandshakeKind::StandIn);
    for number in 0..10 {
        let conditions = Conditions { delay: Duration::from_millis(3 + number), ..Conditions::default() };
        let behaviour = Some(Behaviour::port_restricted());
        let site = lab.world.site(SiteSpec { behaviour, conditions, ..SiteSpec::default() });
        for _ in 0..10 {
            let spec = lab.spec(site).fanning_out(fan_out).member(lab.overlay);
            lab.add(spec);
            lab.run(0.02);
        }
    }
    lab.settle();
    let mut delays = Vec::new();
    for from in 0..20 {
        let frame = lab.world.broadcast(lab.vms[from * 5]);
        lab.run(1.0);
        assert_eq!(lab.world.missed(frame), &[] as &[String]);
        let sent = lab.world.sent(frame);
        delays.extend(sent.heard.values().map(|at| at.since(sent.at).as_secs_f64() * 1e3));
    }
    lab.check();
    delays.sort_by(f64::total_cmp);
    delays
}

#[test]
fn where_sites_are_known_the_tree_costs_little_time() {
    let (direct, tree) = (delays(1_000), delays(8));
    let of = |delays: &[f64]| (delays[delays.len() / 2], delays[delays.len() - 1]);
    let ((direct, direct_max), (tree, tree_max)) = (of(&direct), of(&tree));
    eprintln!("direct copies {direct:.1} ms, {direct_max:.1} at most; by the tree {tree:.1} ms, {tree_max:.1} at most");
    assert!(tree <= 1.1 * direct, "{tree} of {direct} ms");
}
