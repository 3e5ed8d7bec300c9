//! Networks with a known optimum, from `sites.json` and `inet.json` (their heads say how they were made).

use std::collections::{BTreeMap, BTreeSet};

use longwire::control::topology::resources::{Capacities, Resource, Site};
use longwire::control::topology::view::{NodeView, View};
use longwire::control::topology::{NodeIndex, Pair};
use serde::Deserialize;

/// What is not limited by anything else in the `sites` networks, in Mbit/s.
const WIRE: f64 = 1000.0;

/// One file.
#[derive(Deserialize)]
struct File {
    networks: Vec<Network>,
}

/// One network and what is sent over it.
#[derive(Clone, Deserialize)]
pub(crate) struct Network {
    /// Its number.
    pub(crate) seed: u64,
    n: u16,
    trunks: Option<Vec<Vec<f64>>>,
    out: Option<Vec<f64>>,
    #[serde(rename = "in")]
    into: Option<Vec<f64>>,
    paths: Option<Vec<Vec<f64>>>,
    #[serde(default)]
    blocked: Vec<(u16, u16)>,
    /// The patterns of traffic.
    pub(crate) cases: Vec<Case>,
}

/// One pattern of traffic, and the best that can be done for it.
#[derive(Clone, Deserialize)]
pub(crate) struct Case {
    /// Its name.
    pub(crate) pattern: String,
    demands: Vec<(u16, u16, f64)>,
    /// The greatest least rate/demand that was found.
    pub(crate) found: f64,
    /// What was proved that it cannot be more than.
    pub(crate) bound: f64,
}

/// All networks of a kind.
pub(crate) fn networks(kind: &str) -> Vec<Network> {
    let text = match kind {
        "sites" => include_str!("sites.json"),
        _ => include_str!("inet.json"),
    };
    serde_json::from_str::<File>(text).expect("a fixture").networks
}

impl Network {
    /// What a planner sees that knows everything. The supernode is the last node.
    pub(crate) fn view(&self) -> View {
        let sites = self.trunks.as_ref().map(|trunks| trunks.len() as u16);
        let node = |index: u16| NodeView {
            site: sites.filter(|_| index < self.n).map(|sites| Site(index % sites)),
            is_supernode: index == self.n,
            relays: index < self.n,
        };
        let nodes = (0..=self.n).map(node).collect();
        let unlinked = self.blocked.iter().map(|(a, b)| Pair::new(NodeIndex(*a), NodeIndex(*b)).unordered());
        let unlinked = unlinked.collect::<BTreeSet<_>>();
        View { nodes, capacities: self.capacities(), unlinked, ..View::default() }
    }

    fn capacities(&self) -> Capacities {
        let mut capacities = Capacities::default();
        let of = |table: &Option<Vec<f64>>, node: u16| table.as_ref().map_or(WIRE, |table| table[usize::from(node)]);
        for node in 0..=self.n {
            capacities.set(Resource::NodeOut(NodeIndex(node)), of(&self.out, node));
            capacities.set(Resource::NodeIn(NodeIndex(node)), of(&self.into, node));
        }
        for (from, row) in self.paths.iter().flatten().enumerate() {
            for (to, capacity) in row.iter().enumerate().filter(|(to, _)| *to != from) {
                let pair = Pair::new(NodeIndex(from as u16), NodeIndex(to as u16));
                capacities.set(Resource::Path(pair), *capacity);
            }
        }
        for (from, row) in self.trunks.iter().flatten().enumerate() {
            let from = Site(from as u16);
            capacities.set(Resource::SiteOut(from), WIRE);
            capacities.set(Resource::SiteIn(from), WIRE);
            for (to, capacity) in row.iter().enumerate().filter(|(to, _)| *to != usize::from(from.0)) {
                capacities.set(Resource::Trunk(from, Site(to as u16)), *capacity);
            }
        }
        capacities
    }
}

impl Case {
    /// What each pair wants.
    pub(crate) fn demands(&self) -> BTreeMap<Pair, f64> {
        self.demands.iter().map(|(from, to, weight)| (Pair::new(NodeIndex(*from), NodeIndex(*to)), *weight)).collect()
    }
}
