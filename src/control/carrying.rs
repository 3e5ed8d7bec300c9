//! Relaying for others, as a member: who may have it, who has a leg here, and for how long.
//!
//! Two members that cannot reach each other ask a third one that reaches both; it gives each a leg, as a supernode
//! does, and forwards between the legs without a key. What it gave ends by itself when nobody asks for it any more.
//! The asking side is [`carriers`](super::carriers).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::rand_core::RngCore;

use super::effects::Effects;
use super::timers::Timer;
use super::{Control, Peer};
use crate::datapath::fdb::PortId;
use crate::datapath::stats::DropReason;
use crate::datapath::{Command, Path};
use crate::seam::RelaySettings;
use crate::time::Time;
use crate::wire::carry::{Carry, Grant, Leg, RelayFor};
use crate::wire::relay::{LegKey, RelayId};
use crate::wire::session::Message;

/// A leg that nobody asked for again ends after this: three askings and their answers' patience.
pub(super) const LEASE: Duration = Duration::from_secs(80);
/// Members with a leg here, at most: a site's worth, and each costs the state of one replay window.
const CLIENTS_MAX: usize = 256;
/// Pairs that are carried, each direction counted, at most.
const PAIRS_MAX: usize = 4096;
/// Askings of one member per second: a plan may have it ask for a dozen peers, four times a second, for a moment...
pub(super) const ASK_RATE: u32 = 20;
/// ...and at once: whoever loses its supernode asks for all its peers.
pub(super) const ASK_BURST: u32 = 100;

/// A member with a leg here.
#[derive(Clone, Copy, Debug)]
struct Client {
    relay: RelayId,
    key: LegKey,
    /// By this address its session reaches it.
    addr: SocketAddr,
    /// When it last did so directly.
    proven: Time,
    /// A restarted member counts anew, so that it needs another key.
    boot: u64,
}

/// What this node does for others.
#[derive(Debug, Default)]
pub(super) struct Carrying {
    pub(super) settings: RelaySettings,
    /// Bytes per second that the corridor passes on at most.
    share: Option<u32>,
    clients: BTreeMap<PortId, Client>,
    /// Who asked for the way to whom, and until when that holds.
    pairs: BTreeMap<(PortId, PortId), Time>,
}

impl Carrying {
    /// With nobody carried.
    pub(super) fn new(settings: RelaySettings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Members with a leg here.
    pub(super) fn ends(&self) -> impl Iterator<Item = PortId> + '_ {
        self.clients.keys().copied()
    }

    fn has_room(&self, ends: [PortId; 2]) -> bool {
        let new = ends.iter().filter(|end| !self.clients.contains_key(end)).count();
        self.clients.len() + new <= CLIENTS_MAX
            && (self.pairs.len() < PAIRS_MAX || self.pairs.contains_key(&(ends[0], ends[1])))
    }

    /// The leg of a member: a new one if its address or boot is new. `true` if it is.
    fn open(&mut self, fx: &mut Effects, peer: &Peer, overlay: crate::keys::OverlayId, addr: SocketAddr) -> bool {
        let boot = peer.session.map(|session| session.boot).unwrap_or_default();
        let old = self.clients.get(&peer.port);
        if old.is_some_and(|client| client.addr == addr && client.boot == boot) {
            return false;
        }
        let proven = fx.now;
        if let Some(old) = old {
            fx.commands.push_back(Command::DropChannel { relay: old.relay });
        }
        let mut key = LegKey([0; 16]);
        fx.rng.fill_bytes(&mut key.0);
        let relay = loop {
            let relay = RelayId(fx.rng.next_u32());
            if !self.clients.values().any(|client| client.relay == relay) {
                break relay;
            }
        };
        fx.commands.push_back(Command::SetChannel { relay, overlay, addr, key });
        self.clients.insert(peer.port, Client { relay, key, addr, proven, boot });
        true
    }

    /// Tells both ends of a pair of their legs.
    fn tell(&self, fx: &mut Effects, peers: &BTreeMap<PortId, Peer>, (a, b): (PortId, PortId)) {
        for (to, other) in [(a, b), (b, a)] {
            let (Some(own), Some(far)) = (self.clients.get(&to), self.clients.get(&other)) else { continue };
            let Some(node) = peers.get(&other).map(|peer| peer.id) else { continue };
            let grant = Some(Grant { own: own.relay, key: own.key, peer: far.relay });
            fx.send(to, Path::Direct(own.addr), &Message::Leg(Leg { node, grant }));
        }
    }

    /// Legs that are in no pair end.
    fn sweep(&mut self, fx: &mut Effects) {
        let used = self.pairs.keys().flat_map(|(a, b)| [*a, *b]).collect::<BTreeSet<_>>();
        self.clients.retain(|port, client| {
            let is_used = used.contains(port);
            if !is_used {
                fx.commands.push_back(Command::DropChannel { relay: client.relay });
            }
            is_used
        });
    }

    /// Nobody has a leg here any more: what was counted on them may be counted again.
    pub(super) fn forget_all(&mut self, fx: &mut Effects) {
        self.pairs.clear();
        self.sweep(fx);
    }

    /// A member is gone for good.
    pub(super) fn forget(&mut self, fx: &mut Effects, port: PortId) {
        self.pairs.retain(|(a, b), _| *a != port && *b != port);
        self.sweep(fx);
    }
}

impl Control {
    /// What we pass on for others at most, in bytes per second: what is guaranteed to our own machines is not for them.
    pub(super) fn spare(&self) -> Option<u32> {
        let unreserved = self.reserved.spare().map(|spare| u32::try_from(spare).unwrap_or(u32::MAX));
        self.carrying.settings.share.into_iter().chain(unreserved).min()
    }

    /// Whom we carry for: nobody, where all is guaranteed.
    pub(super) fn carries(&self) -> RelayFor {
        if self.spare() == Some(0) { RelayFor::Nobody } else { self.carrying.settings.carries }
    }

    /// Reservations may be others now: so is what is left to pass on.
    pub(super) fn review_spare(&mut self) {
        let bytes_per_s = self.spare();
        if bytes_per_s != std::mem::replace(&mut self.carrying.share, bytes_per_s) {
            self.fx.commands.push_back(Command::SetShare { bytes_per_s });
            self.update_directories();
            self.tell_planners();
        }
    }

    /// CARRY: a member wants its packets carried to another one, or no more.
    pub(super) fn on_carry(&mut self, from: PortId, path: Path, carry: Carry) {
        let Some(asker) = self.peers.get_mut(&from) else { return };
        let other = self.by_id.get(&(asker.overlay, carry.node)).copied().filter(|other| *other != from);
        if !asker.asks.take(self.fx.now) {
            return self.fx.dropped(DropReason::RelayRefused);
        }
        let is_willing = carry.wanted && other.is_some_and(|other| self.may_carry([from, other], path));
        match other {
            Some(other) if !carry.wanted => {
                self.carrying.pairs.remove(&(from, other));
                self.carrying.sweep(&mut self.fx);
            }
            Some(other) if is_willing && self.grant((from, path), other) => {}
            // It asks again in a moment, and perhaps there is a direct path by then.
            Some(other) if is_willing && self.is_waking(other) => {}
            Some(_) | None if carry.wanted => {
                self.fx.dropped(DropReason::RelayRefused);
                self.fx.send(from, path, &Message::Leg(Leg { node: carry.node, grant: None }));
            }
            Some(_) | None => {}
        }
    }

    /// Where the leg of a member ends, or would: where it is reached directly, or was of late if the pair is carried.
    /// Probes get lost in full queues, and the ends of a pair see whether the way by us carries.
    fn end_of(&mut self, from: PortId, member: PortId) -> Option<SocketAddr> {
        let (now, direct) = (self.fx.now, self.directly(member));
        let is_up = self.peers.get(&member).is_some_and(|peer| peer.session.is_some());
        let is_carried = self.carrying.pairs.get(&(from, member)).is_some_and(|until| now < *until);
        let client = self.carrying.clients.get_mut(&member);
        let Some(Path::Direct(addr)) = direct else {
            let is_fresh = |client: &&mut Client| is_up && is_carried && now.since(client.proven) < LEASE;
            return client.filter(is_fresh).map(|client| client.addr);
        };
        if let Some(client) = client.filter(|client| client.addr == addr) {
            client.proven = now;
        }
        Some(addr)
    }

    /// A supernode has legs of its own for whoever registers there, so that it gives none as a member.
    fn may_carry(&self, ends: [PortId; 2], asked_by: Path) -> bool {
        let is_willing = match self.carries() {
            RelayFor::Nobody => false,
            RelayFor::Site => ends.iter().any(|end| self.peers.get(end).is_some_and(|peer| self.is_of_our_site(peer))),
            RelayFor::Everyone => true,
        };
        is_willing && self.serving.is_none() && asked_by.is_direct() && self.carrying.has_room(ends)
    }

    /// Whether it says so, or supernodes see it and us at one address.
    pub(super) fn is_of_our_site(&self, peer: &Peer) -> bool {
        let site = &self.carrying.settings.site;
        (!site.is_empty() && peer.site == *site) || self.is_at_our_address(peer)
    }

    /// Whether supernodes see it and us at one address.
    pub(super) fn is_at_our_address(&self, peer: &Peer) -> bool {
        let is_ours =
            |seen: &SocketAddr| self.homes.iter().any(|home| home.seen.is_some_and(|own| own.ip() == seen.ip()));
        peer.seen.values().any(is_ours)
    }

    /// Why the member at `by` will not relay between us and the peer at `to`, if that shows from here.
    pub(super) fn unwilling(&self, by: PortId, to: PortId) -> Option<String> {
        let (member, peer) = (self.peers.get(&by)?, self.peers.get(&to)?);
        let name = member.called();
        match member.relays {
            RelayFor::Nobody if member.session.is_some() => {
                Some(format!("{name} relays for nobody: it needs relay = \"on\" or \"site\""))
            }
            RelayFor::Site if !self.is_of_our_site(member) && !are_of_one_site(member, peer) => {
                Some(format!("{name} relays for its own site only: it needs relay = \"on\""))
            }
            RelayFor::Nobody | RelayFor::Site | RelayFor::Everyone => None,
        }
    }

    /// Carries for a pair from now on, if both are reached.
    fn grant(&mut self, (from, path): (PortId, Path), other: PortId) -> bool {
        let (Path::Direct(here), Some(there)) = (path, self.end_of(from, other)) else { return false };
        let (Some(asker), Some(peer)) = (self.peers.get(&from), self.peers.get(&other)) else { return false };
        let overlay = self.overlays[asker.overlay.0].id();
        let mut renewed = BTreeSet::new();
        for (end, addr) in [(asker, here), (peer, there)] {
            if self.carrying.open(&mut self.fx, end, overlay, addr) {
                renewed.insert(end.port);
            }
        }
        self.carrying.pairs.insert((from, other), self.fx.now + LEASE);
        let is_touched = |(a, b): &&(PortId, PortId)| renewed.contains(a) || renewed.contains(b);
        let touched = self.carrying.pairs.keys().filter(is_touched).copied().filter(|pair| *pair != (from, other));
        for pair in touched.chain([(from, other)]) {
            self.carrying.tell(&mut self.fx, &self.peers, pair);
        }
        self.fx.timers.set_earlier(Timer::Carrying, self.fx.now + LEASE);
        true
    }

    /// [`Timer::Carrying`]: what nobody asked for again ends.
    pub(super) fn on_carrying_timer(&mut self) {
        let now = self.fx.now;
        self.carrying.pairs.retain(|_, until| *until > now);
        self.carrying.sweep(&mut self.fx);
        if let Some(until) = self.carrying.pairs.values().min() {
            self.fx.timers.set(Timer::Carrying, *until);
        }
    }
}

/// Whether two members say so, or supernodes see them at one address.
fn are_of_one_site(one: &Peer, other: &Peer) -> bool {
    let is_its = |seen: &SocketAddr| one.seen.values().any(|at| at.ip() == seen.ip() && !at.ip().is_unspecified());
    (!one.site.is_empty() && one.site == other.site) || other.seen.values().any(is_its)
}
