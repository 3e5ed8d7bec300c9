//! Kernel, clock, tokio, files: everything that the node itself never touches.
//!
//! Two threads, or more with [`lanes`]. The *loop* ([`driver`]) waits for the TAPs, the underlay socket, a timer and control
//! inputs, feeds them to the [`Node`](crate::node::Node) and does what it says; nothing on it blocks.
//! The *background* runtime does what may be slow: control links ([`links`]) on QUIC and TCP, DNS, the status socket
//! ([`status`]), netlink ([`netlink`], [`addresses`]), the router's port
//! ([`mapping`]), neighbours on the link ([`discovery`]) and files ([`state`]). Bounded channels join them.
//!
//! `unsafe` stands only here, each block with its reason.

pub mod daemon;
pub mod driver;
pub mod lanes;
mod moderation;

pub mod tap;

pub mod udp;

pub mod egress;

pub mod clock;

pub mod links;

pub mod quic;

mod tcp;

pub mod netcheck;
pub mod reflect;

pub mod addresses;
pub mod interfaces;
pub mod netlink;
pub mod routes;

pub mod discovery;
pub mod mapping;

mod pressure;
pub mod state;
pub mod status;

mod doors;
mod events;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::control::report::{Request, Response};
use crate::datapath::buf::Datagrams;
use crate::node::NetworkRoute;
use links::LinkInput;

/// Inputs that may wait for the loop. A full channel slows the background down, never the loop.
pub const INPUT_QUEUE: usize = 1024;

/// What the background tells the loop.
#[derive(Debug)]
pub enum Input {
    /// Something happened to a control link.
    Link(LinkInput),
    /// Packets that came on a stream.
    Datagrams(Datagrams),
    /// The host's own addresses have changed.
    Addresses(Vec<IpAddr>),
    /// Other routes lead into overlays than before.
    Routes(Vec<NetworkRoute>),
    /// The router lets others in at another address than before, or at none.
    Mapped(Option<SocketAddr>),
    /// How much of the time tasks wait for a processor, in percent, if the kernel tells.
    Pressure(Option<u8>),
    /// A DISCOVER from this address of a link.
    Announcement(SocketAddr, Vec<u8>),
    /// Somebody asks; the answer goes into the channel.
    Request(Request, oneshot::Sender<Response>),
}

/// What an I/O error on a device or socket in use means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Nothing to do just now.
    NotReady,
    /// This frame or datagram is lost; the next may pass. Counted.
    Passing,
    /// The device or socket is no more. Ends the loop.
    Fatal,
}

/// Sorts an error of a read or write. The only place that does.
pub fn sort(error: &io::Error) -> Severity {
    match Errno::from_io_error(error) {
        Some(Errno::AGAIN | Errno::INTR) => Severity::NotReady,
        Some(Errno::BADF | Errno::BADFD | Errno::NOTSOCK | Errno::NODEV | Errno::NXIO | Errno::FAULT) => {
            Severity::Fatal
        }
        Some(_) => Severity::Passing,
        None if error.kind() == io::ErrorKind::WouldBlock => Severity::NotReady,
        None => Severity::Passing,
    }
}

/// Puts a device or socket under the eyes of the present runtime's poller.
#[allow(unsafe_code, reason = "tokio's safe constructor is deprecated without a successor")]
fn watch<T: AsFd + AsRawFd>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: `T` is `AsFd`, so its descriptor stays open as long as it lives; each type handed in here
    // (`OwnedFd`, `File`, `UdpSocket`, `Arc<Underlay>`) answers with the same one always.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_network_does_is_never_fatal() {
        for errno in [
            Errno::CONNREFUSED,
            Errno::MSGSIZE,
            Errno::NETUNREACH,
            Errno::HOSTUNREACH,
            Errno::NETDOWN,
            Errno::PERM,
            Errno::NOBUFS,
            Errno::NOMEM,
            Errno::INVAL,
            Errno::IO,
        ] {
            assert_eq!(sort(&errno.into()), Severity::Passing, "{errno}");
        }
    }

    #[test]
    fn a_device_that_is_gone_is_fatal_and_an_empty_one_is_not() {
        assert_eq!(sort(&Errno::BADFD.into()), Severity::Fatal);
        assert_eq!(sort(&Errno::AGAIN.into()), Severity::NotReady);
        assert_eq!(sort(&io::ErrorKind::WouldBlock.into()), Severity::NotReady);
    }
}
