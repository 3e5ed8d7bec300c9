//! Which interfaces lead to the underlay, which lead into an overlay, and in what order their addresses
//! are offered.
//!
//! A TAP of longwire leads into an overlay. So does the bridge that holds one, unless it is the way to the
//! underlay too: the default route leaves by it, or nothing else on this host has an address (an ordinary
//! KVM host). Bridges of containers and virtual machines behind this host's own NAT reach nobody from
//! outside and are left out by name. What the config names wins.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::addresses::{Surroundings, UnderlayLink};
use super::netlink::Link;
use super::routes::{self, Route};
use crate::config::{BindText, UnderlaySettings};
use crate::seam::NetworkRoute;

/// Bridges that software makes for machines behind a NAT of this host; `*` is any end.
const NAT_BRIDGES: [&str; 9] =
    ["docker0", "docker_gwbridge", "virbr*", "lxcbr*", "lxdbr*", "incusbr*", "podman*", "cni*", "vmnet*"];
/// Docker's bridge for a network is `br-` and this many hexadecimal digits of its id.
const DOCKER_DIGITS: usize = 12;
/// Routes told to the node; more specific ones than overlays have are rare.
const ROUTES_MAX: usize = 1024;

/// What decides, besides what the kernel says.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Names of our own TAPs.
    pub taps: BTreeSet<String>,
    /// The interfaces or addresses to use; all if empty.
    pub bind: Vec<BindText>,
    /// Interfaces not to use; `*` at the end is any end.
    pub exclude: Vec<String>,
}

impl Rules {
    /// Of a config.
    pub fn new(taps: BTreeSet<String>, settings: &UnderlaySettings) -> Self {
        Self { taps, bind: settings.bind.clone(), exclude: settings.exclude.clone() }
    }

    fn names(&self, name: &str) -> bool {
        self.bind.iter().any(|bind| matches!(bind, BindText::Interface(bound) if bound == name))
    }

    fn allows(&self, link: &Link, ip: IpAddr) -> bool {
        if self.exclude.iter().any(|pattern| fits(pattern, &link.name)) {
            return false;
        }
        if self.bind.is_empty() {
            return !is_nat_bridge(&link.name);
        }
        self.names(&link.name) || self.bind.contains(&BindText::Address(ip))
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

fn is_nat_bridge(name: &str) -> bool {
    let is_dockers = |digits: &str| digits.len() == DOCKER_DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit());
    NAT_BRIDGES.iter().any(|pattern| fits(pattern, name)) || name.strip_prefix("br-").is_some_and(is_dockers)
}

/// The surroundings, from what the kernel tells. `addresses` have the indices of their links.
pub(super) fn survey(links: &[Link], addresses: &[(u32, IpAddr)], routes: &[Route], rules: &Rules) -> Surroundings {
    let ways_out = [routes::defaults(routes, true), routes::defaults(routes, false)].concat();
    let inward = inward_links(links, addresses, &ways_out, rules);
    let usable: BTreeMap<u32, &Link> = links
        .iter()
        .filter(|link| link.running && !link.loopback && !inward.contains(&link.index))
        .map(|link| (link.index, link))
        .collect();
    let allowed = |(index, ip): &(u32, IpAddr)| usable.get(index).is_some_and(|link| rules.allows(link, *ip));
    let own: Vec<(u32, IpAddr)> = addresses.iter().filter(|address| allowed(address)).copied().collect();
    let links = underlay_links(&own);
    let router = routes::defaults(routes, true).into_iter().find(|route| links.iter().any(|l| l.index == route.link));
    Surroundings {
        addresses: in_order(&own, &ways_out),
        router: router.and_then(|route| route.gateway).and_then(v4),
        links,
        routes: told_routes(routes, &inward),
    }
}

/// The links that lead into an overlay and nowhere else.
fn inward_links(links: &[Link], addresses: &[(u32, IpAddr)], ways_out: &[Route], rules: &Rules) -> BTreeSet<u32> {
    let is_tap = |link: &&Link| link.is_tap_of_longwire() || rules.taps.contains(&link.name);
    let mut inward: BTreeSet<u32> = links.iter().filter(is_tap).map(|link| link.index).collect();
    let bridges: BTreeSet<u32> = links.iter().filter(is_tap).filter_map(|link| link.controller).collect();
    let is_other = |link: &&Link| {
        let has_address = addresses.iter().any(|(index, ip)| *index == link.index && rules.allows(link, *ip));
        link.running && !link.loopback && !inward.contains(&link.index) && !bridges.contains(&link.index) && has_address
    };
    if links.iter().any(|link| is_other(&link)) {
        let named = |index: &u32| links.iter().any(|link| link.index == *index && rules.names(&link.name));
        let is_way_out = |index: &u32| ways_out.iter().any(|route| route.link == *index);
        inward.extend(bridges.into_iter().filter(|index| !is_way_out(index) && !named(index)));
    }
    inward
}

/// The first address of each family on each link before every second one, links with a default route before
/// the others: a host with many bridges does not hide where it is reached.
fn in_order(addresses: &[(u32, IpAddr)], ways_out: &[Route]) -> Vec<IpAddr> {
    let mut seen: BTreeMap<(u32, bool), usize> = BTreeMap::new();
    let mut ranked = Vec::new();
    for (index, ip) in addresses {
        let place = seen.entry((*index, ip.is_ipv4())).or_default();
        let rank = ways_out.iter().position(|route| route.link == *index).unwrap_or(usize::MAX);
        ranked.push((*place, rank, *index, ip.is_ipv6(), *ip));
        *place += 1;
    }
    ranked.sort_unstable();
    let mut order = Vec::new();
    for (.., ip) in ranked {
        if !order.contains(&ip) {
            order.push(ip);
        }
    }
    order
}

/// The links of these addresses.
fn underlay_links(addresses: &[(u32, IpAddr)]) -> Vec<UnderlayLink> {
    let mut links: BTreeMap<u32, UnderlayLink> = BTreeMap::new();
    for (index, ip) in addresses {
        let link = links.entry(*index).or_insert(UnderlayLink { index: *index, v4: None, v6: false });
        match ip {
            IpAddr::V4(ip) => link.v4 = link.v4.or(Some(*ip)),
            IpAddr::V6(_) => link.v6 = true,
        }
    }
    links.into_values().collect()
}

/// The routes into overlays, and those that lead out of them again.
fn told_routes(routes: &[Route], inward: &BTreeSet<u32>) -> Vec<NetworkRoute> {
    let mut routes = routes.to_vec();
    routes.sort_by_key(|route| (route.network, route.prefix, route.metric));
    routes.dedup_by_key(|route| (route.network, route.prefix));
    let told = |route: &Route| NetworkRoute {
        network: route.network,
        prefix: route.prefix,
        is_inward: inward.contains(&route.link),
    };
    let all: Vec<NetworkRoute> = routes.iter().map(told).collect();
    let mut kept: Vec<NetworkRoute> = all.iter().filter(|route| route.is_inward).copied().collect();
    let leads_out = |route: &&NetworkRoute| {
        !route.is_inward && kept.iter().any(|wide| wide.prefix < route.prefix && wide.covers(route.network))
    };
    let out: Vec<NetworkRoute> = all.iter().filter(leads_out).copied().collect();
    kept.extend(out);
    kept.truncate(ROUTES_MAX);
    kept
}

const fn v4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests;
