//! The planner's nodes come and go: what is kept of those that left, and what of others hung on them.
//!
//! Who leaves takes along what is about itself. What is tried, confirmed or carried out for others goes on: a node that
//! comes and goes every few seconds must not keep a whole overlay from its plans.

use std::time::Duration;

use super::{Planner, SOON, Trial};
use crate::control::topology::resources::Site;
use crate::control::topology::view::NodeView;
use crate::control::topology::{NodeIndex, Pair, Via};
use crate::keys::NodeId;
use crate::time::Time;

/// Nobody is sent again by a relay that left others behind, for so long: as long as after a plan that was taken back.
const REST: Duration = Duration::from_secs(60);

impl Trial {
    /// What still can be judged, and taken back, when a node is gone.
    fn without(mut self, gone: NodeIndex) -> Option<Self> {
        self.undo.retain(|pair, before| !pair.involves(gone) && *before != Via::Relay(gone));
        self.before.retain(|pair, _| !pair.involves(gone));
        (!self.undo.is_empty()).then_some(self)
    }
}

impl Planner {
    /// A member or supernode is there, or more is known of it; false if there is no room.
    pub fn put_node(&mut self, id: NodeId, node: NodeView) -> bool {
        self.names.put(id, node)
    }

    /// Whether a node may forward for others: it says so, and has not left any behind of late.
    pub fn relays(&self, id: NodeId) -> bool {
        self.names.index(id).is_some_and(|index| self.names.views()[usize::from(index.0)].relays)
    }

    /// Whether nobody is to be sent by this node just now.
    pub(super) fn rests(&self, now: Time, id: NodeId) -> bool {
        self.resting.get(&id).is_some_and(|until| now < *until)
    }

    /// A node is gone, and all that was known of it.
    pub fn remove_node(&mut self, now: Time, id: NodeId) {
        let Some(gone) = self.names.remove(id) else { return };
        self.matrix.remove(gone);
        self.claims.remove(gone);
        self.learnt.retain(|resource| !resource.is_about(gone));
        self.gate.remove(gone);
        self.courses.remove(gone);
        self.orphans.retain(|pair| !pair.involves(gone));
        self.sent.retain(|pair, _| !pair.involves(gone));
        self.arrivals.retain(|pair, _| !pair.involves(gone));
        self.phases.iter_mut().for_each(|phase| phase.retain(|pair, _| !pair.involves(gone)));
        self.limited.retain(|pair| !pair.involves(gone));
        self.unqueued.retain(|pair, _| !pair.involves(gone));
        self.appetites.retain(|pair, _| !pair.involves(gone));
        self.unlinked.retain(|pair| !pair.involves(gone));
        let concerns = |pair: Pair, via: Via| pair.involves(gone) || via == Via::Relay(gone);
        self.queue.retain(|(pair, via)| !concerns(*pair, *via));
        self.routes.retain(|pair, _| !pair.involves(gone));
        self.trial = self.trial.take().and_then(|trial| trial.without(gone));
        if self.queue.is_empty() && self.doing.take().is_some() {
            self.begin_trial(now);
        }
        self.orphan(now, id, gone);
    }

    /// Nobody is at a site any more: what was learnt of its links is not true of the next one with its number.
    pub fn forget_site(&mut self, gone: Site) {
        self.learnt.retain(|resource| !resource.is_of(gone));
    }

    /// Others that went by a node are told of their usual way; nobody may take its place in the tables before.
    fn orphan(&mut self, now: Time, id: NodeId, gone: NodeIndex) {
        let left = self.routes.iter().filter(|(_, via)| **via == Via::Relay(gone)).map(|(pair, _)| *pair);
        let left = left.collect::<Vec<_>>();
        if !left.is_empty() {
            self.resting.insert(id, now + REST);
        }
        for pair in left {
            self.routes.remove(&pair);
            self.orphans.insert(pair);
        }
        if !self.orphans.is_empty() {
            self.deadline = self.deadline.min(now + SOON);
        }
    }
}
