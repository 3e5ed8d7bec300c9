//! What nobody can measure alone: capacities that many pairs share, learnt from what arrives.
//!
//! When a group of pairs gets clearly less than the model predicts, something limits it that the model
//! does not have: the shared resource that explains best what all pairs got ([`blame`]) gets the capacity that was
//! seen. One that is filled and holds nobody back is raised a little each epoch, and forgotten when it carries more, so
//! that a wrong guess heals.

mod blame;

use std::collections::BTreeMap;

use super::resources::Resource;
use super::search::{Assignment, Problem};
use blame::Evidence;

/// A new capacity is what was seen and a little more.
const SEEN: f64 = 1.02;
/// A resource used this much is full.
const FULL: f64 = 0.95;
/// One that carries less than this share of what it is thought to carry at most tells nothing of it.
const ROOM: f64 = 0.6;
/// Who carries more, and holds nobody back, may be larger than it was thought to be, by this share each epoch.
const PROBE: f64 = 0.08;
/// Weight of what is seen in the average of a capacity,
const WEIGHT: f64 = 0.25;
/// unless that was so many times too low.
const FAR: f64 = 1.2;
/// A resource that carries less than this share of what it was seen to carry is not what limits.
const CLEARED: f64 = 0.8;
/// And what was seen counts a little less each epoch: half after four and a half minutes.
const FADING: f64 = 0.995;
/// A capacity that is not filled rises as well, so that it is tried again: fast while a change settles.
const FORGETTING_SOON: f64 = 1.01;
/// And slowly later: an overload that comes of it must be rare.
const FORGETTING: f64 = 1.001;
/// What is unknown may be so many times the widest of its kind that is known.
const GUESS: f64 = 1.5;
/// Limits found in one epoch.
const ROUNDS: usize = 16;

/// What was seen of one pair.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Bytes per second that arrived.
    pub rate: f64,
    /// By about which share of itself that deviates from the truth.
    pub noise: f64,
    /// The network holds it back: only then what it lacks shows a limit.
    pub is_held_back: bool,
}

/// A capacity that was learnt.
#[derive(Clone, Copy, Debug, Default)]
struct Limit {
    capacity: f64,
    /// How many times it was found to be full.
    found: u32,
    /// It is, as far as is known.
    is_short: bool,
}

impl Limit {
    fn find(&mut self) {
        self.found += u32::from(!std::mem::replace(&mut self.is_short, true));
    }
}

/// Capacities learnt so far.
#[derive(Clone, Debug, Default)]
pub struct Learnt {
    limits: BTreeMap<Resource, Limit>,
    /// What each was seen to carry: it is not blamed when it carries clearly less.
    proven: BTreeMap<Resource, f64>,
}

impl Learnt {
    /// Everything learnt.
    pub fn iter(&self) -> impl Iterator<Item = (Resource, f64)> + '_ {
        self.limits.iter().map(|(resource, limit)| (*resource, limit.capacity))
    }

    /// Whether nothing limits it as far as is known.
    pub fn is_unknown(&self, resource: Resource) -> bool {
        !self.limits.contains_key(&resource)
    }

    /// What a shared link may be of which nothing is known: more than any that was found to be narrow. Who takes it for
    /// unlimited sends everybody there.
    pub fn guess(&self, resource: Resource) -> Option<f64> {
        let is_alike = |other: &Resource| std::mem::discriminant(other) == std::mem::discriminant(&resource);
        let alike = self.limits.iter().filter(|(other, _)| is_alike(other)).map(|(_, limit)| limit.capacity);
        let highest = alike.reduce(f64::max)?;
        let proven = self.proven.get(&resource).copied().unwrap_or(0.0);
        Some(highest.max(proven) * GUESS)
    }

    /// Another phase: what was found is tried again as soon as what was found once.
    pub fn reconsider(&mut self) {
        self.limits.values_mut().for_each(|limit| limit.found = limit.found.min(1));
    }

    /// Forgets resources that are no more.
    pub fn retain(&mut self, keep: impl Fn(Resource) -> bool) {
        self.limits.retain(|resource, _| keep(*resource));
        self.proven.retain(|resource, _| keep(*resource));
    }

    /// What was carried for sure. The greatest of many readings is one that chance has made greater.
    fn prove(&mut self, problem: &Problem, evidence: &Evidence<'_>) {
        self.proven.values_mut().for_each(|proven| *proven *= FADING);
        let sure =
            evidence.proven.iter().zip(&evidence.chance).map(|(proven, chance)| proven * (1.0 - chance).max(0.0));
        for (resource, sure) in problem.resources.iter().zip(sure) {
            let proven = self.proven.entry(*resource).or_default();
            *proven = proven.max(sure);
        }
    }

    /// What is full tells its capacity, if somebody wants more of it; else it may be larger than was thought, the less
    /// likely the more often it was found to be full.
    fn refine(&mut self, problem: &Problem, evidence: &Evidence<'_>) {
        let short = evidence.short();
        for (number, resource) in problem.resources.iter().enumerate() {
            let Some(limit) = self.limits.get_mut(resource) else { continue };
            let (carried, sure) = (evidence.carried[number], evidence.proven[number] * (1.0 - evidence.chance[number]));
            if short[number] && carried > FULL * limit.capacity {
                let weight = if carried > limit.capacity * FAR { 1.0 } else { WEIGHT };
                limit.find();
                limit.capacity += (carried * SEEN - limit.capacity) * weight;
                continue;
            }
            limit.is_short = false;
            if sure > limit.capacity {
                self.limits.remove(resource);
            } else if carried > ROOM * limit.capacity {
                limit.capacity *= 1.0 + PROBE / f64::from(limit.found).powi(2);
            }
        }
    }

    /// Learns from what was seen of each pair, by readings that deviate by the share `noise`; of a pair that is not
    /// believed nothing was.
    pub fn observe(
        &mut self,
        problem: &Problem,
        assignment: &Assignment,
        (seen, noise): (&[Option<Seen>], f64),
        is_settling: bool,
    ) {
        let evidence = Evidence::new(problem, assignment, seen, noise);
        self.prove(problem, &evidence);
        let carried = |number: usize| evidence.carried[number];
        let is_suspect = |number: usize| carried(number) >= CLEARED * self.proven[&problem.resources[number]];
        let mut capacities = problem.capacities.clone();
        for _ in 0..ROUNDS {
            let Some(guilty) = evidence.guilty(&capacities, is_suspect) else { break };
            capacities[guilty] = carried(guilty) * SEEN;
            let limit = self.limits.entry(problem.resources[guilty]).or_default();
            limit.find();
            limit.capacity = capacities[guilty];
        }
        self.refine(problem, &evidence);
        // What is not filled may have been blamed wrongly, and nobody would ever find out.
        let forgetting = if is_settling { FORGETTING_SOON } else { FORGETTING };
        self.limits.values_mut().for_each(|limit| limit.capacity *= forgetting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::topology::plan::compile;
    use crate::control::topology::resources::Site;
    use crate::control::topology::view::{Config, NodeView, View};
    use crate::control::topology::{NodeIndex, Pair};
    use crate::time::Time;

    /// What is learnt where all of a site send, each second one to another site, and these shares of it arrive.
    fn learnt(shares: &[f64]) -> Vec<Resource> {
        let count = shares.len() as u16;
        let site = |node: u16| if node < count { 0 } else { 1 + node % 2 };
        let node = |node| NodeView { site: Some(Site(site(node))), ..NodeView::default() };
        let pair = |from| Pair::new(NodeIndex(from), NodeIndex(from + count));
        let demands = (0..count).map(|from| (pair(from), 1e6)).collect();
        let view = View { nodes: (0..2 * count).map(node).collect(), demands, ..View::default() };
        let problem = compile(&view, &Config::default(), Time::START);
        let of = |pair: &Pair| shares[usize::from(pair.from.0)];
        let seen = |pair: &Pair| Some(Seen { rate: of(pair) * 1e6, noise: 0.03, is_held_back: of(pair) < 1.0 });
        let seen = problem.pairs.iter().map(seen).collect::<Vec<_>>();
        let mut learnt = Learnt::default();
        learnt.observe(&problem, &vec![0; seen.len()], (&seen, 0.03), true);
        learnt.iter().map(|(resource, _)| resource).collect()
    }

    #[test]
    fn a_full_site_is_not_mistaken_for_each_of_its_trunks() {
        assert_eq!(learnt(&[0.6, 0.6]), [Resource::SiteOut(Site(0))]);
        assert_eq!(learnt(&[0.6, 1.0]), [Resource::Trunk(Site(0), Site(1))]);
        assert_eq!(learnt(&[1.0, 1.0]), []);
    }

    #[test]
    fn what_many_lack_together_is_more_than_chance_though_it_is_little() {
        let trunks = [1, 2].map(|site| Resource::Trunk(Site(0), Site(site)));
        assert_eq!(learnt(&[0.955; 8]), trunks, "or their site: so little does not tell");
        assert_eq!(learnt(&[0.97; 8]), []);
        assert_eq!(learnt(&[0.955, 0.955, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]), [], "of two that is chance");
    }
}
