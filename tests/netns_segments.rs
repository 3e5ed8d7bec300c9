//! What hangs on a TAP and how hosts stand to each other: shared LANs, ordinary KVM hosts,
//! two overlays on the same hosts, a node that is a supernode too.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use lab::frame::marked;
use lab::{
    Daemon, Guest, Host, Join, Lab, Mac, Nat, PacketSocket, Ping, Supernode, World, inner_address, new_key, wait_for,
};

const MEETING: Duration = Duration::from_secs(15);

/// The overlays of the tests that have two, each with its bridge.
const COLOURS: [(&str, &str); 2] = [("red", "br0"), ("blue", "br1")];

/// How often a broadcast of one guest is heard by the other; so often it should be.
fn heard(from: &Guest, to: &Guest, mark: u64, expected: usize) -> usize {
    let (sender, receiver) = (PacketSocket::open(&from.space, "eth0"), PacketSocket::open(&to.space, "eth0"));
    let frame = marked(Mac::BROADCAST, Mac::foreign(u8::try_from(mark).unwrap()), mark);
    sender.send(&frame).unwrap();
    lab::heard(&[receiver], &frame, &[expected])[0]
}

/// Waits for the first answered ping, then expects that none is lost.
#[track_caller]
fn expect_pings(from: &Guest, to: &Guest) {
    let ping = Ping::start(&from.space, to.address, Duration::from_millis(100), &[]);
    wait_for("a first answered ping", MEETING, || (!ping.so_far().replies.is_empty()).then_some(()));
    drop(ping);
    let report = Ping::count(&from.space, to.address, 5);
    assert_eq!((report.replies.len(), report.duplicates), (5, 0), "{report:?}");
}

#[test]
fn two_nodes_behind_one_nat_hear_each_others_broadcasts_once() {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let site = lab.site("s", Nat::PortRestricted);
    let places = ["h1", "h2"].map(|name| (site.clone(), lab.host(&site, name)));
    let world = World::with_hosts(lab, server, places.into());
    world.wait_paths("direct", MEETING);
    let [one, other] = &world.nodes[..] else { panic!("two nodes") };
    assert_eq!(heard(&one.guest, &other.guest, 1, 1), 1);
    assert_eq!(heard(&other.guest, &one.guest, 2, 1), 1);
    let remote = one.daemon.status().overlays[0].peers[0].path.as_ref().and_then(|path| path.remote.clone());
    let lan = other.host.address.to_string();
    assert!(remote.is_some_and(|remote| remote.starts_with(&lan)), "the path leads over the LAN");
}

#[test]
fn an_ordinary_kvm_host_whose_only_address_is_on_the_bridge_works() {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let sites = ["s1", "s2"].map(|name| lab.site(name, Nat::PortRestricted));
    let [kvm, plain] = [lab.kvm_host(&sites[0], "h1"), lab.host(&sites[1], "h2")];
    let [s1, s2] = sites;
    let world = World::with_hosts(lab, server, vec![(s1, kvm), (s2, plain)]);
    world.wait_paths("direct", MEETING);
    let (one, other) = (&world.nodes[0], &world.nodes[1]);
    expect_pings(&one.guest, &other.guest);
    expect_pings(&other.guest, &one.guest);
    assert_eq!(heard(&one.guest, &other.guest, 1, 1), 1);
    let report = Ping::count(&one.host.space, world.server.address, 3);
    assert_eq!(report.replies.len(), 3, "the host itself still reaches the internet");
}

#[test]
fn two_overlays_with_equal_addresses_on_the_same_hosts_never_meet() {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let supernode = Supernode::start(&lab, &server, &[]);
    let hosts = ["1", "2"].map(|number| {
        let site = lab.site(&format!("s{number}"), Nat::PortRestricted);
        lab.host(&site, &format!("h{number}"))
    });
    let red = join_both(&mut lab, &hosts, &supernode, "red", "br0");
    let blue = join_both(&mut lab, &hosts, &supernode, "blue", "br1");
    for (red, blue) in red.1.iter().zip(&blue.1) {
        blue.space.ip(&format!("link set eth0 address {}", red.mac));
    }
    expect_pings(&red.1[0], &red.1[1]);
    expect_pings(&blue.1[0], &blue.1[1]);
    assert_eq!(heard(&red.1[0], &red.1[1], 1, 1), 1);
    assert_eq!(heard(&red.1[0], &blue.1[1], 2, 0), 0, "red is heard in blue");
    assert_eq!(heard(&blue.1[1], &red.1[0], 3, 0), 0, "blue is heard in red");
    // What red loses must not be answered by blue's machine of the same address.
    red.0[1].process().kill();
    assert_eq!(Ping::count(&red.1[0].space, red.1[1].address, 3).replies.len(), 0);
    assert_eq!(Ping::count(&blue.1[0].space, blue.1[1].address, 3).replies.len(), 3);
}

/// One daemon per host and overlay: the second takes any free UDP port.
fn join_both(
    lab: &mut Lab,
    hosts: &[Host; 2],
    supernode: &Supernode,
    overlay: &str,
    bridge: &str,
) -> ([Daemon; 2], [Guest; 2]) {
    let key = new_key();
    let pairs = [0, 1].map(|i| {
        let name = format!("{overlay}{}", i + 1);
        let guest = lab.guest_on(&hosts[i], bridge, &name, inner_address(i + 1));
        let join = Join::new(overlay, &key, &hosts[i].name).supernode(&supernode.address).bridge(bridge);
        (Daemon::start(lab, &hosts[i], &join), guest)
    });
    let [(d1, g1), (d2, g2)] = pairs;
    ([d1, d2], [g1, g2])
}

/// Two overlays of one daemon on a host: a bridge and a guest for each, one UDP port for both.
fn both_in_one(
    lab: &mut Lab,
    host: &Host,
    number: usize,
    supernode: &Supernode,
    keys: &[String; 2],
) -> (Daemon, [Guest; 2]) {
    let mut config = format!("port-mapping = false\nlan-discovery = false\nsupernode = [{:?}]\n", supernode.address);
    for ((overlay, bridge), key) in COLOURS.into_iter().zip(keys) {
        let file = lab.dir().join(format!("{overlay}.key"));
        fs::write(&file, key).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        config += &format!("[[overlay]]\nname = {overlay:?}\nkey-file = {file:?}\nbridge = {bridge:?}\n");
    }
    let file = lab.dir().join(format!("{number}.toml"));
    fs::write(&file, config).unwrap();
    let guests = COLOURS
        .map(|(overlay, bridge)| lab.guest_on(host, bridge, &format!("{overlay}{number}"), inner_address(number)));
    guests[1].space.ip(&format!("link set eth0 address {}", guests[0].mac));
    let (name, file) = (format!("n{number}"), file.to_string_lossy());
    (Daemon::start_words(lab, host, &name, &name, &[], &["up", "--config", &file]), guests)
}

#[test]
fn two_overlays_of_one_daemon_over_one_port_never_meet() {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let supernode = Supernode::start(&lab, &server, &[]);
    let keys = [new_key(), new_key()];
    let [one, other] = [1, 2].map(|number| {
        let site = lab.site(&format!("s{number}"), Nat::PortRestricted);
        let host = lab.host(&site, &format!("h{number}"));
        let (daemon, guests) = both_in_one(&mut lab, &host, number, &supernode, &keys);
        (daemon, guests, host)
    });
    let ([red, blue], [far_red, far_blue]) = (&one.1, &other.1);
    for guest in [red, blue] {
        assert!(guest.space.ip("link show dev eth0").contains(&red.mac.to_string()), "equal MACs");
    }
    expect_pings(red, far_red);
    expect_pings(blue, far_blue);
    for (daemon, _, host) in [&one, &other] {
        let ports = ["udp", "udp6"].map(|protocol| host.space.open_ports(protocol)).concat();
        assert_eq!(ports, [7777], "one port for everything");
        let names: Vec<String> = daemon.status().overlays.into_iter().map(|overlay| overlay.name).collect();
        assert_eq!(names, ["red", "blue"]);
    }
    let mac = far_red.mac.to_string();
    let places: Vec<_> = one.0.fdb().into_iter().filter(|entry| entry.mac == mac).collect();
    let overlays: Vec<_> = places.iter().map(|entry| (entry.overlay.as_str(), entry.port.as_str())).collect();
    assert_eq!(overlays, [("red", "n2"), ("blue", "n2")], "the same MAC is known in each");

    let output = one.0.run(&["explain", "n2"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("red/n2") && said.contains("blue/n2"), "{said}");
    assert!(one.0.show(&["explain", "blue/n2"]).starts_with("n2 in blue: up, direct "));

    for (mark, (from, to, strangers)) in (1..).zip([(red, far_red, [blue, far_blue]), (far_blue, blue, [red, far_red])])
    {
        let ears = strangers.map(|stranger| PacketSocket::open(&stranger.space, "eth0"));
        assert_eq!(heard(from, to, mark, 1), 1, "{} to {}", from.name, to.name);
        let leaked = |ear: &PacketSocket| {
            let frames = ear.collect(Duration::ZERO, |_| false);
            frames.iter().filter(|frame| frame[6..12] == Mac::foreign(u8::try_from(mark).unwrap()).0).count()
        };
        assert_eq!(ears.each_ref().map(leaked), [0, 0], "{} is heard in the other overlay", from.name);
    }
    // What red loses must not be answered by blue's machine of the same address.
    far_red.space.ip("link set eth0 down");
    assert_eq!(Ping::count(&red.space, far_red.address, 3).replies.len(), 0);
    assert_eq!(Ping::count(&blue.space, far_blue.address, 3).replies.len(), 3);
}

#[test]
fn a_member_that_serves_is_a_supernode_for_the_others() {
    let mut lab = Lab::new();
    let key = new_key();
    let mut members = Vec::new();
    let open = lab.site("open", Nat::Open);
    let serving = lab.host(&open, "h1");
    let address = format!("{}:7777", serving.address);
    for (i, nat) in [Nat::Open, Nat::Symmetric, Nat::Symmetric].into_iter().enumerate() {
        let number = i + 1;
        let host = match i {
            0 => serving.clone(),
            _ => {
                let site = lab.site(&format!("s{number}"), nat);
                lab.host(&site, &format!("h{number}"))
            }
        };
        let guest = lab.guest(&host, &format!("g{number}"), inner_address(number));
        let join = Join::new("lan", &key, &format!("n{number}")).bridge("br0");
        let join = match i {
            0 => join.word("--serve").word(&address),
            _ => join.supernode(&address),
        };
        members.push((Daemon::start(&lab, &host, &join), guest));
    }
    expect_pings(&members[1].1, &members[0].1);
    expect_pings(&members[1].1, &members[2].1);
    assert_eq!(members[1].0.path_to("n3"), "relayed");
    let direct = members[1].0.wait_path("n1", "direct", MEETING);
    assert!(direct.is_some(), "an open member is reached directly");
}
