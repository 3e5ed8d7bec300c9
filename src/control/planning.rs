//! From what members report to the ways they take: a planner per overlay at the supernode, orders at the members.
//!
//! The supernode knows hosts and volumes, never machines or frames. A planner begins with the first report of an
//! overlay and ends with its last member. A member obeys the supernode that it reports to and no other; what its user
//! ordered (`longwire via`) stands above any plan, and where a plan's way does not carry, the local choice goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Control;
use super::carriers::Via;
use super::effects::Effects;
use super::report::PlannedWay;
use super::timers::Timer;
use super::topology::matrix::Rates;
use super::topology::planner::{self, Planner};
use super::topology::report::{PeerReport, Report};
use super::topology::resources::Site;
use super::topology::view::{Config, NodeView};
use crate::datapath::buf::OverlayIndex;
use crate::keys::{NodeId, OverlayId};
use crate::seam::LinkId;
use crate::wire::message::Message;
use crate::wire::plan::{CHANGES_MAX, Change, Plan, Report as Told, Way};
use crate::wire::relay::RelayId;

/// What the planner calls the supernode itself: no member has this key.
const HERE: NodeId = NodeId([0; 32]);
/// Overlays that are planned for at a time; the others go their usual ways.
const PLANNERS_MAX: usize = 256;

/// A member, as its supernode knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) node: NodeId,
    pub(super) relay: RelayId,
    pub(super) link: u64,
    pub(super) seen: IpAddr,
}

/// The planners of a supernode.
#[derive(Debug, Default)]
pub(super) struct Planning {
    planners: BTreeMap<OverlayId, Planner>,
}

impl Planning {
    /// REPORT of a member; `members` are all of its overlay.
    pub(super) fn on_report(
        &mut self,
        fx: &mut Effects,
        (overlay, from): (OverlayId, NodeId),
        told: &Told,
        members: &[Place],
    ) {
        if !self.planners.contains_key(&overlay) && self.planners.len() >= PLANNERS_MAX {
            return;
        }
        let planner = self.planners.entry(overlay).or_insert_with(|| {
            let seed = rand_chacha::rand_core::RngCore::next_u64(&mut fx.rng);
            Planner::new(Config { seed, spares_supernodes: true, ..Config::default() }, fx.now)
        });
        put_nodes(planner, members);
        let by_relay: BTreeMap<RelayId, NodeId> = members.iter().map(|place| (place.relay, place.node)).collect();
        let ways: BTreeMap<NodeId, NodeId> =
            planner.routes().filter(|way| way.from == from).filter_map(|way| Some((way.to, way.via?))).collect();
        planner.handle_report(fx.now, from, &report(told, &by_relay, &ways));
        fx.timers.set_earlier(Timer::Plan(overlay), planner.deadline());
    }

    /// A member is gone.
    pub(super) fn on_gone(&mut self, overlay: OverlayId, node: NodeId, is_last: bool) {
        if is_last {
            self.planners.remove(&overlay);
        } else if let Some(planner) = self.planners.get_mut(&overlay) {
            planner.remove_node(node);
        }
    }

    /// [`Timer::Plan`]
    pub(super) fn on_timer(&mut self, fx: &mut Effects, overlay: OverlayId, members: &[Place]) {
        let Some(planner) = self.planners.get_mut(&overlay) else { return };
        if let Some(plan) = planner.handle_timeout(fx.now) {
            tell(fx, overlay, &plan, members);
        }
        // Without demand there is nothing to plan until the next report.
        if planner.matrix().iter().next().is_some() || planner.routes().next().is_some() {
            fx.timers.set(Timer::Plan(overlay), planner.deadline());
        }
    }

    /// What was decided of late for an overlay, the last first, in words.
    pub(super) fn decisions(&self, overlay: OverlayId) -> Vec<String> {
        let decisions = self.planners.get(&overlay).into_iter().flat_map(Planner::decisions);
        decisions.map(ToString::to_string).collect()
    }

    /// The ways that are not the usual ones.
    pub(super) fn ways(&self, overlay: OverlayId) -> Vec<PlannedWay> {
        let name = |node: NodeId| if node == HERE { "here".to_owned() } else { node.to_string() };
        let way = |change: planner::Change| PlannedWay {
            from: name(change.from),
            to: name(change.to),
            via: change.via.map_or_else(|| "direct".to_owned(), name),
        };
        self.planners.get(&overlay).into_iter().flat_map(Planner::routes).map(way).collect()
    }
}

/// Tells the planner who is there. Members behind one public address are one site.
fn put_nodes(planner: &mut Planner, members: &[Place]) {
    let addresses: BTreeSet<IpAddr> = members.iter().map(|place| network(place.seen)).collect();
    let numbers: BTreeMap<IpAddr, u16> = addresses.into_iter().zip(0..).collect();
    planner.put_node(HERE, NodeView { site: None, is_supernode: true, relays: true });
    for place in members {
        let site = numbers.get(&network(place.seen)).map(|number| Site(*number));
        let relays = planner.relays(place.node);
        planner.put_node(place.node, NodeView { site, is_supernode: false, relays });
    }
}

/// What one customer has: an IPv4 address, or an IPv6 /48.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => IpAddr::from(std::net::Ipv6Addr::from_bits(ip.to_bits() >> 80 << 80)),
    }
}

/// What the planner hears. What a member measures on its way to a peer is said of the relay, if one was ordered.
fn report(told: &Told, by_relay: &BTreeMap<RelayId, NodeId>, ways: &BTreeMap<NodeId, NodeId>) -> Report {
    let bytes = |kilobytes: u32| f64::from(kilobytes) * 1000.0;
    let mut peers: BTreeMap<NodeId, PeerReport> = BTreeMap::new();
    let silent = |peer: NodeId| PeerReport {
        peer,
        offered: Rates::default(),
        arrives: 0.0,
        is_limited: false,
        capacity_to: None,
        capacity_from: None,
        has_link: true,
    };
    for one in &told.peers {
        let Some(node) = by_relay.get(&one.relay).copied() else { continue };
        let peer = peers.entry(node).or_insert_with(|| silent(node));
        peer.offered = Rates { fast: bytes(one.fast), slow: bytes(one.slow) };
        (peer.arrives, peer.is_limited, peer.has_link) = (bytes(one.arrives), one.is_limited, one.has_link);
        if one.is_limited && one.capacity > 0 {
            let hop = ways.get(&node).copied().unwrap_or(node);
            let hop = peers.entry(hop).or_insert_with(|| silent(hop));
            // Of two that share a hop, each has a part of it.
            *hop.capacity_to.get_or_insert(0.0) += bytes(one.capacity);
        }
    }
    Report { sends: None, receives: None, relays: told.relays, peers: peers.into_values().collect() }
}

/// Each change to the member whose frames it is about.
fn tell(fx: &mut Effects, overlay: OverlayId, plan: &planner::Plan, members: &[Place]) {
    let by_node: BTreeMap<NodeId, &Place> = members.iter().map(|place| (place.node, place)).collect();
    let mut by_member: BTreeMap<u64, Vec<Change>> = BTreeMap::new();
    for change in &plan.changes {
        let (Some(from), Some(to)) = (by_node.get(&change.from), by_node.get(&change.to)) else { continue };
        let way = match change.via {
            None => Way::Usual,
            Some(HERE) => Way::Here,
            Some(member) => match by_node.get(&member) {
                Some(member) => Way::Member(member.relay),
                None => continue,
            },
        };
        by_member.entry(from.link).or_default().push(Change { to: to.relay, way });
    }
    let gain = (plan.reason.after / plan.reason.before * 1000.0).round() as u32;
    for (link, mut changes) in by_member {
        changes.truncate(CHANGES_MAX);
        let plan = Plan { version: plan.version, gain, changes };
        fx.tell(LinkId::Accepted(link), &Message::Plan { overlay, plan });
    }
}

impl Control {
    /// PLAN of the supernode at `place`: obeyed if it is the one that plans for us.
    pub(super) fn on_plan(&mut self, place: usize, overlay: OverlayIndex, plan: &Plan) {
        let Some(home) = self.planner_of(overlay).filter(|home| home.place == place) else { return };
        let Some(registration) = home.registrations.get(&overlay) else { return };
        let members = registration.members.clone();
        for Change { to, way } in &plan.changes {
            let Some(port) = members.get(to).copied() else { continue };
            let via = match way {
                Way::Usual => Some(Via::Auto),
                Way::Here => Some(Via::Home(place)),
                Way::Member(relay) => members.get(relay).copied().filter(|member| *member != port).map(Via::Member),
            };
            let is_free = self.peers.get(&port).is_some_and(|peer| !peer.carriers.is_pinned);
            if let Some(via) = via.filter(|_| is_free) {
                self.order(port, via);
            }
        }
    }

    /// Who registers anew, or at another supernode that plans, begins without orders: that one knows of none.
    pub(super) fn end_plans(&mut self, overlay: OverlayIndex) {
        let planned = |via: Via| via != Via::Auto;
        let ports: Vec<_> = self
            .peers
            .values()
            .filter(|peer| peer.overlay == overlay && planned(peer.carriers.via) && !peer.carriers.is_pinned)
            .map(|peer| peer.port)
            .collect();
        for port in ports {
            self.order(port, Via::Auto);
        }
    }
}
