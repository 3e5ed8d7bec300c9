//! What goes into a [`Node`](crate::node::Node) and what comes out: plain values, no behaviour.
//!
//! Below the node and the control room, so that both speak of the same things.

mod settings;

pub mod budget;
pub mod reserve;
pub mod rule;

mod link;

pub mod stream;

pub use link::{DoorCommand, DoorId, LinkCommand, LinkEvent, LinkId};
pub use settings::{
    HandshakeKind, Memory, OverlaySettings, RelaySettings, RememberedPeer, ServeSettings, Settings, SupernodeSettings,
};

use std::net::{IpAddr, SocketAddr};

use crate::datapath::buf::{Deliveries, OverlayIndex, Transmits};
use crate::datapath::fdb::Address;
use crate::datapath::lane::Order;
use crate::keys::{Fingerprint, NodeId, OverlayId};
use crate::time::Time;

/// What [`Node::poll_output`](crate::node::Node::poll_output) says.
#[derive(Debug)]
pub enum Output {
    /// Send these; hand the batch back with `recycle_transmits`.
    Transmit(Transmits),
    /// Write these to their TAPs; hand the batch back with `recycle_deliveries`.
    Deliver(Deliveries),
    /// Do this with a control link.
    Link(LinkCommand),
    /// Do this with a door; before any [`Output::Transmit`] of the same call.
    Door(DoorCommand),
    /// Tell another lane this, in this order with what else is told it and with [`Output::Transmit`].
    Lane(u8, Order),
    /// Keep this for the next start (small; rarely; the newest counts).
    Remember(Memory),
    /// Something a user may want to read.
    Event(Event),
    /// Send this on the links to the underlay, from the port for it (protocol.md section 8).
    Announce(Announce),
    /// Nothing more until input comes or this deadline passes.
    Wait(Deadline),
}

/// A packet for the node's own links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The member who asked; `None` for everybody on every link.
    pub to: Option<SocketAddr>,
    /// A whole DISCOVER.
    pub packet: Vec<u8>,
}

/// A route of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkRoute {
    /// The network it leads to.
    pub network: IpAddr,
    /// Bits of it that count.
    pub prefix: u8,
    /// Whether it leads into an overlay.
    pub is_inward: bool,
}

impl NetworkRoute {
    /// Whether `ip` is in the network.
    pub fn covers(&self, ip: IpAddr) -> bool {
        let prefix = u32::from(self.prefix);
        match (self.network, ip) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => {
                let apart = network.to_bits() ^ ip.to_bits();
                apart.checked_shr(32_u32.saturating_sub(prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(ip)) => {
                let apart = network.to_bits() ^ ip.to_bits();
                apart.checked_shr(128_u32.saturating_sub(prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// When a node wants to be called again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The time; [`Time::NEVER`] if there is none.
    pub at: Time,
    /// What for.
    pub reason: &'static str,
}

/// What a user notices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A supernode took our registration.
    Registered {
        /// For this overlay.
        overlay: OverlayIndex,
        /// `host:port`.
        supernode: String,
        /// Where it sees us; `None` over TCP.
        seen_as: Option<SocketAddr>,
    },
    /// A supernode said no.
    Refused {
        /// For this overlay.
        overlay: OverlayIndex,
        /// `host:port`.
        supernode: String,
        /// The reason in words.
        reason: &'static str,
    },
    /// UDP to a supernode loses much and carries little; TCP is tried.
    Throttled {
        /// `host:port`.
        supernode: String,
    },
    /// The link to a supernode broke or could not be made.
    SupernodeLost {
        /// `host:port`.
        supernode: String,
        /// A sentence.
        reason: String,
    },
    /// A supernode told of another one; this node registers there too.
    SupernodeLearned {
        /// `host:port`.
        supernode: String,
        /// Who told.
        from: String,
    },
    /// A supernode without a pin showed its key for the first time.
    SupernodeTrusted {
        /// `host:port`.
        supernode: String,
        /// The key.
        fingerprint: Fingerprint,
    },
    /// A peer answers.
    PeerUp {
        /// In this overlay.
        overlay: OverlayIndex,
        /// Who.
        peer: NodeId,
        /// Its name, if known.
        name: Option<String>,
    },
    /// A peer's frames take another way.
    PathChanged {
        /// In this overlay.
        overlay: OverlayIndex,
        /// Who.
        peer: NodeId,
        /// Its name, if known.
        name: Option<String>,
        /// `direct ADDRESS`, `relayed by SUPERNODE`, `relayed by MEMBER` or `none`.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// A peer left or fell silent; its MACs are forgotten.
    PeerGone {
        /// In this overlay.
        overlay: OverlayIndex,
        /// Who.
        peer: NodeId,
        /// Its name, if known.
        name: Option<String>,
        /// Why.
        reason: &'static str,
    },
    /// Ten seconds and nobody seen.
    Alone {
        /// In this overlay.
        overlay: OverlayIndex,
    },
    /// A peer claimed the address of a machine that answers behind our TAP; it was claimed back.
    AddressContested {
        /// In this overlay.
        overlay: OverlayIndex,
        /// Which.
        address: Address,
        /// Who claimed it.
        peer: NodeId,
        /// Its name, if known.
        name: Option<String>,
    },
    /// The segment behind our TAP is behind other members' TAPs too.
    SegmentShared {
        /// In this overlay.
        overlay: OverlayIndex,
        /// The others.
        with: Vec<String>,
        /// Whether we carry what is for everybody.
        ours: bool,
    },
    /// It is ours alone again.
    SegmentAlone {
        /// In this overlay.
        overlay: OverlayIndex,
    },
    /// An address moved too often between places where it answers; it stays at one of them for five minutes.
    AddressFrozen {
        /// In this overlay.
        overlay: OverlayIndex,
        /// Which.
        address: Address,
        /// Where it stays.
        owner: NodeId,
        /// That node's name, if known.
        name: Option<String>,
    },
    /// Our own sealed packets came out of a TAP: the overlay is routed into itself.
    UnderlayLoop {
        /// Through the TAP of this overlay.
        overlay: OverlayIndex,
    },
    /// A machine on another host would leave the network more room.
    MoveAdvised {
        /// In this overlay; at a supernode its id.
        overlay: String,
        /// Its MAC address, where it is known.
        machine: Option<String>,
        /// The host it is on.
        host: String,
        /// The host with whose machines it exchanges most.
        partner: String,
        /// The host to which it should go.
        target: String,
        /// The rate that promises, in percent of the present one.
        gain_percent: u64,
    },
    /// A member registered here (on a supernode).
    MemberJoined {
        /// In this overlay.
        overlay: OverlayId,
        /// Who.
        member: NodeId,
        /// From where.
        from: SocketAddr,
    },
    /// A member of ours is gone (on a supernode).
    MemberLeft {
        /// From this overlay.
        overlay: OverlayId,
        /// Who.
        member: NodeId,
        /// Why.
        reason: String,
    },
    /// A link ended by which nobody was registered (any more), on a supernode.
    LinkEnded {
        /// Where it came from.
        from: SocketAddr,
        /// Why.
        reason: String,
    },
    /// A registration was refused (on a supernode).
    MemberRefused {
        /// From where.
        from: SocketAddr,
        /// The reason in words.
        reason: &'static str,
    },
}
