//! Nodes whose clock or memory is not what it was: restarted in the past, restored from a snapshot.

mod common;

use std::time::Duration;

use common::Lab;
use longwire::node::Event;
use longwire::sim::Behaviour;

const TEN_MS: Duration = Duration::from_millis(10);
const RESTRICTED: Option<Behaviour> = Some(Behaviour::port_restricted());
const SYMMETRIC: Option<Behaviour> = Some(Behaviour::symmetric());

#[test]
fn a_node_that_restarts_with_its_clock_behind_is_not_shut_out() {
    for boxes in [[RESTRICTED, RESTRICTED], [SYMMETRIC, SYMMETRIC], [None, RESTRICTED]] {
        for restarted in [0, 1] {
            let mut lab = Lab::new(24, 1, &boxes);
            lab.settle();
            lab.world.kill(lab.hosts[restarted]);
            lab.world.set_clock_back(lab.hosts[restarted], Duration::from_secs(3600));
            lab.world.start(lab.hosts[restarted]);
            let pings = lab.stream(0, 1, TEN_MS * 5, Duration::from_secs(10));
            lab.run(1.0);
            assert!(lab.gap(&pings) <= 2.0, "{boxes:?}: gap of {} s\n{}", lab.gap(&pings), lab.tale());
            let pings = lab.stream(0, 1, TEN_MS * 5, Duration::from_secs(400));
            lab.run(1.0);
            assert_eq!(lab.lost(&pings), &[] as &[f64], "its keys are renewed as ever\n{}", lab.tale());
            lab.check();
        }
    }
}

#[test]
fn a_restored_host_has_new_keys_within_a_second() {
    for boxes in [[RESTRICTED, RESTRICTED], [SYMMETRIC, SYMMETRIC]] {
        let mut lab = Lab::new(25, 1, &boxes);
        lab.settle();
        let before = lab.world.now();
        lab.world.restore(lab.hosts[0]);
        let pings = lab.stream(0, 1, TEN_MS, Duration::from_secs(10));
        lab.run(1.0);
        assert!(lab.gap(&pings) <= 1.0, "{boxes:?}: gap of {} s\n{}", lab.gap(&pings), lab.tale());
        let events = lab.world.events().iter().filter(|(at, host, _)| *at >= before && *host == lab.hosts[0]);
        let told: Vec<_> = events.map(|(.., event)| event).collect();
        assert!(told.iter().any(|event| matches!(event, Event::PeerUp { .. })), "{}", lab.tale());
        assert!(told.iter().any(|event| matches!(event, Event::Registered { .. })), "{}", lab.tale());
        lab.settle();
    }
}

#[test]
fn a_restored_supernode_is_registered_at_again() {
    let mut lab = Lab::new(26, 1, &[SYMMETRIC, SYMMETRIC]);
    lab.settle();
    lab.world.restore(lab.supernodes[0]);
    let pings = lab.stream(0, 1, TEN_MS, Duration::from_secs(10));
    lab.run(1.0);
    assert!(lab.gap(&pings) <= 3.0, "gap of {} s\n{}", lab.gap(&pings), lab.tale());
    lab.settle();
}
