//! Peers: the cold half. Who a member is, how far the handshake with it is, which session stands.
//!
//! Keys come from [`keying`], ways from `path`, direct ways from `punch`, and whether they still carry is
//! `liveness`; the hot half is a port of the corridor. In order: INIT, RESP, session, rekey; or silence.

mod keying;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::carriers::{Carriers, OwnLeg};
use super::carrying;
use super::consent::Consent;
use super::delay::Inbound;
use super::effects::Effects;
use super::freshness::Freshness;
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
use crate::datapath::{Command, Path};
use crate::keys::{Identity, NodeId};
use crate::seam::Event;
use crate::time::Time;
use crate::wire::carry::RelayFor;
use crate::wire::inventory::Excerpt;
use crate::wire::observe::NatClass;
use crate::wire::session::Candidate;
use keying::{Answered, Attempt};

/// The path in use is probed this often without traffic: NAT mappings live 30 s and more (RFC 4787 REQ-5).
pub(super) const KEEPALIVE: Duration = Duration::from_secs(16);
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
    /// When a direct way was that does not carry.
    pub(super) kept: Time,
    /// How long its probes take to us.
    pub(super) inbound: Inbound,
    /// Whether it wants to be told when ours were sent.
    pub(super) takes_times: bool,
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
            kept: now,
            inbound: Inbound::default(),
            takes_times: false,
            has_aes: true,
            attempt: None,
            answered: None,
            freshness: Freshness::default(),
        }
    }

    /// Whether it cannot be reached, no supernode knows it, and that has been so for `span`.
    pub fn is_lost(&self, now: Time, span: Duration) -> bool {
        self.session.is_none() && !self.paths.has_relay() && now.since(self.heard) >= span
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
