//! Taking streams in, at a supernode: strangers get a few seconds, little memory, and no answer but TLS's own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsStream};
use tracing::debug;

use super::{Established, Streams, establish, prepare, serve};
use crate::io::links::dial::HANDSHAKE;
use crate::io::links::reception::{Guest, Reception};
use crate::io::links::tls;
use crate::keys::Identity;

/// After the kernel had no connection to give, as when files are used up.
const REST: Duration = Duration::from_millis(100);

/// Takes streams in.
pub(in crate::io) struct Acceptor {
    tls: TlsAcceptor,
    streams: Streams,
    reception: Reception,
}

impl Acceptor {
    pub(in crate::io) fn new(
        identity: &Identity,
        streams: Streams,
        reception: Reception,
    ) -> Result<Self, rustls::Error> {
        Ok(Self { tls: TlsAcceptor::from(Arc::new(tls::tcp_server(identity)?)), streams, reception })
    }

    /// For ever.
    pub(in crate::io) async fn accept_all(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((socket, from)) => {
                    // Whoever finds no place is closed without a word, and comes again.
                    if let Ok(guest) = self.reception.let_in(from.ip()) {
                        tokio::spawn(accept(self.tls.clone(), self.streams.clone(), (socket, from), guest));
                    }
                }
                Err(error) => {
                    debug!(%error, "no connection taken");
                    sleep(REST).await;
                }
            }
        }
    }
}

async fn accept(tls: TlsAcceptor, streams: Streams, connection: (TcpStream, SocketAddr), guest: Guest) {
    let Guest { handshake, place, report, queue: (outgoing, messages) } = guest;
    let Ok(Some(established)) = timeout(HANDSHAKE, shake_hands(tls, &streams, connection)).await else {
        return;
    };
    drop(handshake);
    serve(established, messages, report, Some(outgoing), "the node").await;
    drop(place);
}

async fn shake_hands(
    tls: TlsAcceptor,
    streams: &Streams,
    (socket, from): (TcpStream, SocketAddr),
) -> Option<Established> {
    prepare(&socket).ok()?;
    let stream = tls.accept(socket).await.ok()?;
    establish(TlsStream::Server(stream), streams, from, || None).await.ok()?
}
