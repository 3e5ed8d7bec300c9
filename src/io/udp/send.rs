//! The way out: the pieces of a batch as runs, and as many runs as there are with one call.
//!
//! A run is what UDP GSO sends as one message: neighbours of one size to one target, the last may be
//! shorter. What the kernel refuses is counted and lost; a full socket ends the batch where it stands.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::time::timeout;

use super::Underlay;
use super::kernel::{self, Outgoing};
use crate::datapath::buf::{Target, Transmits};
use crate::io::{Severity, sort, watch};
use crate::wire::data::DATA;

/// The longest GSO run: 65,507 is the limit of a datagram, headers and alignment want room.
pub(super) const RUN_BYTES: usize = 65_000;
/// Batches sent singly after the kernel refused a run: routes change, and asking again costs one call.
const SINGLE_BATCHES: u32 = 1000;

/// How far a batch went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// To its end.
    All,
    /// The kernel's buffer is full; the piece with this index is the next.
    UpTo(usize),
}

/// Batches that are still to be sent singly because there was a way out without GSO, of IPv4 and of IPv6.
/// An IPsec policy or an odd driver does that; all others of its family pay with it for a while.
#[derive(Debug, Default)]
pub(super) struct Singly([AtomicU32; 2]);

impl Singly {
    fn of(&self, target: &Target) -> &AtomicU32 {
        &self.0[usize::from(target.to.is_ipv6())]
    }

    fn count_batch(&self) {
        for left in &self.0 {
            let now = left.load(Ordering::Relaxed);
            if now > 0 {
                left.store(now - 1, Ordering::Relaxed);
            }
        }
    }
}

/// The kernel's buffer is full.
#[derive(Debug)]
struct Full;

/// What [`Underlay::send_by`] asks of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// All runs from this piece on. The answer is the piece after the last that went.
    Runs(usize),
    /// This piece alone.
    One(usize),
}

/// A socket that stays full for so long loses what was to be sent.
const FULL_SOCKET: Duration = Duration::from_millis(20);

impl Underlay {
    /// Sends a batch, but for what goes to an address that is `left_out`; waits a short while for a full socket, then
    /// gives the rest up.
    pub async fn send_patiently(&self, batch: &Transmits, left_out: impl Fn(SocketAddr) -> bool) {
        let Sent::UpTo(mut next) = self.send_but(batch, 0, &left_out) else { return };
        let rest = async {
            // Watched for writing only now: the poller would wake us for each datagram that has left.
            let Ok(full) = self.second_handle().and_then(|fd| watch(fd, Interest::WRITABLE)) else { return };
            while let Ok(mut writable) = full.writable().await {
                match self.send_but(batch, next, &left_out) {
                    Sent::All => {
                        next = batch.len();
                        return;
                    }
                    Sent::UpTo(place) => next = place,
                }
                writable.clear_ready();
            }
        };
        let _gave_up = timeout(FULL_SOCKET, rest).await;
        let lost = batch.len() - next;
        self.counters.blocked.fetch_add(lost as u64, Ordering::Relaxed);
    }

    /// Sends the pieces of `batch` from `first` on, but for those to an address that is `left_out`.
    pub fn send_but(&self, batch: &Transmits, first: usize, left_out: impl Fn(SocketAddr) -> bool) -> Sent {
        let leaves = |piece: usize| batch.get(piece).is_some_and(|(_, target)| !left_out(target.to));
        let mut next = first;
        while let Some(start) = (next..batch.len()).find(|piece| leaves(*piece)) {
            let end = (start..batch.len()).find(|piece| !leaves(*piece)).unwrap_or(batch.len());
            if let Sent::UpTo(piece) = self.send(batch, start..end) {
                return Sent::UpTo(piece);
            }
            next = end;
        }
        Sent::All
    }

    /// Sends these `pieces` of `batch`. What the kernel refuses is counted and lost.
    pub fn send(&self, batch: &Transmits, pieces: Range<usize>) -> Sent {
        let end = pieces.end;
        self.send_by(batch, pieces, |ask| match ask {
            Ask::Runs(first) => self.send_runs(batch, first..end),
            Ask::One(piece) => {
                let alone = next_run(batch, piece, 1).map(|run| self.outgoing(batch, &run));
                kernel::send(self.socket.as_fd(), alone)
            }
        })
    }

    /// `ask` is the kernel, or a test in its place.
    pub(super) fn send_by(
        &self,
        batch: &Transmits,
        pieces: Range<usize>,
        mut ask: impl FnMut(Ask) -> io::Result<usize>,
    ) -> Sent {
        self.singly.count_batch();
        let mut next = pieces.start;
        while next < pieces.end {
            let end = ask(Ask::Runs(next)).or_else(|error| self.pass_over(batch, next, error, &mut ask));
            match end {
                Ok(end) => next = end,
                Err(Full) => return Sent::UpTo(next),
            }
        }
        Sent::All
    }

    /// Where to go on after the kernel refused the run at piece `first`.
    fn pass_over(
        &self,
        batch: &Transmits,
        first: usize,
        mut error: io::Error,
        mut ask: impl FnMut(Ask) -> io::Result<usize>,
    ) -> Result<usize, Full> {
        let run = self.next_run(batch, first).expect("a piece was refused");
        if run.pieces > 1 && may_mean_no_gso(&error) {
            // Is it the run or its datagrams? One of them alone tells.
            match ask(Ask::One(first)) {
                Ok(_one) => {
                    self.singly.of(&run.target).store(SINGLE_BATCHES, Ordering::Relaxed);
                    return Ok(first + 1);
                }
                Err(of_one) => error = of_one,
            }
        }
        if sort(&error) == Severity::NotReady {
            return Err(Full);
        }
        // A shorter last one may pass where the others were too long: a probe goes with what follows it.
        let last = first + run.pieces - 1;
        let is_shorter = batch.get(last).is_some_and(|(bytes, _)| bytes.len() < run.size);
        let refused = run.pieces - usize::from(is_shorter);
        self.count_refused(&error, refused);
        Ok(first + refused)
    }

    /// One system call.
    fn send_runs(&self, batch: &Transmits, pieces: Range<usize>) -> io::Result<usize> {
        let mut ends = [pieces.start; kernel::SEND_MESSAGES];
        let mut next = pieces.start;
        let runs = ends.iter_mut().map_while(|end| {
            let run = self.next_run(batch, next).filter(|run| run.first < pieces.end)?;
            next += run.pieces;
            *end = next;
            Some(self.outgoing(batch, &run))
        });
        let sent = kernel::send(self.socket.as_fd(), runs)?;
        let last = sent.checked_sub(1).ok_or(io::ErrorKind::WouldBlock)?;
        Ok(ends[last])
    }

    /// The run that begins at piece `first`, as long as its way out allows.
    pub(super) fn next_run(&self, batch: &Transmits, first: usize) -> Option<Run> {
        let (_, target) = batch.get(first)?;
        let singly = self.singly.of(target).load(Ordering::Relaxed) > 0;
        next_run(batch, first, if singly { 1 } else { self.run_pieces })
    }

    fn outgoing<'a>(&self, batch: &'a Transmits, run: &Run) -> Outgoing<'a> {
        let bytes = batch.span(run.first..run.first + run.pieces);
        Outgoing {
            bytes,
            size: run.size,
            to: self.kernel_form(run.target.to),
            hops: run.target.hops,
            from: run.target.from,
            tos: run.target.tos,
        }
    }
}

/// What the kernel answers where it cannot cut a run: EIO for a driver or IPsec, EINVAL for a socket
/// without checksums. Older kernels say EINVAL also where datagrams are longer than the way allows; 6.18
/// says EMSGSIZE.
fn may_mean_no_gso(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::IO | Errno::INVAL))
}

/// Neighbours that leave as one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// The first piece.
    pub(super) first: usize,
    /// How many.
    pub(super) pieces: usize,
    /// Where to.
    pub(super) target: Target,
    /// Bytes of each but the last.
    pub(super) size: usize,
}

/// The run that begins at piece `first`, of at most `most` pieces.
///
/// A router may drop a run as one where its pieces are too long for the next link. So a probe of the path's
/// size, which may vanish, takes nothing with it: kinds do not mix, and frames only may end a run of one.
pub(super) fn next_run(batch: &Transmits, first: usize, most: usize) -> Option<Run> {
    let (bytes, &target) = batch.get(first)?;
    let (size, kind) = (bytes.len(), bytes.first());
    let (mut pieces, mut total, mut end) = (1, size, bytes.as_ptr_range().end);
    while pieces < most
        && let Some((bytes, other)) = batch.get(first + pieces)
    {
        let joins = *other == target && (1..=size).contains(&bytes.len()) && bytes.as_ptr() == end;
        let may_end = bytes.len() == size || pieces > 1 || kind == Some(&DATA);
        if !joins || !may_end || bytes.first() != kind || total + bytes.len() > RUN_BYTES {
            break;
        }
        pieces += 1;
        total += bytes.len();
        end = bytes.as_ptr_range().end;
        if bytes.len() < size {
            break;
        }
    }
    Some(Run { first, pieces, target, size })
}
