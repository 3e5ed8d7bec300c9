//! INVENTORY: what is behind a member's TAP, as far as others need it to answer for it (protocol.md section 5).
//!
//! `0x18 | flags 1 (bit 0 = forget all the rest, bit 1 = more follow, bit 2 = answer with yours) | digest 8 | count 1
//! (<= 40) | count x {what 1 (1 IPv4, 2 IPv6, 3 IPv6 of a router; bit 7 = no more) | vlan 2 | mac 6 | ip 4 or 16,
//! or what 1 (4 IPv4 group, 5 IPv6 group; bit 7) | vlan 2 | ip 4 or 16}`
//!
//! The digest is that of all the sender has after this message: a receiver that missed one sees it in the next.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use super::VLAN_MAX;
use super::codec::{DecodeError, Reader, Writer};

/// First byte of an INVENTORY.
pub const INVENTORY: u8 = 0x18;
/// Items of one message: with IPv6 they fit a packet of the narrowest underlay.
pub const ITEMS_MAX: usize = 40;

const IPV4: u8 = 1;
const IPV6: u8 = 2;
const IPV6_ROUTER: u8 = 3;
const GROUP_V4: u8 = 4;
const GROUP_V6: u8 = 5;
/// In the place of a machine's, where a group is wanted.
const NO_MAC: [u8; 6] = [0; 6];
/// Of the first byte of an item.
const NO_MORE: u8 = 0x80;

/// Items of an excerpt, at most; there is room for fewer.
pub const EXCERPT_MAX: usize = 0x7f;
/// Of an excerpt's count.
const THERE_IS_MORE: u8 = 0x80;

const ANEW: u8 = 1;
const MORE: u8 = 2;
const WANTS_ANSWER: u8 = 4;

/// "This machine has this IP address", or, with that of a group, "somebody here wants to hear it".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Binding {
    /// The VLAN; 0 = untagged.
    pub vlan: u16,
    /// The IP address.
    pub ip: IpAddr,
    /// The machine's MAC address; zero if it is a group.
    pub mac: [u8; 6],
    /// Whether it says that it is a router (IPv6 only: RFC 4861 7.2.4).
    pub is_router: bool,
}

impl Binding {
    /// Somebody wants to hear `group`.
    pub const fn of_group(group: IpAddr) -> Self {
        Self { vlan: 0, ip: group, mac: NO_MAC, is_router: false }
    }

    /// Its part of a digest: those of all bindings, taken together by exclusive or.
    pub fn digest(&self) -> u64 {
        let mut hasher = SipHasher13::new();
        hasher.write(&self.write(Writer::new(), 0).finish());
        hasher.finish()
    }

    fn write(self, writer: Writer, flags: u8) -> Writer {
        let what = match self.ip {
            IpAddr::V4(ip) if ip.is_multicast() => GROUP_V4,
            IpAddr::V6(ip) if ip.is_multicast() => GROUP_V6,
            IpAddr::V4(_) => IPV4,
            IpAddr::V6(_) if self.is_router => IPV6_ROUTER,
            IpAddr::V6(_) => IPV6,
        };
        let writer = writer.u8(what | flags).u16(self.vlan);
        let writer = if self.ip.is_multicast() { writer } else { writer.bytes(&self.mac) };
        match self.ip {
            IpAddr::V4(ip) => writer.bytes(&ip.octets()),
            IpAddr::V6(ip) => writer.bytes(&ip.octets()),
        }
    }

    fn read(reader: &mut Reader<'_>, what: u8) -> Result<Self, DecodeError> {
        let is_group = matches!(what, GROUP_V4 | GROUP_V6);
        let vlan = reader.u16()?;
        let mac = if is_group { NO_MAC } else { reader.array::<6>()? };
        let ip = match what {
            IPV4 | GROUP_V4 => IpAddr::from(reader.array::<4>()?),
            IPV6 | IPV6_ROUTER | GROUP_V6 => IpAddr::from(reader.array::<16>()?),
            _ => return Err(DecodeError::Range),
        };
        let is_machine = mac[0] & 1 == 0 && mac != NO_MAC && !ip.is_unspecified();
        let binding = Self { vlan, ip, mac, is_router: what == IPV6_ROUTER };
        let is_sound = ip.is_multicast() == is_group && (is_group || is_machine);
        if vlan <= VLAN_MAX && is_sound { Ok(binding) } else { Err(DecodeError::Range) }
    }
}

/// One binding of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Which.
    pub binding: Binding,
    /// Whether it holds no more.
    pub is_gone: bool,
}

/// As much of it as finds room in the sender's directory entry (protocol.md section 7):
/// `count 1 (bit 7 = there is more) | count x an item of INVENTORY`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excerpt {
    /// The first ones.
    pub bindings: Vec<Binding>,
    /// Whether they are not all.
    pub has_more: bool,
}

impl Excerpt {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = reader.u8()?;
        let binding = |_| {
            let what = reader.u8()?;
            Binding::read(reader, what)
        };
        let bindings = (0..count & !THERE_IS_MORE).map(binding).collect::<Result<_, DecodeError>>()?;
        Ok(Self { bindings, has_more: count & THERE_IS_MORE != 0 })
    }

    /// Writes what fits `room`.
    pub(super) fn write(&self, writer: Writer, room: usize) -> Writer {
        let (mut items, mut count) = (Vec::new(), 0_u8);
        for binding in self.bindings.iter().take(EXCERPT_MAX) {
            let item = binding.write(Writer::new(), 0).finish();
            if 1 + items.len() + item.len() > room {
                break;
            }
            items.extend(item);
            count += 1;
        }
        let has_more = self.has_more || usize::from(count) < self.bindings.len();
        writer.u8(count | if has_more { THERE_IS_MORE } else { 0 }).bytes(&items)
    }
}

/// The message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// What was told before is void.
    pub is_anew: bool,
    /// It is not the last one of several: the digest is true only after that.
    pub has_more: bool,
    /// The receiver shall tell its own.
    pub wants_answer: bool,
    /// Of all that the sender has.
    pub digest: u64,
    /// At most [`ITEMS_MAX`].
    pub items: Vec<Item>,
}

impl Inventory {
    /// Reads it behind its type.
    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = reader.u8()?;
        let digest = reader.u64()?;
        let count = usize::from(reader.u8()?);
        if flags > (ANEW | MORE | WANTS_ANSWER) || count > ITEMS_MAX {
            return Err(DecodeError::Range);
        }
        let item = |_| {
            let what = reader.u8()?;
            let binding = Binding::read(reader, what & !NO_MORE)?;
            Ok(Item { binding, is_gone: what & NO_MORE != 0 })
        };
        let items = (0..count).map(item).collect::<Result<_, DecodeError>>()?;
        let has = |flag| flags & flag != 0;
        Ok(Self { is_anew: has(ANEW), has_more: has(MORE), wants_answer: has(WANTS_ANSWER), digest, items })
    }

    /// Writes it behind its type.
    pub(super) fn write(&self, writer: Writer) -> Writer {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let flags = flag(self.is_anew, ANEW) | flag(self.has_more, MORE) | flag(self.wants_answer, WANTS_ANSWER);
        let items = &self.items[..self.items.len().min(ITEMS_MAX)];
        let count = u8::try_from(items.len()).expect("cut to the limit above");
        let writer = writer.u8(flags).u64(self.digest).u8(count);
        items.iter().fold(writer, |writer, item| item.binding.write(writer, flag(item.is_gone, NO_MORE)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_bindings_apart_and_does_not_mind_their_order() {
        let one = Binding { vlan: 0, ip: IpAddr::from([10, 0, 0, 1]), mac: [2, 0, 0, 0, 0, 1], is_router: false };
        let six = Binding { ip: "fd00::1".parse().expect("an address"), ..one };
        let others = [
            Binding { vlan: 1, ..one },
            Binding { ip: IpAddr::from([10, 0, 0, 2]), ..one },
            Binding { mac: [2, 0, 0, 0, 0, 2], ..one },
            six,
            Binding { is_router: true, ..six },
        ];
        assert!(others.iter().all(|other| other.digest() != one.digest()));
        assert_ne!(others[3].digest(), others[4].digest());
    }
}
