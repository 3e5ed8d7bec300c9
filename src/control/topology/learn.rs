//! What nobody can measure alone: capacities that many pairs share, learnt from what arrives.
//!
//! When a group of pairs gets clearly less than the model predicts, something limits it that the model
//! does not have: the shared resource that explains best what all pairs got ([`blame`]) gets the capacity that was
//! seen. A capacity that is filled is raised a little each epoch, so that a wrong guess heals.

mod blame;

use std::collections::BTreeMap;

use super::resources::Resource;
use super::search::{Assignment, Problem};
use blame::Evidence;

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

    /// What was carried for sure. The greatest of many readings is one that chance has made greater.
    fn prove(&mut self, problem: &Problem, evidence: &Evidence<'_>) {
        self.proven.values_mut().for_each(|proven| *proven *= FADING);
        let sure =
            evidence.carried.iter().zip(&evidence.chance).map(|(carried, chance)| carried * (1.0 - chance).max(0.0));
        for (resource, sure) in problem.resources.iter().zip(sure) {
            let proven = self.proven.entry(*resource).or_default();
            *proven = proven.max(sure);
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

    /// Learns from what was seen of each pair; of a pair that is not believed nothing was.
    pub fn observe(&mut self, problem: &Problem, assignment: &Assignment, seen: &[Option<Seen>], is_settling: bool) {
        let evidence = Evidence::new(problem, assignment, seen);
        self.prove(problem, &evidence);
        let carried = |number: usize| evidence.carried[number];
        let is_suspect = |number: usize| carried(number) >= CLEARED * self.proven[&problem.resources[number]];
        let mut capacities = problem.capacities.clone();
        for _ in 0..ROUNDS {
            let Some(guilty) = evidence.guilty(&capacities, is_suspect) else { break };
            capacities[guilty] = carried(guilty) * SEEN;
            self.capacities.insert(problem.resources[guilty], capacities[guilty]);
        }
        self.refine(problem, &evidence.carried, &evidence.short());
        // What is not filled may have been blamed wrongly, and nobody would ever find out.
        let forgetting = if is_settling { FORGETTING_SOON } else { FORGETTING };
        for capacity in self.capacities.values_mut() {
            *capacity *= forgetting;
        }
    }
}
