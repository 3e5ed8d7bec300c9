//! TLS 1.3 with raw public keys (RFC 7250): a supernode shows its Ed25519 key and nothing else.
//!
//! The dialling side shows nothing; a node proves itself in its registration. Whether the key is the
//! right one is decided here and told as a sentence by [`PinCheck::refusal`].

use std::sync::{Arc, OnceLock};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, ServerConfig, SignatureScheme};

use crate::keys::{Fingerprint, Identity};
use crate::wire::ALPN;

/// What stands before the 32 bytes of an Ed25519 public key in a SubjectPublicKeyInfo (RFC 8410 section 4).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What stands before the 32 bytes of an Ed25519 private key in PKCS #8 (RFC 8410 section 7).
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Label of the TLS exporter (protocol.md section 7).
pub(in crate::io) const EXPORTER_LABEL: &[u8] = b"longwire register";
/// What is offered on TCP, where everybody on the way can read it: what a browser offers.
const WEB: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// TLS of the side that is dialled, on QUIC.
pub(in crate::io) fn quic_server(identity: &Identity) -> Result<QuicServerConfig, Error> {
    let config = server(identity, &[ALPN])?;
    QuicServerConfig::try_from(config).map_err(|_| PeerIncompatible::NoCipherSuitesInCommon.into())
}

/// TLS of the side that is dialled, on TCP.
pub(in crate::io) fn tcp_server(identity: &Identity) -> Result<ServerConfig, Error> {
    server(identity, &WEB)
}

fn server(identity: &Identity, protocols: &[&[u8]]) -> Result<ServerConfig, Error> {
    let spki = [SPKI_HEAD.as_slice(), &identity.fingerprint().0].concat();
    let secret = zeroize::Zeroizing::new([PKCS8_HEAD.as_slice(), &identity.signing().to_bytes()].concat());
    let key = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(secret.as_slice()))?;
    let shown = Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], key));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(shown)));
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    // Links are few and long: a resumed one would save nothing and be one more thing that works differently.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// TLS of the side that dials, on QUIC.
pub(in crate::io) fn quic_client(check: Arc<PinCheck>) -> Result<QuicClientConfig, Error> {
    let mut config = client(check, &[ALPN])?;
    config.enable_sni = false;
    QuicClientConfig::try_from(config).map_err(|_| PeerIncompatible::NoCipherSuitesInCommon.into())
}

/// TLS of the side that dials, on TCP.
pub(in crate::io) fn tcp_client(check: Arc<PinCheck>) -> Result<ClientConfig, Error> {
    client(check, &WEB)
}

fn client(check: Arc<PinCheck>, protocols: &[&[u8]]) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(check)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Accepts one key, or any, and remembers which it saw. For one connection.
#[derive(Debug)]
pub(in crate::io) struct PinCheck {
    pin: Option<Fingerprint>,
    shown: OnceLock<Fingerprint>,
    schemes: rustls::crypto::WebPkiSupportedAlgorithms,
}

impl PinCheck {
    /// Accepts `pin` only, if there is one.
    pub(in crate::io) fn new(pin: Option<Fingerprint>) -> Self {
        Self { pin, shown: OnceLock::new(), schemes: provider().signature_verification_algorithms }
    }

    /// The key the other side showed.
    pub(in crate::io) fn shown(&self) -> Option<Fingerprint> {
        self.shown.get().copied()
    }

    /// The sentence about a wrong key, if it was wrong.
    pub(in crate::io) fn refusal(&self, address: &str) -> Option<String> {
        let (pin, shown) = (self.pin?, self.shown()?);
        (pin != shown).then(|| format!("refused: {}", wrong_key(address, pin, shown)))
    }
}

/// The sentence about a key that is not the expected one.
pub(in crate::io) fn wrong_key(address: &str, pin: Fingerprint, shown: Fingerprint) -> String {
    format!(
        "{address} shows the key {shown}, expected was {pin}; if its owner has changed the key, give --supernode \
         {address}#{shown}, otherwise somebody stands in between"
    )
}

impl ServerCertVerifier for PinCheck {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let key = end_entity.strip_prefix(&SPKI_HEAD).and_then(|key| <[u8; 32]>::try_from(key).ok());
        let shown = Fingerprint(key.ok_or(rustls::CertificateError::BadEncoding)?);
        self.shown.get_or_init(|| shown);
        if self.pin.is_some_and(|pin| pin != shown) {
            return Err(rustls::CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(cert.as_ref()), dss, &self.schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
