//! Port mapping: asks the router to let others in to our UDP port, keeps that up, and takes it back.
//!
//! PCP (RFC 6887) or NAT-PMP (RFC 6886) by `crab_nat`; where the router knows neither, UPnP-IGD by
//! `igd-next`. Only the router of the default route is asked and believed. A host with a public address
//! asks nobody. Whatever fails costs nothing but a line at level debug; it is tried again later.

use std::future::pending;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU16;
use std::time::Duration;

use crab_nat::{
    GATEWAY_PORT, InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp,
};
use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddPortError, PortMappingProtocol, SearchOptions};
use tokio::runtime::Handle as Background;
use tokio::sync::{mpsc, oneshot, watch as latest};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::Input;
use super::addresses::Surroundings;

/// How long a mapping is asked for: what is left after a crash ends by itself.
const LEASE: Duration = Duration::from_secs(3600);
/// Between renewals: a router that restarted and forgot is reminded after this time at the latest.
const RENEW: Duration = Duration::from_secs(600);
/// After no protocol worked.
const RETRY: Duration = Duration::from_secs(300);
/// First wait for an answer to PCP and NAT-PMP; doubles with each of the [`REPEATS`].
const PATIENCE: Duration = Duration::from_millis(250);
const REPEATS: usize = 2;
/// For a router that is asked for UPnP directly, and then with everybody on the link.
const SEARCH: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// Where UPnP is spoken (UPnP Device Architecture 1.1, section 1.3).
const SSDP_PORT: u16 = 1900;
/// To take the mapping back at the end.
const FAREWELL: Duration = Duration::from_secs(1);
/// What a router's list of mappings shows.
const LABEL: &str = "longwire";

/// The task that keeps a mapping.
#[derive(Debug)]
pub struct Mapper {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Mapper {
    /// Keeps a mapping of `port` wherever there is a router; the loop is told of it.
    pub fn start(
        background: &Background,
        port: u16,
        surroundings: latest::Receiver<Surroundings>,
        inputs: mpsc::Sender<Input>,
    ) -> Option<Self> {
        let keeper = Keeper { port: NonZeroU16::new(port)?, surroundings, inputs, held: None, told: None };
        let (stop, stopped) = oneshot::channel();
        Some(Self { stop, task: background.spawn(keeper.run(stopped)) })
    }

    /// Takes the mapping back.
    pub async fn stop(self) {
        let Self { stop, task } = self;
        // It may have ended by itself.
        let _ended = stop.send(());
        let _late = timeout(FAREWELL, task).await;
    }
}

/// Whom we ask, and where it sees us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    router: Ipv4Addr,
    own: Ipv4Addr,
}

/// A mapping that a router made.
enum Mapping {
    /// By PCP or NAT-PMP.
    Asked(PortMapping),
    /// By UPnP: the device, the outside port, the lease in seconds.
    Upnp(Box<Gateway<Tokio>>, u16, u32),
}

struct Keeper {
    port: NonZeroU16,
    surroundings: latest::Receiver<Surroundings>,
    inputs: mpsc::Sender<Input>,
    held: Option<(Place, Mapping)>,
    told: Option<SocketAddr>,
}

impl Keeper {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        tokio::select! {
            biased;
            _ = &mut stopped => {}
            () = self.keep() => {}
        }
        self.release().await;
    }

    /// Until the loop is gone.
    async fn keep(&mut self) {
        loop {
            let place = place(&self.surroundings.borrow_and_update());
            if self.held.as_ref().is_some_and(|(held, _)| Some(*held) != place) {
                self.release().await;
            }
            let outside = match place {
                Some(place) => self.ask(place).await,
                None => None,
            };
            if self.told != outside {
                match outside {
                    Some(outside) => info!(%outside, by = self.protocol(), "the router lets others in"),
                    None => info!("the router lets nobody in any more"),
                }
                self.told = outside;
                if self.inputs.send(Input::Mapped(outside)).await.is_err() {
                    return;
                }
            }
            let again = match (place, outside) {
                (None, _) => None,
                (Some(_), Some(_)) => Some(RENEW),
                (Some(_), None) => Some(RETRY),
            };
            tokio::select! {
                changed = self.surroundings.changed() => if changed.is_err() { return pending().await },
                () = rest(again) => {}
            }
        }
    }

    fn protocol(&self) -> &'static str {
        self.held.as_ref().map_or("-", |(_, mapping)| mapping.protocol())
    }

    /// Renews what is held, or makes a new one. Gives the address outside.
    async fn ask(&mut self, place: Place) -> Option<SocketAddr> {
        if let Some((_, mapping)) = &mut self.held {
            match mapping.renew(place, self.port).await {
                Ok(outside) => return Some(outside),
                Err(error) => debug!(router = %place.router, error, "the mapping was not renewed"),
            }
            self.release().await;
        }
        let (mapping, outside) = make(place, self.port).await?;
        self.held = Some((place, mapping));
        Some(outside)
    }

    async fn release(&mut self) {
        if let Some((place, mapping)) = self.held.take() {
            mapping.remove(place).await;
        }
    }
}

async fn rest(span: Option<Duration>) {
    match span {
        Some(span) => sleep(span).await,
        None => pending().await,
    }
}

/// Whom to ask: the router, if we are behind a NAT.
fn place(surroundings: &Surroundings) -> Option<Place> {
    let is_public = |ip: &IpAddr| matches!(ip, IpAddr::V4(ip) if is_public(*ip));
    if surroundings.addresses.iter().any(is_public) {
        return None;
    }
    let router = surroundings.router?;
    // Sends nothing; the kernel says which of our addresses the router sees.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((router, GATEWAY_PORT)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(own) => Some(Place { router, own }),
        IpAddr::V6(_) => None,
    }
}

/// Neither private (RFC 1918) nor shared by the customers of a provider (RFC 6598) nor local.
const fn is_public(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    let is_shared = a == 100 && b & 0xc0 == 64;
    !ip.is_private() && !ip.is_link_local() && !ip.is_loopback() && !ip.is_unspecified() && !is_shared
}

async fn make(place: Place, port: NonZeroU16) -> Option<(Mapping, SocketAddr)> {
    let options = PortMappingOptions {
        external_port: Some(port),
        lifetime_seconds: u32::try_from(LEASE.as_secs()).ok(),
        timeout_config: Some(patience()),
    };
    let asked = PortMapping::new(place.router.into(), place.own.into(), InternetProtocol::Udp, port, options).await;
    let refused = match asked {
        Ok(mapping) => match outside_of(&mapping).await {
            Ok(outside) => return Some((Mapping::Asked(mapping), outside)),
            Err(error) => error,
        },
        Err(error) => error.to_string(),
    };
    debug!(router = %place.router, error = refused, "no mapping by PCP or NAT-PMP");
    match make_upnp(place, port).await {
        Ok(made) => Some(made),
        Err(error) => {
            debug!(router = %place.router, error, "no mapping by UPnP");
            None
        }
    }
}

async fn make_upnp(place: Place, port: NonZeroU16) -> Result<(Mapping, SocketAddr), String> {
    let device = find_upnp(place).await?;
    let lease = u32::try_from(LEASE.as_secs()).unwrap_or(u32::MAX);
    let (number, lease) = map_upnp(&device, place, port, lease).await?;
    let outside = SocketAddr::new(device.get_external_ip().await.map_err(|error| error.to_string())?, number);
    Ok((Mapping::Upnp(Box::new(device), number, lease), usable(outside)?))
}

/// Asks the router itself first: not every router answers that, but it disturbs nobody else.
async fn find_upnp(place: Place) -> Result<Gateway<Tokio>, String> {
    let mut refused = String::new();
    let everybody = SearchOptions::default().broadcast_address;
    for (to, patience) in [SocketAddr::new(place.router.into(), SSDP_PORT), everybody].into_iter().zip(SEARCH) {
        let mut options = SearchOptions::default();
        options.bind_addr = SocketAddr::new(place.own.into(), 0);
        options.broadcast_address = to;
        options.timeout = Some(patience);
        match search_gateway(options).await {
            Ok(device) if device.addr.ip() == place.router => return Ok(device),
            Ok(device) => refused = format!("{} answers, which is not the router", device.addr.ip()),
            Err(error) => refused = error.to_string(),
        }
    }
    Err(refused)
}

/// The same port outside if it is free, else any; a lease for ever where the router knows no other.
async fn map_upnp(device: &Gateway<Tokio>, place: Place, port: NonZeroU16, lease: u32) -> Result<(u16, u32), String> {
    let (udp, own) = (PortMappingProtocol::UDP, SocketAddr::new(place.own.into(), port.get()));
    match device.add_port(udp, port.get(), own, lease, LABEL).await {
        Ok(()) => Ok((port.get(), lease)),
        Err(AddPortError::OnlyPermanentLeasesSupported) => {
            let added = device.add_port(udp, port.get(), own, 0, LABEL).await;
            added.map(|()| (port.get(), 0)).map_err(|error| error.to_string())
        }
        Err(_taken) => {
            let added = device.add_any_port(udp, own, lease, LABEL).await;
            added.map(|number| (number, lease)).map_err(|error| error.to_string())
        }
    }
}

const fn patience() -> TimeoutConfig {
    TimeoutConfig { initial_timeout: PATIENCE, max_retries: REPEATS, max_retry_timeout: None }
}

/// Where a mapping by PCP or NAT-PMP lets others in. NAT-PMP has a question of its own for that.
async fn outside_of(mapping: &PortMapping) -> Result<SocketAddr, String> {
    let ip = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => external_ip.to_canonical(),
        PortMappingType::NatPmp => {
            let asked = natpmp::external_address(mapping.gateway(), Some(patience())).await;
            IpAddr::V4(asked.map_err(|error| error.to_string())?)
        }
    };
    usable(SocketAddr::new(ip, mapping.external_port().get()))
}

/// A router without a link to the internet may name an address that is none.
fn usable(outside: SocketAddr) -> Result<SocketAddr, String> {
    if crate::control::candidate::is_usable(outside) { Ok(outside) } else { Err(format!("{outside} is no address")) }
}

impl Mapping {
    fn protocol(&self) -> &'static str {
        match self {
            Self::Asked(mapping) => match mapping.mapping_type() {
                PortMappingType::Pcp { .. } => "PCP",
                PortMappingType::NatPmp => "NAT-PMP",
            },
            Self::Upnp(..) => "UPnP",
        }
    }

    async fn renew(&mut self, place: Place, port: NonZeroU16) -> Result<SocketAddr, String> {
        match self {
            Self::Asked(mapping) => {
                mapping.renew().await.map_err(|error| error.to_string())?;
                outside_of(mapping).await
            }
            Self::Upnp(device, number, lease) => {
                let own = SocketAddr::new(place.own.into(), port.get());
                let added = device.add_port(PortMappingProtocol::UDP, *number, own, *lease, LABEL).await;
                added.map_err(|error| error.to_string())?;
                let ip = device.get_external_ip().await.map_err(|error| error.to_string())?;
                usable(SocketAddr::new(ip, *number))
            }
        }
    }

    async fn remove(self, place: Place) {
        let removed = match self {
            Self::Asked(mapping) => mapping.try_drop().await.map_err(|(error, _)| error.to_string()),
            Self::Upnp(device, number, _) => {
                device.remove_port(PortMappingProtocol::UDP, number).await.map_err(|error| error.to_string())
            }
        };
        match removed {
            Ok(()) => debug!(router = %place.router, "the mapping is taken back"),
            Err(error) => debug!(router = %place.router, error, "the mapping stays until its lease ends"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(addresses: &[&str], router: &str) -> Surroundings {
        let addresses = addresses.iter().map(|ip| ip.parse().expect("address")).collect();
        Surroundings { addresses, router: router.parse().ok(), ..Surroundings::default() }
    }

    #[test]
    fn a_host_with_a_public_address_asks_nobody() {
        for addresses in [["10.0.0.2", "192.0.2.7"], ["192.0.2.7", "fd00::1"]] {
            assert_eq!(place(&surroundings(&addresses, "127.0.0.1")), None, "{addresses:?}");
        }
        assert_eq!(place(&surroundings(&["10.0.0.2"], "")), None, "no router");
    }

    #[test]
    fn a_host_behind_a_nat_asks_its_router_even_if_ipv6_is_public() {
        let place = place(&surroundings(&["10.0.0.2", "2001:db8::2"], "127.0.0.1"));
        assert_eq!(place, Some(Place { router: Ipv4Addr::LOCALHOST, own: Ipv4Addr::LOCALHOST }));
    }

    #[test]
    fn an_address_shared_by_a_providers_customers_is_not_public() {
        assert!(is_public(Ipv4Addr::new(100, 128, 0, 1)));
        for ip in [[100, 64, 0, 1], [100, 127, 255, 254], [192, 168, 1, 1], [169, 254, 1, 1], [127, 0, 0, 1]] {
            assert!(!is_public(ip.into()), "{ip:?}");
        }
    }
}
