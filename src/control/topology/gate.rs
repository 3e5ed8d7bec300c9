//! The gate before every plan: the whole plan must be worth it, twice, and not too often.
//!
//! This is the damping. It judges whole plans, not single moves: in an all-to-all no single pair helps
//! much, and a bar for each move would leave it stuck.

use std::collections::BTreeMap;
use std::time::Duration;

use super::decision::Verdict;
use super::plan::Proposal;
use super::{NodeIndex, Pair, Via};
use crate::time::Time;

/// Plans at once.
const TOKENS: f64 = 3.0;
/// And one more in this time: over five minutes no more than one each minute.
const REFILL: Duration = Duration::from_secs(150);
/// Moves of each pair in a minute, on average; a great plan is paid for afterwards.
const MOVES: f64 = 0.08;
/// A flagged change lets plans pass unconfirmed, and pairs move again, for this long: what is learnt of a
/// new phase comes in steps.
const SETTLING: Duration = Duration::from_secs(20);
/// A flag fills the bucket at most this often, whatever anybody reports.
const FLAG_GAP: Duration = Duration::from_secs(30);
/// A pair that was moved stays.
const HOLD: Duration = Duration::from_secs(30);
/// After a rollback it stays longer, twice as long each time.
const HOLD_BACK: Duration = Duration::from_secs(60);
/// But not for ever.
const HOLD_MAX: Duration = Duration::from_secs(600);
/// A bar that rises with the noise of the estimates.
const NOISE: f64 = 1.25;

#[derive(Clone, Copy, Debug)]
struct Hold {
    until: Time,
    /// How long it will be after a rollback.
    next: Duration,
}

/// The gate's memory.
#[derive(Clone, Debug)]
pub struct Gate {
    tokens: f64,
    /// Moves that may still be made; less than none after a great plan.
    moves: f64,
    counted: Time,
    flagged: Option<Time>,
    confirming: Option<Vec<(Pair, Via)>>,
    holds: BTreeMap<Pair, Hold>,
}

impl Gate {
    /// With a full bucket.
    pub fn new(now: Time) -> Self {
        Self { tokens: TOKENS, moves: 1.0, counted: now, flagged: None, confirming: None, holds: BTreeMap::new() }
    }

    /// The application changed, or a path died: what was decided before counts less.
    pub fn flag(&mut self, now: Time) {
        let is_due = self.flagged.is_none_or(|last| now.since(last) >= FLAG_GAP);
        if is_due {
            self.flagged = Some(now);
            self.tokens = TOKENS;
            self.confirming = None;
            // What was taken back was wrong for what was sent then; who is taken back again stays longer as before.
            self.holds.values_mut().for_each(|hold| hold.until = hold.until.min(now));
        }
    }

    /// Whether a flagged change is still being settled.
    pub fn is_settling(&self, now: Time) -> bool {
        self.flagged.is_some_and(|flagged| now.since(flagged) < SETTLING)
    }

    /// Moves that wait to be confirmed.
    pub fn take_confirming(&mut self) -> Option<Vec<(Pair, Via)>> {
        self.confirming.take()
    }

    /// What the gain of a plan must reach when estimates deviate by this share.
    pub fn needed(gain_min: f64, deviation: f64) -> f64 {
        1.0 + gain_min.max(NOISE * deviation)
    }

    /// Judges a proposal for so many pairs; `again` if it is one that was to be confirmed.
    pub fn judge(&mut self, now: Time, proposal: &Proposal, needed: f64, again: bool) -> Verdict {
        self.refill(now, proposal.pairs as f64 * MOVES);
        if proposal.gain() < needed {
            return Verdict::TooLittle;
        }
        // What is learnt while a change settles refines one plan; it is not another.
        if self.is_settling(now) {
            return Verdict::Adopted;
        }
        if self.tokens < 1.0 || self.moves <= 0.0 {
            return Verdict::TooOften;
        }
        if !again {
            self.confirming = Some(proposal.moves.clone());
            return Verdict::Confirming;
        }
        self.tokens -= 1.0;
        Verdict::Adopted
    }

    fn refill(&mut self, now: Time, moves: f64) {
        let passed = now.since(self.counted).as_secs_f64();
        self.moves = (self.moves + passed / 60.0 * moves).min(moves);
        self.tokens = (self.tokens + passed / REFILL.as_secs_f64()).min(TOKENS);
        self.counted = now;
    }

    /// Notes that a pair was moved.
    pub fn moved(&mut self, now: Time, pair: Pair) {
        if !self.is_settling(now) {
            self.moves -= 1.0;
        }
        let hold = self.holds.entry(pair).or_insert(Hold { until: now, next: HOLD_BACK });
        hold.until = hold.until.max(now + HOLD);
    }

    /// Notes that a move was taken back.
    pub fn rolled_back(&mut self, now: Time, pair: Pair) {
        let hold = self.holds.entry(pair).or_insert(Hold { until: now, next: HOLD_BACK });
        hold.until = now + hold.next;
        hold.next = (hold.next * 2).min(HOLD_MAX);
    }

    /// The way of a pair is dead: it may leave it, unless it was taken back.
    pub fn release(&mut self, pair: Pair) {
        self.holds.retain(|held, hold| *held != pair || hold.next > HOLD_BACK);
    }

    /// A node is gone: its place may be another's soon.
    pub fn remove(&mut self, node: NodeIndex) {
        self.holds.retain(|pair, _| !pair.involves(node));
        let is_anothers = |(pair, via): &(Pair, Via)| !pair.involves(node) && *via != Via::Relay(node);
        if let Some(moves) = &mut self.confirming {
            moves.retain(is_anothers);
        }
        self.confirming.take_if(|moves| moves.is_empty());
    }

    /// The pairs that may not move, and until when. While a change settles, only rollbacks hold.
    pub fn held(&mut self, now: Time) -> BTreeMap<Pair, Time> {
        self.holds.retain(|_, hold| now.since(hold.until) < HOLD_MAX);
        let is_settling = self.is_settling(now);
        let holds = self.holds.iter().filter(|(_, hold)| now < hold.until && (!is_settling || hold.next > HOLD_BACK));
        holds.map(|(pair, hold)| (*pair, hold.until)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: Pair = Pair::new(NodeIndex(0), NodeIndex(1));

    fn proposal(gain: f64) -> Proposal {
        Proposal { moves: vec![(PAIR, Via::Direct)], before: 1.0, after: gain, pairs: 1000 }
    }

    fn at(seconds: u64) -> Time {
        Time::START + Duration::from_secs(seconds)
    }

    #[test]
    fn a_plan_must_promise_enough_and_do_so_twice() {
        let mut gate = Gate::new(at(0));
        let needed = Gate::needed(0.15, 0.05);
        assert_eq!(gate.judge(at(0), &proposal(1.1), needed, false), Verdict::TooLittle);
        assert_eq!(gate.judge(at(2), &proposal(1.2), needed, false), Verdict::Confirming);
        assert!(gate.take_confirming().is_some());
        assert_eq!(gate.judge(at(4), &proposal(1.2), needed, true), Verdict::Adopted);
        assert_eq!(gate.judge(at(6), &proposal(1.2), Gate::needed(0.15, 0.2), false), Verdict::TooLittle);
    }

    #[test]
    fn three_plans_at_once_then_no_more_than_one_a_minute() {
        let mut gate = Gate::new(at(0));
        let mut adopts = |second| gate.judge(at(second), &proposal(2.0), 1.15, true) == Verdict::Adopted;
        assert_eq!((0..300).filter(|second| adopts(*second)).count(), 4);
        assert_eq!((300..900).filter(|second| adopts(*second)).count(), 4);
    }

    #[test]
    fn a_flag_opens_the_gate_but_nobody_can_keep_it_open() {
        let mut gate = Gate::new(at(0));
        let mut adopted = 0;
        for epoch in 0..60 {
            gate.flag(at(2 * epoch));
            adopted += u32::from(gate.judge(at(2 * epoch), &proposal(2.0), 1.15, true) == Verdict::Adopted);
        }
        assert_eq!(adopted, 4 * (10 + 3), "ten refinements and three plans in each of four gaps");
    }

    #[test]
    fn a_moved_pair_stays_and_one_that_was_taken_back_stays_longer_each_time() {
        let mut gate = Gate::new(at(0));
        gate.moved(at(0), PAIR);
        assert_eq!(gate.held(at(29)).get(&PAIR), Some(&at(30)));
        assert!(gate.held(at(30)).is_empty());
        gate.rolled_back(at(40), PAIR);
        assert_eq!(gate.held(at(41)).get(&PAIR), Some(&at(100)));
        gate.rolled_back(at(110), PAIR);
        assert_eq!(gate.held(at(111)).get(&PAIR), Some(&at(230)));
        gate.flag(at(112));
        assert!(gate.held(at(112)).is_empty(), "that was another phase");
        gate.rolled_back(at(113), PAIR);
        gate.flag(at(114));
        assert_eq!(gate.held(at(115)).get(&PAIR), Some(&at(353)), "also while a change settles");
    }
}
