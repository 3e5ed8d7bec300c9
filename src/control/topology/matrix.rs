//! The traffic matrix: who sends how much to whom, as fast and as slow averages.
//!
//! A node averages its own counters with [`Rates::sample`]; the home supernode merges what nodes report
//! into one [`Matrix`] and forgets what is not renewed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{NodeIndex, Pair};
use crate::time::Time;

/// Time constant of the average that reacts.
pub(super) const FAST: Duration = Duration::from_secs(2);
/// Time constant of the average that remembers: a program that computes for a while keeps its ways.
const SLOW: Duration = Duration::from_secs(30);
/// What was not renewed for three reports is gone.
pub const STALE_AFTER: Duration = Duration::from_secs(6);
/// Most pairs kept: 1,000 nodes with 64 partners each.
pub const PAIRS_MAX: usize = 65_536;
/// Matrices less alike than this are two phases of the application.
const SAME_PHASE: f64 = 0.7;

/// Bytes per second of one pair, averaged twice.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Over about 2 seconds.
    pub fast: f64,
    /// Over about 30 seconds.
    pub slow: f64,
}

impl Rates {
    /// Takes in `bytes` that passed during the last `span`.
    pub fn sample(&mut self, bytes: f64, span: Duration) {
        let seconds = span.as_secs_f64();
        if seconds <= 0.0 || !bytes.is_finite() {
            return;
        }
        let rate = bytes.max(0.0) / seconds;
        self.fast += (rate - self.fast) * share(seconds, FAST);
        self.slow += (rate - self.slow) * share(seconds, SLOW);
    }

    /// What is planned for: a pair that has a way of its own keeps it through a pause.
    pub fn demand(self, has_own_way: bool) -> f64 {
        if has_own_way { self.fast.max(self.slow) } else { self.fast }
    }
}

/// How much of a new sample enters an average.
fn share(seconds: f64, constant: Duration) -> f64 {
    1.0 - (-seconds / constant.as_secs_f64()).exp()
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    rates: Rates,
    reported: Time,
}

/// All pairs of an overlay, as reported.
#[derive(Clone, Debug, Default)]
pub struct Matrix {
    pairs: BTreeMap<Pair, Entry>,
    refused: u64,
}

impl Matrix {
    /// Notes what a node reported of a pair.
    pub fn report(&mut self, now: Time, pair: Pair, rates: Rates) {
        let is_sound = rates.fast.is_finite() && rates.slow.is_finite() && rates.fast >= 0.0 && rates.slow >= 0.0;
        let has_room = self.pairs.len() < PAIRS_MAX || self.pairs.contains_key(&pair);
        if pair.from == pair.to || !is_sound || !has_room {
            self.refused += 1;
            return;
        }
        self.pairs.insert(pair, Entry { rates, reported: now });
    }

    /// Forgets what was not renewed in time.
    pub fn expire(&mut self, now: Time) {
        self.pairs.retain(|_, entry| now.since(entry.reported) <= STALE_AFTER);
    }

    /// Forgets a node.
    pub fn remove(&mut self, node: NodeIndex) {
        self.pairs.retain(|pair, _| !pair.involves(node));
    }

    /// The averages of a pair.
    pub fn rates(&self, pair: Pair) -> Option<Rates> {
        self.pairs.get(&pair).map(|entry| entry.rates)
    }

    /// Every pair with its averages, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Pair, Rates)> + '_ {
        self.pairs.iter().map(|(pair, entry)| (*pair, entry.rates))
    }

    /// The fast averages alone.
    pub fn snapshot(&self) -> BTreeMap<Pair, f64> {
        self.iter().map(|(pair, rates)| (pair, rates.fast)).collect()
    }

    /// Reports that were senseless, or for which there was no room.
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}

/// How alike two matrices are: 1 for the same proportions, 0 if they have no pair in common.
pub fn similarity<K: Ord>(one: &BTreeMap<K, f64>, other: &BTreeMap<K, f64>) -> f64 {
    let length = |matrix: &BTreeMap<K, f64>| matrix.values().map(|rate| rate * rate).sum::<f64>().sqrt();
    let lengths = length(one) * length(other);
    let product = one.iter().filter_map(|(pair, rate)| Some(rate * other.get(pair)?)).sum::<f64>();
    if lengths > 0.0 { (product / lengths).clamp(0.0, 1.0) } else { f64::from(u8::from(one.len() == other.len())) }
}

/// Whether the application does something else than before.
pub fn is_phase_change<K: Ord>(before: &BTreeMap<K, f64>, now: &BTreeMap<K, f64>) -> bool {
    similarity(before, now) < SAME_PHASE
}

#[cfg(test)]
mod tests {
    use super::*;

    const A_TO_B: Pair = Pair::new(NodeIndex(0), NodeIndex(1));
    const B_TO_C: Pair = Pair::new(NodeIndex(1), NodeIndex(2));

    #[test]
    fn the_fast_average_follows_and_the_slow_one_remembers() {
        let mut rates = Rates::default();
        for _ in 0..20 {
            rates.sample(500.0, Duration::from_millis(500));
        }
        assert!((990.0..1000.0).contains(&rates.fast), "{rates:?}");
        assert!((250.0..350.0).contains(&rates.slow), "{rates:?}");
        for _ in 0..12 {
            rates.sample(0.0, Duration::from_millis(500));
        }
        assert!(rates.fast < 60.0 && rates.slow > 200.0, "{rates:?}");
        assert!(rates.demand(true) > 200.0 && rates.demand(false) < 60.0);
    }

    #[test]
    fn what_is_not_renewed_is_forgotten_and_nonsense_is_counted() {
        let mut matrix = Matrix::default();
        let rates = Rates { fast: 1.0, slow: 1.0 };
        matrix.report(Time::START, A_TO_B, rates);
        matrix.report(Time::START + Duration::from_secs(5), B_TO_C, rates);
        matrix.report(Time::START, A_TO_B, Rates { fast: f64::NAN, slow: 0.0 });
        matrix.expire(Time::START + Duration::from_secs(7));
        assert_eq!((matrix.rates(A_TO_B), matrix.rates(B_TO_C)), (None, Some(rates)));
        assert_eq!(matrix.refused(), 1);
    }

    #[test]
    fn other_partners_are_another_phase_and_more_of_the_same_is_not() {
        let matrix = |entries: &[(Pair, f64)]| entries.iter().copied().collect::<BTreeMap<_, _>>();
        let before = matrix(&[(A_TO_B, 1.0), (B_TO_C, 2.0)]);
        assert!(!is_phase_change(&before, &matrix(&[(A_TO_B, 10.0), (B_TO_C, 20.0)])));
        assert!(is_phase_change(&before, &matrix(&[(A_TO_B, 1.0)])));
        assert!(is_phase_change(&before, &BTreeMap::new()));
        assert!(!is_phase_change::<Pair>(&BTreeMap::new(), &BTreeMap::new()));
    }
}
