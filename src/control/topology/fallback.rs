//! When the home supernode is silent: a node moves its own worst pair, now and then.
//!
//! If all nodes did so at each epoch they would chase each other; a quarter at a time settles.

use rand_chacha::rand_core::RngCore;

use super::plan::{compile, shares};
use super::view::{Config, View};
use super::{NodeIndex, Pair, Via};
use crate::time::Time;

/// A node acts in one of so many epochs.
const TURNS: u32 = 4;

/// The one move of the node `me` in this epoch, if it is its turn and something gains enough.
pub fn fallback(view: &View, config: &Config, me: NodeIndex, now: Time, rng: &mut impl RngCore) -> Option<(Pair, Via)> {
    if !rng.next_u32().is_multiple_of(TURNS) {
        return None;
    }
    let problem = compile(view, config, now);
    let mut assignment = vec![0; problem.pairs.len()];
    let before = shares(&problem, &assignment);
    let mine = (0..problem.pairs.len()).filter(|number| problem.pairs[*number].from == me);
    let worst = mine.min_by(|one, other| before[*one].total_cmp(&before[*other]))?;
    let mut best = (before[worst] * (1.0 + config.gain_min), None);
    for choice in 1..problem.choices[worst].len() {
        assignment[worst] = choice;
        let share = shares(&problem, &assignment)[worst];
        if share >= best.0 {
            best = (share, Some(problem.choices[worst][choice].via));
        }
    }
    best.1.map(|via| (problem.pairs[worst], via))
}
