//! Control links and RELAY packets on TLS over TCP (wire/protocol.md section 11), for networks that let no UDP out.
//!
//! A *stream* is one such connection. It carries what QUIC and the underlay socket carry otherwise: the messages of one
//! link, and the packets of its legs. [`streams`] are the queues that the loop writes packets into, by the names that
//! [`seam::stream`](crate::seam::stream) gives them; [`link`] is a stream as a task; [`dial`] and [`proxy`] open one,
//! [`accept`] takes one in.
//!
//! A tunnel in TCP trades loss for delay: what does not fit is kept and comes late. So little waits here and in the
//! kernel, and the oldest packet makes room for the newest.

mod accept;
mod dial;
mod link;
mod proxy;
mod streams;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::io::Errno;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsStream;
use tracing::{info, warn};

use crate::config::TcpPort;
use crate::io::links::tls::EXPORTER_LABEL;
use crate::io::udp::canonical;
use crate::keys::Fingerprint;
use crate::wire::stream::GREETING;
pub(super) use accept::Acceptor;
pub(super) use dial::Dialler;
pub(super) use link::serve;
pub(super) use proxy::Proxies;
pub(super) use streams::Streams;

/// Bytes that may wait unsent in the kernel: one TLS record, so that what is sealed leaves soon.
const UNSENT_MAX: u32 = 16 * 1024;
/// Sent and not acknowledged for so long, a connection is dead.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);
/// Bytes that rustls keeps for a full socket.
const SEALED_MAX: usize = 32 * 1024;

/// TCP of one daemon.
pub(super) struct Tcp {
    /// Opens streams.
    pub(super) dialler: Dialler,
    /// Where they come in, if they may.
    pub(super) listener: Option<TcpListener>,
}

/// A connection that has shown what it is.
pub(super) struct Established {
    stream: Box<TlsStream<TcpStream>>,
    /// Its queue; it is closed when this is dropped.
    queue: streams::Stream,
    /// The address of the other end of the connection.
    origin: SocketAddr,
    exporter: [u8; 32],
    fingerprint: Option<Fingerprint>,
}

impl Established {
    /// The key that the other end has shown.
    pub(in crate::io) const fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }
}

/// Exchanges greetings on a fresh connection. `None` if the other end speaks something else.
async fn establish(
    mut stream: TlsStream<TcpStream>,
    streams: &Streams,
    origin: SocketAddr,
    shown: impl FnOnce() -> Option<Fingerprint>,
) -> io::Result<Option<Established>> {
    let mut heard = [0; GREETING.len()];
    stream.write_all(GREETING).await?;
    stream.flush().await?;
    stream.read_exact(&mut heard).await?;
    if heard != *GREETING {
        return Ok(None);
    }
    let exported = match &stream {
        TlsStream::Client(stream) => stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, Some(b"")),
        TlsStream::Server(stream) => stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, Some(b"")),
    };
    match &mut stream {
        TlsStream::Client(stream) => stream.get_mut().1.set_buffer_limit(Some(SEALED_MAX)),
        TlsStream::Server(stream) => stream.get_mut().1.set_buffer_limit(Some(SEALED_MAX)),
    }
    let exporter = exported.map_err(io::Error::other)?;
    let origin = canonical(origin);
    let stream = Box::new(stream);
    Ok(Some(Established { stream, queue: streams.open(), origin, exporter, fingerprint: shown() }))
}

/// Sets a connection up: nothing waits in the kernel that need not.
fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    SockRef::from(socket).set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    set_unsent_max(socket)
}

#[allow(unsafe_code, reason = "no safe crate has the option")]
fn set_unsent_max(socket: &TcpStream) -> io::Result<()> {
    let value = UNSENT_MAX;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the kernel reads four bytes of `value`.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            std::ptr::from_ref(&value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A supernode's listener, beside its UDP socket at `at`. One that nobody asked for may be missing: 443 is for root,
/// and may be a web server's.
pub(super) fn listen(at: SocketAddr, port: TcpPort) -> io::Result<Option<TcpListener>> {
    let (port, is_wanted) = match port {
        TcpPort::None => return Ok(None),
        TcpPort::Usual => (super::links::dial::TCP_PORT, false),
        TcpPort::At(port) => (port, true),
    };
    let place = SocketAddr::new(at.ip(), port);
    match std::net::TcpListener::bind(place).and_then(ready) {
        Ok(listener) => {
            info!(listen = %place, "TLS for nodes that have no UDP");
            Ok(Some(listener))
        }
        Err(error) if is_wanted => Err(explain(place, &error)),
        Err(error) => {
            let error = explain(place, &error);
            warn!("{error}; nodes whose network lets no UDP out cannot come here: give `tcp-port`, 0 for none");
            Ok(None)
        }
    }
}

fn ready(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn explain(place: SocketAddr, error: &io::Error) -> io::Error {
    let why = match Errno::from_io_error(error) {
        Some(Errno::ACCESS) => "not allowed (CAP_NET_BIND_SERVICE is missing)".to_owned(),
        Some(Errno::ADDRINUSE) => "in use by another program".to_owned(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("TCP {place}: {why}"))
}

#[cfg(test)]
mod tests;
