//! Made-up networks and patterns of traffic, from a seed; and what ways give them, with full knowledge.

use std::collections::{BTreeMap, BTreeSet};

use longwire::control::topology::plan::{compile, plan, shares};
use longwire::control::topology::resources::{Capacities, Resource, Site, uses};
use longwire::control::topology::view::{Config, NodeView, View};
use longwire::control::topology::{NodeIndex, Pair};
use longwire::time::Time;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// One Mbit/s, in bytes per second.
pub(crate) const MBIT: f64 = 125_000.0;
/// Rounds after which losses at one queue have reached all others.
const SQUEEZES: usize = 20;
/// Sites of the `sites` model.
const SITES: u16 = 4;

/// One stream of chance.
pub(crate) struct Dice(pub(crate) ChaCha8Rng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Between 0 and 1.
    pub(crate) fn share(&mut self) -> f64 {
        f64::from(self.0.next_u32()) / f64::from(u32::MAX)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.next_u32() as usize % end
    }

    /// Normally distributed, with deviation 1 (Box and Muller).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.share().max(1e-12).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.share()).cos()
    }

    /// A factor around 1.
    pub(crate) fn noise(&mut self, deviation: f64) -> f64 {
        (self.normal() * deviation).exp()
    }

    pub(crate) fn permutation(&mut self, count: usize) -> Vec<u16> {
        let mut order = (0..count as u16).collect::<Vec<_>>();
        for place in (1..count).rev() {
            order.swap(place, self.below(place + 1));
        }
        order
    }
}

/// The kinds of networks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Hosts of 4 sites that share uplinks and trunks.
    Sites,
    /// Hosts scattered over the Internet: uneven links, a third behind NATs that cannot be opened.
    Inet,
    /// Equal hosts on one switch.
    Flat,
}

/// A network of `n` hosts and a supernode (the last node), in bytes per second.
pub(crate) fn network(kind: Kind, n: u16, seed: u64) -> View {
    let mut dice = Dice::new(seed);
    let mut capacities = Capacities::default();
    let all = || (0..=n).map(NodeIndex);
    let mut unlinked = BTreeSet::new();
    for node in all() {
        let is_host = kind == Kind::Inet && node.0 < n;
        let out = if is_host { 200.0 * dice.noise(0.7) } else { 1000.0 };
        let into = if is_host { out.max(400.0 * dice.noise(0.6)) } else { 1000.0 };
        capacities.set(Resource::NodeOut(node), out * MBIT);
        capacities.set(Resource::NodeIn(node), into * MBIT);
    }
    if kind == Kind::Sites {
        trunks(&mut capacities, &mut dice);
    }
    if kind == Kind::Inet {
        let closed = (0..n).map(|_| dice.share() < 0.35).collect::<Vec<_>>();
        for pair in all().flat_map(|from| all().map(move |to| Pair::new(from, to))).filter(|pair| pair.from != pair.to)
        {
            let floor = if pair.involves(NodeIndex(n)) { 150.0 } else { 0.0 };
            capacities.set(Resource::Path(pair), (120.0 * dice.noise(0.9)).max(floor) * MBIT);
            let is_closed = |node: NodeIndex| closed.get(usize::from(node.0)).copied().unwrap_or(false);
            if is_closed(pair.from) && is_closed(pair.to) {
                unlinked.insert(pair.unordered());
            }
        }
    }
    let site = |node: u16| (kind == Kind::Sites && node < n).then_some(Site(node % SITES));
    let node = |node: u16| NodeView { site: site(node), is_supernode: node == n, relays: node < n };
    View { nodes: (0..=n).map(node).collect(), capacities, unlinked, ..View::default() }
}

/// Uplinks of 1 Gbit/s, trunks of 100 to 1000 Mbit/s.
fn trunks(capacities: &mut Capacities, dice: &mut Dice) {
    for from in (0..SITES).map(Site) {
        capacities.set(Resource::SiteOut(from), 1000.0 * MBIT);
        capacities.set(Resource::SiteIn(from), 1000.0 * MBIT);
        for to in (0..from.0).map(Site) {
            let width = (100.0 + 900.0 * dice.share().min(dice.share())) * MBIT;
            capacities.set(Resource::Trunk(from, to), width);
            capacities.set(Resource::Trunk(to, from), width);
        }
    }
}

/// Who talks to whom, and how much beside the others.
pub(crate) fn pattern(name: &str, n: u16, seed: u64) -> BTreeMap<Pair, f64> {
    let mut dice = Dice::new(seed);
    let order = dice.permutation(usize::from(n));
    let side = f64::from(n).sqrt() as u16;
    let all = || (0..n).flat_map(|a| (0..n).map(move |b| (a, b))).filter(|(a, b)| a != b);
    let is_edge = |a: u16, b: u16| match name {
        "ring" => (a + 1) % n == b || (b + 1) % n == a,
        "mesh2d" => {
            let apart = (a % side).abs_diff(b % side) + (a / side).abs_diff(b / side);
            a.max(b) < side * side && apart == 1
        }
        "tree" => a.max(b).saturating_sub(1) / 2 == a.min(b),
        "a2a" => true,
        "ms" => a.min(b) == 0,
        _ => panic!("no such pattern: {name}"),
    };
    let place = |node: u16| NodeIndex(order[usize::from(node)]);
    if name == "rand" {
        let drawn = (0..3 * n).map(|_| (dice.below(usize::from(n)) as u16, dice.below(usize::from(n)) as u16));
        let pairs = drawn.filter(|(a, b)| a != b).collect::<Vec<_>>();
        return pairs.into_iter().map(|(a, b)| (Pair::new(place(a), place(b)), dice.noise(1.0))).collect();
    }
    all().filter(|(a, b)| is_edge(*a, *b)).map(|(a, b)| (Pair::new(place(a), place(b)), 1.0)).collect()
}

/// What each pair gets on the ways of a view, as a share of what it offers.
pub(crate) fn carried(view: &View, config: &Config) -> BTreeMap<Pair, f64> {
    let problem = compile(view, config, Time::START);
    let assignment = vec![0; problem.pairs.len()];
    problem.pairs.iter().copied().zip(shares(&problem, &assignment)).collect()
}

/// The same of traffic that does not yield: every queue passes on the same share of all that comes to it, and what is
/// dropped at one was carried in vain by those before it.
pub(crate) fn squeezed(view: &View) -> BTreeMap<Pair, f64> {
    let ways: Vec<_> =
        view.demands.iter().map(|(pair, demand)| (*pair, *demand, uses(view, *pair, view.way(*pair)))).collect();
    let mut passed: BTreeMap<Resource, f64> = BTreeMap::new();
    for _ in 0..SQUEEZES {
        let mut offered: BTreeMap<Resource, f64> = BTreeMap::new();
        for (_, demand, crossed) in &ways {
            crossed.iter().fold(*demand, |rate, resource| {
                *offered.entry(*resource).or_default() += rate;
                rate * passed.get(resource).copied().unwrap_or(1.0)
            });
        }
        passed = offered
            .into_iter()
            .map(|(resource, rate)| (resource, (view.capacities.of(resource) / rate).min(1.0)))
            .collect();
    }
    let share = |crossed: &[Resource]| crossed.iter().map(|resource| passed[resource]).product();
    ways.iter().map(|(pair, _, crossed)| (*pair, share(crossed))).collect()
}

/// The least share that the best ways would give that are found.
pub(crate) fn best(view: &View, config: &Config) -> f64 {
    let mut view = View { routes: BTreeMap::new(), ..view.clone() };
    for (pair, via) in plan(&view, config, Time::START).map(|plan| plan.moves).unwrap_or_default() {
        view.routes.insert(pair, via);
    }
    least(&carried(&view, config))
}

/// The least of these shares; nobody gets more than all.
pub(crate) fn least(shares: &BTreeMap<Pair, f64>) -> f64 {
    shares.values().copied().fold(f64::INFINITY, f64::min)
}
