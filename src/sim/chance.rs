//! Chance: one seed, and a stream of its own for every purpose, so that a new use of chance in one
//! place does not change what happens in another.

use std::hash::Hasher;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use siphasher::sip::SipHasher13;

/// One in a million: the unit of probabilities.
pub const MILLION: u32 = 1_000_000;

/// The seed of a world.
#[derive(Clone, Debug)]
pub struct Chance {
    seed: [u8; 32],
}

impl Chance {
    /// From the number that names a world.
    pub fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        Self { seed: bytes }
    }

    /// The stream for `purpose`, the `number`th of its kind.
    pub fn stream(&self, purpose: &str, number: usize) -> Dice {
        let mut hasher = SipHasher13::new();
        hasher.write(purpose.as_bytes());
        hasher.write_u8(0xff);
        hasher.write_u64(number as u64);
        let mut rng = ChaCha20Rng::from_seed(self.seed);
        rng.set_stream(hasher.finish());
        Dice(rng)
    }
}

/// One stream of chance.
#[derive(Clone, Debug)]
pub struct Dice(ChaCha20Rng);

impl Dice {
    /// Any of 0 to `end` - 1; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0.next_u64().checked_rem(end).unwrap_or(0)
    }

    /// Any of 0 to `end` - 1; 0 if `end` is 0.
    pub fn below_usize(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap_or(0)
    }

    /// True with a probability of `millionths`.
    pub fn hits(&mut self, millionths: u32) -> bool {
        millionths > 0 && self.below(u64::from(MILLION)) < u64::from(millionths)
    }

    /// From zero to `span`.
    pub fn within(&mut self, span: Duration) -> Duration {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX - 1);
        Duration::from_nanos(self.below(nanos + 1))
    }

    /// 32 random bytes.
    pub fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_each_time_and_differs_from_every_other() {
        let chance = Chance::new(1);
        let draw = |chance: &Chance, purpose: &str, number| chance.stream(purpose, number).bytes();
        assert_eq!(draw(&chance, "loss", 0), draw(&Chance::new(1), "loss", 0));
        assert_ne!(draw(&chance, "loss", 0), draw(&chance, "loss", 1));
        assert_ne!(draw(&chance, "loss", 0), draw(&chance, "delay", 0));
        assert_ne!(draw(&chance, "loss", 0), draw(&Chance::new(2), "loss", 0));
    }

    #[test]
    fn probabilities_hold() {
        let mut dice = Chance::new(3).stream("test", 0);
        let hits = (0..10_000).filter(|_| dice.hits(50_000)).count();
        assert!((400..600).contains(&hits), "{hits} of 10,000 at 5 %");
        assert!((0..1000).all(|_| !dice.hits(0)));
        assert!((0..1000).all(|_| dice.within(Duration::from_nanos(3)) <= Duration::from_nanos(3)));
    }
}
