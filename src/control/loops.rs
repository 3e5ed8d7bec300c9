//! Segments that are behind more than one member's TAP: found by probes, so that frames do not run in circles.
//!
//! A probe goes out of each TAP every [`ROUND`]. Whoever hears another member's asks that member over the sealed
//! session whether it has just sent it; both then know that the segment is theirs together, and the one with the
//! lowest node id carries what is for everybody. A stranger can neither make up a probe (it is sealed under a key of
//! the overlay) nor use a recorded one (the token is confirmed for two rounds only): at most it makes a TAP
//! that comes up hold such frames for [`HOLD_MAX`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand_chacha::rand_core::RngCore;

use super::overlay::Overlay;
use super::timers::Timer;
use super::{Control, sealing};
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::PortId;
use crate::datapath::{Command, Gate};
use crate::keys::{Identity, NodeId};
use crate::seam::Event;
use crate::time::Time;
use crate::wire::probe::{self, ETHERTYPE, GROUP, Probe};
use crate::wire::session::Message;
use crate::wire::{NONCE_LEN, Parts};

/// Between two probes: a loop is found this fast.
const ROUND: Duration = Duration::from_secs(2);
/// Between the first ones of a TAP that comes up...
const FIRST_ROUND: Duration = Duration::from_millis(10);
/// ...which are so many: whoever is there answers with a probe within a LAN's round trip, or the gate opens. Peers
/// are met later than that, so nothing is lost by the wait.
const FIRST_ROUNDS: u32 = 3;
/// Who has heard a probe meanwhile gets so long to find its member.
const HOLD_MAX: Duration = Duration::from_secs(3);
/// A member that shares the segment and is not confirmed again is there no more: two probes may be lost.
const FORGOTTEN: Duration = Duration::from_millis(2 * 2_000 + 1_000);
/// Who is to carry lets the others hear of it first: what they still carry would be learned as the segment's own.
const TAKE_UP: Duration = Duration::from_millis(300);
/// A member is asked about its probes this often at most.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Members that are known on one segment.
const SHARERS: usize = 64;

/// What is known of one overlay's segment.
#[derive(Debug)]
pub(super) struct Segment {
    born: Time,
    rounds: u32,
    /// Of our last two probes.
    tokens: [u64; 2],
    /// A probe was heard while the gate was held.
    is_doubtful: bool,
    /// When a probe was sent because a stranger's was heard.
    greeted: Option<Time>,
    /// Members whose probe we asked about: its token, and when.
    asked: BTreeMap<PortId, (u64, Time)>,
    /// Members that share the segment, and when that was confirmed last.
    with: BTreeMap<PortId, Time>,
    /// Since when there are any.
    shared: Option<Time>,
    gate: Gate,
}

impl Segment {
    /// Of a TAP that comes up at `now`.
    pub(super) fn new(now: Time) -> Self {
        let (asked, with) = (BTreeMap::new(), BTreeMap::new());
        Self {
            born: now,
            rounds: 0,
            tokens: [0; 2],
            is_doubtful: false,
            greeted: None,
            asked,
            with,
            shared: None,
            gate: Gate::Open,
        }
    }

    /// Members that share it.
    pub(super) fn sharers(&self) -> impl Iterator<Item = PortId> + '_ {
        self.with.keys().copied()
    }

    fn is_held(&self, now: Time) -> bool {
        let is_new = self.rounds <= FIRST_ROUNDS && now.since(self.born) < FIRST_ROUND * FIRST_ROUNDS;
        is_new || (self.is_doubtful && now.since(self.born) < HOLD_MAX)
    }
}

impl Control {
    /// [`Timer::Loop`]: the next probe, and who is still there.
    pub(super) fn on_loop_timer(&mut self, overlay: OverlayIndex) {
        let segment = &mut self.segments[overlay.0];
        segment.rounds = segment.rounds.saturating_add(1);
        let wait = if segment.rounds <= FIRST_ROUNDS { FIRST_ROUND } else { ROUND };
        self.fx.timers.set(Timer::Loop(overlay), self.fx.now + wait);
        self.send_probe(overlay);
        self.review_segment(overlay);
    }

    fn send_probe(&mut self, overlay: OverlayIndex) {
        let token = self.fx.rng.next_u64();
        let segment = &mut self.segments[overlay.0];
        segment.tokens = [token, segment.tokens[0]];
        let mut nonce = [0; NONCE_LEN];
        self.fx.rng.fill_bytes(&mut nonce);
        let probe = Probe { node: self.me.identity.id(), token };
        let frame = seal(&self.overlays[overlay.0], &self.me.identity, &probe, nonce);
        self.fx.commands.push_back(Command::Deliver { overlay, frame });
    }

    /// A probe came out of our TAP.
    pub(super) fn on_loop_probe(&mut self, overlay: OverlayIndex, body: &[u8]) {
        let Some(probe) = open(&self.overlays[overlay.0], body) else { return };
        if probe.node == self.me.identity.id() {
            return;
        }
        let (now, segment) = (self.fx.now, &mut self.segments[overlay.0]);
        segment.is_doubtful |= segment.is_held(now);
        let peer_port = self.by_id.get(&(overlay, probe.node)).copied();
        peer_port.into_iter().for_each(|port| self.need(port));
        let segment = &mut self.segments[overlay.0];
        let peer = peer_port.and_then(|port| self.peers.get(&port));
        if let Some((peer, path)) = peer.and_then(|peer| Some((peer, peer.paths.current()?))) {
            let is_asked = segment.asked.get(&peer.port).is_some_and(|(_, at)| now.since(*at) < ASK_EVERY);
            if !is_asked && (segment.asked.len() < SHARERS || segment.asked.contains_key(&peer.port)) {
                segment.asked.insert(peer.port, (probe.token, now));
                self.fx.send(peer.port, path, &Message::ProbeHeard { token: probe.token });
            }
        }
        self.greet(overlay, peer_port);
        self.review_segment(overlay);
    }

    /// A member that has just come up shall not wait for our next round to know that we are here.
    fn greet(&mut self, overlay: OverlayIndex, port: Option<PortId>) {
        let (now, segment) = (self.fx.now, &mut self.segments[overlay.0]);
        let is_known = port.is_some_and(|port| segment.with.contains_key(&port));
        if !is_known && segment.greeted.is_none_or(|at| now.since(at) >= ROUND) {
            segment.greeted = Some(now);
            self.send_probe(overlay);
        }
    }

    /// PROBE_HEARD: the peer at `port` hears what comes out of our TAP.
    pub(super) fn on_probe_heard(&mut self, port: PortId, token: u64) {
        let Some(peer) = self.peers.get(&port) else { return };
        let (overlay, path) = (peer.overlay, peer.paths.current());
        if !self.segments[overlay.0].tokens.contains(&token) {
            return;
        }
        if let Some(path) = path {
            self.fx.send(port, path, &Message::ProbeSent { token });
        }
        self.on_shared(overlay, port);
    }

    /// PROBE_SENT: what we heard out of our TAP did come from the peer at `port`, and just now.
    pub(super) fn on_probe_sent(&mut self, port: PortId, token: u64) {
        let Some(overlay) = self.peers.get(&port).map(|peer| peer.overlay) else { return };
        let asked = self.segments[overlay.0].asked.get(&port);
        if asked.is_some_and(|(asked, at)| *asked == token && self.fx.now.since(*at) < ROUND) {
            self.on_shared(overlay, port);
        }
    }

    fn on_shared(&mut self, overlay: OverlayIndex, port: PortId) {
        let with = &mut self.segments[overlay.0].with;
        if with.len() < SHARERS || with.contains_key(&port) {
            with.insert(port, self.fx.now);
        }
        self.review_segment(overlay);
    }

    /// Sets the gate as it must be now.
    fn review_segment(&mut self, overlay: OverlayIndex) {
        let (now, me) = (self.fx.now, self.me.identity.id());
        let segment = &mut self.segments[overlay.0];
        let peers = &self.peers;
        let is_there = |port: &PortId| peers.get(port).is_some_and(|peer| peer.session.is_some());
        segment.with.retain(|port, at| is_there(port) && now.since(*at) < FORGOTTEN);
        segment.asked.retain(|_, (_, at)| now.since(*at) < FORGOTTEN);
        let with = segment.with.keys().copied().collect::<BTreeSet<_>>();
        let lowest = with.iter().filter_map(|port| peers.get(port)).map(|peer| peer.id).min();
        segment.shared = lowest.map(|_| segment.shared.unwrap_or(now));
        let taking_up = segment.shared.map(|since| since + TAKE_UP).filter(|at| *at > now);
        if let Some(at) = taking_up {
            self.fx.timers.set_earlier(Timer::Loop(overlay), at);
        }
        let gate = match lowest {
            Some(lowest) => Gate::Shared { with, stands_by: lowest < me || taking_up.is_some() },
            None if segment.is_held(now) => Gate::Held,
            None => Gate::Open,
        };
        if gate == segment.gate {
            return;
        }
        let before = std::mem::replace(&mut segment.gate, gate.clone());
        self.tell_segment(overlay, (&before, &gate), lowest.unwrap_or(me).min(me));
        self.fx.commands.push_back(Command::SetGate { overlay, gate });
    }

    fn tell_segment(&mut self, overlay: OverlayIndex, gates: (&Gate, &Gate), carrier: NodeId) {
        match gates {
            // Only who carries has changed, which was told before it was so.
            (Gate::Shared { with: before, .. }, Gate::Shared { with, .. }) if before == with => {}
            (_, Gate::Shared { with, .. }) => {
                let name = |port: &PortId| {
                    let peer = self.peers.get(port)?;
                    Some(peer.name.clone().unwrap_or_else(|| peer.id.to_string()))
                };
                let with = with.iter().filter_map(name).collect();
                let ours = carrier == self.me.identity.id();
                self.fx.events.push_back(Event::SegmentShared { overlay, with, ours });
            }
            (Gate::Shared { .. }, Gate::Open | Gate::Held) => {
                self.fx.events.push_back(Event::SegmentAlone { overlay });
            }
            (Gate::Open | Gate::Held, Gate::Open | Gate::Held) => {}
        }
    }
}

/// A whole frame with a probe.
fn seal(overlay: &Overlay, identity: &Identity, probe: &Probe, nonce: [u8; NONCE_LEN]) -> Vec<u8> {
    let head = probe::head(&nonce);
    let sealed = sealing::seal(overlay.secrets.link_key(), nonce, &head, probe.bytes());
    [&GROUP[..], &identity.id().station(), &ETHERTYPE.to_be_bytes(), &head, &sealed].concat()
}

/// A probe of this overlay's, if `body` is one.
fn open(overlay: &Overlay, body: &[u8]) -> Option<Probe> {
    let Parts { head, nonce, sealed } = probe::split(body).ok()?;
    Probe::parse(&sealing::open(overlay.secrets.link_key(), nonce, head, sealed).ok()?).ok()
}
