//! Paths: which of the ways to a peer its frames take, and whether it still carries.
//!
//! A relayed path is usable as soon as both ends have legs; a direct one only after an answer came
//! back on it. Sans-IO and without timers: `peer` sends what is asked for and sets the deadlines.

mod relayed;

mod steadiness;

pub mod trip;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::candidate::{CandidateState, Candidates};
use crate::datapath::{LegId, Path};
use crate::time::Time;
use crate::wire::relay::RelayId;
use crate::wire::session::CandidateKind;
use relayed::{KNOWN_AFTER, LOSS_ALL, RELAY_LOST, RelayWay};
use steadiness::Steadiness;
use trip::Trip;

/// A path is not left for one that is merely a little better before this time has passed.
const HOLD: Duration = Duration::from_secs(10);
/// A proof is worth this long without traffic: the keepalive and its patience.
const PROOF_LIFE: Duration = Duration::from_secs(30);
/// A direct path that is probed each second, and is not the one in use, carries if it answered within this time.
const ALIVE_FOR: Duration = Duration::from_secs(4);
/// Better by at least this much...
const BETTER_BY: Duration = Duration::from_millis(5);
/// Silence while sending that makes a path suspect, at least.
const SILENCE_MIN: Duration = Duration::from_millis(500);
/// Time between the probes of a suspect path, at least.
const SUSPECT_GAP: Duration = Duration::from_millis(250);
/// A path is doubted when the peer is heard by another one, at most this often...
const DOUBT_GAP: Duration = Duration::from_secs(1);
/// ...and probed once more after this time, at least.
const DOUBT_PATIENCE: Duration = Duration::from_millis(150);
/// Probes in flight to one peer that are remembered.
const OUTSTANDING_MAX: usize = 128;

/// What the path in use deserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing to do before this much time has passed.
    Good(Duration),
    /// Send a probe on it and look again after this time.
    Probe(Duration),
    /// It is dead.
    Dead,
}

/// A change of the path in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The new one.
    pub path: Option<Path>,
    /// Why, in words.
    pub reason: &'static str,
}

/// All ways to one peer.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// Addresses it may be heard at.
    pub candidates: Candidates,
    relays: BTreeMap<LegId, RelayWay>,
    current: Option<Path>,
    preferred: Option<LegId>,
    since: Time,
    why: &'static str,
    outstanding: BTreeMap<u64, (Path, Time)>,
    /// When the next probe is due, and how many are left.
    suspect: Option<(Time, u32)>,
    /// Of the paths in use so far: what is full near one end is full for all of them.
    steadiness: Steadiness,
    doubted: Option<Time>,
    /// The direct path that carried last and does no more, and until when it did.
    bettered: Option<(SocketAddr, Time)>,
}

impl Paths {
    /// The path in use.
    pub const fn current(&self) -> Option<Path> {
        self.current
    }

    /// Why it is in use, in words.
    pub const fn why(&self) -> &'static str {
        self.why
    }

    /// Since when.
    pub const fn since(&self) -> Time {
        self.since
    }

    /// The direct path that carried last and fell silent, and when.
    pub const fn bettered(&self) -> Option<(SocketAddr, Time)> {
        self.bettered
    }

    /// Every relayed way, with what is known of it: round trip, probes lost of late in percent.
    pub fn relay_ways(&self) -> impl Iterator<Item = (Path, Option<Duration>, u32)> {
        self.relays.iter().map(|(leg, way)| (Path::Relayed(*leg, way.relay), way.rtt(), way.loss * 100 / LOSS_ALL))
    }

    /// Round trip of a path.
    pub fn rtt(&self, path: Path) -> Option<Duration> {
        match path {
            Path::Direct(addr) => self.candidates.get(addr)?.rtt(),
            Path::Relayed(leg, _) => self.relays.get(&leg)?.rtt(),
        }
    }

    /// The same as it was last and on average, where it was seen more than by chance.
    pub fn trip(&self, path: Path) -> Option<Trip> {
        match path {
            Path::Direct(addr) => self.candidates.get(addr)?.trip,
            Path::Relayed(leg, _) => self.relays.get(&leg).filter(|way| way.answers >= KNOWN_AFTER)?.trip,
        }
    }

    /// The best direct path that was proven, in use or not, to compare others with.
    pub fn known_direct(&self) -> Option<(Path, Trip)> {
        let proven = self.candidates.iter().filter(|(_, state)| state.proven);
        let trips = proven.filter_map(|(addr, state)| Some((Path::Direct(addr), state.trip?)));
        trips.min_by_key(|(path, trip)| (self.class(*path), trip.smooth))
    }

    /// The relay whose way beats this direct one most, if one does.
    pub fn nearest_relay(&self, direct: Trip) -> Option<LegId> {
        let way = |leg: &LegId| Some((self.trip(self.relayed(*leg)?)?, *leg));
        let better = self.relays.keys().filter_map(way).filter(|(trip, _)| trip.beats(direct));
        better.min_by_key(|(trip, leg)| (trip.smooth, *leg)).map(|(_, leg)| leg)
    }

    /// Ways by relays that may beat this direct one, or of which nothing is known yet.
    pub fn promising(&self, direct: Trip) -> impl Iterator<Item = Path> {
        let promises = move |way: &RelayWay| way.trip.is_none_or(|trip| trip.beats(direct));
        self.relays.iter().filter(move |(_, way)| promises(way)).map(|(leg, way)| Path::Relayed(*leg, way.relay))
    }

    /// Round trip of the path in use: a direct one's last, a relayed one's average.
    pub fn current_rtt(&self) -> Option<Duration> {
        self.current.and_then(|path| self.rtt(path))
    }

    /// That of its last answer: an average lags behind a queue.
    pub fn last_rtt(&self) -> Option<Duration> {
        match self.current? {
            Path::Relayed(leg, _) => self.relays.get(&leg)?.trip.map(|trip| trip.last),
            direct @ Path::Direct(_) => self.rtt(direct),
        }
    }

    /// The peer can be reached through the relay of `leg`.
    pub fn add_relay(&mut self, leg: LegId, relay: RelayId) {
        if self.relays.get(&leg).is_none_or(|way| way.relay != relay) {
            self.relays.insert(leg, RelayWay::new(relay));
            if self.current.is_some_and(|path| matches!(path, Path::Relayed(old, _) if old == leg)) {
                self.current = None;
            }
        }
    }

    /// It no longer can. `false` if it could not before.
    pub fn drop_relay(&mut self, leg: LegId) -> bool {
        let was_there = self.relays.remove(&leg).is_some();
        if matches!(self.current, Some(Path::Relayed(old, _)) if old == leg) {
            self.current = None;
        }
        was_there
    }

    /// Ways through relays, in the order of legs.
    pub fn relays(&self) -> impl Iterator<Item = Path> {
        self.relays.iter().map(|(leg, way)| Path::Relayed(*leg, way.relay))
    }

    /// Whether anybody relays.
    pub fn has_relay(&self) -> bool {
        !self.relays.is_empty()
    }

    /// The way through this leg's relay, if there is one.
    pub fn relay_by(&self, leg: LegId) -> Option<Path> {
        self.relays.get(&leg).map(|way| Path::Relayed(leg, way.relay))
    }

    /// Whether the way through this leg's relay is the one in use.
    pub fn goes_by(&self, leg: LegId) -> bool {
        self.relay_by(leg).is_some_and(|way| self.current == Some(way))
    }

    /// Whether the peer ever answered through this leg's relay.
    pub fn has_answered(&self, leg: LegId) -> bool {
        self.relays.get(&leg).is_some_and(|way| way.answers > 0)
    }

    /// The way through this leg's relay is to be taken while it carries, though there were a better one.
    pub const fn prefer(&mut self, leg: Option<LegId>) {
        self.preferred = leg;
    }

    /// Whose relay is to be taken.
    pub const fn preferred(&self) -> Option<LegId> {
        self.preferred
    }

    /// Whether it ever answered directly.
    pub fn was_direct(&self) -> bool {
        self.candidates.iter().any(|(_, state)| state.answers > 0)
    }

    /// The way through a relay, other than the path in use, that was probed longest ago.
    pub fn relay_to_measure(&self) -> Option<Path> {
        let others = self.relays.iter().map(|(leg, way)| (way.asked, way.answers, Path::Relayed(*leg, way.relay)));
        let oldest = others
            .filter(|(.., path)| self.current != Some(*path))
            .min_by_key(|(asked, answers, _)| (*asked, *answers));
        oldest.map(|(.., path)| path)
    }

    /// A probe with `token` goes out on `path`.
    pub fn on_probe(&mut self, now: Time, token: u64, path: Path) {
        if self.outstanding.len() >= OUTSTANDING_MAX {
            let oldest = self.outstanding.iter().min_by_key(|(_, (_, sent))| *sent).map(|(token, _)| *token);
            self.outstanding.remove(&oldest.unwrap_or_default());
        }
        self.outstanding.insert(token, (path, now));
        match path {
            Path::Direct(addr) => self.candidates.on_probe(now, addr),
            Path::Relayed(leg, _) => {
                if let Some(way) = self.relays.get_mut(&leg) {
                    way.on_probe(now);
                }
            }
        }
    }

    /// An answer came by `from`. Gives the path it proves: the way it came, if the probe went there. A peer whose NAT
    /// maps per endpoint answers from elsewhere; what was probed stays unproven, or it would be suspect for ever.
    pub fn on_answer(&mut self, now: Time, token: u64, from: Path) -> Option<Path> {
        let (path, sent) = self.outstanding.get(&token).copied().filter(|(path, _)| *path == from)?;
        self.outstanding.remove(&token);
        match path {
            Path::Direct(_) => self.prove(now, path, now.since(sent)),
            Path::Relayed(leg, _) => self.relays.get_mut(&leg)?.on_answer(now.since(sent)),
        }
        let before = self.outstanding.len();
        self.outstanding.retain(|_, (other, at)| *other != path || *at > sent);
        if self.current == Some(path) {
            self.suspect = None;
            self.steadiness.on_answer(before - self.outstanding.len());
        }
        Some(path)
    }

    /// A round trip on `path` was seen.
    pub fn prove(&mut self, now: Time, path: Path, rtt: Duration) {
        match path {
            Path::Direct(addr) => {
                self.candidates.add(CandidateKind::PeerReflexive, addr);
                self.candidates.on_answer(now, addr, rtt);
            }
            Path::Relayed(leg, _) => {
                if let Some(way) = self.relays.get_mut(&leg) {
                    way.trip.get_or_insert(Trip::first(rtt));
                    way.failed = None;
                }
            }
        }
    }

    /// Whether an answer on the path in use is awaited.
    pub fn is_waiting(&self) -> bool {
        self.suspect.is_some() || self.outstanding.values().any(|(path, _)| Some(*path) == self.current)
    }

    /// Whether the path in use still carries. `unanswered_since`: since when packets have gone out on it
    /// with nothing coming back. `is_active`: frames wait for it.
    pub fn health(&mut self, now: Time, unanswered_since: Option<Time>, is_active: bool) -> Health {
        let Some(current) = self.current else { return Health::Good(SILENCE_MIN) };
        let rtt = self.current_rtt().unwrap_or_default();
        let gap = SUSPECT_GAP.max(rtt / 2);
        if let Some((next, left)) = self.suspect {
            if now < next {
                return Health::Probe(next.since(now)).without_probe();
            }
            if left == 0 {
                self.suspect = None;
                return Health::Dead;
            }
            self.suspect = Some((now + gap, left - 1));
            return Health::Probe(gap);
        }
        let patience = SILENCE_MIN.max(rtt * 3);
        let probe_since = self.outstanding.values().filter(|(path, _)| *path == current).map(|(_, sent)| *sent).min();
        let silence = [unanswered_since, probe_since].into_iter().flatten().min().map(|since| now.since(since));
        match silence {
            Some(silence) if silence >= patience => {
                self.suspect = Some((now + gap, self.steadiness.probes(is_active) - 1));
                Health::Probe(gap)
            }
            Some(silence) => Health::Good(patience - silence),
            None => Health::Good(patience),
        }
    }

    /// The path in use may carry no more: it is to be probed now. Gives when to look whether it does.
    pub fn doubt(&mut self, now: Time) -> Option<Duration> {
        let current = self.current?;
        let rested = self.doubted.is_none_or(|at| now.since(at) >= DOUBT_GAP);
        if !rested || self.suspect.is_some() {
            return None;
        }
        let patience = DOUBT_PATIENCE.max(self.rtt(current).unwrap_or_default() * 3 / 2);
        self.doubted = Some(now);
        self.suspect = Some((now + patience, 1));
        Some(patience)
    }

    /// The path in use carries nothing any more; another takes its place.
    pub fn on_dead(&mut self, now: Time) -> Option<Change> {
        let dead = self.current?;
        self.outstanding.retain(|_, (path, _)| *path != dead);
        match dead {
            Path::Direct(addr) => {
                self.candidates.on_silence(addr);
                self.bettered = Some((addr, now));
            }
            Path::Relayed(leg, _) => {
                if let Some(way) = self.relays.get_mut(&leg) {
                    way.failed = Some(now);
                }
            }
        }
        self.current = self.best(now).filter(|best| *best == dead);
        self.choose(now, "the path before fell silent")
    }

    /// Everything must be proven anew.
    pub fn reset(&mut self) {
        self.candidates.forget_proofs();
        self.outstanding.clear();
        self.suspect = None;
        self.current = None;
    }

    /// Takes the best way there is; gives it if that is a change.
    pub fn choose(&mut self, now: Time, reason: &'static str) -> Option<Change> {
        let best = self.best(now);
        if best == self.current || !self.is_worth_it(now, best) {
            return None;
        }
        self.current = best;
        self.since = now;
        self.suspect = None;
        // A probe that was lost long before says nothing about the way as it is now.
        self.outstanding.retain(|_, (path, sent)| Some(*path) != best || now.since(*sent) < RELAY_LOST);
        self.why = reason;
        Some(Change { path: best, reason })
    }

    fn is_worth_it(&self, now: Time, best: Option<Path>) -> bool {
        let (Some(current), Some(best)) = (self.current, best) else { return true };
        if Some(best) == self.best_preferred() {
            return true;
        }
        match self.class(best).cmp(&self.class(current)) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Greater => false,
            std::cmp::Ordering::Equal => {
                let (old, new) = (self.cost(current), self.cost(best));
                let is_held = now.since(self.since) < HOLD && self.is_measured(current);
                !is_held && is_better(new, old)
            }
        }
    }

    /// Whether a relayed way of this round trip would be worth a change.
    pub fn would_be_better(&self, rtt: Duration) -> bool {
        self.current.is_none_or(|current| !current.is_direct() && is_better(rtt, self.cost(current)))
    }

    fn cost(&self, path: Path) -> Duration {
        match path {
            Path::Direct(_) => self.rtt(path).unwrap_or(Duration::MAX),
            Path::Relayed(leg, _) => self.relays.get(&leg).map_or(Duration::MAX, RelayWay::cost),
        }
    }

    /// Whether its round trip was seen more than by chance.
    fn is_measured(&self, path: Path) -> bool {
        match path {
            Path::Direct(_) => true,
            Path::Relayed(leg, _) => self.relays.get(&leg).is_some_and(|way| way.answers >= KNOWN_AFTER),
        }
    }

    /// 0 on the same LAN, 1 direct, 2 relayed.
    fn class(&self, path: Path) -> u8 {
        match path {
            Path::Direct(addr) => {
                u8::from(self.candidates.get(addr).is_none_or(|state| state.kind != CandidateKind::Host))
            }
            Path::Relayed(..) => 2,
        }
    }

    fn best(&self, now: Time) -> Option<Path> {
        if let Some(preferred) = self.best_preferred() {
            return Some(preferred);
        }
        self.direct_within(now, PROOF_LIFE).or_else(|| self.best_relay(now))
    }

    /// The way that was ordered, if it carries: one that failed must answer first.
    fn best_preferred(&self) -> Option<Path> {
        let leg = self.preferred?;
        let way = self.relays.get(&leg).filter(|way| way.answers > 0 && way.failed.is_none())?;
        Some(Path::Relayed(leg, way.relay))
    }

    fn best_relay(&self, now: Time) -> Option<Path> {
        let key = |way: &RelayWay| (way.rests(now), way.cost());
        self.relays.iter().min_by_key(|(_, way)| key(way)).map(|(leg, way)| Path::Relayed(*leg, way.relay))
    }

    /// The best direct path that has answered of late, for who wants one though another is in use.
    pub fn direct(&self, now: Time) -> Option<Path> {
        self.direct_within(now, ALIVE_FOR)
    }

    /// The best direct path that is proven, for who has its own means to see whether it still carries.
    pub fn proven_direct(&self, now: Time) -> Option<Path> {
        self.direct_within(now, PROOF_LIFE)
    }

    fn direct_within(&self, now: Time, life: Duration) -> Option<Path> {
        let is_alive = |addr: SocketAddr, state: &CandidateState| {
            let answered = state.answered.is_some_and(|at| now.since(at) < life);
            state.proven && (answered || self.current == Some(Path::Direct(addr)))
        };
        let alive = self.candidates.iter().filter(|(addr, state)| is_alive(*addr, state));
        alive.map(|(addr, _)| Path::Direct(addr)).min_by_key(|path| (self.class(*path), self.rtt(*path)))
    }

    /// The way by this leg, if it has answered and loses little of late.
    pub fn relayed(&self, leg: LegId) -> Option<Path> {
        let way = self.relays.get(&leg)?;
        let carries = way.answers > 0 && way.failed.is_none() && way.loss < LOSS_ALL / 4;
        carries.then_some(Path::Relayed(leg, way.relay))
    }

    /// Addresses that carried, in this run or an earlier one, best first.
    pub fn worth_remembering(&self) -> Vec<SocketAddr> {
        let carried = |addr: &SocketAddr| {
            let state = self.candidates.get(*addr);
            state.is_some_and(|state| state.answers > 0 || state.kind == CandidateKind::Configured)
        };
        self.candidates.to_probe(usize::MAX).into_iter().filter(carried).take(4).collect()
    }
}

/// Whether a way is so much better that a change pays.
fn is_better(new: Duration, old: Duration) -> bool {
    new < old / 10 * 9 && new + BETTER_BY < old
}

impl Health {
    /// Waits on, without another probe.
    const fn without_probe(self) -> Self {
        match self {
            Self::Probe(wait) | Self::Good(wait) => Self::Good(wait),
            Self::Dead => Self::Dead,
        }
    }
}

#[cfg(test)]
mod tests;
