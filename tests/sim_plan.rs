//! The planner against networks whose best routing is known.

#[path = "plan/fixture.rs"]
mod fixture;
#[path = "plan/model.rs"]
mod model;
#[path = "plan/world.rs"]
mod world;

use longwire::control::topology::plan::{compile, plan};
use longwire::control::topology::view::{Config, View};
use longwire::time::Time;

use fixture::networks;
use model::{Kind, network, pattern};
use world::{Weather, World};

/// The least rate/demand of all pairs.
fn lambda(view: &View, config: &Config) -> f64 {
    let problem = compile(view, config, Time::START);
    let choice = |(number, pair)| problem.choice(number, view.way(pair)).expect("the way in use is a candidate");
    let assignment = problem.pairs.iter().copied().enumerate().map(choice).collect();
    problem.lambda(&assignment)
}

#[test]
fn plans_reach_the_best_single_path_routing() {
    let config = Config::default();
    let mut ratios = Vec::new();
    for kind in ["sites", "inet"] {
        for network in networks(kind) {
            for case in &network.cases {
                let mut view = network.view();
                view.demands = case.demands();
                let direct = lambda(&view, &config);
                for (pair, via) in plan(&view, &config, Time::START).map(|plan| plan.moves).unwrap_or_default() {
                    view.routes.insert(pair, via);
                }
                let (reached, label) = (lambda(&view, &config), format!("{kind} {} {}", network.seed, case.pattern));
                assert!(reached >= direct * 0.999_999, "{label}: {reached} is less than the direct mesh's {direct}");
                assert!(reached <= case.bound * 1.002, "{label}: {reached} beats the bound {}", case.bound);
                ratios.push((reached / case.found, label));
            }
        }
    }
    let mean = ratios.iter().map(|(ratio, _)| ratio).sum::<f64>() / ratios.len() as f64;
    let (least, label) = ratios.iter().min_by(|one, other| one.0.total_cmp(&other.0)).expect("some cases");
    println!("{} cases: mean {mean:.4}, least {least:.3} ({label})", ratios.len());
    assert!(mean >= 0.98, "mean {mean}");
    assert!(*least >= 0.88, "{label}: {least}");
}

/// As the tables of the plan's damping were simulated.
const WEATHER: Weather = Weather { noise: 0.1, drift: 0.05 };

#[test]
fn probe() {
    for (kind, n) in [(Kind::Sites, 12), (Kind::Inet, 12), (Kind::Flat, 12)] {
        for name in ["ring", "mesh2d", "a2a", "rand"] {
            let (mut early, mut late, mut ratios, mut plans, mut moves) = (0.0, 0.0, vec![], 0, 0);
            for seed in 0..5 {
                let mut world = World::new(network(kind, n, seed), WEATHER, seed);
                world.offer(&pattern(name, n, 100 + seed));
                let mut run = vec![];
                for epoch in 0..60 {
                    let step = world.step();
                    run.push(step.ratio);
                    if let Some(plan) = step.plan.filter(|_| epoch >= 30) {
                        plans += 1;
                        moves += plan.changes.len();
                    }
                }
                early += run[5] / 5.0;
                late += run[15..].iter().sum::<f64>() / run[15..].len() as f64 / 5.0;
                println!(
                    "{kind:?} {name} {seed}: {}",
                    run[..20].iter().map(|r| format!("{r:.2}")).collect::<Vec<_>>().join(" ")
                );
                if std::env::var("WHY").is_ok() {
                    for d in world.planner.decisions().collect::<Vec<_>>().iter().rev() {
                        println!("   {d}");
                    }
                }
                ratios.extend_from_slice(&run[15..]);
            }
            ratios.sort_by(f64::total_cmp);
            println!(
                "== {kind:?} {name}: 10s {early:.3} late {late:.3} p10 {:.3} plans/min {:.1} moves {moves}",
                ratios[ratios.len() / 10],
                f64::from(plans) / 5.0
            );
        }
    }
}
