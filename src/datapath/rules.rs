//! Static rules: where frames out of the TAP go by the user's word, whatever was learned or planned.
//!
//! A rule names sources and destinations and says what becomes of their frames. The best one that fits decides, by
//! [`Rank`]; several that are equally good each get the frame, but for one that drops it. A rule decides at the TAP that
//! a frame came in by and nowhere else: what comes from a peer goes to the TAP or ends, as without rules, so that no
//! set of rules at any nodes makes a loop.
//!
//! Order and words are VNET's, but for one trap: there a rule for any frame also gets those that a rule for one
//! address fits, since both rank alike. Here the more exact one has them alone.

use std::fmt;
use std::str::FromStr;

use super::fdb::{PortId, TAP};
use super::frame::{Header, Mac};
use super::stats::DropReason;
use super::switch::{Hop, Switch, Verdict};
use crate::time::Time;

/// Rules of one overlay: a prefix for each of a thousand hosts, and as many exceptions.
pub const RULES_MAX: usize = 2048;
/// Pairs of addresses whose rules are remembered. Two that share a place are looked up each time, which costs a walk
/// over the rules and nothing else.
const CACHE: usize = 1024;
/// Bits of an address.
const BITS: u8 = 48;

/// Which addresses a rule is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pattern {
    /// All of them.
    #[default]
    Any,
    /// All that no other rule of the same priority is about, but for `any any`.
    None,
    /// All but this one.
    Not(Mac),
    /// Those that begin with so many bits of this one; 48 is the address itself.
    Prefix(Mac, u8),
}

/// How well a rule fits, the greatest best: priority, bits of destination and source, nots, and `none` above `any`.
pub type Rank = (u32, u8, u8, u8, bool);

/// By which way a frame goes to a peer, where the rule says so and there is that way; else as other frames do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleWay {
    /// As other frames do.
    Usual,
    /// Straight.
    Direct,
    /// By a supernode.
    Supernode,
    /// By this member.
    Member(PortId),
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It ends here.
    Drop,
    /// Its receiver is behind our own TAP.
    Here,
    /// It goes to this peer.
    To(PortId, RuleWay),
    /// It goes where its receiver was heard, or to everybody.
    Learned(RuleWay),
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Names it; never used again.
    pub id: u32,
    /// Whose frames.
    pub src: Pattern,
    /// To whom.
    pub dst: Pattern,
    /// The greater goes first.
    pub prio: u32,
    /// What becomes of them.
    pub action: Action,
}

/// What a rule has decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// Frames; a superframe is one.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The rules of one overlay, best first.
#[derive(Debug)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    hits: Vec<Hits>,
    /// What was found for a pair of addresses last, at a place that they give. New with every set of rules.
    cache: Vec<Option<Found>>,
}

#[derive(Clone, Debug)]
struct Found {
    src: Mac,
    dst: Mac,
    /// Places of the best that fit; none if no rule does.
    best: Vec<u16>,
}

impl Pattern {
    /// Whether `mac` is one of them.
    pub fn fits(self, mac: Mac) -> bool {
        match self {
            Self::Any | Self::None => true,
            Self::Not(other) => mac != other,
            Self::Prefix(of, len) => (number(mac) ^ number(of)) >> (BITS - len.min(BITS)) == 0,
        }
    }

    const fn len(self) -> u8 {
        match self {
            Self::Any | Self::None | Self::Not(_) => 0,
            Self::Prefix(_, len) => len,
        }
    }

    /// The one address that it is about, if it is one.
    pub const fn single(self) -> Option<Mac> {
        match self {
            Self::Prefix(mac, BITS) => Some(mac),
            Self::Any | Self::None | Self::Not(_) | Self::Prefix(..) => None,
        }
    }
}

/// How well a rule for these fits what it fits.
pub const fn rank(prio: u32, src: Pattern, dst: Pattern) -> Rank {
    if matches!(src, Pattern::None) || matches!(dst, Pattern::None) {
        return (prio, 0, 0, 0, true);
    }
    let nots = matches!(src, Pattern::Not(_)) as u8 + matches!(dst, Pattern::Not(_)) as u8;
    (prio, dst.len(), src.len(), nots, false)
}

impl Rule {
    fn rank(&self) -> Rank {
        rank(self.prio, self.src, self.dst)
    }
}

impl Rules {
    /// These rules, which go on counting where `before` counted already; `None` if there are none.
    pub(super) fn new(rules: &[Rule], before: Option<&Self>) -> Option<Self> {
        let mut rules = rules[..rules.len().min(RULES_MAX)].to_vec();
        rules.sort_by_key(|rule| (std::cmp::Reverse(rule.rank()), rule.id));
        let counted = |rule: &Rule| before.and_then(|before| before.hits(rule.id)).unwrap_or_default();
        let hits = rules.iter().map(counted).collect();
        let cache = vec![None; CACHE];
        (!rules.is_empty()).then_some(Self { rules, hits, cache })
    }

    /// All of them.
    pub(super) fn all(&self) -> &[Rule] {
        &self.rules
    }

    /// What the rule of this name has decided.
    pub(super) fn hits(&self, id: u32) -> Option<Hits> {
        let place = self.rules.iter().position(|rule| rule.id == id)?;
        self.hits.get(place).copied()
    }

    /// Whether any rule is about such a frame.
    pub(super) fn fit(&mut self, src: Mac, dst: Mac) -> bool {
        let place = self.find(src, dst);
        self.cache[place].as_ref().is_some_and(|found| !found.best.is_empty())
    }

    /// What becomes of a frame of `len` bytes, in the order of the rules; nothing if no rule is about it.
    pub(super) fn decide(&mut self, src: Mac, dst: Mac, len: usize, into: &mut Vec<Action>) {
        into.clear();
        let place = self.find(src, dst);
        let Some(found) = &self.cache[place] else { return };
        for index in found.best.iter().map(|index| usize::from(*index)) {
            into.push(self.rules[index].action);
            self.hits[index].frames += 1;
            self.hits[index].bytes += len as u64;
        }
    }

    fn place(&self, src: Mac, dst: Mac) -> usize {
        let mixed = (number(src) ^ number(dst).rotate_left(21)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        usize::try_from(mixed >> 32).unwrap_or(0) % self.cache.len()
    }

    /// Where in the cache the best are.
    fn find(&mut self, src: Mac, dst: Mac) -> usize {
        let place = self.place(src, dst);
        let is_known = self.cache[place].as_ref().is_some_and(|found| (found.src, found.dst) == (src, dst));
        if !is_known {
            let fits = |(_, rule): &(usize, &Rule)| rule.src.fits(src) && rule.dst.fits(dst);
            let mut fitting = self.rules.iter().enumerate().filter(fits).peekable();
            let rank = fitting.peek().map(|(_, rule)| rule.rank());
            let best = fitting.take_while(|(_, rule)| Some(rule.rank()) == rank);
            let best = best.map(|(index, _)| u16::try_from(index).expect("no more rules than that are taken"));
            let best = best.collect();
            self.cache[place] = Some(Found { src, dst, best });
        }
        place
    }
}

impl Switch {
    /// What the rules say of a frame out of the TAP, if they say anything. A gate that is shut and the flood limit hold
    /// for them too: what the segment's other member carries would come twice, and a storm is one by any way.
    pub(super) fn judge_by_rules(&mut self, now: Time, header: &Header, len: usize) -> Option<Verdict> {
        let mut actions = std::mem::take(&mut self.actions);
        self.rules.as_mut()?.decide(header.src, header.dst, len, &mut actions);
        let verdict = (!actions.is_empty()).then(|| self.carry_out(now, header, &actions));
        self.actions = actions;
        verdict
    }

    fn carry_out(&mut self, now: Time, header: &Header, actions: &[Action]) -> Verdict {
        let known = self.destination(now, header);
        self.hops.clear();
        if actions.contains(&Action::Drop) {
            return Verdict::Drop(DropReason::Rule);
        }
        if known.is_none() && self.gate.is_shut() {
            return Verdict::Drop(DropReason::Shared);
        }
        for action in actions {
            match (*action, known) {
                (Action::Drop | Action::Here, _) | (Action::Learned(_), Some(TAP)) => {}
                (Action::To(port, way), _) | (Action::Learned(way), Some(port)) => self.add_hop(port, way),
                (Action::Learned(way), None) => {
                    let ports = std::mem::take(&mut self.ports);
                    ports.iter().for_each(|port| self.add_hop(*port, way));
                    self.ports = ports;
                }
            }
        }
        let is_many = header.dst.is_group() || (known.is_none() && self.hops.len() > 1);
        match self.hops.len() {
            0 => Verdict::Drop(DropReason::Local),
            _ if is_many && !self.flood_limit.take(now) => Verdict::Drop(DropReason::FloodLimit),
            _ => Verdict::Ruled,
        }
    }

    /// Each peer once, by the first rule that names it. None that is on our segment: it has the frame, and would
    /// bring it back.
    fn add_hop(&mut self, port: PortId, way: RuleWay) {
        if !self.gate.shares(port) && self.hops.iter().all(|hop| hop.port != port) {
            self.hops.push(Hop { port, way });
        }
    }
}

const fn number(mac: Mac) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mac = |text: &str| text.parse::<Mac>().map_err(|error| format!("{text:?}: {error}"));
        match text {
            "any" => return Ok(Self::Any),
            "none" => return Ok(Self::None),
            _ => {}
        }
        if let Some(other) = text.strip_prefix("not-") {
            return Ok(Self::Not(mac(other)?));
        }
        let Some((of, len)) = text.split_once('/') else { return Ok(Self::Prefix(mac(text)?, BITS)) };
        let of = mac(of)?;
        let len = len.parse().ok().filter(|len| (1..=BITS).contains(len));
        let len = len.ok_or_else(|| format!("{text:?}: a prefix has 1 to {BITS} bits"))?;
        if number(of) & ((1 << (BITS - len)) - 1) != 0 {
            return Err(format!("{text:?}: bits are set behind the prefix"));
        }
        Ok(Self::Prefix(of, len))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => out.write_str("any"),
            Self::None => out.write_str("none"),
            Self::Not(mac) => write!(out, "not-{mac}"),
            Self::Prefix(mac, BITS) => write!(out, "{mac}"),
            Self::Prefix(mac, len) => write!(out, "{mac}/{len}"),
        }
    }
}

#[cfg(test)]
mod tests;
