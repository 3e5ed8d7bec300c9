//! Time as the node sees it: numbers that somebody else read from a clock.
//!
//! Nothing here has a `now()`; only `io/clock.rs` makes a [`Time`] from a clock, and the simulator
//! makes its own.

use std::ops::{Add, AddAssign};
use std::time::Duration;

/// A point on the monotonic clock: nanoseconds since some start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The first point in time.
    pub const START: Self = Self(0);
    /// Later than every deadline.
    pub const NEVER: Self = Self(u64::MAX);

    /// From nanoseconds since the start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it is not earlier.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// So long before; the start if that is later.
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

/// The calendar: time since 1970-01-01 UTC. Read once at the start, an input like [`Time`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(Duration);

/// TAI64N's label of 1970-01-01 00:00:10 TAI; as WireGuard does, leap seconds are left out.
const TAI64_EPOCH: u64 = (1 << 62) + 10;

impl WallTime {
    /// From the time since 1970.
    pub const fn since_1970(span: Duration) -> Self {
        Self(span)
    }

    /// The time since 1970.
    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// The 12-byte TAI64N label: 8 bytes of seconds, 4 of nanoseconds, big-endian; later is greater.
    pub fn tai64n(self) -> [u8; 12] {
        let mut label = [0; 12];
        label[..8].copy_from_slice(&TAI64_EPOCH.wrapping_add(self.0.as_secs()).to_be_bytes());
        label[8..].copy_from_slice(&self.0.subsec_nanos().to_be_bytes());
        label
    }
}

impl Add<Duration> for WallTime {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_is_greater_also_as_tai64n() {
        let early = WallTime::since_1970(Duration::new(1_700_000_000, 999_999_999));
        let late = early + Duration::from_nanos(1);
        assert!(late.tai64n() > early.tai64n());
    }

    #[test]
    fn time_never_runs_below_zero_nor_over_its_end() {
        assert_eq!(Time::START.since(Time::from_nanos(5)), Duration::ZERO);
        assert_eq!(Time::NEVER + Duration::from_secs(1), Time::NEVER);
    }
}
