//! `longwire netcheck`: how this host's network looks from outside, before any daemon runs.
//!
//! Asks supernodes by OBSERVE from a socket of its own, waits for answers, and has the same judge as a running
//! node (`control::natcheck`); then [`dialled`] dials them as a node does. Blocking; needs no rights.

mod dialled;

pub use dialled::Supernode;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use serde::Serialize;
use tokio::runtime::Builder;

use super::clock;
use super::state::random;
use crate::control::natcheck::judge;
use crate::control::natcheck::questions::{Question, Questions};
use crate::control::report::NatStatus;
use crate::node::SupernodeSettings;
use crate::wire::observe::{LEN, Observed};

/// Between repetitions of what was not answered, and for the last answers.
const REPEAT: Duration = Duration::from_millis(400);
/// How often a question is put.
const TRIES: usize = 3;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether any supernode answered by UDP.
    pub udp: bool,
    /// Each supernode, and how it answered.
    pub supernodes: Vec<Supernode>,
    /// Over IPv4; `null` if nobody answered there.
    pub ipv4: Option<Family>,
    /// Over IPv6; `null` if nobody answered there.
    pub ipv6: Option<Family>,
}

/// One family of addresses.
#[derive(Clone, Debug, Serialize)]
pub struct Family {
    /// Where this host was seen.
    pub public: SocketAddr,
    /// How the NAT behaves; `null` if the supernodes could not tell (one with one port cannot).
    pub nat: Option<NatStatus>,
    /// Whether hosts behind the NAT reach each other by its outside address; `null` without a NAT.
    pub hairpin: Option<bool>,
    /// Whether supernodes at several addresses were asked: one cannot tell what depends on addresses.
    pub several: bool,
}

/// Asks these supernodes.
///
/// # Errors
/// If this host gives no socket, thread or random bytes. A name that nobody knows is told with its supernode.
pub fn check(named: &[SupernodeSettings]) -> io::Result<Report> {
    let places: Vec<Vec<SocketAddr>> = named.iter().map(places).collect();
    let all = places.iter().flatten().copied();
    let of = |v4: bool| all.clone().filter(|place| place.is_ipv4() == v4).collect::<Vec<_>>();
    let (ipv4, heard4) = family(Ipv4Addr::UNSPECIFIED.into(), &of(true))?;
    let (ipv6, heard6) = match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)) {
        Ok(_) => family(Ipv6Addr::UNSPECIFIED.into(), &of(false))?,
        Err(_) => (None, Vec::new()),
    };
    let heard = |place: &SocketAddr| heard4.contains(place) || heard6.contains(place);
    // Not before: a NAT that counts would be seen to make longer steps.
    let mut supernodes = Builder::new_current_thread().enable_all().build()?.block_on(dialled::dial_all(named))?;
    for (supernode, places) in supernodes.iter_mut().zip(&places) {
        supernode.udp |= places.iter().any(heard);
    }
    Ok(Report { udp: ipv4.is_some() || ipv6.is_some(), supernodes, ipv4, ipv6 })
}

fn places(named: &SupernodeSettings) -> Vec<SocketAddr> {
    let target = dialled::target(named);
    let found = target.places().0.to_socket_addrs();
    found.map(|found| found.map(super::udp::canonical).collect()).unwrap_or_default()
}

/// Looks at one family; also who answered.
fn family(any: IpAddr, places: &[SocketAddr]) -> io::Result<(Option<Family>, Vec<SocketAddr>)> {
    let socket = UdpSocket::bind((any, 0))?;
    let questions = ask_all(&socket, places)?;
    let observations = questions.observations();
    let Some(first) = observations.first() else { return Ok((None, Vec::new())) };
    let (own, port) = (own_address(any, first.asked), socket.local_addr()?.port());
    let class = judge(&observations, |seen| Some(seen.ip()) == own && seen.port() == port, port, questions.stranger());
    let translated = own != Some(first.seen.ip());
    let hairpin = if translated { Some(comes_back(&socket, first.seen)?) } else { None };
    let several = observations.iter().any(|other| other.asked.ip() != first.asked.ip());
    let heard = observations.iter().map(|one| one.asked).collect();
    let nat = class.map(|class| class.status(Some(first.seen)));
    Ok((Some(Family { public: first.seen, nat, hairpin, several }), heard))
}

fn ask_all(socket: &UdpSocket, places: &[SocketAddr]) -> io::Result<Questions> {
    let mut questions = Questions::default();
    for asked in places {
        for elsewhere in [false, true] {
            let token = token()?;
            questions.add(*asked, elsewhere, || token);
        }
    }
    for _ in 0..TRIES {
        if questions.is_empty() {
            break;
        }
        questions.open().for_each(|question| ask(socket, question));
        let end = clock::now() + REPEAT;
        while let Some(answer) = hear(socket, end.since(clock::now()))? {
            let Some(other) = questions.keep(answer) else { continue };
            let token = token()?;
            questions.add(other, false, || token).iter().for_each(|question| ask(socket, question));
        }
    }
    Ok(questions)
}

fn token() -> io::Result<u64> {
    let bytes = random()?;
    Ok(bytes.first_chunk().map_or(0, |chunk| u64::from_be_bytes(*chunk)))
}

/// What the kernel refuses is as good as lost.
fn ask(socket: &UdpSocket, question: &Question) {
    let _refused = socket.send_to(&question.packet(), question.asked);
}

/// The next answer within `patience`.
fn hear(socket: &UdpSocket, patience: Duration) -> io::Result<Option<Observed>> {
    let end = clock::now() + patience;
    let mut room = [0; LEN + 1];
    loop {
        let left = end.since(clock::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        // An ICMP error of an earlier packet comes as an error too.
        let Ok((len, _)) = socket.recv_from(&mut room) else { continue };
        if let Ok(answer) = Observed::parse(&room[..len]) {
            return Ok(Some(answer));
        }
    }
}

/// The address that packets to `place` are sent from.
fn own_address(any: IpAddr, place: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(place).ok()?;
    socket.local_addr().ok().map(|own| own.ip())
}

/// Whether a packet from another socket of this host to `public` reaches `socket`.
fn comes_back(socket: &UdpSocket, public: SocketAddr) -> io::Result<bool> {
    let token = token()?;
    let sender = UdpSocket::bind((socket.local_addr()?.ip(), 0))?;
    // Any packet would do; this is one that nobody answers.
    let packet = Observed { token, elsewhere: false, seen: public, other: None }.bytes();
    let _refused = sender.send_to(&packet, public);
    let end = clock::now() + REPEAT;
    while let Some(heard) = hear(socket, end.since(clock::now()))? {
        if heard.token == token {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(address: String) -> SupernodeSettings {
        SupernodeSettings { address, pin: None }
    }

    #[test]
    fn nobody_there_is_said_and_no_error() {
        let silent = UdpSocket::bind("127.0.0.1:0").expect("socket");
        let names = [silent.local_addr().expect("address").to_string(), "nowhere.invalid:1".to_owned()];
        let report = check(&names.clone().map(named)).expect("a report");
        assert!(!report.udp && report.ipv4.is_none());
        assert!(report.supernodes.iter().all(|one| !one.udp && !one.tcp && one.fingerprint.is_none()));
        let said = report.supernodes.iter().map(|one| one.wrong.concat()).collect::<Vec<_>>();
        assert!(said[0].is_empty() && said[1].starts_with("its name leads nowhere: nowhere.invalid"), "{said:?}");
    }

    #[test]
    fn on_one_host_nothing_is_translated() {
        use crate::io::udp::{Listen, Underlay};
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
        let _on = runtime.enter();
        let any = "127.0.0.1:0".parse().expect("address");
        let first = std::sync::Arc::new(Underlay::bind(Listen::At(any)).expect("socket"));
        crate::io::reflect::start(&first, Some(&[any])).expect("started");
        runtime.spawn(crate::io::reflect::read(std::sync::Arc::clone(&first)));
        let report = check(&[named(first.local().to_string())]).expect("a report");
        assert!(report.supernodes[0].udp);
        let nat = report.ipv4.expect("answers").nat.expect("a class");
        assert_eq!((nat.mapping.as_str(), nat.filtering.as_str()), ("none", "address-dependent"));
    }
}
