//! Things break, and the LAN goes on: dead supernodes, crashes, clean ends, bad input.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant, SystemTime};

use lab::{
    Daemon, Host, Join, Lab, Nat, Ping, Supernode, Talk, World, at_once, inner_address, longwire, new_key, poll_for,
    program, wait_for,
};

const MEETING: Duration = Duration::from_secs(15);

/// From the restart of a node to the next answered ping.
const RECONNECT_MAX: Duration = Duration::from_secs(2);

/// From the death of a relaying supernode to the next answered ping by another one.
const RELAY_CHANGE_MAX: Duration = Duration::from_secs(4);

/// A clean end takes no longer.
const LEAVE_MAX: Duration = Duration::from_secs(3);

#[test]
fn known_members_go_on_when_the_supernode_dies_also_with_new_arp() {
    let world = World::new(&[Nat::PortRestricted; 3]);
    world.wait_paths("direct", MEETING);
    world.supernode.process().kill();
    for round in ["ARP cached", "ARP flushed"] {
        for (one, other) in world.pairs() {
            let (from, to) = (&world.nodes[one].guest, &world.nodes[other].guest);
            if round == "ARP flushed" {
                from.flush_neighbours();
                to.flush_neighbours();
            }
            let report = Ping::count(&from.space, to.address, 3);
            assert_eq!(report.replies.len(), 3, "{round}, {} to {}", from.name, to.name);
        }
    }
    // Long enough for every timer that asks the supernode for something.
    std::thread::sleep(Duration::from_secs(10));
    let (from, to) = (&world.nodes[0].guest, &world.nodes[1].guest);
    assert_eq!(Ping::count(&from.space, to.address, 3).replies.len(), 3, "10 s later");
}

#[test]
fn relayed_members_meet_again_when_the_supernode_comes_back() {
    let mut world = World::new(&[Nat::Symmetric; 2]);
    world.wait_paths("relayed", MEETING);
    world.supernode.process().kill();
    std::thread::sleep(Duration::from_secs(1));
    world.supernode.start_again();
    let took = world.wait_paths("relayed", MEETING);
    eprintln!("relayed again after {took:?}");
    let (from, to) = (&world.nodes[0].guest, &world.nodes[1].guest);
    let ping = Ping::start(&from.space, to.address, Duration::from_millis(100), &[]);
    wait_for("an answer through the new supernode", MEETING, || (!ping.so_far().replies.is_empty()).then_some(()));
}

#[test]
fn a_relayed_pair_goes_on_when_the_relaying_supernode_dies_and_there_is_another() {
    let mut lab = Lab::new();
    let servers = ["sn1", "sn2"].map(|name| lab.supernode_host(name));
    let supernodes = servers.each_ref().map(|server| Supernode::start(&lab, server, &[]));
    let key = new_key();
    let [one, other] = [1, 2].map(|number| {
        let site = lab.site(&format!("s{number}"), Nat::Symmetric);
        let host = lab.host(&site, &format!("h{number}"));
        let guest = lab.guest(&host, &format!("g{number}"), inner_address(number));
        let join = Join::new("lan", &key, &format!("n{number}")).bridge("br0");
        let join = supernodes.iter().fold(join, |join, supernode| join.supernode(&supernode.address));
        (Daemon::start(&lab, &host, &join), guest)
    });
    assert!(one.0.wait_path("n2", "relayed", MEETING).is_some());
    // Long enough for both to be known and measured.
    std::thread::sleep(Duration::from_secs(3));
    let via = |daemon: &Daemon| daemon.status().overlays[0].peers[0].path.as_ref().and_then(|path| path.via.clone());
    let ping = Ping::start(&one.1.space, other.1.address, Duration::from_millis(50), &[]);
    wait_for("a first answer", MEETING, || (!ping.so_far().replies.is_empty()).then_some(()));
    let relaying = via(&one.0).expect("a supernode relays");
    let [dead, living] = match supernodes.iter().position(|supernode| supernode.address == relaying) {
        Some(0) => [0, 1],
        Some(_) => [1, 0],
        None => panic!("{relaying} is no supernode of this test"),
    };
    supernodes[dead].process().kill();
    let killed = SystemTime::now();
    let answered = wait_for("an answer through the other supernode", MEETING, || {
        // What was on its way when the supernode died does not count.
        let fresh = |at: SystemTime| at.duration_since(killed).is_ok_and(|after| after > Duration::from_millis(100));
        ping.so_far().replies.iter().map(|reply| reply.at).find(|at| fresh(*at))
    });
    let took = answered.duration_since(killed).unwrap();
    eprintln!("carried on {took:?} after the kill");
    assert!(took <= RELAY_CHANGE_MAX, "carried on only after {took:?}");
    assert_eq!(via(&one.0).as_ref(), Some(&supernodes[living].address));
    drop(ping);
    let report = Ping::count(&one.1.space, other.1.address, 5);
    assert_eq!((report.replies.len(), report.duplicates), (5, 0), "and it stays so");
}

/// Kills a node under traffic as a crash does, starts it again; how long from its joining until pings are answered.
///
/// What is before it joins is the host's: a process starts, and waits for the kernel's lock on network devices, which
/// tests beside this one hold for seconds when their namespaces go.
fn crash_and_return(world: &mut World) -> Duration {
    let (from, to) = (world.nodes[0].guest.clone(), world.nodes[1].guest.clone());
    let ping = Ping::start(&from.space, to.address, Duration::from_millis(20), &[]);
    wait_for("a ping before the crash", MEETING, || (!ping.so_far().replies.is_empty()).then_some(()));
    let crashed = &mut world.nodes[1].daemon;
    crashed.process().kill();
    std::thread::sleep(Duration::from_millis(500));
    crashed.start_again();
    wait_for("the node joins", MEETING, || crashed.process().stderr().contains("joining").then_some(()));
    let joined = SystemTime::now();
    wait_for("a ping after the crash", MEETING, || {
        ping.so_far().replies.iter().find_map(|reply| reply.at.duration_since(joined).ok())
    })
}

#[test]
fn a_crashed_node_is_back_within_two_seconds() {
    for (nat, kind) in [(Nat::PortRestricted, "direct"), (Nat::Symmetric, "relayed")] {
        let mut world = World::new(&[nat; 2]);
        world.wait_paths(kind, MEETING);
        let took = crash_and_return(&mut world);
        eprintln!("{kind}: back after {took:?}");
        assert!(took <= RECONNECT_MAX, "{kind}: back after {took:?}");
        world.wait_paths(kind, MEETING);
    }
}

/// What a stream may miss when its direct path is cut.
const LEAVE_PATH_MAX: Duration = Duration::from_millis(1500);

/// From its healing to its use.
const RETURN_MAX: Duration = Duration::from_secs(35);

/// What site `from` sends to site `to` vanishes at its router; `false`: no more.
fn cut(world: &World, from: usize, to: usize, is_cut: bool) {
    let (router, outside) = (&world.nodes[from].site.router, world.nodes[to].site.outside);
    let rules = "table ip cut\ndelete table ip cut";
    let chain =
        format!("table ip cut {{ chain c {{ type filter hook forward priority -10; ip daddr {outside} drop\n }}\n }}");
    router.nft(&if is_cut { format!("{rules}\n{chain}") } else { rules.to_owned() });
}

#[test]
fn a_direct_path_that_is_cut_in_one_or_both_directions_is_left_and_taken_again() {
    at_once(&[&[(0, 1), (1, 0)][..], &[(0, 1)], &[(1, 0)]], |cuts| {
        let world = World::new(&[Nat::PortRestricted; 2]);
        world.wait_paths("direct", MEETING);
        let talk = Talk::start(&world.nodes[0].guest, &world.nodes[1].guest);
        cuts.iter().for_each(|(from, to)| cut(&world, *from, *to, true));
        world.wait_paths("relayed", MEETING);
        std::thread::sleep(Duration::from_secs(2));
        cuts.iter().for_each(|(from, to)| cut(&world, *from, *to, false));
        let healed = Instant::now();
        world.wait_paths("direct", RETURN_MAX);
        eprintln!("{cuts:?} cut: direct {:?} after it healed", healed.elapsed());
        // Also the way back must cost nothing.
        talk.finish_within(LEAVE_PATH_MAX);
    });
}

#[test]
fn a_clean_end_leaves_nothing_and_tells_the_others() {
    let mut world = World::new(&[Nat::Open; 2]);
    world.wait_paths("direct", MEETING);
    let leaving = &world.nodes[1].daemon;
    let tap = leaving.status().overlays[0].tap.clone().unwrap();
    let status = leaving.process().terminate(LEAVE_MAX);
    assert!(status.is_some_and(|status| status.success()), "ended with {status:?}");
    let space = &world.nodes[1].host.space;
    assert!(!space.has_link(&tap), "the TAP {tap} is left");
    assert!(space.has_link("br0"), "a bridge that it did not make must stay");
    let gone = poll_for(LEAVE_MAX, || {
        let status = world.nodes[0].daemon.status();
        let peers = &status.overlays[0].peers;
        let present = peers.iter().any(|peer| peer.state != "gone");
        (!present).then_some(())
    });
    assert!(gone.is_some(), "the other still thinks it is there");

    // A node alone on a host makes the bridge, and takes it away again.
    let site = world.lab.site("s3", Nat::Open);
    let host = world.lab.host(&site, "h3");
    let join = Join::new("lan", &world.key, "n3").supernode(&world.supernode.address).bridge("br0");
    let daemon = Daemon::start(&world.lab, &host, &join);
    daemon.status();
    assert!(host.space.has_link("br0"));
    daemon.process().terminate(LEAVE_MAX).expect("it ends");
    assert!(!host.space.has_link("br0"), "the bridge that it made is left");
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused_with_advice() {
    let world = World::new(&[Nat::Open]);
    world.nodes[0].daemon.status();
    let join = Join::new("lan", &world.key, "n1").supernode(&world.supernode.address);
    let second = Daemon::start(&world.lab, &world.nodes[0].host, &join);
    let status = second.process().wait(LEAVE_MAX).expect("it is refused");
    assert!(!status.success());
    let said = second.process().stderr();
    assert!(said.contains("state"), "{said}");
    assert!(world.nodes[0].daemon.try_status().is_some(), "the first goes on");
}

/// Runs `up` with these words in a host's namespace: it must end with a sentence that has `hints`.
#[track_caller]
fn refused(host: &lab::Host, words: &[&str], hints: &[&str]) {
    let program = program().to_string_lossy().into_owned();
    let words = [&["timeout", "5", &program], words].concat();
    let output = host.space.run(&words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{words:?} was accepted: {said}");
    assert_ne!(output.status.code(), Some(124), "{words:?} runs on: {said}");
    assert!(!said.contains("panicked"), "{said}");
    for hint in hints {
        assert!(said.contains(hint), "{words:?} said nothing of `{hint}`: {said}");
    }
}

/// A host for bad input, and a directory with files of it.
struct BadInput {
    host: Host,
    key: String,
    lab: Lab,
}

impl BadInput {
    fn new() -> BadInput {
        let mut lab = Lab::new();
        let site = lab.site("s", Nat::Open);
        let host = lab.host(&site, "h");
        BadInput { host, key: new_key(), lab }
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> String {
        let path = self.lab.dir().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_string_lossy().into_owned()
    }

    /// `up` with this key file and these words must end with a sentence that has `hints`.
    #[track_caller]
    fn refuses(&self, key: &str, more: &[&str], hints: &[&str]) {
        let state = self.lab.dir().join("bad.state");
        let state = state.to_string_lossy();
        let words = ["up", "lan", "--key-file", key, "--state", &*state];
        let words = [&words, &["--supernode", "203.0.113.2:7777"][..], more].concat();
        refused(&self.host, &words, hints);
    }
}

#[test]
fn a_bad_key_ends_in_a_sentence_that_names_its_file() {
    let bad = BadInput::new();
    let open = bad.file("open.key", &bad.key, 0o644);
    // One letter of the middle is another one.
    let middle = bad.key.len() / 2;
    let other = if bad.key.as_bytes()[middle] == b'a' { "b" } else { "a" };
    let mut typo = bad.key.clone();
    typo.replace_range(middle..=middle, other);
    let mistyped = bad.file("mistyped.key", &typo, 0o600);
    bad.refuses(&mistyped, &[], &["mistyped.key"]);
    bad.refuses(&open, &[], &["open.key"]);
    bad.refuses("/nowhere/none.key", &[], &["/nowhere/none.key"]);
}

#[test]
fn bad_words_and_configs_end_in_a_sentence_that_names_what_is_wrong() {
    let bad = BadInput::new();
    let good = bad.file("good.key", &bad.key, 0o600);
    bad.host.space.ip("link add dummy type veth peer name dummy1");
    bad.refuses(&good, &["--bridge", "dummy"], &["dummy", "bridge"]);
    bad.refuses(&good, &["--address", "10.0.0.300/24"], &["10.0.0.300/24"]);
    let both = ["--bridge", "br0", "--address", "10.0.0.1/24"];
    bad.refuses(&good, &both, &["--address"]);
    bad.refuses(&good, &["--tap", "a-name-that-is-far-too-long"], &["--tap"]);
    let taken = bad.host.space.inside(|| UdpSocket::bind("0.0.0.0:7000"));
    bad.refuses(&good, &["--listen", "0.0.0.0:7000"], &["7000"]);
    drop(taken);
    let text = "[[overlay]]\nname = \"lan\"\nbrigde = \"br0\"\n";
    let config = bad.file("bad.toml", text, 0o600);
    let hints = ["bad.toml", "brigde", "bridge"];
    refused(&bad.host, &["up", "--config", &config], &hints);
}

#[test]
fn commands_without_a_daemon_say_so() {
    let lab = Lab::new();
    let socket = lab.dir().join("none.sock").to_string_lossy().into_owned();
    for what in ["status", "peers", "fdb"] {
        let output = longwire(&[what, "--socket", &socket]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(said.contains("none.sock") && !said.contains("panicked"), "{said}");
    }
}
