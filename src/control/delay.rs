//! Queues, as delays show them: what takes longer than the quickest of the last minute waited somewhere.

use std::collections::VecDeque;
use std::time::Duration;

use crate::datapath::Path;
use crate::time::Time;

/// The delay of an empty way is the least of so long.
const EMPTY_FOR: Duration = Duration::from_secs(60);
/// A queue fills when a delay is longer than that by this, in microseconds, or by a quarter of the round trip if that is
/// more.
const QUEUE: i64 = 5_000;
/// A full queue is believed in for so long: three probes and their answers.
const FULL_FOR: Duration = Duration::from_secs(4);
/// What was seen last is believed for so long: two probes of a busy way may get lost.
const SEEN_FOR: Duration = Duration::from_secs(8);
/// Probes that come faster tell nothing more.
const GAP: Duration = Duration::from_millis(250);
/// No queue is so long, in microseconds: a clock was set, or its host restarted.
const JUMP: i64 = 10_000_000;
/// What flows fills queues sooner than it is counted.
const UNCOUNTED: Duration = Duration::from_secs(1);

/// Delays on one way, in microseconds. Only their differences count.
#[derive(Clone, Debug, Default)]
pub(super) struct Delays {
    /// Ever longer ones: the first is the least of [`EMPTY_FOR`].
    least: VecDeque<(Time, i64)>,
    late: Option<Time>,
}

impl Delays {
    /// Takes in a delay, on a way whose empty round trip is `rtt`.
    fn note(&mut self, now: Time, delay: i64, rtt: i64) {
        while self.least.back().is_some_and(|(_, longer)| *longer >= delay) {
            self.least.pop_back();
        }
        self.least.push_back((now, delay));
        while self.least.front().is_some_and(|(at, _)| now.since(*at) > EMPTY_FOR) {
            self.least.pop_front();
        }
        if delay > self.least().unwrap_or(delay) + QUEUE.max(rtt / 4) {
            self.late = Some(now);
        }
    }

    /// Takes in a round trip.
    pub(super) fn note_rtt(&mut self, now: Time, rtt: Duration) {
        let rtt = micros(rtt);
        self.note(now, rtt, self.least().unwrap_or(rtt).min(rtt));
    }

    /// Of the last minute.
    fn least(&self) -> Option<i64> {
        self.least.front().map(|(_, delay)| *delay)
    }

    /// Whether a queue was full of late.
    pub(super) fn is_full(&self, now: Time) -> bool {
        self.late.is_some_and(|late| now.since(late) < FULL_FOR)
    }
}

/// What a peer's probes take to us, told by two clocks, on the way that its frames come.
#[derive(Clone, Debug, Default)]
pub(super) struct Inbound {
    way: Option<Path>,
    /// When the first probe came by it, and the last.
    began: Time,
    noted: Option<Time>,
    /// The last difference of the clocks, which is known modulo 2^32 µs, and what it comes to since the first.
    last: u32,
    sum: i64,
    /// The shortest round trip of the way, in microseconds.
    rtt: i64,
    delays: Delays,
}

impl Inbound {
    /// A probe came that was sent at `sent` µs by the peer's clock; the round trip of the way is `rtt` now.
    pub(super) fn note(&mut self, now: Time, way: Path, sent: u32, rtt: Duration) {
        if self.way == Some(way) && self.noted.is_some_and(|noted| now.since(noted) < GAP) {
            return;
        }
        let difference = clock(now).wrapping_sub(sent);
        let step = i64::from(difference.wrapping_sub(self.last).cast_signed());
        if self.way != Some(way) || step.abs() >= JUMP {
            *self = Self { way: Some(way), began: now, last: difference, rtt: i64::MAX, ..Self::default() };
        } else {
            (self.last, self.sum) = (difference, self.sum + step);
        }
        self.noted = Some(now);
        self.rtt = self.rtt.min(micros(rtt));
        self.delays.note(now, self.sum, self.rtt);
    }

    /// Whether what the peer sends since `flows` waits in a full queue; `None` if it has not told enough, or if this way
    /// was not seen without it in the last minute: it may have been full from its start.
    pub(super) fn is_full(&self, now: Time, flows: Time) -> Option<bool> {
        let was_seen_empty = self.began + UNCOUNTED <= flows && now.since(flows) < EMPTY_FOR;
        let is_fresh = self.noted.is_some_and(|noted| now.since(noted) < SEEN_FOR);
        (was_seen_empty && is_fresh).then(|| self.delays.is_full(now))
    }
}

/// Our clock as probes tell it: microseconds modulo 2^32.
pub(super) fn clock(now: Time) -> u32 {
    // The lowest bits are meant.
    (now.as_nanos() / 1_000) as u32
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::LegId;
    use crate::wire::relay::RelayId;

    const MILLISECOND: Duration = Duration::from_millis(1);
    const WAY: Path = Path::Relayed(LegId(1), RelayId(1));

    fn at(ms: u64) -> Time {
        Time::START + Duration::from_millis(ms)
    }

    /// Round trips, one each half second.
    fn delays(rtts: &[Duration]) -> (Delays, Time) {
        let mut delays = Delays::default();
        let mut now = Time::START;
        for (place, rtt) in (1..).zip(rtts) {
            now = at(500 * place);
            delays.note_rtt(now, *rtt);
        }
        (delays, now)
    }

    #[test]
    fn a_queue_that_fills_is_seen_and_forgotten() {
        let (calm, now) = delays(&[20 * MILLISECOND; 20]);
        assert!(!calm.is_full(now));
        let mut rtts = vec![20 * MILLISECOND; 20];
        rtts.push(60 * MILLISECOND);
        let (full, now) = delays(&rtts);
        assert!(full.is_full(now));
        assert!(!full.is_full(now + FULL_FOR), "long ago");
    }

    #[test]
    fn a_little_more_is_no_queue_and_an_old_minimum_is_forgotten() {
        let mut rtts = vec![20 * MILLISECOND; 20];
        rtts.push(24 * MILLISECOND);
        let (before, now) = delays(&rtts);
        assert!(!before.is_full(now));
        // The way has become longer for good: after a minute that is its empty round trip.
        let mut moved = vec![20 * MILLISECOND; 2];
        moved.resize(140, 60 * MILLISECOND);
        let (after, now) = delays(&moved);
        assert!(!after.is_full(now));
    }

    /// Probes each second that take so many milliseconds, told by a clock that is `ahead` µs before ours.
    fn inbound(ahead: u32, delays: &[u64]) -> (Inbound, Time) {
        let mut inbound = Inbound::default();
        let mut now = Time::START;
        for (place, delay) in (1..).zip(delays) {
            now = at(1_000 * place + delay);
            inbound.note(now, WAY, clock(at(1_000 * place)).wrapping_add(ahead), MILLISECOND);
        }
        (inbound, now)
    }

    #[test]
    fn a_queue_on_the_way_here_is_seen_whatever_the_other_clock_shows() {
        for ahead in [0, 7, 1 << 31, (1 << 31) - 5_000, u32::MAX - 2_000] {
            let (calm, now) = inbound(ahead, &[20, 24, 20, 21]);
            assert_eq!(calm.is_full(now, at(3_000)), Some(false), "{ahead}");
            let (full, now) = inbound(ahead, &[20, 24, 20, 27]);
            assert_eq!(full.is_full(now, at(3_000)), Some(true), "{ahead}");
            assert_eq!(full.is_full(now, at(1_500)), None, "it may have been full at once");
            assert_eq!(full.is_full(now + SEEN_FOR, at(3_000)), None, "nothing came any more");
        }
    }

    #[test]
    fn another_way_and_another_clock_begin_anew() {
        let (mut moved, now) = inbound(0, &[20, 20]);
        moved.note(now, Path::Relayed(LegId(2), RelayId(1)), clock(now).wrapping_sub(90_000), MILLISECOND);
        assert_eq!(moved.is_full(now, now), None);
        assert_eq!(moved.is_full(now, now + UNCOUNTED), Some(false));
        let (mut set, now) = inbound(0, &[20, 20]);
        set.note(now, WAY, clock(now).wrapping_sub(60_000_000), MILLISECOND);
        assert_eq!(set.is_full(now, now + UNCOUNTED), Some(false));
    }

    #[test]
    fn a_way_of_long_round_trips_has_more_room() {
        let mut inbound = Inbound::default();
        for (sent, delay) in [(1_000, 100), (1_280, 120)] {
            inbound.note(at(sent + delay), WAY, clock(at(sent)), 100 * MILLISECOND);
        }
        assert_eq!(inbound.is_full(at(1_400), at(2_100)), Some(false), "20 ms is less than a quarter");
    }
}
