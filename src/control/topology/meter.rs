//! What flowed since ways were last changed, from fast averages that are told now and then.
//!
//! A fast average still remembers the way before. Of two that follow each other the time between them can be told:
//! that alone counts, averaged over as many reports as nothing changed.

use std::time::Duration;

use super::matrix::FAST;
use crate::time::Time;

/// Reports averaged while nothing changes.
const REPORTS: f64 = 8.0;

/// More or less by this factor is no noise: the application does something else.
const OTHER: f64 = 2.0;

/// One end's view of one pair.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    /// Bytes per second since ways were last changed; before the next report, the last of before.
    pub rate: f64,
    /// When it was told last.
    pub said: Time,
    /// Reports in the average.
    pub count: f64,
    told: f64,
    /// Bytes per second between the last two reports.
    pub recent: f64,
}

impl Meter {
    /// The first that is told of a pair: it began since the report before.
    pub fn new(now: Time, fast: f64) -> Self {
        let rate = between(0.0, fast, FAST);
        Self { rate, said: now, count: 1.0, told: fast, recent: rate }
    }

    /// Takes in a fast average.
    pub fn note(&mut self, now: Time, fast: f64) {
        let since = now.since(self.said);
        if !since.is_zero() {
            let rate = between(self.told, fast, since);
            let is_alike = rate <= self.rate * OTHER && self.rate <= rate * OTHER;
            self.count = if is_alike { (self.count + 1.0).min(REPORTS) } else { 1.0 };
            self.recent = rate;
            self.rate += (rate - self.rate) / self.count;
        }
        (self.told, self.said) = (fast, now);
    }

    /// Ways have changed: what was seen before says nothing of what comes.
    pub const fn restart(&mut self) {
        self.count = 0.0;
    }
}

/// The rate between two readings of a fast average.
fn between(before: f64, after: f64, span: Duration) -> f64 {
    let kept = (-span.as_secs_f64() / FAST.as_secs_f64()).exp();
    ((after - before * kept) / (1.0 - kept)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::topology::matrix::Rates;

    #[test]
    fn what_flows_after_a_change_is_not_mixed_with_what_flowed_before() {
        let mut rates = Rates::default();
        let mut report = |rate: f64| {
            (0..4).for_each(|_| rates.sample(rate / 2.0, Duration::from_millis(500)));
            rates.fast
        };
        let at = |seconds| Time::START + Duration::from_secs(seconds);
        let mut meter = Meter::new(at(0), report(1000.0));
        meter.note(at(2), report(1000.0));
        meter.restart();
        meter.note(at(4), report(100.0));
        assert!((meter.rate - 100.0).abs() < 1.0, "{meter:?}");
        meter.note(at(6), report(200.0));
        assert!((meter.rate - 150.0).abs() < 1.0, "{meter:?}");
    }
}
