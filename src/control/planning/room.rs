//! Room for planners: each keeps a matrix and looks at the whole every two seconds, so there are not endlessly many.
//!
//! An overlay costs its members nothing: whoever wants can make hundreds. So who has the most planners gives way to who
//! has fewer, and a customer of a provider counts as one, whatever its overlays are called.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::keys::OverlayId;
use crate::time::Time;

/// Overlays that are planned for at a time; the others go their usual ways.
pub(super) const PLANNERS_MAX: usize = 256;
/// When there is no room, an overlay that has not reported for so long is no longer planned for.
const QUIET: Duration = Duration::from_secs(30);

/// An overlay that is planned for: whose report began that, and when its last one came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tenant {
    pub(super) by: IpAddr,
    pub(super) reported: Time,
}

/// Whether one more is planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// There is room.
    Free,
    /// This one gives way.
    Of(OverlayId),
    /// Nobody has to.
    None,
}

/// Room for an overlay of the customer `by`.
pub(super) fn room<'a>(now: Time, by: IpAddr, tenants: impl Iterator<Item = (&'a OverlayId, Tenant)> + Clone) -> Room {
    if tenants.clone().count() < PLANNERS_MAX {
        return Room::Free;
    }
    let silent = |(_, tenant): &(&OverlayId, Tenant)| tenant.reported;
    let quiet = tenants.clone().min_by_key(silent).filter(|(_, tenant)| now.since(tenant.reported) >= QUIET);
    if let Some((overlay, _)) = quiet {
        return Room::Of(*overlay);
    }
    let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (_, tenant) in tenants.clone() {
        *counts.entry(tenant.by).or_default() += 1;
    }
    let own = counts.get(&by).copied().unwrap_or(0);
    // One more here and one less there must not turn the tables, or both would take turns.
    let greatest = counts.iter().max_by_key(|(_, count)| **count).filter(|(_, count)| **count > own + 1);
    let theirs = tenants.filter(|(_, tenant)| greatest.is_some_and(|(greatest, _)| *greatest == tenant.by));
    theirs.min_by_key(silent).map_or(Room::None, |(overlay, _)| Room::Of(*overlay))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(number: usize) -> OverlayId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        OverlayId(id)
    }

    fn customer(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// What becomes of one more overlay of a customer, when so many are planned for already.
    fn ask(by: u8, taken: &[(u8, usize)]) -> Room {
        let customers = taken.iter().flat_map(|(by, count)| std::iter::repeat_n(customer(*by), *count));
        let tenants = customers.enumerate().map(|(number, by)| (overlay(number), Tenant { by, reported: Time::START }));
        let tenants = tenants.collect::<BTreeMap<_, _>>();
        room(Time::START, customer(by), tenants.iter().map(|(overlay, tenant)| (overlay, *tenant)))
    }

    #[test]
    fn who_has_taken_all_room_gives_way_to_others() {
        assert_eq!(ask(2, &[(1, PLANNERS_MAX - 1)]), Room::Free);
        assert_eq!(ask(2, &[(1, PLANNERS_MAX)]), Room::Of(overlay(0)));
        assert_eq!(ask(1, &[(1, PLANNERS_MAX)]), Room::None, "and not to itself");
    }

    #[test]
    fn equals_do_not_take_turns() {
        assert_eq!(ask(2, &[(1, 128), (2, 128)]), Room::None);
        assert_eq!(ask(2, &[(1, 129), (2, 127)]), Room::Of(overlay(0)));
    }

    #[test]
    fn who_fell_silent_gives_way_first() {
        let tenants: BTreeMap<_, _> = (0..PLANNERS_MAX)
            .map(|number| {
                let reported = if number == 7 { Time::START } else { Time::START + QUIET };
                (overlay(number), Tenant { by: customer(u8::from(number == 7)), reported })
            })
            .collect();
        let tenants = tenants.iter().map(|(overlay, tenant)| (overlay, *tenant));
        assert_eq!(room(Time::START + QUIET, customer(9), tenants), Room::Of(overlay(7)));
    }
}
