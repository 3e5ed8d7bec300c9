//! Which members are at one site: those that say so, else those behind one public address.
//!
//! A name that its user gave counts for more than an address: behind a carrier's NAT strangers share one, and a large
//! site has several. The supernode learns no name, only who has the same one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
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

/// Sites that keep their number though nobody is there: what was learnt of the links of a site counts when its only member
/// comes back, as after a restart.
const VACANT_MAX: usize = 64;

/// The sites of an overlay, by numbers that are used again: there are [`VACANT_MAX`] more of them than members at most.
#[derive(Debug, Default)]
pub(super) struct Sites {
    named: BTreeMap<NodeId, SiteTag>,
    numbers: BTreeMap<Mark, Site>,
    /// Numbers that were given back.
    spare: BTreeSet<Site>,
    /// Where each member was put.
    at: BTreeMap<NodeId, Mark>,
    /// Sites where nobody is, the one that was left first in front.
    vacant: VecDeque<Mark>,
}

impl Sites {
    /// A member names its site, or no longer does; whether that is news.
    pub(super) fn name(&mut self, node: NodeId, tag: Option<SiteTag>) -> bool {
        match tag {
            Some(tag) => self.named.insert(node, tag) != Some(tag),
            None => self.named.remove(&node).is_some(),
        }
    }

    /// A member is gone. Gives a site whose number is free now.
    pub(super) fn forget(&mut self, node: NodeId) -> Option<Site> {
        self.named.remove(&node);
        let mark = self.at.remove(&node)?;
        self.leave(mark)
    }

    /// Somebody left a site.
    fn leave(&mut self, mark: Mark) -> Option<Site> {
        if self.at.values().any(|other| *other == mark) {
            return None;
        }
        self.vacant.push_back(mark);
        if self.vacant.len() <= VACANT_MAX {
            return None;
        }
        let longest = self.vacant.pop_front()?;
        let freed = self.numbers.remove(&longest)?;
        self.spare.insert(freed);
        Some(freed)
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

    /// Puts a member, which is seen at this address, where it is. Gives its site, and one whose number is free now.
    pub(super) fn put(&mut self, node: NodeId, seen: IpAddr) -> (Option<Site>, Option<Site>) {
        let mark = self.mark(node, seen);
        self.vacant.retain(|vacant| *vacant != mark);
        let before = self.at.insert(node, mark).filter(|before| *before != mark);
        let freed = before.and_then(|before| self.leave(before));
        let next = || u16::try_from(self.numbers.len()).ok().map(Site);
        let site = self.numbers.get(&mark).copied().or_else(|| self.spare.pop_first()).or_else(next);
        self.numbers.extend(site.map(|site| (mark, site)));
        (site, freed)
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
        let of = |sites: &mut Sites, node: usize, seen| sites.put(NODES[node], seen).0;
        assert_eq!(of(&mut sites, 0, one), of(&mut sites, 1, one));
        assert_ne!(of(&mut sites, 0, one), of(&mut sites, 2, other));

        assert!(sites.name(NODES[0], Some(SiteTag([7; 8]))) && sites.name(NODES[2], Some(SiteTag([7; 8]))));
        assert!(!sites.name(NODES[0], Some(SiteTag([7; 8]))), "that is no news");
        assert_eq!(of(&mut sites, 0, one), of(&mut sites, 2, other));
        assert_ne!(of(&mut sites, 0, one), of(&mut sites, 1, one), "behind a carrier's NAT");

        assert!(sites.name(NODES[0], None));
        assert_eq!(of(&mut sites, 0, one), of(&mut sites, 1, one));
    }

    #[test]
    fn a_number_is_kept_while_somebody_is_there_or_may_come_back_soon_and_used_again_then() {
        let mut sites = Sites::default();
        let seen = |last: usize| IpAddr::from([192, 0, 2, u8::try_from(last).expect("small")]);
        assert_eq!(sites.put(NODES[0], seen(0)), (Some(Site(0)), None));
        assert_eq!(sites.put(NODES[1], seen(0)), (Some(Site(0)), None));
        assert_eq!((sites.forget(NODES[0]), sites.forget(NODES[1])), (None, None));
        assert_eq!(sites.put(NODES[1], seen(0)), (Some(Site(0)), None), "it has restarted");

        assert_eq!(sites.put(NODES[2], seen(1)), (Some(Site(1)), None));
        let moves = (2..=200).map(|last| sites.put(NODES[2], seen(last))).collect::<Vec<_>>();
        let newest = moves.iter().filter_map(|(site, _)| *site).max();
        assert_eq!(newest, Some(Site(u16::try_from(VACANT_MAX).expect("small") + 1)), "one is there, and two are");
        assert!(moves[..VACANT_MAX].iter().all(|(_, freed)| freed.is_none()));
        assert_eq!(moves[VACANT_MAX].1, Some(Site(1)), "the one that was left first");
        assert_eq!(sites.put(NODES[1], seen(0)).0, Some(Site(0)), "somebody is there");
        assert!(sites.numbers.len() <= VACANT_MAX + 2 && sites.vacant.len() <= VACANT_MAX);
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
