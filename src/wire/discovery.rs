//! DISCOVER: a member tells those on its own link that it is there (protocol.md section 8).
//!
//! Only the layout; `control` seals and opens. To a stranger every packet is noise of one length.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::codec::{DecodeError, Reader, Writer};
use super::{DISCOVER, NONCE_LEN, Parts, VERSION};
use crate::keys::NodeId;

/// Where members of a link hear each other: the group for experiments that no router forwards (RFC 4727 2.4.2).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 254);
/// The same in IPv6 (RFC 4727 3.2), on this link only.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x114);
/// The port of both groups.
pub const PORT: u16 = 17777;
/// The Ethernet addresses of the groups (RFC 1112 6.4, RFC 2464 7).
pub const GROUP_MACS: [[u8; 6]; 2] = [[0x01, 0x00, 0x5e, 0, 0, 0xfe], [0x33, 0x33, 0, 0, 0x01, 0x14]];

/// Most addresses in one announcement.
pub const ADDRESSES_MAX: usize = 8;
/// The clear part, which is the associated data; the nonce is its end.
pub const HEAD_LEN: usize = 4 + NONCE_LEN;
const ADDRESS_LEN: usize = 18;
/// What is sealed.
pub const PLAIN_LEN: usize = 32 + 12 + 1 + 1 + ADDRESSES_MAX * ADDRESS_LEN;
/// Every packet is so long.
pub const PACKET_LEN: usize = HEAD_LEN + PLAIN_LEN + 16;

/// What a member tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Who.
    pub node: NodeId,
    /// Rises with every announcement.
    pub timestamp: [u8; 12],
    /// Those who do not reach it yet shall answer with theirs.
    pub wants_answer: bool,
    /// Its own addresses, at most [`ADDRESSES_MAX`].
    pub addresses: Vec<SocketAddr>,
}

impl Announcement {
    /// Reads the plain form.
    pub fn parse(plain: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(plain);
        let node = NodeId(reader.array()?);
        let timestamp = reader.array()?;
        let flags = reader.u8()?;
        let count = usize::from(reader.u8()?);
        if flags > 1 || count > ADDRESSES_MAX {
            return Err(DecodeError::Range);
        }
        let addresses = (0..count).map(|_| reader.addr()).collect::<Result<_, _>>()?;
        reader.reserved((ADDRESSES_MAX - count) * ADDRESS_LEN)?;
        reader.end()?;
        Ok(Self { node, timestamp, wants_answer: flags == 1, addresses })
    }

    /// The plain form.
    pub fn bytes(&self) -> Vec<u8> {
        let list = &self.addresses[..self.addresses.len().min(ADDRESSES_MAX)];
        let count = u8::try_from(list.len()).expect("cut to the limit above");
        let head = Writer::new().bytes(&self.node.0).bytes(&self.timestamp).u8(u8::from(self.wants_answer)).u8(count);
        let whole = list.iter().fold(head, |writer, addr| writer.addr(*addr));
        whole.reserved((ADDRESSES_MAX - list.len()) * ADDRESS_LEN).finish()
    }
}

/// The clear part of a packet.
pub fn head(nonce: &[u8; NONCE_LEN]) -> Vec<u8> {
    Writer::new().u8(DISCOVER).u8(VERSION).reserved(2).bytes(nonce).finish()
}

/// Takes a packet apart.
pub fn split(packet: &[u8]) -> Result<Parts<'_>, DecodeError> {
    if packet.len() != PACKET_LEN {
        return Err(if packet.len() < PACKET_LEN { DecodeError::Short } else { DecodeError::Long });
    }
    let mut reader = Reader::new(packet);
    if reader.u8()? != DISCOVER {
        return Err(DecodeError::Range);
    }
    if reader.u8()? != VERSION {
        return Err(DecodeError::Version);
    }
    reader.reserved(2)?;
    let nonce = reader.array()?;
    Ok(Parts { head: &packet[..HEAD_LEN], nonce, sealed: reader.rest() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn announcement(addresses: usize) -> Announcement {
        let addr = |n: usize| SocketAddr::from(([192, 0, 2, 1], u16::try_from(n).expect("few") + 1));
        let addresses = (0..addresses).map(addr).collect();
        Announcement { node: NodeId([7; 32]), timestamp: [9; 12], wants_answer: true, addresses }
    }

    #[test]
    fn an_announcement_survives_its_bytes_and_they_are_of_one_length() {
        for count in 0..=ADDRESSES_MAX {
            let told = announcement(count);
            assert_eq!(told.bytes().len(), PLAIN_LEN);
            assert_eq!(Announcement::parse(&told.bytes()), Ok(told));
        }
        assert_eq!(announcement(40).bytes().len(), PLAIN_LEN);
    }

    #[test]
    fn a_packet_is_split_as_it_was_put_together() {
        let packet = [head(&[5; NONCE_LEN]), vec![1; PLAIN_LEN + 16]].concat();
        let Parts { head, nonce, sealed } = split(&packet).expect("a packet");
        assert_eq!((head.len(), nonce, sealed.len()), (HEAD_LEN, [5; NONCE_LEN], PLAIN_LEN + 16));
        assert_eq!(split(&packet[1..]).err(), Some(DecodeError::Short));
        for (place, error) in [(0, DecodeError::Range), (1, DecodeError::Version), (2, DecodeError::Reserved)] {
            let mut damaged = packet.clone();
            damaged[place] ^= 0x10;
            assert_eq!(split(&damaged).err(), Some(error));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = split(&bytes);
            if let Ok(told) = Announcement::parse(&bytes) {
                prop_assert_eq!(Announcement::parse(&told.bytes()), Ok(told));
            }
        }
    }
}
