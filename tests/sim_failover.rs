//! More supernodes than one: which are registered at, which carries, and what the death of one costs.

mod common;

use std::time::Duration;

use common::Lab;
use longwire::control::report::{LinkState, PathKind};
use longwire::node::{Event, HandshakeKind, SupernodeSettings};
use longwire::sim::{Behaviour, HostId, HostSpec, MILLION, SiteSpec};
use longwire::time::Time;

const STEP: Duration = Duration::from_millis(10);
const SYMMETRIC: Option<Behaviour> = Some(Behaviour::symmetric());
const RESTRICTED: Option<Behaviour> = Some(Behaviour::port_restricted());

/// What a relayed pair may lose when its supernode dies and there is another.
const RELAY_GAP_MAX: f64 = 2.0;

/// A pair that must be relayed, at rest, its members registering at `at`.
fn relayed_pair(lab: &mut Lab, at: &[SupernodeSettings]) {
    for _ in 0..2 {
        let site = lab.site(SYMMETRIC);
        let spec = HostSpec::new(site, &format!("n{}", lab.hosts.len())).member(lab.overlay);
        let spec = at.iter().fold(spec, |spec, supernode| spec.at(supernode.clone()));
        lab.add(spec);
    }
    lab.settle();
}

/// The address of the supernode that carries frames from the first host to the second.
fn carrier(lab: &mut Lab) -> String {
    let peer = lab.world.peer(lab.hosts[0], lab.hosts[1], lab.overlay).expect("they have met");
    assert_eq!(peer.path.kind, PathKind::Relayed, "{}", lab.tale());
    peer.path.via.expect("a supernode carries")
}

fn address(lab: &Lab, supernode: usize) -> String {
    lab.world.as_supernode(lab.supernodes[supernode]).address
}

/// What the states of a host's supernodes are, in its order.
fn states(lab: &mut Lab, host: HostId) -> Vec<LinkState> {
    let status = lab.world.status(host).expect("it runs");
    status.overlays[0].supernodes.iter().map(|supernode| supernode.state).collect()
}

/// A supernode of its own site, with this much delay to everybody.
fn supernode_at(lab: &mut Lab, delay_ms: u64) {
    let mut spec = SiteSpec::default();
    spec.conditions.delay = Duration::from_millis(delay_ms);
    let site = lab.world.site(spec);
    let name = format!("s{}", lab.supernodes.len());
    let host = lab.world.host(HostSpec::new(site, &name).serving());
    lab.supernodes.push(host);
}

fn all(lab: &Lab) -> Vec<SupernodeSettings> {
    lab.supernodes.iter().map(|supernode| lab.world.as_supernode(*supernode)).collect()
}

#[test]
fn three_of_five_are_registered_at_and_the_next_one_takes_the_place_of_a_dead_one() {
    use LinkState::{Spare, Up};
    let mut lab = Lab::new(1, 5, &[None, None]);
    lab.settle();
    let host = lab.hosts[0];
    assert_eq!(states(&mut lab, host), [Up, Up, Up, Spare, Spare]);
    lab.world.kill(lab.supernodes[1]);
    lab.run(15.0);
    let now = states(&mut lab, host);
    assert_eq!([now[0], now[2], now[3], now[4]], [Up, Up, Up, Spare], "{}", lab.tale());
    lab.world.start(lab.supernodes[1]);
    lab.run(10.0);
    assert_eq!(states(&mut lab, host), [Up, Up, Up, Spare, Spare], "{}", lab.tale());
    lab.check();
}

#[test]
fn the_nearest_supernode_carries() {
    for delays in [[5, 40], [40, 5]] {
        let mut lab = Lab::empty(2, 0, HandshakeKind::Noise);
        delays.into_iter().for_each(|delay| supernode_at(&mut lab, delay));
        let at = all(&lab);
        relayed_pair(&mut lab, &at);
        lab.run(40.0);
        let near = usize::from(delays[1] < delays[0]);
        assert_eq!(carrier(&mut lab), address(&lab, near), "{}", lab.tale());
    }
}

#[test]
fn a_supernode_that_becomes_slow_or_loses_much_is_left_for_a_better_one() {
    for worse in ["slow", "lossy"] {
        let mut lab = Lab::empty(3, 0, HandshakeKind::Noise);
        [5, 20].into_iter().for_each(|delay| supernode_at(&mut lab, delay));
        let at = all(&lab);
        relayed_pair(&mut lab, &at);
        lab.run(40.0);
        assert_eq!(carrier(&mut lab), address(&lab, 0), "{}", lab.tale());
        let site = lab.world.site_of(lab.supernodes[0]);
        lab.world.worsen(site, |now| match worse {
            "slow" => now.delay = Duration::from_millis(60),
            _ => now.loss = MILLION / 4,
        });
        lab.stream(0, 1, STEP * 5, Duration::from_secs(60));
        assert_eq!(carrier(&mut lab), address(&lab, 1), "{worse}\n{}", lab.tale());
    }
}

#[test]
fn a_relayed_pair_loses_less_than_two_seconds_when_its_supernode_dies() {
    for seed in 10..20 {
        let mut lab = Lab::empty(seed, 2, HandshakeKind::Noise);
        let at = all(&lab);
        relayed_pair(&mut lab, &at);
        lab.run(20.0);
        let dead = usize::from(carrier(&mut lab) == address(&lab, 1));
        lab.world.kill(lab.supernodes[dead]);
        let pings = lab.stream(0, 1, STEP, Duration::from_secs(10));
        lab.run(1.0);
        assert!(lab.gap(&pings) <= RELAY_GAP_MAX, "gap of {} s\n{}", lab.gap(&pings), lab.tale());
        lab.check();
    }
}

/// A world whose first supernode tells of the second one; the pair was told of the first only.
fn told(seed: u64) -> Lab {
    let mut lab = Lab::empty(seed, 1, HandshakeKind::Noise);
    let other = lab.world.as_supernode(lab.supernodes[0]);
    let site = lab.site(None);
    let teller = lab.world.host(HostSpec::new(site, "teller").serving().telling(other));
    lab.supernodes.insert(0, teller);
    let at = vec![lab.world.as_supernode(teller)];
    relayed_pair(&mut lab, &at);
    lab
}

#[test]
fn members_register_at_the_supernodes_that_theirs_tells_of() {
    let mut lab = told(4);
    lab.run(5.0);
    for host in lab.hosts.clone() {
        assert_eq!(states(&mut lab, host), [LinkState::Up, LinkState::Up], "{}", lab.tale());
    }
    lab.world.kill(lab.supernodes[0]);
    let pings = lab.stream(0, 1, STEP, Duration::from_secs(10));
    lab.run(1.0);
    assert!(lab.gap(&pings) <= RELAY_GAP_MAX, "gap of {} s\n{}", lab.gap(&pings), lab.tale());
}

#[test]
fn a_supernode_that_was_told_of_is_remembered_when_the_teller_is_dead() {
    let mut lab = told(5);
    lab.run(5.0);
    lab.world.kill(lab.supernodes[0]);
    for host in lab.hosts.clone() {
        lab.world.restart(host);
    }
    let pings = lab.stream(0, 1, STEP * 5, Duration::from_secs(10));
    lab.run(1.0);
    assert!(lab.gap(&pings) <= 5.0, "gap of {} s\n{}", lab.gap(&pings), lab.tale());
    assert_eq!(carrier(&mut lab), address(&lab, 1));
}

#[test]
fn whoever_tells_lies_costs_few_dials_and_no_frame() {
    let mut lab = Lab::empty(6, 0, HandshakeKind::Noise);
    let site = lab.site(None);
    let lie = |port: u16| SupernodeSettings {
        address: format!("5.9.9.9:{port}"),
        pin: Some(longwire::keys::Fingerprint([port.to_be_bytes()[1]; 32])),
    };
    let spec = (1..=20).fold(HostSpec::new(site, "liar").serving(), |spec, port| spec.telling(lie(port)));
    let liar = lab.world.host(spec);
    lab.supernodes.push(liar);
    let at = all(&lab);
    relayed_pair(&mut lab, &at);
    lab.run(60.0);
    let host = lab.hosts[0];
    let known = states(&mut lab, host);
    assert_eq!((known.len(), known[0]), (9, LinkState::Up), "{known:?}");
    assert!(lab.answers(0, 1));
    lab.check();
}

#[test]
fn with_every_supernode_dead_pairs_go_on_and_make_new_keys() {
    let mut lab = Lab::new(7, 3, &[RESTRICTED, None]);
    lab.settle();
    lab.supernodes.clone().into_iter().for_each(|supernode| lab.world.kill(supernode));
    let pings = lab.stream(0, 1, STEP * 5, Duration::from_secs(600));
    lab.run(1.0);
    assert_eq!(lab.lost(&pings), &[] as &[f64], "{}", lab.tale());
    lab.check();
}

#[test]
fn a_member_that_restarts_while_every_supernode_is_dead_finds_the_others_where_they_were() {
    for boxes in [[None, RESTRICTED], [RESTRICTED, None]] {
        let mut lab = Lab::new(8, 2, &boxes);
        lab.settle();
        lab.run(30.0);
        lab.supernodes.clone().into_iter().for_each(|supernode| lab.world.kill(supernode));
        lab.world.restart(lab.hosts[0]);
        let pings = lab.stream(0, 1, STEP * 5, Duration::from_secs(15));
        lab.run(1.0);
        assert!(lab.gap(&pings) <= 10.0, "{boxes:?}: gap of {} s\n{}", lab.gap(&pings), lab.tale());
        lab.check();
    }
}

/// When each host registered, from `since` on, in seconds after it.
fn registrations(lab: &Lab, since: Time) -> Vec<f64> {
    let registers = |(at, _, event): &&(Time, HostId, Event)| *at >= since && matches!(event, Event::Registered { .. });
    lab.world.events().iter().filter(registers).map(|(at, ..)| at.since(since).as_secs_f64()).collect()
}

#[test]
fn nodes_come_back_to_a_supernode_one_after_the_other() {
    let mut lab = Lab::empty(9, 1, HandshakeKind::StandIn);
    for _ in 0..60 {
        let site = lab.site(None);
        lab.member(site);
    }
    lab.run(30.0);
    for (dead, spread) in [(0.0, 0.5), (120.0, 1.0)] {
        lab.world.kill(lab.supernodes[0]);
        lab.run(dead);
        lab.world.start(lab.supernodes[0]);
        let back = lab.world.now();
        lab.run(10.0);
        let times = registrations(&lab, back);
        assert_eq!(times.len(), 60, "{}", lab.tale());
        let crowd =
            times.iter().map(|from| times.iter().filter(|at| (*from..*from + spread / 5.0).contains(*at)).count());
        assert!(crowd.max() <= Some(30), "dead for {dead} s: half of them come within {} s: {times:?}", spread / 5.0);
    }
}
