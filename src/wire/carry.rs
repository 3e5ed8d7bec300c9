//! What members tell each other so that one of them carries for two others (protocol.md section 5).
//!
//! Bodies of SESSION messages; [`session`](super::session) gives them their types.

use super::codec::{DecodeError, Reader, Writer};
use super::relay::{LegKey, RelayId};
use crate::keys::NodeId;

/// Most members in one NEIGHBOURS: it fits every packet, and the nearest few are what matters.
pub const NEIGHBOURS_MAX: usize = 16;
/// What a LEG has behind the node id.
const LEG_TAIL: usize = 24;

/// For whom a member relays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RelayFor {
    /// Nobody.
    Nobody,
    /// Pairs with an end at its own site.
    #[default]
    Site,
    /// All members of the overlay.
    Everyone,
}

impl RelayFor {
    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::Nobody => 0,
            Self::Site => 1,
            Self::Everyone => 2,
        }
    }

    /// What a later version means by another byte is not for us.
    pub(super) const fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Site,
            2 => Self::Everyone,
            _ => Self::Nobody,
        }
    }
}

/// A member that the sender reaches directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Who.
    pub node: NodeId,
    /// Round trip, in microseconds.
    pub rtt_us: u32,
}

/// "These I reach directly."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbours {
    /// The receiver shall send its own.
    pub wants_answer: bool,
    /// At most [`NEIGHBOURS_MAX`].
    pub list: Vec<Neighbour>,
}

impl Neighbours {
    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (flags, count) = (reader.u8()?, usize::from(reader.u8()?));
        if flags > 1 || count > NEIGHBOURS_MAX {
            return Err(DecodeError::Range);
        }
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(Neighbour { node: NodeId(reader.array()?), rtt_us: reader.u32()? });
        }
        Ok(Self { wants_answer: flags == 1, list })
    }

    pub(super) fn write(&self, writer: Writer) -> Writer {
        let list = &self.list[..self.list.len().min(NEIGHBOURS_MAX)];
        let count = u8::try_from(list.len()).expect("cut to the limit above");
        let head = writer.u8(u8::from(self.wants_answer)).u8(count);
        list.iter().fold(head, |writer, one| writer.bytes(&one.node.0).u32(one.rtt_us))
    }
}

/// "Carry what I send to this member", or "no more".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carry {
    /// To whom.
    pub node: NodeId,
    /// Or no more.
    pub wanted: bool,
}

impl Carry {
    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let wanted = one_or_two(reader)?;
        Ok(Self { wanted, node: NodeId(reader.array()?) })
    }

    pub(super) fn write(self, writer: Writer) -> Writer {
        writer.u8(if self.wanted { 1 } else { 2 }).bytes(&self.node.0)
    }
}

/// The answer, to both ends: their legs at the sender, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The member at the other end.
    pub node: NodeId,
    /// `None` is a refusal.
    pub grant: Option<Grant>,
}

/// A leg at a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The receiver's leg.
    pub own: RelayId,
    /// Its key.
    pub key: LegKey,
    /// The leg of the member at the other end.
    pub peer: RelayId,
}

impl Leg {
    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let is_granted = one_or_two(reader)?;
        let node = NodeId(reader.array()?);
        if !is_granted {
            reader.reserved(LEG_TAIL)?;
            return Ok(Self { node, grant: None });
        }
        let (own, key) = (RelayId(reader.u32()?), LegKey(reader.array()?));
        Ok(Self { node, grant: Some(Grant { own, key, peer: RelayId(reader.u32()?) }) })
    }

    pub(super) fn write(self, writer: Writer) -> Writer {
        match self.grant {
            Some(Grant { own, key, peer }) => writer.u8(1).bytes(&self.node.0).u32(own.0).bytes(&key.0).u32(peer.0),
            None => writer.u8(2).bytes(&self.node.0).reserved(LEG_TAIL),
        }
    }
}

fn one_or_two(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8()? {
        1 => Ok(true),
        2 => Ok(false),
        _ => Err(DecodeError::Range),
    }
}
