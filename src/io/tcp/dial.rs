//! Opening a stream to a supernode: straight, or through a proxy.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, TlsStream};

use super::{Established, Proxies, Streams, establish, prepare};
use crate::config::UnderlaySettings;
use crate::io::egress;
use crate::io::links::dial::{Failure, HANDSHAKE, Target, first_of, resolve};
use crate::io::links::tls::{self, PinCheck};

/// Opens streams.
#[derive(Clone, Debug)]
pub(in crate::io) struct Dialler {
    pub(in crate::io) streams: Streams,
    pub(in crate::io) proxies: Proxies,
    /// How packets leave this host.
    pub(in crate::io) underlay: Arc<UnderlaySettings>,
}

impl Dialler {
    /// A stream to `target`, or a sentence why there is none.
    pub(in crate::io) async fn connect(&self, target: &Target) -> Result<Established, String> {
        let (_, (host, port)) = target.places();
        if port == 0 {
            return Err("it has no TCP port".into());
        }
        let why = match timeout(HANDSHAKE, self.reach(target, host, port)).await {
            Ok(Ok(established)) => return Ok(established),
            Ok(Err(why)) => why,
            Err(_elapsed) => "no answer".into(),
        };
        Err(format!("TCP {port}: {why}"))
    }

    /// Whether it is reached by a proxy.
    pub(in crate::io) fn has_proxy(&self, target: &Target) -> bool {
        let (_, (host, port)) = target.places();
        port != 0 && self.proxies.find(host, port).is_some()
    }

    async fn reach(&self, target: &Target, host: &str, port: u16) -> Result<Established, String> {
        let socket = match self.proxies.find(host, port) {
            Some(proxy) => {
                let mut socket = self.open(&proxy.place()?, None).await?;
                proxy.connect(&mut socket, host, port).await?;
                socket
            }
            None => {
                let known = target.known.map(|known| SocketAddr::new(known.ip(), port));
                self.open(&format!("{host}:{port}"), known).await?
            }
        };
        self.secure(socket, target, host).await
    }

    /// TCP to the first address of `place` that takes it.
    async fn open(&self, place: &str, known: Option<SocketAddr>) -> Result<TcpStream, String> {
        let found = resolve(place, known).await?;
        let nowhere = Failure { why: format!("{place} has no address"), answered: false };
        let underlay = Arc::clone(&self.underlay);
        let attempt = move |to| {
            let underlay = Arc::clone(&underlay);
            async move {
                let failure = |error: io::Error| Failure { why: format!("{to}: {error}"), answered: false };
                open_at(to, &underlay).await.map_err(failure)
            }
        };
        first_of(found, attempt, nowhere).await.map_err(|failure| failure.why)
    }

    /// TLS, and the greeting.
    async fn secure(&self, socket: TcpStream, target: &Target, host: &str) -> Result<Established, String> {
        let origin = socket.peer_addr().map_err(|error| error.to_string())?;
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|error| error.to_string())?;
        let check = Arc::new(PinCheck::new(target.pin));
        let config = tls::tcp_client(Arc::clone(&check)).map_err(|error| format!("TLS: {error}"))?;
        let refusal = |error: io::Error| check.refusal(&target.address).unwrap_or_else(|| sentence(&error));
        let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.map_err(refusal)?;
        match establish(TlsStream::Client(stream), &self.streams, origin, || check.shown()).await {
            Ok(Some(established)) => Ok(established),
            Ok(None) => Err("it speaks another version of the protocol".into()),
            Err(error) => Err(sentence(&error)),
        }
    }
}

async fn open_at(to: SocketAddr, underlay: &UnderlaySettings) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    egress::restrict(&socket, underlay, false).map_err(io::Error::other)?;
    let stream = socket.connect(to).await?;
    prepare(&stream)?;
    Ok(stream)
}

fn sentence(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::PeerIncompatible(_) | rustls::Error::InvalidCertificate(_)) => {
            "refused: what answers there shows no supernode's key: another server, or somebody in between who opens TLS"
                .into()
        }
        Some(error) => format!("TLS: {error}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "it closes the connection".into(),
        None => error.to_string(),
    }
}
