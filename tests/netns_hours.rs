//! What time does to a daemon: nothing to do for long, suspended and woken, its clock set back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use lab::{Daemon, Host, Join, Lab, Nat, Ping, Supernode, World, new_key, wait_for};

const MEETING: Duration = Duration::from_secs(15);

/// How long an idle node is watched.
const IDLE: Duration = Duration::from_secs(20);

/// How many peers it has.
const PEERS: usize = 10;

/// What it may send: all of its interface, Ethernet headers included.
const BYTES_PER_SECOND_MAX: f64 = 1000.0;

/// Its share of a core.
const CPU_MAX: f64 = 0.005;

/// Its memory.
const RSS_KIB_MAX: u64 = 30 * 1024;

/// How long a daemon is suspended, and from its waking to the next answer.
const SUSPENDED: Duration = Duration::from_secs(20);
const AWAKE_MAX: Duration = Duration::from_secs(2);

/// How far a clock is set back.
const SET_BACK: Duration = Duration::from_secs(24 * 3600);

/// Bytes that left by the host's uplink so far.
fn sent_bytes(host: &Host) -> u64 {
    let table = host.space.inside(|| fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
    let line = table.lines().find_map(|line| line.trim().strip_prefix(&format!("{}:", host.uplink))).unwrap();
    line.split_whitespace().nth(8).unwrap().parse().unwrap()
}

/// CPU time of all threads so far.
fn cpu(daemon: &Daemon) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.process().pid())).unwrap();
    let nanos = tasks.flatten().filter_map(|task| {
        let spent = fs::read_to_string(task.path().join("schedstat")).ok()?;
        spent.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn rss_kib(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.process().pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_node_with_ten_peers_and_nothing_to_do_costs_next_to_nothing() {
    let mut lab = Lab::new();
    let key = new_key();
    let server = lab.supernode_host("sn");
    let supernode = Supernode::start(&lab, &server, &[]);
    // Behind a NAT, so that its mappings must be kept alive.
    let (home, office) = (lab.site("home", Nat::PortRestricted), lab.site("office", Nat::Open));
    let mut start = |site, number| {
        let host = lab.host(site, &format!("h{number}"));
        let join = Join::new("lan", &key, &format!("n{number}")).supernode(&supernode.address);
        (Daemon::start(&lab, &host, &join), host)
    };
    let (node, host) = start(&home, 0);
    let peers: Vec<_> = (1..=PEERS).map(|number| start(&office, number)).collect();
    for (peer, _) in &peers {
        assert!(node.wait_path(&peer.node, "direct", MEETING).is_some(), "{} is not met", peer.node);
    }
    std::thread::sleep(Duration::from_secs(2));

    let (start, bytes, spent) = (Instant::now(), sent_bytes(&host), cpu(&node));
    std::thread::sleep(IDLE);
    let seconds = start.elapsed().as_secs_f64();
    let rate = f64::from(u32::try_from(sent_bytes(&host) - bytes).unwrap()) / seconds;
    let share = (cpu(&node) - spent).as_secs_f64() / seconds;
    let rss = rss_kib(&node);
    eprintln!("idle with {PEERS} peers: {rate:.0} B/s sent, {:.3} % of a core, RSS {rss} KiB", share * 100.0);
    assert!(rate <= BYTES_PER_SECOND_MAX, "{rate} B/s");
    assert!(share <= CPU_MAX, "{share} of a core");
    assert!(rss <= RSS_KIB_MAX, "{rss} KiB");
    let up = node.status().overlays[0].peers.iter().filter(|peer| peer.state == "up").count();
    assert_eq!(up, PEERS, "all that time it had them");
    assert!(spent > Duration::ZERO && bytes > 0, "the figures are real");
}

#[test]
fn a_daemon_that_was_suspended_carries_again_within_two_seconds() {
    let world = World::new(&[Nat::PortRestricted; 2]);
    world.wait_paths("direct", MEETING);
    let (one, other) = (&world.nodes[0], &world.nodes[1]);
    let ping = Ping::start(&one.guest.space, other.guest.address, Duration::from_millis(100), &[]);
    wait_for("a first answer", MEETING, || (!ping.so_far().replies.is_empty()).then_some(()));
    other.daemon.process().pause();
    std::thread::sleep(SUSPENDED);
    let woken = SystemTime::now();
    other.daemon.process().resume();
    let answered = wait_for("an answer after waking", MEETING, || {
        let fresh = |reply: &&lab::Reply| reply.at > woken && reply.rtt < AWAKE_MAX;
        ping.so_far().replies.iter().find(fresh).map(|reply| reply.at)
    });
    let took = answered.duration_since(woken).unwrap();
    eprintln!("answered {took:?} after waking");
    assert!(took <= AWAKE_MAX, "answered only {took:?} after waking");
    std::thread::sleep(Duration::from_secs(1));
    for node in [one, other] {
        assert!(node.daemon.process().is_running(), "{}", node.daemon.process().stderr());
    }
    world.wait_paths("direct", MEETING);
    let said = other.daemon.process().stderr();
    assert!(said.contains("this host slept or was too busy"), "{said}");
}

#[test]
fn a_clock_that_was_set_back_across_a_restart_keeps_nobody_out() {
    let mut world = World::new(&[Nat::Open; 2]);
    world.wait_paths("direct", MEETING);
    let clock = world.nodes[1].daemon.state().join("clock");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    // In its next life the daemon counts from tomorrow on, so the others hear handshakes of
    // tomorrow; in the one after that the host's clock is a day behind where it was.
    world.nodes[1].daemon.process().kill();
    fs::write(&clock, (now + SET_BACK).as_nanos().to_string()).unwrap();
    for life in ["tomorrow", "back"] {
        world.nodes[1].daemon.start_again();
        let (from, to) = (&world.nodes[0].guest, &world.nodes[1].guest);
        let ping = Ping::start(&from.space, to.address, Duration::from_millis(50), &[]);
        let start = Instant::now();
        wait_for("an answer", MEETING, || (!ping.so_far().replies.is_empty()).then_some(()));
        assert!(start.elapsed() <= AWAKE_MAX, "{life}: answered only after {:?}", start.elapsed());
        world.wait_paths("direct", MEETING);
        let daemon = &world.nodes[1].daemon;
        let said = daemon.process().stderr();
        assert!(said.contains("the clock is behind where it was; going on from there"), "{life}: {said}");
        assert!(daemon.process().terminate(MEETING).is_some_and(|status| status.success()));
        let kept: u128 = fs::read_to_string(&clock).unwrap().trim().parse().unwrap();
        assert!(kept > (now + SET_BACK).as_nanos(), "{life}: the floor is kept");
    }
}
