//! The lab does what it says, without longwire: NAT kinds, emulator, raw sockets, cleaning up.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use lab::{Capture, Guest, Host, Impairment, Iperf, Lab, Mac, Nat, PacketSocket, Ping, frame, poll_for};

/// What must come may come late: the machine stalls at times.
const PATIENCE: Duration = Duration::from_secs(5);

/// Long enough for a packet across the lab, short enough for many that must not come.
const SOON: Duration = Duration::from_millis(100);

const MARK: u64 = 0x6c6f_6e67_7769_7265;

fn socket_on(host: &Host, port: u16) -> UdpSocket {
    let socket = host.space.inside(|| UdpSocket::bind(("0.0.0.0", port)));
    let socket = socket.unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

fn socket_at(host: &Host, address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = host.space.inside(|| UdpSocket::bind((address, port)));
    let socket = socket.unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// Where a packet of `from` to `to` seems to come from. It always comes.
fn seen_from(from: &UdpSocket, to: &UdpSocket) -> SocketAddr {
    from.send_to(b"probe", to.local_addr().unwrap()).unwrap();
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    to.recv_from(&mut [0; 16]).unwrap().1
}

fn hears(inside: &UdpSocket, from: &UdpSocket, at: SocketAddr, wait: Duration) -> bool {
    from.send_to(b"answer", at).unwrap();
    inside.set_read_timeout(Some(wait)).unwrap();
    inside.recv_from(&mut [0; 16]).is_ok()
}

/// A supernode host with probe sockets: two addresses, on the first two ports.
struct Outside {
    first: UdpSocket,
    other_port: UdpSocket,
    other_address: UdpSocket,
}

impl Outside {
    fn new(server: &Host) -> Outside {
        Outside {
            first: socket_at(server, server.address, 7001),
            other_port: socket_at(server, server.address, 7002),
            other_address: socket_at(server, server.second.unwrap(), 7001),
        }
    }
}

#[test]
fn each_nat_maps_and_filters_as_its_name_says() {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let outside = Outside::new(&server);
    for nat in Nat::ALL {
        let site = lab.site(nat.label(), nat);
        let host = lab.host(&site, &format!("{}1", nat.label()));
        let inside = socket_on(&host, 4000);

        let at = seen_from(&inside, &outside.first);
        let expected = if nat.translates() { site.outside } else { host.address };
        assert_eq!(at.ip(), expected, "{nat:?}: the address outside");
        assert!(hears(&inside, &outside.first, at, PATIENCE), "{nat:?}: an answer");
        // Filtering first: a packet to the others would open the way for them.
        let by_address = matches!(nat, Nat::Open | Nat::FullCone | Nat::Restricted | Nat::AddressDependent);
        let none = matches!(nat, Nat::Open | Nat::FullCone);
        let wait = |is_expected| if is_expected { PATIENCE } else { SOON };
        let heard = hears(&inside, &outside.other_port, at, wait(by_address));
        assert_eq!(heard, by_address, "{nat:?}: from another port");
        let heard = hears(&inside, &outside.other_address, at, wait(none));
        assert_eq!(heard, none, "{nat:?}: from another address");
        // The strays above spoil the mapping of a bare masquerade toward those, so ask anew.
        let inside = socket_on(&host, 4001);
        let ports = [&outside.first, &outside.other_port, &outside.other_address]
            .map(|server| seen_from(&inside, server).port());
        let same = ports.iter().all(|port| *port == ports[0]);
        if nat == Nat::Counting {
            assert!(ports.windows(2).all(|pair| pair[1] == pair[0] + 1), "{nat:?}: ports {ports:?}");
        }
        let is_hard = matches!(nat, Nat::Symmetric | Nat::Counting | Nat::AddressDependent);
        assert_eq!(same, !is_hard, "{nat:?}: ports {ports:?}");
        assert_eq!(ports[0] == ports[1], !is_hard || nat == Nat::AddressDependent, "{nat:?}: ports {ports:?}");
    }
}

#[test]
fn a_stray_packet_spoils_the_mapping_of_a_bare_masquerade_only() {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let outside = Outside::new(&server);
    for nat in [Nat::BareMasquerade, Nat::PortRestricted] {
        let site = lab.site(nat.label(), nat);
        let host = lab.host(&site, &format!("{}1", nat.label()));
        let inside = socket_on(&host, 4000);
        let at = seen_from(&inside, &outside.first);
        assert!(!hears(&inside, &outside.other_address, at, SOON), "{nat:?} lets a stranger in");
        let after = seen_from(&inside, &outside.other_address);
        assert_eq!(after == at, nat == Nat::PortRestricted, "{nat:?}: {at}, then {after}");
    }
}

/// Both sides write to where the other was seen, so many times; does one hear the other?
fn meets(one: &UdpSocket, other: &UdpSocket, outside: &Outside, times: u32) -> bool {
    let one_at = seen_from(one, &outside.first);
    let other_at = seen_from(other, &outside.first);
    let mut sources = (other_at, one_at);
    for _ in 0..times {
        one.send_to(b"punch", sources.0).unwrap();
        other.send_to(b"punch", sources.1).unwrap();
        // Who hears something answers to where it came from.
        if let Ok((_, from)) = one.recv_from(&mut [0; 16]) {
            sources.0 = from;
        }
        if let Ok((_, from)) = other.recv_from(&mut [0; 16]) {
            sources.1 = from;
            one.send_to(b"punch", sources.0).unwrap();
            if hears(one, other, from, SOON) {
                return true;
            }
        }
    }
    false
}

#[test]
fn exactly_the_pairs_of_the_oracle_meet_without_a_relay() {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let outside = Outside::new(&server);
    let kinds = Nat::ALL.map(|nat| nat).into_iter().filter(|nat| *nat != Nat::BareMasquerade);
    let kinds: Vec<Nat> = kinds.collect();
    let hosts: Vec<[Host; 2]> = kinds
        .iter()
        .map(|nat| {
            ["a", "b"].map(|side| {
                let site = lab.site(&format!("{side}{}", nat.label()), *nat);
                lab.host(&site, &format!("{side}{}1", nat.label()))
            })
        })
        .collect();
    let mut port = 5000;
    for (i, one) in kinds.iter().enumerate() {
        for (j, other) in kinds.iter().enumerate().skip(i) {
            port += 1;
            let sockets = (socket_on(&hosts[i][0], port), socket_on(&hosts[j][1], port));
            let can = lab::can_punch(*one, *other);
            let met = meets(&sockets.0, &sockets.1, &outside, if can { 30 } else { 3 });
            assert_eq!(met, can, "{one:?} and {other:?}");
        }
    }
}

/// Two guests on the bridges of two open hosts, whose bridges are joined by a cable.
fn joined_guests(lab: &mut Lab) -> (Guest, Guest) {
    let site = lab.site("s", Nat::Open);
    let (one, other) = (lab.host(&site, "h1"), lab.kvm_host(&site, "h2"));
    let first = lab.guest(&one, "g1", Ipv4Addr::new(10, 77, 0, 1));
    let second = lab.guest(&other, "g2", Ipv4Addr::new(10, 77, 0, 2));
    lab::join_bridges(&one, &other);
    (first, second)
}

#[test]
fn a_delayed_and_lossy_link_delays_and_loses_what_it_was_told() {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let twenty = Impairment::delay(Duration::from_millis(20));
    let site = lab.emulated_site("a", Nat::PortRestricted, twenty);
    let host = lab.host(&site, "a1");

    let report = Ping::count(&host.space, server.address, 5);
    assert_eq!((report.sent, report.lost()), (5, 0), "{report:?}");
    let (least, median, _) = report.rtt_ms().unwrap();
    assert!(least >= 40.0 && median < 46.0, "twice 20 ms: {report:?}");

    site.impair(Impairment { loss: 0.1, ..Impairment::NONE });
    let fast = ["-c", "1000", "-W", "1"];
    let report =
        Ping::start(&host.space, server.address, Duration::from_millis(2), &fast).wait(Duration::from_secs(10));
    // Both ways: 19 % of 1000, standard deviation 12.
    assert!((130..=250).contains(&report.lost()), "lost {}", report.lost());

    site.impair(Impairment { duplicate: 1.0, ..Impairment::NONE });
    let report = Ping::count(&host.space, server.address, 3);
    assert!(report.lost() == 0 && report.duplicates >= 6, "{report:?}");

    site.impair(Impairment::CUT);
    assert_eq!(Ping::count(&host.space, server.address, 2).replies.len(), 0);
    site.impair(Impairment::NONE);
    assert_eq!(Ping::count(&host.space, server.address, 2).lost(), 0);
}

#[test]
fn held_back_packets_are_overtaken() {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let reorder = Impairment { reorder: 0.3, seed: 7, ..Impairment::NONE };
    let site = lab.emulated_site("a", Nat::Open, reorder);
    let host = lab.host(&site, "a1");
    let (from, to) = (socket_on(&host, 4000), socket_at(&server, server.address, 7001));
    for number in 0..200_u32 {
        from.send_to(&number.to_be_bytes(), to.local_addr().unwrap()).unwrap();
    }
    let mut numbers = Vec::new();
    let mut buffer = [0; 4];
    while to.recv_from(&mut buffer).is_ok() {
        numbers.push(u32::from_be_bytes(buffer));
    }
    assert!(!numbers.is_sorted(), "in order in spite of all: {numbers:?}");
    numbers.sort_unstable();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>(), "each arrives once");
}

#[test]
fn a_full_tcp_stream_crosses_the_emulator_and_the_nat() {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let site = lab.emulated_site("a", Nat::Symmetric, Impairment::NONE);
    let host = lab.host(&site, "a1");
    let guest_like = |host: &Host| Guest {
        name: host.name.clone(),
        space: host.space.clone(),
        address: host.address,
        mac: Mac::foreign(0),
        port: String::new(),
    };
    let report = Iperf::tcp(&guest_like(&host), &guest_like(&server), 1);
    eprintln!("through the emulator: {:.0} Mbit/s", report.bits_per_second / 1e6);
    assert!(report.bits_per_second > 20e6, "{:.0} bit/s", report.bits_per_second);
}

#[test]
fn raw_frames_arrive_byte_for_byte_with_their_tags() {
    let mut lab = Lab::new();
    let (one, other) = joined_guests(&mut lab);
    let report = Ping::count(&one.space, other.address, 3);
    assert_eq!((report.sent, report.lost()), (3, 0), "guests on a cable: {report:?}");

    let sender = PacketSocket::open(&one.space, "eth0");
    let receiver = PacketSocket::open(&other.space, "eth0");
    let source = Mac::foreign(1);
    let plain = frame::marked(Mac::BROADCAST, source, MARK);
    let tagged = frame::tagged(&plain, frame::C_TAG, 10, 3);
    let sent = [
        frame::tagged(&plain, frame::C_TAG, 0, 5),
        frame::tagged(&plain, frame::C_TAG, 0, 0),
        frame::tagged(&tagged, frame::S_TAG, 200, 0),
        frame::tagged(&tagged, frame::C_TAG, 300, 0),
        frame::marked(Mac([0x01, 0x0e, 0xcf, 0, 0, 1]), source, MARK),
        frame::gratuitous_arp(source, Ipv4Addr::new(10, 77, 9, 9)),
        frame::rarp(source),
        frame::dhcp_discover(source, 7),
        plain,
        tagged,
    ];
    for frame in &sent {
        sender.send(frame).unwrap();
    }
    let ours = |frames: &[Vec<u8>]| -> Vec<Vec<u8>> {
        let from_source = |frame: &&Vec<u8>| frame[6..12] == source.0;
        frames.iter().filter(from_source).cloned().collect()
    };
    let arrived = receiver.collect(Duration::from_secs(2), |all| ours(all).len() >= sent.len());
    assert_eq!(ours(&arrived), sent);
}

#[test]
fn a_tagged_guest_sends_and_hears_tagged_frames_only() {
    let mut lab = Lab::new();
    let (one, other) = joined_guests(&mut lab);
    let _tagging = one.tag(10).unwrap();
    assert_eq!(Ping::count(&one.space, other.address, 1).replies.len(), 0, "a tag that nobody expects");
    let capture = Capture::start(&other.space, "eth0");
    let _other = other.tag(10).unwrap();
    let report = Ping::count(&one.space, other.address, 3);
    assert_eq!((report.sent, report.lost()), (3, 0), "both tagged: {report:?}");
    let frames = capture.stop();
    let from_one = frames.iter().filter(|frame| frame[6..12] == one.mac.0).collect::<Vec<_>>();
    assert!(from_one.iter().all(|frame| frame[12..16] == [0x81, 0, 0, 10]), "{from_one:x?}");
    assert!(from_one.len() >= 3);
}

#[test]
fn a_cabled_pair_of_hosts_meets_and_the_emulator_between_them_sees_single_packets() {
    let lab = Lab::new();
    let [one, other, third] =
        ["one", "other", "third"].map(|name| lab.lone_host(name, Ipv4Addr::new(10, 92, 0, name.len() as u8)));
    lab.cable((&one, "eth0", "10.92.0.1/24"), (&other, "eth0", "10.92.0.2/24"));
    lab.emulated_cable((&one, "eth1", "10.93.0.1/24"), (&third, "eth0", "10.93.0.2/24"), Impairment::NONE);
    assert_eq!(Ping::count(&one.space, Ipv4Addr::new(10, 92, 0, 2), 1).lost(), 0);
    let capture = Capture::start(&third.space, "eth0");
    let run = Iperf::run_to(&one.space, &third.space, Ipv4Addr::new(10, 93, 0, 2).into(), &["-n", "2M"]);
    assert!(run.bits_per_second > 1e6);
    let sender = socket_at(&one, Ipv4Addr::new(10, 93, 0, 1), 4000);
    lab::cut_datagrams(&sender, 1000);
    sender.send_to(&[0; 10_000], "10.93.0.2:4000").unwrap();
    let frames = capture.stop();
    assert_eq!(frames.iter().map(Vec::len).max(), Some(1514), "TCP superframes are cut");
    let datagrams = frames.iter().filter(|frame| frame.len() == 14 + 20 + 8 + 1000);
    assert_eq!(datagrams.count(), 10, "UDP superframes are cut");
}

#[test]
fn a_capture_sees_what_crosses_both_ways() {
    let mut lab = Lab::new();
    let (one, other) = joined_guests(&mut lab);
    let capture = Capture::start(&other.space, "eth0");
    let report = Ping::count_with(&one.space, other.address, 3, &["-p", "6c6f6e6777697265"]);
    assert_eq!(report.lost(), 0);
    let frames = capture.stop();
    let has = |frame: &&Vec<u8>| frame.windows(8).any(|part| part == MARK.to_be_bytes());
    assert_eq!(frames.iter().filter(has).count(), 6, "requests and answers");
}

fn spaces_of(prefix: &str) -> String {
    let listed = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    text.lines().filter(|line| line.starts_with(prefix)).collect()
}

#[test]
fn nothing_is_left_after_the_end_also_after_a_panic() {
    let links = || Command::new("ip").args(["-br", "link"]).output().unwrap().stdout;
    let before = links();
    let (sender, receiver) = std::sync::mpsc::channel();
    let ended = std::thread::spawn(move || {
        let mut lab = Lab::new();
        let site = lab.emulated_site("a", Nat::FullCone, Impairment::NONE);
        let host = lab.host(&site, "a1");
        let sleeper = host.space.spawn("sleeper", &["sleep".into(), "1000".into()]);
        let facts = (lab.prefix().to_owned(), lab.dir().to_owned(), sleeper.pid());
        assert!(!spaces_of(&facts.0).is_empty());
        sender.send(facts).unwrap();
        panic!("a panic, as a failed test");
    })
    .join();
    assert!(ended.is_err());
    let (prefix, dir, pid) = receiver.recv().unwrap();
    assert_eq!(spaces_of(&prefix), "");
    assert!(!dir.exists(), "{} is left", dir.display());
    let gone = poll_for(PATIENCE, || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    assert!(gone.is_some(), "process {pid} is left");
    assert_eq!(links(), before, "links outside of the namespaces");
}

#[test]
fn a_wait_ends_at_its_deadline() {
    let start = Instant::now();
    assert_eq!(poll_for(SOON, || None::<()>), None);
    assert!(start.elapsed() >= SOON && start.elapsed() < PATIENCE);
}
