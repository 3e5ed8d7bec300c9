//! Control links: messages between a node and a supernode on QUIC (wire/protocol.md section 7).
//!
//! [`Links`] is the loop's side: it obeys [`LinkCommand`]s without blocking and knows which links stand.
//! Each link is a task of the background runtime ([`link`]); its events come back through the loop's
//! input channel, marked with the link's generation, so that what an old link still says is not taken
//! for its successor's. A link whose other end does not read is closed when its queue is full.

mod limits;
mod link;
mod socket;
mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Endpoint, EndpointConfig, IdleTimeout, TransportConfig, VarInt};
use ring::hkdf::HKDF_SHA256;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use limits::{Backlog, Outgoing};

use super::Input;
use super::udp::Underlay;
use crate::keys::{Fingerprint, Identity};
use crate::node::{LinkCommand, LinkEvent, LinkId};
pub use socket::Inbox;
pub(in crate::io) use socket::{Received, inbox};

/// A link is down when nothing came for so long.
const IDLE: Duration = Duration::from_secs(10);
/// The dialling side sends something this often, so that a living link never looks idle, and a
/// restarted supernode is noticed by its stateless reset.
const KEEPALIVE: Duration = Duration::from_secs(3);
/// A round trip before one was seen: a first packet that is lost, as when an address is new, is repeated after
/// three of these.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Bytes the other end may send ahead of us: four messages of the longest kind.
const RECEIVE_WINDOW: u32 = 64 * 1024;
/// Bytes on their way that one link may hold in memory.
const SEND_WINDOW: u64 = 128 * 1024;
/// Links a supernode accepts. Each takes about 30 KB.
const ACCEPTED_MAX: usize = 16 * 1024;

/// Why there are no links.
#[derive(Debug, Error)]
pub enum QuicError {
    /// TLS does not take our key.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The socket.
    #[error("QUIC: {0}")]
    Socket(#[from] std::io::Error),
}

/// What a link's task tells the loop.
#[derive(Debug)]
pub struct LinkInput {
    event: LinkEvent,
    generation: u64,
    /// On an accepted link's first event: where its messages go.
    outgoing: Option<Outgoing>,
}

/// A link that stands or is being dialled. Dropping it ends its task.
#[derive(Debug)]
struct Entry {
    generation: u64,
    outgoing: Outgoing,
}

/// The loop's side of all control links.
#[derive(Debug)]
pub struct Links {
    background: Handle,
    endpoint: Endpoint,
    inputs: mpsc::Sender<Input>,
    backlog: Backlog,
    table: BTreeMap<LinkId, Entry>,
    accepted: usize,
    generation: u64,
}

impl Links {
    /// Brings QUIC up on the shared socket; accepts links if `serve`.
    pub(in crate::io) fn new(
        background: Handle,
        underlay: Arc<Underlay>,
        received: mpsc::Receiver<Received>,
        identity: &Identity,
        serve: bool,
        inputs: mpsc::Sender<Input>,
    ) -> Result<Self, QuicError> {
        let _on_background = background.enter();
        let socket = socket::SharedSocket::new(underlay, received);
        let server = if serve { Some(server_config(identity)?) } else { None };
        let endpoint = Endpoint::new_with_abstract_socket(
            endpoint_config(identity),
            server,
            Arc::new(socket),
            Arc::new(quinn::TokioRuntime),
        )?;
        let backlog = Backlog::default();
        if serve {
            background.spawn(link::accept_all(endpoint.clone(), backlog.clone(), inputs.clone()));
        }
        Ok(Self { background, endpoint, inputs, backlog, table: BTreeMap::new(), accepted: 0, generation: 0 })
    }

    /// Does what the node says. Never blocks. Answers with what the node must hear at once.
    pub fn obey(&mut self, command: LinkCommand) -> Option<LinkEvent> {
        match command {
            LinkCommand::Dial { link, address, pin, known } => {
                self.generation += 1;
                let generation = self.generation;
                let (outgoing, messages) = self.backlog.queue();
                self.insert(link, Entry { generation, outgoing });
                let report = link::Report { inputs: self.inputs.clone(), link, generation };
                let target = link::Target { address, pin, known };
                self.background.spawn(link::dial(self.endpoint.clone(), target, messages, report));
                None
            }
            LinkCommand::Send { link, message } => {
                let full = !self.table.get(&link)?.outgoing.send(message);
                full.then(|| {
                    self.remove(link);
                    LinkEvent::Down { link, reason: "the other end does not keep up with its messages".into() }
                })
            }
            LinkCommand::Close { link } => {
                self.remove(link);
                None
            }
        }
    }

    /// What of `input` the node should hear: nothing of a link that was closed or dialled anew since.
    pub fn admit(&mut self, input: LinkInput) -> Option<LinkEvent> {
        let LinkInput { event, generation, outgoing } = input;
        let (LinkEvent::Up { link, .. } | LinkEvent::Message { link, .. } | LinkEvent::Down { link, .. }) = event;
        if let Some(outgoing) = outgoing {
            if self.accepted >= ACCEPTED_MAX {
                return None;
            }
            self.insert(link, Entry { generation, outgoing });
        }
        if self.table.get(&link)?.generation != generation {
            return None;
        }
        if matches!(event, LinkEvent::Down { .. }) {
            self.remove(link);
        }
        Some(event)
    }

    /// Closes every link after what was sent on it, and gives the packets time to leave.
    pub async fn shut_down(mut self, patience: Duration) {
        self.table.clear();
        let _timed_out = tokio::time::timeout(patience, self.endpoint.wait_idle()).await;
    }

    fn insert(&mut self, link: LinkId, entry: Entry) {
        self.remove(link);
        self.table.insert(link, entry);
        self.accepted += usize::from(matches!(link, LinkId::Accepted(_)));
    }

    fn remove(&mut self, link: LinkId) {
        if self.table.remove(&link).is_some() && matches!(link, LinkId::Accepted(_)) {
            self.accepted -= 1;
        }
    }
}

fn endpoint_config(identity: &Identity) -> EndpointConfig {
    // Not random: nodes take a restarted supernode's word that it has forgotten them.
    let secret = ring::hkdf::Salt::new(HKDF_SHA256, b"longwire/1 quic").extract(&identity.signing().to_bytes());
    let key: ring::hmac::Key = secret
        .expand(&[b"stateless reset"], ring::hmac::HMAC_SHA256)
        .map(ring::hmac::Key::from)
        .expect("one hash is within HKDF's limit");
    let mut config = EndpointConfig::new(Arc::new(key));
    // The fixed bit tells QUIC from ours (protocol.md section 1).
    config.grease_quic_bit(false);
    config
}

/// How a node dials: accepts the supernode that shows `pin`, or any. For tools that stand in for nodes.
pub fn client_config(pin: Option<Fingerprint>) -> Result<quinn::ClientConfig, QuicError> {
    Ok(link::client_config(&Arc::new(tls::PinCheck::new(pin)))?)
}

fn server_config(identity: &Identity) -> Result<quinn::ServerConfig, QuicError> {
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls::server(identity)?));
    config.transport_config(Arc::new(transport(None)));
    config.max_incoming(link::HANDSHAKES_MAX).incoming_buffer_size(16 << 10).incoming_buffer_size_total(4 << 20);
    // quinn calls an address the peer's before it was validated; a leg must never lead to such a one. A node whose
    // address changes dials again, and Retry validates it.
    config.migration(false);
    // A token from an earlier connection would let an address pass without a Retry.
    let mut tokens = quinn::ValidationTokenConfig::default();
    tokens.sent(0);
    config.validation_token_config(tokens);
    Ok(config)
}

fn transport(keepalive: Option<Duration>) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(1_u8.into())
        .max_concurrent_uni_streams(0_u8.into())
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(None)
        .initial_rtt(INITIAL_RTT)
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
        .keep_alive_interval(keepalive);
    config
}

#[cfg(test)]
mod tests;
