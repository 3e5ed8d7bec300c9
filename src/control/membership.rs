//! What the supernodes tell, turned into peers: who is a member, by which legs, at which addresses.

use std::net::SocketAddr;

use super::registration::LinkEnd;
use super::standing::Registration;
use super::timers::Timer;
use super::{Control, Peer, now_soon};
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::PortId;
use crate::datapath::stats::DropReason;
use crate::datapath::{LegId, LegTally, Path};
use crate::keys::{Fingerprint, OverlayId};
use crate::seam::Event;
use crate::wire::message::{DIRECTORY_CANDIDATES_MAX, Directory, Member, Message, ROSTER_MAX, registration};
use crate::wire::relay::{LegKey, RelayId};
use crate::wire::session::{CANDIDATES_MAX, Candidate, CandidateKind};
use crate::wire::version::Version;

impl Control {
    pub(super) fn on_home_up(
        &mut self,
        place: usize,
        (remote, exporter): (SocketAddr, [u8; 32]),
        shown: Option<Fingerprint>,
    ) {
        self.homes[place].on_up(&mut self.fx, remote, exporter, shown);
        for overlay in (0..self.overlays.len()).map(OverlayIndex) {
            self.register(place, overlay);
        }
    }

    fn register(&mut self, place: usize, index: OverlayIndex) {
        let overlay = &self.overlays[index.0];
        let signed = registration(self.homes[place].exporter(), overlay.id());
        let message = Message::Register {
            certificate: overlay.certificate.bytes().to_vec(),
            signature: crate::keys::sign(&self.me.identity, &signed),
            directory: self.directory(index),
            version: Version::OURS,
            continues: self.homes[place].continued(index),
        };
        self.homes[place].register(&mut self.fx, index, &message);
    }

    /// What we tell the other members, sealed.
    fn directory(&mut self, index: OverlayIndex) -> Vec<u8> {
        let own = self.me.candidates.iter().filter(|candidate| candidate.kind.is_own());
        let candidates = own.take(DIRECTORY_CANDIDATES_MAX).copied().collect();
        let (relays, site) = (self.carries(), self.carrying.settings.site.clone());
        let machines = self.overlays[index.0].told.excerpt.clone();
        let entry = Directory { name: self.name.clone(), candidates, relays, site, machines };
        self.overlays[index.0].seal_directory(&entry, &mut self.fx.rng)
    }

    fn overlay_index(&self, id: OverlayId) -> Option<OverlayIndex> {
        self.overlays.iter().position(|overlay| overlay.id() == id).map(OverlayIndex)
    }

    pub(super) fn on_home_message(&mut self, place: usize, bytes: &[u8]) {
        let Ok(message) = Message::parse(bytes) else { return self.fx.dropped(DropReason::Malformed) };
        match message {
            Some(Message::Welcome { overlay, relay, key, seen, .. }) => {
                let Some(overlay) = self.overlay_index(overlay) else { return };
                self.on_welcome(place, overlay, (relay, key), seen);
            }
            Some(Message::Refused { overlay, reason, .. }) => self.on_refused(place, overlay, reason.text()),
            Some(Message::Pong { nonce, seen }) => {
                if self.homes[place].on_pong(&self.fx, nonce, seen) {
                    self.on_own_addresses();
                }
            }
            Some(Message::Roster { overlay, reset, members }) => {
                let Some(overlay) = self.overlay_index(overlay) else { return };
                if reset {
                    self.forget_members(place, overlay);
                }
                let has_more = members.len() == ROSTER_MAX;
                for member in members {
                    let port = self.on_member(place, overlay, &member);
                    port.into_iter().for_each(|port| self.meet(port, has_more));
                }
            }
            Some(Message::Gone { overlay, relays }) => {
                let Some(overlay) = self.overlay_index(overlay) else { return };
                for relay in relays {
                    self.on_member_gone(place, overlay, relay);
                }
            }
            Some(Message::Supernodes { list }) => self.on_supernodes(place, &list),
            Some(Message::Plan { overlay, plan }) => {
                let Some(overlay) = self.overlay_index(overlay) else { return };
                self.on_plan(place, overlay, &plan);
            }
            Some(Message::Advice { overlay, advice }) => {
                let Some(overlay) = self.overlay_index(overlay) else { return };
                self.on_advice(place, overlay, advice);
            }
            Some(
                Message::Register { .. }
                | Message::Ping { .. }
                | Message::Update { .. }
                | Message::Leave { .. }
                | Message::Report { .. },
            )
            | None => {}
        }
    }

    fn on_welcome(&mut self, place: usize, overlay: OverlayIndex, own: (RelayId, LegKey), seen: SocketAddr) {
        let before = self.homes[place].leg(overlay);
        let Some(leg) = self.homes[place].on_welcome(&mut self.fx, overlay, own) else { return };
        if before == Some(leg) {
            // Another transport carries other sizes.
            for peer in self.peers.values_mut() {
                peer.on_leg_moved(&mut self.fx, leg);
            }
        } else {
            self.close_leg(before);
            // A plan of another's goes on: it says only what changes.
            if self.plans(place, overlay) {
                self.end_plans(overlay);
            }
            self.let_sleepers_lapse(overlay);
            self.introduce(place, overlay);
        }
        let home = &self.homes[place];
        let (supernode, by_tcp) = (home.address.clone(), home.is_on_stream());
        self.fx.events.push_back(Event::Registered { overlay, supernode, seen_as: Some(seen).filter(|_| !by_tcp) });
        self.on_seen(place, seen);
        self.review_homes();
        self.observing.want(&mut self.fx);
    }

    /// What came by a leg and what did not: where UDP is throttled, TCP may carry more.
    pub(super) fn on_leg_measured(&mut self, leg: LegId, tally: LegTally) {
        for home in &mut self.homes {
            home.on_tally(&mut self.fx, leg, tally);
        }
    }

    /// REFUSED. One for no overlay that we know answers all that were asked for.
    fn on_refused(&mut self, place: usize, id: OverlayId, reason: &'static str) {
        let refused = match self.overlay_index(id) {
            Some(overlay) => vec![overlay],
            None => self.homes[place].asked(),
        };
        for overlay in refused {
            let leg = self.homes[place].leg(overlay);
            self.homes[place].on_refused(&mut self.fx, overlay, reason);
            self.close_leg(leg);
            let supernode = self.homes[place].address.clone();
            self.fx.events.push_back(Event::Refused { overlay, supernode, reason });
        }
        self.review_homes();
    }

    fn on_seen(&mut self, place: usize, seen: SocketAddr) {
        if self.homes[place].on_seen(seen) {
            self.on_own_addresses();
        }
    }

    /// Where we can be heard may have changed: members and supernodes are told, direct paths sought anew.
    pub(super) fn on_own_addresses(&mut self) {
        self.on_own_site();
        let (port, addresses) = &self.host;
        let host = addresses.iter().map(|ip| (CandidateKind::Host, SocketAddr::new(*ip, *port)));
        let seen = self.homes.iter().filter_map(|home| home.seen).map(|seen| (CandidateKind::Reflexive, seen));
        let mapped = self.mapped.map(|mapped| (CandidateKind::Mapped, mapped));
        let mut list = Vec::new();
        for (kind, addr) in mapped.into_iter().chain(host.take(CANDIDATES_MAX - 4)).chain(seen) {
            let is_new = !list.iter().any(|known: &Candidate| known.addr == addr);
            if super::candidate::is_usable(addr) && is_new && list.len() < CANDIDATES_MAX {
                list.push(Candidate { kind, addr });
            }
        }
        if list == self.me.candidates {
            return;
        }
        let own = |list: &[Candidate]| list.iter().filter(|c| c.kind.is_own()).copied().collect::<Vec<_>>();
        let own_changed = own(&list) != own(&self.me.candidates);
        self.me.candidates = list;
        self.observing.want(&mut self.fx);
        for peer in self.peers.values_mut() {
            peer.punch_anew(&mut self.fx);
        }
        if own_changed {
            self.update_directories();
        }
    }

    pub(super) fn update_directories(&mut self) {
        (0..self.overlays.len()).for_each(|overlay| self.update_directory(OverlayIndex(overlay)));
    }

    /// Our entry in the directory of `overlay` is told anew.
    pub(super) fn update_directory(&mut self, overlay: OverlayIndex) {
        for place in 0..self.homes.len() {
            if self.homes[place].leg(overlay).is_some() {
                let message =
                    Message::Update { overlay: self.overlays[overlay.0].id(), directory: self.directory(overlay) };
                self.fx.tell(crate::seam::LinkId::Dialled(place), &message);
            }
        }
    }

    /// One member, new or changed. Gives its port.
    fn on_member(&mut self, place: usize, overlay: OverlayIndex, member: &Member) -> Option<PortId> {
        let leg = self.homes[place].leg(overlay)?;
        let certificate = self.certificates.check(&member.certificate);
        let Some(certificate) = certificate.ok().filter(|c| c.overlay == self.overlays[overlay.0].id()) else {
            self.fx.dropped(DropReason::NotAMember);
            return None;
        };
        let port = self.peer_for(overlay, certificate.node)?;
        let entry = self.overlays[overlay.0].open_directory(certificate.node, &member.directory);
        let remote = self.homes[place].remote?;
        if let Some(registration) = self.homes[place].registrations.get_mut(&overlay) {
            registration.members.insert(member.relay, port);
        }
        let peer = self.peers.get_mut(&port)?;
        let mut machines = None;
        if let Ok(entry) = entry {
            machines = entry.machines;
            let name = Some(entry.name).filter(|name| !name.is_empty());
            if std::mem::replace(&mut peer.name, name.clone()) != name {
                self.reserved.on_other_members(&mut self.fx);
            }
            (peer.relays, peer.site) = (entry.relays, entry.site);
            for candidate in entry.candidates {
                peer.paths.candidates.add(candidate.kind, candidate.addr);
            }
        }
        // A supernode that is a member itself registers over loopback: it is where we reach it.
        let seen = if member.seen.ip().is_loopback() { remote } else { member.seen };
        let has_moved = peer.session.is_some() && peer.paths.candidates.get(seen).is_none();
        // One per supernode: a lying one cannot point us at many.
        let moved = peer.seen.insert(place, seen).filter(|before| !peer.seen.values().any(|other| other == before));
        if let Some(before) = moved {
            peer.paths.candidates.withdraw(CandidateKind::Reflexive, before);
        }
        peer.paths.candidates.add(CandidateKind::Reflexive, seen);
        let before = peer.paths.relay_by(leg);
        let is_new = before != Some(Path::Relayed(leg, member.relay));
        let was_another = is_new && before.is_some();
        peer.paths.add_relay(leg, member.relay);
        if is_new {
            peer.end_rest(&mut self.fx);
            peer.probe_relay(&mut self.fx);
        }
        if has_moved {
            peer.doubt(&mut self.fx);
        }
        peer.choose(&mut self.fx, "the supernode can carry it");
        if was_another && peer.is_asleep() {
            peer.let_keys_lapse(&mut self.fx);
        }
        peer.on_version(&mut self.fx, member.version);
        self.on_member_site(port);
        machines.into_iter().for_each(|excerpt| self.on_told(port, excerpt));
        Some(port)
    }

    /// A roster begins anew: what the supernode told before holds no more.
    fn forget_members(&mut self, place: usize, overlay: OverlayIndex) {
        let Some(leg) = self.homes[place].leg(overlay) else { return };
        let Some(registration) = self.homes[place].registrations.get_mut(&overlay) else { return };
        let members = std::mem::take(&mut registration.members);
        for port in members.into_values() {
            self.drop_relay(port, leg);
        }
    }

    fn on_member_gone(&mut self, place: usize, overlay: OverlayIndex, relay: RelayId) {
        let Some(leg) = self.homes[place].leg(overlay) else { return };
        let Some(registration) = self.homes[place].registrations.get_mut(&overlay) else { return };
        let Some(port) = registration.members.remove(&relay) else { return };
        let is_current = |path: Path| path == Path::Relayed(leg, relay);
        if self.peers.get(&port).is_some_and(|peer| peer.paths.relays().any(is_current)) {
            self.drop_relay(port, leg);
            self.on_sleeper_gone(port);
        }
    }

    /// One way to a peer is closed. A peer that was never up and has no other way is no peer.
    fn drop_relay(&mut self, port: PortId, leg: LegId) {
        let Some(peer) = self.peers.get_mut(&port) else { return };
        let before = peer.paths.current();
        if !peer.paths.drop_relay(leg) {
            return;
        }
        if before.is_some() && peer.paths.current().is_none() {
            peer.use_path(&mut self.fx);
            peer.choose(&mut self.fx, "the relay before is gone");
        }
        if peer.is_asleep() {
            return peer.sleep_on(self.fx.now);
        }
        let is_lost = peer.session.is_none() && !peer.paths.has_relay() && peer.addresses().is_empty();
        if is_lost {
            self.forget_peer(port);
        }
    }

    pub(super) fn on_home_down(&mut self, place: usize, reason: String, end: LinkEnd) {
        let planned = |index: &OverlayIndex| self.plans(place, *index);
        let orphans: Vec<_> = (0..self.overlays.len()).map(OverlayIndex).filter(planned).collect();
        let registrations = self.homes[place].on_down(&mut self.fx, reason, end);
        // A plan outlives who made it, but not another that knows nothing of it.
        for overlay in orphans {
            if self.planner_of(overlay).is_some() {
                self.end_plans(overlay);
            }
        }
        for (_, Registration { standing, .. }) in registrations {
            self.close_leg(standing.leg());
        }
        self.fx.timers.set_earlier(Timer::Remember, now_soon(self.fx.now));
        self.review_homes();
    }

    /// No peer can be reached by this leg any more.
    pub(super) fn close_leg(&mut self, leg: Option<LegId>) {
        let Some(leg) = leg else { return };
        for port in self.peers.keys().copied().collect::<Vec<_>>() {
            self.drop_relay(port, leg);
        }
    }

    pub(super) fn on_ping_timer(&mut self, place: usize) {
        let legs = self.homes[place].legs();
        let relays = |peer: &Peer| match peer.paths.current() {
            Some(Path::Relayed(leg, _)) => legs.iter().any(|(_, own)| *own == leg),
            Some(Path::Direct(_)) | None => false,
        };
        let is_busy =
            self.peers.values().any(|peer| relays(peer) && self.fx.timers.when(Timer::Liveness(peer.port)).is_some());
        if self.homes[place].on_ping_timer(&mut self.fx, is_busy) {
            return self.on_home_down(place, "it does not answer".into(), LinkEnd::Ours);
        }
        for overlay in self.homes[place].to_retry(self.fx.now) {
            self.register(place, overlay);
        }
    }
}

#[cfg(test)]
mod tests;
