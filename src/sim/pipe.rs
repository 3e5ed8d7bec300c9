//! One direction of a link: delay, jitter, loss, duplication, reordering, rate and queue, MTU.

use std::time::Duration;

use super::chance::Dice;
use crate::time::Time;

/// How much later a reordered packet comes than its turn.
const OVERTAKEN_BY: Duration = Duration::from_millis(8);

/// What a link does to packets. Probabilities are in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Of every packet.
    pub delay: Duration,
    /// Up to this much is added; packets keep their order.
    pub jitter: Duration,
    /// Packets that vanish.
    pub loss: u32,
    /// Packets that come twice.
    pub duplication: u32,
    /// Packets that come late, after others sent later.
    pub reordering: u32,
    /// Bytes per second; unlimited if `None`.
    pub rate: Option<u64>,
    /// Bytes that may wait for the rate; what does not fit vanishes.
    pub queue: u64,
    /// The largest IP packet; larger ones vanish without a word.
    pub mtu: usize,
}

impl Default for Conditions {
    /// A good access link: 5 ms, 1500 bytes, nothing lost.
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(5),
            jitter: Duration::ZERO,
            loss: 0,
            duplication: 0,
            reordering: 0,
            rate: None,
            queue: 256 * 1024,
            mtu: 1500,
        }
    }
}

/// Why a packet vanished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// By chance.
    Chance,
    /// The queue was full.
    Queue,
    /// It was larger than the MTU.
    Mtu,
    /// Its hop limit was used up.
    Hops,
    /// A translator or firewall did not let it in.
    Refused,
    /// It came from inside to the outside address of a translator without a hairpin.
    Hairpin,
    /// Nobody has this address.
    Route,
    /// The sites are cut off from each other.
    Cut,
    /// The host is down, asleep, or has another process now.
    Dead,
}

/// One direction of a link and its state.
#[derive(Debug)]
pub struct Pipe {
    /// What it does.
    pub conditions: Conditions,
    busy_until: Time,
    last_out: Time,
    dice: Dice,
}

/// When a packet comes out, and when its duplicate does.
pub type Passage = (Time, Option<Time>);

impl Pipe {
    /// An idle one.
    pub const fn new(conditions: Conditions, dice: Dice) -> Self {
        Self { conditions, busy_until: Time::START, last_out: Time::START, dice }
    }

    /// An IP packet of `len` bytes enters.
    pub fn pass(&mut self, now: Time, len: usize) -> Result<Passage, Loss> {
        let Conditions { delay, jitter, loss, duplication, reordering, mtu, .. } = self.conditions;
        if len > mtu {
            return Err(Loss::Mtu);
        }
        if self.dice.hits(loss) {
            return Err(Loss::Chance);
        }
        let sent = self.transmit(now, len as u64)?;
        let jitter = if jitter.is_zero() { jitter } else { self.dice.within(jitter) };
        let mut at = (sent + delay + jitter).max(self.last_out);
        if self.dice.hits(reordering) {
            at += OVERTAKEN_BY;
        } else {
            self.last_out = at;
        }
        let again = self.dice.hits(duplication).then(|| at + self.dice.within(OVERTAKEN_BY));
        Ok((at, again))
    }

    /// When the last byte is on the line.
    fn transmit(&mut self, now: Time, len: u64) -> Result<Time, Loss> {
        let Some(rate) = self.conditions.rate else { return Ok(now) };
        let waiting = u128::from(rate) * self.busy_until.since(now).as_nanos() / 1_000_000_000;
        if waiting > u128::from(self.conditions.queue) {
            return Err(Loss::Queue);
        }
        self.busy_until = self.busy_until.max(now) + Duration::from_nanos(len * 1_000_000_000 / rate.max(1));
        Ok(self.busy_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::chance::{Chance, MILLION};

    fn pipe(conditions: Conditions) -> Pipe {
        Pipe::new(conditions, Chance::new(1).stream("pipe", 0))
    }

    fn ms(count: u64) -> Time {
        Time::START + Duration::from_millis(count)
    }

    #[test]
    fn a_good_link_only_delays() {
        assert_eq!(pipe(Conditions::default()).pass(ms(1), 1500), Ok((ms(6), None)));
    }

    #[test]
    fn what_is_over_the_mtu_vanishes() {
        assert_eq!(pipe(Conditions::default()).pass(ms(1), 1501), Err(Loss::Mtu));
    }

    #[test]
    fn a_rate_delays_and_a_full_queue_drops() {
        let mut pipe = pipe(Conditions { rate: Some(1_000_000), queue: 3000, ..Conditions::default() });
        assert_eq!(pipe.pass(ms(0), 1000), Ok((ms(6), None)));
        assert_eq!(pipe.pass(ms(0), 1000), Ok((ms(7), None)));
        let passed = (0..10).filter(|_| pipe.pass(ms(0), 1000).is_ok()).count();
        assert_eq!(passed, 2, "3000 bytes may wait");
        assert!(pipe.pass(ms(5), 1000).is_ok(), "it drains");
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let outs = |conditions| {
            let mut pipe = pipe(conditions);
            (0..500).map(|n| pipe.pass(ms(n), 100).expect("lossless").0).collect::<Vec<_>>()
        };
        let good = Conditions::default();
        assert!(outs(Conditions { jitter: Duration::from_millis(20), ..good }).is_sorted());
        assert!(!outs(Conditions { reordering: 50_000, ..good }).is_sorted());
    }

    #[test]
    fn loss_and_duplication_happen_as_often_as_asked() {
        let mut pipe = pipe(Conditions { loss: 100_000, duplication: MILLION, ..Conditions::default() });
        let passed: Vec<_> = (0..1000).filter_map(|_| pipe.pass(ms(0), 100).ok()).collect();
        assert!((850..950).contains(&passed.len()), "{} passed", passed.len());
        assert!(passed.iter().all(|(_, again)| again.is_some()));
    }
}
