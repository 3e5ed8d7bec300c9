//! What a user writes, and what it means.
//!
//! [`Config`] mirrors the TOML file; the command line makes the same value. [`Config::check`] reads key
//! files, fills defaults in and gives [`Settings`], which nothing has to check again.

mod error;
mod key;
mod overlay;
mod phrase;
mod relaying;
mod reserve;
mod rules;
mod text;
mod underlay;

pub use crate::wire::DEFAULT_PORT;
pub use error::ConfigError;
pub use key::KeySource;
pub use overlay::{Arp, Attach, Overlay, OverlayConfig, Stp};
pub use relaying::RelayText;
pub use reserve::{Dscp, ReserveConfig};
pub use rules::{LinkConfig, RouteConfig};
pub use text::{AllowedOverlay, Cidr, InterfaceName, OverlayName, SupernodeText};
pub use underlay::{BindText, ProxySettings, TcpPort, UnderlaySettings};

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Deserialize;

use crate::node::{RelaySettings, ServeSettings, SupernodeSettings, contradiction};
use crate::wire::message;

/// The state directory where nobody says otherwise.
pub const DEFAULT_STATE: &str = "/var/lib/longwire";
/// The longest name of an interface, in bytes.
pub const INTERFACE_NAME_MAX: usize = 15;
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
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

impl Config {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable(path.to_owned(), error))?;
        Self::parse(&text).map_err(|error| error.in_file(path))
    }

    /// Reads a text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| phrase::from_toml(text, &error))
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
        limit("peers", peers.len(), message::SUPERNODES_MAX)?;
        if overlay.is_empty() && serve.is_none() {
            return Err(ConfigError::NoOverlay);
        }
        if supernode.is_empty() && serve.is_none() {
            return Err(ConfigError::NoSupernode);
        }
        limit("overlay", overlay.len(), OVERLAYS_MAX)?;
        limit("supernode", supernode.len(), SUPERNODES_MAX)?;
        overlay::distinct(&overlay)?;
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

#[cfg(test)]
mod tests;
