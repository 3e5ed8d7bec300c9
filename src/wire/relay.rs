//! RELAY packets: a packet through a supernode, or a member, that cannot open it (protocol.md section 6).

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use super::codec::DecodeError;

/// First byte.
pub const RELAY: u8 = 0x08;
/// What a packet grows by on its way through a relay.
pub const HEADER_LEN: usize = 24;
/// The bytes that the tag covers.
const TAGGED_LEN: usize = 16;

/// A member at a relay, as the relay numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId(pub u32);

/// The secret of one leg, known to the member and the relay.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LegKey(pub [u8; 16]);

impl std::fmt::Debug for LegKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<hidden>")
    }
}

/// `0x08 | flags 1 (bit 0: from the relay) | length 2 | relay id 4 | counter 8 | tag 8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// From the relay to a member; otherwise from a member to the relay.
    pub down: bool,
    /// On the way up the receiver, on the way down the sender.
    pub relay: RelayId,
    /// Never twice on a leg and direction.
    pub counter: u64,
}

impl Header {
    /// Reads it without its tag; what follows is a packet that is not RELAY itself.
    pub fn parse(packet: &[u8]) -> Result<Self, DecodeError> {
        let (head, inner) = packet.split_first_chunk::<HEADER_LEN>().ok_or(DecodeError::Short)?;
        if head[0] != RELAY || !inner.first().is_some_and(|kind| (1..=5).contains(kind)) {
            return Err(DecodeError::Range);
        }
        if head[1] > 1 {
            return Err(DecodeError::Reserved);
        }
        if usize::from(u16::from_be_bytes([head[2], head[3]])) != inner.len() {
            return Err(DecodeError::Short);
        }
        let relay = RelayId(u32::from_be_bytes([head[4], head[5], head[6], head[7]]));
        let [_, _, _, _, _, _, _, _, c0, c1, c2, c3, c4, c5, c6, c7, ..] = *head;
        Ok(Self { down: head[1] == 1, relay, counter: u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]) })
    }

    /// Writes header and tag into the first [`HEADER_LEN`] bytes of `packet`, whose rest is the inner packet.
    ///
    /// # Panics
    /// If `packet` is shorter than a header or longer than a datagram.
    pub fn write(self, key: LegKey, packet: &mut [u8]) {
        let len = u16::try_from(packet.len() - HEADER_LEN).expect("a packet fits a datagram");
        packet[0] = RELAY;
        packet[1] = u8::from(self.down);
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[4..8].copy_from_slice(&self.relay.0.to_be_bytes());
        packet[8..16].copy_from_slice(&self.counter.to_be_bytes());
        let tag = tag(key, &packet[..TAGGED_LEN]).to_be_bytes();
        packet[TAGGED_LEN..HEADER_LEN].copy_from_slice(&tag);
    }
}

/// Whether the tag in `packet`, which [`Header::parse`] has read, is by a holder of `key`.
pub fn is_genuine(key: LegKey, packet: &[u8]) -> bool {
    let Some(head) = packet.first_chunk::<HEADER_LEN>() else { return false };
    let shown = head[TAGGED_LEN..].iter().fold(0, |shown, byte| shown << 8 | u64::from(*byte));
    shown == tag(key, &head[..TAGGED_LEN])
}

fn tag(key: LegKey, head: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_key(&key.0);
    hasher.write(head);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: LegKey = LegKey([9; 16]);

    #[test]
    fn a_header_survives_its_bytes_and_shows_its_key() {
        let header = Header { down: true, relay: RelayId(77), counter: 1 << 40 };
        let mut packet = [0; HEADER_LEN + 20];
        packet[HEADER_LEN] = 0x04;
        header.write(KEY, &mut packet);
        assert_eq!(Header::parse(&packet), Ok(header));
        assert!(is_genuine(KEY, &packet));
        assert!(!is_genuine(LegKey([8; 16]), &packet));
        for byte in 1..HEADER_LEN {
            let mut bent = packet;
            bent[byte] ^= 1;
            assert!(Header::parse(&bent).is_err() || !is_genuine(KEY, &bent), "byte {byte}");
        }
    }

    #[test]
    fn a_relay_packet_never_holds_another() {
        let mut packet = [0; HEADER_LEN + 20];
        packet[HEADER_LEN] = RELAY;
        Header { down: false, relay: RelayId(1), counter: 0 }.write(KEY, &mut packet);
        assert_eq!(Header::parse(&packet), Err(DecodeError::Range));
    }
}
