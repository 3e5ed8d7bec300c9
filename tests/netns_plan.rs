//! The planner with real daemons, TAPs and queues: four sites of three hosts, traffic of programs that work in step.
//!
//! A ratio is the least rate/demand of all pairs, of what each sends at the time, beside that of the best single-path
//! routing by members that is found with full knowledge, for capacities as they were measured through the overlay. As
//! much is offered as that routing carries: of more, datagrams that do not yield would lose a part at each queue.
//!
//! ```sh
//! cargo test --test netns_plan -- --ignored --nocapture     # every pattern, swaps, a steady load: 15 minutes
//! ```
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

#[allow(dead_code, reason = "simulations use more of it")]
#[path = "plan/model.rs"]
mod model;
#[path = "plan/scene.rs"]
mod scene;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lab::{GuestPair, Offer};
use longwire::control::topology::view::{Config, View};
use longwire::control::topology::{NodeIndex, Pair};
use model::{best, carried, least, pattern};
use scene::{HOSTS, Scene, by_members, guests_of};

/// The first network of `sim_adapt` on which a mesh of direct ways gives less than half of what can be had: 0.36 to 0.70,
/// pattern by pattern. Nothing was tuned on it.
const SEED: u64 = 103;
/// Its patterns, as there.
const PATTERN_SEED: u64 = 100 + SEED;
const PATTERNS: [&str; 4] = ["ring", "mesh2d", "a2a", "rand"];
/// Searches for the best routing, each from other starts.
const SEARCHES: u64 = 8;
/// A look: of the slowest pairs some hundreds of datagrams.
const LOOK: Duration = Duration::from_secs(5);
/// Looks after which a plan must be as good as it should be soon, and for good.
const SOON: usize = 2;
const SETTLED: usize = 6;
/// Looks of a pattern, and of a load that stays.
const LOOKS: usize = 12;
const LOOKS_STEADY: usize = 60;

/// A pattern of traffic over a network.
struct Load {
    name: &'static str,
    /// Bytes of payload per second.
    demands: BTreeMap<GuestPair, f64>,
}

impl Load {
    fn new(name: &'static str, view: &View, seed: u64) -> Self {
        let weights = pattern(name, HOSTS as u16, seed);
        let view = View { demands: weights.clone(), ..by_members(view) };
        let search = |seed| best(&view, &Config { seed, ..Config::default() });
        let scale = (0..SEARCHES).map(search).fold(0.0, f64::max);
        let demand = |(pair, weight): (Pair, f64)| (guests_of(pair), weight * scale);
        let demands: BTreeMap<_, _> = weights.into_iter().map(demand).collect();
        let (least, all) = (demands.values().copied().fold(f64::INFINITY, f64::min), demands.values().sum::<f64>());
        eprintln!("{name}: {} pairs, {:.0} kB/s the least, {:.1} MB/s together", demands.len(), least / 1e3, all / 1e6);
        Self { name, demands }
    }

    /// What the ways that are planned now would give by the model, with full knowledge.
    fn promised(&self, scene: &Scene, view: &View) -> f64 {
        let demand = |((from, to), demand): (&GuestPair, &f64)| {
            (Pair::new(NodeIndex(*from as u16), NodeIndex(*to as u16)), *demand)
        };
        let demands = self.demands.iter().map(demand).collect();
        least(&carried(&View { demands, routes: scene.ways(), ..view.clone() }, &Config::default())).min(1.0)
    }

    /// The ratio of each of so many looks.
    fn ratios(&self, offer: &Offer, looks: usize) -> Vec<f64> {
        let least = |shares: BTreeMap<GuestPair, f64>| shares.into_values().fold(f64::INFINITY, f64::min);
        (0..looks).map(|_| least(offer.shares(LOOK, &self.demands))).collect()
    }

    /// The ratio on ways that stay as they are.
    fn still(&self, scene: &Scene) -> f64 {
        let offer = Offer::start(&scene.guests(), &self.demands);
        self.ratios(&offer, 2)[1]
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Of ten values one is lower.
fn low(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 10]
}

/// Plans among decisions.
fn plans(decisions: &BTreeSet<String>) -> usize {
    decisions.iter().filter(|decision| decision.contains(": moves ")).count()
}

fn tell(scene: &Scene, (load, view): (&Load, &View), ratios: &[f64]) {
    let promised = load.promised(scene, view);
    eprintln!("  {ratios:.2?}; the present ways promise {promised:.2}");
    for decision in scene.decisions().iter().rev() {
        eprintln!("  {decision}");
    }
}

#[test]
fn a_pattern_over_four_sites_is_soon_carried_better_than_by_a_mesh() {
    let mut scene = Scene::new(SEED);
    scene.pin(true);
    let view = scene.measure();
    let load = Load::new("ring", &view, PATTERN_SEED);
    let mesh = load.still(&scene);
    scene.pin(false);
    scene.forget();
    let offer = Offer::start(&scene.guests(), &load.demands);
    let ratios = load.ratios(&offer, 6);
    tell(&scene, (&load, &view), &ratios);
    let later = mean(&ratios[4..]);
    eprintln!("ring: {mesh:.2} directly, {later:.2} from 20 s");
    // How much better is the sweep's to say, on a free machine: what twelve daemons lose to other tests looks like narrow
    // trunks (0.71 alone, 0.48 beside four compilers, 0.34 by a mesh).
    assert!(later >= 1.2 * mesh, "{later} after {mesh}");
}

/// What became of one pattern.
struct Row {
    name: &'static str,
    star: f64,
    mesh: f64,
    ratios: Vec<f64>,
}

impl Row {
    fn settled(&self) -> f64 {
        mean(&self.ratios[SETTLED..])
    }

    fn show(&self) {
        let Self { name, star, mesh, .. } = self;
        let (soon, settled, low) = (self.ratios[SOON], self.settled(), low(&self.ratios[SETTLED..]));
        let gains = (settled / star, settled / mesh);
        eprintln!(
            "{name:>7} | star {star:.2} | mesh {mesh:.2} | {soon:.2} at 10 s | {settled:.2} from 30 s ({low:.2} lowest tenth) | {:.1} x star | {:.1} x mesh",
            gains.0, gains.1
        );
    }
}

#[test]
#[ignore = "15 minutes"]
fn every_pattern_swaps_and_a_steady_load() {
    let mut scene = Scene::new(SEED);
    scene.pin(true);
    let view = scene.measure();
    let loads = PATTERNS.map(|name| Load::new(name, &view, PATTERN_SEED));
    let meshes = loads.each_ref().map(|load| load.still(&scene));
    let stars = scene.as_star(|| loads.each_ref().map(|load| load.still(&scene)));
    scene.pin(false);
    let mut rows = Vec::new();
    for ((load, mesh), star) in loads.iter().zip(meshes).zip(stars) {
        scene.forget();
        let offer = Offer::start(&scene.guests(), &load.demands);
        let ratios = load.ratios(&offer, LOOKS);
        eprintln!("{}:", load.name);
        tell(&scene, (load, &view), &ratios);
        rows.push(Row { name: load.name, star, mesh, ratios });
    }
    rows.iter().for_each(Row::show);
    // Each takes the place of another one, and what is known stays known.
    let mut swaps = [1, 2, 3].map(|place| (swap(&scene, (&loads[place], &view)).1, &rows[place])).to_vec();
    let (offer, ratios) = swap(&scene, (&loads[0], &view));
    swaps.push((ratios, &rows[0]));
    let plans = stay(&scene, (&loads[0], &view), &offer);
    judge(&rows, &swaps, plans);
}

/// The ratios from when this pattern takes the place of another one, and what goes on offering it.
fn swap(scene: &Scene, (load, view): (&Load, &View)) -> (Offer, Vec<f64>) {
    let offer = Offer::start(&scene.guests(), &load.demands);
    let ratios = load.ratios(&offer, LOOKS);
    eprintln!("swapped for {}:", load.name);
    tell(scene, (load, view), &ratios);
    (offer, ratios)
}

/// The plans of a minute, of five in which a load that has settled stays as it is.
fn stay(scene: &Scene, (load, view): (&Load, &View), offer: &Offer) -> f64 {
    let mut known: BTreeSet<_> = scene.decisions().into_iter().collect();
    let before = plans(&known);
    let mut steady = Vec::new();
    for _ in 0..LOOKS_STEADY / LOOKS {
        steady.extend(load.ratios(offer, LOOKS));
        known.extend(scene.decisions());
    }
    let minutes = LOOK.as_secs_f64() * steady.len() as f64 / 60.0;
    let each_minute = (plans(&known) - before) as f64 / minutes;
    eprintln!(
        "steady: {:.2} in the mean, {:.2} lowest tenth, {each_minute:.2} plans a minute",
        mean(&steady),
        low(&steady)
    );
    tell(scene, (load, view), &steady);
    each_minute
}

fn judge(rows: &[Row], swaps: &[(Vec<f64>, &Row)], plans: f64) {
    let of = |figure: fn(&Row) -> f64| mean(&rows.iter().map(figure).collect::<Vec<_>>());
    let soon = of(|row| row.ratios[SOON]);
    let later = of(Row::settled);
    let star = of(|row| row.settled() / row.star);
    let mesh = of(|row| row.settled() / row.mesh);
    let after = |figure: fn(&(Vec<f64>, &Row)) -> f64| mean(&swaps.iter().map(figure).collect::<Vec<_>>());
    let swapped = after(|(ratios, _)| ratios[SOON]);
    let (cold, own) = (after(|(_, row)| row.settled()), after(|(ratios, _)| mean(&ratios[SETTLED..])));
    eprintln!(
        "{soon:.2} at 10 s, {later:.2} from 30 s, {star:.1} x star, {mesh:.1} x mesh; 10 s after a swap {swapped:.2}, in the end {own:.2}, after a cold start {cold:.2}; {plans:.2} plans a minute"
    );
    assert!(soon >= 0.85, "{soon} at 10 s");
    assert!(later >= 0.90, "{later} from 30 s");
    assert!(star >= 2.2 && mesh >= 1.6, "{star} times the star, {mesh} times the mesh");
    assert!(
        swapped >= 0.95 * own.max(cold),
        "{swapped} 10 s after a swap, {own} in the end, {cold} after a cold start"
    );
    // The last brings back the first pattern: it is as good as from a cold start by itself.
    if let Some((ratios, row)) = swaps.last() {
        let swap = ratios[SOON] / row.settled();
        assert!(swap >= 0.95, "10 s after a swap {swap} of what is had after a cold start");
    }
    for (ratios, row) in swaps {
        assert!(ratios[SOON] >= 0.8 * mean(&ratios[SETTLED..]), "{}: {ratios:?}", row.name);
    }
    assert!(plans <= 1.0, "{plans} plans a minute");
}
