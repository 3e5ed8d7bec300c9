//! Which of our machines should move: what the supernode that plans says of our hosts, and what we see ourselves.
//!
//! The supernode knows hosts; which machine of ours it is about is found here and told to our user only. A host whose
//! processors are busy takes no machines: each says so to the supernode.

use std::collections::BTreeMap;

use super::Control;
use super::sight::{MoveAdvice, percent};
use super::topology::relief::{LOADED, relieve};
use super::topology::resources::Resource;
use super::topology::view::{Config, NodeView, View};
use super::topology::{NodeIndex, Pair};
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::PortId;
use crate::seam::Event;
use crate::time::Time;
use crate::wire::advice::Advice;

/// Ourselves, in a view of our own.
const SELF: NodeIndex = NodeIndex(0);

impl Control {
    /// How much of the time tasks wait for a processor at this host, in percent.
    pub fn handle_pressure(&mut self, now: Time, load: Option<u8>) {
        self.fx.now = now;
        let was_loaded = self.is_loaded();
        self.load = load;
        if was_loaded == self.is_loaded() {
            return;
        }
        // An idle member is where machines would go.
        self.tell_planners();
    }

    /// Whether this host should take no more machines.
    pub(super) fn is_loaded(&self) -> bool {
        self.load.is_some_and(|load| load >= LOADED)
    }

    /// ADVICE of the supernode at `place`: believed of the one that plans for us.
    pub(super) fn on_advice(&mut self, place: usize, overlay: OverlayIndex, advice: Advice) {
        let Some(home) = self.planner_of(overlay).filter(|home| home.place == place) else { return };
        let Some(registration) = home.registrations.get(&overlay) else { return };
        let port = |relay| registration.members.get(&relay).copied();
        let (Some(partner), Some(target)) = (port(advice.partner), port(advice.target)) else { return };
        let ends = (partner, target);
        let advised = self.advised(overlay, ends, "plan", f64::from(advice.gain) / 1000.0);
        self.fx.events.push_back(advised.event());
    }

    fn advised(&self, overlay: OverlayIndex, (partner, target): (PortId, PortId), by: &str, gain: f64) -> MoveAdvice {
        let called = |port| self.peers.get(&port).map_or_else(|| "a member that is gone".into(), super::Peer::called);
        MoveAdvice {
            overlay: self.overlays[overlay.0].name.clone(),
            seen_by: self.name.clone(),
            by: by.into(),
            machine: self.greatest_machine(overlay, partner),
            host: self.name.clone(),
            partner: called(partner),
            target: called(target),
            bottleneck: None,
            gain_percent: percent(gain),
        }
    }

    /// What we can say by ourselves and, where we are a supernode, for its overlays.
    pub(super) fn move_advice(&mut self, now: Time) -> Vec<MoveAdvice> {
        let mut all: Vec<_> =
            (0..self.overlays.len()).filter_map(|at| self.own_advice(now, OverlayIndex(at))).collect();
        let here = self.name.clone();
        all.extend(self.serving.iter_mut().flat_map(|supernode| supernode.move_advice(now, &here)));
        all
    }

    /// By our own flows and what we know of our own ways alone.
    fn own_advice(&self, now: Time, overlay: OverlayIndex) -> Option<MoveAdvice> {
        let traffic = &self.overlays[overlay.0].traffic;
        let peers = self.peers.values().filter(|peer| peer.overlay == overlay && peer.session.is_some());
        let by_index: BTreeMap<NodeIndex, PortId> =
            (1..=u16::MAX).map(NodeIndex).zip(peers.map(|peer| peer.port)).collect();
        let mut view = View { nodes: vec![NodeView::default(); by_index.len() + 1], ..View::default() };
        for (index, port) in &by_index {
            let (to, from) = (Pair::new(SELF, *index), Pair::new(*index, SELF));
            let Some((sent, heard)) = traffic.flow(*port) else { continue };
            view.demands.insert(to, sent.fast);
            view.demands.insert(from, heard.fast);
            if let Some(capacity) = traffic.capacity(*port).filter(|_| traffic.is_limited(*port)) {
                view.capacities.set(Resource::Path(to), capacity);
            }
        }
        view.demands.retain(|_, rate| *rate > 0.0);
        // The machine that is ours goes to its partner: what other hosts have between them is not known here.
        let hosts = by_index.keys().map(|index| (*index, None)).collect();
        let found = relieve(&view, &Config::default(), now, &hosts).filter(|found| found.host == SELF)?;
        let ends = (*by_index.get(&found.partner)?, *by_index.get(&found.target)?);
        let advised = self.advised(overlay, ends, "member", found.gain);
        let bottleneck = Some(format!("the path to {}", advised.partner));
        Some(MoveAdvice { bottleneck, ..advised })
    }
}

impl MoveAdvice {
    /// For the log, and whoever reads it.
    pub(in crate::control) fn event(&self) -> Event {
        let Self { overlay, machine, host, partner, target, gain_percent, .. } = self.clone();
        Event::MoveAdvised { overlay, machine, host, partner, target, gain_percent }
    }
}
