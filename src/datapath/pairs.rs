//! Which machines talk to each other, and how much: the counters behind `longwire top` and `longwire matrix`.
//!
//! Known unicast that crosses the overlay is counted where it enters and where it leaves, by source and destination
//! address. Up to [`EXACT_MAX`] pairs in a window are counted exactly. From then on every 64th frame on average is taken
//! for 64, and pairs that are not among the first go into a table of [`SAMPLED_MAX`] in which a new pair takes the place
//! and the count of the least one (Metwally's Space-Saving): what is large stays in, whatever else comes. A lane counts for
//! itself, without atomics; the tick takes the window and a new one begins. Addresses alone, whatever VLAN: a machine
//! is the same machine in all of them. Nothing of this ever leaves the member.

use std::collections::BTreeSet;

use ahash::RandomState;
use indexmap::IndexMap;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::fdb::PortId;
use super::frame::Mac;
use super::segment::Work;

/// Pairs that are counted exactly in one window: 200 kB, which stays in a core's cache.
pub const EXACT_MAX: usize = 4_096;
/// Pairs beyond those that are kept of what is sampled.
pub const SAMPLED_MAX: usize = 4_096;
/// Of what is sampled, one frame stands for so many.
const STRIDE: u64 = 64;

/// Which of two machines is ours, and behind which peer the other one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The sender is ours.
    Out(PortId),
    /// The receiver is.
    In(PortId),
}

/// Two machines, in the direction of travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacPair {
    /// The sender.
    pub from: Mac,
    /// The receiver.
    pub to: Mac,
    /// Where they are.
    pub side: Side,
}

impl MacPair {
    /// The one of the two that is ours.
    pub const fn own(self) -> Mac {
        match self.side {
            Side::Out(_) => self.from,
            Side::In(_) => self.to,
        }
    }

    /// The peer behind which the other one is.
    pub const fn port(self) -> PortId {
        match self.side {
            Side::Out(port) | Side::In(port) => port,
        }
    }
}

/// What passed between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Frames as they travel alone: those of a superframe, each.
    pub frames: u64,
    /// Their bytes, with each one's own headers.
    pub bytes: u64,
}

impl Volume {
    /// What `work` makes of `frame`.
    pub(super) fn of(frame: &[u8], work: &Work) -> Self {
        let Work::Cut { layout, size, .. } = work else { return Self { frames: 1, bytes: frame.len() as u64 } };
        let payload = frame.len().saturating_sub(layout.payload);
        let frames = payload.div_ceil(*size).max(1);
        Self { frames: frames as u64, bytes: (payload + frames * layout.payload) as u64 }
    }

    /// Adds another one.
    pub fn add(&mut self, more: Self) {
        self.frames += more.frames;
        self.bytes += more.bytes;
    }

    const fn times(self, factor: u64) -> Self {
        Self { frames: self.frames * factor, bytes: self.bytes * factor }
    }
}

/// The counters of one overlay on one lane.
#[derive(Debug)]
pub struct Pairs {
    /// Hashed with a key of ours: strangers choose the addresses.
    exact: IndexMap<u128, Volume, RandomState>,
    /// Where in it the pair was that was counted last: frames come in runs.
    last: usize,
    sampled: Sampled,
    /// With a full table, frames until the next one is sampled.
    skip: u32,
    chance: ChaCha8Rng,
}

/// The greatest of what is sampled.
#[derive(Debug)]
struct Sampled {
    volumes: IndexMap<u128, Volume, RandomState>,
    /// The same by bytes, for the least.
    order: BTreeSet<(u64, u128)>,
}

impl Pairs {
    /// Nothing counted yet; hashed and sampled with `seed`.
    pub fn new(seed: [u64; 4]) -> Self {
        let [a, b, c, d] = seed;
        let hasher = || RandomState::with_seeds(a, b, c, d);
        let sampled = Sampled { volumes: IndexMap::with_hasher(hasher()), order: BTreeSet::new() };
        let chance = ChaCha8Rng::seed_from_u64(a ^ d);
        Self { exact: IndexMap::with_hasher(hasher()), last: 0, sampled, skip: 0, chance }
    }

    /// Counts what begins with its two addresses, if it is for one machine.
    pub fn count(&mut self, side: Side, frame: &[u8], volume: Volume) {
        let is_full = self.exact.len() >= EXACT_MAX;
        if is_full && self.skip > 0 {
            self.skip -= 1;
            return;
        }
        let Some(key) = key(side, frame) else { return };
        if !is_full {
            return self.count_exactly(key, volume);
        }
        // From 1 to 127 with this one: 64 on average, whatever beat the traffic has.
        self.skip = self.chance.next_u32() % (2 * STRIDE as u32 - 1);
        match self.exact.get_mut(&key) {
            Some(sum) => sum.add(volume.times(STRIDE)),
            None => self.sampled.add(key, volume.times(STRIDE)),
        }
    }

    fn count_exactly(&mut self, key: u128, volume: Volume) {
        if let Some((last, sum)) = self.exact.get_index_mut(self.last)
            && *last == key
        {
            return sum.add(volume);
        }
        let entry = self.exact.entry(key);
        self.last = entry.index();
        entry.or_default().add(volume);
    }

    /// Adds what another lane counted. What there is no room for goes the way of samples, as what it stands for.
    pub fn add(&mut self, counted: &[(MacPair, Volume)]) {
        for (pair, volume) in counted {
            let key = pair.key();
            let is_full = self.exact.len() >= EXACT_MAX;
            match self.exact.get_mut(&key) {
                Some(sum) => sum.add(*volume),
                None if is_full => self.sampled.add(key, *volume),
                None => drop(self.exact.insert(key, *volume)),
            }
        }
    }

    /// What was counted since the last time. An exact and a sampled row never stand for the same pair of a window.
    pub fn take(&mut self) -> Vec<(MacPair, Volume)> {
        self.sampled.order.clear();
        let counted = self.exact.drain(..).chain(self.sampled.volumes.drain(..));
        counted.map(|(key, volume)| (MacPair::of(key), volume)).collect()
    }
}

impl Sampled {
    fn add(&mut self, key: u128, volume: Volume) {
        let before = match self.volumes.get(&key) {
            Some(sum) => {
                self.order.remove(&(sum.bytes, key));
                *sum
            }
            None if self.volumes.len() < SAMPLED_MAX => Volume::default(),
            None => {
                let least = self.order.pop_first().and_then(|(_, least)| self.volumes.swap_remove(&least));
                least.unwrap_or_default()
            }
        };
        let sum = Volume { frames: before.frames + volume.frames, bytes: before.bytes + volume.bytes };
        self.volumes.insert(key, sum);
        self.order.insert((sum.bytes, key));
    }
}

/// Side, destination and source as they stand in the frame, in one number; nothing if the destination is a group.
fn key(side: Side, frame: &[u8]) -> Option<u128> {
    let addresses: &[u8; 12] = frame.first_chunk()?;
    let mut wide = [0; 16];
    wide[..4].copy_from_slice(&side.number().to_be_bytes());
    wide[4..].copy_from_slice(addresses);
    (addresses[0] & 1 == 0).then(|| u128::from_be_bytes(wide))
}

impl Side {
    /// A node does not get so far as to give the upper half of the port numbers.
    const fn number(self) -> u32 {
        match self {
            Self::Out(port) => port.0 << 1,
            Self::In(port) => port.0 << 1 | 1,
        }
    }

    const fn of(number: u32) -> Self {
        let port = PortId(number >> 1);
        if number & 1 == 0 { Self::Out(port) } else { Self::In(port) }
    }
}

impl MacPair {
    fn key(self) -> u128 {
        let mut wide = [0; 16];
        wide[..4].copy_from_slice(&self.side.number().to_be_bytes());
        wide[4..10].copy_from_slice(&self.to.0);
        wide[10..].copy_from_slice(&self.from.0);
        u128::from_be_bytes(wide)
    }

    fn of(key: u128) -> Self {
        let [w, x, y, z, a, b, c, d, e, f, g, h, i, j, k, l] = key.to_be_bytes();
        let side = Side::of(u32::from_be_bytes([w, x, y, z]));
        Self { from: Mac([g, h, i, j, k, l]), to: Mac([a, b, c, d, e, f]), side }
    }
}

#[cfg(test)]
mod tests;
