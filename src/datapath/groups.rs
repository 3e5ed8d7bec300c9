//! Multicast groups: which of them the machines behind our TAP want to hear, and to whom frames for a group go.
//!
//! A member that snoops asks its own segment, hears the answers, and tells the others which groups it wants, together
//! with the machines' addresses (`holdings`, `told`). A frame for a group goes to those that want it, to those that
//! have a multicast router behind their TAP, and to all that do not say what they want. **In doubt it goes to
//! everybody**: if the group is of the link only, if nobody wants it, in a VLAN; and a member that has not heard its
//! whole segment yet is sent everything. Reports go to routers only, since a machine that hears another's report says
//! nothing itself. Read first: RFC 4541, RFC 3376 8. Reads no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::fdb::PortId;
use super::frame::Header;
use super::holdings::Place;
use super::listener::{self, Said};
use super::stats::DropReason;
use super::switch::{Switch, Verdict};
use crate::time::Time;

/// Between two questions to our segment (RFC 3376 8.2)...
const ASK_EVERY: Duration = Duration::from_secs(125);
/// ...and between the first two (8.6).
const ASK_FIRST: Duration = Duration::from_secs(31);
/// Machines answer within so many seconds (8.3)...
const ANSWER: u8 = 10;
/// ...and after one has left, the others within so many (8.8).
const ANSWER_LEFT: u8 = 1;
/// By then all have answered the first question.
const COMPLETE: Duration = Duration::from_secs(ANSWER as u64 + 2);
/// A group that nobody has answered for is wanted no more (8.4).
const KEPT: Duration = Duration::from_secs(2 * 125 + ANSWER as u64);
/// The same after one has left: until we have asked and been answered.
const KEPT_LEFT: Duration = Duration::from_secs(5);
/// A router that was not heard for so long is gone (8.5).
const ROUTER_KEPT: Duration = Duration::from_secs(2 * 125 + ANSWER as u64 / 2);
/// Groups of one segment; one that wants more is sent everything.
const GROUPS: usize = 1_024;

/// As groups that a member wants: "I tell all that I want to hear"...
const TELLS: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1));
/// ...and "a router is here that wants to hear everything".
const ROUTES: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 2));

/// What our segment wants to hear.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Until then.
    wanted: BTreeMap<IpAddr, Time>,
    /// When we asked first, and last.
    asked: Option<(Time, Time)>,
    questions: u32,
    /// Somebody has left: who is there still?
    has_left: bool,
    /// When a router was heard behind our TAP.
    router: Option<Time>,
    /// When a group found no room.
    cut: Option<Time>,
    refused: u64,
}

impl Groups {
    /// A machine or router behind our TAP.
    fn hear(&mut self, now: Time, said: Said) {
        match said {
            Said::Wants(group) if listener::is_wide(group) => self.want(now, group),
            Said::Leaves(group) => self.doubt(now, group),
            Said::Asks(group, is_router) => {
                if is_router {
                    self.router = Some(now);
                }
                group.into_iter().for_each(|group| self.doubt(now, group));
            }
            Said::Routes => self.router = Some(now),
            Said::Wants(_) => {}
        }
    }

    /// The same behind another member's: its questions are answered here too.
    fn overhear(&mut self, now: Time, said: Said) {
        if let Said::Asks(Some(group), true) = said {
            self.doubt(now, group);
        }
    }

    fn want(&mut self, now: Time, group: IpAddr) {
        if self.wanted.len() < GROUPS || self.wanted.contains_key(&group) {
            self.wanted.insert(group, now + KEPT);
        } else {
            (self.cut, self.refused) = (Some(now), self.refused + 1);
        }
    }

    /// We ask: whoever wants it says so soon, or nobody does.
    fn doubt(&mut self, now: Time, group: IpAddr) {
        if let Some(until) = self.wanted.get_mut(&group) {
            *until = (*until).min(now + KEPT_LEFT);
            self.has_left = true;
        }
    }

    /// Forgets what nobody wants any more. Whether to ask the segment now, and in how many seconds it has to answer.
    ///
    /// Who else asks does not matter: it may ask for one family of addresses only, or for one group. Questions without an
    /// address elect nobody (RFC 4541 2.1.1).
    pub(super) fn review(&mut self, now: Time) -> Option<u8> {
        self.wanted.retain(|_, until| *until > now);
        let has_left = std::mem::take(&mut self.has_left);
        let Some((first, last)) = self.asked else {
            (self.asked, self.questions) = (Some((now, now)), 1);
            return Some(ANSWER);
        };
        let wait = if self.questions == 1 { ASK_FIRST } else { ASK_EVERY };
        let is_due = now.since(last) >= wait;
        if !(is_due || has_left) {
            return None;
        }
        if is_due {
            (self.asked, self.questions) = (Some((first, now)), self.questions.saturating_add(1));
        }
        Some(if is_due { ANSWER } else { ANSWER_LEFT })
    }

    /// What the others are to know of it.
    pub(super) fn wishes(&self, now: Time) -> BTreeSet<IpAddr> {
        let is_recent = |at: Option<Time>, span| at.is_some_and(|at| now.since(at) < span);
        let is_complete = self.asked.is_some_and(|(first, _)| now.since(first) >= COMPLETE);
        let tells = is_complete && !is_recent(self.cut, KEPT);
        let routes = is_recent(self.router, ROUTER_KEPT);
        let marks = [(tells, TELLS), (routes, ROUTES)].into_iter().filter(|(is_so, _)| *is_so).map(|(_, mark)| mark);
        self.wanted.keys().copied().chain(marks).collect()
    }

    /// Groups wanted here.
    pub(super) fn len(&self) -> usize {
        self.wanted.len()
    }

    /// How many found no room since the last call.
    pub(super) fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }
}

impl Switch {
    /// A frame out of our TAP: what it says of groups. What is new others are told. Whether it is for routers only.
    pub(super) fn snoop_groups(&mut self, now: Time, bytes: &[u8], header: &Header) -> bool {
        if !self.settings().snoops {
            return false;
        }
        let (before, said) = (self.groups.len(), listener::read(bytes, header));
        said.iter().for_each(|said| self.groups.hear(now, *said));
        if self.groups.len() != before {
            self.suppression.holdings.wish(self.groups.wishes(now));
        }
        said.iter().any(|said| said.is_report())
    }

    /// A frame of a peer's: what it says of groups. Whether our machines must not hear it.
    pub(super) fn overhears(&mut self, now: Time, bytes: &[u8], header: &Header) -> bool {
        if !self.settings().snoops {
            return false;
        }
        let said = listener::read(bytes, header);
        said.iter().for_each(|said| self.groups.overhear(now, *said));
        said.iter().any(|said| said.is_report()) && !self.suppression.holdings.wishes(ROUTES)
    }

    /// A frame out of our TAP for a group, or a report: to whom it goes, if that is not everybody.
    ///
    /// Who asked for the group is sent as much as comes; what anybody else gets as well is a flood.
    pub(super) fn judge_group(&mut self, now: Time, is_report: bool, bytes: &[u8], header: &Header) -> Option<Verdict> {
        if !self.settings().snoops || !header.dst.is_group() {
            return None;
        }
        let suppression = &self.suppression;
        let tellers = |group: IpAddr| {
            let place = Place { vlan: 0, ip: group };
            suppression.told.tellers(place).map(|teller| teller.port)
        };
        let mut wanting: BTreeSet<PortId> = BTreeSet::new();
        if !is_report {
            let group = listener::group(bytes, header)?;
            wanting.extend(tellers(group));
            if wanting.is_empty() && !suppression.holdings.wishes(group) {
                return None;
            }
        }
        wanting.extend(tellers(ROUTES));
        let asked = wanting.len();
        // A wish of its own may be among what was cut off.
        let telling = tellers(TELLS).filter(|port| !suppression.told.is_cut(*port)).collect::<BTreeSet<_>>();
        wanting.extend(self.ports.difference(&telling));
        self.receivers.clear();
        self.receivers.extend(self.ports.intersection(&wanting));
        let is_asked_for = !is_report && wanting.len() == asked;
        Some(match () {
            () if self.receivers.is_empty() => Verdict::Drop(DropReason::Unwanted),
            () if is_asked_for || self.flood_limit.take(now) => Verdict::Group,
            () => Verdict::Drop(DropReason::FloodLimit),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::holdings::HOLDINGS;
    use crate::datapath::switch::SwitchSettings;
    use crate::wire::inventory::{Binding, Inventory, Item};

    const G: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 1, 2, 3));
    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251));

    fn at(seconds: u64) -> Time {
        Time::START + Duration::from_secs(seconds)
    }

    #[test]
    fn a_segment_is_asked_at_the_start_soon_again_and_then_rarely_whoever_else_asks() {
        let mut groups = Groups::default();
        let asked = (0..300).filter(|second| groups.review(at(*second)).is_some()).collect::<Vec<_>>();
        assert_eq!(asked, [0, 31, 156, 281]);
        groups.hear(at(300), Said::Asks(None, true));
        groups.overhear(at(300), Said::Asks(Some(G), true));
        assert!((300..420).all(|second| groups.review(at(second)).is_none() == (second != 406)));
    }

    #[test]
    fn what_is_told_is_complete_only_when_all_have_answered() {
        let mut groups = Groups::default();
        groups.review(at(0));
        groups.hear(at(1), Said::Wants(G));
        groups.hear(at(1), Said::Wants(LOCAL));
        assert_eq!(groups.wishes(at(11)), [G].into());
        assert_eq!(groups.wishes(at(12)), [G, TELLS].into());
        groups.hear(at(20), Said::Routes);
        assert_eq!(groups.wishes(at(20)), [G, TELLS, ROUTES].into());
        groups.review(at(300));
        assert_eq!(groups.wishes(at(300)), [TELLS].into());
    }

    #[test]
    fn who_leaves_makes_us_ask_the_others_and_a_group_without_an_answer_is_gone() {
        let mut groups = Groups::default();
        groups.review(at(0));
        for (second, others) in [(10, true), (40, false)] {
            groups.hear(at(second), Said::Wants(G));
            groups.hear(at(second), Said::Leaves(G));
            groups.review(at(second));
            if others {
                groups.hear(at(second + 1), Said::Wants(G));
            }
            groups.review(at(second + 6));
            assert_eq!(groups.len(), usize::from(others));
        }
        assert_eq!(groups.review(at(100)), None, "it was asked at 40 s");
    }

    #[test]
    fn a_segment_that_wants_too_much_is_sent_everything() {
        let mut groups = Groups::default();
        groups.review(at(0));
        for number in 0..=u32::try_from(GROUPS).expect("small") {
            groups.hear(at(1), Said::Wants(IpAddr::from((0xef00_0000 + number).to_be_bytes())));
        }
        assert_eq!((groups.len(), groups.take_refused(), groups.take_refused()), (GROUPS, 1, 0));
        assert!(!groups.wishes(at(20)).contains(&TELLS));
    }

    #[test]
    fn a_member_whose_wishes_did_not_all_find_room_is_sent_everything_until_they_do() {
        let mut switch = Switch::new([1, 2, 3, 4], SwitchSettings { snoops: true, ..SwitchSettings::default() });
        let (wanting, cut) = (PortId(1), PortId(2));
        switch.ports.extend([wanting, cut]);
        let told = &mut switch.suppression.told;
        told.accept(at(0), wanting, &tells(&[Binding::of_group(TELLS), Binding::of_group(G)]));
        let machine = |number: u32| Binding { ip: IpAddr::from(number.to_be_bytes()), ..Binding::of_group(TELLS) };
        let full = (0..u32::try_from(HOLDINGS).expect("small")).map(|number| machine(0x0a00_0000 + number));
        let full = std::iter::once(Binding::of_group(TELLS)).chain(full).collect::<Vec<_>>();
        told.accept(at(0), cut, &tells(&full));
        assert_eq!(cast(&mut switch), [wanting, cut]);
        switch.suppression.told.accept(at(0), cut, &Inventory { is_anew: true, ..tells(&full[..2]) });
        assert_eq!(cast(&mut switch), [wanting]);
    }

    /// Where a frame for the group goes.
    fn cast(switch: &mut Switch) -> Vec<PortId> {
        let IpAddr::V4(group) = G else { panic!("IPv4") };
        let packet = [&[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1][..], &group.octets()].concat();
        let frame = [&[1, 0, 0x5e, 1, 2, 3, 2, 0, 0, 0, 0, 9, 8, 0][..], &packet].concat();
        let header = Header::parse(&frame).expect("a frame");
        assert_eq!(switch.judge_outbound(at(0), &frame, &header, frame.len()), Verdict::Group);
        switch.receivers.clone()
    }

    fn tells(bindings: &[Binding]) -> Inventory {
        let items = bindings.iter().map(|binding| Item { binding: *binding, is_gone: false }).collect();
        let digest = bindings.iter().fold(0, |digest, binding| digest ^ binding.digest());
        Inventory { digest, items, ..Inventory::default() }
    }
}
