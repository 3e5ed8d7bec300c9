//! The way in: whole GRO buffers, many with one call.
//!
//! The kernel joins datagrams of one sender and one size, QUIC's and ours alike. QUIC's are copied to their
//! queue here, segment by segment, and so are questions to a supernode; the buffer as it is goes to the node if anything in it is for the node.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use quinn::udp::{EcnCodepoint, RecvMeta};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::kernel::{self, RECEIVE_MESSAGES, RECEIVE_ROOM, Received};
use super::{Underlay, canonical};
use crate::datapath::buf::{Datagrams, Origin};
use crate::io::quic::Inbox;
use crate::io::{Severity, sort};
use crate::wire::Kind;

/// A wakeup ends its calls after so many bytes; with the last call they are at most 1.25 MB. Then others
/// have their turn.
const ROUND_BYTES: usize = 256 << 10;
/// A wakeup ends its calls after so many buffers: datagrams that the kernel could not join.
const ROUND_BUFFERS: usize = 64;

impl Underlay {
    /// [`Underlay::receive`] for a loop that `watched` woke: forgets that it is readable if nothing is left.
    pub fn receive_woken(watched: &AsyncFd<Arc<Self>>, into: &mut Datagrams, inbox: &Inbox) -> io::Result<()> {
        into.clear();
        let received = watched.try_io(Interest::READABLE, |underlay| {
            if underlay.receive(into, inbox)? { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        received.or_else(|error| if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error) })
    }

    /// Fills `into` with what is there, about 1 MB at most. QUIC's datagrams go to `inbox`.
    /// True if there may be more.
    pub fn receive(&self, into: &mut Datagrams, inbox: &Inbox) -> io::Result<bool> {
        let (mut buffers, mut bytes) = (0, 0);
        while buffers < ROUND_BUFFERS && bytes < ROUND_BYTES {
            let mut received = [Received::EMPTY; RECEIVE_MESSAGES];
            let room = &mut into.reserve(RECEIVE_MESSAGES * RECEIVE_ROOM)[..RECEIVE_MESSAGES * RECEIVE_ROOM];
            match kernel::receive(self.socket.as_fd(), room, &mut received) {
                Ok(count) => {
                    let received = &received[..count];
                    self.hand_out(received, into, inbox);
                    if count < RECEIVE_MESSAGES {
                        return Ok(false);
                    }
                    buffers += count;
                    bytes += received.iter().map(|buffer| buffer.len).sum::<usize>();
                }
                Err(error) => match sort(&error) {
                    Severity::NotReady => return Ok(false),
                    Severity::Fatal => return Err(error),
                    Severity::Passing => {
                        self.counters.receive.fetch_add(1, Ordering::Relaxed);
                        buffers += 1;
                    }
                },
            }
        }
        Ok(true)
    }

    /// Hands out the buffers that lie in the room behind the last piece of `into`.
    fn hand_out(&self, received: &[Received], into: &mut Datagrams, inbox: &Inbox) {
        for (place, buffer) in received.iter().enumerate() {
            let start = place * RECEIVE_ROOM;
            let bytes = &into.reserve(start + buffer.len)[start..start + buffer.len];
            // Empty datagrams carry nothing, and what is not of the internet cannot be answered.
            let (false, Some(from)) = (bytes.is_empty(), buffer.from.decode()) else {
                continue;
            };
            let stride = buffer.stride();
            let (mut ours, mut meta) = (false, None);
            for datagram in bytes.chunks(stride) {
                match Kind::of(datagram[0]) {
                    Some(Kind::Quic) => inbox.push(datagram, meta.get_or_insert_with(|| quic_meta(buffer, from))),
                    Some(Kind::Observe) => {
                        if let Some(questions) = self.questions.get() {
                            questions.push(
                                datagram,
                                canonical(from),
                                meta.get_or_insert_with(|| quic_meta(buffer, from)),
                            );
                        }
                    }
                    Some(
                        Kind::Init
                        | Kind::Resp
                        | Kind::Data
                        | Kind::Session
                        | Kind::Relay
                        | Kind::Observed
                        | Kind::Opener,
                    )
                    | None => ours = true,
                }
            }
            if ours {
                into.place(
                    start,
                    buffer.len,
                    Origin { from: canonical(from), to: buffer.to().map(|ip| ip.to_canonical()), stride },
                );
            }
        }
        into.close();
    }
}

/// What quinn wants to know of a buffer; addresses in the kernel's form.
pub(super) fn quic_meta(buffer: &Received, from: SocketAddr) -> RecvMeta {
    RecvMeta {
        addr: from,
        len: buffer.len,
        stride: buffer.stride(),
        ecn: EcnCodepoint::from_bits(buffer.class()),
        dst_ip: buffer.to(),
    }
}
