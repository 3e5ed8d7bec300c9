//! The whole path as a user sees it: guests on bridges, through longwire, kernel paths and other tunnels.
//!
//! All candidates stand between the same two hosts at the same time; one at a time carries traffic, and
//! each measurement is made of all before the next one, round by round, because only ratios of one run
//! mean anything. Run it as root:
//!
//! ```sh
//! apt-get install -y fastd tinc openvpn n2n linux-perf && cargo install vpncloud
//! cargo bench --bench tunnel -- --json tunnel.json --svg tunnel.svg     # all, about an hour
//! cargo bench --bench tunnel -- --quick                                 # under 90 s
//! ```
//!
//! vpncloud and fastd must be there, the other programs are compared with where they are.
#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]
#![allow(unreachable_pub, reason = "modules of a program")]

mod options;

mod stage;

mod candidate;

mod lossy;

mod measure;

mod flood;

mod usage;

mod figure;

mod results;

mod must;

mod facts;

mod report;

mod plot;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use candidate::{FAMILIES, MANDATORY};
use lossy::Lossy;
use measure::Task;
use options::{Options, Underlay};
use results::Results;
use stage::Stage;

fn main() -> ExitCode {
    let options = Options::parse();
    match check(&options).and_then(|()| bench(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("{sentence}");
            ExitCode::FAILURE
        }
    }
}

/// What is wrong is said before anything is built.
fn check(options: &Options) -> Result<(), String> {
    let names = || FAMILIES.iter().flat_map(|family| family.names);
    if let Some(unknown) = options.only().iter().find(|only| !names().any(|name| name == only)) {
        let known = names().copied().collect::<Vec<_>>().join(", ");
        return Err(format!("no candidate is called {unknown}; there are {known}"));
    }
    let missing = MANDATORY.iter().find(|(name, _)| options.wants(name) && candidate::find(name).is_none());
    missing.map_or(Ok(()), |(_, sentence)| Err((*sentence).to_owned()))
}

fn bench(options: &Options) -> Result<(), String> {
    let begun = Instant::now();
    let mut stage = Stage::new();
    let facts = facts::of(&stage, options);
    for family in &FAMILIES {
        stage.try_family(options, family);
    }
    if let Some((name, reason)) = stage.absent.iter().find(|(name, _)| MANDATORY.iter().any(|(must, _)| must == name)) {
        stage.lab.show_logs();
        return Err(format!("{name} cannot be measured: {reason}"));
    }
    let lossy = (options.wants("longwire") && !options.quick).then(|| Lossy::stand(&mut stage)).transpose();
    let lossy = lossy.unwrap_or_else(|reason| {
        println!("- the lossy link is absent: {reason}");
        None
    });
    report::head(&facts, &stage);
    let mut results = Results::default();
    for underlay in options.underlays() {
        stage.set_underlay(underlay);
        for round in 0..options.rounds() as usize {
            measure_round(&stage, options, (underlay, round), &mut results);
            if let Some(lossy) = lossy.as_ref().filter(|_| underlay == options.underlays()[0]) {
                lossy.run(&options.pace(), |name, values| results.take(underlay, name, round, values));
            }
            eprintln!("{} round {} done after {:.0} s", underlay.key(), round + 1, begun.elapsed().as_secs_f64());
        }
        report::table(&results, underlay, &stage.candidates);
    }
    let verdicts = must::all().iter().map(|must| must.judge(&results)).collect::<Vec<_>>();
    report::musts(&verdicts);
    if let Some(file) = &options.json {
        let text = format!("{:#}\n", report::json(&facts, &stage, &results, &verdicts));
        std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    if let Some(file) = &options.svg {
        plot::draw(file, &stage.candidates, &results, options.underlays()[0])?;
    }
    Ok(())
}

fn measure_round(stage: &Stage, options: &Options, (underlay, round): (Underlay, usize), results: &mut Results) {
    let pace = options.pace();
    for task in Task::ALL {
        let mut candidates = stage.candidates.iter().filter(|c| task.suits(c.scope)).collect::<Vec<_>>();
        // There and back: what drifts within a round, or is left by the one before, favours nobody.
        if round % 2 == 1 {
            candidates.reverse();
        }
        for candidate in candidates {
            results.take(underlay, candidate.name, round, task.run(candidate, &pace));
        }
    }
}
