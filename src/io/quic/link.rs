//! One control link as a task: dialled or accepted, then messages both ways until one end closes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, ConnectionError, Endpoint, Incoming, ReadExactError, RecvStream, SendStream, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::limits::{Backlog, Messages, Origins, Outgoing, Place};
use super::tls::{self, PinCheck};
use super::{Input, KEEPALIVE, LinkInput, transport};
use crate::io::udp::canonical;
use crate::keys::Fingerprint;
use crate::node::{LinkEvent, LinkId};

/// A name is waited for this long if it is known where it was before.
const RESOLVE: Duration = Duration::from_secs(1);
/// From the first packet to the first byte on the stream.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Between the tries of a name's addresses (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// Handshakes under way at a supernode; more are answered later, when the client repeats.
pub(super) const HANDSHAKES_MAX: usize = 512;
/// Handshakes under way from one address: whoever answers none of ours leaves places to the others.
const HANDSHAKES_PER_ADDRESS: usize = 64;
/// Links from one address: a site's nodes behind one NAT.
const PER_ADDRESS_MAX: usize = 1024;
/// The longest message (protocol.md section 7).
const MESSAGE_MAX: usize = 16 * 1024;
/// For the last messages to arrive before the connection is closed.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Label of the TLS exporter (protocol.md section 7).
const EXPORTER_LABEL: &[u8] = b"longwire register";

/// Whom to dial.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// `host:port`.
    pub(super) address: String,
    /// The only key to accept, if there is one.
    pub(super) pin: Option<Fingerprint>,
    /// Where it was reached last.
    pub(super) known: Option<SocketAddr>,
}

/// Speaks for one link to the loop.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) link: LinkId,
    pub(super) generation: u64,
}

impl Report {
    /// False once the loop has ended.
    async fn tell(&self, event: LinkEvent, outgoing: Option<Outgoing>) -> bool {
        let input = LinkInput { event, generation: self.generation, outgoing };
        self.inputs.send(Input::Link(input)).await.is_ok()
    }

    async fn down(&self, reason: String) {
        self.tell(LinkEvent::Down { link: self.link, reason }, None).await;
    }
}

/// A connection with its stream.
struct Established {
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    exporter: [u8; 32],
    fingerprint: Option<Fingerprint>,
}

/// Dials `target` and serves the link until it ends.
pub(super) async fn dial(endpoint: Endpoint, target: Target, mut messages: Messages, report: Report) {
    let tried = tokio::select! {
        tried = connect(&endpoint, &target) => tried,
        // Given up by the node: nothing is sent before the link stands.
        _ = messages.recv() => return,
    };
    match tried {
        Ok(established) => serve(established, messages, report, None, &target.address).await,
        Err(reason) => report.down(reason).await,
    }
}

/// Tries every address of a name, each a little after the one before; the first to answer wins.
async fn connect(endpoint: &Endpoint, target: &Target) -> Result<Established, String> {
    let Target { address, pin, .. } = target;
    let pin = *pin;
    let v4_only = endpoint.local_addr().is_ok_and(|local| local.is_ipv4());
    let found = resolve(target).await?;
    let mut tries = JoinSet::new();
    for (place, to) in found.into_iter().filter(|to| to.is_ipv4() || !v4_only).take(ADDRESSES_MAX).enumerate() {
        let (endpoint, name) = (endpoint.clone(), address.to_owned());
        let head_start = STAGGER * u32::try_from(place).unwrap_or(u32::MAX);
        tries.spawn(async move {
            sleep(head_start).await;
            connect_to(&endpoint, to, &name, pin).await
        });
    }
    let mut why = format!("{address} has no address that can be reached from here");
    while let Some(tried) = tries.join_next().await {
        match tried {
            Ok(Ok(established)) => return Ok(established),
            Ok(Err(reason)) => why = reason,
            Err(aborted) => why = aborted.to_string(),
        }
    }
    Err(why)
}

/// The addresses of a name, both families in turn, and where it was reached last.
async fn resolve(Target { address, known, .. }: &Target) -> Result<Vec<SocketAddr>, String> {
    let patience = if known.is_some() { RESOLVE } else { HANDSHAKE };
    let found = match timeout(patience, tokio::net::lookup_host(address)).await {
        Ok(Ok(found)) => Ok(in_turn(&found.collect::<Vec<_>>())),
        Ok(Err(error)) => Err(format!("{address} cannot be resolved: {error}")),
        Err(_elapsed) => Err(format!("no name server answers about {address}")),
    };
    let Some(known) = known else { return found };
    let mut found = found.unwrap_or_default();
    if !found.contains(known) {
        // Where the name leads now comes first; there is always room for the place it had.
        found.truncate(ADDRESSES_MAX - 1);
        found.push(*known);
    }
    Ok(found)
}

/// One of the first address's family, one of the other, and so on (RFC 8305 section 4).
fn in_turn(found: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = found.iter().partition(|to| to.is_ipv6() == first_is_v6);
    let mut list = Vec::new();
    for place in 0..first.len().max(second.len()) {
        list.extend(first.get(place));
        list.extend(second.get(place));
    }
    list
}

async fn connect_to(
    endpoint: &Endpoint,
    to: SocketAddr,
    name: &str,
    pin: Option<Fingerprint>,
) -> Result<Established, String> {
    let check = Arc::new(PinCheck::new(pin));
    let config = client_config(&check).map_err(|error| format!("TLS: {error}"))?;
    let connecting =
        endpoint.connect_with(config, to, "longwire").map_err(|error| format!("{name} cannot be dialled: {error}"))?;
    let connection = match timeout(HANDSHAKE, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(check.refusal(name).unwrap_or_else(|| sentence(&error, name))),
        Err(_elapsed) => return Err(format!("{name} ({to}) does not answer")),
    };
    let (send, receive) = connection.open_bi().await.map_err(|error| sentence(&error, name))?;
    Ok(Established { exporter: exporter(&connection)?, connection, send, receive, fingerprint: check.shown() })
}

/// QUIC of the side that dials.
pub(super) fn client_config(check: &Arc<PinCheck>) -> Result<quinn::ClientConfig, rustls::Error> {
    let mut config = quinn::ClientConfig::new(Arc::new(tls::client(Arc::clone(check))?));
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
pub(super) async fn accept_all(endpoint: Endpoint, backlog: Backlog, inputs: mpsc::Sender<Input>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let (origins, newcomers) = (Origins::new(PER_ADDRESS_MAX), Origins::new(HANDSHAKES_PER_ADDRESS));
    let mut next = 0;
    while let Some(incoming) = endpoint.accept().await {
        if !incoming.remote_address_validated() {
            // Fails only if it was validated.
            let _sent = incoming.retry();
            continue;
        }
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            incoming.ignore();
            continue;
        };
        let from = incoming.remote_address().ip();
        let Some(newcomer) = newcomers.enter(from) else {
            incoming.ignore();
            continue;
        };
        let Some(place) = origins.enter(from) else {
            incoming.refuse();
            continue;
        };
        let report = Report { inputs: inputs.clone(), link: LinkId::Accepted(next), generation: next };
        next += 1;
        tokio::spawn(accept(incoming, (permit, newcomer), place, backlog.queue(), report));
    }
}

async fn accept(
    incoming: Incoming,
    handshake: (OwnedSemaphorePermit, Place),
    place: Place,
    (outgoing, messages): (Outgoing, Messages),
    report: Report,
) {
    let established = timeout(HANDSHAKE, async {
        let connection = incoming.await.ok()?;
        let (send, receive) = connection.accept_bi().await.ok()?;
        let exporter = exporter(&connection).ok()?;
        Some(Established { exporter, connection, send, receive, fingerprint: None })
    });
    let Ok(Some(established)) = established.await else {
        return;
    };
    drop(handshake);
    serve(established, messages, report, Some(outgoing), "the node").await;
    drop(place);
}

/// Tells that the link stands, carries messages both ways, tells its end.
async fn serve(established: Established, messages: Messages, report: Report, outgoing: Option<Outgoing>, name: &str) {
    let Established { connection, send, receive, exporter, fingerprint } = established;
    let remote = canonical(connection.remote_address());
    let up = LinkEvent::Up { link: report.link, remote, exporter, fingerprint };
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
        let framed = [length.to_be_bytes().as_slice(), &message].concat();
        if send.write_all(&framed).await.is_err() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_of_a_name_have_their_turn() {
        let at = |text: &str| text.parse().expect("address");
        let (a, b, c, d) = (at("[2001:db8::1]:1"), at("[2001:db8::2]:1"), at("192.0.2.1:1"), at("192.0.2.2:1"));
        assert_eq!(in_turn(&[a, b, c, d]), [a, c, b, d]);
        assert_eq!(in_turn(&[c, d, a]), [c, a, d]);
        assert_eq!(in_turn(&[]), []);
    }
}
