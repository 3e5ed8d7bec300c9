//! What adapting costs: the same stream through daemons that count, report and obey plans, and through those that do
//! not, in pairs that follow each other, as only ratios of one moment mean anything.

use std::time::Instant;

use serde_json::json;

use crate::candidate::stand_still;
use crate::facts;
use crate::figure::Figure;
use crate::measure::Task;
use crate::options::{Options, Underlay};
use crate::stage::{Candidate, Stage};

/// Student's t for 29 degrees of freedom and more: 95 % are below.
const QUANTILE: f64 = 1.70;
const PAIRS_MIN: usize = 30;
/// The share of the CPU time per byte that adapting may cost.
const COST_MAX: f64 = 0.03;

/// Measures it and says what came of it; an error if it is too much.
pub fn run(options: &Options) -> Result<(), String> {
    let begun = Instant::now();
    let mut stage = Stage::new();
    let facts = facts::of(&stage, options);
    stand_still(&mut stage)?;
    stage.set_underlay(Underlay::Offload);
    // It plans for those who report.
    let planner = stage.supernode.process().pid();
    stage.candidates.iter_mut().for_each(|candidate| candidate.pids.push(planner));
    let [adapting, still] = stage.candidates.as_slice() else {
        return Err(format!("not both could be built: {:?}", stage.absent));
    };
    let mut ratios = Vec::new();
    for round in 0..options.rounds() {
        let is_first = round.is_multiple_of(2);
        let (first, second) = if is_first { (adapting, still) } else { (still, adapting) };
        let ratio = cost(first, options)? / cost(second, options)?;
        let ratio = if is_first { ratio } else { ratio.recip() };
        eprintln!("pair {}: {ratio:.3} after {:.0} s", round + 1, begun.elapsed().as_secs_f64());
        ratios.push(ratio);
    }
    let (mean, bound) = judge(&ratios);
    facts.iter().for_each(|(name, text)| println!("- {name}: {text}"));
    println!(
        "\nAdapting takes {mean:.3} times the CPU seconds per GB of daemons and supernode that are still ({} pairs); \
         with 95 % confidence no more than {bound:.3} times",
        ratios.len()
    );
    if let Some(file) = &options.json {
        let value = json!({ "facts": facts::json(&facts), "ratios": ratios, "mean": mean, "bound": bound });
        std::fs::write(file, format!("{value:#}\n")).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    match ratios.len() {
        few if few < PAIRS_MIN => Err(format!("{few} pairs say nothing: {PAIRS_MIN} do")),
        _ if bound > 1.0 + COST_MAX => Err(format!("that is more than {} allow", 1.0 + COST_MAX)),
        _ => Ok(()),
    }
}

/// CPU seconds per GB.
fn cost(candidate: &Candidate, options: &Options) -> Result<f64, String> {
    let values = Task::Tcp1.run(candidate, &options.pace())?;
    let cost = values.into_iter().find(|(figure, _)| *figure == Figure::Cpu).map(|(_, cost)| cost);
    cost.ok_or_else(|| format!("{} has no cost", candidate.name))
}

/// The mean ratio, and what the true one is below with 95 % confidence; of logarithms, as ratios are.
fn judge(ratios: &[f64]) -> (f64, f64) {
    let count = ratios.len() as f64;
    let logs: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).collect();
    let mean = logs.iter().sum::<f64>() / count;
    let squares = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>();
    let deviation = (squares / (count - 1.0).max(1.0)).sqrt();
    (mean.exp(), (mean + QUANTILE * deviation / count.sqrt()).exp())
}
