//! Deadlines that have come, and whose they are.

use super::peer::Me;
use super::timers::Timer;
use super::{Control, FORGET_AFTER, Peer, handshake};
use crate::datapath::Command;
use crate::datapath::fdb::PortId;
use crate::seam::Event;
use crate::time::Time;

impl Control {
    /// Deadlines that are not after `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        self.fx.now = now;
        while let Some(timer) = self.fx.timers.pop_due(now) {
            self.on_timer(timer);
        }
        self.calm_down();
    }

    fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Link(place) => self.on_link_timer(place),
            Timer::Ping(place) => self.on_ping_timer(place),
            Timer::Handshake(port) => {
                if self.peers.get(&port).is_some_and(|peer| peer.is_lost(self.fx.now, FORGET_AFTER)) {
                    return self.forget_peer(port);
                }
                self.on_handshake_timer(port, Peer::on_handshake_timer);
            }
            Timer::Rekey(port) if !self.peers.get(&port).is_some_and(|peer| peer.renews_keys(self.fx.now)) => {
                self.with(port, Peer::on_unused_keys);
            }
            Timer::Rekey(port) => self.on_handshake_timer(port, Peer::begin_handshake),
            Timer::Liveness(port) => self.with(port, Peer::on_liveness_timer),
            Timer::Keepalive(port) => self.with(port, Peer::on_keepalive_timer),
            Timer::Punch(port) => {
                if let Some(peer) = self.peers.get_mut(&port) {
                    peer.on_punch_timer(&mut self.fx, &self.me);
                }
            }
            Timer::Mtu(port) => self.with(port, Peer::on_mtu_timer),
            Timer::Search(port) => {
                if let Some(peer) = self.peers.get_mut(&port) {
                    peer.on_search_timer(&mut self.fx, &self.me);
                }
            }
            Timer::Carry(port) => self.on_carry_timer(port),
            Timer::Carrying => self.on_carrying_timer(),
            Timer::Observe => self.on_observe_timer(),
            Timer::Alone(overlay) => {
                let is_up = |peer: &Peer| peer.overlay == overlay && (peer.session.is_some() || peer.is_asleep());
                if !self.peers.values().any(is_up) {
                    self.fx.events.push_back(Event::Alone { overlay });
                }
            }
            Timer::Links(overlay) => self.on_links_timer(overlay),
            Timer::Announce => self.on_announce_timer(),
            Timer::Remember => self.remember(),
            Timer::Loop(overlay) => self.on_loop_timer(overlay),
            Timer::Shape => self.fx.commands.push_back(Command::Release),
            Timer::Rules => self.review_rules(),
            Timer::Reserve => self.review_reserved(),
            Timer::Inventory(overlay) => self.on_inventory_timer(overlay),
            Timer::Addresses => self.on_addresses_timer(),
            Timer::Traffic(overlay) => self.on_traffic_timer(overlay),
            Timer::Push | Timer::Newcomers | Timer::Plan(_) => self.on_serving_timer(timer),
        }
    }

    fn on_serving_timer(&mut self, timer: Timer) {
        let Some(supernode) = &mut self.serving else { return };
        if let Timer::Plan(overlay) = timer {
            supernode.on_plan_timer(&mut self.fx, overlay);
        } else if timer == Timer::Push {
            supernode.on_push_timer(&mut self.fx);
        } else {
            supernode.on_newcomers_timer(&mut self.fx);
        }
    }

    pub(super) fn on_handshake_timer(
        &mut self,
        port: PortId,
        act: impl FnOnce(
            &mut Peer,
            &mut super::effects::Effects,
            &Me,
            handshake::Local<'_>,
            &crate::wire::certificate::Certificate,
        ),
    ) {
        let Some(peer) = self.peers.get_mut(&port) else { return };
        let overlay = &self.overlays[peer.overlay.0];
        act(peer, &mut self.fx, &self.me, overlay.local(&self.me.identity), &overlay.certificate);
    }
}
