//! Supernodes die, names do not resolve, and the LAN goes on: measured by a numbered stream.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::time::{Duration, Instant};

use lab::{Daemon, Guest, Host, Join, Lab, Nat, Ping, Site, Supernode, Talk, inner_address, new_key, wait_for};

const MEETING: Duration = Duration::from_secs(20);

/// What a relayed stream may lose when its supernode dies and there is another.
const RELAY_GAP_MAX: Duration = Duration::from_secs(2);

/// From the start of a member to its first answer while every supernode is dead.
const REJOIN_MAX: Duration = Duration::from_secs(10);

/// A name that no server knows.
const NOWHERE: &str = "supernode.invalid";

/// Two members with a guest each, and supernodes.
struct Scene {
    members: Vec<(Daemon, Guest)>,
    supernodes: Vec<Supernode>,
    _lab: Lab,
}

impl Scene {
    /// Supernodes, each of which tells of all before it; members that register at those in `at`.
    fn new(kinds: [Nat; 2], supernodes: usize, at: &[usize], more: &[&str]) -> Scene {
        let mut lab = Lab::new();
        let servers: Vec<Host> = (0..supernodes).map(|number| lab.supernode_host(&format!("sn{number}"))).collect();
        let mut running: Vec<Supernode> = Vec::new();
        for server in &servers {
            let told: Vec<String> =
                running.iter().map(|one| format!("{}#{}", one.address, one.fingerprint())).collect();
            let words: Vec<&str> = told.iter().flat_map(|other| ["--peer", other.as_str()]).collect();
            running.push(Supernode::start(&lab, server, &words));
        }
        let (key, places) = (new_key(), lab.places(&kinds));
        let guest = |(number, (_, host)): (usize, (Site, Host))| {
            let guest = lab.guest(&host, &format!("g{number}"), inner_address(number));
            (host, guest)
        };
        let places: Vec<(Host, Guest)> = (1..).zip(places).map(guest).collect();
        let members = places.into_iter().enumerate().map(|(i, (host, guest))| {
            let join = Join::new("lan", &key, &format!("n{}", i + 1)).bridge("br0");
            let join = more.iter().fold(join, |join, name| join.supernode(name));
            let join = at.iter().fold(join, |join, number| join.supernode(&running[*number].address));
            (Daemon::start(&lab, &host, &join), guest)
        });
        let members = members.collect();
        Scene { members, supernodes: running, _lab: lab }
    }

    /// Waits until the members have met on a path of this kind and the switches know the guests.
    #[track_caller]
    fn meet(&self, kind: &str) {
        for (one, other) in [(0, 1), (1, 0)] {
            let (daemon, peer) = (&self.members[one].0, &self.members[other].0.node);
            assert!(daemon.wait_path(peer, kind, MEETING).is_some(), "{} is not {kind}", daemon.node);
        }
        let (from, to) = (&self.members[0].1, &self.members[1].1);
        Ping::until_answered(&from.space, to.address, MEETING);
    }

    /// Which supernode carries frames of the first member.
    fn carrier(&self) -> usize {
        let status = self.members[0].0.status();
        let via = status.overlays[0].peers[0].path.as_ref().and_then(|path| path.via.clone()).expect("one carries");
        self.supernodes.iter().position(|supernode| supernode.address == via).expect("one of this scene")
    }

    fn up(&self, member: usize) -> usize {
        let status = self.members[member].0.status();
        status.overlays[0].supernodes.iter().filter(|supernode| supernode.state == "up").count()
    }

    fn talk(&self) -> Talk {
        Talk::start(&self.members[0].1, &self.members[1].1)
    }

    /// Kills the supernode that carries while two machines talk.
    #[track_caller]
    fn survives_the_death_of_the_carrier(&self) {
        wait_for("both are registered at both", MEETING, || (self.up(0) + self.up(1) == 4).then_some(()));
        let talk = self.talk();
        self.supernodes[self.carrier()].process().kill();
        std::thread::sleep(Duration::from_secs(6));
        talk.finish_within(RELAY_GAP_MAX);
    }
}

#[test]
fn a_relayed_stream_changes_the_supernode_within_two_seconds() {
    let scene = Scene::new([Nat::Symmetric; 2], 2, &[0, 1], &[]);
    scene.meet("relayed");
    scene.survives_the_death_of_the_carrier();
}

#[test]
fn a_supernode_that_was_told_of_carries_when_the_teller_dies() {
    let scene = Scene::new([Nat::Symmetric; 2], 2, &[1], &[]);
    scene.meet("relayed");
    scene.survives_the_death_of_the_carrier();
}

#[test]
fn a_direct_stream_loses_nothing_when_every_supernode_dies() {
    let scene = Scene::new([Nat::PortRestricted; 2], 2, &[0, 1], &[]);
    scene.meet("direct");
    let talk = scene.talk();
    for supernode in &scene.supernodes {
        supernode.process().kill();
    }
    std::thread::sleep(Duration::from_secs(10));
    for report in talk.finish() {
        assert_eq!(report.lost(), 0, "longest hole {:?}", report.longest_hole());
    }
}

#[test]
fn a_member_that_restarts_while_every_supernode_is_dead_rejoins_by_remembered_addresses() {
    for restarted in [0, 1] {
        let mut scene = Scene::new([Nat::Open, Nat::PortRestricted], 1, &[0], &[]);
        scene.meet("direct");
        // Long enough for addresses to be written down.
        std::thread::sleep(Duration::from_secs(4));
        scene.supernodes[0].process().kill();
        let daemon = &mut scene.members[restarted].0;
        daemon.process().kill();
        daemon.start_again();
        let start = Instant::now();
        let (from, to) = (&scene.members[restarted].1, &scene.members[1 - restarted].1);
        let ping = Ping::start(&from.space, to.address, Duration::from_millis(50), &[]);
        wait_for("an answer", MEETING, || (!ping.so_far().replies.is_empty()).then_some(()));
        let took = start.elapsed();
        eprintln!("n{} is back after {took:?}", restarted + 1);
        assert!(took <= REJOIN_MAX, "n{} is back only after {took:?}", restarted + 1);
    }
}

#[test]
fn a_name_that_does_not_resolve_holds_nobody_up() {
    let scene = Scene::new([Nat::Open; 2], 1, &[0], &[NOWHERE]);
    let start = Instant::now();
    scene.meet("direct");
    eprintln!("met after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(5));
    let report = Ping::count(&scene.members[0].1.space, scene.members[1].1.address, 10);
    assert_eq!(report.replies.len(), 10);
    assert!(report.rtt_ms().is_some_and(|(.., slowest)| slowest < 50.0), "{:?}", report.rtt_ms());
}
