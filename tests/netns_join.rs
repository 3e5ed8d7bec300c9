//! From `up` to a working LAN: how fast, without loss on the way to a direct path.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::time::{Duration, Instant, SystemTime};

use lab::{Daemon, Guest, Host, Join, Lab, Nat, Ping, Supernode, World, inner_address, new_key, poll_for, wait_for};

/// From `up` to the first answered ping.
const JOIN_MAX: Duration = Duration::from_secs(2);

/// From the last `up` to a direct path.
const DIRECT_MAX: Duration = Duration::from_secs(5);

struct Scene {
    supernode: Supernode,
    hosts: [Host; 2],
    key: String,
    lab: Lab,
}

impl Scene {
    fn new() -> Scene {
        let mut lab = Lab::new();
        let server = lab.supernode_host("sn");
        let hosts = ["1", "2"].map(|number| {
            let site = lab.site(&format!("s{number}"), Nat::PortRestricted);
            lab.host(&site, &format!("h{number}"))
        });
        Scene { supernode: Supernode::start(&lab, &server, &[]), hosts, key: new_key(), lab }
    }

    fn up(&self, index: usize) -> Daemon {
        let join =
            Join::new("lan", &self.key, &format!("n{}", index + 1)).supernode(&self.supernode.address).bridge("br0");
        Daemon::start(&self.lab, &self.hosts[index], &join)
    }

    fn guest(&mut self, index: usize) -> Guest {
        let name = format!("g{}", index + 1);
        self.lab.guest(&self.hosts[index], &name, inner_address(index + 1))
    }
}

#[test]
fn two_sites_behind_nats_ping_within_two_seconds_and_become_direct_without_loss() {
    let mut scene = Scene::new();
    let guests = [scene.guest(0), scene.guest(1)];
    let first = scene.up(0);
    first.status();
    let interval = Duration::from_millis(20);
    let ping = Ping::start(&guests[0].space, guests[1].address, interval, &[]);
    std::thread::sleep(Duration::from_millis(300));

    let (up_at, start) = (SystemTime::now(), Instant::now());
    let second = scene.up(1);
    let kinds =
        poll_for(DIRECT_MAX, || (first.path_to("n2") == "direct" && second.path_to("n1") == "direct").then_some(()));
    let direct_after = start.elapsed();
    std::thread::sleep(Duration::from_secs(1));
    let report = ping.finish();
    let joined = report.replies.first().map(|reply| {
        let since = reply.at.duration_since(up_at);
        since.unwrap_or_default()
    });
    eprintln!("joined after {joined:?}, direct after {direct_after:?}");
    assert!(joined.is_some_and(|time| time <= JOIN_MAX), "first answer after {joined:?}");
    assert!(kinds.is_some(), "not direct within {DIRECT_MAX:?}");
    assert_eq!(report.missing_after_first(), Vec::<u32>::new(), "lost after the first answer");
    assert_eq!(report.duplicates, 0);
}

#[test]
fn up_makes_the_bridge_and_status_peers_and_fdb_tell_what_is_there() {
    let mut scene = Scene::new();
    let daemons = [scene.up(0), scene.up(1)];
    for host in &scene.hosts {
        wait_for("`up --bridge` makes the bridge", DIRECT_MAX, || host.space.has_link("br0").then_some(()));
    }
    let guests = [scene.guest(0), scene.guest(1)];
    let ping = Ping::start(&guests[0].space, guests[1].address, Duration::from_millis(100), &[]);
    wait_for("a first answered ping", DIRECT_MAX, || (!ping.so_far().replies.is_empty()).then_some(()));
    assert!(daemons[0].wait_path("n2", "direct", DIRECT_MAX).is_some());

    let status = daemons[0].status();
    assert_eq!(status.node, "n1");
    let overlay = &status.overlays[0];
    assert_eq!((overlay.name.as_str(), overlay.peers.len()), ("lan", 1));
    assert_eq!(overlay.supernodes[0].state, "up");
    let tap = overlay.tap.clone().unwrap();
    let shown = scene.hosts[0].space.ip(&format!("link show dev {tap}"));
    assert!(shown.contains("master br0") && shown.contains("mtu 1500"), "{shown}");
    let peer = &overlay.peers[0];
    assert_eq!(peer.name.as_deref(), Some("n2"));
    assert_eq!(peer.state, "up");
    assert!(peer.tx_bytes.unwrap() > 0 && peer.rx_bytes.unwrap() > 0, "{peer:?}");
    let remote = peer.path.as_ref().and_then(|path| path.remote.clone());
    assert!(remote.unwrap().starts_with("198.18.2.2:"), "the other NAT's address");
    let peers = daemons[0].try_ask("peers").unwrap();
    assert!(peers.to_string().contains("n2"), "{peers}");

    let fdb = daemons[0].fdb();
    let port_of = |guest: &Guest| {
        let mac = guest.mac.to_string();
        let entry = fdb.iter().find(|entry| entry.mac == mac && entry.vlan == 0);
        entry.map(|entry| entry.port.clone())
    };
    assert_eq!(port_of(&guests[0]).as_deref(), Some("tap"));
    assert_eq!(port_of(&guests[1]).as_deref(), Some("n2"));
    let explained = daemons[0].show(&["explain", "n2"]);
    assert!(explained.contains("198.18.2.2"), "{explained}");
}

#[test]
fn a_node_that_sees_nobody_says_so() {
    let scene = Scene::new();
    let lonely = scene.up(0);
    wait_for("the warning", Duration::from_secs(15), || {
        lonely.process().stderr().contains("alone in lan").then_some(())
    });
    let _other = scene.up(1);
    assert!(lonely.wait_path("n2", "direct", DIRECT_MAX).is_some(), "later it finds the other");
}

#[test]
fn a_node_finds_a_supernode_that_starts_after_it() {
    let mut scene = Scene::new();
    scene.supernode.process().kill();
    let daemons = [scene.up(0), scene.up(1)];
    daemons[0].status();
    std::thread::sleep(Duration::from_secs(3));
    scene.supernode.start_again();
    assert!(daemons[0].wait_path("n2", "direct", DIRECT_MAX * 2).is_some());
}

/// The words of each line of a table, below its head.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().skip_while(|line| !line.starts_with("CANDIDATE")).skip(1);
    lines.map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect()
}

#[test]
fn explain_shows_each_address_that_was_tried_what_came_back_and_why() {
    let world = World::new(&[Nat::Symmetric, Nat::Restricted, Nat::Symmetric]);
    let [one, other, behind] = [0, 1, 2].map(|place: usize| &world.nodes[place]);
    assert!(one.daemon.wait_path("n2", "direct", DIRECT_MAX).is_some());
    assert!(one.daemon.wait_path("n3", "relayed", DIRECT_MAX).is_some());
    std::thread::sleep(Duration::from_secs(1));

    let shown = one.daemon.show(&["explain", "n2"]);
    let outside = format!("{}:7777", other.site.outside);
    assert!(shown.starts_with(&format!("n2 in lan: up, direct {outside}\ndirect, because ")), "{shown}");
    let tried = rows(&shown);
    let row = |place: &str| tried.iter().find(|row| row[0] == place).unwrap_or_else(|| panic!("no {place}: {shown}"));
    let used = row(&outside);
    assert!(used[1] == "reflexive" || used[1] == "peer-reflexive", "{used:?}");
    let counts = [used[2], used[4]];
    assert!(counts.iter().all(|count| count.parse::<u32>().is_ok_and(|count| count > 0)), "{used:?}");
    assert!(used.contains(&"in use"), "{used:?}");
    // Its address on its own LAN was tried too, and nobody answered there.
    let lan = row(&format!("{}:7777", other.host.address)).clone();
    assert_eq!((lan[1], lan[4]), ("host", "0"), "{lan:?}");
    assert!(lan[2].parse::<u32>().is_ok_and(|probes| probes > 0), "{lan:?}");
    assert!(lan.last().is_some_and(|result| result.starts_with("no answer yet")), "{lan:?}");

    let shown = one.daemon.show(&["explain", "n3"]);
    let relay = &world.supernode.address;
    assert!(shown.contains("NAT here: seen as ") && shown.contains("NAT there: mapping "), "{shown}");
    assert!(shown.starts_with(&format!("n3 in lan: up, relayed by {relay}\nrelayed, because ")), "{shown}");
    assert!(shown.contains("a direct path is sought "), "{shown}");
    let tried = rows(&shown);
    assert!(tried.iter().any(|row| row[0].starts_with(&behind.site.outside.to_string())), "{shown}");
    assert!(tried.iter().all(|row| row.last().is_some_and(|result| result.starts_with("no answer yet"))), "{shown}");

    let output = one.daemon.run(&["explain", "n2", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((json["overlay"].as_str(), json["peer"]["path"]["kind"].as_str()), (Some("lan"), Some("direct")));
    assert_eq!(json["candidates"].as_array().map(Vec::len), Some(rows(&one.daemon.show(&["explain", "n2"])).len()));

    let output = one.daemon.run(&["explain", "nobody"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no peer is called \"nobody\"; `longwire peers` lists them"), "{said}");
}
