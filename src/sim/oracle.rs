//! Which pairs can be direct: what translators allow two nodes that punch as well as one can from one socket.
//!
//! A pair can by plain punching unless one side maps per endpoint and the other filters per port, or both map per
//! endpoint. In the last case the answers still may meet where nobody filters per port; that is left open. If the
//! side that maps per endpoint counts its ports, they are predicted, also if both count. If it takes random ones and
//! the other side keeps one port, a search finds a pair nearly always. Two of random ports never meet.
//! A carrier's translator that both are behind must have a hairpin, since neither knows the other's address inside.

use super::nat::{Behaviour, Depends};
use super::underlay::{SiteId, Underlay};

/// How a pair must be connected once the world is at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// It can be direct, so it must be.
    Direct,
    /// A search finds it nearly always, and is not repeated soon.
    Searched,
    /// It depends on what the two happen to try.
    Either,
    /// It cannot be direct.
    Relayed,
}

/// What a side looks like from outside: the strictest of all boxes in its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Face {
    mapping: Depends,
    filtering: Depends,
    /// The one box that maps per endpoint counts its ports.
    counts: bool,
}

impl Face {
    fn of(chain: &[Behaviour]) -> Self {
        let strictest = |axis: fn(&Behaviour) -> Depends| chain.iter().map(axis).max().unwrap_or(Depends::Nothing);
        let mut hard = chain.iter().filter(|nat| nat.mapping > Depends::Nothing);
        let counts = hard.next().is_some_and(|nat| nat.counts) && hard.next().is_none();
        Self { mapping: strictest(|nat| nat.mapping), filtering: strictest(|nat| nat.filtering), counts }
    }

    fn maps_per_endpoint(self) -> bool {
        self.mapping > Depends::Nothing
    }

    fn filters_per_port(self) -> bool {
        self.filtering == Depends::Port
    }
}

/// What two sides with these boxes, from the host outwards, can do.
pub fn between(here: &[Behaviour], there: &[Behaviour]) -> Way {
    let (a, b) = (Face::of(here), Face::of(there));
    let hopeless = |a: Face, b: Face| a.maps_per_endpoint() && b.filters_per_port();
    let strays = here.iter().chain(there).any(|nat| nat.strays_occupy);
    if hopeless(a, b) || hopeless(b, a) {
        let (hard, easy) = if a.maps_per_endpoint() { (a, b) } else { (b, a) };
        return match (hard.mapping, easy.maps_per_endpoint()) {
            // Guesses may arrive as strays; and one supernode cannot tell what depends on addresses: such a NAT is
            // searched as if it kept one port, and by luck one that lets in whole addresses is found.
            (Depends::Nothing | Depends::Address, _) => Way::Either,
            (_, true) if easy.mapping == Depends::Address => Way::Either,
            (_, true) if !(hard.counts && easy.counts) => Way::Relayed,
            _ if strays => Way::Either,
            _ if hard.counts => Way::Direct,
            _ => Way::Searched,
        };
    }
    // An opener dies before a box further out, so that strays may arrive there first.
    let stray_at_carrier = |chain: &[Behaviour]| chain.iter().skip(1).any(|nat| nat.strays_occupy);
    if (a.maps_per_endpoint() && b.maps_per_endpoint()) || stray_at_carrier(here) || stray_at_carrier(there) {
        return Way::Either;
    }
    Way::Direct
}

impl Underlay {
    /// What hosts of two sites can do, over IPv4, while the ways between them are as they are now.
    pub fn way(&self, a: SiteId, b: SiteId) -> Way {
        if a == b {
            return Way::Direct;
        }
        if self.is_cut(a, b) || self.is_cut(b, a) {
            return Way::Relayed;
        }
        let (here, there) = (self.chain(a), self.chain(b));
        let common = here.iter().find(|site| there.contains(site)).copied();
        let nat_of = |site: &SiteId| self.nat(*site).map(super::nat::Nat::behaviour);
        let translating = common.and_then(|site| nat_of(&site)).filter(|nat| nat.translates);
        match (common, translating) {
            (Some(_), Some(nat)) if !nat.hairpin => Way::Relayed,
            (Some(common), None) => {
                let below = |chain: &[SiteId]| {
                    chain.iter().take_while(|site| **site != common).filter_map(nat_of).collect::<Vec<_>>()
                };
                between(&below(&here), &below(&there))
            }
            (Some(_) | None, _) => {
                let whole = |chain: &[SiteId]| chain.iter().filter_map(nat_of).collect::<Vec<_>>();
                match between(&whole(&here), &whole(&there)) {
                    // Through a hairpin both are seen at one address.
                    Way::Searched if common.is_some() => Way::Either,
                    way @ (Way::Direct | Way::Searched | Way::Either | Way::Relayed) => way,
                }
            }
        }
    }

    /// A site's router and those outside of it.
    fn chain(&self, site: SiteId) -> Vec<SiteId> {
        std::iter::successors(Some(site), |site| self.carrier(*site)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::chance::Chance;
    use crate::sim::underlay::SiteSpec;

    const ALL: [Depends; 3] = [Depends::Nothing, Depends::Address, Depends::Port];

    #[test]
    fn endpoint_independent_mapping_on_both_sides_always_meets() {
        for (a, b) in ALL.into_iter().flat_map(|a| ALL.map(|b| (a, b))) {
            let nat = |filtering| Behaviour::nat(Depends::Nothing, filtering);
            assert_eq!(between(&[nat(a)], &[nat(b)]), Way::Direct);
        }
    }

    #[test]
    fn symmetric_meets_whoever_does_not_filter_per_port() {
        let symmetric = [Behaviour::symmetric()];
        assert_eq!(between(&symmetric, &[]), Way::Direct);
        assert_eq!(between(&symmetric, &[Behaviour::nat(Depends::Nothing, Depends::Address)]), Way::Direct);
        assert_eq!(between(&symmetric, &[Behaviour::port_restricted()]), Way::Searched);
        assert_eq!(between(&[Behaviour::firewall()], &symmetric), Way::Searched);
        assert_eq!(between(&symmetric, &symmetric), Way::Relayed);
    }

    #[test]
    fn ports_that_are_counted_are_predicted() {
        let counting = [Behaviour::counting()];
        assert_eq!(between(&counting, &[Behaviour::port_restricted()]), Way::Direct);
        assert_eq!(between(&counting, &counting), Way::Direct);
        assert_eq!(between(&counting, &[Behaviour::symmetric()]), Way::Relayed);
        assert_eq!(between(&counting, &[Behaviour::bare_masquerade()]), Way::Either);
    }

    #[test]
    fn the_strictest_box_of_a_chain_counts() {
        let open = Behaviour::nat(Depends::Nothing, Depends::Nothing);
        assert_eq!(between(&[open, Behaviour::symmetric()], &[Behaviour::port_restricted()]), Way::Searched);
        assert_eq!(between(&[open, Behaviour::port_restricted()], &[Behaviour::port_restricted()]), Way::Direct);
    }

    #[test]
    fn neighbours_behind_a_carrier_need_its_hairpin() {
        for hairpin in [false, true] {
            let mut underlay = Underlay::new(Chance::new(1));
            let behaviour = Some(Behaviour { hairpin, ..Behaviour::port_restricted() });
            let carrier = Some(underlay.add(SiteSpec { behaviour, ..SiteSpec::default() }));
            let home = SiteSpec { behaviour: Some(Behaviour::port_restricted()), carrier, ..SiteSpec::default() };
            let (a, b) = (underlay.add(home), underlay.add(home));
            assert_eq!(underlay.way(a, b), if hairpin { Way::Direct } else { Way::Relayed });
            assert_eq!(underlay.way(a, a), Way::Direct);
        }
    }
}
