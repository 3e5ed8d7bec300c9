//! How eager a lane is, as a NIC moderates its interrupts: by what its TAPs carry.
//!
//! A lane comes before the guests of its host, so that a ping does not wait behind their work. That is right
//! while little is carried. In a bulk transfer such a lane is woken for each superframe: it naps between its
//! turns, and one wakeup carries several. In a flood of small frames it takes the processor from those who
//! send and receive them, and what it carried so eagerly is lost in full sockets: it steps back among them.

use std::num::NonZeroU64;
use std::time::Duration;

use rustix::process::setpriority_process;
use rustix::thread::{NanosleepRelativeResult, Timespec, nanosleep, set_current_timer_slack};
use tracing::debug;

use crate::time::Time;

/// What is measured at once: long enough to be a load and no burst.
const WINDOW: Duration = Duration::from_millis(5);
/// 1 Gb/s in a window.
const BULK_BYTES: usize = 625_000;
/// 40,000 a second in a window; a flood of pings is 28,000.
const FLOOD_FRAMES: usize = 200;
/// Frames of a flood are no superframes.
const SMALL: usize = 2_000;
/// Between turns in a bulk transfer. Where daemons and guests shared two cores, 70 µs carried a tenth less for 8 % more
/// of the machine, none at all cost as much, and 20 µs or less carried less.
const NAP: Duration = Duration::from_micros(35);
/// Nanoseconds; the kernel's usual 50 µs would be most of a nap.
const TIMER_SLACK: NonZeroU64 = NonZeroU64::MIN;
/// The nice value of all who have not asked for another.
const USUAL: i32 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Light,
    Bulk,
    Flood,
}

impl Load {
    const fn of(frames: usize, bytes: usize) -> Self {
        if frames >= FLOOD_FRAMES && bytes < frames * SMALL {
            Self::Flood
        } else if bytes >= BULK_BYTES {
            Self::Bulk
        } else {
            Self::Light
        }
    }
}

/// The eagerness of the calling thread, which carries frames.
#[derive(Debug)]
pub(super) struct Moderation {
    /// What the thread may go back to; `None` if it may not choose.
    priority: Option<i32>,
    load: Load,
    since: Time,
    frames: usize,
    bytes: usize,
}

impl Moderation {
    /// Gives the calling thread its nice value; the background keeps the usual one, as all its threads were or
    /// will be started by one of its own.
    pub(super) fn start(now: Time, nice: i32) -> Self {
        // Naps may be late without it: nothing else is lost.
        let _usual_slack = set_current_timer_slack(Some(TIMER_SLACK));
        // Who may only be nicer must not try, or it stays so after the first flood.
        let may_choose = prefer(nice) && prefer(nice.max(USUAL)) && prefer(nice);
        let priority = may_choose.then_some(nice);
        Self { priority, load: Load::Light, since: now, frames: 0, bytes: 0 }
    }

    /// Notes what came out of a TAP or goes into one.
    pub(super) const fn note(&mut self, frames: usize, bytes: usize) {
        self.frames += frames;
        self.bytes += bytes;
    }

    /// The end of a turn that began at `now`.
    pub(super) fn rest(&mut self, now: Time) {
        let passed = now.since(self.since);
        if passed >= WINDOW {
            // A window that nobody was awake to end is not a window's load.
            let windows = usize::try_from(passed.as_micros() / WINDOW.as_micros()).unwrap_or(usize::MAX);
            self.change(Load::of(self.frames / windows, self.bytes / windows));
            (self.since, self.frames, self.bytes) = (now, 0, 0);
        }
        if self.load == Load::Bulk {
            nap();
        }
    }

    fn change(&mut self, load: Load) {
        let was = std::mem::replace(&mut self.load, load);
        let Some(nice) = self.priority else { return };
        if (was == Load::Flood) != (load == Load::Flood) {
            prefer(if load == Load::Flood { nice.max(USUAL) } else { nice });
        }
    }
}

/// Whether the calling thread has this nice value now. On Linux each thread has one of its own.
fn prefer(nice: i32) -> bool {
    // Nobody named is the thread that calls.
    let done = setpriority_process(None, nice);
    debug!(nice, ?done, "priority of a lane");
    done.is_ok()
}

fn nap() {
    let nap = Timespec { tv_sec: 0, tv_nsec: NAP.subsec_nanos().into() };
    match nanosleep(&nap) {
        // A signal has its own way to the loop.
        NanosleepRelativeResult::Ok | NanosleepRelativeResult::Interrupted(_) | NanosleepRelativeResult::Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_is_bulk_a_flood_is_a_flood_and_a_flood_of_pings_is_neither() {
        let seconds = |frames: usize, bytes: usize| Load::of(frames / 200, bytes / 200);
        assert_eq!(seconds(40_000, 800_000_000), Load::Bulk, "superframes and their acknowledgements");
        assert_eq!(seconds(200_000, 200_000 * 106), Load::Flood, "64 bytes each");
        assert_eq!(seconds(200_000, 200_000 * 1442), Load::Flood, "as many as fill 2 Gb/s, none a superframe");
        assert_eq!(seconds(28_000, 28_000 * 98), Load::Light);
        assert_eq!(seconds(0, 0), Load::Light);
    }

    #[test]
    fn a_burst_after_a_long_silence_is_no_load() {
        let start = Time::START + Duration::from_secs(1);
        let mut moderation = Moderation { priority: None, load: Load::Light, since: start, frames: 0, bytes: 0 };
        moderation.note(1_000, 1_000_000);
        moderation.rest(start + Duration::from_secs(1));
        assert_eq!(moderation.load, Load::Light);
        moderation.note(1_000, 100_000);
        moderation.rest(start + Duration::from_secs(1) + WINDOW);
        assert_eq!(moderation.load, Load::Flood);
    }
}
