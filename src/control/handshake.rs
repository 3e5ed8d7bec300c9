//! The handshake: Noise IKpsk2 behind an outer MAC (protocol.md section 4).
//!
//! Stateless functions around one message each. Who initiates, when, and what follows is `peer`'s.
//! Read first: the Noise Protocol Framework, revision 34, sections 7.5 (IK) and 9 (psk2).

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use snow::resolvers::{BoxedCryptoResolver, CryptoResolver, DefaultResolver, FallbackResolver, RingResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use thiserror::Error;

use super::certificates::Certificates;
use crate::datapath::seal::SessionKeys;
use crate::keys::{Identity, NodeId, OverlaySecrets};
use crate::wire::DecodeError;
use crate::wire::handshake::{Envelope, Payload, Suite, split_mac1};

/// Room for a Noise message: its keys, its payload with a certificate, its tags.
const MESSAGE_MAX: usize = 1024;

/// Why a handshake packet is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// The Noise message does not fit our keys.
    #[error("the handshake does not fit our keys")]
    Noise,
    /// What was inside it is not a payload, or its certificate does not hold.
    #[error("the handshake's payload: {0}")]
    Payload(#[from] DecodeError),
    /// Its certificate is for another node or overlay.
    #[error("the certificate is somebody else's")]
    NotAMember,
    /// Another AEAD than was asked for, or another key than ours.
    #[error("an unexpected suite")]
    Suite,
}

/// Who we are in one overlay.
#[derive(Clone, Copy)]
pub struct Local<'a> {
    /// Our keys.
    pub identity: &'a Identity,
    /// The overlay's.
    pub secrets: &'a OverlaySecrets,
}

/// The key of `mac1` in packets to `receiver`.
fn mac1(secrets: &OverlaySecrets, receiver: NodeId, covered: &[u8]) -> [u8; 16] {
    let key =
        Blake2s256::new().chain_update(b"mac1").chain_update(secrets.mac_key()).chain_update(receiver.0).finalize();
    let mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(&key).expect("BLAKE2s takes keys of 32 bytes");
    Mac::chain_update(mac, covered).finalize_fixed().into()
}

/// Whether `packet` was made for us by somebody who holds the overlay's key. 0.5 us.
pub fn is_for_us(local: Local<'_>, packet: &[u8]) -> bool {
    split_mac1(packet).is_some_and(|(covered, shown)| {
        let expected = u128::from_be_bytes(mac1(local.secrets, local.identity.id(), covered));
        shown.try_into().is_ok_and(|shown| u128::from_be_bytes(shown) == expected)
    })
}

/// One side of a handshake in progress.
enum Side {
    Noise(Box<HandshakeState>),
    StandIn(stand_in::Side),
}

/// The initiator's side between INIT and RESP.
pub struct Initiator {
    side: Side,
    suite: Suite,
    remote: NodeId,
    /// The index RESP must name.
    pub local_index: u32,
}

/// Makes INIT.
pub fn initiate(
    local: Local<'_>,
    remote: NodeId,
    (suite, local_index): (Suite, u32),
    payload: &Payload,
    rng: &mut ChaCha20Rng,
) -> Option<(Initiator, Vec<u8>)> {
    let mut side = Side::build(local, suite, Some(remote), rng)?;
    let noise = side.write(&payload.bytes())?;
    let envelope =
        Envelope { suite, key_id: local.secrets.key_id(), sender: local_index, receiver: None, noise: &noise };
    let packet = envelope.bytes(|covered| mac1(local.secrets, remote, covered));
    Some((Initiator { side, suite, remote, local_index }, packet))
}

impl Initiator {
    /// Reads RESP. The initiator stays as it was if the packet is not genuine.
    pub(super) fn finish(
        &mut self,
        envelope: &Envelope<'_>,
        certificates: &mut Certificates,
    ) -> Result<(Payload, SessionKeys), HandshakeError> {
        if envelope.suite != self.suite {
            return Err(HandshakeError::Suite);
        }
        let plain = self.side.read(envelope.noise).ok_or(HandshakeError::Noise)?;
        let payload = Payload::parse_with(&plain, |bytes| certificates.check(bytes))?;
        if payload.certificate.node != self.remote {
            return Err(HandshakeError::NotAMember);
        }
        let (send, receive) = self.side.split();
        let (local_index, remote_index, streams) = (self.local_index, envelope.sender, payload.streams);
        Ok((payload, SessionKeys { suite: self.suite, send, receive, local_index, remote_index, streams }))
    }
}

/// The responder's side between INIT and RESP: the initiator is known and genuine.
pub struct Responder {
    side: Side,
    suite: Suite,
    remote_index: u32,
    /// What the initiator said; its certificate fits its key.
    pub payload: Payload,
}

/// Reads INIT, whose `mac1` was checked. 77 us of Diffie-Hellman.
pub(super) fn respond(
    local: Local<'_>,
    envelope: &Envelope<'_>,
    stand_in: bool,
    certificates: &mut Certificates,
    rng: &mut ChaCha20Rng,
) -> Result<Responder, HandshakeError> {
    if (envelope.suite == Suite::StandIn) != stand_in || envelope.key_id != local.secrets.key_id() {
        return Err(HandshakeError::Suite);
    }
    let mut side = Side::build(local, envelope.suite, None, rng).ok_or(HandshakeError::Noise)?;
    let plain = side.read(envelope.noise).ok_or(HandshakeError::Noise)?;
    let payload = Payload::parse_with(&plain, |bytes| certificates.check(bytes))?;
    let is_own_certificate = side.remote_static() == Some(payload.certificate.node.0);
    if !is_own_certificate || payload.certificate.overlay != local.secrets.id() {
        return Err(HandshakeError::NotAMember);
    }
    Ok(Responder { side, suite: envelope.suite, remote_index: envelope.sender, payload })
}

impl Responder {
    /// Makes RESP and the keys.
    pub fn answer(mut self, local: Local<'_>, local_index: u32, payload: &Payload) -> Option<(Vec<u8>, SessionKeys)> {
        let remote = self.payload.certificate.node;
        let noise = self.side.write(&payload.bytes())?;
        let envelope = Envelope {
            suite: self.suite,
            key_id: local.secrets.key_id(),
            sender: local_index,
            receiver: Some(self.remote_index),
            noise: &noise,
        };
        let packet = envelope.bytes(|covered| mac1(local.secrets, remote, covered));
        let (receive, send) = self.side.split();
        let (remote_index, streams) = (self.remote_index, self.payload.streams);
        Some((packet, SessionKeys { suite: self.suite, send, receive, local_index, remote_index, streams }))
    }
}

impl Side {
    fn build(local: Local<'_>, suite: Suite, remote: Option<NodeId>, rng: &mut ChaCha20Rng) -> Option<Self> {
        let name = match suite {
            Suite::ChaChaPoly => "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s",
            Suite::AesGcm => "Noise_IKpsk2_25519_AESGCM_BLAKE2s",
            Suite::StandIn => return Some(Self::StandIn(stand_in::Side::new(local, remote, rng.next_u64()))),
        };
        let prologue = [b"longwire/1".as_slice(), &local.secrets.id().0].concat();
        let secret = zeroize::Zeroizing::new(local.identity.static_secret());
        let builder = Builder::with_resolver(name.parse().ok()?, resolver(rng))
            .local_private_key(secret.as_slice())
            .and_then(|builder| builder.prologue(&prologue))
            .and_then(|builder| builder.psk(2, local.secrets.psk()))
            .ok()?;
        let state = match &remote {
            Some(remote) => builder.remote_public_key(&remote.0).and_then(Builder::build_initiator),
            None => builder.build_responder(),
        };
        state.ok().map(|state| Self::Noise(Box::new(state)))
    }

    fn write(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Noise(state) => {
                let mut message = vec![0; MESSAGE_MAX];
                let len = state.write_message(payload, &mut message).ok()?;
                message.truncate(len);
                Some(message)
            }
            Self::StandIn(side) => Some(side.write(payload)),
        }
    }

    fn read(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Noise(state) => {
                let mut payload = vec![0; MESSAGE_MAX];
                let len = state.read_message(message, &mut payload).ok()?;
                payload.truncate(len);
                Some(payload)
            }
            Self::StandIn(side) => side.read(message),
        }
    }

    fn remote_static(&self) -> Option<[u8; 32]> {
        match self {
            Self::Noise(state) => state.get_remote_static()?.try_into().ok(),
            Self::StandIn(side) => side.remote.map(|remote| remote.0),
        }
    }

    /// Initiator to responder, responder to initiator.
    fn split(&mut self) -> ([u8; 32], [u8; 32]) {
        match self {
            Self::Noise(state) => state.dangerously_get_raw_split(),
            Self::StandIn(side) => side.split(),
        }
    }
}

/// ring for what ring does well; RustCrypto for X25519 and BLAKE2s; the node's own randomness.
fn resolver(rng: &mut ChaCha20Rng) -> BoxedCryptoResolver {
    let fallback = FallbackResolver::new(Box::new(RingResolver), Box::new(DefaultResolver));
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    Box::new(Seeded { fallback, seed })
}

struct Seeded {
    fallback: FallbackResolver,
    seed: [u8; 32],
}

struct SeededRandom(ChaCha20Rng);

impl Random for SeededRandom {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill_bytes(dest);
        Ok(())
    }
}

impl CryptoResolver for Seeded {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(SeededRandom(ChaCha20Rng::from_seed(self.seed))))
    }

    fn resolve_dh(&self, choice: &snow::params::DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &snow::params::HashChoice) -> Option<Box<dyn Hash>> {
        self.fallback.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &snow::params::CipherChoice) -> Option<Box<dyn Cipher>> {
        self.fallback.resolve_cipher(choice)
    }
}

/// The same messages and keys without secrecy, 200 times cheaper: for worlds of a thousand nodes.
/// It still needs the pre-shared key, so that a stranger stays one in a simulation too.
mod stand_in {
    use super::{Blake2s256, Digest, Local, NodeId};

    pub(super) struct Side {
        own: NodeId,
        pub(super) remote: Option<NodeId>,
        psk: [u8; 32],
        is_initiator: bool,
        nonces: [u64; 2],
        own_nonce: u64,
    }

    impl Side {
        pub(super) fn new(local: Local<'_>, remote: Option<NodeId>, own_nonce: u64) -> Self {
            let (own, psk) = (local.identity.id(), *local.secrets.psk());
            Self { own, remote, psk, is_initiator: remote.is_some(), nonces: [0; 2], own_nonce }
        }

        fn proof(&self, body: &[u8]) -> [u8; 32] {
            Blake2s256::new().chain_update(self.psk).chain_update(body).finalize().into()
        }

        pub(super) fn write(&mut self, payload: &[u8]) -> Vec<u8> {
            self.nonces[usize::from(!self.is_initiator)] = self.own_nonce;
            let mut message = [self.own.0.as_slice(), &self.own_nonce.to_be_bytes(), payload].concat();
            message.extend_from_slice(&self.proof(&message));
            message
        }

        pub(super) fn read(&mut self, message: &[u8]) -> Option<Vec<u8>> {
            let (body, proof) = message.split_last_chunk::<32>()?;
            let (own, rest) = body.split_first_chunk::<32>()?;
            let (nonce, payload) = rest.split_first_chunk::<8>()?;
            if *proof != self.proof(body) || self.remote.is_some_and(|remote| remote.0 != *own) {
                return None;
            }
            self.remote = Some(NodeId(*own));
            self.nonces[usize::from(self.is_initiator)] = u64::from_be_bytes(*nonce);
            Some(payload.to_vec())
        }

        pub(super) fn split(&self) -> ([u8; 32], [u8; 32]) {
            let key = |label: &[u8]| {
                let hash = Blake2s256::new().chain_update(self.psk).chain_update(label);
                hash.chain_update(self.nonces[0].to_be_bytes()).chain_update(self.nonces[1].to_be_bytes()).finalize()
            };
            (key(b"up").into(), key(b"down").into())
        }
    }
}

#[cfg(test)]
mod tests;
