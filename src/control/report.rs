//! What a node tells about itself: the answers behind `longwire status`, `peers`, `fdb` and `explain`.
//!
//! The JSON of these types is a contract that scripts rely on; `tests/status_sample.json` holds one.

pub mod reserve;
pub mod rules;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::sight::{MoveAdvice, Topology, Trace, Traffic};

use reserve::{Reservations, ReserveRequest};
use rules::{LinkRequest, LinkRow, RouteRequest, RouteRow};

/// A question to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Request {
    /// Everything at a glance.
    Status,
    /// What each overlay's switch has learned.
    Fdb,
    /// The machine with this MAC address is behind our TAP now: for machines that say nothing when they move.
    ClaimMac {
        /// As `02:00:5e:10:00:01`.
        mac: String,
        /// 0 = untagged.
        vlan: u16,
        /// Its IP address, if that is known: then it is asked to speak, so that bridges find it too.
        ip: Option<IpAddr>,
        /// The overlay's name; the only one if there is one.
        overlay: Option<String>,
    },
    /// Why a peer is reached as it is; by name or id (or the start of it), `OVERLAY/` in front if need be.
    Explain {
        /// Name or id.
        peer: String,
    },
    /// How frames shall travel to a peer from now on.
    Via {
        /// Name or id.
        peer: String,
        /// `direct` (no member relays), `auto` (as measured), or the name or id of the member that shall relay.
        via: String,
    },
    /// Who is there, and how they reach each other.
    Topology,
    /// Who sends how much to whom.
    Traffic,
    /// The way that frames of one machine take to another.
    Trace {
        /// Its MAC address, or the IP address of a machine of ours.
        from: String,
        /// Likewise.
        to: String,
        /// 0 = untagged.
        vlan: u16,
        /// The overlay's name; the only one if there is one.
        overlay: Option<String>,
    },
    /// Which machine should move.
    Advise,
    /// About static rules for frames.
    Route(RouteRequest),
    /// About direct paths that are kept.
    Link(LinkRequest),
    /// About rates that are guaranteed and capped.
    Reserve(ReserveRequest),
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "one lives at a time, for as long as it is written out")]
#[serde(tag = "answer", content = "value", rename_all = "kebab-case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Fdb`].
    Fdb(Vec<FdbRow>),
    /// To [`Request::Explain`].
    Explain(Explanation),
    /// To [`Request::Topology`].
    Topology(Vec<Topology>),
    /// To [`Request::Traffic`].
    Traffic(Vec<Traffic>),
    /// To [`Request::Trace`].
    Trace(Trace),
    /// To [`Request::Advise`].
    Advice(Vec<MoveAdvice>),
    /// To [`Request::Route`].
    Routes(Vec<RouteRow>),
    /// To [`Request::Link`].
    Links(Vec<LinkRow>),
    /// To [`Request::Reserve`].
    Reservations(Reservations),
    /// An order was carried out.
    Done,
    /// It cannot be answered; a sentence.
    Error(String),
}

/// A node at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What people call it.
    pub node: String,
    /// Its id.
    pub node_id: String,
    /// Of the program.
    pub version: String,
    /// Threads that carry frames; filled in by `io`, 0 in simulations.
    #[serde(default)]
    pub lanes: usize,
    /// The key it shows as a supernode, if it is one.
    pub fingerprint: Option<String>,
    /// Where its router lets others in, if it was asked and agreed.
    pub mapped: Option<SocketAddr>,
    /// How the NAT in front of it behaves; `null` until known.
    #[serde(default)]
    pub nat: Option<NatStatus>,
    /// Its overlays, in the order of the settings.
    pub overlays: Vec<OverlayStatus>,
    /// What it does as a supernode, if it is one.
    pub serving: Option<Serving>,
}

/// How a NAT or firewall behaves, in the words of RFC 4787.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatStatus {
    /// The node as the world sees it, if it is our own.
    pub public: Option<SocketAddr>,
    /// What the outside address depends on: `none` (there is no translator), `endpoint-independent`,
    /// `address-dependent`, `address-and-port-dependent`.
    pub mapping: String,
    /// Who is let in: `endpoint-independent`, `address-dependent` (or laxer, where only one address was asked),
    /// `address-and-port-dependent`, `unknown`.
    pub filtering: String,
    /// How outside ports are chosen: `kept`, `changed`, `counting`, `random`.
    pub ports: String,
    /// What that means for direct paths, in a sentence.
    pub meaning: String,
}

/// One overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayStatus {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// The name of its TAP; filled in by `io`, empty in simulations.
    pub tap: String,
    /// What crosses the TAP besides finished frames: `none`, `tcp` or `tcp and udp`; filled in by `io`.
    pub tap_offload: String,
    /// The supernodes this node is registered at.
    pub supernodes: Vec<SupernodeStatus>,
    /// The other members.
    pub peers: Vec<PeerStatus>,
    /// Addresses the switch knows.
    pub fdb_entries: usize,
    /// What becomes of questions for IP addresses: `local` or `flood`.
    #[serde(default)]
    pub arp: String,
    /// IP addresses of machines that are known, here and behind others.
    #[serde(default)]
    pub bindings: usize,
    /// What becomes of frames for multicast groups: `snoop` or `flood`.
    #[serde(default)]
    pub multicast: String,
    /// Groups that machines here want to hear.
    #[serde(default)]
    pub groups: usize,
    /// Every reason a frame or packet was dropped for, and the totals; names are stable.
    pub counters: BTreeMap<String, u64>,
}

/// A supernode, seen from a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupernodeStatus {
    /// `host:port`.
    pub address: String,
    /// The key that it must show, if one is known.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// Of the control link.
    pub state: LinkState,
    /// By what the control link and relayed frames travel, while it stands.
    #[serde(default)]
    pub transport: Option<Transport>,
    /// Of the control link.
    pub rtt_us: Option<u64>,
    /// Why it is not up, in words, if that is known.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What carries packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// As it should be.
    Udp,
    /// TLS over TCP, where UDP does not pass.
    Tcp,
}

/// Of a control link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// Registered.
    Up,
    /// Dialling or registering.
    Connecting,
    /// Waiting to dial again, or refused.
    Down,
    /// Not needed as long as enough others are up.
    Spare,
}

/// Another member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name; `null` until known.
    pub name: Option<String>,
    /// Its id.
    pub id: String,
    /// Whether it answers.
    pub state: PeerState,
    /// How its frames travel.
    pub path: PathStatus,
    /// Of the path in use.
    pub rtt_us: Option<u64>,
    /// The largest IP packet sent on the path in use, in bytes.
    pub mtu: Option<u16>,
    /// How far the search for it is.
    pub mtu_state: Option<MtuState>,
    /// The AEAD that seals the packets to it; `null` without keys.
    #[serde(default)]
    pub cipher: Option<String>,
    /// Frame bytes sent to it.
    pub tx_bytes: u64,
    /// Frame bytes received from it.
    pub rx_bytes: u64,
    /// Since anything genuine came from it.
    pub last_heard_ms: Option<u64>,
}

/// Of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// Keys agreed on, and it answers.
    Up,
    /// Keys are being made.
    Connecting,
    /// Left or silent.
    Gone,
    /// There, as a supernode says; the first frame for it wakes the link.
    Asleep,
}

/// Of a path's MTU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MtuState {
    /// Nothing was probed yet: no large frame went there.
    Assumed,
    /// Larger packets are being tried.
    Probing,
    /// As large as they pass, or as large as is needed.
    Found,
    /// What passed before does not any more, or nothing large passes.
    #[serde(rename = "black hole")]
    BlackHole,
}

/// A path in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStatus {
    /// Direct, relayed, or none.
    pub kind: PathKind,
    /// By what packets leave this host.
    #[serde(default)]
    pub transport: Option<Transport>,
    /// The address packets are sent to by UDP.
    pub remote: Option<SocketAddr>,
    /// The relaying supernode's address or member's name.
    pub via: Option<String>,
}

/// Of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// Straight to the peer.
    Direct,
    /// Through a supernode or a member.
    Relayed,
    /// Nowhere.
    None,
}

/// One line of a forwarding database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbRow {
    /// The overlay's name.
    pub overlay: String,
    /// 0 = untagged.
    pub vlan: u16,
    /// As `02:00:5e:10:00:01`.
    pub mac: String,
    /// Who has it: `tap`, or the peer's name (its id where the name is unknown).
    pub port: String,
    /// Counts the claims of it; the highest is right, 0 if nobody claimed it.
    #[serde(default)]
    pub sequence: u32,
    /// Whether it stays there because it moved too often.
    #[serde(default)]
    pub frozen: bool,
    /// Since it was last heard.
    pub age_ms: u64,
}

/// Why a peer is reached as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The peer.
    pub peer: PeerStatus,
    /// In this overlay.
    pub overlay: String,
    /// Why the present path was chosen, in words.
    pub why: String,
    /// The order that `longwire via` gave, in words; empty if there is none.
    #[serde(default)]
    pub order: String,
    /// Why packets are as large as they are, in words.
    pub mtu: String,
    /// The NAT in front of us, if known.
    #[serde(default)]
    pub nat: Option<NatStatus>,
    /// The NAT in front of the peer, if it told.
    #[serde(default)]
    pub peer_nat: Option<NatStatus>,
    /// Since the present path was chosen.
    #[serde(default)]
    pub since_ms: Option<u64>,
    /// When a direct path carried last, in words; empty if none did or one does.
    #[serde(default)]
    pub better: String,
    /// What keeps the two apart and what would make them direct, in sentences; empty if they are.
    #[serde(default)]
    pub advice: Vec<String>,
    /// Every relay that can carry.
    #[serde(default)]
    pub relays: Vec<RelayReport>,
    /// Every address that was tried.
    pub candidates: Vec<CandidateReport>,
}

/// What is known of a relay towards a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayReport {
    /// The supernode's address or the member's name.
    pub via: String,
    /// Round trip.
    pub rtt_us: Option<u64>,
    /// Probes that were lost of late.
    pub loss_percent: u32,
    /// In words: `in use`, `answers`, `no answer yet`.
    pub result: String,
}

/// What became of one candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateReport {
    /// The address.
    pub address: SocketAddr,
    /// Where it was learned from: `host`, `reflexive`, `peer-reflexive`, `configured`, `mapped`.
    pub kind: String,
    /// Probes sent to it.
    pub probes: u32,
    /// Answers that came back.
    pub answers: u32,
    /// Round trip of the last answer.
    pub rtt_us: Option<u64>,
    /// In words: `in use`, `answers`, `no answer yet`, `fell silent`.
    pub result: String,
    /// Since the last probe.
    #[serde(default)]
    pub probed_ms: Option<u64>,
    /// Since the last answer.
    #[serde(default)]
    pub answered_ms: Option<u64>,
    /// Why nothing can be expected of it, in words, if that is known.
    #[serde(default)]
    pub error: Option<String>,
}

/// What a supernode does for others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// The overlays with members here, by id.
    pub overlays: Vec<ServedOverlay>,
    /// Packets relayed, and every reason one was not.
    pub counters: BTreeMap<String, u64>,
}

/// One overlay at a supernode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedOverlay {
    /// Its id.
    pub id: String,
    /// Its members: id and address as seen.
    pub members: Vec<(String, SocketAddr)>,
    /// What the application looks like by its traffic, in words, if anything flows.
    #[serde(default)]
    pub pattern: Option<String>,
    /// Ways that are planned, and not the usual ones.
    #[serde(default)]
    pub ways: Vec<PlannedWay>,
    /// What is believed to let only so much through.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// What was decided of late, the last first, in words.
    #[serde(default)]
    pub decisions: Vec<String>,
}

/// A part of the network, and what it lets through as far as a supernode learned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Which part, in words.
    pub what: String,
    /// Bytes per second.
    pub bytes_per_s: u64,
}

/// A way that a supernode ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedWay {
    /// The member whose frames take it, by id.
    pub from: String,
    /// To this member.
    pub to: String,
    /// By this member; `direct`, or `here` for the supernode.
    pub via: String,
}
