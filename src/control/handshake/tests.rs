use super::*;
use crate::keys::OverlayKey;
use crate::wire::certificate::Certificate;

struct Member {
    identity: Identity,
    secrets: OverlaySecrets,
    rng: ChaCha20Rng,
}

fn member(number: u8, key: u8) -> Member {
    Member {
        identity: Identity::from_secret(&[number; 32]),
        secrets: OverlaySecrets::derive("lab", &OverlayKey::from_bytes([key; 32])),
        rng: ChaCha20Rng::from_seed([number; 32]),
    }
}

impl Member {
    fn local(&self) -> Local<'_> {
        Local { identity: &self.identity, secrets: &self.secrets }
    }

    fn payload(&self) -> Payload {
        let certificate = Certificate::issue(&self.secrets, &self.identity);
        let (has_aes, follows, streams, trees, times) = (true, true, true, true, true);
        Payload { boot: 1, timestamp: [0; 12], has_aes, follows, streams, trees, times, certificate }
    }

    fn init(&mut self, remote: NodeId, suite: Suite) -> (Initiator, Vec<u8>) {
        let mut rng = self.rng.clone();
        let made = initiate(self.local(), remote, (suite, 11), &self.payload(), &mut rng).expect("valid keys");
        self.rng = rng;
        made
    }

    fn read(&mut self, packet: &[u8], stand_in: bool) -> Result<Responder, HandshakeError> {
        let envelope = Envelope::parse(packet).map_err(HandshakeError::Payload)?;
        let mut rng = self.rng.clone();
        respond(self.local(), &envelope, stand_in, &mut Certificates::default(), &mut rng)
    }
}

/// The packet with another suite in its clear part. Its `mac1` fits: every member can make one.
fn with_suite(receiver: Local<'_>, packet: &[u8], suite: Suite) -> Vec<u8> {
    let envelope = Envelope::parse(packet).expect("own packet");
    Envelope { suite, ..envelope }.bytes(|covered| mac1(receiver.secrets, receiver.identity.id(), covered))
}

#[test]
fn two_members_agree_on_mirrored_keys() {
    for suite in [Suite::ChaChaPoly, Suite::AesGcm, Suite::StandIn] {
        let (mut a, mut b) = (member(1, 9), member(2, 9));
        let (mut initiator, init) = a.init(b.identity.id(), suite);
        assert!(is_for_us(b.local(), &init));
        let responder = b.read(&init, suite == Suite::StandIn).expect("genuine");
        assert_eq!(responder.payload.certificate.node, a.identity.id());
        let (resp, b_keys) = responder.answer(b.local(), 22, &b.payload()).expect("valid keys");
        assert!(is_for_us(a.local(), &resp));
        let envelope = Envelope::parse(&resp).expect("own packet");
        assert_eq!(envelope.receiver, Some(11));
        let (payload, a_keys) = initiator.finish(&envelope, &mut Certificates::default()).expect("genuine");
        assert_eq!(payload.certificate.node, b.identity.id());
        assert_eq!((a_keys.send, a_keys.receive), (b_keys.receive, b_keys.send));
        assert_ne!(a_keys.send, a_keys.receive);
        assert_eq!((a_keys.local_index, a_keys.remote_index), (b_keys.remote_index, b_keys.local_index));
    }
}

#[test]
fn another_key_does_not_pass_the_gate_nor_the_handshake() {
    let (mut a, mut stranger) = (member(1, 9), member(2, 8));
    let (_, init) = a.init(stranger.identity.id(), Suite::AesGcm);
    assert!(!is_for_us(stranger.local(), &init));
    assert!(stranger.read(&init, false).is_err());
}

#[test]
fn the_daemon_refuses_the_stand_in() {
    let (mut a, mut b) = (member(1, 9), member(2, 9));
    let (_, init) = a.init(b.identity.id(), Suite::StandIn);
    assert_eq!(b.read(&init, false).err(), Some(HandshakeError::Suite));
}

#[test]
fn no_byte_of_init_can_change() {
    let (mut a, b) = (member(1, 9), member(2, 9));
    let (_, init) = a.init(b.identity.id(), Suite::AesGcm);
    for place in 0..init.len() - 16 {
        let mut bent = init.clone();
        bent[place] ^= 1;
        assert!(!is_for_us(b.local(), &bent), "byte {place}");
    }
}

#[test]
fn an_init_whose_suite_was_changed_is_refused() {
    for (asked, told) in [(Suite::AesGcm, Suite::ChaChaPoly), (Suite::ChaChaPoly, Suite::AesGcm)] {
        let (mut a, mut b) = (member(1, 9), member(2, 9));
        let (_, init) = a.init(b.identity.id(), asked);
        let bent = with_suite(b.local(), &init, told);
        assert!(is_for_us(b.local(), &bent));
        assert_eq!(b.read(&bent, false).err(), Some(HandshakeError::Noise), "{asked:?}, then {told:?}");
    }
}

#[test]
fn a_resp_cannot_change_the_suite() {
    for (asked, told) in [(Suite::AesGcm, Suite::ChaChaPoly), (Suite::ChaChaPoly, Suite::AesGcm)] {
        let (mut a, mut b) = (member(1, 9), member(2, 9));
        let (mut initiator, init) = a.init(b.identity.id(), asked);
        let responder = b.read(&init, false).expect("genuine");
        let (resp, b_keys) = responder.answer(b.local(), 22, &b.payload()).expect("valid keys");
        let bent = with_suite(a.local(), &resp, told);
        assert!(is_for_us(a.local(), &bent));
        let mut finish = |packet| {
            let envelope = Envelope::parse(packet).expect("own packet");
            initiator.finish(&envelope, &mut Certificates::default())
        };
        assert_eq!(finish(&bent).err(), Some(HandshakeError::Suite));
        let (_, a_keys) = finish(&resp).expect("sealed as was asked");
        assert_eq!((a_keys.suite, b_keys.suite), (asked, asked));
        assert_eq!((a_keys.send, a_keys.receive), (b_keys.receive, b_keys.send));
    }
}

#[test]
fn a_member_cannot_show_anothers_certificate() {
    let (mut a, mut b, c) = (member(1, 9), member(2, 9), member(3, 9));
    let payload = c.payload();
    let (_, init) =
        initiate(a.local(), b.identity.id(), (Suite::AesGcm, 1), &payload, &mut a.rng.clone()).expect("valid keys");
    assert_eq!(b.read(&init, false).err(), Some(HandshakeError::NotAMember));
    a.rng.next_u64();
}
