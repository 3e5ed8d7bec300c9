//! Static rules, the cold half: who is meant by them, the ways they choose among, the links they keep.
//!
//! A rule names members by name or id; the corridor knows ports. Once a second, while there are rules, names are looked
//! up anew and the ways that rules want are probed, so that the corridor has only rules whose member is known and only
//! ways that carry. A rule whose member is not there yet waits: frames go as if it were not. What an order may not do
//! is refused with the reason; what a config says was checked before.

mod orders;

pub(super) mod ruled;

mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::Control;
use super::carriers::Via;
use super::report::rules::{LinkRow, Origin, RouteRow};
use super::timers::Timer;
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::PortId;
use crate::datapath::{Action, Command, Hits, Rule, RuleWay, Ways};
use crate::keys::NodeId;
use crate::seam::OverlaySettings;
use crate::seam::rule::{LinkSettings, LinkTo, RouteSettings, Target};
use crate::time::Time;
use crate::wire::session::CandidateKind;

/// Between two looks: as long as a path in use waits between its probes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two searches for a direct path that a link wants.
const SEEK_EVERY: Duration = Duration::from_secs(30);
/// The shortest start of an id that is taken for one.
const ID_MIN: usize = 8;

/// A route and who gave it.
#[derive(Debug)]
struct Route {
    id: u32,
    overlay: OverlayIndex,
    origin: Origin,
    settings: RouteSettings,
    /// Who was meant by the names when they were met first; another one of the same name is not.
    meant: BTreeMap<String, NodeId>,
}

/// A link and who gave it.
#[derive(Debug)]
struct Link {
    overlay: OverlayIndex,
    origin: Origin,
    settings: LinkSettings,
    /// When a direct path was sought last.
    sought: Option<Time>,
    /// Whom the pin or the address was told of.
    told: BTreeSet<PortId>,
}

/// All rules of a node.
#[derive(Debug, Default)]
pub(super) struct Rules {
    routes: Vec<Route>,
    links: Vec<Link>,
    last_id: u32,
    /// What the corridor has.
    in_force: BTreeMap<OverlayIndex, Arc<[Rule]>>,
    ways: BTreeMap<PortId, Ways>,
}

/// Who is meant by a name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    Own,
    Peer(PortId, NodeId),
}

impl Rules {
    /// Those of the config.
    pub(super) fn new(overlays: &[OverlaySettings]) -> Self {
        let mut rules = Self::default();
        for (place, settings) in overlays.iter().enumerate() {
            let overlay = OverlayIndex(place);
            for route in &settings.routes {
                rules.add_route(overlay, route.clone(), Origin::Config);
            }
            settings.links.iter().for_each(|link| rules.add_link(overlay, link.clone(), Origin::Config));
        }
        rules
    }

    fn add_route(&mut self, overlay: OverlayIndex, settings: RouteSettings, origin: Origin) -> u32 {
        self.last_id += 1;
        self.routes.push(Route { id: self.last_id, overlay, origin, settings, meant: BTreeMap::new() });
        self.last_id
    }

    fn add_link(&mut self, overlay: OverlayIndex, settings: LinkSettings, origin: Origin) {
        self.links.push(Link { overlay, origin, settings, sought: None, told: BTreeSet::new() });
    }
}

impl Control {
    /// [`Timer::Rules`], and after each order: what rules mean now.
    pub(super) fn review_rules(&mut self) {
        let mut rules = std::mem::take(&mut self.rules);
        for route in &mut rules.routes {
            self.learn_names(route);
        }
        for overlay in (0..self.overlays.len()).map(OverlayIndex) {
            let routes = rules.routes.iter().filter(|route| route.overlay == overlay);
            let found: Arc<[Rule]> = routes.filter_map(|route| self.rule(route).ok()).collect();
            let before = rules.in_force.get(&overlay).map(AsRef::as_ref).unwrap_or_default();
            if *before != *found {
                self.fx.commands.push_back(Command::SetRules { overlay, rules: Arc::clone(&found) });
                rules.in_force.insert(overlay, found);
            }
        }
        self.review_ways(&mut rules);
        rules.links.iter_mut().for_each(|link| self.keep_link(link));
        let is_quiet = rules.routes.is_empty() && rules.links.is_empty();
        self.rules = rules;
        if !is_quiet {
            self.fx.timers.set(Timer::Rules, self.fx.now + LOOK_EVERY);
        }
    }

    fn learn_names(&self, route: &mut Route) {
        let names = match &route.settings.via {
            Target::Node(node) => vec![node],
            Target::Path(by, to) => vec![by, to],
            Target::Drop | Target::Direct | Target::Supernode => vec![],
        };
        for name in names {
            if !route.meant.contains_key(name)
                && let Ok(Whom::Peer(_, node)) = self.whom(route.overlay, name)
            {
                route.meant.insert(name.clone(), node);
            }
        }
    }

    /// Who has this name or id in an overlay. A whole id is nobody's name: members choose names themselves.
    pub(super) fn whom(&self, overlay: OverlayIndex, name: &str) -> Result<Whom, String> {
        let whole: Option<NodeId> = name.parse().ok();
        let is_meant = |called: Option<&str>, id: NodeId| match whole {
            Some(whole) => id == whole,
            None => called == Some(name) || (name.len() >= ID_MIN && id.to_string().starts_with(name)),
        };
        if is_meant(Some(&self.name), self.me.identity.id()) {
            return Ok(Whom::Own);
        }
        let peers = self.peers.values().filter(|peer| peer.overlay == overlay);
        let mut found = peers.filter(|peer| is_meant(peer.name.as_deref(), peer.id));
        match (found.next(), found.next()) {
            (Some(peer), None) => Ok(Whom::Peer(peer.port, peer.id)),
            (None, _) => Err(format!("no member is called {name:?}; `longwire peers` lists them")),
            (Some(_), Some(_)) => Err(format!("several members are called {name:?}; give an id")),
        }
    }

    /// The same, if it is another one.
    pub(super) fn other(&self, overlay: OverlayIndex, name: &str) -> Result<PortId, String> {
        match self.whom(overlay, name)? {
            Whom::Peer(port, _) => Ok(port),
            Whom::Own => Err("that is this node itself".into()),
        }
    }

    /// What the corridor is to do by a route, or whom it waits for.
    fn rule(&self, route: &Route) -> Result<Rule, String> {
        let waits = |name: &String| format!("waits for {name}");
        let find = |name: &String| match route.meant.get(name) {
            Some(node) => {
                let port = self.by_id.get(&(route.overlay, *node)).copied();
                port.map(|port| Whom::Peer(port, *node)).ok_or_else(|| waits(name))
            }
            None => self.whom(route.overlay, name).map_err(|_| waits(name)),
        };
        let action = match &route.settings.via {
            Target::Drop => Action::Drop,
            Target::Direct => Action::Learned(RuleWay::Direct),
            Target::Supernode => Action::Learned(RuleWay::Supernode),
            Target::Node(node) => match find(node)? {
                Whom::Own => Action::Here,
                Whom::Peer(port, _) => Action::To(port, RuleWay::Usual),
            },
            Target::Path(by, to) => match (find(by)?, find(to)?) {
                (_, Whom::Own) => Action::Here,
                (Whom::Own, Whom::Peer(port, _)) => Action::To(port, RuleWay::Direct),
                (Whom::Peer(by, _), Whom::Peer(port, _)) => Action::To(port, RuleWay::Member(by)),
            },
        };
        let RouteSettings { src, dst, prio, .. } = route.settings;
        Ok(Rule { id: route.id, src, dst, prio, action })
    }

    /// Sees to it that a direct path is sought where a link wants one.
    fn keep_link(&mut self, link: &mut Link) {
        match &link.settings.to {
            LinkTo::Peer(name) => {
                let Ok(port) = self.other(link.overlay, name) else { return };
                if link.settings.pin && link.told.insert(port) {
                    self.pin(port, Via::Direct);
                }
                let is_due = link.sought.is_none_or(|at| self.fx.now.since(at) >= SEEK_EVERY);
                let Some(peer) = self.peers.get_mut(&port).filter(|peer| is_due && !peer.is_direct()) else { return };
                link.sought = Some(self.fx.now);
                peer.punch_anew(&mut self.fx);
            }
            LinkTo::Address(addr) => {
                let is_new = |port: &PortId| !link.told.contains(port);
                let peers = self.peers.iter_mut().filter(|(port, peer)| peer.overlay == link.overlay && is_new(port));
                let mut told = BTreeSet::new();
                for (port, peer) in peers {
                    told.insert(*port);
                    peer.paths.candidates.add(CandidateKind::Configured, *addr);
                    if peer.session.is_none() {
                        self.fx.timers.set_earlier(Timer::Handshake(*port), self.fx.now);
                    } else if !peer.is_direct() {
                        peer.punch_anew(&mut self.fx);
                    }
                }
                link.told.extend(told);
            }
        }
    }

    /// The peers that rules and links of an overlay name.
    pub(super) fn named_by_rules(&self, overlay: OverlayIndex) -> Vec<PortId> {
        let rules: &[Rule] = self.rules.in_force.get(&overlay).map(AsRef::as_ref).unwrap_or_default();
        let of_rule = |rule: &Rule| if let Action::To(port, _) = rule.action { Some(port) } else { None };
        let of_link = |link: &Link| {
            let LinkTo::Peer(name) = &link.settings.to else { return None };
            self.other(overlay, name).ok().filter(|_| link.overlay == overlay)
        };
        rules.iter().filter_map(of_rule).chain(self.rules.links.iter().filter_map(of_link)).collect()
    }

    /// The link to a peer, as it was added, whose place nothing takes.
    pub(super) fn pinned_link(&self, port: PortId) -> Option<&LinkTo> {
        let pins = |link: &&Link| link.settings.pin && link.told.contains(&port);
        self.rules.links.iter().find(pins).map(|link| &link.settings.to)
    }

    /// By order of the user.
    pub(super) fn pin(&mut self, port: PortId, via: Via) {
        self.order(port, via);
        if let Some(peer) = self.peers.get_mut(&port) {
            peer.carriers.is_pinned = via != Via::Auto;
        }
    }

    /// The routes as people see them; `hits` has what they decided.
    pub(super) fn route_rows(&self, hits: impl Fn(OverlayIndex, u32) -> Hits) -> Vec<RouteRow> {
        let row = |route: &Route| {
            let Hits { frames, bytes } = hits(route.overlay, route.id);
            let RouteSettings { src, dst, via, prio } = &route.settings;
            RouteRow {
                id: route.id,
                overlay: self.overlays[route.overlay.0].name.clone(),
                prio: *prio,
                src: src.to_string(),
                dst: dst.to_string(),
                via: via.to_string(),
                origin: route.origin,
                state: self.route_state(route),
                frames,
                bytes,
            }
        };
        self.rules.routes.iter().map(row).collect()
    }

    fn route_state(&self, route: &Route) -> String {
        let rule = match self.rule(route) {
            Ok(rule) => rule,
            Err(waits) => return waits,
        };
        match rule.action {
            Action::To(port, RuleWay::Member(by)) if !self.carries_by(port, by) => match self.unwilling(by, port) {
                Some(why) => format!("in force; frames go the usual way, for {why}"),
                None => "in force; frames go the usual way until that member carries".into(),
            },
            Action::Here => "in force: that is here".into(),
            Action::To(..) | Action::Drop | Action::Learned(_) => "in force".into(),
        }
    }

    fn carries_by(&self, port: PortId, by: PortId) -> bool {
        let ways = self.rules.ways.get(&port);
        ways.is_some_and(|ways| ways.members.iter().any(|(member, _)| *member == by))
    }

    /// The links as people see them.
    pub(super) fn link_rows(&self) -> Vec<LinkRow> {
        let row = |link: &Link| LinkRow {
            overlay: self.overlays[link.overlay.0].name.clone(),
            to: link.settings.to.to_string(),
            pin: link.settings.pin,
            origin: link.origin,
            state: self.link_state(link),
        };
        self.rules.links.iter().map(row).collect()
    }

    fn link_state(&self, link: &Link) -> String {
        match &link.settings.to {
            LinkTo::Peer(name) => match self.other(link.overlay, name) {
                Ok(port) => self.fx.describe(self.peers.get(&port).and_then(|peer| peer.paths.current())),
                Err(_) => format!("waits for {name}"),
            },
            LinkTo::Address(addr) => {
                let answers = |peer: &&super::Peer| peer.paths.candidates.get(*addr).is_some_and(|one| one.answers > 0);
                let mut peers = self.peers.values().filter(|peer| peer.overlay == link.overlay);
                peers.find(answers).map_or("nobody answers".into(), |peer| format!("{} answers", peer.called()))
            }
        }
    }
}
