//! How control links come to be, carry messages and end.

use std::net::SocketAddr;

use super::links::{BEAT, Body, DIAL_TIMEOUT, End, IDLE_TIMEOUT, Item, Link, Phase, RESEND_AFTER, Segment, Side};
use super::underlay::HostId;
use super::world::{Happening, Payload, World};
use crate::keys::Fingerprint;
use crate::node::{LinkCommand, LinkEvent, LinkId};

impl World {
    /// Does what a node wants with a link.
    pub(super) fn command(&mut self, id: HostId, command: LinkCommand) {
        match command {
            LinkCommand::Dial { link, address, pin, .. } => self.dial(id, link, &address, pin),
            LinkCommand::Send { link, message } => {
                self.note(b'm', id, &message);
                self.hosts[id.0].sending.messages += 1;
                self.put(id, link, Item::Message(message.into()));
            }
            // There is no TCP in this world.
            LinkCommand::Detour { .. } => {}
            LinkCommand::Close { link } => {
                self.put(id, link, Item::Close);
                if let Some((number, side)) = self.links.by_id.get(&(id, link)).copied() {
                    self.links.close(number, side);
                }
            }
        }
    }

    fn dial(&mut self, id: HostId, name: LinkId, address: &str, pin: Option<Fingerprint>) {
        let dialled = matches!(name, LinkId::Dialled(_));
        if !dialled || self.links.by_id.contains_key(&(id, name)) {
            self.laws.broken(self.now, &format!("{id:?} dials {name:?}, which it has"));
            return;
        }
        let known = self.names.get(address).copied().or_else(|| address.parse().ok());
        let remote = known.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
        let number = self.links.number();
        let exporter = self.chance.stream("exporter", usize::try_from(number).unwrap_or(usize::MAX)).bytes();
        let dialler = End::new(id, self.hosts[id.0].boot, name, remote, self.now);
        self.links.all.insert(number, Link { pin, exporter, dialler, acceptor: None });
        self.links.by_id.insert((id, name), (number, Side::Dialler));
        self.heap.push(self.now + DIAL_TIMEOUT, Happening::DialTimeout { link: number });
        self.heap.push(self.now + BEAT, Happening::Beat { link: number });
        self.send_segment(Segment { link: number, from: Side::Dialler, body: Body::Hello });
    }

    /// Sends an item on a link that stands; on another one it goes nowhere.
    fn put(&mut self, id: HostId, name: LinkId, item: Item) {
        let Some((link, from)) = self.links.by_id.get(&(id, name)).copied() else { return };
        let Some(end) = self.links.end(link, from).filter(|end| end.phase == Phase::Up) else { return };
        let body = Body::Item { number: end.number(), item };
        self.send_segment(Segment { link, from, body });
    }

    /// Sends a segment, if its sender is still there.
    pub(super) fn send_segment(&mut self, segment: Segment) {
        let Some(end) = self.links.end(segment.link, segment.from) else { return };
        let (host, boot, remote) = (end.host, end.boot, end.remote);
        let sender = &self.hosts[host.0];
        if !sender.alive || sender.boot != boot {
            return;
        }
        if sender.asleep || self.links.stalled.contains(&host) {
            return self.segment_lost(segment);
        }
        self.launch(host, remote, None, Payload::Segment(segment));
    }

    /// A segment was lost: again, unless the next one of its kind does as well.
    pub(super) fn segment_lost(&mut self, segment: Segment) {
        match segment.body {
            Body::Beat | Body::Reset => {}
            Body::Hello | Body::Accept { .. } | Body::Item { .. } => {
                self.heap.push(self.now + RESEND_AFTER, Happening::Resend(segment));
            }
        }
    }

    /// A segment came to `id`.
    pub(super) fn take_segment(&mut self, id: HostId, from: SocketAddr, segment: Segment) {
        let Segment { link, from: sender, body } = segment;
        let side = sender.other();
        if matches!(body, Body::Hello) {
            return self.greet(id, from, link);
        }
        let (now, boot) = (self.now, self.hosts[id.0].boot);
        let known = self.links.end(link, side).filter(|end| end.host == id && end.boot == boot);
        let Some(end) = known.filter(|end| end.phase != Phase::Closed) else {
            return self.refuse(id, from, (link, sender), &body);
        };
        end.heard = now;
        if side == Side::Acceptor {
            end.remote = from;
        }
        match body {
            Body::Hello => {}
            Body::Accept { fingerprint } => self.on_accept(link, fingerprint),
            Body::Item { number, item } => {
                end.keep(number, item);
                self.take_items(link, side);
            }
            Body::Beat if side == Side::Acceptor => {
                self.send_segment(Segment { link, from: side, body: Body::Beat });
            }
            Body::Beat => {}
            Body::Reset => self.down(link, side, "the other end was restarted"),
        }
    }

    /// Somebody dials `id`.
    fn greet(&mut self, id: HostId, from: SocketAddr, link: u64) {
        let (now, boot) = (self.now, self.hosts[id.0].boot);
        if !self.serves(id) {
            return;
        }
        let Some(known) = self.links.all.get_mut(&link) else { return };
        let name = LinkId::Accepted(link);
        let acceptor = known.acceptor.get_or_insert_with(|| End::new(id, boot, name, from, now));
        if acceptor.host == id && acceptor.boot == boot && acceptor.phase == Phase::Opening {
            self.links.by_id.insert((id, name), (link, Side::Acceptor));
            let body = Body::Accept { fingerprint: self.fingerprint(id) };
            self.send_segment(Segment { link, from: Side::Acceptor, body });
        }
    }

    fn on_accept(&mut self, link: u64, fingerprint: Fingerprint) {
        let Some(Link { pin, exporter, dialler, .. }) = self.links.all.get_mut(&link) else { return };
        if dialler.phase != Phase::Opening {
            return;
        }
        if pin.is_some_and(|pin| pin != fingerprint) {
            return self.down(link, Side::Dialler, "the supernode shows another key than the pinned one");
        }
        dialler.phase = Phase::Up;
        let (name, remote, exporter, host) = (dialler.id, dialler.remote, *exporter, dialler.host);
        let body = Body::Item { number: dialler.number(), item: Item::Confirm };
        self.send_segment(Segment { link, from: Side::Dialler, body });
        let up = LinkEvent::Up { link: name, remote, origin: remote, exporter, fingerprint: Some(fingerprint) };
        self.feed(host, |node, now| node.handle_link(now, up));
    }

    /// Hands over what is next in order.
    fn take_items(&mut self, link: u64, side: Side) {
        loop {
            let Some(exporter) = self.links.all.get(&link).map(|link| link.exporter) else { return };
            let Some(end) = self.links.end(link, side).filter(|end| end.phase != Phase::Closed) else { return };
            let Some(item) = end.take() else { return };
            let (host, name, remote) = (end.host, end.id, end.remote);
            let event = match item {
                Item::Confirm => {
                    end.phase = Phase::Up;
                    LinkEvent::Up { link: name, remote, origin: remote, exporter, fingerprint: None }
                }
                Item::Message(message) => LinkEvent::Message { link: name, remote, message },
                Item::Close => return self.down(link, side, "closed by the other end"),
            };
            self.feed(host, |node, now| node.handle_link(now, event));
        }
    }

    /// `id` knows nothing of a link: it says so to whoever sent on it.
    fn refuse(&mut self, id: HostId, to: SocketAddr, (link, sender): (u64, Side), body: &Body) {
        if matches!(body, Body::Reset) {
            return;
        }
        let reset = Segment { link, from: sender.other(), body: Body::Reset };
        self.launch(id, to, None, Payload::Segment(reset));
    }

    /// An end of a link is down, and its node hears of it.
    fn down(&mut self, link: u64, side: Side, reason: &str) {
        let Some(end) = self.links.end(link, side).filter(|end| end.phase != Phase::Closed) else { return };
        let (host, boot, name) = (end.host, end.boot, end.id);
        let told = end.phase == Phase::Up || side == Side::Dialler;
        self.links.close(link, side);
        if told && self.hosts[host.0].boot == boot {
            let down = LinkEvent::Down { link: name, reason: reason.to_owned() };
            self.feed(host, |node, now| node.handle_link(now, down));
        }
    }

    pub(super) fn dial_timeout(&mut self, link: u64) {
        if self.links.end(link, Side::Dialler).is_some_and(|end| end.phase == Phase::Opening) {
            self.down(link, Side::Dialler, "no answer");
        }
    }

    /// The dialling end lets itself be heard; both ends look whether they heard the other.
    pub(super) fn beat(&mut self, link: u64) {
        for side in [Side::Dialler, Side::Acceptor] {
            let now = self.now;
            let Some(end) = self.links.end(link, side) else { continue };
            let (host, idle) = (end.host, now.since(end.heard) >= IDLE_TIMEOUT);
            if idle && self.is_awake(host) {
                self.down(link, side, "timed out");
            }
        }
        if self.links.all.contains_key(&link) {
            self.heap.push(self.now + BEAT, Happening::Beat { link });
            let open = self.links.end(link, Side::Dialler).is_some_and(|end| end.phase == Phase::Up);
            if open {
                self.send_segment(Segment { link, from: Side::Dialler, body: Body::Beat });
            }
        }
    }

    /// Breaks every control link of `host`: both ends hear of it.
    pub fn break_links(&mut self, host: HostId) {
        let links: Vec<u64> =
            self.links.by_id.iter().filter(|((owner, _), _)| *owner == host).map(|(_, (link, _))| *link).collect();
        for link in links {
            self.down(link, Side::Dialler, "broken");
            self.down(link, Side::Acceptor, "broken");
        }
    }

    /// Control links of `host` carry nothing from now on (or again), while its datagrams pass.
    pub fn stall_links(&mut self, host: HostId, stalled: bool) {
        if stalled {
            self.links.stalled.insert(host);
        } else {
            self.links.stalled.remove(&host);
        }
    }
}
