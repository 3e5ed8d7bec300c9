//! Questions for IP addresses: answered at home, right in every case, and how much that saves.

mod common;

use common::Lab;
use longwire::node::HandshakeKind;
use longwire::sim::{Behaviour, FrameId, HostId, MILLION};

/// Members of the storm, and machines behind each.
const MEMBERS: usize = 100;
const MACHINES: usize = 10;
/// What the storm lasts, in seconds; each machine asks once a second.
const STORM: usize = 20;

fn counter(lab: &mut Lab, host: HostId, name: &str) -> u64 {
    lab.world.status(host).expect("it runs").overlays[0].counters[name]
}

fn sum(lab: &mut Lab, name: &str) -> u64 {
    lab.hosts.clone().into_iter().map(|host| counter(lab, host, name)).sum()
}

/// Where else than at home a frame was heard.
fn delivered(lab: &Lab, frame: FrameId) -> usize {
    lab.world.sent(frame).delivered.len()
}

/// Asks, and waits for the answer.
fn ask(lab: &mut Lab, from: usize, to: usize) -> FrameId {
    let asked = lab.world.ask_for(lab.vms[from], lab.vms[to]);
    lab.run(0.5);
    asked
}

#[test]
fn a_known_machine_is_answered_for_and_nobody_else_hears_the_question() {
    let mut lab = Lab::three(1);
    let asked = ask(&mut lab, 0, 2);
    assert!(lab.answered(asked));
    let host = lab.hosts[0];
    assert_eq!((delivered(&lab, asked), counter(&mut lab, host, "answered")), (0, 1));
    assert!(lab.answers(0, 2));
    lab.check();
}

#[test]
fn a_machine_that_never_spoke_is_found_by_flooding_and_known_from_then_on() {
    let mut lab = Lab::three(2);
    let silent = lab.world.vm(lab.hosts[2], lab.overlay, [2, 0, 0, 0, 9, 9], 0);
    lab.vms.push(silent);
    let first = ask(&mut lab, 0, 3);
    assert!(lab.answered(first));
    assert_eq!(delivered(&lab, first), 2);
    lab.run(2.0);
    let second = ask(&mut lab, 1, 3);
    assert!(lab.answered(second));
    assert_eq!(delivered(&lab, second), 0);
    lab.check();
}

#[test]
fn a_member_that_joins_late_knows_all_machines_within_a_second() {
    let mut lab = Lab::three(3);
    let site = lab.site(Some(Behaviour::port_restricted()));
    lab.member(site);
    lab.run(3.0);
    for to in 0..3 {
        let asked = ask(&mut lab, 3, to);
        assert!(lab.answered(asked));
        assert_eq!(delivered(&lab, asked), 0, "for machine {to}");
    }
    lab.check();
}

#[test]
fn a_machine_that_moves_is_answered_for_at_its_new_place() {
    let mut lab = Lab::three(4);
    for place in [1, 2, 0, 2] {
        lab.world.move_vm(lab.vms[0], lab.hosts[place]);
        lab.world.announce(lab.vms[0]);
        lab.run(2.0);
        for from in [1, 2] {
            let asked = ask(&mut lab, from, 0);
            assert!(lab.answered(asked), "from {from}, at {place}");
            assert!(lab.answers(from, 0), "from {from}, at {place}");
            lab.run(5.0);
        }
    }
    lab.check();
}

#[test]
fn a_machine_that_moved_without_a_word_is_found_again() {
    let mut lab = Lab::three(5);
    lab.world.move_vm(lab.vms[0], lab.hosts[1]);
    let asks = (0..6).map(|_| ask(&mut lab, 2, 0)).collect::<Vec<_>>();
    assert!(asks[2..].iter().all(|asked| delivered(&lab, *asked) > 0), "those that ask again are not put off");
    lab.run(60.0);
    let asked = ask(&mut lab, 2, 0);
    assert!(lab.answered(asked));
    lab.check();
}

#[test]
fn a_machine_that_is_gone_is_not_answered_for_any_more() {
    let mut lab = Lab::three(6);
    // A place without an overlay.
    lab.world.move_vm(lab.vms[0], lab.supernodes[0]);
    lab.run(40.0);
    let asked = ask(&mut lab, 2, 0);
    assert!(!lab.answered(asked));
    assert_eq!(delivered(&lab, asked), 2);
    lab.check();
}

#[test]
fn lost_packets_only_delay_what_is_told() {
    let mut lab = Lab::three(7);
    let site = lab.world.site_of(lab.hosts[2]);
    lab.world.worsen(site, |conditions| conditions.loss = MILLION / 3);
    for number in 0..20 {
        let vm = lab.world.vm(lab.hosts[2], lab.overlay, [2, 0, 0, 1, 0, number], 0);
        lab.world.announce(vm);
        lab.vms.push(vm);
        lab.run(0.7);
    }
    lab.world.repair(site);
    lab.run(20.0);
    let asker = lab.hosts[0];
    let before = counter(&mut lab, asker, "answered");
    for to in 3..lab.vms.len() {
        ask(&mut lab, 0, to);
    }
    assert_eq!(counter(&mut lab, asker, "answered") - before, 20);
    lab.check();
}

/// A hundred members with ten machines each, all of which have announced themselves but for `silent` of them.
fn crowd(silent: usize) -> Lab {
    let mut lab = Lab::empty(8, 1, HandshakeKind::StandIn);
    let boxes = [None, Some(Behaviour::port_restricted()), Some(Behaviour::firewall())];
    for number in 0..MEMBERS {
        let site = lab.site(boxes[number % boxes.len()]);
        lab.member(site);
        lab.run(0.01);
    }
    lab.run(40.0);
    for machine in 1..MACHINES {
        for host in 0..MEMBERS {
            let (machine, host_byte) = (machine.to_be_bytes()[7], host.to_be_bytes()[7]);
            let vm = lab.world.vm(lab.hosts[host], lab.overlay, [2, 0, 0, machine, 0, host_byte], 0);
            lab.vms.push(vm);
        }
    }
    let speaking = lab.vms[..lab.vms.len() - silent].to_vec();
    for group in speaking.chunks(MEMBERS) {
        group.iter().for_each(|vm| {
            lab.world.announce(*vm);
        });
        lab.run(1.0);
    }
    lab.run(10.0);
    lab
}

/// Bytes per second and node that all members send.
fn rate(lab: &mut Lab, span: usize, mut each_second: impl FnMut(&mut Lab, usize)) -> f64 {
    let bytes = |lab: &Lab| lab.hosts.iter().map(|host| lab.world.sending(*host).bytes).sum::<u64>();
    let before = bytes(lab);
    for second in 0..span {
        each_second(lab, second);
        lab.run(1.0);
    }
    (bytes(lab) - before) as f64 / (span * MEMBERS) as f64
}

#[test]
fn in_a_storm_of_a_thousand_machines_nearly_all_questions_stay_at_home() {
    let silent = MEMBERS * MACHINES / 50;
    let mut lab = crowd(silent);
    let idle = rate(&mut lab, STORM, |_, _| ());
    let names = ["answered", "asked", "local", "floods"];
    let before = names.map(|name| sum(&mut lab, name));
    let copies = |lab: &Lab| lab.hosts.iter().map(|host| lab.world.crossings(*host).copies).collect::<Vec<_>>();
    let copies_before = copies(&lab);
    let mut asked = Vec::new();
    let storm = rate(&mut lab, STORM, |lab, second| {
        for from in 0..lab.vms.len() {
            let to = (from * 7 + second * 131 + 1) % lab.vms.len();
            if to != from {
                asked.push(lab.world.ask_for(lab.vms[from], lab.vms[to]));
            }
        }
    });
    let [home, sent, local, flooded] = std::array::from_fn(|at| sum(&mut lab, names[at]) - before[at]);
    let unanswered = asked.iter().filter(|frame| !lab.answered(**frame)).count();
    let kept = (home + local) as f64 / asked.len() as f64;
    let copies = copies(&lab).into_iter().zip(copies_before).map(|(after, before)| after - before);
    let most = copies.max().unwrap_or(0) as f64 / (STORM * MACHINES) as f64;
    eprintln!(
        "{} questions, {silent} machines silent before: {home} answered at home, {local} by a neighbour, {sent} sent to \
         the one that knows, {flooded} flooded, {unanswered} not answered; {kept:.4} kept at home; at most {most:.2} \
         packets per question at one member; {storm:.0} B/s per node, idle {idle:.0}",
        asked.len()
    );
    assert_eq!(unanswered, 0);
    assert!(kept >= 0.95, "{kept}");
    assert!(most <= 8.0, "{most} copies per question");
    assert!(storm - idle <= 1000.0, "{} B/s", storm - idle);
    lab.check();
}
