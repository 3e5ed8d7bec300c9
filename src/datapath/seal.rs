//! Sealing and opening: the only place where keys touch packets.
//!
//! In place, the clear header as associated data, the counter as nonce (protocol.md section 5).

#[cfg(feature = "aws-lc")]
use aws_lc_rs::aead;
#[cfg(not(feature = "aws-lc"))]
use ring::aead;

use aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::replay::{Refusal, Window};
use crate::wire::data::{HEADER_LEN, Header, STREAMS, TAG_LEN, first_counter};
use crate::wire::handshake::Suite;

/// A key is not used beyond this many packets: keeps AES-GCM far from its bound (2^28 packets of
/// 94 blocks are 2^34.6 blocks; NIST SP 800-38D, and RFC 9147 4.5.3 for the reasoning).
pub const PACKETS_MAX: u64 = 1 << 28;

/// The secret half of a session epoch, as a handshake gives it.
#[derive(Clone)]
pub struct SessionKeys {
    /// Which AEAD.
    pub suite: Suite,
    /// Seals what we send.
    pub send: [u8; 32],
    /// Opens what we receive.
    pub receive: [u8; 32],
    /// The index the peer puts into its packets to us.
    pub local_index: u32,
    /// The index we put into our packets to the peer.
    pub remote_index: u32,
    /// Whether the peer takes streams other than the first.
    pub streams: bool,
}

/// A lane's part of a key: its stream, and how many packets it may seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    stream: u8,
    packets: u64,
}

impl Share {
    /// All of it, for who is alone.
    pub const WHOLE: Self = Self { stream: 0, packets: PACKETS_MAX };

    /// That of `lane`, one of `lanes`: together they seal no more than one alone.
    pub const fn of(lane: u8, lanes: u8) -> Self {
        Self { stream: lane, packets: PACKETS_MAX / lanes as u64 }
    }
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<hidden>")
    }
}

/// Why a packet does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Its counter was there before, or is out of the window.
    Replay(Refusal),
    /// It was not sealed with this key, or damaged.
    Forged,
}

fn key(suite: Suite, bytes: &[u8; 32]) -> LessSafeKey {
    let algorithm = match suite {
        Suite::AesGcm => &AES_256_GCM,
        Suite::ChaChaPoly | Suite::StandIn => &CHACHA20_POLY1305,
    };
    LessSafeKey::new(UnboundKey::new(algorithm, bytes).expect("both AEADs take 32 bytes"))
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Seals packets, each with the next counter of its stream.
pub struct Sealer {
    key: LessSafeKey,
    remote_index: u32,
    counter: u64,
    /// The counter that is not given any more.
    end: u64,
}

impl Sealer {
    /// With no packet sealed yet.
    pub fn new(keys: &SessionKeys, share: Share) -> Self {
        let counter = first_counter(share.stream);
        let end = counter + share.packets;
        Self { key: key(keys.suite, &keys.send), remote_index: keys.remote_index, counter, end }
    }

    /// The index the peer knows this key by.
    pub const fn remote_index(&self) -> u32 {
        self.remote_index
    }

    /// Whether its share of the key is used up.
    pub const fn is_spent(&self) -> bool {
        self.counter >= self.end
    }

    /// Seals `packet`: 16 bytes for the header, the plain part, 16 bytes for the tag.
    ///
    /// # Panics
    /// If `packet` has no room for header and tag.
    pub fn seal(&mut self, is_data: bool, packet: &mut [u8]) {
        let counter = self.counter;
        self.counter += 1;
        let header = Header { is_data, receiver: self.remote_index, counter }.bytes();
        let (head, rest) = packet.split_at_mut(HEADER_LEN);
        head.copy_from_slice(&header);
        let (plain, room) = rest.split_at_mut(rest.len() - TAG_LEN);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(counter), Aad::from(header), plain)
            .expect("a packet is shorter than the AEAD's limit of 64 GiB");
        room.copy_from_slice(tag.as_ref());
    }
}

/// Opens packets, each counter once.
pub struct Opener {
    key: LessSafeKey,
    window: Window,
    /// Of the further streams; made when the first genuine packet of one comes.
    further: [Option<Box<Window>>; STREAMS - 1],
}

impl Opener {
    /// With no packet opened yet.
    pub fn new(keys: &SessionKeys) -> Self {
        let further = [const { None }; STREAMS - 1];
        Self { key: key(keys.suite, &keys.receive), window: Window::default(), further }
    }

    /// Opens `packet`, whose header was parsed to `header`, and gives its plain part.
    pub fn open<'p>(&mut self, header: Header, packet: &'p mut [u8]) -> Result<&'p mut [u8], OpenError> {
        self.check(header).map_err(OpenError::Replay)?;
        let (head, sealed) = packet.split_at_mut(HEADER_LEN);
        let plain =
            self.key.open_in_place(nonce(header.counter), Aad::from(head), sealed).map_err(|_| OpenError::Forged)?;
        self.accept(header).map_err(OpenError::Replay)?;
        Ok(plain)
    }

    fn check(&self, header: Header) -> Result<(), Refusal> {
        match usize::from(header.stream()).checked_sub(1) {
            None => self.window.check(header.place()),
            Some(further) => self.further[further].as_ref().map_or(Ok(()), |window| window.check(header.place())),
        }
    }

    fn accept(&mut self, header: Header) -> Result<(), Refusal> {
        match usize::from(header.stream()).checked_sub(1) {
            None => self.window.accept(header.place()),
            Some(further) => self.further[further].get_or_insert_default().accept(header.place()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(suite: Suite) -> SessionKeys {
        SessionKeys { suite, send: [1; 32], receive: [1; 32], local_index: 5, remote_index: 5, streams: true }
    }

    fn sealed(sealer: &mut Sealer, plain: &[u8]) -> Vec<u8> {
        let mut packet = [&[0; HEADER_LEN], plain, &[0; TAG_LEN]].concat();
        sealer.seal(true, &mut packet);
        packet
    }

    #[test]
    fn what_was_sealed_opens_once() {
        for suite in [Suite::ChaChaPoly, Suite::AesGcm] {
            let (mut sealer, mut opener) = (Sealer::new(&keys(suite), Share::WHOLE), Opener::new(&keys(suite)));
            let packet = sealed(&mut sealer, b"frame");
            let header = Header::parse(&packet).expect("own packet");
            assert_eq!(opener.open(header, &mut packet.clone()).expect("genuine"), b"frame");
            assert!(matches!(opener.open(header, &mut packet.clone()), Err(OpenError::Replay(_))));
        }
    }

    #[test]
    fn no_bit_of_a_packet_can_change_and_the_window_stays() {
        let (mut sealer, mut opener) =
            (Sealer::new(&keys(Suite::AesGcm), Share::WHOLE), Opener::new(&keys(Suite::AesGcm)));
        let packet = sealed(&mut sealer, b"frame");
        for bit in 0..packet.len() * 8 {
            let mut bent = packet.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            if let Ok(header) = Header::parse(&bent) {
                assert_eq!(opener.open(header, &mut bent).err(), Some(OpenError::Forged), "bit {bit}");
            }
        }
        let header = Header::parse(&packet).expect("own packet");
        assert!(opener.open(header, &mut packet.clone()).is_ok());
    }

    #[test]
    fn streams_share_a_key_and_neither_nonces_nor_windows() {
        let keys = keys(Suite::ChaChaPoly);
        let mut opener = Opener::new(&keys);
        let mut nonces = std::collections::BTreeSet::new();
        for lane in 0..4 {
            let mut sealer = Sealer::new(&keys, Share::of(lane, 4));
            for _ in 0..100 {
                let packet = sealed(&mut sealer, b"frame");
                let header = Header::parse(&packet).expect("own packet");
                assert_eq!(header.stream(), lane);
                assert!(nonces.insert(header.counter), "a nonce twice");
                assert!(opener.open(header, &mut packet.clone()).is_ok(), "in its own window");
                assert!(opener.open(header, &mut packet.clone()).is_err(), "once");
            }
        }
        // The first lane's window was not moved by the others.
        let mut first = Sealer::new(&keys, Share::of(0, 4));
        let late = sealed(&mut first, b"frame");
        let header = Header::parse(&late).expect("own packet");
        assert_eq!(opener.open(header, &mut late.clone()), Err(OpenError::Replay(Refusal::Replayed)));
    }

    #[test]
    fn all_lanes_together_seal_no_more_than_one_alone() {
        for lanes in 1..=16 {
            let sum = (0..lanes).map(|lane| Share::of(lane, lanes).packets).sum::<u64>();
            assert!(sum <= PACKETS_MAX && Share::of(0, lanes).packets >= PACKETS_MAX / 16);
        }
        let mut sealer = Sealer::new(&keys(Suite::AesGcm), Share { stream: 3, packets: 2 });
        for spent in [false, false, true] {
            assert_eq!(sealer.is_spent(), spent);
            sealed(&mut sealer, b"frame");
        }
    }

    #[test]
    fn keys_do_not_print() {
        assert_eq!(format!("{:?}", keys(Suite::AesGcm)), "<hidden>");
    }
}
