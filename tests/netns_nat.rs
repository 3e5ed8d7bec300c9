//! Which sites meet directly: the matrix of NAT kinds with real daemons and real NATs.
//!
//! Two nodes of each kind, all in one overlay, every pair pings from the start. Those that the
//! oracle says can be direct are so within 5 s; the others are relayed, answered all the time. Pairs that
//! need their ports predicted or searched have worlds of their own, three times each.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::time::{Duration, Instant, SystemTime};

use lab::{Meeting, Nat, PingReport, World, at_once, meeting, poll_for};

/// From the last `up` to all direct paths that there can be.
const DIRECT_MAX: Duration = Duration::from_secs(5);

/// From the last `up` to the first answer, by whatever path.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// How long pairs that cannot be direct are watched after that.
const WATCH: Duration = Duration::from_secs(2);

const KINDS: [Nat; 6] = [Nat::Open, Nat::FullCone, Nat::Restricted, Nat::PortRestricted, Nat::Symmetric, Nat::Firewall];

#[derive(Clone, Copy)]
struct Pair {
    ends: (usize, usize),
    expected: &'static str,
    /// A search may have been faster than we look.
    may_be_direct: bool,
}

#[test]
fn the_pairs_that_can_be_direct_are_and_the_others_are_relayed_from_the_first_second() {
    // Twice each kind, so that each meets its like.
    let kinds: Vec<Nat> = KINDS.into_iter().chain(KINDS).collect();
    let world = World::new(&kinds);
    let (up_at, start) = (SystemTime::now(), Instant::now());
    let pings = world.ping_everyone();
    let pairs: Vec<Pair> = world
        .pairs()
        .map(|ends| {
            let way = meeting(kinds[ends.0], kinds[ends.1]);
            let expected = if way == Meeting::Direct { "direct" } else { "relayed" };
            Pair { ends, expected, may_be_direct: way == Meeting::Searched }
        })
        .collect();
    poll_for(DIRECT_MAX, || {
        // Twelve daemons are asked each time: not so often that it slows them.
        std::thread::sleep(Duration::from_millis(100));
        wrong_paths(&world, &pairs).is_empty().then_some(())
    });
    let met_after = start.elapsed();
    std::thread::sleep(WATCH);
    let wrong = wrong_paths(&world, &pairs);

    let mut sentences = Vec::new();
    for (pair, kind) in wrong {
        let (one, other) = pair.ends;
        sentences.push(format!(
            "{:?} and {:?} (n{}, n{}): {kind}, not {}",
            kinds[one],
            kinds[other],
            one + 1,
            other + 1,
            pair.expected
        ));
    }
    for (pair, ping) in pairs.iter().zip(pings) {
        let names = (kinds[pair.ends.0], kinds[pair.ends.1]);
        let report = ping.finish();
        sentences.extend(complaint(&report, up_at).map(|what| format!("{names:?}: {what}")));
    }
    eprintln!("{} pairs settled after {met_after:?}", pairs.len());
    assert!(sentences.is_empty(), "{}", sentences.join("\n"));
}

/// The pairs whose path is of another kind than the oracle's, seen from either end.
fn wrong_paths(world: &World, pairs: &[Pair]) -> Vec<(Pair, String)> {
    let statuses: Vec<_> = world.nodes.iter().map(|node| node.daemon.try_status()).collect();
    let kind = |from: usize, to: usize| {
        let name = format!("n{}", to + 1);
        let peers = &statuses[from].as_ref()?.overlays.first()?.peers;
        let peer = peers.iter().find(|peer| peer.name.as_ref() == Some(&name))?;
        Some(peer.path.as_ref()?.kind.clone())
    };
    let mut wrong = Vec::new();
    for pair in pairs {
        let (one, other) = pair.ends;
        for (from, to) in [(one, other), (other, one)] {
            let seen = kind(from, to).unwrap_or_else(|| "none".into());
            if seen != pair.expected && !(pair.may_be_direct && seen == "direct") {
                wrong.push((*pair, seen));
                break;
            }
        }
    }
    wrong
}

/// What is wrong with the answers of a pair, if anything.
fn complaint(report: &PingReport, up_at: SystemTime) -> Option<String> {
    let Some(first) = report.replies.first() else {
        return Some("no ping was answered".into());
    };
    let after = first.at.duration_since(up_at).unwrap_or_default();
    if after > ANSWER_MAX {
        return Some(format!("first answer after {after:?}"));
    }
    let lost = report.missing_after_first();
    if !lost.is_empty() {
        return Some(format!("pings {lost:?} of {} lost after the first answer", report.sent));
    }
    (report.duplicates > 0).then(|| format!("{} answers came twice", report.duplicates))
}

#[test]
fn bare_masquerade_gateways_work_at_once_by_whatever_path() {
    let world = World::new(&[Nat::BareMasquerade, Nat::BareMasquerade, Nat::PortRestricted]);
    let up_at = SystemTime::now();
    let pings = world.ping_everyone();
    std::thread::sleep(DIRECT_MAX);
    for ((one, other), ping) in world.pairs().zip(pings) {
        let kind = world.nodes[one].daemon.path_to(&format!("n{}", other + 1));
        eprintln!("n{} and n{}: {kind}", one + 1, other + 1);
        assert_eq!(complaint(&ping.finish(), up_at), None, "n{} and n{}", one + 1, other + 1);
    }
}

/// From the last `up` to the direct path of a pair that must be searched.
const SEARCH_MAX: Duration = Duration::from_secs(20);

/// Two nodes behind these, until both are direct; no ping is lost on the way there.
fn meet(one: Nat, other: Nat, within: Duration) -> Result<Duration, String> {
    let world = World::new(&[one, other]);
    let (up_at, start) = (SystemTime::now(), Instant::now());
    let pings = world.ping_everyone();
    let direct = || {
        let ways = [(0, "n2"), (1, "n1")].map(|(from, to)| world.nodes[from].daemon.path_to(to));
        (ways == ["direct", "direct"]).then_some(())
    };
    let met = poll_for(within, direct).map(|()| start.elapsed());
    std::thread::sleep(WATCH);
    let tale = || world.nodes.iter().map(|node| node.daemon.show(&["explain", "n"])).collect::<String>();
    for ping in pings {
        if let Some(what) = complaint(&ping.finish(), up_at) {
            return Err(format!("{one:?} and {other:?}: {what}\n{}", tale()));
        }
    }
    met.ok_or_else(|| format!("{one:?} and {other:?} are not direct after {within:?}\n{}", tale()))
}

#[test]
fn ports_that_count_up_are_predicted() {
    at_once(&[Nat::PortRestricted, Nat::Firewall, Nat::Counting], |other| {
        for _ in 0..3 {
            let took = meet(Nat::Counting, *other, DIRECT_MAX).unwrap();
            eprintln!("counting and {other:?}: direct after {took:?}");
        }
    });
}

#[test]
fn random_ports_are_found_by_a_search() {
    at_once(&[Nat::PortRestricted, Nat::Firewall], |other| {
        for _ in 0..3 {
            let took = meet(Nat::Symmetric, *other, SEARCH_MAX).unwrap();
            eprintln!("symmetric and {other:?}: direct after {took:?}");
        }
    });
}

#[test]
fn netcheck_says_before_joining_what_stands_in_front() {
    let kinds = [Nat::Open, Nat::Restricted, Nat::PortRestricted, Nat::Symmetric, Nat::Counting, Nat::Firewall];
    let world = World::new(&kinds);
    let place = &world.supernode.address;
    let program = lab::program().to_string_lossy().into_owned();
    for (node, nat) in world.nodes.iter().zip(kinds) {
        let check = || {
            let output = node.host.space.run(&[&program, "netcheck", "--supernode", place, "--json"]);
            serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON")
        };
        let mut report = check();
        if matches!(nat, Nat::Symmetric) && report["ipv4"]["nat"]["ports"] == "counting" {
            // Of two random ports one in a thousand follows the other.
            report = check();
        }
        let found = &report["ipv4"]["nat"];
        let expected = match nat {
            Nat::Open => ["none", "address-dependent", "kept"],
            Nat::Firewall => ["none", "address-and-port-dependent", "kept"],
            Nat::Restricted => ["endpoint-independent", "address-dependent", "kept"],
            Nat::Symmetric => ["address-and-port-dependent", "address-and-port-dependent", "random"],
            Nat::Counting => ["address-and-port-dependent", "address-and-port-dependent", "counting"],
            Nat::PortRestricted | Nat::FullCone | Nat::AddressDependent | Nat::BareMasquerade => {
                ["endpoint-independent", "address-and-port-dependent", "kept"]
            }
        };
        let judged = ["mapping", "filtering", "ports"].map(|axis| found[axis].as_str().unwrap_or_default().to_owned());
        assert_eq!(judged, expected, "{nat:?}: {report:#}");
        let said = node.host.space.run(&[&program, "netcheck", "--supernode", place]);
        assert!(String::from_utf8_lossy(&said.stdout).contains("answers by UDP"), "{nat:?}");
        // The daemon came to the same.
        let status = node.daemon.try_ask("status").expect("a status");
        assert_eq!(status["nat"]["mapping"], found["mapping"], "{nat:?}");
        assert_eq!(status["nat"]["filtering"], found["filtering"], "{nat:?}");
    }
    let other = format!("{place}#aeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaq");
    let said = world.nodes[0].host.space.run(&[&program, "netcheck", "--supernode", &other]);
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(!said.status.success() && text.contains("somebody stands in between"), "another key:\n{text}");
}
