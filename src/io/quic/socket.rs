//! quinn over the shared underlay socket. The only file that knows quinn's socket trait, which changes
//! in quinn 0.12.
//!
//! QUIC sends through the socket itself. What it receives comes from the loop, which reads the socket
//! for everybody, through a bounded queue: full means dropped, and QUIC repeats.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep};

use crate::io::udp::Underlay;
use crate::io::{Severity, sort};

/// Datagrams that may wait for QUIC: 6 MB at most, the first flights of 4,000 nodes.
const INBOX: usize = 4096;

/// Datagrams that QUIC sends with one call. Each connection keeps a buffer of so many: with ten, a quarter of the
/// memory of a supernode's links is for rosters that they will hardly ever send again.
const SEGMENTS_MAX: usize = 2;

/// QUIC waits so long for a full socket: it empties 1 MB meanwhile at 10 Gb/s.
const FULL_SOCKET: Duration = Duration::from_millis(1);

/// One datagram for QUIC.
#[derive(Debug)]
pub(in crate::io) struct Received {
    pub(in crate::io) bytes: Bytes,
    pub(in crate::io) meta: RecvMeta,
}

/// The loop's end of the queue.
#[derive(Debug)]
pub struct Inbox {
    queue: mpsc::Sender<Received>,
    /// Datagrams dropped because the queue was full.
    pub dropped: AtomicU64,
}

impl Inbox {
    /// Hands one datagram to QUIC, or drops it. `meta` is that of the whole receive buffer.
    pub(in crate::io) fn push(&self, datagram: &[u8], meta: &RecvMeta) {
        let meta = RecvMeta { len: datagram.len(), stride: datagram.len(), ..*meta };
        if self.queue.try_send(Received { bytes: Bytes::copy_from_slice(datagram), meta }).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Both ends of the queue.
pub(in crate::io) fn inbox() -> (Inbox, mpsc::Receiver<Received>) {
    let (queue, receiver) = mpsc::channel(INBOX);
    (Inbox { queue, dropped: AtomicU64::new(0) }, receiver)
}

/// What quinn takes for its socket.
pub(super) struct SharedSocket {
    underlay: Arc<Underlay>,
    /// The socket was full when QUIC wrote last.
    full: AtomicBool,
    inbox: Mutex<mpsc::Receiver<Received>>,
}

impl SharedSocket {
    pub(super) fn new(underlay: Arc<Underlay>, inbox: mpsc::Receiver<Received>) -> Self {
        Self { underlay, full: AtomicBool::new(false), inbox: Mutex::new(inbox) }
    }
}

impl fmt::Debug for SharedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedSocket").field(&self.underlay.local()).finish()
    }
}

impl AsyncUdpSocket for SharedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(WritePoller { socket: self, waiting: None })
    }

    /// Answers `WouldBlock` or success only: an error would end the connection, and what the kernel
    /// refuses now it may take later.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.underlay.send_raw(transmit) {
            Err(error) if sort(&error) == Severity::NotReady => {
                self.full.store(true, Ordering::Relaxed);
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(error) => {
                let segments = transmit.segment_size.map_or(1, |size| transmit.contents.len().div_ceil(size.max(1)));
                self.underlay.count_refused(&error, segments);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let mut filled = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let received = loop {
                match inbox.poll_recv(cx) {
                    // Longer than we ever announced: not from a QUIC that means us.
                    Poll::Ready(Some(received)) if received.bytes.len() > buf.len() => {}
                    Poll::Ready(Some(received)) => break received,
                    // No more once the loop has ended, and nothing to complain about.
                    Poll::Ready(None) | Poll::Pending if filled == 0 => return Poll::Pending,
                    Poll::Ready(None) | Poll::Pending => return Poll::Ready(Ok(filled)),
                }
            };
            buf[..received.bytes.len()].copy_from_slice(&received.bytes);
            *meta = received.meta;
            filled += 1;
        }
        Poll::Ready(Ok(filled))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.underlay.local())
    }

    fn max_transmit_segments(&self) -> usize {
        self.underlay.max_gso_segments().min(SEGMENTS_MAX)
    }

    fn may_fragment(&self) -> bool {
        self.underlay.may_fragment()
    }
}

/// Waits for the socket to take more; one for each task that sends.
///
/// With a timer: a poller that watched the socket would wake this runtime for each datagram that the
/// loop sends or receives (measured: 550 wakeups a second of a thread with nothing to do).
struct WritePoller {
    socket: Arc<SharedSocket>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for WritePoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WritePoller").field(&self.socket).finish()
    }
}

impl UdpPoller for WritePoller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_none() && self.socket.full.swap(false, Ordering::Relaxed) {
            self.waiting = Some(Box::pin(sleep(FULL_SOCKET)));
        }
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
        }
        Poll::Ready(Ok(()))
    }
}
