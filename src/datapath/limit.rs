//! A token bucket: so many per second, and so many at once after a rest.
//!
//! Exact: what is left is counted in billionths of a token, of which `rate` drip in per nanosecond.
//! Reads no clock; a `now` before the last one adds nothing.

use crate::time::Time;

/// Frames a second that one node may flood: several times what a large segment's ARP needs, and a
/// storm that every peer survives.
pub const FLOOD_RATE: u32 = 1_000;
/// Floods at once after a rest: a rack of machines that boots together.
pub const FLOOD_BURST: u32 = 2_000;

/// One token, in the unit of the level.
const TOKEN: u64 = 1_000_000_000;

/// The bucket.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: u64,
    capacity: u64,
    level: u64,
    filled: Time,
}

impl Bucket {
    /// A full bucket of `burst` tokens, refilled with `rate_per_s`.
    pub fn new(rate_per_s: u32, burst: u32) -> Self {
        let capacity = u64::from(burst) * TOKEN;
        Self { rate: u64::from(rate_per_s), capacity, level: capacity, filled: Time::START }
    }

    /// Takes one token; false if there is none.
    pub fn take(&mut self, now: Time) -> bool {
        self.take_many(now, 1)
    }

    /// Takes `count` tokens; false, and none is taken, if there are fewer.
    pub fn take_many(&mut self, now: Time, count: u32) -> bool {
        if now > self.filled {
            let elapsed = now.as_nanos() - self.filled.as_nanos();
            let dripped = elapsed.saturating_mul(self.rate);
            self.level = self.level.saturating_add(dripped).min(self.capacity);
            self.filled = now;
        }
        let taken = self.level.checked_sub(u64::from(count) * TOKEN);
        self.level = taken.unwrap_or(self.level);
        taken.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut bucket = Bucket::new(FLOOD_RATE, FLOOD_BURST);
        let start = Time::from_nanos(123_456_789);
        assert_eq!(taken(&mut bucket, start, 5_000), 2_000);
        assert!(!bucket.take(start + Duration::from_nanos(999_999)));
        assert!(bucket.take(start + Duration::from_millis(1)), "one each millisecond");
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(501), 5_000), 500);
    }

    #[test]
    fn all_tokens_that_are_asked_for_or_none() {
        let mut bucket = Bucket::new(1_000, 1_500);
        assert!(bucket.take_many(Time::START, 1_400));
        assert!(!bucket.take_many(Time::START, 1_400));
        assert!(bucket.take_many(Time::START, 100));
        assert!(bucket.take_many(Time::START + Duration::from_secs(1), 1_000));
    }

    #[test]
    fn a_rest_never_saves_more_than_the_burst() {
        let mut bucket = Bucket::new(FLOOD_RATE, FLOOD_BURST);
        assert_eq!(taken(&mut bucket, Time::START, 2_001), 2_000);
        assert_eq!(taken(&mut bucket, Time::NEVER, 5_000), 2_000);
    }

    #[test]
    fn nothing_is_lost_to_rounding_however_often_it_is_asked() {
        // A third of a second is no whole number of nanoseconds.
        let mut bucket = Bucket::new(3, 100);
        assert_eq!(taken(&mut bucket, Time::START, 100), 100);
        let polls = (0..7_000_000_000u64).step_by(7_000).skip(1);
        let passed = polls.filter(|nanos| bucket.take(Time::from_nanos(*nanos))).count();
        assert_eq!(passed, 20, "floor(3 x just under 7 s)");
    }

    #[test]
    fn a_step_back_adds_nothing() {
        let mut bucket = Bucket::new(1, 1);
        assert!(bucket.take(Time::from_nanos(10 * TOKEN)));
        assert!(!bucket.take(Time::START));
        assert!(!bucket.take(Time::from_nanos(10 * TOKEN)));
    }

    #[test]
    fn the_extremes_do_not_overflow() {
        let mut bucket = Bucket::new(u32::MAX, u32::MAX);
        assert!(bucket.take(Time::START) && bucket.take(Time::NEVER));
        let mut shut = Bucket::new(0, 0);
        assert!(!shut.take(Time::START) && !shut.take(Time::NEVER));
    }

    fn taken(bucket: &mut Bucket, now: Time, asked: u32) -> u32 {
        (0..asked).map(|_| u32::from(bucket.take(now))).sum()
    }
}
