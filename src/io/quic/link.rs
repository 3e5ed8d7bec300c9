//! One control link as a task: dialled or accepted, then messages both ways until one end closes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, Endpoint, Incoming, ReadExactError, RecvStream, SendStream, VarInt};
use tokio::time::timeout;

use super::{KEEPALIVE, transport};
use crate::io::links::Report;
use crate::io::links::dial::{Failure, HANDSHAKE, Target, first_of, resolve};
use crate::io::links::limits::{Messages, Outgoing};
use crate::io::links::reception::{Full, Guest, Reception};
use crate::io::links::tls::{self, EXPORTER_LABEL, PinCheck};
use crate::io::udp::canonical;
use crate::keys::Fingerprint;
use crate::node::LinkEvent;
use crate::wire::message::MESSAGE_MAX;

/// For the last messages to arrive before the connection is closed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A connection with its stream.
pub(in crate::io) struct Established {
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    exporter: [u8; 32],
    fingerprint: Option<Fingerprint>,
}

impl Established {
    /// The key that the other end has shown.
    pub(in crate::io) const fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }
}

/// Connects to the first address of the target's name that answers.
pub(in crate::io) async fn connect(endpoint: &Endpoint, target: &Target) -> Result<Established, Failure> {
    let (name, _) = target.places();
    let found = resolve(name, target.known).await.map_err(silent)?;
    connect_to_any(endpoint, target, found).await
}

/// The same where its name is resolved already.
pub(in crate::io) async fn connect_to_any(
    endpoint: &Endpoint,
    target: &Target,
    mut found: Vec<SocketAddr>,
) -> Result<Established, Failure> {
    let (name, _) = target.places();
    let v4_only = endpoint.local_addr().is_ok_and(|local| local.is_ipv4());
    found.retain(|to| to.is_ipv4() || !v4_only);
    let (endpoint, address, pin) = (endpoint.clone(), target.address.clone(), target.pin);
    let attempt = move |to| {
        let (endpoint, address) = (endpoint.clone(), address.clone());
        async move { connect_to(&endpoint, to, &address, pin).await }
    };
    first_of(found, attempt, silent(format!("{name} has no address that can be reached from here"))).await
}

const fn silent(why: String) -> Failure {
    Failure { why, answered: false }
}

async fn connect_to(
    endpoint: &Endpoint,
    to: SocketAddr,
    name: &str,
    pin: Option<Fingerprint>,
) -> Result<Established, Failure> {
    let check = Arc::new(PinCheck::new(pin));
    let config = client_config(&check).map_err(|error| silent(format!("TLS: {error}")))?;
    let undialled = |error| silent(format!("{name} cannot be dialled: {error}"));
    let connecting = endpoint.connect_with(config, to, "longwire").map_err(undialled)?;
    let connection = match timeout(HANDSHAKE, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            let answered = !matches!(error, ConnectionError::TimedOut);
            return Err(Failure { why: check.refusal(name).unwrap_or_else(|| sentence(&error, name)), answered });
        }
        Err(_elapsed) => return Err(silent(format!("{name} ({to}) does not answer"))),
    };
    let answered = |why| Failure { why, answered: true };
    let (send, receive) = connection.open_bi().await.map_err(|error| answered(sentence(&error, name)))?;
    let exporter = exporter(&connection).map_err(answered)?;
    Ok(Established { exporter, connection, send, receive, fingerprint: check.shown() })
}

/// QUIC of the side that dials.
pub(super) fn client_config(check: &Arc<PinCheck>) -> Result<quinn::ClientConfig, rustls::Error> {
    let mut config = quinn::ClientConfig::new(Arc::new(tls::quic_client(Arc::clone(check))?));
    config.transport_config(Arc::new(transport(Some(KEEPALIVE))));
    Ok(config)
}

fn exporter(connection: &Connection) -> Result<[u8; 32], String> {
    let mut value = [0; 32];
    connection
        .export_keying_material(&mut value, EXPORTER_LABEL, b"")
        .map_err(|_| "TLS gives no exporter value".to_owned())?;
    Ok(value)
}

/// Accepts links until the endpoint closes. Every address proves itself by a Retry first.
pub(in crate::io) async fn accept_all(endpoint: Endpoint, reception: Reception) {
    while let Some(incoming) = endpoint.accept().await {
        if !incoming.remote_address_validated() {
            // Fails only if it was validated.
            let _sent = incoming.retry();
            continue;
        }
        match reception.let_in(incoming.remote_address().ip()) {
            Ok(guest) => drop(tokio::spawn(accept(incoming, guest))),
            Err(Full::Now) => incoming.ignore(),
            Err(Full::ForIt) => incoming.refuse(),
        }
    }
}

async fn accept(incoming: Incoming, guest: Guest) {
    // In a box: what a handshake takes is free again while the link stands.
    let Ok(Some(established)) = Box::pin(timeout(HANDSHAKE, shake_hands(incoming))).await else {
        return;
    };
    let Guest { handshake, place, report, queue: (outgoing, messages) } = guest;
    drop(handshake);
    serve(established, messages, report, Some(outgoing), "the node").await;
    drop(place);
}

async fn shake_hands(incoming: Incoming) -> Option<Established> {
    let connection = incoming.await.ok()?;
    let (send, receive) = connection.accept_bi().await.ok()?;
    let exporter = exporter(&connection).ok()?;
    Some(Established { exporter, connection, send, receive, fingerprint: None })
}

/// Tells that the link stands, carries messages both ways, tells its end.
pub(in crate::io) async fn serve(
    established: Established,
    messages: Messages,
    report: Report,
    outgoing: Option<Outgoing>,
    name: &str,
) {
    let Established { connection, send, receive, exporter, fingerprint } = established;
    let remote = canonical(connection.remote_address());
    let up = LinkEvent::Up { link: report.link, remote, origin: remote, exporter, fingerprint };
    if !report.tell(up, outgoing).await {
        return;
    }
    let ended = tokio::select! {
        reason = read_all(&connection, receive, &report, name) => Some(reason),
        () = write_all(send, messages) => None,
    };
    connection.close(VarInt::from_u32(0), b"closed");
    // If our side closed it, the loop knows.
    if let Some(reason) = ended {
        report.down(reason).await;
    }
}

/// Reads messages until the link ends; says why it did.
async fn read_all(connection: &Connection, mut receive: RecvStream, report: &Report, name: &str) -> String {
    loop {
        let mut length = [0; 2];
        if let Err(error) = receive.read_exact(&mut length).await {
            return read_sentence(connection, &error, name);
        }
        let length = usize::from(u16::from_be_bytes(length));
        if length == 0 || length > MESSAGE_MAX {
            return format!("{name} sent a message of {length} bytes; at most {MESSAGE_MAX} are allowed");
        }
        let mut message = vec![0; length];
        if let Err(error) = receive.read_exact(&mut message).await {
            return read_sentence(connection, &error, name);
        }
        let remote = canonical(connection.remote_address());
        if !report.tell(LinkEvent::Message { link: report.link, remote, message }, None).await {
            return "the daemon ends".into();
        }
    }
}

/// Writes messages until the loop drops their channel, then waits until they have arrived.
/// Waits for [`read_all`] to tell what is wrong if a write fails.
async fn write_all(mut send: SendStream, mut messages: Messages) {
    while let Some(message) = messages.recv().await {
        let Ok(length) = u16::try_from(message.len()) else {
            continue;
        };
        let mut framed = [Bytes::copy_from_slice(&length.to_be_bytes()), message];
        if send.write_all_chunks(&mut framed).await.is_err() {
            messages.close();
            return std::future::pending().await;
        }
    }
    if send.finish().is_ok() {
        let _stopped_or_late = timeout(LAST_WORDS, send.stopped()).await;
    }
}

fn read_sentence(connection: &Connection, error: &ReadExactError, name: &str) -> String {
    match (error, connection.close_reason()) {
        (_, Some(error)) => sentence(&error, name),
        (ReadExactError::FinishedEarly(_), None) => format!("{name} has closed the link"),
        (ReadExactError::ReadError(error), None) => format!("{name}: {error}"),
    }
}

fn sentence(error: &ConnectionError, name: &str) -> String {
    match error {
        ConnectionError::TimedOut => format!("{name} does not answer"),
        ConnectionError::Reset => format!("{name} has restarted"),
        ConnectionError::ApplicationClosed(_) => format!("{name} has closed the link"),
        ConnectionError::ConnectionClosed(close) if close.error_code == quinn_refused() => {
            format!("{name} refuses the link: it is full, or it is no supernode")
        }
        ConnectionError::ConnectionClosed(close) if close.error_code == no_common_protocol() => {
            format!("{name} speaks another version of the protocol")
        }
        ConnectionError::ConnectionClosed(close) => format!("{name} has closed the link: {close}"),
        ConnectionError::VersionMismatch => format!("{name} speaks another version of QUIC"),
        ConnectionError::LocallyClosed => "closed".into(),
        ConnectionError::TransportError(error) => format!("{name}: {error}"),
        ConnectionError::CidsExhausted => format!("{name}: too many connections here"),
    }
}

/// TLS's alert `no_application_protocol`: the name of ours holds the major version.
fn no_common_protocol() -> quinn::TransportErrorCode {
    quinn::TransportErrorCode::crypto(120)
}

fn quinn_refused() -> quinn::TransportErrorCode {
    quinn::TransportErrorCode::CONNECTION_REFUSED
}
