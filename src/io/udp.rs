//! The underlay socket: one UDP port for everything, IPv6 and IPv4 at once.
//!
//! Sends runs of equal datagrams with one call (UDP GSO) and receives whole GRO buffers, both through
//! quinn's `quinn-udp`. Addresses inside longwire are canonical (IPv4 never as `::ffff:`); the kernel's
//! form stays in this file and in [`quic`](super::quic). QUIC's datagrams leave for their queue here,
//! segment by segment: the kernel joins QUIC and ours of one sender in one buffer.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use quinn::udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};
use thiserror::Error;

use super::quic::Inbox;
use super::reflect::Questions;
use super::{Severity, sort};
use crate::config::DEFAULT_PORT;
use crate::datapath::buf::{Datagrams, Origin, Target, Transmits};
use crate::wire::Kind;

/// Asked of the kernel in both directions: 30 ms of a 1 Gb/s link while the loop is elsewhere.
const SOCKET_BUFFER: usize = 4 << 20;
/// The longest GRO buffer there is.
const RECEIVE_ROOM: usize = 65536;
/// Receive buffers per wakeup: 1 MB at most before others have their turn.
const RECEIVE_BUFFERS: usize = 16;
/// The longest GSO run: 65,507 is the limit of a datagram, headers and alignment want room.
const RUN_BYTES: usize = 65_000;

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// There and nowhere else.
    At(SocketAddr),
    /// UDP 7777 on all addresses, or any free port if that is busy.
    Anywhere,
}

/// Why there is no underlay socket.
#[derive(Debug, Error)]
pub enum UdpError {
    /// Somebody else has it.
    #[error("UDP {0} is in use by another program: stop it, or choose another port")]
    Busy(SocketAddr),
    /// Not ours.
    #[error("UDP {0}: this host has no such address")]
    NotHere(SocketAddr),
    /// All else.
    #[error("UDP {0}: {1}")]
    Other(SocketAddr, #[source] io::Error),
}

/// What went wrong at the socket and passed; readable by `longwire status`.
#[derive(Debug, Default)]
pub struct UdpCounters {
    /// Datagrams longer than the way out allows (EMSGSIZE).
    pub too_big: AtomicU64,
    /// Datagrams the kernel refused otherwise (no route, port unreachable, firewall).
    pub refused: AtomicU64,
    /// Datagrams given up because the socket stayed full.
    pub blocked: AtomicU64,
    /// Receive errors that passed.
    pub receive: AtomicU64,
}

/// How far a batch went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// To its end.
    All,
    /// The kernel's buffer is full; the piece with this index is the next.
    UpTo(usize),
}

/// The socket, shared by the loop and by QUIC.
#[derive(Debug)]
pub struct Underlay {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    /// The system's own hop limits, IPv4 and IPv6.
    hops: (u32, u32),
    /// Where OBSERVE goes, on a supernode.
    questions: OnceLock<Questions>,
    /// What went wrong and passed.
    pub counters: UdpCounters,
}

impl AsRawFd for Underlay {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for Underlay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Underlay {
    /// Opens it.
    pub fn bind(listen: Listen) -> Result<Self, UdpError> {
        match listen {
            Listen::At(address) => Self::bind_at(address),
            Listen::Anywhere => match Self::bind_at(everywhere(DEFAULT_PORT)) {
                Err(UdpError::Busy(_)) => Self::bind_at(everywhere(0)),
                bound => bound,
            },
        }
    }

    fn bind_at(address: SocketAddr) -> Result<Self, UdpError> {
        let without_v6 = [Some(Errno::AFNOSUPPORT), Some(Errno::ADDRNOTAVAIL)];
        let bound = match open(address) {
            Err(error)
                if address == everywhere(address.port()) && without_v6.contains(&Errno::from_io_error(&error)) =>
            {
                open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
            }
            bound => bound,
        };
        bound.and_then(Self::with_socket).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::ADDRINUSE) => UdpError::Busy(address),
            Some(Errno::ADDRNOTAVAIL) => UdpError::NotHere(address),
            _ => UdpError::Other(address, error),
        })
    }

    fn with_socket(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let local = socket.local_addr()?;
        let raw = SockRef::from(&socket);
        let v6_hops = if local.is_ipv6() { raw.unicast_hops_v6()? } else { 0 };
        let hops = (raw.ttl_v4()?, v6_hops);
        // More than the administrator's limit if we may; what we get otherwise.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER).is_err() {
            raw.set_recv_buffer_size(SOCKET_BUFFER)?;
        }
        if rustix::net::sockopt::set_socket_send_buffer_size_force(&socket, SOCKET_BUFFER).is_err() {
            raw.set_send_buffer_size(SOCKET_BUFFER)?;
        }
        let questions = OnceLock::new();
        Ok(Self { socket, state, local, hops, questions, counters: UdpCounters::default() })
    }

    /// OBSERVE is put there from now on; before, and if this is never said, it is dropped.
    pub(in crate::io) fn listen_for_questions(&self, questions: Questions) {
        let _once = self.questions.set(questions);
    }

    /// The port it listens on.
    pub const fn port(&self) -> u16 {
        self.local.port()
    }

    /// The address it is bound to, in the kernel's form.
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// Another handle of the same socket, for another runtime to wait on.
    pub fn second_handle(&self) -> io::Result<UdpSocket> {
        self.socket.try_clone()
    }

    /// `address` as this socket wants it: IPv4 as `::ffff:` on an IPv6 socket.
    pub fn kernel_form(&self, address: SocketAddr) -> SocketAddr {
        match (self.local, address) {
            (SocketAddr::V6(_), SocketAddr::V4(v4)) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
            (SocketAddr::V6(_) | SocketAddr::V4(_), other) => other,
        }
    }

    /// Fills `into` with what is there, at most [`RECEIVE_BUFFERS`] buffers. QUIC's datagrams go to `inbox`.
    /// True if there may be more.
    pub fn receive(&self, into: &mut Datagrams, inbox: &Inbox) -> io::Result<bool> {
        for _ in 0..RECEIVE_BUFFERS {
            let mut meta = [RecvMeta::default()];
            let room = &mut into.reserve(RECEIVE_ROOM)[..RECEIVE_ROOM];
            let received = self.state.recv(UdpSockRef::from(&self.socket), &mut [IoSliceMut::new(room)], &mut meta);
            if let Err(error) = received {
                match sort(&error) {
                    Severity::NotReady => return Ok(false),
                    Severity::Fatal => return Err(error),
                    Severity::Passing => {
                        self.counters.receive.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                }
            }
            let [meta] = meta;
            if meta.len == 0 {
                continue;
            }
            let stride = meta.stride.clamp(1, meta.len);
            let mut ours = false;
            for datagram in room[..meta.len].chunks(stride) {
                match Kind::of(datagram[0]) {
                    Some(Kind::Quic) => inbox.push(datagram, &meta),
                    Some(Kind::Observe) => {
                        if let Some(questions) = self.questions.get() {
                            questions.push(datagram, canonical(meta.addr), &meta);
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
                into.commit(meta.len, Origin { from: canonical(meta.addr), stride });
            }
        }
        Ok(true)
    }

    /// Sends the pieces of `batch` from `first` on, each run of equal ones with one call.
    /// What the kernel refuses is counted and lost.
    pub fn send(&self, batch: &Transmits, first: usize) -> Sent {
        self.send_but(batch, first, |_| false)
    }

    /// The same, but for what goes to an address that is `left_out`.
    pub fn send_but(&self, batch: &Transmits, first: usize, left_out: impl Fn(SocketAddr) -> bool) -> Sent {
        let mut next = first;
        while let Some((run, target, size)) = next_run(batch, next, self.state.max_gso_segments()) {
            if left_out(target.to) {
                next += run;
                continue;
            }
            let bytes = batch.span(next..next + run);
            let sent = match target.hops {
                None => self.send_run(bytes, size, target.to),
                Some(hops) => self.send_with_hops(bytes, size, target.to, u32::from(hops)),
            };
            match sent {
                Ok(()) => {}
                Err(error) if sort(&error) == Severity::NotReady => return Sent::UpTo(next),
                // No GSO on this way out: quinn-udp has noticed and says so from now on.
                Err(error) if run > 1 && matches!(Errno::from_io_error(&error), Some(Errno::IO | Errno::INVAL)) => {
                    continue;
                }
                Err(error) => self.count_refused(&error, run),
            }
            next += run;
        }
        Sent::All
    }

    /// One system call. `size` is that of each datagram but the last.
    fn send_run(&self, bytes: &[u8], size: usize, to: SocketAddr) -> io::Result<()> {
        let transmit = Transmit {
            destination: self.kernel_form(to),
            ecn: None,
            contents: bytes,
            segment_size: (bytes.len() > size).then_some(size),
            src_ip: None,
        };
        self.send_raw(&transmit)
    }

    /// Sends what QUIC made, or a run of ours; addresses in the kernel's form.
    pub fn send_raw(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.state.try_send(UdpSockRef::from(&self.socket), transmit)
    }

    /// The hop limit is the socket's, not the datagram's: a datagram that QUIC sends in the same
    /// microsecond from the other thread may die with it, and QUIC repeats it.
    fn send_with_hops(&self, bytes: &[u8], size: usize, to: SocketAddr, hops: u32) -> io::Result<()> {
        let raw = SockRef::from(&self.socket);
        let set =
            |hops_v4, hops_v6| if to.is_ipv4() { raw.set_ttl_v4(hops_v4) } else { raw.set_unicast_hops_v6(hops_v6) };
        set(hops, hops)?;
        let sent = self.send_run(bytes, size, to);
        set(self.hops.0, self.hops.1)?;
        sent
    }

    /// Counts datagrams that the kernel refused.
    pub fn count_refused(&self, error: &io::Error, datagrams: usize) {
        let counter = match Errno::from_io_error(error) {
            Some(Errno::MSGSIZE) => &self.counters.too_big,
            _ => &self.counters.refused,
        };
        counter.fetch_add(datagrams as u64, Ordering::Relaxed);
    }

    /// Most segments of one GSO send; 1 if there is no GSO.
    pub fn max_gso_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Whether the kernel may cut our datagrams into IP fragments.
    pub fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// The run that begins at piece `first`: how many pieces, where to, how long each but the last.
fn next_run(batch: &Transmits, first: usize, most: usize) -> Option<(usize, Target, usize)> {
    let mut pieces = batch.iter().skip(first);
    let (bytes, &target) = pieces.next()?;
    let size = bytes.len();
    let (mut run, mut total) = (1, size);
    for (bytes, other) in pieces {
        let fits = run < most && *other == target && bytes.len() <= size && total + bytes.len() <= RUN_BYTES;
        if !fits || bytes.is_empty() {
            break;
        }
        run += 1;
        total += bytes.len();
        if bytes.len() < size {
            break;
        }
    }
    Some((run, target, size))
}

const fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket =
        RawSocket::new(Domain::for_address(address), Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// `address` with IPv4 never as `::ffff:`.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
