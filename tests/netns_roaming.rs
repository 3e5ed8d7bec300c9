//! Hosts that change: address, interface, site, the NAT in front; measured by a numbered stream each way and a TCP
//! transfer beside them, which must survive.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::time::Duration;

use lab::{Nat, Site, Talk, World, at_once};

const MEETING: Duration = Duration::from_secs(20);

/// A stream after the change: longer than any gap that is allowed, and than TCP needs to stir again.
const AFTER: Duration = Duration::from_secs(8);

/// Another address, or another interface, of the same site.
const ADDRESS_GAP_MAX: Duration = Duration::from_secs(2);

/// Another outside port.
const FLUSH_GAP_MAX: Duration = Duration::from_secs(2);

/// Another outside address, another site.
const MOVE_GAP_MAX: Duration = Duration::from_secs(4);

/// Two nodes whose paths are of this kind talk while something happens to the first.
#[track_caller]
fn survives(world: &World, kind: &str, limit: Duration, happens: impl FnOnce(&World)) {
    world.wait_paths(kind, MEETING);
    let talk = Talk::start(&world.nodes[0].guest, &world.nodes[1].guest);
    happens(world);
    std::thread::sleep(AFTER);
    talk.finish_within(limit);
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
    let cases = [
        ([Nat::Open, Nat::Open], "direct"),
        ([Nat::PortRestricted, Nat::PortRestricted], "direct"),
        ([Nat::Symmetric, Nat::Symmetric], "relayed"),
    ];
    at_once(&cases, |(kinds, kind)| survives(&World::new(kinds), kind, ADDRESS_GAP_MAX, readdress));
}

#[test]
fn a_host_that_changes_its_interface_is_followed() {
    let world = World::new(&[Nat::PortRestricted, Nat::Open]);
    survives(&world, "direct", ADDRESS_GAP_MAX, |world| {
        let node = &world.nodes[0];
        let (new, gateway) = (node.site.lan_address(98), node.site.lan_address(1));
        let space = &node.host.space;
        space.ip(&format!("link add wlan0 type veth peer name wlan0p netns {}", node.site.router.name()));
        node.site.router.ip("link set wlan0p master lan0 up");
        space.ip("link set wlan0 up");
        space.ip(&format!("addr add {new}/24 dev wlan0 metric 500"));
        // The cable is pulled.
        space.ip("link set eth0 down");
        space.ip(&format!("route replace default via {gateway} dev wlan0"));
    });
}

#[test]
fn a_flushed_translator_under_load_is_survived() {
    let cases = [
        ([Nat::PortRestricted, Nat::Open], "direct"),
        ([Nat::PortRestricted, Nat::PortRestricted], "direct"),
        ([Nat::Symmetric, Nat::Symmetric], "relayed"),
    ];
    at_once(&cases, |(kinds, kind)| {
        survives(&World::new(kinds), kind, FLUSH_GAP_MAX, |world| world.nodes[0].site.reboot_router());
    });
}

#[test]
fn a_new_outside_address_under_load_is_survived() {
    let cases = [([Nat::PortRestricted, Nat::PortRestricted], "direct"), ([Nat::Symmetric, Nat::Symmetric], "relayed")];
    at_once(&cases, |(kinds, kind)| {
        survives(&World::new(kinds), kind, MOVE_GAP_MAX, |world| world.nodes[0].site.readdress_router());
    });
}

#[test]
fn a_host_that_moves_to_another_site_is_followed() {
    let cases = [(Nat::PortRestricted, "direct"), (Nat::Open, "direct"), (Nat::Symmetric, "relayed")];
    at_once(&cases, |(to, kind)| {
        let mut world = World::new(&[Nat::PortRestricted, Nat::PortRestricted]);
        let site = world.lab.site("s9", *to);
        survives(&world, "direct", MOVE_GAP_MAX, |world| move_to(world, &site));
        world.wait_paths(kind, MEETING);
    });
}

/// The first host leaves its site and is plugged in at another one.
fn move_to(world: &World, site: &Site) {
    let node = &world.nodes[0];
    let (new, gateway) = (site.lan_address(97), site.lan_address(1));
    let space = &node.host.space;
    space.ip("link set eth0 down");
    space.ip(&format!("addr del {}/24 dev eth0", node.host.address));
    space.ip(&format!("link add eth9 type veth peer name eth9p netns {}", site.router.name()));
    site.router.ip("link set eth9p master lan0 up");
    space.ip("link set eth9 up");
    space.ip(&format!("addr add {new}/24 dev eth9"));
    space.ip(&format!("route replace default via {gateway} dev eth9"));
}
