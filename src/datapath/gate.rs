//! The gate between a TAP and the overlay, where the segment behind the TAP may be another member's too.
//!
//! Two members on one segment are two ways between it and the overlay: a loop. One of them, the designated one,
//! carries broadcast, unknown and group frames; the others stand by for these. What is for one known machine every
//! member carries: the segment's own bridges hand it to one of them (where they have forgotten the machine, to all,
//! and it may come twice). Who shares a segment is found out by the control room (`loops`).

use std::collections::BTreeSet;

use super::fdb::{Address, Owner, PortId, TAP};
use super::frame::{self, Header};
use super::switch::Switch;
use crate::time::Time;
use crate::wire::data::FrameKind;
use crate::wire::probe;

/// What passes between the TAP and the overlay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Everything: the segment is ours alone.
    #[default]
    Open,
    /// No group and no unknown address, until it is known whose the segment is.
    Held,
    /// The segment is also that of the members at these ports.
    Shared {
        /// Who they are.
        with: BTreeSet<PortId>,
        /// Whether one of them carries what is for everybody.
        stands_by: bool,
    },
}

impl Gate {
    /// Whether the member at `port` has our segment behind its TAP too.
    pub(super) fn shares(&self, port: PortId) -> bool {
        matches!(self, Self::Shared { with, .. } if with.contains(&port))
    }

    /// Whether frames for everybody and for unknown addresses end here.
    pub(super) const fn is_shut(&self) -> bool {
        matches!(self, Self::Held | Self::Shared { stands_by: true, .. })
    }
}

impl Switch {
    /// Whether the sender of a frame out of the TAP is ours to learn. Who stands by takes nobody new, and nobody takes
    /// a machine from another one that has the same segment.
    pub(super) fn learns(&self, now: Time, header: &Header) -> bool {
        let (with, stands_by) = match &self.gate {
            Gate::Open => return true,
            Gate::Held => return false,
            Gate::Shared { with, stands_by } => (with, *stands_by),
        };
        match self.fdb.owner(now, Address { vlan: header.vlan, mac: header.src }) {
            Some(Owner { port: TAP, .. }) => true,
            Some(Owner { port, .. }) => !stands_by && !with.contains(&port),
            None => !stands_by,
        }
    }

    /// Whether the gate keeps a frame of a peer's from the TAP: it is for everybody, and another one delivers it.
    pub(super) fn is_kept_out(&self, kind: FrameKind, is_known: bool) -> bool {
        self.gate.is_shut() && (!is_known || kind == FrameKind::Copy)
    }
}

/// What a member has told the segment, if `frame` is a loop probe.
pub(super) fn probe_body<'frame>(frame: &'frame [u8], header: &Header) -> Option<&'frame [u8]> {
    if header.ethertype != probe::ETHERTYPE || header.dst != frame::Mac(probe::GROUP) {
        return None;
    }
    frame.get(header.payload..).filter(|body| probe::split(body).is_ok())
}
