//! Who has an address: claims with rising sequences, and what becomes of frames for a machine that has left.
//!
//! A machine that announces itself at our TAP is claimed, which every member hears before the frame that made us
//! do it. Whoever had it before sends frames on, tells their senders, and asks its own segment at once: if the machine
//! answers there, the claim was false, or there are two, and it is claimed back. What moves too often is frozen.
//! The rules for ordinary frames are in `fdb`, the counts and times in `moves`, the words in protocol.md section 5;
//! the control room repeats and reports, and decides nothing here.

use super::buf::OverlayIndex;
use super::fdb::{Address, Learned, Owner, PortId, QUIET, TAP};
use super::moves::FREEZE;
use super::stats::DropReason;
use super::switch::Switch;
use super::{Datapath, Notice, ask};
use crate::time::Time;
use crate::wire::session::{ClaimReason, Message, Moved};

/// A sequence further above what is known is no honest claim: nobody shall use them up.
const LEAP: u32 = 1 << 16;

/// What is to be told of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It is behind our TAP: the members are told.
    Claimed {
        /// With this sequence.
        sequence: u32,
        /// Why.
        reason: ClaimReason,
        /// Whether it was known elsewhere.
        is_move: bool,
    },
    /// It left our TAP: its machine is asked whether that is so.
    Left,
    /// The peer at `to` errs; it is told where the address is.
    Misplaced {
        /// Who is told.
        to: PortId,
        /// Who has it.
        owner: PortId,
        /// Of the last claim.
        sequence: u32,
    },
    /// The machine answers behind our TAP, though this peer has claimed it.
    Contested {
        /// Who.
        by: PortId,
    },
    /// It moved too often, and stays here for a while.
    Frozen {
        /// Where.
        at: PortId,
    },
}

impl Switch {
    /// A machine was heard at our TAP that was not known there.
    pub(super) fn on_arrival(&mut self, now: Time, address: Address, learned: Learned, announced: bool) {
        match learned {
            Learned::Moved(from) => {
                let reason = if announced { ClaimReason::Announced } else { ClaimReason::Heard };
                self.claim(now, address, from, reason);
            }
            Learned::New if announced => {
                self.moves.meet(now, address, TAP);
                self.claim(now, address, TAP, ClaimReason::Announced);
            }
            Learned::New | Learned::Refreshed | Learned::Held | Learned::Full | Learned::Group => {}
        }
    }

    /// Somebody at this host says that the machine is here. Whether it is now: it may be frozen, or there is no room.
    pub(super) fn claim_for_user(&mut self, now: Time, address: Address) -> bool {
        let learned = self.fdb.learn(now, address.vlan, address.mac, TAP, true);
        if learned == Learned::Refreshed {
            self.claim(now, address, TAP, ClaimReason::Announced);
        }
        self.on_arrival(now, address, learned, true);
        matches!(learned, Learned::New | Learned::Refreshed | Learned::Moved(_))
    }

    /// What the table has put at our TAP is claimed with the next sequence.
    fn claim(&mut self, now: Time, address: Address, from: PortId, reason: ClaimReason) {
        let known = self.fdb.owner(now, address).map_or(0, |owner| owner.sequence);
        let sequence = known.saturating_add(1);
        self.fdb.assign(now, address, TAP, sequence);
        self.moves.claim(now, address, from);
        let is_move = from != TAP || reason == ClaimReason::Answered;
        if self.claim_limit.take(now) {
            self.tell(address, News::Claimed { sequence, reason, is_move });
        }
        if from != TAP {
            self.count(now, address, (from, TAP, sequence), reason);
        }
    }

    /// A frame by itself has moved an address from one port to another.
    pub(super) fn on_departure(&mut self, now: Time, address: Address, from: PortId) {
        let (to, sequence) = self.fdb.owner(now, address).map_or((from, 0), |owner| (owner.port, owner.sequence));
        self.after_move(now, address, (from, to, sequence), ClaimReason::Heard);
    }

    /// Whether anybody ever claimed it: then frames that announce do not move it, only claims do.
    pub(super) fn is_claimed(&self, now: Time, address: Address) -> bool {
        self.fdb.owner(now, address).is_some_and(|owner| owner.sequence > 0)
    }

    /// The peer at `port` claims `address`.
    pub(super) fn on_claim(
        &mut self,
        now: Time,
        port: PortId,
        (address, sequence): (Address, u32),
        reason: ClaimReason,
    ) {
        let known = self.fdb.owner(now, address);
        if sequence > known.map_or(0, |owner| owner.sequence).saturating_add(LEAP) {
            return;
        }
        let Some(owner) = known else {
            self.fdb.assign(now, address, port, sequence);
            return self.moves.meet(now, address, port);
        };
        let is_busy = now.since(owner.heard) < QUIET;
        match owner {
            Owner { port: known, .. } if known == port => {
                self.fdb.assign(now, address, port, sequence.max(owner.sequence));
            }
            Owner { sequence: known, frozen, .. } if frozen || sequence <= known => {
                self.misplaced(address, port, owner)
            }
            Owner { port: TAP, .. } if is_busy && reason == ClaimReason::Heard => {
                // Somebody uses the address of a machine that we have just heard.
                self.tell(address, News::Contested { by: port });
                self.fdb.assign(now, address, TAP, sequence);
                self.claim(now, address, TAP, ClaimReason::Answered);
                self.count(now, address, (TAP, TAP, sequence), ClaimReason::Answered);
            }
            _ if is_busy && reason == ClaimReason::Heard => {}
            _ => self.follow(now, address, (owner.port, port, sequence), reason),
        }
    }

    /// The peer at `from` says that the one at `owner` has `address`; `None` is ourselves.
    pub(super) fn on_location(
        &mut self,
        now: Time,
        from: PortId,
        owner: Option<PortId>,
        address: Address,
        sequence: u32,
    ) {
        let Some(known) = self.fdb.owner(now, address).filter(|known| !known.frozen) else { return };
        let Some(owner) = owner.filter(|_| sequence >= known.sequence) else { return };
        if known.port == TAP {
            if self.moves.may_raise(now, address) {
                self.fdb.assign(now, address, TAP, sequence.saturating_add(1));
                let sequence = sequence.saturating_add(1);
                self.tell(address, News::Claimed { sequence, reason: ClaimReason::Announced, is_move: true });
            }
        } else if known.port == from && owner != from {
            self.follow(now, address, (from, owner, sequence), ClaimReason::Announced);
        }
    }

    /// The machine has answered a question of ours: if it was said to have left, it has not.
    pub(super) fn on_answer(&mut self, now: Time, address: Address) {
        let Some(owner) = self.fdb.owner(now, address) else { return };
        if owner.port == TAP || owner.frozen || !self.moves.is_asked(now, address) {
            return;
        }
        self.tell(address, News::Contested { by: owner.port });
        self.fdb.assign(now, address, TAP, owner.sequence);
        self.claim(now, address, owner.port, ClaimReason::Answered);
    }

    fn follow(&mut self, now: Time, address: Address, way: (PortId, PortId, u32), reason: ClaimReason) {
        let (_, to, sequence) = way;
        self.fdb.assign(now, address, to, sequence);
        self.after_move(now, address, way, reason);
    }

    fn after_move(&mut self, now: Time, address: Address, way: (PortId, PortId, u32), reason: ClaimReason) {
        let (from, ..) = way;
        if from == TAP {
            self.moves.leave(now, address, from);
            self.suppression.holdings.release_machine(address);
            self.tell(address, News::Left);
        }
        self.count(now, address, way, reason);
    }

    /// Counts a move away from `from`; too many, and the address is back where it was before them. Claims of two members
    /// come in any order, so that not all count the same: the one that keeps it says so to those who believe another.
    fn count(&mut self, now: Time, address: Address, way: (PortId, PortId, u32), reason: ClaimReason) {
        let (from, to, sequence) = way;
        let stable = self.moves.note(now, address, (from, to), reason == ClaimReason::Answered);
        let Some(stable) = stable.filter(|port| *port == TAP || self.ports.contains(port)) else { return };
        let was_here = self.fdb.owner(now, address).is_some_and(|owner| owner.port == TAP);
        let is_kept = stable == TAP && self.claim_limit.take(now);
        let sequence = sequence.saturating_add(u32::from(is_kept));
        self.fdb.assign(now, address, stable, sequence);
        self.fdb.freeze(now, address, now + FREEZE);
        self.tell(address, News::Frozen { at: stable });
        if is_kept {
            self.tell(address, News::Claimed { sequence, reason: ClaimReason::Answered, is_move: true });
        } else if was_here && stable != TAP {
            // Frames that still come for it are sent on.
            self.moves.leave(now, address, stable);
        }
    }

    /// Tells the peer at `to` where an address went that left us, unless it was told a moment ago.
    pub(super) fn hint(&mut self, now: Time, address: Address, to: PortId) {
        if let Some(owner) = self.fdb.owner(now, address).filter(|_| self.moves.may_hint(now, address, to)) {
            self.misplaced(address, to, owner);
        }
    }

    fn misplaced(&mut self, address: Address, to: PortId, Owner { port: owner, sequence, .. }: Owner) {
        self.tell(address, News::Misplaced { to, owner, sequence });
    }

    fn tell(&mut self, address: Address, news: News) {
        self.news.push((address, news));
    }
}

impl Datapath {
    /// A CLAIM from the peer at `port`.
    pub(super) fn claimed(&mut self, now: Time, id: PortId, plain: &[u8]) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        let stats = &mut self.stats[port.overlay.0];
        let Ok(Message::Claim { moved, reason }) = Message::parse(plain) else {
            return stats.dropped(DropReason::Malformed);
        };
        if !port.claims.take(now) {
            return stats.dropped(DropReason::ClaimLimit);
        }
        let overlay = port.overlay;
        let claim = (Address::from((moved.vlan, moved.mac)), moved.sequence);
        self.switches[overlay.0].on_claim(now, id, claim, reason);
        self.publish(now, overlay);
    }

    /// Tells what has become of addresses: claims at once, so that they travel ahead of the frames that caused them.
    pub(super) fn publish(&mut self, now: Time, overlay: OverlayIndex) {
        self.follow_up(now, overlay);
        let switch = &mut self.switches[overlay.0];
        if switch.news.is_empty() {
            return;
        }
        self.stats[overlay.0].dropped_many(DropReason::MovesFull, switch.moves.take_refused());
        for (address, news) in std::mem::take(&mut switch.news) {
            match news {
                News::Claimed { .. } => self.tell_claim(now, overlay, address, news),
                News::Left => self.ask(now, overlay, address),
                // It speaks once more: the announcement may have come to the segment's bridge behind its answer.
                News::Contested { .. } => self.question(overlay, address),
                News::Misplaced { .. } | News::Frozen { .. } => {}
            }
            self.notices.push_back(Notice::Address { overlay, address, news });
        }
    }

    /// Tells the members what is claimed, if it is still so.
    pub(super) fn tell_claim(&mut self, now: Time, overlay: OverlayIndex, address: Address, news: News) {
        let News::Claimed { sequence, reason, is_move } = news else { return };
        let switch = &self.switches[overlay.0];
        let is_ours = |owner: &Owner| owner.sequence == sequence && (owner.port == TAP || owner.frozen);
        if self.switches[overlay.0].fdb.owner(now, address).filter(is_ours).is_none() {
            return;
        }
        let moved = Moved { vlan: address.vlan, mac: address.mac.0, sequence };
        let message = Message::Claim { moved, reason }.bytes();
        for id in switch.ports.clone() {
            // A claim that matters is told again when there are keys.
            if is_move && self.ports.get(&id).is_some_and(|port| !port.can_send(now)) {
                self.notices.push_back(Notice::NeedKeys { port: id });
            }
            let follows = self.ports.get(&id).filter(|port| port.follows);
            if let Some(mut way) = follows.and_then(|port| port.path).and_then(|path| self.way(now, id, path, None)) {
                way.seal_parts(false, &[&message]);
            }
        }
    }

    /// Asks our segment for a machine that is said to have left it.
    pub(super) fn ask(&mut self, now: Time, overlay: OverlayIndex, address: Address) {
        if self.switches[overlay.0].moves.is_asked(now, address) {
            self.question(overlay, address);
        }
    }

    pub(super) fn question(&mut self, overlay: OverlayIndex, address: Address) {
        let switch = &self.switches[overlay.0];
        let station = switch.station();
        for ip in switch.stations.addresses(address) {
            self.deliver_own(overlay, &ask::question(station, address, ip));
        }
    }
}

#[cfg(test)]
mod tests;
