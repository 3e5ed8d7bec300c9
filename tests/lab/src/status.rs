//! The JSON of longwire's interface, as it is agreed: a field that is missing fails the test.
#![allow(missing_docs, reason = "fields have the words of the interface")]

use std::collections::BTreeMap;

use serde::Deserialize;

/// `status --json`, as the interface is agreed.
#[derive(Debug, Default, Deserialize)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// The node's identity.
    pub node_id: String,
    /// The program's version.
    pub version: String,
    /// Every overlay that it is in.
    pub overlays: Vec<Overlay>,
}

/// One overlay of a status.
#[derive(Debug, Deserialize)]
pub struct Overlay {
    pub name: String,
    pub id: String,
    pub tap: Option<String>,
    pub tap_offload: String,
    pub supernodes: Vec<SupernodeState>,
    pub peers: Vec<Peer>,
    pub fdb_entries: u64,
    pub counters: BTreeMap<String, u64>,
}

/// A supernode as a node sees it.
#[derive(Debug, Deserialize)]
pub struct SupernodeState {
    pub address: String,
    pub state: String,
    pub transport: Option<String>,
    pub rtt_us: Option<u64>,
}

/// Another member as a node sees it.
#[derive(Debug, Deserialize)]
pub struct Peer {
    pub name: Option<String>,
    pub id: String,
    pub state: String,
    pub path: Option<PathState>,
    pub rtt_us: Option<u64>,
    pub tx_bytes: Option<u64>,
    pub rx_bytes: Option<u64>,
    pub last_heard_ms: Option<u64>,
}

/// How a peer is reached.
#[derive(Debug, Deserialize)]
pub struct PathState {
    pub kind: String,
    pub transport: Option<String>,
    pub remote: Option<String>,
    pub via: Option<String>,
}

/// One entry of `fdb --json`.
#[derive(Debug, Deserialize)]
pub struct FdbEntry {
    pub overlay: String,
    pub vlan: u16,
    pub mac: String,
    pub port: String,
    pub sequence: u32,
    pub frozen: bool,
    pub age_ms: Option<u64>,
}
