//! What is printed: facts, a table per underlay, what must hold. And the same as JSON.

use serde_json::{Value, json};

use crate::facts;
use crate::figure::{Figure, digits};
use crate::must::Verdict;
use crate::options::Underlay;
use crate::results::Results;
use crate::stage::{Candidate, Stage};

/// The head: the machine, the programs, who is missing and why.
pub fn head(facts: &[(&'static str, String)], stage: &Stage) {
    for (name, text) in facts {
        println!("- {name}: {text}");
    }
    for candidate in &stage.candidates {
        println!("- {}: VM MTU {}; {}", candidate.name, candidate.mtu, candidate.about);
    }
    for (name, reason) in &stage.absent {
        println!("- {name} is absent: {reason}");
    }
    println!();
}

/// Medians, a row for each candidate; `calls` says whether system calls could be counted.
pub fn table(results: &Results, underlay: Underlay, candidates: &[Candidate]) {
    println!("\nUnderlay: {}; medians of {} rounds\n", underlay.key(), results.rounds());
    let measured = |figure: &Figure| candidates.iter().any(|c| results.spread(underlay, c.name, *figure).is_some());
    let figures = Figure::ALL.into_iter().filter(|figure| measured(figure)).collect::<Vec<_>>();
    let titles = figures.iter().map(|figure| figure.title().to_owned());
    let head = ["candidate".to_owned(), "VM MTU".to_owned()].into_iter().chain(titles).collect::<Vec<_>>();
    let row = |candidate: &Candidate| {
        let cell = |figure: &Figure| {
            let spread = results.spread(underlay, candidate.name, *figure);
            spread.map_or("-".to_owned(), |spread| digits(spread.median))
        };
        let start = [candidate.name.to_owned(), candidate.mtu.to_string()];
        start.into_iter().chain(figures.iter().map(cell)).collect::<Vec<_>>()
    };
    print_table(&head, &candidates.iter().map(row).collect::<Vec<_>>());
    if !measured(&Figure::Calls) {
        println!("\nsyscalls/MB: not measured (`perf stat -e raw_syscalls:sys_enter` does not work here)");
    }
}

/// What must hold, with the spread of its rounds.
pub fn musts(verdicts: &[Verdict]) {
    println!("\nWhat must hold; median [min max] of the rounds' own values\n");
    let head = ["what", "underlay", "measured", "must", "holds"].map(str::to_owned);
    print_table(&head, &verdicts.iter().map(|verdict| verdict.row().to_vec()).collect::<Vec<_>>());
}

/// Everything in one value.
pub fn json(facts: &[(&'static str, String)], stage: &Stage, results: &Results, verdicts: &[Verdict]) -> Value {
    let candidate =
        |candidate: &Candidate| json!({ "name": candidate.name, "vm_mtu": candidate.mtu, "about": candidate.about });
    let absent = |(name, reason): &(&str, String)| json!({ "name": name, "reason": reason });
    json!({
        "facts": facts::json(facts),
        "candidates": stage.candidates.iter().map(candidate).collect::<Vec<_>>(),
        "absent": stage.absent.iter().map(absent).collect::<Vec<_>>(),
        "results": results.json(),
        "musts": verdicts.iter().map(Verdict::json).collect::<Vec<_>>(),
    })
}

/// A Markdown table whose columns stand in line.
fn print_table(head: &[String], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].len()).chain([head[column].len()]);
        cells.max().unwrap_or(0)
    };
    let widths = (0..head.len()).map(width).collect::<Vec<_>>();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect::<Vec<_>>();
        println!("| {} |", padded.join(" | "));
    };
    line(head);
    line(&widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
}
