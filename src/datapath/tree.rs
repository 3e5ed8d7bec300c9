//! Trees: what is for everybody leaves its root in a few copies, and members hand it on to each other.
//!
//! A TREE frame has the list of the members that its receiver is to see to. Whoever has a list divides it: a few
//! members get a copy each, and with it a part of the rest as their list. So a member is on one list at a time, lists
//! only get shorter, and nobody is on the list that its own copy brings: **nobody gets a frame twice and none runs in
//! a circle, whatever anybody knows or believes of the overlay.** There is no shape that members would have to agree
//! on, and so no version of it: who is new is on the next list of each root that knows it. Whom a member cannot reach
//! it gives back to the root, which serves it by itself for a while. The receiver learns the frame's sender at the
//! root, whoever handed it on.
//!
//! A member whose link sleeps is on lists as any other: that it is there, a supernode says. The frame makes keys by the
//! supernode on its way and wakes nobody. Who hands on chooses the same members each time, as long as nobody comes or
//! goes, so that most keys are there from the last time.
//!
//! In small overlays, and to members that hand nothing on, the root sends itself. What a site's members have in common
//! is an access link: a list crosses it once and is divided behind it. Read first: RFC 5058 (explicit multicast).

use std::collections::{BTreeSet, VecDeque};
use std::hash::Hasher;
use std::ops::Range;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::buf::OverlayIndex;
use super::fdb::{PortId, TAP};
use super::fragment::PIECE_MAX;
use super::limit::{Bucket, FLOOD_BURST, FLOOD_RATE};
use super::port::MTU_FLOOR;
use super::segment::Work;
use super::stats::DropReason;
use super::{Datapath, HEADERS_V6};
use crate::time::Time;
use crate::wire::data::{Checksum, FRAGMENT_LEN, FrameKind, OVERHEAD};
use crate::wire::relay;
use crate::wire::tree::{self, HEAD_LEN, HOPS_MAX, Head, SHORT_ID_LEN, ShortId, Tree};

/// Copies of a frame that leave a node, unless lists would not fit: eight are sent in the time of one, and four levels
/// of them reach all the members that an overlay may have.
pub(super) const FAN_OUT: usize = 8;
/// Frames of others handed on for one parent per second, and at once: of a few roots that all send as much as they may.
pub(super) const BRANCH_RATE: u32 = 4 * FLOOD_RATE;
pub(super) const BRANCH_BURST: u32 = 4 * FLOOD_BURST;
/// Members that somebody could not reach get their copies from us for so long: a way found meanwhile is as good.
const OURS: Duration = Duration::from_secs(60);
/// Frames of ours that may come back: those of a second, at the most that we may flood.
const SPREAD_MAX: usize = FLOOD_RATE as usize;
/// Who was heard, but not for longer than this, is on no list: keepalives are at most 20 s apart.
const HEARD: Duration = Duration::from_secs(25);
/// Keys by a supernode take a few round trips. A sleeper for which frames wait longer is dead, or its supernode is.
const PATIENCE: Duration = Duration::from_secs(1);
/// On the first levels the members of another site stay together; behind that they are divided whatever they are, so
/// that those who take each other for strangers make no long chains.
const SITE_LEVELS: u8 = 2;
/// List and frame travel in two pieces on the narrowest path there is.
const ROOM: usize = 2 * (MTU_FLOOR as usize - HEADERS_V6 - relay::HEADER_LEN - OVERHEAD - FRAGMENT_LEN);
const _: () = assert!(ROOM <= 2 * PIECE_MAX);

/// A group of nodes behind one access link, by a number that each node makes for itself; 0 where that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site(pub u64);

/// What the switch of an overlay has for trees.
#[derive(Debug)]
pub(super) struct Trees {
    names: BTreeSet<(ShortId, PortId)>,
    /// Our own.
    home: Site,
    /// Copies for those whom others cannot reach.
    returns: Bucket,
    /// What left us with lists of late, as hashes: nothing else comes back.
    spread: VecDeque<u64>,
}

impl Default for Trees {
    fn default() -> Self {
        let returns = Bucket::new(BRANCH_RATE, BRANCH_BURST);
        Self { names: BTreeSet::new(), home: Site::default(), returns, spread: VecDeque::new() }
    }
}

impl Trees {
    pub(super) fn open(&mut self, short: ShortId, port: PortId) {
        self.names.insert((short, port));
    }

    pub(super) fn close(&mut self, short: ShortId, port: PortId) {
        self.names.remove(&(short, port));
    }

    fn note_spread(&mut self, frame: &[u8]) {
        if self.spread.len() == SPREAD_MAX {
            self.spread.pop_front();
        }
        self.spread.push_back(hash(frame));
    }

    /// Whom a short id names: nobody if it is unknown, or two members have the same.
    fn find(&self, short: ShortId) -> Option<PortId> {
        let mut named = self.names.range((short, PortId(0))..=(short, PortId(u32::MAX))).map(|(_, port)| *port);
        named.next().filter(|_| named.next().is_none())
    }
}

/// Who is trusted with others, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trust {
    /// It was heard, on a direct path.
    Leads,
    Awake,
    /// A supernode says that it is there.
    Asleep,
}

/// A member on a list, in the order in which lists are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Leaf {
    site: Site,
    short: ShortId,
    port: PortId,
    trust: Trust,
}

/// How a list is divided.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Into so many shares at most, unless they would be longer than `room`.
    fan_out: usize,
    /// Members on a list.
    room: usize,
    /// The members of any other site but this one stay together.
    home: Option<Site>,
}

impl Cut {
    /// Shares that have nothing in common and are all there is, about equally long but for sites.
    fn divide(self, leaves: &[Leaf]) -> Vec<Range<usize>> {
        let shares_max = self.fan_out.max(leaves.len().div_ceil(self.room));
        // A share is as long as its part of the whole, and what begins in it may be longer by this.
        let most = (self.room + 1).saturating_sub(leaves.len().div_ceil(shares_max)).max(1);
        let stays = |a: &Leaf, b: &Leaf| {
            self.home.is_some_and(|home| a.site == b.site && a.site != home && a.site != Site::default())
        };
        let mut shares: Vec<Range<usize>> = Vec::new();
        let (mut start, mut last) = (0, None);
        for piece in leaves.chunk_by(stays).flat_map(|site| site.chunks(most)) {
            let (number, end) = (start * shares_max / leaves.len(), start + piece.len());
            match shares.last_mut().filter(|_| last == Some(number)) {
                Some(share) => share.end = end,
                None => shares.push(start..end),
            }
            (start, last) = (end, Some(number));
        }
        shares
    }
}

/// Who of a share gets the frame and hands it on: of those that are trusted most another one for each `turn`.
fn head(share: &[Leaf], turn: u32) -> usize {
    let first = usize::try_from(turn).unwrap_or(0) % share.len();
    (first..share.len()).chain(0..first).min_by_key(|place| share[*place].trust).unwrap_or(first)
}

/// A frame on its way.
#[derive(Clone, Copy)]
struct Trunk<'a> {
    overlay: OverlayIndex,
    root: ShortId,
    /// How often those who get it from us may hand it on.
    hops: u8,
    /// How a copy goes that brings no list: from the root it is an ordinary one.
    alone: FrameKind,
    checksum: Checksum,
    /// One, or the segments of a superframe.
    frames: &'a [&'a [u8]],
}

impl Trunk<'_> {
    /// Members whose list fits before each of the frames; `None` if there is room for none.
    fn room(&self) -> Option<usize> {
        room(self.frames.iter().map(|frame| frame.len()).max()?)
    }
}

impl Datapath {
    /// A frame of our segment's, or the segments of one, for these members: once to each, or to a few who hand it on.
    /// Each receiver's packets are neighbours, so that they leave in one run.
    pub(super) fn spread(
        &mut self,
        now: Time,
        (overlay, receivers): (OverlayIndex, &[PortId]),
        frames: &[&[u8]],
        (alone, checksum): (FrameKind, Checksum),
    ) {
        let switch = &self.switches[overlay.0];
        let (mut leaves, mut others) = (Vec::new(), Vec::new());
        for id in receivers {
            match self.leaf(now, *id).filter(|leaf| self.may_list(now, leaf)) {
                Some(leaf) => leaves.push(leaf),
                None => others.push(*id),
            }
        }
        let (root, fan_out) = (switch.settings().short, switch.settings().fan_out);
        let trunk = Trunk { overlay, root, hops: HOPS_MAX - 1, alone, checksum, frames };
        if leaves.len() <= fan_out || trunk.room().is_none() {
            others.extend(leaves.drain(..).map(|leaf| leaf.port));
            others.sort_unstable();
        }
        for id in others {
            frames.iter().for_each(|frame| self.send(now, id, frame, Work::Whole(checksum), alone));
        }
        if !leaves.is_empty() {
            let trees = &mut self.switches[overlay.0].trees;
            frames.iter().for_each(|frame| trees.note_spread(frame));
        }
        self.hand_out(now, trunk, leaves);
    }

    /// Whether a frame of ours may go to a member by others: its short id names it alone, and nobody gave it back.
    fn may_list(&self, now: Time, leaf: &Leaf) -> bool {
        let Some(port) = self.ports.get(&leaf.port) else { return false };
        let switch = &self.switches[port.overlay.0];
        let is_named = leaf.short != switch.settings().short && switch.trees.find(leaf.short) == Some(leaf.port);
        is_named && now >= port.ours_until
    }

    /// The member at `id`, if it takes what has a list, can be sent to now and is not silent; or if it sleeps.
    fn leaf(&self, now: Time, id: PortId) -> Option<Leaf> {
        let port = self.ports.get(&id).filter(|port| port.trees)?;
        let (path, waiting) = (port.path?, port.waiting_since);
        let trust = match port.activity.heard {
            _ if port.asleep => waiting.is_none_or(|since| now.since(since) < PATIENCE).then_some(Trust::Asleep),
            _ if !port.can_send(now) => None,
            None => Some(Trust::Awake),
            Some(heard) if now.since(heard) >= HEARD => None,
            Some(_) => Some(if path.is_direct() { Trust::Leads } else { Trust::Awake }),
        };
        Some(Leaf { site: port.site, short: port.short, port: id, trust: trust? })
    }

    /// Divides a list among its own members, each of which gets the frame and its share of the others.
    fn hand_out(&mut self, now: Time, trunk: Trunk<'_>, mut leaves: Vec<Leaf>) {
        let Some(room) = trunk.room().filter(|_| !leaves.is_empty()) else { return };
        leaves.sort_unstable();
        leaves.dedup_by_key(|leaf| leaf.port);
        let switch = &self.switches[trunk.overlay.0];
        let (own, fan_out) = (switch.settings().short, switch.settings().fan_out);
        let home = Some(switch.trees.home).filter(|_| trunk.hops + SITE_LEVELS >= HOPS_MAX);
        let mut copy = std::mem::take(&mut self.branch);
        for share in (Cut { fan_out, room, home }).divide(&leaves) {
            let share = &mut leaves[share];
            let head = head(share, own.0);
            share.swap(0, head);
            let [head, rest @ ..] = &*share else { continue };
            if rest.is_empty() && trunk.alone != FrameKind::Tree {
                for frame in trunk.frames {
                    self.send(now, head.port, frame, Work::Whole(trunk.checksum), trunk.alone);
                }
                continue;
            }
            let front = Head { is_returned: false, hops: trunk.hops, root: trunk.root };
            for frame in trunk.frames {
                tree::write(&mut copy, front, rest.iter().map(|leaf| leaf.short), frame);
                self.send(now, head.port, &copy, Work::Whole(trunk.checksum), FrameKind::Tree);
            }
        }
        self.branch = copy;
    }

    /// A TREE frame of the peer at `parent`: handed on to those on its list, then ours, unless it was before.
    pub(super) fn branch(&mut self, now: Time, from: (OverlayIndex, PortId), checksum: Checksum, body: &[u8]) {
        let (overlay, parent) = from;
        let (switch, stats) = (&mut self.switches[overlay.0], &mut self.stats[overlay.0]);
        // A longer one would have to be divided into more than so many copies.
        let whole = Tree::parse(body).ok().filter(|_| body.len() <= ROOM);
        let Some(tree) = whole else { return stats.dropped(DropReason::Malformed) };
        let Head { is_returned, hops, root } = tree.head;
        let is_ours = root == switch.settings().short;
        if is_ours && !is_returned {
            return stats.dropped(DropReason::Elsewhere);
        }
        if is_ours {
            return self.take_back(now, from, &tree, checksum);
        }
        let origin = switch.trees.find(root);
        let may_hand_on = self.ports.get_mut(&parent).is_some_and(|port| port.branches.take(now));
        if !may_hand_on {
            stats.dropped_many(DropReason::FloodLimit, tree.members().count() as u64);
        }
        let (mut leaves, mut lost) = (Vec::new(), Vec::new());
        for short in tree.members().filter(|_| may_hand_on) {
            let named = self.switches[overlay.0].trees.find(short);
            match named.filter(|_| hops > 0).and_then(|id| self.leaf(now, id)) {
                Some(leaf) => leaves.push(leaf),
                None => lost.push(short),
            }
        }
        self.stats[overlay.0].branched += leaves.len() as u64;
        let (alone, hops, frame) = (FrameKind::Tree, hops.saturating_sub(1), tree.frame);
        let trunk = Trunk { overlay, root, hops, alone, checksum, frames: &[frame] };
        self.hand_out(now, trunk, leaves);
        self.give_back(now, trunk, [origin, Some(parent)], &lost);
        match origin {
            _ if is_returned => {}
            Some(origin) => self.deliver(now, (overlay, origin), (FrameKind::Copy, checksum), frame),
            // Of a root that we do not know nothing is learned, as of a frame that was sent on.
            None => self.deliver(now, (overlay, parent), (FrameKind::Moved, checksum), frame),
        }
    }

    /// Those on our list whom we cannot reach are the root's to serve, or the parent's if we do not reach that either.
    fn give_back(&mut self, now: Time, trunk: Trunk<'_>, [root, parent]: [Option<PortId>; 2], lost: &[ShortId]) {
        if lost.is_empty() {
            return;
        }
        let is_reached = |id: &PortId| self.leaf(now, *id).is_some();
        let to = root.filter(is_reached).or_else(|| parent.filter(|id| trunk.hops > 0 && is_reached(id)));
        let stats = &mut self.stats[trunk.overlay.0];
        let Some(to) = to else { return stats.dropped_many(DropReason::NoPath, lost.len() as u64) };
        stats.given_back += lost.len() as u64;
        let mut copy = std::mem::take(&mut self.branch);
        let front = Head { is_returned: true, hops: trunk.hops, root: trunk.root };
        for frame in trunk.frames {
            tree::write(&mut copy, front, lost.iter().copied(), frame);
            self.send(now, to, &copy, Work::Whole(trunk.checksum), FrameKind::Tree);
        }
        self.branch = copy;
    }

    /// A frame of ours that somebody could not hand on to these: they get it from us, and those that follow.
    fn take_back(&mut self, now: Time, (overlay, by): (OverlayIndex, PortId), tree: &Tree<'_>, checksum: Checksum) {
        // Nobody shall make us say what we have not said.
        if !self.switches[overlay.0].trees.spread.contains(&hash(tree.frame)) {
            return self.stats[overlay.0].dropped(DropReason::Elsewhere);
        }
        for short in tree.members().collect::<BTreeSet<_>>() {
            let switch = &mut self.switches[overlay.0];
            let found = switch.trees.find(short).filter(|id| *id != by);
            let Some(id) = found.filter(|_| switch.trees.returns.take(now)) else {
                self.stats[overlay.0].dropped(DropReason::NoPeer);
                continue;
            };
            if let Some(port) = self.ports.get_mut(&id) {
                port.ours_until = now + OURS;
            }
            self.send(now, id, tree.frame, Work::Whole(checksum), FrameKind::Copy);
        }
    }

    /// The member at `port` is at this site; at the TAP's port that is us.
    pub(super) fn set_site(&mut self, overlay: OverlayIndex, id: PortId, site: Site) {
        if id == TAP {
            self.switches[overlay.0].trees.home = site;
        } else if let Some(port) = self.ports.get_mut(&id) {
            port.site = site;
        }
    }
}

/// Nobody gains by two frames of one hash: the one that left before may leave again.
fn hash(frame: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(frame);
    hasher.finish()
}

/// Members whose list fits before a frame of so many bytes; `None` if there is room for none.
fn room(frame: usize) -> Option<usize> {
    let left = ROOM.checked_sub(HEAD_LEN + frame)?;
    Some(left / SHORT_ID_LEN).filter(|room| *room > 0)
}

#[cfg(test)]
mod tests;
