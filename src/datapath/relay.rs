//! Relaying: our legs at supernodes and members, and the legs of those that we relay for, as either.
//!
//! A relay forwards by the clear header alone, between legs that it gave. It never opens, copies to several, or answers.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use super::buf::{Target, Transmits};
use super::limit::Bucket;
use super::port::{LegId, Path};
use super::replay::Window;
use super::stats::DropReason;
use crate::keys::OverlayId;
use crate::time::Time;
use crate::wire::relay::{HEADER_LEN, Header, LegKey, RelayId, is_genuine};

/// The least that may be relayed at once: one run as the kernel joins them.
const SHARE_BURST_MIN: u32 = 64 * 1024;
/// Of what may be relayed in a second, this part may be relayed at once.
const SHARE_BURST: u32 = 10;

/// Our leg at a relay.
struct Leg {
    at: SocketAddr,
    /// The address of ours that the relay speaks to.
    source: Option<IpAddr>,
    key: LegKey,
    counter: u64,
    window: Window,
}

/// Our legs at all relays; a few.
#[derive(Default)]
pub(super) struct Legs(BTreeMap<LegId, Leg>);

impl Legs {
    /// A new leg, or the same leg with a new key.
    pub(super) fn set(&mut self, id: LegId, at: SocketAddr, key: LegKey) {
        self.0.insert(id, Leg { at, source: None, key, counter: 0, window: Window::default() });
    }

    /// The leg is closed.
    pub(super) fn drop(&mut self, id: LegId) {
        self.0.remove(&id);
    }

    /// Where packets on `path` are sent to; `None` if its leg is closed.
    pub(super) fn address(&self, path: Path) -> Option<SocketAddr> {
        match path {
            Path::Direct(to) => Some(to),
            Path::Relayed(leg, _) => self.0.get(&leg).map(|leg| leg.at),
        }
    }

    /// The address of ours that packets on `path` leave from, if not the system's choice.
    pub(super) fn source(&self, path: Path) -> Option<IpAddr> {
        match path {
            Path::Direct(_) => None,
            Path::Relayed(leg, _) => self.0.get(&leg)?.source,
        }
    }

    pub(super) fn forget_sources(&mut self) {
        self.0.values_mut().for_each(|leg| leg.source = None);
    }

    /// Writes the relay header of `path` in front of the inner packet.
    pub(super) fn wrap(&mut self, path: Path, packet: &mut [u8]) {
        let Path::Relayed(leg, relay) = path else { return };
        let Some(leg) = self.0.get_mut(&leg) else { return };
        let counter = leg.counter;
        leg.counter += 1;
        Header { down: false, relay, counter }.write(leg.key, packet);
    }

    /// Which path a RELAY packet from a relay came by.
    pub(super) fn unwrap(
        &mut self,
        (from, to): (SocketAddr, Option<IpAddr>),
        header: Header,
        packet: &[u8],
    ) -> Result<Path, DropReason> {
        let mut reason = DropReason::RelayUnknownSender;
        for (id, leg) in self.0.iter_mut().filter(|(_, leg)| leg.at == from) {
            if !is_genuine(leg.key, packet) {
                reason = DropReason::RelayBadTag;
                continue;
            }
            return match leg.window.accept(header.counter) {
                Ok(()) => {
                    leg.source = to;
                    Ok(Path::Relayed(*id, header.relay))
                }
                Err(_) => Err(DropReason::RelayReplayed),
            };
        }
        Err(reason)
    }
}

/// A member's leg at this node.
pub(super) struct Channel {
    overlay: OverlayId,
    addr: SocketAddr,
    /// The address of ours that it spoke to last.
    source: Option<IpAddr>,
    key: LegKey,
    counter: u64,
    window: Window,
}

/// The legs of all members that this node relays for.
pub(super) struct Channels {
    by_id: HashMap<RelayId, Channel, ahash::RandomState>,
    by_addr: HashMap<(SocketAddr, OverlayId), RelayId, ahash::RandomState>,
    share: Option<Bucket>,
}

impl Channels {
    pub(super) fn new(seed: [u64; 4]) -> Self {
        let hasher = ahash::RandomState::with_seeds(seed[0], seed[1], seed[2], seed[3]);
        Self { by_id: HashMap::with_hasher(hasher.clone()), by_addr: HashMap::with_hasher(hasher), share: None }
    }

    /// No more than this is passed on.
    pub(super) fn share(&mut self, bytes_per_s: u32) {
        self.share = Some(Bucket::new(bytes_per_s, (bytes_per_s / SHARE_BURST).max(SHARE_BURST_MIN)));
    }

    /// A member has a leg here.
    pub(super) fn set(&mut self, id: RelayId, overlay: OverlayId, addr: SocketAddr, key: LegKey) {
        self.drop(id);
        self.by_addr.insert((addr, overlay), id);
        self.by_id.insert(id, Channel { overlay, addr, source: None, key, counter: 0, window: Window::default() });
    }

    /// A member's validated address is another one.
    pub(super) fn rebind(&mut self, id: RelayId, addr: SocketAddr) {
        let Some(channel) = self.by_id.get_mut(&id) else { return };
        let old = std::mem::replace(&mut channel.addr, addr);
        let overlay = channel.overlay;
        self.forget_addr((old, overlay), id);
        self.by_addr.insert((addr, overlay), id);
    }

    /// A member is gone.
    pub(super) fn drop(&mut self, id: RelayId) {
        if let Some(channel) = self.by_id.remove(&id) {
            self.forget_addr((channel.addr, channel.overlay), id);
        }
    }

    fn forget_addr(&mut self, key: (SocketAddr, OverlayId), id: RelayId) {
        if self.by_addr.get(&key) == Some(&id) {
            self.by_addr.remove(&key);
        }
    }

    /// Forwards one RELAY packet that came up from a member.
    pub(super) fn forward(
        &mut self,
        now: Time,
        ((from, to), header): ((SocketAddr, Option<IpAddr>), Header),
        packet: &[u8],
        out: &mut Transmits,
    ) -> Result<(), DropReason> {
        let overlay = self.by_id.get(&header.relay).ok_or(DropReason::RelayUnknownReceiver)?.overlay;
        let sender_id = *self.by_addr.get(&(from, overlay)).ok_or(DropReason::RelayUnknownSender)?;
        let sender = self.by_id.get_mut(&sender_id).ok_or(DropReason::RelayUnknownSender)?;
        if !is_genuine(sender.key, packet) {
            return Err(DropReason::RelayBadTag);
        }
        sender.window.accept(header.counter).map_err(|_| DropReason::RelayReplayed)?;
        sender.source = to;
        let receiver = self.by_id.get_mut(&header.relay).ok_or(DropReason::RelayUnknownReceiver)?;
        let len = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        if self.share.as_mut().is_some_and(|share| !share.take_many(now, len)) {
            return Err(DropReason::RelayShare);
        }
        let counter = receiver.counter;
        receiver.counter += 1;
        let copy = &mut out.reserve(packet.len())[..packet.len()];
        copy[HEADER_LEN..].copy_from_slice(&packet[HEADER_LEN..]);
        Header { down: true, relay: sender_id, counter }.write(receiver.key, copy);
        out.commit(packet.len(), Target { to: receiver.addr, hops: None, from: receiver.source });
        Ok(())
    }
}
