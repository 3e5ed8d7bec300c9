//! Whatever bytes come, every decoder ends in a value or an error; what it takes survives its bytes.
//!
//! Together with `wire_storm` a million inputs; `LONGWIRE_INPUTS=100000000` makes it a long run.

mod bytes;

use std::net::SocketAddr;

use bytes::{Bytes, feed, share};
use longwire::config::{AllowedOverlay, Cidr, Config, InterfaceName, OverlayName, SupernodeText};
use longwire::datapath::clamp::clamp_mss;
use longwire::datapath::frame::{self, Mac};
use longwire::datapath::neighbour;
use longwire::keys::{Fingerprint, Identity, NodeId, OverlayId, OverlayKey, OverlaySecrets};
use longwire::wire::advice::Advice;
use longwire::wire::carry::{Carry, Grant, Leg, Neighbour, Neighbours, RelayFor};
use longwire::wire::certificate::Certificate;
use longwire::wire::data::{self, Checksum, Fragment, FrameKind, Meta};
use longwire::wire::discovery::{self, Announcement};
use longwire::wire::handshake::{self, Envelope, Payload, Suite};
use longwire::wire::inventory::{Binding, Excerpt, Inventory, Item};
use longwire::wire::message::{self, Directory, Member, OtherSupernode, Refusal};
use longwire::wire::probe::{self, Probe};
use longwire::wire::relay::{self, LegKey, RelayId};
use longwire::wire::session::{self, Candidate, CandidateKind};
use longwire::wire::stream::{self, Frame};
use longwire::wire::tree::{self, Head, ShortId, Tree};
use longwire::wire::version::Version;
use longwire::wire::{DecodeError, Kind, Parts, observe};

#[test]
fn arbitrary_handshakes_end_in_a_value_or_an_error() {
    let envelopes = [None, Some(9)].map(|receiver| {
        let envelope = Envelope { suite: Suite::AesGcm, key_id: 3, sender: 0xdead_beef, receiver, noise: &[7; 180] };
        envelope.bytes(|_| [7; 16])
    });
    feed(share(120), &mut Bytes::new("envelope", envelopes.into()), |input| {
        if let Ok(envelope) = Envelope::parse(input) {
            let (covered, mac1) = handshake::split_mac1(input).expect("a whole envelope has its MAC");
            assert_eq!(envelope.bytes(|_| mac1.try_into().expect("16 bytes")), input);
            assert!(covered.len() < input.len());
        }
    });
    let (has_aes, follows, streams, trees, times) = (true, true, true, true, true);
    let certificate = certificate();
    let payload = Payload { boot: 7, timestamp: [3; 12], has_aes, follows, streams, trees, times, certificate };
    feed(share(20), &mut Bytes::new("payload", vec![payload.bytes()]), |input| {
        if let Ok(payload) = Payload::parse(input) {
            assert_eq!(Payload::parse(&payload.bytes()), Ok(payload));
        }
    });
}

#[test]
fn arbitrary_announcements_end_in_a_value_or_an_error() {
    let addresses =
        vec![SocketAddr::from(([192, 0, 2, 1], 7777)), SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 1], 1))];
    let told = Announcement { node: NodeId([3; 32]), timestamp: [4; 12], wants_answer: true, addresses };
    feed(share(20), &mut Bytes::new("announcement", vec![told.bytes()]), |input| {
        if let Ok(told) = Announcement::parse(input) {
            assert_eq!(Announcement::parse(&told.bytes()), Ok(told));
        }
    });
    let packet = [discovery::head(&[5; 12]).as_slice(), &[1; discovery::PLAIN_LEN + 16]].concat();
    feed(share(10), &mut Bytes::new("announced", vec![packet]), |input| {
        if let Ok(Parts { head, nonce, sealed }) = discovery::split(input) {
            assert_eq!([head, sealed].concat(), input);
            assert_eq!(discovery::head(&nonce), head);
        }
    });
}

#[test]
fn arbitrary_loop_probes_end_in_a_value_or_an_error() {
    let told = Probe { node: NodeId([3; 32]), token: 4 };
    feed(share(10), &mut Bytes::new("probe", vec![told.bytes()]), |input| {
        if let Ok(told) = Probe::parse(input) {
            assert_eq!(told.bytes(), input);
        }
    });
    let body = [probe::head(&[5; 12]).as_slice(), &told.bytes(), &[1; 16]].concat();
    feed(share(10), &mut Bytes::new("probed", vec![body]), |input| {
        if let Ok(Parts { head, nonce, sealed }) = probe::split(input) {
            assert_eq!([head, sealed].concat(), input);
            assert_eq!(probe::head(&nonce), head);
        }
    });
}

#[test]
fn a_bent_certificate_is_never_genuine() {
    let genuine = certificate();
    feed(share(20), &mut Bytes::new("certificate", vec![genuine.bytes().to_vec()]), |input| {
        if let Ok(certificate) = Certificate::parse(input) {
            assert_eq!(certificate, genuine, "taken though it was bent");
        }
    });
}

#[test]
fn arbitrary_packets_end_in_a_value_or_an_error() {
    let header = data::Header { is_data: true, receiver: 0x0102_0304, counter: 77 };
    let packets = vec![
        [header.bytes().as_slice(), &[9; 60]].concat(),
        [data::Header { is_data: false, ..header }.bytes().as_slice(), &[9; 17]].concat(),
        [
            &[Meta { kind: FrameKind::Moved, fragment: true, checksum: Checksum::Finished }.byte()],
            Fragment { id: 3, part: 1 }.bytes().as_slice(),
            &[5; 30],
        ]
        .concat(),
    ];
    feed(share(120), &mut Bytes::new("data", packets), |input| {
        if let Ok(header) = data::Header::parse(input) {
            assert_eq!(header.bytes(), input[..data::HEADER_LEN]);
        }
        let Some((first, rest)) = input.split_first() else { return };
        if let Ok(meta) = Meta::parse(*first) {
            assert_eq!(meta.byte(), *first);
        }
        if let Ok((fragment, rest)) = Fragment::parse(rest) {
            assert_eq!([&fragment.bytes(), rest].concat(), input[1..]);
        }
        assert_eq!(Kind::of(*first).is_some(), matches!(*first, 1 | 2 | 4 | 5 | 8 | 10 | 11 | 13) || first & 0x40 != 0);
    });
}

#[test]
fn arbitrary_trees_end_in_a_list_and_a_frame_or_an_error() {
    let mut whole = Vec::new();
    let head = Head { is_returned: false, hops: 5, root: ShortId(7) };
    tree::write(&mut whole, head, [ShortId(8), ShortId(9)].into_iter(), &[5; 60]);
    feed(share(20), &mut Bytes::new("tree", vec![whole]), |input| {
        let Ok(tree) = Tree::parse(input) else { return };
        let (members, mut again) = (tree.members().collect::<Vec<_>>(), Vec::new());
        tree::write(&mut again, tree.head, members.into_iter(), tree.frame);
        assert_eq!(again, input);
        assert_eq!(tree::frame(input), tree.frame);
    });
}

#[test]
fn arbitrary_streams_end_in_frames_or_an_error() {
    let mut whole = Vec::new();
    stream::push_frame(&mut whole, &[stream::CONTROL], &message::Message::Ping { nonce: 7 }.bytes());
    stream::push_frame(&mut whole, &[], &[relay::RELAY; 60]);
    feed(share(10), &mut Bytes::new("stream", vec![whole]), |input| {
        let Some(length) = input.first_chunk::<{ stream::LENGTH_LEN }>() else { return };
        let Some(len) = stream::frame_len(*length) else { return };
        assert!((1..=stream::FRAME_MAX).contains(&len));
        let Some(bytes) = input.get(stream::LENGTH_LEN..stream::LENGTH_LEN + len) else { return };
        let mut again = Vec::new();
        match Frame::parse(bytes) {
            Ok(Frame::Control(message)) => stream::push_frame(&mut again, &[stream::CONTROL], message),
            Ok(Frame::Packet(packet)) => stream::push_frame(&mut again, &[], packet),
            Err(_) => return,
        }
        assert_eq!(again, input[..again.len()]);
    });
}

#[test]
fn a_bent_relay_header_is_refused_or_not_genuine() {
    let key = LegKey([5; 16]);
    let mut packet = vec![4; relay::HEADER_LEN + 60];
    relay::Header { down: false, relay: RelayId(3), counter: 9 }.write(key, &mut packet);
    assert!(relay::is_genuine(key, &packet));
    let (head, packets) = (packet[..relay::HEADER_LEN].to_vec(), vec![packet]);
    feed(share(100), &mut Bytes::new("relay", packets), |input| {
        if relay::Header::parse(input).is_ok() && relay::is_genuine(key, input) {
            assert_eq!(input[..relay::HEADER_LEN], head, "genuine though it was bent");
        }
    });
}

#[test]
fn arbitrary_questions_and_answers_of_observe_end_in_a_value_or_an_error() {
    let question = observe::Observe { token: 5, elsewhere: true };
    let answer = observe::Observed { token: 5, elsewhere: false, seen: v4(), other: Some(v4()) };
    feed(share(40), &mut Bytes::new("observe", vec![question.bytes(), answer.bytes()]), |input| {
        if let Ok(question) = observe::Observe::parse(input) {
            assert_eq!(question.bytes(), input);
        }
        if let Ok(answer) = observe::Observed::parse(input) {
            assert_eq!(observe::Observed::parse(&answer.bytes()), Ok(answer));
        }
    });
}

#[test]
fn arbitrary_session_messages_end_in_a_value_or_an_error() {
    let list = candidates(6);
    let nat = Some(observe::NatClass {
        mapping: observe::Mapping::PerPort,
        filtering: Some(observe::Filtering::PerPort),
        ports: observe::Ports::Counting(1),
    });
    let moved = session::Moved { vlan: 10, mac: [2, 0, 0, 0, 0, 9], sequence: 3 };
    let messages = [
        session::Message::Probe { token: 5, sent: 7, is_spare: true },
        session::Message::Answer { token: 5, seen: Some(v4()) },
        session::Message::Answer { token: 6, seen: None },
        session::Message::Candidates { round: 3, wants_answer: true, list, nat },
        session::Message::Close,
        session::Message::Confirm,
        session::Message::MtuProbe { token: 5 },
        session::Message::MtuAnswer { token: 5, size: 1472 },
        session::Message::Received { longest: 1451 },
        session::Message::Neighbours(Neighbours {
            wants_answer: false,
            list: vec![Neighbour { node: NodeId([3; 32]), rtt_us: 900 }; 3],
        }),
        session::Message::Carry(Carry { node: NodeId([3; 32]), wanted: true }),
        session::Message::Leg(Leg { node: NodeId([3; 32]), grant: None }),
        session::Message::Leg(Leg {
            node: NodeId([3; 32]),
            grant: Some(Grant { own: RelayId(1), key: LegKey([2; 16]), peer: RelayId(3) }),
        }),
        session::Message::Search { step: session::SearchStep::Go, door: Some(session::Door { at: v4(), step: -2 }) },
        session::Message::ProbeHeard { token: 6 },
        session::Message::ProbeSent { token: 6 },
        session::Message::Claim { moved, reason: session::ClaimReason::Announced },
        session::Message::Location { moved, owner: NodeId([7; 32]) },
        session::Message::Inventory(inventory()),
        session::Message::Sleep,
    ];
    let mut genuine: Vec<_> = messages.iter().map(session::Message::bytes).collect();
    genuine.push([messages[6].bytes(), vec![0; 200]].concat());
    feed(share(120), &mut Bytes::new("session", genuine), |input| {
        if let Ok(message) = session::Message::parse(input) {
            assert_eq!(session::Message::parse(&message.bytes()), Ok(message));
        }
    });
}

#[test]
fn arbitrary_control_messages_end_in_a_value_or_an_error() {
    let genuine = control_messages().iter().map(message::Message::bytes).collect();
    feed(share(100), &mut Bytes::new("control", genuine), |input| {
        if let Ok(Some(message)) = message::Message::parse(input) {
            assert_eq!(message::Message::parse(&message.bytes()), Ok(Some(message)));
        }
    });
    let too_long = vec![0x01; message::MESSAGE_MAX + 1];
    assert_eq!(message::Message::parse(&too_long), Err(DecodeError::Long));
    let (name, site) = ("attic".into(), "home".into());
    let bindings = inventory().items.iter().map(|item| item.binding).collect();
    let machines = Some(Excerpt { bindings, has_more: true });
    let directory = Directory { name, candidates: candidates(3), relays: RelayFor::Everyone, site, machines };
    feed(share(60), &mut Bytes::new("directory", vec![directory.bytes()]), |input| {
        if let Ok(directory) = Directory::parse(input) {
            assert!(!directory.name.contains(char::is_control) && !directory.site.contains(char::is_control));
            assert_eq!(Directory::parse(&directory.bytes()), Ok(directory));
        }
    });
}

#[test]
fn arbitrary_frames_are_read_within_their_bounds() {
    feed(share(120), &mut Bytes::new("frame", frames()), |input| {
        let mut scratch = Vec::new();
        let clamped = clamp_mss(input, Checksum::Finished, 1439, &mut scratch);
        assert_eq!(clamped.len(), input.len());
        let changed = clamped.iter().zip(input).filter(|(new, old)| new != old).count();
        assert!(changed <= 4, "two bytes of the option and two of the checksum at most: {changed}");
        let Some(header) = frame::Header::parse(input) else {
            return assert!(input.len() < 22 || input[12] == 0x81 || input[12] == 0x88, "a whole header was not read");
        };
        assert!(header.payload <= input.len() && header.vlan < 4096);
        let _either = frame::announces(input, &header);
        let heard = neighbour::read(input, &header);
        assert!(heard.address.is_some() || (heard.speaker, heard.question) == (None, None), "{heard:?}");
        let _which = frame::link_local(header.dst);
        if let Some(payload) = frame::udp_payload(input, &header) {
            assert!(input.as_ptr_range().contains(&payload.as_ptr()) || payload.is_empty());
        }
    });
}

#[test]
fn arbitrary_texts_end_in_a_value_or_a_sentence() {
    let key = OverlayKey::from_bytes([7; 32]).to_text();
    let id = NodeId([9; 32]).to_string();
    let words = [&key, &id, "sn.example:7777", "[2001:db8::1]:9", "10.0.0.1/24", "br0", "02:00:5e:10:00:01"];
    let mut words = Bytes::new("words", words.iter().map(|word| word.as_bytes().to_vec()).collect());
    words.learn(format!("192.0.2.1:9#{id}").into_bytes());
    let secret = key.clone();
    feed(share(100), &mut words, |input| {
        let word = String::from_utf8_lossy(input);
        if let Ok(taken) = word.parse::<OverlayKey>() {
            assert_eq!(taken.to_text(), secret, "the checksum let another key pass");
        }
        check::<OverlayId>(&word);
        check::<NodeId>(&word);
        check::<Fingerprint>(&word);
        check::<SupernodeText>(&word);
        check::<AllowedOverlay>(&word);
        check::<OverlayName>(&word);
        check::<InterfaceName>(&word);
        check::<Cidr>(&word);
        check::<Mac>(&word);
    });
    let files = ["node", "supernode", "two-overlays"].map(|name| {
        let path = format!("{}/config/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).expect("an example config");
        // Comments would only be bent into other comments.
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n"));
        lines.collect::<String>().into_bytes()
    });
    feed(share(20), &mut Bytes::new("config", files.into()), |input| {
        if let Err(error) = Config::parse(&String::from_utf8_lossy(input)) {
            let says = error.to_string();
            assert!(says.starts_with("line ") && !says.contains('\n'), "{says}");
        }
    });
}

/// A value, or an error that is one line.
fn check<T: std::str::FromStr<Err: std::fmt::Display>>(word: &str) {
    if let Err(error) = word.parse::<T>() {
        let says = error.to_string();
        assert!(!says.is_empty() && !says.contains('\n'), "{says:?}");
    }
}

fn v4() -> SocketAddr {
    "198.51.100.7:7777".parse().expect("an address")
}

fn certificate() -> Certificate {
    let secrets = OverlaySecrets::derive("lab", &OverlayKey::from_bytes([1; 32]));
    Certificate::issue(&secrets, &Identity::from_secret(&[2; 32]))
}

fn candidates(count: usize) -> Vec<Candidate> {
    let kinds = [CandidateKind::Host, CandidateKind::Reflexive, CandidateKind::PeerReflexive];
    let v6 = "[2001:db8::1]:1".parse().expect("an address");
    let all = kinds.into_iter().cycle().zip([v4(), v6].into_iter().cycle());
    all.map(|(kind, addr)| Candidate { kind, addr }).take(count).collect()
}

fn control_messages() -> Vec<message::Message> {
    use message::Message as M;
    let overlay = OverlayId([6; 32]);
    let certificate = certificate().bytes().to_vec();
    let directory = vec![8; 70];
    let member = |number: u32| Member {
        relay: RelayId(number),
        seen: v4(),
        certificate: certificate.clone(),
        directory: directory.clone(),
        version: Version::OURS,
    };
    vec![
        M::Register {
            certificate: certificate.clone(),
            signature: [4; 64],
            directory: directory.clone(),
            version: Version::OURS,
            continues: Some(RelayId(3)),
        },
        M::Ping { nonce: 1 },
        M::Update { overlay, directory: directory.clone() },
        M::Leave { overlay },
        M::Welcome { overlay, relay: RelayId(1), key: LegKey([2; 16]), seen: v4(), version: Version::OURS },
        M::Refused { overlay, reason: Refusal::Full, version: Version::OURS },
        M::Pong { nonce: 1, seen: v4() },
        M::Roster { overlay, reset: true, members: (0..3).map(member).collect() },
        M::Advice { overlay, advice: Advice { partner: RelayId(1), target: RelayId(2), gain: 4_500 } },
        M::Gone { overlay, relays: (0..20).map(RelayId).collect() },
        M::Supernodes {
            list: vec![OtherSupernode { address: "sn:7777".into(), fingerprint: Fingerprint([7; 32]) }; 3],
        },
    ]
}

/// ARP, RARP, an IPv6 advertisement, UDP and TCP over both, tags; each with its header right.
fn frames() -> Vec<Vec<u8>> {
    let ethernet = |ethertype: u16, body: &[u8]| [&[2; 12], ethertype.to_be_bytes().as_slice(), body].concat();
    let arp = |operation: u8| {
        let mut body = vec![0, 1, 8, 0, 6, 4, 0, operation];
        body.extend([2, 2, 2, 2, 2, 2, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
        body
    };
    let ipv4 = |protocol: u8, body: &[u8]| {
        let total = u16::try_from(20 + body.len()).expect("short").to_be_bytes();
        let head = [0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        [head.as_slice(), body].concat()
    };
    let ipv6 = |next: u8, body: &[u8]| {
        let len = u16::try_from(body.len()).expect("short").to_be_bytes();
        let head = [0x60, 0, 0, 0, len[0], len[1], next, 255];
        [head.as_slice(), &[0xfe; 32], body].concat()
    };
    let udp = [&[0x1e, 0x61, 0x1e, 0x61, 0, 48, 0, 0], [4; 40].as_slice()].concat();
    let syn = [1, 2, 3, 4, 0, 0, 0, 9, 0, 0, 0, 0, 0x60, 2, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 180];
    let advertisement = [&[136, 0, 0, 0, 0x20, 0, 0, 0], [0xfe; 16].as_slice(), &[2, 1, 2, 2, 2, 2, 2, 2]].concat();
    let tagged = [&[0, 10, 8, 0], ipv4(17, &udp).as_slice()].concat();
    let twice = [&[0, 10, 0x81, 0, 0, 20, 8, 0], ipv4(6, &syn).as_slice()].concat();
    vec![
        ethernet(0x0806, &arp(1)),
        ethernet(0x8035, &arp(3)),
        ethernet(0x0800, &ipv4(17, &udp)),
        ethernet(0x0800, &ipv4(6, &syn)),
        ethernet(0x86dd, &ipv6(17, &udp)),
        ethernet(0x86dd, &ipv6(6, &syn)),
        ethernet(0x86dd, &ipv6(58, &advertisement)),
        ethernet(0x8100, &tagged),
        ethernet(0x88a8, &twice),
    ]
}

fn inventory() -> Inventory {
    let four = Binding { vlan: 7, ip: [10, 0, 0, 1].into(), mac: [2, 0, 0, 0, 0, 9], is_router: false };
    let six = Binding { ip: std::net::Ipv6Addr::LOCALHOST.into(), is_router: true, ..four };
    let group = Binding::of_group([239, 1, 2, 3].into());
    let items =
        [(four, true), (six, false), (group, true)].map(|(binding, is_gone)| Item { binding, is_gone }).to_vec();
    Inventory { is_anew: true, has_more: true, wants_answer: false, digest: 5, items }
}
