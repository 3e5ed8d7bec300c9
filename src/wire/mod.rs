//! Every byte on the underlay. The table is `protocol.md` beside this file; the code follows it.
//!
//! Parsing never panics and never allocates more than the input is long. Nothing here does I/O,
//! keeps state or reads a clock.

pub mod data;

pub mod handshake;

pub mod session;

mod candidate;

mod claim;

pub mod inventory;

pub mod tree;

pub mod carry;

pub mod relay;

pub mod observe;

pub mod advice;
pub mod plan;

pub mod certificate;

pub mod message;

pub mod stream;

pub mod discovery;

pub mod probe;

pub mod version;

mod codec;

pub use codec::{DecodeError, Reader, Writer};

/// The version of the wire, in every handshake and in the control link's ALPN.
pub const VERSION: u8 = 1;

/// The UDP port of a supernode, and of a node if it is free.
pub const DEFAULT_PORT: u16 = 7777;

/// The protocol name TLS negotiates on the control link.
pub const ALPN: &[u8] = b"longwire/1";

/// First byte of an announcement; it has a port of its own and is no [`Kind`].
pub const DISCOVER: u8 = 0x0c;

/// The highest VLAN identifier that a tag has room for.
pub const VLAN_MAX: u16 = 0x0fff;

/// IPv4 and UDP headers, in front of a datagram.
pub const HEADERS_V4: usize = 20 + 8;

/// IPv6 and UDP headers.
pub const HEADERS_V6: usize = 40 + 8;

/// Of what is sealed under a key that all members have; drawn anew each time.
pub const NONCE_LEN: usize = 12;

/// The parts of an announcement or a loop probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The clear part.
    pub head: &'a [u8],
    /// Its nonce.
    pub nonce: [u8; NONCE_LEN],
    /// Plain form and tag, sealed.
    pub sealed: &'a [u8],
}

/// What the first byte of a datagram says (protocol.md section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// First message of a handshake.
    Init,
    /// Second message of a handshake.
    Resp,
    /// A sealed frame.
    Data,
    /// A sealed message between two members.
    Session,
    /// A packet through a supernode.
    Relay,
    /// "Where do you see me?"
    Observe,
    /// The answer to that.
    Observed,
    /// Opens a NAT; nobody reads it.
    Opener,
    /// The control link.
    Quic,
}

impl Kind {
    /// Of a first byte; `None` for what is reserved or nobody's.
    pub const fn of(first: u8) -> Option<Self> {
        match first {
            0x01 => Some(Self::Init),
            0x02 => Some(Self::Resp),
            0x04 => Some(Self::Data),
            0x05 => Some(Self::Session),
            0x08 => Some(Self::Relay),
            observe::OBSERVE => Some(Self::Observe),
            observe::OBSERVED => Some(Self::Observed),
            observe::OPENER => Some(Self::Opener),
            byte if byte & 0x40 != 0 => Some(Self::Quic),
            _ => None,
        }
    }
}
