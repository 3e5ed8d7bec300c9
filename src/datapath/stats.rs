//! What the corridor counts: every frame or packet that ended on its way, by reason, and totals.
//!
//! Plain numbers owned by whoever runs the corridor; `longwire status` shows [`Stats::table`].
//! A name once given stays: scripts and graphs read it.

use std::collections::BTreeMap;

use super::replay::Refusal;
use super::seal::OpenError;
use crate::wire::DecodeError;

/// The enum, its order and its names from one list.
macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $reason:ident = $name:literal,)+) => {
        /// Why a frame or a packet ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason {
            $($(#[$doc])* $reason,)+
        }

        impl DropReason {
            /// Every reason, in the order a frame meets them.
            pub const ALL: &'static [Self] = &[$(Self::$reason),+];

            /// The name in `longwire status`, in snake case.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$reason => $name,)+
                }
            }
        }
    };
}

drop_reasons! {
    // Frames, at the switch.
    /// Shorter than an Ethernet header, or ends within a VLAN tag.
    Runt = "runt",
    /// Longer than the overlay carries.
    Jumbo = "jumbo",
    /// What the kernel said of the frame does not fit it.
    Offload = "offload",
    /// Pause or slow protocol, or a BPDU where these are off.
    LinkLocal = "link_local",
    /// The source is a group address or all zeroes.
    GroupSource = "group_source",
    /// The destination is on the side that the frame came from.
    Local = "local",
    /// From a peer, for a MAC known at another peer: nobody's relay.
    Elsewhere = "elsewhere",
    /// From a peer, with the source of a machine that is live behind our TAP.
    Hijack = "hijack",
    /// A static rule says so.
    Rule = "rule",
    /// To this daemon itself: the answer to a question it asked its segment.
    Answer = "answer",
    /// More addresses moved than are remembered: frames for them are not sent on.
    MovesFull = "moves_full",
    /// More IP addresses of machines than are remembered: questions for them are flooded.
    BindingsFull = "bindings_full",
    /// The segment is another member's too, and that one carries it; or it is not known yet whether it is.
    Shared = "shared",
    /// More floods than the limit.
    FloodLimit = "flood_limit",
    /// One of our own packets came out of a TAP: the overlay must not run over itself.
    UnderlayLoop = "underlay_loop",
    /// A daemon's announcement to its own link came out of a TAP; it stays on that link.
    Announcement = "announcement",
    /// More than was reserved, or than the uplink has left.
    RateLimit = "rate_limit",
    /// For a multicast group that no other member wants to hear, or a report for routers where there are none.
    Unwanted = "unwanted",
    /// No peer to send to.
    NoPeer = "no_peer",
    /// The peer cannot be reached on any path.
    NoPath = "no_path",
    /// Another lane had it for lane 0, which was behind.
    LaneFull = "lane_full",
    /// Too many frames wait for this peer's keys.
    QueueFull = "queue_full",
    /// Waited for keys that did not come.
    NoKeys = "no_keys",
    /// The kernel did not take the frame at the TAP.
    TapFull = "tap_full",
    /// The kernel did not take the datagram at the socket.
    SocketFull = "socket_full",

    // Datagrams, at the door.
    /// The first byte is no kind that we know.
    UnknownKind = "unknown_kind",
    /// An address told, or a NAT opened, for nothing that we wait for.
    Unasked = "unasked",
    /// Lengths do not fit.
    Malformed = "malformed",
    /// A bit, kind or version that has no meaning yet.
    Reserved = "reserved",
    /// No session has this receiver index.
    UnknownIndex = "unknown_index",
    /// The key is too old or too much used.
    Expired = "expired",
    /// The seal is not whole.
    Forged = "forged",
    /// Opened before: a repeat, or a copy by a second path.
    Replayed = "replayed",
    /// Too late for the replay window.
    TooOld = "too_old",
    /// One piece of a split frame never came.
    Reassembly = "reassembly",
    /// More claims of addresses than one peer may make.
    ClaimLimit = "claim_limit",

    // Relay packets, at either end of a leg.
    /// No leg of that relay id comes from there.
    RelayUnknownSender = "relay_unknown_sender",
    /// The leg's tag is wrong.
    RelayBadTag = "relay_bad_tag",
    /// The leg's counter was used before or is too old.
    RelayReplayed = "relay_replayed",
    /// No leg of this overlay has that relay id.
    RelayUnknownReceiver = "relay_unknown_receiver",
    /// More than this node passes on for others.
    RelayShare = "relay_share",
    /// A member wants to be carried, and may not be, or asks too often.
    RelayRefused = "relay_refused",
    /// More than the leg's share waits for the receiver.
    RelayQueueFull = "relay_queue_full",

    // Handshakes.
    /// The gate's MAC is wrong: not of this overlay, or not for this node.
    HandshakeBadMac = "handshake_bad_mac",
    /// Noise could not open it.
    HandshakeForged = "handshake_forged",
    /// Its time is not later than the last one's.
    HandshakeReplayed = "handshake_replayed",
    /// More handshakes than the limit.
    HandshakeLimit = "handshake_limit",
    /// An answer to nothing that we asked.
    HandshakeUnexpected = "handshake_unexpected",
    /// A probe that was not sent: too many went to addresses that never answered.
    ProbeLimit = "probe_limit",
    /// A member told its addresses too often.
    CandidateLimit = "candidate_limit",
    /// The certificate is not of this overlay.
    NotAMember = "not_a_member",
}

impl From<DecodeError> for DropReason {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Reserved => Self::Reserved,
            DecodeError::Short
            | DecodeError::Long
            | DecodeError::Range
            | DecodeError::Version
            | DecodeError::Forged => Self::Malformed,
        }
    }
}

impl From<OpenError> for DropReason {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Replay(refusal) => refusal.into(),
            OpenError::Forged => Self::Forged,
        }
    }
}

impl From<Refusal> for DropReason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Replayed => Self::Replayed,
            Refusal::TooOld => Self::TooOld,
        }
    }
}

/// The counters of one corridor.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Frames from the TAP.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames to the TAP.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Genuine packets opened.
    pub datagrams_in: u64,
    /// Packets sealed.
    pub datagrams_out: u64,
    /// Packets relayed for members (on a supernode).
    pub relayed: u64,
    /// Their bytes.
    pub relayed_bytes: u64,
    /// Frames sent to every peer, each counted once.
    pub floods: u64,
    /// Frames that left in two pieces.
    pub splits: u64,
    /// Frames that went to the TAP as part of a superframe, but for the first of each.
    pub joined: u64,
    /// Frames sent on to where their machine had moved.
    pub moved: u64,
    /// Questions for IP addresses that were answered at home.
    pub answered: u64,
    /// Questions for IP addresses that went to the one member that knows.
    pub asked: u64,
    /// Frames for multicast groups that went to those alone that want to hear them.
    pub pruned: u64,
    /// Copies of other members' frames for everybody that were handed on.
    pub branched: u64,
    /// Members to whom such a frame could not be handed on, so that its root had to.
    pub given_back: u64,
    /// Frames and packets that a lane handed to lane 0.
    pub handed: u64,
    dropped: [u64; DropReason::ALL.len()],
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            frames_in: 0,
            bytes_in: 0,
            frames_out: 0,
            bytes_out: 0,
            datagrams_in: 0,
            relayed: 0,
            datagrams_out: 0,
            relayed_bytes: 0,
            floods: 0,
            splits: 0,
            joined: 0,
            moved: 0,
            answered: 0,
            asked: 0,
            pruned: 0,
            branched: 0,
            given_back: 0,
            handed: 0,
            dropped: [0; DropReason::ALL.len()],
        }
    }
}

impl Stats {
    /// A frame came from the TAP.
    pub fn frame_in(&mut self, bytes: usize) {
        self.frames_in += 1;
        self.bytes_in += bytes as u64;
    }

    /// A frame goes to the TAP.
    pub fn frame_out(&mut self, bytes: usize) {
        self.frames_out += 1;
        self.bytes_out += bytes as u64;
    }

    /// A packet was relayed for a member.
    pub fn relayed_packet(&mut self, bytes: usize) {
        self.relayed += 1;
        self.relayed_bytes += bytes as u64;
    }

    /// One more ended for `reason`.
    pub fn dropped(&mut self, reason: DropReason) {
        self.dropped_many(reason, 1);
    }

    /// `count` more ended for `reason`.
    pub fn dropped_many(&mut self, reason: DropReason, count: u64) {
        self.dropped[reason as usize] += count;
    }

    /// How many ended for `reason`.
    pub fn count(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Every counter by name, zeroes too.
    pub fn table(&self) -> BTreeMap<String, u64> {
        let totals = self.totals().into_iter();
        let drops = DropReason::ALL.iter().map(|reason| (reason.name(), self.count(*reason)));
        totals.chain(drops).map(|(name, count)| (name.to_owned(), count)).collect()
    }

    /// Adds what another one counted.
    pub fn add(&mut self, more: &Self) {
        let Self {
            frames_in,
            bytes_in,
            frames_out,
            bytes_out,
            datagrams_in,
            relayed,
            datagrams_out,
            relayed_bytes,
            floods,
            splits,
            joined,
            moved,
            answered,
            asked,
            pruned,
            branched,
            given_back,
            handed,
            dropped,
        } = more;
        self.frames_in += frames_in;
        self.bytes_in += bytes_in;
        self.frames_out += frames_out;
        self.bytes_out += bytes_out;
        self.datagrams_in += datagrams_in;
        self.datagrams_out += datagrams_out;
        self.relayed += relayed;
        self.relayed_bytes += relayed_bytes;
        self.floods += floods;
        self.splits += splits;
        self.joined += joined;
        self.moved += moved;
        self.answered += answered;
        self.asked += asked;
        self.pruned += pruned;
        self.branched += branched;
        self.given_back += given_back;
        self.handed += handed;
        self.dropped.iter_mut().zip(dropped).for_each(|(sum, count)| *sum += count);
    }

    fn totals(&self) -> [(&'static str, u64); 18] {
        let Self {
            frames_in,
            bytes_in,
            frames_out,
            bytes_out,
            datagrams_in,
            relayed,
            datagrams_out,
            relayed_bytes,
            floods,
            splits,
            joined,
            moved,
            answered,
            asked,
            pruned,
            branched,
            given_back,
            handed,
            dropped: _,
        } = *self;
        [
            ("frames_in", frames_in),
            ("bytes_in", bytes_in),
            ("frames_out", frames_out),
            ("bytes_out", bytes_out),
            ("datagrams_in", datagrams_in),
            ("relayed", relayed),
            ("datagrams_out", datagrams_out),
            ("relayed_bytes", relayed_bytes),
            ("floods", floods),
            ("splits", splits),
            ("joined", joined),
            ("moved", moved),
            ("answered", answered),
            ("asked", asked),
            ("pruned", pruned),
            ("branched", branched),
            ("given_back", given_back),
            ("handed", handed),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter() {
        let mut stats = Stats::default();
        for (times, reason) in (1..).zip(DropReason::ALL) {
            stats.dropped_many(*reason, times);
            stats.dropped(*reason);
        }
        for (times, reason) in (2..).zip(DropReason::ALL) {
            assert_eq!(stats.count(*reason), times, "{reason:?}");
        }
    }

    #[test]
    fn the_table_has_every_counter_once_in_snake_case() {
        let mut stats = Stats { frames_in: 3, splits: 4, ..Stats::default() };
        stats.dropped(DropReason::Hijack);
        let table = stats.table();
        assert_eq!(table.len(), DropReason::ALL.len() + stats.totals().len(), "no name twice");
        assert_eq!((table["frames_in"], table["splits"], table["hijack"], table["runt"]), (3, 4, 1, 0));
        for name in table.keys() {
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        }
    }

    #[test]
    fn names_say_what_the_reasons_are_called() {
        for reason in DropReason::ALL {
            let mut snake = String::new();
            for letter in format!("{reason:?}").chars() {
                if letter.is_uppercase() && !snake.is_empty() {
                    snake.push('_');
                }
                snake.extend(letter.to_lowercase());
            }
            assert_eq!(reason.name(), snake);
        }
    }

    #[test]
    fn a_refused_counter_has_its_reason() {
        assert_eq!(DropReason::from(Refusal::Replayed), DropReason::Replayed);
        assert_eq!(DropReason::from(Refusal::TooOld), DropReason::TooOld);
    }
}
