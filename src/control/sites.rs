//! Which sites members are at, as far as the corridor has to know: a frame for everybody goes to each site once.
//!
//! What a member calls its site counts; without a name the customer that supernodes see it as ([`customer`]). Each
//! node judges for itself: those who judge otherwise divide their lists otherwise, and no frame is lost by it.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use super::Control;
use super::customer::customer;
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::{PortId, TAP};
use crate::datapath::{Command, Site};

impl Control {
    /// What is known of where a member is may have changed.
    pub(super) fn on_member_site(&mut self, port: PortId) {
        let Some(peer) = self.peers.get(&port) else { return };
        let site = site(&peer.site, peer.seen.values().next().map(|seen| seen.ip()));
        self.fx.commands.push_back(Command::SetSite { overlay: peer.overlay, port, site });
    }

    /// Where we are seen may have changed.
    pub(super) fn on_own_site(&mut self) {
        let seen = self.homes.iter().find_map(|home| home.seen);
        let site = site(&self.carrying.settings.site, seen.map(|seen| seen.ip()));
        let tell = |overlay| Command::SetSite { overlay: OverlayIndex(overlay), port: TAP, site };
        self.fx.commands.extend((0..self.overlays.len()).map(tell));
    }
}

fn site(name: &str, seen: Option<IpAddr>) -> Site {
    let mut hasher = SipHasher13::new();
    match (name, seen.map(customer)) {
        ("", None) => return Site::default(),
        ("", Some(IpAddr::V4(ip))) => hasher.write(&ip.octets()),
        ("", Some(IpAddr::V6(ip))) => hasher.write(&ip.octets()),
        (name, _) => hasher.write(name.as_bytes()),
    }
    Site(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_more_than_an_address_and_nothing_known_is_no_site() {
        let ip = |last| Some(IpAddr::from([192, 0, 2, last]));
        assert_eq!(site("mill", ip(1)), site("mill", ip(2)));
        assert_eq!(site("", ip(1)), site("", ip(1)));
        assert_ne!(site("", ip(1)), site("", ip(2)));
        assert_ne!(site("mill", None), site("forge", None));
        assert_eq!(site("", None), Site::default());
    }
}
