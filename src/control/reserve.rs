//! Reservations, the cold half: whose they are by name, and what the corridor is told.
//!
//! What this host sends is all that it can reserve. On the networks between, nobody has promised anything.

use std::time::Duration;

use super::Control;
use super::effects::Effects;
use super::report::PathKind;
use super::report::reserve::{Reservations, ReserveRequest, ReserveRow};
use super::timers::Timer;
use crate::datapath::buf::OverlayIndex;
use crate::datapath::{Command, Marking, RATE_MAX, Share, Shares};
use crate::seam::OverlaySettings;
use crate::seam::reserve::{MEGABIT, RESERVED_MAX, ReserveSettings, contradiction};

/// Frames that wait are let go in steps of this length: 5 kB at 20 Mb/s.
pub(super) const SHAPE_EVERY: Duration = Duration::from_millis(2);

/// What is reserved, by name.
#[derive(Debug, Default)]
pub(super) struct Reserved {
    uplink: Option<u64>,
    overlays: Vec<ReserveSettings>,
    told: Shares,
    marked: Vec<Marking>,
}

impl Reserved {
    pub(super) fn new(uplink: Option<u64>, overlays: &[OverlaySettings]) -> Self {
        let overlays: Vec<_> = overlays.iter().map(|overlay| overlay.reserve.clone()).collect();
        let marked = vec![Marking::None; overlays.len()];
        Self { uplink, overlays, told: Shares::default(), marked }
    }

    /// What of the uplink is guaranteed to nobody, in bytes per second, where it is known.
    pub(super) fn spare(&self) -> Option<u64> {
        let promised = self.overlays.iter().map(ReserveSettings::promised).fold(0, u64::saturating_add);
        self.uplink.map(|uplink| uplink.saturating_sub(promised))
    }

    /// Members came, went or took other names: names may mean others now.
    pub(super) fn on_other_members(&self, fx: &mut Effects) {
        if self.overlays.iter().any(|overlay| !overlay.peers.is_empty()) {
            fx.timers.set(Timer::Reserve, fx.now);
        }
    }
}

impl Control {
    /// [`Timer::Reserve`], and after each order: what names mean now.
    pub(super) fn review_reserved(&mut self) {
        let mut shares = Shares { uplink: self.reserved.uplink, ..Shares::default() };
        for (overlay, settings) in (0..).map(OverlayIndex).zip(&self.reserved.overlays) {
            if settings.overlay != Share::default() {
                shares.overlays.insert(overlay, settings.overlay);
            }
            for (name, share) in &settings.peers {
                if let Ok(port) = self.other(overlay, name) {
                    shares.peers.insert(port, *share);
                }
            }
            if self.reserved.marked[overlay.0] != settings.marking {
                self.reserved.marked[overlay.0] = settings.marking;
                self.fx.commands.push_back(Command::SetMarking { overlay, marking: settings.marking });
            }
        }
        if shares != self.reserved.told {
            self.reserved.told = shares.clone();
            self.fx.commands.push_back(Command::SetReserve { shares });
        }
        self.review_spare();
    }

    /// Carries out an order; answers with all that is reserved then.
    pub(super) fn order_reserve(&mut self, order: &ReserveRequest) -> Result<Reservations, String> {
        let ReserveRequest { overlay, peer, rate, cap, uplink, dscp } = order;
        let wanted = [rate, cap, uplink].into_iter().flatten();
        if let Some(rate) = wanted.copied().find(|rate| *rate > RATE_MAX) {
            return Err(format!("{} megabits per second are beyond what is counted", rate / MEGABIT));
        }
        let mut overlays = self.reserved.overlays.clone();
        if overlay.is_some() || peer.is_some() || rate.is_some() || cap.is_some() || dscp.is_some() {
            let index = self.overlay_named(overlay.as_deref())?;
            self.change_overlay(order, index, &mut overlays[index.0])?;
        }
        let mut total = self.reserved.uplink;
        change(&mut total, *uplink);
        let names = self.overlays.iter().map(|overlay| overlay.name.as_str());
        if let Some(why) = contradiction(total, names.zip(&overlays)) {
            return Err(why);
        }
        (self.reserved.uplink, self.reserved.overlays) = (total, overlays);
        self.review_reserved();
        Ok(self.reservations())
    }

    fn change_overlay(
        &self,
        order: &ReserveRequest,
        overlay: OverlayIndex,
        settings: &mut ReserveSettings,
    ) -> Result<(), String> {
        let share = match &order.peer {
            Some(peer) => {
                self.other(overlay, peer)?;
                settings.peers.entry(peer.clone()).or_default()
            }
            None => &mut settings.overlay,
        };
        change(&mut share.rate, order.rate);
        change(&mut share.cap, order.cap);
        settings.peers.retain(|_, share| *share != Share::default());
        if settings.peers.len() > RESERVED_MAX {
            return Err(format!("something is reserved for {RESERVED_MAX} members already"));
        }
        if let Some(text) = &order.dscp {
            settings.marking = text.parse()?;
        }
        Ok(())
    }

    fn reservations(&self) -> Reservations {
        let mut rows = Vec::new();
        for (overlay, settings) in (0..).map(OverlayIndex).zip(&self.reserved.overlays) {
            let row = |peer: Option<&String>, share: &Share| {
                let (remote, state) = peer.map_or((None, "in force".into()), |peer| self.reserved_for(overlay, peer));
                ReserveRow {
                    overlay: self.overlays[overlay.0].name.clone(),
                    peer: peer.cloned(),
                    rate: share.rate,
                    cap: share.cap,
                    dscp: settings.marking.to_string(),
                    remote,
                    state,
                }
            };
            rows.push(row(None, &settings.overlay));
            rows.extend(settings.peers.iter().map(|(peer, share)| row(Some(peer), share)));
        }
        Reservations { uplink: self.reserved.uplink, rows }
    }

    /// Where a member's packets go, and whether its share is in force.
    fn reserved_for(&self, overlay: OverlayIndex, name: &str) -> (Option<std::net::SocketAddr>, String) {
        let Ok(port) = self.other(overlay, name) else { return (None, format!("waits for {name}")) };
        let path = self.path_status(self.peers.get(&port).and_then(|peer| peer.paths.current()));
        (path.remote.filter(|_| path.kind == PathKind::Direct), "in force".into())
    }
}

fn change(value: &mut Option<u64>, to: Option<u64>) {
    if let Some(to) = to {
        *value = Some(to).filter(|to| *to > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::SwitchSettings;
    use crate::datapath::fdb::PortId;
    use crate::keys::{Identity, NodeId, OverlayKey, OverlaySecrets};
    use crate::seam::{HandshakeKind, Memory, RelaySettings, Settings};
    use crate::time::{Time, WallTime};

    /// A node that reserves something for a member called mill.
    fn node() -> Control {
        let secrets = OverlaySecrets::derive("lab", &OverlayKey::from_bytes([1; 32]));
        let mut overlay = OverlaySettings::new("lab", secrets, SwitchSettings::default());
        overlay.reserve.peers.insert("mill".into(), Share { cap: Some(1), rate: None });
        let settings = Settings {
            identity: Identity::from_secret(&[1; 32]),
            name: "n1".into(),
            overlays: vec![overlay],
            supernodes: Vec::new(),
            serve: None,
            relaying: RelaySettings::default(),
            uplink: None,
            links: crate::seam::budget::LinkBudget::default(),
            memory: Memory::default(),
            birthday: false,
            handshake: HandshakeKind::Noise,
            discovery: false,
            has_aes: false,
        };
        Control::new(settings, [1; 32], Time::START, WallTime::since_1970(Duration::from_secs(1_700_000_000)))
    }

    /// For whom the corridor was told last that something is reserved.
    fn told(control: &mut Control) -> Option<Vec<PortId>> {
        control.handle_timeout(control.fx.now);
        let commands = std::mem::take(&mut control.fx.commands);
        let peers = |command: &Command| {
            let Command::SetReserve { shares } = command else { return None };
            Some(shares.peers.keys().copied().collect())
        };
        commands.iter().rev().find_map(peers)
    }

    #[test]
    fn names_are_looked_up_when_members_come_and_go_and_not_every_second() {
        let mut control = node();
        assert_eq!(told(&mut control), None);
        assert_eq!([Timer::Rules, Timer::Reserve].map(|timer| control.fx.timers.when(timer)), [None; 2]);
        let port = control.peer_for(OverlayIndex(0), NodeId([2; 32])).expect("room");
        assert_eq!(told(&mut control), None, "a member, but which?");
        control.with(port, |peer, _| peer.name = Some("mill".into()));
        control.reserved.on_other_members(&mut control.fx);
        assert_eq!(told(&mut control), Some(vec![port]));
        control.forget_peer(port);
        assert_eq!(told(&mut control), Some(vec![]));
    }
}
