//! Control links and doors: what `io` is to do with them, and what happens to them.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::keys::Fingerprint;

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
        /// The other end's validated address, or the stream's ([`stream`](super::stream)).
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
    /// It is dialled still.
    Waiting {
        /// Which.
        link: LinkId,
        /// What for, as a sentence for the user.
        reason: String,
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
