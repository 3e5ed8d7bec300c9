//! What the corridor tells, and who hears it.

use super::delay::Probed;
use super::overlay::Overlay;
use super::reserve::SHAPE_EVERY;
use super::timers::Timer;
use super::{Control, LOOP_EVENT_GAP, Peer, handshake, now_soon};
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::PortId;
use crate::datapath::stats::DropReason;
use crate::datapath::{Notice, Path};
use crate::seam::Event;
use crate::time::Time;
use crate::wire::handshake::{Envelope, split_mac1};
use crate::wire::session::Message;

impl Control {
    /// A notice of the corridor.
    pub fn handle_notice(&mut self, now: Time, notice: Notice) {
        self.fx.now = now;
        match notice {
            Notice::NeedKeys { port } => self.on_need_keys(port),
            Notice::Handshake { path, packet } => self.on_handshake(path, &packet),
            Notice::Opener { from } => {
                let peer = self.fx.doors.searching().and_then(|port| self.peers.get_mut(&port));
                if !peer.is_some_and(|peer| peer.on_opener(&mut self.fx, from)) {
                    self.fx.dropped(DropReason::Unasked);
                }
            }
            Notice::Observed { packet } => self.on_observed(&packet),
            Notice::Session { port, path, message } => self.on_session_message(port, path, &message),
            Notice::Heard { port, path } => self.with(port, |peer, fx| peer.on_heard(fx, path)),
            Notice::Confirmed { port, path } => self.with(port, |peer, fx| peer.on_confirmed(fx, path)),
            Notice::Active { port } => {
                self.with(port, Peer::on_active);
                for home in &self.homes {
                    home.on_busy(&mut self.fx);
                }
            }
            Notice::Measured { port, activity } => {
                self.with(port, |peer, fx| peer.on_measured(fx, &activity));
                self.calm_down();
            }
            Notice::Used { port } => self.on_used(port),
            Notice::Busy { overlay } => self.on_busy(overlay),
            Notice::Tallied { overlay, ports, machines } => self.on_tallied(overlay, &ports, &machines),
            Notice::LegMeasured { leg, tally } => self.on_leg_measured(leg, tally),
            Notice::Retired { index } => {
                self.fx.indices.remove(&index);
            }
            Notice::Shaped => self.fx.timers.set(Timer::Shape, now + SHAPE_EVERY),
            Notice::LoopProbe { overlay, body } => self.on_loop_probe(overlay, &body),
            Notice::Address { overlay, address, news } => self.on_address((overlay, address), news),
            Notice::Inventory { overlay, at } => self.fx.timers.set_earlier(Timer::Inventory(overlay), at),
            Notice::Excerpt { overlay, excerpt } => self.on_excerpt(overlay, excerpt),
            Notice::UnderlayLoop { overlay } => {
                if self.last_loop_event.is_none_or(|at| now.since(at) >= LOOP_EVENT_GAP) {
                    self.last_loop_event = Some(now);
                    self.fx.events.push_back(Event::UnderlayLoop { overlay });
                }
            }
        }
    }

    fn on_need_keys(&mut self, port: PortId) {
        let Some(peer) = self.peers.get_mut(&port) else { return };
        let overlay = &self.overlays[peer.overlay.0];
        peer.on_need_keys(&mut self.fx, &self.me, overlay.local(&self.me.identity), &overlay.certificate);
    }

    /// INIT or RESP. Whoever does not hold an overlay's key ends at the first check.
    fn on_handshake(&mut self, path: Path, packet: &[u8]) {
        let fits = |overlay: &Overlay| handshake::is_for_us(overlay.local(&self.me.identity), packet);
        let Some(index) = self.overlays.iter().position(fits).map(OverlayIndex) else {
            return self.fx.dropped(DropReason::HandshakeBadMac);
        };
        let (Ok(envelope), Some((_, mac1))) = (Envelope::parse(packet), split_mac1(packet)) else {
            return self.fx.dropped(DropReason::Malformed);
        };
        match envelope.receiver {
            Some(receiver) => {
                let peer = self.fx.indices.get(&receiver).and_then(|port| self.peers.get_mut(port));
                match peer.filter(|peer| peer.overlay == index) {
                    Some(peer) => peer.on_resp(&mut self.fx, &mut self.certificates, &envelope, path),
                    None => self.fx.dropped(DropReason::HandshakeUnexpected),
                }
            }
            None => self.on_init(index, &envelope, mac1.try_into().unwrap_or_default(), path),
        }
    }

    fn on_init(&mut self, index: OverlayIndex, envelope: &Envelope<'_>, mac1: [u8; 16], path: Path) {
        let fx = &mut self.fx;
        if let Some(peer) = fx.answered.get(&mac1).and_then(|port| self.peers.get(port)) {
            return peer.answer_again(fx, path);
        }
        if !self.handshake_limit.take(fx.now) {
            return fx.dropped(DropReason::HandshakeLimit);
        }
        let local = self.overlays[index.0].local(&self.me.identity);
        let responder = match handshake::respond(local, envelope, self.me.stand_in, &mut self.certificates, &mut fx.rng)
        {
            Ok(responder) => responder,
            Err(handshake::HandshakeError::NotAMember) => return fx.dropped(DropReason::NotAMember),
            Err(_) => return fx.dropped(DropReason::HandshakeForged),
        };
        let Some(port) = self.peer_for(index, responder.payload.certificate.node) else {
            return self.fx.dropped(DropReason::NotAMember);
        };
        let Some(peer) = self.peers.get_mut(&port) else { return };
        let overlay = &self.overlays[index.0];
        let local = overlay.local(&self.me.identity);
        peer.on_init(&mut self.fx, (&self.me, local), &overlay.certificate, responder, (mac1, path));
    }

    fn on_session_message(&mut self, port: PortId, path: Path, bytes: &[u8]) {
        let Ok(message) = Message::parse(bytes) else { return self.fx.dropped(DropReason::Malformed) };
        if matches!(message, Message::Candidates { wants_answer: true, .. }) {
            self.rouse(port);
        }
        let Some(peer) = self.peers.get_mut(&port) else { return };
        let fx = &mut self.fx;
        match message {
            Message::Probe { token, sent, is_spare } => {
                let rtt = peer.paths.rtt(path);
                peer.on_probe(fx, token, &Probed { path, sent, is_spare, rtt });
            }
            Message::Answer { token, .. } => peer.on_answer(fx, token, path),
            Message::Candidates { wants_answer, list, nat, .. } => {
                peer.nat = nat.or(peer.nat);
                peer.on_candidates(fx, &self.me, path, (&list, wants_answer));
            }
            Message::Search { step, door } => peer.on_search(fx, &self.me, step, door),
            Message::Close => {
                peer.on_gone(fx, "it left");
                self.forget_peer(port);
                self.fx.timers.set_earlier(Timer::Remember, now_soon(self.fx.now));
            }
            Message::Confirm => {}
            Message::Sleep => self.on_sleep(port),
            Message::MtuProbe { token } => peer.on_mtu_probe(fx, token, (path, bytes.len())),
            Message::MtuAnswer { token, size } => peer.on_mtu_answer(fx, token, size),
            Message::Received { longest } => peer.mtu.on_received(self.fx.now, usize::from(longest)),
            Message::Neighbours(told) => self.on_neighbours(port, path, &told),
            Message::Carry(carry) => self.on_carry(port, path, carry),
            Message::Leg(leg) => self.on_leg(port, path, leg),
            Message::Location { moved, owner } => self.on_location(port, moved, owner),
            Message::ProbeHeard { token } => self.on_probe_heard(port, token),
            Message::ProbeSent { token } => self.on_probe_sent(port, token),
            // The corridor has read them.
            Message::Claim { .. } | Message::Inventory(_) => {}
        }
    }
}
