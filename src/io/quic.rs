//! Control links on QUIC (wire/protocol.md section 7): how quinn is set up on the shared socket.
//!
//! [`link`] is one connection as a task; [`links`](super::links) decides when there is one.

mod link;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use quinn::{
    AckFrequencyConfig, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, TransportConfig, VarInt,
};
use quinn_proto::RandomConnectionIdGenerator;
use ring::hkdf::HKDF_SHA256;
use thiserror::Error;
use tokio::sync::mpsc;

use super::links::reception::HANDSHAKES_MAX;
use super::links::tls;
use super::udp::Underlay;
use crate::keys::{Fingerprint, Identity};
pub(super) use link::{Established, accept_all, connect, connect_to_any, serve};
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

/// Bytes of chance in the name of a connection.
const NAME_BYTES: usize = 8;
/// Links that a restarted supernode does not know are told so, one in this time.
const RESET_GAP: Duration = Duration::from_millis(1);

/// Packets of a roster that a node may take before it answers: each answer costs a supernode as much as a packet. Less
/// than what QUIC sends at first.
const UNANSWERED_MAX: VarInt = VarInt::from_u32(8);

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

/// Brings QUIC up on the shared socket; it accepts connections if `serve`. To be called on the background runtime.
pub(super) fn endpoint(
    underlay: Arc<Underlay>,
    received: mpsc::Receiver<Received>,
    identity: &Identity,
    serve: bool,
) -> Result<Endpoint, QuicError> {
    let socket = socket::SharedSocket::new(underlay, received);
    let server = if serve { Some(server_config(identity)?) } else { None };
    let config = endpoint_config(identity);
    Ok(Endpoint::new_with_abstract_socket(config, server, Arc::new(socket), Arc::new(quinn::TokioRuntime))?)
}

/// An endpoint that only dials, on a socket of its own.
pub(super) fn dialling(socket: std::net::UdpSocket) -> std::io::Result<Endpoint> {
    let mut config = EndpointConfig::default();
    config.grease_quic_bit(false);
    Endpoint::new(config, None, socket, Arc::new(quinn::TokioRuntime))
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
    config.cid_generator(names);
    config.min_reset_interval(RESET_GAP);
    config
}

/// Names of connections. quinn's own generator draws 24 bits, and for a Retry it does not look which are taken: where
/// ten thousand links have 50,000 names, one dial in 300 was given that of somebody's link, and went unheard. It also
/// knows its names by a key of this process, and a restarted supernode had no word for links of before.
fn names() -> Box<dyn ConnectionIdGenerator> {
    Box::new(RandomConnectionIdGenerator::new(NAME_BYTES))
}

/// How a node dials: accepts the supernode that shows `pin`, or any. For tools that stand in for nodes.
pub fn client_config(pin: Option<Fingerprint>) -> Result<quinn::ClientConfig, QuicError> {
    Ok(link::client_config(&Arc::new(tls::PinCheck::new(pin)))?)
}

fn server_config(identity: &Identity) -> Result<quinn::ServerConfig, QuicError> {
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls::quic_server(identity)?));
    let (mut transport, mut answers) = (transport(None), AckFrequencyConfig::default());
    answers.ack_eliciting_threshold(UNANSWERED_MAX);
    transport.ack_frequency_config(Some(answers));
    config.transport_config(Arc::new(transport));
    config.max_incoming(HANDSHAKES_MAX).incoming_buffer_size(16 << 10).incoming_buffer_size_total(4 << 20);
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
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_name_of_a_connection_is_drawn_twice() {
        let mut names = names();
        let drawn: HashSet<_> = (0..100_000).map(|_| names.generate_cid().to_vec()).collect();
        assert_eq!(drawn.len(), 100_000);
    }
}
