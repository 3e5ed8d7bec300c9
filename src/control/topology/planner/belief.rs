//! What the planner believes of what it is told, where a sender and a receiver should agree.

use std::collections::{BTreeMap, BTreeSet};

use super::{BULK, Planner};
use crate::control::topology::matrix::{Rates, is_phase_change};
use crate::control::topology::{NodeIndex, Pair};

/// A sender is believed to want so many times what its receiver confirms, and no more.
const BELIEVED: f64 = 16.0;
/// And not so many times more than what any other sender lacks.
const APART: f64 = 1.25;
/// Where this share of what is sent arrives though the network holds it back, its sender yields to that, as TCP does,
/// and would send more...
const YIELDS: f64 = 0.9;
/// ...nobody knows how much: it is taken for so many times what it sends.
const WANTS: f64 = 1.25;
/// What arrives afterwards is worse than before when it is less than this share of it.
const DELIVERED: f64 = 0.95;

/// Who suffers from a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Complaint {
    /// Nobody.
    None,
    /// Only pairs of this node: it may lie, or have a reason of its own.
    Of(NodeIndex),
    /// Several that have no node in common.
    Common,
}

impl Planner {
    /// What bulk pairs want: no more than a few times what both ends confirm, so that nobody gets room by asking.
    pub(super) fn demands(&self, has_own_way: impl Fn(Pair) -> bool) -> BTreeMap<Pair, f64> {
        let most = self.most_lacking();
        let wish = |(pair, rates): (Pair, Rates)| {
            let arrives = self.arrivals.get(&pair)?.recent.max(BULK);
            let wish = (rates.demand(has_own_way(pair)) * self.wants(pair)).min(arrives * most);
            (wish >= BULK).then_some((pair, wish))
        };
        self.matrix.iter().filter_map(wish).collect()
    }

    /// What is sent now, as long as the ways are as they are: of the pairs that are planned for.
    pub(super) fn offered(&self) -> BTreeMap<Pair, f64> {
        let mut offered = self.demands(|_| false);
        for (pair, wish) in &mut offered {
            *wish = self.sent.get(pair).map_or(0.0, |sent| (sent.rate * self.wants(*pair)).min(*wish));
        }
        offered
    }

    /// How many times what is sent a pair would send if the network did not hold it back.
    fn wants(&self, pair: Pair) -> f64 {
        let (Some(sent), Some(arrival)) = (self.sent.get(&pair), self.arrivals.get(&pair)) else { return 1.0 };
        let yields = self.limited.contains(&pair) && arrival.rate >= sent.rate * YIELDS;
        if yields { WANTS } else { 1.0 }
    }

    /// How many times what arrives a sender may want: what those want who lack most, but for the one above all.
    fn most_lacking(&self) -> f64 {
        let mut lacking: BTreeMap<NodeIndex, f64> = BTreeMap::new();
        for (pair, arrival) in &self.arrivals {
            let lacks = self.sent.get(pair).map_or(0.0, |sent| sent.recent / arrival.recent.max(BULK));
            let most = lacking.entry(pair.from).or_default();
            *most = most.max(lacks);
        }
        let mut lacking = lacking.into_values().collect::<Vec<_>>();
        lacking.sort_by(|one, other| other.total_cmp(one));
        (lacking.get(1).copied().unwrap_or(BELIEVED) * APART).clamp(APART, BELIEVED)
    }

    /// Whether much more is offered than its receiver confirms.
    pub(super) fn is_doubtful(&self, pair: Pair, offered: f64) -> bool {
        self.arrivals.get(&pair).is_none_or(|arrival| offered > BELIEVED * arrival.recent.max(BULK))
    }

    /// What arrives of each of these pairs.
    pub(super) fn arrived<'a>(&self, pairs: impl Iterator<Item = &'a Pair>) -> BTreeMap<Pair, f64> {
        pairs.filter_map(|pair| Some((*pair, self.arrivals.get(pair)?.rate))).collect()
    }

    /// The least share of what is offered now that arrived before, and that arrives now; and who complains.
    pub(super) fn compare(&self, before: &BTreeMap<Pair, f64>) -> (f64, f64, Complaint) {
        let now = self.arrived(before.keys());
        let figures = |without: Option<NodeIndex>| {
            let counts = |pair: &Pair| without.is_none_or(|node| !pair.involves(node));
            (self.lowest(before, counts), self.lowest(&now, counts))
        };
        let is_worse = |(before, after): (f64, f64)| after < before * DELIVERED;
        let all = figures(None);
        let nodes = before.keys().flat_map(|pair| [pair.from, pair.to]).collect::<BTreeSet<_>>();
        let alone = || nodes.iter().find(|node| !is_worse(figures(Some(**node))));
        let complaint = match is_worse(all) {
            false => Complaint::None,
            true => alone().map_or(Complaint::Common, |node| Complaint::Of(*node)),
        };
        (all.0, all.1, complaint)
    }

    /// The mean share of what is offered now that the lowest quarter of these arrivals is.
    fn lowest(&self, arrivals: &BTreeMap<Pair, f64>, counts: impl Fn(&Pair) -> bool) -> f64 {
        let share = |(pair, arrived): (&Pair, &f64)| {
            let offered = self.matrix.rates(*pair)?.fast;
            (offered > BULK && counts(pair)).then_some((arrived / offered).min(1.0))
        };
        let mut shares = arrivals.iter().filter_map(share).collect::<Vec<_>>();
        shares.sort_by(f64::total_cmp);
        shares.truncate(shares.len().div_ceil(4));
        if shares.is_empty() { 1.0 } else { shares.iter().sum::<f64>() / shares.len() as f64 }
    }

    /// Whether the application does something else than before, without the word of any single node.
    pub(super) fn is_other_phase(&self, now: &BTreeMap<Pair, f64>) -> bool {
        if !is_phase_change(&self.phase, now) {
            return false;
        }
        let without = |node: NodeIndex| {
            let others = |phase: &BTreeMap<Pair, f64>| {
                phase.iter().filter(|(pair, _)| !pair.involves(node)).map(|(pair, rate)| (*pair, *rate)).collect()
            };
            let (before, now): (BTreeMap<_, _>, BTreeMap<_, _>) = (others(&self.phase), others(now));
            // Where there is nobody else, nobody else can suffer.
            before.is_empty() && now.is_empty() || is_phase_change(&before, &now)
        };
        self.phase
            .keys()
            .chain(now.keys())
            .flat_map(|pair| [pair.from, pair.to])
            .collect::<BTreeSet<_>>()
            .into_iter()
            .all(without)
    }
}
