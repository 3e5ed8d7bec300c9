use std::io::{Read, Write};
use std::net::TcpStream as BlockingStream;
use std::time::Duration;

use super::*;
use crate::datapath::buf::{Target, Transmits};
use crate::io::clock;
use crate::io::links::tests::{Host, identity};
use crate::keys::Fingerprint;
use crate::node::{LinkCommand, LinkEvent, LinkId};
use crate::wire::relay::RELAY;

const LINK: LinkId = LinkId::Dialled(0);

#[test]
fn where_udp_is_dead_messages_and_packets_share_a_stream() {
    let (mut node, mut supernode) = (Host::new(30, false), Host::new(31, true));
    dial(&mut node, dead_udp(), supernode.tcp_port, Some(identity(31).fingerprint()));
    let near = up(node.next(&mut supernode));
    let far = up(supernode.next(&mut node));
    assert_eq!((near.exporter, near.fingerprint), (far.exporter, Some(identity(31).fingerprint())));
    assert!(stream(near.remote) && stream(far.remote) && far.origin.ip().is_loopback());

    node.send(LINK, b"hello".to_vec());
    assert_eq!(message(supernode.next(&mut node)), b"hello");
    let packet = [&[RELAY][..], &[7; 1500]].concat();
    let mut batch = Transmits::default();
    batch.push(&packet, Target { to: near.remote, from: None, hops: None, tos: 0 });
    node.links.streams().send(clock::now(), &batch);
    node.send(LINK, b"after the packet".to_vec());
    assert_eq!(message(supernode.next(&mut node)), b"after the packet");
    while supernode.packets.is_empty() {
        supernode.send(far.link, b"go on".to_vec());
        let _answer = node.next(&mut supernode);
        node.send(LINK, b"go on".to_vec());
        let _answer = supernode.next(&mut node);
    }
    assert_eq!(supernode.packets, [(packet, far.remote)]);

    node.links.obey(LinkCommand::Close { link: LINK });
    assert!(matches!(supernode.next(&mut node), LinkEvent::Down { .. }));
}

#[test]
fn a_link_on_tcp_moves_to_quic_once_that_answers() {
    let (mut node, mut supernode, mut late) = (Host::new(32, false), Host::new(33, true), Host::new(33, true));
    // The socket that is dialled answers only when it is read.
    dial(&mut node, late.underlay.port(), supernode.tcp_port, Some(identity(33).fingerprint()));
    let near = up(node.next(&mut supernode));
    let far = up(supernode.next(&mut node));
    assert!(stream(near.remote));
    let moved = up(node.next(&mut late));
    assert_eq!((moved.link, moved.remote.port()), (LINK, late.underlay.port()));
    supernode.send(far.link, b"said before it heard".to_vec());
    assert_eq!(message(node.next(&mut late)), b"said before it heard");
    node.send(LINK, b"register".to_vec());
    assert!(!stream(up(late.next(&mut node)).remote));
    assert_eq!(message(late.next(&mut node)), b"register");
    assert!(matches!(supernode.next(&mut node), LinkEvent::Down { .. }), "the old one ends");
}

#[test]
fn another_key_on_tcp_is_refused_with_a_sentence() {
    let (mut node, mut supernode) = (Host::new(34, false), Host::new(35, true));
    dial(&mut node, dead_udp(), supernode.tcp_port, Some(identity(9).fingerprint()));
    let LinkEvent::Down { reason, .. } = node.next(&mut supernode) else { panic!("up") };
    assert!(reason.contains(&format!("TCP {}: refused", supernode.tcp_port)), "{reason}");
    assert!(reason.contains(&identity(9).fingerprint().to_string()), "{reason}");
}

#[test]
fn a_server_that_speaks_something_else_is_no_supernode() {
    let (mut node, mut idle) = (Host::new(36, false), Host::new(37, false));
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("address").port();
    let answer = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().expect("a connection");
        let _heard = stream.read(&mut [0; 4096]);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("sent");
    });
    dial(&mut node, dead_udp(), port, None);
    let LinkEvent::Down { reason, .. } = node.next(&mut idle) else { panic!("up") };
    assert!(reason.contains(&format!("TCP {port}: TLS")), "{reason}");
    answer.join().expect("the server");
}

#[test]
fn strangers_that_say_nothing_or_nonsense_are_closed() {
    let supernode = Host::new(38, true);
    let connect = || BlockingStream::connect(("127.0.0.1", supernode.tcp_port)).expect("a connection");
    let (mut silent, mut loud) = (connect(), connect());
    loud.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    for stream in [&mut loud, &mut silent] {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
        assert!(answer.len() <= 7, "no more than TLS's alert: {answer:?}");
    }
}

#[test]
fn a_port_that_nobody_asked_for_may_be_taken() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let _on = runtime.enter();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = taken.local_addr().expect("address");
    let error = listen(at, TcpPort::At(at.port())).expect_err("taken");
    assert!(error.to_string().contains("in use by another program"), "{error}");
    assert!(listen(at, TcpPort::None).expect("none").is_none());
}

/// A port where nobody answers, and nobody says so: its socket is not read.
fn dead_udp() -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = socket.local_addr().expect("address").port();
    std::mem::forget(socket);
    port
}

fn dial(node: &mut Host, udp: u16, tcp: u16, pin: Option<Fingerprint>) {
    let address = format!("127.0.0.1:{udp}/{tcp}");
    assert!(node.links.obey(LinkCommand::Dial { link: LINK, address, pin, known: None }).is_none());
}

struct Up {
    link: LinkId,
    remote: SocketAddr,
    origin: SocketAddr,
    exporter: [u8; 32],
    fingerprint: Option<Fingerprint>,
}

fn up(event: LinkEvent) -> Up {
    match event {
        LinkEvent::Up { link, remote, origin, exporter, fingerprint } => {
            Up { link, remote, origin, exporter, fingerprint }
        }
        LinkEvent::Message { .. } | LinkEvent::Waiting { .. } | LinkEvent::Down { .. } => panic!("not up: {event:?}"),
    }
}

fn message(event: LinkEvent) -> Vec<u8> {
    match event {
        LinkEvent::Message { message, .. } => message,
        LinkEvent::Up { .. } | LinkEvent::Waiting { .. } | LinkEvent::Down { .. } => panic!("no message: {event:?}"),
    }
}

fn stream(address: SocketAddr) -> bool {
    crate::seam::stream::is_stream(address)
}
