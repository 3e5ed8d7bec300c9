//! Questions and orders about reservations, and their answers: `longwire reserve`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Changes what is reserved, for this daemon's life; without a change it only asks. Rates are in bytes per second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReserveRequest {
    /// The overlay's name; the only one if there is one.
    pub overlay: Option<String>,
    /// For this member; for the whole overlay if missing.
    pub peer: Option<String>,
    /// Guaranteed; 0 takes it back.
    pub rate: Option<u64>,
    /// At most; 0 takes it back.
    pub cap: Option<u64>,
    /// What this host may send in all; 0 takes it back.
    pub uplink: Option<u64>,
    /// `none`, `inherit` or a code point.
    pub dscp: Option<String>,
}

/// What is reserved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservations {
    /// What this host may send in all.
    pub uplink: Option<u64>,
    /// By overlay and member.
    pub rows: Vec<ReserveRow>,
}

/// One overlay, or one member of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReserveRow {
    /// The overlay's name.
    pub overlay: String,
    /// The member; the whole overlay if missing.
    pub peer: Option<String>,
    /// Guaranteed.
    pub rate: Option<u64>,
    /// At most.
    pub cap: Option<u64>,
    /// `none`, `inherit` or a code point.
    pub dscp: String,
    /// Where the member's packets go now, if it goes by UDP.
    pub remote: Option<SocketAddr>,
    /// In words: `in force`, or what it waits for.
    pub state: String,
}
