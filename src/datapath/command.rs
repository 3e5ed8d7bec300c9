//! What the control room tells the corridor, and what the corridor tells the control room.

use std::net::SocketAddr;
use std::sync::Arc;

use super::buf::OverlayIndex;
use super::fdb::{Address, PortId};
use super::gate::Gate;
use super::ownership::News;
use super::pairs::{MacPair, Volume};
use super::path::{LegId, Path, Ways};
use super::port::{Activity, Tally};
use super::relay::LegTally;
use super::reserve::{Marking, Shares};
use super::rules::Rule;
use super::seal::SessionKeys;
use super::stats::DropReason;
use super::tree::Site;
use crate::keys::OverlayId;
use crate::time::Time;
use crate::wire::inventory::Excerpt;
use crate::wire::relay::{LegKey, RelayId};
use crate::wire::tree::ShortId;

/// From the control room.
#[derive(Clone, Debug)]
pub enum Command {
    /// A peer is known: frames may be flooded to it.
    OpenPort {
        /// Never used before.
        port: PortId,
        /// Its overlay.
        overlay: OverlayIndex,
        /// How others name it.
        short: ShortId,
    },
    /// A peer is gone: its MACs are forgotten.
    ClosePort {
        /// Which.
        port: PortId,
    },
    /// New keys.
    Install {
        /// For this port.
        port: PortId,
        /// Both directions.
        keys: SessionKeys,
        /// The peer has them too (we initiated); otherwise they wait for the first packet that shows it.
        confirmed: bool,
    },
    /// Frames take this path from now on; `None` holds them back.
    UsePath {
        /// Of this port.
        port: PortId,
        /// The path.
        path: Option<Path>,
    },
    /// IP packets may have `mtu` bytes; void if frames take another path by now.
    SetLimit {
        /// Of this port.
        port: PortId,
        /// On this path.
        path: Path,
        /// At least [`MTU_FLOOR`](super::MTU_FLOOR).
        mtu: u16,
    },
    /// A peer fell silent: its MACs are forgotten, and nothing is flooded to it before new keys come.
    Silence {
        /// Its port.
        port: PortId,
    },
    /// A peer may have lost its keys: nothing more is sealed with ours. What comes is opened while they live.
    LapseKeys {
        /// Its port.
        port: PortId,
    },
    /// A link sleeps: that the peer is there, a supernode says. Tell us with [`Notice::Used`] when the next frame for one
    /// machine alone crosses it. Or it is awake.
    SetAsleep {
        /// The peer's port.
        port: PortId,
        /// Which of both.
        asleep: bool,
    },
    /// What a peer said that it can do, in its handshake or to the supernode.
    SetAbilities {
        /// Its port.
        port: PortId,
        /// Whether it knows of machines that move.
        follows: bool,
        /// Whether it hands on what is for everybody.
        trees: bool,
    },
    /// A peer, or this node (at the TAP's port), is at this site.
    SetSite {
        /// In this overlay.
        overlay: OverlayIndex,
        /// Which.
        port: PortId,
        /// Where.
        site: Site,
    },
    /// Claim an address once more, if nothing has become of it since.
    ClaimAgain {
        /// In this overlay.
        overlay: OverlayIndex,
        /// Which.
        address: Address,
        /// As it was told.
        news: News,
    },
    /// Ask our segment once more for a machine that is said to have left it.
    AskAgain {
        /// In this overlay.
        overlay: OverlayIndex,
        /// Which.
        address: Address,
    },
    /// Tell a peer which IP addresses the machines behind our TAP have, and have it tell its own.
    TellAll {
        /// Its port.
        port: PortId,
    },
    /// Tell with [`Notice::Excerpt`] which IP addresses the machines behind our TAP have.
    Excerpt {
        /// In this overlay.
        overlay: OverlayIndex,
    },
    /// A peer says by a supernode which IP addresses the machines behind its TAP have.
    Believe {
        /// Its port.
        port: PortId,
        /// What it says.
        excerpt: Excerpt,
    },
    /// Do what is due for the IP addresses of machines ([`Notice::Inventory`]).
    Tend {
        /// In this overlay.
        overlay: OverlayIndex,
    },
    /// A peer says where an address is.
    Locate {
        /// Which peer.
        from: PortId,
        /// Who has it; `None` if it says that we have.
        owner: Option<PortId>,
        /// Which.
        address: Address,
        /// Of its last claim.
        sequence: u32,
    },
    /// What passes between a TAP and the overlay from now on.
    SetGate {
        /// The overlay.
        overlay: OverlayIndex,
        /// What.
        gate: Gate,
    },
    /// These are the static rules of an overlay from now on.
    SetRules {
        /// The overlay.
        overlay: OverlayIndex,
        /// In any order.
        rules: Arc<[Rule]>,
    },
    /// This is reserved from now on, and nothing else.
    SetReserve {
        /// All of it.
        shares: Shares,
    },
    /// Frames that waited for their share may go by now.
    Release,
    /// What outer packets of an overlay are marked with from now on.
    SetMarking {
        /// The overlay.
        overlay: OverlayIndex,
        /// With what.
        marking: Marking,
    },
    /// The ways to a peer among which rules choose.
    SetWays {
        /// Its port.
        port: PortId,
        /// Those that carry.
        ways: Ways,
    },
    /// A frame of ours for our own segment.
    Deliver {
        /// Of this overlay.
        overlay: OverlayIndex,
        /// Whole.
        frame: Vec<u8>,
    },
    /// A packet ended in the control room.
    CountDrop {
        /// Why.
        reason: DropReason,
    },
    /// Seal a message to a peer and send it on `path`, whichever path frames take.
    SendSession {
        /// To this port.
        port: PortId,
        /// This way.
        path: Path,
        /// Type and body (protocol.md section 5).
        message: Vec<u8>,
        /// A hop limit other than the system's.
        hops: Option<u8>,
    },
    /// The same, with zeros behind the message: the IP packet has `size` bytes.
    SendSized {
        /// To this port.
        port: PortId,
        /// This way.
        path: Path,
        /// Type and body.
        message: Vec<u8>,
        /// Of the IP packet.
        size: u16,
    },
    /// Send a handshake packet.
    SendPlain {
        /// This way.
        path: Path,
        /// INIT or RESP.
        packet: Vec<u8>,
    },
    /// Report on a port with [`Notice::Measured`].
    Measure {
        /// Which.
        port: PortId,
    },
    /// Report with [`Notice::Tallied`] on the ports of an overlay on which anything flowed since the last time.
    Tally {
        /// Which.
        overlay: OverlayIndex,
    },
    /// Tell us with [`Notice::Active`] when the next frame is sent.
    Watch {
        /// On this port.
        port: PortId,
    },
    /// We have a leg at a supernode or a member.
    SetLeg {
        /// Our number for it.
        leg: LegId,
        /// Where.
        relay: SocketAddr,
        /// Shared with it.
        key: LegKey,
    },
    /// A leg goes on by another transport: same key, same counters.
    MoveLeg {
        /// Which.
        leg: LegId,
        /// Its supernode by the other transport.
        relay: SocketAddr,
    },
    /// Tell what came by a leg ([`Notice::LegMeasured`]).
    MeasureLeg {
        /// Which.
        leg: LegId,
    },
    /// A leg of ours is closed.
    DropLeg {
        /// Which.
        leg: LegId,
    },
    /// A member has a leg here (we relay for it).
    SetChannel {
        /// Its number.
        relay: RelayId,
        /// Its overlay.
        overlay: OverlayId,
        /// Its validated address.
        addr: SocketAddr,
        /// Shared with it.
        key: LegKey,
    },
    /// A member's validated address changed.
    MoveChannel {
        /// Its number.
        relay: RelayId,
        /// The new one.
        addr: SocketAddr,
    },
    /// A member's leg is closed.
    DropChannel {
        /// Its number.
        relay: RelayId,
    },
    /// Our addresses are others now.
    KeepSources {
        /// There are several, so that packets go back from the one that was spoken to.
        keep: bool,
    },
    /// What is relayed for members, in all.
    SetShare {
        /// At most; as much as comes if `None`.
        bytes_per_s: Option<u32>,
    },
}

/// To the control room.
#[derive(Debug)]
pub enum Notice {
    /// A frame waits for keys.
    NeedKeys {
        /// Of this port.
        port: PortId,
    },
    /// INIT or RESP came.
    Handshake {
        /// This way.
        path: Path,
        /// The packet.
        packet: Vec<u8>,
    },
    /// A genuine message came from a peer.
    Session {
        /// From this port.
        port: PortId,
        /// This way.
        path: Path,
        /// Type and body.
        message: Vec<u8>,
    },
    /// Something genuine came by another path than the one in use.
    Heard {
        /// From this port.
        port: PortId,
        /// This way.
        path: Path,
    },
    /// A packet that says nothing came through the NAT.
    Opener {
        /// From here.
        from: SocketAddr,
    },
    /// Somebody says where it sees us.
    Observed {
        /// The packet.
        packet: Vec<u8>,
    },
    /// The peer has shown that it has the keys we wait with.
    Confirmed {
        /// This port.
        port: PortId,
        /// The way its first packet came.
        path: Path,
    },
    /// Frames begin to flow.
    Active {
        /// To this port.
        port: PortId,
    },
    /// The port is used, for more than what everybody gets ([`Command::SetAsleep`]).
    Used {
        /// Which.
        port: PortId,
    },
    /// Frames flow on a port that was idle when the overlay was tallied last.
    Busy {
        /// Of this overlay.
        overlay: OverlayIndex,
    },
    /// The answer to [`Command::Tally`].
    Tallied {
        /// Of this overlay.
        overlay: OverlayIndex,
        /// What flowed since the last time.
        ports: Vec<(PortId, Tally)>,
        /// Which machines it flowed between, across the overlay.
        machines: Vec<(MacPair, Volume)>,
    },
    /// The answer to [`Command::Measure`].
    Measured {
        /// Of this port.
        port: PortId,
        /// What happened on it.
        activity: Activity,
    },
    /// What came by a leg ([`Command::MeasureLeg`]).
    LegMeasured {
        /// Which.
        leg: LegId,
        /// Since it is there.
        tally: LegTally,
    },
    /// A receiver index is free again.
    Retired {
        /// Which.
        index: u32,
    },
    /// What looks like a member's loop probe came out of a TAP.
    LoopProbe {
        /// Of this overlay.
        overlay: OverlayIndex,
        /// What it carries.
        body: Vec<u8>,
    },
    /// Something is to be told of an address.
    Address {
        /// In this overlay.
        overlay: OverlayIndex,
        /// Which.
        address: Address,
        /// What.
        news: News,
    },
    /// Frames wait for their share of the way out: [`Command::Release`] is wanted soon.
    Shaped,
    /// Something is to be done for the IP addresses of machines ([`Command::Tend`]).
    Inventory {
        /// In this overlay.
        overlay: OverlayIndex,
        /// Not before then.
        at: Time,
    },
    /// What [`Command::Excerpt`] asked for.
    Excerpt {
        /// In this overlay.
        overlay: OverlayIndex,
        /// As much of it as anybody is told.
        excerpt: Excerpt,
    },
    /// Our own sealed packets came out of a TAP.
    UnderlayLoop {
        /// Of this overlay.
        overlay: OverlayIndex,
    },
}
