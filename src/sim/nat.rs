//! Address translators and firewalls, by the axes of RFC 4787: mapping, filtering, expiry.
//!
//! A mapping gives an inside socket an outside one. What it depends on decides whether the address that a
//! supernode sees is of use to a peer; what filtering depends on decides who may send to it.
//! Read first: RFC 4787 sections 4 and 5.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::chance::Dice;
use crate::time::Time;

/// Linux's conntrack: a flow that nothing came back on (`nf_conntrack_udp_timeout`).
pub const UNANSWERED: Duration = Duration::from_secs(30);
/// Linux's conntrack: a flow with packets both ways (`nf_conntrack_udp_timeout_stream`).
pub const ANSWERED: Duration = Duration::from_secs(120);
/// The first port that is handed out when the inside port is not kept.
const FIRST_PORT: u16 = 1024;

/// What a mapping or a filter looks at beside the inside socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Depends {
    /// Nothing: endpoint-independent.
    Nothing,
    /// The remote address.
    Address,
    /// The remote address and port.
    Port,
}

/// How a box between inside and outside behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// False for a firewall: addresses stay as they are.
    pub translates: bool,
    /// What the outside socket depends on.
    pub mapping: Depends,
    /// Which inbound packets pass.
    pub filtering: Depends,
    /// Whether the inside port is kept where it is free.
    pub keeps_port: bool,
    /// Whether new ports are counted up, not drawn.
    pub counts: bool,
    /// Whether two inside hosts reach each other by their outside sockets.
    pub hairpin: bool,
    /// Whether a refused packet makes a flow of the box itself that occupies the pair of sockets for
    /// 30 s, as with Linux's masquerading without an INPUT rule.
    pub strays_occupy: bool,
    /// How long a flow lives that nothing came back on.
    pub unanswered: Duration,
    /// How long a flow lives after packets went both ways.
    pub answered: Duration,
}

impl Behaviour {
    /// A translator that keeps ports and has no hairpin.
    pub const fn nat(mapping: Depends, filtering: Depends) -> Self {
        Self {
            translates: true,
            mapping,
            filtering,
            keeps_port: matches!(mapping, Depends::Nothing),
            counts: false,
            hairpin: false,
            strays_occupy: false,
            unanswered: UNANSWERED,
            answered: ANSWERED,
        }
    }

    /// What many homes and the `nftables` examples have: endpoint-independent mapping, strict filter.
    pub const fn port_restricted() -> Self {
        Self::nat(Depends::Nothing, Depends::Port)
    }

    /// Another random port for every remote socket.
    pub const fn symmetric() -> Self {
        Self::nat(Depends::Port, Depends::Port)
    }

    /// The next port for every remote socket.
    pub const fn counting() -> Self {
        Self { counts: true, ..Self::symmetric() }
    }

    /// Linux masquerading whose INPUT chain lets strays in.
    pub const fn bare_masquerade() -> Self {
        Self { strays_occupy: true, ..Self::port_restricted() }
    }

    /// A firewall: no translation, only answers come in.
    pub const fn firewall() -> Self {
        Self { translates: false, ..Self::port_restricted() }
    }

    /// The same with random ports.
    #[must_use]
    pub const fn random_ports(self) -> Self {
        Self { keeps_port: false, ..self }
    }

    /// The same with a hairpin.
    #[must_use]
    pub const fn with_hairpin(self) -> Self {
        Self { hairpin: true, ..self }
    }
}

/// What shares a mapping: the inside socket and as much of the remote one as mapping depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    inside: SocketAddr,
    address: Option<IpAddr>,
    port: Option<u16>,
}

impl Key {
    fn new(depends: Depends, inside: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            inside,
            address: (depends >= Depends::Address).then_some(remote.ip()),
            port: (depends >= Depends::Port).then_some(remote.port()),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Mapping {
    outside: SocketAddr,
    until: Time,
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    answered: bool,
    until: Time,
}

/// A translator or firewall and its state.
#[derive(Debug)]
pub struct Nat {
    behaviour: Behaviour,
    outside: IpAddr,
    mappings: BTreeMap<Key, Mapping>,
    owners: BTreeMap<SocketAddr, Key>,
    /// By outside socket and remote socket: who was sent to.
    flows: BTreeMap<(SocketAddr, SocketAddr), Flow>,
    /// Pairs held by flows of the box itself.
    occupied: BTreeMap<(SocketAddr, SocketAddr), Time>,
    dice: Dice,
    /// The last port that was counted.
    counted: u16,
}

impl Nat {
    /// An empty one, with `outside` as its address to the world.
    pub fn new(behaviour: Behaviour, outside: IpAddr, mut dice: Dice) -> Self {
        let drawn = if behaviour.counts { dice.below(60_000) } else { 0 };
        let counted = FIRST_PORT + u16::try_from(drawn).expect("below a port number");
        Self {
            behaviour,
            outside,
            mappings: BTreeMap::new(),
            owners: BTreeMap::new(),
            flows: BTreeMap::new(),
            occupied: BTreeMap::new(),
            dice,
            counted,
        }
    }

    /// How it behaves.
    pub const fn behaviour(&self) -> Behaviour {
        self.behaviour
    }

    /// Its address to the world.
    pub const fn outside(&self) -> IpAddr {
        self.outside
    }

    /// A packet goes out: its source as the outside sees it.
    pub fn outbound(&mut self, now: Time, inside: SocketAddr, remote: SocketAddr) -> SocketAddr {
        let (key, mapping) = self.mapping(now, inside, remote);
        let Behaviour { unanswered, answered, .. } = self.behaviour;
        let flow = self.flows.entry((mapping.outside, remote)).or_insert(Flow { answered: false, until: now });
        flow.answered &= flow.until > now;
        flow.until = now + if flow.answered { answered } else { unanswered };
        let until = mapping.until.max(flow.until);
        self.mappings.insert(key, Mapping { outside: mapping.outside, until });
        mapping.outside
    }

    /// A packet comes in: its receiver inside, or `None` if it is refused.
    pub fn inbound(&mut self, now: Time, remote: SocketAddr, outside: SocketAddr) -> Option<SocketAddr> {
        let passed = self.admitted(now, remote, outside);
        if passed.is_none() && self.behaviour.strays_occupy {
            self.occupied.insert((outside, remote), now + self.behaviour.unanswered);
        }
        let key = passed?;
        if let Some(flow) = self.flows.get_mut(&(outside, remote)).filter(|flow| flow.until > now) {
            *flow = Flow { answered: true, until: now + self.behaviour.answered };
            let until = flow.until;
            self.mappings.entry(key).and_modify(|mapping| mapping.until = mapping.until.max(until));
        }
        Some(key.inside)
    }

    /// Forgets everything, as a reboot does; `outside` is a new address to the world, if there is one.
    pub fn flush(&mut self, outside: Option<IpAddr>) {
        self.mappings.clear();
        self.owners.clear();
        self.flows.clear();
        self.occupied.clear();
        self.outside = outside.unwrap_or(self.outside);
    }

    /// The live mapping for a packet, or a new one.
    fn mapping(&mut self, now: Time, inside: SocketAddr, remote: SocketAddr) -> (Key, Mapping) {
        let detour = Key::new(Depends::Port, inside, remote);
        let usual = Key::new(self.behaviour.mapping, inside, remote);
        for key in [detour, usual] {
            let Some(mapping) = self.mappings.get(&key).copied() else { continue };
            if mapping.until <= now {
                self.forget(key, mapping.outside);
            } else if !self.is_occupied(now, mapping.outside, remote) {
                return (key, mapping);
            }
        }
        let key = if self.mappings.contains_key(&usual) { detour } else { usual };
        if let Some(old) = self.mappings.get(&key).copied() {
            self.forget(key, old.outside);
        }
        let outside = self.allocate(now, inside, remote);
        self.owners.insert(outside, key);
        (key, Mapping { outside, until: now })
    }

    fn forget(&mut self, key: Key, outside: SocketAddr) {
        self.mappings.remove(&key);
        self.owners.remove(&outside);
        let flows: Vec<_> = self.flows.range(pairs_of(outside)).map(|(pair, _)| *pair).collect();
        for pair in flows {
            self.flows.remove(&pair);
        }
    }

    fn allocate(&mut self, now: Time, inside: SocketAddr, remote: SocketAddr) -> SocketAddr {
        if !self.behaviour.translates {
            return inside;
        }
        let kept = SocketAddr::new(self.outside, inside.port());
        if self.behaviour.keeps_port && self.is_free(now, kept, remote) {
            return kept;
        }
        loop {
            let range = u64::from(u16::MAX - FIRST_PORT);
            let drawn = FIRST_PORT + u16::try_from(self.dice.below(range)).expect("below a port number");
            self.counted = self.counted.checked_add(1).unwrap_or(FIRST_PORT);
            let port = if self.behaviour.counts { self.counted } else { drawn };
            let outside = SocketAddr::new(self.outside, port);
            if self.is_free(now, outside, remote) {
                return outside;
            }
        }
    }

    fn is_free(&mut self, now: Time, outside: SocketAddr, remote: SocketAddr) -> bool {
        if self.is_occupied(now, outside, remote) {
            return false;
        }
        let Some(key) = self.owners.get(&outside).copied() else { return true };
        let dead = self.mappings.get(&key).is_none_or(|mapping| mapping.until <= now);
        if dead {
            self.forget(key, outside);
        }
        dead
    }

    fn is_occupied(&self, now: Time, outside: SocketAddr, remote: SocketAddr) -> bool {
        self.occupied.get(&(outside, remote)).is_some_and(|until| *until > now)
    }

    /// The mapping that an inbound packet belongs to, if its filter lets it pass.
    fn admitted(&self, now: Time, remote: SocketAddr, outside: SocketAddr) -> Option<Key> {
        let key = self.owners.get(&outside).copied()?;
        self.mappings.get(&key).filter(|mapping| mapping.until > now)?;
        let from = |remotes| self.flows.range(remotes).any(|(_, flow): (_, &Flow)| flow.until > now);
        let passes = match self.behaviour.filtering {
            Depends::Nothing => true,
            Depends::Address => from(pairs_with(outside, remote.ip())),
            Depends::Port => from((outside, remote)..=(outside, remote)),
        };
        passes.then_some(key)
    }
}

fn pairs_with(outside: SocketAddr, remote: IpAddr) -> RangeInclusive<(SocketAddr, SocketAddr)> {
    (outside, SocketAddr::new(remote, 0))..=(outside, SocketAddr::new(remote, u16::MAX))
}

fn pairs_of(outside: SocketAddr) -> RangeInclusive<(SocketAddr, SocketAddr)> {
    let first = SocketAddr::from(([0, 0, 0, 0], 0));
    let last = SocketAddr::from(([u16::MAX; 8], u16::MAX));
    (outside, first)..=(outside, last)
}

#[cfg(test)]
mod tests;
