//! What is behind our TAP, told in our directory entry: members whose links to us sleep answer questions by it, and send us
//! frames for groups.
//!
//! Sealed for members, as all of the entry (protocol.md section 7); as much of it as finds room there. Those whose link
//! is awake know more, and sooner, by INVENTORY.

use std::time::Duration;

use super::Control;
use crate::datapath::Command;
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::PortId;
use crate::time::Time;
use crate::wire::inventory::Excerpt;

/// Between two changes that are told: each goes to every member.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What an overlay's directory entry says of our machines.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// Nothing while all links are awake.
    pub(super) excerpt: Option<Excerpt>,
    at: Option<Time>,
}

impl Control {
    /// [`Timer::Inventory`](super::timers::Timer::Inventory)
    pub(super) fn on_inventory_timer(&mut self, overlay: OverlayIndex) {
        self.fx.commands.push_back(Command::Tend { overlay });
        if self.overlays[overlay.0].is_large {
            self.fx.commands.push_back(Command::Excerpt { overlay });
        }
    }

    /// What is behind our TAP now.
    pub(super) fn on_excerpt(&mut self, overlay: OverlayIndex, excerpt: Excerpt) {
        let (now, told) = (self.fx.now, &mut self.overlays[overlay.0].told);
        let is_rested = told.at.is_none_or(|at| now.since(at) >= TELL_EVERY);
        if is_rested && told.excerpt.as_ref() != Some(&excerpt) {
            *told = Told { excerpt: Some(excerpt), at: Some(now) };
            self.update_directory(overlay);
        }
    }

    /// What the directory entry of the peer at `port` says of its machines.
    pub(super) fn on_told(&mut self, port: PortId, excerpt: Excerpt) {
        let Some(peer) = self.peers.get_mut(&port) else { return };
        // The same again would make certain what others have put in doubt since.
        let is_news = peer.excerpt.replace(excerpt.clone()).is_none_or(|before| before != excerpt);
        if is_news && (peer.is_asleep() || peer.session.is_none()) {
            self.fx.commands.push_back(Command::Believe { port, excerpt });
        }
    }
}
