//! What the underlay looks like from this host, now and whenever it changes: the host's own addresses,
//! where peers on the same network, or without a NAT, can reach this node; and the ways out.
//!
//! What counts is decided in [`interfaces`].

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::sync::{mpsc, watch as latest};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::interfaces::{self, Rules};
use super::netlink::{self, NetlinkError};
use super::{Input, routes};
use crate::node::NetworkRoute;

/// Changes come in bursts; one look serves them all.
const SETTLE: Duration = Duration::from_millis(200);

/// The underlay, seen from this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The host's own addresses for peers, the likeliest first.
    pub addresses: Vec<IpAddr>,
    /// The interfaces that lead to the underlay.
    pub links: Vec<UnderlayLink>,
    /// The router of the default route, if there is one.
    pub router: Option<Ipv4Addr>,
    /// Routes that lead into overlays, and those that lead out of them again.
    pub routes: Vec<NetworkRoute>,
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

/// The surroundings at this moment.
pub async fn look(handle: &Handle, rules: &Rules) -> Result<Surroundings, NetlinkError> {
    let links = netlink::links(handle).await?;
    let addresses = netlink::host_addresses(handle).await?;
    let routes = routes::list(handle).await?;
    Ok(interfaces::survey(&links, &addresses, &routes, rules))
}

/// Tells the loop and everybody who follows `told` every change from now on, as long as the loop lives.
/// Runs on the background runtime.
pub async fn watch(rules: Rules, told: latest::Sender<Surroundings>, inputs: mpsc::Sender<Input>) {
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
        match look(&handle, &rules).await {
            Ok(found) => {
                let is_news = found.routes != told.borrow().routes;
                if is_news && inputs.send(Input::Routes(found.routes.clone())).await.is_err() {
                    return;
                }
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
