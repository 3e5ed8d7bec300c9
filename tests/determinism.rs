//! One seed, one history.

mod common;

use std::time::Duration;

use common::Lab;
use longwire::sim::scenario::Scenario;
use longwire::sim::{Behaviour, MILLION};

/// A world with everything that draws lots: keys, loss, jitter, random ports, a death.
fn history(seed: u64) -> (u64, u64) {
    let boxes = [None, Some(Behaviour::port_restricted().random_ports()), Some(Behaviour::symmetric())];
    let mut lab = Lab::new(seed, 2, &boxes);
    let site = lab.world.site_of(lab.hosts[1]);
    lab.world.worsen(site, |now| {
        now.loss = MILLION / 20;
        now.jitter = Duration::from_millis(3);
    });
    lab.stream(1, 2, Duration::from_millis(50), Duration::from_secs(5));
    lab.world.restart(lab.hosts[1]);
    lab.world.kill(lab.supernodes[0]);
    lab.stream(0, 1, Duration::from_millis(50), Duration::from_secs(15));
    lab.check();
    (lab.world.trace(), lab.world.happened())
}

#[test]
fn the_same_seed_gives_the_same_history() {
    assert_eq!(history(1), history(1));
}

#[test]
fn another_seed_gives_another_history() {
    assert_ne!(history(1).0, history(2).0);
}

#[test]
fn a_history_is_not_empty() {
    assert!(history(1).1 > 1000, "{} events", history(1).1);
}

#[test]
fn the_same_bytes_give_the_same_scenario() {
    let bytes: Vec<u8> = (0..120).map(|number: u8| number.wrapping_mul(37)).collect();
    let play = || Scenario::decode(&bytes).play();
    assert_eq!(play(), play());
}
