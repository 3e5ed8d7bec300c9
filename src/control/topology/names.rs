//! Who is who: the names of nodes, and their dense indices.

use std::collections::BTreeMap;

use super::NodeIndex;
use super::view::NodeView;
use crate::keys::NodeId;

/// Most nodes planned for: as many as a supernode takes members, and the supernodes.
const NODES_MAX: usize = 4_096;

/// The nodes of an overlay. A place that was left is taken by the next that comes.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    index: BTreeMap<NodeId, NodeIndex>,
    nodes: Vec<(Option<NodeId>, NodeView)>,
}

impl Names {
    /// Adds a node, or says more about one; false if there is no room.
    pub(super) fn put(&mut self, id: NodeId, view: NodeView) -> bool {
        let free = || self.nodes.iter().position(|(id, _)| id.is_none()).unwrap_or(self.nodes.len());
        let place = self.index.get(&id).map_or_else(free, |index| usize::from(index.0));
        let Some(index) = u16::try_from(place).ok().filter(|_| place < NODES_MAX) else { return false };
        if place == self.nodes.len() {
            self.nodes.push((None, NodeView::default()));
        }
        self.nodes[place] = (Some(id), view);
        self.index.insert(id, NodeIndex(index));
        true
    }

    /// Takes a node out; its place is free.
    pub(super) fn remove(&mut self, id: NodeId) -> Option<NodeIndex> {
        let index = self.index.remove(&id)?;
        self.nodes[usize::from(index.0)] = (None, NodeView::default());
        Some(index)
    }

    /// The place of a node.
    pub(super) fn index(&self, id: NodeId) -> Option<NodeIndex> {
        self.index.get(&id).copied()
    }

    /// Who has this place.
    pub(super) fn id(&self, index: NodeIndex) -> Option<NodeId> {
        self.nodes.get(usize::from(index.0)).and_then(|(id, _)| *id)
    }

    /// Says whether a node forwards for others.
    pub(super) fn set_relays(&mut self, index: NodeIndex, relays: bool) {
        if let Some((_, node)) = self.nodes.get_mut(usize::from(index.0)) {
            node.relays = relays;
        }
    }

    /// All places.
    pub(super) fn views(&self) -> Vec<NodeView> {
        self.nodes.iter().map(|(_, view)| *view).collect()
    }
}
