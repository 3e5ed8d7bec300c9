//! Reservations as a user writes them: rates in bytes per second, peers by name.

use std::collections::BTreeMap;

use crate::datapath::{Marking, Share};

/// Bytes per second of a megabit per second, in which users count.
pub const MEGABIT: u64 = 125_000;
/// Members of one overlay for whom something is reserved.
pub const RESERVED_MAX: usize = 256;

/// What is reserved in one overlay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReserveSettings {
    /// For all its peers together.
    pub overlay: Share,
    /// For single peers, by name or id.
    pub peers: BTreeMap<String, Share>,
    /// What its outer packets are marked with.
    pub marking: Marking,
}

impl ReserveSettings {
    /// What is guaranteed: the peers' guarantees come out of nobody's but their own.
    pub fn promised(&self) -> u64 {
        let of_peers = self.peers.values().filter_map(|share| share.rate).fold(0, u64::saturating_add);
        of_peers.saturating_add(self.overlay.rate.unwrap_or(0))
    }
}

/// Why these cannot all hold, if they cannot: guarantees beyond the uplink, or beyond a cap of their own.
pub fn contradiction<'a>(
    uplink: Option<u64>,
    overlays: impl IntoIterator<Item = (&'a str, &'a ReserveSettings)>,
) -> Option<String> {
    let mut promised = 0_u64;
    for (name, settings) in overlays {
        let ReserveSettings { overlay, peers, .. } = settings;
        let of_peers = peers.values().filter_map(|share| share.rate).fold(0, u64::saturating_add);
        for (who, share) in peers.iter().map(|(peer, share)| (peer.as_str(), share)).chain([(name, overlay)]) {
            if let (Some(rate), Some(cap)) = (share.rate, share.cap)
                && rate > cap
            {
                return Some(format!("{who} is guaranteed more than it may use"));
            }
        }
        if overlay.cap.is_some_and(|cap| of_peers > cap) {
            return Some(format!("the peers of {name} are guaranteed more than it may use"));
        }
        promised = promised.saturating_add(settings.promised());
    }
    uplink.filter(|uplink| promised > *uplink).map(|_| "more is guaranteed than the uplink carries".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_that_cannot_be_kept_are_found_out() {
        let share = |rate, cap| Share { rate, cap };
        let settings = |overlay, peer| ReserveSettings {
            overlay,
            peers: BTreeMap::from([("mill".to_owned(), peer)]),
            marking: Marking::None,
        };
        let says = |uplink, one: &ReserveSettings| contradiction(uplink, [("lab", one)]).unwrap_or_default();
        let fits = settings(share(Some(5), Some(10)), share(Some(5), None));
        assert_eq!((says(Some(10), &fits), says(None, &fits)), (String::new(), String::new()));
        assert!(says(Some(9), &fits).contains("uplink"));
        assert!(says(None, &settings(Share::default(), share(Some(2), Some(1)))).starts_with("mill is guaranteed"));
        assert!(says(None, &settings(share(None, Some(1)), share(Some(2), None))).starts_with("the peers of lab"));
    }
}
