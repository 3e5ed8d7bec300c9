//! Links on demand: in a large overlay only the links that are used are awake.
//!
//! A peer that is *awake* has keys that are renewed, a path that is kept open and watched, and a direct one that is
//! sought. One that *sleeps* costs nothing: that it is there, a supernode's roster says; what is sent to it goes by
//! that supernode, with keys that are made when a frame needs them and then left to lapse. The first frame for one
//! machine wakes the link at both ends, since who is woken asks the peer for its addresses; what is flooded or for a
//! group wakes nobody, unless it is so much that a supernode should not carry it. Who falls asleep says so, and is
//! believed by a peer that has no more use of the link. An overlay with no more members than
//! [`LinkBudget::soft`](crate::seam::budget::LinkBudget) has no sleepers.

use std::collections::BTreeSet;
use std::time::Duration;

use super::effects::Effects;
use super::peer::{KEEPALIVE, Me, Peer};
use super::report::PeerState;
use super::timers::Timer;
use super::{Control, CountUpTo, FORGET_AFTER, now_soon};
use crate::datapath::Command;
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::PortId;
use crate::keys::NodeId;
use crate::time::Time;
use crate::wire::inventory::Excerpt;
use crate::wire::session::Message;

/// A link without a frame for one machine for so long may sleep, and one that was woken sleeps no earlier.
const IDLE: Duration = Duration::from_secs(180);
/// What is known of its use may be so old: a keepalive reads it.
const READ_EVERY: Duration = KEEPALIVE.saturating_add(Duration::from_secs(4));
/// Between two looks at all links.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// A sleeping link, for which there was no room among those awake, has new keys in time if it was used so recently.
const IN_USE: Duration = Duration::from_secs(60);
/// A roster of several messages is there in this time; only then it is known how many members there are.
const ROSTER_PATIENCE: Duration = Duration::from_millis(100);
/// A link that was woken has a direct path by then, if there is one.
const WAKING: Duration = Duration::from_secs(5);
/// Gateways keep a mapping for so long without traffic, at least (RFC 4787 REQ-5).
const FORGETTING: Duration = Duration::from_secs(25);
/// An overlay is large until it has lost so great a part of what it may have at most: its size swings.
const SWING: usize = 8;

/// Whether upkeep is spent on a peer, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slumber {
    Awake(Time),
    Asleep(Time),
}

impl Peer {
    /// Whether no upkeep is spent on it.
    pub(super) const fn is_asleep(&self) -> bool {
        matches!(self.slumber, Slumber::Asleep(_))
    }

    /// Whether its keys are renewed before they lapse.
    pub(super) fn renews_keys(&self, now: Time) -> bool {
        !self.is_asleep() || self.used.is_some_and(|used| now.since(used) < IN_USE)
    }

    /// Whether it is awake for no reason, with `grace` for what was not read yet.
    fn is_idle(&self, now: Time, grace: Duration) -> bool {
        let Slumber::Awake(since) = self.slumber else { return false };
        let rested = |at: Time| now.since(at) >= IDLE + grace;
        // Without a relay nobody could wake it again.
        self.paths.has_relay() && self.state != PeerState::Gone && rested(since) && self.used.is_none_or(rested)
    }

    /// Upkeep ends. The next frame goes by a supernode, if there is one.
    fn fall_asleep(&mut self, fx: &mut Effects) {
        self.slumber = Slumber::Asleep(fx.now);
        self.end_upkeep(fx);
        self.paths.reset();
        self.paths.choose(fx.now, "it is asleep, and the supernode can carry what wakes it");
        self.use_path(fx);
        let port = self.port;
        fx.commands.push_back(Command::SetAsleep { port, asleep: true });
        // It tells us no more itself; until a supernode does, it may want everything.
        let unknown = Excerpt { bindings: Vec::new(), has_more: true };
        let excerpt = self.excerpt.clone().unwrap_or(unknown);
        fx.commands.push_back(Command::Believe { port, excerpt });
    }

    fn say_sleep(&self, fx: &mut Effects) {
        if let Some(path) = self.paths.current().filter(|_| self.session.is_some()) {
            fx.send(self.port, path, &Message::Sleep);
        }
    }

    /// Upkeep begins again; keys are made if there are none.
    fn wake(&mut self, fx: &mut Effects, me: &Me) {
        self.slumber = Slumber::Awake(fx.now);
        // Whether what was flooded to it found an answer says nothing.
        self.use_path(fx);
        fx.commands.push_back(Command::SetAsleep { port: self.port, asleep: false });
        fx.commands.push_back(Command::Watch { port: self.port });
        if fx.timers.when(Timer::Rekey(self.port)).is_none() {
            // They were not renewed: what is told with them now may not be sealed any more.
            self.session = None;
        }
        match self.session {
            Some(_) => self.begin_upkeep(fx),
            None => self.want_session(fx, me),
        }
    }

    /// There is another way to it than before, or none any more.
    pub(super) const fn sleep_on(&mut self, now: Time) {
        self.slumber = Slumber::Asleep(now);
    }

    /// A supernode knows a sleeping peer anew, or us: one of both may have lost its keys, and there is no upkeep that
    /// would notice. What it seals with them is still opened.
    pub(super) fn let_keys_lapse(&mut self, fx: &mut Effects) {
        self.session = None;
        fx.timers.cancel(Timer::Rekey(self.port));
        fx.commands.push_back(Command::LapseKeys { port: self.port });
    }

    /// Nobody watches a direct path to it, which may carry one way only: relays are better.
    pub(super) fn forget_unwatched(&mut self) {
        if self.is_asleep() && self.paths.has_relay() {
            self.paths.reset();
        }
    }

    /// There are keys for what is sent now. If they came directly, since there is no relay, a gateway forgets that soon.
    pub(super) fn doubt_later(&self, fx: &mut Effects) {
        if !self.paths.has_relay() {
            fx.timers.set(Timer::Rekey(self.port), fx.now + FORGETTING);
        }
    }

    /// [`Timer::Rekey`] of a link that needs no new keys: what is sent next asks for some where there is no relay.
    pub(super) fn on_unused_keys(&mut self, fx: &mut Effects) {
        if !self.paths.has_relay() {
            self.paths.reset();
            self.use_path(fx);
        }
    }

    /// A probe of the peer was answered: it may not have heard that we sleep.
    pub(super) fn remind_of_sleep(&self, fx: &mut Effects) {
        if self.is_asleep() {
            self.say_sleep(fx);
        }
    }
}

impl Control {
    fn members(&self, overlay: OverlayIndex) -> impl Iterator<Item = PortId> + '_ {
        let all = (overlay, NodeId([0; 32]))..=(overlay, NodeId([0xff; 32]));
        self.by_id.range(all).map(|(_, port)| *port)
    }

    /// A supernode says that a member is there: keys are made with it, unless there are too many for that. If it
    /// `has_more` to tell, that is seen first.
    pub(super) fn meet(&mut self, port: PortId, has_more: bool) {
        let Some(overlay) = self.peers.get(&port).map(|peer| peer.overlay) else { return };
        self.review_size(overlay);
        let is_large = self.overlays[overlay.0].is_large;
        let Some(peer) = self.peers.get_mut(&port) else { return };
        if is_large && !peer.is_asleep() && peer.is_untried() {
            peer.fall_asleep(&mut self.fx);
        }
        peer.want_session(&mut self.fx, &self.me);
        let begins = self.fx.timers.when(Timer::Handshake(port)).filter(|_| has_more && peer.is_untried());
        begins.into_iter().for_each(|at| self.fx.timers.set(Timer::Handshake(port), at + ROSTER_PATIENCE));
    }

    /// Whether links of an overlay may sleep now, for it has many members.
    pub(super) fn review_size(&mut self, overlay: OverlayIndex) {
        let (soft, was_large) = (self.budget.soft, self.overlays[overlay.0].is_large);
        let most = if was_large { soft - soft / SWING } else { soft };
        let is_large = self.members(overlay).count_up_to(most + 1);
        if is_large == was_large {
            return;
        }
        self.overlays[overlay.0].is_large = is_large;
        for port in self.members(overlay).collect::<Vec<_>>() {
            let Some(peer) = self.peers.get_mut(&port) else { continue };
            match is_large {
                true if peer.is_untried() => peer.fall_asleep(&mut self.fx),
                false if peer.is_asleep() => peer.wake(&mut self.fx, &self.me),
                true | false => {}
            }
        }
        self.fx.timers.set(Timer::Links(overlay), self.fx.now + LOOK_EVERY);
    }

    /// [`Timer::Links`]
    pub(super) fn on_links_timer(&mut self, overlay: OverlayIndex) {
        self.review_size(overlay);
        if !self.overlays[overlay.0].is_large {
            return;
        }
        self.fx.timers.set(Timer::Links(overlay), self.fx.now + LOOK_EVERY);
        self.forget_lost(overlay);
        let needed = self.needed(overlay);
        for port in &needed {
            self.need(*port);
        }
        // One that was used and found no room among those awake is told of again.
        for port in self.members(overlay).collect::<Vec<_>>() {
            if self.peers.get(&port).is_some_and(Peer::is_asleep) {
                self.fx.commands.push_back(Command::SetAsleep { port, asleep: true });
            }
        }
        self.put_to_sleep(overlay, &needed);
    }

    /// The links that were not used for long: those that never were, and of the others as many as there are too many.
    fn put_to_sleep(&mut self, overlay: OverlayIndex, needed: &BTreeSet<PortId>) {
        let idle = |port: &PortId| {
            let peer = self.peers.get(port).filter(|peer| peer.is_idle(self.fx.now, READ_EVERY))?;
            Some((peer.used, *port)).filter(|_| !needed.contains(port))
        };
        let mut idle: Vec<_> = self.members(overlay).filter_map(|port| idle(&port)).collect();
        idle.sort_unstable();
        let mut over = self.count_awake(overlay).saturating_sub(self.budget.soft);
        for (used, port) in idle {
            if over == 0 && used.is_some() {
                break;
            }
            over = over.saturating_sub(1);
            if let Some(peer) = self.peers.get_mut(&port) {
                peer.say_sleep(&mut self.fx);
                peer.fall_asleep(&mut self.fx);
            }
        }
    }

    fn count_awake(&self, overlay: OverlayIndex) -> usize {
        let peers = self.members(overlay).filter_map(|port| self.peers.get(&port));
        peers.filter(|peer| !peer.is_asleep() && peer.state != PeerState::Gone).count()
    }

    /// Sleepers that no supernode has known for long.
    fn forget_lost(&mut self, overlay: OverlayIndex) {
        let now = self.fx.now;
        let is_lost = |peer: &Peer| match peer.slumber {
            Slumber::Asleep(since) => !peer.paths.has_relay() && now.since(since) >= FORGET_AFTER,
            Slumber::Awake(_) => false,
        };
        let lost: Vec<_> = self.members(overlay).filter(|port| self.peers.get(port).is_some_and(is_lost)).collect();
        lost.into_iter().for_each(|port| self.forget_peer(port));
    }

    /// A supernode says that a sleeping peer is gone. Nobody knows more of it than supernodes say.
    pub(super) fn on_sleeper_gone(&mut self, port: PortId) {
        let Some(peer) = self.peers.get_mut(&port).filter(|peer| peer.is_asleep()) else { return };
        if peer.paths.has_relay() {
            return peer.let_keys_lapse(&mut self.fx);
        }
        self.forget_peer(port);
        self.fx.timers.set_earlier(Timer::Remember, now_soon(self.fx.now));
    }

    /// We registered anew: we were gone, and some have forgotten our keys.
    pub(super) fn let_sleepers_lapse(&mut self, overlay: OverlayIndex) {
        let asleep = self.peers.values_mut().filter(|peer| peer.overlay == overlay && peer.is_asleep());
        asleep.for_each(|peer| peer.let_keys_lapse(&mut self.fx));
    }

    /// All keys are void: supernodes tell again of those that we make none with now.
    pub(super) fn forget_sleepers(&mut self) {
        let asleep = self.peers.values().filter(|peer| peer.is_asleep()).map(|peer| peer.port).collect::<Vec<_>>();
        asleep.into_iter().for_each(|port| self.forget_peer(port));
    }

    /// Links that rules, orders, plans, relaying and a shared segment need, whether or not frames cross them.
    fn needed(&self, overlay: OverlayIndex) -> BTreeSet<PortId> {
        let mut needed: BTreeSet<PortId> = self.named_by_rules(overlay).into_iter().collect();
        needed.extend(self.carrying.ends());
        needed.extend(self.segments[overlay.0].sharers());
        for peer in self.members(overlay).filter_map(|port| self.peers.get(&port)) {
            let members = peer.carriers.members();
            if peer.carriers.is_ordered() {
                needed.insert(peer.port);
            }
            needed.extend(members);
        }
        needed
    }

    /// The link to the peer at `port` has to be awake, whatever the budget says.
    pub(super) fn need(&mut self, port: PortId) {
        if let Some(peer) = self.peers.get_mut(&port).filter(|peer| peer.is_asleep()) {
            peer.wake(&mut self.fx, &self.me);
        }
    }

    /// The link to the peer at `port` is worth being awake, if the budget allows it.
    pub(super) fn rouse(&mut self, port: PortId) {
        let Some(peer) = self.peers.get(&port).filter(|peer| peer.is_asleep()) else { return };
        if self.count_awake(peer.overlay) < self.budget.hard {
            self.need(port);
        }
    }

    /// Somebody needs the link to the peer at `port`, which is woken if it sleeps: whether it is too early to say that
    /// there is no direct path.
    pub(super) fn is_waking(&mut self, port: PortId) -> bool {
        self.rouse(port);
        let Some(peer) = self.peers.get(&port).filter(|peer| self.overlays[peer.overlay.0].is_large) else {
            return false;
        };
        matches!(peer.slumber, Slumber::Awake(since) if self.fx.now.since(since) < WAKING)
    }

    /// A frame for one machine crosses a link that sleeps.
    pub(super) fn on_used(&mut self, port: PortId) {
        let Some(peer) = self.peers.get_mut(&port) else { return };
        peer.used = Some(self.fx.now);
        self.rouse(port);
        // The frame waits: there is no time for courtesy.
        if self.peers.get(&port).is_some_and(|peer| !peer.is_asleep() && peer.session.is_none()) {
            self.on_handshake_timer(port, Peer::begin_handshake);
        }
    }

    /// SLEEP: the peer at `port` has no more use of the link. If we have none, it sleeps here too.
    pub(super) fn on_sleep(&mut self, port: PortId) {
        let Some(peer) = self.peers.get(&port) else { return };
        let overlay = peer.overlay;
        let is_idle = self.overlays[overlay.0].is_large && peer.is_idle(self.fx.now, Duration::ZERO);
        if is_idle && !self.needed(overlay).contains(&port) {
            self.with(port, Peer::fall_asleep);
        }
    }
}
