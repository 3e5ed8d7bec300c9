//! The ways that packets take to a peer.

use std::net::SocketAddr;

use super::fdb::PortId;
use super::rules::RuleWay;
use crate::wire::relay::RelayId;

/// A leg of ours at a supernode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LegId(pub u32);

/// How packets reach a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// Straight to this address.
    Direct(SocketAddr),
    /// Over this leg of ours to the peer's leg.
    Relayed(LegId, RelayId),
}

impl Path {
    /// Whether no supernode is on the way.
    pub const fn is_direct(self) -> bool {
        matches!(self, Self::Direct(_))
    }
}

/// Ways to a peer that carry, whichever is in use: static rules choose among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// The best direct one.
    pub direct: Option<Path>,
    /// The best one by a supernode.
    pub supernode: Option<Path>,
    /// By members.
    pub members: Vec<(PortId, Path)>,
}

impl Ways {
    /// The one that a rule wants, if it is there.
    pub fn by(&self, way: RuleWay) -> Option<Path> {
        match way {
            RuleWay::Usual => None,
            RuleWay::Direct => self.direct,
            RuleWay::Supernode => self.supernode,
            RuleWay::Member(member) => self.members.iter().find(|(by, _)| *by == member).map(|(_, path)| *path),
        }
    }
}
