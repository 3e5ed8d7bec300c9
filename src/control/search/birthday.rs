//! The search where ports are random: many doors on one side, many guesses on the other, until two fit.

use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::rand_core::RngCore;

use super::{FIRST_PORT, State};
use crate::control::effects::Effects;
use crate::control::peer::{Me, Peer};
use crate::control::timers::Timer;
use crate::datapath::Path;
use crate::wire::observe::OPENER;
use crate::wire::session::CandidateKind;

/// Doors of a birthday search: with 2,048 guesses one of 3,000 finds none (with 1,024 it would be one of 60).
pub(super) const DOORS: u32 = 256;
/// Guesses of a birthday search.
pub(super) const GUESSES: u32 = 2048;
/// Of either at a time...
const BATCH: u32 = 10;
/// ...which makes 200 per second.
const BATCH_GAP: Duration = Duration::from_millis(50);
/// The guesses take as much longer than the doors do to be opened.
const DOORS_WAIT: Duration = Duration::from_secs(9);
/// Then whatever is on its way may still arrive.
const LINGER: Duration = Duration::from_secs(5);
/// Openers that are followed up in one search.
const OPENERS_MAX: u32 = 32;

impl Peer {
    /// The next doors, all towards the peer.
    pub(super) fn open_doors(&mut self, fx: &mut Effects, me: &Me, opened: u32) {
        let Some(at) = self.seen_at() else { return self.search_failed(fx, me) };
        let next = (opened + BATCH).min(DOORS);
        for door in opened..next {
            fx.doors.send(self.search.doors.start + door, at, opener());
        }
        self.search.state = State::Opening(next);
        let wait = if next < DOORS { BATCH_GAP } else { DOORS_WAIT + LINGER };
        fx.timers.set(Timer::Search(self.port), fx.now + wait);
    }

    /// The next guesses, anywhere at the peer's address.
    pub(super) fn guess(&mut self, fx: &mut Effects, me: &Me, sent: u32, followed: u32) {
        let Some(at) = self.seen_at() else { return self.search_failed(fx, me) };
        let next = (sent + BATCH).min(GUESSES);
        let draw = |fx: &mut Effects| {
            let range = u32::from(u16::MAX - FIRST_PORT) + 1;
            let port = u32::from(FIRST_PORT) + fx.rng.next_u32() % range;
            SocketAddr::new(at.ip(), u16::try_from(port).unwrap_or(u16::MAX))
        };
        let targets = (sent..next).map(|_| draw(fx)).collect::<Vec<_>>();
        self.send_guesses(fx, &targets);
        self.search.state = State::Guessing(next, followed);
        let wait = if next < GUESSES { BATCH_GAP } else { LINGER };
        fx.timers.set(Timer::Search(self.port), fx.now + wait);
    }

    /// An opener came through to us from `from`: one of the peer's doors, if it is from there. `false` if not.
    pub fn on_opener(&mut self, fx: &mut Effects, from: SocketAddr) -> bool {
        let is_theirs = self.seen_at().is_some_and(|at| at.ip() == from.ip());
        let State::Guessing(_, followed) = &mut self.search.state else { return false };
        if !is_theirs || *followed >= OPENERS_MAX {
            return false;
        }
        *followed += 1;
        self.paths.candidates.add(CandidateKind::Predicted, from);
        self.probe(fx, Path::Direct(from));
        true
    }
}

/// Nobody reads it; as long as a probe that it may lead to.
fn opener() -> Vec<u8> {
    let mut packet = vec![0; 64];
    packet[0] = OPENER;
    packet
}
