//! Reservations in the config: rates in megabits per second, and marks.

use serde::{Deserialize, Deserializer, de};

use super::{ConfigError, within};
use crate::datapath::{Marking, RATE_MAX, Share};
use crate::node::{MEGABIT, RESERVED_MAX, ReserveSettings};

/// What rates may be.
const RANGE: std::ops::RangeInclusive<u32> = 1..=(RATE_MAX / MEGABIT) as u32;

/// One `[[overlay.reserve]]`: of a member.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ReserveConfig {
    /// The member, by name or id.
    pub to: String,
    /// Megabits per second that it is guaranteed.
    pub rate: Option<u32>,
    /// Megabits per second that it may use at most.
    pub cap: Option<u32>,
}

/// What outer packets are marked with: `"inherit"`, or a code point from 0 to 63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dscp(pub Marking);

impl<'de> Deserialize<'de> for Dscp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "`dscp` takes \"inherit\", or a code point from 0 to 63")]
        enum Form {
            Number(u8),
            Word(String),
        }
        let text = match Form::deserialize(deserializer)? {
            Form::Number(number) => number.to_string(),
            Form::Word(word) => word,
        };
        text.parse().map(Self).map_err(de::Error::custom)
    }
}

/// Megabits as bytes per second.
pub(super) fn rate(key: &'static str, megabits: Option<u32>) -> Result<Option<u64>, ConfigError> {
    megabits.map_or(Ok(()), |megabits| within(key, megabits, &RANGE))?;
    Ok(megabits.map(|megabits| u64::from(megabits) * MEGABIT))
}

/// What is reserved in an overlay.
pub(super) fn settings(
    own: (Option<u32>, Option<u32>),
    peers: Vec<ReserveConfig>,
    dscp: Option<Dscp>,
) -> Result<ReserveSettings, ConfigError> {
    let share = |(least, most)| Ok(Share { rate: rate("rate", least)?, cap: rate("cap", most)? });
    let mut settings = ReserveSettings { overlay: share(own)?, ..ReserveSettings::default() };
    settings.marking = dscp.unwrap_or_default().0;
    super::limit("reserve", peers.len(), RESERVED_MAX)?;
    for (place, ReserveConfig { to, rate, cap }) in peers.into_iter().enumerate() {
        let twice = format!("there is one for {to} already");
        if settings.peers.insert(to, share((rate, cap))?).is_some() {
            return Err(ConfigError::Entry("reserve", place + 1, twice));
        }
    }
    Ok(settings)
}
