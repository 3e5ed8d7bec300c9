//! An overlay as its member sees it: name, keys, own certificate, sealed directory entries.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::RngCore;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;

use super::handshake::Local;
use super::traffic::Traffic;
use crate::keys::{Identity, NodeId, OverlayId, OverlaySecrets};
use crate::seam::OverlaySettings;
use crate::wire::DecodeError;
use crate::wire::certificate::Certificate;
use crate::wire::message::Directory;
use crate::wire::plan::SiteTag;

const NONCE_LEN: usize = 12;

/// One overlay this node is a member of.
pub struct Overlay {
    /// Its name.
    pub name: String,
    /// What its key gives.
    pub secrets: OverlaySecrets,
    /// Ours, signed by it.
    pub certificate: Certificate,
    /// The longest payload of its frames here.
    pub mtu: usize,
    /// What flows in it.
    pub(super) traffic: Traffic,
}

impl Overlay {
    /// Joins on paper: signs our certificate.
    pub fn new(settings: &OverlaySettings, identity: &Identity) -> Self {
        let certificate = Certificate::issue(&settings.secrets, identity);
        let (name, secrets, mtu) = (settings.name.clone(), settings.secrets.clone(), settings.switch.mtu);
        Self { name, secrets, certificate, mtu, traffic: Traffic::default() }
    }

    /// Its public name.
    pub const fn id(&self) -> OverlayId {
        self.secrets.id()
    }

    /// Who we are in it.
    pub const fn local<'a>(&'a self, identity: &'a Identity) -> Local<'a> {
        Local { identity, secrets: &self.secrets }
    }

    /// What a supernode may know of the name of a site: nothing but whether it is the same one.
    pub fn site_tag(&self, name: &str) -> SiteTag {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secrets.dir_key());
        let whole = hmac::sign(&key, &[b"longwire site".as_slice(), name.as_bytes()].concat());
        SiteTag(*whole.as_ref().first_chunk().expect("a hash is longer than eight bytes"))
    }

    fn directory_key(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, self.secrets.dir_key()).expect("the key is 32 bytes long"))
    }

    /// Seals our directory entry, for members only (protocol.md section 7).
    pub fn seal_directory(&self, entry: &Directory, rng: &mut ChaCha20Rng) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        let mut sealed = entry.bytes();
        let aad = Aad::from(associated(self.certificate.node));
        self.directory_key()
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .expect("an entry is a few hundred bytes");
        [nonce.as_slice(), &sealed].concat()
    }

    /// Opens the entry of `node`.
    pub fn open_directory(&self, node: NodeId, sealed: &[u8]) -> Result<Directory, DecodeError> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(DecodeError::Short)?;
        let mut sealed = sealed.to_vec();
        let plain = self
            .directory_key()
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(associated(node)), &mut sealed)
            .map_err(|_| DecodeError::Forged)?;
        Directory::parse(plain)
    }
}

fn associated(node: NodeId) -> Vec<u8> {
    [b"longwire directory".as_slice(), &node.0].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::OverlayKey;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn an_entry_opens_for_members_and_only_as_its_nodes() {
        let overlay = |key| {
            let secrets = OverlaySecrets::derive("lab", &OverlayKey::from_bytes([key; 32]));
            let settings = OverlaySettings::new("lab", secrets, crate::datapath::SwitchSettings::default());
            Overlay::new(&settings, &Identity::from_secret(&[1; 32]))
        };
        let entry = Directory { name: "alpha".into(), ..Directory::default() };
        let sealed = overlay(1).seal_directory(&entry, &mut ChaCha20Rng::from_seed([0; 32]));
        let node = overlay(1).certificate.node;
        assert!(!sealed.windows(5).any(|window| window == b"alpha"));
        assert_eq!(overlay(1).open_directory(node, &sealed), Ok(entry));
        assert_eq!(overlay(1).site_tag("mill"), overlay(1).site_tag("mill"));
        assert_ne!(overlay(1).site_tag("mill"), overlay(1).site_tag("attic"));
        assert_ne!(overlay(1).site_tag("mill"), overlay(2).site_tag("mill"), "nobody else can tell");
        assert_eq!(overlay(1).open_directory(NodeId([9; 32]), &sealed), Err(DecodeError::Forged));
        assert_eq!(overlay(2).open_directory(node, &sealed), Err(DecodeError::Forged));
    }
}
