//! Which members are at one site: those that say so, else those behind one public address.
//!
//! A name that its user gave counts for more than an address: behind a carrier's NAT strangers share one, and a large
//! site has several. The supernode learns no name, only who has the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::control::customer::customer;
use crate::control::topology::resources::Site;
use crate::keys::NodeId;
use crate::wire::plan::SiteTag;

/// What members of one site have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    Named(SiteTag),
    Seen(IpAddr),
}

/// The sites of an overlay, numbered as they are met; at most as many as there are numbers.
#[derive(Debug, Default)]
pub(super) struct Sites {
    named: BTreeMap<NodeId, SiteTag>,
    numbers: BTreeMap<Mark, Site>,
}

impl Sites {
    /// A member names its site, or no longer does; whether that is news.
    pub(super) fn name(&mut self, node: NodeId, tag: Option<SiteTag>) -> bool {
        match tag {
            Some(tag) => self.named.insert(node, tag) != Some(tag),
            None => self.named.remove(&node).is_some(),
        }
    }

    /// A member is gone.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.named.remove(&node);
    }

    /// What it has in common with the others of its site, if it is seen at this address.
    pub(super) fn mark(&self, node: NodeId, seen: IpAddr) -> Mark {
        self.named.get(&node).map_or_else(|| Mark::Seen(customer(seen)), |tag| Mark::Named(*tag))
    }

    /// Where there is more than one of these members.
    pub(super) fn shared(&self, members: impl Iterator<Item = (NodeId, IpAddr)>) -> BTreeSet<Mark> {
        let mut met = BTreeSet::new();
        members.map(|(node, seen)| self.mark(node, seen)).filter(|mark| !met.insert(*mark)).collect()
    }

    /// Where a member is that is seen at this address.
    pub(super) fn of(&mut self, node: NodeId, seen: IpAddr) -> Option<Site> {
        let mark = self.mark(node, seen);
        let next = u16::try_from(self.numbers.len()).ok().map(Site);
        let site = self.numbers.get(&mark).copied().or(next)?;
        self.numbers.insert(mark, site);
        Some(site)
    }

    /// The same in words.
    pub(super) fn called(&self, node: NodeId, seen: IpAddr) -> String {
        self.mark(node, seen).text()
    }

    /// A site in words.
    pub(super) fn text(&self, site: Site) -> String {
        let mark = self.numbers.iter().find(|(_, known)| **known == site);
        mark.map_or_else(|| site.0.to_string(), |(mark, _)| mark.text())
    }
}

impl Mark {
    fn text(self) -> String {
        match self {
            Self::Named(SiteTag([a, b, c, d, ..])) => format!("named #{a:02x}{b:02x}{c:02x}{d:02x}"),
            Self::Seen(ip) => ip.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [NodeId; 3] = [NodeId([1; 32]), NodeId([2; 32]), NodeId([3; 32])];

    #[test]
    fn a_name_counts_for_more_than_an_address() {
        let mut sites = Sites::default();
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        assert_eq!(sites.of(NODES[0], one), sites.of(NODES[1], one));
        assert_ne!(sites.of(NODES[0], one), sites.of(NODES[2], other));

        assert!(sites.name(NODES[0], Some(SiteTag([7; 8]))) && sites.name(NODES[2], Some(SiteTag([7; 8]))));
        assert!(!sites.name(NODES[0], Some(SiteTag([7; 8]))), "that is no news");
        assert_eq!(sites.of(NODES[0], one), sites.of(NODES[2], other));
        assert_ne!(sites.of(NODES[0], one), sites.of(NODES[1], one), "behind a carrier's NAT");

        assert!(sites.name(NODES[0], None));
        assert_eq!(sites.of(NODES[0], one), sites.of(NODES[1], one));
    }

    #[test]
    fn strangers_behind_one_address_that_name_their_sites_share_none() {
        let mut sites = Sites::default();
        let seen = IpAddr::from([192, 0, 2, 1]);
        let members = || NODES.iter().map(|node| (*node, seen));
        assert_eq!(sites.shared(members()).len(), 1, "one address, one site");
        assert!(sites.shared(members().take(1)).is_empty());
        NODES.iter().zip(1..).for_each(|(node, tag)| assert!(sites.name(*node, Some(SiteTag([tag; 8])))));
        assert!(sites.shared(members()).is_empty());
        assert!(sites.name(NODES[2], Some(SiteTag([1; 8]))));
        assert_eq!(sites.shared(members()), BTreeSet::from([sites.mark(NODES[0], seen)]));
    }
}
