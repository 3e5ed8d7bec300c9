//! All that the planner knows at one moment, and the settings it plans by.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::resources::{Capacities, Resource, Site};
use super::{NodeIndex, Pair, Via};
use crate::time::Time;

/// One node of the overlay, or a supernode that serves it.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeView {
    /// Behind which access link, if that is known.
    pub site: Option<Site>,
    /// A supernode: a candidate for every pair.
    pub is_supernode: bool,
    /// It forwards for others.
    pub relays: bool,
}

/// What is known of an overlay.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Every node, by its index.
    pub nodes: Vec<NodeView>,
    /// What each pair wants, in bytes per second.
    pub demands: BTreeMap<Pair, f64>,
    /// Where each pair goes, if not its usual way.
    pub routes: BTreeMap<Pair, Via>,
    /// What is believed of capacities.
    pub capacities: Capacities,
    /// Pairs (the lower node first) that have no link and cannot get one.
    pub unlinked: BTreeSet<Pair>,
    /// Relays that do not carry a pair, though they could.
    pub refused: BTreeSet<(Pair, NodeIndex)>,
    /// Pairs that must stay where they are until then.
    pub held: BTreeMap<Pair, Time>,
}

impl View {
    /// The site of a node.
    pub fn site(&self, node: NodeIndex) -> Option<Site> {
        self.nodes.get(usize::from(node.0)).and_then(|node| node.site)
    }

    /// Whether frames can go from one to the other at once.
    pub fn has_link(&self, pair: Pair) -> bool {
        !self.unlinked.contains(&pair.unordered())
    }

    /// Where a pair goes: as planned, else directly, else through the first supernode.
    pub fn way(&self, pair: Pair) -> Via {
        self.routes.get(&pair).copied().unwrap_or_else(|| self.usual_way(pair))
    }

    /// Where a pair goes without a plan.
    pub fn usual_way(&self, pair: Pair) -> Via {
        let supernode = || self.indexed().find(|(_, node)| node.is_supernode).map(|(index, _)| Via::Relay(index));
        if self.has_link(pair) { Via::Direct } else { supernode().unwrap_or(Via::Direct) }
    }

    /// Whether `relay` can carry this pair.
    pub fn can_relay(&self, pair: Pair, relay: NodeIndex) -> bool {
        let node = self.nodes.get(usize::from(relay.0));
        node.is_some_and(|node| node.relays || node.is_supernode)
            && !pair.involves(relay)
            && !self.refused.contains(&(pair, relay))
            && self.has_link(Pair::new(pair.from, relay))
            && self.has_link(Pair::new(relay, pair.to))
    }

    /// Every node with its index.
    pub fn indexed(&self) -> impl Iterator<Item = (NodeIndex, &NodeView)> {
        (0..u16::MAX).map(NodeIndex).zip(&self.nodes)
    }

    /// The least capacity on a way, for a pair that is alone on it.
    pub fn width(&self, pair: Pair, via: Via) -> f64 {
        let crossed = super::resources::uses(self, pair, via);
        let times = |resource: &Resource| crossed.iter().filter(|other| *other == resource).count() as f64;
        crossed.iter().map(|resource| self.capacities.of(*resource) / times(resource)).fold(f64::INFINITY, f64::min)
    }
}

/// The planner's settings (their defaults were simulated).
#[derive(Clone, Debug)]
pub struct Config {
    /// Time between two looks at the whole.
    pub epoch: Duration,
    /// A plan must promise this much more where little is certain; less is enough where it is.
    pub gain_min: f64,
    /// Pairs that are planned for: the greatest.
    pub pairs_max: usize,
    /// Member relays considered for each pair.
    pub relays_max: usize,
    /// What a member forwards for others, as a share of what it can send.
    pub relay_share: f64,
    /// A supernode serves many: nobody is sent there to find out what it can do, unless there is no other way.
    pub spares_supernodes: bool,
    /// Pairs moved in one epoch.
    pub changes_max: usize,
    /// Decides between what is equal.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            epoch: Duration::from_secs(2),
            gain_min: 0.15,
            pairs_max: 256,
            relays_max: 8,
            relay_share: 0.5,
            spares_supernodes: false,
            changes_max: 16,
            seed: 0,
        }
    }
}
