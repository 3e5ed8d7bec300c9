//! Links on demand: in an overlay with more members than the budget of links, those sleep that nothing uses.

mod common;

use std::time::Duration;

use common::Lab;
use longwire::control::report::{PathKind, PeerState, Request, Response};
use longwire::node::{Event, HandshakeKind, LinkBudget};
use longwire::sim::tally::{FRAMES, Tally};
use longwire::sim::{Behaviour, FrameId, HostId, HostSpec};
use longwire::wire::carry::RelayFor;

/// Two links may idle, three may be awake.
const SMALL: LinkBudget = LinkBudget { soft: 2, hard: 3 };
/// A link that was not used for so long is asleep: three minutes, a keepalive, and a look.
const TIRED: f64 = 240.0;
/// What a broadcast for which all keys have to be made costs each member in bytes: half a handshake by the supernode with
/// whom it has the frame from, and half with each to whom it hands it on.
const KEYS: u64 = 1_000;
const GROUP: [u8; 4] = [239, 1, 2, 3];
/// By then a supernode has told what a segment wants.
const TOLD: f64 = 15.0;

/// `count` members on all kinds of access, with a small budget; whoever was met first sleeps by now.
fn crowd(count: usize) -> Lab {
    crowd_of(count, HandshakeKind::Noise, |spec| spec)
}

fn crowd_of(count: usize, handshake: HandshakeKind, also: impl Fn(HostSpec) -> HostSpec) -> Lab {
    let mut lab = Lab::empty(11, 1, handshake);
    let boxes = [None, Some(Behaviour::port_restricted()), Some(Behaviour::firewall())];
    for number in 0..count {
        let site = lab.site(boxes[number % boxes.len()]);
        let spec = lab.spec(site).member(lab.overlay).keeping(SMALL);
        lab.add(also(spec));
    }
    lab.settle();
    lab.run(TIRED);
    lab
}

fn state(lab: &mut Lab, from: usize, to: usize) -> PeerState {
    let (from, to, overlay) = (lab.hosts[from], lab.hosts[to], lab.overlay);
    lab.world.peer(from, to, overlay).expect("it is known").state
}

fn awake(lab: &mut Lab, from: usize) -> usize {
    let status = lab.world.status(lab.hosts[from]).expect("it runs");
    let peers = &status.overlays[0].peers;
    assert_eq!(peers.len(), lab.hosts.len() - 1);
    peers.iter().filter(|peer| peer.state != PeerState::Asleep).count()
}

fn counter(lab: &mut Lab, host: HostId, name: &str) -> u64 {
    lab.world.status(host).expect("it runs").overlays[0].counters[name]
}

/// Seconds from a ping to its answer.
fn round_trip(lab: &Lab, ping: FrameId) -> f64 {
    let sent = lab.world.sent(ping);
    sent.answered.expect("it is answered").since(sent.at).as_secs_f64()
}

fn gone(lab: &Lab) -> usize {
    lab.world.events().iter().filter(|(_, _, event)| matches!(event, Event::PeerGone { .. })).count()
}

#[test]
fn what_nothing_uses_sleeps_and_costs_nothing() {
    let mut lab = crowd(6);
    assert!((0..6).all(|from| awake(&mut lab, from) == 0));
    let datagrams = |lab: &Lab| lab.hosts.iter().map(|host| lab.world.sending(*host).datagrams).sum::<u64>();
    let before = datagrams(&lab);
    lab.run(300.0);
    assert_eq!(datagrams(&lab) - before, 0, "the control link says that they are there");
    assert_eq!(gone(&lab), 0);
    lab.check();
}

#[test]
fn the_first_ping_wakes_a_link_which_is_direct_soon_and_sleeps_again_at_both_ends() {
    let mut lab = crowd(6);
    let partners = [1, 2, 3];
    for to in partners {
        let first = lab.world.ping(lab.vms[0], lab.vms[to], 100);
        lab.run(3.0);
        let second = lab.world.ping(lab.vms[0], lab.vms[to], 100);
        lab.run(1.0);
        let (first, second) = (round_trip(&lab, first), round_trip(&lab, second));
        eprintln!("to {to}: first ping {:.1} ms, later {:.1} ms", first * 1e3, second * 1e3);
        // A handshake by the supernode and the ping by it, each of two legs: no legs are longer than the direct way.
        assert!(first <= 4.5 * second, "{first} after {second}");
        let (from, to, overlay) = (lab.hosts[0], lab.hosts[to], lab.overlay);
        assert_eq!([lab.world.path(from, to, overlay), lab.world.path(to, from, overlay)], [PathKind::Direct; 2]);
    }
    lab.run(TIRED);
    assert_eq!((awake(&mut lab, 0), awake(&mut lab, 4)), (SMALL.soft, 0), "the last ones stay within the soft budget");
    assert_eq!((state(&mut lab, 0, 1), state(&mut lab, 1, 0)), (PeerState::Asleep, PeerState::Asleep));
    assert_eq!(gone(&lab), 0);
    lab.check();
}

#[test]
fn beyond_the_hard_budget_frames_go_by_the_supernode_and_none_is_lost_for_minutes() {
    let mut lab = crowd(7);
    let mut pings = Vec::new();
    for _ in 0..200 {
        for to in 1..7 {
            pings.push(lab.world.ping(lab.vms[0], lab.vms[to], 100));
        }
        lab.run(1.5);
        assert!(awake(&mut lab, 0) <= SMALL.hard);
    }
    lab.run(2.0);
    assert_eq!(lab.lost(&pings), &[] as &[f64]);
    let changes = lab.world.events().iter().filter(|(_, host, event)| {
        *host == lab.hosts[0] && matches!(event, Event::PathChanged { .. } | Event::PeerGone { .. })
    });
    assert!(changes.count() <= 3 * lab.hosts.len(), "nothing flaps\n{}", lab.tale());
    lab.check();
}

#[test]
fn what_is_flooded_reaches_sleepers_once_and_wakes_nobody() {
    let mut lab = crowd(6);
    for turn in 0..3 {
        let frame = lab.world.broadcast(lab.vms[turn]);
        lab.run(2.0);
        assert_eq!(lab.world.missed(frame), &[] as &[String]);
        assert!((0..6).all(|from| awake(&mut lab, from) == 0));
        lab.run(100.0);
    }
    lab.check();
}

/// Frames that left each member, and bytes of control for others than the supernode.
fn crossings(lab: &Lab) -> Vec<(u64, u64)> {
    let control = |tally: &Tally| -> u64 {
        let between = tally.0.iter().filter(|(kind, _)| **kind != FRAMES && !kind.starts_with("link:"));
        between.map(|(_, bytes)| bytes).sum()
    };
    let of = |host: &HostId| (lab.world.crossings(*host).copies, control(&lab.world.crossings(*host).sent));
    lab.hosts.iter().map(of).collect()
}

#[test]
fn a_broadcast_comes_to_120_sleepers_by_eight_copies_of_each_at_most_and_wakes_nobody() {
    let mut lab = crowd_of(120, HandshakeKind::StandIn, |spec| spec);
    let mut costs = Vec::new();
    // The second one of a root finds the keys of the first.
    for from in [0, 0, 60, 119] {
        let before = crossings(&lab);
        let frame = lab.world.broadcast(lab.vms[from]);
        lab.run(5.0);
        assert_eq!(lab.world.missed(frame), &[] as &[String]);
        assert!((0..120).all(|member| awake(&mut lab, member) == 0));
        let grown =
            crossings(&lab).into_iter().zip(before).map(|(after, before)| (after.0 - before.0, after.1 - before.1));
        let (copies, control): (Vec<_>, Vec<_>) = grown.unzip();
        assert_eq!(copies.iter().sum::<u64>(), 119);
        assert!(copies.iter().all(|copies| *copies <= 8), "{copies:?}");
        costs.push(control.iter().sum::<u64>() / 120);
    }
    eprintln!("bytes of control per member and broadcast: {costs:?}");
    assert!(costs[0] > 0 && costs.iter().all(|cost| *cost <= KEYS), "{costs:?}");
    assert_eq!(costs[1], 0);
    lab.check();
}

/// At which members a frame for a group comes out.
fn cast(lab: &mut Lab, from: usize) -> Vec<usize> {
    let frame = lab.world.cast(lab.vms[from], GROUP);
    lab.run(3.0);
    let delivered = &lab.world.sent(frame).delivered;
    (0..lab.hosts.len()).filter(|member| delivered.contains_key(&lab.hosts[*member])).collect()
}

#[test]
fn a_group_is_carried_to_the_sleepers_that_joined_it_and_to_nobody_else() {
    let mut lab = crowd_of(6, HandshakeKind::Noise, HostSpec::snooping);
    lab.world.join(lab.vms[2], GROUP);
    lab.run(TOLD);
    assert_eq!(cast(&mut lab, 0), [2]);
    lab.world.join(lab.vms[4], GROUP);
    lab.run(TOLD);
    assert_eq!(cast(&mut lab, 0), [2, 4]);
    lab.world.part(lab.vms[2], GROUP);
    lab.run(2.0 * TOLD);
    assert_eq!(cast(&mut lab, 0), [4]);
    assert!((0..6).all(|from| awake(&mut lab, from) == 0));
    lab.check();
}

#[test]
fn a_group_to_which_much_is_sent_wakes_the_links_to_its_listeners_and_keeps_them_awake() {
    let mut lab = crowd_of(6, HandshakeKind::Noise, HostSpec::snooping);
    lab.world.join(lab.vms[2], GROUP);
    lab.run(TOLD);
    let begin = lab.world.now();
    for _ in 0..4_000 {
        // 120 kB/s
        for _ in 0..10 {
            lab.world.cast_bytes(lab.vms[0], GROUP, 1_150);
        }
        lab.run(0.1);
    }
    let changes = lab.world.events().iter().filter(|(at, host, event)| {
        let is_of_ends = [lab.hosts[0], lab.hosts[2]].contains(host);
        is_of_ends && *at >= begin && matches!(event, Event::PathChanged { .. })
    });
    let late = changes.filter(|(at, ..)| at.since(begin) > Duration::from_secs(5)).collect::<Vec<_>>();
    assert!(late.is_empty(), "{late:?}");
    assert_eq!((awake(&mut lab, 0), awake(&mut lab, 4)), (1, 0));
    lab.run(TIRED);
    assert_eq!((awake(&mut lab, 0), awake(&mut lab, 2)), (1, 1), "within the budget");
    lab.check();
}

#[test]
fn a_sleeper_that_dies_costs_those_behind_it_one_broadcast() {
    let mut lab = crowd_of(30, HandshakeKind::StandIn, |spec| spec);
    let before = crossings(&lab);
    lab.world.broadcast(lab.vms[0]);
    // Longer than keys live, and then one dies that handed on.
    lab.run(200.0);
    let handing = crossings(&lab).into_iter().zip(before).map(|(after, before)| after.0 - before.0).collect::<Vec<_>>();
    let dead = (1..30).max_by_key(|member| handing[*member]).expect("thirty");
    assert!(handing[dead] > 0, "nobody hands on");
    lab.world.kill(lab.hosts[dead]);
    let frames = (0..4).map(|_| {
        let frame = lab.world.broadcast(lab.vms[0]);
        lab.run(2.0);
        frame
    });
    let frames = frames.collect::<Vec<_>>();
    let missed = frames.iter().map(|frame| 28 - lab.world.sent(*frame).delivered.len()).collect::<Vec<_>>();
    eprintln!("{} behind the dead one; missed {missed:?}", handing[dead]);
    assert!(missed[0] > 0 && missed[1..].iter().all(|missed| *missed == 0), "{missed:?}");
    lab.check();
}

#[test]
fn a_member_that_is_asked_to_carry_to_a_sleeper_wakes_that_link_and_carries() {
    let relaying = |spec: HostSpec| spec.relaying(RelayFor::Everyone);
    let mut lab = crowd_of(6, HandshakeKind::Noise, relaying);
    // All three links of this way sleep.
    let request = Request::Via { peer: "n2".into(), via: "n1".into() };
    assert_eq!(lab.world.ask(lab.hosts[0], &request), Some(Response::Done));
    let pings = lab.stream(0, 2, Duration::from_millis(500), Duration::from_secs(12));
    lab.run(1.0);
    assert_eq!(lab.lost(&pings), &[] as &[f64]);
    let (from, to, overlay) = (lab.hosts[0], lab.hosts[2], lab.overlay);
    let path = lab.world.peer(from, to, overlay).expect("it is known").path;
    assert_eq!((path.kind, path.via.as_deref()), (PathKind::Relayed, Some("n1")), "{}", lab.tale());
    lab.run(TIRED);
    assert_ne!(state(&mut lab, 1, 2), PeerState::Asleep, "who carries stays awake");
    assert_eq!((awake(&mut lab, 0), awake(&mut lab, 4)), (2, 0));
    lab.check();
}

#[test]
fn sleepers_wake_without_a_supernode_where_they_were_heard() {
    let mut lab = crowd(6);
    let supernode = lab.supernodes[0];
    lab.world.kill(supernode);
    lab.run(30.0);
    let pings = lab.stream(0, 3, Duration::from_millis(500), Duration::from_secs(5));
    lab.run(1.0);
    assert!(lab.gap(&pings) <= 1.0, "{:?}\n{}", lab.lost(&pings), lab.tale());
    lab.world.start(supernode);
    lab.run(TIRED);
    assert!(lab.answers(4, 5));
    lab.check();
}

#[test]
fn a_sleeper_that_dies_is_forgotten_and_one_that_comes_back_is_met_anew() {
    let mut lab = crowd(6);
    let host = lab.hosts[3];
    lab.world.kill(host);
    lab.run(60.0);
    let (other, overlay) = (lab.hosts[0], lab.overlay);
    assert_eq!(lab.world.peer(other, host, overlay), None);
    lab.world.start(host);
    lab.run(5.0);
    assert_eq!(state(&mut lab, 0, 3), PeerState::Asleep);
    let frame = lab.world.broadcast(lab.vms[0]);
    lab.run(2.0);
    assert_eq!(lab.world.missed(frame), &[] as &[String]);
    lab.world.announce(lab.vms[3]);
    lab.run(2.0);
    assert!(lab.answers(0, 3));
    lab.check();
}

#[test]
fn a_restart_that_takes_a_moment_costs_sleepers_no_flood() {
    let mut lab = crowd(6);
    // All have keys now, of which the one that restarts knows nothing.
    lab.world.broadcast(lab.vms[0]);
    lab.run(5.0);
    lab.world.restart(lab.hosts[3]);
    lab.run(10.0);
    let frame = lab.world.broadcast(lab.vms[0]);
    lab.run(2.0);
    assert_eq!(lab.world.missed(frame), &[] as &[String]);
    lab.check();
}

#[test]
fn questions_for_machines_behind_sleepers_are_answered_at_home() {
    let mut lab = crowd(6);
    let site = lab.site(None);
    let spec = lab.spec(site).member(lab.overlay).keeping(SMALL);
    lab.add(spec);
    lab.run(5.0);
    for to in 0..6 {
        let asked = lab.world.ask_for(lab.vms[6], lab.vms[to]);
        lab.run(0.5);
        assert!(lab.answered(asked), "for machine {to}");
        assert_eq!(lab.world.sent(asked).delivered.len(), 0, "for machine {to}");
        assert_eq!(state(&mut lab, 6, to), PeerState::Asleep, "a question wakes nobody");
    }
    let asker = lab.hosts[6];
    assert_eq!(counter(&mut lab, asker, "answered"), 6);
    assert!(lab.answers(6, 2));
    lab.check();
}
