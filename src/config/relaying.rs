//! The keys that say what a node does for members that cannot reach each other.

use clap::ValueEnum;
use serde::Deserialize;

use super::{Config, ConfigError};
use crate::node::{MEGABIT, RelaySettings};
use crate::wire::carry::RelayFor;
use crate::wire::message::NAME_MAX;

/// Megabits per second: from a line that can hardly spare any to more than one process passes on.
const RATE_RANGE: std::ops::RangeInclusive<u32> = 1..=30_000;

/// For whom a node relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum RelayText {
    /// Nobody.
    Off,
    /// Members of its own site.
    Site,
    /// Every member.
    On,
}

impl From<RelayText> for RelayFor {
    fn from(text: RelayText) -> Self {
        match text {
            RelayText::Off => Self::Nobody,
            RelayText::Site => Self::Site,
            RelayText::On => Self::Everyone,
        }
    }
}

impl Config {
    /// What the node does for others.
    pub(super) fn relaying(&self) -> Result<RelaySettings, ConfigError> {
        let carries = self.relay.map_or_else(RelayFor::default, RelayFor::from);
        if let Some(rate) = self.relay_rate {
            super::within("relay-rate", rate, &RATE_RANGE)?;
        }
        let site = self.site.clone().unwrap_or_default();
        if site.len() > NAME_MAX || site.chars().any(char::is_control) {
            return Err(ConfigError::Site(NAME_MAX));
        }
        Ok(RelaySettings { carries, share: self.relay_rate.map(|rate| rate * MEGABIT as u32), site })
    }
}
