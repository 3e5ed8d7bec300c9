//! Discovery: members on the same link find each other, with every supernode dead (protocol.md section 8).
//!
//! A node announces itself to its links: at once when it knows its addresses or they change, then ever less
//! often. What it hears gives host candidates and begins a handshake; trust comes from that alone. Sealed
//! under a key of the overlay: strangers see noise. Sends nothing itself: see [`Announce`].

use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::rand_core::RngCore;

use super::effects::Effects;
use super::overlay::Overlay;
use super::timers::Timer;
use super::{Control, sealing};
use crate::datapath::Path;
use crate::datapath::buf::OverlayIndex;
use crate::datapath::stats::DropReason;
use crate::seam::Announce;
use crate::time::Time;
use crate::wire::discovery::{ADDRESSES_MAX, Announcement, head, split};
use crate::wire::session::CandidateKind;
use crate::wire::{DecodeError, NONCE_LEN, Parts};

/// Between the first announcements.
const INTERVAL_FIRST: Duration = Duration::from_secs(10);
/// Between the later ones.
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// The first comes within this time: hosts of a rack start together.
const START_SPREAD: Duration = Duration::from_millis(500);

/// How often we announce ourselves.
#[derive(Clone, Copy, Debug)]
pub struct Discovery {
    is_on: bool,
    interval: Duration,
}

impl Discovery {
    /// Silent if it is off.
    pub const fn new(is_on: bool) -> Self {
        Self { is_on, interval: INTERVAL_FIRST }
    }
}

impl Control {
    /// Addresses are known, or others: those on the links shall hear of it soon.
    pub(super) fn announce_anew(&mut self) {
        if self.discovery.is_on {
            self.discovery.interval = INTERVAL_FIRST;
            let spread = u64::try_from(START_SPREAD.as_nanos()).unwrap_or(u64::MAX);
            let wait = Duration::from_nanos(self.fx.rng.next_u64() % spread);
            self.fx.timers.set(Timer::Announce, self.fx.now + wait);
        }
    }

    /// [`Timer::Announce`].
    pub(super) fn on_announce_timer(&mut self) {
        for overlay in (0..self.overlays.len()).map(OverlayIndex) {
            self.announce(overlay, None);
        }
        let wait = self.fx.jittered(self.discovery.interval);
        self.discovery.interval = (self.discovery.interval * 3 / 2).min(INTERVAL_MAX);
        self.fx.timers.set(Timer::Announce, self.fx.now + wait);
    }

    /// To everybody, who shall answer; or an answer.
    fn announce(&mut self, overlay: OverlayIndex, to: Option<SocketAddr>) {
        let own = self.me.candidates.iter().filter(|candidate| candidate.kind == CandidateKind::Host);
        let addresses: Vec<SocketAddr> = own.map(|candidate| candidate.addr).take(ADDRESSES_MAX).collect();
        if addresses.is_empty() {
            return;
        }
        let (node, timestamp) = (self.me.identity.id(), self.fx.timestamp());
        let announcement = Announcement { node, timestamp, wants_answer: to.is_none(), addresses };
        let packet = seal(&self.overlays[overlay.0], &announcement, &mut self.fx);
        self.fx.announces.push_back(Announce { to, packet });
    }

    /// A DISCOVER was heard on a link. What no key of ours opens is another overlay's business.
    pub fn handle_announcement(&mut self, now: Time, from: SocketAddr, packet: &[u8]) {
        self.fx.now = now;
        if !self.discovery.is_on {
            return;
        }
        for overlay in (0..self.overlays.len()).map(OverlayIndex) {
            match open(&self.overlays[overlay.0], packet) {
                Ok(announcement) => return self.on_announcement(overlay, from, &announcement),
                Err(DecodeError::Forged) => {}
                Err(_) => return self.fx.dropped(DropReason::Malformed),
            }
        }
    }

    /// A member is on a link of ours. Its packet may come by several links, and so twice.
    fn on_announcement(&mut self, overlay: OverlayIndex, from: SocketAddr, told: &Announcement) {
        let Some(port) = self.peer_for(overlay, told.node) else { return };
        let Some(peer) = self.peers.get_mut(&port) else { return };
        if told.timestamp <= peer.announced {
            return;
        }
        peer.announced = told.timestamp;
        let is_host =
            |addr: &SocketAddr| peer.paths.candidates.get(*addr).is_some_and(|state| state.kind == CandidateKind::Host);
        let has_news = !told.addresses.iter().all(is_host);
        for addr in &told.addresses {
            peer.paths.candidates.add(CandidateKind::Host, *addr);
        }
        let is_new = peer.session.is_none() && !peer.is_asleep();
        peer.want_session(&mut self.fx, &self.me);
        let is_there = matches!(peer.paths.current(), Some(Path::Direct(addr)) if told.addresses.contains(&addr));
        if has_news && !is_there {
            peer.punch_anew(&mut self.fx);
        }
        if told.wants_answer && (is_new || has_news) {
            self.announce(overlay, Some(from));
        }
    }
}

fn seal(overlay: &Overlay, announcement: &Announcement, fx: &mut Effects) -> Vec<u8> {
    let mut nonce = [0; NONCE_LEN];
    fx.rng.fill_bytes(&mut nonce);
    let head = head(&nonce);
    let sealed = sealing::seal(overlay.secrets.link_key(), nonce, &head, announcement.bytes());
    [head, sealed].concat()
}

fn open(overlay: &Overlay, packet: &[u8]) -> Result<Announcement, DecodeError> {
    let Parts { head, nonce, sealed } = split(packet)?;
    Announcement::parse(&sealing::open(overlay.secrets.link_key(), nonce, head, sealed)?)
}

#[cfg(test)]
mod tests;
