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

/// From a plan until its ways must be gone: a relay is asked four times a second until then.
const PATIENCE: Duration = Duration::from_secs(5);
/// A relay that did not come to carry a pair is not ordered for it again before this.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// The way that a pair takes, as its sender said last.
#[derive(Clone, Copy, Debug)]
struct Course {
    /// None: by somebody unknown, or by whom it cannot be.
    via: Option<Via>,
    said: Time,
}

/// The last that was ordered for a pair.
#[derive(Clone, Copy, Debug)]
struct Order {
    via: Via,
    /// Then it is carried out, or it failed.
    due: Time,
}

/// The ways of all pairs whose senders tell of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Courses {
    taken: BTreeMap<Pair, Course>,
    orders: BTreeMap<Pair, Order>,
    refused: BTreeMap<(Pair, NodeIndex), Time>,
}

impl Courses {
    /// Relays that did not come to carry, or carry no more.
    pub(super) fn refused(&self) -> BTreeSet<(Pair, NodeIndex)> {
        self.refused.keys().copied().collect()
    }

    /// Whether nobody knows where a pair's traffic goes: it is evidence of nothing.
    pub(super) fn is_lost(&self, pair: Pair) -> bool {
        self.taken.get(&pair).is_some_and(|course| course.via.is_none())
    }

    /// A pair was ordered to go another way.
    pub(super) fn ordered(&mut self, now: Time, pair: Pair, via: Via) {
        self.orders.insert(pair, Order { via, due: now + PATIENCE });
    }

    /// Forgets pairs that no longer talk.
    pub(super) fn retain(&mut self, now: Time, keep: impl Fn(Pair) -> bool) {
        self.taken.retain(|pair, _| keep(*pair));
        self.orders.retain(|pair, order| keep(*pair) || now < order.due);
        self.refused.retain(|_, until| now < *until);
    }

    /// Forgets a node.
    pub(super) fn remove(&mut self, node: NodeIndex) {
        self.taken.retain(|pair, _| !pair.involves(node));
        self.taken.values_mut().for_each(|course| course.via = course.via.filter(|via| *via != Via::Relay(node)));
        self.orders.retain(|pair, order| !pair.involves(node) && order.via != Via::Relay(node));
        self.refused.retain(|(pair, relay), _| !pair.involves(node) && *relay != node);
    }
}

impl Planner {
    /// A sender says which way a pair goes, and since when.
    pub(super) fn note_course(&mut self, now: Time, pair: Pair, goes: Goes) {
        let via = self.believed(pair, goes);
        let before = self.courses.taken.insert(pair, Course { via, said: now });
        // What was counted across the change is no evidence. One that came with the plan was counted for already.
        let began = now.before(goes.span);
        if before.is_some_and(|before| before.via != via) && began > self.told + LATE {
            let meters = [self.sent.get_mut(&pair), self.arrivals.get_mut(&pair)];
            meters.into_iter().flatten().for_each(|meter| meter.restart(began));
        }
    }

    /// The way that a sender claims, if it was told to go there or may have to: nobody charges others with its traffic.
    fn believed(&self, pair: Pair, goes: Goes) -> Option<Via> {
        let Some(relay) = goes.via else { return Some(Via::Direct) };
        let index = self.names.index(relay)?;
        let via = Via::Relay(index);
        let order = self.courses.orders.get(&pair).map(|order| order.via);
        let before = self.courses.taken.get(&pair).and_then(|course| course.via);
        let is_known = [order, before, self.routes.get(&pair).copied()].contains(&Some(via));
        let node = self.names.views()[usize::from(index.0)];
        let may_have_to = node.is_supernode || node.relays && self.unlinked.contains(&pair.unordered());
        (is_known || may_have_to && !pair.involves(index)).then_some(via)
    }

    /// The ways that pairs take: as their senders say, else as ordered.
    pub(super) fn ways_taken(&self) -> BTreeMap<Pair, Via> {
        let mut ways = self.routes.clone();
        ways.extend(self.courses.taken.iter().filter_map(|(pair, course)| Some((*pair, course.via?))));
        ways
    }

    /// The ways that pairs will take when all orders are carried out.
    pub(super) fn ways_ordered(&self, now: Time) -> BTreeMap<Pair, Via> {
        let mut ways = self.ways_taken();
        ways.extend(
            self.courses.orders.iter().filter(|(_, order)| now < order.due).map(|(pair, order)| (*pair, order.via)),
        );
        ways.extend(&self.routes);
        ways
    }

    /// Orders that should be carried out by now and are not: they are taken back, and not given again soon.
    pub(super) fn give_up_orders(&mut self, now: Time) {
        let is_failed = |(pair, via): &(&Pair, &Via)| {
            let due = self.courses.orders.get(pair).map_or(now, |order| order.due);
            let course = self.courses.taken.get(pair);
            course.is_some_and(|course| due <= course.said && course.via != Some(**via))
        };
        let failed: Vec<_> = self.routes.iter().filter(is_failed).map(|(pair, via)| (*pair, *via)).collect();
        for (pair, via) in failed {
            self.routes.remove(&pair);
            self.orphans.insert(pair);
            self.gate.rolled_back(now, pair);
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
        planner.courses.ordered(at(10), PAIR, Via::Relay(RELAY));
        planner
    }

    /// The first member reports by whom it goes, and for how long.
    fn say(planner: &mut Planner, now: Time, via: Option<NodeIndex>, seconds: u64) {
        let goes = Some(Goes { via: via.map(id), span: Duration::from_secs(seconds) });
        let offered = Rates { fast: 1e6, slow: 1e6 };
        let to = PeerReport { offered, is_limited: true, goes, ..PeerReport::silent(id(PAIR.to)) };
        planner.handle_report(now, id(PAIR.from), &Report { relays: true, peers: vec![to], ..Report::default() });
    }

    #[test]
    fn what_flows_is_charged_to_the_way_it_goes_and_an_order_to_the_way_it_will() {
        let mut planner = ordered();
        say(&mut planner, at(12), None, 60);
        assert_eq!(planner.ways_taken().get(&PAIR), Some(&Via::Direct));
        assert_eq!(planner.ways_ordered(at(12)).get(&PAIR), Some(&Via::Relay(RELAY)));
        say(&mut planner, at(14), Some(RELAY), 1);
        assert_eq!(planner.ways_taken().get(&PAIR), Some(&Via::Relay(RELAY)));
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
        say(&mut planner, at(14), None, 60);
        planner.give_up_orders(at(15));
        assert!(planner.routes.contains_key(&PAIR), "it may have been since");
        say(&mut planner, at(16), None, 60);
        planner.give_up_orders(at(16));
        assert!(planner.routes.is_empty() && planner.orphans.contains(&PAIR));
        assert!(!planner.view(at(16)).can_relay(PAIR, RELAY));
        say(&mut planner, at(80), None, 120);
        planner.expire(at(80));
        assert!(planner.view(at(80)).can_relay(PAIR, RELAY));
    }

    #[test]
    fn nobody_charges_a_third_with_its_traffic_by_its_word_alone() {
        let mut planner = ordered();
        planner.routes.clear();
        planner.courses.orders.clear();
        say(&mut planner, at(12), Some(RELAY), 1);
        assert!(planner.courses.is_lost(PAIR), "it was not sent there, and has a link");
        assert!(!planner.ways_taken().contains_key(&PAIR));
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
