//! Addresses at which a node may be heard, as SESSION messages and directory entries tell them.

use std::net::SocketAddr;

use super::codec::{DecodeError, Reader, Writer};

/// Where an address of a peer was learned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CandidateKind {
    /// On one of its own interfaces.
    Host,
    /// As a supernode sees it.
    Reflexive,
    /// As another member heard it.
    PeerReflexive,
    /// Written in a config, or remembered from an earlier run.
    Configured,
    /// Where its router lets strangers in to it: PCP, NAT-PMP, UPnP.
    Mapped,
    /// What a counting NAT will open next.
    Predicted,
}

impl CandidateKind {
    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Reflexive => "reflexive",
            Self::PeerReflexive => "peer-reflexive",
            Self::Configured => "configured",
            Self::Mapped => "mapped",
            Self::Predicted => "predicted",
        }
    }

    /// Whether the node knows it by itself, and a supernode cannot tell the others of it.
    pub const fn is_own(self) -> bool {
        matches!(self, Self::Host | Self::Mapped)
    }

    const fn byte(self) -> u8 {
        match self {
            Self::Host => 1,
            Self::Reflexive => 2,
            Self::PeerReflexive => 3,
            Self::Configured => 4,
            Self::Mapped => 5,
            Self::Predicted => 6,
        }
    }

    const fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Host),
            2 => Some(Self::Reflexive),
            3 => Some(Self::PeerReflexive),
            4 => Some(Self::Configured),
            5 => Some(Self::Mapped),
            6 => Some(Self::Predicted),
            _ => None,
        }
    }
}

/// An address at which a node may be heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Candidate {
    /// Where it was learned from.
    pub kind: CandidateKind,
    /// The address.
    pub addr: SocketAddr,
}

impl Candidate {
    pub(super) fn write(self, writer: Writer) -> Writer {
        writer.u8(self.kind.byte()).addr(self.addr)
    }

    /// `None` for a kind of a later version.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        let kind = CandidateKind::of(reader.u8()?);
        let addr = reader.addr()?;
        Ok(kind.map(|kind| Self { kind, addr }))
    }
}
