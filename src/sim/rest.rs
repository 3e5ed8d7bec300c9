//! What must hold when the faults are over: every pair that can be direct is, every other is relayed,
//! a flood reaches everybody once, and without traffic the world goes quiet.

use std::collections::BTreeMap;
use std::time::Duration;

use super::oracle::Way;
use super::traffic::{FrameId, OverlayNo};
use super::underlay::HostId;
use super::world::World;
use crate::control::report::{PathKind, PeerState, PeerStatus, Request, Response, Status};

/// How often a world on its way to rest is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Datagrams and messages per second that a node may send without traffic, beside those for each way.
const QUIET_BASE: f64 = 2.0;
/// Of those for each peer, or for each pair that a supernode may carry: a keepalive each 16 s, and answers.
const QUIET_PER_WAY: f64 = 0.25;
/// Parts of a quiet time, of which most must be quiet.
const QUIET_PARTS: u32 = 20;

impl World {
    /// A host's own view, if its node runs.
    pub fn status(&mut self, id: HostId) -> Option<Status> {
        let response = self.ask(id, &Request::Status)?;
        if let Response::Status(status) = response { Some(status) } else { None }
    }

    /// A host's answer to a question or order, if its node runs.
    pub fn ask(&mut self, id: HostId, request: &Request) -> Option<Response> {
        let mut response = None;
        self.feed(id, |node, now| response = Some(node.handle_request(now, request)));
        response
    }

    /// Says to a host's node how busy its processors are, in percent.
    pub fn press(&mut self, id: HostId, load: u8) {
        self.feed(id, |node, now| node.handle_pressure(now, Some(load)));
    }

    /// How `from` sees `to` in an overlay of both.
    pub fn peer(&mut self, from: HostId, to: HostId, overlay: OverlayNo) -> Option<PeerStatus> {
        let index = self.overlays_of(from).iter().position(|own| *own == overlay)?;
        let id = self.node_id(to).to_string();
        let mut status = self.status(from)?;
        if index >= status.overlays.len() {
            return None;
        }
        status.overlays.swap_remove(index).peers.into_iter().find(|peer| peer.id == id)
    }

    /// How frames of `from` travel to `to`.
    pub fn path(&mut self, from: HostId, to: HostId, overlay: OverlayNo) -> PathKind {
        self.peer(from, to, overlay).map_or(PathKind::None, |peer| peer.path.kind)
    }

    /// Pairs of hosts that are awake, with each overlay that both are in; each pair once.
    pub fn pairs(&self) -> Vec<(HostId, HostId, OverlayNo)> {
        let awake: Vec<_> = (0..self.hosts.len()).map(HostId).filter(|host| self.is_awake(*host)).collect();
        let mut pairs = Vec::new();
        for (place, a) in awake.iter().enumerate() {
            for b in &awake[place + 1..] {
                let shared = self.overlays_of(*a).iter().filter(|overlay| self.overlays_of(*b).contains(overlay));
                pairs.extend(shared.map(|overlay| (*a, *b, *overlay)));
            }
        }
        pairs
    }

    /// How a pair must be connected at rest.
    pub fn expected(&self, a: HostId, b: HostId) -> Way {
        let both_ipv6 = self.hosts[a.0].spec.ipv6 && self.hosts[b.0].spec.ipv6;
        let (a, b) = (self.site_of(a), self.site_of(b));
        let cut = self.underlay.is_cut(a, b) || self.underlay.is_cut(b, a);
        if both_ipv6 && !cut { Way::Direct } else { self.underlay.way(a, b) }
    }

    /// Whether a live supernode serves both.
    pub fn have_relay(&self, a: HostId, b: HostId) -> bool {
        let registers = |host: HostId, server: HostId| {
            let address = self.socket(server);
            self.hosts[host.0].spec.supernodes.iter().any(|supernode| {
                let found = self.names.get(&supernode.address).copied().or_else(|| supernode.address.parse().ok());
                let own = found.is_some_and(|found| found.ip().is_loopback() && host == server);
                own || found == Some(address)
            })
        };
        let servers = (0..self.hosts.len()).map(HostId).filter(|host| self.serves(*host) && self.is_awake(*host));
        servers.into_iter().any(|server| registers(a, server) && registers(b, server))
    }

    /// What keeps the world from being at rest, as sentences.
    pub fn unsettled(&mut self) -> Vec<String> {
        let paths = self.paths();
        let path = |from: HostId, to: HostId, overlay| {
            paths.get(&(from, overlay, self.node_id(to).to_string())).copied().unwrap_or((PathKind::None, false))
        };
        let judge = |(a, b, overlay)| self.unsettled_pair((a, b), overlay, [path(a, b, overlay), path(b, a, overlay)]);
        self.pairs().into_iter().filter_map(judge).collect()
    }

    /// How frames travel from every host to every peer, and whether the link sleeps.
    fn paths(&mut self) -> BTreeMap<(HostId, OverlayNo, String), (PathKind, bool)> {
        let mut paths = BTreeMap::new();
        for host in (0..self.hosts.len()).map(HostId) {
            let Some(status) = self.status(host).filter(|_| self.is_awake(host)) else { continue };
            for (overlay, status) in self.overlays_of(host).iter().zip(status.overlays) {
                let path = |peer: &PeerStatus| (peer.path.kind, peer.state == PeerState::Asleep);
                paths.extend(status.peers.into_iter().map(|peer| ((host, *overlay, peer.id.clone()), path(&peer))));
            }
        }
        paths
    }

    fn unsettled_pair(
        &self,
        (a, b): (HostId, HostId),
        overlay: OverlayNo,
        paths: [(PathKind, bool); 2],
    ) -> Option<String> {
        let way = self.expected(a, b);
        // Where one end sleeps, the other one need not have opened the link further than to wake it.
        let sleeps = paths.iter().any(|(_, asleep)| *asleep);
        let fits = |(path, _): (PathKind, bool)| match way {
            _ if sleeps => path != PathKind::None || !self.have_relay(a, b),
            Way::Direct => path == PathKind::Direct,
            Way::Relayed => path == PathKind::Relayed,
            Way::Searched | Way::Either => path != PathKind::None,
        };
        let settled = paths.into_iter().all(fits) || (way != Way::Direct && !self.have_relay(a, b));
        (!settled).then(|| format!("{a:?} and {b:?} in {overlay:?} should be {way:?} and are {paths:?}"))
    }

    /// Lets time pass until the world is at rest, for `limit` at most. Answers how long it took, or what is wrong.
    ///
    /// # Errors
    /// What is not at rest at the limit.
    pub fn settle(&mut self, limit: Duration) -> Result<Duration, Vec<String>> {
        self.run_until_true(LOOK, limit, |world| world.unsettled().is_empty()).ok_or_else(|| self.unsettled())
    }

    /// Whether a broadcast reached each other live member exactly once: a sentence for each that it did not.
    pub fn missed(&self, frame: FrameId) -> Vec<String> {
        let sent = self.sent(frame);
        let members = (0..self.hosts.len()).map(HostId).filter(|host| {
            *host != sent.host && self.is_awake(*host) && self.overlays_of(*host).contains(&sent.overlay)
        });
        members
            .filter_map(|host| {
                let count = sent.delivered.get(&host).copied().unwrap_or(0);
                (count != 1)
                    .then(|| format!("{host:?} got {frame:?} of {:?} in {:?} {count} times", sent.host, sent.overlay))
            })
            .collect()
    }

    /// Lets `span` pass without traffic. Answers a sentence for each node that sends more than it may, in
    /// most parts of it: an attempt at punching now and then is a short burst.
    pub fn chatter(&mut self, span: Duration) -> Vec<String> {
        let part = span / QUIET_PARTS;
        let mut counts = vec![Vec::new(); self.hosts.len()];
        for _ in 0..QUIET_PARTS {
            let before: Vec<_> = self.hosts.iter().map(|host| host.sending).collect();
            self.run_for(part);
            for (number, before) in before.iter().enumerate() {
                let now = self.hosts[number].sending;
                counts[number].push((now.datagrams - before.datagrams) + (now.messages - before.messages));
            }
        }
        let mut loud = Vec::new();
        for (number, mut counts) in counts.into_iter().enumerate() {
            counts.sort_unstable();
            let median = counts.get(counts.len() / 2).copied().unwrap_or_default();
            let rate = f64::from(u32::try_from(median).unwrap_or(u32::MAX)) / part.as_secs_f64();
            let ways = self.ways(HostId(number));
            if rate > QUIET_BASE + QUIET_PER_WAY * f64::from(ways) {
                loud.push(format!("{:?} sends {rate:.1}/s without traffic, with {ways} ways", HostId(number)));
            }
        }
        loud
    }

    /// How many peers a host has, each in each overlay; for a supernode also the pairs it may carry.
    fn ways(&self, host: HostId) -> u32 {
        let members = |overlay: OverlayNo| {
            self.hosts
                .iter()
                .enumerate()
                .filter(|(number, other)| HostId(*number) != host && other.spec.overlays.contains(&overlay))
                .count()
        };
        let peers: usize = self.overlays_of(host).iter().map(|overlay| members(*overlay)).sum();
        let served: usize =
            (0..self.overlays.len()).map(|number| members(OverlayNo(number))).map(|n| n * (n + 1) / 2).sum();
        u32::try_from(if self.serves(host) { peers + served } else { peers }).unwrap_or(u32::MAX)
    }
}
