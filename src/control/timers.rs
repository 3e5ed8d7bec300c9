//! Deadlines: one ordered set for the whole node, so that nobody ever scans all peers.

use std::collections::{BTreeMap, BTreeSet};

use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::PortId;
use crate::keys::OverlayId;
use crate::time::Time;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Dial, re-dial, or give up on the supernode at this place.
    Link(usize),
    /// Ask the supernode at this place whether it is there.
    Ping(usize),
    /// Send INIT again, or give up.
    Handshake(PortId),
    /// Make new keys.
    Rekey(PortId),
    /// Look whether the path in use still carries.
    Liveness(PortId),
    /// Keep the path's NAT mappings open and see whether the peer is there.
    Keepalive(PortId),
    /// The next step of a round of punching.
    Punch(PortId),
    /// The next step of the search for the path's MTU.
    Mtu(PortId),
    /// Tell those on the same links that we are there.
    Announce,
    /// The next step of a search.
    Search(PortId),
    /// Read how much flows.
    Traffic(OverlayIndex),
    /// Look whether other ways would be better (we are the supernode).
    Plan(OverlayId),
    /// Look for members that carry to a peer, or ask them again.
    Carry(PortId),
    /// End what nobody asked us to carry again.
    Carrying,
    /// Ask where we are seen, and judge.
    Observe,
    /// Tell and ask again where machines are.
    Addresses,
    /// Let frames go that waited for their share.
    Shape,
    /// See what static rules mean now.
    Rules,
    /// See for whom something is reserved now.
    Reserve,
    /// Tell which IP addresses machines have, and look after them.
    Inventory(OverlayIndex),
    /// Probe our segment for other members.
    Loop(OverlayIndex),
    /// See which links sleep.
    Links(OverlayIndex),
    /// Say that nobody is there.
    Alone(OverlayIndex),
    /// Tell members of each other (as a supernode).
    Push,
    /// Close links that have not registered (as a supernode).
    Newcomers,
    /// Write down what should survive.
    Remember,
}

impl Timer {
    /// What for, in words.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Link(_) => "supernode link",
            Self::Ping(_) => "supernode ping",
            Self::Handshake(_) => "handshake",
            Self::Rekey(_) => "rekey",
            Self::Liveness(_) => "liveness",
            Self::Keepalive(_) => "keepalive",
            Self::Punch(_) => "punch",
            Self::Mtu(_) => "mtu",
            Self::Announce => "announce",
            Self::Search(_) => "search",
            Self::Traffic(_) => "traffic",
            Self::Plan(_) => "plan",
            Self::Carry(_) => "carry",
            Self::Carrying => "carrying",
            Self::Observe => "observe",
            Self::Addresses => "addresses",
            Self::Shape => "shape",
            Self::Rules => "rules",
            Self::Reserve => "reserve",
            Self::Inventory(_) => "inventory",
            Self::Loop(_) => "loop probe",
            Self::Links(_) => "links",
            Self::Alone(_) => "alone",
            Self::Push => "roster push",
            Self::Newcomers => "newcomers",
            Self::Remember => "remember",
        }
    }
}

/// All deadlines; at most one of each kind.
#[derive(Debug, Default)]
pub struct Timers {
    by_time: BTreeSet<(Time, Timer)>,
    at: BTreeMap<Timer, Time>,
}

impl Timers {
    /// Sets a deadline, instead of the one it had.
    pub fn set(&mut self, timer: Timer, at: Time) {
        if let Some(old) = self.at.insert(timer, at) {
            self.by_time.remove(&(old, timer));
        }
        self.by_time.insert((at, timer));
    }

    /// Sets a deadline unless there is an earlier one.
    pub fn set_earlier(&mut self, timer: Timer, at: Time) {
        if self.at.get(&timer).is_none_or(|old| at < *old) {
            self.set(timer, at);
        }
    }

    /// Takes a deadline away.
    pub fn cancel(&mut self, timer: Timer) {
        if let Some(old) = self.at.remove(&timer) {
            self.by_time.remove(&(old, timer));
        }
    }

    /// When the deadline is, if it is set.
    pub fn when(&self, timer: Timer) -> Option<Time> {
        self.at.get(&timer).copied()
    }

    /// The first deadline that is not after `now`; it is taken out.
    pub fn pop_due(&mut self, now: Time) -> Option<Timer> {
        let (at, timer) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.by_time.pop_first();
        self.at.remove(&timer);
        Some(timer)
    }

    /// The next deadline.
    pub fn next(&self) -> Option<(Time, Timer)> {
        self.by_time.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn deadlines_come_in_order_once_and_can_be_moved() {
        let at = |ms| Time::START + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.set(Timer::Remember, at(5));
        timers.set(Timer::Link(0), at(9));
        timers.set(Timer::Remember, at(20));
        timers.set_earlier(Timer::Remember, at(30));
        timers.set(Timer::Ping(0), at(1));
        timers.cancel(Timer::Ping(0));
        assert_eq!(timers.pop_due(at(8)), None);
        assert_eq!(timers.pop_due(at(9)), Some(Timer::Link(0)));
        assert_eq!(timers.next(), Some((at(20), Timer::Remember)));
        assert_eq!(timers.pop_due(at(40)), Some(Timer::Remember));
        assert_eq!(timers.pop_due(at(40)), None);
    }
}
