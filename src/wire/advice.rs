//! ADVICE: which machine should move, as far as the supernode that plans can tell (protocol.md section 7).
//!
//! It knows hosts: the member that is told finds out which of its machines is meant, and tells its user.

use super::codec::{DecodeError, Reader, Writer};
use super::relay::RelayId;
use crate::keys::OverlayId;

/// One of your machines should move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The one that exchanges most with machines of this member...
    pub partner: RelayId,
    /// ...to the host of this one.
    pub target: RelayId,
    /// What that promises, in per mille of the present rate.
    pub gain: u32,
}

impl Advice {
    pub(super) fn write(&self, w: Writer, overlay: OverlayId) -> Writer {
        w.bytes(&overlay.0).u32(self.partner.0).u32(self.target.0).u32(self.gain)
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<(OverlayId, Self), DecodeError> {
        let overlay = OverlayId(r.array()?);
        Ok((overlay, Self { partner: RelayId(r.u32()?), target: RelayId(r.u32()?), gain: r.u32()? }))
    }
}
