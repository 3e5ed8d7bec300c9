//! Which way is quicker, for pairs that send little: decided by the node where their frames enter.
//!
//! A way must be quicker now and on average, by a fifth and by 5 ms, and then it stays for a while.

use std::time::Duration;

use super::{NodeIndex, Via};
use crate::time::Time;

/// Quicker by this share of the present round trip.
const SHARE: f64 = 0.2;
/// And by this much.
const MARGIN: Duration = Duration::from_millis(5);
/// A way once chosen stays.
const HOLD: Duration = Duration::from_secs(30);

/// The round trip of a way: the sum of its hops, each the longer of what its two ends say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    /// Measured last.
    pub current: Duration,
    /// On average.
    pub smoothed: Duration,
}

impl RoundTrip {
    /// Whether this is clearly quicker than `present`.
    fn beats(self, present: Self) -> bool {
        let is_quicker = |new: Duration, old: Duration| {
            let margin = old.mul_f64(SHARE).max(MARGIN);
            new + margin <= old
        };
        is_quicker(self.current, present.current) && is_quicker(self.smoothed, present.smoothed)
    }
}

/// The way of one latency pair.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// The way.
    pub via: Via,
    since: Option<Time>,
}

impl Choice {
    /// On its usual way, free to leave it.
    pub const fn new(via: Via) -> Self {
        Self { via, since: None }
    }

    /// Looks at the candidates; gives the new way if it changes. `present` is missing if the way is dead.
    pub fn choose(&mut self, now: Time, present: Option<RoundTrip>, relays: &[(NodeIndex, RoundTrip)]) -> Option<Via> {
        let is_held = self.since.is_some_and(|since| now.since(since) < HOLD);
        if is_held && present.is_some() {
            return None;
        }
        let better = relays.iter().filter(|(_, trip)| present.is_none_or(|present| trip.beats(present)));
        let best = better.min_by_key(|(relay, trip)| (trip.smoothed, *relay))?;
        let via = Via::Relay(best.0);
        (via != self.via).then(|| {
            *self = Self { via, since: Some(now) };
            via
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn trip(current: u64, smoothed: u64) -> RoundTrip {
        RoundTrip { current: Duration::from_millis(current), smoothed: Duration::from_millis(smoothed) }
    }

    fn at(seconds: u64) -> Time {
        Time::START + Duration::from_secs(seconds)
    }

    #[test]
    fn a_relay_must_be_quicker_now_and_on_average_by_a_fifth_and_by_5_ms() {
        let mut choice = Choice::new(Via::Direct);
        let mut choose = |present, relay| choice.choose(at(0), Some(present), &[(NodeIndex(1), relay)]);
        assert_eq!(choose(trip(100, 100), trip(81, 70)), None);
        assert_eq!(choose(trip(100, 100), trip(70, 81)), None);
        assert_eq!(choose(trip(10, 10), trip(6, 6)), None);
        assert_eq!(choose(trip(100, 100), trip(80, 80)), Some(Via::Relay(NodeIndex(1))));
    }

    #[test]
    fn a_way_stays_for_30_seconds_unless_it_dies() {
        let mut choice = Choice::new(Via::Direct);
        let relay = |node| [(NodeIndex(node), trip(10, 10))];
        assert!(choice.choose(at(0), Some(trip(100, 100)), &relay(1)).is_some());
        assert_eq!(choice.choose(at(29), Some(trip(100, 100)), &relay(2)), None);
        assert_eq!(choice.choose(at(29), None, &relay(2)), Some(Via::Relay(NodeIndex(2))));
        assert_eq!(choice.choose(at(59), Some(trip(100, 100)), &relay(3)), Some(Via::Relay(NodeIndex(3))));
    }
}
