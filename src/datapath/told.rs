//! The IP addresses of the machines behind the other members' TAPs, as these tell them.
//!
//! Bounded per member by [`HOLDINGS`] and by [`TOLD`] in all: what finds no room is not answered for. Whether a
//! machine is really where it is told to be is the forwarding database's business. Reads no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::fdb::PortId;
use super::frame::Mac;
use super::holdings::{HOLDINGS, Place};
use crate::time::Time;
use crate::wire::inventory::{Binding, Excerpt, Inventory};

/// Bindings in all: sixteen full members, or a thousand with sixty each; about 10 MB.
const TOLD: usize = 65_536;
/// A member whose inventory we do not have whole is asked for it this often.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// Who is told to hold an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Teller {
    pub(super) port: PortId,
    pub(super) mac: Mac,
    pub(super) is_router: bool,
}

/// What one member told.
#[derive(Debug, Default)]
struct Shelf {
    bindings: BTreeSet<Binding>,
    digest: u64,
    /// Some found no room, and it was not whole since.
    is_cut: bool,
    asked: Option<Time>,
}

/// What all told.
#[derive(Debug, Default)]
pub(super) struct Told {
    shelves: BTreeMap<PortId, Shelf>,
    /// By address, but for those that somebody else has announced since.
    tellers: BTreeSet<(Place, Teller)>,
    count: usize,
    refused: u64,
}

impl Told {
    /// The member at `port` tells. Whether it has to be asked for all that it has.
    pub(super) fn accept(&mut self, now: Time, port: PortId, inventory: &Inventory) -> bool {
        if inventory.is_anew {
            let asked = self.shelves.get(&port).and_then(|shelf| shelf.asked);
            self.forget(port);
            self.shelves.insert(port, Shelf { asked, ..Shelf::default() });
        }
        for item in &inventory.items {
            if item.is_gone { self.remove(port, &item.binding) } else { self.insert(port, item.binding) }
        }
        if inventory.has_more {
            return false;
        }
        if self.shelves.get(&port).map_or(0, |shelf| shelf.digest) == inventory.digest {
            if let Some(shelf) = self.shelves.get_mut(&port) {
                shelf.is_cut = false;
            }
            return false;
        }
        let has_room = self.count + HOLDINGS <= TOLD;
        let shelf = self.shelves.entry(port).or_default();
        // What found no room would find none again, but where others have made some.
        let helps = !shelf.is_cut || has_room && shelf.bindings.len() < HOLDINGS;
        let is_due = helps && shelf.asked.is_none_or(|asked| now.since(asked) >= ASK_EVERY);
        if is_due {
            shelf.asked = Some(now);
        }
        is_due
    }

    /// A supernode's roster says what the member at `port` tells. If there is more of it, what it told of machines before
    /// may be so still; which groups it wants, and whether these are all, is believed of the newest word only.
    pub(super) fn accept_excerpt(&mut self, port: PortId, excerpt: &Excerpt) {
        let before = self.shelves.get(&port).into_iter().flat_map(|shelf| &shelf.bindings);
        let is_void = |binding: &&Binding| !excerpt.has_more || binding.ip.is_multicast();
        let void = before.filter(is_void).copied().collect::<Vec<_>>();
        void.iter().for_each(|binding| self.remove(port, binding));
        if let Some(shelf) = self.shelves.get_mut(&port).filter(|_| !excerpt.has_more) {
            shelf.is_cut = false;
        }
        excerpt.bindings.iter().for_each(|binding| self.insert(port, *binding));
    }

    fn insert(&mut self, port: PortId, binding: Binding) {
        let has_room = self.count < TOLD;
        let shelf = self.shelves.entry(port).or_default();
        if !shelf.bindings.contains(&binding) {
            if !has_room || shelf.bindings.len() >= HOLDINGS {
                shelf.is_cut = true;
                self.refused += 1;
                return;
            }
            shelf.bindings.insert(binding);
            shelf.digest ^= binding.digest();
            self.count += 1;
        }
        self.tellers.insert(entry(port, &binding));
    }

    fn remove(&mut self, port: PortId, binding: &Binding) {
        let Some(shelf) = self.shelves.get_mut(&port).filter(|shelf| shelf.bindings.contains(binding)) else { return };
        shelf.bindings.remove(binding);
        shelf.digest ^= binding.digest();
        self.count -= 1;
        self.tellers.remove(&entry(port, binding));
    }

    /// Who is said to hold an address.
    pub(super) fn tellers(&self, place: Place) -> impl Iterator<Item = Teller> + '_ {
        let least = Teller { port: PortId(0), mac: Mac([0; 6]), is_router: false };
        let most = Teller { port: PortId(u32::MAX), mac: Mac([0xff; 6]), is_router: true };
        self.tellers.range((place, least)..=(place, most)).map(|(_, teller)| *teller)
    }

    /// The machine at `mac` announces that an address is its own: nobody else holds it until it says so anew.
    pub(super) fn doubt_all_but(&mut self, place: Place, mac: Mac) {
        let others = self.tellers(place).filter(|teller| teller.mac != mac).collect::<Vec<_>>();
        for teller in others {
            self.tellers.remove(&(place, teller));
        }
    }

    /// The member at `port` is gone, or tells anew.
    pub(super) fn forget(&mut self, port: PortId) {
        let Some(shelf) = self.shelves.remove(&port) else { return };
        self.count -= shelf.bindings.len();
        for binding in &shelf.bindings {
            self.tellers.remove(&entry(port, binding));
        }
    }

    /// Whether what the member at `port` tells is not all here, for want of room.
    pub(super) fn is_cut(&self, port: PortId) -> bool {
        self.shelves.get(&port).is_some_and(|shelf| shelf.is_cut)
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// How many found no room since the last call.
    pub(super) fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }
}

const fn entry(port: PortId, binding: &Binding) -> (Place, Teller) {
    let place = Place { vlan: binding.vlan, ip: binding.ip };
    (place, Teller { port, mac: Mac(binding.mac), is_router: binding.is_router })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::inventory::Item;
    use std::net::IpAddr;

    const A: PortId = PortId(1);
    const B: PortId = PortId(2);

    fn binding(number: u16) -> Binding {
        let [high, low] = number.to_be_bytes();
        Binding { vlan: 0, ip: IpAddr::from([10, 0, high, low]), mac: [2, 0, 0, 0, high, low], is_router: false }
    }

    fn place(binding: Binding) -> Place {
        Place { vlan: binding.vlan, ip: binding.ip }
    }

    fn tells(bindings: &[Binding], digest: u64) -> Inventory {
        let items = bindings.iter().map(|binding| Item { binding: *binding, is_gone: false }).collect();
        Inventory { digest, items, ..Inventory::default() }
    }

    #[test]
    fn what_was_missed_is_asked_for_once_in_a_while_and_whole_it_is_right() {
        let (one, two) = (binding(1), binding(2));
        let whole = one.digest() ^ two.digest();
        let mut told = Told::default();
        assert!(!told.accept(Time::START, A, &tells(&[one], one.digest())));
        assert!(told.accept(Time::START, A, &tells(&[], whole)));
        assert!(!told.accept(Time::START + Duration::from_secs(4), A, &tells(&[], whole)));
        assert!(told.accept(Time::START + Duration::from_secs(5), A, &tells(&[], whole)));
        let first = Inventory { is_anew: true, has_more: true, ..tells(&[two], whole) };
        assert!(!told.accept(Time::START + Duration::from_secs(20), A, &first));
        assert!(!told.accept(Time::START + Duration::from_secs(20), A, &tells(&[one], whole)));
        assert_eq!((told.len(), told.tellers(place(one)).count()), (2, 1));
    }

    #[test]
    fn an_excerpt_is_all_that_a_member_has_unless_it_says_that_there_is_more() {
        let mut told = Told::default();
        told.accept(Time::START, A, &tells(&[binding(1), binding(2)], 0));
        told.accept_excerpt(A, &Excerpt { bindings: vec![binding(3)], has_more: true });
        assert_eq!(told.len(), 3);
        told.accept_excerpt(A, &Excerpt { bindings: vec![binding(2)], has_more: false });
        assert_eq!((told.len(), told.tellers(place(binding(2))).count()), (1, 1));
    }

    #[test]
    fn which_groups_a_member_wants_is_believed_of_the_newest_word_only() {
        let group = |last| Binding::of_group(IpAddr::from([239, 0, 0, last]));
        let mut told = Told::default();
        told.accept(Time::START, A, &tells(&[binding(1), group(1), group(2)], 0));
        told.accept_excerpt(A, &Excerpt { bindings: vec![group(3), group(2)], has_more: true });
        let tellers = |binding| told.tellers(place(binding)).count();
        assert_eq!([group(1), group(2), group(3), binding(1)].map(tellers), [0, 1, 1, 1]);
    }

    #[test]
    fn an_announcement_puts_all_others_in_doubt_until_they_tell_again() {
        let (ours, theirs) = (binding(1), Binding { mac: [2, 0, 0, 0, 9, 9], ..binding(1) });
        let mut told = Told::default();
        told.accept(Time::START, A, &tells(&[ours], ours.digest()));
        told.accept(Time::START, B, &tells(&[theirs], theirs.digest()));
        assert_eq!(told.tellers(place(ours)).count(), 2);
        told.doubt_all_but(place(ours), Mac(theirs.mac));
        assert_eq!(told.tellers(place(ours)).map(|teller| teller.port).collect::<Vec<_>>(), [B]);
        assert!(!told.accept(Time::START, A, &tells(&[], ours.digest())), "nothing was missed");
        told.accept(Time::START, A, &tells(&[ours], ours.digest()));
        assert_eq!(told.tellers(place(ours)).count(), 2);
    }

    #[test]
    fn a_member_fills_no_more_than_its_share_and_is_forgotten_whole() {
        let mut told = Told::default();
        for number in 0..=u16::try_from(HOLDINGS).unwrap_or(0) {
            told.accept(Time::START, A, &Inventory { has_more: true, ..tells(&[binding(number)], 0) });
        }
        assert_eq!((told.len(), told.take_refused()), (HOLDINGS, 1));
        assert!(!told.accept(Time::START, A, &tells(&[], 1)), "asking would not help");
        told.accept(Time::START, B, &tells(&[binding(1)], 0));
        told.forget(A);
        assert_eq!((told.len(), told.tellers.len()), (1, 1));
    }

    #[test]
    fn what_found_no_room_is_asked_for_when_there_is_some_and_is_cut_no_more_when_it_is_whole() {
        let mut told = Told::default();
        for port in (10..).map(PortId).take(TOLD / HOLDINGS) {
            for number in 0..u16::try_from(HOLDINGS).unwrap_or(0) {
                told.accept(Time::START, port, &Inventory { has_more: true, ..tells(&[binding(number)], 0) });
            }
        }
        let whole = tells(&[binding(1)], binding(1).digest());
        assert!(!told.accept(Time::START, A, &whole) && told.is_cut(A), "there is no room");
        told.forget(PortId(10));
        assert!(told.accept(Time::START, A, &tells(&[], whole.digest)), "another has made room");
        assert!(!told.accept(Time::START, A, &Inventory { is_anew: true, ..whole.clone() }) && !told.is_cut(A));

        told.forget(A);
        told.shelves.entry(A).or_default().is_cut = true;
        assert!(!told.accept(Time::START, A, &whole) && !told.is_cut(A), "changes made it whole");
    }
}
