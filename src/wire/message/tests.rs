use super::*;
use crate::wire::inventory::Binding;
use crate::wire::plan::{CHANGES_MAX, Change, Goes, Hop, PEERS_MAX, PeerReport, SiteTag, Way};
use crate::wire::session::CandidateKind;
use proptest::prelude::*;

fn all() -> Vec<Message> {
    let overlay = OverlayId([4; 32]);
    let version = Version { major: 1, minor: 3 };
    let seen = "198.51.100.7:7777".parse().expect("address");
    let member = Member { relay: RelayId(7), seen, certificate: vec![1; 190], directory: vec![2; 100], version };
    vec![
        Message::Register {
            certificate: vec![1; 190],
            signature: [5; 64],
            directory: vec![2; 90],
            version,
            continues: Some(RelayId(9)),
        },
        Message::Ping { nonce: 8 },
        Message::Update { overlay, directory: vec![] },
        Message::Leave { overlay },
        Message::Report {
            overlay,
            report: Report {
                relays: true,
                load: Some(37),
                peers: vec![measured(); PEERS_MAX],
                site: Some(SiteTag([7; 8])),
                spare: Some(1_000),
            },
        },
        Message::Welcome { overlay, relay: RelayId(9), key: LegKey([3; 16]), seen, version },
        Message::Refused { overlay, reason: Refusal::NotAllowed, version },
        Message::Pong { nonce: 8, seen },
        Message::Roster { overlay, reset: true, members: vec![member; ROSTER_MAX] },
        Message::Gone { overlay, relays: vec![RelayId(1), RelayId(2)] },
        Message::Supernodes { list: vec![other("sn2.example.org:7777"); SUPERNODES_MAX] },
        Message::Plan { overlay, plan: Plan { version: 9, gain: 1500, changes: changes() } },
        Message::Advice { overlay, advice: Advice { partner: RelayId(1), target: RelayId(2), gain: 4500 } },
    ]
}

fn measured() -> PeerReport {
    let relay = RelayId(3);
    let (is_limited, is_queued, has_link) = (true, Some(true), false);
    let goes = Some(Goes { by: Hop::Member(RelayId(4)), since_ms: 6 });
    PeerReport { relay, fast: 1, slow: 2, arrives: 3, capacity: 4, rtt_us: 5, is_limited, is_queued, has_link, goes }
}

fn changes() -> Vec<Change> {
    let ways = [Way::Usual, Way::Member(RelayId(4)), Way::Here];
    (0..).zip(ways.into_iter().cycle()).map(|(to, way)| Change { to: RelayId(to), way }).take(CHANGES_MAX).collect()
}

fn other(address: &str) -> OtherSupernode {
    OtherSupernode { address: address.into(), fingerprint: Fingerprint([6; 32]) }
}

#[test]
fn another_supernode_has_the_form_host_and_port_or_is_refused() {
    for place in ["sn2.example.org:7777", "192.0.2.1:7", "[2001:db8::1]:7777"] {
        let message = Message::Supernodes { list: vec![other(place)] };
        assert_eq!(Message::parse(&message.bytes()), Ok(Some(message)));
    }
    for place in ["", "host", ":7", "host:0", "host:70000", "a b:7", "h\u{1b}[0m:7"] {
        let message = Message::Supernodes { list: vec![other(place)] };
        assert_eq!(Message::parse(&message.bytes()), Err(DecodeError::Range), "{place:?}");
    }
}

#[test]
fn every_message_survives_its_bytes_and_fits() {
    for message in all() {
        let bytes = message.bytes();
        assert!(bytes.len() <= MESSAGE_MAX);
        assert_eq!(Message::parse(&bytes), Ok(Some(message)));
    }
}

#[test]
fn the_longest_roster_fits_a_message() {
    let entry = 4 + 18 + 2 + CERTIFICATE_MAX + 2 + DIRECTORY_MAX + 2;
    assert!(1 + 32 + 1 + 2 + ROSTER_MAX * entry <= MESSAGE_MAX);
}

#[test]
fn what_an_older_version_says_is_understood() {
    for message in all() {
        let mut bytes = message.bytes();
        let newer = match (bytes[0], &message) {
            (0x01, _) => 2 + 4,
            (0x81 | 0x82, _) => 2,
            (_, Message::Roster { members, .. }) => 2 * members.len(),
            (..) => continue,
        };
        bytes.truncate(bytes.len() - newer);
        let read = Message::parse(&bytes).expect("still whole").expect("known");
        assert_eq!(read.bytes()[..bytes.len()], bytes);
        assert!(read.bytes()[bytes.len()..].chunks(2).all(|version| version == [1, 0]), "{read:?}");
    }
}

#[test]
fn a_report_of_an_older_version_names_no_site_and_forwards_what_comes() {
    let older = PeerReport { goes: None, ..measured() };
    let report = Report { relays: true, load: None, peers: vec![older], site: None, spare: None };
    let overlay = OverlayId([4; 32]);
    let newer = Report { site: Some(SiteTag([7; 8])), spare: Some(9), ..report.clone() };
    let mut bytes = Message::Report { overlay, report: newer }.bytes();
    bytes.truncate(bytes.len() - 12);
    assert_eq!(Message::parse(&bytes), Ok(Some(Message::Report { overlay, report })));
}

#[test]
fn later_types_are_skipped_and_later_fields_ignored() {
    assert_eq!(Message::parse(&[0x60, 1, 2]), Ok(None));
    for message in all() {
        assert_eq!(Message::parse(&[message.bytes(), vec![0xaa; 5]].concat()), Ok(Some(message)));
    }
}

#[test]
fn a_directory_entry_survives_its_bytes_and_is_cut_to_its_limits() {
    let addr = "10.0.0.1:7777".parse().expect("address");
    let candidate = Candidate { kind: CandidateKind::Host, addr };
    let (name, site) = ("nöde".repeat(30), "sité".repeat(30));
    let binding = |host| Binding { vlan: 0, ip: [10, 0, 0, host].into(), mac: [2, 0, 0, 0, 0, host], is_router: false };
    let machines = Some(Excerpt { bindings: (0..100).map(binding).collect(), has_more: false });
    let entry = Directory { name, candidates: vec![candidate; 20], relays: RelayFor::Everyone, site, machines };
    let read = Directory::parse(&entry.bytes()).expect("own bytes");
    assert!(entry.name.starts_with(&read.name) && read.name.len() >= NAME_MAX - 3);
    assert!(entry.site.starts_with(&read.site) && read.site.len() >= NAME_MAX - 3);
    assert_eq!((read.candidates.len(), read.relays), (DIRECTORY_CANDIDATES_MAX, RelayFor::Everyone));
    assert!((DIRECTORY_MAX - 13..=DIRECTORY_MAX).contains(&(entry.bytes().len() + 28)), "as many machines as fit");
    let machines = read.machines.expect("some");
    assert!(machines.has_more && machines.bindings.len() >= 15 && machines.bindings[14] == binding(14));
}

#[test]
fn an_entry_of_a_version_without_relays_is_of_a_member_that_relays_for_nobody() {
    let entry = Directory { name: "old".into(), relays: RelayFor::Everyone, ..Directory::default() };
    let older = [&[3], b"old".as_slice(), &[0]].concat();
    assert_eq!(entry.bytes()[..older.len()], older);
    assert_eq!(Directory::parse(&older), Ok(Directory { relays: RelayFor::Nobody, ..entry }));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        drop(Message::parse(&bytes));
        drop(Directory::parse(&bytes));
    }

    #[test]
    fn a_bent_message_never_panics(which in 0..9usize, place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = all()[which].bytes();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        drop(Message::parse(&bytes));
    }
}
