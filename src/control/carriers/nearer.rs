//! A nearer way for a pair that sends little: by a relay, where that is clearly quicker than the direct path.
//!
//! The ways between networks are not straight, and a third member may lie on a better one. Such a pair cares for round
//! trips and not for bandwidth, so the node where its frames enter decides alone, by what it measured: first it asks the
//! peer whom that reaches, then the member that promises most for a leg, then it probes the leg beside the direct path,
//! and only a way that beats it now and on average is taken. It is left when it is behind for a while, or when the pair
//! sends much: then ways are the planner's matter. Members that relay for nobody else are not asked.

use std::time::Duration;

use super::{Standing, Via};
use crate::control::path::trip::Trip;
use crate::control::topology::planner::BULK;
use crate::control::{Control, Peer};
use crate::datapath::fdb::PortId;
use crate::datapath::{LegId, Path};
use crate::keys::NodeId;
use crate::time::Time;
use crate::wire::carry::{Neighbour, Neighbours, RelayFor};
use crate::wire::session::Message;

/// A pair sends little up to this rate: well below what is much, so that it does not go to and fro between the two.
const LITTLE: f64 = BULK / 2.0;
/// A direct path that was come back to is kept for this long.
const HOLD: Duration = Duration::from_secs(30);
/// A peer is asked whom it reaches this often at first, then half as often each time nothing came of it...
const ASK_FIRST: Duration = Duration::from_secs(60);
/// ...up to this.
const ASK_MAX: Duration = Duration::from_secs(960);
/// A way is left that took as long as the direct path so many times in a row, ten seconds apart.
const BEHIND_MAX: u32 = 3;
/// A leg that was asked for is measured for so long: some probes, ten seconds apart.
const TRY: Duration = Duration::from_secs(60);

/// What is known of nearer ways to one peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Nearer {
    /// The leg in use because it is nearer.
    leg: Option<LegId>,
    /// How many times in a row it was not.
    behind: u32,
    /// None is taken before this.
    until: Time,
    /// The peer is not asked before this, and how long that is next time.
    ask_at: Time,
    rest: Duration,
    /// It was asked and has not answered yet.
    is_asked: bool,
    /// A leg that was asked for is measured up to then.
    tried_until: Time,
}

impl Nearer {
    /// Whether members are to carry though there is a direct path.
    pub(super) fn is_sought(&self, now: Time) -> bool {
        self.leg.is_some() || now < self.tried_until
    }

    /// The peer is to be asked now; when it is again hangs on what comes of it.
    fn take_ask(&mut self, now: Time) -> bool {
        if now < self.ask_at {
            return false;
        }
        self.rest = (self.rest * 2).clamp(ASK_FIRST, ASK_MAX);
        self.ask_at = now + self.rest;
        self.is_asked = true;
        true
    }

    fn change(&mut self, now: Time, leg: Option<LegId>) {
        (self.leg, self.behind, self.until) = (leg, 0, now + HOLD);
        (self.rest, self.ask_at) = (Duration::ZERO, now + HOLD);
    }
}

impl Control {
    /// While frames flow, and once more when they no longer do.
    pub(super) fn review_nearer(&mut self, peer: &mut Peer) {
        let flow = self.overlays[peer.overlay.0].traffic.flow(peer.port);
        let rate = flow.map_or(0.0, |(sent, _)| sent.fast);
        match peer.carriers.nearer.leg {
            Some(leg) => self.keep_nearer(peer, leg, rate),
            None if rate <= LITTLE && peer.carriers.is_active(self.fx.now) => self.seek_nearer(peer),
            None => {}
        }
    }

    /// Goes on by the nearer way, or back to the direct path.
    fn keep_nearer(&mut self, peer: &mut Peer, leg: LegId, rate: f64) {
        let now = self.fx.now;
        if !peer.may_choose() || peer.paths.preferred() != Some(leg) {
            // Somebody has ordered another way meanwhile.
            return peer.carriers.nearer.change(now, None);
        }
        let direct = peer.paths.known_direct();
        if let Some((path, _)) = direct {
            peer.probe(&mut self.fx, path);
        }
        let way = peer.paths.relayed(leg).and_then(|path| peer.paths.trip(path));
        let is_behind = way.is_none_or(|way| direct.is_some_and(|(_, direct)| direct.last <= way.last));
        peer.carriers.nearer.behind = if is_behind { peer.carriers.nearer.behind + 1 } else { 0 };
        if rate >= BULK || !peer.carriers.is_active(now) || peer.carriers.nearer.behind >= BEHIND_MAX {
            peer.carriers.nearer.change(now, None);
            peer.paths.prefer(None);
            peer.choose(&mut self.fx, "the way by the relay is no longer nearer");
        }
    }

    /// Takes a nearer way that is known, or looks for one.
    fn seek_nearer(&mut self, peer: &mut Peer) {
        let now = self.fx.now;
        let Some((_, direct)) = peer.paths.known_direct().filter(|_| peer.may_choose() && peer.is_direct()) else {
            return;
        };
        if now >= peer.carriers.nearer.until
            && let Some(leg) = peer.paths.nearest_relay(direct)
        {
            peer.carriers.nearer.change(now, Some(leg));
            peer.paths.prefer(Some(leg));
            return peer.choose(&mut self.fx, "it is clearly nearer than the direct path");
        }
        for path in peer.paths.promising(direct).collect::<Vec<_>>() {
            peer.probe(&mut self.fx, path);
        }
        let members = self.near(peer, direct);
        if !members.is_empty()
            && peer.carriers.nearer.take_ask(now)
            && let Some(path) = peer.paths.current()
        {
            self.fx.send(peer.port, path, &Message::Neighbours(Neighbours { wants_answer: true, list: members }));
        }
    }

    /// Members that relay, and so near that a way by them may be worth it.
    fn near(&self, peer: &Peer, direct: Trip) -> Vec<Neighbour> {
        let mut list = self.neighbours(peer.overlay, &[], peer.id);
        list.retain(|one| self.nearer_by(peer, one.node, direct, Duration::ZERO).is_some());
        list
    }

    /// A member that may relay to the peer from which it is `far` away, if the way by it beats the direct path.
    fn nearer_by(&self, peer: &Peer, member: NodeId, direct: Trip, far: Duration) -> Option<(Duration, PortId, Path)> {
        let port = self.by_id.get(&(peer.overlay, member)).copied()?;
        let by = self.directly(port)?;
        let member = self.peers.get(&port)?;
        let is_willing = match member.relays {
            RelayFor::Everyone => true,
            RelayFor::Site => self.is_of_our_site(member),
            RelayFor::Nobody => false,
        };
        let trip = member.paths.trip(by)?.then(far);
        (is_willing && trip.beats(direct)).then_some((trip.smooth, port, by))
    }

    /// The peer told whom it reaches: the member that promises most is asked for a leg.
    pub(super) fn ask_nearest(&mut self, peer: &mut Peer, list: &[Neighbour]) {
        let is_answer = std::mem::take(&mut peer.carriers.nearer.is_asked);
        let Some((_, direct)) = peer.paths.known_direct().filter(|_| is_answer && peer.may_choose()) else { return };
        let promise =
            |one: &Neighbour| self.nearer_by(peer, one.node, direct, Duration::from_micros(u64::from(one.rtt_us)));
        let rests = |member: &PortId| {
            peer.carriers.by_member.get(member).is_some_and(|known| matches!(known.standing, Standing::Rests(_)))
        };
        let best = list.iter().filter_map(promise).filter(|(_, member, _)| !rests(member)).min();
        if let Some((_, member, by)) = best {
            peer.carriers.nearer.tried_until = self.fx.now + TRY;
            peer.ask_carrier(&mut self.fx, (member, by));
        }
    }
}

impl Peer {
    /// Nobody has ordered a way to it.
    fn may_choose(&self) -> bool {
        self.carriers.via == Via::Auto && !self.carriers.is_pinned
    }

    /// Whether a relay carries to it because that is nearer, though the pair sends much by now.
    pub(in crate::control) fn has_outgrown(&self, rate: f64) -> bool {
        rate >= BULK && self.carriers.nearer.leg.is_some()
    }
}
