//! Members on one link find each other without a supernode; strangers learn nothing; announcements stay
//! on their link, even where the link's bridge holds the TAP.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::fs;
use std::time::Duration;

use lab::{Capture, Daemon, Guest, Host, Join, Lab, Nat, Ping, World, inner_address, new_key, poll_for, wait_for};

const MEETING: Duration = Duration::from_secs(15);

/// Two announcements and a bit.
const A_WHILE: Duration = Duration::from_secs(14);

/// A supernode that is not there.
const NOBODY: &str = "203.0.113.2:7777";

/// UDP 17777 as it stands in a packet, and the groups that announcements are sent to.
const PORT: [u8; 2] = 17777_u16.to_be_bytes();
const GROUP_MACS: [[u8; 6]; 2] = [[0x01, 0x00, 0x5e, 0, 0, 0xfe], [0x33, 0x33, 0, 0, 0x01, 0x14]];

/// Announcements among captured frames.
fn announcements(frames: &[Vec<u8>]) -> Vec<&Vec<u8>> {
    let is_one = |frame: &&Vec<u8>| {
        GROUP_MACS.iter().any(|mac| frame.starts_with(mac)) && frame.windows(2).take(70).any(|word| word == PORT)
    };
    frames.iter().filter(is_one).collect()
}

/// Hosts of one LAN, each with a guest on `br0`.
fn neighbours(lab: &mut Lab, count: usize) -> Vec<(Host, Guest)> {
    let site = lab.site("s", Nat::PortRestricted);
    let numbers = 1..=count;
    numbers
        .map(|number| {
            let host = lab.host(&site, &format!("h{number}"));
            let guest = lab.guest(&host, &format!("g{number}"), inner_address(number));
            (host, guest)
        })
        .collect()
}

fn join(lab: &Lab, host: &Host, key: &str, number: usize) -> Daemon {
    let join = Join::new("lan", key, &format!("n{number}")).supernode(NOBODY).bridge("br0");
    Daemon::start(lab, host, &join)
}

#[track_caller]
fn expect_answer(from: &Guest, to: &Guest) {
    let ping = Ping::start(&from.space, to.address, Duration::from_millis(100), &[]);
    wait_for("a first answered ping", MEETING, || (!ping.so_far().replies.is_empty()).then_some(()));
}

fn remote(daemon: &Daemon) -> String {
    let status = daemon.status();
    let peer = status.overlays[0].peers.first().and_then(|peer| peer.path.as_ref());
    peer.and_then(|path| path.remote.clone()).unwrap_or_default()
}

#[test]
fn two_members_on_one_link_meet_with_no_supernode_and_a_stranger_learns_nothing() {
    let mut lab = Lab::new();
    let places = neighbours(&mut lab, 3);
    let key = new_key();
    let capture = Capture::start(&places[2].0.space, "eth0");
    // The same name, another key.
    let stranger = join(&lab, &places[2].0, &new_key(), 3);
    let [one, other] = [1, 2].map(|number| join(&lab, &places[number - 1].0, &key, number));
    expect_answer(&places[0].1, &places[1].1);
    assert_eq!(remote(&one), format!("{}:7777", places[1].0.address));
    assert_eq!(remote(&other), format!("{}:7777", places[0].0.address));
    assert_eq!(Ping::count(&places[0].1.space, places[1].1.address, 5).replies.len(), 5);
    std::thread::sleep(A_WHILE);
    assert!(stranger.status().overlays[0].peers.is_empty(), "{}", stranger.show(&["peers"]));
    assert_eq!(one.status().overlays[0].peers.len(), 1);

    let frames = capture.stop();
    let heard = announcements(&frames);
    assert!(heard.len() >= 5, "{} announcements", heard.len());
    let overlay = one.status().overlays[0].id.clone();
    let hidden = [overlay, one.status().node_id.clone()]
        .map(|text| data_encoding::BASE32_NOPAD_NOCASE.decode(text.as_bytes()).unwrap());
    for frame in heard {
        assert_eq!(frame.len(), 14 + 20 + 8 + 222, "all of one length");
        let tells = |word: &[u8]| frame.windows(word.len()).any(|window| window == word);
        assert!(!tells(b"lan") && !tells(b"n1") && !hidden.iter().any(|word| tells(word)));
    }
}

#[test]
fn members_of_a_link_without_ipv4_meet_too() {
    let mut lab = Lab::new();
    let places = neighbours(&mut lab, 2);
    for ((host, _), number) in places.iter().zip(1..) {
        host.space.ip("addr flush dev eth0");
        host.space.sysctl("ipv6/conf/eth0/disable_ipv6", "0");
        host.space.ip(&format!("addr add fd00:17::{number}/64 dev eth0 nodad"));
    }
    for (host, _) in &places {
        wait_for("a link-local address", MEETING, || {
            let shown = host.space.ip("-6 addr show dev eth0 scope link");
            (shown.contains("fe80::") && !shown.contains("tentative")).then_some(())
        });
    }
    let key = new_key();
    let [one, other] = [1, 2].map(|number| join(&lab, &places[number - 1].0, &key, number));
    expect_answer(&places[0].1, &places[1].1);
    assert_eq!((remote(&one).as_str(), remote(&other).as_str()), ("[fd00:17::2]:7777", "[fd00:17::1]:7777"));
}

#[test]
fn without_lan_discovery_nothing_is_announced_and_nobody_met() {
    let mut lab = Lab::new();
    let places = neighbours(&mut lab, 2);
    let key = new_key();
    let capture = Capture::start(&places[0].0.space, "eth0");
    let key_file = lab.dir().join("n2-lan.key");
    let _other = join(&lab, &places[1].0, &key, 2);
    let config = format!(
        "lan-discovery = false\nsupernode = [{NOBODY:?}]\n[[overlay]]\nname = \"lan\"\nkey-file = {key_file:?}\nbridge = \"br0\"\n"
    );
    let file = lab.dir().join("1.toml");
    fs::write(&file, config).unwrap();
    let one = Daemon::start_words(&lab, &places[0].0, "n1", "n1", &[], &["up", "--config", &file.to_string_lossy()]);
    std::thread::sleep(A_WHILE);
    assert!(one.status().overlays[0].peers.is_empty(), "{}", one.show(&["peers"]));
    let frames = capture.stop();
    let own = places[0].0.address.octets();
    let from_it = |frame: &&&Vec<u8>| frame[26..30] == own;
    let heard = announcements(&frames);
    assert!(!heard.is_empty() && heard.iter().filter(from_it).count() == 0, "{} announcements", heard.len());
}

#[test]
fn an_announcement_does_not_cross_the_overlay() {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let sites = ["s1", "s2"].map(|name| lab.site(name, Nat::PortRestricted));
    let [kvm, far] = [lab.kvm_host(&sites[0], "h1"), lab.kvm_host(&sites[1], "h2")];
    let [s1, s2] = sites;
    let world = World::with_hosts(lab, server, vec![(s1, kvm), (s2, far)]);
    let capture = Capture::start(&world.nodes[1].guest.space, "eth0");
    world.wait_paths("direct", MEETING);
    let dropped = poll_for(A_WHILE, || (world.nodes[0].daemon.counters()["announcement"] > 0).then_some(()));
    assert!(dropped.is_some(), "it came out of the TAP of an ordinary KVM host and was dropped there");
    std::thread::sleep(A_WHILE);
    let frames = capture.stop();
    let far_off = world.nodes[0].host.address.octets();
    let crossed = announcements(&frames).iter().filter(|frame| frame[26..30] == far_off).count();
    assert_eq!(crossed, 0, "an announcement of the other site is heard here");
    assert!(!announcements(&frames).is_empty(), "the near one is heard");
}
