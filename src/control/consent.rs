//! Consent before volume: how much a node sends to addresses that others name and where nobody ever answered.
//!
//! A member may name a victim's address as its own. Whatever it does, a node sends that address a few small
//! packets per second: limits for each peer here, for each target in [`Effects::may_try`].

use std::net::SocketAddr;

use super::effects::Effects;
use super::peer::Peer;
use crate::datapath::limit::Bucket;
use crate::datapath::stats::DropReason;
use crate::time::Time;

/// Packets per second to addresses that one peer named and that never answered...
const TRY_RATE: u32 = 5;
/// ...and at once: three rounds of punching at eight addresses.
const TRY_BURST: u32 = 216;
/// A peer may tell its addresses once a second...
const TELLING_RATE: u32 = 1;
/// ...and so often at once.
const TELLING_BURST: u32 = 10;

/// What a peer may still cause.
#[derive(Clone, Debug)]
pub struct Consent {
    tries: Bucket,
    tellings: Bucket,
}

impl Default for Consent {
    fn default() -> Self {
        Self { tries: Bucket::new(TRY_RATE, TRY_BURST), tellings: Bucket::new(TELLING_RATE, TELLING_BURST) }
    }
}

impl Consent {
    /// Whether the peer may tell its addresses now.
    pub fn may_tell(&mut self, now: Time) -> bool {
        self.tellings.take(now)
    }
}

impl Peer {
    /// Whether a packet may go to `addr`: always where the peer ever answered, else within limits.
    pub fn may_try(&mut self, fx: &mut Effects, addr: SocketAddr) -> bool {
        if self.paths.candidates.get(addr).is_some_and(|state| state.answers > 0) {
            return true;
        }
        let may = self.consent.tries.take(fx.now) && fx.may_try(addr.ip());
        if !may {
            fx.dropped(DropReason::ProbeLimit);
        }
        may
    }
}
