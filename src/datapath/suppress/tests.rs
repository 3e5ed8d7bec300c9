use super::*;
use crate::datapath::frame::Mac;
use crate::datapath::gate::Gate;
use crate::datapath::switch::SwitchSettings;
use crate::wire::data::FrameKind;
use crate::wire::inventory::Binding;

const A: PortId = PortId(1);
const B: PortId = PortId(2);
const US: [u8; 4] = [10, 0, 0, 1];
const THEM: [u8; 4] = [10, 0, 0, 2];

fn at(ms: u64) -> Time {
    Time::START + Duration::from_millis(ms)
}

const fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

/// ARP from the machine at `src`.
fn arp(src: Mac, (sender, target): ([u8; 4], [u8; 4])) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    [&[0xff; 6][..], &src.0, &[8, 6], &head, &src.0, &sender, &[0; 6], &target].concat()
}

struct Scene(Switch);

impl Scene {
    /// Our machine 1 has 10.0.0.1; A tells that its machine 2 has 10.0.0.2.
    fn new() -> Self {
        let mut scene = Self(Switch::new([1, 2, 3, 4], SwitchSettings::default()));
        scene.0.ports.extend([A, B]);
        scene.tells(A, 2, THEM);
        scene
    }

    fn tells(&mut self, port: PortId, last: u8, ip: [u8; 4]) {
        let binding = Binding { vlan: 0, ip: ip.into(), mac: mac(last).0, is_router: false };
        let items = vec![Item { binding, is_gone: false }];
        self.0.suppression.told.accept(at(0), port, &Inventory { has_more: true, items, ..Inventory::default() });
    }

    fn out(&mut self, ms: u64, frame: &[u8]) -> Verdict {
        let header = Header::parse(frame).expect("a frame");
        self.0.judge_outbound(at(ms), frame, &header, frame.len())
    }

    fn comes(&mut self, ms: u64, port: PortId, frame: &[u8]) {
        let header = Header::parse(frame).expect("a frame");
        self.0.judge_inbound(at(ms), (port, FrameKind::Direct), frame, &header);
    }

    /// What becomes of our machine's question for 10.0.0.2.
    fn asks(&mut self, ms: u64) -> Verdict {
        self.out(ms, &arp(mac(1), (US, THEM)))
    }
}

#[test]
fn a_machine_that_sends_from_anothers_address_ends_what_is_told_of_it_and_is_asked() {
    let mut scene = Scene::new();
    scene.asks(0);
    let ours = Place { vlan: 0, ip: US.into() };
    assert_eq!(scene.0.suppression.holdings.holder(ours), Some(mac(1)));
    // UDP to everybody, as a DHCP server's on a bridge that has got another MAC.
    let packet = [&[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0][..], &US, &[255; 4]].concat();
    let frame = |last| [&[0xff; 6][..], &mac(last).0, &[8, 0], &packet].concat();
    scene.out(1, &frame(1));
    assert_eq!(scene.0.suppression.holdings.holder(ours), Some(mac(1)), "its own");
    scene.out(2, &frame(3));
    assert_eq!(scene.0.suppression.holdings.holder(ours), None);
    assert_eq!(scene.0.suppression.curious, [(Address { vlan: 0, mac: mac(3) }, US.into())]);
}

#[test]
fn the_questions_of_a_machine_that_has_its_address_from_another_are_heard_by_all() {
    let mut scene = Scene::new();
    assert_eq!(scene.asks(0), Verdict::Answered);
    // The same machine with another card, which it does not announce.
    let asks = |scene: &mut Scene, ms| scene.out(ms, &arp(mac(3), (US, THEM)));
    assert_eq!(asks(&mut scene, 20_000), Verdict::Flood);
    assert_eq!(asks(&mut scene, 40_000), Verdict::Flood);
    assert_eq!(asks(&mut scene, 81_000), Verdict::Answered);
}

#[test]
fn a_known_machine_is_answered_for_and_then_known_to_the_switch() {
    let mut scene = Scene::new();
    assert_eq!(scene.asks(0), Verdict::Answered);
    assert_eq!(scene.0.suppression.answer[..12], [mac(1).0, mac(2).0].concat());
    assert_eq!(scene.0.fdb.lookup(at(0), 0, mac(2)), Some(A));
    scene.asks(6000);
    assert_eq!(scene.0.fdb.find(at(6000), 0, mac(2)), Some((A, at(0))), "to be answered for is not to be heard");
}

#[test]
fn who_asks_again_is_sent_to_the_one_that_knows_and_then_to_all() {
    let mut scene = Scene::new();
    let asked = [0, 1000, 2000, 3000, 9000].map(|ms| scene.asks(ms));
    assert_eq!(asked, [Verdict::Answered, Verdict::Ask(A), Verdict::Flood, Verdict::Flood, Verdict::Answered]);
}

#[test]
fn what_is_no_plain_question_is_never_answered() {
    let mut scene = Scene::new();
    for (sender, target) in [([0; 4], THEM), (THEM, THEM), (US, [10, 0, 0, 9])] {
        assert_eq!(scene.out(0, &arp(mac(1), (sender, target))), Verdict::Flood, "{sender:?} asks for {target:?}");
    }
    scene.comes(1, A, &arp(mac(2), (THEM, [10, 0, 0, 77])));
    let mut unicast = arp(mac(1), (US, THEM));
    unicast[..6].copy_from_slice(&mac(2).0);
    assert_eq!(scene.out(2, &unicast), Verdict::Forward(A), "the machine itself is asked whether it is still there");
}

#[test]
fn nobody_answers_for_a_mac_that_is_elsewhere_or_for_two_at_once() {
    let mut scene = Scene::new();
    scene.comes(0, B, &arp(mac(2), ([10, 0, 0, 3], [10, 0, 0, 77])));
    assert_eq!(scene.asks(1), Verdict::Flood, "its MAC is B's");
    let mut scene = Scene::new();
    scene.tells(B, 3, THEM);
    assert_eq!(scene.asks(0), Verdict::Flood, "two say that it is theirs");
    scene.0.suppression.forget_port(B);
    assert_eq!(scene.asks(6000), Verdict::Answered);
}

#[test]
fn an_announcement_ends_what_was_known_at_once() {
    let mut scene = Scene::new();
    scene.comes(0, B, &arp(mac(3), (THEM, THEM)));
    assert_eq!(scene.asks(1), Verdict::Flood);
    scene.tells(B, 3, THEM);
    assert_eq!(scene.asks(6000), Verdict::Answered);
    assert_eq!(scene.0.suppression.answer[6..12], mac(3).0);
    // And where we had it ourselves.
    assert_eq!(scene.0.suppression.holdings.len(), 1);
    scene.comes(6001, B, &arp(mac(3), (US, US)));
    assert_eq!(scene.0.suppression.holdings.len(), 0);
}

#[test]
fn a_machine_beside_the_asker_answers_itself_and_if_it_does_not_all_are_asked() {
    let mut scene = Scene::new();
    scene.out(0, &arp(mac(5), ([10, 0, 0, 5], [10, 0, 0, 77])));
    let ask = arp(mac(1), (US, [10, 0, 0, 5]));
    assert_eq!(scene.out(1, &ask), Verdict::Drop(DropReason::Local));
    assert_eq!(scene.out(1000, &ask), Verdict::Flood);
}

#[test]
fn a_machine_that_moved_away_holds_nothing_here_any_more() {
    let mut scene = Scene::new();
    scene.out(0, &arp(mac(5), ([10, 0, 0, 5], [10, 0, 0, 77])));
    assert_eq!(scene.0.suppression.holdings.len(), 1);
    scene.0.on_claim(at(10), B, (Address { vlan: 0, mac: mac(5) }, 1), crate::wire::session::ClaimReason::Announced);
    assert_eq!(scene.0.suppression.holdings.len(), 0);
}

#[test]
fn vlans_are_apart() {
    let mut scene = Scene::new();
    let plain = arp(mac(1), (US, THEM));
    let tagged = [&plain[..12], &[0x81, 0, 0, 10], &plain[12..]].concat();
    assert_eq!(scene.out(0, &tagged), Verdict::Flood);
}

#[test]
fn who_has_our_segment_too_is_asked_there() {
    let mut scene = Scene::new();
    scene.0.gate = Gate::Shared { with: [A].into(), stands_by: false };
    assert_eq!(scene.asks(0), Verdict::Flood);
    scene.0.gate = Gate::Shared { with: [B].into(), stands_by: true };
    assert_eq!(scene.asks(6000), Verdict::Drop(DropReason::Shared), "the other one answers");
}

#[test]
fn flooding_is_as_on_a_wire() {
    let mut scene = Scene::new();
    let settings = SwitchSettings { answers: false, ..SwitchSettings::default() };
    let old = std::mem::replace(&mut scene.0, Switch::new([1, 2, 3, 4], settings));
    scene.0.ports = old.ports;
    scene.0.suppression = old.suppression;
    assert_eq!(scene.asks(0), Verdict::Flood);
    assert_eq!(scene.0.suppression.holdings.len(), 0);
}

#[test]
fn a_machine_that_only_uses_an_address_is_asked_for_the_rest() {
    let mut scene = Scene::new();
    let ip: std::net::Ipv6Addr = "fd00::1".parse().expect("an address");
    // A solicitation of our machine's is one of ours with another sender.
    let mut frame = ask::question(mac(1), Address { vlan: 0, mac: mac(2) }, "fd00::2".parse().expect("an address"));
    frame[22..38].copy_from_slice(&ip.octets());
    scene.out(0, &frame);
    assert_eq!(scene.0.suppression.curious, [(Address { vlan: 0, mac: mac(1) }, IpAddr::V6(ip))]);
    assert_eq!(scene.0.suppression.holdings.len(), 0);
}

#[test]
fn a_long_inventory_is_told_in_several_messages() {
    let binding = |number: u8| Binding { vlan: 0, ip: [10, 0, 0, number].into(), mac: mac(number).0, is_router: false };
    let items = (1..=100).map(|number| Item { binding: binding(number), is_gone: false }).collect::<Vec<_>>();
    let digest = items.iter().fold(0, |sum, item| sum ^ item.binding.digest());
    let first = Inventory { is_anew: true, wants_answer: true, digest, ..Inventory::default() };
    let messages = parts(first.clone(), &items);
    let shape = |part: &Inventory| (part.is_anew, part.wants_answer, part.has_more, part.items.len());
    let shapes = messages.iter().map(shape).collect::<Vec<_>>();
    assert_eq!(shapes, [(true, true, true, 40), (false, false, true, 40), (false, false, false, 20)]);
    let mut told = Told::default();
    assert!(messages.iter().all(|part| !told.accept(at(0), A, part)));
    assert_eq!((told.len(), parts(first, &[]).len()), (100, 1));
}
