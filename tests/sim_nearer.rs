//! Pairs that send little take the way that is clearly quicker, without a planner, and stay on it in peace.

mod common;

use std::time::Duration;

use common::Lab;
use longwire::control::report::PathKind;
use longwire::node::{Event, HandshakeKind};
use longwire::sim::SiteSpec;
use longwire::wire::carry::RelayFor;

const STEP: Duration = Duration::from_millis(100);
/// The peer is asked, then the member; two probes of the leg, ten seconds apart.
const FOUND_AFTER: Duration = Duration::from_secs(60);

/// Three members that reach each other directly, in 20 ms; between the first two it takes `longer` each way. The third
/// relays for these.
fn bent(seed: u64, longer: Duration, relays: RelayFor) -> Lab {
    let mut lab = Lab::empty(seed, 1, HandshakeKind::Noise);
    let sites = [0, 1, 2].map(|_| lab.world.site(SiteSpec::default()));
    for (place, site) in sites.into_iter().enumerate() {
        let relays = if place == 2 { relays } else { RelayFor::Nobody };
        let spec = lab.spec(site).member(lab.overlay).relaying(relays);
        lab.add(spec);
    }
    // The supernode lies on no better way.
    let supernode = lab.world.site_of(lab.supernodes[0]);
    lab.world.worsen(supernode, |now| now.delay = Duration::from_millis(200));
    for (from, to) in [(sites[0], sites[1]), (sites[1], sites[0])] {
        lab.world.lengthen(from, to, longer);
    }
    lab.settle();
    lab
}

/// Who carries frames from the first member to the second.
fn carrier(lab: &mut Lab) -> Option<String> {
    let peer = lab.world.peer(lab.hosts[0], lab.hosts[1], lab.overlay).expect("they have met");
    assert_ne!(peer.path.kind, PathKind::None, "{}", lab.tale());
    peer.path.via
}

/// Changes of the path from the first member to the second.
fn changes(lab: &Lab) -> usize {
    let is_one = |event: &Event| matches!(event, Event::PathChanged { name: Some(name), .. } if name == "n1");
    lab.world.events().iter().filter(|(_, host, event)| *host == lab.hosts[0] && is_one(event)).count()
}

#[test]
fn a_little_pair_goes_by_a_member_that_is_clearly_nearer_and_stays_there() {
    let mut lab = bent(1, Duration::from_millis(60), RelayFor::Everyone);
    assert_eq!(carrier(&mut lab), None);
    let pings = lab.stream(0, 1, STEP, FOUND_AFTER);
    assert_eq!(carrier(&mut lab).as_deref(), Some("n2"), "40 ms by it, 140 ms without\n{}", lab.tale());
    assert_eq!(lab.lost(&pings), &[] as &[f64], "{}", lab.tale());
    let before = changes(&lab);
    let pings = lab.stream(0, 1, STEP, Duration::from_secs(120));
    assert_eq!((carrier(&mut lab).as_deref(), changes(&lab)), (Some("n2"), before), "{}", lab.tale());
    assert_eq!(lab.lost(&pings), &[] as &[f64]);
    lab.check();
}

#[test]
fn what_is_only_a_little_nearer_is_not_worth_a_change() {
    // 36 ms directly, 40 ms by the member.
    for longer in [8, 11] {
        let mut lab = bent(2, Duration::from_millis(longer), RelayFor::Everyone);
        lab.stream(0, 1, STEP, FOUND_AFTER);
        assert_eq!(carrier(&mut lab), None, "{longer} ms more each way\n{}", lab.tale());
        lab.check();
    }
}

#[test]
fn who_relays_for_nobody_else_is_not_made_to() {
    let mut lab = bent(3, Duration::from_millis(60), RelayFor::Site);
    lab.stream(0, 1, STEP, FOUND_AFTER);
    assert_eq!(carrier(&mut lab), None, "{}", lab.tale());
    lab.check();
}

#[test]
fn when_the_direct_path_is_as_short_again_the_pair_comes_back_without_a_loss() {
    let mut lab = bent(4, Duration::from_millis(60), RelayFor::Everyone);
    lab.stream(0, 1, STEP, FOUND_AFTER);
    assert_eq!(carrier(&mut lab).as_deref(), Some("n2"), "{}", lab.tale());
    let [one, other] = [0, 1].map(|host| lab.world.site_of(lab.hosts[host]));
    lab.world.lengthen(one, other, Duration::ZERO);
    lab.world.lengthen(other, one, Duration::ZERO);
    let pings = lab.stream(0, 1, STEP, Duration::from_secs(90));
    assert_eq!(carrier(&mut lab), None, "{}", lab.tale());
    assert_eq!(lab.lost(&pings), &[] as &[f64], "{}", lab.tale());
    lab.check();
}

#[test]
fn a_pair_that_sends_much_leaves_the_way_to_the_planner() {
    let mut lab = bent(5, Duration::from_millis(60), RelayFor::Everyone);
    lab.stream(0, 1, STEP, FOUND_AFTER);
    assert_eq!(carrier(&mut lab).as_deref(), Some("n2"), "{}", lab.tale());
    // 120 kB/s.
    for _ in 0..100 {
        for _ in 0..10 {
            lab.world.send(lab.vms[0], lab.vms[1], 1_200);
        }
        lab.world.run_for(Duration::from_millis(100));
    }
    assert_eq!(carrier(&mut lab), None, "{}", lab.tale());
    lab.check();
}
