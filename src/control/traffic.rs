//! What a member learns of the network by using it: how much goes to whom, and whether the network holds it back.
//!
//! While frames flow, the corridor's counters are read twice a second and averaged; the round trips of the probes
//! that liveness sends anyway tell when queues fill. Every two seconds, and at once after a great change, the result
//! goes to the supernode that plans ([`planning`](super::planning)). Nothing is sent for this between members, and
//! nothing at all while nobody talks. Host pairs only: which machines talk stays here.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Control;
use super::carriers::Via;
use super::delay::Delays;
use super::machines::Machines;
use super::path::Paths;
use super::peer::Peer;
use super::registration::Home;
use super::standing::Registration;
use super::timers::Timer;
use super::topology::fallback::{Fallback, Own};
use super::topology::matrix::{Rates, is_phase_change};
use super::topology::planner::{BULK, FIRST_LOOK};
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::PortId;
use crate::datapath::{Command, MacPair, Path, Tally, Volume};
use crate::seam::LinkId;
use crate::time::Time;
use crate::wire::carry::RelayFor;
use crate::wire::message::Message;
use crate::wire::plan::{Goes, Hop, PEERS_MAX, PeerReport, Report};

/// Between two readings of the counters.
const READ_EVERY: Duration = Duration::from_millis(500);
/// Between two reports; what has not been said again for three of them is forgotten.
const REPORT_EVERY: Duration = Duration::from_secs(2);
/// Nobody has planned for so long: what can be done without is done.
const ALONE: Duration = Duration::from_secs(30);
/// A peer with less is not worth a word (bytes per second).
const WORTH: f64 = 8_000.0;
/// What flows in all is told at once when it is so many times what was told: the first word of a change comes before its
/// averages have risen.
const GROWN: f64 = 1.5;
/// Weight of a new sample of the capacity.
const WEIGHT: f64 = 0.25;

/// What flows between us and one peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Flow {
    sent: Rates,
    heard: Rates,
    way: Option<Path>,
    rtts: Delays,
    /// Since when much comes.
    bulk: Option<Time>,
    capacity: Option<f64>,
}

impl Flow {
    /// Takes in what flowed during the last `span`, and the latest round trip.
    fn read(&mut self, now: Time, span: Duration, grown: Tally, paths: &Paths) {
        self.sent.sample(grown.tx_bytes as f64, span);
        self.heard.sample(grown.rx_bytes as f64, span);
        self.bulk = (self.heard.fast >= BULK).then(|| self.bulk.unwrap_or(now));
        if self.way != paths.current() {
            (self.way, self.rtts, self.capacity) = (paths.current(), Delays::default(), None);
        }
        if let Some(rtt) = paths.last_rtt() {
            self.rtts.note_rtt(now, rtt);
        }
        if self.is_limited() {
            let rate = self.sent.fast;
            self.capacity = Some(self.capacity.map_or(rate, |capacity| capacity + (rate - capacity) * WEIGHT));
        }
    }

    fn is_limited(&self) -> bool {
        self.rtts.is_full() && self.sent.fast >= BULK
    }

    fn is_worth_it(&self) -> bool {
        self.sent.fast.max(self.heard.fast) >= WORTH
    }
}

/// The traffic of one overlay, as far as this member sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic {
    flows: BTreeMap<PortId, Flow>,
    read: Option<Time>,
    reported: Option<Time>,
    /// Ways were changed since: what flowed until now is told at once, and what flows then soon.
    is_cut: bool,
    is_first_look: bool,
    /// What the last report said, for what has changed since.
    said: BTreeMap<PortId, f64>,
    pub(super) machines: Machines,
    /// Since when nobody plans, and what was tried since.
    alone: Option<Time>,
    looked: Option<Time>,
    fallback: Fallback<PortId>,
}

impl Control {
    /// Frames flow in an overlay.
    pub(super) fn on_busy(&mut self, overlay: OverlayIndex) {
        self.fx.timers.set_earlier(Timer::Traffic(overlay), self.fx.now + READ_EVERY);
    }

    /// [`Timer::Traffic`]
    pub(super) fn on_traffic_timer(&mut self, overlay: OverlayIndex) {
        self.fx.commands.push_back(Command::Tally { overlay });
    }

    /// A plan was carried out: what flows from now on is told apart from what flowed before.
    pub(super) fn count_anew(&mut self, overlay: OverlayIndex) {
        self.overlays[overlay.0].traffic.is_cut = true;
        self.fx.commands.push_back(Command::Tally { overlay });
    }

    /// The counters of the ports on which anything flowed since the last reading.
    pub(super) fn on_tallied(
        &mut self,
        overlay: OverlayIndex,
        tallies: &[(PortId, Tally)],
        machines: &[(MacPair, Volume)],
    ) {
        let now = self.fx.now;
        let mut traffic = std::mem::take(&mut self.overlays[overlay.0].traffic);
        let span = traffic.read.replace(now).map_or(READ_EVERY, |read| now.since(read).min(REPORT_EVERY));
        traffic.machines.read(span, machines);
        let fresh: BTreeMap<PortId, Tally> = tallies.iter().copied().collect();
        for port in fresh.keys() {
            traffic.flows.entry(*port).or_default();
        }
        let mut bulk = Vec::new();
        traffic.flows.retain(|port, flow| {
            let Some(peer) = self.peers.get_mut(port) else { return false };
            flow.read(now, span, fresh.get(port).copied().unwrap_or_default(), &peer.paths);
            peer.on_rate((flow.sent.fast, flow.heard.fast), fresh.len());
            if flow.sent.fast.max(flow.heard.fast) >= BULK {
                // Though it be for a group or for everybody.
                peer.used = Some(now);
                bulk.push(*port);
            }
            if peer.has_outgrown(flow.sent.fast) {
                self.fx.timers.set(Timer::Carry(*port), now);
            }
            // A pair is remembered through a pause.
            flow.sent.slow.max(flow.heard.slow) >= WORTH / 8.0
        });
        // A supernode has not to carry it for long.
        bulk.into_iter().for_each(|port| self.rouse(port));
        if self.overlays[overlay.0].adapts {
            self.adapt(overlay, &mut traffic);
        }
        // After an empty reading only: the corridor tells of what begins then, and not before.
        if traffic.flows.is_empty() && tallies.is_empty() {
            traffic = Traffic::default();
        } else {
            self.fx.timers.set(Timer::Traffic(overlay), now + READ_EVERY);
        }
        self.overlays[overlay.0].traffic = traffic;
    }

    /// What is known now is told, if it is time; without anybody to tell, we do what we can.
    fn adapt(&mut self, overlay: OverlayIndex, traffic: &mut Traffic) {
        let rates = traffic.rates();
        let all = |rates: &BTreeMap<PortId, f64>| rates.values().sum::<f64>();
        let is_news = is_phase_change(&traffic.said, &rates) || all(&rates) > (GROWN * all(&traffic.said)).max(BULK);
        let since = traffic.reported.map(|reported| self.fx.now.since(reported));
        let patience = match (is_news, traffic.is_first_look) {
            (true, _) => READ_EVERY,
            (false, true) => FIRST_LOOK,
            (false, false) => REPORT_EVERY,
        };
        if traffic.is_cut || since.is_none_or(|since| since >= patience) {
            let is_early = since.is_some_and(|since| since < FIRST_LOOK);
            traffic.is_first_look = std::mem::take(&mut traffic.is_cut) || traffic.is_first_look && is_early;
            self.report_traffic(overlay, traffic);
        }
        self.do_alone(overlay, traffic);
    }

    /// Tells the supernode that plans for the overlay.
    fn report_traffic(&mut self, overlay: OverlayIndex, traffic: &mut Traffic) {
        let Some(home) = self.planner_of(overlay) else { return };
        let Some(registration) = home.registrations.get(&overlay) else { return };
        let flows = traffic.flows.iter().filter(|(_, flow)| flow.is_worth_it());
        let mut peers: Vec<PeerReport> =
            flows.filter_map(|(port, flow)| self.peer_report(*port, flow, registration)).collect();
        // Nothing to say, and that was said already.
        if peers.is_empty() && traffic.said.is_empty() {
            return;
        }
        peers.sort_by_key(|peer| std::cmp::Reverse(peer.fast.max(peer.arrives)));
        peers.truncate(PEERS_MAX);
        let (place, message) = (home.place, self.told(overlay, peers));
        self.fx.tell(LinkId::Dialled(place), &message);
        traffic.reported = Some(self.fx.now);
        traffic.said = traffic.rates();
    }

    /// Without a planner for a while, looks for a better way for the worst pair; until then what was planned stays.
    fn do_alone(&mut self, overlay: OverlayIndex, traffic: &mut Traffic) {
        let now = self.fx.now;
        if self.planner_of(overlay).is_some() {
            traffic.alone = None;
            traffic.fallback = Fallback::default();
            return;
        }
        let is_alone = now.since(*traffic.alone.get_or_insert(now)) >= ALONE;
        if !is_alone || traffic.looked.is_some_and(|looked| now.since(looked) < REPORT_EVERY) {
            return;
        }
        traffic.looked = Some(now);
        let pairs: Vec<_> = traffic.flows.iter().filter_map(|(port, flow)| self.own_pair(*port, flow)).collect();
        let may_relay = |peer: &&Peer| peer.overlay == overlay && peer.is_direct() && peer.relays == RelayFor::Everyone;
        let relays: Vec<_> = self.peers.values().filter(may_relay).map(|peer| peer.port).collect();
        if let Some((port, member)) = traffic.fallback.look(now, &pairs, &relays, &mut self.fx.rng) {
            self.order(port, member.map_or(Via::Auto, Via::Member));
        }
    }

    /// A pair that we may move: not one that the user ordered to go some way.
    fn own_pair(&self, port: PortId, flow: &Flow) -> Option<Own<PortId>> {
        let carriers = &self.peers.get(&port).filter(|peer| !peer.carriers.is_pinned)?.carriers;
        let via = match carriers.via {
            Via::Member(member) => Some(member),
            Via::Auto | Via::Direct | Via::Home(_) => None,
        };
        Some(Own { peer: port, rate: flow.sent.fast, is_limited: flow.is_limited(), via })
    }

    /// A supernode that may plan is told at once that we relay, that this host is busy, or where it is, though nothing
    /// flows here.
    pub(super) fn introduce(&mut self, place: usize, overlay: OverlayIndex) {
        let is_at_site = !self.carrying.settings.site.is_empty();
        let has_news = self.carries() == RelayFor::Everyone || self.is_loaded() || is_at_site;
        if self.overlays[overlay.0].adapts && has_news {
            self.tell_itself(place, overlay);
        }
    }

    /// What we are to others has changed: an idle member reports nothing else.
    pub(super) fn tell_planners(&mut self) {
        for overlay in (0..self.overlays.len()).map(OverlayIndex) {
            if let Some(place) = self.planner_of(overlay).map(|home| home.place) {
                self.tell_itself(place, overlay);
            }
        }
    }

    fn tell_itself(&mut self, place: usize, overlay: OverlayIndex) {
        let message = self.told(overlay, Vec::new());
        self.fx.tell(LinkId::Dialled(place), &message);
    }

    /// What we are to others, and what flows between them and us.
    fn told(&self, overlay: OverlayIndex, peers: Vec<PeerReport>) -> Message {
        let site = &self.carrying.settings.site;
        let overlay = &self.overlays[overlay.0];
        let report = Report {
            relays: self.carries() == RelayFor::Everyone,
            load: self.load,
            peers,
            site: (!site.is_empty()).then(|| overlay.site_tag(site)),
            spare: self.spare().map(|spare| kilobytes(f64::from(spare)).max(1)),
        };
        Message::Report { overlay: overlay.id(), report }
    }

    fn peer_report(&self, port: PortId, flow: &Flow, registration: &Registration) -> Option<PeerReport> {
        let peer = self.peers.get(&port)?;
        let (relay, _) = registration.members.iter().find(|(_, member)| **member == port)?;
        let rtt_us = peer.paths.current_rtt().map_or(0, |rtt| u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX));
        Some(PeerReport {
            relay: *relay,
            fast: kilobytes(flow.sent.fast),
            slow: kilobytes(flow.sent.slow),
            arrives: kilobytes(flow.heard.fast),
            capacity: flow.capacity.map_or(0, kilobytes),
            rtt_us,
            is_limited: flow.is_limited(),
            is_queued: flow.bulk.and_then(|since| peer.inbound.is_full(self.fx.now, since)),
            has_link: peer.has_link(),
            goes: Some(self.goes(peer, registration)),
        })
    }

    /// Which way frames to a peer go, in words that the supernode of this registration knows.
    fn goes(&self, peer: &Peer, registration: &Registration) -> Goes {
        let by = match peer.paths.current() {
            Some(Path::Direct(_)) => Hop::Peer,
            Some(Path::Relayed(leg, _)) if registration.standing.leg() == Some(leg) => Hop::Here,
            Some(Path::Relayed(leg, _)) => {
                let is_its = |port: &PortId| {
                    self.peers.get(port).is_some_and(|member| member.own_leg.is_some_and(|own| own.leg == leg))
                };
                let member = registration.members.iter().find(|(_, port)| is_its(port));
                member.map_or(Hop::Elsewhere, |(relay, _)| Hop::Member(*relay))
            }
            None => Hop::Elsewhere,
        };
        let since_ms = u16::try_from(self.fx.now.since(peer.paths.since()).as_millis()).unwrap_or(u16::MAX);
        Goes { by, since_ms }
    }

    /// The supernode that plans for an overlay, if that adapts: of those registered at the one whose key comes first,
    /// so that all members agree.
    pub(super) fn planner_of(&self, overlay: OverlayIndex) -> Option<&Home> {
        let adapts = self.overlays[overlay.0].adapts;
        let registered = self.homes.iter().filter(|home| adapts && home.leg(overlay).is_some());
        registered.min_by_key(|home| home.pin.map(|pin| pin.0))
    }

    /// Whether the supernode at `place` plans for an overlay.
    pub(super) fn plans(&self, place: usize, overlay: OverlayIndex) -> bool {
        self.planner_of(overlay).is_some_and(|home| home.place == place)
    }
}

impl Traffic {
    /// What is sent to a peer and heard from it, if anything was of late.
    pub(super) fn flow(&self, port: PortId) -> Option<(Rates, Rates)> {
        self.flows.get(&port).map(|flow| (flow.sent, flow.heard))
    }

    /// Whether the network holds back what is sent to a peer.
    pub(super) fn is_limited(&self, port: PortId) -> bool {
        self.flows.get(&port).is_some_and(|flow| flow.is_limited())
    }

    /// What it lets through, if it ever held anything back.
    pub(super) fn capacity(&self, port: PortId) -> Option<f64> {
        self.flows.get(&port).and_then(|flow| flow.capacity)
    }

    /// Bytes per second to each peer that is worth a word.
    fn rates(&self) -> BTreeMap<PortId, f64> {
        let worth = self.flows.iter().filter(|(_, flow)| flow.is_worth_it());
        worth.map(|(port, flow)| (*port, flow.sent.fast)).collect()
    }
}

impl Peer {
    /// Whether frames go straight to it, or would if no relay were ordered.
    fn has_link(&self) -> bool {
        self.is_direct() || self.paths.preferred().is_some() && self.paths.was_direct()
    }
}

fn kilobytes(bytes_per_s: f64) -> u32 {
    // A cast of a float saturates.
    (bytes_per_s / 1000.0).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn at(ms: u64) -> Time {
        Time::START + Duration::from_millis(ms)
    }

    #[test]
    fn what_hardly_flows_is_not_limited() {
        let mut flow = Flow::default();
        flow.sent.sample(1_000.0, READ_EVERY);
        flow.rtts.note_rtt(at(1), MILLISECOND);
        flow.rtts.note_rtt(at(2), 100 * MILLISECOND);
        assert!(!flow.is_limited());
    }
}
