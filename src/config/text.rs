//! Words of the config that have a form of their own, each checked where it is read, so that the
//! sentence about a bad one has its line.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use super::{BindText, DEFAULT_PORT, INTERFACE_NAME_MAX, ProxySettings};
use crate::keys::OverlayId;
use crate::node::SupernodeSettings;

/// The longest name of an overlay; it is part of file names.
const OVERLAY_NAME_MAX: usize = 64;

/// `HOST[:PORT][/TCP][#FINGERPRINT]`, IPv6 addresses in brackets; TCP is the port for TLS.
#[derive(Clone, Debug)]
pub struct SupernodeText(pub SupernodeSettings);

/// An overlay id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowedOverlay(pub OverlayId);

/// The name of an overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayName(pub String);

/// The name of a network interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfaceName(pub String);

/// An address and the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// Bits of it that name the network.
    pub prefix: u8,
}

impl PartialEq for SupernodeText {
    fn eq(&self, other: &Self) -> bool {
        (&self.0.address, self.0.pin) == (&other.0.address, other.0.pin)
    }
}

impl Eq for SupernodeText {}

impl FromStr for SupernodeText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| format!("supernode {text:?}: {why}; the form is HOST[:PORT][/TCP][#FINGERPRINT]");
        let (place, pin) = match text.split_once('#') {
            Some((place, pin)) => {
                (place, Some(pin.parse().map_err(|error| refuse(&format!("the fingerprint is {error}")))?))
            }
            None => (text, None),
        };
        let (place, tcp) = place.split_once('/').map_or((place, None), |(place, tcp)| (place, Some(tcp)));
        let tcp = match tcp.map(str::parse::<u16>) {
            None => String::new(),
            Some(Ok(port)) => format!("/{port}"),
            Some(Err(_)) => return Err(refuse("behind the slash stands a TCP port, or 0 for none")),
        };
        let (host, port) = match place.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(None) => return Err(refuse("a bracket is not closed")),
            Some(Some((host, rest))) => {
                let ip: Result<std::net::Ipv6Addr, _> = host.parse();
                let ip = ip.map_err(|_| refuse("in brackets stands an IPv6 address"))?;
                (format!("[{ip}]"), rest.strip_prefix(':').or(if rest.is_empty() { None } else { Some(rest) }))
            }
            None if place.matches(':').count() > 1 => return Err(refuse("IPv6 addresses stand in brackets")),
            None => match place.split_once(':') {
                Some((host, port)) => (host.to_owned(), Some(port)),
                None => (place.to_owned(), None),
            },
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
        if host.is_empty() || !host.chars().all(is_host) {
            return Err(refuse("that is no host"));
        }
        let port = match port.map(str::parse) {
            None => DEFAULT_PORT,
            Some(Ok(port)) if port != 0 => port,
            Some(_) => return Err(refuse("the port is a number from 1 to 65535")),
        };
        Ok(Self(SupernodeSettings { address: format!("{host}:{port}{tcp}"), pin }))
    }
}

impl FromStr for AllowedOverlay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error| format!("overlay id {text:?}: {error} (`longwire id` prints it)"))
    }
}

impl FromStr for OverlayName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        if first && text.len() <= OVERLAY_NAME_MAX && text.chars().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "overlay name {text:?}: up to {OVERLAY_NAME_MAX} of a-z, A-Z, 0-9, '-', '.', '_', first a letter or digit"
        ))
    }
}

impl FromStr for InterfaceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_graphic() && !"/%:".contains(c);
        if !text.is_empty()
            && text.len() <= INTERFACE_NAME_MAX
            && text.chars().all(allowed)
            && ![".", ".."].contains(&text)
        {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("interface name {text:?}: 1 to {INTERFACE_NAME_MAX} letters without '/', '%' or ':'"))
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("address {text:?}: the form is ADDRESS/PREFIX, like 10.10.0.1/24");
        let (address, prefix) = text.split_once('/').ok_or_else(refuse)?;
        let address: IpAddr = address.parse().map_err(|_| refuse())?;
        let prefix = prefix.parse().map_err(|_| refuse())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if prefix == 0 || prefix > most || address.is_unspecified() || address.is_multicast() {
            return Err(refuse());
        }
        Ok(Self { address, prefix })
    }
}

/// Reads what has a form of its own.
pub(super) fn read<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(deserializer: D) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

macro_rules! read_from_text {
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                read(deserializer)
            }
        }
    )*};
}

read_from_text!(SupernodeText, AllowedOverlay, OverlayName, InterfaceName, Cidr, BindText, ProxySettings);

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}
