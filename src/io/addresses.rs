//! The host's own addresses, now and whenever they change: where peers on the same network, or without
//! a NAT, can reach this node.
//!
//! The address on the bridge that holds a TAP counts (an ordinary KVM host has no other); addresses on
//! our TAPs do not.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::Input;
use super::netlink::{self, NetlinkError};

/// Changes come in bursts; one look serves them all.
const SETTLE: Duration = Duration::from_millis(200);

/// The addresses at this moment, in order. `taps` are the names of our own.
pub async fn list(handle: &Handle, taps: &BTreeSet<String>) -> Result<Vec<IpAddr>, NetlinkError> {
    let links = netlink::links(handle).await?;
    let usable: BTreeSet<u32> = links
        .into_iter()
        .filter(|link| link.running && !link.loopback && !taps.contains(&link.name))
        .map(|link| link.index)
        .collect();
    let addresses = netlink::host_addresses(handle).await?;
    let found: BTreeSet<IpAddr> =
        addresses.into_iter().filter(|(index, _)| usable.contains(index)).map(|(_, ip)| ip).collect();
    Ok(found.into_iter().collect())
}

/// Tells the loop every change from `known` on, as long as the loop lives. Runs on the background runtime.
pub async fn watch(taps: BTreeSet<String>, mut known: Vec<IpAddr>, inputs: mpsc::Sender<Input>) {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, handle, mut changes) = match new_multicast_connection(&groups) {
        Ok(connected) => connected,
        Err(error) => return warn!(%error, "changes of this host's addresses go unnoticed"),
    };
    tokio::spawn(connection);
    loop {
        match list(&handle, &taps).await {
            Ok(found) if known != found => {
                if inputs.send(Input::Addresses(found.clone())).await.is_err() {
                    return;
                }
                known = found;
            }
            Ok(_) => {}
            Err(error) => warn!(%error, "this host's addresses cannot be read"),
        }
        if changes.next().await.is_none() {
            return warn!("changes of this host's addresses go unnoticed from now on");
        }
        sleep(SETTLE).await;
        while let Ok(Some(_)) = timeout(Duration::ZERO, changes.next()).await {}
    }
}
