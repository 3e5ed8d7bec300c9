use super::*;
use crate::datapath::fdb::Address;
use etherparse::{Icmpv6Type, SlicedPacket, TransportSlice};
use proptest::prelude::*;

const VM: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
const EVERYBODY: Mac = Mac([0xff; 6]);

fn heard(frame: &[u8]) -> Heard {
    read(frame, &Header::parse(frame).expect("a frame"))
}

/// What is odd says and asks nothing; `address` is where its sender may be asked all the same.
fn odd(address: &str) -> Heard {
    Heard { address: address.parse().ok(), ..Heard::default() }
}

fn arp(dst: Mac, operation: u8, sender: (Mac, [u8; 4]), target: [u8; 4]) -> Vec<u8> {
    let body = [0, 1, 8, 0, 6, 4, 0, operation];
    [&dst.0[..], &VM.0, &[8, 6], &body, &sender.0.0, &sender.1, &[0; 6], &target].concat()
}

fn ip6(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

/// ICMPv6 of this type about `target`, with an option of this kind that holds `mac`.
fn nd(dst: Mac, (from, to): (&str, Ipv6Addr), (kind, flags): (u8, u8), target: &str, option: (u8, Mac)) -> Vec<u8> {
    let mut frame = [&dst.0[..], &VM.0, &[0x86, 0xdd], &[0x60, 0, 0, 0, 0, 32, 58, 255]].concat();
    frame.extend([ip6(from), to].map(|ip| ip.octets()).concat());
    frame.extend([kind, 0, 0, 0, flags, 0, 0, 0]);
    frame.extend(ip6(target).octets());
    frame.extend([option.0, 1]);
    frame.extend(option.1.0);
    ask::finish(&mut frame, (HEADER, HEADER + IPV6_HEADER));
    frame
}

fn solicitation(from: &str, target: &str) -> Vec<u8> {
    let group = solicited_node(ip6(target));
    let [.., a, b, c] = group.octets();
    nd(Mac([0x33, 0x33, 0xff, a, b, c]), (from, group), (135, 0), target, (1, VM))
}

#[test]
fn a_request_says_whose_an_address_is_and_asks_for_another() {
    let frame = arp(EVERYBODY, 1, (VM, [10, 0, 0, 1]), [10, 0, 0, 2]);
    let (own, address) = (Speaker::Holds([10, 0, 0, 1].into(), false), Some([10, 0, 0, 1].into()));
    let question = Question::Arp([10, 0, 0, 2].into(), [10, 0, 0, 1].into());
    assert_eq!(heard(&frame), Heard { address, speaker: Some(own), question: Some(question) });
    let alone = Heard { address, speaker: Some(own), question: None };
    assert_eq!(heard(&arp(OTHER, 1, (VM, [10, 0, 0, 1]), [10, 0, 0, 2])), alone, "to one machine alone");
    assert_eq!(heard(&arp(EVERYBODY, 1, (VM, [10, 0, 0, 1]), [10, 0, 0, 1])), alone, "an announcement");
    assert_eq!(heard(&arp(OTHER, 2, (VM, [10, 0, 0, 1]), [10, 0, 0, 2])), alone, "an answer");
}

#[test]
fn who_asks_whether_an_address_is_free_or_speaks_for_another_mac_says_nothing() {
    for (sender, ip) in [(VM, [0; 4]), (OTHER, [10, 0, 0, 1]), (VM, [224, 0, 0, 1]), (VM, [255; 4])] {
        assert_eq!(heard(&arp(EVERYBODY, 1, (sender, ip), [10, 0, 0, 2])), Heard::default());
    }
    assert_eq!(heard(&solicitation("::", "fd00::2")), Heard::default());
    let group = solicited_node(ip6("fd00::2"));
    let proxied = nd(EVERYBODY, ("fd00::1", group), (135, 0), "fd00::2", (1, OTHER));
    assert_eq!(heard(&proxied), odd("fd00::1"));
}

#[test]
fn a_solicitation_asks_and_an_advertisement_that_replaces_says_whose_an_address_is() {
    let question = Question::Nd(ip6("fd00::2"), ip6("fd00::1"));
    let (address, speaker) = (Some(ip6("fd00::1").into()), Some(Speaker::Uses(ip6("fd00::1").into())));
    assert_eq!(heard(&solicitation("fd00::1", "fd00::2")), Heard { address, speaker, question: Some(question) });
    let says = |flags, option| heard(&nd(OTHER, ("fd00::1", ip6("fd00::2")), (136, flags), "fd00::1", option));
    assert_eq!(says(0x60, (2, VM)).speaker, Some(Speaker::Holds(ip6("fd00::1").into(), false)));
    assert_eq!(says(0xa0, (2, VM)).speaker, Some(Speaker::Holds(ip6("fd00::1").into(), true)));
    for (flags, option) in [(0x40, (2, VM)), (0x60, (2, OTHER)), (0x60, (1, VM))] {
        assert_eq!(says(flags, option), odd("fd00::1"), "a proxy, or an address of several");
    }
    let routed = [&solicitation("fd00::1", "fd00::2")[..]].concat();
    let far = [&routed[..HEADER + 7], &[64], &routed[HEADER + 8..]].concat();
    assert_eq!(heard(&far), Heard::default(), "from another link");
}

#[test]
fn an_answer_is_that_of_the_machine_itself_in_its_vlan() {
    let frames = [arp(EVERYBODY, 1, (VM, [10, 0, 0, 1]), [10, 0, 0, 2]), solicitation("fd00::1", "fd00::2")];
    for frame in frames {
        for tag in [&[][..], &[0x81, 0, 0, 10]] {
            let frame = [&frame[..12], tag, &frame[12..]].concat();
            let header = Header::parse(&frame).expect("a frame");
            let question = read(&frame, &header).question.expect("a question");
            let answer = answer(&frame, &header, question, (OTHER, true));
            let said = Header::parse(&answer).expect("a frame");
            assert_eq!((said.dst, said.src, said.vlan), (VM, OTHER, header.vlan));
            let router = question.target().is_ipv6();
            assert_eq!(read(&answer, &said).speaker, Some(Speaker::Holds(question.target(), router)));
            check(&answer);
        }
    }
}

/// With another one's eyes.
fn check(answer: &[u8]) {
    let packet = SlicedPacket::from_ethernet(answer).expect("a whole packet");
    if let Some(TransportSlice::Icmpv6(icmp)) = packet.transport {
        let ip = answer.len() - 32 - IPV6_HEADER;
        let ends = [8, 24].map(|at| *answer[ip + at..].first_chunk::<16>().expect("an address"));
        assert!(icmp.is_checksum_valid(ends[0], ends[1]));
        let Icmpv6Type::NeighborAdvertisement(flags) = icmp.icmp_type() else { panic!("an advertisement") };
        assert!(flags.router && flags.solicited && flags.r#override);
    }
}

#[test]
fn two_tags_and_a_service_tag_say_nothing_to_others() {
    let frame = arp(EVERYBODY, 1, (VM, [10, 0, 0, 1]), [10, 0, 0, 2]);
    for tags in [&[0x81, 0, 0, 10, 0x81, 0, 0, 11][..], &[0x88, 0xa8, 0, 10]] {
        assert_eq!(heard(&[&frame[..12], tags, &frame[12..]].concat()), odd("10.0.0.1"));
    }
}

#[test]
fn our_own_questions_announce_nothing_to_other_members() {
    let about = Address { vlan: 0, mac: VM };
    let question = ask::question(OTHER, about, [10, 0, 0, 1].into());
    assert_eq!(heard(&question), Heard::default());
    let reminder = ask::reminder(OTHER, about, ip6("fd00::1").into());
    assert_eq!((heard(&reminder).question, &reminder[..6]), (None, &VM.0[..]));
}

proptest! {
    #[test]
    fn arbitrary_frames_never_panic_and_what_asks_is_answered(
        kind in 0..3_usize,
        at in 0..90_usize,
        bytes in proptest::collection::vec(any::<u8>(), 0..90),
    ) {
        let whole = [
            arp(EVERYBODY, 1, (VM, [10, 0, 0, 1]), [10, 0, 0, 2]),
            solicitation("fd00::1", "fd00::2"),
            vec![],
        ];
        let mut frame = whole[kind].clone();
        frame.truncate(at.max(HEADER));
        frame.extend(&bytes);
        if let Some(header) = Header::parse(&frame)
            && let Some(question) = read(&frame, &header).question
        {
            let answer = answer(&frame, &header, question, (OTHER, false));
            let said = Header::parse(&answer).expect("a frame");
            prop_assert_eq!(read(&answer, &said).speaker, Some(Speaker::Holds(question.target(), false)));
        }
    }
}
