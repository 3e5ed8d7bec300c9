//! How many probes may be lost before the path in use is dead: more on one that loses many and still carries.
//!
//! In a network that is offered more than it can carry every other probe is lost with the frames. A path that was dead
//! after three of them would be left for a worse one all the time.

use super::LOSS_ALL;

/// Lost in a row by one that loses none else: a second and a quarter with the silence before.
const PROBES: u32 = 3;
/// The same while nothing is sent: nobody waits for it, and one in two may be lost before that is known.
const PROBES_IDLE: u32 = 8;
/// However much it loses: three and a half seconds.
const PROBES_MAX: u32 = 12;
/// What happens so many times in [`LOSS_ALL`] does not happen by chance.
const CHANCE: u32 = 1;
/// One answer counts as much in the average.
const WEIGHT: u32 = 4;

/// What is known of the paths that were in use.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Steadiness {
    /// Of [`LOSS_ALL`] probes.
    loss: u32,
}

impl Steadiness {
    /// An answer came, after so many were lost.
    pub(super) fn on_answer(&mut self, lost: usize) {
        let lost = u32::try_from(lost).unwrap_or(PROBES_MAX).min(PROBES_MAX);
        self.loss = (self.loss * (WEIGHT - 1) + LOSS_ALL * lost / (lost + 1)) / WEIGHT;
    }

    /// So many unanswered ones in a row are not by chance.
    pub(super) fn probes(self, is_in_use: bool) -> u32 {
        let (mut count, mut chance) = (0, LOSS_ALL);
        while chance > CHANCE && count < PROBES_MAX {
            chance = chance * self.loss / LOSS_ALL;
            count += 1;
        }
        count.max(if is_in_use { PROBES } else { PROBES_IDLE })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_loses_half_and_carries_may_lose_ten_in_a_row_and_one_that_loses_none_three() {
        let mut steadiness = Steadiness::default();
        assert_eq!((steadiness.probes(true), steadiness.probes(false)), (3, 8));
        (0..20).for_each(|_| steadiness.on_answer(1));
        assert!((9..=11).contains(&steadiness.probes(true)), "{steadiness:?}");
        (0..20).for_each(|_| steadiness.on_answer(0));
        assert_eq!(steadiness.probes(true), 3);
    }

    #[test]
    fn whatever_is_lost_a_dead_path_is_dead_in_the_end() {
        let mut steadiness = Steadiness::default();
        (0..100).for_each(|_| steadiness.on_answer(usize::MAX));
        assert_eq!(steadiness.probes(true), PROBES_MAX);
    }
}
