//! Who shares an access link: configured, or the same public address and a short round trip.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::NodeIndex;
use super::resources::Site;

/// Behind one carrier's NAT there are many sites; on one LAN a round trip is shorter than this.
const NEAR: Duration = Duration::from_millis(2);
/// Bytes of an IPv6 address that a site has in common (a /48).
const PREFIX: usize = 6;

/// What tells where a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// Its configuration names the site.
    Named(String),
    /// It is seen at this public address.
    SeenAt(IpAddr),
    /// Nothing is known.
    Unknown,
}

/// The site of each node, where it is known. `rtt` is what both ends agree on: the longer of two claims.
pub fn sites(
    nodes: &BTreeMap<NodeIndex, Whereabouts>,
    rtt: impl Fn(NodeIndex, NodeIndex) -> Option<Duration>,
) -> BTreeMap<NodeIndex, Site> {
    let mut groups: Vec<(&Whereabouts, Vec<NodeIndex>)> = Vec::new();
    for (node, here) in nodes.iter().filter(|(_, here)| **here != Whereabouts::Unknown) {
        let is_near = |other: &NodeIndex| rtt(*node, *other).is_some_and(|rtt| rtt < NEAR);
        let is_same = |(there, members): &&mut (&Whereabouts, Vec<NodeIndex>)| match (here, *there) {
            (Whereabouts::Named(here), Whereabouts::Named(there)) => here == there,
            (Whereabouts::SeenAt(here), Whereabouts::SeenAt(there)) => {
                share_prefix(*here, *there) && members.iter().all(is_near)
            }
            _ => false,
        };
        match groups.iter_mut().find(is_same) {
            Some((_, members)) => members.push(*node),
            None => groups.push((here, vec![*node])),
        }
    }
    let numbered = (0..u16::MAX).map(Site).zip(groups);
    numbered.flat_map(|(site, (_, members))| members.into_iter().map(move |node| (node, site))).collect()
}

fn share_prefix(one: IpAddr, other: IpAddr) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => one == other,
        (IpAddr::V6(one), IpAddr::V6(other)) => one.octets()[..PREFIX] == other.octets()[..PREFIX],
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_address_is_a_site_only_if_the_round_trip_is_short() {
        let seen = |text: &str| Whereabouts::SeenAt(text.parse().expect("an address"));
        let named = |name: &str| Whereabouts::Named(name.to_owned());
        let nodes = [seen("192.0.2.1"), seen("192.0.2.1"), seen("192.0.2.1"), named("nancy"), named("nancy")];
        let nodes = nodes.into_iter().chain([Whereabouts::Unknown, seen("2001:db8:1:2::1"), seen("2001:db8:1:3::1")]);
        let nodes = (0..).map(NodeIndex).zip(nodes).collect();
        let far = NodeIndex(2);
        let rtt = |one, other| Some(Duration::from_millis(if one == far || other == far { 30 } else { 1 }));
        let sites = sites(&nodes, rtt);
        let of = |node: u16| sites.get(&NodeIndex(node));
        assert_eq!(of(0), of(1));
        assert_ne!(of(0), of(2));
        assert_eq!(of(3), of(4));
        assert_eq!(of(5), None);
        assert_eq!(of(6), of(7));
    }
}
