//! Comparing neighbours, asking members for legs, and taking or giving up what they grant.
//!
//! It looks at many peers at once, so that the one in question is taken out of the table meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Carrier, Carriers, SILENT_REST, Standing, Via};
use crate::control::carrying::LEASE;
use crate::control::timers::Timer;
use crate::control::{Control, Peer};
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::PortId;
use crate::datapath::stats::DropReason;
use crate::datapath::{LegId, Path};
use crate::keys::NodeId;
use crate::time::Time;
use crate::wire::carry::{Carry, Grant, Leg, NEIGHBOURS_MAX, Neighbour, Neighbours, RelayFor};
use crate::wire::session::Message;

/// Members asked for one peer: one carries, one stands by, one may be better.
const CARRIERS_MAX: usize = 3;
/// Members that have told us of a leg towards one peer: those that we asked and those that it asked. Of more, the one
/// that told longest ago and is not in use is forgotten: plans may send the peer another way every other second.
const LEGS_MAX: usize = 2 * CARRIERS_MAX;
/// Members remembered for one peer, with those that refused.
const KNOWN_MAX: usize = 64;
/// Then neighbours are compared this often.
const COMPARE_EVERY: Duration = Duration::from_secs(60);
/// A leg that is used is asked for again this often.
const RENEW_EVERY: Duration = Duration::from_secs(25);
/// An asking without a leg that carries is repeated after this time...
const ASK_GAP: Duration = Duration::from_secs(1);
/// ...for so long.
const ASKED_FOR: Duration = Duration::from_secs(3);
/// A member that was just ordered is asked faster: the way there may lose every other packet, which may be why we are to
/// take it...
const ORDERED_GAP: Duration = Duration::from_millis(250);
/// ...for so long: then a plan takes its order back.
const HASTE: Duration = Duration::from_secs(5);
/// A leg that does not answer is asked for again after so many gaps.
const UNHEARD: u32 = 3;
/// A member that refused is not asked again before this.
const REFUSED_REST: Duration = Duration::from_secs(600);
/// Unless it was just ordered: the way to the far end may be there in a moment.
const HASTY_REST: Duration = Duration::from_secs(1);
/// Between two looks, while nothing is awaited.
const LOOK_EVERY: Duration = Duration::from_secs(10);

impl Carriers {
    /// Whether a member was just ordered.
    fn hastens(&self, now: Time, member: PortId) -> bool {
        self.via == Via::Member(member) && now.since(self.ordered) < HASTE
    }

    /// Between two askings of a member.
    fn gap(&self, now: Time, member: PortId) -> Duration {
        if self.hastens(now, member) { ORDERED_GAP } else { ASK_GAP }
    }
}

impl Peer {
    /// Whether the way by this leg is in use and there is no other.
    fn goes_only_by(&self, leg: LegId) -> bool {
        self.session.is_some() && !self.is_asleep() && self.paths.goes_by(leg) && self.paths.relays().nth(1).is_none()
    }

    /// The member that was ordered and does not carry yet, or no more.
    fn awaited(&self, now: Time) -> Option<PortId> {
        let Via::Member(member) = self.carriers.via else { return None };
        let is_awaited = match self.carriers.leg(member) {
            Some(leg) => !self.paths.goes_by(leg),
            None => self.carriers.hastens(now, member),
        };
        is_awaited.then_some(member)
    }
}

impl Control {
    /// [`Timer::Carry`] of the peer at `port`.
    pub(in crate::control) fn on_carry_timer(&mut self, port: PortId) {
        let Some(mut peer) = self.peers.remove(&port) else { return };
        self.review_carriers(&mut peer);
        self.review_nearer(&mut peer);
        if peer.wants_carriers(self.fx.now) {
            self.compare(&mut peer);
            self.renew(&mut peer);
        } else {
            self.release_carriers(&mut peer);
        }
        let is_awaited = |carrier: &Carrier| match carrier.standing {
            Standing::Asked(..) => true,
            Standing::Granted(leg, _) => carrier.asked.is_some() && !peer.paths.has_answered(leg),
            Standing::Rests(_) => false,
        };
        let carriers = peer.carriers.by_member.iter();
        let awaited = carriers.clone().filter(|(_, carrier)| is_awaited(carrier)).map(|(member, _)| *member);
        let gaps = awaited.chain(peer.awaited(self.fx.now)).map(|member| peer.carriers.gap(self.fx.now, member));
        let wait = gaps.min().unwrap_or(LOOK_EVERY);
        if peer.wants_carriers(self.fx.now) || carriers.len() > 0 || peer.carriers.is_active(self.fx.now) {
            self.fx.timers.set(Timer::Carry(port), self.fx.now + wait);
        }
        self.peers.insert(port, peer);
    }

    /// How a member is reached directly, if it can be, whichever way our own frames go.
    pub(in crate::control) fn directly(&self, member: PortId) -> Option<Path> {
        let peer = self.peers.get(&member).filter(|peer| peer.session.is_some())?;
        peer.straight(self.fx.now)
    }

    /// How a member is reached that carries to a peer, or may: directly. A way in use is watched from end to end, though
    /// probes of its first hop be lost in a full queue.
    fn reach(&self, peer: &Peer, member: PortId, carrier: Carrier) -> Option<Path> {
        let Standing::Granted(leg, _) = carrier.standing else { return self.directly(member) };
        let at = || {
            let member =
                self.peers.get(&member).filter(|member| peer.paths.goes_by(leg) && member.session.is_some())?;
            member.own_leg.map(|own| Path::Direct(own.at))
        };
        self.directly(member).or_else(at)
    }

    /// Who does not answer, or is not reached directly any more, carries no more.
    fn review_carriers(&mut self, peer: &mut Peer) {
        let now = self.fx.now;
        for (member, carrier) in peer.carriers.by_member.clone() {
            let is_over = match carrier.standing {
                Standing::Asked(times, at) => {
                    let is_enough = ASK_GAP * times >= ASKED_FOR && now.since(at) >= ASK_GAP;
                    is_enough && !peer.carriers.hastens(now, member)
                }
                Standing::Granted(_, told) => now.since(told) >= LEASE,
                Standing::Rests(until) => until <= now,
            };
            if !is_over && self.reach(peer, member, carrier).is_some() {
                continue;
            }
            peer.carriers.by_member.remove(&member);
            let was_planned = peer.carriers.via == Via::Member(member) && !peer.carriers.is_pinned;
            if was_planned && !matches!(carrier.standing, Standing::Rests(_)) {
                peer.carriers.via = Via::Auto;
                peer.paths.prefer(None);
            }
            match carrier.standing {
                Standing::Granted(leg, _) => peer.drop_carrier(&mut self.fx, leg),
                Standing::Asked(..) => {
                    let standing = Standing::Rests(now + SILENT_REST);
                    peer.carriers.by_member.insert(member, Carrier { standing, asked: None });
                }
                Standing::Rests(_) => {}
            }
        }
    }

    /// Looks for members that may carry, now and then; by order, for the one that was named.
    fn compare(&mut self, peer: &mut Peer) {
        let now = self.fx.now;
        let ordered = if let Via::Member(member) = peer.carriers.via { Some(member) } else { None };
        for member in peer.carriers.ruled.clone().into_iter().chain(ordered) {
            let is_new = !peer.carriers.by_member.contains_key(&member);
            if let Some(by) = self.directly(member).filter(|_| is_new) {
                peer.ask_carrier(&mut self.fx, (member, by));
            }
        }
        if !peer.carriers.via.leaves_members_to_us() || peer.is_direct() {
            return;
        }
        if peer.carriers.compared.is_some_and(|at| now.since(at) < COMPARE_EVERY) && peer.paths.current().is_some() {
            return;
        }
        let list = self.neighbours(peer.overlay, &[], peer.id);
        peer.carriers.compared = Some(now);
        match peer.paths.current() {
            Some(path) => {
                let message = Message::Neighbours(Neighbours { wants_answer: true, list });
                self.fx.send(peer.port, path, &message);
            }
            None => self.ask_best(peer, &list),
        }
    }

    /// Members that we reach directly and that may relay, `first` those that are asked about, then the nearest.
    pub(super) fn neighbours(&self, overlay: OverlayIndex, first: &[NodeId], except: NodeId) -> Vec<Neighbour> {
        let mut list = Vec::new();
        for peer in self.peers.values().filter(|peer| peer.overlay == overlay && peer.relays != RelayFor::Nobody) {
            let rtt = peer.paths.current_rtt().filter(|_| peer.session.is_some() && peer.is_direct());
            let Some(rtt) = rtt.filter(|_| peer.id != except) else { continue };
            let rtt_us = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
            list.push((!first.contains(&peer.id), rtt_us, peer.id));
        }
        list.sort_unstable();
        list.into_iter().take(NEIGHBOURS_MAX).map(|(_, rtt_us, node)| Neighbour { node, rtt_us }).collect()
    }

    /// NEIGHBOURS: the peer tells whom it reaches, to be told the same, or because we asked.
    pub(in crate::control) fn on_neighbours(&mut self, port: PortId, path: Path, told: &Neighbours) {
        let Some(mut peer) = self.peers.remove(&port) else { return };
        if !peer.asks.take(self.fx.now) {
            self.fx.dropped(DropReason::RelayRefused);
        } else if told.wants_answer {
            let asked = told.list.iter().map(|one| one.node).collect::<Vec<_>>();
            let list = self.neighbours(peer.overlay, &asked, peer.id);
            self.fx.send(port, path, &Message::Neighbours(Neighbours { wants_answer: false, list }));
        } else if peer.is_direct() {
            self.ask_nearest(&mut peer, &told.list);
            self.fx.timers.set_earlier(Timer::Carry(port), self.fx.now + ASK_GAP);
        } else if peer.carriers.via.leaves_members_to_us() && peer.wants_carriers(self.fx.now) {
            self.ask_best(&mut peer, &told.list);
            self.fx.timers.set_earlier(Timer::Carry(port), self.fx.now + ASK_GAP);
        }
        self.peers.insert(port, peer);
    }

    /// Asks the best of `list`: those that promise more than the path in use, and one for the day that it fails.
    fn ask_best(&mut self, peer: &mut Peer, list: &[Neighbour]) {
        let mut found = Vec::new();
        for Neighbour { node, rtt_us } in list {
            let Some(member) = self.by_id.get(&(peer.overlay, *node)).copied() else { continue };
            let Some(by) = self.directly(member).filter(|_| !peer.carriers.by_member.contains_key(&member)) else {
                continue;
            };
            let own = self.peers.get(&member).filter(|member| member.relays != RelayFor::Nobody);
            let Some(rtt) = own.and_then(|member| member.paths.current_rtt()) else { continue };
            found.push((rtt + Duration::from_micros(u64::from(*rtt_us)), member, by));
        }
        found.sort_unstable();
        let known = peer.carriers.by_member.len();
        let room = CARRIERS_MAX.saturating_sub(peer.carriers.busy()).min(KNOWN_MAX.saturating_sub(known));
        for (place, (rtt, member, by)) in found.into_iter().take(room).enumerate() {
            let is_standby = place == 0 && peer.carriers.busy() == 0;
            if is_standby || peer.paths.would_be_better(rtt) {
                peer.ask_carrier(&mut self.fx, (member, by));
            }
        }
    }

    /// Asks again: for an answer, or so that a leg lives on.
    fn renew(&mut self, peer: &mut Peer) {
        for (member, carrier) in peer.carriers.by_member.clone() {
            let Some(by) = self.reach(peer, member, carrier) else { continue };
            let since = carrier.asked.map(|asked| self.fx.now.since(asked));
            let gap = peer.carriers.gap(self.fx.now, member);
            let is_due = match carrier.standing {
                Standing::Asked(..) => since.is_some_and(|since| since >= gap),
                // The peer may not have heard of its leg.
                Standing::Granted(leg, _) if !peer.paths.has_answered(leg) => {
                    if let Some(path) = peer.paths.relay_by(leg) {
                        peer.probe(&mut self.fx, path);
                    }
                    since.is_some_and(|since| since >= gap * UNHEARD)
                }
                // What the peer asked for and we use, we ask for too.
                Standing::Granted(leg, _) => {
                    let is_used = peer.paths.goes_by(leg);
                    if let Some(path) =
                        peer.paths.relay_by(leg).filter(|_| !is_used && peer.paths.preferred() == Some(leg))
                    {
                        peer.probe(&mut self.fx, path);
                    }
                    since.map_or(is_used, |since| since >= RENEW_EVERY)
                }
                Standing::Rests(_) => false,
            };
            if is_due {
                peer.ask_carrier(&mut self.fx, (member, by));
            }
        }
    }

    /// Nobody is needed to carry: who was asked hears of it and ends the leg, so that frames must not go there any more.
    /// Where it is the only way, it stays. What the peer asked for ends by itself.
    fn release_carriers(&mut self, peer: &mut Peer) {
        peer.carriers.compared = None;
        for (member, carrier) in peer.carriers.by_member.clone() {
            let (Some(asked), Some(by)) = (carrier.asked, self.reach(peer, member, carrier)) else { continue };
            match carrier.standing {
                Standing::Granted(leg, _) if peer.goes_only_by(leg) => {
                    if self.fx.now.since(asked) >= RENEW_EVERY {
                        peer.ask_carrier(&mut self.fx, (member, by));
                    }
                    continue;
                }
                Standing::Granted(leg, _) => {
                    peer.carriers.by_member.remove(&member);
                    peer.drop_carrier(&mut self.fx, leg);
                }
                standing @ (Standing::Asked(..) | Standing::Rests(_)) => {
                    peer.carriers.by_member.insert(member, Carrier { standing, asked: None });
                }
            }
            self.fx.send(member, by, &Message::Carry(Carry { node: peer.id, wanted: false }));
        }
        peer.carriers.by_member.retain(|_, carrier| !matches!(carrier.standing, Standing::Asked(..)));
    }

    /// LEG: the member at `from` carries between us and another one, or does not.
    pub(in crate::control) fn on_leg(&mut self, from: PortId, path: Path, told: Leg) {
        let Some(overlay) = self.peers.get(&from).map(|member| member.overlay) else { return };
        let Some(port) = self.by_id.get(&(overlay, told.node)).copied().filter(|port| *port != from) else { return };
        let Some(mut peer) = self.peers.remove(&port) else { return };
        let is_known = peer.carriers.by_member.contains_key(&from);
        if !is_known && !self.peers.get_mut(&from).is_some_and(|member| member.asks.take(self.fx.now)) {
            self.peers.insert(port, peer);
            return self.fx.dropped(DropReason::RelayRefused);
        }
        match (told.grant, path) {
            (Some(grant), Path::Direct(at)) => self.on_granted((from, at), &mut peer, grant),
            (Some(_), Path::Relayed(..)) => self.fx.dropped(DropReason::RelayRefused),
            (None, _) => {
                let rest = if peer.carriers.hastens(self.fx.now, from) { HASTY_REST } else { REFUSED_REST };
                let standing = Standing::Rests(self.fx.now + rest);
                let before = peer.carriers.by_member.get_mut(&from).map(|carrier| {
                    carrier.asked = None;
                    std::mem::replace(&mut carrier.standing, standing)
                });
                if let Some(Standing::Granted(leg, _)) = before {
                    peer.drop_carrier(&mut self.fx, leg);
                }
            }
        }
        self.peers.insert(port, peer);
    }

    fn on_granted(&mut self, (from, at): (PortId, SocketAddr), peer: &mut Peer, grant: Grant) {
        let is_known = peer.carriers.by_member.contains_key(&from);
        let is_unwanted = peer.carriers.via == Via::Direct && !peer.carriers.ruled.contains(&from);
        if !is_known && !is_unwanted && peer.carriers.busy() >= LEGS_MAX {
            peer.drop_idle_carrier(&mut self.fx);
        }
        if !is_known && (peer.carriers.busy() >= LEGS_MAX || peer.carriers.by_member.len() >= KNOWN_MAX) {
            return self.fx.dropped(DropReason::RelayRefused);
        }
        let Some(member) = self.peers.get_mut(&from) else { return };
        let leg = member.take_leg(&mut self.fx, at, grant);
        if is_unwanted {
            return;
        }
        let told = Standing::Granted(leg, self.fx.now);
        peer.carriers.by_member.entry(from).or_insert(Carrier { standing: told, asked: None }).standing = told;
        peer.paths.add_relay(leg, grant.peer);
        if peer.carriers.via == Via::Member(from) {
            peer.paths.prefer(Some(leg));
        }
        if !peer.paths.has_answered(leg) && peer.session.is_some() {
            peer.probe(&mut self.fx, Path::Relayed(leg, grant.peer));
        }
        peer.choose(&mut self.fx, "a member can carry it");
        if peer.session.is_none() {
            peer.want_session(&mut self.fx, &self.me);
        }
        self.fx.timers.set_earlier(Timer::Carry(peer.port), self.fx.now + peer.carriers.gap(self.fx.now, from));
    }

    /// Orders how frames travel to the peer at `port`.
    pub(in crate::control) fn order(&mut self, port: PortId, via: Via) {
        let Some(peer) = self.peers.get_mut(&port).filter(|peer| peer.carriers.via != via) else { return };
        (peer.carriers.via, peer.carriers.ordered) = (via, self.fx.now);
        if let Via::Member(member) = via {
            // Why it did not carry before may be over.
            peer.carriers
                .by_member
                .retain(|known, carrier| *known != member || !matches!(carrier.standing, Standing::Rests(_)));
        }
        self.fx.timers.set_earlier(Timer::Links(peer.overlay), self.fx.now);
        let leg = match via {
            Via::Member(member) => peer.carriers.leg(member),
            Via::Home(place) => self.homes.get(place).and_then(|home| home.leg(peer.overlay)),
            Via::Auto | Via::Direct => None,
        };
        peer.paths.prefer(leg);
        if via == Via::Direct {
            for (_, carrier) in std::mem::take(&mut peer.carriers.by_member) {
                if let Standing::Granted(leg, _) = carrier.standing {
                    peer.drop_carrier(&mut self.fx, leg);
                }
            }
        }
        peer.choose(&mut self.fx, "it was ordered");
        peer.punch_anew(&mut self.fx);
        self.fx.timers.set(Timer::Carry(port), self.fx.now);
    }
}
