//! Where our overlays stand at a supernode: what was asked, what was given, how well it carries.

use std::collections::BTreeMap;

use super::throttle::Throttle;
use crate::datapath::LegId;
use crate::datapath::fdb::PortId;
use crate::time::Time;
use crate::wire::relay::{LegKey, RelayId};

/// Where an overlay stands at a supernode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// REGISTER is on its way.
    Asked,
    /// We have this leg.
    Registered(LegId),
    /// We have this leg by the transport before, and have asked to go on with it by another one.
    Moving(LegId),
    /// It said no, then.
    Refused(Time),
}

impl Standing {
    /// The leg, if there is one.
    pub const fn leg(self) -> Option<LegId> {
        match self {
            Self::Registered(leg) | Self::Moving(leg) => Some(leg),
            Self::Asked | Self::Refused(_) => None,
        }
    }
}

/// One overlay at one supernode.
#[derive(Debug)]
pub struct Registration {
    /// Where it stands.
    pub standing: Standing,
    /// As what the supernode knows our leg.
    pub own: Option<(RelayId, LegKey)>,
    /// Members it told us of, by their legs.
    pub members: BTreeMap<RelayId, PortId>,
    /// The version of the last plan that was obeyed. Who registers anew begins with the supernode's next one.
    pub planned: u64,
    /// Whether UDP carries what comes by the leg.
    pub throttle: Throttle,
}

impl Registration {
    /// Nothing was heard of the supernode yet.
    pub fn new(standing: Standing) -> Self {
        Self { standing, own: None, members: BTreeMap::new(), planned: 0, throttle: Throttle::default() }
    }
}
