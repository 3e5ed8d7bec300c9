//! Seeing the whole: `topo`, `top`, `trace`, `matrix` and `advise`, as text, JSON or pictures.
//!
//! Everything comes from the daemon's socket; what it does not know is called unknown.

mod chart;
mod circle;
mod heat;
mod text;

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use longwire::control::report::{Request, Response};
use longwire::control::sight::{Topology, Traffic};

use super::args::{AskArgs, OverlayArgs};
use super::ask::{ask, print_json, strange};
use super::{Failure, print};

/// Between two looks of `top`.
const REDRAW: Duration = Duration::from_secs(1);
/// To the upper left corner, and nothing below.
const CLEAR: &str = "\x1b[H\x1b[J";

#[derive(Debug, Args)]
pub(crate) struct TopoArgs {
    /// In the language of Graphviz.
    #[arg(long, conflicts_with_all = ["json", "svg"])]
    dot: bool,
    /// As a picture into this file; `-` is standard output.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    which: OverlayArgs,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Once, and not again and again.
    #[arg(long)]
    once: bool,
    /// Rows of each table.
    #[arg(long, value_name = "N", default_value_t = 20)]
    rows: usize,
    #[command(flatten)]
    which: OverlayArgs,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// The sender: its MAC or IP address.
    from: String,
    /// The receiver, likewise.
    to: String,
    /// Their VLAN; 0 = untagged.
    #[arg(long, value_name = "ID", default_value_t = 0)]
    vlan: u16,
    #[command(flatten)]
    which: OverlayArgs,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MatrixArgs {
    /// As a picture into this file; `-` is standard output.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    svg: Option<PathBuf>,
    /// Of the machines that talk across this member, not of hosts.
    #[arg(long)]
    machines: bool,
    #[command(flatten)]
    which: OverlayArgs,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AdviseArgs {
    #[command(flatten)]
    ask: AskArgs,
}

impl OverlayArgs {
    /// Keeps the wanted ones: that of the very name, or those that begin so.
    fn keep<T>(&self, all: &mut Vec<T>, name: impl Fn(&T) -> &str) -> Result<(), Failure> {
        let Some(wanted) = &self.overlay else { return Ok(()) };
        let names = listed(all, &name);
        let exact = all.iter().any(|one| name(one) == wanted);
        all.retain(|one| if exact { name(one) == wanted } else { name(one).starts_with(wanted.as_str()) });
        if all.is_empty() {
            let others = if names.is_empty() { String::new() } else { format!(", but these: {names}") };
            return Err(Failure::Ran(anyhow::anyhow!("there is no overlay {wanted} here{others}")));
        }
        Ok(())
    }

    /// The only one of all for a picture.
    fn one<T>(&self, mut all: Vec<T>, name: impl Fn(&T) -> &str) -> Result<T, Failure> {
        if all.len() == 1 {
            return Ok(all.remove(0));
        }
        let why = match all.is_empty() {
            true => "there is no overlay here".into(),
            false => format!("say --overlay, one of: {}", listed(&all, name)),
        };
        Err(Failure::Ran(anyhow::anyhow!(why)))
    }
}

/// Names in a sentence.
fn listed<T>(all: &[T], name: impl Fn(&T) -> &str) -> String {
    all.iter().map(name).collect::<Vec<_>>().join(", ")
}

pub(super) fn topo(args: &TopoArgs) -> Result<(), Failure> {
    let Response::Topology(mut all) = ask(&args.ask, &Request::Topology)? else {
        return Err(strange());
    };
    args.which.keep(&mut all, |one| &one.overlay)?;
    if args.ask.json {
        return print_json(&all);
    }
    let one = || args.which.one(all.clone(), |one: &Topology| &one.overlay);
    if let Some(file) = &args.svg {
        return write(file, &circle::picture(&one()?));
    }
    if args.dot {
        return print(&text::dot(&one()?));
    }
    print(&all.iter().map(text::topology).collect::<String>())
}

pub(super) fn top(args: &TopArgs) -> Result<(), Failure> {
    loop {
        let all = traffics(&args.ask, &args.which)?;
        if args.ask.json {
            return print_json(&all);
        }
        let text = all.iter().map(|one| text::top(one, args.rows)).collect::<String>();
        if args.once || !io::stdout().is_terminal() {
            return print(&text);
        }
        print(&format!("{CLEAR}{text}"))?;
        sleep(REDRAW);
    }
}

pub(super) fn matrix(args: &MatrixArgs) -> Result<(), Failure> {
    let all = traffics(&args.ask, &args.which)?;
    if args.ask.json {
        return print_json(&all);
    }
    let grid = |one: &Traffic| heat::Grid::new(one, args.machines);
    if let Some(file) = &args.svg {
        return write(file, &grid(&args.which.one(all, |one| &one.overlay)?).picture());
    }
    print(&all.iter().map(|one| grid(one).text()).collect::<String>())
}

fn traffics(args: &AskArgs, which: &OverlayArgs) -> Result<Vec<Traffic>, Failure> {
    let Response::Traffic(mut all) = ask(args, &Request::Traffic)? else {
        return Err(strange());
    };
    which.keep(&mut all, |one| &one.overlay)?;
    Ok(all)
}

pub(super) fn trace(args: TraceArgs) -> Result<(), Failure> {
    let TraceArgs { from, to, vlan, which: OverlayArgs { overlay }, ask: asked } = args;
    let Response::Trace(trace) = ask(&asked, &Request::Trace { from, to, vlan, overlay })? else {
        return Err(strange());
    };
    if asked.json { print_json(&trace) } else { print(&text::trace(&trace)) }
}

pub(super) fn advise(args: &AdviseArgs) -> Result<(), Failure> {
    let Response::Advice(advice) = ask(&args.ask, &Request::Advise)? else {
        return Err(strange());
    };
    if args.ask.json { print_json(&advice) } else { print(&text::advice(&advice)) }
}

fn write(file: &Path, picture: &str) -> Result<(), Failure> {
    if file == Path::new("-") {
        return print(picture);
    }
    fs::write(file, picture).map_err(|error| Failure::Ran(anyhow::anyhow!("{}: {error}", file.display())))
}

#[cfg(test)]
mod tests;
