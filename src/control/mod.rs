//! The control room: who the peers are, how they are reached, when to do what.
//!
//! Notices of the corridor, events of control links, deadlines and requests come in; everything that
//! follows is written into [`Effects`], which the node drains. One thing at a time, in this order:
//! `supernode` and `registration` bring members together, `peer` makes keys, `punch` finds a direct
//! way, `path` chooses, `carriers` finds members that relay, `carrying` relays for others, `liveness` watches,
//! `mtu` measures, `discovery` finds neighbours, `mobility` tells of machines that move, `loops` finds shared
//! segments, `report` tells people.

pub mod effects;

pub mod timers;

pub mod overlay;

mod certificates;

pub mod supernode;

pub mod registration;

mod standing;

mod throttle;

mod homes;

mod membership;

mod whereabouts;

pub mod peer;

pub mod handshake;

pub mod inward;

mod freshness;

pub mod candidate;

pub mod natcheck;

pub mod observing;

pub mod reflect;

pub mod punch;

pub mod consent;

pub mod doors;

pub mod search;

pub mod path;

mod carrying;

pub mod carriers;

pub mod liveness;

pub mod mtu;

pub mod discovery;

mod mobility;

mod loops;

pub mod report;

mod advice;

mod explain;

mod reporting;

pub mod topology;

mod traffic;

mod planning;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::rand_core::RngCore;

use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::PortId;
use crate::datapath::limit::Bucket;
use crate::datapath::stats::DropReason;
use crate::datapath::{Command, Notice, Path};
use crate::keys::NodeId;
use crate::seam::{Event, HandshakeKind, LinkEvent, LinkId, Memory, RememberedPeer, Settings};
use crate::time::{Time, WallTime};
use crate::wire::handshake::{Envelope, split_mac1};
use crate::wire::session::{CandidateKind, Message};

use carrying::Carrying;
use discovery::Discovery;
use effects::Effects;
use inward::Inward;
use observing::Observing;
use overlay::Overlay;
use peer::{Me, Peer};
use registration::{Home, LinkEnd};
use supernode::Supernode;
use timers::Timer;

/// Nobody seen for this long after the start is worth a word.
const ALONE_AFTER: Duration = Duration::from_secs(10);
/// Most peers of one overlay: as many as a supernode takes members.
const PEERS_MAX: usize = supernode::MEMBERS_MAX;
/// INITs believed per second, from all members together: each costs 77 us. What shows no overlay key does
/// not get so far.
const HANDSHAKE_RATE: u32 = 1000;
/// And at once: a thousand members starting in the same second.
const HANDSHAKE_BURST: u32 = 2000;
/// A peer that cannot be reached and that no supernode knows is forgotten after this time.
const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// Events that loop traffic may cause: one in this time. Two sites on one LAN cause some at each search.
const LOOP_EVENT_GAP: Duration = Duration::from_secs(600);

/// Everything about a node that is not a frame's business.
pub struct Control {
    me: Me,
    name: String,
    overlays: Vec<Overlay>,
    peers: BTreeMap<PortId, Peer>,
    by_id: BTreeMap<(OverlayIndex, NodeId), PortId>,
    homes: Vec<Home>,
    serving: Option<Supernode>,
    host: (u16, Vec<IpAddr>),
    mapped: Option<SocketAddr>,
    inward: Arc<Inward>,
    memory: Memory,
    remembered: Option<Memory>,
    discovery: Discovery,
    mobility: mobility::Mobility,
    segments: Vec<loops::Segment>,
    last_loop_event: Option<Time>,
    handshake_limit: Bucket,
    certificates: certificates::Certificates,
    observing: Observing,
    carrying: Carrying,
    /// What is to be done.
    pub fx: Effects,
}

impl Control {
    /// With everything of `settings` known and nothing done yet.
    pub fn new(settings: Settings, seed: [u8; 32], now: Time, wall: WallTime) -> Self {
        let mut fx = Effects::new(seed, now, wall);
        let me = Me {
            boot: fx.rng.next_u64(),
            has_aes: settings.has_aes,
            stand_in: settings.handshake == HandshakeKind::StandIn,
            candidates: Vec::new(),
            nat: None,
            homes: Vec::new(),
            birthday: settings.birthday,
            identity: settings.identity,
        };
        let overlays = settings.overlays.iter().map(|overlay| Overlay::new(overlay, &me.identity)).collect::<Vec<_>>();
        for overlay in 0..overlays.len() {
            fx.timers.set(Timer::Alone(OverlayIndex(overlay)), now + ALONE_AFTER);
        }
        let segments = overlays.iter().map(|_| loops::Segment::new(now)).collect();
        let mut control = Self {
            me,
            name: settings.name,
            overlays,
            peers: BTreeMap::new(),
            by_id: BTreeMap::new(),
            homes: homes::known(&settings.supernodes, &settings.memory),
            serving: settings.serve.map(Supernode::new),
            host: (0, Vec::new()),
            mapped: None,
            inward: Arc::default(),
            memory: settings.memory,
            remembered: None,
            discovery: Discovery::new(settings.discovery),
            mobility: mobility::Mobility::default(),
            segments,
            last_loop_event: None,
            handshake_limit: Bucket::new(HANDSHAKE_RATE, HANDSHAKE_BURST),
            certificates: certificates::Certificates::default(),
            observing: Observing::default(),
            carrying: Carrying::new(settings.relaying, &mut fx),
            fx,
        };
        control.review_homes();
        control.recall();
        (0..control.segments.len()).for_each(|overlay| control.on_loop_timer(OverlayIndex(overlay)));
        control
    }

    /// Members known from an earlier run are tried where they were: it works with every supernode dead.
    fn recall(&mut self) {
        for overlay in (0..self.overlays.len()).map(OverlayIndex) {
            let id = self.overlays[overlay.0].id().to_string();
            for known in self.memory.peers.get(&id).cloned().unwrap_or_default() {
                let Ok(node) = known.id.parse::<NodeId>() else { continue };
                let Some(port) = self.peer_for(overlay, node) else { continue };
                let Some(peer) = self.peers.get_mut(&port) else { continue };
                peer.name = known.name;
                for addr in known.addresses {
                    peer.paths.candidates.add(CandidateKind::Configured, addr);
                }
                self.fx.timers.set(Timer::Handshake(port), self.fx.now);
            }
        }
    }

    /// The port of a member, made if it is new. `None` for ourselves, or if there is no room.
    fn peer_for(&mut self, overlay: OverlayIndex, node: NodeId) -> Option<PortId> {
        if let Some(port) = self.by_id.get(&(overlay, node)) {
            return Some(*port);
        }
        let members = (overlay, NodeId([0; 32]))..=(overlay, NodeId([0xff; 32]));
        if node == self.me.identity.id() || self.by_id.range(members).count_up_to(PEERS_MAX) {
            return None;
        }
        let port = self.fx.new_port();
        let mut peer = Peer::new(port, (overlay, self.overlays[overlay.0].mtu), node, self.fx.now);
        peer.paths.candidates.set_inward(&self.inward);
        self.peers.insert(port, peer);
        self.by_id.insert((overlay, node), port);
        self.fx.commands.push_back(Command::OpenPort { port, overlay });
        Some(port)
    }

    fn forget_peer(&mut self, port: PortId) {
        let Some(mut peer) = self.peers.remove(&port) else { return };
        peer.cancel_timers(&mut self.fx);
        self.fx.timers.cancel(Timer::Handshake(port));
        self.fx.timers.cancel(Timer::Carry(port));
        self.by_id.remove(&(peer.overlay, peer.id));
        self.fx.commands.push_back(Command::ClosePort { port });
        self.carrying.forget(&mut self.fx, port);
        if let Some(own) = peer.own_leg {
            self.fx.drop_leg(own.leg);
            self.close_leg(Some(own.leg));
        }
    }

    /// A notice of the corridor.
    pub fn handle_notice(&mut self, now: Time, notice: Notice) {
        self.fx.now = now;
        match notice {
            Notice::NeedKeys { port } => self.on_need_keys(port),
            Notice::Handshake { path, packet } => self.on_handshake(path, &packet),
            Notice::Opener { from } => {
                let peer = self.fx.doors.searching().and_then(|port| self.peers.get_mut(&port));
                if !peer.is_some_and(|peer| peer.on_opener(&mut self.fx, from)) {
                    self.fx.dropped(DropReason::Unasked);
                }
            }
            Notice::Observed { packet } => self.on_observed(&packet),
            Notice::Session { port, path, message } => self.on_session_message(port, path, &message),
            Notice::Heard { port, path } => self.with(port, |peer, fx| peer.on_heard(fx, path)),
            Notice::Confirmed { port, path } => self.with(port, |peer, fx| peer.on_confirmed(fx, path)),
            Notice::Active { port } => {
                self.with(port, Peer::on_active);
                for home in &self.homes {
                    home.on_busy(&mut self.fx);
                }
            }
            Notice::Measured { port, activity } => {
                self.with(port, |peer, fx| peer.on_measured(fx, &activity));
                self.calm_down();
            }
            Notice::Busy { overlay } => self.on_busy(overlay),
            Notice::Tallied { overlay, ports } => self.on_tallied(overlay, &ports),
            Notice::LegMeasured { leg, tally } => self.on_leg_measured(leg, tally),
            Notice::Retired { index } => {
                self.fx.indices.remove(&index);
            }
            Notice::LoopProbe { overlay, body } => self.on_loop_probe(overlay, &body),
            Notice::Address { overlay, address, news } => self.on_address((overlay, address), news),
            Notice::UnderlayLoop { overlay } => {
                if self.last_loop_event.is_none_or(|at| now.since(at) >= LOOP_EVENT_GAP) {
                    self.last_loop_event = Some(now);
                    self.fx.events.push_back(Event::UnderlayLoop { overlay });
                }
            }
        }
    }

    fn with(&mut self, port: PortId, act: impl FnOnce(&mut Peer, &mut Effects)) {
        if let Some(peer) = self.peers.get_mut(&port) {
            act(peer, &mut self.fx);
        }
    }

    fn on_need_keys(&mut self, port: PortId) {
        let Some(peer) = self.peers.get_mut(&port) else { return };
        let overlay = &self.overlays[peer.overlay.0];
        peer.on_need_keys(&mut self.fx, &self.me, overlay.local(&self.me.identity), &overlay.certificate);
    }

    /// INIT or RESP. Whoever does not hold an overlay's key ends at the first check.
    fn on_handshake(&mut self, path: Path, packet: &[u8]) {
        let fits = |overlay: &Overlay| handshake::is_for_us(overlay.local(&self.me.identity), packet);
        let Some(index) = self.overlays.iter().position(fits).map(OverlayIndex) else {
            return self.fx.dropped(DropReason::HandshakeBadMac);
        };
        let (Ok(envelope), Some((_, mac1))) = (Envelope::parse(packet), split_mac1(packet)) else {
            return self.fx.dropped(DropReason::Malformed);
        };
        match envelope.receiver {
            Some(receiver) => {
                let peer = self.fx.indices.get(&receiver).and_then(|port| self.peers.get_mut(port));
                match peer.filter(|peer| peer.overlay == index) {
                    Some(peer) => peer.on_resp(&mut self.fx, &mut self.certificates, &envelope, path),
                    None => self.fx.dropped(DropReason::HandshakeUnexpected),
                }
            }
            None => self.on_init(index, &envelope, mac1.try_into().unwrap_or_default(), path),
        }
    }

    fn on_init(&mut self, index: OverlayIndex, envelope: &Envelope<'_>, mac1: [u8; 16], path: Path) {
        let fx = &mut self.fx;
        if let Some(peer) = fx.answered.get(&mac1).and_then(|port| self.peers.get(port)) {
            return peer.answer_again(fx, path);
        }
        if !self.handshake_limit.take(fx.now) {
            return fx.dropped(DropReason::HandshakeLimit);
        }
        let local = self.overlays[index.0].local(&self.me.identity);
        let responder = match handshake::respond(local, envelope, self.me.stand_in, &mut self.certificates, &mut fx.rng)
        {
            Ok(responder) => responder,
            Err(handshake::HandshakeError::NotAMember) => return fx.dropped(DropReason::NotAMember),
            Err(_) => return fx.dropped(DropReason::HandshakeForged),
        };
        let Some(port) = self.peer_for(index, responder.payload.certificate.node) else {
            return self.fx.dropped(DropReason::NotAMember);
        };
        let Some(peer) = self.peers.get_mut(&port) else { return };
        let overlay = &self.overlays[index.0];
        let local = overlay.local(&self.me.identity);
        peer.on_init(&mut self.fx, (&self.me, local), &overlay.certificate, responder, (mac1, path));
    }

    fn on_session_message(&mut self, port: PortId, path: Path, bytes: &[u8]) {
        let Ok(message) = Message::parse(bytes) else { return self.fx.dropped(DropReason::Malformed) };
        let Some(peer) = self.peers.get_mut(&port) else { return };
        let fx = &mut self.fx;
        match message {
            Message::Probe { token } => peer.on_probe(fx, token, path),
            Message::Answer { token, .. } => peer.on_answer(fx, token, path),
            Message::Candidates { wants_answer, list, nat, .. } => {
                peer.nat = nat.or(peer.nat);
                peer.on_candidates(fx, &self.me, path, (&list, wants_answer));
            }
            Message::Search { step, door } => peer.on_search(fx, &self.me, step, door),
            Message::Close => {
                peer.on_gone(fx, "it left");
                self.forget_peer(port);
                self.fx.timers.set_earlier(Timer::Remember, now_soon(self.fx.now));
            }
            Message::Confirm => {}
            Message::MtuProbe { token } => peer.on_mtu_probe(fx, token, (path, bytes.len())),
            Message::MtuAnswer { token, size } => peer.on_mtu_answer(fx, token, size),
            Message::Neighbours(told) => self.on_neighbours(port, path, &told),
            Message::Carry(carry) => self.on_carry(port, path, carry),
            Message::Leg(leg) => self.on_leg(port, path, leg),
            Message::Location { moved, owner } => self.on_location(port, moved, owner),
            Message::ProbeHeard { token } => self.on_probe_heard(port, token),
            Message::ProbeSent { token } => self.on_probe_sent(port, token),
            // The corridor has read it.
            Message::Claim { .. } => {}
        }
    }

    /// Deadlines that are not after `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        self.fx.now = now;
        while let Some(timer) = self.fx.timers.pop_due(now) {
            self.on_timer(timer);
        }
        self.calm_down();
    }

    fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Link(place) => self.on_link_timer(place),
            Timer::Ping(place) => self.on_ping_timer(place),
            Timer::Handshake(port) => {
                if self.peers.get(&port).is_some_and(|peer| peer.is_lost(self.fx.now, FORGET_AFTER)) {
                    return self.forget_peer(port);
                }
                self.on_handshake_timer(port, Peer::on_handshake_timer);
            }
            Timer::Rekey(port) => self.on_handshake_timer(port, Peer::begin_handshake),
            Timer::Liveness(port) => self.with(port, Peer::on_liveness_timer),
            Timer::Keepalive(port) => self.with(port, Peer::on_keepalive_timer),
            Timer::Punch(port) => {
                if let Some(peer) = self.peers.get_mut(&port) {
                    peer.on_punch_timer(&mut self.fx, &self.me);
                }
            }
            Timer::Mtu(port) => self.with(port, Peer::on_mtu_timer),
            Timer::Search(port) => {
                if let Some(peer) = self.peers.get_mut(&port) {
                    peer.on_search_timer(&mut self.fx, &self.me);
                }
            }
            Timer::Carry(port) => self.on_carry_timer(port),
            Timer::Carrying => self.on_carrying_timer(),
            Timer::Observe => self.on_observe_timer(),
            Timer::Alone(overlay) => {
                let is_up = |peer: &Peer| peer.overlay == overlay && peer.session.is_some();
                if !self.peers.values().any(is_up) {
                    self.fx.events.push_back(Event::Alone { overlay });
                }
            }
            Timer::Announce => self.on_announce_timer(),
            Timer::Remember => self.remember(),
            Timer::Loop(overlay) => self.on_loop_timer(overlay),
            Timer::Addresses => self.on_addresses_timer(),
            Timer::Traffic(overlay) => self.on_traffic_timer(overlay),
            Timer::Push | Timer::Newcomers | Timer::Plan(_) => self.on_serving_timer(timer),
        }
    }

    fn on_serving_timer(&mut self, timer: Timer) {
        let Some(supernode) = &mut self.serving else { return };
        if let Timer::Plan(overlay) = timer {
            supernode.on_plan_timer(&mut self.fx, overlay);
        } else if timer == Timer::Push {
            supernode.on_push_timer(&mut self.fx);
        } else {
            supernode.on_newcomers_timer(&mut self.fx);
        }
    }

    fn on_handshake_timer(
        &mut self,
        port: PortId,
        act: impl FnOnce(&mut Peer, &mut Effects, &Me, handshake::Local<'_>, &crate::wire::certificate::Certificate),
    ) {
        let Some(peer) = self.peers.get_mut(&port) else { return };
        let overlay = &self.overlays[peer.overlay.0];
        act(peer, &mut self.fx, &self.me, overlay.local(&self.me.identity), &overlay.certificate);
    }

    /// The host's own addresses changed.
    pub fn handle_addresses(&mut self, now: Time, port: u16, addresses: Vec<IpAddr>) {
        self.fx.now = now;
        if self.host == (port, addresses.clone()) {
            return;
        }
        let is_first = self.host.0 == 0;
        // With several of a kind, the system might answer from another one than was spoken to.
        let keep =
            [IpAddr::is_ipv4, IpAddr::is_ipv6].iter().any(|kind| addresses.iter().filter(|ip| kind(ip)).count() > 1);
        self.fx.commands.push_back(Command::KeepSources { keep });
        self.host = (port, addresses);
        self.on_own_addresses();
        self.announce_anew();
        if is_first {
            return;
        }
        for home in &mut self.homes {
            home.on_new_addresses(&mut self.fx);
        }
        for peer in self.peers.values_mut() {
            peer.doubt(&mut self.fx);
        }
    }

    /// This host was restored from a snapshot: what was secret or unique then may be so no more. No key, number or
    /// link of before is used again; `seed` is chance that the snapshot did not hold.
    pub fn handle_resumed(&mut self, now: Time, wall: WallTime, seed: [u8; 32]) {
        self.fx.now = now;
        self.fx.reseed(seed, now, wall);
        self.me.boot = self.fx.rng.next_u64();
        self.carrying.forget_all(&mut self.fx);
        for peer in self.peers.values_mut() {
            peer.on_resumed(&mut self.fx);
        }
        for place in 0..self.homes.len() {
            if self.homes[place].remote.is_some() {
                self.fx.links.push_back(crate::seam::LinkCommand::Close { link: LinkId::Dialled(place) });
                self.on_home_down(place, "this host was restored".into(), LinkEnd::Ours);
            }
        }
        if let Some(supernode) = &mut self.serving {
            supernode.on_resumed(&mut self.fx);
        }
    }

    /// We leave: every peer and every supernode is told.
    pub fn handle_leave(&mut self, now: Time) {
        self.fx.now = now;
        for peer in self.peers.values().filter(|peer| peer.session.is_some()) {
            if let Some(path) = peer.paths.current() {
                self.fx.send(peer.port, path, &Message::Close);
            }
        }
        for home in &self.homes {
            for (overlay, _) in home.legs() {
                let overlay = self.overlays[overlay.0].id();
                self.fx.tell(LinkId::Dialled(home.place), &crate::wire::message::Message::Leave { overlay });
            }
            self.fx.links.push_back(crate::seam::LinkCommand::Close { link: LinkId::Dialled(home.place) });
        }
    }

    fn remember(&mut self) {
        let mut memory = Memory { supernodes: self.memory.supernodes.clone(), ..Memory::default() };
        homes::remember(&self.homes, &mut memory);
        for peer in self.peers.values() {
            let addresses = peer.addresses();
            if !addresses.is_empty() {
                let id = self.overlays[peer.overlay.0].id().to_string();
                let known = RememberedPeer { id: peer.id.to_string(), name: peer.name.clone(), addresses };
                memory.peers.entry(id).or_default().push(known);
            }
        }
        if memory != self.memory {
            self.memory = memory.clone();
            self.remembered = Some(memory);
        }
    }

    /// What should survive, if it changed.
    pub fn take_memory(&mut self) -> Option<Memory> {
        self.remembered.take()
    }

    /// Something happened to a control link.
    pub fn handle_link(&mut self, now: Time, event: LinkEvent) {
        self.fx.now = now;
        match event {
            LinkEvent::Up { link: LinkId::Dialled(place), remote, exporter, fingerprint, .. } => {
                self.on_home_up(place, (remote, exporter), fingerprint);
            }
            LinkEvent::Message { link: LinkId::Dialled(place), message, .. } => self.on_home_message(place, &message),
            LinkEvent::Down { link: LinkId::Dialled(place), reason } => {
                self.on_home_down(place, reason, LinkEnd::Theirs);
            }
            LinkEvent::Up { link: LinkId::Accepted(link), remote, origin, exporter, .. } => {
                if let Some(supernode) = &mut self.serving {
                    supernode.on_up(&mut self.fx, link, (remote, origin), exporter);
                }
            }
            LinkEvent::Message { link: LinkId::Accepted(link), remote, message } => {
                if let Some(supernode) = &mut self.serving {
                    supernode.on_message(&mut self.fx, link, remote, &message);
                }
            }
            LinkEvent::Down { link: LinkId::Accepted(link), .. } => {
                if let Some(supernode) = &mut self.serving {
                    supernode.on_down(&mut self.fx, link);
                }
            }
        }
    }
}

fn now_soon(now: Time) -> Time {
    now + Duration::from_secs(2)
}

/// Whether an iterator has at least so many items, without counting the rest.
trait CountUpTo {
    fn count_up_to(self, limit: usize) -> bool;
}

impl<I: Iterator> CountUpTo for I {
    fn count_up_to(mut self, limit: usize) -> bool {
        limit == 0 || self.nth(limit - 1).is_some()
    }
}
