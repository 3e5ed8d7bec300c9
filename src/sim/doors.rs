//! Sockets of a host beside its underlay socket: a supernode's second port, and doors of its node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::underlay::{HostId, Packet};
use super::world::{Payload, World};
use crate::control::reflect::Reflector;
use crate::node::{DoorCommand, DoorId};
use crate::wire::Kind;

/// From a supernode's port to the second one that can be asked, and to the one that only speaks.
const SECOND: u16 = 1;
const SPEAKER: u16 = 2;
/// Where the ports of doors begin, and how many there are.
const DOOR_PORTS: (u16, u16) = (20_000, 40_000);

/// What a supernode on `port` answers OBSERVE with.
pub(super) fn reflector(port: u16) -> Reflector {
    Reflector::new(Some(SocketAddr::from(([0, 0, 0, 0], port + SECOND))))
}

/// The doors of one node.
#[derive(Debug, Default)]
pub(super) struct Doors {
    open: BTreeSet<u16>,
    /// By which port an address is sent to, and whether it was heard there.
    routes: BTreeMap<SocketAddr, (u16, bool)>,
}

impl Doors {
    /// The port that packets to `to` leave by, if it is a door's.
    pub(super) fn port_to(&self, to: SocketAddr) -> Option<u16> {
        self.routes.get(&to).map(|(port, _)| *port)
    }

    /// Whether `port` is a door through which `from` is heard.
    fn hears(&mut self, port: u16, from: SocketAddr) -> bool {
        if self.open.contains(&port)
            && let Some(route) = self.routes.get_mut(&from).filter(|(_, heard)| !*heard)
        {
            *route = (port, true);
        }
        self.open.contains(&port)
    }

    fn close(&mut self, ports: &[u16], keep: Option<SocketAddr>) {
        let kept = keep.and_then(|keep| self.port_to(keep));
        self.open.retain(|port| !ports.contains(port) || Some(*port) == kept);
        let open = &self.open;
        self.routes.retain(|to, (port, _)| open.contains(port) && (Some(*port) != kept || Some(*to) == keep));
    }
}

fn port_of(door: DoorId) -> u16 {
    let (first, count) = DOOR_PORTS;
    first + u16::try_from(door.0 % u32::from(count)).unwrap_or_default()
}

impl World {
    /// Does what a node wants with a door.
    pub(super) fn obey_door(&mut self, id: HostId, command: DoorCommand) {
        let doors = &mut self.hosts[id.0].doors;
        match command {
            DoorCommand::Send { door, to, packet } => {
                doors.open.insert(port_of(door));
                self.note(b'o', id, &packet);
                self.hosts[id.0].sending.datagrams += 1;
                self.hosts[id.0].sending.bytes += packet.len() as u64;
                self.launch_by(id, port_of(door), (to, None), Payload::Datagram(packet));
            }
            DoorCommand::Route { door, to } => {
                doors.open.insert(port_of(door));
                doors.routes.insert(to, (port_of(door), false));
            }
            DoorCommand::Close { doors: closed, keep } => {
                let ports: Vec<u16> = (closed.start.0..closed.end.0).map(|door| port_of(DoorId(door))).collect();
                doors.close(&ports, keep);
            }
        }
    }

    /// A packet for one of these sockets, done with here; others are given back.
    pub(super) fn at_door(&mut self, id: HostId, packet: Packet<Payload>) -> Option<Packet<Payload>> {
        let (now, host) = (self.now, &mut self.hosts[id.0]);
        let (port, asked) = (host.spec.port, packet.to.port());
        let Payload::Datagram(bytes) = &packet.payload else { return Some(packet) };
        if asked != port && host.doors.hears(asked, packet.from) {
            host.datagrams.push((packet.from, bytes.clone()));
            let bytes = bytes.clone();
            self.note(b'd', id, &bytes);
            self.wake(id);
            return None;
        }
        let is_question = bytes.first().copied().and_then(Kind::of) == Some(Kind::Observe);
        let is_place = asked == port || asked == port + SECOND;
        let Some(reflector) = host.reflector.as_mut().filter(|_| is_question && is_place) else { return Some(packet) };
        if let Some(answer) = reflector.answer(now, packet.from, bytes) {
            let by = if answer.elsewhere { port + SPEAKER } else { asked };
            self.launch_by(id, by, (packet.from, None), Payload::Datagram(answer.bytes));
        }
        None
    }
}
