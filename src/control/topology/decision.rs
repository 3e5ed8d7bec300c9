//! What was decided, when, and why: kept for the user who asks.

use std::fmt;

use serde::Serialize;

/// Why something was done or left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The moves begin.
    Adopted,
    /// They promise enough, and will begin if they still do at the next epoch.
    Confirming,
    /// They promise too little.
    TooLittle,
    /// There were enough plans lately.
    TooOften,
    /// The plan delivered.
    Kept,
    /// It did not: its moves are taken back.
    RolledBack,
    /// Pairs that no longer talk go their usual way again.
    Retired,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// Milliseconds since the planner's clock began.
    pub at_ms: u64,
    /// The version of the plan it belongs to.
    pub version: u64,
    /// What was decided.
    pub verdict: Verdict,
    /// The least rate/demand of the pairs concerned, before: promised or (kept, rolled back) measured.
    pub before: f64,
    /// The same, after.
    pub after: f64,
    /// What after/before had to reach.
    pub needed: f64,
    /// Pairs to be moved.
    pub moves: usize,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, gain) = (self.at_ms as f64 / 1000.0, self.after / self.before);
        let Self { version, moves, needed, .. } = self;
        write!(f, "{seconds:.1} s, plan {version}: ")?;
        match self.verdict {
            Verdict::Adopted => write!(f, "moves {moves} pairs for {gain:.2} times the rate ({needed:.2} needed)"),
            Verdict::Confirming => write!(f, "waits: {moves} pairs would get {gain:.2} times the rate"),
            Verdict::TooLittle => write!(f, "left: {gain:.2} times the rate, {needed:.2} needed"),
            Verdict::TooOften => write!(f, "left: {gain:.2} times the rate, but there were enough plans lately"),
            Verdict::Kept => write!(f, "kept: {gain:.2} times the rate before it"),
            Verdict::RolledBack => write!(f, "taken back: {gain:.2} times the rate before it"),
            Verdict::Retired => write!(f, "{moves} pairs no longer talk and go their usual way"),
        }
    }
}
