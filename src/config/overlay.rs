//! The keys of one overlay: `[[overlay]]`, and what they mean.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;

use super::{
    Cidr, ConfigError, Dscp, InterfaceName, KeySource, LinkConfig, OverlayName, ReserveConfig, RouteConfig, reserve,
    rules, within,
};
use crate::datapath::SwitchSettings;
use crate::datapath::offload::TapOffload;
use crate::keys::OverlaySecrets;
use crate::node::{LinkSettings, ReserveSettings, RouteSettings};

/// Payloads carried where nobody says otherwise.
const MTU_DEFAULT: u16 = 1500;
/// The least that IPv4 hosts must take (RFC 791), and the most that two packets of the narrowest underlay carry.
const MTU_RANGE: std::ops::RangeInclusive<u16> = 576..=2300;
/// Whether superframes cross a TAP where nobody says otherwise.
const TAP_OFFLOAD_DEFAULT: bool = true;
/// A queue needs a place; more than this is memory and delay only.
const TAP_QUEUE_RANGE: std::ops::RangeInclusive<u32> = 1..=16_384;

/// One `[[overlay]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OverlayConfig {
    /// Its name.
    pub name: OverlayName,
    /// The file that holds its key.
    pub key_file: Option<PathBuf>,
    /// The file that holds a passphrase instead.
    pub passphrase_file: Option<PathBuf>,
    /// The bridge that gets the TAP.
    pub bridge: Option<InterfaceName>,
    /// The address that the TAP gets.
    pub address: Option<Cidr>,
    /// The TAP's name.
    pub tap: Option<InterfaceName>,
    /// Whether superframes and partial checksums cross the TAP.
    pub tap_offload: Option<bool>,
    /// Frames that may wait in the TAP.
    pub tap_queue: Option<u32>,
    /// Whether spanning tree frames pass.
    pub stp: Option<Stp>,
    /// The largest Ethernet payload.
    pub mtu: Option<u16>,
    /// Whether TCP is asked for segments that fit one packet.
    pub mss_clamp: Option<bool>,
    /// Megabits per second that it is guaranteed, if the uplink's rate is known.
    pub rate: Option<u32>,
    /// Megabits per second that it may use at most.
    pub cap: Option<u32>,
    /// What its outer packets are marked with.
    pub dscp: Option<Dscp>,
    /// The same for single members.
    #[serde(default)]
    pub reserve: Vec<ReserveConfig>,
    /// Static rules for frames.
    #[serde(default)]
    pub route: Vec<RouteConfig>,
    /// Direct paths to be kept.
    #[serde(default)]
    pub link: Vec<LinkConfig>,
    /// What becomes of ARP requests and neighbour solicitations.
    pub arp: Option<Arp>,
    /// What becomes of frames for multicast groups.
    pub multicast: Option<Multicast>,
    /// Whether ways follow what flows.
    pub adapt: Option<bool>,
}

/// What becomes of frames for multicast groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Multicast {
    /// They go to members where somebody has said that it wants to hear the group.
    Snoop,
    /// They go to everybody.
    Flood,
}

/// What becomes of questions for IP addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arp {
    /// They are answered at home where the address is known, in the machine's name.
    Local,
    /// They go to everybody, as on a wire.
    Flood,
}

/// What becomes of spanning tree frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stp {
    /// They are carried, as a wire does.
    Pass,
    /// They end at the TAP.
    Drop,
}

/// One overlay, checked.
#[derive(Debug)]
pub struct Overlay {
    /// Its name.
    pub name: String,
    /// What its key gives.
    pub secrets: OverlaySecrets,
    /// What the TAP is joined to.
    pub attach: Attach,
    /// The TAP's name, if chosen.
    pub tap: Option<String>,
    /// Frames that may wait in the TAP, if chosen.
    pub tap_queue: Option<u32>,
    /// What was chosen of its switch; of its TAP, the most that may be asked for.
    pub switch: SwitchSettings,
    /// Static rules for frames.
    pub routes: Vec<RouteSettings>,
    /// Direct paths to be kept.
    pub links: Vec<LinkSettings>,
    /// What is reserved in it.
    pub reserve: ReserveSettings,
}

/// What a TAP is joined to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attach {
    /// This bridge.
    Bridge(String),
    /// The host, under this address.
    Address(Cidr),
    /// It is just up.
    Nothing,
}

impl OverlayConfig {
    /// An overlay of this name with nothing else said.
    pub const fn named(name: OverlayName) -> Self {
        Self {
            name,
            key_file: None,
            passphrase_file: None,
            bridge: None,
            address: None,
            tap: None,
            tap_offload: None,
            tap_queue: None,
            stp: None,
            mtu: None,
            mss_clamp: None,
            rate: None,
            cap: None,
            dscp: None,
            reserve: Vec::new(),
            route: Vec::new(),
            link: Vec::new(),
            arp: None,
            multicast: None,
            adapt: None,
        }
    }

    pub(super) const fn takes_env(&self) -> bool {
        self.key_file.is_none() && self.passphrase_file.is_none()
    }

    pub(super) fn check(self, env_key: Option<&str>) -> Result<Overlay, ConfigError> {
        let Self { name, key_file, passphrase_file, bridge, address, tap, tap_offload, tap_queue, .. } = self;
        let Self { stp, mtu, mss_clamp, arp, multicast, adapt, route, link, rate, cap, dscp, reserve, .. } = self;
        let OverlayName(name) = name;
        let source = match (key_file, passphrase_file, env_key) {
            (Some(_), Some(_), _) => return Err(ConfigError::Together("key-file", "passphrase-file")),
            (Some(path), None, _) => KeySource::KeyFile(path),
            (None, Some(path), _) => KeySource::PassphraseFile(path),
            (None, None, Some(text)) => KeySource::Text(text.to_owned()),
            (None, None, None) => return Err(ConfigError::NoKey(name)),
        };
        let attach = match (bridge, address) {
            (Some(_), Some(_)) => return Err(ConfigError::Together("bridge", "address")),
            (Some(bridge), None) => Attach::Bridge(bridge.0),
            (None, Some(address)) => Attach::Address(address),
            (None, None) => Attach::Nothing,
        };
        let mtu = mtu.unwrap_or(MTU_DEFAULT);
        if !MTU_RANGE.contains(&mtu) {
            return Err(ConfigError::Mtu(mtu, *MTU_RANGE.start(), *MTU_RANGE.end()));
        }
        if let Some(frames) = tap_queue {
            within("tap-queue", frames, &TAP_QUEUE_RANGE)?;
        }
        let key = source.read(&name)?;
        Ok(Overlay {
            secrets: OverlaySecrets::derive(&name, &key),
            name,
            attach,
            tap: tap.map(|tap| tap.0),
            tap_queue,
            routes: rules::routes(route)?,
            links: rules::links(link)?,
            reserve: reserve::settings((rate, cap), reserve, dscp)?,
            switch: SwitchSettings {
                mtu: usize::from(mtu),
                stp: stp != Some(Stp::Drop),
                clamp_mss: mss_clamp != Some(false),
                answers: arp != Some(Arp::Flood),
                adapts: adapt != Some(false),
                snoops: multicast == Some(Multicast::Snoop),
                tap: if tap_offload.unwrap_or(TAP_OFFLOAD_DEFAULT) { TapOffload::TcpAndUdp } else { TapOffload::None },
                ..SwitchSettings::default()
            },
        })
    }
}

/// No two have the same name or TAP.
pub(super) fn distinct(overlays: &[OverlayConfig]) -> Result<(), ConfigError> {
    let (mut names, mut taps) = (BTreeSet::new(), BTreeSet::new());
    for overlay in overlays {
        if !names.insert(&overlay.name.0) {
            return Err(ConfigError::Twice("name", overlay.name.0.clone()));
        }
        if let Some(tap) = overlay.tap.as_ref().filter(|tap| !taps.insert(*tap)) {
            return Err(ConfigError::Twice("tap", tap.0.clone()));
        }
    }
    Ok(())
}
