//! What the planner believes of what it is told, where a sender and a receiver should agree.

use std::collections::BTreeMap;

use super::{BULK, Planner};
use crate::control::topology::Pair;
use crate::control::topology::matrix::Rates;

/// Nobody is believed to want more than this many times what its receiver confirms.
const BELIEVED: f64 = 16.0;

impl Planner {
    /// What bulk pairs want. What their receivers do not nearly confirm counts no more than the greatest wish
    /// that is confirmed: one of the two lies, and nobody knows which.
    pub(super) fn demands(&self, has_own_way: impl Fn(Pair) -> bool) -> BTreeMap<Pair, f64> {
        let wish = |(pair, rates): (Pair, Rates)| {
            self.arrivals.get(&pair)?;
            let wish = rates.demand(has_own_way(pair));
            (wish >= BULK).then_some((pair, wish))
        };
        let mut wishes = self.matrix.iter().filter_map(wish).collect::<BTreeMap<_, _>>();
        let sound = wishes.iter().filter(|(pair, wish)| !self.is_doubtful(**pair, **wish)).map(|(_, wish)| *wish);
        let most = sound.fold(BULK, f64::max);
        for (pair, wish) in &mut wishes {
            if self.is_doubtful(*pair, *wish) {
                *wish = wish.min(most);
            }
        }
        wishes
    }

    /// What is sent now, as long as the ways are as they are: of the pairs that are planned for.
    pub(super) fn offered(&self) -> BTreeMap<Pair, f64> {
        let mut offered = self.demands(|_| false);
        for (pair, wish) in &mut offered {
            *wish = self.sent.get(pair).map_or(0.0, |sent| sent.rate.min(*wish));
        }
        offered
    }

    /// Whether much more is offered than its receiver confirms.
    pub(super) fn is_doubtful(&self, pair: Pair, offered: f64) -> bool {
        self.arrivals.get(&pair).is_none_or(|arrival| offered > BELIEVED * arrival.rate.max(BULK))
    }

    /// What arrives of each of these pairs.
    pub(super) fn arrived<'a>(&self, pairs: impl Iterator<Item = &'a Pair>) -> BTreeMap<Pair, f64> {
        pairs.filter_map(|pair| Some((*pair, self.arrivals.get(pair)?.rate))).collect()
    }

    /// The mean share of what is offered now that the lowest quarter of these arrivals is.
    pub(super) fn lowest(&self, arrivals: &BTreeMap<Pair, f64>) -> f64 {
        let share = |(pair, arrived): (&Pair, &f64)| {
            let offered = self.matrix.rates(*pair)?.fast;
            (offered > BULK).then_some((arrived / offered).min(1.0))
        };
        let mut shares = arrivals.iter().filter_map(share).collect::<Vec<_>>();
        shares.sort_by(f64::total_cmp);
        shares.truncate(shares.len().div_ceil(4));
        if shares.is_empty() { 1.0 } else { shares.iter().sum::<f64>() / shares.len() as f64 }
    }
}
