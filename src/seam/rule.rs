//! Static rules as a user writes them: routes and links, in the words of VNET.
//!
//! `route add SRC DST via TARGET [prio N] [src-if any|tap]` and `link add PEER|ADDRESS [pin]`. What contradicts is found
//! out here, so that a config and an order are refused by the same sentence.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::datapath::{Pattern, rank};
use crate::wire::DEFAULT_PORT;
use crate::wire::message::NAME_MAX;

/// Links of one overlay: the hard budget of direct paths of a node.
pub const LINKS_MAX: usize = 256;

/// One `route`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSettings {
    /// Whose frames.
    pub src: Pattern,
    /// To whom.
    pub dst: Pattern,
    /// What becomes of them.
    pub via: Target,
    /// The greater goes first.
    pub prio: u32,
}

/// What becomes of the frames of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// They end.
    Drop,
    /// They go where their receiver is, on a direct path while there is one.
    Direct,
    /// They go where their receiver is, by a supernode while one carries.
    Supernode,
    /// They go to this member, by name or id.
    Node(String),
    /// They go to the second one, by the first one while it carries.
    Path(String, String),
}

/// One `link`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSettings {
    /// What is to be kept.
    pub to: LinkTo,
    /// No plan and no relay takes its place.
    pub pin: bool,
}

/// What a link leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkTo {
    /// A member, by name or id.
    Peer(String),
    /// Whichever member listens here.
    Address(SocketAddr),
}

impl RouteSettings {
    /// Why these two cannot stand beside each other, if they cannot.
    pub fn contradicts(&self, other: &Self) -> Option<&'static str> {
        if (self.src, self.dst) != (other.src, other.dst)
            || rank(self.prio, self.src, self.dst) != rank(other.prio, other.src, other.dst)
        {
            return None;
        }
        match (&self.via, &other.via) {
            (one, two) if one == two => Some("it is there already"),
            (Target::Drop, _) | (_, Target::Drop) => Some("one drops what the other sends"),
            (Target::Node(one) | Target::Path(_, one), Target::Node(two) | Target::Path(_, two)) => {
                (one == two).then_some("both lead to the same member, by different ways")
            }
            _ => Some("one sends where the receiver was heard, the other elsewhere or by another way"),
        }
    }

    /// What is wrong with it whoever the members are.
    pub fn check(&self) -> Result<(), String> {
        if self.src.single().is_some_and(|src| src.is_group() || src.is_zero()) {
            return Err(format!("no frame comes from {}", self.src));
        }
        match &self.via {
            Target::Path(by, to) if by == to => Err("a member cannot relay to itself".into()),
            Target::Path(..) | Target::Node(_) | Target::Drop | Target::Direct | Target::Supernode => Ok(()),
        }
    }
}

impl LinkSettings {
    /// What is wrong with it whoever the members are.
    pub fn check(&self) -> Result<(), String> {
        match self.to {
            LinkTo::Address(_) if self.pin => Err("an address cannot be pinned, a member can".into()),
            LinkTo::Address(_) | LinkTo::Peer(_) => Ok(()),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix("path ").unwrap_or(text).trim();
        match (text, path.split_once(',')) {
            ("drop", _) => Ok(Self::Drop),
            ("direct", _) => Ok(Self::Direct),
            ("supernode", _) => Ok(Self::Supernode),
            (_, Some((by, to))) => Ok(Self::Path(node(by.trim())?, node(to.trim())?)),
            (_, None) if path != text => Err(format!("{text:?}: a path has two members, as in `path a,b`")),
            (_, None) => Ok(Self::Node(node(text)?)),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop => out.write_str("drop"),
            Self::Direct => out.write_str("direct"),
            Self::Supernode => out.write_str("supernode"),
            Self::Node(node) => out.write_str(node),
            Self::Path(by, to) => write!(out, "path {by},{to}"),
        }
    }
}

impl FromStr for LinkTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse::<SocketAddr>().ok();
        let alone = || text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, DEFAULT_PORT));
        match address.or_else(alone) {
            Some(address) => Ok(Self::Address(address)),
            None => Ok(Self::Peer(node(text)?)),
        }
    }
}

impl fmt::Display for LinkTo {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(node) => out.write_str(node),
            Self::Address(address) => address.fmt(out),
        }
    }
}

/// Whether frames that came in by `words` are a rule's business: only those of the TAP are.
pub fn check_source(words: &str) -> Result<(), String> {
    match words {
        "any" | "tap" => Ok(()),
        "link" => Err("src-if link: a frame of a peer's goes to the TAP or ends, or there could be loops".into()),
        _ => Err(format!("src-if {words:?}: any or tap")),
    }
}

/// A name or an id, which is shorter.
fn node(text: &str) -> Result<String, String> {
    let is_name = !text.is_empty() && text.len() <= NAME_MAX && !text.contains(|c: char| c == ',' || c.is_whitespace());
    if is_name { Ok(text.to_owned()) } else { Err(format!("{text:?} is no name of a member")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(src: &str, dst: &str, via: &str, prio: u32) -> RouteSettings {
        let pattern = |text: &str| text.parse().expect("a pattern");
        RouteSettings { src: pattern(src), dst: pattern(dst), via: via.parse().expect("a target"), prio }
    }

    #[test]
    fn every_target_is_read_and_written_the_same() {
        for text in ["drop", "direct", "supernode", "mill", "path mill,forge"] {
            assert_eq!(text.parse::<Target>().expect(text).to_string(), text);
        }
        assert_eq!("a,b".parse(), Ok(Target::Path("a".into(), "b".into())));
        for wrong in ["", "a b", "path a", "a,", "a,b,c"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
        assert!(route("any", "any", "a,a", 0).check().is_err());
        assert!(route("ff:ff:ff:ff:ff:ff", "any", "a", 0).check().is_err());
    }

    #[test]
    fn links_lead_to_members_or_addresses() {
        let read = |text: &str| text.parse::<LinkTo>().expect(text).to_string();
        assert_eq!(read("mill"), "mill");
        assert_eq!(read("192.0.2.7"), "192.0.2.7:7777");
        assert_eq!(read("[2001:db8::1]:9"), "[2001:db8::1]:9");
    }

    #[test]
    fn what_cannot_stand_beside_each_other_is_told_why() {
        let first = route("any", "02:00:00:00:00:01", "a", 0);
        let says = |other: &RouteSettings| first.contradicts(other);
        let same = |via, prio| route("any", "02:00:00:00:00:01", via, prio);
        assert!(says(&same("a", 0)).is_some_and(|why| why.contains("already")));
        assert!(says(&same("drop", 0)).is_some_and(|why| why.contains("drops")));
        assert!(says(&same("path c,a", 0)).is_some_and(|why| why.contains("same member")));
        assert!(says(&same("supernode", 0)).is_some());
        assert_eq!(says(&same("b", 0)), None, "a frame to each");
        assert_eq!(says(&same("drop", 1)), None, "the other goes first");
        assert_eq!(says(&route("any", "02:00:00:00:00:02", "drop", 0)), None);
    }

    #[test]
    fn a_rule_is_for_frames_of_the_tap() {
        assert!(check_source("tap").is_ok() && check_source("any").is_ok());
        assert!(check_source("link").is_err_and(|why| why.contains("loops")) && check_source("eth0").is_err());
    }
}
