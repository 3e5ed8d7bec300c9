//! Two members on one segment: a loop outside of the overlay.

mod common;

use std::time::Duration;

use common::Lab;
use longwire::node::Event;
use longwire::sim::{FrameId, HostId};

/// A loop is over after this time.
const PATIENCE: Duration = Duration::from_secs(3);
/// What a node floods: the policer's rate and its burst.
const RATE: u64 = 1_000;
const BURST: u64 = 2_000;

fn delivered(lab: &Lab, frame: FrameId) -> Vec<(HostId, u32)> {
    lab.world.sent(frame).delivered.iter().map(|(host, count)| (*host, *count)).collect()
}

fn floods(lab: &mut Lab, host: usize) -> u64 {
    let status = lab.world.status(lab.hosts[host]).expect("it runs");
    status.overlays[0].counters["floods"]
}

/// What a broadcast of each machine comes out as, where hosts 0 and 1 are on one segment and 2 is elsewhere: once at
/// the other segment, and never where it came from.
fn expect_one_copy_each(lab: &mut Lab) {
    for from in [0, 1] {
        let frame = lab.world.broadcast(lab.vms[from]);
        lab.run(0.2);
        assert_eq!(delivered(lab, frame), [(lab.hosts[2], 1)], "from {from}\n{}", lab.tale());
    }
    let frame = lab.world.broadcast(lab.vms[2]);
    lab.run(0.2);
    let [(at, 1)] = delivered(lab, frame)[..] else { panic!("{:?}\n{}", delivered(lab, frame), lab.tale()) };
    assert!(lab.hosts[..2].contains(&at));
    for vm in [0, 1] {
        assert!(lab.world.sent(frame).heard.contains_key(&lab.vms[vm]), "machine {vm} hears it");
    }
}

#[test]
fn a_loop_that_is_closed_while_running_is_over_within_three_seconds() {
    for seed in 80..90 {
        let mut lab = Lab::three(seed);
        lab.run(0.19 * (seed - 80) as f64);
        let before = [0, 1].map(|host| floods(&mut lab, host));
        lab.world.cable(lab.hosts[0], lab.hosts[1], PATIENCE);
        for vm in lab.vms.clone() {
            lab.world.broadcast(vm);
            lab.world.announce(vm);
        }
        for second in 1..=3 {
            lab.run(1.0);
            for host in [0, 1] {
                let sent = floods(&mut lab, host) - before[host];
                assert!(sent <= BURST + RATE * second, "host {host} has flooded {sent} after {second} s");
            }
        }
        let after = [0, 1].map(|host| floods(&mut lab, host));
        lab.run(1.0);
        assert_eq!([0, 1].map(|host| floods(&mut lab, host)), after, "nothing runs in circles any more");
        expect_one_copy_each(&mut lab);
        let told = lab.world.events().iter().filter(|(_, _, event)| matches!(event, Event::SegmentShared { .. }));
        assert_eq!(told.count(), 2, "{}", lab.tale());
        lab.run(10.0);
        for (from, to) in [(0, 2), (2, 0), (1, 2), (2, 1)] {
            assert!(lab.answers(from, to), "seed {seed}: {from} to {to}\n{}", lab.tale());
        }
        lab.check();
    }
}

#[test]
fn when_the_cable_is_pulled_each_carries_its_own_again() {
    let mut lab = Lab::three(91);
    lab.world.cable(lab.hosts[0], lab.hosts[1], PATIENCE);
    lab.run(3.0);
    expect_one_copy_each(&mut lab);
    lab.world.uncable();
    lab.run(6.0);
    for vm in lab.vms.clone() {
        let frame = lab.world.broadcast(vm);
        lab.run(0.2);
        assert_eq!(lab.world.missed(frame), &[] as &[String]);
    }
    lab.check();
}

#[test]
fn when_the_one_that_carries_dies_the_other_one_does() {
    let mut lab = Lab::three(92);
    lab.world.cable(lab.hosts[0], lab.hosts[1], PATIENCE);
    lab.run(3.0);
    let carrier = usize::from(lab.world.node_id(lab.hosts[1]) < lab.world.node_id(lab.hosts[0]));
    lab.world.kill(lab.hosts[carrier]);
    lab.run(7.5);
    let frame = lab.world.broadcast(lab.vms[2]);
    lab.run(0.2);
    assert_eq!(delivered(&lab, frame), [(lab.hosts[1 - carrier], 1)], "{}", lab.tale());
    lab.check();
}

#[test]
fn a_member_that_comes_up_on_a_segment_of_another_closes_no_loop() {
    let mut lab = Lab::three(93);
    lab.world.kill(lab.hosts[1]);
    lab.run(1.0);
    // Nobody is patient: not one frame may run in circles.
    lab.world.cable(lab.hosts[0], lab.hosts[1], Duration::ZERO);
    lab.world.start(lab.hosts[1]);
    for _ in 0..40 {
        for vm in [0, 1, 2] {
            lab.world.broadcast(lab.vms[vm]);
        }
        lab.run(0.1);
    }
    expect_one_copy_each(&mut lab);
    lab.check();
}
