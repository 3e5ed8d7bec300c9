//! What a user writes, and what it means.
//!
//! [`Config`] mirrors the TOML file; the command line makes the same value. [`Config::check`] reads key
//! files, fills defaults in and gives [`Settings`], which nothing has to check again.

mod error;
mod key;
mod relaying;
mod reserve;
mod rules;
mod text;
mod underlay;

pub use error::ConfigError;
pub use key::KeySource;
pub use relaying::RelayText;
pub use reserve::{Dscp, ReserveConfig};
pub use rules::{LinkConfig, RouteConfig};
pub use text::{AllowedOverlay, Cidr, InterfaceName, OverlayName, SupernodeText};
pub use underlay::{BindText, ProxySettings, TcpPort, UnderlaySettings};

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::datapath::SwitchSettings;
use crate::datapath::offload::TapOffload;
use crate::keys::OverlaySecrets;
use crate::node::{
    LinkSettings, RelaySettings, ReserveSettings, RouteSettings, ServeSettings, SupernodeSettings, contradiction,
};

/// The port of a supernode, and of a node if it is free.
pub const DEFAULT_PORT: u16 = 7777;
/// The state directory where nobody says otherwise.
pub const DEFAULT_STATE: &str = "/var/lib/longwire";
/// The longest name of an interface, in bytes.
pub const INTERFACE_NAME_MAX: usize = 15;
/// Payloads carried where nobody says otherwise.
const MTU_DEFAULT: u16 = 1500;
/// The least that IPv4 hosts must take (RFC 791), and the most that two packets of the narrowest underlay carry.
const MTU_RANGE: std::ops::RangeInclusive<u16> = 576..=2300;
/// Whether superframes cross a TAP where nobody says otherwise.
const TAP_OFFLOAD_DEFAULT: bool = true;
/// A queue needs a place; more than this is memory and delay only.
const TAP_QUEUE_RANGE: std::ops::RangeInclusive<u32> = 1..=16_384;
/// Nice value of the loop: frames that wait for a processor are the first thing a user feels.
const PRIORITY_DEFAULT: i32 = -15;
/// What Linux knows.
const PRIORITY_RANGE: std::ops::RangeInclusive<i32> = -20..=19;
/// One for each stream that a key has.
const LANES_RANGE: std::ops::RangeInclusive<u8> = 1..=16;
/// Overlays of one daemon.
const OVERLAYS_MAX: usize = 64;
/// Supernodes of one daemon.
const SUPERNODES_MAX: usize = 16;
/// Supernodes that one supernode tells of: what one message holds.
const PEERS_MAX: usize = 8;

/// The file, key by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// What people call the node; the host's name if missing.
    pub name: Option<String>,
    /// Where to listen; UDP 7777 or any free port if missing.
    pub listen: Option<SocketAddr>,
    /// Where to listen as a supernode.
    pub serve: Option<SocketAddr>,
    /// Where a supernode can be asked too, so that nodes learn how their NAT behaves; the next port if missing.
    pub observe: Option<Vec<SocketAddr>>,
    /// Whether many ports may be tried at peers whose NAT takes random ones (it looks like a port scan); yes if
    /// missing.
    pub birthday: Option<bool>,
    /// For whom the node relays; its own site if missing.
    pub relay: Option<RelayText>,
    /// Megabits per second that it relays at most; as many as come if missing.
    pub relay_rate: Option<u32>,
    /// Megabits per second that this host may send in all.
    pub uplink_rate: Option<u32>,
    /// The name of the site it is at, the same at all nodes there.
    pub site: Option<String>,
    /// The state directory.
    pub state: Option<PathBuf>,
    /// The status socket.
    pub socket: Option<PathBuf>,
    /// What is logged.
    pub log: Option<LogLevel>,
    /// Log lines as JSON.
    pub log_json: Option<bool>,
    /// What frames are sealed with.
    pub cipher: Option<Cipher>,
    /// The nice value of the thread that carries frames.
    pub priority: Option<i32>,
    /// How many threads carry frames.
    pub lanes: Option<u8>,
    /// Where to register.
    pub supernode: Vec<SupernodeText>,
    /// The only overlays served, as a supernode.
    pub allow: Option<Vec<AllowedOverlay>>,
    /// Whether the router is asked for a port.
    pub port_mapping: Option<bool>,
    /// Whether members on the same link look for each other.
    pub lan_discovery: Option<bool>,
    /// The interfaces and addresses to use.
    pub bind: Vec<BindText>,
    /// Interfaces not to use.
    pub exclude_interfaces: Vec<InterfaceName>,
    /// The mark on our packets.
    pub fwmark: Option<u32>,
    /// The HTTP proxy for TCP, or `none`; that of the environment if missing.
    pub proxy: Option<ProxySettings>,
    /// The TCP port for nodes that have no UDP, as a supernode; 0 for none.
    pub tcp_port: Option<u16>,
    /// Other supernodes that members are told of, as a supernode.
    pub peers: Option<Vec<SupernodeText>>,
    /// The overlays to be in.
    pub overlay: Vec<OverlayConfig>,
}

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
    /// Whether ways follow what flows.
    pub adapt: Option<bool>,
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

/// What frames are sealed with; two nodes take AES-256-GCM only if both propose it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cipher {
    /// AES-256-GCM is proposed if the processor has AES instructions.
    #[default]
    Auto,
    /// AES-256-GCM is proposed.
    AesGcm,
    /// ChaCha20-Poly1305 with everyone.
    #[serde(rename = "chacha20-poly1305")]
    ChaChaPoly,
}

/// What is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What keeps the node from doing its job.
    Error,
    /// And what is odd.
    Warn,
    /// And what a user notices.
    #[default]
    Info,
    /// And decisions.
    Debug,
    /// And packets.
    Trace,
}

/// Everything a daemon needs to know, checked.
#[derive(Debug)]
pub struct Settings {
    /// What people call the node; `None` is the host's name.
    pub name: Option<String>,
    /// The address to listen on; `None` is 7777 or any free port.
    pub listen: Option<SocketAddr>,
    /// Set if it is a supernode.
    pub serve: Option<ServeSettings>,
    /// Where it can be asked too; `None` is the next port.
    pub observe: Option<Vec<SocketAddr>>,
    /// Whether many ports may be tried at a peer.
    pub birthday: bool,
    /// Where TCP comes in, as a supernode.
    pub tcp_port: TcpPort,
    /// What it does for members that cannot reach each other.
    pub relaying: RelaySettings,
    /// What the host may send in all, in bytes per second.
    pub uplink: Option<u64>,
    /// The state directory.
    pub state: PathBuf,
    /// The status socket.
    pub socket: SocketChoice,
    /// What is logged.
    pub log: LogLevel,
    /// Log lines as JSON.
    pub log_json: bool,
    /// What frames are sealed with.
    pub cipher: Cipher,
    /// The nice value of the thread that carries frames, if the host allows it.
    pub priority: i32,
    /// How many threads carry frames; `None` is by the number of cores.
    pub lanes: Option<u8>,
    /// Where to register.
    pub supernodes: Vec<SupernodeSettings>,
    /// How the underlay is used.
    pub underlay: UnderlaySettings,
    /// The overlays to be in.
    pub overlays: Vec<Overlay>,
}

/// Where the status socket goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketChoice {
    /// There.
    At(PathBuf),
    /// In the usual directory under this name; the daemon runs without if that cannot be.
    Named(String),
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

impl Config {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable(path.to_owned(), error))?;
        Self::parse(&text).map_err(|error| error.in_file(path))
    }

    /// Reads a text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| error::from_toml(text, &error))
    }

    /// Reads key files, fills defaults in, refuses what cannot be. `env_key` is the text of
    /// `LONGWIRE_KEY`, for an overlay that names no file.
    pub fn check(mut self, env_key: Option<&str>) -> Result<Settings, ConfigError> {
        self.check_roles()?;
        let underlay = self.underlay();
        let relaying = self.relaying()?;
        let uplink = reserve::rate("uplink-rate", self.uplink_rate)?;
        let Self {
            name,
            listen,
            serve,
            state,
            socket,
            log,
            log_json,
            priority,
            lanes,
            cipher,
            supernode,
            allow,
            observe,
            birthday,
            peers,
            tcp_port,
            overlay,
            ..
        } = self;
        let peers = peers.unwrap_or_default().into_iter().map(|text| text.0).collect::<Vec<_>>();
        if let Some(peer) = peers.iter().find(|peer| peer.pin.is_none()) {
            return Err(ConfigError::PeerWithoutKey(peer.address.clone()));
        }
        limit("peers", peers.len(), PEERS_MAX)?;
        if overlay.is_empty() && serve.is_none() {
            return Err(ConfigError::NoOverlay);
        }
        if supernode.is_empty() && serve.is_none() {
            return Err(ConfigError::NoSupernode);
        }
        limit("overlay", overlay.len(), OVERLAYS_MAX)?;
        limit("supernode", supernode.len(), SUPERNODES_MAX)?;
        distinct(&overlay)?;
        let priority = priority.unwrap_or(PRIORITY_DEFAULT);
        within("priority", priority, &PRIORITY_RANGE)?;
        lanes.map_or(Ok(()), |lanes| within("lanes", lanes, &LANES_RANGE))?;
        if env_key.is_some() && overlay.iter().filter(|overlay| overlay.takes_env()).count() > 1 {
            return Err(ConfigError::EnvForMany);
        }
        let named = overlay.first().map_or("supernode", |overlay| overlay.name.0.as_str()).to_owned();
        let overlays = overlay.into_iter().map(|overlay| overlay.check(env_key)).collect::<Result<Vec<_>, _>>()?;
        let reserved = overlays.iter().map(|overlay| (overlay.name.as_str(), &overlay.reserve));
        contradiction(uplink, reserved).map_or(Ok(()), |why| Err(ConfigError::Reserve(why)))?;
        Ok(Settings {
            name,
            listen: listen.or(serve),
            serve: serve
                .map(|_| ServeSettings { allow: allow.map(|ids| ids.into_iter().map(|id| id.0).collect()), peers }),
            observe,
            birthday: birthday.unwrap_or(true),
            tcp_port: tcp_port.map_or(TcpPort::Usual, TcpPort::from),
            relaying,
            state: state.unwrap_or_else(|| PathBuf::from(DEFAULT_STATE)),
            socket: socket.map_or(SocketChoice::Named(named), SocketChoice::At),
            log: log.unwrap_or_default(),
            log_json: log_json.unwrap_or(false),
            cipher: cipher.unwrap_or_default(),
            priority,
            lanes,
            supernodes: supernode.into_iter().map(|text| text.0).collect(),
            underlay,
            uplink,
            overlays,
        })
    }
}

impl Config {
    /// What only a supernode may say.
    fn check_roles(&self) -> Result<(), ConfigError> {
        if self.listen.is_some() && self.serve.is_some() {
            return Err(ConfigError::Together("listen", "serve"));
        }
        let for_serving = [
            ("allow", self.allow.is_some()),
            ("peers", self.peers.is_some()),
            ("observe", self.observe.is_some()),
            ("tcp-port", self.tcp_port.is_some()),
        ];
        if let Some((key, _)) = for_serving.into_iter().find(|(_, is_given)| *is_given && self.serve.is_none()) {
            return Err(ConfigError::Without(key, "serve"));
        }
        Ok(())
    }

    /// How the underlay is used; what concerns members only is off in a mere supernode.
    fn underlay(&mut self) -> UnderlaySettings {
        let is_member = !self.overlay.is_empty();
        let exclude = std::mem::take(&mut self.exclude_interfaces);
        UnderlaySettings {
            port_mapping: self.port_mapping.unwrap_or(true) && is_member,
            lan_discovery: self.lan_discovery.unwrap_or(true) && is_member,
            bind: std::mem::take(&mut self.bind),
            exclude: exclude.into_iter().map(|InterfaceName(name)| name).collect(),
            fwmark: self.fwmark,
            proxy: self.proxy.take().unwrap_or_default(),
        }
    }
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
            adapt: None,
        }
    }

    const fn takes_env(&self) -> bool {
        self.key_file.is_none() && self.passphrase_file.is_none()
    }

    fn check(self, env_key: Option<&str>) -> Result<Overlay, ConfigError> {
        let Self { name, key_file, passphrase_file, bridge, address, tap, tap_offload, tap_queue, .. } = self;
        let Self { stp, mtu, mss_clamp, arp, adapt, route, link, rate, cap, dscp, reserve, .. } = self;
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
                station: SwitchSettings::default().station,
                mtu: usize::from(mtu),
                stp: stp != Some(Stp::Drop),
                clamp_mss: mss_clamp != Some(false),
                answers: arp != Some(Arp::Flood),
                adapts: adapt != Some(false),
                tap: if tap_offload.unwrap_or(TAP_OFFLOAD_DEFAULT) { TapOffload::TcpAndUdp } else { TapOffload::None },
            },
        })
    }
}

fn within<T>(key: &'static str, value: T, range: &std::ops::RangeInclusive<T>) -> Result<(), ConfigError>
where
    T: PartialOrd + Copy + Into<i64>,
{
    let known = range.contains(&value);
    let (value, least, most) = (value.into(), (*range.start()).into(), (*range.end()).into());
    if known { Ok(()) } else { Err(ConfigError::OutOfRange(key, value, least, most)) }
}

fn limit(key: &'static str, count: usize, most: usize) -> Result<(), ConfigError> {
    if count > most { Err(ConfigError::TooMany(key, most)) } else { Ok(()) }
}

fn distinct(overlays: &[OverlayConfig]) -> Result<(), ConfigError> {
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

#[cfg(test)]
mod tests;
