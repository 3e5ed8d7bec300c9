//! What a member knows of the whole: its own links, its own traffic, its own machines.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Link, Node, ROWS_MAX, Route, Talk, Topology, Traffic, whole};
use crate::control::carriers::Via;
use crate::control::customer::customer;
use crate::control::report::{LinkState, PathKind};
use crate::control::reporting::micros;
use crate::control::topology::matrix::Rates;
use crate::control::topology::pattern::{Shape, infer_weights};
use crate::control::topology::{NodeIndex, Pair};
use crate::control::{Control, Home, Peer, machines};
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::PortId;
use crate::datapath::{LegId, MacPair, Path, Side};

impl Control {
    /// Every overlay, as we know it.
    pub(in crate::control) fn topologies(&mut self) -> Vec<Topology> {
        let mut all = (0..self.overlays.len()).map(|index| self.topology(OverlayIndex(index))).collect::<Vec<_>>();
        let here = self.name.clone();
        all.extend(self.serving.iter().flat_map(|supernode| supernode.topologies(&here)));
        all
    }

    fn topology(&self, overlay: OverlayIndex) -> Topology {
        let own = self.me.identity.id().to_string();
        let peers = || self.peers.values().filter(move |peer| peer.overlay == overlay);
        let homes = self.homes.iter().filter(|home| home.state != LinkState::Spare);
        let here = Node {
            id: own.clone(),
            name: self.name.clone(),
            site: self.own_site(),
            is_supernode: false,
            is_here: true,
            is_up: true,
            load_percent: self.load,
        };
        let nodes = std::iter::once(here).chain(peers().map(peer_node)).chain(homes.clone().map(home_node));
        let links = peers().map(|peer| self.link(&own, peer)).chain(homes.map(|home| home_link(&own, home)));
        Topology {
            overlay: self.overlays[overlay.0].name.clone(),
            seen_by: self.name.clone(),
            nodes: nodes.collect(),
            links: links.collect(),
            routes: peers().filter_map(|peer| self.route(&own, peer)).collect(),
            unknown: vec![
                "links among the other members: they and the supernode that plans know them".into(),
                "loss on direct paths: it is not measured".into(),
                "load of other hosts: they tell the supernode that plans".into(),
            ],
        }
    }

    fn own_site(&self) -> Option<String> {
        let named = Some(self.carrying.settings.site.clone()).filter(|site| !site.is_empty());
        named.or_else(|| self.homes.iter().find_map(|home| Some(place(home.seen?.ip()))))
    }

    fn link(&self, own: &str, peer: &Peer) -> Link {
        let path = peer.paths.current();
        let traffic = &self.overlays[peer.overlay.0].traffic;
        let rates = traffic.flow(peer.port);
        let (sent, heard) = rates.map(|(sent, heard)| (sent.fast, heard.fast)).unwrap_or_default();
        Link {
            from: own.to_owned(),
            to: peer.id.to_string(),
            kind: kind(path),
            is_asleep: peer.is_asleep(),
            via: path.and_then(|path| self.relay_id(path)),
            rtt_us: micros(peer.paths.current_rtt()),
            loss_percent: loss(peer),
            sent: Some(whole(sent)),
            heard: Some(whole(heard)),
            is_limited: Some(traffic.is_limited(peer.port)),
            capacity: traffic.capacity(peer.port).map(whole),
        }
    }

    /// Who relays on this path, by its id in the picture.
    fn relay_id(&self, path: Path) -> Option<String> {
        match path {
            Path::Direct(_) => None,
            Path::Relayed(leg, _) => self.leg_owner(leg),
        }
    }

    fn leg_owner(&self, leg: LegId) -> Option<String> {
        let member = self.peers.values().find(|peer| peer.own_leg.is_some_and(|own| own.leg == leg));
        let home = || self.homes.iter().find(|home| home.legs().iter().any(|(_, own)| *own == leg));
        member.map(|member| member.id.to_string()).or_else(|| home().map(|home| home.address.clone()))
    }

    fn route(&self, own: &str, peer: &Peer) -> Option<Route> {
        let via = match peer.carriers.via {
            Via::Auto => return None,
            Via::Direct => None,
            Via::Member(member) => Some(self.peers.get(&member)?.id.to_string()),
            Via::Home(place) => Some(self.homes.get(place)?.address.clone()),
        };
        let by = if peer.carriers.is_pinned { "order" } else { "plan" };
        Some(Route { from: own.to_owned(), to: peer.id.to_string(), via, by: by.into() })
    }

    /// What flows in every overlay, as we know it.
    pub(in crate::control) fn traffics(&self) -> Vec<Traffic> {
        let mut all = (0..self.overlays.len()).map(|index| self.traffic_of(OverlayIndex(index))).collect::<Vec<_>>();
        all.extend(self.serving.iter().flat_map(|supernode| supernode.traffics(&self.name)));
        all
    }

    fn traffic_of(&self, overlay: OverlayIndex) -> Traffic {
        let traffic = &self.overlays[overlay.0].traffic;
        let uncounted = || "machines are not counted here: `adapt = false` is set".into();
        let mut hosts = Vec::new();
        for peer in self.peers.values().filter(|peer| peer.overlay == overlay) {
            let Some((sent, heard)) = traffic.flow(peer.port) else { continue };
            let ends = (self.name.clone(), peer.called());
            hosts.push(self.talk(peer, (ends.0.clone(), ends.1.clone()), sent, Side::Out(peer.port)));
            hosts.push(self.talk(peer, (ends.1, ends.0), heard, Side::In(peer.port)));
        }
        let mut machines = traffic.machines.iter().filter_map(|one| self.machine_talk(one)).collect::<Vec<_>>();
        busiest(&mut hosts);
        busiest(&mut machines);
        Traffic {
            overlay: self.overlays[overlay.0].name.clone(),
            seen_by: self.name.clone(),
            hosts,
            machines,
            machines_left_out: traffic.machines.crowded_out(),
            host_pattern: None,
            machine_pattern: pattern(traffic.machines.iter()),
            hosts_unknown: None,
            machines_unknown: (!self.overlays[overlay.0].adapts).then(uncounted),
        }
    }

    fn machine_talk(&self, (pair, talk): (MacPair, machines::Talk)) -> Option<Talk> {
        let peer = self.peers.get(&pair.port())?;
        let row = self.talk(peer, (pair.from.to_string(), pair.to.to_string()), talk.bytes, pair.side);
        Some(Talk { frames_per_s: Some(whole(talk.frames.fast)), ..row })
    }

    /// What one of ours sends to the peer's side, or the other way round. How a peer sends is the peer's business.
    fn talk(&self, peer: &Peer, (from, to): (String, String), rate: Rates, side: Side) -> Talk {
        let (here, there) = (self.name.clone(), peer.called());
        let row = Talk {
            from,
            to,
            from_host: here.clone(),
            to_host: there.clone(),
            bytes_per_s: whole(rate.fast),
            frames_per_s: None,
            path: None,
            rtt_us: None,
            loss_percent: None,
            why: None,
        };
        match side {
            Side::In(_) => Talk { from_host: there, to_host: here, ..row },
            Side::Out(_) => Talk {
                path: Some(peer.paths.current().map_or_else(|| "none".into(), |path| self.way_text(path))),
                rtt_us: micros(peer.paths.current_rtt()),
                loss_percent: loss(peer),
                why: Some(self.reason(peer)),
                ..row
            },
        }
    }

    /// A way to a peer, in words.
    pub(super) fn way_text(&self, path: Path) -> String {
        let status = self.path_status(Some(path));
        match status.kind {
            PathKind::Direct => "direct".into(),
            PathKind::Relayed => format!("by {}", status.via.unwrap_or_else(|| "a relay that is gone".into())),
            PathKind::None => "none".into(),
        }
    }

    /// Why it is taken: an order or plan where there is one, else what was measured.
    pub(super) fn reason(&self, peer: &Peer) -> String {
        let order = self.order_text(peer);
        if order.is_empty() { peer.paths.why().to_owned() } else { order }
    }
}

fn peer_node(peer: &Peer) -> Node {
    let named = Some(peer.site.clone()).filter(|site| !site.is_empty());
    Node {
        id: peer.id.to_string(),
        name: peer.called(),
        site: named.or_else(|| peer.seen_at().map(|seen| place(seen.ip()))),
        is_supernode: false,
        is_here: false,
        is_up: peer.session.is_some() || peer.is_asleep(),
        load_percent: None,
    }
}

fn home_node(home: &Home) -> Node {
    Node {
        id: home.address.clone(),
        name: home.address.clone(),
        site: None,
        is_supernode: true,
        is_here: false,
        is_up: home.state == LinkState::Up,
        load_percent: None,
    }
}

fn home_link(own: &str, home: &Home) -> Link {
    let is_up = home.state == LinkState::Up;
    Link {
        from: own.to_owned(),
        to: home.address.clone(),
        kind: if is_up { PathKind::Direct } else { PathKind::None },
        is_asleep: false,
        via: None,
        rtt_us: micros(home.rtt).filter(|_| is_up),
        loss_percent: None,
        sent: None,
        heard: None,
        is_limited: None,
        capacity: None,
    }
}

fn kind(path: Option<Path>) -> PathKind {
    match path {
        Some(Path::Direct(_)) => PathKind::Direct,
        Some(Path::Relayed(..)) => PathKind::Relayed,
        None => PathKind::None,
    }
}

/// What members behind one public address have in common.
fn place(ip: IpAddr) -> String {
    customer(ip).to_string()
}

/// On the path in use; measured on relayed ones only.
fn loss(peer: &Peer) -> Option<u32> {
    let current = peer.paths.current()?;
    peer.paths.relay_ways().find(|(path, ..)| *path == current).map(|(_, _, lost)| lost)
}

/// The busiest first, and no more than can be looked at.
pub(in crate::control) fn busiest(rows: &mut Vec<Talk>) {
    rows.retain(|row| row.bytes_per_s > 0);
    rows.sort_by(|one, other| {
        let by_rate = other.bytes_per_s.cmp(&one.bytes_per_s);
        by_rate.then_with(|| (&one.from, &one.to).cmp(&(&other.from, &other.to)))
    });
    rows.truncate(ROWS_MAX);
}

/// What machines look like by what they exchange.
fn pattern(talks: impl Iterator<Item = (MacPair, machines::Talk)>) -> Option<String> {
    let mut places = BTreeMap::new();
    let mut index = |mac| {
        let next = places.len();
        let place = *places.entry(mac).or_insert(next);
        u16::try_from(place).ok().map(NodeIndex)
    };
    let mut weights: BTreeMap<Pair, f64> = BTreeMap::new();
    for (pair, talk) in talks {
        if let (Some(from), Some(to)) = (index(pair.from), index(pair.to)) {
            *weights.entry(Pair::new(from, to)).or_default() += talk.bytes.fast;
        }
    }
    let pattern = infer_weights(&weights);
    (pattern.shape != Shape::Idle).then(|| pattern.to_string())
}

impl Control {
    /// Of our machines the one that exchanges most with those behind a peer.
    pub(in crate::control) fn greatest_machine(&self, overlay: OverlayIndex, port: PortId) -> Option<String> {
        let mut sums: BTreeMap<_, f64> = BTreeMap::new();
        for (pair, talk) in self.overlays[overlay.0].traffic.machines.iter().filter(|(pair, _)| pair.port() == port) {
            *sums.entry(pair.own()).or_default() += talk.bytes.fast;
        }
        sums.into_iter().max_by(|one, other| one.1.total_cmp(&other.1)).map(|(mac, _)| mac.to_string())
    }
}
