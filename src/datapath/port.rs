//! Ports: the hot half of a peer. Keys, the path in use, frames that wait for keys, counters.
//!
//! The cold half (identity, handshake, candidates) is `control/peer`; `PortId` joins them.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::buf::OverlayIndex;
use super::fragment::Reassembly;
use super::limit::{Bucket, FLOOD_BURST, FLOOD_RATE};
use super::path::{Path, Ways};
use super::seal::{Opener, Sealer, SessionKeys, Share};
use super::segment::Work;
use super::shape::Queue;
use super::tree::{BRANCH_BURST, BRANCH_RATE, Site};
use crate::time::Time;
use crate::wire::HEADERS_V6;
use crate::wire::data::{FrameKind, OVERHEAD};
use crate::wire::handshake::Suite;
use crate::wire::relay;
use crate::wire::tree::ShortId;

/// Keys are not used to open longer than this (WireGuard's reject-after-time).
pub(super) const KEY_LIFE: Duration = Duration::from_secs(180);
/// And not to seal: who made them a round trip earlier has to open what is on its way.
const SEAL_LIFE: Duration = Duration::from_secs(170);
/// Frames that wait for one peer's keys: a burst of a TCP handshake and ARP, not a stream.
const PENDING_FRAMES: usize = 64;
/// Their bytes.
const PENDING_BYTES: usize = 128 * 1024;
/// They are not delivered later than this: whoever sent them has sent them again by then.
const PENDING_LIFE: Duration = Duration::from_secs(3);

/// The largest IP packet sent before a path was measured: it passes PPPoE (1492), the clouds' networks
/// (1450, 1460) and most tunnels. Larger ones vanish there without a word, and full frames are cut anyway.
pub const MTU_ASSUMED: u16 = 1400;
/// What TCP is asked to aim at before that: what most paths turn out to carry. Longer frames are cut meanwhile.
pub(super) const MTU_HOPED: u16 = 1500;
/// No path is taken to be narrower: IPv6 demands as much of every link (RFC 8200 section 5).
pub const MTU_FLOOR: u16 = 1280;
/// A longer frame may make a packet above [`MTU_FLOOR`]: less IPv6, UDP, relay header and ours.
const LARGE_FRAME: usize = MTU_FLOOR as usize - HEADERS_V6 - relay::HEADER_LEN - OVERHEAD;
/// A peer that goes on by another path than the one in use is reported this often.
const NOTE_AGAIN: Duration = Duration::from_secs(1);

/// Claims believed per second from one peer: what an honest one tells, three times over...
const CLAIM_RATE: u32 = 3 * FLOOD_RATE;
/// ...and at once.
const CLAIM_BURST: u32 = 3 * FLOOD_BURST;

/// One generation of a session's keys.
pub(super) struct Epoch {
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
    pub(super) local_index: u32,
    pub(super) suite: Suite,
    /// Whether the peer takes streams other than the first.
    streams: bool,
    since: Time,
}

impl Epoch {
    pub(super) fn new(now: Time, keys: &SessionKeys, share: Share) -> Self {
        Self {
            sealer: Sealer::new(keys, share),
            opener: Opener::new(keys),
            local_index: keys.local_index,
            suite: keys.suite,
            streams: keys.streams,
            since: now,
        }
    }

    /// `current`, if it may seal at `now`.
    pub(super) fn usable(current: &mut Option<Box<Self>>, now: Time) -> Option<&mut Self> {
        current.as_deref_mut().filter(|epoch| epoch.can_send(now))
    }

    pub(super) fn can_send(&self, now: Time) -> bool {
        now.since(self.since) < SEAL_LIFE && !self.sealer.is_spent()
    }

    pub(super) fn is_expired(&self, now: Time) -> bool {
        now.since(self.since) >= KEY_LIFE
    }
}

/// Which generation a receiver index belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Generation {
    Current,
    Previous,
    Next,
}

/// What happened on a port, for the control room's judgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// When anything genuine came from the peer, on any path.
    pub heard: Option<Time>,
    /// When anything genuine came on the present path.
    pub answered: Option<Time>,
    /// Since when packets have gone out on the present path with nothing coming back on it.
    pub unanswered_since: Option<Time>,
    /// When the last frame was sent.
    pub sent: Option<Time>,
    /// When the last frame for one machine alone was sent or came: what is for everybody keeps no link awake.
    pub used: Option<Time>,
    /// When the last frame was sent whose packet may exceed [`MTU_FLOOR`].
    pub large: Option<Time>,
    /// Frame bytes sent.
    pub tx_bytes: u64,
    /// Frame bytes received.
    pub rx_bytes: u64,
    /// The longest plain part of a DATA packet sent since this was told last.
    pub longest_sent: usize,
    /// And received.
    pub longest_heard: usize,
    /// Whether there are keys to send with.
    pub has_keys: bool,
}

/// Frame bytes of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Sent.
    pub tx_bytes: u64,
    /// Received.
    pub rx_bytes: u64,
}

/// A frame that waits for keys.
struct Held {
    since: Time,
    frame: Vec<u8>,
    work: Work,
    kind: FrameKind,
}

/// One port towards a peer.
pub(super) struct Port {
    pub(super) overlay: OverlayIndex,
    pub(super) path: Option<Path>,
    /// The largest IP packet on it, once that was measured.
    pub(super) mtu: Option<u16>,
    pub(super) current: Option<Box<Epoch>>,
    pub(super) previous: Option<Box<Epoch>>,
    pub(super) next: Option<Box<Epoch>>,
    /// Of each stream up to the last one used: fragment ids count within a stream.
    reassembly: Vec<Reassembly>,
    pub(super) fragment_id: u16,
    pub(super) activity: Activity,
    /// The control room watches this port; it is told once when frames begin to flow.
    pub(super) watched: bool,
    /// The control room knows that frames flow.
    busy: bool,
    /// Nothing is spent on the link: that the peer is there, a supernode says.
    pub(super) asleep: bool,
    /// It is told once when a frame for one machine alone crosses this port.
    pub(super) tells_use: bool,
    /// What it was told last.
    tallied: Tally,
    /// A path other than the one in use that was reported, and when.
    pub(super) noted: Option<(Path, Time)>,
    /// Where the peer's last direct packet came from, and to which of our addresses.
    spoken: Option<(SocketAddr, IpAddr)>,
    /// The address that packets on the path in use leave from.
    source: Option<IpAddr>,
    /// How others name the peer.
    pub(super) short: ShortId,
    /// Where it is.
    pub(super) site: Site,
    /// Whether the peer knows of machines that move.
    pub(super) follows: bool,
    /// Whether it hands on what is for everybody.
    pub(super) trees: bool,
    /// How many frames are handed on for it.
    pub(super) branches: Bucket,
    /// Until then we serve it ourselves: another member could not reach it.
    pub(super) ours_until: Time,
    /// How many claims of it are believed.
    pub(super) claims: Bucket,
    /// The ways among which static rules choose.
    pub(super) ways: Ways,
    /// Frames that wait for their share of the way out.
    pub(super) shaped: Queue,
    /// How many of its inventories are read, once there are any.
    pub(super) inventories: Option<Bucket>,
    /// Since when frames take the present path.
    path_since: Time,
    pending: VecDeque<Held>,
    pending_bytes: usize,
    /// Since when frames wait, though the first of them may be given up by now.
    pub(super) waiting_since: Option<Time>,
}

impl Port {
    pub(super) fn new(overlay: OverlayIndex, short: ShortId) -> Self {
        Self {
            overlay,
            short,
            site: Site::default(),
            path: None,
            mtu: None,
            current: None,
            previous: None,
            next: None,
            reassembly: Vec::new(),
            fragment_id: 0,
            activity: Activity::default(),
            watched: false,
            busy: false,
            asleep: false,
            tells_use: false,
            tallied: Tally::default(),
            noted: None,
            spoken: None,
            source: None,
            follows: false,
            trees: false,
            branches: Bucket::new(BRANCH_RATE, BRANCH_BURST),
            ours_until: Time::START,
            claims: Bucket::new(CLAIM_RATE, CLAIM_BURST),
            ways: Ways::default(),
            shaped: Queue::default(),
            inventories: None,
            path_since: Time::START,
            pending: VecDeque::new(),
            pending_bytes: 0,
            waiting_since: None,
        }
    }

    /// Whether there are keys to send with at `now`.
    pub(super) fn can_send(&self, now: Time) -> bool {
        self.current.as_deref().is_some_and(|epoch| epoch.can_send(now))
    }

    /// Whether lanes other than the first may send to the peer.
    pub(super) fn is_fast(&self, now: Time) -> bool {
        let takes_streams = |epoch: &Epoch| epoch.streams && epoch.can_send(now);
        self.path.is_some_and(Path::is_direct) && self.current.as_deref().is_some_and(takes_streams)
    }

    /// Whether so many packets were sealed that new keys are needed.
    pub(super) fn is_spent(&self) -> bool {
        self.current.as_deref().is_some_and(|epoch| epoch.sealer.is_spent())
    }

    /// The pieces of a stream's frames.
    pub(super) fn reassembly(&mut self, stream: u8) -> &mut Reassembly {
        let place = usize::from(stream);
        if self.reassembly.len() <= place {
            self.reassembly.resize_with(place + 1, Reassembly::default);
        }
        &mut self.reassembly[place]
    }

    /// The epoch that `index` names.
    pub(super) fn epoch(&mut self, index: u32) -> Option<(Generation, &mut Epoch)> {
        let named = |epoch: &Epoch| epoch.local_index == index;
        if self.current.as_deref().is_some_and(named) {
            self.current.as_deref_mut().map(|epoch| (Generation::Current, epoch))
        } else if self.previous.as_deref().is_some_and(named) {
            self.previous.as_deref_mut().map(|epoch| (Generation::Previous, epoch))
        } else if self.next.as_deref().is_some_and(named) {
            self.next.as_deref_mut().map(|epoch| (Generation::Next, epoch))
        } else {
            None
        }
    }

    /// Makes `epoch` the one that sends; gives back the one that nothing uses any more.
    pub(super) fn promote(&mut self, epoch: Box<Epoch>) -> Option<Box<Epoch>> {
        // Those that were let lapse the peer may still use: they stay until others take their place.
        let current = self.current.replace(epoch)?;
        self.previous.replace(current)
    }

    /// Keeps a frame until there are keys; what waited too long makes room. `false` if there is none.
    pub(super) fn hold(&mut self, now: Time, frame: &[u8], work: Work, kind: FrameKind) -> bool {
        self.waiting_since.get_or_insert(now);
        while self.pending.front().is_some_and(|held| now.since(held.since) >= PENDING_LIFE) {
            self.pending_bytes -= self.pending.pop_front().map_or(0, |old| old.frame.len());
        }
        if self.pending.len() >= PENDING_FRAMES || self.pending_bytes + frame.len() > PENDING_BYTES {
            return false;
        }
        self.pending_bytes += frame.len();
        self.pending.push_back(Held { since: now, frame: frame.to_vec(), work, kind });
        true
    }

    /// The frames that waited and are not too old, oldest first.
    pub(super) fn take_held(&mut self, now: Time) -> impl Iterator<Item = (Vec<u8>, Work, FrameKind)> + use<> {
        (self.pending_bytes, self.waiting_since) = (0, None);
        let held = std::mem::take(&mut self.pending).into_iter();
        held.filter(move |held| now.since(held.since) < PENDING_LIFE).map(|held| (held.frame, held.work, held.kind))
    }

    /// Nobody waits for these frames any more.
    pub(super) fn drop_held(&mut self) {
        (self.pending_bytes, self.waiting_since) = (0, None);
        self.pending.clear();
        self.shaped = Queue::default();
    }

    /// Something genuine came by `path`; says whether the control room should hear of that path.
    pub(super) fn hear(&mut self, now: Time, path: Path) -> bool {
        self.activity.heard = Some(now);
        if self.path == Some(path) {
            self.activity.answered = Some(now);
            self.activity.unanswered_since = None;
            return false;
        }
        let is_known = |(noted, at): (Path, Time)| noted == path && now.since(at) < NOTE_AGAIN;
        if self.noted.is_some_and(is_known) {
            return false;
        }
        self.noted = Some((path, now));
        true
    }

    /// Something genuine came from `from` to our address `to`: what goes back leaves from there, or the peer's NAT
    /// knows it not. Says whether that is news.
    pub(super) fn note_source(&mut self, from: SocketAddr, to: IpAddr) -> bool {
        let is_news = self.spoken.replace((from, to)) != Some((from, to));
        if self.path == Some(Path::Direct(from)) {
            self.source = Some(to);
        }
        is_news
    }

    /// The address that a packet on `path` leaves from, if not the system's choice.
    pub(super) fn source(&self, path: Path) -> Option<IpAddr> {
        if self.path == Some(path) {
            return self.source;
        }
        self.spoken.filter(|(from, _)| path == Path::Direct(*from)).map(|(_, to)| to)
    }

    /// Our addresses are others now.
    pub(super) fn forget_sources(&mut self) {
        (self.spoken, self.source) = (None, None);
    }

    /// A packet went out on `path`; says whether the control room should begin to watch.
    pub(super) fn note_sent(&mut self, now: Time, frame_bytes: usize, path: Path) -> bool {
        self.activity.sent = Some(now);
        if frame_bytes > LARGE_FRAME {
            self.activity.large = Some(now);
        }
        self.activity.tx_bytes += frame_bytes as u64;
        if self.path == Some(path) {
            self.activity.unanswered_since.get_or_insert(now);
        }
        !std::mem::replace(&mut self.watched, true)
    }

    /// A frame for one machine alone crosses this port; says whether the control room is to be told.
    pub(super) fn note_used(&mut self, now: Time) -> bool {
        self.activity.used = Some(now);
        std::mem::take(&mut self.tells_use)
    }

    /// Frames flow; says whether the control room is to be told.
    pub(super) fn note_busy(&mut self) -> bool {
        !std::mem::replace(&mut self.busy, true)
    }

    /// What flowed since the last time, if anything did.
    pub(super) fn tally(&mut self) -> Option<Tally> {
        let now = Tally { tx_bytes: self.activity.tx_bytes, rx_bytes: self.activity.rx_bytes };
        let before = std::mem::replace(&mut self.tallied, now);
        self.busy = now != before;
        let tx_bytes = now.tx_bytes - before.tx_bytes;
        self.busy.then_some(Tally { tx_bytes, rx_bytes: now.rx_bytes - before.rx_bytes })
    }

    /// Adds what happened on another lane, as if it had happened here; says whether the control room should begin to
    /// watch.
    pub(super) fn add(&mut self, more: &Activity) -> bool {
        let on_this_path = |at: &Time| *at >= self.path_since;
        let sum = &mut self.activity;
        sum.heard = sum.heard.max(more.heard);
        sum.answered = sum.answered.max(more.answered.filter(on_this_path));
        let unanswered = [sum.unanswered_since, more.unanswered_since.filter(on_this_path)];
        // What one lane sent may have been answered to another.
        sum.unanswered_since = unanswered.into_iter().flatten().filter(|since| Some(*since) > sum.answered).min();
        sum.sent = sum.sent.max(more.sent);
        sum.used = sum.used.max(more.used);
        sum.large = sum.large.max(more.large);
        sum.tx_bytes += more.tx_bytes;
        sum.rx_bytes += more.rx_bytes;
        sum.longest_sent = sum.longest_sent.max(more.longest_sent);
        sum.longest_heard = sum.longest_heard.max(more.longest_heard);
        more.sent.is_some() && !std::mem::replace(&mut self.watched, true)
    }

    /// Packets go another way from now on; its handshake came to `greeted_at`.
    pub(super) fn use_path(&mut self, now: Time, path: Option<Path>, greeted_at: Option<IpAddr>) {
        self.path_since = now;
        self.source = path.and_then(|path| self.source(path)).or(greeted_at);
        self.path = path;
        self.mtu = None;
        self.noted = None;
        self.activity.unanswered_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_busy_until_a_reading_finds_it_idle_and_tells_each_byte_once() {
        let mut port = Port::new(OverlayIndex(0), ShortId(1));
        assert!(port.note_busy() && !port.note_busy());
        port.activity.tx_bytes = 5;
        assert_eq!(port.tally(), Some(Tally { tx_bytes: 5, rx_bytes: 0 }));
        assert!(!port.note_busy(), "it is looked at again anyway");
        assert_eq!(port.tally(), None);
        assert!(port.note_busy());
        (port.activity.tx_bytes, port.activity.rx_bytes) = (7, 1);
        assert_eq!(port.tally(), Some(Tally { tx_bytes: 2, rx_bytes: 1 }));
    }
}
