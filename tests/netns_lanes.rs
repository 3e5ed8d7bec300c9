//! Several lanes: flows keep their order, nothing comes twice, no counter is used twice, whatever number of
//! lanes the other end has, on direct and relayed paths, while paths break, keys change and machines move.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lab::frame::{gratuitous_arp, udp_payload};
use lab::{
    Capture, Daemon, Guest, Host, Iperf, Join, Lab, Nat, PacketSocket, Ping, Site, World, new_key, set_features,
    wait_for,
};

const MEETING: Duration = Duration::from_secs(20);

/// Numbered flows at once: with four lanes it takes bad luck to leave one without any.
const FLOWS: usize = 12;
/// Datagrams per second of each.
const RATE: u32 = 500;
/// Where they arrive.
const PORT: u16 = 4790;
/// Every third one is a full frame, which travels in two pieces until the path is measured.
const SIZES: [usize; 3] = [64, 300, 1472];

/// Numbered datagrams of many flows from one guest to another.
struct Flows {
    ending: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<Vec<(usize, u64)>>,
}

/// What became of them.
struct Arrivals {
    sent: usize,
    /// Flow and number, in the order of arrival.
    came: Vec<(usize, u64)>,
}

impl Flows {
    fn start(from: &Guest, to: &Guest) -> Self {
        let address = SocketAddr::from((to.address, PORT));
        let arrivals = to.space.inside(|| UdpSocket::bind(address)).unwrap();
        // Seconds of all flows: this machine may be too busy to read them meanwhile.
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&arrivals, 32 << 20).unwrap();
        arrivals.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let flows: Vec<UdpSocket> =
            (0..FLOWS).map(|_| from.space.inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap()).collect();
        let ending = Arc::new(AtomicBool::new(false));
        let (stop_sending, stop_hearing) = (Arc::clone(&ending), Arc::clone(&ending));
        let sender = std::thread::spawn(move || send(&flows, address, &stop_sending));
        let receiver = std::thread::spawn(move || hear(&arrivals, &stop_hearing));
        Self { ending, sender, receiver }
    }

    fn finish(self) -> Arrivals {
        self.ending.store(true, Ordering::Relaxed);
        let sent = usize::try_from(self.sender.join().unwrap()).unwrap() * FLOWS;
        Arrivals { sent, came: self.receiver.join().unwrap() }
    }
}

fn send(flows: &[UdpSocket], to: SocketAddr, ending: &AtomicBool) -> u64 {
    let (start, mut number) = (Instant::now(), 0_u64);
    while !ending.load(Ordering::Relaxed) {
        for (flow, socket) in flows.iter().enumerate() {
            let mut datagram = vec![u8::try_from(flow).unwrap(); SIZES[(usize::try_from(number).unwrap() + flow) % 3]];
            datagram[..8].copy_from_slice(&number.to_be_bytes());
            let _refused = socket.send_to(&datagram, to);
        }
        number += 1;
        let next = start + Duration::from_secs(1) / RATE * u32::try_from(number).unwrap();
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    number
}

fn hear(socket: &UdpSocket, ending: &AtomicBool) -> Vec<(usize, u64)> {
    let (mut came, mut room, mut quiet) = (Vec::new(), [0; 2000], 0);
    // Ten looks without anything after the end: what is later does not arrive.
    while quiet < 10 {
        match socket.recv(&mut room) {
            Ok(len) if len > 8 => {
                came.push((usize::from(room[8]), u64::from_be_bytes(room[..8].try_into().unwrap())));
                quiet = 0;
            }
            Ok(_) | Err(_) => quiet += u32::from(ending.load(Ordering::Relaxed)),
        }
    }
    came
}

impl Arrivals {
    fn lost(&self) -> usize {
        self.sent - self.came.iter().collect::<BTreeSet<_>>().len()
    }

    fn duplicates(&self) -> usize {
        self.came.len() - self.came.iter().collect::<BTreeSet<_>>().len()
    }

    /// Arrivals behind a later one of the same flow.
    fn late(&self) -> usize {
        let mut newest = BTreeMap::new();
        let is_late = |(flow, number): &&(usize, u64)| {
            let newest = newest.entry(*flow).or_insert(0);
            let late = number < newest;
            *newest = (*newest).max(*number);
            late
        };
        self.came.iter().filter(is_late).count()
    }
}

/// Two sites whose daemons have so many lanes, on a path of this kind.
fn world(nat: Nat, kind: &str, lanes: [u8; 2]) -> World {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let places: Vec<(Site, Host)> = ["1", "2"]
        .map(|number| {
            let site = lab.site(&format!("s{number}"), nat);
            let host = lab.host(&site, &format!("h{number}"));
            (site, host)
        })
        .into();
    let words = lanes.map(|lanes| format!("--lanes={lanes}"));
    let world = World::with_words(lab, server, places, &[&words[0], &words[1]]);
    world.wait_paths(kind, MEETING);
    for (node, lanes) in world.nodes.iter().zip(lanes) {
        assert_eq!(status(&node.daemon)["lanes"], lanes);
    }
    world
}

fn status(daemon: &Daemon) -> serde_json::Value {
    daemon.try_ask("status").unwrap()
}

fn guests(world: &World) -> [&Guest; 2] {
    [&world.nodes[0].guest, &world.nodes[1].guest]
}

/// Flows both ways beside TCP both ways: all of them in order, none twice, hardly any lost.
#[track_caller]
fn expect_order(world: &World) {
    let [one, other] = guests(world);
    let flows = [Flows::start(one, other), Flows::start(other, one)];
    let tcp = Iperf::run(one, other, &["-t", "4", "-P", "4", "--bidir"]);
    assert!(tcp.bits_per_second > 1e6, "{}", tcp.bits_per_second);
    for arrivals in flows.map(Flows::finish) {
        assert_eq!((arrivals.late(), arrivals.duplicates()), (0, 0), "of {}", arrivals.sent);
        // TCP beside it fills every queue, with one lane as with many.
        assert!(arrivals.lost() * 2 < arrivals.sent, "{} of {} lost", arrivals.lost(), arrivals.sent);
    }
    expect_clean(world);
}

/// Nothing ended for a reason that lanes could give.
#[track_caller]
fn expect_clean(world: &World) {
    let reasons = ["replayed", "too_old", "forged", "expired", "unknown_index", "hijack", "elsewhere"];
    for node in &world.nodes {
        let counters = node.daemon.counters();
        let ended: Vec<_> = reasons.iter().filter(|reason| counters[**reason] > 0).collect();
        assert!(ended.is_empty(), "{ended:?} at {}: {counters:?}", node.daemon.node);
    }
}

#[test]
fn flows_keep_their_order_over_two_lanes() {
    expect_order(&world(Nat::PortRestricted, "direct", [2, 2]));
}

#[test]
fn flows_keep_their_order_between_four_lanes_and_two() {
    expect_order(&world(Nat::PortRestricted, "direct", [4, 2]));
}

#[test]
fn flows_keep_their_order_between_three_lanes_and_one() {
    expect_order(&world(Nat::PortRestricted, "direct", [3, 1]));
}

#[test]
fn a_relayed_path_is_lane_0s_and_keeps_order() {
    expect_order(&world(Nat::Symmetric, "relayed", [2, 2]));
}

#[test]
fn lanes_share_the_work_and_hand_over_little() {
    let world = world(Nat::PortRestricted, "direct", [4, 4]);
    let [one, other] = guests(&world);
    let flows = Flows::start(one, other);
    std::thread::sleep(Duration::from_secs(3));
    let arrivals = flows.finish();
    assert_eq!((arrivals.late(), arrivals.duplicates()), (0, 0));
    for node in &world.nodes {
        let counters = node.daemon.counters();
        // Without TCP beside it, nothing is lost, and what lane 0 got are first frames and a few words of ARP.
        assert_eq!(counters["lane_full"], 0);
        assert!(counters["handed"] < 500, "{} of {} handed over", counters["handed"], arrivals.sent);
    }
    assert_eq!(arrivals.lost(), 0);
}

#[test]
fn no_counter_is_used_twice_with_one_key() {
    let world = world(Nat::PortRestricted, "direct", [4, 4]);
    let [one, other] = guests(&world);
    let host = &world.nodes[0].host;
    // The capture sees whole runs otherwise, and not where a datagram ends.
    host.space.ip(&format!("link set {} gso_max_segs 1", host.uplink));
    let capture = Capture::start(&host.space, host.uplink);
    let flows = [Flows::start(one, other), Flows::start(other, one)];
    std::thread::sleep(Duration::from_secs(3));
    let _arrivals = flows.map(Flows::finish);
    let own = host.address.octets();
    let mut seen = BTreeSet::new();
    let mut streams = BTreeMap::new();
    for frame in capture.stop() {
        let Some((_, _, packet)) = udp_payload(&frame) else { continue };
        if frame[26..30] != own || !matches!(packet.first(), Some(4 | 5)) {
            continue;
        }
        let (index, counter) = (packet[4..8].to_vec(), u64::from_be_bytes(packet[8..16].try_into().unwrap()));
        assert!(seen.insert((index, counter)), "counter {counter:#x} twice");
        *streams.entry(counter >> 60).or_insert(0) += 1;
    }
    assert!(seen.len() > 5_000, "{} packets", seen.len());
    assert!(streams.len() > 1 && streams.keys().all(|stream| *stream < 4), "{streams:?}");
}

#[test]
fn a_direct_path_that_breaks_under_load_falls_to_the_relay_and_comes_back() {
    let world = world(Nat::PortRestricted, "direct", [2, 2]);
    let [one, other] = guests(&world);
    let flows = Flows::start(one, other);
    std::thread::sleep(Duration::from_secs(1));
    let cut = "table ip cut { chain c { type filter hook forward priority -10; \
               ip saddr 198.18.0.0/16 ip daddr 198.18.0.0/16 drop\n }\n }";
    world.lab.inet().nft(cut);
    let daemon = &world.nodes[0].daemon;
    assert!(daemon.wait_path("n2", "relayed", Duration::from_secs(10)).is_some(), "not relayed");
    world.lab.inet().nft("table ip cut\ndelete table ip cut");
    assert!(daemon.wait_path("n2", "direct", Duration::from_secs(60)).is_some(), "not direct again");
    std::thread::sleep(Duration::from_secs(1));
    let arrivals = flows.finish();
    assert_eq!(arrivals.duplicates(), 0);
    let lost = arrivals.lost() / FLOWS;
    let most = usize::try_from(RATE * 3).unwrap();
    assert!(lost < most, "{lost} of each flow lost: more than three seconds");
}

fn announce(guest: &Guest) {
    PacketSocket::open(&guest.space, "eth0").send(&gratuitous_arp(guest.mac, guest.address)).unwrap();
}

#[test]
fn a_machine_that_moves_is_followed_by_every_lane() {
    let world = world(Nat::PortRestricted, "direct", [2, 2]);
    let [one, other] = guests(&world);
    let flows = Flows::start(one, other);
    std::thread::sleep(Duration::from_secs(1));
    for (from, to) in [(1, 0), (0, 1)] {
        other.move_to(&world.nodes[from].host, &world.nodes[to].host, "br0");
        wait_for("an answer from the new place", MEETING, || {
            // The first announcement may come before the bridge forwards.
            announce(other);
            (Ping::count(&one.space, other.address, 1).replies.len() == 1).then_some(())
        });
    }
    std::thread::sleep(Duration::from_secs(1));
    let arrivals = flows.finish();
    assert_eq!(arrivals.duplicates(), 0);
    let last = arrivals.came.iter().map(|(flow, number)| (*flow, *number)).collect::<BTreeMap<_, _>>();
    let almost_all = u64::try_from(arrivals.sent / FLOWS).unwrap() - u64::from(RATE) / 2;
    assert!(last.len() == FLOWS && last.values().all(|number| *number > almost_all), "{last:?} of {almost_all}");
}

#[test]
#[ignore = "two minutes and a half: cargo test --test netns_lanes -- --ignored"]
fn keys_change_under_load_and_no_flow_notices() {
    let world = world(Nat::PortRestricted, "direct", [2, 2]);
    let [one, other] = guests(&world);
    let flows = [Flows::start(one, other), Flows::start(other, one)];
    std::thread::sleep(Duration::from_secs(150));
    for arrivals in flows.map(Flows::finish) {
        assert_eq!((arrivals.late(), arrivals.duplicates()), (0, 0), "of {}", arrivals.sent);
        // In so long a time this machine forgets to read a queue now and then.
        assert!(arrivals.lost() * 100 < arrivals.sent, "{} of {} lost", arrivals.lost(), arrivals.sent);
    }
    expect_clean(&world);
}

#[test]
fn what_the_kernel_joins_is_of_one_lane() {
    let world = world(Nat::Open, "direct", [4, 4]);
    let [one, other] = guests(&world);
    // The sender's packets come singly, and the receiver's interface joins them again.
    let [from, to] = [0, 1].map(|place: usize| &world.nodes[place].host);
    from.space.ip(&format!("link set {} gso_max_segs 1", from.uplink));
    // A veth joins nothing if its other end could have sent it whole.
    let router = &world.nodes[1].site.router;
    set_features(router, &format!("p{}", to.address.octets()[3]), &[("tso", false)]);
    set_features(&to.space, to.uplink, &[("gro", true)]);
    let wait = format!("echo 500000 > /sys/class/net/{}/gro_flush_timeout", to.uplink);
    assert!(to.space.run(&["sh", "-c", &wait]).status.success(), "{wait}");
    let handed_on = || {
        let before = world.nodes[1].daemon.counters();
        let flows = Flows::start(one, other);
        std::thread::sleep(Duration::from_secs(2));
        let arrivals = flows.finish();
        assert_eq!((arrivals.duplicates(), arrivals.lost()), (0, 0));
        let after = world.nodes[1].daemon.counters();
        (after["handed"] - before["handed"], after["datagrams_in"] - before["datagrams_in"])
    };
    let (handed, packets) = handed_on();
    assert!(packets > 10_000 && handed < 100, "{handed} of {packets} handed on");
    // Without the lanes' own hop limits it would be otherwise, and all the same nothing is lost.
    world
        .lab
        .inet()
        .nft("table ip even { chain c { type filter hook forward priority 0; udp dport 7777 ip ttl set 50\n }\n }");
    let (handed, packets) = handed_on();
    assert!(handed > 100, "{handed} of {packets} handed on: the test shows nothing");
    expect_clean(&world);
}

#[test]
fn a_tap_of_one_queue_is_one_lane_and_a_word_in_the_log() {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let host = {
        let site = lab.site("s1", Nat::Open);
        lab.host(&site, "h1")
    };
    let join = Join::new("lan", &new_key(), "n1").supernode(&format!("{}:7777", server.address)).bridge("br0");
    let daemon = Daemon::start(&lab, &host, &join.word("--lanes=4").word("--no-tap-offload"));
    assert_eq!(daemon.status().overlays.len(), 1);
    assert_eq!(status(&daemon)["lanes"], 1);
    let said = daemon.process().stderr();
    assert_eq!(said.matches("one lane").count(), 1, "{said}");
}
