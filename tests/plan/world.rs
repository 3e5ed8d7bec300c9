//! The closed loop: a made-up network carries what a pattern offers, nodes report what they see of it, the
//! planner plans, and its plans decide what is carried next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longwire::control::topology::fallback::{Fallback, Own};
use longwire::control::topology::matrix::Rates;
use longwire::control::topology::planner::{Plan, Planner};
use longwire::control::topology::report::{Goes, PeerReport, Report};
use longwire::control::topology::resources::{Capacities, Resource, uses};
use longwire::control::topology::view::{Config, NodeView, View};
use longwire::control::topology::{NodeIndex, Pair, Via};
use longwire::keys::NodeId;
use longwire::time::Time;

use super::model::{Dice, best, carried, least, squeezed};

/// Counters are read this often.
const SAMPLE: Duration = Duration::from_millis(500);
/// And reported once in so many readings.
const SAMPLES: u32 = 4;
/// What is offered, beside what the best routing carries.
const OVERLOAD: f64 = 1.25;
/// Traffic that does not yield makes a queue where it needs this share of what there is.
const QUEUED: f64 = 0.95;
/// How much of a drift is left after an epoch.
const DRIFT_KEPT: f64 = 0.9;

/// How true the world is to its numbers.
#[derive(Clone, Copy)]
pub(crate) struct Weather {
    /// Deviation of what is measured.
    pub(crate) noise: f64,
    /// Deviation of what there is.
    pub(crate) drift: f64,
}

/// What a member says in place of what it sees.
pub(crate) type Lie = fn(&mut Report);

/// The world.
pub(crate) struct World {
    truth: View,
    base: Capacities,
    drifted: BTreeMap<Resource, f64>,
    weather: Weather,
    dice: Dice,
    rates: BTreeMap<Pair, Rates>,
    arrivals: BTreeMap<Pair, Rates>,
    errors: BTreeMap<Pair, f64>,
    pub(crate) planner: Planner,
    config: Config,
    pub(crate) now: Time,
    lie: Option<(NodeIndex, Lie)>,
    /// Members tell what they send where they are held back, and know of no other capacity: as daemons do.
    are_daemons: bool,
    /// Half of the members report a second later, until a plan sets the beat.
    is_scattered: bool,
    is_first_look: bool,
    flaps: Option<NodeIndex>,
    /// Pairs send what gets through and no more.
    pub(crate) is_elastic: bool,
    /// Traffic that does not yield: what is dropped at one queue was carried in vain by those before it. As much is
    /// offered as the best routing carries.
    is_stubborn: bool,
    /// Shares of their wishes that pairs get now.
    pub(crate) shares: BTreeMap<Pair, f64>,
}

fn id(node: NodeIndex) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&node.0.to_be_bytes());
    NodeId(bytes)
}

fn index(id: NodeId) -> NodeIndex {
    NodeIndex(u16::from_be_bytes([id.0[0], id.0[1]]))
}

impl World {
    pub(crate) fn new(mut truth: View, weather: Weather, seed: u64) -> Self {
        let config = Config::default();
        let mut planner = Planner::new(config.clone(), Time::START);
        for (node, view) in truth.indexed() {
            assert!(planner.put_node(id(node), *view));
        }
        for node in (0..truth.nodes.len() as u16).map(NodeIndex) {
            let out = truth.capacities.of(Resource::NodeOut(node));
            truth.capacities.set(Resource::Relay(node), out * config.relay_share);
        }
        let base = truth.capacities.clone();
        let (dice, now) = (Dice::new(seed ^ 0x5eed), Time::START);
        let (drifted, rates, arrivals, errors, shares) = Default::default();
        Self {
            truth,
            base,
            drifted,
            weather,
            dice,
            rates,
            arrivals,
            errors,
            planner,
            config,
            now,
            lie: None,
            are_daemons: false,
            is_scattered: false,
            is_first_look: false,
            flaps: None,
            is_elastic: false,
            is_stubborn: false,
            shares,
        }
    }

    /// From now on this is offered, so much that the best routing carries four fifths of it.
    pub(crate) fn offer(&mut self, weights: &BTreeMap<Pair, f64>) {
        self.truth.demands = weights.clone();
        self.truth.routes.retain(|pair, _| weights.contains_key(pair));
        let scale = if self.is_stubborn { 1.0 } else { OVERLOAD } * best(&self.truth, &self.config);
        self.truth.demands.values_mut().for_each(|demand| *demand *= scale);
    }

    /// From now on nothing is sent.
    pub(crate) fn fall_silent(&mut self) {
        self.truth.demands.clear();
    }

    /// One member lies from now on.
    pub(crate) fn lies(&mut self, member: NodeIndex, lie: Lie) {
        self.lie = Some((member, lie));
    }

    /// Members know no more than daemons do.
    pub(crate) fn of_daemons(mut self) -> Self {
        (self.are_daemons, self.is_scattered) = (true, true);
        // Daemons spare supernodes: what the best routing would be knows of none.
        self.planner = Planner::new(self.config.clone(), Time::START);
        for node in self.truth.nodes.iter_mut().filter(|node| node.is_supernode) {
            *node = NodeView::default();
        }
        for (node, view) in self.truth.indexed() {
            assert!(self.planner.put_node(id(node), *view));
        }
        self
    }

    /// Traffic does not yield.
    pub(crate) fn stubborn(mut self) -> Self {
        self.is_stubborn = true;
        self
    }

    /// Whether a pair crosses a full queue: so it does also where it gets all that it wants.
    fn is_queued(&self, pair: Pair) -> bool {
        let crosses = |pair: &Pair| uses(&self.truth, *pair, self.truth.way(*pair));
        let load = |resource: &Resource| {
            let on_it = self.truth.demands.iter().filter(|(other, _)| crosses(other).contains(resource));
            on_it.map(|(other, demand)| demand * self.shares.get(other).copied().unwrap_or(1.0)).sum::<f64>()
        };
        self.truth.demands.contains_key(&pair)
            && crosses(&pair).iter().any(|resource| load(resource) > QUEUED * self.truth.capacities.of(*resource))
    }

    /// What each pair gets now of its wish.
    fn carry(&self) -> BTreeMap<Pair, f64> {
        if self.is_stubborn { squeezed(&self.truth) } else { carried(&self.truth, &self.config) }
    }

    /// One member registers anew before every report from now on.
    pub(crate) fn flaps(&mut self, member: NodeIndex) {
        self.flaps = Some(member);
    }

    /// The least share that any pair gets, beside what the best routing would give now.
    pub(crate) fn ratio(&self) -> f64 {
        if self.shares.is_empty() { 1.0 } else { least(&self.shares) / best(&self.truth, &self.config) }
    }

    /// Two seconds, and the plan that came out of them. Its members count anew, and tell after one what it brought.
    pub(crate) fn step(&mut self) -> Option<Plan> {
        self.drift();
        self.shares = self.carry();
        self.err();
        let samples = if self.is_first_look { SAMPLES / 2 } else { SAMPLES };
        for number in 1..=samples {
            self.pass(SAMPLE);
            if self.is_scattered && number == SAMPLES / 2 {
                self.tell(|node| node.0 % 2 == 1);
            }
        }
        if let Some(member) = self.flaps {
            self.planner.remove_node(self.now, id(member));
            assert!(self.planner.put_node(id(member), self.truth.nodes[usize::from(member.0)]));
            // Who registers anew begins without orders.
            self.truth.routes.retain(|pair, _| pair.from != member);
        }
        let is_scattered = self.is_scattered;
        self.tell(|node| !is_scattered || node.0 % 2 == 0);
        if self.now < self.planner.deadline() {
            self.pass(self.planner.deadline().since(self.now));
        }
        let plan = self.planner.handle_timeout(self.now);
        for change in plan.iter().flat_map(|plan| &plan.changes) {
            let pair = Pair::new(index(change.from), index(change.to));
            let via = change.via.map_or(Via::Direct, |relay| Via::Relay(index(relay)));
            self.truth.routes.insert(pair, via);
        }
        self.is_first_look = plan.is_some();
        if self.is_first_look {
            self.is_scattered = false;
            self.tell(|_| true);
        }
        plan
    }

    fn pass(&mut self, span: Duration) {
        self.now += span;
        self.sample(span);
        self.count_arrivals(span);
    }

    /// Some members report.
    fn tell(&mut self, tells: impl Fn(NodeIndex) -> bool) {
        for node in (0..self.truth.nodes.len() as u16).map(NodeIndex).filter(|node| tells(*node)) {
            let mut report = self.report(node);
            if let Some((_, lie)) = self.lie.filter(|(liar, _)| *liar == node) {
                lie(&mut report);
            }
            self.planner.handle_report(self.now, id(node), &report);
        }
    }

    /// Two seconds without a planner: each node does what it can. Gives the moves.
    pub(crate) fn step_alone(&mut self, nodes: &mut BTreeMap<NodeIndex, Fallback<NodeIndex>>) -> usize {
        self.drift();
        self.shares = self.carry();
        self.now += SAMPLE * SAMPLES;
        let mut orders = Vec::new();
        for (node, fallback) in nodes {
            let pairs = self.truth.demands.iter().filter(|(pair, _)| pair.from == *node);
            let own = |(pair, demand): (&Pair, &f64)| {
                let share = self.shares[pair].min(1.0);
                let via = match self.truth.way(*pair) {
                    Via::Relay(relay) => Some(relay),
                    Via::Direct => None,
                };
                let rate = demand * share * self.dice.noise(self.weather.noise);
                Own { peer: pair.to, rate, is_limited: share < 0.98, via }
            };
            let pairs = pairs.map(own).collect::<Vec<_>>();
            let relays = self.truth.indexed().map(|(relay, _)| relay).filter(|relay| relay != node);
            let relays = relays.collect::<Vec<_>>();
            let order = fallback.look(self.now, &pairs, &relays, &mut self.dice.0);
            orders.extend(order.map(|(to, via)| (Pair::new(*node, to), via.map_or(Via::Direct, Via::Relay))));
        }
        let count = orders.len();
        self.truth.routes.extend(orders);
        count
    }

    /// Every host, without memory.
    pub(crate) fn loners(&self) -> BTreeMap<NodeIndex, Fallback<NodeIndex>> {
        let hosts = self.truth.indexed().filter(|(_, node)| !node.is_supernode);
        hosts.map(|(node, _)| (node, Fallback::default())).collect()
    }

    fn drift(&mut self) {
        let fresh = self.weather.drift * (1.0 - DRIFT_KEPT * DRIFT_KEPT).sqrt();
        for (resource, capacity) in self.base.iter() {
            let drift = self.drifted.entry(resource).or_default();
            *drift = *drift * DRIFT_KEPT + self.dice.normal() * fresh;
            self.truth.capacities.set(resource, capacity * drift.exp());
        }
    }

    fn sample(&mut self, span: Duration) {
        for pair in self.truth.demands.keys() {
            self.rates.entry(*pair).or_default();
        }
        for (pair, rates) in &mut self.rates {
            let share = if self.is_elastic { self.shares.get(pair).map_or(1.0, |share| share.min(1.0)) } else { 1.0 };
            let offered = self.truth.demands.get(pair).map_or(0.0, |demand| demand * share);
            let bytes = offered * span.as_secs_f64() * self.dice.noise(self.weather.noise);
            rates.sample(bytes, span);
        }
    }

    /// By which share what arrives in an epoch is counted wrongly.
    fn err(&mut self) {
        let pairs = self.truth.demands.keys().chain(self.rates.keys()).copied().collect::<BTreeSet<_>>();
        self.errors = pairs.into_iter().map(|pair| (pair, self.dice.noise(self.weather.noise))).collect();
    }

    fn count_arrivals(&mut self, span: Duration) {
        for pair in self.rates.keys() {
            let share = self.shares.get(pair).map_or(1.0, |share| share.min(1.0));
            let arrives = self.truth.demands.get(pair).map_or(0.0, |demand| demand * share);
            let error = self.errors.get(pair).copied().unwrap_or(1.0);
            self.arrivals.entry(*pair).or_default().sample(arrives * error * span.as_secs_f64(), span);
        }
    }

    fn report(&mut self, node: NodeIndex) -> Report {
        let others = (0..self.truth.nodes.len() as u16).map(NodeIndex).filter(|other| *other != node);
        let peers: Vec<_> = others.map(|other| self.peer_report(node, other)).collect();
        let relays = self.truth.nodes[usize::from(node.0)].relays;
        if self.are_daemons {
            return Report { sends: None, receives: None, relays, spare: None, peers: self.as_daemon(node, peers) };
        }
        let noise = self.weather.noise;
        let mut measured = |resource| Some(self.base.of(resource) * self.dice.noise(noise));
        let (sends, receives) = (measured(Resource::NodeOut(node)), measured(Resource::NodeIn(node)));
        Report { sends, receives, relays, spare: None, peers }
    }

    /// What is sent where it is held back counts as the width of its first hop; not of one between sites, which others
    /// share.
    fn as_daemon(&self, node: NodeIndex, mut peers: Vec<PeerReport>) -> Vec<PeerReport> {
        peers.iter_mut().for_each(|peer| (peer.capacity_to, peer.capacity_from) = (None, None));
        for number in (0..peers.len()).filter(|number| peers[*number].is_limited).collect::<Vec<_>>() {
            let (to, sent) = (peers[number].peer, peers[number].offered.fast);
            let hop = match self.truth.way(Pair::new(node, index(to))) {
                Via::Relay(relay) => relay,
                Via::Direct => index(to),
            };
            let is_between = self.truth.site(node).zip(self.truth.site(hop)).is_some_and(|(here, there)| here != there);
            let hop = peers.iter_mut().find(|peer| peer.peer == id(hop)).expect("every node is reported");
            if !is_between {
                *hop.capacity_to.get_or_insert(0.0) += sent;
            }
        }
        peers
    }

    fn peer_report(&mut self, node: NodeIndex, other: NodeIndex) -> PeerReport {
        let (to, from) = (Pair::new(node, other), Pair::new(other, node));
        let noise = self.weather.noise;
        let share = |pair: Pair| self.shares.get(&pair).map_or(1.0, |share| share.min(1.0));
        let is_limited = if self.is_stubborn { self.is_queued(to) } else { share(to) < 0.98 };
        let mut measured = |pair| Some(self.truth.capacities.of(Resource::Path(pair)) * self.dice.noise(noise));
        let (capacity_to, capacity_from) = (measured(to), measured(from));
        let arrives = self.arrivals.get(&from).map_or(0.0, |rates| rates.fast);
        let offered = self.rates.get(&to).copied().unwrap_or_default();
        let has_link = self.truth.has_link(to);
        let via = if let Via::Relay(relay) = self.truth.way(to) { Some(id(relay)) } else { None };
        let goes = Some(Goes { via, span: Duration::from_secs(60) });
        let (peer, is_queued) = (id(other), None);
        PeerReport { peer, offered, arrives, is_limited, is_queued, capacity_to, capacity_from, has_link, goes }
    }
}
