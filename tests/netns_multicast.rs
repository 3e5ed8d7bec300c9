//! Multicast that is pruned, with the kernel's own IGMP and MLD: machines that join a group hear it, and to the others
//! nothing is carried.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use lab::{
    Capture, Daemon, Guest, Join, Lab, Nat, OVERLAY, PacketSocket, Ping, Supernode, inner_address, new_key, wait_for,
};
use socket2::{Domain, Socket, Type};

const MEETING: Duration = Duration::from_secs(15);
/// A segment has 12 s to answer the first question; then the others are told.
const KNOWN: Duration = Duration::from_secs(25);
/// Who left is asked for within 2 s, and gone 5 s after it left.
const GONE: Duration = Duration::from_secs(12);
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x42);
const PORT: u16 = 5007;
/// Datagrams of a burst.
const BURST: usize = 20;
const IGMP: u8 = 2;

/// Three nodes that prune, and one that does not.
struct Scene {
    daemons: Vec<Daemon>,
    guests: Vec<Guest>,
    _supernode: Supernode,
    _lab: Lab,
}

fn scene() -> Scene {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let supernode = Supernode::start(&lab, &server, &[]);
    let (key, mut daemons, mut guests) = (new_key(), Vec::new(), Vec::new());
    for number in 1..=4 {
        let site = lab.site(&format!("s{number}"), Nat::Open);
        let host = lab.host(&site, &format!("h{number}"));
        let guest = lab.guest(&host, &format!("g{number}"), inner_address(number));
        guest.space.sysctl("ipv6/conf/eth0/disable_ipv6", "0");
        guests.push(guest);
        let name = format!("n{number}");
        let key_file = lab.dir().join(format!("n4-{OVERLAY}.key"));
        if number == 4 {
            let join = Join::new(OVERLAY, &key, &name).supernode(&supernode.address).bridge("br0");
            daemons.push(Daemon::start(&lab, &host, &join));
            continue;
        }
        write_secret(&key_file, &key);
        let config = format!(
            "supernode = [{:?}]\n[[overlay]]\nname = {OVERLAY:?}\nkey-file = {key_file:?}\nbridge = \"br0\"\nmulticast = \"snoop\"\n",
            supernode.address
        );
        let file = lab.dir().join(format!("{name}.toml"));
        fs::write(&file, config).unwrap();
        daemons.push(Daemon::start_words(&lab, &host, &name, &name, &[], &["up", "--config", &file.to_string_lossy()]));
    }
    let scene = Scene { daemons, guests, _supernode: supernode, _lab: lab };
    for other in &scene.guests[1..] {
        Ping::until_answered(&scene.guests[0].space, other.address, MEETING);
    }
    scene
}

fn write_secret(path: &std::path::Path, key: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, format!("{key}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn index(guest: &Guest) -> u32 {
    let shown = guest.space.ip("-o link show dev eth0");
    shown.split(':').next().unwrap().trim().parse().unwrap()
}

/// Joins the group of a family.
fn listener(guest: &Guest, is_v6: bool) -> UdpSocket {
    let (address, index) = (guest.address, index(guest));
    guest.space.inside(|| {
        let socket = if is_v6 {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap();
            socket.join_multicast_v6(&GROUP_V6, index).unwrap();
            socket
        } else {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
            socket.join_multicast_v4(&GROUP, &address).unwrap();
            socket
        };
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket
    })
}

/// A burst to the group of a family.
fn cast(guest: &Guest, is_v6: bool) {
    let (address, index) = (guest.address, index(guest));
    guest.space.inside(|| {
        let socket = Socket::new(if is_v6 { Domain::IPV6 } else { Domain::IPV4 }, Type::DGRAM, None).unwrap();
        let to: SocketAddr = if is_v6 {
            socket.set_multicast_if_v6(index).unwrap();
            socket.set_multicast_hops_v6(4).unwrap();
            (GROUP_V6, PORT).into()
        } else {
            socket.set_multicast_if_v4(&address).unwrap();
            socket.set_multicast_ttl_v4(4).unwrap();
            (GROUP, PORT).into()
        };
        for number in 0..BURST {
            socket.send_to(&number.to_be_bytes(), &to.into()).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

fn received(socket: &UdpSocket) -> usize {
    let mut buffer = [0; 64];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count()
}

/// Datagrams of the group among frames.
fn carried(frames: &[Vec<u8>], is_v6: bool) -> usize {
    let [_, b, c, d] = GROUP.octets();
    let mac = if is_v6 { [0x33, 0x33, 0, 0, 0, 0x42] } else { [1, 0, 0x5e, b & 0x7f, c, d] };
    let is_datagram = |frame: &&Vec<u8>| frame[..6] == mac && frame[if is_v6 { 20 } else { 23 }] == 17;
    frames.iter().filter(is_datagram).count()
}

/// A burst of the first guest: how much of it was carried to each of the others.
fn reach(scene: &Scene, is_v6: bool) -> Vec<usize> {
    let captures = scene.guests[1..].iter().map(|guest| Capture::start(&guest.space, "eth0")).collect::<Vec<_>>();
    cast(&scene.guests[0], is_v6);
    std::thread::sleep(Duration::from_millis(300));
    captures.into_iter().map(|capture| carried(&capture.stop(), is_v6)).collect()
}

fn wait_reach(scene: &Scene, is_v6: bool, expected: &[usize], patience: Duration) {
    let mut last = Vec::new();
    let met = lab::poll_for(patience, || {
        last = reach(scene, is_v6);
        (last == expected).then_some(())
    });
    assert!(met.is_some(), "{last:?} arrived, not {expected:?}");
}

#[test]
fn a_group_is_carried_to_the_member_that_joined_and_not_to_the_one_that_did_not() {
    let scene = scene();
    for is_v6 in [false, true] {
        if is_v6 {
            wait_for("link-local addresses", MEETING, || {
                let is_ready = |guest: &Guest| {
                    let shown = guest.space.ip("-6 addr show dev eth0 scope link");
                    shown.contains("fe80::") && !shown.contains("tentative")
                };
                scene.guests.iter().all(is_ready).then_some(())
            });
        }
        let socket = listener(&scene.guests[1], is_v6);
        wait_reach(&scene, is_v6, &[BURST, 0, BURST], KNOWN);
        while received(&socket) > 0 {}
        cast(&scene.guests[0], is_v6);
        assert_eq!(received(&socket), BURST);
        assert!(scene.daemons[0].counters()["pruned"] > 0, "{}", scene.daemons[0].show(&["status"]));
        // Another one joins: it hears the group within two seconds.
        let other = listener(&scene.guests[2], is_v6);
        wait_reach(&scene, is_v6, &[BURST; 3], Duration::from_secs(4));
        drop(socket);
        wait_reach(&scene, is_v6, &[0, BURST, BURST], GONE);
        drop(other);
        // Nobody wants it: everybody hears it.
        wait_reach(&scene, is_v6, &[BURST; 3], GONE);
    }
}

/// IGMPv2: "who wants to hear which group?", from a router with this guest's address.
fn question(guest: &Guest) -> Vec<u8> {
    let mut frame = [&[1, 0, 0x5e, 0, 0, 1][..], &guest.mac.0, &[8, 0]].concat();
    let mut ip = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 1, IGMP, 0, 0];
    ip.extend(guest.address.octets());
    ip.extend([224, 0, 0, 1]);
    let sum = longwire::datapath::checksum::sum(&ip);
    ip[10..12].copy_from_slice(&(!sum).to_be_bytes());
    frame.extend(ip);
    // Ten tenths of a second; the sum of the two words.
    frame.extend([0x11, 10, 0xee, 0xf5, 0, 0, 0, 0]);
    frame.resize(60, 0);
    frame
}

#[test]
fn a_router_hears_reports_and_every_group_and_its_questions_are_answered() {
    let scene = scene();
    let _socket = listener(&scene.guests[1], false);
    wait_reach(&scene, false, &[BURST, 0, BURST], KNOWN);
    let router = &scene.guests[2];
    let capture = Capture::start(&router.space, "eth0");
    PacketSocket::open(&router.space, "eth0").send(&question(router)).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    // A report that was sent before the others knew of the router is for nobody: it asks again, as routers do.
    PacketSocket::open(&router.space, "eth0").send(&question(router)).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let is_report = |frame: &&Vec<u8>| {
        let at = 14 + usize::from(frame[14] & 0x0f) * 4;
        frame[12..14] == [8, 0] && frame[23] == IGMP && matches!(frame.get(at), Some(0x12 | 0x16 | 0x22))
    };
    let from = |frame: &&Vec<u8>| frame[6..12] == scene.guests[1].mac.0;
    let reports = capture.stop().iter().filter(is_report).filter(from).count();
    assert!(reports > 0, "no report of the listener came to the router");
    wait_reach(&scene, false, &[BURST; 3], Duration::from_secs(4));
}
