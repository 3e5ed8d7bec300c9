//! The only maker of [`Time`] and [`WallTime`], and the timer that wakes the loop.
//!
//! `CLOCK_BOOTTIME` goes on while the host sleeps, so that a woken laptop knows how long it was away,
//! and no change of the calendar moves it.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::watch;
use crate::time::{Time, WallTime};

/// A difference between calendar and monotonic clock that is worth a line in the log.
const JUMP: Duration = Duration::from_secs(5);

/// The time now.
pub fn now() -> Time {
    let at = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(at.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(at.tv_nsec).unwrap_or(0);
    Time::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// The calendar now; 1970 on a host whose clock is before that.
pub fn wall() -> WallTime {
    WallTime::since_1970(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Wakes the loop at a [`Time`].
#[derive(Debug)]
pub struct Timer {
    fd: AsyncFd<OwnedFd>,
    armed: Time,
}

impl Timer {
    /// A timer that is not armed. Must be called on the loop's runtime.
    pub fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self { fd: watch(fd, Interest::READABLE)?, armed: Time::NEVER })
    }

    /// Wakes at `at` or, if it is armed for that already, somewhat before.
    ///
    /// A deadline that only moved away costs no system call: the early wakeup finds nothing to do.
    pub fn arm(&mut self, at: Time) -> io::Result<()> {
        if at >= self.armed {
            return Ok(());
        }
        // What is over is due now, and not late.
        let at = at.max(now());
        let nanos = at.as_nanos();
        let value = Timespec {
            tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(nanos % 1_000_000_000).unwrap_or(0),
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
        self.armed = at;
        Ok(())
    }

    /// Ready once the timer has fired, with the time it was armed for; it is unarmed then.
    pub fn poll_fired(&mut self, cx: &mut Context<'_>) -> Poll<Time> {
        loop {
            let Poll::Ready(Ok(_)) = self.fd.poll_read_ready(cx) else {
                return Poll::Pending;
            };
            let read = self.fd.try_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut [0; 8])?));
            if read.is_ok() {
                return Poll::Ready(std::mem::replace(&mut self.armed, Time::NEVER));
            }
        }
    }
}

/// Notices when the calendar moves against the monotonic clock: somebody set it, or this is a virtual machine that
/// was restored from a snapshot, whose monotonic clock goes on where it was then.
#[derive(Debug)]
pub struct JumpWatch {
    wall: Duration,
    mono: Time,
}

impl JumpWatch {
    /// Starts watching.
    pub fn new(now: Time, wall: WallTime) -> Self {
        Self { wall: wall.as_duration(), mono: now }
    }

    /// How far the calendar has moved against the monotonic clock since the last call, in seconds,
    /// if that is worth a word.
    pub fn jumped(&mut self, now: Time, wall: WallTime) -> Option<i64> {
        let expected = self.wall + now.since(self.mono);
        self.wall = wall.as_duration();
        self.mono = now;
        let (later, earlier, sign) =
            if self.wall >= expected { (self.wall, expected, 1) } else { (expected, self.wall, -1) };
        let gap = later - earlier;
        (gap >= JUMP).then(|| sign * i64::try_from(gap.as_secs()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on() {
        let before = now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(now().since(before) >= Duration::from_millis(2));
    }

    #[tokio::test]
    async fn the_timer_fires_at_its_time_and_may_fire_early_once() {
        let mut timer = Timer::new().expect("timerfd");
        let start = now();
        timer.arm(start + Duration::from_millis(30)).expect("arm");
        timer.arm(start + Duration::from_secs(30)).expect("later: stays as it is");
        timer.arm(start + Duration::from_millis(10)).expect("earlier");
        std::future::poll_fn(|cx| timer.poll_fired(cx)).await;
        let passed = now().since(start);
        assert!(passed >= Duration::from_millis(10) && passed < Duration::from_secs(5), "{passed:?}");
    }

    #[test]
    fn a_changed_calendar_is_noticed_once() {
        let at = |s| WallTime::since_1970(Duration::from_secs(s));
        let mono = |s| Time::START + Duration::from_secs(s);
        let mut watch = JumpWatch::new(mono(0), at(1_000_000));
        assert_eq!(watch.jumped(mono(10), at(1_000_010)), None);
        assert_eq!(watch.jumped(mono(20), at(1_003_620)), Some(3600));
        assert_eq!(watch.jumped(mono(30), at(1_003_630)), None);
        assert_eq!(watch.jumped(mono(40), at(1_000_040)), Some(-3600));
    }
}
