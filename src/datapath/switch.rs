//! The switch of one overlay: from a frame's header to a verdict.
//!
//! Port 0 is the TAP, every other port is a peer. A frame from a peer goes to the TAP or ends here:
//! split horizon is per node, so no frame ever crosses the overlay twice.

use std::collections::BTreeSet;

use super::fdb::{Fdb, Learned, PortId, TAP};
use super::frame::{self, Header, LinkLocal};
use super::limit::{Bucket, FLOOD_BURST, FLOOD_RATE};
use super::offload::TapOffload;
use super::stats::DropReason;
use crate::time::Time;

/// Ethernet header and two VLAN tags: what a frame may have besides its payload.
const ETHERNET_LEN: usize = 14 + 4 + 4;

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Out of this port.
    Forward(PortId),
    /// Out of every port but the one it came from.
    Flood,
    /// It ends here.
    Drop(DropReason),
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
    /// What the TAP takes and gives besides whole frames.
    pub tap: TapOffload,
}

impl Default for SwitchSettings {
    fn default() -> Self {
        Self { mtu: 1500, stp: true, clamp_mss: true, tap: TapOffload::None }
    }
}

/// One overlay's switch.
pub(super) struct Switch {
    pub(super) fdb: Fdb,
    /// The peers' ports, in the order of their ids.
    pub(super) ports: BTreeSet<PortId>,
    flood_limit: Bucket,
    settings: SwitchSettings,
}

impl Switch {
    pub(super) fn new(seed: [u64; 4], settings: SwitchSettings) -> Self {
        Self {
            fdb: Fdb::new(seed),
            ports: BTreeSet::new(),
            flood_limit: Bucket::new(FLOOD_RATE, FLOOD_BURST),
            settings,
        }
    }

    /// What is set.
    pub(super) const fn settings(&self) -> SwitchSettings {
        self.settings
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

    /// A frame out of the TAP, or a superframe that is cut to frames of at most `longest` bytes.
    pub(super) fn judge_outbound(&mut self, now: Time, bytes: &[u8], header: &Header, longest: usize) -> Verdict {
        if let Err(reason) = self.check(longest, header) {
            return Verdict::Drop(reason);
        }
        self.fdb.learn(now, header.vlan, header.src, TAP, frame::announces(bytes, header));
        match self.destination(now, header) {
            Some(TAP) => Verdict::Drop(DropReason::Local),
            Some(port) => Verdict::Forward(port),
            None if self.ports.is_empty() => Verdict::Drop(DropReason::NoPeer),
            None if !self.flood_limit.take(now) => Verdict::Drop(DropReason::FloodLimit),
            None => Verdict::Flood,
        }
    }

    /// A frame from the peer at `port`: to the TAP, or it ends here.
    pub(super) fn judge_inbound(&mut self, now: Time, port: PortId, bytes: &[u8], header: &Header) -> Verdict {
        if let Err(reason) = self.check(bytes.len(), header) {
            return Verdict::Drop(reason);
        }
        let learned = self.fdb.learn(now, header.vlan, header.src, port, frame::announces(bytes, header));
        if learned == Learned::Held && self.fdb.lookup(now, header.vlan, header.src) == Some(TAP) {
            return Verdict::Drop(DropReason::Hijack);
        }
        match self.destination(now, header) {
            None | Some(TAP) => Verdict::Forward(TAP),
            Some(known) if known == port => Verdict::Drop(DropReason::Local),
            Some(_) => Verdict::Drop(DropReason::Elsewhere),
        }
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

    fn destination(&mut self, now: Time, header: &Header) -> Option<PortId> {
        if header.dst.is_group() { None } else { self.fdb.lookup(now, header.vlan, header.dst) }
    }
}
