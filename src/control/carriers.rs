//! Members that carry to a peer that cannot be reached directly: which to ask ([`asking`]), and how long they are
//! wanted.
//!
//! While frames flow to such a peer, it and we tell each other whom we reach directly. The members that both reach,
//! by the sum of their round trips, are asked for legs ([`carrying`](super::carrying)); a leg is a way like one
//! through a supernode, and `path` chooses among all by what was measured on them. One member is kept as a standby
//! though it be slower. Without a path at all, the nearest members are asked without knowing whom they reach. Where there
//! is a direct path, one may still be asked because the way by it is quicker ([`nearer`]).

mod asking;

mod nearer;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::Peer;
use super::effects::Effects;
use super::timers::Timer;
use crate::datapath::fdb::PortId;
use crate::datapath::{Command, LegId, Path};
use crate::time::Time;
use crate::wire::carry::{Carry, Grant};
use crate::wire::relay::{LegKey, RelayId};
use crate::wire::session::Message;

/// Frames flow and nothing direct was found for this long: punching has had its first round.
const FIRST_AFTER: Duration = Duration::from_secs(3);
/// A member that did not answer, or carries no more, is not asked again before this.
const SILENT_REST: Duration = Duration::from_secs(30);
/// Without a frame for this long nobody is asked to carry.
const IDLE: Duration = Duration::from_secs(180);

/// How frames shall travel to a peer, by order; the local choice where that is not possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Via {
    /// As measured.
    #[default]
    Auto,
    /// Directly, or by a supernode; no member carries.
    Direct,
    /// By this member, though there were a better way.
    Member(PortId),
    /// By the supernode at this place, though there were a better way. A direct path or members stand by.
    Home(usize),
}

impl Via {
    /// Whether we choose for ourselves which members may carry.
    const fn leaves_members_to_us(self) -> bool {
        matches!(self, Self::Auto | Self::Home(_))
    }
}

/// Our leg at a member. It lives as long as we know the member, so that its counter never begins anew under one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnLeg {
    /// Our number for it.
    pub leg: LegId,
    /// Where it is.
    pub at: SocketAddr,
    relay: RelayId,
    key: LegKey,
}

/// Where a member stands that may carry to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Asked so often, the last time then.
    Asked(u32, Time),
    /// It told us of our leg then.
    Granted(LegId, Time),
    /// Not before this.
    Rests(Time),
}

/// One of them.
#[derive(Clone, Copy, Debug)]
struct Carrier {
    standing: Standing,
    /// When we asked last; whom the peer asked is renewed by the peer.
    asked: Option<Time>,
}

/// Those that may carry to one peer.
#[derive(Clone, Debug, Default)]
pub struct Carriers {
    /// What was ordered.
    pub via: Via,
    /// When it was.
    ordered: Time,
    /// The user ordered it: plans leave it alone.
    pub is_pinned: bool,
    /// Members by which static rules send some of the frames.
    pub(super) ruled: BTreeSet<PortId>,
    by_member: BTreeMap<PortId, Carrier>,
    nearer: nearer::Nearer,
    compared: Option<Time>,
    /// When the last frame went to the peer, as far as was measured.
    pub(super) sent: Option<Time>,
}

impl Carriers {
    /// Our leg at this member towards the peer, if it has granted one.
    pub(super) fn leg(&self, member: PortId) -> Option<LegId> {
        match self.by_member.get(&member)?.standing {
            Standing::Granted(leg, _) => Some(leg),
            Standing::Asked(..) | Standing::Rests(_) => None,
        }
    }

    /// Members that carry to the peer, are asked to, or should.
    pub(super) fn members(&self) -> impl Iterator<Item = PortId> + '_ {
        let busy = self.by_member.iter().filter(|(_, carrier)| !matches!(carrier.standing, Standing::Rests(_)));
        let ordered = if let Via::Member(member) = self.via { Some(member) } else { None };
        busy.map(|(member, _)| *member).chain(self.ruled.iter().copied()).chain(ordered)
    }

    /// Whether somebody has ordered how frames travel to the peer.
    pub(super) fn is_ordered(&self) -> bool {
        self.via != Via::Auto || !self.ruled.is_empty()
    }

    /// Frames went to the peer of late.
    fn is_active(&self, now: Time) -> bool {
        self.sent.is_some_and(|sent| now.since(sent) < IDLE)
    }

    /// Members with a leg for this peer, or asked for one.
    fn busy(&self) -> usize {
        let is_busy = |carrier: &&Carrier| !matches!(carrier.standing, Standing::Rests(_));
        self.by_member.values().filter(is_busy).count()
    }

    /// The way through the member with this leg is dead.
    fn on_dead(&mut self, now: Time, leg: LegId) -> bool {
        let is_it = |carrier: &&mut Carrier| matches!(carrier.standing, Standing::Granted(own, _) if own == leg);
        let Some(carrier) = self.by_member.values_mut().find(is_it) else { return false };
        carrier.standing = Standing::Rests(now + SILENT_REST);
        true
    }
}

impl Peer {
    /// Frames flow, or did a moment ago: if they take no direct path, or a long one, a member may carry them.
    pub(super) fn want_carriers(&mut self, fx: &mut Effects) {
        if fx.timers.when(Timer::Carry(self.port)).is_none() {
            fx.timers.set(Timer::Carry(self.port), fx.now + FIRST_AFTER);
        }
    }

    /// The path in use before, by `leg`, is dead, and another has taken its place.
    pub(super) fn on_carrier_dead(&mut self, fx: &mut Effects, leg: LegId) {
        if self.paths.preferred() != Some(leg) && self.carriers.on_dead(fx.now, leg) {
            self.paths.drop_relay(leg);
        }
    }

    fn wants_carriers(&self, now: Time) -> bool {
        if self.session.is_none() || self.is_asleep() {
            return false;
        }
        if !self.carriers.ruled.is_empty() {
            return true;
        }
        let has_use = match self.carriers.via {
            Via::Auto => !self.is_direct() || self.carriers.nearer.is_sought(now),
            // A direct path stands by as well as a member.
            Via::Home(_) => self.straight(now).is_none(),
            Via::Direct => return false,
            Via::Member(_) => return true,
        };
        has_use && self.carriers.is_active(now)
    }

    /// Asks `member` for a leg towards this peer.
    fn ask_carrier(&mut self, fx: &mut Effects, (member, by): (PortId, Path)) {
        let carrier = self
            .carriers
            .by_member
            .entry(member)
            .or_insert(Carrier { standing: Standing::Asked(0, fx.now), asked: None });
        carrier.asked = Some(fx.now);
        carrier.standing = match carrier.standing {
            Standing::Asked(times, _) => Standing::Asked(times + 1, fx.now),
            Standing::Rests(_) => Standing::Asked(1, fx.now),
            granted @ Standing::Granted(..) => granted,
        };
        fx.send(member, by, &Message::Carry(Carry { node: self.id, wanted: true }));
    }

    /// Forgets the leg that was told of longest ago, if it is not in use.
    fn drop_idle_carrier(&mut self, fx: &mut Effects) {
        let is_used = |leg| self.paths.preferred() == Some(leg) || self.paths.goes_by(leg);
        let is_ruled = |member| self.carriers.ruled.contains(member);
        let idle = self.carriers.by_member.iter().filter_map(|(member, carrier)| match carrier.standing {
            Standing::Granted(leg, told) if !is_used(leg) && !is_ruled(member) => Some((told, *member, leg)),
            Standing::Granted(..) | Standing::Asked(..) | Standing::Rests(_) => None,
        });
        if let Some((_, member, leg)) = idle.min_by_key(|(told, ..)| *told) {
            self.carriers.by_member.remove(&member);
            self.drop_carrier(fx, leg);
        }
    }

    /// The member does not carry any more.
    fn drop_carrier(&mut self, fx: &mut Effects, leg: LegId) {
        let before = self.paths.current();
        self.paths.drop_relay(leg);
        if before.is_some() && self.paths.current().is_none() {
            self.use_path(fx);
            self.choose(fx, "the relay before is gone");
        }
    }
}

impl Peer {
    /// Our leg at this member, as it told of it by `at`.
    fn take_leg(&mut self, fx: &mut Effects, at: SocketAddr, grant: Grant) -> LegId {
        let leg = match self.own_leg {
            Some(own) => own.leg,
            None => fx.new_leg(&self.called()),
        };
        let own = OwnLeg { leg, at, relay: grant.own, key: grant.key };
        match self.own_leg.replace(own) {
            Some(before) if before == own => {}
            // Its counter goes on: the other end has seen the numbers so far.
            Some(before) if before == (OwnLeg { at: before.at, ..own }) => {
                fx.commands.push_back(Command::MoveLeg { leg, relay: at });
            }
            Some(_) | None => fx.commands.push_back(Command::SetLeg { leg, relay: at, key: grant.key }),
        }
        leg
    }
}
