//! Links of this host: sets a TAP up, makes and removes bridges, and answers which addresses there are.
//!
//! A bridge that is already there belongs to the host: it gets the TAP and keeps every setting; what will
//! bite is named once. A bridge made here is marked by its alias, so that a restart after a crash knows it.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::packet_core::ErrorMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::{Handle, LinkBridge, LinkUnspec};
use rustix::io::Errno;
use thiserror::Error;
use tracing::warn;

use crate::config::{Attach, Cidr};

/// Marks a bridge made by longwire.
const ALIAS: &str = "made by longwire";
/// Marks a TAP of longwire, for other daemons on this host.
const TAP_ALIAS: &str = "leads into an overlay of longwire";
/// EAPOL (..:03) and LLDP (..:0e) pass a bridge made here. The kernel allows no more (not ..:00 to ..:02).
const GROUP_FWD_MASK: u16 = 1 << 3 | 1 << 14;

/// Why the links are not as asked.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// Somebody has a link of that name.
    #[error("{0} is no bridge: --bridge takes a bridge, or a name that does not exist yet")]
    NotABridge(String),
    /// Not allowed to.
    #[error("{0} needs CAP_NET_ADMIN: run as root, or give the service that capability")]
    NotAllowed(String),
    /// It went away.
    #[error("the interface {0} has gone away")]
    Gone(String),
    /// All else.
    #[error("{0}: {1}")]
    Other(String, String),
}

/// A link as far as we care.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// Up and with a carrier.
    pub(super) running: bool,
    pub(super) loopback: bool,
    pub(super) controller: Option<u32>,
    alias: Option<String>,
    /// Set if it is a bridge.
    bridge: Option<BridgeSettings>,
}

impl Link {
    /// Whether it is the TAP of a longwire daemon, this one or another.
    pub(super) fn is_tap_of_longwire(&self) -> bool {
        self.alias.as_deref() == Some(TAP_ALIAS)
    }

    /// Marks it as one.
    #[cfg(test)]
    pub(super) fn mark_as_tap(&mut self) {
        self.alias = Some(TAP_ALIAS.into());
    }
}

/// Settings of a bridge that bite.
#[derive(Clone, Copy, Debug, Default)]
struct BridgeSettings {
    group_fwd_mask: u16,
    snooping: bool,
    netfilter: bool,
    vlan_filtering: bool,
    stp: bool,
}

/// What was set up for one TAP, to be undone at the end.
#[derive(Debug)]
pub struct Wiring {
    /// A bridge that we made.
    bridge: Option<String>,
}

/// How a TAP is to be.
#[derive(Clone, Copy, Debug)]
pub struct TapShape {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// The largest payload.
    pub mtu: usize,
    /// Frames that may wait in it; `None` is as the kernel made it.
    pub queue: Option<u32>,
}

/// Brings the TAP `name` up as `shape` says, on its bridge or with its address.
pub async fn wire(handle: &Handle, name: &str, shape: TapShape, attach: &Attach) -> Result<Wiring, NetlinkError> {
    let TapShape { mac, mtu, queue } = shape;
    let tap = find(handle, name).await?.ok_or_else(|| NetlinkError::Gone(name.to_owned()))?;
    let mtu = u32::try_from(mtu).unwrap_or(u32::MAX);
    let change = LinkUnspec::new_with_index(tap.index).mtu(mtu).alias(TAP_ALIAS);
    let change = if let Some(frames) = queue { change.txqueuelen(frames) } else { change };
    let (change, wiring) = match attach {
        Attach::Bridge(bridge) => {
            let (index, made) = bridge_for(handle, bridge, mac).await?;
            keep_host_quiet(name);
            // The highest first byte: a bridge takes the lowest address of its ports for its own, and
            // must not change it because of us.
            let port_mac = [&[0xfe], &mac[1..]].concat();
            (change.address(port_mac).controller(index), Wiring { bridge: made.then(|| bridge.clone()) })
        }
        Attach::Address(_) | Attach::Nothing => (change.address(mac.to_vec()), Wiring { bridge: None }),
    };
    handle.link().change(change.up().build()).execute().await.map_err(|error| explain(name, &error))?;
    if let Attach::Address(Cidr { address, prefix }) = attach {
        let what = format!("the address {address}/{prefix} on {name}");
        let added = handle.address().add(tap.index, *address, *prefix).replace().execute().await;
        added.map_err(|error| explain(&what, &error))?;
    }
    Ok(wiring)
}

/// Removes the bridge, if it was made by us and nothing else is on it. The TAP must be gone by now.
pub async fn unwire(handle: &Handle, wiring: Wiring) {
    let Some(name) = wiring.bridge else { return };
    let removed = async {
        let Some(bridge) = find(handle, &name).await? else { return Ok(()) };
        let ports = links(handle).await?.into_iter().any(|link| link.controller == Some(bridge.index));
        let addresses = host_addresses(handle).await?.into_iter().any(|(index, _)| index == bridge.index);
        if ports || addresses {
            return Ok(());
        }
        handle.link().del(bridge.index).execute().await.map_err(|error| explain(&name, &error))
    };
    if let Err(error) = removed.await {
        warn!(bridge = name, %error, "the bridge stays");
    }
}

/// The index of the bridge `name`, and whether longwire has made it.
async fn bridge_for(handle: &Handle, name: &str, mac: [u8; 6]) -> Result<(u32, bool), NetlinkError> {
    let ours = match find(handle, name).await? {
        Some(Link { bridge: None, .. }) => return Err(NetlinkError::NotABridge(name.to_owned())),
        Some(Link { index, alias: Some(alias), .. }) if alias == ALIAS => (index, true),
        Some(Link { index, bridge: Some(settings), .. }) => {
            for bite in settings.bites() {
                warn!(bridge = name, "{bite}");
            }
            (index, false)
        }
        None => (make_bridge(handle, name, mac).await?, true),
    };
    if sysctl_is_on("net/bridge/bridge-nf-call-iptables") {
        warn!(
            bridge = name,
            "net.bridge.bridge-nf-call-iptables is 1: this host's firewall also filters bridged frames"
        );
    }
    Ok(ours)
}

async fn make_bridge(handle: &Handle, name: &str, mac: [u8; 6]) -> Result<u32, NetlinkError> {
    let bridge = LinkBridge::new(name)
        .address(mac.to_vec())
        .group_fwd_mask(GROUP_FWD_MASK)
        .mcast_snooping(false)
        .nf_call_iptables(false)
        .nf_call_ip6tables(false)
        .nf_call_arptables(false)
        .build();
    let what = format!("making the bridge {name}");
    handle.link().add(bridge).execute().await.map_err(|error| explain(&what, &error))?;
    let made = find(handle, name).await?.ok_or_else(|| NetlinkError::Gone(name.to_owned()))?;
    // Not taken when it is made.
    let mark = LinkUnspec::new_with_index(made.index).alias(ALIAS).build();
    handle.link().change(mark).execute().await.map_err(|error| explain(&what, &error))?;
    Ok(made.index)
}

impl BridgeSettings {
    fn bites(self) -> Vec<&'static str> {
        let mut bites = Vec::new();
        if self.group_fwd_mask & GROUP_FWD_MASK != GROUP_FWD_MASK {
            bites.push(
                "group_fwd_mask holds LLDP and EAPOL back (`ip link set BRIDGE type bridge group_fwd_mask 0x4008`)",
            );
        }
        if self.snooping {
            bites.push("mcast_snooping is 1: multicast that nobody joined may not reach the overlay");
        }
        if self.netfilter {
            bites.push("nf_call_iptables is 1: this host's firewall also filters bridged frames");
        }
        if self.vlan_filtering {
            bites.push("vlan_filtering is 1: tagged frames need `bridge vlan add dev TAP vid VID`");
        }
        if self.stp {
            bites.push("stp is on: the TAP forwards only after the bridge's forward delay, often 30 s");
        }
        bites
    }
}

/// All links of this host.
pub(super) async fn links(handle: &Handle) -> Result<Vec<Link>, NetlinkError> {
    let dump = handle.link().get().execute().map_ok(view).try_collect();
    dump.await.map_err(|error| explain("listing interfaces", &error))
}

async fn find(handle: &Handle, name: &str) -> Result<Option<Link>, NetlinkError> {
    // Asked by name the kernel answers with an error where there is none; a list is as good.
    Ok(links(handle).await?.into_iter().find(|link| link.name == name))
}

/// Addresses that others could reach, each with its link's index: no loopback, no link-local, none
/// that is still being checked for duplicates.
pub(super) async fn host_addresses(handle: &Handle) -> Result<Vec<(u32, IpAddr)>, NetlinkError> {
    let dump = handle.address().get().execute().try_filter_map(|message| std::future::ready(Ok(usable(&message))));
    dump.try_collect().await.map_err(|error| explain("listing addresses", &error))
}

#[allow(clippy::wildcard_enum_match_arm, reason = "the kernel has many attributes and we want few")]
fn usable(message: &AddressMessage) -> Option<(u32, IpAddr)> {
    let doubtful = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed | AddressHeaderFlags::Deprecated;
    if message.header.flags.intersects(doubtful) {
        return None;
    }
    let own = message.attributes.iter().filter_map(|attribute| match attribute {
        // The far end of a point-to-point link, or the address itself where there is no `Local`.
        AddressAttribute::Address(ip) => Some((1, *ip)),
        AddressAttribute::Local(ip) => Some((0, *ip)),
        _ => None,
    });
    let (_, ip) = own.min_by_key(|(rank, _)| *rank)?;
    let local = match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified(),
    };
    (!local).then_some((message.header.index, ip))
}

#[allow(clippy::wildcard_enum_match_arm, reason = "the kernel has many attributes and we want few")]
fn view(message: LinkMessage) -> Link {
    let running = LinkFlags::Up | LinkFlags::Running;
    let mut link = Link {
        index: message.header.index,
        running: message.header.flags.contains(running),
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Controller(index) => link.controller = Some(index),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::LinkInfo(infos) => link.bridge = bridge_settings(&infos),
            _ => {}
        }
    }
    link
}

#[allow(clippy::wildcard_enum_match_arm, reason = "the kernel has many attributes and we want few")]
fn bridge_settings(infos: &[LinkInfo]) -> Option<BridgeSettings> {
    if !infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Bridge))) {
        return None;
    }
    let mut settings = BridgeSettings { group_fwd_mask: 0, ..BridgeSettings::default() };
    for info in infos {
        let LinkInfo::Data(InfoData::Bridge(data)) = info else { continue };
        for value in data {
            match value {
                InfoBridge::GroupFwdMask(mask) => settings.group_fwd_mask = *mask,
                InfoBridge::MulticastSnooping(on) => settings.snooping = *on,
                InfoBridge::NfCallIpTables(on) | InfoBridge::NfCallIp6Tables(on) | InfoBridge::NfCallArpTables(on) => {
                    settings.netfilter |= *on;
                }
                InfoBridge::VlanFiltering(on) => settings.vlan_filtering = *on,
                InfoBridge::StpState(state) => settings.stp = *state != BridgeStpState::Disabled,
                _ => {}
            }
        }
    }
    Some(settings)
}

/// The host itself must not speak on a TAP that only feeds a bridge: no IPv6 address, no router search.
/// Where it cannot be switched off, it does little harm.
fn keep_host_quiet(tap: &str) {
    let _not_fatal = std::fs::write(format!("/proc/sys/net/ipv6/conf/{tap}/disable_ipv6"), "1");
}

fn sysctl_is_on(path: &str) -> bool {
    std::fs::read_to_string(format!("/proc/sys/{path}")).is_ok_and(|value| value.trim() == "1")
}

pub(super) fn explain(what: &str, error: &rtnetlink::Error) -> NetlinkError {
    let rtnetlink::Error::NetlinkError(message) = error else {
        return NetlinkError::Other(what.to_owned(), error.to_string());
    };
    let errno = errno_of(message);
    match errno {
        Some(Errno::PERM | Errno::ACCESS) => NetlinkError::NotAllowed(what.to_owned()),
        Some(Errno::NODEV) => NetlinkError::Gone(what.to_owned()),
        _ => NetlinkError::Other(what.to_owned(), message.to_io().to_string()),
    }
}

fn errno_of(message: &ErrorMessage) -> Option<Errno> {
    Errno::from_io_error(&message.to_io())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_others_can_reach_count() {
        let case = |ip: &str| {
            let mut message = AddressMessage::default();
            message.header.index = 3;
            message.attributes.push(AddressAttribute::Address(ip.parse().expect("address")));
            usable(&message).map(|(_, ip)| ip.to_string())
        };
        assert_eq!(case("192.0.2.7").as_deref(), Some("192.0.2.7"));
        assert_eq!(case("2001:db8::7").as_deref(), Some("2001:db8::7"));
        assert_eq!(case("fd00::7").as_deref(), Some("fd00::7"));
        for ip in ["127.0.0.1", "169.254.3.4", "::1", "fe80::1"] {
            assert_eq!(case(ip), None);
        }
    }

    #[test]
    fn the_near_end_of_a_point_to_point_link_counts_and_a_tentative_address_does_not() {
        let mut message = AddressMessage::default();
        message.attributes.push(AddressAttribute::Address("10.0.0.1".parse().expect("address")));
        message.attributes.push(AddressAttribute::Local("10.0.0.2".parse().expect("address")));
        assert_eq!(usable(&message).map(|(_, ip)| ip.to_string()).as_deref(), Some("10.0.0.2"));
        message.header.flags = AddressHeaderFlags::Tentative;
        assert_eq!(usable(&message), None);
    }

    #[test]
    fn each_setting_that_bites_is_named() {
        let biting =
            BridgeSettings { group_fwd_mask: 0, snooping: true, netfilter: true, vlan_filtering: true, stp: true };
        let words = ["group_fwd_mask", "mcast_snooping", "nf_call_iptables", "vlan_filtering", "stp"];
        let bites = biting.bites();
        assert!(words.iter().all(|word| bites.iter().any(|bite| bite.contains(word))), "{bites:?}");
        let calm = BridgeSettings { group_fwd_mask: 0x4008, ..BridgeSettings::default() };
        assert!(calm.bites().is_empty());
    }
}
