//! What the underlay looks like from this host, now and whenever it changes: the host's own addresses,
//! where peers on the same network, or without a NAT, can reach this node; and the router before it.
//!
//! The address on the bridge that holds a TAP counts (an ordinary KVM host has no other); addresses on
//! our TAPs do not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::sync::{mpsc, watch as latest};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::netlink::{self, NetlinkError};
use super::{Input, routes};

/// Changes come in bursts; one look serves them all.
const SETTLE: Duration = Duration::from_millis(200);

/// The underlay, seen from this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The host's own addresses for peers.
    pub addresses: Vec<IpAddr>,
    /// The interfaces that lead to the underlay.
    pub links: Vec<UnderlayLink>,
    /// The router of the default route, if there is one.
    pub router: Option<Ipv4Addr>,
}

/// An interface that leads to the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnderlayLink {
    /// The kernel's number of it.
    pub index: u32,
    /// An IPv4 address on it.
    pub v4: Option<Ipv4Addr>,
    /// Whether it has an IPv6 address that others can reach.
    pub v6: bool,
}

/// The surroundings at this moment. `taps` are the names of our own.
pub async fn look(handle: &Handle, taps: &BTreeSet<String>) -> Result<Surroundings, NetlinkError> {
    let links = netlink::links(handle).await?;
    let usable: BTreeSet<u32> = links
        .into_iter()
        .filter(|link| link.running && !link.loopback && !taps.contains(&link.name))
        .map(|link| link.index)
        .collect();
    let mut found = netlink::host_addresses(handle).await?;
    found.retain(|(index, _)| usable.contains(index));
    let routes = routes::list(handle).await?;
    let way_out = routes::defaults(&routes, true).into_iter().find(|route| usable.contains(&route.link));
    let router = way_out.and_then(|route| route.gateway).and_then(|gateway| match gateway {
        IpAddr::V4(router) => Some(router),
        IpAddr::V6(_) => None,
    });
    let addresses: BTreeSet<IpAddr> = found.iter().map(|(_, ip)| *ip).collect();
    Ok(Surroundings { addresses: addresses.into_iter().collect(), links: underlay_links(&found), router })
}

/// The links of these addresses.
fn underlay_links(addresses: &[(u32, IpAddr)]) -> Vec<UnderlayLink> {
    let mut links: BTreeMap<u32, UnderlayLink> = BTreeMap::new();
    for (index, ip) in addresses {
        let link = links.entry(*index).or_insert(UnderlayLink { index: *index, v4: None, v6: false });
        match ip {
            IpAddr::V4(ip) => link.v4 = link.v4.or(Some(*ip)),
            IpAddr::V6(_) => link.v6 = true,
        }
    }
    links.into_values().collect()
}

/// Tells the loop and everybody who follows `told` every change from now on, as long as the loop lives.
/// Runs on the background runtime.
pub async fn watch(taps: BTreeSet<String>, told: latest::Sender<Surroundings>, inputs: mpsc::Sender<Input>) {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (connection, handle, mut changes) = match new_multicast_connection(&groups) {
        Ok(connected) => connected,
        Err(error) => return warn!(%error, "changes of this host's addresses go unnoticed"),
    };
    tokio::spawn(connection);
    loop {
        match look(&handle, &taps).await {
            Ok(found) => {
                let is_news = found.addresses != told.borrow().addresses;
                if is_news && inputs.send(Input::Addresses(found.addresses.clone())).await.is_err() {
                    return;
                }
                told.send_if_modified(|known| std::mem::replace(known, found.clone()) != found);
            }
            Err(error) => warn!(%error, "this host's addresses cannot be read"),
        }
        if changes.next().await.is_none() {
            return warn!("changes of this host's addresses go unnoticed from now on");
        }
        sleep(SETTLE).await;
        while let Ok(Some(_)) = timeout(Duration::ZERO, changes.next()).await {}
    }
}
