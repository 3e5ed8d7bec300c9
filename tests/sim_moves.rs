//! Machines that move, and others that take their addresses.

mod common;

use std::time::Duration;

use common::Lab;
use longwire::control::report::{FdbRow, Request, Response};
use longwire::node::Event;
use longwire::sim::{FrameId, HostId, VmId};
use longwire::time::Time;

/// A frame to the machine this often.
const EVERY: Duration = Duration::from_millis(5);

/// Sends frames of host 0's machine to `to`, one each [`EVERY`], for `seconds`.
fn talk(lab: &mut Lab, to: VmId, seconds: f64) -> Vec<FrameId> {
    let from = lab.vms[0];
    let end = lab.world.now() + Duration::from_secs_f64(seconds);
    let mut frames = Vec::new();
    while lab.world.now() < end {
        frames.push(lab.world.send(from, to, 100));
        lab.world.run_for(EVERY);
    }
    frames
}

/// When frames were sent that came out at `host`, in milliseconds after `start`.
fn arrivals(lab: &Lab, frames: &[FrameId], host: HostId, start: Time) -> Vec<u128> {
    let came = frames.iter().map(|frame| lab.world.sent(*frame)).filter(|sent| sent.delivered.contains_key(&host));
    came.map(|sent| sent.at.since(start).as_millis()).collect()
}

/// The machine of host 1 speaks to that of host 0, so that everybody hears that it is alive.
fn keep_alive(lab: &mut Lab) {
    lab.world.send(lab.vms[1], lab.vms[0], 50);
}

/// Another machine with the address of the one of host 1, behind host 2.
fn impostor(lab: &mut Lab) -> VmId {
    let mac = lab.world.vm_state(lab.vms[1]).mac;
    lab.world.vm(lab.hosts[2], lab.overlay, mac, 0)
}

fn row(lab: &mut Lab, host: usize) -> FdbRow {
    let mac = lab.world.vm_state(lab.vms[1]).mac.map(|byte| format!("{byte:02x}")).join(":");
    let Response::Fdb(rows) = lab.world.ask(lab.hosts[host], &Request::Fdb).expect("it runs") else {
        panic!("no rows")
    };
    rows.into_iter().find(|row| row.mac == mac).expect("a known machine")
}

fn events(lab: &Lab, host: usize, fits: impl Fn(&Event) -> bool) -> usize {
    lab.world.events().iter().filter(|(_, at, event)| *at == lab.hosts[host] && fits(event)).count()
}

fn is_contested(event: &Event) -> bool {
    matches!(event, Event::AddressContested { .. })
}

fn is_frozen(event: &Event) -> bool {
    matches!(event, Event::AddressFrozen { .. })
}

#[test]
fn ordinary_frames_with_a_live_machines_address_divert_nothing() {
    let mut lab = Lab::three(31);
    let thief = impostor(&mut lab);
    let mut frames = Vec::new();
    for _ in 0..20 {
        keep_alive(&mut lab);
        lab.run(0.05);
        lab.world.send(thief, lab.vms[0], 60);
        frames.extend(talk(&mut lab, thief, 0.1));
    }
    lab.run(0.1);
    assert_eq!(arrivals(&lab, &frames, lab.hosts[2], Time::START), [0_u128; 0]);
    assert!(frames.iter().all(|frame| lab.world.sent(*frame).delivered.contains_key(&lab.hosts[1])));
    lab.check();
}

#[test]
fn a_quiet_machine_is_asked_before_its_address_is_lost() {
    let mut lab = Lab::three(32);
    let thief = impostor(&mut lab);
    lab.run(20.0);
    for _ in 0..20 {
        lab.world.send(thief, lab.vms[0], 60);
        lab.world.move_vm(thief, lab.supernodes[0]);
        lab.run(0.3);
        let frame = lab.world.send(lab.vms[0], thief, 100);
        lab.run(0.1);
        assert!(lab.world.sent(frame).delivered.contains_key(&lab.hosts[1]), "{}", lab.tale());
        lab.world.move_vm(thief, lab.hosts[2]);
    }
    assert!(events(&lab, 1, is_contested) >= 1);
    lab.check();
}

#[test]
fn a_forged_announcement_is_undone_and_the_fifth_move_freezes_the_address() {
    let mut lab = Lab::three(33);
    let thief = impostor(&mut lab);
    let mut worst = 0;
    for round in 0..4 {
        keep_alive(&mut lab);
        lab.run(0.05);
        let start = lab.world.now();
        lab.world.announce(thief);
        lab.world.run_for(Duration::from_millis(1));
        lab.world.move_vm(thief, lab.supernodes[0]);
        let frames = talk(&mut lab, thief, 1.0);
        let back = arrivals(&lab, &frames, lab.hosts[2], start).last().copied().unwrap_or(0);
        worst = worst.max(back);
        assert!(back <= 300, "round {round}: diverted for {back} ms");
        assert_eq!(row(&mut lab, 0).port, "n1");
        assert_eq!(row(&mut lab, 0).frozen, round >= 2, "round {round}");
        lab.world.move_vm(thief, lab.hosts[2]);
    }
    eprintln!("a forged announcement diverted for {worst} ms at most");
    assert!(events(&lab, 1, is_contested) >= 1, "{}", lab.tale());
    assert!((0..3).all(|host| events(&lab, host, is_frozen) == 1), "{}", lab.tale());
    let diverted = talk(&mut lab, thief, 0.2);
    assert_eq!(arrivals(&lab, &diverted, lab.hosts[2], Time::START), [0_u128; 0]);
    lab.run(150.0);
    keep_alive(&mut lab);
    lab.run(151.0);
    assert!(!row(&mut lab, 1).frozen, "five minutes later it may move again");
    lab.check();
}

#[test]
fn an_impostor_that_answers_too_is_frozen_out_at_once() {
    let mut lab = Lab::three(34);
    let thief = impostor(&mut lab);
    keep_alive(&mut lab);
    lab.run(0.05);
    lab.world.announce(thief);
    lab.run(0.3);
    let frames = talk(&mut lab, thief, 1.0);
    assert_eq!(arrivals(&lab, &frames, lab.hosts[2], Time::START), [0_u128; 0]);
    for host in 0..3 {
        assert!(row(&mut lab, host).frozen, "host {host}\n{}", lab.tale());
    }
    lab.check();
}

/// A move from host 1 to host 2 while host 0's machine talks to it. How long it heard nothing, and when the last frame
/// was sent that came to the old host, in milliseconds.
fn migrate(lab: &mut Lab) -> (u128, u128) {
    let vm = lab.vms[1];
    let mut frames = talk(lab, vm, 1.0);
    let start = lab.world.now();
    lab.world.move_vm(vm, lab.hosts[2]);
    lab.world.announce(vm);
    frames.extend(talk(lab, vm, 3.0));
    lab.run(1.0);
    let stale = frames
        .iter()
        .map(|frame| lab.world.sent(*frame))
        .filter(|sent| sent.at >= start && sent.delivered.contains_key(&lab.hosts[1]));
    let stale = stale.map(|sent| sent.at.since(start).as_millis()).max().unwrap_or(0);
    let mut heard: Vec<_> = frames.iter().filter_map(|frame| lab.world.sent(*frame).heard.get(&vm).copied()).collect();
    heard.sort();
    let gap = heard.windows(2).map(|pair| pair[1].since(pair[0]).as_millis()).max().expect("it hears frames");
    assert!(heard.last().is_some_and(|last| last.since(start).as_millis() > 2_500), "it hears frames at its new place");
    (gap, stale)
}

#[test]
fn a_machine_that_moves_is_followed_within_a_round_trip_and_a_half() {
    for (delay_ms, limit) in [(0, 100), (20, 1_500 * 80 / 1_000 + 100), (75, 1_500 * 300 / 1_000 + 100)] {
        let mut lab = Lab::three(35 + delay_ms);
        for host in lab.hosts.clone() {
            let site = lab.world.site_of(host);
            lab.world.worsen(site, |now| now.delay = Duration::from_millis(delay_ms));
        }
        lab.run(5.0);
        let (gap, stale) = migrate(&mut lab);
        eprintln!(
            "{delay_ms} ms to each site's end: blackout {gap} ms, last frame to the old host sent {stale} ms after"
        );
        assert!(gap <= limit, "{delay_ms} ms: {gap} ms");
        assert!(stale <= 1_000, "{delay_ms} ms: {stale} ms");
        assert_eq!((row(&mut lab, 0).port.as_str(), row(&mut lab, 1).port.as_str()), ("n2", "n2"));
        assert_eq!(row(&mut lab, 2).port, "tap");
        assert_eq!(events(&lab, 1, is_contested), 0);
        lab.check();
    }
}

#[test]
fn a_move_is_followed_though_a_third_of_all_datagrams_is_lost() {
    for seed in 40..60 {
        let mut lab = Lab::three(seed);
        for host in lab.hosts.clone() {
            let site = lab.world.site_of(host);
            lab.world.worsen(site, |now| now.loss = 180_000);
        }
        let (_, stale) = migrate(&mut lab);
        assert!(stale <= 1_000, "seed {seed}: {stale} ms");
        lab.check();
    }
}

#[test]
fn a_newcomer_that_knows_no_sequence_raises_its_claim() {
    let mut lab = Lab::three(61);
    let site = lab.site(None);
    lab.member(site);
    lab.run(10.0);
    lab.world.move_vm(lab.vms[1], lab.hosts[3]);
    lab.world.announce(lab.vms[1]);
    lab.run(0.3);
    for host in [0, 1, 2] {
        assert_eq!(row(&mut lab, host).port, "n3", "host {host}");
    }
    assert_eq!(row(&mut lab, 3).port, "tap");
    lab.check();
}

#[test]
fn a_user_may_claim_for_a_machine_that_says_nothing() {
    let mut lab = Lab::three(62);
    lab.world.move_vm(lab.vms[1], lab.hosts[2]);
    let mac = row(&mut lab, 0).mac;
    let claim = Request::ClaimMac { mac, vlan: 0, ip: None, overlay: None };
    assert_eq!(lab.world.ask(lab.hosts[2], &claim), Some(Response::Done));
    lab.run(0.2);
    assert!(lab.answers(0, 1));
    for (mac, vlan, why) in
        [("ff:ff:ff:ff:ff:ff", 0, "no address of a machine"), ("02:00:00:00:00:01", 4095, "no VLAN")]
    {
        let nonsense = Request::ClaimMac { mac: mac.into(), vlan, ip: None, overlay: None };
        match lab.world.ask(lab.hosts[2], &nonsense) {
            Some(Response::Error(refused)) => assert!(refused.contains(why), "{mac} in {vlan}: {refused}"),
            other => panic!("{mac} in {vlan}: {other:?}"),
        }
    }
    lab.check();
}
