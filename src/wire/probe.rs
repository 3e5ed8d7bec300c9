//! LOOP PROBE: a member's frame to its own segment, by which others find out that the segment is theirs too
//! (protocol.md section 9). Only the layout; `control` seals and opens. To strangers its body is noise.

use super::codec::{DecodeError, Reader, Writer};
use super::{NONCE_LEN, Parts};
use crate::keys::NodeId;

/// IEEE 802's first EtherType for experiments.
pub const ETHERTYPE: u16 = 0x88b5;
/// A group of our own, which every bridge floods and no machine listens to.
pub const GROUP: [u8; 6] = [0x03, 0x6c, 0x6f, 0x6f, 0x70, 0x01];
/// What every body begins with: others use that EtherType too.
const MAGIC: [u8; 8] = *b"lwprobe1";
/// The clear part, which is the associated data; the nonce is its end.
const HEAD_LEN: usize = MAGIC.len() + NONCE_LEN;
/// The sealed part and its tag.
const SEALED_LEN: usize = 32 + 8 + 16;
/// Every body is so long; a short frame would be padded.
pub const BODY_LEN: usize = HEAD_LEN + SEALED_LEN;

/// What a member tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Who.
    pub node: NodeId,
    /// Never told before: whoever knows it has just heard this probe.
    pub token: u64,
}

impl Probe {
    /// Reads the plain form.
    pub fn parse(plain: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(plain);
        let probe = Self { node: NodeId(reader.array()?), token: reader.u64()? };
        reader.end()?;
        Ok(probe)
    }

    /// The plain form.
    pub fn bytes(&self) -> Vec<u8> {
        Writer::new().bytes(&self.node.0).u64(self.token).finish()
    }
}

/// The clear part of a body.
pub fn head(nonce: &[u8; NONCE_LEN]) -> Vec<u8> {
    [&MAGIC[..], nonce].concat()
}

/// Takes a body apart.
pub fn split(body: &[u8]) -> Result<Parts<'_>, DecodeError> {
    if body.len() != BODY_LEN {
        return Err(if body.len() < BODY_LEN { DecodeError::Short } else { DecodeError::Long });
    }
    let (head, sealed) = body.split_at(HEAD_LEN);
    let mut reader = Reader::new(head);
    if reader.array()? != MAGIC {
        return Err(DecodeError::Range);
    }
    Ok(Parts { head, nonce: reader.array()?, sealed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_survives_its_bytes_and_a_body_is_split_as_it_was_put_together() {
        let probe = Probe { node: NodeId([3; 32]), token: 5 };
        let plain = probe.bytes();
        assert_eq!(Probe::parse(&plain), Ok(probe));
        assert_eq!(Probe::parse(&plain[1..]), Err(DecodeError::Short));
        let body = [head(&[7; NONCE_LEN]), plain, vec![9; 16]].concat();
        let parts = split(&body).expect("a body");
        assert_eq!([parts.head, parts.sealed].concat(), body);
        assert_eq!((parts.nonce, head(&parts.nonce)), ([7; NONCE_LEN], parts.head.to_vec()));
        assert_eq!(split(&[&body[..], &[0]].concat()), Err(DecodeError::Long));
        assert_eq!(split(&[0; BODY_LEN]), Err(DecodeError::Range));
    }
}
