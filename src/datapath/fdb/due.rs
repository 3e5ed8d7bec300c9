//! Which entries to look at when room is needed: those that may be too old, the longest due first.
//!
//! Every entry stands here exactly once per order, at a time not later than it ages out. Hearing an
//! address again changes nothing here: the entry is looked at when its time comes and put off. So an
//! entry costs at most one look each time its address ages.

use std::collections::{BTreeMap, BTreeSet};

use super::{CAPACITY, Key, PER_PORT, PER_TAP, PortId, TAP};
use crate::time::Time;

/// Entries looked at for one frame at most: some 40 us. Beyond that the frame's sender is not learned,
/// and the next frame goes on.
pub(super) const STEPS: usize = 64;

/// An entry and when it is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Check {
    pub(super) at: Time,
    pub(super) key: Key,
}

/// The orders: each port's own, and that of all peers, who share what the TAP does not have.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Due {
    ports: BTreeMap<PortId, BTreeSet<Check>>,
    peers: BTreeSet<Check>,
}

impl Due {
    pub(super) fn insert(&mut self, at: Time, port: PortId, key: Key) {
        let check = Check { at, key };
        self.ports.entry(port).or_default().insert(check);
        if port != TAP {
            self.peers.insert(check);
        }
    }

    pub(super) fn remove(&mut self, at: Time, port: PortId, key: Key) {
        let check = Check { at, key };
        if let Some(own) = self.ports.get_mut(&port) {
            own.remove(&check);
            if own.is_empty() {
                self.ports.remove(&port);
            }
        }
        self.peers.remove(&check);
    }

    /// Removes all of `port`, and says what they were.
    pub(super) fn take_port(&mut self, port: PortId) -> impl Iterator<Item = Key> {
        let own = self.ports.remove(&port).unwrap_or_default();
        own.into_iter().map(|check| {
            self.peers.remove(&check);
            check.key
        })
    }

    /// The entry to look at first before `port` may have another; `None` if there is room.
    pub(super) fn in_the_way(&self, port: PortId) -> Option<Check> {
        let limit = if port == TAP { PER_TAP } else { PER_PORT };
        let own = self.ports.get(&port).filter(|own| own.len() >= limit);
        let all = Some(&self.peers).filter(|all| port != TAP && all.len() >= CAPACITY - PER_TAP);
        own.or(all)?.first().copied()
    }
}
