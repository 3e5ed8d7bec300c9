//! The boxes: supernode hosts, sites with their routers, hosts, guests.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use super::emulator::{Emulator, Impairment};
use super::process::wait_for;
use super::{Lab, Mac, Nat, Space, fail};

/// Where the interface indices of cables begin; those that the kernel gives are smaller.
const FIRST_INDEX: u32 = 1000;

/// Bits 14 and 3 of a bridge's `group_fwd_mask`: it swallows those groups otherwise.
const LLDP_AND_EAPOL: u16 = 0x4008;

/// Sites of one lab: their numbers stay below 77, which guests' addresses use.
const SITES_MAX: u8 = 70;

/// Supernode hosts of one lab: 203.0.113.0/24 in parts of eight addresses.
const SUPERNODES_MAX: u8 = 30;

/// The first host of a site's LAN has this last byte.
const FIRST_HOST: u8 = 11;

/// An access link with its router, and the LAN behind it.
#[derive(Clone)]
pub struct Site {
    /// The site's name.
    pub name: String,
    /// What stands in front of it.
    pub nat: Nat,
    /// The router's namespace: `wan0` outside, `lan0` (a bridge) inside.
    pub router: Space,
    /// The router's address outside at the start: 198.18.N.2, or 100.64.N.2 behind a carrier's NAT.
    pub outside: Ipv4Addr,
    /// The last byte of what it is now.
    outside_now: Arc<AtomicU8>,
    /// The link in `inet` towards this site.
    pub inet_link: String,
    lan: [u8; 3],
    hosts: Arc<AtomicU8>,
    emulator: Option<Emulator>,
}

impl Site {
    /// Changes what the access link does to packets, both ways.
    #[track_caller]
    pub fn impair(&self, impairment: Impairment) {
        match &self.emulator {
            Some(emulator) => emulator.set(impairment),
            None => fail(format_args!("site {} has a plain link: make it with Lab::emulated_site", self.name)),
        }
    }

    /// The router forgets its rules and notes and starts anew (flows that go on are kept).
    pub fn reload_rules(&self) {
        self.load_rules("");
    }

    fn outside_now(&self) -> Ipv4Addr {
        let [a, b, c, _] = self.outside.octets();
        Ipv4Addr::new(a, b, c, self.outside_now.load(Ordering::Relaxed))
    }

    fn load_rules(&self, ports: &str) {
        let ([a, b, c], outside) = (self.lan, self.outside_now());
        let rules = self.nat.rules_with_ports(&outside.to_string(), &format!("{a}.{b}.{c}.0/24"), ports);
        self.router.nft(&format!("table ip site\ndelete table ip site\n{rules}"));
    }

    /// The router reboots: every flow is forgotten, and what goes out has other outside ports from then on
    /// (only addresses that are translated have any).
    pub fn reboot_router(&self) {
        self.load_rules(":40000-49999");
        self.router.forget_flows();
    }

    /// The provider gives the router another address: flows and the old address are gone.
    pub fn readdress_router(&self) {
        let [a, b, c, last] = self.outside_now().octets();
        self.router.ip(&format!("addr del {}/24 dev wan0", self.outside_now()));
        self.outside_now.store(if last < 100 { last + 100 } else { last - 100 }, Ordering::Relaxed);
        self.router.ip(&format!("addr add {}/24 dev wan0", self.outside_now()));
        self.router.ip(&format!("route replace default via {a}.{b}.{c}.1"));
        self.load_rules("");
        self.router.forget_flows();
    }

    /// A cable from the LAN to an interface of a host that has none of that name yet.
    pub fn plug(&self, host: &Host, interface: &str) {
        let port = format!("{}-{interface}", host.name);
        wire(&host.space, interface, &self.router, &port);
        self.router.ip(&format!("link set {port} master lan0"));
    }

    /// Only TCP to this port leaves, only its answers come in.
    pub fn block_all_but_tcp(&self, port: u16) {
        self.router.nft(&format!(
            r#"table ip block {{
                chain through {{
                    type filter hook forward priority -10
                    ct state established,related meta l4proto tcp accept
                    iifname != "wan0" tcp dport {port} accept
                    drop
                }}
            }}"#
        ));
    }

    /// Takes that back.
    pub fn unblock(&self) {
        self.router.nft("delete table ip block");
    }

    /// An address of the LAN.
    pub fn lan_address(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.lan;
        Ipv4Addr::new(a, b, c, last)
    }
}

/// A computer that runs a daemon.
#[derive(Clone)]
pub struct Host {
    /// The host's name.
    pub name: String,
    /// Its namespace.
    pub space: Space,
    /// Its own address on the underlay.
    pub address: Ipv4Addr,
    /// A second address (supernode hosts have one).
    pub second: Option<Ipv4Addr>,
    /// The interface that has the address: `eth0`, or `br0` of an ordinary KVM host.
    pub uplink: &'static str,
}

impl Host {
    /// A bridge set up as `--bridge` sets up one that it makes; nothing is done if it is there. It has an address of its
    /// own: otherwise it would take another one when something is plugged in, and the host would be lost for a while to
    /// those who know the old one.
    pub fn bridge(&self, bridge: &str) {
        if !self.space.has_link(bridge) {
            let [.., high, low] = self.space.shared().next_number().to_be_bytes();
            let mac = Mac([0x02, 0x9e, 0x57, 0xc3, high, low]);
            self.space.ip(&format!(
                "link add {bridge} address {mac} type bridge forward_delay 0 mcast_snooping 0 \
                 group_fwd_mask {LLDP_AND_EAPOL}"
            ));
            self.space.ip(&format!("link set {bridge} up"));
        }
    }
}

/// A cable between the bridges `br0` of two hosts: what the overlay is to replace.
pub fn join_bridges(one: &Host, other: &Host) {
    wire(&one.space, "cable", &other.space, "cable");
    for host in [one, other] {
        host.space.ip("link set cable master br0");
    }
}

/// A namespace in the place of a VM: `eth0` is on a bridge of a host.
#[derive(Clone)]
pub struct Guest {
    /// The guest's name.
    pub name: String,
    /// Its namespace.
    pub space: Space,
    /// Its inner address.
    pub address: Ipv4Addr,
    /// The MAC address of its `eth0`.
    pub mac: Mac,
    /// The host's end of its wire.
    pub port: String,
}

impl Guest {
    /// Unplugs it and plugs it into another host's bridge; it keeps MAC and address and says nothing.
    pub fn move_to(&self, from: &Host, to: &Host, bridge: &str) {
        let port = &self.port;
        from.space.ip(&format!("link set {port} netns {}", to.space.name()));
        to.space.ip(&format!("link set {port} master {bridge} up"));
    }

    /// Forgets all neighbours: the next packet asks by ARP.
    pub fn flush_neighbours(&self) {
        self.space.ip("neigh flush all");
    }
}

impl Lab {
    /// A host with two public addresses, nothing in front of it.
    pub fn supernode_host(&mut self, name: &str) -> Host {
        assert!(self.supernodes < SUPERNODES_MAX, "the lab has {SUPERNODES_MAX} supernode hosts at most");
        let base = self.supernodes * 8;
        self.supernodes += 1;
        let [router, first, second] = [1, 2, 3].map(|last| Ipv4Addr::new(203, 0, 113, base + last));
        let space = Space::new(&self.shared, name);
        let link = format!("to-{name}");
        wire(&space, "eth0", &self.inet, &link);
        self.inet.ip(&format!("addr add {router}/29 dev {link}"));
        space.ip(&format!("addr add {first}/29 dev eth0"));
        space.ip(&format!("addr add {second}/29 dev eth0"));
        space.ip(&format!("route add default via {router}"));
        Host { name: name.to_owned(), space, address: first, second: Some(second), uplink: "eth0" }
    }

    /// A site with a plain link.
    pub fn site(&mut self, name: &str, nat: Nat) -> Site {
        let router = self.next_router(name);
        let number = self.sites;
        wire(&router, "wan0", &self.inet, &format!("to-{name}"));
        self.inet.ip(&format!("addr add 198.18.{number}.1/24 dev to-{name}"));
        self.make_site(name, nat, router, Ipv4Addr::new(198, 18, number, 2), None)
    }

    /// A site whose access link passes the emulator.
    pub fn emulated_site(&mut self, name: &str, nat: Nat, impairment: Impairment) -> Site {
        let router = self.next_router(name);
        let (number, inet_link) = (self.sites, format!("to-{name}"));
        let between = Space::new(&self.shared, &format!("{name}-wire"));
        wire(&router, "wan0", &between, "site");
        wire(&self.inet, &inet_link, &between, "inet");
        // One frame is one packet: the emulator must not lose 40 at once.
        router.ip("link set wan0 gso_max_segs 1");
        self.inet.ip(&format!("link set {inet_link} gso_max_segs 1"));
        self.inet.ip(&format!("addr add 198.18.{number}.1/24 dev {inet_link}"));
        let emulator = Emulator::start(&self.shared, &between, ["site", "inet"], impairment);
        self.make_site(name, nat, router, Ipv4Addr::new(198, 18, number, 2), Some(emulator))
    }

    /// A site whose router has no public address either: the NAT of its carrier stands before it.
    pub fn carried_site(&mut self, name: &str, nat: Nat, carrier: Nat) -> Site {
        let router = self.next_router(name);
        let number = self.sites;
        let edge = Space::new(&self.shared, &format!("{name}-carrier"));
        edge.sysctl("ipv4/ip_forward", "1");
        wire(&router, "wan0", &edge, "lan0");
        wire(&edge, "wan0", &self.inet, &format!("to-{name}"));
        self.inet.ip(&format!("addr add 198.18.{number}.1/24 dev to-{name}"));
        edge.ip(&format!("addr add 198.18.{number}.2/24 dev wan0"));
        edge.ip(&format!("addr add 100.64.{number}.1/24 dev lan0"));
        edge.ip(&format!("route add default via 198.18.{number}.1"));
        edge.nft(&carrier.rules(&format!("198.18.{number}.2"), &format!("100.64.{number}.0/24")));
        self.make_site(name, nat, router, Ipv4Addr::new(100, 64, number, 2), None)
    }

    fn next_router(&mut self, name: &str) -> Space {
        assert!(self.sites < SITES_MAX, "the lab has {SITES_MAX} sites at most");
        self.sites += 1;
        let router = Space::new(&self.shared, &format!("{name}-router"));
        router.sysctl("ipv4/ip_forward", "1");
        router
    }

    /// All but the cable outwards, whose other end has the first address of its network.
    fn make_site(&self, name: &str, nat: Nat, router: Space, outside: Ipv4Addr, emulator: Option<Emulator>) -> Site {
        let [a, b, number, _] = outside.octets();
        router.ip(&format!("addr add {outside}/24 dev wan0"));
        router.ip(&format!("route add default via {a}.{b}.{number}.1"));
        let lan = if nat.translates() { [10, number, 0] } else { [198, 19, number] };
        let [a, b, c] = lan;
        router.ip("link add lan0 type bridge forward_delay 0 mcast_snooping 0");
        router.ip("link set lan0 up");
        router.ip(&format!("addr add {a}.{b}.{c}.1/24 dev lan0"));
        if !nat.translates() {
            self.inet.ip(&format!("route add {a}.{b}.{c}.0/24 via {outside}"));
        }
        let site = Site {
            name: name.to_owned(),
            nat,
            router,
            outside,
            outside_now: Arc::new(AtomicU8::new(outside.octets()[3])),
            inet_link: format!("to-{name}"),
            lan,
            hosts: Arc::new(AtomicU8::new(FIRST_HOST)),
            emulator,
        };
        site.reload_rules();
        site
    }

    /// A host on the LAN of a site, with its address on `eth0`.
    pub fn host(&mut self, site: &Site, name: &str) -> Host {
        self.make_host(site, name, false)
    }

    /// An ordinary KVM host: its only uplink is in `br0`, and its only address is on `br0`.
    pub fn kvm_host(&mut self, site: &Site, name: &str) -> Host {
        self.make_host(site, name, true)
    }

    fn make_host(&mut self, site: &Site, name: &str, bridged: bool) -> Host {
        let last = site.hosts.fetch_add(1, Ordering::Relaxed);
        let [a, b, c] = site.lan;
        let address = Ipv4Addr::new(a, b, c, last);
        let space = Space::new(&self.shared, name);
        let port = format!("p{last}");
        wire(&space, "eth0", &site.router, &port);
        site.router.ip(&format!("link set {port} master lan0"));
        let uplink = if bridged { "br0" } else { "eth0" };
        let host = Host { name: name.to_owned(), space, address, second: None, uplink };
        if bridged {
            host.bridge("br0");
            host.space.ip("link set eth0 master br0");
        }
        host.space.ip(&format!("addr add {address}/24 dev {uplink}"));
        host.space.ip(&format!("route add default via {a}.{b}.{c}.1"));
        host
    }

    /// A guest on `br0` of the host, which is made if it is missing. Its address is in 10.77.0.0/16.
    pub fn guest(&mut self, host: &Host, name: &str, address: Ipv4Addr) -> Guest {
        self.guest_on(host, "br0", name, address)
    }

    /// A guest on the named bridge.
    pub fn guest_on(&mut self, host: &Host, bridge: &str, name: &str, address: Ipv4Addr) -> Guest {
        host.bridge(bridge);
        self.guests += 1;
        let [high, low] = self.guests.to_be_bytes();
        let mac = Mac([0x02, 0x9e, 0x57, 0xc1, high, low]);
        let port = format!("vm{}", self.guests);
        let space = Space::new(&self.shared, name);
        wire(&space, "eth0", &host.space, &port);
        space.ip(&format!("link set eth0 address {mac} mtu 1500"));
        host.space.ip(&format!("link set {port} master {bridge}"));
        space.ip(&format!("addr add {address}/16 dev eth0"));
        // A lost ARP request is asked again after 0.1 s, not 1 s: figures of the first ping
        // are then those of the overlay.
        space.sysctl("ipv4/neigh/eth0/retrans_time_ms", "100");
        Guest { name: name.to_owned(), space, address, mac, port }
    }
}

/// A cable between two namespaces, both ends up.
///
/// Ends with equal interface indices would look to the kernel like no pair, and it would tell
/// their bridges up to a second late that the cable is in: so one end has a large index.
pub(super) fn wire(one: &Space, one_end: &str, other: &Space, other_end: &str) {
    let index = FIRST_INDEX + one.shared().next_number();
    one.ip(&format!("link add {one_end} index {index} type veth peer name {other_end} netns {}", other.name()));
    one.ip(&format!("link set {one_end} up"));
    other.ip(&format!("link set {other_end} up"));
    for (space, end) in [(one, one_end), (other, other_end)] {
        wait_for("a cable is in", Duration::from_secs(3), || {
            let shown = space.ip(&format!("link show dev {end}"));
            shown.contains("state UP").then_some(())
        });
    }
}
