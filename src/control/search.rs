//! The search for peers that plain punching cannot reach: one side's NAT takes another port for each remote, the
//! other side's lets in only the port that it sent to.
//!
//! - It *counts*: the counting side opens a door, has a supernode tell its outside port, and tells the peer, which
//!   sends to the next ports first; then the counting side sends by that door. If both count, both guess.
//! - It takes *random* ports: it opens many doors towards the peer, while the peer sends to many of its ports,
//!   until two fit (a birthday). At most 200 packets a second and 2,048 in all, once in ten minutes.
//!
//! Only where both classes say so (`natcheck`): guesses at a NAT that needs none spoil its mappings. Guesses go to
//! the address at which a supernode sees the peer, never to one that the peer names. Nothing here carries
//! frames; what is heard is proven as any path is.

mod birthday;

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use rand_chacha::rand_core::RngCore;

use birthday::{DOORS, GUESSES};

use super::effects::Effects;
use super::natcheck::{Plan, plan};
use super::peer::{Me, Peer};
use super::timers::Timer;
use crate::datapath::Path;
use crate::time::Time;
use crate::wire::observe::Observe;
use crate::wire::session::{CandidateKind, Door, Message, SearchStep};

/// The first port that NATs give.
const FIRST_PORT: u16 = 1024;
/// A birthday search that found nothing, or a path that was lost, is not searched again before this.
const BIRTHDAY_REST: Duration = Duration::from_secs(600);
/// The other side has its own idea of when that began.
const REST_GRACE: Duration = Duration::from_secs(20);
/// Ports guessed of a NAT that counts.
const PREDICTED: i32 = 16;
/// Between the attempts to predict; the last one repeats.
const PREDICT_RESTS: [Duration; 6] = [
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(33),
    Duration::from_secs(120),
    Duration::from_secs(600),
];
/// A counting peer has its ports guessed at most so often.
const GUESS_REST: Duration = Duration::from_millis(250);
/// Between a message, or a question, and the next try.
const PATIENCE: Duration = Duration::from_millis(400);
/// How often either is tried.
const TRIES: u32 = 4;
/// When guesses and probes are repeated.
const REPEATS: [Duration; 5] = [
    Duration::from_millis(60),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(300),
    Duration::from_millis(500),
];

/// Where a search stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    /// The peer was asked to search with us, so often; our door is seen there, if we count.
    Asked(u32, Option<Door>),
    /// A supernode was asked where our door is seen.
    Looking(Lookout),
    /// So many doors are open.
    Opening(u32),
    /// So many guesses are out, and so many openers were followed.
    Guessing(u32, u32),
    /// These ports are guessed, so often by now; our own door is seen there, if we count too.
    Meeting(Vec<SocketAddr>, usize, Option<Door>),
}

/// How far we are in learning where our door is seen: at a supernode's two ports, one after the other, which tells
/// how our NAT counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lookout {
    tries: u32,
    tokens: [u64; 2],
    seen: [Option<SocketAddr>; 2],
    /// The peer's door, if it began.
    theirs: Option<Door>,
}

/// The search for one peer.
#[derive(Clone, Debug, Default)]
pub struct Search {
    state: State,
    doors: Range<u32>,
    failures: usize,
    rested: Option<Time>,
    guessed: Option<Time>,
}

impl Peer {
    /// Begins a search if the NATs call for one, it is our turn, and enough time has passed.
    pub fn seek(&mut self, fx: &mut Effects, me: &Me) {
        let plan = plan(me.nat, self.nat);
        let begins = match plan {
            Plan::Plain => false,
            Plan::Birthday => me.birthday && me.nat.is_some_and(|nat| nat.is_hard()),
            Plan::Predict => me.nat.is_some_and(|nat| nat.is_hard()),
            Plan::PredictBoth => me.identity.id() < self.id,
        };
        if !begins || self.search.state != State::Idle || !self.is_relayed() || self.seen_at().is_none() {
            return;
        }
        if let Some(rested) = self.search.rested.filter(|rested| fx.now < *rested) {
            return fx.timers.set(Timer::Search(self.port), rested);
        }
        if !fx.doors.begin(self.port) {
            return self.search_later(fx);
        }
        fx.doors.close(&std::mem::take(&mut self.search.doors), None);
        match plan {
            Plan::Plain => {}
            Plan::Birthday => self.ask_to_search(fx, 1, None),
            Plan::Predict | Plan::PredictBoth => self.look_out(fx, me, None),
        }
    }

    fn is_relayed(&self) -> bool {
        self.session.is_some() && !self.is_asleep() && self.paths.current().is_some_and(|path| !path.is_direct())
    }

    /// Somebody else searches: soon.
    fn search_later(&mut self, fx: &mut Effects) {
        let soon = fx.jittered(Duration::from_millis(700));
        fx.timers.set(Timer::Search(self.port), fx.now + soon);
    }

    fn tell_search(&self, fx: &mut Effects, step: SearchStep, door: Option<Door>) {
        if let Some(path) = self.paths.current() {
            fx.send(self.port, path, &Message::Search { step, door });
        }
    }

    fn ask_to_search(&mut self, fx: &mut Effects, tries: u32, door: Option<Door>) {
        self.tell_search(fx, SearchStep::Begin, door);
        self.search.state = State::Asked(tries, door);
        let patience = PATIENCE.max(self.paths.current_rtt().unwrap_or_default() * 2);
        fx.timers.set(Timer::Search(self.port), fx.now + patience);
    }

    /// Opens a door and asks a supernode where it is seen.
    fn look_out(&mut self, fx: &mut Effects, me: &Me, theirs: Option<Door>) {
        let tokens = [fx.rng.next_u64(), fx.rng.next_u64()];
        self.search.doors = fx.doors.take(1);
        tokens.into_iter().for_each(|token| fx.doors.expect(token, self.port));
        self.ask_home(fx, me, Lookout { tries: 1, tokens, seen: [None; 2], theirs });
    }

    fn ask_home(&mut self, fx: &mut Effects, me: &Me, lookout: Lookout) {
        if me.homes.is_empty() {
            return self.search_failed(fx, me);
        }
        for ((token, seen), home) in lookout.tokens.into_iter().zip(lookout.seen).zip(&me.homes) {
            if seen.is_none() {
                fx.doors.send(self.search.doors.start, *home, Observe { token, elsewhere: false }.bytes());
            }
        }
        self.search.state = State::Looking(lookout);
        fx.timers.set(Timer::Search(self.port), fx.now + PATIENCE);
    }

    /// Our door is seen at `seen` by whom `token` was for.
    pub fn on_door_seen(&mut self, fx: &mut Effects, me: &Me, (token, seen): (u64, SocketAddr)) {
        let State::Looking(lookout) = &mut self.search.state else { return };
        for (place, asked) in lookout.tokens.into_iter().enumerate() {
            if asked == token {
                lookout.seen[place] = Some(seen);
            }
        }
        let lookout = *lookout;
        if lookout.seen.iter().flatten().count() >= me.homes.len().min(2) {
            self.on_lookout(fx, me, lookout);
        }
    }

    fn on_lookout(&mut self, fx: &mut Effects, me: &Me, lookout: Lookout) {
        let class = me.nat.and_then(|nat| nat.step()).unwrap_or(1);
        let door = match lookout.seen {
            [Some(first), Some(second)] => {
                let step = i32::from(second.port()) - i32::from(first.port());
                let step = i8::try_from(step).ok().filter(|step| *step != 0).unwrap_or(class);
                Door { at: second, step }
            }
            [Some(at), None] | [None, Some(at)] => Door { at, step: class },
            [None, None] => return self.search_failed(fx, me),
        };
        match lookout.theirs {
            None => self.ask_to_search(fx, 1, Some(door)),
            Some(theirs) => {
                self.meet(fx, Some(theirs), Some(door));
                self.tell_search(fx, SearchStep::Go, Some(door));
            }
        }
    }

    /// SEARCH from the peer.
    pub fn on_search(&mut self, fx: &mut Effects, me: &Me, step: SearchStep, door: Option<Door>) {
        match (step, &self.search.state) {
            (SearchStep::Begin, State::Idle) => self.on_begin(fx, me, door),
            (SearchStep::Begin, State::Guessing(..)) => self.tell_search(fx, SearchStep::Go, None),
            (SearchStep::Begin, State::Meeting(_, _, own)) => self.tell_search(fx, SearchStep::Go, *own),
            (SearchStep::Begin, _) => self.tell_search(fx, SearchStep::Later, None),
            (SearchStep::Go, State::Asked(_, None)) => {
                self.search.doors = fx.doors.take(DOORS);
                if let Some(at) = self.seen_at() {
                    fx.doors.route(self.search.doors.start, at);
                }
                self.open_doors(fx, me, 0);
            }
            (SearchStep::Go, State::Asked(_, Some(own))) => {
                let own = *own;
                self.meet(fx, door.filter(|door| self.is_seen_there(*door)), Some(own));
            }
            (SearchStep::Later, State::Asked(..)) => {
                self.search_over(fx);
                self.search_later(fx);
            }
            (SearchStep::Stop, State::Guessing(..) | State::Meeting(..) | State::Opening(_)) => self.search_over(fx),
            (SearchStep::Go | SearchStep::Later | SearchStep::Stop, _) => {}
        }
    }

    /// Guesses go only where a supernode sees the peer: it cannot point us at somebody else.
    fn is_seen_there(&self, door: Door) -> bool {
        self.seen_at().is_some_and(|seen| seen.ip() == door.at.ip())
    }

    /// The peer wants to search with us.
    fn on_begin(&mut self, fx: &mut Effects, me: &Me, door: Option<Door>) {
        let plan = plan(me.nat, self.nat);
        let rest = if plan == Plan::Birthday { BIRTHDAY_REST - REST_GRACE } else { GUESS_REST };
        let rests = self.search.guessed.is_some_and(|at| fx.now.since(at) < rest);
        let door = door.filter(|door| self.is_seen_there(*door));
        if rests || plan == Plan::Plain || (plan == Plan::Birthday && !me.birthday) || !self.is_relayed() {
            return;
        }
        if !fx.doors.begin(self.port) {
            return self.tell_search(fx, SearchStep::Later, None);
        }
        self.search.guessed = Some(fx.now);
        match (plan, door) {
            (Plan::Birthday, _) => {
                self.tell_search(fx, SearchStep::Go, None);
                self.guess(fx, me, 0, 0);
            }
            (Plan::Predict, Some(theirs)) => {
                self.meet(fx, Some(theirs), None);
                self.tell_search(fx, SearchStep::Go, None);
            }
            (Plan::PredictBoth, Some(theirs)) => {
                fx.doors.close(&std::mem::take(&mut self.search.doors), None);
                self.look_out(fx, me, Some(theirs));
            }
            (Plan::Plain | Plan::Predict | Plan::PredictBoth, _) => fx.doors.end(self.port),
        }
    }

    /// [`Timer::Search`].
    pub fn on_search_timer(&mut self, fx: &mut Effects, me: &Me) {
        match std::mem::take(&mut self.search.state) {
            State::Idle => self.seek(fx, me),
            State::Asked(tries, door) if tries < TRIES => self.ask_to_search(fx, tries + 1, door),
            State::Looking(lookout) if lookout.tries < TRIES => {
                self.ask_home(fx, me, Lookout { tries: lookout.tries + 1, ..lookout });
            }
            State::Looking(lookout) => self.on_lookout(fx, me, lookout),
            State::Opening(opened) if opened < DOORS => self.open_doors(fx, me, opened),
            State::Guessing(sent, followed) if sent < GUESSES => self.guess(fx, me, sent, followed),
            State::Meeting(targets, round, own) if round < REPEATS.len() => {
                self.send_guesses(fx, &targets);
                fx.timers.set(Timer::Search(self.port), fx.now + REPEATS[round]);
                self.search.state = State::Meeting(targets, round + 1, own);
            }
            State::Asked(..) | State::Opening(_) | State::Guessing(..) | State::Meeting(..) => {
                self.search_failed(fx, me)
            }
        }
    }

    /// Both sides send to each other: to every port that the peer's door may have next, or to where a supernode sees
    /// the peer; by our own door if we opened one.
    fn meet(&mut self, fx: &mut Effects, theirs: Option<Door>, own: Option<Door>) {
        let targets = match theirs {
            Some(door) => (1..=PREDICTED).filter_map(|n| nth_port(door.at, n * i32::from(door.step))).collect(),
            None => Vec::from_iter(self.seen_at()),
        };
        if own.is_some() {
            targets.iter().for_each(|target| fx.doors.route(self.search.doors.start, *target));
        }
        self.send_guesses(fx, &targets);
        self.search.state = State::Meeting(targets, 0, own);
        fx.timers.set(Timer::Search(self.port), fx.now + REPEATS[0]);
    }

    /// Probes whose answers are not awaited: what is heard from there is probed in turn.
    fn send_guesses(&mut self, fx: &mut Effects, targets: &[SocketAddr]) {
        for target in targets {
            let token = fx.rng.next_u64();
            fx.send(self.port, Path::Direct(*target), &Message::Probe { token, sent: 0, is_spare: false });
        }
    }

    /// What kind a new address of the peer is.
    pub fn kind_heard(&self, addr: SocketAddr) -> CandidateKind {
        match &self.search.state {
            State::Meeting(targets, ..) if targets.contains(&addr) => CandidateKind::Predicted,
            State::Guessing(..) => CandidateKind::Predicted,
            State::Idle | State::Asked(..) | State::Looking(_) | State::Opening(_) | State::Meeting(..) => {
                CandidateKind::PeerReflexive
            }
        }
    }

    /// There is a direct path: no more guesses, and only the door that it takes stays open. The peer is not told: it
    /// must find by itself, and may need its doors for that.
    pub fn search_found(&mut self, fx: &mut Effects) {
        if self.search.state != State::Idle {
            self.search.rested = matches!(self.search.state, State::Opening(_)).then(|| fx.now + BIRTHDAY_REST);
            self.search.failures = 0;
            self.search_over(fx);
        }
    }

    fn search_failed(&mut self, fx: &mut Effects, me: &Me) {
        self.tell_search(fx, SearchStep::Stop, None);
        let rest = match plan(me.nat, self.nat) {
            Plan::Birthday => BIRTHDAY_REST,
            Plan::Plain | Plan::Predict | Plan::PredictBoth => {
                PREDICT_RESTS[self.search.failures.min(PREDICT_RESTS.len() - 1)]
            }
        };
        self.search.failures += 1;
        self.search_over(fx);
        let rest = fx.jittered(rest);
        self.search.rested = Some(fx.now + rest);
        self.seek(fx, me);
    }

    fn search_over(&mut self, fx: &mut Effects) {
        self.search.state = State::Idle;
        let keep = match self.paths.current() {
            Some(Path::Direct(addr)) => Some(addr),
            Some(Path::Relayed(..)) | None => None,
        };
        fx.doors.close(&self.search.doors, keep);
        if keep.is_none() {
            self.search.doors = 0..0;
        }
        fx.doors.end(self.port);
        fx.timers.cancel(Timer::Search(self.port));
    }

    /// What an earlier search found is worth nothing any more, unless it carries.
    pub fn forget_doors(&mut self, fx: &mut Effects) {
        if self.search.state == State::Idle && !self.paths.current().is_some_and(Path::is_direct) {
            fx.doors.close(&std::mem::take(&mut self.search.doors), None);
        }
    }

    /// The peer is gone, and with it every door.
    pub fn search_ended(&mut self, fx: &mut Effects) {
        fx.doors.close(&std::mem::take(&mut self.search.doors), None);
        fx.doors.end(self.port);
        fx.timers.cancel(Timer::Search(self.port));
        self.search.state = State::Idle;
    }
}

fn nth_port(from: SocketAddr, offset: i32) -> Option<SocketAddr> {
    let port = u16::try_from(i32::from(from.port()) + offset).ok().filter(|port| *port >= FIRST_PORT)?;
    Some(SocketAddr::new(from.ip(), port))
}
