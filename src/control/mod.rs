//! The control room: who the peers are, how they are reached, when to do what.
//!
//! Notices of the corridor, events of control links, deadlines and requests come in; everything that
//! follows is written into [`Effects`], which the node drains. One thing at a time, in this order:
//! `supernode` and `registration` bring members together, `peer` makes keys, `punch` finds a direct
//! way, `path` chooses, `carriers` finds members that relay, `carrying` relays for others, `liveness` watches, `sleep`
//! saves, `mtu` measures, `discovery` finds neighbours, `sites` says who is where, `mobility` tells of machines that move,
//! `excerpt` of all there are, `loops` finds shared segments, `advising` knows which machine should move, `rules` and
//! `reserve` know who is meant by what users order, `report` tells people, and `sight` shows them the whole.

pub mod effects;

mod notices;

mod due;

pub mod timers;

pub mod overlay;

mod sealing;

mod certificates;

pub mod supernode;

pub mod registration;

mod standing;

mod throttle;

mod homes;

mod membership;

mod whereabouts;

mod sites;

pub mod peer;

pub mod handshake;

pub mod inward;

mod freshness;

pub mod candidate;

pub mod natcheck;

pub mod observing;

mod customer;

pub mod reflect;

pub mod punch;

pub mod consent;

pub mod doors;

pub mod search;

pub mod path;

mod carrying;

pub mod carriers;

pub mod liveness;

mod delay;

mod sleep;

pub mod mtu;

pub mod discovery;

mod mobility;

mod loops;

pub mod report;

mod advice;

mod explain;

pub mod sight;

mod reporting;

pub mod topology;

mod traffic;

mod machines;

mod excerpt;

mod advising;

mod planning;

mod rules;

mod reserve;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::rand_core::RngCore;

use crate::datapath::Command;
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::PortId;
use crate::datapath::limit::Bucket;
use crate::keys::NodeId;
use crate::seam::budget::LinkBudget;
use crate::seam::{HandshakeKind, LinkEvent, LinkId, Memory, RememberedPeer, Settings};
use crate::time::{Time, WallTime};
use crate::wire::session::{CandidateKind, Message};
use crate::wire::tree::ShortId;

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
    budget: LinkBudget,
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
    /// How much of the time tasks wait for a processor here, in percent.
    load: Option<u8>,
    rules: rules::Rules,
    reserved: reserve::Reserved,
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
            budget: settings.links,
            memory: settings.memory,
            remembered: None,
            discovery: Discovery::new(settings.discovery),
            mobility: mobility::Mobility::default(),
            segments,
            last_loop_event: None,
            handshake_limit: Bucket::new(HANDSHAKE_RATE, HANDSHAKE_BURST),
            certificates: certificates::Certificates::default(),
            observing: Observing::default(),
            carrying: Carrying::new(settings.relaying),
            load: None,
            rules: rules::Rules::new(&settings.overlays),
            reserved: reserve::Reserved::new(settings.uplink, &settings.overlays),
            fx,
        };
        control.on_own_site();
        control.review_homes();
        control.recall();
        control.review_rules();
        control.review_reserved();
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
            self.review_size(overlay);
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
        self.fx.commands.push_back(Command::OpenPort { port, overlay, short: ShortId::of(node) });
        self.reserved.on_other_members(&mut self.fx);
        Some(port)
    }

    fn forget_peer(&mut self, port: PortId) {
        let Some(mut peer) = self.peers.remove(&port) else { return };
        peer.cancel_timers(&mut self.fx);
        self.fx.timers.cancel(Timer::Handshake(port));
        self.fx.timers.cancel(Timer::Carry(port));
        self.by_id.remove(&(peer.overlay, peer.id));
        self.fx.commands.push_back(Command::ClosePort { port });
        self.reserved.on_other_members(&mut self.fx);
        self.carrying.forget(&mut self.fx, port);
        if let Some(own) = peer.own_leg {
            self.fx.drop_leg(own.leg);
            self.close_leg(Some(own.leg));
        }
    }

    fn with(&mut self, port: PortId, act: impl FnOnce(&mut Peer, &mut Effects)) {
        if let Some(peer) = self.peers.get_mut(&port) {
            act(peer, &mut self.fx);
        }
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
        self.forget_sleepers();
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
            LinkEvent::Waiting { link: LinkId::Dialled(place), reason } => {
                self.homes[place].on_waiting(&mut self.fx, reason);
            }
            LinkEvent::Waiting { link: LinkId::Accepted(_), .. } => {}
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
            LinkEvent::Down { link: LinkId::Accepted(link), reason } => {
                if let Some(supernode) = &mut self.serving {
                    supernode.on_down(&mut self.fx, link, &reason);
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
