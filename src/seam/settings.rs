//! What a node is told at its start, and what it wants to know again at the next.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::budget::LinkBudget;
use super::reserve::ReserveSettings;
use super::rule::{LinkSettings, RouteSettings};
use crate::datapath::SwitchSettings;
use crate::keys::{Fingerprint, Identity, OverlayId, OverlaySecrets};
use crate::wire::carry::RelayFor;

/// All that a node is told at its start.
#[derive(Debug)]
pub struct Settings {
    /// The node's own keys.
    pub identity: Identity,
    /// What people call it.
    pub name: String,
    /// The overlays it is a member of; [`OverlayIndex`](crate::datapath::buf::OverlayIndex) counts them in this order.
    pub overlays: Vec<OverlaySettings>,
    /// The supernodes it registers at, every overlay at each.
    pub supernodes: Vec<SupernodeSettings>,
    /// Set if the node is a supernode for others.
    pub serve: Option<ServeSettings>,
    /// What it does for members that cannot reach each other.
    pub relaying: RelaySettings,
    /// What the host may send in all, in bytes per second; unknown if `None`.
    pub uplink: Option<u64>,
    /// How many links to members are kept awake.
    pub links: LinkBudget,
    /// What an earlier run of this node wanted to know again.
    pub memory: Memory,
    /// Whether many ports may be tried at a peer whose NAT takes random ones.
    pub birthday: bool,
    /// How keys are agreed on.
    pub handshake: HandshakeKind,
    /// Whether members on the same link look for each other.
    pub discovery: bool,
    /// Whether the processor has AES instructions: then AES-256-GCM is proposed.
    pub has_aes: bool,
}

/// One overlay of a node.
#[derive(Debug)]
pub struct OverlaySettings {
    /// The overlay's name.
    pub name: String,
    /// What its key gives.
    pub secrets: OverlaySecrets,
    /// What the user chose of its switch.
    pub switch: SwitchSettings,
    /// Its static rules for frames.
    pub routes: Vec<RouteSettings>,
    /// Direct paths that are kept in it.
    pub links: Vec<LinkSettings>,
    /// What is reserved in it.
    pub reserve: ReserveSettings,
}

impl OverlaySettings {
    /// Without rules and reservations.
    pub fn new(name: &str, secrets: OverlaySecrets, switch: SwitchSettings) -> Self {
        let (routes, links, reserve) = (Vec::new(), Vec::new(), ReserveSettings::default());
        Self { name: name.into(), secrets, switch, routes, links, reserve }
    }
}

/// A supernode to register at.
#[derive(Clone, Debug)]
pub struct SupernodeSettings {
    /// `host:port` or `host:port/tcp-port`, as the user wrote it; `io` resolves it.
    pub address: String,
    /// The key it must show; the first one it shows is taken and remembered otherwise.
    pub pin: Option<Fingerprint>,
}

/// How a supernode serves.
#[derive(Clone, Debug, Default)]
pub struct ServeSettings {
    /// The overlays served; all if `None`.
    pub allow: Option<Vec<OverlayId>>,
    /// Other supernodes that members are told of; those without a key are not told.
    pub peers: Vec<SupernodeSettings>,
}

/// What a member does for others that cannot reach each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelaySettings {
    /// For whom it relays. A supernode relays as such and never as a member.
    pub carries: RelayFor,
    /// Bytes per second that it passes on, for all together; as many as come if `None`.
    pub share: Option<u32>,
    /// The site it is at, in its user's words; empty if that was not said.
    pub site: String,
}

/// How keys are agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeKind {
    /// Noise IKpsk2. The only one the daemon knows.
    Noise,
    /// Same messages and same keys at the end, no secrecy: for worlds of a thousand nodes.
    StandIn,
}

/// What a node wants to know again after a restart. Addresses only help; trust comes from handshakes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Keys that supernodes showed, by `host:port`, in text form.
    #[serde(default)]
    pub supernodes: BTreeMap<String, String>,
    /// Where supernodes were reached last, by `host:port`: for the day that no name server answers.
    #[serde(default)]
    pub reached: BTreeMap<String, SocketAddr>,
    /// Supernodes that other supernodes told of, as `host:port#fingerprint`.
    #[serde(default)]
    pub learned: Vec<String>,
    /// Members and where they were last heard, by overlay id in text form.
    #[serde(default)]
    pub peers: BTreeMap<String, Vec<RememberedPeer>>,
}

/// A member as it was known last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedPeer {
    /// Its node id in text form.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// Where it was heard directly, best first.
    pub addresses: Vec<SocketAddr>,
}
