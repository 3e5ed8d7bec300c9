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
/// A full queue is believed in until a delay is short again, and for so long: the saw-tooth of TCP empties it now and then.
const FULL_FOR: Duration = Duration::from_secs(1);
/// What was seen last is believed for so long: two probes of a busy way may get lost.
const SEEN_FOR: Duration = Duration::from_secs(8);
/// Probes that come faster tell nothing more.
const GAP: Duration = Duration::from_millis(250);
/// No queue is so long, in microseconds: a clock was set, or its host restarted.
const JUMP: i64 = 10_000_000;
/// What flows fills queues sooner than it is counted.
const UNCOUNTED: Duration = Duration::from_secs(1);
/// Ways by which a peer's probes come that are told apart.
const WAYS: usize = 8;

/// Delays on one way, in microseconds. Only their differences count.
#[derive(Clone, Debug, Default)]
pub(super) struct Delays {
    /// Ever longer ones: the first is the least of [`EMPTY_FOR`].
    least: VecDeque<(Time, i64)>,
    /// When a delay was long last, unless the queue has drained since.
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
        } else if self.late.is_some_and(|late| now.since(late) >= FULL_FOR) {
            self.late = None;
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

    /// Whether a queue is full, as far as is known.
    pub(super) const fn is_full(&self) -> bool {
        self.late.is_some()
    }
}

/// What a peer's probes take to us, told by two clocks, on the ways that they come.
#[derive(Clone, Debug, Default)]
pub(super) struct Inbound {
    ways: Vec<Way>,
    /// The way that its frames come.
    used: Option<Path>,
    /// The last difference of the clocks, which is known modulo 2^32 µs, and what it comes to since the first.
    last: u32,
    sum: i64,
}

/// One of them.
#[derive(Clone, Debug)]
struct Way {
    path: Path,
    /// When the first probe came by it, the last, and the last before frames came by it too.
    began: Time,
    noted: Time,
    spare: Option<Time>,
    /// Its shortest round trip, in microseconds, if we know any.
    rtt: Option<i64>,
    delays: Delays,
}

/// What a probe tells of its way here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probed {
    pub(super) path: Path,
    /// By the peer's clock ([`clock`]).
    pub(super) sent: u32,
    /// The peer's frames go another way.
    pub(super) is_spare: bool,
    /// The round trip of the way, if we know it.
    pub(super) rtt: Option<Duration>,
}

impl Inbound {
    /// A probe came.
    pub(super) fn note(&mut self, now: Time, probed: &Probed) {
        if !probed.is_spare {
            self.used = Some(probed.path);
        } else if self.used == Some(probed.path) {
            // A way between other addresses of the two, which looks the same here.
            return;
        }
        let difference = clock(now).wrapping_sub(probed.sent);
        let step = i64::from(difference.wrapping_sub(self.last).cast_signed());
        self.ways.retain(|way| now.since(way.noted) < EMPTY_FOR && step.abs() < JUMP);
        let place = self.ways.iter().position(|way| way.path == probed.path);
        if place.is_some_and(|place| now.since(self.ways[place].noted) < GAP) {
            return;
        }
        (self.last, self.sum) = (difference, self.sum + step);
        let place = place.unwrap_or_else(|| self.begin(now, probed.path));
        let way = &mut self.ways[place];
        way.noted = now;
        if probed.is_spare {
            way.spare = Some(now);
        }
        way.rtt = way.rtt.into_iter().chain(probed.rtt.map(micros)).min();
        way.delays.note(now, self.sum, way.rtt.unwrap_or(0));
    }

    /// The place of a new way; the one of which nothing was heard for longest makes room, but for the one in use.
    fn begin(&mut self, now: Time, path: Path) -> usize {
        if self.ways.len() == WAYS {
            let others = (0..WAYS).filter(|place| Some(self.ways[*place].path) != self.used);
            let oldest = others.min_by_key(|place| self.ways[*place].noted);
            self.ways.swap_remove(oldest.expect("only one is in use"));
        }
        self.ways.push(Way { path, began: now, noted: now, spare: None, rtt: None, delays: Delays::default() });
        self.ways.len() - 1
    }

    /// Whether what the peer sends since `flows` waits in a full queue; `None` if it has not told enough, or if this way
    /// was not seen without it in the last minute: it may have been full from its start.
    pub(super) fn is_full(&self, now: Time, flows: Time) -> Option<bool> {
        let way = self.ways.iter().find(|way| Some(way.path) == self.used)?;
        let was_spare = way.spare.is_some_and(|at| now.since(at) < EMPTY_FOR);
        let was_idle = way.began + UNCOUNTED <= flows && now.since(flows) < EMPTY_FOR;
        let is_fresh = now.since(way.noted) < SEEN_FOR;
        (is_fresh && (was_spare || was_idle)).then(|| way.delays.is_full())
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
    fn delays(rtts: &[Duration]) -> Delays {
        let mut delays = Delays::default();
        for (place, rtt) in (1..).zip(rtts) {
            delays.note_rtt(at(500 * place), *rtt);
        }
        delays
    }

    #[test]
    fn a_queue_that_fills_is_seen_until_it_has_drained() {
        let mut rtts = vec![20 * MILLISECOND; 20];
        assert!(!delays(&rtts).is_full());
        rtts.push(60 * MILLISECOND);
        assert!(delays(&rtts).is_full());
        rtts.push(21 * MILLISECOND);
        assert!(delays(&rtts).is_full(), "half a second ago");
        rtts.push(21 * MILLISECOND);
        assert!(!delays(&rtts).is_full());
    }

    #[test]
    fn a_little_more_is_no_queue_and_an_old_minimum_is_forgotten() {
        let mut rtts = vec![20 * MILLISECOND; 20];
        rtts.push(24 * MILLISECOND);
        assert!(!delays(&rtts).is_full());
        // The way has become longer for good: after a minute that is its empty round trip.
        let mut moved = vec![20 * MILLISECOND; 2];
        moved.resize(140, 60 * MILLISECOND);
        assert!(!delays(&moved).is_full());
    }

    /// Probes each second that take so many milliseconds, told by a clock that is `ahead` µs before ours.
    fn inbound(ahead: u32, delays: &[u64]) -> (Inbound, Time) {
        let mut inbound = Inbound::default();
        let mut now = Time::START;
        for (place, delay) in (1..).zip(delays) {
            now = at(1_000 * place + delay);
            inbound.note(now, &probed(clock(at(1_000 * place)).wrapping_add(ahead)));
        }
        (inbound, now)
    }

    /// On the way in use.
    fn probed(sent: u32) -> Probed {
        Probed { path: WAY, sent, is_spare: false, rtt: Some(MILLISECOND) }
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
            let (drained, now) = inbound(ahead, &[20, 24, 20, 27, 21, 21]);
            assert_eq!(drained.is_full(now, at(3_000)), Some(false), "{ahead}");
        }
    }

    #[test]
    fn a_way_that_frames_take_at_once_was_seen_without_them_if_it_was_probed_before() {
        let other = Path::Relayed(LegId(2), RelayId(1));
        let probe = |now, delay, is_spare| Probed { path: other, is_spare, ..probed(clock(now).wrapping_sub(delay)) };
        for (before, queued, told) in [(true, 90_000, Some(true)), (true, 41_000, Some(false)), (false, 90_000, None)] {
            let (mut moved, now) = inbound(0, &[20, 20]);
            if before {
                moved.note(now, &probe(now, 40_000, true));
                assert_eq!(moved.is_full(now, at(2_100)), Some(false), "the way in use is meant");
            }
            let later = now + Duration::from_secs(1);
            moved.note(later, &probe(later, queued, false));
            assert_eq!(moved.is_full(later, at(2_100)), told);
        }
    }

    #[test]
    fn another_clock_and_a_long_silence_begin_anew() {
        let (mut set, now) = inbound(0, &[20, 20]);
        set.note(now, &probed(clock(now).wrapping_sub(60_000_000)));
        assert_eq!(set.is_full(now, now), None);
        assert_eq!(set.is_full(now, now + UNCOUNTED), Some(false));
        let (mut idle, now) = inbound(0, &[20, 20]);
        let now = now + EMPTY_FOR;
        idle.note(now, &probed(clock(now)));
        assert_eq!(idle.is_full(now, now), None);
    }

    #[test]
    fn so_many_ways_are_told_apart() {
        let (mut inbound, now) = inbound(0, &[20, 20]);
        for leg in 2..100 {
            let path = Path::Relayed(LegId(leg), RelayId(1));
            inbound.note(now, &Probed { path, is_spare: true, ..probed(clock(now)) });
        }
        assert_eq!(inbound.ways.len(), WAYS);
        assert_eq!(inbound.is_full(now, at(2_100)), Some(false), "the one in use is among them");
    }

    #[test]
    fn a_way_of_long_round_trips_has_more_room() {
        let mut inbound = Inbound::default();
        for (sent, delay) in [(1_000, 100), (1_280, 120)] {
            let probed = Probed { rtt: Some(100 * MILLISECOND), ..probed(clock(at(sent))) };
            inbound.note(at(sent + delay), &probed);
        }
        assert_eq!(inbound.is_full(at(1_400), at(2_100)), Some(false), "20 ms is less than a quarter");
    }
}
