//! The switch of one overlay: from a frame's header to a verdict.
//!
//! Port 0 is the TAP, every other port is a peer. A frame from a peer goes to the TAP or ends here:
//! split horizon is per node, so no frame ever crosses the overlay twice, but for those whose machine has just
//! left us: they are sent on once, as [`FrameKind::Moved`], which nobody sends on again.

use std::collections::BTreeSet;

use super::fdb::{Address, Fdb, Learned, PortId, TAP};
use super::frame::{self, Header, LinkLocal, Mac};
use super::gate::Gate;
use super::groups::Groups;
use super::limit::{Bucket, FLOOD_BURST, FLOOD_RATE};
use super::moves::Moves;
use super::neighbour;
use super::offload::TapOffload;
use super::ownership::News;
use super::pairs::{Pairs, Side, Volume};
use super::reserve::Marking;
use super::rules::{Action, RuleWay, Rules};
use super::stations::Stations;
use super::stats::DropReason;
use super::suppress::Suppression;
use super::tree::{FAN_OUT, Trees};
use crate::time::Time;
use crate::wire::data::FrameKind;
use crate::wire::tree::ShortId;

/// Ethernet header and two VLAN tags: what a frame may have besides its payload.
const ETHERNET_LEN: usize = 14 + 4 + 4;

/// Loop probes looked at per second: those of a segment with all the members it may have, twice over.
const PROBE_RATE: u32 = 64;

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Out of this port.
    Forward(PortId),
    /// Out of this port, to which its address has moved away from us.
    SendOn(PortId),
    /// Nowhere: what it asks is answered at home.
    Answered,
    /// Out of this port: what it asks is asked the one that knows.
    Ask(PortId),
    /// Out of every port but the one it came from.
    Flood,
    /// Out of the ports in [`Switch::receivers`]: it is for a group, and the others do not want to hear it.
    Group,
    /// By static rules, to each of [`Switch::hops`].
    Ruled,
    /// It ends here.
    Drop(DropReason),
}

/// A peer that a frame goes to by a static rule, and by which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) port: PortId,
    pub(super) way: RuleWay,
}

/// What is set of an overlay's switch: the user's choices, and what its TAP can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchSettings {
    /// The largest Ethernet payload carried, in bytes: 1500, more if asked.
    pub mtu: usize,
    /// Whether spanning tree frames (01:80:c2:00:00:00) pass.
    pub stp: bool,
    /// Whether TCP is asked for segments that fit one packet.
    pub clamp_mss: bool,
    /// Whether questions for IP addresses are answered at home, where that can be done.
    pub answers: bool,
    /// Whether frames for multicast groups go only to those that want to hear them, as far as they say so.
    pub snoops: bool,
    /// Whether ways follow what flows; if so, it is counted which machines talk.
    pub adapts: bool,
    /// What the TAP takes and gives besides whole frames.
    pub tap: TapOffload,
    /// The MAC address of this daemon itself on its own segment.
    pub station: Mac,
    /// How other members name this one.
    pub short: ShortId,
    /// Copies of a frame for everybody that leave this node, where there are members to hand it on.
    pub fan_out: usize,
}

impl Default for SwitchSettings {
    fn default() -> Self {
        let station = Mac([2, 0, 0, 0, 0, 0]);
        Self {
            mtu: 1500,
            stp: true,
            clamp_mss: true,
            answers: true,
            snoops: false,
            adapts: true,
            tap: TapOffload::None,
            station,
            short: ShortId::default(),
            fan_out: FAN_OUT,
        }
    }
}

/// One overlay's switch.
pub(super) struct Switch {
    pub(super) fdb: Fdb,
    /// The peers' ports, in the order of their ids.
    pub(super) ports: BTreeSet<PortId>,
    /// What passes between the TAP and the peers.
    pub(super) gate: Gate,
    /// The user's rules, if there are any.
    pub(super) rules: Option<Rules>,
    /// What its outer packets are marked with.
    pub(super) marking: Marking,
    /// Where the last frame goes that rules decided on.
    pub(super) hops: Vec<Hop>,
    /// What they said of it.
    pub(super) actions: Vec<Action>,
    /// Probes of other members that the control room looks at.
    pub(super) probe_limit: Bucket,
    /// Addresses that moved of late.
    pub(super) moves: Moves,
    /// What is to be told of addresses since the last frame or message.
    pub(super) news: Vec<(Address, News)>,
    /// The IP addresses of machines behind the TAP.
    pub(super) stations: Stations,
    /// Which machines talk to each other across the overlay.
    pub(super) pairs: Pairs,
    /// Who has which IP address.
    pub(super) suppression: Suppression,
    /// Which multicast groups are wanted here.
    pub(super) groups: Groups,
    /// Where the last frame goes that is for a group.
    pub(super) receivers: Vec<PortId>,
    /// By whom frames for everybody are handed on.
    pub(super) trees: Trees,
    pub(super) flood_limit: Bucket,
    /// A claim goes to every peer, as a flood does.
    pub(super) claim_limit: Bucket,
    settings: SwitchSettings,
}

impl Switch {
    pub(super) fn new(seed: [u64; 4], settings: SwitchSettings) -> Self {
        Self {
            fdb: Fdb::new(seed),
            ports: BTreeSet::new(),
            gate: Gate::default(),
            rules: None,
            marking: Marking::None,
            hops: Vec::new(),
            actions: Vec::new(),
            probe_limit: Bucket::new(PROBE_RATE, PROBE_RATE),
            moves: Moves::default(),
            news: Vec::new(),
            stations: Stations::default(),
            pairs: Pairs::new(seed),
            suppression: Suppression::default(),
            groups: Groups::default(),
            receivers: Vec::new(),
            trees: Trees::default(),
            flood_limit: Bucket::new(FLOOD_RATE, FLOOD_BURST),
            claim_limit: Bucket::new(FLOOD_RATE, FLOOD_BURST),
            settings,
        }
    }

    /// What is set.
    pub(super) const fn settings(&self) -> SwitchSettings {
        self.settings
    }

    /// Notes that something passed between two machines.
    pub(super) fn count_pair(&mut self, side: Side, frame: &[u8], volume: Volume) {
        if self.settings.adapts {
            self.pairs.count(side, frame, volume);
        }
    }

    /// Whether TCP is asked for segments that fit one packet.
    pub(super) const fn clamps_mss(&self) -> bool {
        self.settings.clamp_mss
    }

    /// The longest frame that the overlay carries.
    pub(super) const fn frame_max(&self) -> usize {
        ETHERNET_LEN + self.settings.mtu
    }

    /// What the TAP takes and gives besides whole frames.
    pub(super) const fn tap(&self) -> TapOffload {
        self.settings.tap
    }

    /// The MAC address of this daemon itself on its own segment.
    pub(super) const fn station(&self) -> Mac {
        self.settings.station
    }

    /// A frame out of the TAP, or a superframe that is cut to frames of at most `longest` bytes.
    pub(super) fn judge_outbound(&mut self, now: Time, bytes: &[u8], header: &Header, longest: usize) -> Verdict {
        if let Err(reason) = self.check(longest, header) {
            return Verdict::Drop(reason);
        }
        let address = Address { vlan: header.vlan, mac: header.src };
        if self.learns(now, header) {
            self.learn_own(now, address, bytes, header);
        }
        let is_report = self.snoop_groups(now, bytes, header);
        if header.dst == self.settings.station {
            self.on_answer(now, address);
            return Verdict::Drop(DropReason::Answer);
        }
        if let Some(verdict) = self.rules.is_some().then(|| self.judge_by_rules(now, header, bytes.len())).flatten() {
            return verdict;
        }
        match self.destination(now, header) {
            Some(TAP) => Verdict::Drop(DropReason::Local),
            Some(port) => Verdict::Forward(port),
            None if self.gate.is_shut() => Verdict::Drop(DropReason::Shared),
            None if self.ports.is_empty() => Verdict::Drop(DropReason::NoPeer),
            None => {
                let verdict =
                    self.answer(now, bytes, header).or_else(|| self.judge_group(now, is_report, bytes, header));
                verdict.unwrap_or_else(|| self.judge_flood(now))
            }
        }
    }

    fn judge_flood(&mut self, now: Time) -> Verdict {
        if self.flood_limit.take(now) { Verdict::Flood } else { Verdict::Drop(DropReason::FloodLimit) }
    }

    /// Learns from a frame out of our TAP.
    fn learn_own(&mut self, now: Time, address: Address, bytes: &[u8], header: &Header) {
        let announced = frame::announces(bytes, header);
        let learned = self.fdb.learn(now, header.vlan, header.src, TAP, announced);
        if learned != Learned::Refreshed {
            self.on_arrival(now, address, learned, announced);
        }
        if learned == Learned::New {
            self.doubt_holder(address, bytes, header);
        }
        let heard = neighbour::read(bytes, header);
        if let Some(ip) = heard.address {
            self.stations.note(address, ip);
        }
        if let Some(speaker) = heard.speaker {
            self.snoop(now, address, speaker, announced);
        }
    }

    /// A frame from the peer at `port`: to the TAP, once on to where its machine went, or it ends here.
    pub(super) fn judge_inbound(
        &mut self,
        now: Time,
        (port, kind): (PortId, FrameKind),
        bytes: &[u8],
        header: &Header,
    ) -> Verdict {
        if let Err(reason) = self.check(bytes.len(), header) {
            return Verdict::Drop(reason);
        }
        if self.is_hijack(now, (port, kind), bytes, header) {
            return Verdict::Drop(DropReason::Hijack);
        }
        self.heed(bytes, header);
        if self.overhears(now, bytes, header) {
            return Verdict::Drop(DropReason::Unwanted);
        }
        let destination = self.destination(now, header);
        match destination {
            _ if self.is_kept_out(kind, destination.is_some()) => Verdict::Drop(DropReason::Shared),
            None | Some(TAP) => Verdict::Forward(TAP),
            Some(known) if self.gate.shares(known) => Verdict::Forward(TAP),
            Some(known) if known == port => Verdict::Drop(DropReason::Local),
            Some(known) if kind == FrameKind::Direct => self.pass_on(now, port, known, header),
            Some(_) => Verdict::Drop(DropReason::Elsewhere),
        }
    }

    /// Learns where the sender is. Whether it is a machine that is live behind our TAP.
    fn is_hijack(&mut self, now: Time, (port, kind): (PortId, FrameKind), bytes: &[u8], header: &Header) -> bool {
        let address = Address { vlan: header.vlan, mac: header.src };
        if kind == FrameKind::Moved {
            // Who sent it on does not have the sender; nothing is learned of it.
            return self.fdb.lookup(now, address.vlan, address.mac) == Some(TAP);
        }
        let announced = frame::announces(bytes, header) && !self.is_claimed(now, address);
        match self.fdb.learn(now, address.vlan, address.mac, port, announced) {
            Learned::Held => self.fdb.lookup(now, address.vlan, address.mac) == Some(TAP),
            Learned::Moved(from) => {
                self.on_departure(now, address, from);
                false
            }
            Learned::New | Learned::Refreshed | Learned::Full | Learned::Group => false,
        }
    }

    /// A frame for a machine that is not behind our TAP: sent on if it has just left it.
    fn pass_on(&mut self, now: Time, from: PortId, to: PortId, header: &Header) -> Verdict {
        let address = Address { vlan: header.vlan, mac: header.dst };
        if !self.moves.forwards(now, address) {
            return Verdict::Drop(DropReason::Elsewhere);
        }
        self.hint(now, address, from);
        Verdict::SendOn(to)
    }

    /// What no bridge passes on, whatever its tables say.
    fn check(&self, len: usize, header: &Header) -> Result<(), DropReason> {
        if len > self.frame_max() {
            return Err(DropReason::Jumbo);
        }
        if header.src.is_group() || header.src.is_zero() {
            return Err(DropReason::GroupSource);
        }
        match frame::link_local(header.dst) {
            LinkLocal::Pass => Ok(()),
            LinkLocal::Stp if self.settings.stp => Ok(()),
            LinkLocal::Stp | LinkLocal::Never => Err(DropReason::LinkLocal),
        }
    }

    pub(super) fn destination(&self, now: Time, header: &Header) -> Option<PortId> {
        if header.dst.is_group() { None } else { self.fdb.lookup(now, header.vlan, header.dst) }
    }
}

#[cfg(test)]
mod tests;
