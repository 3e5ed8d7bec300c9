//! Path MTU: how large a packet the path in use carries, found by probing (RFC 8899), never by ICMP.
//!
//! One value per peer, for the path in use. The unit is the largest IP packet of the underlay. States in the
//! RFC's words: *base*, [`MTU_ASSUMED`] is used and nothing was asked; *searching*, once large frames flow;
//! *search complete*, confirmed while they flow and tried upwards again now and then; *error*, not even
//! [`MTU_FLOOR`] passes. A size that was carried and is no more is a black hole: down to the floor at once,
//! and a new search. Nothing is sent for the sake of small frames, or without any.
//!
//! What is in use is confirmed by the frames themselves: the peer tells the longest packet that came (RECEIVED), and
//! only where it has not told of one as long as the longest that was sent, a probe asks. Probes alone cost a node with
//! 16 busy peers 16 kB/s.
//!
//! A lost probe says little: a size fails when [`TRIES`] probes were lost while a small one beside them came
//! through, and the last failure of a search is tried once more before it is believed.
//! Sans-IO: [`Mtu::on_timer`] and [`Mtu::on_answer`] say what to do. Read first: RFC 8899 section 5.

use std::time::Duration;

use rand_chacha::rand_core::RngCore;

use super::effects::Effects;
use super::peer::Peer;
use super::report::MtuState;
use super::timers::Timer;
use crate::datapath::{Command, MTU_ASSUMED, MTU_FLOOR, Path};
use crate::time::Time;
use crate::wire::session::Message;
use crate::wire::{HEADERS_V4, HEADERS_V6, data, relay};

/// Between two probes of one size, at least; two round trips if that is longer.
const PROBE_GAP: Duration = Duration::from_millis(200);
/// Probes of a size that come to nothing before it fails (RFC 8899's MAX_PROBES).
const TRIES: u32 = 3;
/// With no small one answered either: the path itself is gone, or the peer knows no probes.
const TRIES_DEAF: u32 = 6;
/// While large frames flow, the size in use is confirmed this often: a black hole is known within 3 s, on a path with a
/// round trip of 250 ms too. Where little flows with each of many peers, that is not worth it: within...
const CONFIRM_EVERY: Duration = Duration::from_millis(1500);
/// ...this time.
const CONFIRM_RARELY: Duration = Duration::from_secs(30);
/// Whoever hears large packets tells how long they were this often, or more rarely: while that goes on, no probe confirms.
const TELL_EVERY: Duration = Duration::from_millis(900);
/// The least plain part of a packet that may be longer than [`MTU_FLOOR`].
const LARGE_PLAIN: usize = MTU_FLOOR as usize - HEADERS_V6 - relay::HEADER_LEN - data::HEADER_LEN - data::TAG_LEN;
/// Large frames flow as long as the last one is not older: the corridor is asked once a second.
const FLOW: Duration = Duration::from_secs(3);
/// A search upwards is made again after this time (RFC 8899's PMTU_RAISE_TIMER).
const RAISE_AFTER: Duration = Duration::from_secs(600);
/// After an error, or when a path that answered before went deaf.
const ERROR_REST: Duration = Duration::from_secs(10);
/// What underlays have: PPPoE 1492, clouds 1460, DSL with a tunnel 1452, WireGuard 1420, tunnels in tunnels.
const TYPICAL: [u16; 11] = [MTU_FLOOR, 1320, 1360, 1400, 1420, 1440, 1452, 1460, 1480, 1492, ORDINARY];
/// The MTU of nearly every Ethernet. Between it and a whole frame nothing is worth a search: such frames are cut anyway.
const ORDINARY: u16 = 1500;
/// A search ends this close to the truth, in bytes.
const CLOSE: u16 = 10;
/// Ethernet header and two VLAN tags.
const ETHERNET: usize = 22;
/// A probe that came out with fewer bytes was the small one.
const SMALL: u16 = 200;

/// How far the search is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was asked yet.
    Base,
    /// `refused`: the least that failed. `doubted`: it failed twice.
    Searching { refused: Option<u16>, doubted: bool },
    /// Nothing larger passes, or is needed.
    Complete,
    /// The floor does not pass.
    Error,
}

/// A size that was asked for.
#[derive(Clone, Copy, Debug)]
struct Flight {
    token: u64,
    size: u16,
    tries: u32,
    small_came: bool,
}

/// What to do about a path's MTU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send a probe, and come back after `wait`.
    Probe {
        /// Comes back in its answer.
        token: u64,
        /// Of the IP packet.
        size: u16,
        /// A small one beside it shows whether the path carries anything.
        beside: bool,
        /// Until it counts as lost.
        wait: Duration,
    },
    /// Come back after this time.
    Wait(Duration),
    /// Nothing before large frames flow again.
    Rest,
}

/// The MTU of the path in use.
#[derive(Clone, Debug)]
pub struct Mtu {
    /// The longest payload of a frame.
    inner: usize,
    /// What a whole frame needs on this path.
    whole: u16,
    in_use: u16,
    state: State,
    /// When a packet of the size in use came through.
    proven: Option<Time>,
    /// What passed before and does not any more, and since when.
    hole: Option<(u16, Time)>,
    flight: Option<Flight>,
    /// When the last large frame was sent.
    large: Option<Time>,
    /// The longest packet that was sent since the size in use was confirmed.
    longest: usize,
    /// How often the size in use is confirmed.
    confirm_every: Duration,
    /// No new search before.
    next_search: Time,
}

impl Mtu {
    /// Of an overlay whose frames carry `inner` bytes.
    pub const fn new(inner: usize) -> Self {
        Self {
            inner,
            whole: 0,
            in_use: MTU_ASSUMED,
            state: State::Base,
            proven: None,
            hole: None,
            flight: None,
            large: None,
            longest: 0,
            confirm_every: CONFIRM_EVERY,
            next_search: Time::START,
        }
    }

    /// Frames take another path: all that was found is void.
    pub fn begin(&mut self, path: Option<Path>) {
        let headers = match path {
            Some(Path::Direct(addr)) if addr.is_ipv4() => HEADERS_V4,
            Some(Path::Direct(_)) | None => HEADERS_V6,
            // Its other half may be IPv6.
            Some(Path::Relayed(..)) => HEADERS_V6 + relay::HEADER_LEN,
        };
        let whole = self.inner + ETHERNET + data::OVERHEAD + headers;
        let whole = u16::try_from(whole).unwrap_or(u16::MAX);
        *self = Self { whole, confirm_every: self.confirm_every, ..Self::new(self.inner) };
    }

    /// The largest IP packet to be sent.
    pub const fn in_use(&self) -> u16 {
        self.in_use
    }

    /// When the last large frame was sent. Whether that gives us something to do.
    pub fn on_large(&mut self, now: Time, large: Option<Time>) -> bool {
        self.large = self.large.max(large);
        self.is_flowing(now)
    }

    /// The peer tells what came as often as this, a little more rarely if it is busy.
    pub fn confirm_each(&mut self, word: Duration) {
        self.confirm_every = (word * 8 / 5).clamp(CONFIRM_EVERY, CONFIRM_RARELY);
    }

    /// So long a packet was sent.
    pub fn on_sent(&mut self, longest: usize) {
        self.longest = self.longest.max(longest);
    }

    /// The peer tells the longest of ours that came. If none was longer, frames do what a probe would.
    pub fn on_received(&mut self, now: Time, longest: usize) {
        if longest >= self.longest && self.state == State::Complete && self.proven.is_some() {
            (self.proven, self.longest) = (Some(now), 0);
            // Whatever a probe of it met with.
            self.flight = self.flight.filter(|flight| flight.size > self.in_use);
        }
    }

    fn is_flowing(&self, now: Time) -> bool {
        self.large.is_some_and(|at| now.since(at) < FLOW)
    }

    /// The time is up, or large frames flow. `token` is fresh.
    pub fn on_timer(&mut self, now: Time, rtt: Duration, token: u64) -> Step {
        if let Some(flight) = self.flight.take() {
            let is_deaf = !flight.small_came;
            if flight.tries < if is_deaf { TRIES_DEAF } else { TRIES } {
                return self.launch(flight, rtt);
            }
            if is_deaf {
                return self.on_deaf(now);
            }
            self.on_failed(now, flight.size);
        }
        self.next(now, rtt, token)
    }

    /// An answer came: a probe of `received` bytes got through. Whether the next step is due now.
    pub fn on_answer(&mut self, now: Time, token: u64, received: u16) -> bool {
        let Some(flight) = self.flight.as_mut().filter(|flight| flight.token == token) else { return false };
        if received < SMALL {
            flight.small_came = true;
            return false;
        }
        let size = flight.size;
        self.flight = None;
        (self.proven, self.longest) = (Some(now), 0);
        if size > self.in_use {
            self.in_use = size;
            if let State::Searching { refused: Some(refused), .. } = self.state
                && refused <= size
            {
                // It was bad luck: what is above may pass as well.
                self.state = State::Searching { refused: None, doubted: false };
            }
        }
        true
    }

    fn launch(&mut self, flight: Flight, rtt: Duration) -> Step {
        let flight = Flight { tries: flight.tries + 1, ..flight };
        self.flight = Some(flight);
        let Flight { token, size, tries, .. } = flight;
        Step::Probe { token, size, beside: tries > 1, wait: PROBE_GAP.max(rtt * 2) }
    }

    /// Neither large nor small ones were answered.
    fn on_deaf(&mut self, now: Time) -> Step {
        let (state, rest) = match (self.proven, self.in_use) {
            (Some(_), _) => (State::Complete, ERROR_REST),
            (None, MTU_ASSUMED) => (State::Base, RAISE_AFTER),
            (None, _) => (State::Error, ERROR_REST),
        };
        self.state = state;
        self.next_search = now + rest;
        Step::Wait(rest)
    }

    fn on_failed(&mut self, now: Time, size: u16) {
        if size > self.in_use {
            let doubted = self.refused() == Some(size);
            self.state = State::Searching { refused: Some(size), doubted };
        } else if self.in_use > MTU_FLOOR {
            if self.proven.take().is_some() {
                self.hole = Some((size, now));
            }
            self.in_use = MTU_FLOOR;
            self.state = State::Searching { refused: Some(size), doubted: false };
        } else {
            self.state = State::Error;
            self.proven = None;
            self.next_search = now + ERROR_REST;
        }
    }

    fn next(&mut self, now: Time, rtt: Duration, token: u64) -> Step {
        let is_searching = matches!(self.state, State::Searching { .. });
        if !is_searching && !self.is_flowing(now) {
            return Step::Rest;
        }
        if !is_searching && now >= self.next_search {
            self.state = State::Searching { refused: None, doubted: false };
            self.hole = None;
        }
        let is_stale = self.proven.is_none_or(|at| now.since(at) >= self.confirm_every);
        let size = match self.state {
            State::Searching { .. } if is_stale => Some(self.in_use),
            State::Searching { .. } => self.next_size(),
            // A frame may be large and go as two packets that are not.
            State::Complete => {
                (is_stale && self.in_use > MTU_FLOOR && self.longest > LARGE_PLAIN).then_some(self.in_use)
            }
            State::Base | State::Error => None,
        };
        if let Some(size) = size {
            return self.launch(Flight { token, size, tries: 0, small_came: false }, rtt);
        }
        if matches!(self.state, State::Searching { .. }) {
            self.state = State::Complete;
            self.next_search = now + RAISE_AFTER;
        }
        let confirmed = self.proven.filter(|_| self.in_use > MTU_FLOOR).map_or(Duration::ZERO, |at| now.since(at));
        Step::Wait(self.confirm_every.saturating_sub(confirmed).max(PROBE_GAP))
    }

    /// The next size of a search: all or nothing, then the usual, then by halves.
    fn next_size(&self) -> Option<u16> {
        let low = self.in_use;
        let Some(high) = self.refused() else { return (low < self.whole).then_some(self.whole) };
        let typical = TYPICAL.into_iter().filter(|size| (low + 1..high).contains(size)).collect::<Vec<_>>();
        match typical[..] {
            [.., ORDINARY] => Some(ORDINARY),
            [] if high <= ORDINARY && high - low > CLOSE => Some(low.midpoint(high)),
            [] => (!self.is_doubted()).then_some(high),
            _ => Some(typical[typical.len() / 2]),
        }
    }

    const fn refused(&self) -> Option<u16> {
        match self.state {
            State::Searching { refused, .. } => refused,
            State::Base | State::Complete | State::Error => None,
        }
    }

    const fn is_doubted(&self) -> bool {
        matches!(self.state, State::Searching { doubted: true, .. })
    }

    /// The state in a word.
    pub const fn state(&self) -> MtuState {
        match self.state {
            State::Base => MtuState::Assumed,
            State::Searching { .. } if self.hole.is_some() && self.in_use == MTU_FLOOR => MtuState::BlackHole,
            State::Searching { .. } => MtuState::Probing,
            State::Complete => MtuState::Found,
            State::Error => MtuState::BlackHole,
        }
    }

    /// How it was found, in words.
    pub fn why(&self, now: Time) -> String {
        let size = self.in_use;
        let mut why = match self.state {
            State::Base => format!("packets of up to {size} bytes, until large frames flow and probes are answered"),
            State::Searching { .. } => {
                let sought = self.flight.map(|flight| flight.size).filter(|sought| *sought != size);
                let sought = sought.map_or_else(|| "more".to_owned(), |sought| format!("{sought}"));
                format!("packets of up to {size} bytes for now; a probe asks for {sought}")
            }
            State::Complete if size >= self.whole => {
                format!("packets of up to {size} bytes: a probe of that size passed, and a whole frame fits")
            }
            State::Complete => {
                format!("packets of up to {size} bytes: a probe of that size passed, larger ones did not")
            }
            State::Error => format!("packets of up to {size} bytes, though not even a probe of that size passes"),
        };
        if let Some((hole, at)) = self.hole {
            let ago = now.since(at).as_secs();
            why.push_str(&format!(" ({hole} had passed before and vanished {ago} s ago)"));
        }
        why
    }
}

impl Peer {
    /// Frames take the path that was chosen, or none.
    pub(super) fn use_path(&mut self, fx: &mut Effects) {
        let path = self.paths.current();
        fx.commands.push_back(Command::UsePath { port: self.port, path });
        fx.timers.cancel(Timer::Mtu(self.port));
        self.mtu.begin(path);
    }

    /// The corridor tells when the last large frame was sent.
    pub(super) fn watch_mtu(&mut self, fx: &mut Effects, large: Option<Time>) {
        if self.mtu.on_large(fx.now, large) && fx.timers.when(Timer::Mtu(self.port)).is_none() {
            self.on_mtu_timer(fx);
        }
    }

    /// The corridor tells of the longest packet that came: so that the peer need not probe whether such come.
    pub(super) fn tell_received(&mut self, fx: &mut Effects, longest: usize) {
        self.longest_heard = self.longest_heard.max(longest);
        let is_due =
            self.longest_heard > LARGE_PLAIN && fx.now.since(self.told_longest) >= self.tell_every.max(TELL_EVERY);
        if let Some(path) = self.paths.current().filter(|_| is_due && self.session.is_some()) {
            let longest = u16::try_from(std::mem::take(&mut self.longest_heard)).unwrap_or(u16::MAX);
            self.told_longest = fx.now;
            fx.send(self.port, path, &Message::Received { longest });
        }
    }

    /// [`Timer::Mtu`].
    pub fn on_mtu_timer(&mut self, fx: &mut Effects) {
        let Some(path) = self.paths.current().filter(|_| self.session.is_some()) else { return };
        let (before, token) = (self.mtu.in_use(), fx.rng.next_u64());
        let step = self.mtu.on_timer(fx.now, self.paths.current_rtt().unwrap_or_default(), token);
        self.tell_limit(fx, path, before);
        let wait = match step {
            Step::Probe { token, size, beside, wait } => {
                let probe = Message::MtuProbe { token };
                let (port, message) = (self.port, probe.bytes());
                fx.commands.push_back(Command::SendSized { port, path, message, size });
                if beside {
                    fx.send(port, path, &probe);
                }
                wait
            }
            Step::Wait(wait) => wait,
            Step::Rest => return,
        };
        fx.timers.set(Timer::Mtu(self.port), fx.now + wait);
    }

    fn tell_limit(&self, fx: &mut Effects, path: Path, before: u16) {
        let mtu = self.mtu.in_use();
        if mtu != before {
            fx.commands.push_back(Command::SetLimit { port: self.port, path, mtu });
        }
    }

    /// The peer asks whether a packet came; it was a message of `len` bytes.
    pub fn on_mtu_probe(&mut self, fx: &mut Effects, token: u64, (path, len): (Path, usize)) {
        if self.mtu_answers.take(fx.now) {
            let lead = if path.is_direct() { 0 } else { relay::HEADER_LEN };
            let size = u16::try_from(lead + data::HEADER_LEN + len + data::TAG_LEN).unwrap_or(u16::MAX);
            fx.send(self.port, path, &Message::MtuAnswer { token, size });
        }
    }

    /// An answer to a probe of ours; which way it took does not matter.
    pub fn on_mtu_answer(&mut self, fx: &mut Effects, token: u64, size: u16) {
        let before = self.mtu.in_use();
        if self.mtu.on_answer(fx.now, token, size)
            && let Some(path) = self.paths.current()
        {
            self.tell_limit(fx, path, before);
            self.on_mtu_timer(fx);
        }
    }
}

#[cfg(test)]
mod tests;
