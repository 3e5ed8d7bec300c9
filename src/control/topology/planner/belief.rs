//! What the planner believes of what it is told, where a sender and a receiver should agree.

use std::collections::{BTreeMap, BTreeSet};

use super::{BULK, NOISE_MIN, Planner, Trial};
use crate::control::topology::matrix::{Rates, is_phase_change};
use crate::control::topology::meter::Meter;
use crate::control::topology::{NodeIndex, Pair};
use crate::time::Time;

/// A sender is believed to want so many times what its receiver confirms, and no more.
pub(super) const BELIEVED: f64 = 16.0;
/// And not so many times more than what any other sender lacks.
const APART: f64 = 1.25;
/// Who is held back and of what it sends this share arrives sends no more than gets through, as TCP does...
const YIELDING: f64 = 0.9;
/// ...and wants this many times as much.
const ELASTIC: f64 = 1.25;
/// Who goes on though less than this share arrives does not yield.
const STUBBORN: f64 = 0.8;
/// What a pair wants is known when it was seen so many times in a row.
const APPETITE_TIMES: u32 = 2;
/// So many receivers must tell before it is believed by how much readings deviate, and no more than this.
const WITNESSES: usize = 3;
const NOISE_MAX: f64 = 0.3;
/// Ways are judged when so much of what goes them is seen.
const SEEN: f64 = 0.9;
/// What arrives afterwards is worse than before when this share of it is missing...
const MISSED: f64 = 0.05;
/// ...and this part of what a single reading deviates by: many make up the figure...
const CHANCE: f64 = 0.75;
/// ...and no more than this, whatever anybody reports.
const MISSED_MAX: f64 = 0.1;
/// Where no change is being settled a plan promised more than chance: it is excused by this part of it.
const CHANCE_STEADY: f64 = 0.25;
/// What gets lost of what is sent is this share at least...
const LOST: f64 = 0.05;
/// ...and so many times what the two readings of it deviate by together...
const CLEARLY: f64 = 3.0;
/// ...but chance does not explain more than this, whatever anybody reports.
const LOST_MAX: f64 = 0.3;

/// What a pair sends when it can send all that it wants.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Appetite {
    rate: f64,
    times: u32,
}

/// Whose word counts of what flows between two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Word {
    /// They agree, more or less.
    Both,
    /// The sender's: the receiver contradicts more of its partners.
    Sender,
    /// The receiver's.
    Receiver,
}

/// Who suffers from a plan.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Complaint {
    /// Nobody.
    None,
    /// Only pairs of these nodes, one or both ends of a pair: one of them may lie, or have a reason of its own.
    Of(Vec<NodeIndex>),
    /// Several that have no node in common.
    Common,
}

impl Planner {
    /// What bulk pairs want: no more than a few times what both ends confirm, so that nobody gets room by asking.
    pub(super) fn demands(&self, has_own_way: impl Fn(Pair) -> bool) -> BTreeMap<Pair, f64> {
        let (most, doubts) = (self.most_lacking(), self.doubts());
        let wish = |(pair, rates): (Pair, Rates)| {
            let arrives = self.arrivals.get(&pair)?.recent.max(BULK);
            let borne_out = match self.word(&doubts, pair) {
                Word::Sender => f64::INFINITY,
                Word::Both | Word::Receiver => arrives * most,
            };
            // The average rises slowly from nothing.
            let sent = self.sent.get(&pair).map_or(0.0, |sent| sent.recent);
            let wish = rates.demand(has_own_way(pair)).max(sent).max(self.elastic(pair)).min(borne_out);
            (wish >= BULK).then_some((pair, wish))
        };
        self.matrix.iter().filter_map(wish).collect()
    }

    /// What is sent now, as long as the ways are as they are: of the pairs that are planned for.
    pub(super) fn offered(&self) -> BTreeMap<Pair, f64> {
        let mut offered = self.demands(|_| false);
        for (pair, wish) in &mut offered {
            *wish = self.sent.get(pair).map_or(0.0, |sent| sent.rate.max(self.elastic(*pair)).min(*wish));
        }
        offered
    }

    /// What a pair wants at least that is held back and does not show it by sending more.
    fn elastic(&self, pair: Pair) -> f64 {
        let sent = self.sent.get(&pair).map_or(0.0, |sent| sent.rate);
        let most = self.appetite(pair);
        let is_yielding = |arrival: &&Meter| {
            self.is_limited(pair) && arrival.rate >= sent * YIELDING && arrival.rate < most * YIELDING
        };
        self.arrivals.get(&pair).filter(is_yielding).map_or(0.0, |arrival| (arrival.rate * ELASTIC).min(most))
    }

    /// By which share single readings of what arrives deviate: those of the middle one of all pairs whose sender tells of
    /// them too, so that no receiver decides it alone. Until enough receivers tell, those of what is claimed.
    pub(super) fn find_noise(&self) -> f64 {
        let is_sent =
            |pair: &Pair| self.sent.get(pair).is_some_and(|sent| sent.rate >= BULK) && !self.is_doubtful(*pair);
        let told = self.arrivals.iter().filter(|(pair, arrival)| arrival.rate >= BULK && is_sent(pair));
        let mut known = told.filter_map(|(pair, arrival)| Some((arrival.noise()?, pair.to))).collect::<Vec<_>>();
        known.sort_by(|one, other| one.0.total_cmp(&other.0));
        let receivers = known.iter().map(|(_, receiver)| receiver).collect::<BTreeSet<_>>();
        let noise = if receivers.len() < WITNESSES { self.claims.noise() } else { known[known.len() / 2].0 };
        noise.clamp(NOISE_MIN, NOISE_MAX)
    }

    /// Whether the network holds a pair back, as its round trips show and its receiver does not deny.
    pub(super) fn is_limited(&self, pair: Pair) -> bool {
        self.limited.contains(&pair) && !self.unqueued.contains_key(&pair)
    }

    /// Whether the network holds a pair back, as its sender's queue shows or what gets lost.
    pub(super) fn is_held_back(&self, pair: Pair) -> bool {
        self.is_limited(pair) || self.loses(pair)
    }

    /// Whether a pair sends clearly more than arrives: something holds it back, whether its queue shows it or not.
    fn loses(&self, pair: Pair) -> bool {
        let (Some(sent), Some(arrival)) = (self.sent.get(&pair), self.arrivals.get(&pair)) else { return false };
        let count = sent.count.min(arrival.count);
        // Where one end tells of another rate than before, the other has not yet, or of a part of its time only.
        if count < 1.0 || arrival.count > sent.count || arrival.has_grown() {
            return false;
        }
        let chance = CLEARLY * self.noise * (2.0 / count).sqrt();
        arrival.rate < sent.rate * (1.0 - chance.clamp(LOST, LOST_MAX))
    }

    /// What a pair sends that is not held back, or does not yield, is what it wants: a queue that others fill does not
    /// make it want more. Queues need a moment to fill, so that it must be seen again.
    pub(super) fn note_appetite(&mut self, pair: Pair) {
        let Some(sent) = self.sent.get(&pair).filter(|sent| sent.count > 0.0) else { return };
        let arrival = self.arrivals.get(&pair).filter(|arrival| arrival.count > 0.0);
        let is_stubborn = arrival.is_some_and(|arrival| arrival.rate < sent.rate * STUBBORN);
        let known = self.appetites.remove(&pair).unwrap_or_default();
        if is_stubborn || !self.is_limited(pair) {
            self.appetites.insert(pair, Appetite { rate: sent.rate, times: known.times + 1 });
        } else if known.times >= APPETITE_TIMES && sent.rate <= known.rate * ELASTIC {
            self.appetites.insert(pair, known);
        }
    }

    fn appetite(&self, pair: Pair) -> f64 {
        let known = self.appetites.get(&pair).filter(|known| known.times >= APPETITE_TIMES);
        known.map_or(f64::INFINITY, |known| known.rate)
    }

    /// How many times what arrives a sender may want: what those want who lack most, but for the one above all.
    fn most_lacking(&self) -> f64 {
        let mut lacking: BTreeMap<NodeIndex, f64> = BTreeMap::new();
        for (pair, arrival) in self.arrivals.iter().filter(|(pair, _)| !self.is_doubtful(**pair)) {
            let lacks = self.sent.get(pair).map_or(0.0, |sent| sent.recent / arrival.recent.max(BULK));
            let most = lacking.entry(pair.from).or_default();
            *most = most.max(lacks);
        }
        let mut lacking = lacking.into_values().collect::<Vec<_>>();
        lacking.sort_by(|one, other| other.total_cmp(one));
        (lacking.get(1).copied().unwrap_or(BELIEVED) * APART).clamp(APART, BELIEVED)
    }

    /// Whether much more is offered than its receiver confirms.
    fn is_doubtful(&self, pair: Pair) -> bool {
        let offered = self.sent.get(&pair).map_or(0.0, |sent| sent.recent);
        self.arrivals.get(&pair).is_none_or(|arrival| offered > BELIEVED * arrival.recent.max(BULK))
    }

    /// With how many others each node disagrees.
    pub(super) fn doubts(&self) -> BTreeMap<NodeIndex, usize> {
        let mut doubts: BTreeMap<NodeIndex, usize> = BTreeMap::new();
        for pair in self.sent.keys().filter(|pair| self.arrivals.contains_key(*pair) && self.is_doubtful(**pair)) {
            *doubts.entry(pair.from).or_default() += 1;
            *doubts.entry(pair.to).or_default() += 1;
        }
        doubts
    }

    /// Whose word counts where two disagree: of who disagrees with fewer.
    pub(super) fn word(&self, doubts: &BTreeMap<NodeIndex, usize>, pair: Pair) -> Word {
        let of = |node: NodeIndex| doubts.get(&node).copied().unwrap_or(0);
        match self.is_doubtful(pair) {
            false => Word::Both,
            true if of(pair.to) > of(pair.from) => Word::Sender,
            true => Word::Receiver,
        }
    }

    /// What arrives of each of these pairs.
    pub(super) fn arrived<'a>(&self, pairs: impl Iterator<Item = &'a Pair>) -> BTreeMap<Pair, f64> {
        pairs.filter_map(|pair| Some((*pair, self.arrivals.get(pair)?.rate))).collect()
    }

    /// The least share of what is wanted now that arrived before, and that arrives now; and who complains.
    pub(super) fn compare(&self, trial: &Trial) -> (f64, f64, Complaint) {
        let before = &trial.before;
        let now = self.arrived(before.keys());
        let figures = |without: Option<NodeIndex>| self.figures(before, &now, without);
        let least = match trial.is_steady {
            true => 1.0 - (self.noise * CHANCE_STEADY).min(MISSED),
            false => 1.0 - (self.noise * CHANCE).clamp(MISSED, MISSED_MAX),
        };
        let is_less = |(before, after): (f64, f64), least: f64| after < before * least;
        let all = figures(None);
        let nodes = before.keys().flat_map(|pair| [pair.from, pair.to]).collect::<BTreeSet<_>>();
        let mut complaint = Complaint::None;
        if is_less(all, least) {
            // It is not the affair of one node where others miss more than chance explains, be it little.
            let others = if trial.is_steady { least } else { 1.0 - (self.noise * CHANCE).min(MISSED_MAX) };
            let alone = nodes.into_iter().filter(|node| !is_less(figures(Some(*node)), others)).collect::<Vec<_>>();
            complaint = if alone.is_empty() { Complaint::Common } else { Complaint::Of(alone) };
        }
        (all.0, all.1, complaint)
    }

    /// The least share of what is wanted now that arrived before, and that arrives now, but for pairs of one node.
    fn figures(
        &self,
        before: &BTreeMap<Pair, f64>,
        now: &BTreeMap<Pair, f64>,
        without: Option<NodeIndex>,
    ) -> (f64, f64) {
        let counts = |pair: &Pair| without.is_none_or(|node| !pair.involves(node));
        let wants = |pair: &Pair| self.wants(*pair, before[pair]).filter(|_| counts(pair));
        (lowest(before, wants), lowest(now, wants))
    }

    /// Whether the ways that a trial led to are no worse than those before, as far as is seen of them.
    pub(super) fn has_paid_off(&self, trial: &Trial) -> bool {
        let is_fresh = |pair: &&Pair| self.arrivals.get(*pair).is_some_and(|arrival| arrival.count > 0.0);
        let fresh = trial.before.keys().filter(is_fresh).count() as f64;
        let is_seen = fresh > 0.0 && fresh >= trial.before.len() as f64 * SEEN && trial.due != Time::NEVER;
        let (before, after) = self.figures(&trial.before, &self.arrived(trial.before.keys()), None);
        is_seen && after >= before
    }

    /// What a bulk pair wants now; if it is held back no less than what arrived before: it may send only what arrives.
    fn wants(&self, pair: Pair, before: f64) -> Option<f64> {
        let offered = self.matrix.rates(pair)?.fast;
        let wants = if self.is_limited(pair) { offered.max(before) } else { offered };
        Some(wants).filter(|wants| *wants > BULK)
    }
}

/// Whether the application does something else than before, without the word of any single node.
pub(super) fn is_other_phase(before: &BTreeMap<Pair, f64>, now: &BTreeMap<Pair, f64>) -> bool {
    if !is_phase_change(before, now) {
        return false;
    }
    let without = |node: NodeIndex| {
        let others = |phase: &BTreeMap<Pair, f64>| {
            phase.iter().filter(|(pair, _)| !pair.involves(node)).map(|(pair, rate)| (*pair, *rate)).collect()
        };
        let (before, now): (BTreeMap<_, _>, BTreeMap<_, _>) = (others(before), others(now));
        // Where there is nobody else, nobody else can suffer.
        before.is_empty() && now.is_empty() || is_phase_change(&before, &now)
    };
    let nodes = before.keys().chain(now.keys()).flat_map(|pair| [pair.from, pair.to]).collect::<BTreeSet<_>>();
    nodes.into_iter().all(without)
}

/// The mean share of what is wanted that the lowest quarter of these arrivals is.
fn lowest(arrivals: &BTreeMap<Pair, f64>, wants: impl Fn(&Pair) -> Option<f64>) -> f64 {
    let share = |(pair, arrived): (&Pair, &f64)| Some((arrived / wants(pair)?).min(1.0));
    let mut shares = arrivals.iter().filter_map(share).collect::<Vec<_>>();
    shares.sort_by(f64::total_cmp);
    shares.truncate(shares.len().div_ceil(4));
    if shares.is_empty() { 1.0 } else { shares.iter().sum::<f64>() / shares.len() as f64 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::topology::Via;
    use crate::control::topology::decision::Verdict;
    use crate::control::topology::report::{PeerReport, Report};
    use crate::control::topology::resources::{Resource, Site};
    use crate::control::topology::view::{Config, NodeView};
    use crate::keys::NodeId;

    const SENT: f64 = 1e6;

    fn id(node: u8) -> NodeId {
        NodeId([node; 32])
    }

    /// As many pairs go from one site to another, and these shares of what they send arrive; no sender sees a queue.
    fn carried(shares: &[f64]) -> Planner {
        let (mut planner, pairs) = (Planner::new(Config::default(), Time::START), shares.len() as u8);
        (0..2 * pairs).for_each(|node| put(&mut planner, node, node / pairs));
        for epoch in 1..=10 {
            let now = Time::START + Duration::from_secs(2 * epoch);
            for (from, share) in (0..pairs).zip(shares) {
                say(&mut planner, now, (from, from + pairs), (SENT, 0.0));
                say(&mut planner, now, (from + pairs, from), (0.0, share * SENT));
            }
            planner.handle_timeout(now);
        }
        planner
    }

    fn put(planner: &mut Planner, node: u8, site: u8) {
        let view = NodeView { site: Some(Site(u16::from(site))), relays: true, ..NodeView::default() };
        assert!(planner.put_node(id(node), view));
    }

    /// A node reports what it sends to another one, and what arrives from there.
    fn say(planner: &mut Planner, now: Time, (node, peer): (u8, u8), (sent, arrives): (f64, f64)) {
        let offered = Rates { fast: sent, slow: sent };
        let told = PeerReport { offered, arrives, ..PeerReport::silent(id(peer)) };
        planner.handle_report(now, id(node), &Report { relays: true, peers: vec![told], ..Report::default() });
    }

    #[test]
    fn what_gets_lost_shows_a_limit_though_no_queue_was_seen_to_grow() {
        let limit = |share| carried(&[share, share]).limits().of(Resource::Trunk(Site(0), Site(1)));
        assert!((1.3e6..1.6e6).contains(&limit(0.7)), "{}", limit(0.7));
        assert_eq!(limit(1.0), f64::INFINITY);
    }

    #[test]
    fn who_has_told_less_often_than_the_other_end_may_not_have_told_of_the_change_yet() {
        let (mut planner, pair) = (carried(&[0.7, 0.7]), Pair::new(NodeIndex(0), NodeIndex(2)));
        let mut told = |sent, arrives| {
            planner.sent.entry(pair).and_modify(|meter| meter.count = sent);
            planner.arrivals.entry(pair).and_modify(|meter| meter.count = arrives);
            planner.is_held_back(pair)
        };
        assert!(told(2.0, 2.0) && told(3.0, 2.0));
        assert!(!told(2.0, 3.0));
        assert!(!told(0.0, 0.0), "ways were changed, and nobody has told since");
    }

    #[test]
    fn what_begins_between_two_reports_is_not_lost_by_half() {
        let (mut planner, pair) = (carried(&[1.0, 1.0]), Pair::new(NodeIndex(0), NodeIndex(3)));
        let mut told = |seconds: u64, fast: f64, arrives: f64| {
            let now = Time::START + Duration::from_secs(seconds);
            say(&mut planner, now, (0, 3), (fast, 0.0));
            say(&mut planner, now, (3, 0), (0.0, arrives));
            planner.is_held_back(pair)
        };
        assert!(!told(20, SENT, 0.0));
        assert!(!told(22, SENT, 0.4 * SENT), "half of the time it had not begun to arrive");
        assert!(told(24, SENT, 0.4 * SENT));
    }

    #[test]
    fn a_receiver_can_deny_that_its_sender_is_held_back() {
        let mut planner = carried(&[1.0, 1.0]);
        let pair = Pair::new(NodeIndex(0), NodeIndex(2));
        let mut tell = |is_limited, is_queued| {
            let now = Time::START + Duration::from_secs(21);
            let sender = PeerReport { is_limited, ..PeerReport::silent(id(2)) };
            let receiver = PeerReport { is_queued, ..PeerReport::silent(id(0)) };
            for (from, peer) in [(2, receiver), (0, sender)] {
                planner.handle_report(now, id(from), &Report { peers: vec![peer], ..Report::default() });
            }
            (planner.is_limited(pair), planner.may_queue(id(0), id(2)))
        };
        assert_eq!(tell(true, None), (true, true), "nobody knows better");
        assert_eq!(tell(true, Some(false)), (false, false), "the queue is on the way back");
        assert_eq!(tell(true, Some(true)), (true, true));
        assert_eq!(tell(false, Some(true)), (false, true), "a clock that runs fast looks like that");
        tell(true, Some(false));
        planner.handle_timeout(Time::START + Duration::from_secs(30));
        assert!(planner.may_queue(id(0), id(2)), "that was long ago");
    }

    /// A plan before which these pairs had these rates.
    fn trial(rates: &[f64], due: Time) -> Trial {
        let pair = |from: usize| Pair::new(NodeIndex(from as u16), NodeIndex((from + rates.len()) as u16));
        let before = (0..rates.len()).map(|from| (pair(from), rates[from])).collect();
        Trial { due, undo: BTreeMap::new(), before, is_steady: false }
    }

    #[test]
    fn a_plan_that_brings_a_little_less_is_kept_only_while_a_change_settles() {
        let told = |is_steady, rate| {
            carried(&[0.7; 2]).compare(&Trial { is_steady, ..trial(&[rate * SENT; 2], Time::START) }).2
        };
        assert_eq!(told(false, 0.72), Complaint::None);
        assert_eq!(told(true, 0.72), Complaint::Common);
        assert_eq!(told(true, 0.703), Complaint::None, "that is chance");
        assert_eq!(told(false, 0.8), Complaint::Common);
    }

    #[test]
    fn where_others_miss_a_little_more_than_chance_explains_all_complain() {
        let told = |other| carried(&[0.7, other, 1.0, 1.0]).compare(&trial(&[SENT; 4], Time::START)).2;
        assert_eq!(told(1.0), Complaint::Of(vec![NodeIndex(0), NodeIndex(4)]));
        assert_eq!(told(0.99), Complaint::Of(vec![NodeIndex(0), NodeIndex(4)]), "that is chance");
        assert_eq!(told(0.96), Complaint::Common, "a plan that only this much is missing after is kept");
    }

    #[test]
    fn a_part_of_a_plan_is_taken_back_only_where_that_is_no_loss() {
        let (now, pair) = (Time::START + Duration::from_secs(30), Pair::new(NodeIndex(0), NodeIndex(2)));
        let relay = Via::Relay(NodeIndex(4));
        let looked = |way: Via, before: Via| {
            // The trunk between the two sites carries 1.4 of the 2.0 that both pairs want.
            let mut planner = carried(&[0.7, 0.7]);
            put(&mut planner, 4, 2);
            planner.routes.extend((way == relay).then_some((pair, way)));
            let (undo, before) = (BTreeMap::from([(pair, before)]), BTreeMap::from([(pair, SENT)]));
            planner.trial = Some(Trial { due: now, undo, before, is_steady: false });
            planner.finish(now).map(|plan| plan.reason.verdict)
        };
        assert_eq!(looked(Via::Direct, relay), Some(Verdict::RolledBack));
        assert_eq!(looked(relay, Via::Direct), None, "its way back is full");
    }

    #[test]
    fn a_plan_has_paid_off_when_all_of_it_is_seen_to_bring_no_less() {
        let due = Time::START + Duration::from_secs(30);
        let paid_off = |rate, due| carried(&[0.7; 2]).has_paid_off(&trial(&[rate * SENT; 2], due));
        assert!(paid_off(0.5, due));
        assert!(!paid_off(0.9, due), "it brought less");
        assert!(!paid_off(0.5, Time::NEVER), "it is not carried out yet");
        let mut unseen = carried(&[0.7; 2]);
        unseen.arrivals.values_mut().for_each(|arrival| arrival.restart(due));
        assert!(!unseen.has_paid_off(&trial(&[0.5 * SENT; 2], due)), "nothing is known since");
    }
}
