//! From what members report to the ways they take: a planner per overlay at the supernode, orders at the members.
//!
//! The supernode knows hosts and volumes, never machines or frames. A planner begins with the first report of an
//! overlay and ends with its last member. A member obeys the supernode that it reports to and no other; what its user
//! ordered (`longwire via`) stands above any plan, and where a plan's way does not carry, the local choice goes on.

mod advising;

mod room;

mod sight;

mod sites;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::Control;
use super::carriers::Via;
use super::customer::customer;
use super::effects::Effects;
use super::report::{Limit, PlannedWay};
use super::sight::whole;
use super::timers::Timer;
use super::topology::matrix::Rates;
use super::topology::pattern::{Shape, infer};
use super::topology::planner::{self, Planner};
use super::topology::report::{Goes, PeerReport, Report};
use super::topology::view::{Config, NodeView};
use crate::datapath::buf::OverlayIndex;
use crate::keys::{NodeId, OverlayId};
use crate::seam::LinkId;
use crate::time::Time;
use crate::wire::message::Message;
use crate::wire::plan::{CHANGES_MAX, Change, Goes as ToldGoes, Hop, Plan, Report as Told, Way};
use crate::wire::relay::RelayId;
use room::{Room, Tenant, room};
use sites::Sites;

/// What the planner calls the supernode itself: no member has this key.
const HERE: NodeId = NodeId([0; 32]);
/// And whoever carries without being known here.
const NOBODY: NodeId = NodeId([u8::MAX; 32]);

/// A member, as its supernode knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) node: NodeId,
    pub(super) relay: RelayId,
    pub(super) link: u64,
    pub(super) seen: IpAddr,
}

/// What a member said last, for the eyes of people.
#[derive(Debug, Default)]
struct Heard {
    load: Option<u8>,
    links: BTreeMap<NodeId, HeardLink>,
}

/// What a member said of its way to another one.
#[derive(Clone, Copy, Debug)]
struct HeardLink {
    rtt_us: Option<u64>,
    is_limited: bool,
    has_link: bool,
    /// In bytes per second, if it is known.
    capacity: Option<u64>,
}

/// An overlay that is planned for.
#[derive(Debug)]
struct Planned {
    planner: Planner,
    tenant: Tenant,
    by_relay: BTreeMap<RelayId, Place>,
    by_node: BTreeMap<NodeId, RelayId>,
    sites: Sites,
    /// Of each member its last report.
    heard: BTreeMap<NodeId, Heard>,
    /// While anything is held back: when it is looked next whether a machine should move.
    advise_at: Option<Time>,
    /// What was said of that last.
    advised: Option<((NodeId, NodeId), Time)>,
}

/// The planners of a supernode.
#[derive(Debug, Default)]
pub(super) struct Planning {
    overlays: BTreeMap<OverlayId, Planned>,
    /// Reports of overlays for which there was no room.
    crowded_out: u64,
}

impl Planned {
    fn new(fx: &mut Effects, by: IpAddr) -> Self {
        let seed = rand_chacha::rand_core::RngCore::next_u64(&mut fx.rng);
        let config = Config { seed, spares_supernodes: true, ..Config::default() };
        let mut planner = Planner::new(config, fx.now);
        planner.put_node(HERE, NodeView { site: None, is_supernode: true, relays: true });
        Self {
            planner,
            tenant: Tenant { by, reported: fx.now },
            by_relay: BTreeMap::new(),
            by_node: BTreeMap::new(),
            sites: Sites::default(),
            heard: BTreeMap::new(),
            advise_at: None,
            advised: None,
        }
    }

    fn put(&mut self, place: Place) {
        let (site, freed) = self.sites.put(place.node, place.seen);
        if let Some(freed) = freed {
            self.planner.forget_site(freed);
        }
        let relays = self.planner.relays(place.node);
        self.planner.put_node(place.node, NodeView { site, is_supernode: false, relays });
        self.by_relay.insert(place.relay, place);
        self.by_node.insert(place.node, place.relay);
    }

    fn hear(&mut self, from: NodeId, told: &Told) {
        if self.sites.name(from, told.site) {
            let place = self.place(from).copied();
            place.into_iter().for_each(|place| self.put(place));
        }
        let link = |one: &crate::wire::plan::PeerReport| {
            let rtt_us = Some(u64::from(one.rtt_us)).filter(|rtt| *rtt > 0);
            let capacity = Some(u64::from(one.capacity) * 1000).filter(|capacity| *capacity > 0);
            let link = HeardLink { rtt_us, is_limited: one.is_limited, has_link: one.has_link, capacity };
            Some((self.by_relay.get(&one.relay)?.node, link))
        };
        let links = told.peers.iter().filter_map(link).collect();
        self.heard.insert(from, Heard { load: told.load, links });
    }

    /// How wide paths to first hops are. What a member measures on its way to a peer is said of the relay, if one was
    /// ordered; of two that share a hop, each has a part of it. Members of one site share the way to another one: what
    /// one of them gets there is its part of something else, which the planner learns from all of them.
    fn widths(&self, from: NodeId, told: &Told) -> BTreeMap<NodeId, f64> {
        let ways = self.planner.routes().filter(|way| way.from == from);
        let ways: BTreeMap<NodeId, NodeId> = ways.filter_map(|way| Some((way.to, way.via?))).collect();
        let shared = self.sites.shared(self.by_relay.values().map(|place| (place.node, place.seen)));
        let site = |node| self.place(node).map(|place| self.sites.mark(place.node, place.seen));
        let is_shared = |node| site(node).is_some_and(|site| shared.contains(&site));
        let mut widths: BTreeMap<NodeId, f64> = BTreeMap::new();
        let mut full = BTreeSet::new();
        for one in told.peers.iter().filter(|one| one.is_limited && one.capacity > 0) {
            let Some(node) = self.by_relay.get(&one.relay).map(|place| place.node) else { continue };
            let hop = match one.goes.map(|goes| self.goes(goes).via) {
                Some(via) => via.unwrap_or(node),
                None => ways.get(&node).copied().unwrap_or(node),
            };
            if hop == NOBODY {
                continue;
            }
            if site(from) == site(hop) || !is_shared(from) && !is_shared(hop) {
                *widths.entry(hop).or_default() += bytes(one.capacity);
                full.extend(self.planner.may_queue(from, node).then_some(hop));
            }
        }
        widths.retain(|hop, _| full.contains(hop));
        widths
    }

    /// What the planner hears of a report that was just heard.
    fn for_planner(&self, from: NodeId, told: &Told) -> Report {
        let mut peers: BTreeMap<NodeId, PeerReport> = BTreeMap::new();
        for one in &told.peers {
            let Some(node) = self.by_relay.get(&one.relay).map(|place| place.node) else { continue };
            let peer = peers.entry(node).or_insert_with(|| PeerReport::silent(node));
            peer.offered = Rates { fast: bytes(one.fast), slow: bytes(one.slow) };
            (peer.arrives, peer.is_limited, peer.has_link) = (bytes(one.arrives), one.is_limited, one.has_link);
            peer.is_queued = one.is_queued;
            peer.goes = one.goes.map(|goes| self.goes(goes));
        }
        for (hop, width) in self.widths(from, told) {
            peers.entry(hop).or_insert_with(|| PeerReport::silent(hop)).capacity_to = Some(width);
        }
        let (relays, spare) = (told.relays, told.spare.map(bytes));
        Report { sends: None, receives: None, relays, spare, peers: peers.into_values().collect() }
    }

    fn goes(&self, goes: ToldGoes) -> Goes {
        let via = match goes.by {
            Hop::Peer => None,
            Hop::Member(relay) => Some(self.by_relay.get(&relay).map_or(NOBODY, |place| place.node)),
            Hop::Here => Some(HERE),
            Hop::Elsewhere => Some(NOBODY),
        };
        Goes { via, span: Duration::from_millis(u64::from(goes.since_ms)) }
    }

    fn place(&self, node: NodeId) -> Option<&Place> {
        self.by_relay.get(self.by_node.get(&node)?)
    }
}

impl Planning {
    /// REPORT of a member that registered from the address `at`; `members` are all of its overlay.
    pub(super) fn on_report(
        &mut self,
        fx: &mut Effects,
        (overlay, from, at): (OverlayId, NodeId, IpAddr),
        told: &Told,
        members: impl FnOnce() -> Vec<Place>,
    ) {
        if !self.overlays.contains_key(&overlay) {
            let by = customer(at);
            if !self.make_room(fx.now, by) {
                return;
            }
            let mut planned = Planned::new(fx, by);
            members().into_iter().for_each(|place| planned.put(place));
            self.overlays.insert(overlay, planned);
        }
        let Some(planned) = self.overlays.get_mut(&overlay) else { return };
        planned.tenant.reported = fx.now;
        planned.hear(from, told);
        let report = planned.for_planner(from, told);
        planned.planner.handle_report(fx.now, from, &report);
        fx.timers.set_earlier(Timer::Plan(overlay), planned.planner.deadline());
    }

    /// Room for one more overlay, of the customer `by`; another may have to go.
    fn make_room(&mut self, now: Time, by: IpAddr) -> bool {
        let tenants = self.overlays.iter().map(|(overlay, planned)| (overlay, planned.tenant));
        match room(now, by, tenants) {
            Room::Free => true,
            Room::Of(other) => self.overlays.remove(&other).is_some(),
            Room::None => {
                self.crowded_out += 1;
                false
            }
        }
    }

    /// Reports of overlays for which there was no room.
    pub(super) const fn crowded_out(&self) -> u64 {
        self.crowded_out
    }

    /// A member is there, or is seen elsewhere.
    pub(super) fn on_place(&mut self, overlay: OverlayId, place: Place) {
        if let Some(planned) = self.overlays.get_mut(&overlay) {
            planned.put(place);
        }
    }

    /// A member is gone.
    pub(super) fn on_gone(
        &mut self,
        fx: &mut Effects,
        overlay: OverlayId,
        (node, relay): (NodeId, RelayId),
        is_last: bool,
    ) {
        if is_last {
            self.overlays.remove(&overlay);
        } else if let Some(planned) = self.overlays.get_mut(&overlay) {
            planned.by_relay.remove(&relay);
            // It may have registered anew before.
            if planned.by_node.get(&node) == Some(&relay) {
                planned.by_node.remove(&node);
                planned.planner.remove_node(fx.now, node);
                fx.timers.set_earlier(Timer::Plan(overlay), planned.planner.deadline());
                planned.heard.remove(&node);
                if let Some(freed) = planned.sites.forget(node) {
                    planned.planner.forget_site(freed);
                }
            }
        }
    }

    /// [`Timer::Plan`]
    pub(super) fn on_timer(&mut self, fx: &mut Effects, overlay: OverlayId) {
        let Some(planned) = self.overlays.get_mut(&overlay) else { return };
        if let Some(plan) = planned.planner.handle_timeout(fx.now) {
            tell(fx, overlay, &plan, planned);
        }
        self.tell_advice(fx, overlay);
        let Some(planned) = self.overlays.get(&overlay) else { return };
        // Without demand there is nothing to plan until the next report.
        let planner = &planned.planner;
        if planner.matrix().iter().next().is_some() || planner.routes().next().is_some() {
            fx.timers.set(Timer::Plan(overlay), planner.deadline());
        }
    }

    /// What the application looks like, in words, if anything flows.
    pub(super) fn pattern(&self, overlay: OverlayId) -> Option<String> {
        let pattern = infer(self.overlays.get(&overlay)?.planner.matrix());
        (pattern.shape != Shape::Idle).then(|| pattern.to_string())
    }

    /// What was decided of late for an overlay, the last first, in words.
    pub(super) fn decisions(&self, overlay: OverlayId) -> Vec<String> {
        let decisions = self.overlays.get(&overlay).into_iter().flat_map(|planned| planned.planner.decisions());
        decisions.map(ToString::to_string).collect()
    }

    /// What is believed to let only so much through.
    pub(super) fn limits(&self, overlay: OverlayId) -> Vec<Limit> {
        let limits = |planned: &Planned| {
            let limit = |(resource, capacity)| Limit { what: planned.describe(resource), bytes_per_s: whole(capacity) };
            planned.planner.limits().iter().map(limit).collect()
        };
        self.overlays.get(&overlay).map(limits).unwrap_or_default()
    }

    /// The ways that are not the usual ones.
    pub(super) fn ways(&self, overlay: OverlayId) -> Vec<PlannedWay> {
        let name = |node: NodeId| if node == HERE { "here".to_owned() } else { node.to_string() };
        let way = |change: planner::Change| PlannedWay {
            from: name(change.from),
            to: name(change.to),
            via: change.via.map_or_else(|| "direct".to_owned(), name),
        };
        self.overlays.get(&overlay).into_iter().flat_map(|planned| planned.planner.routes()).map(way).collect()
    }
}

fn bytes(kilobytes: u32) -> f64 {
    f64::from(kilobytes) * 1000.0
}

/// Each change to the member whose frames it is about, and to all who report that there is one: they count anew, so
/// that nobody mixes what was before with what is behind it.
fn tell(fx: &mut Effects, overlay: OverlayId, plan: &planner::Plan, planned: &Planned) {
    let reporting = planned.heard.keys().filter_map(|node| planned.place(*node));
    let mut by_member: BTreeMap<u64, Vec<Change>> = reporting.map(|place| (place.link, Vec::new())).collect();
    for change in &plan.changes {
        let (Some(from), Some(to)) = (planned.place(change.from), planned.place(change.to)) else { continue };
        let way = match change.via {
            None => Way::Usual,
            Some(HERE) => Way::Here,
            Some(member) => match planned.place(member) {
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
        if self.planner_of(overlay).is_none_or(|home| home.place != place) {
            return;
        }
        let Some(registration) = self.homes[place].registrations.get_mut(&overlay) else { return };
        // An old one that comes late, or again, is void.
        if plan.version <= registration.planned {
            return;
        }
        registration.planned = plan.version;
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
        self.count_anew(overlay);
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
