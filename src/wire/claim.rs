//! Whose a MAC address is: what CLAIM and LOCATION tell (protocol.md section 5).

use super::VLAN_MAX;
use super::codec::{DecodeError, Reader, Writer};

/// An address, and how often it has moved as far as the sender knows: the higher sequence is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The VLAN; 0 = untagged.
    pub vlan: u16,
    /// The MAC address.
    pub mac: [u8; 6],
    /// Counts its moves.
    pub sequence: u32,
}

impl Moved {
    pub(super) fn write(self, writer: Writer) -> Writer {
        writer.u16(self.vlan).bytes(&self.mac).u32(self.sequence)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (vlan, mac, sequence) = (reader.u16()?, reader.array::<6>()?, reader.u32()?);
        let is_group = mac[0] & 1 != 0 || mac == [0; 6];
        if vlan > VLAN_MAX || is_group { Err(DecodeError::Range) } else { Ok(Self { vlan, mac, sequence }) }
    }
}

/// Why a node claims an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimReason {
    /// A frame came from it, and its owner was silent.
    Heard,
    /// The machine announced itself, or somebody at the host did.
    Announced,
    /// The node was the owner, asked, and was answered.
    Answered,
}

impl ClaimReason {
    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::Heard => 0,
            Self::Announced => 1,
            Self::Answered => 2,
        }
    }

    pub(super) const fn of(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Heard),
            1 => Some(Self::Announced),
            2 => Some(Self::Answered),
            _ => None,
        }
    }
}
