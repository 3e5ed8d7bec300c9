//! What happens to a node, as lines of the log.
//!
//! What strangers can set off is limited in number.

use std::time::Duration;

use tracing::{debug, info, warn};

use crate::datapath::buf::OverlayIndex;
use crate::keys::NodeId;
use crate::node::Event;
use crate::time::Time;

/// Lines about strangers' registrations per [`WINDOW`].
const STRANGERS: u32 = 10;
/// For the limit above.
const WINDOW: Duration = Duration::from_secs(60);

/// Writes events to the log.
#[derive(Debug)]
pub(super) struct EventLog {
    overlays: Vec<String>,
    taps: Vec<String>,
    window: Time,
    strangers: u32,
}

impl EventLog {
    /// For a node with these overlays and their TAPs.
    pub(super) fn new(overlays: Vec<String>, taps: Vec<String>) -> Self {
        Self { overlays, taps, window: Time::START, strangers: 0 }
    }

    fn name(&self, overlay: OverlayIndex) -> &str {
        self.overlays.get(overlay.0).map_or("?", String::as_str)
    }

    /// One line for `event`.
    pub(super) fn log(&mut self, now: Time, event: &Event) {
        match event {
            Event::Registered { overlay, supernode, seen_as: Some(seen_as) } => {
                info!(overlay = self.name(*overlay), supernode, %seen_as, "registered");
            }
            Event::Registered { overlay, supernode, seen_as: None } => {
                info!(overlay = self.name(*overlay), supernode, "registered over TCP: UDP does not pass");
            }
            Event::Refused { overlay, supernode, reason } => {
                warn!(overlay = self.name(*overlay), supernode, reason, "the supernode refuses this overlay");
            }
            Event::Throttled { supernode } => {
                warn!(supernode, "UDP loses much and carries little: TCP is tried");
            }
            Event::SupernodeLost { supernode, reason } => warn!(supernode, reason, "supernode lost"),
            Event::SupernodeLearned { supernode, from } => info!(supernode, from, "heard of another supernode"),
            Event::SupernodeTrusted { supernode, fingerprint } => {
                info!(supernode, %fingerprint, "supernode trusted on first use; its key is remembered");
            }
            Event::PeerUp { overlay, peer, name } => {
                info!(overlay = self.name(*overlay), peer = called(*peer, name.as_deref()), "peer up");
            }
            Event::PathChanged { overlay, peer, name, path, reason } => {
                let peer = called(*peer, name.as_deref());
                info!(overlay = self.name(*overlay), peer, path, reason, "path changed");
            }
            Event::PeerGone { overlay, peer, name, reason } => {
                info!(overlay = self.name(*overlay), peer = called(*peer, name.as_deref()), reason, "peer gone");
            }
            Event::Alone { overlay } => {
                warn!("alone in {}: check the key and the supernode", self.name(*overlay));
            }
            Event::AddressContested { overlay, address, peer, name } => {
                let why = "claimed by a peer, but its machine answers here; claimed back";
                warn!(overlay = self.name(*overlay), %address, peer = called(*peer, name.as_deref()), "{why}");
            }
            Event::SegmentShared { overlay, with, ours } => self.shared(*overlay, with, *ours),
            Event::SegmentAlone { overlay } => {
                info!(overlay = self.name(*overlay), "the network behind the TAP is this member's alone again");
            }
            Event::AddressFrozen { overlay, address, owner, name } => {
                let why = "two machines have this address; it stays where it was for five minutes";
                warn!(overlay = self.name(*overlay), %address, owner = called(*owner, name.as_deref()), "{why}");
            }
            Event::UnderlayLoop { overlay } => {
                let tap = self.taps.get(overlay.0).map_or("?", String::as_str);
                warn!(
                    overlay = self.name(*overlay),
                    tap,
                    "a sealed packet of ours came out of the TAP and was dropped: a peer was sought through the overlay"
                );
            }
            Event::MoveAdvised { overlay, machine, host, partner, target, gain_percent } => {
                let machine = machine.as_deref().unwrap_or("known to its host");
                info!(overlay, machine, host, partner, target, gain_percent, "a machine should move");
            }
            Event::MemberJoined { overlay, member, from } => {
                info!(%overlay, member = short(*member), %from, "member joined here");
            }
            Event::MemberLeft { overlay, member, reason } => {
                info!(%overlay, member = short(*member), reason, "member left");
            }
            Event::LinkEnded { from, reason } => debug!(%from, reason, "a link without a member ended"),
            Event::MemberRefused { from, reason } => self.refused(now, &from.to_string(), reason),
        }
    }

    fn shared(&self, overlay: OverlayIndex, with: &[String], ours: bool) {
        let (overlay, with) = (self.name(overlay), with.join(", "));
        let carries = if ours { "this node" } else { "another one" };
        let what = "the network behind the TAP is another member's too; one carries broadcasts";
        warn!(overlay, with, carries, "{what}");
    }

    fn refused(&mut self, now: Time, from: &str, reason: &str) {
        if now.since(self.window) >= WINDOW {
            (self.window, self.strangers) = (now, 0);
        }
        self.strangers += 1;
        if self.strangers <= STRANGERS {
            warn!(from, reason, "registration refused");
        } else {
            debug!(from, reason, "registration refused");
        }
    }
}

/// A peer's name, or the start of its id.
fn called(peer: NodeId, name: Option<&str>) -> String {
    name.map_or_else(|| short(peer), str::to_owned)
}

fn short(peer: NodeId) -> String {
    peer.to_string().chars().take(8).collect()
}
