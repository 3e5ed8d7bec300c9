//! The replay window of one key: which of the newest counters have been opened.
//!
//! A ring of bits, one for each of the newest [`WINDOW`] counters. Asked before a packet is opened
//! (cheap refusal of repeats), moved after it, so that no forger moves it. A duplicate that came by
//! two paths ends here. Read first: RFC 6479, of which this keeps every bit and not all but one word.

/// Counters that may be late: at 1 M packets/s 8 ms of reordering, more than two paths differ by
/// while traffic changes over, in 1 KiB per key.
pub const WINDOW: u64 = 8192;

const WORD: u64 = u64::BITS as u64;
const WORDS: usize = (WINDOW / WORD) as usize;

/// Why a counter is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It was accepted before.
    Replayed,
    /// It is behind the window.
    TooOld,
}

/// The window; a key begins with an empty one.
#[derive(Clone, Debug)]
pub struct Window {
    newest: Option<u64>,
    /// Bit `counter % WINDOW`; bits of counters not yet reached are zero.
    seen: [u64; WORDS],
}

impl Default for Window {
    fn default() -> Self {
        Self { newest: None, seen: [0; WORDS] }
    }
}

impl Window {
    /// Whether `counter` would be accepted; changes nothing.
    pub fn check(&self, counter: u64) -> Result<(), Refusal> {
        let Some(newest) = self.newest else { return Ok(()) };
        if counter > newest {
            return Ok(());
        }
        if newest - counter >= WINDOW {
            return Err(Refusal::TooOld);
        }
        let (word, bit) = place(counter);
        if self.seen[word] & bit != 0 { Err(Refusal::Replayed) } else { Ok(()) }
    }

    /// Marks `counter`, whose packet has been opened, unless it is refused.
    pub fn accept(&mut self, counter: u64) -> Result<(), Refusal> {
        self.check(counter)?;
        match self.newest {
            Some(newest) if counter > newest => self.advance(newest, counter),
            None => self.newest = Some(counter),
            Some(_) => {}
        }
        let (word, bit) = place(counter);
        self.seen[word] |= bit;
        Ok(())
    }

    /// Moves the window on to `counter`: the bits between belonged to counters now too old.
    fn advance(&mut self, newest: u64, counter: u64) {
        let gap = counter - newest;
        if gap >= WINDOW {
            self.seen = [0; WORDS];
        } else {
            self.clear(newest + 1, gap);
        }
        self.newest = Some(counter);
    }

    /// Clears the bits of `count` counters from `first` on, a word at a time.
    fn clear(&mut self, first: u64, count: u64) {
        let (mut at, mut left) = (first, count);
        while left > 0 {
            let from = at % WORD;
            let span = left.min(WORD - from);
            let mask = (u64::MAX >> (WORD - span)) << from;
            self.seen[place(at).0] &= !mask;
            // Wraps only behind the last counter, when nothing is left.
            at = at.wrapping_add(span);
            left -= span;
        }
    }
}

/// Word and bit of a counter.
fn place(counter: u64) -> (usize, u64) {
    let place = counter % WINDOW;
    ((place / WORD) as usize, 1 << (place % WORD))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_counter_is_accepted_once() {
        let mut window = Window::default();
        for counter in 0..30_000 {
            assert_eq!(window.check(counter), Ok(()));
            assert_eq!(window.accept(counter), Ok(()));
            assert_eq!(window.check(counter), Err(Refusal::Replayed));
            assert_eq!(window.accept(counter), Err(Refusal::Replayed));
        }
    }

    #[test]
    fn reordering_by_8000_loses_nothing() {
        let mut window = Window::default();
        for base in (0..80_000).step_by(8_000) {
            for counter in (base..base + 8_000).rev() {
                assert_eq!(window.accept(counter), Ok(()), "{counter}");
            }
        }
    }

    #[test]
    fn the_window_is_8192_counters_and_not_one_more() {
        let mut window = Window::default();
        assert_eq!(window.accept(100_000), Ok(()));
        assert_eq!(window.accept(100_000 - 8_191), Ok(()));
        assert_eq!(window.accept(100_000 - 8_192), Err(Refusal::TooOld));
    }

    #[test]
    fn a_first_packet_may_have_any_counter() {
        for first in [0, 1, 63, 64, u64::MAX] {
            let mut window = Window::default();
            assert_eq!(window.accept(first), Ok(()));
            assert_eq!(window.accept(first), Err(Refusal::Replayed));
        }
    }

    #[test]
    fn the_last_counters_are_like_any_other() {
        let mut window = Window::default();
        for counter in [u64::MAX - 8_191, u64::MAX - 100, u64::MAX, u64::MAX - 1, u64::MAX - 8_190] {
            assert_eq!(window.accept(counter), Ok(()), "{counter}");
        }
        assert_eq!(window.accept(u64::MAX), Err(Refusal::Replayed));
        assert_eq!(window.accept(u64::MAX - 8_191), Err(Refusal::Replayed));
        assert_eq!(window.accept(u64::MAX - 8_192), Err(Refusal::TooOld));
        assert_eq!(window.accept(0), Err(Refusal::TooOld));
    }

    #[test]
    fn a_jump_over_everything_forgets_everything() {
        let mut window = Window::default();
        for counter in 0..8_192 {
            assert_eq!(window.accept(counter), Ok(()));
        }
        assert_eq!(window.accept(16_384), Ok(()));
        for counter in 8_193..16_384 {
            assert_eq!(window.accept(counter), Ok(()), "{counter}");
        }
        assert_eq!(window.check(8_192), Err(Refusal::TooOld));
    }

    /// What the window promises, in sets.
    #[derive(Default)]
    struct Model {
        seen: BTreeSet<u64>,
    }

    impl Model {
        fn accept(&mut self, counter: u64) -> Result<(), Refusal> {
            if self.seen.last().is_some_and(|newest| newest.saturating_sub(counter) >= WINDOW) {
                return Err(Refusal::TooOld);
            }
            if self.seen.insert(counter) { Ok(()) } else { Err(Refusal::Replayed) }
        }
    }

    proptest! {
        #[test]
        fn the_ring_does_what_a_set_does(
            start in prop_oneof![Just(0), Just(u64::MAX), Just(u64::MAX / 2), any::<u64>()],
            steps in proptest::collection::vec(
                prop_oneof![4 => -200i64..200, 2 => -9_000i64..9_000, 1 => -70_000i64..70_000], 1..400),
        ) {
            let (mut window, mut model, mut at) = (Window::default(), Model::default(), start);
            for step in steps {
                at = at.saturating_add_signed(step);
                let expected = model.accept(at);
                prop_assert_eq!(window.check(at), expected);
                prop_assert_eq!(window.accept(at), expected);
            }
        }
    }
}
