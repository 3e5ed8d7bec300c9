//! A machine at another site is on the home LAN: that LAN's own DHCP server gives it its address, its router leads
//! it out. The daemon at home sits on the very LAN that it carries: what it seals must never travel through itself.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use lab::{Capture, Guest, Host, Lab, Nat, Ping, Process, Site, World};

const MEETING: Duration = Duration::from_secs(15);

/// Pings and their size while the packets of the underlay are counted.
const PINGS: u32 = 20;

/// What a DHCP client does with what it was given.
const TAKE: &str = r#"#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface" && ip route add default via "$router"
"#;

/// How the home LAN reaches the bridge with the TAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// A network card of its own, which has no address, is in the bridge; another one has the host's address.
    SecondCard,
    /// The only card is in the bridge, and the host's address is on the bridge: the ordinary KVM host.
    KvmHost,
}

struct Home {
    world: World,
    /// A machine of the home LAN that knows nothing of overlays.
    printer: Host,
    /// The machine at the other site.
    away: Guest,
    _server: Process,
}

impl Home {
    fn new(layout: Layout) -> Home {
        let mut lab = Lab::new();
        let server = lab.supernode_host("sn");
        let [home, other] = ["home", "other"].map(|name| lab.site(name, Nat::PortRestricted));
        let dhcp = serve_addresses(&lab, &home);
        let printer = lab.host(&home, "printer");
        let host = match layout {
            Layout::SecondCard => {
                let host = lab.host(&home, "h1");
                host.bridge("br0");
                home.plug(&host, "lan0");
                host.space.ip("link set lan0 master br0");
                host
            }
            Layout::KvmHost => lab.kvm_host(&home, "h1"),
        };
        let far = lab.host(&other, "h2");
        let world = World::with_hosts(lab, server, vec![(home, host), (other, far)]);
        let away = world.nodes[1].guest.clone();
        // What the lab gave it is not of this LAN.
        away.space.ip("addr flush dev eth0");
        Home { world, printer, away, _server: dhcp }
    }

    /// The machine away asks for an address until it has one.
    fn get_address(&self) -> Ipv4Addr {
        let script = self.world.lab.dir().join("take");
        fs::write(&script, TAKE).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let script = script.to_string_lossy();
        let words = ["busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "20", "-T", "1", "-s", &script];
        let output = self.away.space.run(&words);
        assert!(output.status.success(), "no address: {}", String::from_utf8_lossy(&output.stderr));
        let shown = self.away.space.ip("-4 -o addr show dev eth0");
        let (_, address) = shown.split_once("inet ").expect("an address");
        address.split('/').next().unwrap().parse().expect("an address")
    }

    /// Bytes that leave the home site towards the other one while so many pings cross.
    fn bytes_outside(&self, pings: u32) -> usize {
        let capture = Capture::start(&self.world.nodes[1].site.router, "wan0");
        let report = Ping::count_with(&self.away.space, self.printer.address, pings, &["-s", "1000"]);
        assert_eq!((report.replies.len(), report.duplicates), (usize::try_from(pings).unwrap(), 0), "{report:?}");
        capture.stop().iter().map(Vec::len).sum()
    }
}

/// The DHCP server of a site's LAN, on its router.
fn serve_addresses(lab: &Lab, site: &Site) -> Process {
    assert!(lab::find_tool("busybox").is_some(), "the test needs busybox: apt-get install busybox");
    let file = |name: &str| lab.dir().join(name).to_string_lossy().into_owned();
    let (config, leases, pid) = (file("udhcpd.conf"), file("udhcpd.leases"), file("udhcpd.pid"));
    let [first, last, router] = [150, 160, 1].map(|last| site.lan_address(last));
    let text = format!(
        "start {first}\nend {last}\ninterface lan0\nlease_file {leases}\npidfile {pid}\n\
         option subnet 255.255.255.0\noption router {router}\noption lease 600\n"
    );
    fs::write(&config, text).unwrap();
    fs::write(&leases, "").unwrap();
    let words = ["busybox", "udhcpd", "-f", &config].map(Into::into);
    site.router.spawn("udhcpd", &words)
}

#[track_caller]
fn is_at_home(layout: Layout) {
    let home = Home::new(layout);
    let address = home.get_address();
    let [a, b, c, last] = address.octets();
    assert_eq!(Ipv4Addr::new(a, b, c, 1), home.world.nodes[0].site.lan_address(1), "{layout:?}: of the home LAN");
    assert!((150..=160).contains(&last), "{layout:?}: {address} is of the server's range");
    for (from, to) in [(0, "n2"), (1, "n1")] {
        let path = home.world.nodes[from].daemon.wait_path(to, "direct", MEETING);
        assert!(path.is_some(), "{layout:?}: not direct");
    }

    let beyond = home.world.server.address;
    for (what, to) in [("a machine of the LAN", home.printer.address), ("beyond its router", beyond)] {
        let report = Ping::count(&home.away.space, to, 5);
        assert_eq!((report.replies.len(), report.duplicates), (5, 0), "{layout:?}: {what}: {report:?}");
    }
    let back = Ping::count(&home.printer.space, address, 5);
    assert_eq!((back.replies.len(), back.duplicates), (5, 0), "{layout:?}: from the LAN to it");
    let host = &home.world.nodes[0].host;
    assert_eq!(Ping::count(&host.space, beyond, 3).replies.len(), 3, "{layout:?}: the host itself reaches the world");

    // Request and answer of 1,042 bytes, sealed once: a packet that travelled through itself would be there twice.
    let met_itself = || home.world.nodes[0].daemon.counters()["underlay_loop"];
    let before = met_itself();
    let bytes = home.bytes_outside(PINGS);
    let carried = usize::try_from(PINGS).unwrap() * 2 * 1042;
    eprintln!("{layout:?}: {address}; {bytes} bytes outside for {carried} inside");
    assert!(bytes < carried * 3 / 2, "{layout:?}: {bytes} bytes outside for {carried} inside");
    assert_eq!(met_itself(), before, "{layout:?}: sealed packets came out of the TAP");
    let remote = &home.world.nodes[1].daemon.status().overlays[0].peers[0].path;
    let remote = remote.as_ref().and_then(|path| path.remote.clone()).unwrap();
    let outside = home.world.nodes[0].site.outside.to_string();
    assert!(remote.starts_with(&outside), "{layout:?}: the path leads to {remote}, not over the underlay to {outside}");
}

#[test]
fn a_machine_away_is_on_the_home_lan_through_a_network_card_in_the_bridge() {
    is_at_home(Layout::SecondCard);
}

#[test]
fn a_machine_away_is_on_the_home_lan_of_an_ordinary_kvm_host() {
    is_at_home(Layout::KvmHost);
}
