//! Which way every pair of nodes should go: what is measured, what it means, what is planned, when it is done.
//!
//! Plain values and pure functions; the only state lives in [`planner::Planner`], which is fed reports
//! and asked for plans. No input or output, no clock, no chance but its seed. Nodes are dense indices in
//! here; only the planner knows their names.
//!
//! | file | question it answers | takes | gives |
//! |---|---|---|---|
//! | [`matrix`] | who sends how much to whom? | counters, reports | [`matrix::Matrix`], phase changes |
//! | [`meter`] | what flows since the last change? | averages that are told | rates |
//! | [`pattern`] | what does the application look like? | `Matrix` | [`pattern::Pattern`] |
//! | [`resources`] | what does a way use, and how much is there? | [`view::View`] | [`resources::Resource`], capacities |
//! | [`flow`] | what rates come of it? | capacities, flows | max-min fair rates |
//! | [`learn`] | which shared bottleneck have we missed? | predicted and observed rates | capacities |
//! | [`view`] | what does the planner know? | all of the above | [`view::View`] |
//! | [`search`] | which ways would be better? | [`search::Problem`] | a choice for each pair |
//! | [`plan`] | what is worth proposing? | `View` | [`plan::Proposal`] |
//! | [`relief`] | which machine should move to another host? | `View`, loads of hosts | [`relief::Relief`] |
//! | [`gate`] | is it worth doing, and did it deliver? | `Proposal`, measurements | [`decision::Decision`] |
//! | [`report`], [`names`] | what do nodes say, and who are they? | reports | what is kept of them |
//! | [`planner`] | what now? | reports, time | [`planner::Plan`] |
//! | [`fallback`] | and if nobody plans? | what own pairs get | a way to try, or to leave |

pub mod matrix;

pub mod meter;

pub mod pattern;

pub mod resources;

pub mod flow;

pub mod learn;

pub mod view;

pub mod search;

pub mod plan;

pub mod relief;

pub mod decision;

pub mod gate;

pub mod report;

pub mod names;

pub mod planner;

pub mod fallback;

use serde::Serialize;

/// A node's place in the planner's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct NodeIndex(pub u16);

/// Two nodes, in the direction of travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Pair {
    /// Where frames enter the overlay.
    pub from: NodeIndex,
    /// Where they leave it.
    pub to: NodeIndex,
}

impl Pair {
    /// From one node to another.
    pub const fn new(from: NodeIndex, to: NodeIndex) -> Self {
        Self { from, to }
    }

    /// The same two nodes, whichever way: the lower one first.
    pub fn unordered(self) -> Self {
        Self { from: self.from.min(self.to), to: self.from.max(self.to) }
    }

    /// Whether `node` is one of the two.
    pub fn involves(self, node: NodeIndex) -> bool {
        self.from == node || self.to == node
    }
}

/// The way of a pair. More than one relay never helped in what was simulated, so there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// From one to the other.
    Direct,
    /// Through one member or supernode.
    Relay(NodeIndex),
}
