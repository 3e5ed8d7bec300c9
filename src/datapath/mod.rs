//! The corridor: one frame, in order of travel.
//!
//! Towards the peers: [`frame`] reads the header, `rules`, `switch` and [`fdb`] decide, `reserve` admits, `port` names
//! keys and path, [`seal`] makes a packet, `relay` puts a leg in front, [`buf`] carries it out. Back the other
//! way. What is for many goes by `tree`, what is for a group to whom `groups` says. No await, no lock, no clock, no
//! log, no allocation per frame that has one receiver. It meets the control room only through [`Command`] and
//! [`Notice`], which `node.rs` carries.

pub mod buf;

pub mod frame;

pub mod offload;

pub mod fair;

mod outbound;

mod switch;

mod ownership;

mod gate;

mod rules;

mod moves;

mod stations;

mod ask;

pub mod neighbour;

mod holdings;

mod told;

mod suppress;

mod listener;

mod groups;

mod tree;

pub mod fdb;

pub mod limit;

mod reserve;

mod shape;

mod path;

mod port;

mod way;

pub mod pairs;

pub mod clamp;

pub mod layout;

pub mod checksum;

pub mod segment;

pub mod seal;

pub mod replay;

pub mod fragment;

mod relay;

mod source;

mod inbound;

pub mod coalesce;

pub mod stats;

mod command;

mod orders;

pub mod lane;

pub use command::{Command, Notice};
pub use gate::Gate;
pub use ownership::News;
pub use pairs::{MacPair, Side, Volume};
pub use path::{LegId, Path, Ways};
pub use port::{Activity, MTU_ASSUMED, MTU_FLOOR, Tally};
pub use relay::LegTally;
pub use reserve::{Marking, RATE_MAX, Share, Shares};
pub use rules::{Action, Hits, Pattern, RULES_MAX, Rank, Rule, RuleWay, rank};
pub use switch::SwitchSettings;
pub use tree::Site;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;

use buf::{Batch, Deliveries, Target, Transmits};
use coalesce::Coalescer;
use fair::Order;
use fdb::PortId;
use lane::Role;
use port::Port;
use relay::{Channels, Legs};
use reserve::Reserve;
use source::Sources;
use stats::Stats;
use switch::{Hop, Switch};

use crate::wire::data::OVERHEAD;
use crate::wire::{HEADERS_V4, HEADERS_V6, relay as relay_wire};

/// The corridor of a node: all its overlays, ports, keys and legs.
pub struct Datapath {
    switches: Vec<Switch>,
    ports: BTreeMap<PortId, Port>,
    by_index: HashMap<u32, PortId, ahash::RandomState>,
    remote_indices: HashSet<u32, ahash::RandomState>,
    legs: Legs,
    channels: Channels,
    stats: Vec<Stats>,
    node_stats: Stats,
    sources: Sources,
    transmits: Transmits,
    deliveries: Deliveries,
    order: Order,
    joining: Coalescer,
    cut: Batch<()>,
    ruled: Vec<Hop>,
    finished: Vec<u8>,
    branch: Vec<u8>,
    scratch: Vec<u8>,
    notices: VecDeque<Notice>,
    reserve: Option<Reserve>,
    /// Peers for whom frames wait for their share of the way out.
    waiting: BTreeSet<PortId>,
    /// The turn of whoever was let go last.
    turn: u64,
    role: Role,
}

/// The longest frame that travels in one packet on `path`, whose next stop is `to`, if IP packets there may have
/// `mtu` bytes.
fn frame_limit(path: Path, to: SocketAddr, mtu: u16) -> usize {
    usize::from(mtu) - ip_headers(to) - lead(path) - OVERHEAD
}

/// Bytes in front of a datagram to `to`.
const fn ip_headers(to: SocketAddr) -> usize {
    if to.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 }
}

/// Bytes in front of a packet on `path`: the relay header, or nothing.
const fn lead(path: Path) -> usize {
    if path.is_direct() { 0 } else { relay_wire::HEADER_LEN }
}
