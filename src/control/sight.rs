//! The whole as one node knows it: the answers behind `longwire topo`, `top`, `matrix`, `trace` and `advise`.
//!
//! A member knows its own links, its own row and column of the matrix, and the machines that talk across it
//! ([`member`]); the supernode that plans knows hosts, what they report of each other, and its plan ([`planning`]).
//! Neither makes up what it does not know: that is `null` in the JSON of these types, which is a contract that scripts
//! rely on, and "unknown" on the screen. Rates are bytes per second.
//!
//! [`planning`]: super::planning

mod member;

mod trace;

pub(super) use member::busiest;

use serde::{Deserialize, Serialize};

use super::report::PathKind;

/// Pairs of machines that are told of, the busiest.
pub(super) const ROWS_MAX: usize = 1_000;

/// An overlay, as one node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Its name; at a supernode its id.
    pub overlay: String,
    /// Who tells.
    pub seen_by: String,
    /// Members and supernodes.
    pub nodes: Vec<Node>,
    /// Of those, what is known of their links.
    pub links: Vec<Link>,
    /// Ways that somebody chose, by plan or by order.
    pub routes: Vec<Route>,
    /// What is not known here, in sentences.
    pub unknown: Vec<String>,
}

/// A member or a supernode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// A member's id, a supernode's address.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its site by name, or the public address that it shares with others there.
    pub site: Option<String>,
    /// Whether it is a supernode.
    pub is_supernode: bool,
    /// Whether it is the one that tells.
    pub is_here: bool,
    /// Whether it answers.
    pub is_up: bool,
    /// How much of the time tasks wait for a processor there, in percent.
    pub load_percent: Option<u8>,
}

/// How one node reaches another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// By its id.
    pub from: String,
    /// By its id.
    pub to: String,
    /// Directly, relayed or not at all.
    pub kind: PathKind,
    /// Whether nothing is spent on it until a frame wakes it.
    #[serde(default)]
    pub is_asleep: bool,
    /// The relay, by its id.
    pub via: Option<String>,
    /// Round trip.
    pub rtt_us: Option<u64>,
    /// Probes lost of late.
    pub loss_percent: Option<u32>,
    /// Sent from the one to the other.
    pub sent: Option<u64>,
    /// And back.
    pub heard: Option<u64>,
    /// Whether the network holds back what is sent.
    pub is_limited: Option<bool>,
    /// What it let through when it did so last, on the present way.
    #[serde(default)]
    pub capacity: Option<u64>,
}

/// A way that somebody chose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The member whose frames take it, by its id.
    pub from: String,
    /// Their destination, by its id.
    pub to: String,
    /// The relay by its id; `null` for the direct way.
    pub via: Option<String>,
    /// `plan` or `order`.
    pub by: String,
}

/// Who sends how much to whom in an overlay, as one node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Its name; at a supernode its id.
    pub overlay: String,
    /// Who tells.
    pub seen_by: String,
    /// Pairs of hosts, the busiest first.
    pub hosts: Vec<Talk>,
    /// Pairs of machines of which one is behind this member, the busiest first.
    pub machines: Vec<Talk>,
    /// Pairs of machines that there was no room for, so far.
    pub machines_left_out: u64,
    /// What the application looks like by its hosts; only a supernode sees all of them.
    pub host_pattern: Option<String>,
    /// What it looks like by the machines that talk across this member.
    pub machine_pattern: Option<String>,
    /// Why it is not known which hosts talk, if it is not.
    #[serde(default)]
    pub hosts_unknown: Option<String>,
    /// The same of machines.
    #[serde(default)]
    pub machines_unknown: Option<String>,
}

/// What goes from one to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Talk {
    /// A host by name, or a machine by its MAC address.
    pub from: String,
    /// Likewise.
    pub to: String,
    /// The host that a machine is behind; a host itself.
    pub from_host: String,
    /// Likewise.
    pub to_host: String,
    /// Over about two seconds.
    pub bytes_per_s: u64,
    /// Likewise; known of machines.
    pub frames_per_s: Option<u64>,
    /// How it travels.
    pub path: Option<String>,
    /// Of that way.
    pub rtt_us: Option<u64>,
    /// Probes lost on it of late.
    pub loss_percent: Option<u32>,
    /// Why that way.
    pub why: Option<String>,
}

/// The way that frames of one machine take to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// In this overlay.
    pub overlay: String,
    /// Who tells.
    pub seen_by: String,
    /// The sender.
    pub from: Machine,
    /// The receiver.
    pub to: Machine,
    /// What becomes of a frame here, in words.
    pub verdict: String,
    /// What decided the way between the hosts, in words.
    pub why: Vec<String>,
    /// In order of travel.
    pub hops: Vec<Hop>,
    /// Of the whole way between the hosts, there and back.
    pub rtt_us: Option<u64>,
}

/// A machine, as a switch knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its address.
    pub mac: String,
    /// 0 = untagged.
    pub vlan: u16,
    /// The host it was learned behind, if it was.
    pub host: Option<String>,
    /// Since it was last heard.
    pub age_ms: Option<u64>,
    /// Counts its moves.
    pub sequence: Option<u32>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// From this machine or host.
    pub from: String,
    /// To this one.
    pub to: String,
    /// By what, in words.
    pub by: String,
    /// There and back.
    pub rtt_us: Option<u64>,
}

/// A machine that should move to another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveAdvice {
    /// In this overlay; at a supernode its id.
    pub overlay: String,
    /// Who tells.
    pub seen_by: String,
    /// Who found it: `plan` for the supernode that plans, `member` for what a member knows of itself.
    pub by: String,
    /// Its MAC address; `null` at the supernode, which knows hosts only.
    pub machine: Option<String>,
    /// The host it is on.
    pub host: String,
    /// The host with whose machines it exchanges most.
    pub partner: String,
    /// The host to which it should go.
    pub target: String,
    /// What is relieved, in words, where that is known.
    pub bottleneck: Option<String>,
    /// The rate that promises, in percent of the present one.
    pub gain_percent: u64,
}

/// Bytes per second in whole numbers.
pub(super) fn whole(rate: f64) -> u64 {
    // A cast of a float saturates.
    rate.round() as u64
}

/// A gain as people read it.
pub(super) fn percent(gain: f64) -> u64 {
    whole(gain * 100.0)
}
