//! Machines that move, as far as it takes patience: claims are told again, segments asked again, those who err are
//! told better, and people hear of quarrels. Who has an address is decided in the corridor (`ownership`).

use std::collections::BTreeMap;
use std::time::Duration;

use super::timers::Timer;
use super::{Control, Effects};
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::{Address, PortId, TAP};
use crate::datapath::stats::DropReason;
use crate::datapath::{Command, News};
use crate::keys::NodeId;
use crate::seam::Event;
use crate::time::Time;
use crate::wire::session::{Message, Moved};

/// After a claim it is told again, since datagrams are lost.
const CLAIM_AGAIN: &[Duration] = &[Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(900)];
/// After a question it is asked again: a machine that has just woken up may have missed the first.
const ASK_AGAIN: &[Duration] = &[Duration::from_millis(100), Duration::from_millis(200)];
/// Repetitions that wait: a host whose thousand machines all move.
const WAITING: usize = 4_096;
/// Events of one kind for one address: one in this time.
const EVENT_EVERY: Duration = Duration::from_secs(10);
/// Addresses whose last event is remembered.
const EVENTS: usize = 1_024;

/// What is to be repeated.
#[derive(Clone, Copy, Debug)]
enum Again {
    Claim(News),
    Ask,
}

type Place = (OverlayIndex, Address);

/// Repetitions that wait, and events that were raised.
#[derive(Debug, Default)]
pub(super) struct Mobility {
    again: BTreeMap<(Time, u64), (Place, Again)>,
    count: u64,
    raised: BTreeMap<(Place, bool), Time>,
}

impl Mobility {
    fn later(&mut self, fx: &mut Effects, place: Place, waits: &[Duration], again: Again) {
        for wait in waits {
            if self.again.len() >= WAITING {
                return fx.dropped(DropReason::MovesFull);
            }
            self.count += 1;
            self.again.insert((fx.now + *wait, self.count), (place, again));
            fx.timers.set_earlier(Timer::Addresses, fx.now + *wait);
        }
    }

    /// Whether an event of `place` is due; what strangers can trigger does not fill a log.
    fn may_raise(&mut self, now: Time, place: Place, is_frozen: bool) -> bool {
        let is_recent = |at: &Time| now.since(*at) < EVENT_EVERY;
        if self.raised.len() >= EVENTS {
            self.raised.retain(|_, at| is_recent(at));
        }
        let is_due = self.raised.len() < EVENTS && !self.raised.get(&(place, is_frozen)).is_some_and(is_recent);
        if is_due {
            self.raised.insert((place, is_frozen), now);
        }
        is_due
    }
}

impl Control {
    /// Something is to be told of an address.
    pub(super) fn on_address(&mut self, place: Place, news: News) {
        match news {
            // Nobody looks elsewhere for what was nowhere: once is enough.
            News::Claimed { is_move: false, .. } => {}
            News::Claimed { .. } => self.mobility.later(&mut self.fx, place, CLAIM_AGAIN, Again::Claim(news)),
            News::Left => self.mobility.later(&mut self.fx, place, ASK_AGAIN, Again::Ask),
            News::Misplaced { to, owner, sequence } => self.tell_location(place.1, to, owner, sequence),
            News::Contested { by } => {
                if let Some(peer) = self.peers.get(&by).filter(|_| self.mobility.may_raise(self.fx.now, place, false)) {
                    let (overlay, peer, name) = (place.0, peer.id, peer.name.clone());
                    self.fx.events.push_back(Event::AddressContested { overlay, address: place.1, peer, name });
                }
            }
            News::Frozen { at } => {
                if self.mobility.may_raise(self.fx.now, place, true) {
                    let owner = self.node_at(at);
                    let name = self.peers.get(&at).and_then(|peer| peer.name.clone());
                    self.fx.events.push_back(Event::AddressFrozen { overlay: place.0, address: place.1, owner, name });
                }
            }
        }
    }

    /// The node behind a port; ourselves behind the TAP, and where nobody is any more.
    fn node_at(&self, port: PortId) -> NodeId {
        self.peers.get(&port).map_or_else(|| self.me.identity.id(), |peer| peer.id)
    }

    fn tell_location(&mut self, address: Address, to: PortId, owner: PortId, sequence: u32) {
        let is_known = owner == TAP || self.peers.contains_key(&owner);
        let Some(path) = self.peers.get(&to).and_then(|peer| peer.paths.current()).filter(|_| is_known) else { return };
        let moved = Moved { vlan: address.vlan, mac: address.mac.0, sequence };
        let owner = self.node_at(owner);
        self.fx.send(to, path, &Message::Location { moved, owner });
    }

    /// LOCATION from the peer at `from`.
    pub(super) fn on_location(&mut self, from: PortId, moved: Moved, owner: NodeId) {
        let Some(overlay) = self.peers.get(&from).map(|peer| peer.overlay) else { return };
        let is_us = owner == self.me.identity.id();
        let owner = self.by_id.get(&(overlay, owner)).copied();
        if is_us || owner.is_some() {
            let (address, sequence) = (Address::from((moved.vlan, moved.mac)), moved.sequence);
            self.fx.commands.push_back(Command::Locate { from, owner, address, sequence });
        }
    }

    /// [`Timer::Addresses`].
    pub(super) fn on_addresses_timer(&mut self) {
        let later = self.mobility.again.split_off(&(self.fx.now, u64::MAX));
        for ((overlay, address), again) in std::mem::replace(&mut self.mobility.again, later).into_values() {
            self.fx.commands.push_back(match again {
                Again::Claim(news) => Command::ClaimAgain { overlay, address, news },
                Again::Ask => Command::AskAgain { overlay, address },
            });
        }
        if let Some(((at, _), _)) = self.mobility.again.first_key_value() {
            self.fx.timers.set(Timer::Addresses, *at);
        }
    }
}
