use std::cell::RefCell;
use std::io::IoSliceMut;
use std::time::Duration;

use quinn::udp::{EcnCodepoint, RecvMeta};

use super::kernel::{Address, RECEIVE_MESSAGES, RECEIVE_ROOM, Received};
use super::send::{Ask, RUN_BYTES, next_run};
use super::*;
use crate::datapath::buf::{Datagrams, Target, Transmits};
use crate::io::clock;
use crate::io::quic::{Inbox, inbox};

#[test]
fn runs_are_of_one_size_and_one_target_and_only_the_last_is_shorter() {
    let mut batch = Transmits::default();
    for (len, port) in [(100, 1), (100, 1), (60, 1), (100, 1), (100, 2), (120, 2)] {
        batch.push(&vec![0; len], to(port));
    }
    assert_eq!(runs(&batch, 64), [(3, 100), (1, 100), (1, 100), (1, 120)]);
    assert_eq!(runs(&batch, 1), [(1, 100), (1, 100), (1, 60), (1, 100), (1, 100), (1, 120)]);
}

#[test]
fn a_probe_takes_nothing_with_it() {
    let mut batch = Transmits::default();
    for (kind, len) in [(5, 1500), (5, 90), (4, 1400), (4, 1400), (5, 90), (8, 1500), (8, 90), (4, 1400), (4, 90)] {
        batch.push(&vec![kind; len], to(1));
    }
    assert_eq!(runs(&batch, 64), [(1, 1500), (1, 90), (2, 1400), (1, 90), (1, 1500), (1, 90), (2, 1400)]);
}

#[test]
fn a_run_never_exceeds_what_the_kernel_takes() {
    let mut batch = Transmits::default();
    for _ in 0..200 {
        batch.push(&[0; 1400], to(1));
    }
    let lens: Vec<usize> = runs(&batch, 64).into_iter().map(|(run, _)| run).collect();
    assert_eq!(lens.iter().sum::<usize>(), 200);
    assert!(lens.iter().all(|run| run * 1400 <= RUN_BYTES && *run <= 64), "{lens:?}");
}

#[test]
fn pieces_that_do_not_touch_are_no_run() {
    let mut batch = Transmits::default();
    batch.reserve(410);
    for (offset, len) in [(0, 100), (100, 100), (210, 100), (310, 100)] {
        batch.place(offset, len, to(1));
    }
    batch.close();
    assert_eq!(runs(&batch, 64), [(2, 100), (2, 100)]);
}

#[test]
fn runs_arrive_whole_and_quic_is_taken_out() {
    let (sender, receiver) = (bind(), bind());
    let (inbox, mut quic) = inbox();
    let mut batch = Transmits::default();
    for first in [0x04, 0x04, 0xc3, 0x05, 0x43] {
        batch.push(&[first; 300], at(&receiver));
    }
    batch.push(&[0x44; 120], at(&receiver));
    assert_eq!(sender.send(&batch, 0..batch.len()), Sent::All);

    let got = receive_until(&receiver, &inbox, 3);
    assert_eq!(got.iter().map(|(bytes, _)| bytes[0]).collect::<Vec<_>>(), [0x04, 0x04, 0x05]);
    assert!(got.iter().all(|(_, from)| *from == SocketAddr::new(Ipv4Addr::LOCALHOST.into(), sender.port())));
    for (first, len) in [(0xc3, 300), (0x43, 300), (0x44, 120)] {
        let datagram = quic.try_recv().expect("one of QUIC's");
        assert_eq!(datagram.bytes, vec![first; len]);
        assert_eq!((datagram.meta.len, datagram.meta.stride), (len, len));
        assert_eq!(datagram.meta.addr, sender.kernel_form(got[0].1), "QUIC knows the kernel's form");
    }
    assert!(quic.try_recv().is_err(), "nothing of ours went to QUIC");
}

#[test]
fn a_gro_buffer_has_its_stride() {
    let (sender, receiver) = (bind(), bind());
    let (inbox, _quic) = inbox();
    let mut batch = Transmits::default();
    for len in [300, 300, 300, 120, 77] {
        batch.push(&vec![0x04; len], at(&receiver));
    }
    assert_eq!(sender.send(&batch, 0..batch.len()), Sent::All);
    let (mut datagrams, mut got) = (Datagrams::default(), Vec::new());
    let end = clock::now() + Duration::from_secs(5);
    while got.len() < 2 && clock::now() < end {
        datagrams.clear();
        receiver.receive(&mut datagrams, &inbox).expect("receive");
        got.extend(datagrams.iter().map(|(bytes, origin)| (bytes.len(), origin.stride)));
    }
    assert_eq!(got, [(1020, 300), (77, 77)]);
}

#[test]
fn a_mixed_batch_arrives_whole_and_in_order() {
    let v4_only = Underlay::bind(Listen::At("127.0.0.1:0".parse().expect("address"))).expect("a free port");
    let receivers = [bind(), bind(), bind()];
    let (inbox, _quic) = inbox();
    let v6 =
        Target { to: SocketAddr::new(Ipv6Addr::LOCALHOST.into(), receivers[2].port()), hops: None, from: None, tos: 0 };
    let targets = [at(&receivers[0]), at(&receivers[1]), v6];
    let (mut batch, mut meant) = (Transmits::default(), [const { Vec::new() }; 3]);
    for number in 0..150_u8 {
        let hops = (number % 7 == 1).then_some(number);
        let place = usize::from(number / 3) % targets.len();
        let len = 20 + usize::from(number / 10) * 13 - usize::from(number % 3 == 2);
        batch.push(&numbered(number, len), Target { hops, ..targets[place] });
        meant[place].push(numbered(number, len));
    }
    let reached = |sender: &Underlay, places: std::ops::Range<usize>| {
        assert_eq!(sender.send(&batch, 0..batch.len()), Sent::All);
        for place in places {
            let got = receive_until(&receivers[place], &inbox, meant[place].len());
            assert_eq!(got.into_iter().map(|(bytes, _)| bytes).collect::<Vec<_>>(), meant[place]);
        }
        sender.counters.refused.load(Ordering::Relaxed)
    };
    assert_eq!(reached(&bind(), 0..3), 0);
    assert_eq!(reached(&v4_only, 0..2), meant[2].len() as u64, "an IPv4 socket does not reach IPv6");
}

#[test]
fn many_more_pieces_than_one_call_takes_arrive_in_order() {
    let (sender, receiver) = (bind(), bind());
    let (inbox, _quic) = inbox();
    let mut batch = Transmits::default();
    // First a long run, then every piece a message of its own.
    let meant: Vec<_> = (0..=255).map(|n| numbered(n, if n < 150 { 40 } else { 50 + usize::from(n) })).collect();
    meant.iter().for_each(|bytes| batch.push(bytes, at(&receiver)));
    assert_eq!(sender.send(&batch, 0..batch.len()), Sent::All);
    let got = receive_until(&receiver, &inbox, meant.len());
    assert_eq!(got.into_iter().map(|(bytes, _)| bytes).collect::<Vec<_>>(), meant);
}

#[test]
fn each_datagram_may_have_a_hop_limit_of_its_own() {
    let receiver = bind();
    set(&receiver, libc::SOL_IP, libc::IP_RECVTTL, 1);
    set(&receiver, libc::SOL_IPV6, libc::IPV6_RECVHOPLIMIT, 1);
    let v4_only = Underlay::bind(Listen::At("127.0.0.1:0".parse().expect("address"))).expect("a free port");
    for (sender, ip) in [
        (bind(), Ipv4Addr::LOCALHOST.into()),
        (bind(), IpAddr::from(Ipv6Addr::LOCALHOST)),
        (v4_only, Ipv4Addr::LOCALHOST.into()),
    ] {
        let mut batch = Transmits::default();
        let to = SocketAddr::new(ip, receiver.port());
        for hops in [None, Some(5), Some(5), None, Some(255), Some(1)] {
            batch.push(&[0x04; 30], Target { to, hops, from: None, tos: 0 });
        }
        assert_eq!(sender.send(&batch, 0..batch.len()), Sent::All);
        let of_socket = SockRef::from(&sender.socket);
        let own = if ip.is_ipv4() { of_socket.ttl_v4() } else { of_socket.unicast_hops_v6() };
        let own = i32::try_from(own.expect("the socket's own")).expect("a byte");
        assert_eq!(hop_limits(&receiver, 5), [own, 5, own, 255, 1], "{ip} from {}", sender.local);
    }
}

#[test]
fn what_quic_learns_is_what_its_own_socket_code_reads() {
    let (sender, receiver) = (bind(), bind());
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let destination = sender.kernel_form(SocketAddr::new(ip, receiver.port()));
        let transmit = |ecn, contents| Transmit { destination, ecn, contents, segment_size: Some(100), src_ip: None };
        for ecn in [None, Some(EcnCodepoint::Ect0), Some(EcnCodepoint::Ce)] {
            sender.send_raw(&transmit(ecn, &[0x40; 250])).expect("send");
            sender.send_raw(&transmit(ecn, &[0x40; 250])).expect("send");
            let (mut room, mut theirs) = (vec![0; RECEIVE_ROOM], [RecvMeta::default()]);
            let socket = UdpSockRef::from(&receiver.socket);
            receiver.state.recv(socket, &mut [IoSliceMut::new(&mut room)], &mut theirs).expect("receive");
            let mut ours = [Received::EMPTY; RECEIVE_MESSAGES];
            assert_eq!(kernel::receive(receiver.as_fd(), &mut room, &mut ours).expect("receive"), 1);
            let ours = receive::quic_meta(&ours[0], ours[0].from.decode().expect("an address"));
            assert_eq!(format!("{ours:?}"), format!("{:?}", theirs[0]));
            assert_eq!((ours.stride, ours.ecn, ours.dst_ip), (100, ecn, Some(destination.ip())));
        }
    }
}

#[test]
fn what_quic_is_refused_does_not_end_our_runs() {
    let sender = bind();
    let destination = sender.kernel_form(to(0).to);
    let transmit = Transmit { destination, ecn: None, contents: &[0x40; 10], segment_size: None, src_ip: None };
    let error = sender.send_raw(&transmit).expect_err("there is no port 0");
    assert_eq!(Errno::from_io_error(&error), Some(Errno::INVAL));
    assert_eq!(sender.max_gso_segments(), 1, "quinn-udp gives up");
    let mut batch = Transmits::default();
    (0..10).for_each(|_| batch.push(&[0; 90], to(1)));
    assert_eq!(sender.next_run(&batch, 0).expect("a run").pieces, 10);
}

#[test]
fn addresses_are_as_the_kernel_lays_them() {
    for text in ["192.0.2.1:7777", "[2001:db8::1]:1", "[::ffff:192.0.2.1]:65535"] {
        let address: SocketAddr = text.parse().expect("an address");
        assert_eq!(Address::encode(address).decode(), Some(address));
    }
    let link_local = SocketAddr::V6(std::net::SocketAddrV6::new("fe80::1".parse().expect("address"), 7, 8, 9));
    assert_eq!(Address::encode(link_local).decode(), Some(link_local));
    assert_eq!(Received::EMPTY.from.decode(), None);
}

#[test]
fn a_full_socket_ends_the_batch_and_nothing_is_lost_or_repeated() {
    let underlay = bind();
    let mut batch = Transmits::default();
    for piece in 0..100 {
        batch.push(&[0; 50], to(piece / 10));
    }
    // A kernel with room for so many runs at a time.
    for room in 1..4 {
        let (went, mut taken) = (RefCell::new(Vec::new()), 0);
        let mut next = 0;
        while let Sent::UpTo(place) = underlay.send_by(&batch, next..batch.len(), |ask| {
            let Ask::Runs(first) = ask else { panic!("nothing was refused") };
            if taken == room {
                taken = 0;
                return Err(io::ErrorKind::WouldBlock.into());
            }
            taken += 1;
            let run = next_run(&batch, first, 64).expect("a run");
            went.borrow_mut().extend(first..first + run.pieces);
            Ok(first + run.pieces)
        }) {
            assert_eq!(place, went.borrow().len());
            next = place;
        }
        assert_eq!(went.into_inner(), (0..100).collect::<Vec<_>>());
    }
    assert_eq!(underlay.counters.refused.load(Ordering::Relaxed), 0);
}

#[test]
fn a_run_that_is_too_long_is_counted_and_the_rest_goes() {
    let underlay = bind();
    let mut batch = Transmits::default();
    for piece in 0..30 {
        batch.push(&vec![0; if piece == 19 { 40 } else { 50 }], to(piece / 10));
    }
    // The way to the second target takes 40 bytes; older kernels say EINVAL of a run, all say EMSGSIZE of one.
    let mut asked = Vec::new();
    let sent = underlay.send_by(&batch, 0..batch.len(), |ask| {
        asked.push(ask);
        match ask {
            Ask::Runs(10) => Err(Errno::INVAL.into()),
            Ask::One(_) => Err(Errno::MSGSIZE.into()),
            Ask::Runs(first) => Ok(next_run(&batch, first, 64).map_or(first, |run| first + run.pieces)),
        }
    });
    assert_eq!(sent, Sent::All);
    assert_eq!(asked, [Ask::Runs(0), Ask::Runs(10), Ask::One(10), Ask::Runs(19), Ask::Runs(20)]);
    assert_eq!(underlay.next_run(&batch, 0).expect("a run").pieces, 10, "GSO is not to blame");
    assert_eq!(underlay.counters.too_big.load(Ordering::Relaxed), 9, "the shorter one fits");
}

#[test]
fn where_there_is_no_gso_datagrams_go_singly_and_it_is_tried_again() {
    let (sender, receiver) = (bind(), bind());
    let (inbox, _quic) = inbox();
    // The kernel cuts no run whose checksums nobody makes.
    set(&sender, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1);
    let mut batch = Transmits::default();
    let meant: Vec<_> = (0..30).map(|number| numbered(number, 90)).collect();
    meant.iter().for_each(|bytes| batch.push(bytes, at(&receiver)));
    for _ in 0..2 {
        assert_eq!(sender.send(&batch, 0..batch.len()), Sent::All);
        let got = receive_until(&receiver, &inbox, meant.len());
        assert_eq!(got.into_iter().map(|(bytes, _)| bytes).collect::<Vec<_>>(), meant);
    }
    assert_eq!(sender.counters.refused.load(Ordering::Relaxed), 0);

    let asked_for_runs = |sender: &Underlay| sender.next_run(&batch, 0).expect("a run").pieces > 1;
    assert!(!asked_for_runs(&sender), "it is remembered");
    let v6 = Target { to: SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 1), hops: None, from: None, tos: 0 };
    let mut other = Transmits::default();
    (0..2).for_each(|_| other.push(&[0; 90], v6));
    assert_eq!(sender.next_run(&other, 0).expect("a run").pieces, 2, "of the other family nothing is known");
    (0..2000).for_each(|_| assert_eq!(sender.send(&Transmits::default(), 0..0), Sent::All));
    assert!(asked_for_runs(&sender), "routes change");
}

#[test]
fn a_datagram_that_cannot_go_is_counted_and_the_rest_goes() {
    let sender = bind();
    let receiver = bind();
    let (inbox, _quic) = inbox();
    let mut batch = Transmits::default();
    batch.push(&[0x04; 65_508], at(&receiver));
    batch.push(&[0x04; 10], to(0));
    batch.push(&[0x05; 10], at(&receiver));
    assert_eq!(sender.send(&batch, 0..batch.len()), Sent::All);
    assert_eq!(receive_until(&receiver, &inbox, 1)[0].0, [0x05; 10]);
    assert_eq!(sender.counters.too_big.load(Ordering::Relaxed), 1);
    assert_eq!(sender.counters.refused.load(Ordering::Relaxed), 1);
}

#[test]
fn empty_and_strange_datagrams_do_no_harm() {
    let receiver = bind();
    let (inbox, _quic) = inbox();
    let plain = UdpSocket::bind("127.0.0.1:0").expect("socket");
    let to = ("127.0.0.1", receiver.port());
    for datagram in [&[][..], &[0], &[0xff; 1], &[0x80; 1472], &[0x04]] {
        plain.send_to(datagram, to).expect("send");
    }
    let got = receive_until(&receiver, &inbox, 3);
    assert_eq!(got.iter().map(|(bytes, _)| bytes[0]).collect::<Vec<_>>(), [0, 0x80, 0x04]);
}

#[test]
fn a_busy_port_has_its_sentence() {
    let first = bind();
    let error = Underlay::bind(Listen::At(everywhere(first.port()))).expect_err("taken");
    assert!(error.to_string().contains("in use by another program"), "{error}");
    let error = Underlay::bind(Listen::At("192.0.2.1:0".parse().expect("address"))).expect_err("not ours");
    assert!(error.to_string().contains("no such address"), "{error}");
}

fn bind() -> Underlay {
    Underlay::bind(Listen::At(everywhere(0))).expect("a free port")
}

fn to(port: u16) -> Target {
    Target { to: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), hops: None, from: None, tos: 0 }
}

/// IPv4 on this host.
fn at(receiver: &Underlay) -> Target {
    to(receiver.port())
}

/// A sealed frame for the eye, with its number in it.
fn numbered(number: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![number; len];
    bytes[0] = 0x04;
    bytes
}

fn runs(batch: &Transmits, most: usize) -> Vec<(usize, usize)> {
    let (mut next, mut runs) = (0, Vec::new());
    while let Some(run) = next_run(batch, next, most) {
        runs.push((run.pieces, run.size));
        next += run.pieces;
    }
    runs
}

/// At least `count` datagrams that are not QUIC's, with their senders.
fn receive_until(socket: &Underlay, inbox: &Inbox, count: usize) -> Vec<(Vec<u8>, SocketAddr)> {
    let (mut got, end) = (Vec::new(), clock::now() + Duration::from_secs(5));
    let mut datagrams = Datagrams::default();
    while got.len() < count && clock::now() < end {
        datagrams.clear();
        socket.receive(&mut datagrams, inbox).expect("receive");
        for (bytes, origin) in datagrams.iter() {
            let ours = bytes.chunks(origin.stride).filter(|datagram| datagram[0] & 0x40 == 0);
            got.extend(ours.map(|datagram| (datagram.to_vec(), origin.from)));
        }
    }
    got
}

/// Those of `count` buffers that are there.
fn hop_limits(socket: &Underlay, count: usize) -> Vec<i32> {
    let mut room = vec![0; count * RECEIVE_ROOM];
    let mut received = [Received::EMPTY; RECEIVE_MESSAGES];
    let count = kernel::receive(socket.as_fd(), &mut room, &mut received).expect("receive");
    let hops = [(libc::SOL_IP, libc::IP_TTL), (libc::SOL_IPV6, libc::IPV6_HOPLIMIT)];
    let of = |buffer: &Received| {
        let note = buffer.notes.iter().find(|(level, kind, _)| hops.contains(&(*level, *kind)));
        note.map(|(_, _, value)| i32::from_ne_bytes(value.try_into().expect("an int")))
    };
    received[..count].iter().filter_map(of).collect()
}

#[allow(unsafe_code, reason = "no safe crate has these options")]
fn set(underlay: &Underlay, level: i32, name: i32, value: i32) {
    let (pointer, len) = ((&raw const value).cast(), size_of::<i32>() as libc::socklen_t);
    // SAFETY: the pointer is that of an int, and the length is an int's.
    let done = unsafe { libc::setsockopt(underlay.as_raw_fd(), level, name, pointer, len) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}
