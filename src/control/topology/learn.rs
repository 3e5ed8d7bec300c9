//! What nobody can measure alone: capacities that many pairs share, learnt from what arrives.
//!
//! When a group of pairs gets clearly less than the model predicts, something limits it that the model
//! does not have: the shared resource that misses most gets the capacity that was seen. A capacity that
//! is filled is raised a little each epoch, so that a wrong guess heals.

use std::collections::BTreeMap;

use super::flow::{Flow, max_min};
use super::resources::Resource;
use super::search::{Assignment, Problem};

/// Missing this share of what was predicted shows an unknown limit.
const MISSED: f64 = 0.1;
/// The same for what a node said of itself, which noise must not take away.
const BELIED: f64 = 0.3;
/// And it must be so many times what chance would explain.
const SURE: f64 = 2.0;
/// A new capacity is what was seen and a little more.
const SEEN: f64 = 1.02;
/// A resource used this much is full.
const FULL: f64 = 0.95;
/// And may be larger than it was thought to be, by this much each epoch.
const PROBE: f64 = 1.08;
/// Weight of what is seen in the average of a capacity,
const WEIGHT: f64 = 0.25;
/// unless that was so many times too low.
const FAR: f64 = 1.2;
/// A resource that carries less than this share of what it was seen to carry is not what limits.
const CLEARED: f64 = 0.8;
/// And what was seen counts a little less each epoch: half after four and a half minutes.
const FADING: f64 = 0.995;
/// A capacity that is not filled rises as well, so that it is tried again: fast while a change settles.
const FORGETTING_SOON: f64 = 1.02;
/// And slowly later: an overload that comes of it must be rare.
const FORGETTING: f64 = 1.005;
/// What is unknown may be so many times the widest of its kind that is known.
const GUESS: f64 = 1.5;
/// Limits found in one epoch.
const ROUNDS: usize = 16;

/// Capacities learnt so far.
#[derive(Clone, Debug, Default)]
pub struct Learnt {
    capacities: BTreeMap<Resource, f64>,
    /// What each was seen to carry: it is not blamed when it carries clearly less.
    proven: BTreeMap<Resource, f64>,
}

impl Learnt {
    /// Everything learnt.
    pub fn iter(&self) -> impl Iterator<Item = (Resource, f64)> + '_ {
        self.capacities.iter().map(|(resource, capacity)| (*resource, *capacity))
    }

    /// Whether nothing limits it as far as is known.
    pub fn is_unknown(&self, resource: Resource) -> bool {
        !self.capacities.contains_key(&resource)
    }

    /// What a shared link may be of which nothing is known: more than any that was found to be narrow. Who takes it for
    /// unlimited sends everybody there.
    pub fn guess(&self, resource: Resource) -> Option<f64> {
        let is_alike = |other: &Resource| std::mem::discriminant(other) == std::mem::discriminant(&resource);
        let alike = self.capacities.iter().filter(|(other, _)| is_alike(other)).map(|(_, capacity)| *capacity);
        let highest = alike.reduce(f64::max)?;
        let proven = self.proven.get(&resource).copied().unwrap_or(0.0);
        Some((highest * GUESS).max(proven * PROBE))
    }

    /// Forgets resources that are no more.
    pub fn retain(&mut self, keep: impl Fn(Resource) -> bool) {
        self.capacities.retain(|resource, _| keep(*resource));
        self.proven.retain(|resource, _| keep(*resource));
    }

    fn prove(&mut self, problem: &Problem, seen: &[f64]) {
        self.proven.values_mut().for_each(|carried| *carried *= FADING);
        for (resource, seen) in problem.resources.iter().zip(seen) {
            let carried = self.proven.entry(*resource).or_default();
            *carried = carried.max(*seen);
        }
    }

    /// What is full tells its capacity, if somebody wants more of it; else it may be larger than was thought.
    fn refine(&mut self, problem: &Problem, seen: &[f64], short: &[bool]) {
        for (number, resource) in problem.resources.iter().enumerate() {
            let Some(capacity) = self.capacities.get_mut(resource) else { continue };
            if seen[number] > FULL * *capacity {
                let (told, weight) = (seen[number] * SEEN, if seen[number] > *capacity * FAR { 1.0 } else { WEIGHT });
                let larger = capacity.max(seen[number]) * PROBE;
                *capacity = if short[number] { *capacity + (told - *capacity) * weight } else { larger };
            }
        }
    }

    /// Learns from the rates (bytes per second) at which each pair's traffic arrived; each deviates from
    /// the truth by about `noise` of itself. Rates that are not believed are taken as predicted.
    pub fn observe(
        &mut self,
        problem: &Problem,
        assignment: &Assignment,
        rates: &[Option<f64>],
        noise: f64,
        is_settling: bool,
    ) {
        let predicted = predict(problem, assignment, &problem.capacities);
        let rates = rates.iter().zip(predicted).map(|(rate, predicted)| rate.unwrap_or(predicted)).collect::<Vec<_>>();
        let rates = rates.as_slice();
        let pairs = through(problem, assignment, &vec![1.0; rates.len()]);
        let chance = pairs.iter().map(|pairs| SURE * noise / pairs.max(1.0).sqrt()).collect::<Vec<_>>();
        let seen = through(problem, assignment, rates);
        self.prove(problem, &seen);
        let is_suspect = |number: &usize| seen[*number] >= CLEARED * self.proven[&problem.resources[*number]];
        let suspects = (0..seen.len()).filter(is_suspect).collect::<Vec<_>>();
        let mut capacities = problem.capacities.clone();
        for _ in 0..ROUNDS {
            let expected = through(problem, assignment, &predict(problem, assignment, &capacities));
            let Some(missed) = most_missed(problem, &seen, &expected, &chance, &suspects) else { break };
            capacities[missed] = seen[missed] * SEEN;
            self.capacities.insert(problem.resources[missed], capacities[missed]);
        }
        self.refine(problem, &seen, &short(problem, assignment, rates));
        // What is not filled may have been blamed wrongly, and nobody would ever find out.
        let forgetting = if is_settling { FORGETTING_SOON } else { FORGETTING };
        for capacity in self.capacities.values_mut() {
            *capacity *= forgetting;
        }
    }
}

/// Which resources hold a pair back: it gets clearly less than it wants, and nobody there gets clearly more than it.
fn short(problem: &Problem, assignment: &Assignment, rates: &[f64]) -> Vec<bool> {
    let (mut highest, mut short) = (vec![0.0_f64; problem.resources.len()], vec![0.0_f64; problem.resources.len()]);
    for (number, rate) in rates.iter().enumerate() {
        let level = rate / problem.demands[number];
        for (resource, _) in &problem.choices[number][assignment[number]].uses {
            highest[*resource] = highest[*resource].max(level);
            if level < 1.0 - MISSED {
                short[*resource] = short[*resource].max(level);
            }
        }
    }
    short.iter().zip(highest).map(|(short, highest)| *short > 0.0 && *short >= CLEARED * highest).collect()
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

/// The shared resource that gets least of what it should; of equals, the one that fewer pairs share.
fn most_missed(problem: &Problem, seen: &[f64], expected: &[f64], chance: &[f64], suspects: &[usize]) -> Option<usize> {
    let share = |number: &usize| {
        let (rank, missing) = shared(problem.resources[*number])?;
        let bar = 1.0 - missing.max(chance[*number]);
        let share = seen[*number] / expected[*number];
        (expected[*number] > 0.0 && share < bar).then_some((share, rank, *number))
    };
    let missed = suspects.iter().filter_map(share);
    let least = missed.min_by(|one, other| one.0.total_cmp(&other.0).then((one.1, one.2).cmp(&(other.1, other.2))));
    least.map(|(_, _, number)| number)
}

/// Whether pairs share it, which of them is blamed first, and when.
fn shared(resource: Resource) -> Option<(u8, f64)> {
    match resource {
        Resource::Trunk(..) => Some((0, MISSED)),
        Resource::SiteOut(_) | Resource::SiteIn(_) => Some((1, MISSED)),
        Resource::Relay(_) => Some((2, BELIED)),
        Resource::NodeOut(_) | Resource::NodeIn(_) => Some((3, BELIED)),
        Resource::Path(_) => None,
    }
}
