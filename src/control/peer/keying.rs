//! How a peer's keys are made: INIT, RESP, what is sent again, and which of two that begin at once goes on.

use std::time::Duration;

use super::{Me, Peer};
use crate::control::certificates::Certificates;
use crate::control::effects::Effects;
use crate::control::handshake::{self, Initiator, Local, Responder};
use crate::control::report::PeerState;
use crate::control::timers::Timer;
use crate::datapath::stats::DropReason;
use crate::datapath::{Command, Path};
use crate::time::Time;
use crate::wire::certificate::Certificate;
use crate::wire::handshake::{Envelope, Payload, Suite};
use crate::wire::session::Message;
use crate::wire::version::Version;

/// New keys are made after this time, by the side that initiated (WireGuard's rekey-after-time).
const REKEY_AFTER: Duration = Duration::from_secs(120);
/// The other side does it if the first has not.
const REKEY_FALLBACK: Duration = Duration::from_secs(140);
/// First retransmission of INIT; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(150);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// INITs of one attempt: about 20 s.
const TRIES: u32 = 9;
/// The same towards a peer that is gone.
const TRIES_GONE: u32 = 3;
/// Between attempts, at first.
const REST_FIRST: Duration = Duration::from_secs(1);
/// Between attempts, at most.
const ATTEMPT_REST: Duration = Duration::from_secs(30);
/// A retransmitted INIT is answered for this long; after that somebody else replays it.
const ANSWER_AGAIN: Duration = Duration::from_secs(30);
/// Whoever answered an INIT and heard nothing more for this long begins itself.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(5);
/// The side with the greater id lets the other go first.
const COURTESY: Duration = Duration::from_millis(150);
/// Direct addresses an INIT is sent to when no supernode can carry it.
const INIT_FAN_OUT: usize = 8;

/// An INIT on its way.
pub(super) struct Attempt {
    initiator: Initiator,
    packet: Vec<u8>,
    tries: u32,
    sent: Time,
}

/// A RESP that may have to be sent again.
pub(super) struct Answered {
    pub(super) mac1: [u8; 16],
    packet: Vec<u8>,
    path: Path,
    boot: u64,
    at: Time,
}

impl Me {
    fn payload(&self, fx: &mut Effects, certificate: &Certificate) -> Payload {
        let (boot, has_aes) = (self.boot, self.has_aes);
        let (timestamp, certificate) = (fx.timestamp(), certificate.clone());
        Payload { boot, timestamp, has_aes, follows: true, streams: true, trees: true, times: true, certificate }
    }
}

impl Peer {
    /// Makes keys soon: at once if our id is the smaller one, else after the peer had its chance.
    pub fn want_session(&mut self, fx: &mut Effects, me: &Me) {
        if self.session.is_some() || self.is_asleep() {
            return;
        }
        if let Some(attempt) = &self.attempt {
            // There is a new way perhaps; but nobody can make us send more often than this.
            if fx.now.since(attempt.sent) >= RETRY_FIRST {
                self.send_attempt(fx);
            }
            return;
        }
        let wait = if me.identity.id() < self.id { Duration::ZERO } else { COURTESY };
        fx.timers.set_earlier(Timer::Handshake(self.port), fx.now + wait);
    }

    /// Whether nothing was done about it yet.
    pub fn is_untried(&self) -> bool {
        let is_met = self.session.is_some() || self.attempt.is_some() || self.answered.is_some();
        !is_met && self.state == PeerState::Connecting
    }

    /// A frame waits for keys or a path.
    pub fn on_need_keys(&mut self, fx: &mut Effects, me: &Me, local: Local<'_>, certificate: &Certificate) {
        if self.is_asleep() {
            // Nobody has renewed them.
            self.session = None;
        }
        if self.state != PeerState::Gone && fx.timers.when(Timer::Handshake(self.port)).is_none() {
            self.begin_handshake(fx, me, local, certificate);
        }
    }

    /// Starts an attempt, unless one is on its way.
    pub fn begin_handshake(&mut self, fx: &mut Effects, me: &Me, local: Local<'_>, certificate: &Certificate) {
        if self.attempt.is_some() {
            return;
        }
        let suite = match (me.stand_in, me.has_aes && self.has_aes) {
            (true, _) => Suite::StandIn,
            (false, true) => Suite::AesGcm,
            (false, false) => Suite::ChaChaPoly,
        };
        let index = fx.new_index(self.port);
        let payload = me.payload(fx, certificate);
        let made = handshake::initiate(local, self.id, (suite, index), &payload, &mut fx.rng);
        let Some((initiator, packet)) = made else {
            fx.indices.remove(&index);
            return;
        };
        self.attempt = Some(Attempt { initiator, packet, tries: 0, sent: fx.now });
        self.send_attempt(fx);
    }

    fn send_attempt(&mut self, fx: &mut Effects) {
        let Some(attempt) = self.attempt.as_mut() else { return };
        let mut ways = Vec::new();
        match self.paths.current() {
            Some(path) if attempt.tries < 2 => ways.push(path),
            _ => ways.extend(self.paths.relays()),
        }
        if ways.is_empty() || attempt.tries >= 2 {
            let direct = self.paths.candidates.to_probe(INIT_FAN_OUT);
            ways.extend(direct.into_iter().filter(|addr| self.may_try(fx, *addr)).map(Path::Direct));
        }
        let Some(attempt) = self.attempt.as_mut() else { return };
        for path in ways {
            fx.commands.push_back(Command::SendPlain { path, packet: attempt.packet.clone() });
        }
        let wait = RETRY_FIRST * 2_u32.pow(attempt.tries.min(8));
        attempt.tries += 1;
        attempt.sent = fx.now;
        let wait = fx.jittered(wait.min(RETRY_MAX));
        fx.timers.set(Timer::Handshake(self.port), fx.now + wait);
    }

    /// [`Timer::Handshake`]: again, or enough for now.
    pub fn on_handshake_timer(&mut self, fx: &mut Effects, me: &Me, local: Local<'_>, certificate: &Certificate) {
        let is_hopeless = self.state == PeerState::Gone || self.is_asleep() && !self.paths.has_relay();
        let limit = if is_hopeless { TRIES_GONE } else { TRIES };
        match &self.attempt {
            Some(attempt) if attempt.tries < limit => self.send_attempt(fx),
            Some(_) => {
                self.drop_attempt(fx);
                self.rest(fx);
            }
            None if self.is_asleep() => {}
            None => self.begin_handshake(fx, me, local, certificate),
        }
    }

    /// Until the next attempt: one second, two, four, up to half a minute.
    pub(super) fn rest(&mut self, fx: &mut Effects) {
        let rest = fx.jittered((REST_FIRST * 2_u32.pow(self.silences.min(8))).min(ATTEMPT_REST));
        self.silences += 1;
        fx.timers.set(Timer::Handshake(self.port), fx.now + rest);
    }

    /// A sleeper has a relay now: what rested for want of one goes on.
    pub fn end_rest(&mut self, fx: &mut Effects) {
        if self.is_asleep() && self.attempt.is_none() {
            self.silences = 0;
            fx.timers.cancel(Timer::Handshake(self.port));
        }
    }

    pub(super) fn drop_attempt(&mut self, fx: &mut Effects) {
        if let Some(attempt) = self.attempt.take() {
            fx.indices.remove(&attempt.initiator.local_index);
        }
        fx.timers.cancel(Timer::Handshake(self.port));
    }

    /// A RESP to our INIT, by `path`.
    pub(in crate::control) fn on_resp(
        &mut self,
        fx: &mut Effects,
        certificates: &mut Certificates,
        envelope: &Envelope<'_>,
        path: Path,
    ) {
        let answers = |attempt: &Attempt| Some(attempt.initiator.local_index) == envelope.receiver;
        if !self.attempt.as_ref().is_some_and(answers) {
            return fx.dropped(DropReason::HandshakeUnexpected);
        }
        let Some(mut attempt) = self.attempt.take() else { return };
        match attempt.initiator.finish(envelope, certificates) {
            Ok((payload, keys)) => {
                fx.timers.cancel(Timer::Handshake(self.port));
                self.on_abilities(fx, &payload);
                // Now we know that AES is slow there: these keys carry frames until the next ones are made.
                let is_slow = keys.suite == Suite::AesGcm && !payload.has_aes;
                let rekey = if is_slow { Duration::ZERO } else { REKEY_AFTER };
                // It answers our own INIT: fresh, whatever its clock says.
                self.freshness.note(payload.boot, payload.timestamp);
                fx.commands.push_back(Command::Install { port: self.port, keys, confirmed: true });
                fx.send(self.port, path, &Message::Confirm);
                fx.timers.set(Timer::Rekey(self.port), fx.now + rekey);
                let rtt = fx.now.since(attempt.sent);
                self.on_session(fx, payload.boot, path, rtt);
            }
            Err(_) => {
                self.attempt = Some(attempt);
                fx.dropped(DropReason::HandshakeForged);
            }
        }
    }

    /// The INIT answered last came again, by `path`: so does the answer.
    pub fn answer_again(&self, fx: &mut Effects, path: Path) {
        if let Some(answered) = self.answered.as_ref().filter(|answered| fx.now.since(answered.at) < ANSWER_AGAIN) {
            fx.commands.push_back(Command::SendPlain { path, packet: answered.packet.clone() });
        }
    }

    /// A believable INIT by `path`; `mac1` is its outer MAC.
    pub fn on_init(
        &mut self,
        fx: &mut Effects,
        (me, local): (&Me, Local<'_>),
        certificate: &Certificate,
        responder: Responder,
        (mac1, path): ([u8; 16], Path),
    ) {
        let (boot, timestamp) = (responder.payload.boot, responder.payload.timestamp);
        if !self.freshness.is_fresh(boot, timestamp) {
            fx.dropped(DropReason::HandshakeReplayed);
            if self.freshness.prompts(fx.now, boot) {
                self.on_old_init(fx, me, local, certificate, path);
            }
            return;
        }
        let stays_initiator =
            self.attempt.as_ref().is_some_and(|attempt| attempt.tries < 2) && me.identity.id() < self.id;
        if stays_initiator {
            return;
        }
        // Only one side gives its own attempt up, or both might at once, and nobody would have keys.
        if me.identity.id() > self.id || self.attempt.is_none() {
            self.drop_attempt(fx);
            let patience = fx.jittered(CONFIRM_PATIENCE);
            fx.timers.set(Timer::Handshake(self.port), fx.now + patience);
        }
        self.on_abilities(fx, &responder.payload);
        let index = fx.new_index(self.port);
        let payload = me.payload(fx, certificate);
        let Some((packet, keys)) = responder.answer(local, index, &payload) else {
            fx.indices.remove(&index);
            return;
        };
        self.freshness.note(boot, timestamp);
        fx.commands.push_back(Command::Install { port: self.port, keys, confirmed: false });
        fx.commands.push_back(Command::SendPlain { path, packet: packet.clone() });
        fx.answered.insert(mac1, self.port);
        if let Some(old) = self.answered.replace(Answered { mac1, packet, path, boot, at: fx.now }) {
            fx.answered.remove(&old.mac1);
        }
    }

    fn on_abilities(&mut self, fx: &mut Effects, payload: &Payload) {
        (self.has_aes, self.takes_times) = (payload.has_aes, payload.times);
        let (port, follows, trees) = (self.port, payload.follows, payload.trees);
        fx.commands.push_back(Command::SetAbilities { port, follows, trees });
    }

    /// A supernode says which version it speaks: as long as there are no keys nobody knows better.
    pub fn on_version(&self, fx: &mut Effects, version: Version) {
        if self.session.is_none() {
            let (follows, trees) = (version >= Version::FOLLOWS, version >= Version::TREES);
            fx.commands.push_back(Command::SetAbilities { port: self.port, follows, trees });
        }
    }

    /// A genuine INIT of another boot, but older than one we have seen: replayed, or the peer has restarted with its
    /// clock set back. It can show which by answering ours.
    fn on_old_init(&mut self, fx: &mut Effects, me: &Me, local: Local<'_>, certificate: &Certificate, path: Path) {
        self.begin_handshake(fx, me, local, certificate);
        let is_used = self.paths.current() == Some(path);
        if let Some(attempt) = self.attempt.as_ref().filter(|_| !is_used) {
            fx.commands.push_back(Command::SendPlain { path, packet: attempt.packet.clone() });
        }
    }

    /// The peer has shown, by `path`, that it has the keys of our RESP.
    pub fn on_confirmed(&mut self, fx: &mut Effects, path: Path) {
        let Some(answered) = &self.answered else { return };
        let (boot, way) = (answered.boot, answered.path);
        self.drop_attempt(fx);
        fx.timers.set(Timer::Rekey(self.port), fx.now + REKEY_FALLBACK);
        self.on_session(fx, boot, way, Duration::from_millis(100));
        self.check(fx, path);
    }
}

#[cfg(test)]
mod tests;
