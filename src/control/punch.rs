//! Punching: both sides open their NATs at the same time (RFC 5128 section 3.3).
//!
//! A round: ask the peer for its addresses over the path there is; when they come, send an opener
//! that dies on its way (it makes our NAT's mapping before the peer's first packet can make a wrong
//! one); wait one round trip; probe; probe again. Nothing carries frames before it was answered.

use std::time::Duration;

use rand_chacha::rand_core::RngCore;

use super::candidate::is_global;
use super::delay::{self, Probed};
use super::effects::Effects;
use super::peer::{Me, Peer};
use super::timers::Timer;
use crate::datapath::stats::DropReason;
use crate::datapath::{Command, Path};
use crate::time::Time;
use crate::wire::session::{Candidate, Message};

/// Hops of an opener: past our own NAT, not to the peer's.
const OPENER_HOPS: u8 = 2;
/// Waits between the probes of a round.
const PROBE_STEPS: [Duration; 8] = [
    Duration::from_millis(50),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
    Duration::from_millis(800),
];
/// A round that has a direct path goes on for this many steps: a better address may still answer.
const STEPS_WHEN_DIRECT: usize = 4;
/// Most addresses probed in one step.
const FAN_OUT: usize = 8;
/// How often the peer is asked for its addresses.
const ASKS: u32 = 4;
/// Between the asks, at least.
const ASK_GAP: Duration = Duration::from_millis(500);
/// After a round without success.
const RESTS: [Duration; 4] = [Duration::from_secs(5), FORGETTING, Duration::from_secs(120), Duration::from_secs(600)];
/// A gateway forgets a wrong mapping in so much silence.
const FORGETTING: Duration = Duration::from_secs(33);
/// A direct path that died is sought after each silence for this long, since it may heal any time.
const RETURN_FOR: Duration = Duration::from_secs(900);
/// A round after such a silence begins by chance within this.
const RETURN_JITTER: Duration = Duration::from_secs(1);
/// After so many failures a door that once led to the peer leads nowhere, and is in the way of the main socket.
const FAILURES_OF_DOORS: usize = 4;
/// Added to a round trip: the peer's opener is on its way by then.
const OPENER_LEAD: Duration = Duration::from_millis(50);
/// A peer heard at a new address is probed there at most this often.
const CHECK_GAP: Duration = Duration::from_millis(40);

/// Where a round stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Between rounds.
    #[default]
    Rest,
    /// The peer was asked this often.
    Asked(u32),
    /// Openers are out.
    Opened,
    /// This step of the probes comes next.
    Probing(usize),
}

/// The search for a direct path to one peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Punch {
    phase: Phase,
    round: u32,
    failures: usize,
}

impl Peer {
    /// Begins a round now, with a fresh count of failures: something changed.
    pub fn punch_anew(&mut self, fx: &mut Effects) {
        self.forget_doors(fx);
        if self.session.is_some() && !self.is_asleep() {
            self.punch.failures = 0;
            self.punch.phase = Phase::Rest;
            fx.timers.set(Timer::Punch(self.port), fx.now);
        }
    }

    /// [`Timer::Punch`].
    pub fn on_punch_timer(&mut self, fx: &mut Effects, me: &Me) {
        match self.punch.phase {
            Phase::Rest => {
                self.punch.round += 1;
                self.ask(fx, me, 1);
            }
            Phase::Asked(ASKS..) => self.punch_failed(fx),
            Phase::Asked(times) => self.ask(fx, me, times + 1),
            Phase::Opened => self.probe_step(fx, 0),
            Phase::Probing(step) => self.probe_step(fx, step),
        }
        if self.punch.phase == Phase::Rest {
            self.seek(fx, me);
        }
    }

    fn ask(&mut self, fx: &mut Effects, me: &Me, times: u32) {
        let Some(path) = self.paths.current() else { return self.punch_failed(fx) };
        self.tell_candidates(fx, me, path, true);
        self.punch.phase = Phase::Asked(times);
        let patience = ASK_GAP.max(self.paths.current_rtt().unwrap_or_default() * 2);
        fx.timers.set(Timer::Punch(self.port), fx.now + patience);
    }

    /// Our NAT is known now, or another: a peer that is not reached directly hears of it and tells of its own.
    pub fn tell_class(&mut self, fx: &mut Effects, me: &Me) {
        if let Some(path) =
            self.paths.current().filter(|path| self.session.is_some() && !self.is_asleep() && !path.is_direct())
        {
            self.tell_candidates(fx, me, path, true);
        }
    }

    fn tell_candidates(&mut self, fx: &mut Effects, me: &Me, path: Path, wants_answer: bool) {
        let (round, list, nat) = (self.punch.round, me.candidates.clone(), me.nat);
        let message = Message::Candidates { round, wants_answer, list, nat };
        fx.send(self.port, path, &message);
    }

    /// The peer told its addresses.
    pub fn on_candidates(&mut self, fx: &mut Effects, me: &Me, path: Path, (list, asks): (&[Candidate], bool)) {
        if self.is_asleep() || !self.consent.may_tell(fx.now) {
            return fx.dropped(DropReason::CandidateLimit);
        }
        for candidate in list {
            self.paths.candidates.add(candidate.kind, candidate.addr);
        }
        if asks {
            self.tell_candidates(fx, me, path, false);
        }
        match self.punch.phase {
            Phase::Rest | Phase::Asked(_) => self.open_nat(fx),
            Phase::Opened | Phase::Probing(_) => {}
        }
        self.seek(fx, me);
    }

    fn open_nat(&mut self, fx: &mut Effects) {
        for addr in self.paths.candidates.to_probe(FAN_OUT) {
            let needs_opener =
                addr.is_ipv4() && is_global(addr.ip()) && self.paths.current() != Some(Path::Direct(addr));
            if needs_opener && self.may_try(fx, addr) {
                let message = Message::Probe { token: fx.rng.next_u64(), sent: 0, is_spare: false }.bytes();
                let (port, path) = (self.port, Path::Direct(addr));
                fx.commands.push_back(Command::SendSession { port, path, message, hops: Some(OPENER_HOPS) });
            }
        }
        self.punch.phase = Phase::Opened;
        let round_trip = self.paths.current_rtt().unwrap_or(Duration::from_millis(100));
        fx.timers.set(Timer::Punch(self.port), fx.now + round_trip + OPENER_LEAD);
    }

    fn probe_step(&mut self, fx: &mut Effects, step: usize) {
        let is_direct = self.paths.current().is_some_and(Path::is_direct);
        let steps = if is_direct { STEPS_WHEN_DIRECT } else { PROBE_STEPS.len() };
        if step >= steps {
            return if is_direct { self.punch_done(fx) } else { self.punch_failed(fx) };
        }
        for addr in self.paths.candidates.to_probe(FAN_OUT) {
            if self.paths.current() != Some(Path::Direct(addr)) && self.may_try(fx, addr) {
                self.probe(fx, Path::Direct(addr));
            }
        }
        self.punch.phase = Phase::Probing(step + 1);
        fx.timers.set(Timer::Punch(self.port), fx.now + PROBE_STEPS[step]);
    }

    fn punch_done(&mut self, fx: &mut Effects) {
        self.punch.phase = Phase::Rest;
        self.punch.failures = 0;
        fx.timers.cancel(Timer::Punch(self.port));
    }

    /// Tries again later, if there is no direct path by then.
    fn punch_failed(&mut self, fx: &mut Effects) {
        self.punch.phase = Phase::Rest;
        let rest = RESTS[self.punch.failures.min(RESTS.len() - 1)];
        self.punch.failures += 1;
        if self.punch.failures >= FAILURES_OF_DOORS {
            self.forget_doors(fx);
        }
        let may_heal = self.lost.is_some_and(|lost| fx.now.since(lost) < RETURN_FOR);
        let rest = if may_heal { rest.min(FORGETTING) + fx.within(RETURN_JITTER) } else { fx.jittered(rest) };
        fx.timers.set(Timer::Punch(self.port), fx.now + rest);
    }

    /// Sends a probe on `path`; its answer proves it.
    pub fn probe(&mut self, fx: &mut Effects, path: Path) {
        let token = fx.rng.next_u64();
        self.paths.on_probe(fx.now, token, path);
        let is_spare = self.paths.current() != Some(path);
        if !is_spare {
            self.probed = fx.now;
        }
        let (sent, is_spare) = if self.takes_times { (delay::clock(fx.now).max(1), is_spare) } else { (0, false) };
        fx.send(self.port, path, &Message::Probe { token, sent, is_spare });
    }

    /// A probe of the peer: answered where it was heard, and that place is probed in turn.
    pub(super) fn on_probe(&mut self, fx: &mut Effects, token: u64, probed: &Probed) {
        let path = probed.path;
        if probed.sent != 0 {
            self.inbound.note(fx.now, probed);
        }
        let seen = match path {
            Path::Direct(addr) => Some(addr),
            Path::Relayed(..) => None,
        };
        fx.send(self.port, path, &Message::Answer { token, seen });
        self.remind_of_sleep(fx);
        self.check(fx, path);
    }

    /// The peer was heard by `path`. If that is direct and not proven, it is asked there.
    pub fn check(&mut self, fx: &mut Effects, path: Path) {
        let Path::Direct(addr) = path else { return };
        self.paths.candidates.add(self.kind_heard(addr), addr);
        if self.is_asleep() {
            return;
        }
        let Some(state) = self.paths.candidates.get(addr) else { return };
        let rested = state.sent.is_none_or(|sent| fx.now.since(sent) >= CHECK_GAP);
        let is_stale = state.answered.is_none_or(|at| fx.now.since(at) >= Duration::from_secs(1));
        let wanted = rested && (!state.proven || is_stale) && self.paths.current() != Some(path);
        if wanted && self.may_try(fx, addr) {
            self.probe(fx, path);
        }
    }

    /// An answer came by `path`.
    pub fn on_answer(&mut self, fx: &mut Effects, token: u64, path: Path) {
        let Some(proven) = self.paths.on_answer(fx.now, token, path) else { return self.check(fx, path) };
        let was_direct = self.paths.current().is_some_and(Path::is_direct);
        self.choose(fx, if proven.is_direct() { "it answers" } else { "the relay answers" });
        if !was_direct && self.paths.current().is_some_and(Path::is_direct) {
            self.search_found(fx);
            self.punch.failures = 0;
        }
    }

    /// The direct path died: a new round soon.
    pub fn on_direct_lost(&mut self, fx: &mut Effects) {
        self.lost = Some(fx.now);
        self.punch = Punch { phase: Phase::Rest, failures: 0, ..self.punch };
        let rest = fx.jittered(Duration::from_millis(200));
        fx.timers.set(Timer::Punch(self.port), fx.now + rest);
    }

    /// When the next round or step is due, for reports.
    pub fn next_punch(&self, fx: &Effects) -> Option<Time> {
        fx.timers.when(Timer::Punch(self.port))
    }
}
