//! An overlay as its member sees it: name, keys, own certificate, sealed directory entries.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::RngCore;
use ring::hmac;

use super::excerpt::Told;
use super::handshake::Local;
use super::sealing;
use super::traffic::Traffic;
use crate::datapath::SwitchSettings;
use crate::keys::{Identity, NodeId, OverlayId, OverlaySecrets};
use crate::seam::OverlaySettings;
use crate::wire::certificate::Certificate;
use crate::wire::message::Directory;
use crate::wire::plan::SiteTag;
use crate::wire::{DecodeError, NONCE_LEN};

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
    /// Whether it has so many members that links to them sleep.
    pub(super) is_large: bool,
    /// What our entry says of our machines.
    pub(super) told: Told,
    /// Whether ways follow what flows: it is reported, and plans are obeyed.
    pub adapts: bool,
    /// What flows in it.
    pub(super) traffic: Traffic,
}

impl Overlay {
    /// Joins on paper: signs our certificate.
    pub fn new(settings: &OverlaySettings, identity: &Identity) -> Self {
        let certificate = Certificate::issue(&settings.secrets, identity);
        let (name, secrets) = (settings.name.clone(), settings.secrets.clone());
        let SwitchSettings { mtu, adapts, .. } = settings.switch;
        let (is_large, told, traffic) = (false, Told::default(), Traffic::default());
        Self { name, secrets, certificate, mtu, is_large, told, adapts, traffic }
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

    /// Seals our directory entry, for members only (protocol.md section 7).
    pub fn seal_directory(&self, entry: &Directory, rng: &mut ChaCha20Rng) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        let whose = associated(self.certificate.node);
        let sealed = sealing::seal(self.secrets.dir_key(), nonce, &whose, entry.bytes());
        [nonce.as_slice(), &sealed].concat()
    }

    /// Opens the entry of `node`.
    pub fn open_directory(&self, node: NodeId, sealed: &[u8]) -> Result<Directory, DecodeError> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(DecodeError::Short)?;
        Directory::parse(&sealing::open(self.secrets.dir_key(), *nonce, &associated(node), sealed)?)
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
