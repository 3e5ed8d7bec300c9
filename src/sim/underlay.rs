//! The network under the overlay: sites behind access links and translators, joined by a core.
//!
//! A router has hosts or other routers inside (a carrier's translator has homes inside) and one access link
//! outwards. A packet moves one router per step, so that every translator sees it at its own time.
//! Hop limits are counted as routers count them; hosts of one LAN reach each other without a router.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::chance::Chance;
use super::nat::{Behaviour, Nat};
use super::pipe::{Conditions, Loss, Pipe};
use crate::time::Time;
use crate::wire::{HEADERS_V4, HEADERS_V6};

/// From host to host of a LAN, and from a host to its router.
const LAN_DELAY: Duration = Duration::from_micros(50);
/// The host part of a site's first host.
const FIRST_HOST: u8 = 10;

/// A router with its LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteId(pub usize);

/// A host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// How a site is connected.
#[derive(Clone, Copy, Debug, Default)]
pub struct SiteSpec {
    /// Its translator or firewall; none if its hosts are public.
    pub behaviour: Option<Behaviour>,
    /// The carrier's router it hangs behind; the core if `None`.
    pub carrier: Option<SiteId>,
    /// The third byte of its LAN (192.168.x.0/24); its own number if `None`.
    pub lan: Option<u8>,
    /// Whether hosts have IPv6 too: routed, and filtered if there is a `behaviour`.
    pub ipv6: bool,
    /// Of its access link.
    pub conditions: Conditions,
}

/// Bytes on their way.
#[derive(Clone, Debug)]
pub struct Packet<P> {
    /// As seen where it is now.
    pub from: SocketAddr,
    /// As seen where it is now.
    pub to: SocketAddr,
    /// Routers it may still pass.
    pub hops: u8,
    /// Where it was sent from.
    pub origin: SiteId,
    /// Bytes after the UDP header.
    pub len: usize,
    /// Made by the network: nobody misses it.
    pub copy: bool,
    /// What it carries.
    pub payload: P,
}

/// Where a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At a router, from inside.
    Up(SiteId),
    /// At a router, from outside.
    Down(SiteId),
    /// At a host.
    Host(HostId),
}

/// The next step of a packet.
#[derive(Debug)]
pub struct Step<P> {
    /// When.
    pub at: Time,
    /// Where.
    pub place: Place,
    /// What.
    pub packet: Packet<P>,
}

#[derive(Clone, Copy, Debug)]
enum Inside {
    Host(HostId),
    Router(SiteId),
}

#[derive(Debug)]
struct Router {
    parent: Option<SiteId>,
    nat: Option<Nat>,
    guard6: Option<Nat>,
    inside: BTreeMap<IpAddr, Inside>,
    up: Pipe,
    down: Pipe,
    lan: u8,
    hosts: u8,
    addresses: u8,
}

/// All routers, and who may reach whom.
#[derive(Debug)]
pub struct Underlay {
    chance: Chance,
    routers: Vec<Router>,
    core: BTreeMap<IpAddr, SiteId>,
    cuts: BTreeSet<(SiteId, SiteId)>,
    detours: BTreeMap<(SiteId, SiteId), Duration>,
    /// How many packets vanished, and why.
    pub losses: BTreeMap<Loss, u64>,
}

impl Underlay {
    /// Without any site.
    pub const fn new(chance: Chance) -> Self {
        Self {
            chance,
            routers: Vec::new(),
            core: BTreeMap::new(),
            cuts: BTreeSet::new(),
            detours: BTreeMap::new(),
            losses: BTreeMap::new(),
        }
    }

    /// Builds a site.
    pub fn add(&mut self, spec: SiteSpec) -> SiteId {
        let site = SiteId(self.routers.len());
        let number = u8::try_from(site.0 % 250).expect("below 250");
        let router = Router {
            parent: spec.carrier,
            nat: None,
            guard6: None,
            inside: BTreeMap::new(),
            up: Pipe::new(spec.conditions, self.chance.stream("pipe up", site.0)),
            down: Pipe::new(spec.conditions, self.chance.stream("pipe down", site.0)),
            lan: spec.lan.unwrap_or(number),
            hosts: FIRST_HOST,
            addresses: 0,
        };
        self.routers.push(router);
        if let Some(behaviour) = spec.behaviour {
            let outside = self.outside_address(site);
            let dice = self.chance.stream("nat", site.0);
            self.routers[site.0].nat = Some(Nat::new(behaviour, outside, dice.clone()));
            self.routers[site.0].guard6 = spec.ipv6.then(|| Nat::new(Behaviour::firewall(), outside, dice));
            if behaviour.translates {
                self.announce(outside, site);
            }
        }
        site
    }

    /// Gives a host of `site` its next address.
    pub fn attach(&mut self, site: SiteId, host: HostId, ipv6: bool) -> IpAddr {
        let number = site.0;
        let router = &mut self.routers[number];
        let [high, low] = u16::try_from(number).expect("at most 65,535 sites").to_be_bytes();
        let address = match (ipv6, router.translates()) {
            (true, _) => {
                let site = u16::from_be_bytes([high, low]);
                IpAddr::from(Ipv6Addr::new(0x2a00, site, 0, 0, 0, 0, 0, u16::from(router.hosts)))
            }
            (false, true) => IpAddr::from([192, 168, router.lan, router.hosts]),
            (false, false) => IpAddr::from([5, high, low, router.hosts]),
        };
        router.hosts += 1;
        router.inside.insert(address, Inside::Host(host));
        if ipv6 || !router.translates() {
            self.announce(address, site);
        }
        address
    }

    /// Takes `address` away from its host of `site`.
    pub fn detach(&mut self, site: SiteId, address: IpAddr) {
        self.routers[site.0].inside.remove(&address);
        self.withdraw(address, site);
    }

    /// The conditions of a site's access link, outwards and inwards.
    pub fn conditions(&mut self, site: SiteId) -> [&mut Conditions; 2] {
        let router = &mut self.routers[site.0];
        [&mut router.up.conditions, &mut router.down.conditions]
    }

    /// The site's translator or firewall.
    pub fn nat(&self, site: SiteId) -> Option<&Nat> {
        self.routers[site.0].nat.as_ref()
    }

    /// The carrier's router a site is behind.
    pub fn carrier(&self, site: SiteId) -> Option<SiteId> {
        self.routers[site.0].parent
    }

    /// Reboots a site's translator; with `readdress` it comes back with another outside address.
    pub fn flush(&mut self, site: SiteId, readdress: bool) {
        let Some(old) = self.nat(site).filter(|nat| nat.behaviour().translates).map(Nat::outside) else { return };
        let outside = readdress.then(|| self.outside_address(site));
        if let Some(outside) = outside {
            self.withdraw(old, site);
            self.announce(outside, site);
        }
        let router = &mut self.routers[site.0];
        router.nat.iter_mut().for_each(|nat| nat.flush(outside));
        router.guard6.iter_mut().for_each(|guard| guard.flush(None));
    }

    /// Packets from `from` to `to` vanish from now on.
    pub fn cut(&mut self, from: SiteId, to: SiteId) {
        self.cuts.insert((from, to));
    }

    /// Undoes a [`Underlay::cut`].
    pub fn mend(&mut self, from: SiteId, to: SiteId) {
        self.cuts.remove(&(from, to));
    }

    /// Packets from `from` to `to` take so much longer: ways between networks are not straight.
    pub fn lengthen(&mut self, from: SiteId, to: SiteId, by: Duration) {
        self.detours.insert((from, to), by);
    }

    /// Undoes every cut.
    pub fn mend_all(&mut self) {
        self.cuts.clear();
    }

    /// Whether packets from `from` to `to` vanish.
    pub fn is_cut(&self, from: SiteId, to: SiteId) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// One step of a packet. What comes of it is appended to `steps`; a packet that vanished is given back.
    pub fn carry<P: Clone>(
        &mut self,
        now: Time,
        place: Place,
        mut packet: Packet<P>,
        steps: &mut Vec<Step<P>>,
    ) -> Option<Packet<P>> {
        let result = match place {
            Place::Up(site) => self.up(now, site, &mut packet),
            Place::Down(site) => self.down(now, site, &mut packet),
            Place::Host(_) => Ok((place, (now, None))),
        };
        match result {
            Ok((place, (at, again))) => {
                if let Some(at) = again {
                    steps.push(Step { at, place, packet: Packet { copy: true, ..packet.clone() } });
                }
                steps.push(Step { at, place, packet });
                None
            }
            Err(loss) => {
                *self.losses.entry(loss).or_default() += 1;
                Some(packet)
            }
        }
    }

    fn up<P>(
        &mut self,
        now: Time,
        site: SiteId,
        packet: &mut Packet<P>,
    ) -> Result<(Place, (Time, Option<Time>)), Loss> {
        let router = &mut self.routers[site.0];
        let to = packet.to.ip();
        if let Some(inside) = router.inside.get(&to).copied() {
            if packet.origin != site {
                packet.pass_router()?;
            }
            return Ok((inside.place(), (now + LAN_DELAY, None)));
        }
        packet.pass_router()?;
        if let Some(nat) = router.guard(packet.from) {
            let hairpin = nat.behaviour().translates && nat.outside() == to;
            if hairpin && !nat.behaviour().hairpin {
                return Err(Loss::Hairpin);
            }
            packet.from = nat.outbound(now, packet.from, packet.to);
            if hairpin {
                packet.to = nat.inbound(now, packet.from, packet.to).ok_or(Loss::Refused)?;
                let inside = router.inside.get(&packet.to.ip()).copied().ok_or(Loss::Route)?;
                return Ok((inside.place(), (now + LAN_DELAY, None)));
            }
        }
        let passage = router.up.pass(now, packet.ip_len())?;
        if let Some(parent) = router.parent {
            return Ok((Place::Up(parent), passage));
        }
        packet.pass_router()?;
        let next = self.core.get(&to).copied().ok_or(Loss::Route)?;
        Ok((Place::Down(next), passage))
    }

    fn down<P>(
        &mut self,
        now: Time,
        site: SiteId,
        packet: &mut Packet<P>,
    ) -> Result<(Place, (Time, Option<Time>)), Loss> {
        if self.cuts.contains(&(packet.origin, site)) {
            return Err(Loss::Cut);
        }
        packet.pass_router()?;
        let router = &mut self.routers[site.0];
        let (at, again) = router.down.pass(now, packet.ip_len())?;
        let longer = self.detours.get(&(packet.origin, site)).copied().unwrap_or_default();
        let passage = (at + longer, again.map(|at| at + longer));
        if let Some(nat) = router.guard(packet.to) {
            packet.to = nat.inbound(now, packet.from, packet.to).ok_or(Loss::Refused)?;
        }
        let inside = router.inside.get(&packet.to.ip()).copied().ok_or(Loss::Route)?;
        Ok((inside.place(), passage))
    }

    /// Makes `address` lead to `site` in the realm outside of it.
    fn announce(&mut self, address: IpAddr, site: SiteId) {
        match self.routers[site.0].parent {
            Some(parent) => {
                self.routers[parent.0].inside.insert(address, Inside::Router(site));
                if address.is_ipv6() || !self.routers[parent.0].translates() {
                    self.announce(address, parent);
                }
            }
            None => {
                self.core.insert(address, site);
            }
        }
    }

    fn withdraw(&mut self, address: IpAddr, site: SiteId) {
        match self.routers[site.0].parent {
            Some(parent) => {
                self.routers[parent.0].inside.remove(&address);
                self.withdraw(address, parent);
            }
            None => {
                self.core.remove(&address);
            }
        }
    }

    /// An address for the outside of a translator: a carrier's, or a public one.
    fn outside_address(&mut self, site: SiteId) -> IpAddr {
        let [high, low] = u16::try_from(site.0).expect("at most 65,535 sites").to_be_bytes();
        let router = &mut self.routers[site.0];
        router.addresses += 1;
        match router.parent {
            Some(_) => IpAddr::from(Ipv4Addr::new(100, 64 + high, low, router.addresses)),
            None => IpAddr::from(Ipv4Addr::new(31, high, low, router.addresses)),
        }
    }
}

impl Router {
    fn translates(&self) -> bool {
        self.nat.as_ref().is_some_and(|nat| nat.behaviour().translates)
    }

    /// What stands between inside and outside for the family of `address`.
    const fn guard(&mut self, address: SocketAddr) -> Option<&mut Nat> {
        if address.is_ipv6() { self.guard6.as_mut() } else { self.nat.as_mut() }
    }
}

impl Inside {
    const fn place(self) -> Place {
        match self {
            Self::Host(host) => Place::Host(host),
            Self::Router(site) => Place::Down(site),
        }
    }
}

impl<P> Packet<P> {
    fn pass_router(&mut self) -> Result<(), Loss> {
        self.hops = self.hops.saturating_sub(1);
        if self.hops == 0 { Err(Loss::Hops) } else { Ok(()) }
    }

    const fn ip_len(&self) -> usize {
        self.len + if self.to.is_ipv6() { HEADERS_V6 } else { HEADERS_V4 }
    }
}

#[cfg(test)]
mod tests;
