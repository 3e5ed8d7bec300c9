//! Questions for addresses, answered at home: a member tells the others which IP addresses the machines behind its TAP
//! have, and ARP requests and neighbour solicitations for these are answered where they are asked, in the
//! machine's name.
//!
//! Answered is only what is beyond doubt: one member tells the address, its MAC is not known anywhere else, and the
//! asker did not ask the same a moment ago. Whoever asks whether an address is free, announces one, or asks one machine
//! alone, is heard by the machines themselves, as on any wire; so is a question that nobody can answer. The tables
//! are `holdings` and `told`, the words `neighbour`, the message INVENTORY in protocol.md section 5.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

use super::buf::OverlayIndex;
use super::fdb::{Address, PortId, TAP};
use super::frame::{self, Header, Mac};
use super::holdings::{Holdings, Place};
use super::limit::Bucket;
use super::neighbour::{self, Question, Speaker};
use super::stats::DropReason;
use super::switch::{Switch, Verdict};
use super::told::{Teller, Told};
use super::{Datapath, Notice, ask, listener};
use crate::time::Time;
use crate::wire::inventory::{Excerpt, ITEMS_MAX, Inventory, Item};
use crate::wire::session::Message;

/// From a change to its being told: machines that start together are told of together.
const TELL_AFTER: Duration = Duration::from_millis(100);
/// Between two tellings of the same: longer than a burst of losses.
const TELL_AGAIN: Duration = Duration::from_millis(500);
/// Between two tellings of changes, at least.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How often our machines are looked after, and after a change the next peer is shown what it should know.
const TEND_EVERY: Duration = Duration::from_secs(2);
/// How often one peer is shown that without a change: a quiet overlay stays quiet.
const SHOW_EVERY: Duration = Duration::from_secs(30);
/// A peer that asks for all that we have is told once in this time.
const WHOLE_EVERY: Duration = Duration::from_secs(4);
/// Who asks again so soon was not helped by the answer: next the one that has the address is asked, then everybody.
const AGAIN: Duration = Duration::from_secs(5);
/// Askers remembered: more than ask within that time on any honest segment.
const ASKERS: usize = 4_096;
/// If there are more, those who asked long ago are looked for so often.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Messages with inventories that are read per second from one peer, and at once: a full one, and changes.
pub(super) const INVENTORY_RATE: u32 = 20;
pub(super) const INVENTORY_BURST: u32 = 2 * (super::holdings::HOLDINGS / ITEMS_MAX) as u32;

/// What is known of who has which IP address.
#[derive(Debug)]
pub(super) struct Suppression {
    pub(super) holdings: Holdings,
    pub(super) told: Told,
    /// Machines that use an address and have to be asked more of it.
    curious: Vec<(Address, IpAddr)>,
    askers: BTreeMap<(Place, Mac), (Time, u8)>,
    /// When those who asked long ago were forgotten.
    swept: Time,
    /// The answer that goes back to the TAP.
    answer: Vec<u8>,
    /// Who was shown last what it should know, and when.
    shown: (PortId, Time),
    /// How many are to be shown it since the last change.
    unshown: usize,
    wholes: BTreeMap<PortId, Time>,
    changed: Time,
    /// When the control room shall call, as it knows.
    called: Time,
}

impl Default for Suppression {
    fn default() -> Self {
        Self {
            holdings: Holdings::default(),
            told: Told::default(),
            curious: Vec::new(),
            askers: BTreeMap::new(),
            swept: Time::START,
            answer: Vec::new(),
            shown: (TAP, Time::START),
            unshown: 0,
            wholes: BTreeMap::new(),
            changed: Time::START,
            called: Time::NEVER,
        }
    }
}

impl Suppression {
    /// The peer at `port` is gone.
    pub(super) fn forget_port(&mut self, port: PortId) {
        self.told.forget(port);
        self.wholes.remove(&port);
    }

    /// How often `mac` has asked for `place` of late, this time not counted.
    fn asked(&mut self, now: Time, place: Place, mac: Mac) -> u8 {
        let is_recent = |at: Time| now.since(at) < AGAIN;
        if self.askers.len() >= ASKERS && now.since(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            self.askers.retain(|_, (at, _)| is_recent(*at));
        }
        if self.askers.len() >= ASKERS && !self.askers.contains_key(&(place, mac)) {
            // It may have asked before: everybody hears it.
            return u8::MAX;
        }
        let (at, count) = self.askers.entry((place, mac)).or_insert((now, 0));
        let before = if is_recent(*at) { *count } else { 0 };
        (*at, *count) = (now, before.saturating_add(1));
        before
    }
}

impl Switch {
    /// What a machine behind our TAP says of itself, if it is learned there.
    pub(super) fn snoop(&mut self, now: Time, address: Address, speaker: Speaker, announced: bool) {
        if !self.settings().answers || self.fdb.lookup(now, address.vlan, address.mac) != Some(TAP) {
            return;
        }
        match speaker {
            Speaker::Holds(ip, is_router) => {
                let place = Place { vlan: address.vlan, ip };
                if announced {
                    self.suppression.told.doubt_all_but(place, address.mac);
                }
                self.suppression.holdings.hold(now, place, (address.mac, is_router), announced);
            }
            Speaker::Uses(ip) => {
                let place = Place { vlan: address.vlan, ip };
                if self.suppression.holdings.holder(place) != Some(address.mac) {
                    self.suppression.curious.push((address, ip));
                }
            }
        }
    }

    /// The first frame of a machine behind our TAP. Another card that sends from an address somebody holds may have it
    /// now: a Linux bridge changes its MAC with its ports and announces nothing.
    pub(super) fn doubt_holder(&mut self, address: Address, bytes: &[u8], header: &Header) {
        let Some(ip) = frame::ip_source(bytes, header).filter(|_| self.settings().answers) else { return };
        let (place, suppression) = (Place { vlan: address.vlan, ip }, &mut self.suppression);
        if suppression.holdings.holder(place).is_some_and(|holder| holder != address.mac) {
            suppression.holdings.release(place);
            suppression.curious.push((address, ip));
        }
    }

    /// A frame of a peer's for everybody: if it announces an address, nobody else has it.
    pub(super) fn heed(&mut self, bytes: &[u8], header: &Header) {
        if !self.settings().answers || !header.dst.is_group() || !frame::announces(bytes, header) {
            return;
        }
        if let Some(Speaker::Holds(ip, _)) = neighbour::read(bytes, header).speaker {
            let place = Place { vlan: header.vlan, ip };
            self.suppression.told.doubt_all_but(place, header.src);
            if self.suppression.holdings.holder(place).is_some_and(|holder| holder != header.src) {
                self.suppression.holdings.release(place);
            }
        }
    }

    /// A frame out of our TAP for everybody: what becomes of it, if it asks for an address that is known.
    pub(super) fn answer(&mut self, now: Time, bytes: &[u8], header: &Header) -> Option<Verdict> {
        if !self.settings().answers || !header.dst.is_group() {
            return None;
        }
        let read = neighbour::read(bytes, header);
        let question = read.question?;
        if self.fdb.lookup(now, header.vlan, header.src) != Some(TAP) {
            return None;
        }
        if let Some(Speaker::Holds(ip, _) | Speaker::Uses(ip)) = read.speaker {
            let (own, holdings) = (Place { vlan: header.vlan, ip }, &self.suppression.holdings);
            if holdings.holder(own).is_some() && !holdings.is_settled(now, own, header.src) {
                return None;
            }
        }
        let place = Place { vlan: header.vlan, ip: question.target() };
        let teller = self.teller(now, place)?;
        match (teller, self.suppression.asked(now, place, header.src)) {
            // It has heard the question itself.
            (None, 0) => Some(Verdict::Drop(DropReason::Local)),
            (Some(teller), 0) => Some(self.answer_for(now, (bytes, header), question, teller)),
            (Some(teller), 1) => Some(Verdict::Ask(teller.port)),
            (None | Some(_), _) => None,
        }
    }

    fn answer_for(&mut self, now: Time, frame: (&[u8], &Header), question: Question, teller: Teller) -> Verdict {
        let Teller { port, mac, is_router } = teller;
        self.suppression.answer = neighbour::answer(frame.0, frame.1, question, (mac, is_router));
        // What the asker sends next is for this machine, which may not have been heard for long. Where it is known it
        // was not heard now: it may have moved.
        if self.fdb.lookup(now, frame.1.vlan, mac).is_none() {
            self.fdb.learn(now, frame.1.vlan, mac, port, false);
        }
        Verdict::Answered
    }

    /// Who has an address beyond doubt: `Some(None)` is a machine behind our own TAP.
    #[allow(clippy::option_option, reason = "nobody, ourselves, or a peer")]
    fn teller(&self, now: Time, place: Place) -> Option<Option<Teller>> {
        let at = |mac: Mac| self.fdb.lookup(now, place.vlan, mac);
        let own = self.suppression.holdings.holder(place).filter(|mac| at(*mac) == Some(TAP));
        let is_there = |teller: &Teller| at(teller.mac).is_none_or(|port| port == teller.port);
        let mut tellers = self.suppression.told.tellers(place).filter(is_there);
        match (own, tellers.next(), tellers.next()) {
            (Some(_), None, None) => Some(None),
            // One that is on this very segment is asked there.
            (None, Some(teller), None) if !self.gate.shares(teller.port) => Some(Some(teller)),
            _ => None,
        }
    }

    /// Whether others are told what is behind our TAP, and what they tell is heard.
    const fn tells(&self) -> bool {
        self.settings().answers || self.settings().snoops
    }

    /// When there is something to tell or to look after next, if the control room does not know it yet.
    fn next_call(&mut self, now: Time) -> Option<Time> {
        let Suppression { holdings, changed, called, .. } = &mut self.suppression;
        if !holdings.has_changes() {
            return None;
        }
        let at = (now + TELL_AFTER).max(*changed + TELL_EVERY);
        (at < *called).then(|| {
            *called = at;
            at
        })
    }
}

impl Datapath {
    /// The answer to a question, to the machine that asked.
    pub(super) fn deliver_answer(&mut self, overlay: OverlayIndex) {
        self.stats[overlay.0].answered += 1;
        let answer = std::mem::take(&mut self.switches[overlay.0].suppression.answer);
        self.deliver_own(overlay, &answer);
    }

    /// An INVENTORY of the peer at `id`.
    pub(super) fn told(&mut self, now: Time, id: PortId, plain: &[u8]) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        let overlay = port.overlay;
        let (switch, stats) = (&mut self.switches[overlay.0], &mut self.stats[overlay.0]);
        let Ok(Message::Inventory(inventory)) = Message::parse(plain) else {
            return stats.dropped(DropReason::Malformed);
        };
        if !switch.tells() {
            return;
        }
        let limit = port.inventories.get_or_insert_with(|| Bucket::new(INVENTORY_RATE, INVENTORY_BURST));
        if !limit.take(now) {
            return stats.dropped(DropReason::ClaimLimit);
        }
        let is_missing = switch.suppression.told.accept(now, id, &inventory);
        stats.dropped_many(DropReason::BindingsFull, switch.suppression.told.take_refused());
        let is_due = |at: &Time| now.since(*at) >= WHOLE_EVERY;
        if inventory.wants_answer && switch.suppression.wholes.get(&id).is_none_or(is_due) {
            self.tell_all(now, id, is_missing);
        } else if is_missing {
            let digest = switch.suppression.holdings.digest();
            self.tell(now, id, Inventory { wants_answer: true, digest, ..Inventory::default() });
        }
    }

    /// What the peer at `id` says by a supernode.
    pub(super) fn believe(&mut self, id: PortId, excerpt: &Excerpt) {
        let Some(overlay) = self.ports.get(&id).map(|port| port.overlay) else { return };
        let switch = &mut self.switches[overlay.0];
        if switch.tells() {
            switch.suppression.told.accept_excerpt(id, excerpt);
            let refused = switch.suppression.told.take_refused();
            self.stats[overlay.0].dropped_many(DropReason::BindingsFull, refused);
        }
    }

    /// Tells the peer at `id` all that is behind our TAP.
    pub(super) fn tell_all(&mut self, now: Time, id: PortId, wants_answer: bool) {
        let Some(overlay) = self.ports.get(&id).map(|port| port.overlay) else { return };
        let switch = &mut self.switches[overlay.0];
        if !switch.tells() {
            return;
        }
        switch.suppression.wholes.insert(id, now);
        switch.suppression.unshown = switch.ports.len();
        let (digest, items) = (switch.suppression.holdings.digest(), switch.suppression.holdings.all());
        let first = Inventory { is_anew: true, wants_answer, digest, ..Inventory::default() };
        for inventory in parts(first, &items) {
            self.tell(now, id, inventory);
        }
    }

    /// What has to be done now and then: changes are told, one peer is shown what it should know, machines are asked.
    pub(super) fn tend(&mut self, now: Time, overlay: OverlayIndex) {
        self.tend_groups(now, overlay);
        let switch = &mut self.switches[overlay.0];
        let snoops = switch.settings().snoops;
        let Suppression { holdings, changed, called, unshown, .. } = &mut switch.suppression;
        self.stats[overlay.0].dropped_many(DropReason::BindingsFull, holdings.take_refused());
        let items = holdings.take_changes();
        let first = Inventory { digest: holdings.digest(), ..Inventory::default() };
        if !items.is_empty() {
            (*changed, *unshown) = (now, switch.ports.len());
        }
        let ask = holdings.review(now);
        *called = match () {
            () if holdings.has_changes() => now + TELL_AGAIN,
            () if holdings.is_empty() && *unshown == 0 && !snoops => Time::NEVER,
            () => now + TEND_EVERY,
        };
        let (at, station) = (*called, switch.station());
        if at < Time::NEVER {
            self.notices.push_back(Notice::Inventory { overlay, at });
        }
        ask.into_iter().for_each(|(address, ip)| self.deliver_own(overlay, &ask::reminder(station, address, ip)));
        if items.is_empty() {
            return self.show(now, overlay, first);
        }
        for inventory in parts(first, &items) {
            for id in self.switches[overlay.0].ports.clone() {
                self.tell(now, id, inventory.clone());
            }
        }
    }

    /// What our segment wants to hear: it is asked, and others are told.
    fn tend_groups(&mut self, now: Time, overlay: OverlayIndex) {
        let switch = &mut self.switches[overlay.0];
        if !switch.settings().snoops {
            return;
        }
        let (answer, station) = (switch.groups.review(now), switch.station());
        switch.suppression.holdings.wish(switch.groups.wishes(now));
        self.stats[overlay.0].dropped_many(DropReason::BindingsFull, switch.groups.take_refused());
        let questions = answer.map(|seconds| listener::questions(station, seconds));
        questions.into_iter().flatten().for_each(|question| self.deliver_own(overlay, &question));
    }

    /// Shows the next peer in turn what it should know, if it is time.
    fn show(&mut self, now: Time, overlay: OverlayIndex, inventory: Inventory) {
        let Switch { suppression, ports, .. } = &mut self.switches[overlay.0];
        let (last, at) = suppression.shown;
        if suppression.unshown == 0 && now.since(at) < SHOW_EVERY {
            return;
        }
        let next = ports.range((Bound::Excluded(last), Bound::Unbounded)).next().or_else(|| ports.first()).copied();
        if let Some(next) = next {
            (suppression.shown, suppression.unshown) = ((next, now), suppression.unshown.saturating_sub(1));
            self.tell(now, next, inventory);
        }
    }

    fn tell(&mut self, now: Time, id: PortId, mut inventory: Inventory) {
        let Some((port, path)) = self.ports.get(&id).and_then(|port| Some((port, port.path?))) else { return };
        if !port.trees {
            // It is older than trees and groups, and would understand nothing.
            inventory.items.retain(|item| !item.binding.ip.is_multicast());
            inventory.digest ^= self.switches[port.overlay.0].suppression.holdings.wished_digest();
        }
        let message = Message::Inventory(inventory).bytes();
        if let Some(mut way) = self.way(now, id, path, None) {
            way.seal_parts(false, &[&message]);
        }
    }

    /// Asks machines that we want to know more of, and sees to it that changes are told.
    pub(super) fn follow_up(&mut self, now: Time, overlay: OverlayIndex) {
        let switch = &mut self.switches[overlay.0];
        if let Some(at) = switch.next_call(now) {
            self.notices.push_back(Notice::Inventory { overlay, at });
        }
        let station = switch.station();
        for (address, ip) in std::mem::take(&mut switch.suppression.curious) {
            self.deliver_own(overlay, &ask::reminder(station, address, ip));
        }
    }
}

/// Items as messages: the first like `first`, the digest true after the last.
fn parts(first: Inventory, items: &[Item]) -> Vec<Inventory> {
    let count = items.len().div_ceil(ITEMS_MAX).max(1);
    let part = |number: usize| {
        let items = items.chunks(ITEMS_MAX).nth(number).unwrap_or_default().to_vec();
        let is_first = number == 0;
        Inventory {
            is_anew: first.is_anew && is_first,
            wants_answer: first.wants_answer && is_first,
            has_more: number + 1 < count,
            digest: first.digest,
            items,
        }
    };
    (0..count).map(part).collect()
}

#[cfg(test)]
mod tests;
