//! Doors: further sockets, each with a mapping of its own at the NAT (see [`DoorCommand`]).
//!
//! Few nodes ever open one. What comes in by a door goes to the node as any datagram; what the node sends to an
//! address with a route leaves by its door. The first door by which an address is heard keeps it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Context;

use quinn::udp::Transmit;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::debug;

use super::udp::{Listen, Sent, Underlay};
use super::{quic, watch};
use crate::datapath::buf::{Datagrams, Transmits};
use crate::node::{DoorCommand, DoorId};

/// Doors open at a time: one search, and what earlier ones found.
const OPEN_MAX: usize = 512;

#[derive(Clone, Copy, Debug)]
struct Route {
    door: DoorId,
    /// Something came from there by this door.
    heard: bool,
}

/// All doors of a daemon.
#[derive(Default)]
pub(in crate::io) struct Doors {
    open: BTreeMap<DoorId, AsyncFd<Arc<Underlay>>>,
    routes: BTreeMap<SocketAddr, Route>,
}

impl Doors {
    /// Whether something leaves by a door.
    pub(in crate::io) fn has_routes(&self) -> bool {
        !self.routes.is_empty()
    }

    /// Whether packets to `to` leave by a door.
    pub(in crate::io) fn leads(&self, to: SocketAddr) -> bool {
        self.routes.contains_key(&to)
    }

    /// Does what the node says. A door that the kernel does not give stays shut. `beside` is the underlay socket.
    pub(in crate::io) fn obey(&mut self, command: DoorCommand, beside: &Underlay) {
        match command {
            DoorCommand::Send { door, to, packet } => {
                if let Some(socket) = self.door(door, beside) {
                    let transmit = Transmit {
                        destination: socket.kernel_form(to),
                        ecn: None,
                        contents: &packet,
                        segment_size: None,
                        src_ip: None,
                    };
                    let _lost = socket.send_raw(&transmit);
                }
            }
            DoorCommand::Route { door, to } => {
                if self.door(door, beside).is_some() {
                    self.routes.insert(to, Route { door, heard: false });
                }
            }
            DoorCommand::Close { doors, keep } => {
                let kept = keep.and_then(|keep| self.routes.get(&keep)).map(|route| route.door);
                self.open.retain(|door, _| !doors.contains(door) || Some(*door) == kept);
                let open = &self.open;
                let stays = |to: &SocketAddr, route: &Route| {
                    open.contains_key(&route.door) && (Some(route.door) != kept || Some(*to) == keep)
                };
                self.routes.retain(|to, route| stays(to, route));
            }
        }
    }

    fn door(&mut self, door: DoorId, beside: &Underlay) -> Option<&Underlay> {
        if !self.open.contains_key(&door) && self.open.len() < OPEN_MAX {
            match open_beside(beside) {
                Ok(socket) => {
                    self.open.insert(door, socket);
                }
                Err(error) => debug!(%error, "no further socket"),
            }
        }
        self.open.get(&door).map(|socket| socket.get_ref().as_ref())
    }

    /// Whether something waits at any door.
    pub(in crate::io) fn poll_ready(&self, cx: &mut Context<'_>) -> bool {
        // Each must be asked, or it would not wake us.
        self.open.values().filter(|door| door.poll_read_ready(cx).is_ready()).count() > 0
    }

    /// Reads what waits at the doors into `datagrams`.
    pub(in crate::io) fn receive(&mut self, datagrams: &mut Datagrams) {
        let (nobody, _) = quic::inbox();
        for (id, door) in &self.open {
            let first = datagrams.len();
            let _passing = door.try_io(Interest::READABLE, |socket| {
                let more = socket.receive(datagrams, &nobody)?;
                if more { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
            });
            for place in first..datagrams.len() {
                let Some((_, origin)) = datagrams.get(place) else { break };
                if let Some(route) = self.routes.get_mut(&origin.from).filter(|route| !route.heard) {
                    *route = Route { door: *id, heard: true };
                }
            }
        }
    }

    /// Sends what of `batch` leaves by doors. A full one loses it.
    pub(in crate::io) fn send(&self, batch: &Transmits) {
        for (id, door) in &self.open {
            if self.routes.values().any(|route| route.door == *id) {
                let elsewhere = |to| self.routes.get(&to).is_none_or(|route| route.door != *id);
                let (Sent::All | Sent::UpTo(_)) = door.get_ref().send_but(batch, 0, elsewhere);
            }
        }
    }
}

fn open_beside(beside: &Underlay) -> io::Result<AsyncFd<Arc<Underlay>>> {
    let any = SocketAddr::new(beside.local().ip(), 0);
    let socket = Underlay::bind(Listen::At(any)).map_err(io::Error::other)?;
    watch(Arc::new(socket), Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::buf::Target;
    use std::net::UdpSocket;
    use std::time::Duration;

    fn hears(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
        let mut room = [0; 100];
        socket.recv_from(&mut room).ok().map(|(len, from)| (room[..len].to_vec(), from))
    }

    #[tokio::test]
    async fn the_door_that_is_answered_first_keeps_the_peer() {
        let any = "127.0.0.1:0".parse().expect("address");
        let underlay = Underlay::bind(Listen::At(any)).expect("socket");
        let peer = UdpSocket::bind(any).expect("socket");
        peer.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        let to = peer.local_addr().expect("address");
        let mut doors = Doors::default();
        doors.obey(DoorCommand::Route { door: DoorId(1), to }, &underlay);
        let mut froms = Vec::new();
        for door in [1, 2, 3].map(DoorId) {
            doors.obey(DoorCommand::Send { door, to, packet: vec![1] }, &underlay);
            froms.push(hears(&peer).expect("an opener").1);
        }
        for from in [froms[1], froms[2]] {
            peer.send_to(&[5; 20], from).expect("sent");
            let mut datagrams = Datagrams::default();
            while datagrams.is_empty() {
                std::future::poll_fn(|cx| {
                    if doors.poll_ready(cx) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
                })
                .await;
                doors.receive(&mut datagrams);
            }
        }
        assert!(doors.leads(to));
        let mut batch = Transmits::default();
        batch.push(&[7], Target { to, hops: None, from: None, tos: 0 });
        doors.send(&batch);
        assert_eq!(hears(&peer), Some((vec![7], froms[1])));
        doors.obey(DoorCommand::Close { doors: DoorId(0)..DoorId(9), keep: Some(to) }, &underlay);
        assert_eq!(doors.open.len(), 1);
        doors.send(&batch);
        assert_eq!(hears(&peer), Some((vec![7], froms[1])));
        doors.obey(DoorCommand::Close { doors: DoorId(0)..DoorId(9), keep: None }, &underlay);
        assert!(doors.open.is_empty() && !doors.has_routes());
    }
}
