//! What goes into a [`Node`](crate::node::Node) and what comes out: plain values, no behaviour.
//!
//! Below the node and the control room, so that both speak of the same things.

pub mod budget;
pub mod reserve;
pub mod rule;
pub mod stream;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::datapath::SwitchSettings;
use crate::datapath::buf::{Deliveries, OverlayIndex, Transmits};
use crate::datapath::fdb::Address;
use crate::datapath::lane::Order;
use crate::keys::{Fingerprint, Identity, NodeId, OverlayId, OverlaySecrets};
use crate::time::Time;
use crate::wire::carry::RelayFor;

use budget::LinkBudget;
use reserve::ReserveSettings;
use rule::{LinkSettings, RouteSettings};

/// All that a node is told at its start.
#[derive(Debug)]
pub struct Settings {
    /// The node's own keys.
    pub identity: Identity,
    /// What people call it.
    pub name: String,
    /// The overlays it is a member of; [`OverlayIndex`] counts them in this order.
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

/// A control link: the reliable, ordered channel of messages between a node and a supernode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkId {
    /// To the supernode at this place of the settings; one at a time.
    Dialled(usize),
    /// From a node that dialled us; numbered by whoever accepts, never reused.
    Accepted(u64),
}

/// What happens to a control link.
#[derive(Clone, Debug)]
pub enum LinkEvent {
    /// It stands. Its first message may follow. A dialled one that stands already has moved to another transport.
    Up {
        /// Which.
        link: LinkId,
        /// The other end's validated address, or the stream's ([`stream`]).
        remote: SocketAddr,
        /// Where it comes from, for limits and logs: `remote`, or the TCP address.
        origin: SocketAddr,
        /// Both ends' TLS exporter value (protocol.md section 7): binds signatures to this link.
        exporter: [u8; 32],
        /// The key the supernode showed; `None` on an accepted link.
        fingerprint: Option<Fingerprint>,
    },
    /// One whole message came (protocol.md section 7, without its length).
    Message {
        /// On which.
        link: LinkId,
        /// The other end's validated address, as it is now.
        remote: SocketAddr,
        /// Type and body.
        message: Vec<u8>,
    },
    /// It is gone, or never came to be.
    Down {
        /// Which.
        link: LinkId,
        /// Why, as a sentence for the user.
        reason: String,
    },
}

/// What to do with a control link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkCommand {
    /// Dial; ends in [`LinkEvent::Up`] or [`LinkEvent::Down`].
    Dial {
        /// Always [`LinkId::Dialled`].
        link: LinkId,
        /// `host:port`.
        address: String,
        /// The only key to accept, if there is one.
        pin: Option<Fingerprint>,
        /// Where it was reached last: tried where no name server helps.
        known: Option<SocketAddr>,
    },
    /// Send one message.
    Send {
        /// On which.
        link: LinkId,
        /// Type and body. What goes to many links is one piece of memory.
        message: Bytes,
    },
    /// Find another way than UDP for a dialled link that stands. If there is one, [`LinkEvent::Up`] comes again.
    Detour {
        /// Always [`LinkId::Dialled`].
        link: LinkId,
    },
    /// Close after what was sent; no [`LinkEvent::Down`] follows.
    Close {
        /// Which.
        link: LinkId,
    },
}

/// A socket beside the underlay socket, opened for one peer behind a difficult NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DoorId(pub u32);

/// What to do with doors. What comes in by one is handed in as any datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DoorCommand {
    /// Send this by a door; open it if it is not open.
    Send {
        /// Which.
        door: DoorId,
        /// Where to.
        to: SocketAddr,
        /// As it is.
        packet: Vec<u8>,
    },
    /// What the node sends to this address leaves by this door from now on, or by the first one by which
    /// something comes from there.
    Route {
        /// Which; opened if it is not open.
        door: DoorId,
        /// The address.
        to: SocketAddr,
    },
    /// Close these, but for the one that leads to `keep`.
    Close {
        /// Which.
        doors: std::ops::Range<DoorId>,
        /// The address.
        keep: Option<SocketAddr>,
    },
}

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
    },
    /// A registration was refused (on a supernode).
    MemberRefused {
        /// From where.
        from: SocketAddr,
        /// The reason in words.
        reason: &'static str,
    },
}
