//! Every value of every round, medians and ratios.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::figure::Figure;
use crate::measure::Values;
use crate::options::Underlay;

/// Values by underlay, candidate and figure; in each the rounds in order, `None` where one failed.
#[derive(Default)]
pub struct Results {
    values: BTreeMap<(Underlay, &'static str, Figure), Vec<Option<f64>>>,
    rounds: usize,
}

/// A middle value and how far the rounds are apart.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The one in the middle.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these values, if there are any.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut sorted = values.collect::<Vec<_>>();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = *sorted.get(middle)?;
        let median = if sorted.len() % 2 == 0 { f64::midpoint(median, sorted[middle - 1]) } else { median };
        Some(Spread { min: sorted[0], median, max: sorted[sorted.len() - 1] })
    }
}

impl Results {
    /// Notes what round `round` (from 0) gave, or says why it gave nothing.
    pub fn take(&mut self, underlay: Underlay, candidate: &'static str, round: usize, values: Result<Values, String>) {
        self.rounds = self.rounds.max(round + 1);
        let values = values.unwrap_or_else(|reason| {
            eprintln!("{candidate}, {}, round {}: {reason}", underlay.key(), round + 1);
            Values::new()
        });
        for (figure, value) in values {
            let rounds = self.values.entry((underlay, candidate, figure)).or_default();
            rounds.resize(rounds.len().max(round + 1), None);
            rounds[round] = value.is_finite().then_some(value);
        }
    }

    /// The value of one round.
    pub fn value(&self, underlay: Underlay, candidate: &str, figure: Figure, round: usize) -> Option<f64> {
        let of = |((u, c, f), rounds): (&(Underlay, &str, Figure), &Vec<Option<f64>>)| {
            ((*u, *c, *f) == (underlay, candidate, figure)).then(|| rounds.get(round).copied().flatten())
        };
        self.values.iter().find_map(of).flatten()
    }

    /// Over all rounds.
    pub fn spread(&self, underlay: Underlay, candidate: &str, figure: Figure) -> Option<Spread> {
        Spread::of((0..self.rounds()).filter_map(|round| self.value(underlay, candidate, figure, round)))
    }

    /// How many rounds there were, failed ones too.
    pub fn rounds(&self) -> usize {
        self.rounds
    }

    /// All of it: underlay, candidate, figure, then median and rounds.
    pub fn json(&self) -> Value {
        let mut tree = json!({});
        for ((underlay, candidate, figure), rounds) in &self.values {
            let median = Spread::of(rounds.iter().copied().flatten()).map(|spread| spread.median);
            let rounds = (0..self.rounds).map(|round| rounds.get(round).copied().flatten()).collect::<Vec<_>>();
            tree[underlay.key()][*candidate][figure.key()] = json!({ "median": median, "rounds": rounds });
        }
        tree
    }
}
