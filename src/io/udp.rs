//! The underlay socket: one UDP port for everything, IPv6 and IPv4 at once.
//!
//! [`send`] takes a batch out, [`receive`] brings one in, both with UDP GSO, GRO and one call for many
//! messages ([`kernel`]). quinn's `quinn-udp` sets the socket up and sends what QUIC itself makes.
//! Addresses inside longwire are canonical (IPv4 never as `::ffff:`); the kernel's form stays here and in
//! [`quic`](super::quic).

mod receive;
mod send;
mod steer;

mod kernel;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use quinn::udp::{Transmit, UdpSockRef, UdpSocketState};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};
use thiserror::Error;

use super::reflect::Questions;
use crate::config::DEFAULT_PORT;
pub use send::Sent;
use send::Singly;

/// Asked of the kernel in both directions: 30 ms of a 1 Gb/s link while the loop is elsewhere.
const SOCKET_BUFFER: usize = 4 << 20;

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

/// The socket, shared by the loop and by QUIC.
#[derive(Debug)]
pub struct Underlay {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    /// Most pieces of a run; 1 if this kernel has no GSO.
    run_pieces: usize,
    singly: Singly,
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
        let bound = match open(address, false) {
            Err(error)
                if address == everywhere(address.port()) && without_v6.contains(&Errno::from_io_error(&error)) =>
            {
                open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()), false)
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
        // More than the administrator's limit if we may; what we get otherwise.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER).is_err() {
            raw.set_recv_buffer_size(SOCKET_BUFFER)?;
        }
        if rustix::net::sockopt::set_socket_send_buffer_size_force(&socket, SOCKET_BUFFER).is_err() {
            raw.set_send_buffer_size(SOCKET_BUFFER)?;
        }
        // Asked once: quinn-udp gives GSO up for good after any EINVAL of QUIC's.
        let run_pieces = state.max_gso_segments();
        let (singly, questions, counters) = (Singly::default(), OnceLock::new(), UdpCounters::default());
        Ok(Self { socket, state, local, run_pieces, singly, questions, counters })
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

    /// Sends what QUIC made; addresses in the kernel's form.
    pub fn send_raw(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.state.try_send(UdpSockRef::from(&self.socket), transmit)
    }

    /// Counts datagrams that the kernel refused.
    pub fn count_refused(&self, error: &io::Error, datagrams: usize) {
        let counter = match Errno::from_io_error(error) {
            Some(Errno::MSGSIZE) => &self.counters.too_big,
            _ => &self.counters.refused,
        };
        counter.fetch_add(datagrams as u64, Ordering::Relaxed);
    }

    /// Most segments of one GSO send of QUIC's; 1 if there is no GSO.
    pub fn max_gso_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Whether the kernel may cut our datagrams into IP fragments.
    pub fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

const fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}

fn open(address: SocketAddr, shares_port: bool) -> io::Result<UdpSocket> {
    let socket =
        RawSocket::new(Domain::for_address(address), Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_port(shares_port)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// `address` with IPv4 never as `::ffff:`.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
