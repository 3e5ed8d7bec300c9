//! Which machines talk, as a member averages what its corridor counted: for its user's eyes, and for nobody else's.

use std::collections::BTreeMap;
use std::time::Duration;

use super::topology::matrix::Rates;
use crate::datapath::{MacPair, Volume};

/// Pairs kept, the greatest: what one window of the corridor has room for.
const PAIRS_MAX: usize = 8_192;
/// A pair with less over half a minute is forgotten (bytes per second).
const FORGOTTEN: f64 = 50.0;

/// What two machines exchange, one way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Talk {
    pub(super) bytes: Rates,
    pub(super) frames: Rates,
}

/// The pairs of an overlay.
#[derive(Clone, Debug, Default)]
pub(super) struct Machines {
    pairs: BTreeMap<MacPair, Talk>,
    /// Pairs that were not kept, each time.
    crowded_out: u64,
}

impl Machines {
    /// Takes in what was counted during the last `span`.
    pub(super) fn read(&mut self, span: Duration, counted: &[(MacPair, Volume)]) {
        let mut fresh: BTreeMap<MacPair, Volume> = counted.iter().copied().collect();
        for pair in fresh.keys() {
            self.pairs.entry(*pair).or_default();
        }
        self.pairs.retain(|pair, talk| {
            let Volume { frames, bytes } = fresh.remove(pair).unwrap_or_default();
            talk.bytes.sample(bytes as f64, span);
            talk.frames.sample(frames as f64, span);
            talk.bytes.slow >= FORGOTTEN || talk.bytes.fast >= FORGOTTEN
        });
        self.make_room();
    }

    fn make_room(&mut self) {
        let Some(over) = self.pairs.len().checked_sub(PAIRS_MAX).filter(|over| *over > 0) else { return };
        let mut rates = self.pairs.values().map(|talk| talk.bytes.slow).collect::<Vec<_>>();
        let (_, bar, _) = rates.select_nth_unstable_by(over - 1, f64::total_cmp);
        let (bar, mut left) = (*bar, over);
        self.pairs.retain(|_, talk| {
            let goes = left > 0 && talk.bytes.slow <= bar;
            left -= usize::from(goes);
            !goes
        });
        self.crowded_out += over as u64;
    }

    /// Every pair, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (MacPair, Talk)> + '_ {
        self.pairs.iter().map(|(pair, talk)| (*pair, *talk))
    }

    /// Pairs that were not kept, so far.
    pub(super) const fn crowded_out(&self) -> u64 {
        self.crowded_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::fdb::{Address, PortId};

    const HALF: Duration = Duration::from_millis(500);

    fn pair(number: u16) -> MacPair {
        let [high, low] = number.to_be_bytes();
        let mac = |first| Address::from((0, [first, 0, 0, 0, high, low])).mac;
        MacPair { from: mac(2), to: mac(6), side: crate::datapath::Side::Out(PortId(1)) }
    }

    fn volume(bytes: u64) -> Volume {
        Volume { frames: bytes / 1_000, bytes }
    }

    #[test]
    fn rates_follow_and_silence_is_forgotten() {
        let mut machines = Machines::default();
        (0..20).for_each(|_| machines.read(HALF, &[(pair(1), volume(1_000_000))]));
        let (_, talk) = machines.iter().next().expect("the pair");
        assert!((1_900_000.0..2_000_000.0).contains(&talk.bytes.fast), "{talk:?}");
        assert!((1_900.0..2_000.0).contains(&talk.frames.fast), "{talk:?}");
        (0..800).for_each(|_| machines.read(HALF, &[]));
        assert_eq!(machines.iter().count(), 0);
    }

    #[test]
    fn the_greatest_stay_when_there_are_too_many() {
        let mut machines = Machines::default();
        let all = (0..10_000).map(|number| (pair(number), volume(1_000 + u64::from(number)))).collect::<Vec<_>>();
        machines.read(HALF, &all);
        assert_eq!(machines.iter().count(), PAIRS_MAX);
        assert_eq!(machines.iter().next().map(|(first, _)| first), Some(pair(10_000 - PAIRS_MAX as u16)));
        assert_eq!(machines.crowded_out(), 10_000 - PAIRS_MAX as u64);
    }
}
