//! From what the user wants and what this host is to what the node is told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::{Cipher, Settings};
use crate::io::udp::canonical;
use crate::keys::{Fingerprint, Identity};
use crate::node::{self, HandshakeKind, Memory, OverlaySettings, SupernodeSettings};
use crate::wire::message::NAME_MAX;

/// What the node is told of what the user wants.
pub(super) fn node_settings(
    settings: Settings,
    identity: Identity,
    local: SocketAddr,
    memory: Memory,
) -> node::Settings {
    let mut supernodes = settings.supernodes;
    if settings.serve.is_some() && !settings.overlays.is_empty() {
        // In front, so that it is never spared: others reach us by it.
        supernodes.insert(0, itself(local, identity.fingerprint()));
    }
    let overlays = settings.overlays.into_iter().map(|overlay| OverlaySettings {
        name: overlay.name,
        secrets: overlay.secrets,
        switch: overlay.switch,
        routes: overlay.routes,
        links: overlay.links,
        reserve: overlay.reserve,
    });
    node::Settings {
        identity,
        name: settings.name.unwrap_or_else(host_name),
        overlays: overlays.collect(),
        supernodes,
        serve: settings.serve,
        relaying: settings.relaying,
        uplink: settings.uplink,
        links: node::LinkBudget::default(),
        memory,
        birthday: settings.birthday,
        handshake: HandshakeKind::Noise,
        discovery: settings.underlay.lan_discovery,
        has_aes: proposes_aes(settings.cipher),
    }
}

/// Whether AES-256-GCM is proposed to peers.
fn proposes_aes(cipher: Cipher) -> bool {
    match cipher {
        Cipher::Auto => has_aes(),
        Cipher::AesGcm => true,
        Cipher::ChaChaPoly => false,
    }
}

/// Whether this processor has AES instructions.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

/// A node that is a supernode registers at itself as at any other.
fn itself(local: SocketAddr, fingerprint: Fingerprint) -> SupernodeSettings {
    let local = canonical(local);
    let ip = if local.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { local.ip() };
    SupernodeSettings { address: SocketAddr::new(ip, local.port()).to_string(), pin: Some(fingerprint) }
}

/// What people call this host.
pub(super) fn host_name() -> String {
    let uname = rustix::system::uname();
    let mut name = uname.nodename().to_string_lossy().into_owned();
    while name.len() > NAME_MAX {
        name.pop();
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_serves_registers_at_itself() {
        let pin = Fingerprint([1; 32]);
        let at = |local: &str| itself(local.parse().expect("address"), pin).address;
        assert_eq!(at("[::]:7777"), "127.0.0.1:7777");
        assert_eq!(at("0.0.0.0:7"), "127.0.0.1:7");
        assert_eq!(at("192.0.2.1:7"), "192.0.2.1:7");
        assert_eq!(at("[2001:db8::1]:7"), "[2001:db8::1]:7");
    }
}
