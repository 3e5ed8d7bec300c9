//! Which shared resource holds traffic back, by what arrived.
//!
//! A full resource leaves all that want more of it about the same share of their wish. So the guilty one is not simply
//! that which carries least of what it should: it is the one whose capacity, set to what it was seen to carry, explains
//! best what *all* pairs got. One that is blamed for its neighbour's fault would hold back pairs that got more.

use super::Seen;
use crate::control::topology::flow::{Flow, max_min};
use crate::control::topology::resources::Resource;
use crate::control::topology::search::{Assignment, Problem};

/// A resource that misses this share of what was predicted has an unknown limit...
const MISSED_MIN: f64 = 0.035;
/// ...and this part of what single readings deviate by: many make up what it carries...
const MISSED: f64 = 0.7;
/// ...but no more than this is asked.
const MISSED_MAX: f64 = 0.1;
/// The same for what a node said of itself, which noise must not take away.
const BELIED: f64 = 0.3;
/// And it must be so many times what chance would explain.
const SURE: f64 = 2.0;
/// One pair alone must lack this share of its wish, and so many times what single readings deviate by.
const LACKING_MIN: f64 = 0.05;
const LACKING: f64 = 2.0;
/// Resources that are tried as the guilty one: those that miss most.
const TRIED_MAX: usize = 12;
/// An explanation must be better by this share than none: less is rounding.
const BETTER: f64 = 1e-3;
/// One of lower rank holds unless another is better by so many times the square of what one pair deviates by: less may
/// be chance. Without it the trunks of a site whose link is full are blamed one by one, each for its part, and believed
/// to be narrow for ever.
const BY_CHANCE: f64 = 120.0;
/// One pair counts as no more than this factor (as a logarithm) off.
const OFF_MAX: f64 = 1.0;
/// A pair that gets less than this share of what the best on a resource gets is held back elsewhere.
const CLEARLY: f64 = 0.8;

/// What was seen of all pairs, on the ways they go.
pub(super) struct Evidence<'a> {
    problem: &'a Problem,
    assignment: &'a Assignment,
    seen: &'a [Option<Seen>],
    /// Which share is clearly missing of what a resource carries, and of what one pair gets.
    missed: f64,
    lacking: f64,
    rates: Vec<f64>,
    /// What crosses each resource.
    pub(super) carried: Vec<f64>,
    /// What of it was seen.
    pub(super) proven: Vec<f64>,
    /// By which share that may deviate by chance.
    pub(super) chance: Vec<f64>,
}

impl<'a> Evidence<'a> {
    /// Pairs of which nothing is believed get what is predicted. Single readings deviate by the share `noise`.
    pub(super) fn new(problem: &'a Problem, assignment: &'a Assignment, seen: &'a [Option<Seen>], noise: f64) -> Self {
        let missed = (MISSED * noise).clamp(MISSED_MIN, MISSED_MAX);
        let lacking = (LACKING * noise).clamp(LACKING_MIN, MISSED_MAX);
        let predicted = predict(problem, assignment, &problem.capacities);
        let rate = |(seen, predicted): (&Option<Seen>, f64)| seen.map_or(predicted, |seen| seen.rate);
        let rates = seen.iter().zip(predicted).map(rate).collect::<Vec<_>>();
        let noise = |(seen, rate): (&Option<Seen>, &f64)| seen.map_or(0.0, |seen| (seen.noise * rate).powi(2));
        let variances = seen.iter().zip(&rates).map(noise).collect::<Vec<_>>();
        let (carried, varied) = (through(problem, assignment, &rates), through(problem, assignment, &variances));
        let chance = |(carried, varied): (&f64, f64)| SURE * varied.sqrt() / carried.max(f64::MIN_POSITIVE);
        let chance = carried.iter().zip(varied).map(chance).collect();
        let proven = seen.iter().map(|seen| seen.map_or(0.0, |seen| seen.rate)).collect::<Vec<_>>();
        let proven = through(problem, assignment, &proven);
        Self { problem, assignment, seen, missed, lacking, rates, carried, proven, chance }
    }

    /// The resource that explains best why less arrived than these capacities should give; the first in the order of
    /// [`shared`] where several explain it as well.
    pub(super) fn guilty(&self, capacities: &[f64], is_suspect: impl Fn(usize) -> bool) -> Option<usize> {
        let predicted = self.predict(capacities);
        let expected = through(self.problem, self.assignment, &predicted);
        let misses = |number: &usize| {
            let (rank, is_told) = shared(self.problem.resources[*number])?;
            let missing = if is_told { BELIED } else { self.missed };
            let share = self.carried[*number] / expected[*number];
            let is_missing = expected[*number] > 0.0 && share < 1.0 - missing.max(self.chance[*number]);
            (is_missing && is_suspect(*number)).then_some((share, rank, *number))
        };
        let mut missing = (0..self.carried.len()).filter_map(|number| misses(&number)).collect::<Vec<_>>();
        missing.sort_by(|one, other| one.0.total_cmp(&other.0));
        missing.truncate(TRIED_MAX);
        missing.sort_by(|one, other| one.1.cmp(&other.1).then(one.0.total_cmp(&other.0)));
        let before = self.error(&predicted);
        let explain = |(_, rank, number): (f64, u8, usize)| {
            let mut tried = capacities.to_vec();
            tried[number] = self.carried[number];
            let error = self.error(&self.predict(&tried));
            (error < before * (1.0 - BETTER)).then_some((rank, error, number))
        };
        let explained = missing.into_iter().filter_map(explain).collect::<Vec<_>>();
        let least = explained.iter().map(|(_, error, _)| *error).fold(before, f64::min);
        let chance = BY_CHANCE * self.variance();
        let as_good = explained.into_iter().filter(|(_, error, _)| error - least <= chance);
        let best = as_good.min_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
        best.map(|(_, _, number)| number)
    }

    /// The mean square of what one pair deviates by, by chance.
    fn variance(&self) -> f64 {
        let known = self.seen.iter().flatten().map(|seen| seen.noise.powi(2));
        let (sum, count) = known.fold((0.0, 0.0), |(sum, count), square| (sum + square, count + 1.0));
        if count > 0.0 { sum / count } else { 0.0 }
    }

    /// What each pair should get with these capacities. A pair that nothing holds back gets no more than it wants: what
    /// it lacks of that is chance.
    fn predict(&self, capacities: &[f64]) -> Vec<f64> {
        let predicted = predict(self.problem, self.assignment, capacities);
        let is_held_back = |seen: &Option<Seen>| seen.is_some_and(|seen| seen.is_held_back);
        let most = |(seen, rate): (&Option<Seen>, &f64)| if is_held_back(seen) { f64::INFINITY } else { *rate };
        predicted
            .into_iter()
            .zip(self.seen.iter().zip(&self.rates).map(most))
            .map(|(one, most)| one.min(most))
            .collect()
    }

    /// How far off these rates are from what was seen.
    fn error(&self, predicted: &[f64]) -> f64 {
        let off = |(seen, predicted): (&Option<Seen>, &f64)| {
            let off = seen.map_or(0.0, |seen| (seen.rate.max(1.0) / predicted.max(1.0)).ln().clamp(-OFF_MAX, OFF_MAX));
            off * off
        };
        self.seen.iter().zip(predicted).map(off).sum()
    }

    /// Which resources hold a pair back: it gets clearly less than it wants, and nobody there gets clearly more than it.
    pub(super) fn short(&self) -> Vec<bool> {
        let count = self.problem.resources.len();
        let (mut highest, mut short) = (vec![0.0_f64; count], vec![0.0_f64; count]);
        for (number, rate) in self.rates.iter().enumerate() {
            let level = rate / self.problem.demands[number];
            for (resource, _) in &self.problem.choices[number][self.assignment[number]].uses {
                highest[*resource] = highest[*resource].max(level);
                if level < 1.0 - self.lacking {
                    short[*resource] = short[*resource].max(level);
                }
            }
        }
        short.iter().zip(highest).map(|(short, highest)| *short > 0.0 && *short >= CLEARLY * highest).collect()
    }
}

/// The rates that these capacities should give.
fn predict(problem: &Problem, assignment: &Assignment, capacities: &[f64]) -> Vec<f64> {
    let flow = |(number, choice): (usize, &usize)| {
        let demand = problem.demands[number];
        Flow { weight: demand, ceiling: demand, uses: &problem.choices[number][*choice].uses }
    };
    max_min(capacities, &assignment.iter().enumerate().map(flow).collect::<Vec<_>>())
}

/// What crosses each resource at these rates.
fn through(problem: &Problem, assignment: &Assignment, rates: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; problem.resources.len()];
    for ((choices, choice), rate) in problem.choices.iter().zip(assignment).zip(rates) {
        for (resource, times) in &choices[*choice].uses {
            sums[*resource] += times * rate;
        }
    }
    sums
}

/// Whether pairs share it, which of them is blamed first, and whether its node tells of it.
fn shared(resource: Resource) -> Option<(u8, bool)> {
    match resource {
        Resource::Trunk(..) => Some((0, false)),
        Resource::SiteOut(_) | Resource::SiteIn(_) => Some((1, false)),
        Resource::Relay(_) => Some((2, true)),
        Resource::NodeOut(_) | Resource::NodeIn(_) => Some((3, true)),
        Resource::Path(_) => None,
    }
}
