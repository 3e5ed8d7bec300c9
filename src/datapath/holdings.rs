//! The IP addresses of the machines behind our TAP, as the other members are told of them.
//!
//! One machine holds an address: the one that said so last. Where two say so in turns, nobody is told of either until
//! they have stopped. A machine that has not said so for a while is asked, and holds the address no more if it does not
//! answer. Bounded by [`HOLDINGS`]. Reads no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::fdb::Address;
use super::frame::Mac;
use crate::time::Time;
use crate::wire::inventory::{Binding, EXCERPT_MAX, Excerpt, Item};

/// Addresses told: those of a site of a thousand machines, each with one of IPv4 and three of IPv6.
pub(super) const HOLDINGS: usize = 4_096;
/// A machine that did not say for so long that it holds an address is asked.
const ASK_AFTER: Duration = Duration::from_secs(30);
/// So often; the next time it is looked at it holds the address no more.
const ASKED_MAX: u8 = 2;
/// Two machines that both said within this time that they hold an address are at odds...
const ODDS: Duration = Duration::from_secs(10);
/// ...and nobody is told of either for so long.
const SILENCE: Duration = Duration::from_secs(60);
/// Every change is told so often, since datagrams are lost.
const TELLINGS: u8 = 2;
/// Changes that wait to be told: what is beyond them the others miss and ask for.
const CHANGES: usize = 512;

/// An IP address in a VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) vlan: u16,
    pub(super) ip: IpAddr,
}

/// Who holds an address.
#[derive(Clone, Copy, Debug)]
struct Holder {
    mac: Mac,
    is_router: bool,
    heard: Time,
    asked: u8,
    /// Others are told from then on.
    told_from: Time,
    /// When it had the address from another one.
    succeeded: Option<Time>,
}

impl Holder {
    const fn binding(&self, place: Place) -> Binding {
        Binding { vlan: place.vlan, ip: place.ip, mac: self.mac.0, is_router: self.is_router }
    }
}

/// The addresses.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    holders: BTreeMap<Place, Holder>,
    /// What holds and others may know.
    told: BTreeSet<Binding>,
    digest: u64,
    /// Multicast groups that our segment wants to hear.
    wishes: BTreeSet<IpAddr>,
    wished_digest: u64,
    /// What is still to be told, and how often.
    changes: BTreeMap<Binding, u8>,
    refused: u64,
}

impl Holdings {
    /// The machine at `mac` says that it holds an address; `announced` if it says so to everybody unasked.
    pub(super) fn hold(&mut self, now: Time, place: Place, (mac, is_router): (Mac, bool), announced: bool) {
        let mut new = Holder { mac, is_router, heard: now, asked: 0, told_from: now, succeeded: None };
        let old = self.holders.get(&place).copied();
        match old {
            None if self.holders.len() >= HOLDINGS => {
                self.refused += 1;
                return;
            }
            Some(old) if old.mac == mac => {
                new.succeeded = old.succeeded;
                new.told_from = if announced { now } else { old.told_from };
            }
            Some(old) => {
                new.succeeded = Some(now);
                if !announced && now.since(old.heard) < ODDS {
                    new.told_from = now + SILENCE;
                }
            }
            None => {}
        }
        let stale = old.map(|old| old.binding(place)).filter(|binding| *binding != new.binding(place));
        stale.into_iter().for_each(|binding| self.withdraw(binding));
        self.holders.insert(place, new);
        if new.told_from <= now {
            self.publish(new.binding(place));
        } else {
            self.withdraw(new.binding(place));
        }
    }

    /// Who holds an address.
    pub(super) fn holder(&self, place: Place) -> Option<Mac> {
        self.holders.get(&place).map(|holder| holder.mac)
    }

    /// Whether a machine has held an address for so long that the others have heard of it. Before, those who have
    /// another in mind learn of it by its own questions, as on a wire.
    pub(super) fn is_settled(&self, now: Time, place: Place, mac: Mac) -> bool {
        let is_old = |at: Time| now.since(at) >= SILENCE;
        let settled = |holder: &Holder| holder.told_from <= now && holder.succeeded.is_none_or(is_old);
        self.holders.get(&place).is_some_and(|holder| holder.mac == mac && settled(holder))
    }

    /// An address is another machine's now, wherever that is.
    pub(super) fn release(&mut self, place: Place) {
        if let Some(holder) = self.holders.remove(&place) {
            self.withdraw(holder.binding(place));
        }
    }

    /// A machine is not behind our TAP any more.
    pub(super) fn release_machine(&mut self, address: Address) {
        let is_its = |(place, holder): &(&Place, &Holder)| place.vlan == address.vlan && holder.mac == address.mac;
        let places = self.holders.iter().filter(is_its).map(|(place, _)| *place).collect::<Vec<_>>();
        places.into_iter().for_each(|place| self.release(place));
    }

    /// The machines that have to be asked now. Those that did not answer hold nothing any more.
    pub(super) fn review(&mut self, now: Time) -> Vec<(Address, IpAddr)> {
        let mut ask = Vec::new();
        let mut gone = Vec::new();
        for (place, holder) in &mut self.holders {
            if now.since(holder.heard) < ASK_AFTER {
                continue;
            }
            if holder.asked >= ASKED_MAX {
                gone.push(*place);
            } else {
                holder.asked += 1;
                ask.push((Address { vlan: place.vlan, mac: holder.mac }, place.ip));
            }
        }
        gone.into_iter().for_each(|place| self.release(place));
        ask
    }

    /// Our segment wants to hear these groups, and no others.
    pub(super) fn wish(&mut self, wishes: BTreeSet<IpAddr>) {
        let before = std::mem::replace(&mut self.wishes, wishes);
        let changed = before.symmetric_difference(&self.wishes).copied().collect::<Vec<_>>();
        for group in changed {
            let binding = Binding::of_group(group);
            self.wished_digest ^= binding.digest();
            if self.wishes.contains(&group) { self.publish(binding) } else { self.withdraw(binding) }
        }
    }

    /// Whether it wants to hear this one.
    pub(super) fn wishes(&self, group: IpAddr) -> bool {
        self.wishes.contains(&group)
    }

    fn publish(&mut self, binding: Binding) {
        if self.told.insert(binding) {
            self.on_change(binding);
        }
    }

    fn withdraw(&mut self, binding: Binding) {
        if self.told.remove(&binding) {
            self.on_change(binding);
        }
    }

    fn on_change(&mut self, binding: Binding) {
        self.digest ^= binding.digest();
        if self.changes.len() < CHANGES || self.changes.contains_key(&binding) {
            self.changes.insert(binding, TELLINGS);
        }
    }

    /// Whether anything is still to be told.
    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Whether there is anything to look after.
    pub(super) fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.changes.is_empty()
    }

    /// What is to be told to all now.
    pub(super) fn take_changes(&mut self) -> Vec<Item> {
        let item = |binding: &Binding| Item { binding: *binding, is_gone: !self.told.contains(binding) };
        let items = self.changes.keys().map(item).collect();
        self.changes.retain(|_, left| {
            *left -= 1;
            *left > 0
        });
        items
    }

    /// Everything that others may know.
    pub(super) fn all(&self) -> Vec<Item> {
        self.told.iter().map(|binding| Item { binding: *binding, is_gone: false }).collect()
    }

    /// The first ones of it: groups in falling order, since that which says that these are all is the least and must come
    /// behind them, for what finds no room is cut off; then machines.
    pub(super) fn excerpt(&self) -> Excerpt {
        let groups = self.wishes.iter().rev().map(|group| Binding::of_group(*group));
        let machines = self.told.iter().filter(|binding| !binding.ip.is_multicast()).copied();
        let bindings = groups.chain(machines).take(EXCERPT_MAX).collect();
        Excerpt { bindings, has_more: self.told.len() > EXCERPT_MAX }
    }

    /// Of everything that others may know.
    pub(super) const fn digest(&self) -> u64 {
        self.digest
    }

    /// Of the groups in it.
    pub(super) const fn wished_digest(&self) -> u64 {
        self.wished_digest
    }

    /// How many addresses there are.
    pub(super) fn len(&self) -> usize {
        self.told.len() - self.wishes.len()
    }

    /// How many found no room since the last call.
    pub(super) fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { vlan: 0, ip: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)) };
    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn at(seconds: u64) -> Time {
        Time::START + Duration::from_secs(seconds)
    }

    fn told(holdings: &Holdings) -> Vec<Mac> {
        holdings.all().into_iter().map(|item| Mac(item.binding.mac)).collect()
    }

    #[test]
    fn the_last_one_to_say_so_holds_an_address_and_both_changes_are_told_twice() {
        let mut holdings = Holdings::default();
        holdings.hold(at(0), PLACE, (A, false), false);
        assert_eq!((holdings.take_changes().len(), holdings.take_changes().len()), (1, 1));
        assert!(!holdings.has_changes());
        holdings.hold(at(20), PLACE, (B, false), false);
        assert_eq!(told(&holdings), [B]);
        let gone: Vec<_> = holdings.take_changes().iter().map(|item| (item.binding.mac, item.is_gone)).collect();
        assert_eq!(gone, [(A.0, true), (B.0, false)]);
    }

    #[test]
    fn an_excerpt_says_last_of_the_groups_that_these_are_all() {
        let mut holdings = Holdings::default();
        holdings.hold(at(0), PLACE, (A, false), false);
        let [all, group, six] = ["224.0.0.1", "239.1.2.3", "ff05::7"].map(|ip| ip.parse().expect("an address"));
        holdings.wish([all, group, six].into());
        let told = holdings.excerpt();
        assert_eq!(told.bindings.iter().map(|binding| binding.ip).collect::<Vec<_>>(), [six, group, all, PLACE.ip]);
        holdings.wish((0..EXCERPT_MAX).map(|low| IpAddr::from([239, 0, 0, low as u8])).chain([all]).collect());
        let told = holdings.excerpt();
        assert!(told.has_more && !told.bindings.contains(&Binding::of_group(all)));
    }

    #[test]
    fn two_that_quarrel_are_both_not_told_until_they_have_stopped_or_one_announces_itself() {
        let mut holdings = Holdings::default();
        for (second, mac) in [(0, A), (1, B), (2, A), (30, A)] {
            holdings.hold(at(second), PLACE, (mac, false), false);
        }
        assert_eq!(told(&holdings), []);
        holdings.hold(at(62), PLACE, (A, false), false);
        assert_eq!(told(&holdings), [A]);
        holdings.hold(at(63), PLACE, (B, false), false);
        assert_eq!(told(&holdings), []);
        holdings.hold(at(64), PLACE, (B, false), true);
        assert_eq!(told(&holdings), [B]);
    }

    #[test]
    fn a_machine_that_does_not_answer_twice_holds_nothing_any_more() {
        let mut holdings = Holdings::default();
        holdings.hold(at(0), PLACE, (A, false), false);
        assert_eq!(holdings.review(at(29)), []);
        let asked = (Address { vlan: 0, mac: A }, PLACE.ip);
        assert_eq!(holdings.review(at(30)), [asked]);
        holdings.hold(at(31), PLACE, (A, false), false);
        assert_eq!(holdings.review(at(60)), []);
        assert_eq!((holdings.review(at(61)), holdings.review(at(63))), (vec![asked], vec![asked]));
        assert_eq!((holdings.review(at(65)), holdings.holder(PLACE)), (vec![], None));
        assert_eq!((told(&holdings), holdings.digest()), (vec![], 0));
    }

    #[test]
    fn a_machine_that_announces_itself_without_end_fills_no_memory() {
        let mut holdings = Holdings::default();
        for number in 0..10_000_u16 {
            let [high, low] = number.to_be_bytes();
            holdings.hold(at(0), PLACE, (Mac([2, 0, 0, 0, high, low]), false), true);
        }
        assert_eq!((holdings.len(), holdings.changes.len()), (1, CHANGES));
    }

    #[test]
    fn the_table_is_bounded_and_counts_what_it_refused() {
        let mut holdings = Holdings::default();
        for number in 0..=u32::try_from(HOLDINGS).unwrap_or(0) {
            let place = Place { vlan: 0, ip: IpAddr::from(number.to_be_bytes()) };
            holdings.hold(at(0), place, (A, false), false);
        }
        assert_eq!((holdings.len(), holdings.take_refused(), holdings.take_refused()), (HOLDINGS, 1, 0));
        holdings.release_machine(Address { vlan: 0, mac: A });
        assert_eq!((holdings.len(), holdings.digest()), (0, 0));
    }
}
