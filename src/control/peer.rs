//! Peers: the cold half. Who a member is, how far the handshake with it is, which session stands.
//!
//! Keys come from `handshake`, ways from `path`, direct ways from `punch`, and whether they still carry is
//! `liveness`; the hot half is a port of the corridor. In order: INIT, RESP, session, rekey; or silence.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::carriers::{Carriers, OwnLeg};
use super::carrying;
use super::certificates::Certificates;
use super::consent::Consent;
use super::effects::Effects;
use super::freshness::Freshness;
use super::handshake::{self, Initiator, Local, Responder};
use super::liveness::PROBE_EVERY;
use super::mtu::Mtu;
use super::path::{Change, Paths};
use super::punch::Punch;
use super::report::PeerState;
use super::search::Search;
use super::sleep::Slumber;
use super::timers::Timer;
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::PortId;
use crate::datapath::limit::Bucket;
use crate::datapath::stats::DropReason;
use crate::datapath::{Command, Path};
use crate::keys::{Identity, NodeId};
use crate::seam::Event;
use crate::time::Time;
use crate::wire::carry::RelayFor;
use crate::wire::certificate::Certificate;
use crate::wire::handshake::{Envelope, Payload, Suite};
use crate::wire::inventory::Excerpt;
use crate::wire::observe::NatClass;
use crate::wire::session::{Candidate, Message};
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
/// The path in use is probed this often without traffic: NAT mappings live 30 s and more (RFC 4787 REQ-5).
pub(super) const KEEPALIVE: Duration = Duration::from_secs(16);
/// Direct addresses an INIT is sent to when no supernode can carry it.
const INIT_FAN_OUT: usize = 8;

/// MTU probes of one peer answered per second: several times what a search sends.
const MTU_ANSWERS: u32 = 20;

/// Who we are, as far as peers are concerned.
pub struct Me {
    /// Our keys.
    pub identity: Identity,
    /// Drawn at this start.
    pub boot: u64,
    /// Whether our processor has AES instructions.
    pub has_aes: bool,
    /// Large simulations only.
    pub stand_in: bool,
    /// Addresses at which we may be heard.
    pub candidates: Vec<Candidate>,
    /// How the NAT in front of us behaves.
    pub nat: Option<NatClass>,
    /// Supernodes that can be asked where a socket is seen.
    pub homes: Vec<SocketAddr>,
    /// Whether we search with peers whose NAT takes random ports.
    pub birthday: bool,
}

impl Me {
    fn payload(&self, fx: &mut Effects, certificate: &Certificate) -> Payload {
        let (boot, has_aes) = (self.boot, self.has_aes);
        let (timestamp, certificate) = (fx.timestamp(), certificate.clone());
        Payload { boot, timestamp, has_aes, follows: true, streams: true, trees: true, certificate }
    }
}

/// An INIT on its way.
struct Attempt {
    initiator: Initiator,
    packet: Vec<u8>,
    tries: u32,
    sent: Time,
}

/// A RESP that may have to be sent again.
struct Answered {
    mac1: [u8; 16],
    packet: Vec<u8>,
    path: Path,
    boot: u64,
    at: Time,
}

/// Keys that both sides have.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// The peer's boot it was made with.
    pub boot: u64,
}

/// Another member.
pub struct Peer {
    /// Its hot half.
    pub port: PortId,
    /// Where we know it from.
    pub overlay: OverlayIndex,
    /// Who it is.
    pub id: NodeId,
    /// Its name, if it told.
    pub name: Option<String>,
    /// Whether it answers.
    pub state: PeerState,
    /// How it can be reached.
    pub paths: Paths,
    /// How far the search for a direct path is.
    pub punch: Punch,
    /// How large packets on the path in use may be.
    pub mtu: Mtu,
    /// The search for one that punching cannot find.
    pub search: Search,
    /// Where supernodes see it, by their place in the settings.
    pub seen: BTreeMap<usize, SocketAddr>,
    /// How the NAT in front of it behaves, as it told.
    pub nat: Option<NatClass>,
    /// For whom it relays, as it told.
    pub relays: RelayFor,
    /// Where it is, as it told.
    pub site: String,
    /// Members that may carry to it.
    pub carriers: Carriers,
    /// Our leg at it, if it ever relayed for us.
    pub own_leg: Option<OwnLeg>,
    /// What it may ask about carrying.
    pub(super) asks: Bucket,
    /// The session that stands.
    pub session: Option<Session>,
    /// Whether it is kept awake.
    pub(super) slumber: Slumber,
    /// What its directory entry said last of its machines.
    pub(super) excerpt: Option<Excerpt>,
    /// When a frame for one machine alone went to it or came from it last, as far as was measured.
    pub(super) used: Option<Time>,
    /// When anything genuine came from it, as far as was measured.
    pub heard: Time,
    /// The time in its last announcement.
    pub(super) announced: [u8; 12],
    /// Attempts that failed since it was gone.
    silences: u32,
    /// What it may make us send.
    pub(super) consent: Consent,
    /// When the direct path died last.
    pub(super) lost: Option<Time>,
    pub(super) liveness_due: bool,
    pub(super) probed: Time,
    /// While frames flow, the path in use is probed this often.
    pub(super) probe_every: Duration,
    pub(super) mtu_answers: Bucket,
    /// The longest packet that came since that was told, and when it was.
    pub(super) longest_heard: usize,
    pub(super) told_longest: Time,
    pub(super) tell_every: Duration,
    /// When a supernode that does not carry was probed last.
    pub(super) measured: Time,
    has_aes: bool,
    attempt: Option<Attempt>,
    answered: Option<Answered>,
    freshness: Freshness,
}

impl Peer {
    /// A member we know of and have no keys with; frames of its overlay carry `mtu` bytes.
    pub fn new(port: PortId, (overlay, mtu): (OverlayIndex, usize), id: NodeId, now: Time) -> Self {
        Self {
            port,
            overlay,
            id,
            name: None,
            state: PeerState::Connecting,
            paths: Paths::default(),
            punch: Punch::default(),
            mtu: Mtu::new(mtu),
            search: Search::default(),
            seen: BTreeMap::new(),
            nat: None,
            relays: RelayFor::Nobody,
            site: String::new(),
            carriers: Carriers::default(),
            own_leg: None,
            asks: Bucket::new(carrying::ASK_RATE, carrying::ASK_BURST),
            session: None,
            slumber: Slumber::Awake(now),
            excerpt: None,
            used: None,
            heard: now,
            announced: [0; 12],
            silences: 0,
            consent: Consent::default(),
            lost: None,
            liveness_due: false,
            probed: Time::START,
            probe_every: PROBE_EVERY,
            mtu_answers: Bucket::new(MTU_ANSWERS, MTU_ANSWERS),
            longest_heard: 0,
            told_longest: Time::START,
            tell_every: Duration::ZERO,
            measured: now,
            has_aes: true,
            attempt: None,
            answered: None,
            freshness: Freshness::default(),
        }
    }

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
    pub(super) fn is_untried(&self) -> bool {
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
        let limit = if self.state == PeerState::Gone { TRIES_GONE } else { TRIES };
        match &self.attempt {
            Some(attempt) if attempt.tries < limit => self.send_attempt(fx),
            Some(_) => {
                self.drop_attempt(fx);
                if !self.is_asleep() {
                    self.rest(fx);
                }
            }
            None if self.is_asleep() => {}
            None => self.begin_handshake(fx, me, local, certificate),
        }
    }

    /// Until the next attempt: one second, two, four, up to half a minute.
    fn rest(&mut self, fx: &mut Effects) {
        let rest = fx.jittered((REST_FIRST * 2_u32.pow(self.silences.min(8))).min(ATTEMPT_REST));
        self.silences += 1;
        fx.timers.set(Timer::Handshake(self.port), fx.now + rest);
    }

    /// Whether it cannot be reached, no supernode knows it, and that has been so for `span`.
    pub fn is_lost(&self, now: Time, span: Duration) -> bool {
        self.session.is_none() && self.paths.relays().next().is_none() && now.since(self.heard) >= span
    }

    fn drop_attempt(&mut self, fx: &mut Effects) {
        if let Some(attempt) = self.attempt.take() {
            fx.indices.remove(&attempt.initiator.local_index);
        }
        fx.timers.cancel(Timer::Handshake(self.port));
    }

    /// A RESP to our INIT, by `path`.
    pub(super) fn on_resp(
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
        self.has_aes = payload.has_aes;
        let (port, follows, trees) = (self.port, payload.follows, payload.trees);
        fx.commands.push_back(Command::SetAbilities { port, follows, trees });
    }

    /// A supernode says which version it speaks: as long as there are no keys nobody knows better.
    pub(super) fn on_version(&self, fx: &mut Effects, version: Version) {
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

    /// Both sides have keys. `path` has carried a round trip.
    fn on_session(&mut self, fx: &mut Effects, boot: u64, path: Path, rtt: Duration) {
        let is_restart = self.session.is_some_and(|session| session.boot != boot);
        let is_new = self.session.is_none() || is_restart;
        self.session = Some(Session { boot });
        self.silences = 0;
        self.heard = fx.now;
        if is_restart {
            self.paths.reset();
        }
        if let Path::Relayed(leg, relay) = path {
            self.paths.add_relay(leg, relay);
        }
        if is_new || self.paths.current().is_none() {
            self.paths.prove(fx.now, path, rtt);
            self.choose(fx, if is_restart { "the peer restarted" } else { "the handshake came this way" });
        }
        if self.state != PeerState::Up {
            self.state = PeerState::Up;
            fx.events.push_back(Event::PeerUp { overlay: self.overlay, peer: self.id, name: self.name.clone() });
        }
        match self.is_asleep() {
            true => self.doubt_later(fx),
            false if is_new => self.begin_upkeep(fx),
            false => {}
        }
    }

    /// Both tell what is behind their TAPs. Relays are probed, the path in use is kept open, a direct one is sought.
    pub(super) fn begin_upkeep(&mut self, fx: &mut Effects) {
        fx.commands.push_back(Command::TellAll { port: self.port });
        self.punch = Punch::default();
        for relay in self.paths.relays().collect::<Vec<_>>() {
            self.probe(fx, relay);
        }
        let wait = fx.jittered(KEEPALIVE);
        fx.timers.set(Timer::Keepalive(self.port), fx.now + wait);
        fx.timers.set(Timer::Punch(self.port), fx.now);
    }

    /// Nothing is done for it any more but what others begin. Its keys live as long as they do.
    pub(super) fn end_upkeep(&mut self, fx: &mut Effects) {
        self.drop_attempt(fx);
        self.search_ended(fx);
        self.punch = Punch::default();
        self.liveness_due = false;
        for timer in [Timer::Liveness, Timer::Keepalive, Timer::Punch, Timer::Mtu] {
            fx.timers.cancel(timer(self.port));
        }
    }

    /// Takes the best path there is.
    pub fn choose(&mut self, fx: &mut Effects, reason: &'static str) {
        self.forget_unwatched();
        if let Some(change) = self.paths.choose(fx.now, reason) {
            self.on_change(fx, change);
        }
    }

    pub(super) fn on_change(&mut self, fx: &mut Effects, change: Change) {
        self.use_path(fx);
        if self.is_asleep() {
            return;
        }
        let (overlay, peer, name, path) = (self.overlay, self.id, self.name.clone(), fx.describe(change.path));
        fx.events.push_back(Event::PathChanged { overlay, peer, name, path, reason: change.reason });
        fx.timers.set_earlier(Timer::Remember, fx.now + Duration::from_secs(2));
    }

    /// A leg goes on by another transport. What was found of its path's size is void.
    pub fn on_leg_moved(&mut self, fx: &mut Effects, leg: crate::datapath::LegId) {
        if matches!(self.paths.current(), Some(Path::Relayed(own, _)) if own == leg) {
            self.use_path(fx);
        }
    }

    /// Its keys may be known twice: new ones are made at once.
    pub fn on_resumed(&mut self, fx: &mut Effects) {
        if self.state == PeerState::Up {
            self.on_gone(fx, "this host was restored");
        }
        self.drop_attempt(fx);
        self.state = PeerState::Connecting;
        fx.timers.set(Timer::Handshake(self.port), fx.now);
    }

    /// It left, or was not heard for too long: no keys, no path, no MACs.
    pub fn on_gone(&mut self, fx: &mut Effects, reason: &'static str) {
        let was_up = self.state == PeerState::Up;
        self.state = PeerState::Gone;
        self.session = None;
        self.excerpt = None;
        self.paths.reset();
        self.mtu.begin(None);
        self.cancel_timers(fx);
        fx.commands.push_back(Command::Silence { port: self.port });
        self.silences = 0;
        self.rest(fx);
        if was_up {
            let (overlay, peer, name) = (self.overlay, self.id, self.name.clone());
            fx.events.push_back(Event::PeerGone { overlay, peer, name, reason });
        }
    }

    /// Nothing of it shall come up again.
    pub fn cancel_timers(&mut self, fx: &mut Effects) {
        self.drop_attempt(fx);
        self.search_ended(fx);
        if let Some(answered) = self.answered.take() {
            fx.answered.remove(&answered.mac1);
        }
        for timer in [Timer::Rekey, Timer::Liveness, Timer::Keepalive, Timer::Punch, Timer::Mtu] {
            fx.timers.cancel(timer(self.port));
        }
    }

    /// Where a supernode sees it over IPv4.
    pub fn seen_at(&self) -> Option<SocketAddr> {
        self.seen.values().find(|seen| seen.is_ipv4()).copied()
    }

    /// Its name; its id where that is unknown.
    pub fn called(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.id.to_string())
    }

    /// Where it was heard, for the next start.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.paths.worth_remembering()
    }
}
