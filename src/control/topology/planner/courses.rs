//! Which ways traffic really goes, as its senders say: an order is carried out a moment later, or never.
//!
//! A relay must grant a leg and the leg must answer before the first frame takes it; some relays refuse, some ways fail
//! later. What arrives is evidence of the way that was gone, not of the one that was ordered. An order that is not
//! carried out in time is given up, and not given again for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Goes, LATE, Planner};
use crate::control::topology::{NodeIndex, Pair, Via};
use crate::time::Time;

/// From a plan until its ways must be gone: a relay is asked three times, a second apart.
const PATIENCE: Duration = Duration::from_secs(5);
/// A relay that did not come to carry a pair is not ordered for it again before this.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// The way of one pair.
#[derive(Clone, Copy, Debug)]
struct Course {
    /// None: by somebody unknown.
    via: Option<Via>,
    /// Before this an order may not be carried out yet.
    due: Time,
}

/// The ways of all pairs whose senders tell of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Courses {
    gone: BTreeMap<Pair, Course>,
    refused: BTreeMap<(Pair, NodeIndex), Time>,
}

impl Courses {
    /// Relays that did not come to carry.
    pub(super) fn refused(&self) -> BTreeSet<(Pair, NodeIndex)> {
        self.refused.keys().copied().collect()
    }

    /// A pair was ordered to go another way.
    pub(super) fn ordered(&mut self, now: Time, pair: Pair) {
        if let Some(course) = self.gone.get_mut(&pair) {
            course.due = now + PATIENCE;
        }
    }

    /// Forgets pairs that no longer talk.
    pub(super) fn retain(&mut self, now: Time, keep: impl Fn(Pair) -> bool) {
        self.gone.retain(|pair, _| keep(*pair));
        self.refused.retain(|_, until| now < *until);
    }

    /// Forgets a node.
    pub(super) fn remove(&mut self, node: NodeIndex) {
        let is_its = |pair: &Pair, via: Option<Via>| pair.involves(node) || via == Some(Via::Relay(node));
        self.gone.retain(|pair, course| !is_its(pair, course.via));
        self.refused.retain(|(pair, relay), _| !is_its(pair, Some(Via::Relay(*relay))));
    }
}

impl Planner {
    /// A sender says which way a pair goes, and since when.
    pub(super) fn note_course(&mut self, now: Time, pair: Pair, goes: Goes) {
        let via = match goes.via {
            None => Some(Via::Direct),
            Some(relay) => self.names.index(relay).map(Via::Relay),
        };
        let known = self.courses.gone.get(&pair).copied();
        let due = known.map_or(Time::START, |course| course.due);
        self.courses.gone.insert(pair, Course { via, due });
        // What was counted across the change is no evidence. One that came with the plan was counted for already.
        let began = Time::START + now.since(Time::START).saturating_sub(goes.span);
        if known.is_some_and(|known| known.via != via) && began > self.told + LATE {
            let meters = [self.sent.get_mut(&pair), self.arrivals.get_mut(&pair)];
            meters.into_iter().flatten().for_each(|meter| meter.restart(began));
        }
    }

    /// The ways that pairs go: as their senders say, else as ordered.
    pub(super) fn ways_gone(&self) -> BTreeMap<Pair, Via> {
        let mut ways = self.routes.clone();
        ways.extend(self.courses.gone.iter().filter_map(|(pair, course)| Some((*pair, course.via?))));
        ways
    }

    /// The ways that pairs will go when all orders are carried out.
    pub(super) fn ways_ordered(&self) -> BTreeMap<Pair, Via> {
        let mut ways = self.ways_gone();
        ways.extend(&self.routes);
        ways
    }

    /// Orders that should be carried out by now and are not: they are taken back, and not given again soon.
    pub(super) fn give_up_orders(&mut self, now: Time) {
        let is_failed = |(pair, via): &(&Pair, &Via)| {
            self.courses.gone.get(pair).is_some_and(|course| course.due <= now && course.via != Some(**via))
        };
        let failed: Vec<_> = self.routes.iter().filter(is_failed).map(|(pair, via)| (*pair, *via)).collect();
        for (pair, via) in failed {
            self.routes.remove(&pair);
            self.orphans.insert(pair);
            if let Via::Relay(relay) = via {
                self.courses.refused.insert((pair, relay), now + REFUSED_FOR);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::topology::matrix::Rates;
    use crate::control::topology::report::{PeerReport, Report};
    use crate::control::topology::view::{Config, NodeView};
    use crate::keys::NodeId;

    const PAIR: Pair = Pair::new(NodeIndex(0), NodeIndex(1));
    const RELAY: NodeIndex = NodeIndex(2);

    fn at(seconds: u64) -> Time {
        Time::START + Duration::from_secs(seconds)
    }

    fn id(node: NodeIndex) -> NodeId {
        NodeId([node.0 as u8; 32])
    }

    /// Three members; the first was ordered at ten seconds to reach the second by the third.
    fn ordered() -> Planner {
        let mut planner = Planner::new(Config::default(), Time::START);
        for node in [PAIR.from, PAIR.to, RELAY] {
            assert!(planner.put_node(id(node), NodeView { relays: true, ..NodeView::default() }));
        }
        say(&mut planner, at(10), None, 60);
        planner.told = at(10);
        planner.routes.insert(PAIR, Via::Relay(RELAY));
        planner.courses.ordered(at(10), PAIR);
        planner
    }

    /// The first member reports by whom it goes, and for how long.
    fn say(planner: &mut Planner, now: Time, via: Option<NodeIndex>, seconds: u64) {
        let goes = Some(Goes { via: via.map(id), span: Duration::from_secs(seconds) });
        let offered = Rates { fast: 1e6, slow: 1e6 };
        let (capacity_to, capacity_from) = (None, None);
        let peer = id(PAIR.to);
        let to = PeerReport {
            peer,
            offered,
            arrives: 0.0,
            is_limited: true,
            capacity_to,
            capacity_from,
            has_link: true,
            goes,
        };
        planner.handle_report(now, id(PAIR.from), &Report { relays: true, peers: vec![to], ..Report::default() });
    }

    #[test]
    fn what_flows_is_charged_to_the_way_it_goes_and_an_order_to_the_way_it_will() {
        let mut planner = ordered();
        say(&mut planner, at(12), None, 60);
        assert_eq!(planner.ways_gone().get(&PAIR), Some(&Via::Direct));
        assert_eq!(planner.ways_ordered().get(&PAIR), Some(&Via::Relay(RELAY)));
        say(&mut planner, at(14), Some(RELAY), 1);
        assert_eq!(planner.ways_gone().get(&PAIR), Some(&Via::Relay(RELAY)));
    }

    #[test]
    fn what_was_counted_before_an_order_was_carried_out_is_no_evidence_for_it() {
        let mut planner = ordered();
        say(&mut planner, at(12), None, 60);
        say(&mut planner, at(14), None, 60);
        assert!(planner.sent[&PAIR].count > 0.0, "it goes as before");
        say(&mut planner, at(16), Some(RELAY), 1);
        assert_eq!(planner.sent[&PAIR].count, 0.0, "half of the time by another way");
        say(&mut planner, at(18), Some(RELAY), 3);
        assert_eq!(planner.sent[&PAIR].count, 1.0);
    }

    #[test]
    fn an_order_that_is_not_carried_out_is_taken_back_and_not_given_again_soon() {
        let mut planner = ordered();
        say(&mut planner, at(12), None, 60);
        planner.give_up_orders(at(14));
        assert!(planner.routes.contains_key(&PAIR), "it may still be");
        planner.give_up_orders(at(15));
        assert!(planner.routes.is_empty() && planner.orphans.contains(&PAIR));
        assert!(!planner.view(at(15)).can_relay(PAIR, RELAY));
        say(&mut planner, at(80), None, 120);
        planner.expire(at(80));
        assert!(planner.view(at(80)).can_relay(PAIR, RELAY));
    }

    #[test]
    fn a_way_that_was_given_up_later_is_no_order_any_more() {
        let mut planner = ordered();
        say(&mut planner, at(12), Some(RELAY), 1);
        planner.give_up_orders(at(30));
        assert!(planner.routes.contains_key(&PAIR));
        say(&mut planner, at(32), None, 1);
        planner.give_up_orders(at(32));
        assert!(planner.routes.is_empty());
    }
}
