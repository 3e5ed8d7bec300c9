//! Is UDP throttled? Some networks let it pass and drop most of it: what comes by a leg is little, and full of gaps.
//!
//! The supernode numbers the packets of a leg, so its losses are known without a question. Losses at a high rate are a
//! full link, which TCP would not help. Only the way down is seen here; the other end's way down is the rest of ours up.

use std::time::Duration;

use crate::datapath::LegTally;
use crate::time::Time;

/// A link with more than this is no throttled one: 2 Mb/s.
const SLOW: u64 = 250_000;
/// One packet of so many lost is loss: TCP that meets its limit loses less.
const LOSS: u64 = 20;
/// Fewer packets say nothing.
const PACKETS_MIN: u64 = 20;
/// Looks in a row, about a second apart, before it is believed.
const LOOKS: u32 = 3;
/// Looks that are closer than this are one.
const LOOK_MIN: Duration = Duration::from_millis(500);

/// What was seen of one leg.
#[derive(Clone, Copy, Debug, Default)]
pub struct Throttle {
    last: Option<(Time, LegTally)>,
    bad: u32,
}

impl Throttle {
    /// Another look. `true` if it is throttled.
    pub fn look(&mut self, now: Time, tally: LegTally) -> bool {
        let Some((at, before)) = self.last else {
            self.last = Some((now, tally));
            return false;
        };
        let span = now.since(at);
        if span < LOOK_MIN {
            return false;
        }
        self.last = Some((now, tally));
        let sent = tally.sent.saturating_sub(before.sent);
        let lost = sent.saturating_sub(tally.received.saturating_sub(before.received));
        let bytes = u128::from(tally.bytes.saturating_sub(before.bytes));
        if sent < PACKETS_MIN {
            return false;
        }
        let is_slow = bytes * 1000 < u128::from(SLOW) * span.as_millis();
        self.bad = if is_slow && lost.saturating_mul(LOSS) >= sent { self.bad + 1 } else { 0 };
        self.bad >= LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `seconds` of so many packets of 1000 bytes, of which so many are lost, look throttled.
    fn throttled(seconds: u64, packets: u64, lost: u64) -> bool {
        let mut throttle = Throttle::default();
        let tally =
            |n: u64| LegTally { sent: n * packets, received: n * (packets - lost), bytes: n * 1000 * (packets - lost) };
        (0..=seconds).any(|n| throttle.look(Time::START + Duration::from_secs(n), tally(n)))
    }

    #[test]
    fn little_with_many_gaps_for_three_seconds_is_throttled() {
        assert!(throttled(3, 100, 30) && throttled(3, 100, 5));
        assert!(!throttled(2, 100, 30), "two looks");
        assert!(!throttled(9, 100, 4), "few gaps");
        assert!(!throttled(9, 1000, 300), "a full link");
        assert!(!throttled(9, 10, 9), "hardly a packet");
    }
}
