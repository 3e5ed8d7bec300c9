//! Hosts that change: address, interface, site, the NAT in front; measured by a numbered stream each way and a TCP
//! transfer beside them, which must survive.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod lab;

use std::time::Duration;

use lab::{Nat, Ping, Stream, Transfer, World};

const MEETING: Duration = Duration::from_secs(20);

/// Datagrams per second of a stream.
const RATE: u32 = 200;

/// A stream before and after the change.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(8);

/// Another address, or another interface, of the same site.
const ADDRESS_GAP_MAX: Duration = Duration::from_secs(2);

/// Another outside port or address, another site.
const NAT_GAP_MAX: Duration = Duration::from_secs(4);

/// The first host's machine talks with the second's while something changes.
struct Talk {
    world: World,
    streams: [Stream; 2],
    transfer: Transfer,
}

impl Talk {
    /// Two nodes at sites of these kinds; the paths between them must be of this one.
    fn new(kinds: &[Nat], kind: &str) -> Talk {
        Talk::of(World::new(kinds), kind)
    }

    fn of(world: World, kind: &str) -> Talk {
        world.wait_paths(kind, MEETING);
        let (one, other) = (&world.nodes[0].guest, &world.nodes[1].guest);
        Ping::until_answered(&one.space, other.address, MEETING);
        let streams =
            [(one, other), (other, one)].map(|(from, to)| Stream::start(&from.space, (&to.space, to.address), RATE));
        let transfer = Transfer::start(&other.space, (&one.space, one.address));
        std::thread::sleep(BEFORE);
        Talk { world, streams, transfer }
    }

    /// Waits; nothing may have been missing for longer than `limit`, nothing twice, and TCP must have gone on.
    #[track_caller]
    fn end(self, limit: Duration) -> World {
        std::thread::sleep(AFTER);
        let before = self.transfer.so_far();
        std::thread::sleep(Duration::from_secs(2));
        assert!(self.transfer.so_far() > before, "the TCP transfer stands still");
        let bytes = self.transfer.finish();
        let reports = self.streams.map(Stream::finish);
        let holes = reports.each_ref().map(lab::StreamReport::longest_hole);
        eprintln!("longest holes from and to the host: {holes:?}; TCP carried {bytes} bytes");
        assert!(holes.iter().all(|hole| *hole <= limit), "nothing passed for {holes:?}");
        assert!(reports.iter().all(|report| report.duplicates() == 0));
        self.world
    }
}

/// The first host takes another address of its LAN.
fn readdress(world: &World) {
    let node = &world.nodes[0];
    let (new, gateway) = (node.site.lan_address(99), node.site.lan_address(1));
    node.host.space.ip(&format!("addr del {}/24 dev {}", node.host.address, node.host.uplink));
    node.host.space.ip(&format!("addr add {new}/24 dev {}", node.host.uplink));
    node.host.space.ip(&format!("route replace default via {gateway}"));
}

#[test]
fn a_host_that_takes_another_address_is_followed() {
    for (kinds, kind) in [
        ([Nat::Open, Nat::Open], "direct"),
        ([Nat::PortRestricted, Nat::PortRestricted], "direct"),
        ([Nat::Symmetric, Nat::Symmetric], "relayed"),
    ] {
        eprintln!("{kinds:?}");
        let talk = Talk::new(&kinds, kind);
        readdress(&talk.world);
        talk.end(ADDRESS_GAP_MAX);
    }
}

#[test]
fn a_host_that_changes_its_interface_is_followed() {
    let talk = Talk::new(&[Nat::PortRestricted, Nat::Open], "direct");
    let node = &talk.world.nodes[0];
    let (new, gateway) = (node.site.lan_address(98), node.site.lan_address(1));
    let space = &node.host.space;
    space.ip(&format!("link add wlan0 type veth peer name wlan0p netns {}", node.site.router.name()));
    node.site.router.ip("link set wlan0p master lan0 up");
    space.ip("link set wlan0 up");
    space.ip(&format!("addr add {new}/24 dev wlan0 metric 500"));
    // The cable is pulled.
    space.ip("link set eth0 down");
    space.ip(&format!("route replace default via {gateway} dev wlan0"));
    talk.end(ADDRESS_GAP_MAX);
}

#[test]
fn a_flushed_translator_under_load_is_survived() {
    for (kinds, kind) in [
        ([Nat::PortRestricted, Nat::Open], "direct"),
        ([Nat::PortRestricted, Nat::PortRestricted], "direct"),
        ([Nat::Symmetric, Nat::Symmetric], "relayed"),
    ] {
        eprintln!("{kinds:?}");
        let talk = Talk::new(&kinds, kind);
        talk.world.nodes[0].site.reboot_router();
        talk.end(NAT_GAP_MAX);
    }
}

#[test]
fn a_new_outside_address_under_load_is_survived() {
    for (kinds, kind) in
        [([Nat::PortRestricted, Nat::PortRestricted], "direct"), ([Nat::Symmetric, Nat::Symmetric], "relayed")]
    {
        eprintln!("{kinds:?}");
        let talk = Talk::new(&kinds, kind);
        talk.world.nodes[0].site.readdress_router();
        talk.end(NAT_GAP_MAX);
    }
}

#[test]
fn a_host_that_moves_to_another_site_is_followed() {
    for (to, kind) in [(Nat::PortRestricted, "direct"), (Nat::Open, "direct"), (Nat::Symmetric, "relayed")] {
        eprintln!("to {to:?}");
        let mut world = World::new(&[Nat::PortRestricted, Nat::PortRestricted]);
        let site = world.lab.site("s9", to);
        let talk = Talk::of(world, "direct");
        let node = &talk.world.nodes[0];
        let (new, gateway) = (site.lan_address(97), site.lan_address(1));
        let space = &node.host.space;
        space.ip("link set eth0 down");
        space.ip(&format!("addr del {}/24 dev eth0", node.host.address));
        space.ip(&format!("link add eth9 type veth peer name eth9p netns {}", site.router.name()));
        site.router.ip("link set eth9p master lan0 up");
        space.ip("link set eth9 up");
        space.ip(&format!("addr add {new}/24 dev eth9"));
        space.ip(&format!("route replace default via {gateway} dev eth9"));
        let world = talk.end(NAT_GAP_MAX);
        world.wait_paths(kind, MEETING);
    }
}
