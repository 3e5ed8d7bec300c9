use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use super::*;
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::PortId;
use crate::datapath::seal::{Opener, Sealer, SessionKeys, Share};
use crate::keys::{Identity, OverlayKey, OverlaySecrets};
use crate::time::WallTime;
use crate::wire::data::{HEADER_LEN, Header, TAG_LEN};

const PORT: PortId = PortId(1);
const PATH: Path = Path::Direct(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 7777)));

/// A member, and its half of what it has with the other one.
struct Member {
    me: Me,
    secrets: OverlaySecrets,
    certificate: Certificate,
    peer: Peer,
    fx: Effects,
}

fn member(number: u8, other: u8, has_aes: bool) -> Member {
    let secrets = OverlaySecrets::derive("lab", &OverlayKey::from_bytes([9; 32]));
    let [identity, other] = [number, other].map(|number| Identity::from_secret(&[number; 32]));
    let certificate = Certificate::issue(&secrets, &identity);
    let (candidates, homes) = (Vec::new(), Vec::new());
    let me = Me { identity, boot: 1, has_aes, stand_in: false, candidates, nat: None, homes, birthday: false };
    let peer = Peer::new(PORT, (OverlayIndex(0), 1500), other.id(), Time::START);
    let fx = Effects::new([number; 32], Time::START, WallTime::default());
    Member { me, secrets, certificate, peer, fx }
}

impl Member {
    fn init(&mut self) -> Vec<u8> {
        let local = Local { identity: &self.me.identity, secrets: &self.secrets };
        self.peer.begin_handshake(&mut self.fx, &self.me, local, &self.certificate);
        self.peer.attempt.as_ref().expect("an attempt").packet.clone()
    }

    fn resp(&mut self, init: &[u8]) -> Vec<u8> {
        let local = Local { identity: &self.me.identity, secrets: &self.secrets };
        let (envelope, mut known) = (Envelope::parse(init).expect("an INIT"), Certificates::default());
        let responder = handshake::respond(local, &envelope, false, &mut known, &mut self.fx.rng).expect("genuine");
        self.peer.on_init(&mut self.fx, (&self.me, local), &self.certificate, responder, ([0; 16], PATH));
        self.peer.answered.as_ref().expect("an answer").packet.clone()
    }

    /// The keys that were installed last.
    fn keys(&self) -> SessionKeys {
        let keys = |command: &Command| {
            let Command::Install { keys, .. } = command else { return None };
            Some(keys.clone())
        };
        self.fx.commands.iter().rev().find_map(keys).expect("keys")
    }
}

/// INIT and RESP, and both once more if the first member wants other keys at once.
fn shake_hands(first: &mut Member, second: &mut Member) {
    for _ in 0..2 {
        let resp = second.resp(&first.init());
        let envelope = Envelope::parse(&resp).expect("a RESP");
        first.peer.on_resp(&mut first.fx, &mut Certificates::default(), &envelope, PATH);
        assert!(passes(first, second) && passes(second, first));
        if first.fx.timers.when(Timer::Rekey(PORT)) != Some(first.fx.now) {
            break;
        }
    }
}

/// Whether one opens what the other seals.
fn passes(from: &Member, to: &Member) -> bool {
    let mut packet = vec![7; HEADER_LEN + 60 + TAG_LEN];
    Sealer::new(&from.keys(), Share::WHOLE).seal(true, &mut packet);
    let header = Header::parse(&packet).expect("a header");
    Opener::new(&to.keys()).open(header, &mut packet).is_ok_and(|plain| *plain == [7; 60])
}

#[test]
fn frames_are_sealed_with_aes_where_both_have_it_and_with_chacha_elsewhere() {
    for (has_aes, suite) in [
        ([true, true], Suite::AesGcm),
        ([true, false], Suite::ChaChaPoly),
        ([false, true], Suite::ChaChaPoly),
        ([false, false], Suite::ChaChaPoly),
    ] {
        let (mut first, mut second) = (member(1, 2, has_aes[0]), member(2, 1, has_aes[1]));
        for _ in 0..2 {
            shake_hands(&mut first, &mut second);
            assert_eq!([first.keys().suite, second.keys().suite], [suite; 2], "{has_aes:?}");
            // Whoever makes the next ones.
            std::mem::swap(&mut first, &mut second);
        }
    }
}
