//! Control links: ordered, reliable channels of messages over the underlay.
//!
//! A link's segments are packets of the underlay socket: they pass the same translators, delays and losses as
//! the data path, keep the same mapping alive, and tell the accepting side where the dialler is seen now.
//! The world stands in for QUIC's acknowledgements: it knows what was lost and sends it again. A link whose other
//! end is dead times out; one whose other end was restarted is reset, as QUIC's stateless reset does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::underlay::HostId;
use crate::keys::Fingerprint;
use crate::node::LinkId;
use crate::time::Time;

/// A dialled link that does not stand by then is down.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// What was lost is sent again after this.
pub(super) const RESEND_AFTER: Duration = Duration::from_millis(250);
/// The dialling end lets itself be heard at least this often.
pub(super) const BEAT: Duration = Duration::from_secs(3);
/// An end that heard nothing for this long gives up.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// One of a link's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Dialler,
    Acceptor,
}

impl Side {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }
}

/// What travels between the ends.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) link: u64,
    pub(super) from: Side,
    pub(super) body: Body,
}

/// See [`Segment`].
#[derive(Clone, Debug)]
pub(super) enum Body {
    Hello,
    Accept { fingerprint: Fingerprint },
    Item { number: u64, item: Item },
    Beat,
    Reset,
}

/// What is delivered in order.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Confirm,
    Message(Vec<u8>),
    Close,
}

/// How far an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Opening,
    Up,
    Closed,
}

/// One end of a link.
#[derive(Debug)]
pub(super) struct End {
    pub(super) host: HostId,
    pub(super) boot: u64,
    pub(super) id: LinkId,
    pub(super) remote: SocketAddr,
    pub(super) phase: Phase,
    pub(super) heard: Time,
    sent: u64,
    taken: u64,
    early: BTreeMap<u64, Item>,
}

impl End {
    pub(super) const fn new(host: HostId, boot: u64, id: LinkId, remote: SocketAddr, now: Time) -> Self {
        let early = BTreeMap::new();
        Self { host, boot, id, remote, phase: Phase::Opening, heard: now, sent: 0, taken: 0, early }
    }

    /// The number of the next item to send.
    pub(super) const fn number(&mut self) -> u64 {
        self.sent += 1;
        self.sent - 1
    }

    /// Keeps an item that came, each once.
    pub(super) fn keep(&mut self, number: u64, item: Item) {
        if number >= self.taken {
            self.early.insert(number, item);
        }
    }

    /// The next item in order, if it came.
    pub(super) fn take(&mut self) -> Option<Item> {
        let item = self.early.remove(&self.taken)?;
        self.taken += 1;
        Some(item)
    }
}

/// A link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) pin: Option<Fingerprint>,
    pub(super) exporter: [u8; 32],
    pub(super) dialler: End,
    pub(super) acceptor: Option<End>,
}

impl Link {
    pub(super) const fn end(&mut self, side: Side) -> Option<&mut End> {
        match side {
            Side::Dialler => Some(&mut self.dialler),
            Side::Acceptor => self.acceptor.as_mut(),
        }
    }
}

/// All links.
#[derive(Debug, Default)]
pub(super) struct Links {
    pub(super) all: BTreeMap<u64, Link>,
    pub(super) by_id: BTreeMap<(HostId, LinkId), (u64, Side)>,
    /// Hosts whose links carry nothing at present while datagrams pass.
    pub(super) stalled: BTreeSet<HostId>,
    next: u64,
}

impl Links {
    /// The number of a new link.
    pub(super) const fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// An end, whatever its phase.
    pub(super) fn end(&mut self, link: u64, side: Side) -> Option<&mut End> {
        self.all.get_mut(&link)?.end(side)
    }

    /// An end gives up its name, and the link goes once both have.
    pub(super) fn close(&mut self, link: u64, side: Side) {
        let Some(end) = self.end(link, side) else { return };
        end.phase = Phase::Closed;
        let name = (end.host, end.id);
        if self.by_id.get(&name) == Some(&(link, side)) {
            self.by_id.remove(&name);
        }
        let over = self.all.get(&link).is_some_and(|link| {
            link.dialler.phase == Phase::Closed && link.acceptor.as_ref().is_none_or(|end| end.phase == Phase::Closed)
        });
        if over {
            self.all.remove(&link);
        }
    }

    /// Closes every end of `host` without a word.
    pub(super) fn forget(&mut self, host: HostId) {
        let first = (host, LinkId::Dialled(0));
        let last = (host, LinkId::Accepted(u64::MAX));
        let ends: Vec<_> = self.by_id.range(first..=last).map(|(_, end)| *end).collect();
        for (link, side) in ends {
            self.close(link, side);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> End {
        End::new(HostId(0), 1, LinkId::Dialled(0), SocketAddr::from(([5, 0, 0, 1], 7777)), Time::START)
    }

    #[test]
    fn items_are_taken_in_order_and_once() {
        let mut end = end();
        let item = |byte| Item::Message(vec![byte]);
        for number in [1, 0, 0, 2, 1] {
            end.keep(number, item(u8::try_from(number).expect("small")));
        }
        let taken: Vec<_> = std::iter::from_fn(|| end.take()).map(|item| format!("{item:?}")).collect();
        assert_eq!(taken, ["Message([0])", "Message([1])", "Message([2])"]);
        end.keep(1, item(1));
        assert!(end.take().is_none());
    }

    #[test]
    fn a_link_goes_when_both_ends_are_closed() {
        let mut links = Links::default();
        let number = links.number();
        let acceptor = End { id: LinkId::Accepted(number), host: HostId(1), ..end() };
        links.by_id.insert((HostId(0), LinkId::Dialled(0)), (number, Side::Dialler));
        links.by_id.insert((HostId(1), LinkId::Accepted(number)), (number, Side::Acceptor));
        let link = Link { pin: None, exporter: [0; 32], dialler: end(), acceptor: Some(acceptor) };
        links.all.insert(number, link);
        links.forget(HostId(0));
        assert_eq!((links.all.len(), links.by_id.len()), (1, 1));
        links.forget(HostId(1));
        assert_eq!((links.all.len(), links.by_id.len()), (0, 0));
    }
}
