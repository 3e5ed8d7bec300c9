//! A member changes its transport: from TCP to UDP when that passes, or the other way.
//!
//! Its registration goes on by the new link. Leg, key and counters stay, so that nothing on its way is lost and the
//! other members have nothing to do.

use std::net::SocketAddr;

use super::{Certificate, Command, Message, Supernode, Told, Version, public};
use crate::control::effects::Effects;
use crate::seam::LinkId;
use crate::wire::relay::RelayId;

impl Supernode {
    /// Whether this leg is that of the certificate's node.
    pub(super) fn is_of(&self, relay: RelayId, certificate: &Certificate) -> bool {
        let served = self.overlays.get(&certificate.overlay);
        let member = served.and_then(|served| served.members.get(&relay));
        member.is_some_and(|member| member.node == certificate.node && member.signing_key == certificate.signing_key)
    }

    /// A registration goes on by another link.
    pub(super) fn carry_on(
        &mut self,
        fx: &mut Effects,
        (id, remote, origin): (u64, SocketAddr, SocketAddr),
        relay: RelayId,
        told: Told,
    ) {
        let Some(overlay) = self.overlay_of.get(&relay).copied() else { return };
        let Some(member) = self.overlays.get_mut(&overlay).and_then(|served| served.members.get_mut(&relay)) else {
            return;
        };
        let (seen, key) = (public(remote), member.key);
        (member.told.seen, member.told.directory, member.told.version) = (seen, told.directory, told.version);
        let before = std::mem::replace(&mut member.link, id);
        let counted = std::mem::replace(&mut member.counted, origin.ip());
        self.planning.on_place(overlay, member.place(relay));
        self.uncount(counted);
        *self.per_address.entry(origin.ip()).or_default() += 1;
        if let Some(link) = self.links.get_mut(&before) {
            link.registered.remove(&overlay);
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.registered.insert(overlay, relay);
        }
        fx.commands.push_back(Command::MoveChannel { relay, addr: remote });
        fx.tell(LinkId::Accepted(id), &Message::Welcome { overlay, relay, key, seen, version: Version::OURS });
        self.tell_of_others(fx, id);
        self.announce(fx, overlay, relay);
    }
}
