//! The switch, world-wide: flood, learn, move, VLANs, overlays.

mod common;

use std::time::Duration;

use common::Lab;
use longwire::node::HandshakeKind;
use longwire::sim::{Behaviour, FrameId, HostId};

/// Where a frame came out, and how often in all.
fn delivered(lab: &Lab, frame: FrameId) -> Vec<(HostId, u32)> {
    lab.world.sent(frame).delivered.iter().map(|(host, count)| (*host, *count)).collect()
}

#[test]
fn a_broadcast_reaches_each_other_node_once() {
    let mut lab = Lab::three(1);
    let frame = lab.world.broadcast(lab.vms[0]);
    lab.run(1.0);
    assert_eq!(delivered(&lab, frame), [(lab.hosts[1], 1), (lab.hosts[2], 1)]);
    lab.check();
}

#[test]
fn a_learned_address_gets_its_frames_alone() {
    let mut lab = Lab::three(2);
    let frame = lab.world.send(lab.vms[0], lab.vms[2], 100);
    lab.run(1.0);
    assert_eq!(delivered(&lab, frame), [(lab.hosts[2], 1)]);
    lab.check();
}

#[test]
fn an_unknown_address_is_flooded_and_groups_are_never_learned() {
    let mut lab = Lab::three(3);
    for to in [[2, 9, 9, 9, 9, 9], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1], [1, 0x80, 0xc2, 0, 0, 0x0e]] {
        for _ in 0..2 {
            let frame = lab.world.send_to(lab.vms[1], to, 100);
            lab.run(0.1);
            assert_eq!(delivered(&lab, frame), [(lab.hosts[0], 1), (lab.hosts[2], 1)], "{to:x?}");
        }
    }
    lab.check();
}

#[test]
fn every_size_passes_direct_and_relayed() {
    let mut lab = Lab::new(4, 1, &[None, Some(Behaviour::symmetric()), Some(Behaviour::symmetric())]);
    lab.settle();
    for payload in
        [17, 46, 1000, 1380, 1399, 1400, 1401, 1402, 1403, 1425, 1426, 1427, 1428, 1471, 1472, 1473, 1499, 1500]
    {
        for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
            let frame = lab.world.send(lab.vms[from], lab.vms[to], payload);
            lab.run(0.2);
            assert_eq!(delivered(&lab, frame), [(lab.hosts[to], 1)], "{payload} bytes from {from} to {to}");
        }
    }
    lab.check();
}

#[test]
fn an_announced_move_is_followed_at_once() {
    let mut lab = Lab::three(5);
    for place in [1, 2, 0, 2] {
        lab.world.move_vm(lab.vms[0], lab.hosts[place]);
        lab.world.announce(lab.vms[0]);
        lab.run(0.1);
        for from in [1, 2] {
            let frame = lab.world.ping(lab.vms[from], lab.vms[0], 100);
            lab.run(0.2);
            assert!(lab.answered(frame), "from {from} to the machine at {place}");
        }
    }
    lab.check();
}

#[test]
fn an_unannounced_move_is_followed_when_its_old_place_is_silent() {
    let mut lab = Lab::three(6);
    lab.world.move_vm(lab.vms[0], lab.hosts[1]);
    lab.run(6.0);
    let frame = lab.world.send(lab.vms[0], lab.vms[2], 100);
    lab.run(0.5);
    assert_eq!(delivered(&lab, frame), [(lab.hosts[2], 1)]);
    assert!(lab.answers(2, 0));
    lab.check();
}

#[test]
fn one_address_lives_in_two_vlans_at_two_nodes() {
    let mut lab = Lab::three(7);
    let mac = [2, 0, 0, 0, 7, 7];
    let [ten, twenty] = [(1, 10), (2, 20)].map(|(host, vlan)| lab.world.vm(lab.hosts[host], lab.overlay, mac, vlan));
    let askers = [10, 20].map(|vlan| lab.world.vm(lab.hosts[0], lab.overlay, [2, 0, 0, 0, 8, vlan], u16::from(vlan)));
    for vm in [ten, twenty, askers[0], askers[1]] {
        lab.world.announce(vm);
    }
    lab.run(0.5);
    for _ in 0..3 {
        for (asker, there, host) in [(askers[0], ten, 1), (askers[1], twenty, 2)] {
            let frame = lab.world.ping(asker, there, 100);
            lab.run(0.2);
            assert!(lab.answered(frame));
            assert_eq!(delivered(&lab, frame), [(lab.hosts[host], 1)]);
        }
    }
    lab.check();
}

#[test]
fn a_machine_nobody_ever_saw_is_answered_across() {
    let mut lab = Lab::three(8);
    let newcomer = lab.world.vm(lab.hosts[0], lab.overlay, [2, 0, 0, 9, 9, 9], 0);
    let call = lab.world.call(newcomer, lab.vms[2]);
    lab.run(0.5);
    assert!(lab.answered(call));
    lab.check();
}

#[test]
fn two_overlays_with_equal_addresses_never_meet() {
    let mut lab = Lab::empty(9, 1, HandshakeKind::Noise);
    let other = lab.world.overlay("other");
    let mut twins = Vec::new();
    for behaviour in [None, Some(Behaviour::port_restricted()), Some(Behaviour::symmetric())] {
        let site = lab.site(behaviour);
        // Not in the same order: the index of an overlay means nothing to others.
        let spec = lab.spec(site);
        let spec = if twins.is_empty() {
            spec.member(lab.overlay).member(other)
        } else {
            spec.member(other).member(lab.overlay)
        };
        let host = lab.add(spec);
        let mac = lab.world.vm_state(lab.vms[twins.len()]).mac;
        twins.push(lab.world.vm(host, other, mac, 0));
    }
    lab.settle();
    for vm in lab.vms.clone().into_iter().chain(twins.clone()) {
        let frame = lab.world.broadcast(vm);
        lab.run(0.2);
        assert_eq!(lab.world.missed(frame), &[] as &[String]);
    }
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        assert!(lab.answers(from, to));
        let ping = lab.world.ping(twins[from], twins[to], 100);
        lab.run(1.0);
        assert!(lab.answered(ping));
    }
    lab.check();
}

#[test]
fn another_key_under_the_same_name_is_another_overlay() {
    let mut lab = Lab::three(10);
    let stranger = lab.world.overlay("lab");
    let site = lab.site(None);
    let spec = lab.spec(site).member(stranger);
    let host = lab.world.host(spec);
    let vm = lab.world.vm(host, stranger, [2, 0, 0, 0, 0, 0], 0);
    lab.run(12.0);
    let frames = [lab.world.broadcast(vm), lab.world.broadcast(lab.vms[0])];
    lab.run(1.0);
    assert_eq!(delivered(&lab, frames[0]), []);
    assert_eq!(delivered(&lab, frames[1]), [(lab.hosts[1], 1), (lab.hosts[2], 1)]);
    lab.check();
}

#[test]
fn two_nodes_of_one_lan_hear_each_other_once() {
    let mut lab = Lab::new(11, 1, &[None]);
    let site = lab.site(Some(Behaviour::port_restricted()));
    lab.member(site);
    lab.member(site);
    lab.settle();
    for vm in lab.vms.clone() {
        let frame = lab.world.broadcast(vm);
        lab.run(0.2);
        assert_eq!(lab.world.missed(frame), &[] as &[String]);
    }
    lab.check();
}

#[test]
fn a_serving_member_is_a_member_like_any_other() {
    let mut lab = Lab::empty(12, 0, HandshakeKind::Noise);
    let site = lab.site(None);
    let own = longwire::sim::HostSpec::new(site, "hub").member(lab.overlay).serving();
    let own = own.at(longwire::node::SupernodeSettings { address: "127.0.0.1:7777".to_owned(), pin: None });
    let hub = lab.add(own);
    for behaviour in [Behaviour::port_restricted(), Behaviour::symmetric()] {
        let site = lab.site(Some(behaviour));
        let spec = lab.spec(site).member(lab.overlay).at(lab.world.as_supernode(hub));
        lab.add(spec);
    }
    lab.settle();
    for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 1), (2, 0)] {
        assert!(lab.answers(from, to), "{from} to {to}");
    }
    lab.check();
}

#[test]
fn a_thousand_frames_at_once_come_out_once_each() {
    let mut lab = Lab::three(13);
    let frames: Vec<_> = (0..1000).map(|number| lab.world.send(lab.vms[0], lab.vms[1], 20 + number)).collect();
    lab.world.run_for(Duration::from_secs(1));
    for frame in frames {
        assert_eq!(delivered(&lab, frame), [(lab.hosts[1], 1)]);
    }
    lab.check();
}
