//! The planner of one overlay: fed with reports, asked at its deadline, answers with plans.
//!
//! Each epoch it learns from what arrived, then does the first of these that applies: goes on with a plan
//! that is being carried out, takes back one that did not deliver, retires ways that nobody uses, looks
//! for a better plan and asks the gate. A lying node can spoil pairs that involve it: its demand counts
//! up to what the receiver confirms, its capacities up to what others confirm.

pub mod advising;
mod belief;
mod coming;
mod courses;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::Serialize;

use super::decision::{Decision, Verdict};
use super::gate::Gate;
use super::learn::{Learnt, Seen};
use super::matrix::{Matrix, STALE_AFTER};
use super::meter::{LATE, Meter};
use super::names::Names;
use super::plan::{Proposal, compile, plan, review};
use super::report::{Claims, Goes, PEERS_MAX, PeerReport, Report};
use super::resources::{Capacities, Resource};
use super::view::{Config, View};
use super::{NodeIndex, Pair, Via};
use crate::keys::NodeId;
use crate::time::Time;
use belief::{Appetite, BELIEVED, Complaint, Word, is_other_phase};
use courses::Courses;

/// Pairs below this rate (bytes per second) are latency pairs: their ingress nodes choose.
pub const BULK: f64 = 64_000.0;
/// Epochs after its last change in which a plan must deliver.
const TRIAL_EPOCHS: u32 = 2;
/// Another phase shows within so many epochs: members report at their own times, and averages follow in steps.
const PHASE_EPOCHS: usize = 3;
/// A way whose pair sends less than this share of its memory, after a phase change, is no longer needed.
const FADED: f64 = 0.1;
/// While a change settles a plan may promise less: the moves cost nothing yet.
const SETTLING_GAIN: f64 = 0.05;
/// Afterwards so many times what single readings deviate by, and this at least.
const READINGS: f64 = 2.0;
const STEADY_GAIN: f64 = 0.08;
/// Bytes that arrive are counted with this deviation at least: frames and readings come when they come.
const NOISE_MIN: f64 = 0.03;
/// Decisions kept for the user.
const DECISIONS_MAX: usize = 64;
/// Members count anew when they hear of a plan, and tell after this time what it brought.
pub const FIRST_LOOK: Duration = Duration::from_secs(1);
/// News that cannot wait is looked at after this time, with what else comes.
const SOON: Duration = Duration::from_millis(500);

/// A pair goes another way from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Who must act.
    pub from: NodeId,
    /// The frames' destination.
    pub to: NodeId,
    /// The relay; none for the direct way.
    pub via: Option<NodeId>,
}

/// What is to be told to ingress nodes.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Greater is newer.
    pub version: u64,
    /// The changes.
    pub changes: Vec<Change>,
    /// What was decided, and why.
    pub reason: Decision,
}

/// A plan that must still show what it is worth.
#[derive(Clone, Debug)]
struct Trial {
    due: Time,
    undo: BTreeMap<Pair, Via>,
    /// What arrived of each pair before it, also of those that it should not touch.
    before: BTreeMap<Pair, f64>,
    /// No change was being settled: it must not bring less but for chance.
    is_steady: bool,
}

impl Trial {
    /// A plan that follows one whose worth is still open is measured with it, against what was before both.
    fn after(mut self, earlier: Option<Self>) -> Self {
        if let Some(earlier) = earlier {
            self.undo.extend(earlier.undo);
            self.before.extend(earlier.before);
        }
        self
    }
}

/// What was refused, for the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Reports of nodes that are not members, and peers beyond the limit or unknown.
    pub reports: u64,
    /// Pairs for which the matrix had no room, or that made no sense.
    pub pairs: u64,
    /// Capacities for which there was no room.
    pub claims: u64,
}

/// The planner's memory of one overlay.
#[derive(Clone, Debug)]
pub struct Planner {
    config: Config,
    names: Names,
    matrix: Matrix,
    /// What is sent, as the sender says, and what of it arrives, as the receiver does.
    sent: BTreeMap<Pair, Meter>,
    arrivals: BTreeMap<Pair, Meter>,
    /// Pairs whose sender is held back, as its round trips show.
    limited: BTreeSet<Pair>,
    /// Pairs that wait nowhere, as their receivers said last at this time: what their round trips show is a queue on
    /// the way back.
    unqueued: BTreeMap<Pair, Time>,
    /// By which share single readings deviate.
    noise: f64,
    appetites: BTreeMap<Pair, Appetite>,
    unlinked: BTreeSet<Pair>,
    claims: Claims,
    learnt: Learnt,
    gate: Gate,
    /// The ways that are ordered, and when any was last.
    routes: BTreeMap<Pair, Via>,
    told: Time,
    courses: Courses,
    queue: VecDeque<(Pair, Via)>,
    /// Pairs whose relay is gone, still to be told.
    orphans: BTreeSet<Pair>,
    /// Relays that left others behind, and until when nobody is sent there again.
    resting: BTreeMap<NodeId, Time>,
    doing: Option<Decision>,
    trial: Option<Trial>,
    /// What was wanted in the last epochs, the earliest first.
    phases: VecDeque<BTreeMap<Pair, f64>>,
    decisions: VecDeque<Decision>,
    version: u64,
    strangers: u64,
    deadline: Time,
}

impl Planner {
    /// Of an overlay of which nothing is known yet. Versions begin with the time, so that they also rise past those of
    /// a planner that was here before: there are never more than two in a second.
    pub fn new(config: Config, now: Time) -> Self {
        let deadline = now + config.epoch;
        Self {
            config,
            names: Names::default(),
            matrix: Matrix::default(),
            sent: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            limited: BTreeSet::new(),
            unqueued: BTreeMap::new(),
            noise: NOISE_MIN,
            appetites: BTreeMap::new(),
            unlinked: BTreeSet::new(),
            claims: Claims::default(),
            learnt: Learnt::default(),
            gate: Gate::new(now),
            routes: BTreeMap::new(),
            told: now,
            courses: Courses::default(),
            queue: VecDeque::new(),
            orphans: BTreeSet::new(),
            resting: BTreeMap::new(),
            doing: None,
            trial: None,
            phases: VecDeque::from([BTreeMap::new()]),
            decisions: VecDeque::new(),
            version: now.since(Time::START).as_secs() * 1000 / SOON.as_millis() as u64,
            strangers: 0,
            deadline,
        }
    }

    /// A node's report.
    pub fn handle_report(&mut self, now: Time, from: NodeId, report: &Report) {
        let Some(by) = self.names.index(from) else {
            self.strangers += 1;
            return;
        };
        self.names.set_relays(by, report.relays && !self.rests(now, from));
        let known = |peer: &PeerReport| self.names.index(peer.peer).filter(|index| *index != by);
        let peers = report.peers.iter().take(PEERS_MAX).filter_map(|peer| Some((known(peer)?, peer)));
        let peers = peers.collect::<Vec<_>>();
        self.strangers += (report.peers.len() - peers.len()) as u64;
        self.claims.report(now, by, report, &peers);
        for (peer, said) in peers {
            self.note(now, by, peer, said);
        }
    }

    fn note(&mut self, now: Time, by: NodeIndex, peer: NodeIndex, said: &PeerReport) {
        let (to, from) = (Pair::new(by, peer), Pair::new(peer, by));
        if let Some(goes) = said.goes {
            self.note_course(now, to, goes);
        }
        self.matrix.report(now, to, said.offered);
        if said.offered.fast.is_finite() && said.offered.fast >= 0.0 {
            self.sent.entry(to).or_insert(Meter::new(now, said.offered.fast)).note(now, said.offered.fast);
        }
        if said.arrives.is_finite() && said.arrives >= 0.0 {
            self.arrivals.entry(from).or_insert(Meter::new(now, said.arrives)).note(now, said.arrives);
        }
        if said.is_queued == Some(false) {
            self.unqueued.insert(from, now);
        } else {
            self.unqueued.remove(&from);
        }
        if said.is_limited {
            self.limited.insert(to)
        } else {
            self.limited.remove(&to)
        };
        self.note_appetite(to);
        let is_news = if said.has_link {
            self.unlinked.remove(&to.unordered());
            false
        } else {
            self.unlinked.insert(to.unordered()) && self.matrix.rates(to).is_some_and(|rates| rates.fast > BULK)
        };
        // Only this pair may move again at once: a node cannot open the gate for all.
        if is_news {
            self.gate.release(to);
            self.gate.release(from);
            self.deadline = self.deadline.min(now + SOON);
        }
    }

    /// Whether what a node sends to another one may be what makes their round trips longer.
    pub fn may_queue(&self, from: NodeId, to: NodeId) -> bool {
        let pair = self.names.index(from).zip(self.names.index(to)).map(|(from, to)| Pair::new(from, to));
        pair.is_none_or(|pair| !self.unqueued.contains_key(&pair))
    }

    /// When to ask next.
    pub const fn deadline(&self) -> Time {
        self.deadline
    }

    /// Looks at the whole, if it is time.
    pub fn handle_timeout(&mut self, now: Time) -> Option<Plan> {
        if now < self.deadline {
            return None;
        }
        self.deadline = now + self.config.epoch;
        self.expire(now);
        self.noise = self.find_noise();
        self.notice_phase(now);
        self.give_up_orders(now);
        let view = self.view(now);
        self.learn(&view, now);
        if self.gate.is_settling(now) {
            // What is learnt meanwhile may change what is still to be done.
            return self.improve(now).or_else(|| self.finish(now)).or_else(|| self.retire(&view, now));
        }
        self.finish(now).or_else(|| self.retire(&view, now)).or_else(|| self.improve(now))
    }

    fn expire(&mut self, now: Time) {
        self.matrix.expire(now);
        let used = self.paths_in_use();
        self.claims.expire(now, |resource| !matches!(resource, Resource::Path(_)) || used.contains(resource));
        self.sent.retain(|_, sent| now.since(sent.said) <= STALE_AFTER);
        self.arrivals.retain(|_, arrival| now.since(arrival.said) <= STALE_AFTER);
        self.limited.retain(|pair| self.matrix.rates(*pair).is_some());
        self.unqueued.retain(|_, said| now.since(*said) <= STALE_AFTER);
        self.appetites.retain(|pair, _| self.matrix.rates(*pair).is_some());
        self.resting.retain(|_, until| now < *until);
        self.courses.retain(now, |pair| self.matrix.rates(pair).is_some());
    }

    fn paths_in_use(&self) -> BTreeSet<Resource> {
        let ways = self.ways_taken();
        let hops = |pair: Pair| match ways.get(&pair) {
            Some(Via::Relay(relay)) => vec![Pair::new(pair.from, *relay), Pair::new(*relay, pair.to)],
            Some(Via::Direct) | None => vec![pair],
        };
        self.matrix.iter().flat_map(|(pair, _)| hops(pair)).map(Resource::Path).collect()
    }

    /// Another phase of the application voids what was decided in the last one.
    fn notice_phase(&mut self, now: Time) {
        let phase = self.demands(|_| false);
        if self.phases.front().is_some_and(|before| is_other_phase(before, &phase)) {
            self.gate.flag(now);
            self.learnt.reconsider();
            self.queue.clear();
            self.trial = None;
            self.phases.clear();
        }
        if self.phases.len() == PHASE_EPOCHS {
            self.phases.pop_front();
        }
        self.phases.push_back(phase);
    }

    /// What is known now.
    fn view(&mut self, now: Time) -> View {
        let is_settling = self.gate.is_settling(now);
        let capacities = self.limits();
        View {
            nodes: self.names.views(),
            demands: self.demands(|pair| !is_settling && self.routes.contains_key(&pair)),
            routes: self.ways_ordered(now),
            refused: self.courses.refused(),
            capacities,
            unlinked: self.unlinked.clone(),
            held: self.gate.held(now),
        }
    }

    /// Compares what arrived with what should have.
    fn learn(&mut self, view: &View, now: Time) {
        // Memory is no traffic: only what is sent now can show a limit.
        let mut demands = self.offered();
        demands.retain(|pair, _| !self.courses.is_lost(*pair));
        let view = View { demands, routes: self.ways_taken(), ..view.clone() };
        let problem = compile(&view, &self.config, now);
        let (noise, doubts) = (self.noise, self.doubts());
        let seen = |pair: &Pair| {
            let is_sure = |arrival: &&Meter| arrival.count > 0.0 && self.word(&doubts, *pair) == Word::Both;
            let (arrival, sent) = (self.arrivals.get(pair).filter(is_sure)?, self.sent.get(pair)?);
            // A little more than was sent is chance, so much more is not true.
            let rate = arrival.rate.min(sent.rate * BELIEVED);
            let is_held_back = self.is_held_back(*pair);
            Some(Seen { rate, noise: noise / arrival.count.sqrt(), is_held_back })
        };
        let seen = problem.pairs.iter().map(seen).collect::<Vec<_>>();
        // The way in use is the first candidate.
        self.learnt.observe(&problem, &vec![0; seen.len()], (&seen, noise), self.gate.is_settling(now));
    }

    /// Goes on with the plan in hand, or looks at what it brought.
    fn finish(&mut self, now: Time) -> Option<Plan> {
        if let Some(reason) = self.doing.take_if(|_| !self.queue.is_empty()) {
            return self.emit(now, reason);
        }
        let trial = self.trial.take_if(|trial| trial.due <= now)?;
        let (before, after, complaint) = self.compare(&trial);
        let suffers = |pair: &Pair| match &complaint {
            Complaint::None => false,
            Complaint::Of(nodes) => nodes.iter().all(|node| pair.involves(*node)),
            Complaint::Common => true,
        };
        let mut undo = trial.undo.into_iter().filter(|(pair, _)| suffers(pair)).collect::<Vec<_>>();
        if matches!(complaint, Complaint::Of(_)) && !self.is_no_loss(now, &undo) {
            undo.clear();
        }
        let verdict = if undo.is_empty() { Verdict::Kept } else { Verdict::RolledBack };
        let reason = Decision { before, after, ..self.decision(now, verdict) };
        if undo.is_empty() {
            self.decide(reason);
            return None;
        }
        for (pair, _) in &undo {
            self.gate.rolled_back(now, *pair);
        }
        self.queue.extend(undo);
        self.decide(Decision { moves: self.queue.len(), ..reason.clone() });
        self.emit(now, reason)
    }

    /// Whether such moves, as far as is known, leave nobody worse off: part of a plan taken back is a plan of its own.
    fn is_no_loss(&mut self, now: Time, moves: &[(Pair, Via)]) -> bool {
        let view = self.view(now);
        review(&view, &self.config, now, moves).is_some_and(|proposal| proposal.gain() >= 1.0)
    }

    /// Ways that cannot be gone any more, or that nobody goes, are given up.
    fn retire(&mut self, view: &View, now: Time) -> Option<Plan> {
        let is_settling = self.gate.is_settling(now);
        let is_unused =
            |pair: &Pair| self.matrix.rates(*pair).is_none_or(|rates| is_settling && rates.fast < FADED * rates.slow);
        let is_broken = |pair: &Pair, via: &Via| match via {
            Via::Direct => !view.has_link(*pair),
            Via::Relay(relay) => !view.can_relay(*pair, *relay),
        };
        let retired = self.routes.iter().filter(|(pair, via)| is_unused(pair) || is_broken(pair, via));
        let retired = self.orphans.iter().copied().chain(retired.map(|(pair, _)| *pair));
        self.queue = retired.take(self.config.changes_max).map(|pair| (pair, view.usual_way(pair))).collect();
        if self.queue.is_empty() {
            return None;
        }
        let reason = Decision { moves: self.queue.len(), ..self.decision(now, Verdict::Retired) };
        self.decide(reason.clone());
        self.emit(now, reason)
    }

    /// Looks for something better.
    fn improve(&mut self, now: Time) -> Option<Plan> {
        let mut view = self.view(now);
        self.guess(&mut view);
        let is_tried = self.trial.is_some() && !self.gate.is_settling(now);
        if is_tried || !view.demands.keys().any(|pair| self.is_held_back(*pair)) {
            return None;
        }
        let waiting = self.gate.take_confirming();
        let again = waiting.is_some();
        let proposal = match waiting {
            Some(moves) => review(&view, &self.config, now, &moves),
            None => plan(&view, &self.config, now),
        }?;
        let steady_gain = (READINGS * self.noise).max(STEADY_GAIN).min(self.config.gain_min);
        let gain_min = if self.gate.is_settling(now) { SETTLING_GAIN } else { steady_gain };
        let needed = Gate::needed(gain_min, self.claims.deviation());
        let verdict = self.gate.judge(now, &proposal, needed, again);
        let (before, after, moves) = (proposal.before, proposal.after, proposal.moves.len());
        let reason = Decision { before, after, needed, moves, ..self.decision(now, verdict) };
        self.decide(reason.clone());
        (verdict == Verdict::Adopted).then(|| self.adopt(now, &view, proposal, reason))?
    }

    /// Gives links between sites of which nothing is known a capacity: what was never tried is tried little by little,
    /// as what it carries proves more.
    fn guess(&self, view: &mut View) {
        let sites = view.nodes.iter().filter_map(|node| node.site).collect::<BTreeSet<_>>();
        let trunks = sites.iter().flat_map(|from| sites.iter().map(|to| Resource::Trunk(*from, *to)));
        let links = sites.iter().flat_map(|site| [Resource::SiteOut(*site), Resource::SiteIn(*site)]);
        for resource in trunks.chain(links).filter(|resource| self.learnt.is_unknown(*resource)).collect::<Vec<_>>() {
            if let Some(capacity) = self.learnt.guess(resource) {
                view.capacities.limit(resource, capacity);
            }
        }
    }

    fn adopt(&mut self, now: Time, view: &View, proposal: Proposal, reason: Decision) -> Option<Plan> {
        let before = self.arrived(view.demands.keys());
        // What was worth it is what the next has to be better than: evidence of a moment may lead astray later.
        let earlier = self.trial.take().filter(|trial| !self.has_paid_off(trial));
        let left = |pair: &Pair| self.routes.get(pair).copied().unwrap_or_else(|| view.usual_way(*pair));
        let undo = proposal.moves.iter().map(|(pair, _)| (*pair, left(pair))).collect::<BTreeMap<_, _>>();
        self.queue = proposal.moves.into();
        let is_steady = !self.gate.is_settling(now);
        self.trial = Some(Trial { due: Time::NEVER, undo, before, is_steady }.after(earlier));
        self.emit(now, reason)
    }

    /// The next changes of the queue, as a plan.
    fn emit(&mut self, now: Time, reason: Decision) -> Option<Plan> {
        let count = self.queue.len().min(self.config.changes_max);
        let due = self.queue.drain(..count).collect::<Vec<_>>();
        let links = View { nodes: self.names.views(), unlinked: self.unlinked.clone(), ..View::default() };
        for (pair, via) in &due {
            let is_usual = *via == links.usual_way(*pair);
            if is_usual {
                self.routes.remove(pair)
            } else {
                self.routes.insert(*pair, *via)
            };
            self.orphans.remove(pair);
            self.courses.ordered(now, *pair, *via);
            // What nobody goes, or can go, any more costs no other pair its move.
            if reason.verdict != Verdict::Retired {
                self.gate.moved(now, *pair);
            }
        }
        let meters = self.sent.iter_mut().chain(&mut self.arrivals);
        let is_touched = |pair: &Pair| reason.verdict != Verdict::Retired || due.iter().any(|(moved, _)| moved == pair);
        meters.filter(|(pair, _)| is_touched(pair)).for_each(|(_, meter)| meter.restart(now));
        self.told = now;
        self.deadline = now + FIRST_LOOK + LATE;
        self.doing = (!self.queue.is_empty()).then(|| reason.clone());
        if self.queue.is_empty() {
            self.begin_trial(now);
        }
        let changes = due.iter().filter_map(|(pair, via)| self.change(*pair, *via)).collect();
        self.version += 1;
        Some(Plan { version: self.version, changes, reason })
    }

    /// All moves are made: what they brought is seen soon. What else is moved meanwhile puts that off no more.
    fn begin_trial(&mut self, now: Time) {
        if let Some(trial) = self.trial.as_mut().filter(|trial| trial.due == Time::NEVER) {
            trial.due = now + self.config.epoch * TRIAL_EPOCHS;
        }
    }

    fn change(&self, pair: Pair, via: Via) -> Option<Change> {
        let via = match via {
            Via::Direct => None,
            Via::Relay(relay) => Some(self.names.id(relay)?),
        };
        Some(Change { from: self.names.id(pair.from)?, to: self.names.id(pair.to)?, via })
    }

    /// A decision of this moment, still without figures.
    fn decision(&self, now: Time, verdict: Verdict) -> Decision {
        let at_ms = now.as_nanos() / 1_000_000;
        Decision { at_ms, version: self.version + 1, verdict, before: 1.0, after: 1.0, needed: 1.0, moves: 0 }
    }

    fn decide(&mut self, decision: Decision) {
        self.decisions.truncate(DECISIONS_MAX - 1);
        self.decisions.push_front(decision);
    }

    /// What was decided lately, the last first.
    pub fn decisions(&self) -> impl Iterator<Item = &Decision> {
        self.decisions.iter()
    }

    /// What is believed of capacities: as members claim them, and as they were learnt.
    pub fn limits(&self) -> Capacities {
        let mut capacities = self.claims.capacities(self.config.relay_share);
        for (resource, capacity) in self.learnt.iter() {
            capacities.limit(resource, capacity);
        }
        capacities
    }

    /// The ways that are not the usual ones.
    pub fn routes(&self) -> impl Iterator<Item = Change> + '_ {
        self.routes.iter().filter_map(|(pair, via)| self.change(*pair, *via))
    }

    /// The matrix, for those who want to look at it.
    pub const fn matrix(&self) -> &Matrix {
        &self.matrix
    }

    /// What was refused.
    pub fn refused(&self) -> Refused {
        let (reports, claims) = (self.strangers, self.claims.refused());
        Refused { reports, pairs: self.matrix.refused(), claims }
    }
}
