//! Keys: what a user holds, what is derived from it, who a node is (wire/protocol.md section 2).
//!
//! Secrets print as `<hidden>` and are wiped when dropped. Nothing here reads files or random devices:
//! random bytes are handed in.

use std::fmt;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::{BASE32_NOPAD, BASE32_NOPAD_NOCASE};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use ring::digest::{SHA256, digest};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What every text form of an overlay key starts with.
const KEY_PREFIX: &str = "lw1-";
/// Bytes of checksum in a key's text form.
const CHECKSUM_LEN: usize = 3;
/// Memory that stretching a passphrase takes, in KiB.
const ARGON2_KIB: u32 = 64 * 1024;
/// Passes over that memory.
const ARGON2_PASSES: u32 = 3;
/// The shortest passphrase taken, in bytes: the overlay id lets anybody try passphrases offline.
pub const PASSPHRASE_MIN: usize = 12;

/// Why a text is not a key or id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not of the form `lw1-...`.
    #[error("not an overlay key: it must be `lw1-` and 56 letters and digits (`longwire keygen` prints one)")]
    Form,
    /// Of the form, but mistyped.
    #[error("the key is mistyped: its checksum does not fit")]
    Checksum,
    /// An id or fingerprint of the wrong form.
    #[error("not an id: it must be 52 letters and digits (a-z, 2-7)")]
    Id,
    /// Too easily guessed.
    #[error("the passphrase is too short: at least {PASSPHRASE_MIN} bytes are needed")]
    Passphrase,
}

/// The shared key of an overlay.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct OverlayKey([u8; 32]);

impl OverlayKey {
    /// From 32 random bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// From a passphrase, stretched with Argon2id (64 MiB, 3 passes; RFC 9106), salted with the overlay's name.
    pub fn from_passphrase(name: &str, passphrase: &str) -> Result<Self, KeyError> {
        if passphrase.len() < PASSPHRASE_MIN {
            return Err(KeyError::Passphrase);
        }
        let params =
            Params::new(ARGON2_KIB, ARGON2_PASSES, 1, Some(32)).expect("the constants are within Argon2's limits");
        let salt = [b"longwire/1", name.as_bytes()].concat();
        let mut key = [0; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), &salt, &mut key)
            .expect("salt and output are within Argon2's limits");
        Ok(Self(key))
    }

    /// The text form users copy: `lw1-` and 56 letters and digits.
    pub fn to_text(&self) -> String {
        let mut bytes = self.0.to_vec();
        bytes.extend_from_slice(&self.checksum());
        let text = format!("{KEY_PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_lowercase());
        bytes.zeroize();
        text
    }

    fn checksum(&self) -> [u8; CHECKSUM_LEN] {
        let hash = digest(&SHA256, &[b"lw1", self.0.as_slice()].concat());
        let mut sum = [0; CHECKSUM_LEN];
        sum.copy_from_slice(&hash.as_ref()[..CHECKSUM_LEN]);
        sum
    }
}

impl FromStr for OverlayKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let code = text.strip_prefix(KEY_PREFIX).ok_or(KeyError::Form)?;
        let mut bytes = BASE32_NOPAD_NOCASE.decode(code.as_bytes()).map_err(|_| KeyError::Form)?;
        let (key, sum) = bytes.split_first_chunk::<32>().ok_or(KeyError::Form)?;
        let key = Self(*key);
        let fits = sum == key.checksum();
        let whole = sum.len() == CHECKSUM_LEN;
        bytes.zeroize();
        match (whole, fits) {
            (true, true) => Ok(key),
            (true, false) => Err(KeyError::Checksum),
            (false, _) => Err(KeyError::Form),
        }
    }
}

impl fmt::Debug for OverlayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

macro_rules! public_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&BASE32_NOPAD.encode(&self.0).to_lowercase())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&BASE32_NOPAD.encode(&self.0[..5]).to_lowercase())
            }
        }

        impl FromStr for $name {
            type Err = KeyError;

            fn from_str(text: &str) -> Result<Self, KeyError> {
                let bytes = BASE32_NOPAD_NOCASE.decode(text.trim().as_bytes()).map_err(|_| KeyError::Id)?;
                bytes.try_into().map(Self).map_err(|_| KeyError::Id)
            }
        }
    };
}

public_id! {
    /// An overlay: the public half of its signing key. Text form: 52 letters and digits.
    OverlayId
}

public_id! {
    /// A node: its X25519 public key. Text form: 52 letters and digits; the first 8 as a short form.
    NodeId
}

impl NodeId {
    /// The MAC address under which the node itself speaks to its own segment: locally administered, and told
    /// nobody else.
    pub const fn station(&self) -> [u8; 6] {
        let [a, b, c, d, e, ..] = self.0;
        [0x02, a, b, c, d, e]
    }
}

public_id! {
    /// A supernode: the Ed25519 public key it shows in TLS. Text form: 52 letters and digits.
    Fingerprint
}

/// Everything derived from an overlay's name and key.
#[derive(Clone)]
pub struct OverlaySecrets {
    id: OverlayId,
    signing: SigningKey,
    psk: [u8; 32],
    mac_key: [u8; 32],
    dir_key: [u8; 32],
    link_key: [u8; 32],
}

impl OverlaySecrets {
    /// Derives them (wire/protocol.md section 2).
    pub fn derive(name: &str, key: &OverlayKey) -> Self {
        let material = [key.0.as_slice(), name.as_bytes()].concat();
        let prk = Salt::new(HKDF_SHA256, b"longwire/1").extract(&material);
        let signing = SigningKey::from_bytes(&expand(&prk, b"member-sign"));
        Self {
            id: OverlayId(signing.verifying_key().to_bytes()),
            signing,
            psk: expand(&prk, b"psk"),
            mac_key: expand(&prk, b"mac1"),
            dir_key: expand(&prk, b"directory"),
            link_key: expand(&prk, b"link"),
        }
    }

    /// The overlay's public name.
    pub const fn id(&self) -> OverlayId {
        self.id
    }

    /// Signs `message` as the overlay: the mark of a member.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }

    /// The pre-shared key of every handshake.
    pub const fn psk(&self) -> &[u8; 32] {
        &self.psk
    }

    /// The key behind `mac1`.
    pub const fn mac_key(&self) -> &[u8; 32] {
        &self.mac_key
    }

    /// The key that seals names and LAN addresses on their way through a supernode.
    pub const fn dir_key(&self) -> &[u8; 32] {
        &self.dir_key
    }

    /// The key that seals announcements on the local link.
    pub const fn link_key(&self) -> &[u8; 32] {
        &self.link_key
    }

    /// The one-byte name of the pre-shared key in a handshake.
    pub fn key_id(&self) -> u8 {
        digest(&SHA256, &[b"key id".as_slice(), &self.psk].concat()).as_ref()[0]
    }
}

impl fmt::Debug for OverlaySecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OverlaySecrets").field(&self.id).finish()
    }
}

impl Drop for OverlaySecrets {
    fn drop(&mut self) {
        self.psk.zeroize();
        self.mac_key.zeroize();
        self.dir_key.zeroize();
        self.link_key.zeroize();
    }
}

/// A node's own keys, derived from the 32 bytes in its state directory.
#[derive(Clone)]
pub struct Identity {
    signing: SigningKey,
    fixed: x25519_dalek::StaticSecret,
    id: NodeId,
    tap_seed: [u8; 32],
}

impl Identity {
    /// Derives them (wire/protocol.md section 2).
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        let prk = Salt::new(HKDF_SHA256, b"longwire/1 node").extract(secret);
        let fixed = x25519_dalek::StaticSecret::from(expand(&prk, b"node-static"));
        Self {
            signing: SigningKey::from_bytes(&expand(&prk, b"node-sign")),
            id: NodeId(x25519_dalek::PublicKey::from(&fixed).to_bytes()),
            fixed,
            tap_seed: expand(&prk, b"tap-mac"),
        }
    }

    /// Who this node is.
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// The X25519 private key, for the handshake.
    pub fn static_secret(&self) -> [u8; 32] {
        self.fixed.to_bytes()
    }

    /// The Ed25519 key: registration signatures, and TLS where the node is a supernode.
    pub const fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// What pins this node as a supernode.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.signing.verifying_key().to_bytes())
    }

    /// The MAC address of this node's TAP in `overlay`: locally administered, the same at every start.
    pub fn tap_mac(&self, overlay: OverlayId) -> [u8; 6] {
        let hash = digest(&SHA256, &[self.tap_seed, overlay.0].concat());
        let mut mac = [0; 6];
        mac.copy_from_slice(&hash.as_ref()[..6]);
        mac[0] = (mac[0] & 0xfc) | 0x02;
        mac
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.id).finish()
    }
}

/// Signs `message` as the node.
pub fn sign(node: &Identity, message: &[u8]) -> [u8; 64] {
    node.signing.sign(message).to_bytes()
}

/// Whether `signature` over `message` is by the holder of `key`; strict (RFC 8032 5.1.7, no weak keys).
pub fn verify(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}

struct Len32;

impl KeyType for Len32 {
    fn len(&self) -> usize {
        32
    }
}

fn expand(prk: &Prk, label: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    prk.expand(&[label], Len32).and_then(|okm| okm.fill(&mut out)).expect("32 bytes are within HKDF's limit");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_text_form() {
        let key = OverlayKey::from_bytes([7; 32]);
        let text = key.to_text();
        assert_eq!(text.len(), 4 + 56);
        assert_eq!(text.parse::<OverlayKey>().expect("own text").0, key.0);
        assert_eq!(text.to_uppercase().replace("LW1", "lw1").parse::<OverlayKey>().expect("capitals").0, key.0);
    }

    #[test]
    fn every_single_mistyped_letter_is_noticed() {
        let text = OverlayKey::from_bytes([0x5a; 32]).to_text();
        for place in KEY_PREFIX.len()..text.len() {
            let mut typed = text.clone().into_bytes();
            typed[place] = if typed[place] == b'a' { b'b' } else { b'a' };
            let typed = String::from_utf8(typed).expect("ASCII");
            assert_eq!(typed.parse::<OverlayKey>().err(), Some(KeyError::Checksum), "{typed}");
        }
    }

    #[test]
    fn other_texts_are_no_keys() {
        for text in ["", "lw1-", "lw1-aaaa", "lw2-abc", "secret", "lw1-!!!!"] {
            assert_eq!(text.parse::<OverlayKey>().err(), Some(KeyError::Form), "{text}");
        }
    }

    #[test]
    fn name_and_key_both_make_the_overlay() {
        let key = OverlayKey::from_bytes([1; 32]);
        let here = OverlaySecrets::derive("lab", &key);
        assert_eq!(here.id(), OverlaySecrets::derive("lab", &key).id());
        assert_ne!(here.id(), OverlaySecrets::derive("lab2", &key).id());
        assert_ne!(here.id(), OverlaySecrets::derive("lab", &OverlayKey::from_bytes([2; 32])).id());
    }

    #[test]
    fn secrets_do_not_print() {
        let key = OverlayKey::from_bytes([0xee; 32]);
        assert_eq!(format!("{key:?}"), "<hidden>");
        assert!(!format!("{:?}", OverlaySecrets::derive("lab", &key)).contains("238"));
    }

    #[test]
    fn a_short_passphrase_is_refused() {
        assert_eq!(OverlayKey::from_passphrase("lab", "letmein").err(), Some(KeyError::Passphrase));
    }

    #[test]
    fn a_tap_mac_is_local_and_unicast() {
        let node = Identity::from_secret(&[3; 32]);
        let mac = node.tap_mac(OverlayId([4; 32]));
        assert_eq!(mac[0] & 0x03, 0x02);
        assert_ne!(mac, node.tap_mac(OverlayId([5; 32])));
    }
}
