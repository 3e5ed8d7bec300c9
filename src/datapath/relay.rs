//! Relaying: our legs at supernodes and members, and the legs of those that we relay for, as either.
//!
//! A relay forwards by the clear header alone, between legs that it gave. It never opens, copies to several, or answers.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use super::buf::{Target, Transmits};
use super::limit::Bucket;
use super::path::{LegId, Path};
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
    /// Where it was before it moved: what was sent then may still arrive.
    before: Option<SocketAddr>,
    /// The address of ours that the relay speaks to.
    source: Option<IpAddr>,
    key: LegKey,
    counter: u64,
    window: Window,
    tally: LegTally,
}

/// What came by a leg of ours since it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegTally {
    /// Packets that the supernode sent, by their numbers.
    pub sent: u64,
    /// Those that came.
    pub received: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Our legs at all relays; a few.
#[derive(Default)]
pub(super) struct Legs(BTreeMap<LegId, Leg>);

impl Legs {
    /// A new leg, or the same leg with a new key.
    pub(super) fn set(&mut self, id: LegId, at: SocketAddr, key: LegKey) {
        let (window, tally) = (Window::default(), LegTally::default());
        self.0.insert(id, Leg { at, before: None, source: None, key, counter: 0, window, tally });
    }

    /// The leg goes on by another transport of its supernode's.
    pub(super) fn rebind(&mut self, id: LegId, at: SocketAddr) {
        if let Some(leg) = self.0.get_mut(&id) {
            leg.before = Some(std::mem::replace(&mut leg.at, at));
        }
    }

    /// The leg is closed.
    pub(super) fn drop(&mut self, id: LegId) {
        self.0.remove(&id);
    }

    /// What came by a leg.
    pub(super) fn tally(&self, id: LegId) -> Option<LegTally> {
        self.0.get(&id).map(|leg| leg.tally)
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
        let is_from = |leg: &Leg| leg.at == from || leg.before == Some(from);
        for (id, leg) in self.0.iter_mut().filter(|(_, leg)| is_from(leg)) {
            if !is_genuine(leg.key, packet) {
                reason = DropReason::RelayBadTag;
                continue;
            }
            leg.window.accept(header.counter).map_err(|_| DropReason::RelayReplayed)?;
            leg.source = to;
            let LegTally { sent, received, bytes } = leg.tally;
            let sent = sent.max(header.counter.saturating_add(1));
            leg.tally = LegTally { sent, received: received + 1, bytes: bytes + packet.len() as u64 };
            return Ok(Path::Relayed(*id, header.relay));
        }
        Err(reason)
    }
}

/// A member's leg at this node.
pub(super) struct Channel {
    overlay: OverlayId,
    addr: SocketAddr,
    /// Where it was before it moved: what was sent then may still arrive.
    before: Option<SocketAddr>,
    /// The address of ours that it spoke to last.
    source: Option<IpAddr>,
    key: LegKey,
    counter: u64,
    /// From its first packet on: a supernode's members are thousands, and few of them are relayed.
    window: Option<Box<Window>>,
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
    pub(super) fn share(&mut self, bytes_per_s: Option<u32>) {
        let bucket = |bytes_per_s: u32| Bucket::new(bytes_per_s, (bytes_per_s / SHARE_BURST).max(SHARE_BURST_MIN));
        self.share = bytes_per_s.map(bucket);
    }

    /// A member has a leg here.
    pub(super) fn set(&mut self, id: RelayId, overlay: OverlayId, addr: SocketAddr, key: LegKey) {
        self.drop(id);
        self.by_addr.insert((addr, overlay), id);
        let (before, source, window) = (None, None, None);
        self.by_id.insert(id, Channel { overlay, addr, before, source, key, counter: 0, window });
    }

    /// Another address of a member was validated. What it has sent from the one before still counts.
    pub(super) fn rebind(&mut self, id: RelayId, addr: SocketAddr) {
        let Some(channel) = self.by_id.get_mut(&id).filter(|channel| channel.addr != addr) else { return };
        let overlay = channel.overlay;
        let last = std::mem::replace(&mut channel.addr, addr);
        if let Some(oldest) = channel.before.replace(last).filter(|oldest| *oldest != addr) {
            self.forget_addr((oldest, overlay), id);
        }
        self.by_addr.insert((addr, overlay), id);
    }

    /// A member is gone.
    pub(super) fn drop(&mut self, id: RelayId) {
        if let Some(channel) = self.by_id.remove(&id) {
            for addr in [Some(channel.addr), channel.before].into_iter().flatten() {
                self.forget_addr((addr, channel.overlay), id);
            }
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
        sender.window.get_or_insert_default().accept(header.counter).map_err(|_| DropReason::RelayReplayed)?;
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
        out.commit(packet.len(), Target { to: receiver.addr, hops: None, from: receiver.source, tos: 0 });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    /// A RELAY packet with nothing worth mentioning in it.
    fn packet(down: bool, relay: u32, counter: u64, key: LegKey) -> (Header, Vec<u8>) {
        let mut packet = [&[0; HEADER_LEN][..], &[4; 30]].concat();
        Header { down, relay: RelayId(relay), counter }.write(key, &mut packet);
        (Header::parse(&packet).expect("a header"), packet)
    }

    #[test]
    fn a_leg_that_moved_takes_what_is_late_and_nothing_twice() {
        let (mut legs, key) = (Legs::default(), LegKey([1; 16]));
        legs.set(LegId(1), at(1), key);
        legs.rebind(LegId(1), at(2));
        let path = Path::Relayed(LegId(1), RelayId(9));
        assert_eq!(legs.address(path), Some(at(2)));
        for (counter, from) in [(0, 1), (1, 2), (5, 2), (2, 1)] {
            let (header, packet) = packet(true, 9, counter, key);
            assert_eq!(legs.unwrap((at(from), None), header, &packet), Ok(path));
            assert_eq!(legs.unwrap((at(2), None), header, &packet), Err(DropReason::RelayReplayed));
        }
        let (header, packet) = packet(true, 9, 7, key);
        assert_eq!(legs.unwrap((at(3), None), header, &packet), Err(DropReason::RelayUnknownSender));
        assert_eq!(legs.tally(LegId(1)), Some(LegTally { sent: 6, received: 4, bytes: 4 * packet.len() as u64 }));
    }

    #[test]
    fn a_member_that_moved_is_heard_where_it_was_and_answered_where_it_is() {
        let (mut channels, mut out) = (Channels::new([1; 4]), Transmits::default());
        let (overlay, keys) = (OverlayId([3; 32]), [LegKey([1; 16]), LegKey([2; 16])]);
        channels.set(RelayId(1), overlay, at(1), keys[0]);
        channels.set(RelayId(2), overlay, at(2), keys[1]);
        channels.rebind(RelayId(1), at(11));
        let mut up = |channels: &mut Channels, from, sender: usize, to, counter| {
            let (header, packet) = packet(false, to, counter, keys[sender]);
            channels.forward(Time::START, ((at(from), None), header), &packet, &mut out).map(|()| {
                let (_, target) = out.get(out.len() - 1).expect("a packet");
                target.to
            })
        };
        assert_eq!(up(&mut channels, 1, 0, 2, 0), Ok(at(2)), "late");
        assert_eq!(up(&mut channels, 11, 0, 2, 1), Ok(at(2)));
        assert_eq!(up(&mut channels, 2, 1, 1, 0), Ok(at(11)));
        channels.rebind(RelayId(1), at(12));
        assert_eq!(up(&mut channels, 1, 0, 2, 2), Err(DropReason::RelayUnknownSender), "too late");
        channels.drop(RelayId(1));
        assert_eq!(up(&mut channels, 12, 0, 2, 3), Err(DropReason::RelayUnknownSender));
        assert_eq!(channels.by_addr.len(), 1);
    }
}
