//! Networks that the host's own routes lead into an overlay: no peer is sought there, or an overlay would
//! run through another one, or through itself.

use std::net::IpAddr;

use crate::seam::NetworkRoute;

/// The host's routes, as far as overlays are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inward {
    /// Longest prefix first: the first that fits is the one that is taken.
    routes: Vec<NetworkRoute>,
}

impl Inward {
    /// Of these routes; what fits none is not inward.
    pub fn new(mut routes: Vec<NetworkRoute>) -> Self {
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix));
        Self { routes }
    }

    /// Whether packets to `ip` would go into an overlay.
    pub fn leads_to(&self, ip: IpAddr) -> bool {
        self.routes.iter().find(|route| route.covers(ip)).is_some_and(|route| route.is_inward)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(network: &str, prefix: u8, is_inward: bool) -> NetworkRoute {
        NetworkRoute { network: network.parse().expect("an address"), prefix, is_inward }
    }

    #[test]
    fn the_longest_prefix_decides() {
        let inward = Inward::new(vec![
            route("0.0.0.0", 0, true),
            route("10.77.0.0", 16, true),
            route("10.77.9.0", 24, false),
            route("192.0.2.7", 32, false),
            route("fd77::", 16, true),
        ]);
        for (ip, expected) in [
            ("10.77.1.1", true),
            ("10.77.9.1", false),
            ("192.0.2.7", false),
            ("192.0.2.8", true),
            ("fd77::1", true),
            ("2001:db8::1", false),
        ] {
            assert_eq!(inward.leads_to(ip.parse().expect("an address")), expected, "{ip}");
        }
        assert!(!Inward::default().leads_to(IpAddr::from([10, 77, 1, 1])));
    }
}
