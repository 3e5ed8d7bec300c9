//! The planner asked which machine should move.

use std::collections::BTreeMap;

use super::Planner;
use crate::control::topology::NodeIndex;
use crate::control::topology::matrix::Rates;
use crate::control::topology::relief::relieve;
use crate::control::topology::resources::Resource;
use crate::keys::NodeId;
use crate::time::Time;

/// A machine of one host should move to another one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Advice {
    /// What is relieved.
    pub bottleneck: Resource,
    /// The host that has the machine.
    pub host: NodeId,
    /// The host it talks to.
    pub partner: NodeId,
    /// Where it should go.
    pub target: NodeId,
    /// How many times the rate that promises.
    pub gain: f64,
}

impl Planner {
    /// The move that promises most, if the network holds anything back. `hosts` may take machines; each with its load
    /// in percent, if that is known.
    pub fn advise(&mut self, now: Time, hosts: &BTreeMap<NodeId, Option<u8>>) -> Option<Advice> {
        self.expire(now);
        if !self.holds_back() {
            return None;
        }
        let view = self.view(now);
        let index = |(node, load): (&NodeId, &Option<u8>)| Some((self.names.index(*node)?, *load));
        let hosts = hosts.iter().filter_map(index).collect();
        let found = relieve(&view, &self.config, now, &hosts)?;
        let id = |node: NodeIndex| self.names.id(node);
        let (host, partner, target) = (id(found.host)?, id(found.partner)?, id(found.target)?);
        Some(Advice { bottleneck: found.bottleneck, host, partner, target, gain: found.gain })
    }

    /// Whether the network holds anything back, by what its members say.
    pub fn holds_back(&self) -> bool {
        !self.limited.is_empty()
    }

    /// Every pair with what it sends, by the nodes' names.
    pub fn rates(&self) -> impl Iterator<Item = (NodeId, NodeId, Rates)> + '_ {
        let named =
            |(pair, rates): (super::Pair, Rates)| Some((self.names.id(pair.from)?, self.names.id(pair.to)?, rates));
        self.matrix.iter().filter_map(named)
    }

    /// Who has this place in a resource.
    pub fn name_of(&self, node: NodeIndex) -> Option<NodeId> {
        self.names.id(node)
    }
}
