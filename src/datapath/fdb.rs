//! The forwarding database: which port each MAC address was last heard on, VLAN by VLAN.
//!
//! Learned from source addresses, aged out after [`AGEING`], bounded by [`CAPACITY`] and per port.
//! One rule for every move, TAP or peer, from or to: an announced one is followed at once, an
//! ordinary frame only when the owner has not been heard for [`QUIET`]. Too old is as if it were not
//! there; its room is taken back when a new entry needs it, a few at a time, so that no frame pays
//! for a scan. No port's new addresses ever displace another port's entries. Every entry carries the
//! sequence of its address's last claim, and may be frozen; what these mean is `ownership`'s business.
//! Does no I/O and reads no clock.

mod due;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ahash::RandomState;
use indexmap::IndexMap;

use self::due::Due;
use super::frame::Mac;
use crate::time::Time;

/// IEEE 802.1D's default; the Linux bridge uses the same.
pub const AGEING: Duration = Duration::from_secs(300);
/// Entries in all: about 8 MB when full, and more than hardware switches of a rack hold.
pub const CAPACITY: usize = 65_536;
/// Entries of one peer: a site of a thousand machines. 48 such peers fill the table; a member that
/// makes up addresses fills no more than this.
pub const PER_PORT: usize = 1_024;
/// Entries of the TAP: the segment behind us is our own and may be large. This room is kept for it,
/// so that members cannot make us deaf to our own machines and then take their addresses.
pub const PER_TAP: usize = 16_384;
/// An owner heard more recently keeps its address against frames that announce nothing: longer
/// than a flow pauses, shorter than people wait for a machine that moved without a word.
pub const QUIET: Duration = Duration::from_secs(5);

/// A port of the switch. The numbers of peers' ports are never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u32);

/// The port towards our own segment.
pub const TAP: PortId = PortId(0);

/// What became of a source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// Not known before, known now.
    New,
    /// Known here, heard again.
    Refreshed,
    /// Was known at this other port, is here now.
    Moved(PortId),
    /// Known at another port that was heard a moment ago: stays there.
    Held,
    /// No room: not known now, frames to it are flooded.
    Full,
    /// A group or nobody: never learned.
    Group,
}

/// A MAC address in a VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The VLAN; 0 = untagged.
    pub vlan: u16,
    /// The address.
    pub mac: Mac,
}

impl From<(u16, [u8; 6])> for Address {
    fn from((vlan, mac): (u16, [u8; 6])) -> Self {
        Self { vlan, mac: Mac(mac) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vlan {
            0 => write!(out, "{}", self.mac),
            vlan => write!(out, "{} in VLAN {vlan}", self.mac),
        }
    }
}

/// The same in one number, ordered by VLAN first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key(u64);

impl From<Address> for Key {
    fn from(Address { vlan, mac }: Address) -> Self {
        Self::new(vlan, mac)
    }
}

impl Key {
    fn new(vlan: u16, Mac([a, b, c, d, e, f]): Mac) -> Self {
        let [high, low] = vlan.to_be_bytes();
        Self(u64::from_be_bytes([high, low, a, b, c, d, e, f]))
    }

    fn parts(self) -> (u16, Mac) {
        let [high, low, mac @ ..] = self.0.to_be_bytes();
        (u16::from_be_bytes([high, low]), Mac(mac))
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    port: PortId,
    /// Of the last claim; 0 if nobody claimed it.
    sequence: u32,
    heard: Time,
    /// When [`Due`] looks at it next; not later than it ages out.
    due: Time,
}

impl Slot {
    fn is_old(&self, now: Time) -> bool {
        now.since(self.heard) >= AGEING
    }
}

/// An entry as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The VLAN; 0 = untagged.
    pub vlan: u16,
    /// The address.
    pub mac: Mac,
    /// Where it is.
    pub port: PortId,
    /// Of its last claim; 0 if nobody claimed it.
    pub sequence: u32,
    /// Whether it stays there whoever claims it.
    pub frozen: bool,
    /// Since it was last heard.
    pub age: Duration,
}

/// Who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Where it is.
    pub port: PortId,
    /// Of its last claim; 0 if nobody claimed it.
    pub sequence: u32,
    /// When a frame of it came by that port last.
    pub heard: Time,
    /// Whether it stays there whoever claims it.
    pub frozen: bool,
}

/// The table.
#[derive(Debug)]
pub struct Fdb {
    /// Hashed with a key of ours: strangers choose the addresses.
    entries: IndexMap<Key, Slot, RandomState>,
    due: Due,
    /// Entries that do not move before then.
    frozen: BTreeMap<Key, Time>,
    /// Addresses that came to another place or to none, if somebody keeps a copy of the table.
    changes: Option<Vec<(u16, Mac)>>,
}

impl Fdb {
    /// An empty table, hashed with `seed`.
    pub fn new(seed: [u64; 4]) -> Self {
        let [a, b, c, d] = seed;
        let hasher = RandomState::with_seeds(a, b, c, d);
        let (entries, due) = (IndexMap::with_hasher(hasher), Due::default());
        Self { entries, due, frozen: BTreeMap::new(), changes: None }
    }

    /// From now on, changes are written down.
    pub fn note_changes(&mut self) {
        self.changes = Some(Vec::new());
    }

    /// What changed since the last call, but for flushed ports.
    pub fn take_changes(&mut self) -> Vec<(u16, Mac)> {
        self.changes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A frame from `mac` came in by `port`; `announced` if it says that the sender is there now.
    pub fn learn(&mut self, now: Time, vlan: u16, mac: Mac, port: PortId, announced: bool) -> Learned {
        if mac.is_group() || mac.is_zero() {
            return Learned::Group;
        }
        let key = Key::new(vlan, mac);
        let Some(slot) = self.entries.get_mut(&key) else {
            return self.insert(now, key, (port, 0), Learned::New);
        };
        let known = !slot.is_old(now);
        if slot.port == port {
            slot.heard = slot.heard.max(now);
            return if known { Learned::Refreshed } else { Learned::New };
        }
        let (from, sequence) = (slot.port, slot.sequence);
        let is_quiet = announced || now.since(slot.heard) >= QUIET;
        if known && (!is_quiet || self.is_frozen(now, key)) {
            return Learned::Held;
        }
        // It has left there, whether or not there is room for it here.
        self.remove(key);
        self.insert(now, key, (port, sequence), if known { Learned::Moved(from) } else { Learned::New })
    }

    /// Who has `address`, if that is known.
    pub fn owner(&self, now: Time, address: Address) -> Option<Owner> {
        let key = address.into();
        let slot = self.entries.get(&key).filter(|slot| !slot.is_old(now))?;
        let Slot { port, sequence, heard, .. } = *slot;
        Some(Owner { port, sequence, heard, frozen: self.is_frozen(now, key) })
    }

    /// `address` is at `port` with this sequence, whatever was known before.
    pub fn assign(&mut self, now: Time, address: Address, port: PortId, sequence: u32) -> Learned {
        let key = address.into();
        match self.entries.get_mut(&key) {
            Some(slot) if slot.port == port => {
                slot.sequence = sequence;
                slot.heard = slot.heard.max(now);
                Learned::Refreshed
            }
            slot => {
                let learned = slot.map_or(Learned::New, |slot| Learned::Moved(slot.port));
                self.remove(key);
                self.insert(now, key, (port, sequence), learned)
            }
        }
    }

    /// `address` stays where it is until then. Those that have thawed are forgotten.
    pub fn freeze(&mut self, now: Time, address: Address, until: Time) {
        self.frozen.retain(|_, thaw| *thaw > now);
        self.frozen.insert(address.into(), until);
    }

    fn is_frozen(&self, now: Time, key: Key) -> bool {
        self.frozen.get(&key).is_some_and(|thaw| *thaw > now)
    }

    /// Where frames to `mac` go; `None` if nobody knows: flood.
    pub fn lookup(&self, now: Time, vlan: u16, mac: Mac) -> Option<PortId> {
        let slot = self.entries.get(&Key::new(vlan, mac))?;
        (!slot.is_old(now)).then_some(slot.port)
    }

    /// Where `mac` is and when it was last heard.
    pub fn find(&self, now: Time, vlan: u16, mac: Mac) -> Option<(PortId, Time)> {
        let slot = self.entries.get(&Key::new(vlan, mac))?;
        (!slot.is_old(now)).then_some((slot.port, slot.heard))
    }

    /// VLAN, address and place of what was heard after `since`, with the time. Looks at every entry.
    pub fn heard_after(&self, since: Time) -> impl Iterator<Item = (u16, Mac, PortId, Time)> {
        let heard = self.entries.iter().filter(move |(_, slot)| slot.heard > since);
        heard.map(|(key, slot)| (key.parts().0, key.parts().1, slot.port, slot.heard))
    }

    /// Forgets one address.
    pub fn forget(&mut self, vlan: u16, mac: Mac) {
        self.remove(Key::new(vlan, mac));
    }

    /// Forgets everything at `port`: its peer is gone.
    pub fn flush_port(&mut self, port: PortId) {
        for key in self.due.take_port(port) {
            self.entries.swap_remove(&key);
            self.frozen.remove(&key);
        }
    }

    /// How many entries are not too old. Counts them: for people, not per frame.
    pub fn len(&self, now: Time) -> usize {
        self.entries.values().filter(|slot| !slot.is_old(now)).count()
    }

    /// The entries that are not too old, by VLAN and address. For people, not per frame.
    pub fn entries(&self, now: Time) -> impl Iterator<Item = Entry> + use<> {
        let mut live: Vec<_> =
            self.entries.iter().filter(|(_, slot)| !slot.is_old(now)).map(|(k, s)| (*k, *s)).collect();
        live.sort_unstable_by_key(|(key, _)| *key);
        let entry = |(key, slot): (Key, Slot)| {
            let ((vlan, mac), Slot { port, sequence, heard, .. }) = (key.parts(), slot);
            Entry { vlan, mac, port, sequence, frozen: self.is_frozen(now, key), age: now.since(heard) }
        };
        live.into_iter().map(entry).collect::<Vec<_>>().into_iter()
    }

    fn insert(&mut self, now: Time, key: Key, (port, sequence): (PortId, u32), learned: Learned) -> Learned {
        if !self.has_room(now, port) {
            return Learned::Full;
        }
        let slot = Slot { port, sequence, heard: now, due: now + AGEING };
        self.due.insert(slot.due, port, key);
        self.entries.insert(key, slot);
        self.note(key);
        learned
    }

    fn remove(&mut self, key: Key) {
        if let Some(slot) = self.entries.swap_remove(&key) {
            self.due.remove(slot.due, slot.port, key);
            self.frozen.remove(&key);
            self.note(key);
        }
    }

    fn note(&mut self, key: Key) {
        if let Some(changes) = &mut self.changes {
            changes.push(key.parts());
        }
    }

    /// Whether `port` may have one more entry, after taking back what is too old.
    fn has_room(&mut self, now: Time, port: PortId) -> bool {
        let mut steps = due::STEPS;
        while let Some(first) = self.due.in_the_way(port) {
            if steps == 0 || first.at > now {
                return false;
            }
            steps -= 1;
            self.look_at(now, first.key);
        }
        true
    }

    /// Its time has come: it goes, or its time is put off if it was heard since.
    fn look_at(&mut self, now: Time, key: Key) {
        let Some(slot) = self.entries.get_mut(&key) else { return };
        if slot.is_old(now) {
            return self.remove(key);
        }
        let put_off = slot.heard + AGEING;
        self.due.remove(slot.due, slot.port, key);
        self.due.insert(put_off, slot.port, key);
        slot.due = put_off;
    }
}

#[cfg(test)]
mod tests;
