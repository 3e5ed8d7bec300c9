//! The planner against networks whose best routing is known.

#[path = "plan/fixture.rs"]
mod fixture;

use longwire::control::topology::plan::{compile, plan};
use longwire::control::topology::view::{Config, View};
use longwire::time::Time;

use fixture::networks;

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
    eprintln!("{} cases: mean {mean:.4}, least {least:.3} ({label})", ratios.len());
    assert!(mean >= 0.98, "mean {mean}");
    assert!(*least >= 0.88, "{label}: {least}");
}
