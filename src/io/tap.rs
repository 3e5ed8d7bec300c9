//! The TAP: where frames of the host and its VMs come in and go out.
//!
//! [`Tap`] is the seam behind which both backends stand: `plain` moves one finished frame per system call,
//! `offload` superframes and partial checksums. What they have in common is [`Device`].

mod plain;

mod offload;

use std::fs::File;
use std::io::{self, Read};
use std::task::{Context, Poll};

use rustix::io::Errno;
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;

use super::{Severity, sort, watch};
use crate::datapath::buf::{Deliveries, Frames};
use crate::datapath::offload::{TapOffload, Virtio};
use offload::OffloadTap;
pub use offload::Queue;
use plain::PlainTap;

/// Frames per wakeup and TAP before others have their turn. With 64 a flood of packets of 1400 bytes, two or three runs
/// of which leave in one call, was carried a sixth less before its queue overflowed; with 512 no more than with these.
const READ_FRAMES: usize = 256;
/// Ethernet header, two VLAN tags, and 9 bytes more, by which a frame that is too long is known.
const FRAME_EXTRA: usize = 14 + 4 + 4 + 9;

/// Why there is no TAP.
#[derive(Debug, Error)]
pub enum TapError {
    /// No driver.
    #[error(
        "there is no /dev/net/tun: load the driver (`modprobe tun`), or let the container have it (`--device /dev/net/tun`)"
    )]
    NoDriver,
    /// Not allowed to.
    #[error("making the TAP {0} needs CAP_NET_ADMIN: run as root, or give the service that capability")]
    NotAllowed(String),
    /// The name is another program's.
    #[error("the TAP {0} is in use by another program: choose another name with --tap")]
    Busy(String),
    /// The name is that of another interface.
    #[error("the interface {0} exists and is no TAP: choose another name with --tap")]
    NotATap(String),
    /// All else.
    #[error("TAP {0}: {1}")]
    Other(String, #[source] io::Error),
}

/// A TAP that somebody removed.
#[derive(Debug, Error)]
#[error("the TAP {0} is gone: {1}")]
pub struct TapGone(String, #[source] io::Error);

/// What went wrong at a TAP and passed; readable by `longwire status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapCounters {
    /// Reads that failed, and frames whose note from the kernel asks for what was never offered.
    pub read: u64,
    /// Frames the kernel did not take (the TAP is down, or its queue is full).
    pub write: u64,
}

impl TapCounters {
    pub(super) const fn add(self, more: Self) -> Self {
        Self { read: self.read + more.read, write: self.write + more.write }
    }
}

/// A TAP in use.
pub trait Tap: Send {
    /// Its name.
    fn name(&self) -> &str;

    /// Ready if there may be frames to read.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Appends the frames that are there, up to a limit.
    ///
    /// # Errors
    /// If the TAP is no more.
    fn read(&mut self, frames: &mut Frames) -> io::Result<()>;

    /// Writes one frame or superframe, now or with [`Tap::flush`]; `virtio` asks for what
    /// [`Tap::offload`] names and no more.
    ///
    /// # Errors
    /// If the TAP is no more.
    fn write(&mut self, frame: &[u8], virtio: Virtio) -> io::Result<()>;

    /// The end of a batch: nothing is held back longer.
    ///
    /// # Errors
    /// If the TAP is no more.
    fn flush(&mut self) -> io::Result<()>;

    /// What it takes and gives besides whole frames.
    fn offload(&self) -> TapOffload;

    /// What went wrong so far.
    fn counters(&self) -> TapCounters;

    /// What to say where reading or writing failed.
    fn gone(&self, error: io::Error) -> TapGone {
        TapGone(self.name().to_owned(), error)
    }
}

/// Writes a batch to the TAPs, which are in the order of the overlays.
pub fn deliver(taps: &mut [Box<dyn Tap>], batch: &Deliveries) -> Result<(), TapGone> {
    let mut used = 0_u64;
    for (frame, delivery) in batch.iter() {
        if let Some(tap) = taps.get_mut(delivery.overlay.0) {
            tap.write(frame, delivery.virtio).map_err(|error| tap.gone(error))?;
            used |= 1 << delivery.overlay.0;
        }
    }
    for (place, tap) in taps.iter_mut().enumerate() {
        if used & 1 << place != 0 {
            tap.flush().map_err(|error| tap.gone(error))?;
        }
    }
    Ok(())
}

/// Makes the TAP `name` (`%d` in it is filled in by the kernel) with the most of `wanted` that the kernel
/// gives; it goes when this is dropped. `mtu` is the largest payload. Must be called on the loop's runtime.
///
/// With it come its queues for the lanes from 1 to `lanes`, or none if the kernel does not give as many.
pub fn open(name: &str, mtu: usize, wanted: TapOffload, lanes: u8) -> Result<(Box<dyn Tap>, Vec<Queue>), TapError> {
    let mut refusal = None;
    if wanted != TapOffload::None {
        match OffloadTap::open_with(name, wanted, lanes) {
            Ok((tap, queues)) => return Ok((Box::new(tap), queues)),
            Err(error) if offload::is_refusal(&error) => refusal = Some(error),
            Err(error) => return Err(explain(name, error)),
        }
    }
    let tap = PlainTap::open(name, mtu).map_err(|error| explain(name, error))?;
    if let Some(error) = refusal {
        let tap = tap.name();
        warn!(tap, %error, "this kernel has no offloads on TAPs: frames go one by one");
    }
    Ok((Box::new(tap), Vec::new()))
}

/// What `longwire status` calls an offload.
pub const fn word(offload: TapOffload) -> &'static str {
    match offload {
        TapOffload::None => "none",
        TapOffload::Tcp => "tcp",
        TapOffload::TcpAndUdp => "tcp and udp",
    }
}

/// An open TAP under the eyes of the poller: what the backends have in common.
#[derive(Debug)]
struct Device {
    name: String,
    fd: AsyncFd<File>,
    counters: TapCounters,
}

impl Device {
    fn watch(name: String, file: File) -> io::Result<Self> {
        Ok(Self { name, fd: watch(file, Interest::READABLE)?, counters: TapCounters::default() })
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Nobody waits for room in a TAP, so all that its writing side tells is that it is no more.
        match (self.fd.poll_read_ready(cx), self.fd.poll_write_ready(cx)) {
            (Poll::Pending, Poll::Pending) => Poll::Pending,
            (Poll::Ready(_), _) | (_, Poll::Ready(_)) => Poll::Ready(()),
        }
    }

    /// One read; `None` if there is nothing to read, or what there was is lost.
    fn read(&mut self, read: impl FnMut(&File) -> io::Result<usize>) -> io::Result<Option<usize>> {
        match self.fd.try_io(Interest::READABLE, read) {
            Ok(len) => Ok(Some(len)),
            Err(error) => match sort(&error) {
                Severity::NotReady => Ok(None),
                Severity::Fatal => Err(error),
                Severity::Passing => {
                    self.counters.read += 1;
                    Ok(None)
                }
            },
        }
    }

    /// A wakeup without frames: a TAP that was removed is not readable to the poller, only to us.
    fn look(&self) -> io::Result<()> {
        match self.fd.get_ref().read(&mut []) {
            Err(error) if sort(&error) == Severity::Fatal => Err(error),
            Err(_) | Ok(_) => Ok(()),
        }
    }

    /// One write.
    fn write(&mut self, write: impl FnOnce(&File) -> io::Result<usize>) -> io::Result<()> {
        // Not `try_io`: a TAP takes every frame at once or loses it, so there is nothing to wait for.
        match write(self.fd.get_ref()) {
            Ok(_) => Ok(()),
            Err(error) if sort(&error) == Severity::Fatal => Err(error),
            Err(_lost) => {
                self.counters.write += 1;
                Ok(())
            }
        }
    }
}

fn explain(name: &str, error: io::Error) -> TapError {
    let name = name.to_owned();
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT | Errno::NXIO | Errno::NODEV) => TapError::NoDriver,
        Some(Errno::PERM | Errno::ACCESS) => TapError::NotAllowed(name),
        Some(Errno::BUSY) => TapError::Busy(name),
        Some(Errno::INVAL | Errno::EXIST) => TapError::NotATap(name),
        _ => TapError::Other(name, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_sentence() {
        let says = |errno: Errno| explain("lw-lab", errno.into()).to_string();
        assert!(says(Errno::NOENT).contains("modprobe tun"));
        assert!(says(Errno::PERM).contains("CAP_NET_ADMIN"));
        assert!(says(Errno::BUSY).contains("in use by another program"));
        assert!(says(Errno::INVAL).contains("is no TAP"));
        assert!(says(Errno::NOMEM).starts_with("TAP lw-lab: "));
    }
}
