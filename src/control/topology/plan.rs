//! The plan for a whole overlay: the search from several starts, with its candidates.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::flow::{Flow, max_min};
use super::resources::{Resource, uses};
use super::search::{Assignment, Problem, descend};
use super::view::{Config, View};
use super::{NodeIndex, Pair, Via};
use crate::time::Time;

/// Relays of one site considered for one pair: those of a site share its access link.
const RELAYS_PER_SITE: usize = 2;
/// Searches from a shaken start.
const SHAKES: usize = 12;
/// One pair in this many is thrown elsewhere by a shake.
const SHAKEN: u32 = 3;
/// Another start must beat the one from where we are by this much: it moves more pairs.
const OTHER_START: f64 = 1.02;
/// What repeated sums differ by.
const ROUNDING: f64 = 1e-9;
/// Rates closer than this are the same.
const SAME_RATE: f64 = 0.02;

/// Ways that would be better than those in use.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Pairs to move and where, the most urgent first.
    pub moves: Vec<(Pair, Via)>,
    /// The least rate/demand as it is, by what is believed, of the pairs that the plan touches.
    pub before: f64,
    /// The same after it.
    pub after: f64,
    /// Pairs that were planned for.
    pub pairs: usize,
}

impl Proposal {
    /// How many times better.
    pub fn gain(&self) -> f64 {
        if self.before > 0.0 { self.after / self.before } else { f64::INFINITY }
    }
}

/// What would be better than what is; nothing if nothing is found.
pub fn plan(view: &View, config: &Config, now: Time) -> Option<Proposal> {
    let problem = compile(view, config, now);
    let current = current(&problem, view);
    let (assignment, order) = search(&problem, &current, view, config);
    let changed = order.into_iter().filter(|number| assignment[*number] != current[*number]);
    let moves = changed.map(|number| (problem.pairs[number], problem.choices[number][assignment[number]].via));
    let moves = moves.collect::<Vec<_>>();
    (!moves.is_empty()).then(|| compare(&problem, &current, &assignment, moves))
}

/// What moves would bring now, by another view than the one they were found with.
pub fn review(view: &View, config: &Config, now: Time, moves: &[(Pair, Via)]) -> Option<Proposal> {
    let problem = compile(view, config, now);
    let current = current(&problem, view);
    let wanted = moves.iter().copied().collect::<BTreeMap<_, _>>();
    let mut assignment = current.clone();
    // What is no longer a candidate stays where it is.
    let mut still = Vec::new();
    for (number, pair) in problem.pairs.iter().enumerate() {
        let choice = wanted.get(pair).and_then(|via| problem.choice(number, *via));
        if let Some(choice) = choice.filter(|choice| *choice != current[number]) {
            assignment[number] = choice;
            still.push((*pair, problem.choices[number][choice].via));
        }
    }
    (!still.is_empty()).then(|| compare(&problem, &current, &assignment, still))
}

/// The greatest pairs with their candidates, the way in use first.
pub fn compile(view: &View, config: &Config, now: Time) -> Problem {
    let mut pairs = view.demands.iter().filter(|(_, demand)| **demand > 0.0).collect::<Vec<_>>();
    pairs.sort_by(|one, other| other.1.total_cmp(one.1).then(one.0.cmp(other.0)));
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let mut problem = Problem::default();
    for (pair, demand) in pairs.into_iter().take(config.pairs_max) {
        let is_held = view.held.get(pair).is_some_and(|until| now < *until);
        let ways = if is_held { vec![view.way(*pair)] } else { candidates(view, config, *pair, &mut rng) };
        // A wish that no way could carry is cut to what one could: else it would hide all others.
        let width = ways.iter().map(|via| view.width(*pair, *via)).fold(0.0, f64::max);
        let ways = ways.into_iter().map(|via| (via, uses(view, *pair, via))).collect();
        problem.add(*pair, demand.min(width.max(f64::MIN_POSITIVE)), ways, &view.capacities);
    }
    problem
}

/// Where a pair could go: as it does, directly, through a supernode, through the widest members.
fn candidates(view: &View, config: &Config, pair: Pair, rng: &mut ChaCha8Rng) -> Vec<Via> {
    let mut ways = vec![view.way(pair)];
    let relays = view.indexed().filter(|(index, _)| view.can_relay(pair, *index));
    let (supernodes, members) = relays.partition::<Vec<_>, _>(|(_, node)| node.is_supernode);
    if view.has_link(pair) {
        ways.push(Via::Direct);
    }
    let is_known = |index: NodeIndex| {
        let hop = Resource::Path(Pair::new(pair.from, index));
        !config.spares_supernodes || view.capacities.of(hop).is_finite() || !view.has_link(pair)
    };
    ways.extend(supernodes.into_iter().filter(|(index, _)| is_known(*index)).map(|(index, _)| Via::Relay(index)));
    let weigh = |(index, _): &(NodeIndex, _)| (view.width(pair, Via::Relay(*index)), rng.next_u32(), *index);
    let mut members = members.iter().map(weigh).collect::<Vec<_>>();
    members.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
    let mut of_site = BTreeMap::new();
    let is_fresh = |(_, _, index): &(f64, u32, NodeIndex)| {
        let count: &mut usize = of_site.entry(view.site(*index).ok_or(*index)).or_default();
        *count += 1;
        *count <= RELAYS_PER_SITE
    };
    let members = members.into_iter().filter(is_fresh).take(config.relays_max);
    ways.extend(members.map(|(_, _, index)| Via::Relay(index)));
    let first = ways[0];
    let mut rest = ways.split_off(1);
    rest.retain(|via| *via != first);
    ways.append(&mut rest);
    ways
}

fn current(problem: &Problem, view: &View) -> Assignment {
    let choice = |(number, pair): (usize, &Pair)| problem.choice(number, view.way(*pair)).unwrap_or(0);
    problem.pairs.iter().enumerate().map(choice).collect()
}

/// From where we are, from the usual ways, and from shaken starts; the best, and its pairs by urgency.
fn search(problem: &Problem, current: &Assignment, view: &View, config: &Config) -> (Assignment, Vec<usize>) {
    let mut best = current.clone();
    let mut order = descend(problem, &mut best);
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let mut bar = problem.lambda(&best) * OTHER_START;
    for round in 0..=SHAKES {
        let mut other = if round == 0 { usual(problem, current, view) } else { shake(problem, &best, &mut rng) };
        descend(problem, &mut other);
        let lambda = problem.lambda(&other);
        if lambda > bar {
            bar = lambda;
            best = other;
            order = (0..best.len()).collect();
        }
    }
    order.sort_unstable();
    order.dedup();
    trim(problem, current, &mut best, &order);
    let loads = problem.loads(current);
    let urgency = |number: &usize| problem.urgency(&loads, *number, current[*number]);
    order.sort_by(|one, other| urgency(other).total_cmp(&urgency(one)).then(one.cmp(other)));
    (best, order)
}

/// Takes back what a plan does not need: nobody it helps gets less for it.
fn trim(problem: &Problem, current: &Assignment, best: &mut Assignment, order: &[usize]) {
    let mut loads = problem.loads(best);
    let moved = order.iter().copied().filter(|number| best[*number] != current[*number]).collect::<Vec<_>>();
    let worst = moved.iter().map(|number| problem.urgency(&loads, *number, best[*number])).fold(0.0, f64::max);
    for number in moved {
        problem.charge(&mut loads, number, best[number], -1.0);
        problem.charge(&mut loads, number, current[number], 1.0);
        if problem.urgency(&loads, number, current[number]) <= worst * (1.0 + ROUNDING) {
            best[number] = current[number];
        } else {
            problem.charge(&mut loads, number, current[number], -1.0);
            problem.charge(&mut loads, number, best[number], 1.0);
        }
    }
}

fn usual(problem: &Problem, current: &Assignment, view: &View) -> Assignment {
    let choice = |(number, pair): (usize, &Pair)| problem.choice(number, view.usual_way(*pair));
    let chosen = problem.pairs.iter().enumerate().map(choice);
    chosen.zip(current).map(|(choice, current)| choice.unwrap_or(*current)).collect()
}

fn shake(problem: &Problem, assignment: &Assignment, rng: &mut ChaCha8Rng) -> Assignment {
    let mut below = |end: usize| rng.next_u32() as usize % end.max(1);
    let mut shaken = assignment.clone();
    for (number, choice) in shaken.iter_mut().enumerate() {
        if below(SHAKEN as usize) == 0 {
            *choice = below(problem.choices[number].len());
        }
    }
    shaken
}

/// The rate of each pair, as a share of what it wants.
pub fn shares(problem: &Problem, assignment: &Assignment) -> Vec<f64> {
    let flow = |(number, choice): (usize, &usize)| {
        let demand = problem.demands[number];
        Flow { weight: demand, ceiling: f64::INFINITY, uses: &problem.choices[number][*choice].uses }
    };
    let flows = assignment.iter().enumerate().map(flow).collect::<Vec<_>>();
    let rates = max_min(&problem.capacities, &flows);
    rates.iter().zip(&problem.demands).map(|(rate, demand)| rate / demand).collect()
}

/// What the moves bring to the pairs that they touch.
fn compare(problem: &Problem, old: &Assignment, new: &Assignment, moves: Vec<(Pair, Via)>) -> Proposal {
    // More than it wants helps nobody.
    let wanted = |assignment| shares(problem, assignment).into_iter().map(|share| share.min(1.0)).collect::<Vec<_>>();
    let (before, after) = (wanted(old), wanted(new));
    let is_touched = |number: &usize| (after[*number] / before[*number] - 1.0).abs() > SAME_RATE;
    let touched = (0..old.len()).filter(is_touched).collect::<Vec<_>>();
    let least = |shares: &[f64]| touched.iter().map(|number| shares[*number]).fold(f64::INFINITY, f64::min);
    let (before, after) = if touched.is_empty() { (1.0, 1.0) } else { (least(&before), least(&after)) };
    Proposal { moves, before, after, pairs: problem.pairs.len() }
}
