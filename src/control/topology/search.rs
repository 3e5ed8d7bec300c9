//! Bottleneck local search: move one pair off the worst resource, again and again.
//!
//! What is minimised is the greatest use of any resource, which is the same as maximising the least
//! rate/demand of all pairs. When the worst resource cannot be relieved it is left alone and the next
//! one is tried, so that a pair that nobody can help does not keep others from being helped.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::resources::{Capacities, Resource};
use super::{Pair, Via};

/// Moves in one descent. An all-to-all of 16 nodes takes about 60.
const MOVES_MAX: usize = 300;
/// Bottlenecks left alone before a descent ends.
const STUCK_MAX: usize = 8;
/// A move must relieve its bottleneck by this share: less is rounding.
const WORTH: f64 = 1e-3;

/// One way that a pair could go.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The way.
    pub via: Via,
    /// Which resources it uses, how many times each.
    pub uses: Vec<(usize, f64)>,
}

/// What is searched: pairs with their demands and choices, over resources.
#[derive(Clone, Debug, Default)]
pub struct Problem {
    /// The resources, by index.
    pub resources: Vec<Resource>,
    /// What there is of each.
    pub capacities: Vec<f64>,
    /// The pairs.
    pub pairs: Vec<Pair>,
    /// What each wants.
    pub demands: Vec<f64>,
    /// Where each could go.
    pub choices: Vec<Vec<Choice>>,
    index: BTreeMap<Resource, usize>,
}

/// One choice for each pair.
pub type Assignment = Vec<usize>;

impl Problem {
    /// Adds a pair with its demand and the ways it could go.
    pub fn add(&mut self, pair: Pair, demand: f64, ways: Vec<(Via, Vec<Resource>)>, capacities: &Capacities) {
        let choices = ways.into_iter().map(|(via, crossed)| Choice { via, uses: self.compile(&crossed, capacities) });
        let choices = choices.collect();
        self.pairs.push(pair);
        self.demands.push(demand);
        self.choices.push(choices);
    }

    fn compile(&mut self, crossed: &[Resource], capacities: &Capacities) -> Vec<(usize, f64)> {
        let mut uses: Vec<(usize, f64)> = Vec::with_capacity(crossed.len());
        for resource in crossed {
            let next = self.resources.len();
            let index = *self.index.entry(*resource).or_insert(next);
            if index == next {
                self.resources.push(*resource);
                self.capacities.push(capacities.of(*resource).max(f64::MIN_POSITIVE));
            }
            match uses.iter_mut().find(|(used, _)| *used == index) {
                Some((_, times)) => *times += 1.0,
                None => uses.push((index, 1.0)),
            }
        }
        uses
    }

    /// The choice of a pair that goes this way.
    pub fn choice(&self, number: usize, via: Via) -> Option<usize> {
        self.choices[number].iter().position(|choice| choice.via == via)
    }

    /// How much of each resource is asked for, as a share of what there is.
    pub fn loads(&self, assignment: &Assignment) -> Vec<f64> {
        let mut loads = vec![0.0; self.resources.len()];
        for (number, choice) in assignment.iter().enumerate() {
            self.charge(&mut loads, number, *choice, 1.0);
        }
        loads
    }

    /// Adds (or, with -1, takes away) what a pair on this way loads.
    pub fn charge(&self, loads: &mut [f64], number: usize, choice: usize, sign: f64) {
        for (resource, times) in &self.choices[number][choice].uses {
            loads[*resource] += sign * times * self.demands[number] / self.capacities[*resource];
        }
    }

    /// The use of the worst resource that a pair crosses.
    pub fn urgency(&self, loads: &[f64], number: usize, choice: usize) -> f64 {
        self.choices[number][choice].uses.iter().map(|(resource, _)| loads[*resource]).fold(0.0, f64::max)
    }

    /// The least rate/demand that this assignment gives to every pair at once.
    pub fn lambda(&self, assignment: &Assignment) -> f64 {
        1.0 / self.loads(assignment).into_iter().fold(f64::MIN_POSITIVE, f64::max)
    }
}

/// A move that was found, and how it leaves the worst resource it touches.
struct Move {
    pair: usize,
    choice: usize,
    worst: f64,
    reached: f64,
    hops: usize,
}

impl Move {
    fn order(&self, other: &Self) -> Ordering {
        let by_load = self.worst.total_cmp(&other.worst).then(self.reached.total_cmp(&other.reached));
        by_load.then(self.hops.cmp(&other.hops))
    }
}

/// Improves an assignment until nothing more is found; gives the moves in the order of their use.
pub fn descend(problem: &Problem, assignment: &mut Assignment) -> Vec<usize> {
    let mut loads = problem.loads(assignment);
    let mut stuck = vec![false; loads.len()];
    let (mut moved, mut stuck_count) = (Vec::new(), 0);
    while moved.len() < MOVES_MAX && stuck_count < STUCK_MAX {
        let open = (0..loads.len()).filter(|resource| !stuck[*resource]);
        let Some(bottleneck) = open.max_by(|one, other| loads[*one].total_cmp(&loads[*other])) else { break };
        let best = best_move(problem, assignment, &mut loads, bottleneck);
        let Some(best) = best.filter(|best| best.worst < loads[bottleneck] * (1.0 - WORTH)) else {
            stuck[bottleneck] = true;
            stuck_count += 1;
            continue;
        };
        problem.charge(&mut loads, best.pair, assignment[best.pair], -1.0);
        problem.charge(&mut loads, best.pair, best.choice, 1.0);
        assignment[best.pair] = best.choice;
        moved.push(best.pair);
    }
    moved
}

/// The best way off this bottleneck for any pair on it.
fn best_move(problem: &Problem, assignment: &Assignment, loads: &mut [f64], bottleneck: usize) -> Option<Move> {
    let mut best: Option<Move> = None;
    for (pair, current) in assignment.iter().copied().enumerate() {
        if problem.choices[pair][current].uses.iter().all(|(resource, _)| *resource != bottleneck) {
            continue;
        }
        problem.charge(loads, pair, current, -1.0);
        for (choice, option) in problem.choices[pair].iter().enumerate().filter(|(choice, _)| *choice != current) {
            let demand = problem.demands[pair];
            let load =
                |(resource, times): &(usize, f64)| loads[*resource] + times * demand / problem.capacities[*resource];
            let reached = option.uses.iter().map(load).fold(0.0, f64::max);
            let worst = reached.max(loads[bottleneck]);
            let found = Move { pair, choice, worst, reached, hops: option.uses.len() };
            if best.as_ref().is_none_or(|best| found.order(best) == Ordering::Less) {
                best = Some(found);
            }
        }
        problem.charge(loads, pair, current, 1.0);
    }
    best
}
