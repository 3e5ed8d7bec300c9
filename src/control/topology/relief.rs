//! Which machine should move to another host, so that the worst bottleneck has less to carry.
//!
//! The planner knows hosts and what flows between them, not machines: what is tried is to take one pair's end to
//! another host, as if one machine did all that the pair sends and receives, with all ways as they are. The gain is
//! that of the planner's own model: the least rate/demand of all pairs whose rate changes, after over before. A pure
//! function; the host that has the machine knows its address.

use std::collections::BTreeMap;

use super::plan::{compile, shares};
use super::resources::Resource;
use super::search::Problem;
use super::view::{Config, View};
use super::{NodeIndex, Pair};
use crate::time::Time;

/// A resource that is asked for less than this share of what it has needs no relief.
const BUSY: f64 = 0.9;
/// A move is worth a word if it promises so many times the rate.
pub const GAIN_MIN: f64 = 1.5;
/// Pairs on the bottleneck that are tried, the greatest.
const PAIRS_TRIED: usize = 4;
/// Hosts tried for each end of them: the other end's own host, its site, then the others.
const TARGETS_TRIED: usize = 16;
/// A rate of so many times the demand is as good as any: more is not believed of what nobody has tried.
pub const SHARE_MAX: f64 = 10.0;
/// Rates closer than this are the same.
const SAME_RATE: f64 = 0.02;
/// Another move must promise so much more to be preferred to one that was found before.
const BETTER: f64 = 1.01;
/// A host where tasks wait for a processor more of the time than this (percent) is no target.
pub const LOADED: u8 = 20;

/// One machine that should move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Relief {
    /// What is relieved.
    pub bottleneck: Resource,
    /// The host that the machine is on.
    pub host: NodeIndex,
    /// The host that it talks to most.
    pub partner: NodeIndex,
    /// The host to which it should move.
    pub target: NodeIndex,
    /// How many times the rate that promises.
    pub gain: f64,
}

/// The move that promises most, if one is worth it. `hosts` may take machines; each with its load in percent, if known.
pub fn relieve(view: &View, config: &Config, now: Time, hosts: &BTreeMap<NodeIndex, Option<u8>>) -> Option<Relief> {
    let demands = greatest(view, config);
    let mut scratch = View { held: BTreeMap::new(), demands: demands.clone(), ..view.clone() };
    let (problem, before) = weigh(&mut scratch, config, now);
    let loads = problem.loads(&vec![0; problem.pairs.len()]);
    let worst = (0..loads.len()).max_by(|one, other| loads[*one].total_cmp(&loads[*other]))?;
    if loads[worst] < BUSY {
        return None;
    }
    let mut best: Option<Relief> = None;
    for pair in crossing(&problem, worst) {
        for (host, partner) in [(pair.from, pair.to), (pair.to, pair.from)] {
            for target in targets(view, hosts, host, partner) {
                scratch.demands = moved(&demands, (host, partner), target);
                let (_, after) = weigh(&mut scratch, config, now);
                let gain = gain(&before, &after, (host, partner), target);
                let bar = best.map_or(GAIN_MIN, |best| best.gain * BETTER);
                if gain >= bar {
                    best = Some(Relief { bottleneck: problem.resources[worst], host, partner, target, gain });
                }
            }
        }
    }
    best
}

/// The demands that are looked at.
fn greatest(view: &View, config: &Config) -> BTreeMap<Pair, f64> {
    let mut demands = view.demands.iter().map(|(pair, demand)| (*pair, *demand)).collect::<Vec<_>>();
    demands.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
    demands.into_iter().take(config.pairs_max).collect()
}

/// Each pair's rate as a share of its demand, all ways as they are.
fn weigh(view: &mut View, config: &Config, now: Time) -> (Problem, BTreeMap<Pair, f64>) {
    // What is held has one way: the one it goes.
    view.held = view.demands.keys().map(|pair| (*pair, Time::NEVER)).collect();
    let problem = compile(view, config, now);
    let rates = shares(&problem, &vec![0; problem.pairs.len()]);
    let shares = problem.pairs.iter().copied().zip(rates.into_iter().map(|share| share.min(SHARE_MAX))).collect();
    (problem, shares)
}

/// The pairs on a resource, the greatest first.
fn crossing(problem: &Problem, resource: usize) -> Vec<Pair> {
    let uses = |number: &usize| problem.choices[*number][0].uses.iter().any(|(used, _)| *used == resource);
    // The problem has them in the order of their demands.
    (0..problem.pairs.len()).filter(uses).take(PAIRS_TRIED).map(|number| problem.pairs[number]).collect()
}

/// Where a machine could go that talks to `partner`.
fn targets(
    view: &View,
    hosts: &BTreeMap<NodeIndex, Option<u8>>,
    host: NodeIndex,
    partner: NodeIndex,
) -> Vec<NodeIndex> {
    let is_free = |load: &Option<u8>| load.is_none_or(|load| load < LOADED);
    let free = hosts.iter().filter(|(node, load)| **node != host && is_free(load)).map(|(node, _)| *node);
    let mut free = free.collect::<Vec<_>>();
    let is_near = |node: NodeIndex| view.site(node).is_some() && view.site(node) == view.site(partner);
    free.sort_by_key(|node| (*node != partner, !is_near(*node), *node));
    free.truncate(TARGETS_TRIED);
    free
}

/// The demands after one end of a pair has moved. With its partner on one host it needs no network.
fn moved(
    demands: &BTreeMap<Pair, f64>,
    (host, partner): (NodeIndex, NodeIndex),
    target: NodeIndex,
) -> BTreeMap<Pair, f64> {
    let mut moved = demands.clone();
    for (old, new) in
        [(Pair::new(host, partner), Pair::new(target, partner)), (Pair::new(partner, host), Pair::new(partner, target))]
    {
        let demand = moved.remove(&old);
        if let Some(demand) = demand.filter(|_| target != partner) {
            *moved.entry(new).or_default() += demand;
        }
    }
    moved
}

/// How many times better the pairs fare that fare otherwise.
fn gain(
    before: &BTreeMap<Pair, f64>,
    after: &BTreeMap<Pair, f64>,
    (host, partner): (NodeIndex, NodeIndex),
    target: NodeIndex,
) -> f64 {
    let renamed = |pair: Pair| match (pair.from, pair.to) {
        (from, to) if (from, to) == (host, partner) => Pair::new(target, partner),
        (from, to) if (from, to) == (partner, host) => Pair::new(partner, target),
        (from, to) => Pair::new(from, to),
    };
    let fare = |(pair, share): (&Pair, &f64)| (*share, after.get(&renamed(*pair)).copied().unwrap_or(SHARE_MAX));
    let touched = before.iter().map(fare).filter(|(old, new)| (new / old - 1.0).abs() > SAME_RATE).collect::<Vec<_>>();
    let least = |shares: &mut dyn Iterator<Item = f64>| shares.fold(f64::INFINITY, f64::min);
    let (old, new) = (least(&mut touched.iter().map(|(old, _)| *old)), least(&mut touched.iter().map(|(_, new)| *new)));
    if touched.is_empty() { 1.0 } else { new / old }
}
