use std::time::Duration;

use super::*;
use crate::io::clock;
use crate::io::quic::inbox;

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
fn a_lone_long_datagram_takes_no_other_with_it() {
    let mut batch = Transmits::default();
    for len in [1500, 90, 751, 750, 751, 750, 300] {
        batch.push(&vec![0; len], to(1));
    }
    assert_eq!(runs(&batch, 64), [(1, 1500), (1, 90), (2, 751), (2, 751), (1, 300)]);
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
fn runs_arrive_whole_and_quic_is_taken_out() {
    let sender = bind();
    let receiver = bind();
    let (inbox, mut quic) = inbox();
    let mut batch = Transmits::default();
    let target = Target { to: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), receiver.port()), hops: None };
    for first in [0x04, 0x04, 0xc3, 0x05, 0x43] {
        batch.push(&[first; 300], target);
    }
    batch.push(&[0x01; 7], Target { hops: Some(5), ..target });
    assert_eq!(sender.send(&batch, 0), Sent::All);

    let got = receive_until(&receiver, &inbox, 4);
    let kinds: Vec<u8> = got.iter().map(|(first, _)| *first).collect();
    assert_eq!(kinds, [0x04, 0x04, 0x05, 0x01]);
    assert!(got.iter().all(|(_, from)| *from == SocketAddr::new(Ipv4Addr::LOCALHOST.into(), sender.port())));
    assert_eq!(quic.try_recv().expect("first").bytes[0], 0xc3);
    assert_eq!(quic.try_recv().expect("second").bytes[0], 0x43);
    assert_eq!(SockRef::from(&sender.socket).ttl_v4().expect("ttl"), sender.hops.0, "hop limit is put back");
}

#[test]
fn a_datagram_that_cannot_go_is_counted_and_the_rest_goes() {
    let sender = bind();
    let receiver = bind();
    let (inbox, _quic) = inbox();
    let target = Target { to: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), receiver.port()), hops: None };
    let mut batch = Transmits::default();
    batch.push(&[0x04; 65_508], target);
    batch.push(&[0x04; 10], Target { to: SocketAddr::new(Ipv4Addr::new(127, 0, 0, 1).into(), 0), hops: None });
    batch.push(&[0x05; 10], target);
    assert_eq!(sender.send(&batch, 0), Sent::All);
    assert_eq!(receive_until(&receiver, &inbox, 1)[0].0, 0x05);
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
    assert_eq!(got.iter().map(|(first, _)| *first).collect::<Vec<_>>(), [0, 0x80, 0x04]);
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
    Target { to: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), hops: None }
}

fn runs(batch: &Transmits, most: usize) -> Vec<(usize, usize)> {
    let (mut next, mut runs) = (0, Vec::new());
    while let Some((run, _, size)) = next_run(batch, next, most) {
        runs.push((run, size));
        next += run;
    }
    runs
}

/// First byte and sender of at least `count` datagrams that are not QUIC's.
fn receive_until(socket: &Underlay, inbox: &Inbox, count: usize) -> Vec<(u8, SocketAddr)> {
    let (mut got, end) = (Vec::new(), clock::now() + Duration::from_secs(5));
    let mut datagrams = Datagrams::default();
    while got.len() < count && clock::now() < end {
        datagrams.clear();
        socket.receive(&mut datagrams, inbox).expect("receive");
        for (bytes, origin) in datagrams.iter() {
            got.extend(bytes.chunks(origin.stride).map(|d| (d[0], origin.from)).filter(|(first, _)| first & 0x40 == 0));
        }
    }
    got
}
