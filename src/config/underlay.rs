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
}

impl Default for UnderlaySettings {
    fn default() -> Self {
        Self { port_mapping: true, lan_discovery: true, bind: Vec::new(), exclude: Vec::new(), fwmark: None }
    }
}
