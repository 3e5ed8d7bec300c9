//! The sockets of the local link: sends the node's announcements on every interface that leads to the
//! underlay and hands in what others announce there (protocol.md section 8). Runs in the background.
//!
//! For each family one socket hears the group and one speaks and hears answers, so that several daemons
//! on a host do not take each other's. The hop limit is 1: nothing leaves the link.

use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockRef, Socket as RawSocket, Type};
use tokio::net::UdpSocket;
use tokio::runtime::Handle as Background;
use tokio::sync::{mpsc, watch as latest};
use tracing::{debug, warn};

use super::addresses::{Surroundings, UnderlayLink};
use super::{Input, clock};
use crate::datapath::limit::Bucket;
use crate::node::Announce;
use crate::wire::DISCOVER;
use crate::wire::discovery::{GROUP_V4, GROUP_V6, PACKET_LEN, PORT};

/// Announcements that may wait to be sent: one for each overlay, and answers.
const QUEUE: usize = 256;
/// Packets of the right form believed per second, and at once: a flood on the link is the link's trouble.
const RATE: u32 = 200;
const BURST: u32 = 1000;
/// One byte more than fits: a longer packet shows.
const ROOM: usize = PACKET_LEN + 1;

/// Starts it; what is to be sent goes into the channel.
pub fn start(
    background: &Background,
    mark: Option<u32>,
    surroundings: latest::Receiver<Surroundings>,
    inputs: mpsc::Sender<Input>,
) -> mpsc::Sender<Announce> {
    let (announces_in, announces) = mpsc::channel(QUEUE);
    background.spawn(run(mark, announces, surroundings, inputs));
    announces_in
}

/// The sockets of one family.
struct Family {
    /// In the group.
    ears: UdpSocket,
    /// Sends, and hears answers.
    mouth: UdpSocket,
}

/// Both families, and where they are in their groups.
struct Link {
    v4: Option<Family>,
    v6: Option<Family>,
    joined: Vec<UnderlayLink>,
}

async fn run(
    mark: Option<u32>,
    mut announces: mpsc::Receiver<Announce>,
    mut surroundings: latest::Receiver<Surroundings>,
    inputs: mpsc::Sender<Input>,
) {
    let mut link = Link { v4: opened(Domain::IPV4, mark), v6: opened(Domain::IPV6, mark), joined: Vec::new() };
    let mut limit = Bucket::new(RATE, BURST);
    link.follow(&surroundings.borrow_and_update().links);
    let (mut room_v4, mut room_v6) = ([0; ROOM], [0; ROOM]);
    loop {
        let (packet, from) = tokio::select! {
            announce = announces.recv() => {
                let Some(announce) = announce else { return };
                link.send(&announce).await;
                continue;
            }
            changed = surroundings.changed() => {
                if changed.is_err() {
                    return;
                }
                link.follow(&surroundings.borrow_and_update().links);
                continue;
            }
            (len, from) = hear(link.v4.as_ref(), &mut room_v4) => (&room_v4[..len], from),
            (len, from) = hear(link.v6.as_ref(), &mut room_v6) => (&room_v6[..len], from),
        };
        if packet.len() == PACKET_LEN && packet[0] == DISCOVER && limit.take(clock::now()) {
            // A loop that is so busy hears the next one.
            let _full = inputs.try_send(Input::Announcement(from, packet.to_vec()));
        }
    }
}

/// A family that does not work is done without; most hosts have both.
fn opened(domain: Domain, mark: Option<u32>) -> Option<Family> {
    match Family::open(domain, mark) {
        Ok(family) => Some(family),
        Err(error) if domain == Domain::IPV6 => {
            debug!(%error, "no discovery by IPv6");
            None
        }
        Err(error) => {
            warn!(%error, "members on this host's links are not looked for");
            None
        }
    }
}

/// The next packet at either socket. Errors pass: the next packet may be better.
async fn hear(family: Option<&Family>, room: &mut [u8; ROOM]) -> (usize, SocketAddr) {
    let Some(Family { ears, mouth }) = family else { return pending().await };
    loop {
        tokio::select! {
            ready = ears.readable() => drop(ready),
            ready = mouth.readable() => drop(ready),
        }
        for socket in [ears, mouth] {
            if let Ok(heard) = socket.try_recv_from(room) {
                return heard;
            }
        }
    }
}

impl Family {
    fn open(domain: Domain, mark: Option<u32>) -> io::Result<Self> {
        let is_v4 = domain == Domain::IPV4;
        let ears = plain(domain, mark)?;
        ears.set_reuse_address(true)?;
        let heard_at = if is_v4 {
            ears.set_multicast_all_v4(false)?;
            SocketAddr::from((GROUP_V4, PORT))
        } else {
            ears.set_multicast_all_v6(false)?;
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT))
        };
        ears.bind(&heard_at.into())?;
        let mouth = plain(domain, mark)?;
        let any = if is_v4 {
            mouth.set_multicast_ttl_v4(1)?;
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
        } else {
            mouth.set_multicast_hops_v6(1)?;
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
        };
        mouth.bind(&any.into())?;
        Ok(Self { ears: UdpSocket::from_std(ears.into())?, mouth: UdpSocket::from_std(mouth.into())? })
    }
}

fn plain(domain: Domain, mark: Option<u32>) -> io::Result<RawSocket> {
    let socket = RawSocket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    Ok(socket)
}

impl Link {
    /// Joins the groups on new links and leaves them on old ones.
    fn follow(&mut self, links: &[UnderlayLink]) {
        for link in self.joined.iter().filter(|link| !links.contains(link)) {
            // A link that is gone has left by itself.
            self.join(link, false);
        }
        for link in links.iter().filter(|link| !self.joined.contains(link)) {
            self.join(link, true);
        }
        self.joined = links.to_vec();
    }

    fn join(&self, link: &UnderlayLink, joins: bool) {
        let mut results = Vec::new();
        if let Some(family) = self.v4.as_ref().filter(|_| link.v4.is_some()) {
            let (ears, at) = (SockRef::from(&family.ears), InterfaceIndexOrAddress::Index(link.index));
            let change = if joins { RawSocket::join_multicast_v4_n } else { RawSocket::leave_multicast_v4_n };
            results.push(change(&ears, &GROUP_V4, &at));
        }
        if let Some(family) = self.v6.as_ref().filter(|_| link.v6) {
            let ears = SockRef::from(&family.ears);
            let change = if joins { RawSocket::join_multicast_v6 } else { RawSocket::leave_multicast_v6 };
            results.push(change(&ears, &GROUP_V6, link.index));
        }
        for error in results.into_iter().filter_map(Result::err) {
            debug!(link = link.index, joins, %error, "the group on this link");
        }
    }

    async fn send(&self, announce: &Announce) {
        if let Some(to) = announce.to {
            let family = if to.is_ipv4() { &self.v4 } else { &self.v6 };
            return speak(family.as_ref(), to, &announce.packet).await;
        }
        for link in &self.joined {
            if let (Some(family), Some(own)) = (&self.v4, link.v4) {
                let set = SockRef::from(&family.mouth).set_multicast_if_v4(&own);
                if set.is_ok() {
                    speak(Some(family), SocketAddr::from((GROUP_V4, PORT)), &announce.packet).await;
                }
            }
            if link.v6 {
                let group = SocketAddrV6::new(GROUP_V6, PORT, 0, link.index);
                speak(self.v6.as_ref(), group.into(), &announce.packet).await;
            }
        }
    }
}

/// What cannot be sent is lost: the next announcement comes.
async fn speak(family: Option<&Family>, to: SocketAddr, packet: &[u8]) {
    if let Some(family) = family
        && let Err(error) = family.mouth.send_to(packet, to).await
    {
        debug!(%to, %error, "an announcement was not sent");
    }
}
