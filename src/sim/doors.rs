//! Sockets of a host beside its underlay socket: a supernode's second port.

use std::net::SocketAddr;

use super::underlay::{HostId, Packet};
use super::world::{Payload, World};
use crate::control::reflect::Reflector;
use crate::wire::Kind;

/// From a supernode's port to the second one that can be asked, and to the one that only speaks.
const SECOND: u16 = 1;
const SPEAKER: u16 = 2;

/// What a supernode on `port` answers OBSERVE with.
pub(super) fn reflector(port: u16) -> Reflector {
    Reflector::new(Some(SocketAddr::from(([0, 0, 0, 0], port + SECOND))))
}

impl World {
    /// A packet for one of these sockets; others are given back.
    pub(super) fn at_door(&mut self, id: HostId, packet: Packet<Payload>) -> Option<Packet<Payload>> {
        let (now, host) = (self.now, &mut self.hosts[id.0]);
        let (port, asked) = (host.spec.port, packet.to.port());
        let Payload::Datagram(bytes) = &packet.payload else { return Some(packet) };
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
