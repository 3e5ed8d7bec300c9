//! What the command line says, and how long each measurement takes then.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Candidates of `--quick`.
const QUICK: [&str; 5] = ["bare", "vxlan", "longwire", "vpncloud", "fastd"];
/// Rounds of a whole run: a median with two values on each side.
const ROUNDS: u32 = 5;
/// Seconds of one TCP run, after the first, which does not count.
const SECONDS: u32 = 3;

/// The whole path as a user sees it: longwire, kernel paths and other tunnels, round by round.
#[derive(Debug, Parser)]
pub struct Options {
    /// Few candidates, one round of 1 s runs on one underlay: under 90 s, to see that it works.
    #[arg(long)]
    pub quick: bool,
    /// Rounds; each has every measurement of every candidate [default: 5, quick 1].
    #[arg(long)]
    rounds: Option<u32>,
    /// Length of a TCP run [default: 3, quick 1].
    #[arg(long)]
    seconds: Option<u32>,
    /// What the links between the hosts take off the kernel [default: both, quick offload].
    #[arg(long, value_enum)]
    underlay: Option<Which>,
    /// These candidates only, by name: `--only longwire,vpncloud`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Writes every value of every round, the medians and the machine here.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Draws the medians here.
    #[arg(long)]
    pub svg: Option<PathBuf>,
    /// Cargo gives this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    Offload,
    Software,
    Both,
}

/// What the links between the hosts do with superframes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Underlay {
    /// They carry them whole, as a virtual link does.
    Offload,
    /// The kernel cuts them first and joins them after, as with a network card that cannot.
    Software,
}

impl Underlay {
    /// Its name in tables and JSON.
    pub fn key(self) -> &'static str {
        match self {
            Underlay::Offload => "offload",
            Underlay::Software => "software",
        }
    }
}

impl Options {
    /// How many rounds.
    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { ROUNDS }).max(1)
    }

    /// Which underlays, in order.
    pub fn underlays(&self) -> Vec<Underlay> {
        match self.underlay {
            Some(Which::Offload) => vec![Underlay::Offload],
            Some(Which::Software) => vec![Underlay::Software],
            None if self.quick => vec![Underlay::Offload],
            Some(Which::Both) | None => vec![Underlay::Offload, Underlay::Software],
        }
    }

    /// Whether this candidate takes part.
    pub fn wants(&self, name: &str) -> bool {
        if self.only.is_empty() { !self.quick || QUICK.contains(&name) } else { self.only.iter().any(|n| n == name) }
    }

    /// The names that `--only` gave.
    pub fn only(&self) -> &[String] {
        &self.only
    }

    /// How long things take.
    pub fn pace(&self) -> Pace {
        let seconds = self.seconds.unwrap_or(if self.quick { 1 } else { SECONDS }).max(1);
        Pace {
            seconds,
            warm_up: u32::from(!self.quick),
            // Random losses of 1 %: some hundreds of them.
            lossy_seconds: if self.quick { seconds } else { seconds.max(2) * 5 },
            step: Duration::from_millis(if self.quick { 200 } else { 400 }),
            pings: if self.quick { 40 } else { 200 },
            flood_pings: if self.quick { 500 } else { 3000 },
        }
    }
}

/// How long each measurement takes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// A TCP run.
    pub seconds: u32,
    /// Seconds before it that do not count.
    pub warm_up: u32,
    /// A TCP run over a lossy link.
    pub lossy_seconds: u32,
    /// One step of a search for a rate.
    pub step: Duration,
    /// Pings on an idle path.
    pub pings: u32,
    /// Pings one after the other.
    pub flood_pings: u32,
}
