//! What a link can do, from what its receiver reports: passive, and honest about what is not known.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use crate::time::Time;

/// The least of a minute is the base of round trips and one-way delays.
const BASE_WINDOW: Duration = Duration::from_secs(60);
/// Packets that a window must have to tell loss.
const LOSS_PACKETS: u64 = 100;
/// This much loss shows that the network limits.
const LOSS_LIMIT: f64 = 0.001;
/// And so does this much queueing, or a quarter of the base round trip if that is more.
const QUEUE_LIMIT: Duration = Duration::from_millis(5);
/// A lower bound fades by this share each second.
const FADE: f64 = 0.01;
/// Bytes a packet train must have to say anything: three superframes.
const TRAIN_BYTES: u64 = 130_000;
/// A train that arrives within less was stamped as one.
const TRAIN_SPAN: Duration = Duration::from_micros(20);

/// What a receiver tells of one window.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    /// How long it was.
    pub span: Duration,
    /// Packets that arrived.
    pub packets: u64,
    /// Packets that were sent, by their counters.
    pub counters: u64,
    /// Bytes that arrived.
    pub bytes: u64,
    /// Round trip: sent, echoed, less the delay at the receiver.
    pub rtt: Option<Duration>,
    /// One-way difference of clocks and delay, nine in ten below it, in microseconds; may be negative.
    pub one_way_us: Option<i64>,
    /// Our own socket would not take more.
    pub is_pushed_back: bool,
    /// The second half of a packet train: bytes and time between its kernel stamps.
    pub train: Option<(u64, Duration)>,
}

/// How a capacity is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "known", content = "rate")]
pub enum Capacity {
    /// Not at all.
    Unknown,
    /// It carried this much and was not full.
    AtLeast(f64),
    /// A packet train came through at this rate: hardly more.
    Hint(f64),
    /// It was full at this rate.
    Measured(f64),
}

/// One direction of one link.
#[derive(Clone, Debug, Default)]
pub struct LinkEstimate {
    rtt: Option<f64>,
    base_rtt: Least,
    base_one_way: Least,
    last_one_way: Option<i64>,
    jitter_us: Option<f64>,
    loss: Option<f64>,
    queueing: Option<Duration>,
    is_limited: bool,
    full: Option<f64>,
    carried: Option<(f64, Time)>,
    train: Option<f64>,
}

impl LinkEstimate {
    /// Takes in a window.
    pub fn handle_window(&mut self, now: Time, window: &Window) {
        if let Some(rtt) = window.rtt {
            let micros = rtt.as_micros() as i64;
            average(&mut self.rtt, micros as f64, 1.0 / 8.0);
            self.base_rtt.put(now, micros);
        }
        if let Some(one_way) = window.one_way_us {
            self.base_one_way.put(now, one_way);
            self.queueing = self.base_one_way.least().map(|base| Duration::from_micros(one_way.abs_diff(base)));
            if let Some(last) = self.last_one_way.replace(one_way) {
                average(&mut self.jitter_us, one_way.abs_diff(last) as f64, 1.0 / 16.0);
            }
        }
        let lost = (window.counters >= LOSS_PACKETS).then(|| {
            let arrived = window.packets.min(window.counters) as f64;
            1.0 - arrived / window.counters as f64
        });
        if let Some(lost) = lost {
            average(&mut self.loss, lost, 1.0 / 4.0);
        }
        self.note_train(window.train);
        self.note_rate(now, window, lost);
    }

    fn note_train(&mut self, train: Option<(u64, Duration)>) {
        let sound = train.filter(|(bytes, span)| *bytes >= TRAIN_BYTES / 2 && *span >= TRAIN_SPAN);
        if let Some((bytes, span)) = sound {
            average(&mut self.train, bytes as f64 / span.as_secs_f64(), 1.0 / 8.0);
        }
    }

    fn note_rate(&mut self, now: Time, window: &Window, lost: Option<f64>) {
        let base = self.base_rtt.least().map_or(Duration::ZERO, |base| Duration::from_micros(base.unsigned_abs()));
        let queues = window.one_way_us.is_some() && self.queueing.is_some_and(|it| it > QUEUE_LIMIT.max(base / 4));
        self.is_limited = window.is_pushed_back || queues || lost.is_some_and(|lost| lost >= LOSS_LIMIT);
        if window.span.is_zero() {
            return;
        }
        let rate = window.bytes as f64 / window.span.as_secs_f64();
        if self.is_limited {
            average(&mut self.full, rate, 1.0 / 4.0);
            return;
        }
        let faded = self.carried.map_or(0.0, |(rate, at)| rate * (1.0 - FADE).powf(now.since(at).as_secs_f64()));
        self.carried = Some((rate.max(faded), now));
        // More than what filled it once: it was not full, or it is another network by now.
        self.full = self.full.filter(|full| rate <= *full);
    }

    /// Round trip, averaged.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt.map(|micros| Duration::from_secs_f64(micros / 1e6))
    }

    /// Mean change of the one-way delay.
    pub fn jitter(&self) -> Option<Duration> {
        self.jitter_us.map(|micros| Duration::from_secs_f64(micros / 1e6))
    }

    /// Share of packets lost.
    pub const fn loss(&self) -> Option<f64> {
        self.loss
    }

    /// Time spent in queues, in the last window that told.
    pub const fn queueing(&self) -> Option<Duration> {
        self.queueing
    }

    /// In the last window the network was the limit, not the application.
    pub const fn is_limited(&self) -> bool {
        self.is_limited
    }

    /// What is known of the capacity, in bytes per second.
    pub fn capacity(&self) -> Capacity {
        match (self.full, self.train, self.carried) {
            (Some(full), ..) => Capacity::Measured(full),
            (None, Some(train), carried) => Capacity::Hint(carried.map_or(train, |(rate, _)| train.max(rate))),
            (None, None, Some((rate, _))) if rate > 0.0 => Capacity::AtLeast(rate),
            (None, None, _) => Capacity::Unknown,
        }
    }
}

fn average(value: &mut Option<f64>, sample: f64, weight: f64) {
    *value = Some(value.map_or(sample, |value| value + (sample - value) * weight));
}

/// The least of the last minute: only what may still become the least is kept, so it stays short.
#[derive(Clone, Debug, Default)]
struct Least(VecDeque<(Time, i64)>);

impl Least {
    /// Windows come at least 200 ms apart: a minute has no more.
    const CAPACITY: usize = 300;

    fn put(&mut self, now: Time, value: i64) {
        while self.0.back().is_some_and(|(_, other)| *other >= value) {
            self.0.pop_back();
        }
        while self.0.len() >= Self::CAPACITY || self.0.front().is_some_and(|(at, _)| now.since(*at) > BASE_WINDOW) {
            self.0.pop_front();
        }
        self.0.push_back((now, value));
    }

    fn least(&self) -> Option<i64> {
        self.0.front().map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn window(bytes: u64) -> Window {
        Window { span: SECOND, packets: 1000, counters: 1000, bytes, ..Window::default() }
    }

    #[test]
    fn nothing_is_known_before_anything_was_measured() {
        let link = LinkEstimate::default();
        assert_eq!((link.rtt(), link.loss(), link.jitter(), link.queueing()), (None, None, None, None));
        assert_eq!(link.capacity(), Capacity::Unknown);
    }

    #[test]
    fn an_application_that_could_send_more_gives_a_lower_bound_that_fades() {
        let mut link = LinkEstimate::default();
        link.handle_window(Time::START, &window(1_000_000));
        assert_eq!(link.capacity(), Capacity::AtLeast(1e6));
        link.handle_window(Time::START + SECOND * 10, &window(10));
        let Capacity::AtLeast(rate) = link.capacity() else { panic!("{:?}", link.capacity()) };
        assert!((900_000.0..910_000.0).contains(&rate), "{rate}");
    }

    #[test]
    fn loss_queues_and_a_full_socket_show_the_capacity() {
        let lossy = Window { packets: 990, ..window(500_000) };
        let pushed = Window { is_pushed_back: true, ..window(500_000) };
        for limited in [lossy, pushed] {
            let mut link = LinkEstimate::default();
            link.handle_window(Time::START, &limited);
            assert_eq!((link.capacity(), link.is_limited()), (Capacity::Measured(500_000.0), true));
        }
        let mut link = LinkEstimate::default();
        link.handle_window(Time::START, &Window { one_way_us: Some(-5_000_000), ..window(1) });
        link.handle_window(Time::START + SECOND, &Window { one_way_us: Some(-4_990_000), ..window(700_000) });
        assert_eq!(link.queueing(), Some(Duration::from_millis(10)), "clocks may differ");
        assert_eq!(link.capacity(), Capacity::Measured(700_000.0));
    }

    #[test]
    fn few_packets_tell_no_loss_and_a_train_with_one_stamp_tells_nothing() {
        let mut link = LinkEstimate::default();
        let few = Window { packets: 1, counters: 99, train: Some((100_000, Duration::ZERO)), ..window(0) };
        link.handle_window(Time::START, &few);
        assert_eq!((link.loss(), link.capacity()), (None, Capacity::Unknown));
        let train = Some((96_000, Duration::from_micros(7_680)));
        link.handle_window(Time::START, &Window { train, ..window(0) });
        assert_eq!(link.capacity(), Capacity::Hint(12_500_000.0));
    }

    #[test]
    fn the_base_is_the_least_of_the_last_minute() {
        let mut least = Least::default();
        for second in 0..100 {
            least.put(Time::START + SECOND * second, i64::from(second));
        }
        assert_eq!(least.least(), Some(39));
    }
}
