//! The laws of the world: what must hold after every event, whatever the network did.
//!
//! - A frame is delivered at most once per node, never to the node it came from, never changed, never
//!   into another overlay, and never made up. Where two segments were cabled together it may run in circles, but
//!   only if it was sent before that was found out.
//! - No sender seals two different packets under one receiver index and counter.
//! - After `handle_timeout` the next deadline is later than now; an early or repeated call does nothing.
//! - Batches and drains stay within bounds, and no second is busier than a full mesh explains.
//!
//! A violation is kept as a sentence with its time. What must hold at rest is in [`rest`](super::rest).

use std::collections::{BTreeMap, VecDeque};

use super::traffic::{OverlayNo, Sent, decode, digest};
use super::underlay::HostId;
use crate::time::Time;
use crate::wire::{Kind, relay};

/// Violations that are kept; one is enough to fail.
const KEPT: usize = 20;
/// Pieces in one batch, and outputs in one drain: a full read of 256 frames flooded to 1,000 peers in two pieces each.
pub const BATCH_MAX: usize = 256 * 1000 * 2;
/// Counters below the newest one whose packets are still compared.
const COMPARED: usize = 256;

/// The watch over the laws.
#[derive(Debug, Default)]
pub struct Laws {
    violations: Vec<String>,
    sealed: BTreeMap<Stream, Sealed>,
    /// Frames sent before then may run in circles.
    lenient_until: Time,
    /// Who drew a receiver index, from the handshakes that name it; nobody if two did by chance.
    drawn_by: BTreeMap<u32, Option<HostId>>,
}

/// Everything one sender seals under one receiver index; for a relay, per relay id.
type Stream = (HostId, u32, Option<u32>);

#[derive(Debug, Default)]
struct Sealed {
    newest: u64,
    recent: VecDeque<(u64, u64)>,
}

impl Laws {
    /// The violations so far.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Notes a violation.
    pub fn broken(&mut self, now: Time, what: &str) {
        if self.violations.len() < KEPT {
            self.violations.push(format!("{:.6} s: {what}", now.since(Time::START).as_secs_f64()));
        }
    }

    /// Frames sent until then may run in circles.
    pub fn be_lenient(&mut self, until: Time) {
        self.lenient_until = until;
    }

    /// `host` wrote `frame` to its TAP of `overlay`. Answers which frame it is.
    pub fn on_delivered(
        &mut self,
        now: Time,
        (host, overlay): (HostId, OverlayNo),
        frame: &[u8],
        frames: &mut [Sent],
    ) -> Option<usize> {
        let Some(number) = decode(frame).map(|label| label.id.0).filter(|number| *number < frames.len()) else {
            self.broken(now, &format!("{host:?} delivers a frame that nobody sent ({} bytes)", frame.len()));
            return None;
        };
        let sent = &mut frames[number];
        let count = sent.delivered.entry(host).or_default();
        *count += 1;
        let count = *count;
        let may_circle = sent.at < self.lenient_until;
        if count > 1 && !may_circle {
            self.broken(now, &format!("{host:?} delivers frame {number} of {:?} {count} times", sent.host));
        }
        if sent.host == host && !may_circle {
            self.broken(now, &format!("frame {number} comes back to {host:?}"));
        }
        if sent.overlay != overlay {
            self.broken(now, &format!("frame {number} of {:?} comes out in {overlay:?} at {host:?}", sent.overlay));
        }
        if sent.digest != digest(frame) {
            self.broken(now, &format!("frame {number} comes out changed at {host:?}"));
        }
        Some(number)
    }

    /// `host` sends a datagram.
    pub fn on_transmit(&mut self, now: Time, host: HostId, datagram: &[u8]) {
        let relayed = datagram.first().copied().and_then(Kind::of) == Some(Kind::Relay);
        // Towards an end it is somebody else's, passed on.
        let is_passed_on = relayed && datagram.get(1).is_some_and(|flags| flags & 1 == 1);
        let relay = if is_passed_on { number(datagram, 4) } else { None };
        let packet = if relayed { datagram.get(relay::HEADER_LEN..).unwrap_or_default() } else { datagram };
        match packet.first().copied().and_then(Kind::of) {
            Some(Kind::Init | Kind::Resp) if relay.is_none() => return self.on_drawn(host, number(packet, 4)),
            Some(Kind::Data | Kind::Session) => {}
            Some(
                Kind::Init | Kind::Resp | Kind::Relay | Kind::Quic | Kind::Observe | Kind::Observed | Kind::Opener,
            )
            | None => return,
        }
        let (Some(index), Some(high), Some(low)) = (number(packet, 4), number(packet, 8), number(packet, 12)) else {
            return self.broken(now, &format!("{host:?} sends a packet without a header"));
        };
        if self.drawn_by.get(&index) == Some(&None) {
            return;
        }
        let counter = u64::from(high) << 32 | u64::from(low);
        let fresh = self.sealed.entry((host, index, relay)).or_default().take(counter, digest(packet), is_passed_on);
        if !fresh {
            self.broken(now, &format!("{host:?} uses counter {counter} of receiver index {index:#x} twice"));
        }
    }

    /// `host` tells a peer to name `index` to it. Among a million pairs two hosts draw the same one now and then;
    /// a third that has both as peers seals to both under it, with different keys.
    fn on_drawn(&mut self, host: HostId, index: Option<u32>) {
        let Some(index) = index else { return };
        let owner = self.drawn_by.entry(index).or_insert(Some(host));
        if *owner != Some(host) {
            *owner = None;
        }
    }

    /// A batch of `pieces` came out of `host`.
    pub fn on_batch(&mut self, now: Time, host: HostId, pieces: usize) {
        if pieces == 0 {
            self.broken(now, &format!("{host:?} hands out an empty batch"));
        }
        if pieces > BATCH_MAX {
            self.broken(now, &format!("{host:?} hands out a batch of {pieces}"));
        }
    }
}

impl Sealed {
    /// Whether `counter` is new, or carries the very bytes it carried before. A relay may pass on
    /// packets that the network reordered, so that those too old to compare are let go.
    fn take(&mut self, counter: u64, digest: u64, is_passed_on: bool) -> bool {
        let first = self.recent.is_empty();
        if let Some((_, before)) = self.recent.iter().find(|(known, _)| *known == counter) {
            return *before == digest;
        }
        let fresh = first || counter > self.newest || is_passed_on;
        self.newest = self.newest.max(counter);
        self.recent.push_back((counter, digest));
        if self.recent.len() > COMPARED {
            self.recent.pop_front();
        }
        fresh
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_be_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(index: u32, counter: u64, byte: u8) -> Vec<u8> {
        [&[4, 0, 0, 0], &index.to_be_bytes()[..], &counter.to_be_bytes()[..], &[byte; 20][..]].concat()
    }

    fn relayed(packet: &[u8]) -> Vec<u8> {
        [&[8], &[0; relay::HEADER_LEN - 1][..], packet].concat()
    }

    fn broken(packets: &[Vec<u8>]) -> usize {
        let mut laws = Laws::default();
        packets.iter().for_each(|packet| laws.on_transmit(Time::START, HostId(0), packet));
        laws.violations().len()
    }

    #[test]
    fn a_counter_is_used_once_per_receiver_index() {
        assert_eq!(broken(&[data(1, 0, 7), data(1, 1, 7), data(2, 0, 9)]), 0);
        assert_eq!(broken(&[data(1, 0, 7), data(1, 0, 8)]), 1);
        assert_eq!(broken(&[data(1, 5, 7), data(1, 4, 8)]), 1, "it never goes back");
    }

    #[test]
    fn an_index_that_two_hosts_drew_tells_nothing() {
        let mut laws = Laws::default();
        for host in [1, 2] {
            laws.on_transmit(Time::START, HostId(host), &[&[1, 1, 1, 0], &7_u32.to_be_bytes()[..]].concat());
        }
        for byte in [7, 8] {
            laws.on_transmit(Time::START, HostId(0), &data(7, 0, byte));
        }
        assert!(laws.violations().is_empty());
    }

    #[test]
    fn the_same_packet_may_go_two_ways() {
        assert_eq!(broken(&[data(1, 0, 7), relayed(&data(1, 0, 7))]), 0);
        assert_eq!(broken(&[data(1, 0, 7), relayed(&data(1, 0, 8))]), 1);
    }
}
