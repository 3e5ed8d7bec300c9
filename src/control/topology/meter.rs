//! What flowed since ways were last changed, from fast averages that are told now and then.
//!
//! A fast average still remembers the way before. Of two that follow each other the time between them can be told:
//! that alone counts, averaged over as many reports as nothing changed.

use std::time::Duration;

use super::matrix::FAST;
use crate::time::Time;

/// The way of a plan to members, of what they tell back, and a little more: what comes so soon speaks of before.
pub const LATE: Duration = Duration::from_millis(250);
/// Reports averaged while nothing changes.
const REPORTS: f64 = 8.0;
/// Deviations that the figure of them remembers, and how many make one.
const DEVIATIONS: f64 = 16.0;
const DEVIATIONS_MIN: f64 = 3.0;
/// More or less by this factor is no noise: the application does something else...
const OTHER: f64 = 2.0;
/// ...or by so many times what single reports deviate by, if that is known, and that is no less than this.
const CHANGED: f64 = 4.0;
const STEADY: f64 = 0.05;

/// One end's view of one pair.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    /// Bytes per second since ways were last changed; until that is known, the last of before.
    pub rate: f64,
    /// When it was told last.
    pub said: Time,
    /// Reports in the average; none, until something is known since the change.
    pub count: f64,
    told: f64,
    /// When ways were changed, until a report speaks of what flowed since and of nothing else.
    changed: Option<Time>,
    /// Bytes per second between the last two reports.
    pub recent: f64,
    /// The mean square of how far off single reports were, as logarithms, and of how many.
    variance: f64,
    deviations: f64,
    /// The last report told of much more than was before.
    has_grown: bool,
}

impl Meter {
    /// The first that is told of a pair: it may have begun since the report before, or long ago. That is a mark, and no
    /// evidence.
    pub fn new(now: Time, fast: f64) -> Self {
        let rate = between(0.0, fast, FAST);
        let (told, changed, recent, variance, deviations) = (fast, None, rate, 0.0, 0.0);
        Self { rate, said: now, count: 0.0, told, changed, recent, variance, deviations, has_grown: false }
    }

    /// Takes in a fast average.
    pub fn note(&mut self, now: Time, fast: f64) {
        let since = now.since(self.said);
        if !since.is_zero() {
            let passed = between(self.told, fast, since);
            if since >= LATE {
                self.recent = passed;
            }
            match self.changed {
                // It was on its way, or is what was counted until then.
                Some(changed) if now.since(changed) < LATE => {}
                // It begins before the change and ends behind it.
                Some(changed) if self.said < changed => self.changed = None,
                // So short a time tells little, and two of them would count as much as all before.
                Some(_) | None if since < LATE => {}
                Some(_) | None => {
                    self.changed = None;
                    self.average(passed);
                }
            }
        }
        (self.told, self.said) = (fast, now);
    }

    fn average(&mut self, rate: f64) {
        let usual = self.noise().map_or(f64::INFINITY, |noise| CHANGED * noise.max(STEADY)).min(OTHER.ln());
        let off = if rate == self.rate { 0.0 } else { (rate / self.rate).ln().abs() };
        if off <= usual && self.count > 0.0 {
            // The average deviates as well.
            let square = off.powi(2) * self.count / (self.count + 1.0);
            self.deviations = (self.deviations + 1.0).min(DEVIATIONS);
            self.variance += (square - self.variance) / self.deviations;
        }
        self.has_grown = rate > self.rate * OTHER;
        self.count = if off <= usual { (self.count + 1.0).min(REPORTS) } else { 1.0 };
        self.rate += (rate - self.rate) / self.count;
    }

    /// Whether it has just begun, or grown as much: the last report speaks of a time before that as well.
    pub const fn has_grown(&self) -> bool {
        self.has_grown
    }

    /// By which share single reports deviate, if there were enough of them.
    pub fn noise(&self) -> Option<f64> {
        (self.deviations >= DEVIATIONS_MIN).then(|| self.variance.sqrt())
    }

    /// Ways have changed: what was seen before says nothing of what comes.
    pub fn restart(&mut self, now: Time) {
        (self.count, self.changed) = (0.0, Some(now));
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
        // The change comes half a second after a report.
        rates.sample(500.0, Duration::from_millis(500));
        meter.restart(Time::START + Duration::from_millis(2500));
        (0..3).for_each(|_| rates.sample(50.0, Duration::from_millis(500)));
        meter.note(at(4), rates.fast);
        assert_eq!((meter.count, meter.rate.round()), (0.0, 1000.0), "nothing is known yet: {meter:?}");
        let mut report = |rate: f64| {
            (0..4).for_each(|_| rates.sample(rate / 2.0, Duration::from_millis(500)));
            rates.fast
        };
        meter.note(at(6), report(100.0));
        assert!((meter.rate - 100.0).abs() < 1.0, "{meter:?}");
        meter.note(at(8), report(150.0));
        assert!((meter.rate - 125.0).abs() < 1.0, "{meter:?}");
    }

    #[test]
    fn what_is_more_than_chance_begins_a_new_average() {
        let mut rates = Rates::default();
        let mut now = Time::START;
        let mut meter = Meter::new(now, 0.0);
        let mut tell = |rate: f64, meter: &mut Meter| {
            (0..4).for_each(|_| rates.sample(rate / 2.0, Duration::from_millis(500)));
            now += Duration::from_secs(2);
            meter.note(now, rates.fast);
        };
        for rate in [1000.0, 1010.0, 990.0, 1020.0, 980.0, 1000.0] {
            tell(rate, &mut meter);
        }
        assert!(meter.noise().is_some_and(|noise| (0.01..0.03).contains(&noise)), "{meter:?}");
        tell(1100.0, &mut meter);
        assert!((1010.0..1030.0).contains(&meter.rate), "that may be chance: {meter:?}");
        tell(1400.0, &mut meter);
        assert!((meter.rate - 1400.0).abs() < 1.0 && meter.count == 1.0, "and that is not: {meter:?}");
    }

    #[test]
    fn what_was_on_its_way_at_a_change_is_a_mark_and_no_evidence() {
        let at = |millis| Time::START + Duration::from_millis(millis);
        let mut rates = Rates::default();
        let mut pass = |rate: f64, millis: u64| {
            rates.sample(rate * millis as f64 / 1e3, Duration::from_millis(millis));
            rates.fast
        };
        let mut meter = Meter::new(at(2_000), pass(1000.0, 2_000));
        meter.note(at(4_000), pass(1000.0, 2_000));
        meter.restart(at(4_010));
        meter.note(at(4_050), pass(900.0, 50));
        meter.note(at(4_060), pass(100.0, 10));
        assert_eq!(meter.count, 0.0, "{meter:?}");
        meter.note(at(5_060), pass(100.0, 1_000));
        assert!(meter.count == 1.0 && (meter.rate - 100.0).abs() < 1.0, "{meter:?}");
    }
}
