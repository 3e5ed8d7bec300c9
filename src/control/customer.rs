//! Who is behind an address: what one customer of a provider has.
//!
//! Limits count customers, not addresses, and members of one customer are taken to share its access link.

use std::net::{IpAddr, Ipv6Addr};

/// Bits of an IPv6 address that a site has in common (RFC 6177: up to a /48 each).
const PREFIX: u32 = 48;

/// An IPv4 address, or the network of an IPv6 one.
pub(super) fn customer(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => IpAddr::from(Ipv6Addr::from_bits(ip.to_bits() & !(u128::MAX >> PREFIX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_and_an_ipv6_48_are_customers() {
        let of = |text: &str| customer(text.parse().expect("an address"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("2001:db8:1::1"), of("2001:db8:2::1"));
    }
}
