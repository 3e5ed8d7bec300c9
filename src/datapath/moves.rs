//! Addresses that moved of late: how often, from where, and what is still owed to those who look for them there.
//!
//! Kept apart from the forwarding database, because hardly any address ever moves. Bounded by [`RECORDS`];
//! what finds no room moves all the same, but nobody sends frames on or counts. Reads no clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::fdb::{Address, PortId};
use crate::time::Time;

/// Addresses remembered: a large host's machines that all move at once, some four times over.
pub(super) const RECORDS: usize = 4_096;
/// Senders that were told where an address went, so that they are not told too often: as many.
const HINTS: usize = 4_096;
/// Frames for an address that left are sent on for so long: ARP caches and flows are told long before.
const FORWARD: Duration = Duration::from_secs(30);
/// A sender is told where an address went once in this time: it may have frames on their way.
const HINT_EVERY: Duration = Duration::from_millis(100);
/// So many moves...
const MOVES_MAX: usize = 5;
/// ...in this time are two machines with one address, or somebody's game (defaults of EVPN, RFC 7432 15.1).
const WINDOW: Duration = Duration::from_secs(180);
/// Then the address stays where it was for so long.
pub(super) const FREEZE: Duration = Duration::from_secs(300);
/// A machine that was asked whether it is still there answers in this time, or does not count.
const ASK: Duration = Duration::from_secs(1);
/// A claim that turns out to be too low may be raised for so long: a few round trips of a slow path.
const RAISE: Duration = Duration::from_secs(2);
/// And so often, lest two nodes outbid each other for ever.
const RAISES: u8 = 3;

/// One address.
#[derive(Debug)]
struct Record {
    /// Where it was before the first of `moves`.
    stable: PortId,
    moves: VecDeque<Time>,
    /// Whether it answered at a place that it was said to have left.
    contested: bool,
    /// When it became known here, if a claim was the first that was heard of it: that may be a false one.
    met: Option<Time>,
    /// When it left our TAP.
    left: Option<Time>,
    /// When we claimed it last because it announced itself here, and how often the claim was raised.
    claimed: Option<(Time, u8)>,
}

/// The addresses.
#[derive(Debug, Default)]
pub(super) struct Moves {
    records: BTreeMap<Address, Record>,
    hints: BTreeMap<(Address, PortId), Time>,
    refused: u64,
}

impl Moves {
    /// `address` moves from one port to another. Answers where it has to stay instead, if it moves too much.
    pub(super) fn note(
        &mut self,
        now: Time,
        address: Address,
        (from, to): (PortId, PortId),
        contested: bool,
    ) -> Option<PortId> {
        let record = self.record(now, address, from)?;
        while record.moves.front().is_some_and(|at| now.since(*at) >= WINDOW) {
            record.moves.pop_front();
        }
        if record.moves.is_empty() {
            (record.stable, record.contested) = (from, false);
        }
        record.moves.push_back(now);
        record.contested |= contested;
        if contested && record.met.take_if(|met| now.since(*met) < ASK).is_some() {
            // Nothing was known of it before, and its machine has answered there.
            record.stable = to;
        }
        let is_too_much = record.contested && record.moves.len() >= MOVES_MAX;
        is_too_much.then(|| {
            record.moves.clear();
            record.stable
        })
    }

    /// `address` becomes known by a claim, for `port`.
    pub(super) fn meet(&mut self, now: Time, address: Address, port: PortId) {
        if let Some(record) = self.record(now, address, port) {
            record.met = Some(now);
        }
    }

    /// `address` left our TAP.
    pub(super) fn leave(&mut self, now: Time, address: Address, from: PortId) {
        if let Some(record) = self.record(now, address, from) {
            record.left = Some(now);
        }
    }

    /// `address` is behind our TAP, and we say so.
    pub(super) fn claim(&mut self, now: Time, address: Address, from: PortId) {
        if let Some(record) = self.record(now, address, from) {
            (record.claimed, record.left) = (Some((now, 0)), None);
        }
    }

    /// Whether our claim of `address` may be raised; counts it.
    pub(super) fn may_raise(&mut self, now: Time, address: Address) -> bool {
        let claimed = self.records.get_mut(&address).and_then(|record| record.claimed.as_mut());
        let Some((_, raises)) = claimed.filter(|(at, raises)| now.since(*at) < RAISE && *raises < RAISES) else {
            return false;
        };
        *raises += 1;
        true
    }

    /// Whether `address` left our TAP so recently that frames for it are sent on.
    pub(super) fn forwards(&self, now: Time, address: Address) -> bool {
        self.left_within(now, address, FORWARD)
    }

    /// Whether its machine is still asked if it has really left our TAP.
    pub(super) fn is_asked(&self, now: Time, address: Address) -> bool {
        self.left_within(now, address, ASK)
    }

    fn left_within(&self, now: Time, address: Address, span: Duration) -> bool {
        self.records.get(&address).and_then(|record| record.left).is_some_and(|left| now.since(left) < span)
    }

    /// Whether the peer at `to` should be told where `address` went; not too often.
    pub(super) fn may_hint(&mut self, now: Time, address: Address, to: PortId) -> bool {
        if self.hints.get(&(address, to)).is_some_and(|at| now.since(*at) < HINT_EVERY) {
            return false;
        }
        if self.hints.len() >= HINTS {
            self.hints.retain(|_, at| now.since(*at) < HINT_EVERY);
        }
        let has_room = self.hints.len() < HINTS;
        if has_room {
            self.hints.insert((address, to), now);
        }
        has_room
    }

    /// The peer at `port` is gone: nothing is brought back to it.
    pub(super) fn forget_port(&mut self, port: PortId) {
        self.records.retain(|_, record| record.stable != port);
        self.hints.retain(|(_, to), _| *to != port);
    }

    /// How many moves found no room since the last call.
    pub(super) fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    fn record(&mut self, now: Time, address: Address, from: PortId) -> Option<&mut Record> {
        if self.records.len() >= RECORDS && !self.records.contains_key(&address) {
            let is_recent = |record: &Record| record.last().is_some_and(|last| now.since(last) < WINDOW);
            self.records.retain(|_, record| is_recent(record));
            if self.records.len() >= RECORDS {
                self.refused += 1;
                return None;
            }
        }
        let new =
            || Record { stable: from, moves: VecDeque::new(), contested: false, met: None, left: None, claimed: None };
        Some(self.records.entry(address).or_insert_with(new))
    }
}

impl Record {
    fn last(&self) -> Option<Time> {
        let claimed = self.claimed.map(|(at, _)| at);
        [self.moves.back().copied(), self.met, self.left, claimed].into_iter().flatten().max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::fdb::TAP;
    use crate::datapath::frame::Mac;

    const VM: Address = Address { vlan: 0, mac: Mac([2, 0, 0, 0, 0, 1]) };
    const A: PortId = PortId(1);

    fn at(seconds: u64) -> Time {
        Time::START + Duration::from_secs(seconds)
    }

    #[test]
    fn five_moves_in_three_minutes_are_too_many_if_the_machine_answered_where_it_had_left() {
        for (contested, seconds, expected) in [(true, 44, Some(TAP)), (false, 44, None), (true, 46, None)] {
            let mut moves = Moves::default();
            let ports = [TAP, A, TAP, A];
            for (number, from) in (0..).zip(ports) {
                assert_eq!(moves.note(at(number * seconds), VM, (from, TAP), contested), None);
            }
            assert_eq!(moves.note(at(4 * seconds), VM, (TAP, A), false), expected, "{contested} {seconds}");
        }
    }

    #[test]
    fn frames_are_sent_on_for_half_a_minute_and_senders_told_ten_times_a_second() {
        let mut moves = Moves::default();
        assert!(!moves.forwards(at(0), VM));
        moves.leave(at(0), VM, TAP);
        assert!(moves.forwards(at(29), VM) && !moves.forwards(at(30), VM));
        assert!(moves.is_asked(at(0), VM) && !moves.is_asked(at(1), VM));
        let told = (0..1000).filter(|ms| moves.may_hint(at(0) + Duration::from_millis(*ms), VM, A));
        assert_eq!(told.count(), 10);
        moves.claim(at(2), VM, A);
        assert!(!moves.forwards(at(2), VM), "it is back");
    }

    #[test]
    fn a_claim_is_raised_three_times_at_most() {
        let mut moves = Moves::default();
        assert!(!moves.may_raise(at(0), VM));
        moves.claim(at(0), VM, A);
        assert_eq!((0..10).filter(|_| moves.may_raise(at(1), VM)).count(), 3);
        moves.claim(at(5), VM, A);
        assert!(!moves.may_raise(at(7), VM), "that was long ago");
    }

    #[test]
    fn what_finds_no_room_is_counted_and_old_moves_make_room() {
        let mut moves = Moves::default();
        let vm = |number: usize| Address { vlan: u16::try_from(number).unwrap_or(0), ..VM };
        (0..RECORDS).for_each(|number| moves.leave(at(0), vm(number), TAP));
        moves.leave(at(1), vm(RECORDS), TAP);
        assert_eq!((moves.take_refused(), moves.take_refused()), (1, 0));
        moves.leave(at(180), vm(RECORDS), TAP);
        assert!(moves.forwards(at(180), vm(RECORDS)));
        assert_eq!((moves.records.len(), moves.take_refused()), (1, 0));
    }
}
