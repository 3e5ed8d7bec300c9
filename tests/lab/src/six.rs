//! IPv6 for parts of a lab that want it: routed like the public addresses, never translated.

use std::net::Ipv6Addr;

use super::{Host, Lab, Site, Space};

/// What the router of a site does to strangers that come by IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Six {
    /// Lets them in.
    Open,
    /// Lets in what answers.
    Firewall,
}

const FIREWALL: &str = r#"
table ip6 site {
    chain through {
        type filter hook forward priority 0
        iifname != "wan0" accept
        ct state established,related accept
        meta l4proto ipv6-icmp accept
        drop
    }
}
"#;

impl Lab {
    /// An IPv6 address for a supernode host, besides its others.
    pub fn six_for_server(&self, host: &Host) -> Ipv6Addr {
        let number = host.address.octets()[3];
        enable(&self.inet, &format!("to-{}", host.name), &format!("2001:db8:ff:{number}::1"));
        let address = format!("2001:db8:ff:{number}::2");
        enable(&host.space, "eth0", &address);
        host.space.ip(&format!("-6 route add default via 2001:db8:ff:{number}::1"));
        address.parse().expect("an address")
    }

    /// IPv6 for a site and a host of it; the host's address.
    pub fn six_for_site(&self, site: &Site, host: &Host, six: Six) -> Ipv6Addr {
        let number = site.outside.octets()[2];
        enable(&self.inet, &site.inet_link, &format!("2001:db8:{number}::1"));
        enable(&site.router, "wan0", &format!("2001:db8:{number}::2"));
        enable(&site.router, "lan0", &format!("2001:db8:{number}:1::1"));
        self.inet.ip(&format!("-6 route add 2001:db8:{number}:1::/64 via 2001:db8:{number}::2"));
        site.router.ip(&format!("-6 route add default via 2001:db8:{number}::1"));
        if six == Six::Firewall {
            site.router.nft(FIREWALL);
        }
        let address = format!("2001:db8:{number}:1::{}", host.address.octets()[3]);
        enable(&host.space, host.uplink, &address);
        host.space.ip(&format!("-6 route add default via 2001:db8:{number}:1::1"));
        address.parse().expect("an address")
    }
}

/// An interface speaks IPv6 from now on; it is not asked first whether somebody else has the address.
fn enable(space: &Space, interface: &str, address: &str) {
    space.sysctl("ipv6/conf/all/forwarding", "1");
    space.sysctl(&format!("ipv6/conf/{interface}/accept_dad"), "0");
    space.sysctl(&format!("ipv6/conf/{interface}/disable_ipv6"), "0");
    space.ip(&format!("addr add {address}/64 dev {interface} nodad"));
}
