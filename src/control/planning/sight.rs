//! What the supernode that plans knows of the whole: hosts, what they report of each other, its own plan.
//!
//! Names are sealed in the directory, so members are shown by the start of their ids, sites by public addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{HERE, Planned, Planning};
use crate::control::customer::customer;
use crate::control::report::PathKind;
use crate::control::sight::{Link, Node, Route, Talk, Topology, Traffic, busiest, whole};
use crate::control::topology::planner::Change;
use crate::control::topology::resources::Resource;
use crate::keys::{NodeId, OverlayId};

impl Planning {
    /// An overlay with these members, and where they are seen.
    pub(in crate::control) fn topology(
        &self,
        overlay: OverlayId,
        members: &BTreeMap<NodeId, IpAddr>,
        here: &str,
    ) -> Topology {
        let planned = self.overlays.get(&overlay);
        let itself = Node {
            id: name(HERE),
            name: here.to_owned(),
            site: None,
            is_supernode: true,
            is_here: true,
            is_up: true,
            load_percent: None,
        };
        let member = |(node, seen): (&NodeId, &IpAddr)| Node {
            id: node.to_string(),
            name: short(*node),
            site: Some(
                planned.map_or_else(|| customer(*seen).to_string(), |planned| planned.sites.called(*node, *seen)),
            ),
            is_supernode: false,
            is_here: false,
            is_up: true,
            load_percent: planned.and_then(|planned| planned.heard.get(node)?.load),
        };
        Topology {
            overlay: overlay.to_string(),
            seen_by: here.to_owned(),
            nodes: std::iter::once(itself).chain(members.iter().map(member)).collect(),
            links: planned.map(Planned::links).unwrap_or_default(),
            routes: planned.map(Planned::routes).unwrap_or_default(),
            unknown: vec![
                "names of members and sites: they are sealed, members know them".into(),
                "links on which little flows: they are not reported".into(),
                "loss: members do not report it".into(),
            ],
        }
    }

    /// What flows in an overlay.
    pub(in crate::control) fn traffic(&self, overlay: OverlayId, here: &str) -> Traffic {
        let planned = self.overlays.get(&overlay);
        let mut hosts = planned.map(Planned::talks).unwrap_or_default();
        busiest(&mut hosts);
        let unreported =
            "no member has reported here: nothing flows, another supernode plans, or `adapt = false` is set";
        Traffic {
            overlay: overlay.to_string(),
            seen_by: here.to_owned(),
            hosts,
            machines: Vec::new(),
            machines_left_out: 0,
            host_pattern: self.pattern(overlay),
            machine_pattern: None,
            hosts_unknown: planned.is_none().then(|| unreported.into()),
            machines_unknown: Some("no supernode knows which machines talk: ask their hosts".into()),
        }
    }
}

impl Planned {
    fn way(&self, from: NodeId, to: NodeId) -> Option<Change> {
        self.planner.routes().find(|way| (way.from, way.to) == (from, to))
    }

    fn links(&self) -> Vec<Link> {
        let rates: BTreeMap<_, _> = self.planner.rates().map(|(from, to, rates)| ((from, to), rates.fast)).collect();
        let rate = |from, to| rates.get(&(from, to)).map(|rate| whole(*rate));
        let mut links = Vec::new();
        for (from, heard) in &self.heard {
            for (to, link) in &heard.links {
                let via = self.way(*from, *to).and_then(|way| way.via);
                let kind = match (via, link.has_link) {
                    (None, true) => PathKind::Direct,
                    (Some(_), _) | (None, false) => PathKind::Relayed,
                };
                links.push(Link {
                    from: from.to_string(),
                    to: to.to_string(),
                    kind,
                    is_asleep: false,
                    via: via.map(name),
                    rtt_us: link.rtt_us,
                    loss_percent: None,
                    sent: rate(*from, *to),
                    heard: rate(*to, *from),
                    is_limited: Some(link.is_limited),
                    capacity: link.capacity,
                });
            }
        }
        links
    }

    fn routes(&self) -> Vec<Route> {
        let route =
            |way: Change| Route { from: name(way.from), to: name(way.to), via: way.via.map(name), by: "plan".into() };
        self.planner.routes().map(route).collect()
    }

    fn talks(&self) -> Vec<Talk> {
        let talk = |(from, to, rates): (NodeId, NodeId, crate::control::topology::matrix::Rates)| {
            let link = self.heard.get(&from).and_then(|heard| heard.links.get(&to));
            let way = self.way(from, to);
            let path = match way {
                Some(Change { via: Some(via), .. }) => Some(format!("by {}", short(via))),
                Some(Change { via: None, .. }) => Some("direct".into()),
                None => link.map(|link| if link.has_link { "direct" } else { "relayed" }.into()),
            };
            let usual = link.map(|_| "the usual way".to_owned());
            Talk {
                from: short(from),
                to: short(to),
                from_host: short(from),
                to_host: short(to),
                bytes_per_s: whole(rates.fast),
                frames_per_s: None,
                path,
                rtt_us: link.and_then(|link| link.rtt_us),
                loss_percent: None,
                why: way.map(|_| "by plan".to_owned()).or(usual),
            }
        };
        self.planner.rates().map(talk).collect()
    }

    /// A resource in words, with the names that its members have here.
    pub(super) fn describe(&self, resource: Resource) -> String {
        let node = |node| self.planner.name_of(node).map_or_else(|| "a member that is gone".into(), short);
        let site = |site| format!("site {}", self.sites.text(site));
        match resource {
            Resource::Trunk(from, to) => format!("the way from {} to {}", site(from), site(to)),
            Resource::SiteOut(of) => format!("the way out of {}", site(of)),
            Resource::SiteIn(of) => format!("the way into {}", site(of)),
            Resource::NodeOut(of) => format!("what {} sends", node(of)),
            Resource::NodeIn(of) => format!("what {} receives", node(of)),
            Resource::Relay(of) => format!("what {} relays", node(of)),
            Resource::Path(pair) => format!("the path from {} to {}", node(pair.from), node(pair.to)),
        }
    }
}

/// A member's id, or what stands for the supernode itself.
fn name(node: NodeId) -> String {
    if node == HERE { "here".to_owned() } else { node.to_string() }
}

/// The start of it.
pub(super) fn short(node: NodeId) -> String {
    name(node).chars().take(8).collect()
}
