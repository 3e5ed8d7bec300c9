//! INIT and RESP: what stands around the Noise messages, and what is inside them (protocol.md section 4).

use super::VERSION;
use super::certificate::{CERTIFICATE_MAX, Certificate};
use super::codec::{DecodeError, Reader, Writer};

/// First byte of the first message.
pub const INIT: u8 = 0x01;
/// First byte of the second message.
pub const RESP: u8 = 0x02;
/// Bytes of `mac1` and `mac2` at the end.
pub const MACS_LEN: usize = 32;
/// Bits of the capabilities.
const HAS_AES: u32 = 1;
const FOLLOWS: u32 = 2;
const STREAMS: u32 = 4;
const TREES: u32 = 8;
const TIMES: u32 = 16;
const INIT_HEAD: usize = 8;
const RESP_HEAD: usize = 12;

/// Which AEAD seals the session; part of the Noise protocol name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// ChaCha20-Poly1305.
    ChaChaPoly,
    /// AES-256-GCM.
    AesGcm,
    /// Large simulations only.
    StandIn,
}

impl Suite {
    /// As standards call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChaChaPoly => "ChaCha20-Poly1305",
            Self::AesGcm => "AES-256-GCM",
            Self::StandIn => "none, it stands in for one",
        }
    }

    const fn byte(self) -> u8 {
        match self {
            Self::ChaChaPoly => 1,
            Self::AesGcm => 2,
            Self::StandIn => 0xff,
        }
    }

    const fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::ChaChaPoly),
            2 => Some(Self::AesGcm),
            0xff => Some(Self::StandIn),
            _ => None,
        }
    }
}

/// The clear part of a handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The AEAD proposed, or agreed on.
    pub suite: Suite,
    /// Which pre-shared key.
    pub key_id: u8,
    /// The index under which the sender wants to be answered.
    pub sender: u32,
    /// The sender index this answers; `None` in INIT.
    pub receiver: Option<u32>,
    /// The Noise message.
    pub noise: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Reads INIT or RESP, without checking `mac1`.
    pub fn parse(packet: &'a [u8]) -> Result<Self, DecodeError> {
        let body_len = packet.len().checked_sub(MACS_LEN).ok_or(DecodeError::Short)?;
        let (body, macs) = packet.split_at(body_len);
        if macs[16..].iter().any(|byte| *byte != 0) {
            return Err(DecodeError::Reserved);
        }
        let mut reader = Reader::new(body);
        let kind = reader.u8()?;
        if reader.u8()? != VERSION {
            return Err(DecodeError::Version);
        }
        let suite = Suite::of(reader.u8()?).ok_or(DecodeError::Range)?;
        let key_id = reader.u8()?;
        let sender = reader.u32()?;
        let receiver = match kind {
            INIT => None,
            RESP => Some(reader.u32()?),
            _ => return Err(DecodeError::Range),
        };
        Ok(Self { suite, key_id, sender, receiver, noise: reader.rest() })
    }

    /// Its bytes with `mac1` as `mac` makes it over all before.
    pub fn bytes(&self, mac: impl FnOnce(&[u8]) -> [u8; 16]) -> Vec<u8> {
        let writer = Writer::new()
            .u8(if self.receiver.is_some() { RESP } else { INIT })
            .u8(VERSION)
            .u8(self.suite.byte())
            .u8(self.key_id)
            .u32(self.sender);
        let writer = match self.receiver {
            Some(receiver) => writer.u32(receiver),
            None => writer,
        };
        let writer = writer.bytes(self.noise);
        let mac1 = mac(writer.as_slice());
        writer.bytes(&mac1).reserved(16).finish()
    }
}

/// The part of `packet` that `mac1` covers, and `mac1`.
pub fn split_mac1(packet: &[u8]) -> Option<(&[u8], &[u8])> {
    let covered = packet.len().checked_sub(MACS_LEN).filter(|len| *len >= INIT_HEAD.min(RESP_HEAD))?;
    Some((&packet[..covered], &packet[covered..covered + 16]))
}

/// What travels sealed in both messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Drawn at every start of the sender.
    pub boot: u64,
    /// Rises with every INIT of a boot.
    pub timestamp: [u8; 12],
    /// Whether the sender's processor has AES instructions.
    pub has_aes: bool,
    /// Whether it knows of machines that move: CLAIM, LOCATION, and frames that are copies or were sent on.
    pub follows: bool,
    /// Whether the sender takes streams other than the first.
    pub streams: bool,
    /// Whether it hands on what comes as TREE.
    pub trees: bool,
    /// Whether it takes the time at which a PROBE was sent.
    pub times: bool,
    /// The sender's membership.
    pub certificate: Certificate,
}

impl Payload {
    /// Reads it, and checks the certificate's signature.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::parse_with(bytes, Certificate::parse)
    }

    /// Reads it, with the certificate checked by `check`.
    pub fn parse_with(
        bytes: &[u8],
        check: impl FnOnce(&[u8]) -> Result<Certificate, DecodeError>,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let boot = reader.u64()?;
        let timestamp = reader.array()?;
        let capabilities = reader.u32()?;
        let has = |capability| capabilities & capability != 0;
        let (has_aes, follows) = (has(HAS_AES), has(FOLLOWS));
        let (streams, trees, times) = (has(STREAMS), has(TREES), has(TIMES));
        let certificate = check(reader.blob(CERTIFICATE_MAX)?)?;
        Ok(Self { boot, timestamp, has_aes, follows, streams, trees, times, certificate })
    }

    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let capability = |has: bool, bit| if has { bit } else { 0 };
        let capabilities = capability(self.has_aes, HAS_AES)
            | capability(self.follows, FOLLOWS)
            | capability(self.streams, STREAMS)
            | capability(self.trees, TREES)
            | capability(self.times, TIMES);
        Writer::new().u64(self.boot).bytes(&self.timestamp).u32(capabilities).blob(self.certificate.bytes()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_messages_survive_their_bytes() {
        for receiver in [None, Some(9)] {
            let envelope =
                Envelope { suite: Suite::AesGcm, key_id: 3, sender: 0xdead_beef, receiver, noise: &[1, 2, 3] };
            let bytes = envelope.bytes(|_| [7; 16]);
            assert_eq!(Envelope::parse(&bytes), Ok(envelope));
            let (covered, mac1) = split_mac1(&bytes).expect("long enough");
            assert_eq!((covered.len(), mac1), (bytes.len() - MACS_LEN, [7; 16].as_slice()));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Envelope::parse(&bytes);
            drop(Payload::parse(&bytes));
            let _ = split_mac1(&bytes);
        }
    }
}
