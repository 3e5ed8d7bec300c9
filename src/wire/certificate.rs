//! Membership certificates: a node's keys, signed by its overlay (protocol.md section 3).

use super::codec::{DecodeError, Reader, Writer};
use crate::keys::{Identity, NodeId, OverlayId, OverlaySecrets, verify};

/// The longest certificate taken, in bytes; claims will need the rest.
pub const CERTIFICATE_MAX: usize = 512;
const VERSION: u8 = 1;
const MODE_SHARED_KEY: u8 = 0;
const SIGNED_AS: &[u8] = b"longwire certificate";

/// A certificate whose signature was checked. There is no other way to have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The overlay that signed it.
    pub overlay: OverlayId,
    /// The node's Ed25519 public key.
    pub signing_key: [u8; 32],
    /// The node.
    pub node: NodeId,
    bytes: Vec<u8>,
}

impl Certificate {
    /// Issues one in mode 0: whoever holds the overlay's key is a member, at any time.
    pub fn issue(secrets: &OverlaySecrets, node: &Identity) -> Self {
        Self::issue_for(secrets, node.fingerprint().0, node.id())
    }

    /// The same for a node known by its public keys.
    pub fn issue_for(secrets: &OverlaySecrets, signing_key: [u8; 32], node: NodeId) -> Self {
        let body = Writer::new()
            .u8(VERSION)
            .u8(MODE_SHARED_KEY)
            .reserved(2)
            .bytes(&secrets.id().0)
            .bytes(&signing_key)
            .bytes(&node.0)
            .reserved(24)
            .blob(&[]);
        let signature = secrets.sign(&[SIGNED_AS, body.as_slice()].concat());
        Self { overlay: secrets.id(), signing_key, node, bytes: body.bytes(&signature).finish() }
    }

    /// Reads one and checks its signature.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION || reader.u8()? != MODE_SHARED_KEY {
            return Err(DecodeError::Version);
        }
        reader.reserved(2)?;
        let overlay = OverlayId(reader.array()?);
        let signing_key = reader.array()?;
        let node = NodeId(reader.array()?);
        reader.reserved(24)?;
        reader.blob(0)?;
        let body = &bytes[..bytes.len() - reader.rest().len()];
        let signature = reader.array()?;
        reader.end()?;
        if !verify(&overlay.0, &[SIGNED_AS, body].concat(), &signature) {
            return Err(DecodeError::Forged);
        }
        Ok(Self { overlay, signing_key, node, bytes: bytes.to_vec() })
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::OverlayKey;

    #[test]
    fn a_certificate_survives_its_bytes_and_no_bit_can_change() {
        let secrets = OverlaySecrets::derive("lab", &OverlayKey::from_bytes([1; 32]));
        let issued = Certificate::issue(&secrets, &Identity::from_secret(&[2; 32]));
        let bytes = issued.bytes().to_vec();
        assert_eq!(bytes.len(), 190);
        assert_eq!(Certificate::parse(&bytes), Ok(issued));
        for byte in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[byte] ^= 0x10;
            assert!(Certificate::parse(&bent).is_err(), "byte {byte}");
        }
    }
}
