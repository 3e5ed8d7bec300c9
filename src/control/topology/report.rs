//! What a node reports to the planner, and what is kept of it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::matrix::{Rates, STALE_AFTER};
use super::resources::{Capacities, Resource};
use super::{NodeIndex, Pair};
use crate::keys::NodeId;
use crate::time::Time;

/// Most peers believed of one report: the hard limit of links of a node.
pub const PEERS_MAX: usize = 256;
/// Claims kept: a capacity each way for as many pairs as a full matrix of 256 nodes has.
const CLAIMS_MAX: usize = 131_072;
/// The capacity of a way that nobody takes is believed for so long; then it is tried again.
const UNUSED_LIFE: Duration = Duration::from_secs(120);
/// Weight of a new sample in the average of a capacity.
const WEIGHT: f64 = 0.25;
/// Weight of a new sample in the average of the deviation.
const SLOWLY: f64 = 1.0 / 64.0;
/// One sample counts as no more than this factor (as a logarithm) off: nobody makes all others look noisy.
const OFF_MAX: f64 = 0.5;

/// What one node says of itself and its peers.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What it can send, in bytes per second, if it knows.
    pub sends: Option<f64>,
    /// What it can receive.
    pub receives: Option<f64>,
    /// It forwards for others.
    pub relays: bool,
    /// What it forwards at most, if it said: what it guarantees to its own is not for others.
    pub spare: Option<f64>,
    /// Its peers, the busiest first.
    pub peers: Vec<PeerReport>,
}

/// What one node says of one peer.
#[derive(Clone, Debug)]
pub struct PeerReport {
    /// Whom it is about.
    pub peer: NodeId,
    /// What is offered for the peer, in bytes per second.
    pub offered: Rates,
    /// What of the peer's traffic arrives here, whichever way it came.
    pub arrives: f64,
    /// The network held traffic to the peer back, or what came from it: a round trip does not tell.
    pub is_limited: bool,
    /// What comes from the peer waits in a full queue on its way, if that is known.
    pub is_queued: Option<bool>,
    /// Capacity towards the peer, if known.
    pub capacity_to: Option<f64>,
    /// Capacity from the peer, if known.
    pub capacity_from: Option<f64>,
    /// There is a direct link, or there can be.
    pub has_link: bool,
    /// Which way the traffic to it goes, if that is said; of no use where it goes by somebody unknown.
    pub goes: Option<Goes>,
}

impl PeerReport {
    /// Of a peer with which nothing flows.
    pub fn silent(peer: NodeId) -> Self {
        Self {
            peer,
            offered: Rates::default(),
            arrives: 0.0,
            is_limited: false,
            is_queued: None,
            capacity_to: None,
            capacity_from: None,
            has_link: true,
            goes: None,
        }
    }
}

/// The way that traffic goes.
#[derive(Clone, Copy, Debug)]
pub struct Goes {
    /// The relay; none for the direct way.
    pub via: Option<NodeId>,
    /// How long it has gone there.
    pub span: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    smooth: f64,
    said: Time,
}

/// Capacities as their nodes claim them, averaged. Of two claims about one thing the lower holds.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    claims: BTreeMap<(Resource, NodeIndex), Claim>,
    /// What nodes forward at most, as their users said: no measurement, so it does not age.
    spare: BTreeMap<NodeIndex, f64>,
    variance: f64,
    refused: u64,
}

impl Claims {
    /// Notes what a node says of a resource; silence and nonsense are "not known".
    pub fn say(&mut self, now: Time, resource: Resource, by: NodeIndex, capacity: Option<f64>) {
        let Some(capacity) = capacity.filter(|capacity| capacity.is_finite() && *capacity > 0.0) else { return };
        if let Some(claim) = self.claims.get_mut(&(resource, by)) {
            let off = (capacity / claim.smooth).ln().clamp(-OFF_MAX, OFF_MAX);
            self.variance += (off * off - self.variance) * SLOWLY;
            claim.smooth += (capacity - claim.smooth) * WEIGHT;
            claim.said = now;
        } else if self.claims.len() < CLAIMS_MAX {
            self.claims.insert((resource, by), Claim { smooth: capacity, said: now });
        } else {
            self.refused += 1;
        }
    }

    /// Forgets what was not said again: soon of what is in use, late of what tells nothing of itself meanwhile.
    pub fn expire(&mut self, now: Time, is_used: impl Fn(&Resource) -> bool) {
        let life = |resource: &Resource| if is_used(resource) { STALE_AFTER } else { UNUSED_LIFE };
        self.claims.retain(|(resource, _), claim| now.since(claim.said) <= life(resource));
    }

    /// Forgets what a node said, and what was said of it.
    pub fn remove(&mut self, node: NodeIndex) {
        self.claims.retain(|(resource, by), _| *by != node && !resource.is_about(node));
        self.spare.remove(&node);
    }

    /// What the claims come to; a node that relays gives `relay_share` of what it sends.
    pub fn capacities(&self, relay_share: f64) -> Capacities {
        let mut capacities = Capacities::default();
        for ((resource, _), claim) in &self.claims {
            capacities.limit(*resource, claim.smooth);
            if let Resource::NodeOut(node) = resource {
                capacities.limit(Resource::Relay(*node), claim.smooth * relay_share);
            }
        }
        for (node, spare) in &self.spare {
            capacities.limit(Resource::Relay(*node), *spare);
        }
        capacities
    }

    /// By which share the averages deviate: of an average with this weight, from what single samples do.
    pub fn deviation(&self) -> f64 {
        (self.variance * WEIGHT / (2.0 - WEIGHT)).sqrt()
    }

    /// By which share single samples deviate.
    pub fn noise(&self) -> f64 {
        self.variance.sqrt()
    }

    /// Claims there was no room for.
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// Notes everything that a report says of capacities.
    pub fn report(&mut self, now: Time, by: NodeIndex, report: &Report, peers: &[(NodeIndex, &PeerReport)]) {
        self.say(now, Resource::NodeOut(by), by, report.sends);
        self.say(now, Resource::NodeIn(by), by, report.receives);
        match report.spare.filter(|spare| spare.is_finite() && *spare >= 0.0) {
            Some(spare) => self.spare.insert(by, spare),
            None => self.spare.remove(&by),
        };
        for (peer, said) in peers {
            self.say(now, Resource::Path(Pair::new(by, *peer)), by, said.capacity_to);
            self.say(now, Resource::Path(Pair::new(*peer, by)), by, said.capacity_from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_guarantees_to_its_own_is_not_for_others_as_long_as_it_says_so() {
        let (node, relay_share) = (NodeIndex(0), 0.5);
        let at = |seconds| Time::START + Duration::from_secs(seconds);
        let report = |spare| Report { sends: Some(100.0), relays: true, spare, ..Report::default() };
        let mut claims = Claims::default();
        claims.report(at(0), node, &report(Some(10.0)), &[]);
        assert_eq!(claims.capacities(relay_share).of(Resource::Relay(node)), 10.0);
        claims.expire(at(600), |_| true);
        assert_eq!(claims.capacities(relay_share).of(Resource::Relay(node)), 10.0, "it has said nothing else since");
        claims.report(at(601), node, &report(None), &[]);
        assert_eq!(claims.capacities(relay_share).of(Resource::Relay(node)), 50.0);
    }
}
