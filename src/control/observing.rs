//! Finding out how our own NAT behaves: questions to supernodes, answers to the judge.
//!
//! A round begins when a supernode took us or our addresses changed: each supernode is asked where it sees us,
//! asked the same at its second port, and asked to answer from a port that we never send to. After a second
//! [`judge`] has its say, and peers that need to know are told (`search`).

use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::rand_core::RngCore;

use super::Control;
use super::effects::Effects;
use super::natcheck::judge;
use super::natcheck::questions::{Question, Questions};
use super::timers::Timer;
use crate::datapath::stats::DropReason;
use crate::datapath::{Command, Path};
use crate::seam::stream::is_stream;
use crate::time::Time;
use crate::wire::observe::{NatClass, Observed};

/// From the reason to the first question: several reasons come at once.
const SETTLE: Duration = Duration::from_millis(100);
/// Between repetitions of what was not answered.
const REPEAT: Duration = Duration::from_millis(300);
/// Questions before the judge is called.
const TRIES: u32 = 3;
/// Rounds are at least this far apart.
const REST: Duration = Duration::from_secs(20);
/// Supernodes asked in a round.
const ASKED_MAX: usize = 4;

/// What we know of our own NAT, and the round in progress.
#[derive(Debug, Default)]
pub struct Observing {
    /// The judge's last word.
    pub class: Option<NatClass>,
    /// Where we were seen at that time.
    pub public: Option<SocketAddr>,
    questions: Questions,
    tries: u32,
    began: Option<Time>,
}

impl Observing {
    /// Something changed: a round begins soon.
    pub fn want(&self, fx: &mut Effects) {
        let rested = self.began.map_or(fx.now, |began| began + REST);
        fx.timers.set_earlier(Timer::Observe, rested.max(fx.now) + SETTLE);
    }

    /// [`Timer::Observe`]: the next step of a round. `true` if our class is another one now.
    fn on_timer(
        &mut self,
        fx: &mut Effects,
        homes: &[SocketAddr],
        (port, is_own): (u16, impl Fn(SocketAddr) -> bool),
    ) -> bool {
        if self.tries == 0 {
            self.began = Some(fx.now);
            self.questions.clear();
            for home in homes.iter().take(ASKED_MAX) {
                self.questions.add(*home, false, || fx.rng.next_u64());
                self.questions.add(*home, true, || fx.rng.next_u64());
            }
        }
        if self.tries < TRIES && !self.questions.is_empty() {
            self.tries += 1;
            self.questions.open().for_each(|question| ask(fx, question));
            fx.timers.set(Timer::Observe, fx.now + REPEAT);
            return false;
        }
        self.tries = 0;
        let observations = self.questions.observations();
        let class = judge(&observations, is_own, port, self.questions.stranger());
        self.public = observations.first().map(|one| one.seen).or(self.public);
        class.is_some() && std::mem::replace(&mut self.class, class) != class
    }

    /// Who answered, in the order in which they were asked.
    fn places(&self) -> Vec<SocketAddr> {
        self.questions.observations().into_iter().map(|one| one.asked).collect()
    }

    /// An answer. One that tells of a second port leads to a question there.
    fn on_observed(&mut self, fx: &mut Effects, answer: Observed) {
        if !self.questions.awaits(answer) {
            return fx.dropped(DropReason::Unasked);
        }
        let Some(other) = self.questions.keep(answer).filter(|_| self.tries > 0) else { return };
        if let Some(question) = self.questions.add(other, false, || fx.rng.next_u64()) {
            ask(fx, &question);
        }
    }
}

fn ask(fx: &mut Effects, question: &Question) {
    fx.commands.push_back(Command::SendPlain { path: Path::Direct(question.asked), packet: question.packet() });
}

impl Control {
    /// [`Timer::Observe`].
    pub(super) fn on_observe_timer(&mut self) {
        // IPv4 where there is some: NATs stand there.
        let may_be_asked = |remote: &SocketAddr| !remote.ip().is_loopback() && !is_stream(*remote);
        let mut homes = self.homes.iter().filter_map(|home| home.remote).filter(may_be_asked).collect::<Vec<_>>();
        if homes.iter().any(SocketAddr::is_ipv4) {
            homes.retain(SocketAddr::is_ipv4);
        }
        let (port, addresses) = &self.host;
        let is_own = |seen: SocketAddr| seen.port() == *port && addresses.contains(&seen.ip());
        let is_news = self.observing.on_timer(&mut self.fx, &homes, (*port, is_own));
        self.me.homes = self.observing.places();
        if is_news {
            self.me.nat = self.observing.class;
            for peer in self.peers.values_mut() {
                peer.tell_class(&mut self.fx, &self.me);
            }
        }
    }

    /// Somebody says where it sees us.
    pub(super) fn on_observed(&mut self, packet: &[u8]) {
        let Ok(answer) = Observed::parse(packet) else { return self.fx.dropped(DropReason::Malformed) };
        match self.fx.doors.take_asker(answer.token) {
            Some(port) => {
                if let Some(peer) = self.peers.get_mut(&port) {
                    peer.on_door_seen(&mut self.fx, &self.me, (answer.token, answer.seen));
                }
            }
            None => self.observing.on_observed(&mut self.fx, answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::WallTime;
    use crate::wire::observe::{Filtering, Mapping, Observe, Ports};

    const HOME: ([u8; 4], u16) = ([192, 0, 2, 1], 7777);

    /// A round against a supernode that answers through `seen`, or not; `lets_in` strangers.
    fn round(seen: impl Fn(SocketAddr) -> Option<SocketAddr>, lets_in: bool) -> Observing {
        let mut fx = Effects::new([7; 32], Time::START, WallTime::since_1970(Duration::ZERO));
        let mut observing = Observing::default();
        observing.want(&mut fx);
        while let Some((at, timer)) = fx.timers.next() {
            assert_eq!(timer, Timer::Observe);
            fx.now = at;
            fx.timers.pop_due(at);
            observing.on_timer(&mut fx, &[HOME.into()], (7777, |_| false));
            while let Some(command) = fx.commands.pop_front() {
                let Command::SendPlain { path: Path::Direct(asked), packet } = command else { panic!("{command:?}") };
                let Observe { token, elsewhere } = Observe::parse(&packet).expect("a question");
                let answer = seen(asked).filter(|_| lets_in || !elsewhere).map(|seen| Observed {
                    token,
                    elsewhere,
                    seen,
                    other: "[::]:7778".parse().ok(),
                });
                if let Some(answer) = answer {
                    observing.on_observed(&mut fx, answer);
                }
            }
        }
        observing
    }

    #[test]
    fn one_supernode_with_two_ports_is_enough() {
        let home = SocketAddr::from(([198, 51, 100, 7], 7777));
        let kept = round(|_| Some(home), false);
        let expected =
            NatClass { mapping: Mapping::Independent, filtering: Some(Filtering::PerPort), ports: Ports::Kept };
        assert_eq!((kept.class, kept.public), (Some(expected), Some(home)));
        let counting = round(|asked| Some(SocketAddr::new(home.ip(), asked.port() + 1000)), true);
        let expected =
            NatClass { mapping: Mapping::PerPort, filtering: Some(Filtering::PerAddress), ports: Ports::Counting(1) };
        assert_eq!(counting.class, Some(expected));
    }

    #[test]
    fn a_supernode_that_says_nothing_leaves_everything_unknown() {
        let observing = round(|_| None, false);
        assert_eq!((observing.class, observing.public), (None, None));
    }

    #[test]
    fn an_answer_that_nobody_asked_for_is_nothing() {
        let mut fx = Effects::new([7; 32], Time::START, WallTime::since_1970(Duration::ZERO));
        let mut observing = Observing::default();
        let answer = Observed { token: 0, elsewhere: false, seen: HOME.into(), other: Some(HOME.into()) };
        observing.on_observed(&mut fx, answer);
        assert!(observing.questions.is_empty());
        assert!(matches!(fx.commands.pop_front(), Some(Command::CountDrop { reason: DropReason::Unasked })));
    }
}
