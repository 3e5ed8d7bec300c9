//! What a further lane does otherwise: it tells what is plain, hands the rest over, and reports.

use std::mem;
use std::net::{IpAddr, SocketAddr};

use super::{Handed, Known, Opened, Order, PAIRS_EVERY, REPORT_EVERY, Report, Role, SEEN_EVERY, owner};
use crate::datapath::buf::{Datagrams, Frames, Origin, OverlayIndex};
use crate::datapath::fdb::{PortId, TAP};
use crate::datapath::frame::{self, Header};
use crate::datapath::limit::Bucket;
use crate::datapath::neighbour;
use crate::datapath::offload::Virtio;
use crate::datapath::pairs::{MacPair, Volume};
use crate::datapath::path::Path;
use crate::datapath::stats::{DropReason, Stats};
use crate::datapath::switch::Switch;
use crate::datapath::{Activity, Datapath, Notice};
use crate::time::Time;
use crate::wire::data::{self, Checksum, FrameKind};

/// Packets of unknown keys that a lane hands over per second: what comes in the milliseconds until a lane has
/// them, and a small part of what lane 0 carries.
const STRANGE_RATE: u32 = 1_000;
/// And at once: one full run of the kernel's for each of 16 peers.
const STRANGE_BURST: u32 = 1_024;

/// What a further lane has beside its copy.
pub(in crate::datapath) struct Further {
    pub(super) number: u8,
    pub(super) lanes: u8,
    pub(super) handed: Handed,
    /// Handed over and not done yet.
    under_way: u64,
    /// What lane 0 taught and what may not be used while anything is under way.
    pub(super) known: Vec<Known>,
    confirmed: Vec<(PortId, u32, Path)>,
    /// Packets with an index that is not known, which lane 0 may still see.
    strange: Bucket,
    pub(super) report_at: Time,
    reported: Time,
    seen: Time,
    /// When it was told last which machines talk.
    counted: Time,
}

impl Further {
    pub(super) fn new(number: u8, lanes: u8, overlays: usize) -> Self {
        let frames = (0..overlays).map(|_| Frames::default()).collect();
        Self {
            number,
            lanes,
            handed: Handed { frames, ..Handed::default() },
            under_way: 0,
            known: Vec::new(),
            confirmed: Vec::new(),
            strange: Bucket::new(STRANGE_RATE, STRANGE_BURST),
            report_at: Time::NEVER,
            reported: Time::START,
            seen: Time::START,
            counted: Time::START,
        }
    }

    /// There is something to report: at once after a rest, else in a while.
    pub(super) fn worked(&mut self, now: Time) {
        self.report_at = self.report_at.min(now.max(self.reported + REPORT_EVERY));
    }

    pub(super) fn take_handed(&mut self) -> Handed {
        self.under_way += 1;
        let frames = self.handed.frames.iter().map(|_| Frames::default()).collect();
        mem::replace(&mut self.handed, Handed { frames, ..Handed::default() })
    }

    /// The peer has the keys that wait; lane 0 will say when they are the present ones.
    pub(in crate::datapath) fn note_confirmed(&mut self, port: PortId, index: u32, path: Path) {
        if self.confirmed.iter().all(|(_, known, _)| *known != index) {
            self.confirmed.push((port, index, path));
        }
    }
}

impl Datapath {
    /// Whether a frame out of the TAP is lane 0's business, which will get it.
    pub(in crate::datapath) fn hands_over(
        &mut self,
        now: Time,
        overlay: OverlayIndex,
        frame: &[u8],
        virtio: Virtio,
    ) -> bool {
        if !matches!(self.role, Role::Further(_)) || self.is_plain(now, overlay, frame) {
            return false;
        }
        if let Role::Further(lane) = &mut self.role {
            lane.handed.frames[overlay.0].push(frame, virtio);
            self.stats[overlay.0].handed += 1;
        }
        true
    }

    /// From a machine of ours to one behind a peer that can be sent to from here, both where they were.
    fn is_plain(&mut self, now: Time, overlay: OverlayIndex, frame: &[u8]) -> bool {
        let Some(header) = Header::parse(frame) else { return false };
        if self.reserve.is_some() {
            // One policer for all lanes.
            return false;
        }
        let Switch { fdb, rules, .. } = &mut self.switches[overlay.0];
        if rules.as_mut().is_some_and(|rules| rules.fit(header.src, header.dst)) {
            return false;
        }
        if header.dst.is_group()
            || fdb.lookup(now, header.vlan, header.src) != Some(TAP)
            || frame::announces(frame, &header)
            || neighbour::read(frame, &header).address.is_some()
        {
            return false;
        }
        match fdb.lookup(now, header.vlan, header.dst) {
            Some(TAP) => true,
            Some(port) => self.ports.get(&port).is_some_and(|port| port.is_fast(now)),
            None => false,
        }
    }

    /// Whether a datagram is another lane's business, which will get it.
    pub(in crate::datapath) fn is_anothers(
        &mut self,
        now: Time,
        (from, to): (SocketAddr, Option<IpAddr>),
        datagram: &[u8],
    ) -> bool {
        let origin = Origin { from, to, stride: datagram.len() };
        match &mut self.role {
            Role::Alone => false,
            Role::First(first) => first.is_anothers(origin, datagram),
            Role::Further(lane) => {
                let is_ours = owner(datagram, lane.lanes) == Some(lane.number);
                let knows = |header: data::Header| self.by_index.contains_key(&header.receiver);
                // Its keys may be on their way to us; if there are none, strangers must not keep lane 0 busy.
                if is_ours && (data::Header::parse(datagram).is_ok_and(knows) || !lane.strange.take(now)) {
                    return false;
                }
                lane.handed.datagrams.push(datagram, origin);
                self.node_stats.handed += 1;
                true
            }
        }
    }

    /// Whether an opened frame is lane 0's business, which will get it.
    pub(in crate::datapath) fn hands_opened(
        &mut self,
        now: Time,
        from: (OverlayIndex, PortId),
        (kind, checksum): (FrameKind, Checksum),
        frame: &[u8],
    ) -> bool {
        let Role::Further(lane) = &mut self.role else { return false };
        let fdb = &self.switches[from.0.0].fdb;
        let is_plain = Header::parse(frame).is_some_and(|header| {
            kind == FrameKind::Direct
                && fdb.lookup(now, header.vlan, header.src) == Some(from.1)
                && fdb.lookup(now, header.vlan, header.dst) == Some(TAP)
                && !frame::announces(frame, &header)
        });
        if !is_plain {
            lane.handed.opened.push(frame, Opened { from, kind, checksum });
            self.stats[from.0.0].handed += 1;
        }
        !is_plain
    }

    /// Lane 0 says so.
    pub(super) fn obey(&mut self, now: Time, order: Order) {
        match order {
            Order::Command(command) => self.handle_command(now, command),
            Order::Promote { port, index } => {
                self.promote(port, index);
            }
            Order::Forget { overlay, vlan, mac } => self.unlearn(overlay, vlan, mac),
            Order::Source { port, peer, own } => {
                if let Some(port) = self.ports.get_mut(&port) {
                    port.note_source(peer, own);
                }
            }
            Order::Datagrams(mut datagrams) => self.open_returned(now, &mut datagrams),
            Order::Done(known) => self.learn_all(known),
        }
    }

    fn unlearn(&mut self, overlay: OverlayIndex, vlan: u16, mac: frame::Mac) {
        self.switches[overlay.0].fdb.forget(vlan, mac);
        if let Role::Further(lane) = &mut self.role {
            lane.known.retain(|known| (known.overlay, known.vlan, known.mac) != (overlay, vlan, mac));
        }
    }

    /// Packets for this lane that came to another one, or here before their keys did: now or never.
    fn open_returned(&mut self, now: Time, datagrams: &mut Datagrams) {
        for index in 0..datagrams.len() {
            if let Some((packet, origin)) = datagrams.get_mut(index) {
                let (from, to) = (origin.from, origin.to.filter(|_| self.sources.are_kept()));
                self.open(now, (Path::Direct(from), to), &mut None, packet);
            }
        }
        self.joining.close(&mut self.deliveries);
    }

    /// Takes what was taught into use once nothing is under way that it would overtake.
    fn learn_all(&mut self, known: Vec<Known>) {
        let Role::Further(lane) = &mut self.role else { return };
        lane.under_way = lane.under_way.saturating_sub(1);
        lane.known.extend(known);
        if lane.under_way == 0 {
            for known in lane.known.drain(..) {
                let fdb = &mut self.switches[known.overlay.0].fdb;
                fdb.learn(known.heard, known.vlan, known.mac, known.port, true);
            }
        }
    }

    pub(super) fn drop_handed(&mut self) {
        let Role::Further(lane) = &mut self.role else { return };
        let lost = lane.take_handed();
        lane.under_way -= 1;
        self.node_stats.dropped_many(DropReason::LaneFull, lost.len() as u64);
    }

    pub(super) fn take_report(&mut self, now: Time) -> Report {
        let mut ports = Vec::new();
        let mut notices = mem::take(&mut self.notices);
        // Keys, ports and frames that wait are lane 0's business: it is told of paths and loops only.
        notices.retain(|notice| matches!(notice, Notice::Heard { .. } | Notice::UnderlayLoop { .. }));
        for (id, port) in &mut self.ports {
            if port.activity != Activity::default() {
                ports.push((*id, mem::take(&mut port.activity)));
            }
            if port.is_spent() {
                notices.push_back(Notice::NeedKeys { port: *id });
            }
        }
        let (seen, machines) = (self.take_seen(now), self.take_pairs(now));
        let Role::Further(lane) = &mut self.role else { unreachable!("only a further lane reports") };
        (lane.report_at, lane.reported) = (Time::NEVER, now);
        Report {
            ports,
            seen,
            confirmed: mem::take(&mut lane.confirmed),
            notices: notices.into(),
            stats: self.stats.iter_mut().map(mem::take).collect(),
            node_stats: mem::take::<Stats>(&mut self.node_stats),
            machines,
        }
    }

    /// Which machines talked since the last time, now and then.
    fn take_pairs(&mut self, now: Time) -> Vec<(OverlayIndex, Vec<(MacPair, Volume)>)> {
        let Role::Further(lane) = &mut self.role else { return Vec::new() };
        if now.since(lane.counted) < PAIRS_EVERY {
            return Vec::new();
        }
        lane.counted = now;
        let of_each = self.switches.iter_mut().enumerate();
        of_each.map(|(overlay, switch)| (OverlayIndex(overlay), switch.pairs.take())).collect()
    }

    /// The addresses heard since the last time, now and then.
    fn take_seen(&mut self, now: Time) -> Vec<Known> {
        let Role::Further(lane) = &mut self.role else { return Vec::new() };
        if now.since(lane.seen) < SEEN_EVERY {
            return Vec::new();
        }
        let since = mem::replace(&mut lane.seen, now);
        let heard = self.switches.iter().enumerate().flat_map(|(overlay, switch)| {
            let known =
                move |(vlan, mac, port, heard)| Known { overlay: OverlayIndex(overlay), vlan, mac, port, heard };
            switch.fdb.heard_after(since).map(known)
        });
        heard.collect()
    }
}
