use std::net::{Ipv4Addr, SocketAddr};
use tokio::runtime::Runtime;

use super::*;
use crate::config::{ProxySettings, UnderlaySettings};
use crate::datapath::buf::Datagrams;
use crate::io::clock;
use crate::io::quic::{Inbox, inbox};
use crate::io::tcp::{Dialler, Proxies};
use crate::io::udp::Listen;
use crate::keys::Fingerprint;

#[test]
fn messages_pass_both_ways_and_both_ends_export_the_same() {
    let supernode = Host::new(1, true);
    let node = Host::new(2, false);
    let mut ends = Ends::new(node, supernode);
    ends.dial(Some(identity(1).fingerprint()));
    let (near, far) = ends.both_up();
    assert_eq!(near.exporter, far.exporter);
    assert_eq!(near.fingerprint, Some(identity(1).fingerprint()));
    assert_eq!(far.fingerprint, None);
    assert_eq!(far.remote, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ends.near.underlay.port()));

    let long = vec![7; 16 * 1024];
    ends.near.send(LinkId::Dialled(0), b"one".to_vec());
    ends.near.send(LinkId::Dialled(0), long.clone());
    assert_eq!(ends.far_message(), b"one");
    assert_eq!(ends.far_message(), long);
    ends.far.send(far.link, b"two".to_vec());
    assert_eq!(ends.near_message(), b"two");

    ends.near.send(LinkId::Dialled(0), b"last words".to_vec());
    ends.near.links.obey(LinkCommand::Close { link: LinkId::Dialled(0) });
    assert_eq!(ends.far_message(), b"last words");
    assert!(matches!(ends.far.next(&mut ends.near), LinkEvent::Down { .. }));
}

#[test]
fn a_node_can_dial_itself() {
    let mut host = Host::new(3, true);
    let mut idle = Host::new(4, false);
    let own = format!("127.0.0.1:{}", host.underlay.port());
    host.links.obey(LinkCommand::Dial { link: LinkId::Dialled(0), address: own, pin: None, known: None });
    host.send_when_up(&mut idle);
    let mut got = Vec::new();
    while got.is_empty() {
        if let LinkEvent::Message { message, .. } = host.next(&mut idle) {
            got = message;
        }
    }
    assert_eq!(got, b"hello");
}

#[test]
fn another_key_than_the_pinned_one_is_refused_by_name() {
    let mut ends = Ends::new(Host::new(5, false), Host::new(6, true));
    ends.dial(Some(identity(9).fingerprint()));
    let LinkEvent::Down { reason, .. } = ends.near.next(&mut ends.far) else {
        panic!("the link came up");
    };
    assert!(reason.contains(&identity(9).fingerprint().to_string()), "{reason}");
    assert!(reason.contains(&format!("#{}", identity(6).fingerprint())), "{reason}");
}

#[test]
fn a_host_that_is_no_supernode_does_not_answer() {
    let mut ends = Ends::new(Host::new(7, false), Host::new(8, false));
    ends.dial(None);
    assert!(matches!(ends.near.next(&mut ends.far), LinkEvent::Down { .. }));
}

#[test]
fn an_unresolvable_name_has_its_sentence() {
    let mut ends = Ends::new(Host::new(10, false), Host::new(11, false));
    let address = "nowhere:port".to_owned();
    ends.near.links.obey(LinkCommand::Dial { link: LinkId::Dialled(0), address, pin: None, known: None });
    let LinkEvent::Down { reason, .. } = ends.near.next(&mut ends.far) else {
        panic!("the link came up");
    };
    assert!(reason.starts_with("nowhere:port cannot be resolved") && !reason.contains("TCP"), "said once: {reason}");
}

#[test]
fn a_name_that_does_not_resolve_is_reached_where_it_was_before() {
    let mut ends = Ends::new(Host::new(14, false), Host::new(15, true));
    let address = "nowhere:port".to_owned();
    let known = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, ends.far.underlay.port())));
    ends.near.links.obey(LinkCommand::Dial { link: LinkId::Dialled(0), address, pin: None, known });
    let near = standing(ends.near.next(&mut ends.far));
    assert_eq!(Some(near.remote), known);
}

#[test]
fn a_restarted_supernode_has_a_word_for_links_of_before() {
    let mut ends = Ends::new(Host::new(18, false), Host::new(19, true));
    ends.dial(None);
    ends.both_up();
    let place = ends.far.underlay.local();
    drop(ends.far);
    let mut far = Host::at(19, true, place);
    ends.near.send(LinkId::Dialled(0), b"are you there?".to_vec());
    let LinkEvent::Down { reason, .. } = ends.near.next(&mut far) else { panic!("it went on") };
    assert!(reason.ends_with("has restarted"), "{reason}");
}

#[test]
fn the_first_answer_to_a_stranger_is_a_retry() {
    let mut supernode = Host::new(12, true);
    let port = supernode.underlay.port();
    let mut node = Host::new(13, false);
    node.dial_to(port, None);
    // Not fed to the node: what is looked at is the very first answer.
    let end = clock::now() + Duration::from_secs(5);
    let mut answer = Vec::new();
    while answer.is_empty() && clock::now() < end {
        supernode.pump();
        let mut room = vec![0; 2000];
        if let Ok(socket) = node.underlay.second_handle()
            && let Ok(length) = socket.recv(&mut room)
        {
            answer = room[..length].to_vec();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // Long header, type Retry (RFC 9000 section 17.2.5).
    assert_eq!(answer[0] & 0xf0, 0xf0, "{:02x}", answer[0]);
    assert!(answer.len() < 200);
}

/// Bent and invented datagrams of QUIC's kind: whoever's address they bear gets no more bytes than were sent.
#[test]
fn a_stranger_gets_no_more_bytes_of_quic_than_it_sent() {
    let mut supernode = Host::new(16, true);
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, supernode.underlay.port()));
    let mut node = Host::new(17, false);
    let first = first_datagram(&mut node);
    let mut rng = <rand_chacha::ChaCha20Rng as rand_chacha::rand_core::SeedableRng>::seed_from_u64(16);
    let mut draw = |below: usize| rand_chacha::rand_core::RngCore::next_u64(&mut rng) as usize % below;
    let mut strangers = Vec::new();
    for turn in 0..400 {
        let mut input: Vec<u8> = first.clone();
        if turn % 3 == 0 {
            input = (0..1 + draw(1400)).map(|_| draw(256) as u8).collect();
        } else if turn % 3 == 1 {
            (0..1 + draw(4)).for_each(|_| input[draw(40)] = draw(256) as u8);
        }
        input[0] |= 0x40;
        // One for each, so that an answer is not taken for that to another.
        let stranger = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        stranger.set_nonblocking(true).expect("a flag");
        // What the node still sends to its port before may come to a port that is free again.
        stranger.connect(to).expect("an address");
        stranger.send(&input).expect("sent");
        supernode.pump();
        strangers.push((stranger, input));
    }
    let end = clock::now() + Duration::from_secs(1);
    while clock::now() < end {
        supernode.pump();
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut answered = 0;
    for (stranger, input) in strangers {
        let mut room = [0; 2000];
        let answer: usize = std::iter::from_fn(|| stranger.recv(&mut room).ok()).sum();
        assert!(answer <= input.len(), "{answer} bytes for {}: {:02x?}", input.len(), &input[..input.len().min(40)]);
        answered += usize::from(answer > 0);
    }
    // One address gets no more than its limit.
    assert!(answered > 50, "{answered} of 400 strangers got an answer");
}

/// What a node sends first when it dials.
fn first_datagram(node: &mut Host) -> Vec<u8> {
    let ear = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    ear.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    node.dial_to(ear.local_addr().expect("bound").port(), None);
    let mut room = vec![0; 2000];
    let length = ear.recv(&mut room).expect("a first datagram");
    room.truncate(length);
    room
}

pub(in crate::io) fn identity(seed: u8) -> Identity {
    Identity::from_secret(&[seed; 32])
}

/// A daemon's QUIC part with a loop that does nothing else.
pub(in crate::io) struct Host {
    background: Runtime,
    pub(in crate::io) underlay: Arc<Underlay>,
    pub(in crate::io) tcp_port: u16,
    /// What came on streams.
    pub(in crate::io) packets: Vec<(Vec<u8>, SocketAddr)>,
    inbox: Inbox,
    pub(in crate::io) links: Links,
    inputs: mpsc::Receiver<Input>,
    datagrams: Datagrams,
}

impl Host {
    pub(in crate::io) fn new(seed: u8, serve: bool) -> Self {
        Self::at(seed, serve, "[::]:0".parse().expect("address"))
    }

    fn at(seed: u8, serve: bool, place: SocketAddr) -> Self {
        let background =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
        let underlay = Arc::new(Underlay::bind(Listen::At(place)).expect("a free port"));
        let (inbox, received) = inbox();
        let (sender, inputs) = mpsc::channel(64);
        let identity = identity(seed);
        let ground = Ground {
            background: background.handle().clone(),
            underlay: Arc::clone(&underlay),
            received,
            identity: &identity,
            serve,
            inputs: sender,
        };
        let listener = {
            let _on = background.enter();
            let at = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            at.set_nonblocking(true).expect("a socket");
            tokio::net::TcpListener::from_std(at).expect("a listener")
        };
        let tcp_port = listener.local_addr().expect("an address").port();
        let proxies = Proxies::new(&ProxySettings::None);
        let dialler = Dialler { streams: Streams::default(), proxies, underlay: Arc::new(UnderlaySettings::default()) };
        let links = Links::new(ground, Tcp { dialler, listener: Some(listener) }).expect("links");
        Self {
            background,
            tcp_port,
            packets: Vec::new(),
            underlay,
            inbox,
            links,
            inputs,
            datagrams: Datagrams::default(),
        }
    }

    pub(in crate::io) fn pump(&mut self) {
        self.datagrams.clear();
        self.underlay.receive(&mut self.datagrams, &self.inbox).expect("receive");
    }

    pub(in crate::io) fn dial_to(&mut self, port: u16, pin: Option<Fingerprint>) {
        let address = format!("127.0.0.1:{port}");
        assert!(self.links.obey(LinkCommand::Dial { link: LinkId::Dialled(0), address, pin, known: None }).is_none());
    }

    pub(in crate::io) fn send(&mut self, link: LinkId, message: Vec<u8>) {
        assert!(self.links.obey(LinkCommand::Send { link, message: message.into() }).is_none());
    }

    fn send_when_up(&mut self, other: &mut Self) {
        loop {
            if let LinkEvent::Up { link: link @ LinkId::Dialled(_), .. } = self.next(other) {
                return self.send(link, b"hello".to_vec());
            }
        }
    }

    /// The next event here, while `other` goes on as well.
    pub(in crate::io) fn next(&mut self, other: &mut Self) -> LinkEvent {
        let end = clock::now() + Duration::from_secs(20);
        while clock::now() < end {
            self.pump();
            other.pump();
            match self.inputs.try_recv() {
                Ok(Input::Link(input)) => {
                    if let Some(event) = self.links.admit(input) {
                        return event;
                    }
                }
                Ok(Input::Datagrams(packets)) => {
                    self.packets.extend(packets.iter().map(|(packet, origin)| (packet.to_vec(), origin.from)));
                }
                Ok(other) => panic!("{other:?}"),
                Err(_nothing) => {}
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("no event in 20 s; {} tasks live", self.background.metrics().num_alive_tasks());
    }
}

struct Standing {
    link: LinkId,
    remote: SocketAddr,
    exporter: [u8; 32],
    fingerprint: Option<Fingerprint>,
}

struct Ends {
    near: Host,
    far: Host,
}

impl Ends {
    fn new(near: Host, far: Host) -> Self {
        Self { near, far }
    }

    fn dial(&mut self, pin: Option<Fingerprint>) {
        self.near.dial_to(self.far.underlay.port(), pin);
    }

    /// The node is up at once, the supernode once a message came.
    fn both_up(&mut self) -> (Standing, Standing) {
        let near = standing(self.near.next(&mut self.far));
        self.near.send(LinkId::Dialled(0), b"register".to_vec());
        let far = standing(self.far.next(&mut self.near));
        assert_eq!(self.far_message(), b"register");
        (near, far)
    }

    fn far_message(&mut self) -> Vec<u8> {
        message(self.far.next(&mut self.near))
    }

    fn near_message(&mut self) -> Vec<u8> {
        message(self.near.next(&mut self.far))
    }
}

fn standing(event: LinkEvent) -> Standing {
    match event {
        LinkEvent::Up { link, remote, exporter, fingerprint, .. } => Standing { link, remote, exporter, fingerprint },
        LinkEvent::Message { .. } | LinkEvent::Waiting { .. } | LinkEvent::Down { .. } => panic!("not up: {event:?}"),
    }
}

fn message(event: LinkEvent) -> Vec<u8> {
    match event {
        LinkEvent::Message { message, .. } => message,
        LinkEvent::Up { .. } | LinkEvent::Waiting { .. } | LinkEvent::Down { .. } => panic!("no message: {event:?}"),
    }
}
