//! Whether a peer's INIT is fresh: nobody who recorded one can play it again.
//!
//! Timestamps rise within a boot of the peer, and from boot to boot. Where they do not, the peer's clock was
//! set back between two starts, or somebody replays; only the peer can answer an INIT of ours, and its answer
//! is fresh whatever its clock says.

use std::time::Duration;

use crate::time::Time;

/// An INIT that is too old makes us begin a handshake at most this often: it may be a replay.
const PROMPT_GAP: Duration = Duration::from_secs(5);

/// What was seen of one peer's handshakes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Freshness {
    boot: u64,
    newest: [u8; 12],
    highest: [u8; 12],
    prompted: Option<Time>,
}

impl Freshness {
    /// Whether nothing as late as this was seen: of this boot, or of any if the boot is not the present one.
    pub(super) fn is_fresh(&self, boot: u64, timestamp: [u8; 12]) -> bool {
        timestamp > if boot == self.boot { self.newest } else { self.highest }
    }

    /// A fresh INIT, or any answer to ours.
    pub(super) fn note(&mut self, boot: u64, timestamp: [u8; 12]) {
        (self.boot, self.newest) = (boot, timestamp);
        self.highest = self.highest.max(timestamp);
    }

    /// A genuine INIT that is not fresh: whether we should begin a handshake ourselves, which tells.
    pub(super) fn prompts(&mut self, now: Time, boot: u64) -> bool {
        let rested = self.prompted.is_none_or(|at| now.since(at) >= PROMPT_GAP);
        if boot == self.boot || !rested {
            return false;
        }
        self.prompted = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::START + Duration::from_secs(seconds)
    }

    #[test]
    fn nothing_is_fresh_twice_and_an_answer_sets_the_clock() {
        let mut seen = Freshness::default();
        seen.note(1, [5; 12]);
        assert!(!seen.is_fresh(1, [5; 12]) && seen.is_fresh(1, [6; 12]));
        assert!(!seen.is_fresh(2, [4; 12]) && seen.is_fresh(2, [6; 12]));
        // Boot 2 has answered, with its clock behind.
        seen.note(2, [3; 12]);
        assert!(seen.is_fresh(2, [4; 12]), "its keys can be renewed");
        assert!(!seen.is_fresh(1, [5; 12]) && !seen.is_fresh(3, [4; 12]), "recorded ones stay old");
    }

    #[test]
    fn replays_prompt_seldom_and_those_of_the_present_boot_never() {
        let mut seen = Freshness::default();
        seen.note(2, [5; 12]);
        assert!(!seen.prompts(at(0), 2));
        assert!(seen.prompts(at(0), 1));
        assert!(!seen.prompts(at(4), 1) && !seen.prompts(at(4), 3));
        assert!(seen.prompts(at(5), 1));
    }
}
