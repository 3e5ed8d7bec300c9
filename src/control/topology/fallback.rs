//! What a node does alone while nobody plans: it tries another way for its worst pair, and goes back if that is no gain.
//!
//! All that a node sees is what its own pairs get. Nodes that all act at once chase each other from one bottleneck to
//! the next; so each sleeps through most epochs, moves one pair at a time, and leaves alone for long what did not help.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand_chacha::rand_core::RngCore;

use crate::time::Time;

/// One epoch in so many a node looks at its pairs.
const AWAKE: u32 = 4;
/// Another way must give so many times what was before.
const GAIN: f64 = 1.15;
/// And has so long to show it: two readings of the fast average.
const TRIAL: Duration = Duration::from_secs(4);
/// A pair that was moved, or tried in vain, stays for so long; twice as long after each trial in vain.
const HOLD: Duration = Duration::from_secs(120);
/// But not for ever.
const HOLD_MAX: Duration = Duration::from_secs(960);

/// A pair that begins here.
#[derive(Clone, Copy, Debug)]
pub struct Own<K> {
    /// Where it ends.
    pub peer: K,
    /// What it gets, in bytes per second.
    pub rate: f64,
    /// The network holds it back.
    pub is_limited: bool,
    /// The member that it goes by.
    pub via: Option<K>,
}

/// The way of a pair from now on: of the peer, by this member or by nobody.
pub type Order<K> = (K, Option<K>);

#[derive(Clone, Copy, Debug)]
struct Hold {
    until: Time,
    next: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Trial<K> {
    peer: K,
    before: Option<K>,
    rate: f64,
    due: Time,
}

/// A node's memory of what it tried. Bounded by its peers: who is none of them any more is forgotten.
#[derive(Clone, Debug)]
pub struct Fallback<K> {
    trial: Option<Trial<K>>,
    holds: BTreeMap<K, Hold>,
    tried: BTreeMap<K, BTreeSet<K>>,
}

impl<K> Default for Fallback<K> {
    fn default() -> Self {
        Self { trial: None, holds: BTreeMap::new(), tried: BTreeMap::new() }
    }
}

impl<K: Copy + Ord> Fallback<K> {
    /// Looks at the pairs of this node, once in an epoch; gives at most one order.
    pub fn look(&mut self, now: Time, pairs: &[Own<K>], relays: &[K], rng: &mut impl RngCore) -> Option<Order<K>> {
        self.forget(pairs);
        if let Some(trial) = self.trial {
            return self.finish(now, trial, pairs);
        }
        if !rng.next_u32().is_multiple_of(AWAKE) {
            return None;
        }
        let is_free = |own: &&Own<K>| own.is_limited && self.holds.get(&own.peer).is_none_or(|hold| hold.until <= now);
        let worst = pairs.iter().filter(is_free).min_by(|one, other| one.rate.total_cmp(&other.rate))?;
        let via = self.untried(worst, relays, rng)?;
        self.tried.entry(worst.peer).or_default().insert(via);
        self.trial = Some(Trial { peer: worst.peer, before: worst.via, rate: worst.rate, due: now + TRIAL });
        Some((worst.peer, Some(via)))
    }

    /// Some member that was not tried for this pair; when all were, the first round is forgotten.
    fn untried(&mut self, own: &Own<K>, relays: &[K], rng: &mut impl RngCore) -> Option<K> {
        let tried = self.tried.entry(own.peer).or_default();
        let is_other = |relay: &&K| **relay != own.peer && Some(**relay) != own.via;
        let fresh = relays.iter().filter(is_other).filter(|relay| !tried.contains(relay)).collect::<Vec<_>>();
        if fresh.is_empty() {
            tried.clear();
            return None;
        }
        Some(*fresh[rng.next_u32() as usize % fresh.len()])
    }

    fn finish(&mut self, now: Time, trial: Trial<K>, pairs: &[Own<K>]) -> Option<Order<K>> {
        if now < trial.due {
            return None;
        }
        self.trial = None;
        let own = pairs.iter().find(|own| own.peer == trial.peer)?;
        let hold = self.holds.entry(trial.peer).or_insert(Hold { until: now, next: HOLD });
        if own.rate >= trial.rate * GAIN {
            *hold = Hold { until: now + HOLD, next: HOLD };
            return None;
        }
        hold.until = now + hold.next;
        hold.next = (hold.next * 2).min(HOLD_MAX);
        Some((trial.peer, trial.before))
    }

    fn forget(&mut self, pairs: &[Own<K>]) {
        let peers = pairs.iter().map(|own| own.peer).collect::<BTreeSet<_>>();
        self.holds.retain(|peer, _| peers.contains(peer));
        self.tried.retain(|peer, _| peers.contains(peer));
        self.trial = self.trial.filter(|trial| peers.contains(&trial.peer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    fn pair(rate: f64, via: Option<u8>) -> [Own<u8>; 1] {
        [Own { peer: 1, rate, is_limited: true, via }]
    }

    /// The first order within a hundred epochs, and when it came.
    fn order(
        fallback: &mut Fallback<u8>,
        now: &mut Time,
        pairs: &[Own<u8>],
        rng: &mut ChaCha8Rng,
    ) -> Option<Order<u8>> {
        (0..100).find_map(|_| {
            *now += Duration::from_secs(2);
            fallback.look(*now, pairs, &[2], rng)
        })
    }

    #[test]
    fn a_way_that_helps_is_kept_and_one_that_does_not_is_left_and_not_tried_again_soon() {
        for (rate, back) in [(116.0, None), (114.0, Some((1, None)))] {
            let (mut fallback, mut rng) = (Fallback::default(), ChaCha8Rng::seed_from_u64(1));
            let mut now = Time::START;
            assert_eq!(order(&mut fallback, &mut now, &pair(100.0, None), &mut rng), Some((1, Some(2))));
            let tried = now;
            let after = (0..3).find_map(|_| {
                now += Duration::from_secs(2);
                fallback.look(now, &pair(rate, Some(2)), &[2], &mut rng)
            });
            assert_eq!(after, back);
            let again = order(&mut fallback, &mut now, &pair(rate, back.map_or(Some(2), |_| None)), &mut rng);
            assert!(again.is_none() || now.since(tried) >= HOLD, "{again:?} after {:?}", now.since(tried));
        }
    }

    #[test]
    fn what_nobody_holds_back_is_left_alone() {
        let (mut fallback, mut rng) = (Fallback::default(), ChaCha8Rng::seed_from_u64(1));
        let content = [Own { is_limited: false, ..pair(100.0, None)[0] }];
        assert_eq!(order(&mut fallback, &mut { Time::START }, &content, &mut rng), None);
    }
}
