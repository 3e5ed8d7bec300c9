//! Multicast that is pruned: who joined hears it, who did not is not sent it, and in doubt everybody is.

mod common;

use common::Lab;
use longwire::node::HandshakeKind;
use longwire::sim::{FrameId, MILLION};

const G: [u8; 4] = [239, 1, 2, 3];
const LINK_LOCAL: [u8; 4] = [224, 0, 0, 251];
/// By then every segment has answered, and all others know it.
const KNOWN: f64 = 20.0;

/// Members that prune but for the last `flooding` of them.
fn lab(count: usize, flooding: usize) -> Lab {
    let mut lab = Lab::empty(4, 1, HandshakeKind::Noise);
    for number in 0..count {
        let site = lab.site(None);
        let spec = lab.spec(site).member(lab.overlay);
        lab.add(if number < count - flooding { spec.snooping() } else { spec });
    }
    lab.settle();
    lab.run(KNOWN);
    lab
}

/// At which members a frame came out.
fn heard(lab: &mut Lab, frame: FrameId) -> Vec<usize> {
    lab.run(0.5);
    let delivered = &lab.world.sent(frame).delivered;
    (0..lab.hosts.len()).filter(|member| delivered.contains_key(&lab.hosts[*member])).collect()
}

fn cast(lab: &mut Lab, from: usize, group: [u8; 4]) -> Vec<usize> {
    let frame = lab.world.cast(lab.vms[from], group);
    heard(lab, frame)
}

fn join(lab: &mut Lab, member: usize) {
    lab.world.join(lab.vms[member], G);
    lab.run(2.0);
}

#[test]
fn a_group_is_carried_to_those_that_joined_it_and_to_nobody_else() {
    let mut lab = lab(5, 0);
    assert_eq!(cast(&mut lab, 0, G), [1, 2, 3, 4], "nobody wants it: everybody hears it");
    join(&mut lab, 2);
    assert_eq!(cast(&mut lab, 0, G), [2]);
    assert_eq!(cast(&mut lab, 2, G), [] as [usize; 0], "its only listener hears it at home");
    join(&mut lab, 4);
    assert_eq!(cast(&mut lab, 0, G), [2, 4]);
    lab.world.part(lab.vms[2], G);
    lab.run(10.0);
    assert_eq!(cast(&mut lab, 0, G), [4]);
    assert_eq!(cast(&mut lab, 0, LINK_LOCAL), [1, 2, 3, 4], "of the link");
    lab.check();
}

#[test]
fn members_that_do_not_prune_and_those_with_a_router_hear_everything() {
    let mut lab = lab(5, 1);
    join(&mut lab, 1);
    assert_eq!(cast(&mut lab, 0, G), [1, 4]);
    lab.world.query(lab.vms[3]);
    lab.run(3.0);
    assert_eq!(cast(&mut lab, 0, G), [1, 3, 4]);
    lab.run(300.0);
    assert_eq!(cast(&mut lab, 0, G), [1, 4], "the router was not heard any more, and we ask instead");
    lab.check();
}

#[test]
fn reports_are_for_routers_alone() {
    let mut lab = lab(4, 0);
    let report = lab.world.join(lab.vms[1], G);
    assert_eq!(heard(&mut lab, report), [] as [usize; 0]);
    lab.world.query(lab.vms[3]);
    lab.run(3.0);
    let report = lab.world.join(lab.vms[2], G);
    assert_eq!(heard(&mut lab, report), [3]);
    lab.check();
}

#[test]
fn memberships_last_as_long_as_machines_answer_and_survive_loss_and_restarts() {
    let mut lab = lab(4, 0);
    join(&mut lab, 1);
    let site = lab.world.site_of(lab.hosts[2]);
    lab.world.worsen(site, |conditions| conditions.loss = MILLION / 3);
    lab.world.join(lab.vms[2], G);
    lab.run(10.0);
    lab.world.repair(site);
    lab.run(400.0);
    assert_eq!(cast(&mut lab, 0, G), [1, 2]);
    lab.world.restart(lab.hosts[1]);
    for _ in 0..40 {
        lab.run(0.5);
        let heard = cast(&mut lab, 0, G);
        let is_back =
            lab.world.path(lab.hosts[0], lab.hosts[1], lab.overlay) != longwire::control::report::PathKind::None;
        assert!(!is_back || heard.contains(&1), "while it has not heard its segment it is sent everything");
    }
    assert_eq!(cast(&mut lab, 0, G), [1, 2]);
    // A machine that is gone does not answer.
    lab.world.move_vm(lab.vms[1], lab.supernodes[0]);
    lab.run(400.0);
    assert_eq!(cast(&mut lab, 0, G), [2]);
    lab.check();
}

#[test]
fn many_listeners_are_served_by_a_tree() {
    let mut lab = lab(20, 0);
    (1..15).for_each(|member| {
        lab.world.join(lab.vms[member], G);
    });
    lab.run(3.0);
    let before = lab.world.crossings(lab.hosts[0]).copies;
    assert_eq!(cast(&mut lab, 0, G), (1..15).collect::<Vec<_>>());
    assert_eq!(lab.world.crossings(lab.hosts[0]).copies - before, 8);
    lab.check();
}
