//! The keys that say how the underlay is used.

use std::net::IpAddr;
use std::str::FromStr;

use super::InterfaceName;

/// An interface, or an address of this host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BindText {
    /// All addresses on it.
    Interface(String),
    /// Just this one.
    Address(IpAddr),
}

impl FromStr for BindText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<IpAddr>() {
            Ok(ip) => Ok(Self::Address(ip)),
            Err(_name) => text.parse().map(|InterfaceName(name)| Self::Interface(name)),
        }
    }
}

/// By which HTTP proxy a supernode is reached where UDP does not pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxySettings {
    /// By the one in https_proxy, but for hosts in no_proxy.
    #[default]
    Environment,
    /// By none, whatever the environment says.
    None,
    /// By this one: `http://[USER:PASSWORD@]HOST[:PORT]`.
    Through(String),
}

impl FromStr for ProxySettings {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            _ if text.strip_prefix("http://").is_some_and(|rest| !rest.is_empty()) => {
                Ok(Self::Through(text.to_owned()))
            }
            _ => Err("a proxy has the form http://[USER:PASSWORD@]HOST[:PORT]; or say \"none\"".to_owned()),
        }
    }
}

/// The TCP port of a supernode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpPort {
    /// 443 if it is free and allowed.
    Usual,
    /// This one.
    At(u16),
    /// None.
    None,
}

impl From<u16> for TcpPort {
    fn from(port: u16) -> Self {
        if port == 0 { Self::None } else { Self::At(port) }
    }
}

/// How the underlay is used, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderlaySettings {
    /// The router is asked to let others in.
    pub port_mapping: bool,
    /// Members on the same link look for each other.
    pub lan_discovery: bool,
    /// The interfaces and addresses to use; all that lead to the underlay if empty.
    pub bind: Vec<BindText>,
    /// Interfaces not to use; `*` at the end of a name is any end.
    pub exclude: Vec<String>,
    /// The mark on our packets, for the host's routing rules.
    pub fwmark: Option<u32>,
    /// The proxy for TCP.
    pub proxy: ProxySettings,
}

impl Default for UnderlaySettings {
    fn default() -> Self {
        Self {
            port_mapping: true,
            lan_discovery: true,
            bind: Vec::new(),
            exclude: Vec::new(),
            fwmark: None,
            proxy: ProxySettings::default(),
        }
    }
}
