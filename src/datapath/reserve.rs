//! Reservation: what an overlay or a peer is guaranteed of the host's way out, and what it may use at most.
//!
//! A frame above a cap does not go. One within a guarantee goes, whatever else there is. All others share what is left of the
//! uplink, where small frames go on a little longer than bulk: they are what somebody waits for. Handshakes, probes and
//! all other control is never held up here. What does not go waits in [`shape`](super::shape).
//!
//! Bytes of frames; sealing adds a twentieth to full ones, which is the user's to leave room for.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::buf::OverlayIndex;
use super::fdb::PortId;
use crate::time::Time;

/// What may go at once after a rest: so much time of the rate, ...
const BURST: Duration = Duration::from_millis(50);
/// ... and no less than a superframe.
const BURST_MIN: i64 = 65_536;
/// Frames up to this length are small.
const SMALL: usize = 256;
/// Bulk leaves one part of so many of the uplink's burst to small frames.
const KEPT_FOR_SMALL: i64 = 8;
/// One byte, in the unit of a level.
const BYTE: i64 = 1_000_000_000;
/// The greatest rate: 80 Gb/s, so that no product overflows.
pub const RATE_MAX: u64 = 10_000_000_000;

/// A guaranteed rate and a cap, in bytes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// It may always send as much.
    pub rate: Option<u64>,
    /// It sends no more.
    pub cap: Option<u64>,
}

/// Everything that is reserved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// What the host sends at most, in bytes per second.
    pub uplink: Option<u64>,
    /// Of overlays.
    pub overlays: BTreeMap<OverlayIndex, Share>,
    /// Of peers.
    pub peers: BTreeMap<PortId, Share>,
}

/// What outer packets of an overlay are marked with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marking {
    /// Nothing.
    #[default]
    None,
    /// What the inner packet is marked with.
    Inherit,
    /// This code point.
    Fixed(u8),
}

/// A bucket that may be overdrawn by the frame that empties it, and by what is guaranteed.
#[derive(Clone, Debug)]
struct Meter {
    rate: i64,
    burst: i64,
    level: i64,
    filled: Time,
}

impl Meter {
    fn new(rate: u64) -> Self {
        let rate = i64::try_from(rate.min(RATE_MAX)).unwrap_or(i64::MAX);
        let of_time = rate / 1000 * i64::try_from(BURST.as_millis()).unwrap_or(0);
        let burst = of_time.max(BURST_MIN) * BYTE;
        Self { rate, burst, level: burst, filled: Time::START }
    }

    /// Whether anything is left above this part of the burst.
    fn has(&mut self, now: Time, kept: i64) -> bool {
        let elapsed = now.since(self.filled).min(Duration::from_millis(500));
        let nanos = i64::try_from(elapsed.as_nanos()).unwrap_or(0);
        self.level = self.level.saturating_add(nanos.saturating_mul(self.rate)).min(self.burst);
        self.filled = self.filled.max(now);
        self.level > kept
    }

    fn if_any(&mut self, now: Time) -> Option<&mut Self> {
        self.has(now, 0).then_some(self)
    }

    fn charge(&mut self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(0).saturating_mul(BYTE);
        self.level = self.level.saturating_sub(bytes).max(-self.burst);
    }
}

#[derive(Clone, Debug)]
struct Class {
    rate: Option<Meter>,
    cap: Option<Meter>,
}

impl Class {
    fn new(share: &Share) -> Self {
        Self { rate: share.rate.map(Meter::new), cap: share.cap.map(Meter::new) }
    }

    fn is_capped(&mut self, now: Time) -> bool {
        self.cap.as_mut().is_some_and(|cap| !cap.has(now, 0))
    }
}

/// The corridor's half: buckets.
#[derive(Clone, Debug)]
pub(super) struct Reserve {
    uplink: Option<Meter>,
    overlays: BTreeMap<OverlayIndex, Class>,
    peers: BTreeMap<PortId, Class>,
}

impl Reserve {
    /// `None` if nothing is reserved.
    pub(super) fn new(shares: &Shares) -> Option<Self> {
        let Shares { uplink, overlays, peers } = shares;
        if *shares == Shares::default() {
            return None;
        }
        Some(Self {
            uplink: uplink.map(Meter::new),
            overlays: overlays.iter().map(|(overlay, share)| (*overlay, Class::new(share))).collect(),
            peers: peers.iter().map(|(peer, share)| (*peer, Class::new(share))).collect(),
        })
    }

    /// Whether a frame of so many bytes may go to this peer now.
    pub(super) fn admits(&mut self, now: Time, (overlay, peer): (OverlayIndex, PortId), bytes: usize) -> bool {
        let mut classes: [Option<&mut Class>; 2] = [self.peers.get_mut(&peer), self.overlays.get_mut(&overlay)];
        if classes.iter_mut().flatten().any(|class| class.is_capped(now)) {
            return false;
        }
        let guaranteed =
            classes.iter_mut().flatten().filter_map(|class| class.rate.as_mut()).find_map(|rate| rate.if_any(now));
        match (guaranteed, &mut self.uplink) {
            (Some(rate), uplink) => {
                rate.charge(bytes);
                uplink.as_mut().into_iter().for_each(|uplink| uplink.charge(bytes));
            }
            (None, Some(uplink)) => {
                let kept = if bytes <= SMALL { 0 } else { uplink.burst / KEPT_FOR_SMALL };
                if !uplink.has(now, kept) {
                    return false;
                }
                uplink.charge(bytes);
            }
            (None, None) => {}
        }
        let caps = classes.into_iter().flatten().filter_map(|class| class.cap.as_mut());
        caps.for_each(|cap| cap.charge(bytes));
        true
    }
}

impl FromStr for Marking {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "inherit" => Ok(Self::Inherit),
            _ => match text.parse() {
                Ok(code @ 0..=63) => Ok(Self::Fixed(code)),
                _ => Err(format!("dscp {text:?}: none, inherit, or a code point from 0 to 63")),
            },
        }
    }
}

impl fmt::Display for Marking {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => out.write_str("none"),
            Self::Inherit => out.write_str("inherit"),
            Self::Fixed(code) => code.fmt(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERLAY: OverlayIndex = OverlayIndex(0);
    const SECOND: u64 = 1_000_000_000;

    fn shares(uplink: Option<u64>, peers: &[(u32, Option<u64>, Option<u64>)]) -> Reserve {
        let peers = peers.iter().map(|(peer, rate, cap)| (PortId(*peer), Share { rate: *rate, cap: *cap })).collect();
        Reserve::new(&Shares { uplink, peers, ..Shares::default() }).expect("something")
    }

    /// Bytes that pass for each peer in the second to the eleventh second, where each offers a frame of so many bytes
    /// every `gap` nanoseconds.
    fn passed(reserve: &mut Reserve, offers: &[(u32, usize)], gap: u64) -> Vec<u64> {
        let mut sums = vec![0; offers.len()];
        for at in (SECOND..12 * SECOND).step_by(usize::try_from(gap).expect("small")) {
            for (sum, (peer, bytes)) in sums.iter_mut().zip(offers) {
                let goes = reserve.admits(Time::from_nanos(at), (OVERLAY, PortId(*peer)), *bytes);
                *sum += if goes && at >= 2 * SECOND { *bytes as u64 } else { 0 };
            }
        }
        sums
    }

    fn near(value: u64, expected: u64) -> bool {
        value.abs_diff(expected) <= expected / 20
    }

    #[test]
    fn nothing_passes_above_a_cap_and_nothing_is_lost_below() {
        for bytes in [1_500, 65_000] {
            let mut reserve = shares(None, &[(1, None, Some(1_000_000))]);
            let sums = passed(&mut reserve, &[(1, bytes), (2, bytes)], 500_000);
            assert!(near(sums[0], 10_000_000), "{bytes}: {}", sums[0]);
            assert_eq!(sums[1], 20_000 * bytes as u64, "nobody capped that one");
        }
        let mut reserve = shares(None, &[(1, None, Some(1_000_000))]);
        assert_eq!(passed(&mut reserve, &[(1, 1_000)], 1_250_000), [8_000_000]);
    }

    #[test]
    fn a_guarantee_holds_against_any_crowd_and_the_rest_is_shared() {
        let mut reserve = shares(Some(4_000_000), &[(1, Some(3_000_000), None)]);
        let sums = passed(&mut reserve, &[(2, 1_500), (3, 1_500), (4, 65_000), (1, 1_500)], 400_000);
        assert!(sums[3] >= 29_000_000, "{sums:?}");
        assert!(near(sums.iter().sum(), 40_000_000), "{sums:?}");
        let mut reserve = shares(Some(4_000_000), &[(1, Some(3_000_000), None)]);
        assert!(near(passed(&mut reserve, &[(2, 1_500)], 200_000)[0], 40_000_000), "what is not used is not kept");
    }

    #[test]
    fn small_frames_pass_where_bulk_is_held_back() {
        let mut reserve = shares(Some(1_000_000), &[]);
        let sums = passed(&mut reserve, &[(1, 1_500), (2, 100)], 1_000_000);
        assert_eq!(sums[1], 1_000_000, "all of them");
        assert!(sums[0] < 9_500_000, "{sums:?}");
    }

    #[test]
    fn the_extremes_do_not_overflow() {
        let mut reserve = shares(Some(u64::MAX), &[(1, Some(0), Some(u64::MAX))]);
        for at in [0, 1, u64::MAX / 2, u64::MAX] {
            reserve.admits(Time::from_nanos(at), (OVERLAY, PortId(1)), usize::MAX);
        }
        assert!(Reserve::new(&Shares::default()).is_none());
    }
}
