//! What a way uses, and how much of it there is.
//!
//! A plan that knows only the capacity of pairs overloads what they share: hosts of a site share its
//! access link and its trunks. So every way is charged to all that it crosses.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::view::View;
use super::{NodeIndex, Pair, Via};

/// A group of nodes behind one access link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Site(pub u16);

/// Something of limited capacity that traffic crosses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resource {
    /// From one site to another.
    Trunk(Site, Site),
    /// Out of a site.
    SiteOut(Site),
    /// Into a site.
    SiteIn(Site),
    /// What a node sends.
    NodeOut(NodeIndex),
    /// What a node receives.
    NodeIn(NodeIndex),
    /// What a node forwards for others.
    Relay(NodeIndex),
    /// The underlay between two nodes, one way.
    Path(Pair),
}

impl Resource {
    /// Whether it is a node's own.
    pub fn is_about(self, node: NodeIndex) -> bool {
        match self {
            Self::NodeOut(of) | Self::NodeIn(of) | Self::Relay(of) => of == node,
            Self::Path(pair) => pair.involves(node),
            Self::Trunk(..) | Self::SiteOut(_) | Self::SiteIn(_) => false,
        }
    }

    /// Whether it is a link of a site.
    pub fn is_of(self, site: Site) -> bool {
        match self {
            Self::Trunk(from, to) => from == site || to == site,
            Self::SiteOut(of) | Self::SiteIn(of) => of == site,
            Self::NodeOut(_) | Self::NodeIn(_) | Self::Relay(_) | Self::Path(_) => false,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trunk(from, to) => write!(f, "trunk from site {} to {}", from.0, to.0),
            Self::SiteOut(site) => write!(f, "out of site {}", site.0),
            Self::SiteIn(site) => write!(f, "into site {}", site.0),
            Self::NodeOut(node) => write!(f, "out of node {}", node.0),
            Self::NodeIn(node) => write!(f, "into node {}", node.0),
            Self::Relay(node) => write!(f, "relaying at node {}", node.0),
            Self::Path(pair) => write!(f, "path from node {} to {}", pair.from.0, pair.to.0),
        }
    }
}

/// What is known of capacities, in bytes per second. What is not known counts as unlimited.
#[derive(Clone, Debug, Default)]
pub struct Capacities(BTreeMap<Resource, f64>);

impl Capacities {
    /// The capacity; infinite if nothing is known.
    pub fn of(&self, resource: Resource) -> f64 {
        self.0.get(&resource).copied().unwrap_or(f64::INFINITY)
    }

    /// Notes a capacity. Nonsense is taken as "not known".
    pub fn set(&mut self, resource: Resource, capacity: f64) {
        if capacity.is_finite() && capacity >= 0.0 {
            self.0.insert(resource, capacity);
        } else {
            self.0.remove(&resource);
        }
    }

    /// Keeps the lower of what is known and this.
    pub fn limit(&mut self, resource: Resource, capacity: f64) {
        self.set(resource, capacity.min(self.of(resource)));
    }

    /// Everything known.
    pub fn iter(&self) -> impl Iterator<Item = (Resource, f64)> + '_ {
        self.0.iter().map(|(resource, capacity)| (*resource, *capacity))
    }
}

/// Every resource that a pair crosses on this way; one that is crossed twice stands there twice.
pub fn uses(view: &View, pair: Pair, via: Via) -> Vec<Resource> {
    let mut crossed = Vec::with_capacity(12);
    match via {
        Via::Direct => cross(view, pair, &mut crossed),
        Via::Relay(relay) => {
            cross(view, Pair::new(pair.from, relay), &mut crossed);
            crossed.push(Resource::Relay(relay));
            cross(view, Pair::new(relay, pair.to), &mut crossed);
        }
    }
    crossed
}

/// One hop. A node without a site is a site of its own: its own link stands for it.
fn cross(view: &View, hop: Pair, crossed: &mut Vec<Resource>) {
    crossed.extend([Resource::NodeOut(hop.from), Resource::NodeIn(hop.to), Resource::Path(hop)]);
    let (from, to) = (view.site(hop.from), view.site(hop.to));
    if from.is_some() && from == to {
        return;
    }
    crossed.extend(from.map(Resource::SiteOut));
    crossed.extend(to.map(Resource::SiteIn));
    if let (Some(from), Some(to)) = (from, to) {
        crossed.push(Resource::Trunk(from, to));
    }
}
