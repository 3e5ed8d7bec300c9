//! A round trip, as it was last and on average, and when one is clearly shorter than another.

use std::time::Duration;

/// Shorter by this part of the other one...
const SHARE: u32 = 5;
/// ...and by this much.
const MARGIN: Duration = Duration::from_millis(5);

/// There and back on one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trip {
    /// Of the last answer.
    pub last: Duration,
    /// Of the last answers; each counts less than the one after it.
    pub smooth: Duration,
}

impl Trip {
    /// The first that was seen.
    pub const fn first(rtt: Duration) -> Self {
        Self { last: rtt, smooth: rtt }
    }

    /// Takes in another one.
    #[must_use]
    pub fn and(self, rtt: Duration) -> Self {
        Self { last: rtt, smooth: (self.smooth * 3 + rtt) / 4 }
    }

    /// With a hop behind it that takes so long.
    #[must_use]
    pub fn then(self, rtt: Duration) -> Self {
        Self { last: self.last + rtt, smooth: self.smooth + rtt }
    }

    /// Whether it is worth a change, now and on average: what is only one of them would be left again soon.
    pub fn beats(self, other: Self) -> bool {
        let is_clear = |new: Duration, old: Duration| new + (old / SHARE).max(MARGIN) <= old;
        is_clear(self.last, other.last) && is_clear(self.smooth, other.smooth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn trip(last: u64, smooth: u64) -> Trip {
        Trip { last: Duration::from_millis(last), smooth: Duration::from_millis(smooth) }
    }

    #[test]
    fn a_trip_must_be_shorter_now_and_on_average_by_a_fifth_and_by_5_ms() {
        assert!(!trip(81, 70).beats(trip(100, 100)));
        assert!(!trip(70, 81).beats(trip(100, 100)));
        assert!(!trip(6, 6).beats(trip(10, 10)));
        assert!(trip(80, 80).beats(trip(100, 100)));
    }
}
