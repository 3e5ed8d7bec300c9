//! Answers to this machine's questions, put together from what everybody knows.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::carriers::Via;
use super::report::rules::RouteRow;
use super::report::{
    FdbRow, OverlayStatus, PathKind, PathStatus, PeerState, PeerStatus, Request, Response, Status, SupernodeStatus,
    Transport,
};
use super::{Control, Peer};
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::{Address, Entry, PortId, TAP};
use crate::datapath::{Datapath, Path};
use crate::seam::stream::is_stream;
use crate::time::Time;
use crate::wire::VLAN_MAX;

/// A supernode alone has no peers and decides nothing of frames.
pub(super) const NO_MEMBER: &str = "this daemon is a member of no overlay: ask one that is";

pub(super) fn micros(span: Option<Duration>) -> Option<u64> {
    span.map(|span| u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn transport(remote: SocketAddr) -> Transport {
    if is_stream(remote) { Transport::Tcp } else { Transport::Udp }
}

impl Control {
    /// Answers a question.
    pub fn handle_request(&mut self, now: Time, datapath: &mut Datapath, request: &Request) -> Response {
        match request {
            Request::Status => Response::Status(self.status(now, datapath)),
            Request::Fdb => Response::Fdb(self.fdb(now, datapath)),
            Request::ClaimMac { mac, vlan, ip, overlay } => {
                let address = mac.parse().map(|mac| Address { vlan: *vlan, mac }).map_err(|error| error.to_string());
                let claimed = address.and_then(|address| self.claim(now, datapath, (address, *ip), overlay.as_deref()));
                claimed.map_or_else(Response::Error, |()| Response::Done)
            }
            Request::Explain { peer } => match self.find(peer) {
                Ok(peer) => Response::Explain(self.explain(now, self.peer_status(now, datapath, peer), peer)),
                Err(sentence) => Response::Error(sentence),
            },
            Request::Topology => {
                self.fx.now = now;
                Response::Topology(self.topologies())
            }
            Request::Traffic => Response::Traffic(self.traffics()),
            Request::Advise => Response::Advice(self.move_advice(now)),
            Request::Trace { from, to, vlan, overlay } => {
                let traced = self.overlay_named(overlay.as_deref()).and_then(|overlay| {
                    check_vlan(*vlan)?;
                    let end = |text: &str| machine_called(datapath, overlay, (text, *vlan));
                    Ok(self.trace(overlay, [end(from)?, end(to)?], &datapath.fdb_entries(now, overlay)))
                });
                traced.map_or_else(Response::Error, Response::Trace)
            }
            Request::Route(order) => {
                self.fx.now = now;
                let added = self.order_route(order);
                let rows = self.route_rows(|overlay, rule| datapath.hits(overlay, rule));
                let is_wanted = |row: &RouteRow, added: Option<u32>| added.is_none_or(|id| row.id == id);
                let wanted = |added| rows.into_iter().filter(|row| is_wanted(row, added)).collect();
                added.map_or_else(Response::Error, |added| Response::Routes(wanted(added)))
            }
            Request::Link(order) => {
                self.fx.now = now;
                self.order_link(order).map_or_else(Response::Error, |()| Response::Links(self.link_rows()))
            }
            Request::Reserve(order) => {
                self.fx.now = now;
                self.order_reserve(order).map_or_else(Response::Error, Response::Reservations)
            }
            Request::Via { peer, via } => {
                self.fx.now = now;
                match self.via(peer, via) {
                    Ok((port, via)) => {
                        self.pin(port, via);
                        Response::Done
                    }
                    Err(sentence) => Response::Error(sentence),
                }
            }
        }
    }

    /// What an order means, if it can be meant.
    fn via(&self, peer: &str, via: &str) -> Result<(PortId, Via), String> {
        let peer = self.find(peer)?;
        let via = match via {
            "auto" => Via::Auto,
            "direct" => Via::Direct,
            "supernode" => {
                let place = self.homes.iter().position(|home| home.leg(peer.overlay).is_some());
                Via::Home(place.ok_or("no supernode relays here")?)
            }
            member => Via::Member(self.find(member).map(|member| member.port)?),
        };
        if let Some(link) = self.pinned_link(peer.port).filter(|_| via != Via::Direct) {
            return Err(format!("the link to {link} is pinned; `longwire link del {link}` takes that back"));
        }
        match via {
            Via::Member(member) if member == peer.port => Err("a member cannot relay to itself".into()),
            Via::Member(member) if self.peers.get(&member).is_none_or(|member| member.overlay != peer.overlay) => {
                Err("the two are in different overlays".into())
            }
            Via::Member(member) => self.unwilling(member, peer.port).map_or(Ok((peer.port, via)), Err),
            Via::Auto | Via::Direct | Via::Home(_) => Ok((peer.port, via)),
        }
    }

    pub(super) fn order_text(&self, peer: &Peer) -> String {
        let whose = if peer.carriers.is_pinned { "by order" } else { "by plan" };
        match peer.carriers.via {
            Via::Auto => String::new(),
            Via::Direct => format!("{whose} no member relays"),
            Via::Home(_) => format!("{whose} the supernode relays while it can"),
            Via::Member(member) => {
                let name = self.peers.get(&member).map_or("a member that is gone".into(), Peer::called);
                format!("{whose} {name} relays while it can")
            }
        }
    }

    fn status(&self, now: Time, datapath: &mut Datapath) -> Status {
        let node_counters = datapath.node_stats().table();
        let overlays = (0..self.overlays.len()).map(OverlayIndex);
        let overlays = overlays.map(|index| self.overlay_status(now, datapath, index)).collect();
        Status {
            node: self.name.clone(),
            node_id: self.me.identity.id().to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            lanes: 0,
            fingerprint: self.serving.as_ref().map(|_| self.me.identity.fingerprint().to_string()),
            mapped: self.mapped,
            nat: self.observing.class.map(|class| class.status(self.observing.public)),
            overlays,
            serving: self.serving.as_ref().map(|supernode| supernode.report(node_counters)),
        }
    }

    fn overlay_status(&self, now: Time, datapath: &mut Datapath, index: OverlayIndex) -> OverlayStatus {
        let mut counters = datapath.stats(index).table();
        for (name, count) in datapath.node_stats().table() {
            *counters.entry(name).or_default() += count;
        }
        let peers = self.peers.values().filter(|peer| peer.overlay == index);
        let supernode = |home: &super::Home| SupernodeStatus {
            address: home.address.clone(),
            fingerprint: home.pin.map(|pin| pin.to_string()),
            state: home.state,
            transport: home.remote.map(transport),
            rtt_us: micros(home.rtt),
            reason: home.trouble.clone(),
        };
        OverlayStatus {
            name: self.overlays[index.0].name.clone(),
            id: self.overlays[index.0].id().to_string(),
            tap: String::new(),
            tap_offload: String::new(),
            supernodes: self.homes.iter().map(supernode).collect(),
            peers: peers.map(|peer| self.peer_status(now, datapath, peer)).collect(),
            fdb_entries: datapath.fdb_entries(now, index).len(),
            arp: if datapath.answers(index) { "local" } else { "flood" }.into(),
            bindings: datapath.bindings(index),
            multicast: if datapath.snoops(index) { "snoop" } else { "flood" }.into(),
            groups: datapath.groups(index),
            counters,
        }
    }

    pub(super) fn peer_status(&self, now: Time, datapath: &Datapath, peer: &Peer) -> PeerStatus {
        let activity = datapath.activity(peer.port);
        PeerStatus {
            name: peer.name.clone(),
            id: peer.id.to_string(),
            state: match peer.session {
                _ if peer.is_asleep() => PeerState::Asleep,
                Some(_) => PeerState::Up,
                None => peer.state,
            },
            path: self.path_status(peer.paths.current()),
            rtt_us: micros(peer.paths.current_rtt()),
            mtu: peer.paths.current().map(|_| peer.mtu.in_use()),
            mtu_state: peer.paths.current().map(|_| peer.mtu.state()),
            cipher: datapath.suite(now, peer.port).map(|suite| suite.name().to_owned()),
            tx_bytes: activity.tx_bytes,
            rx_bytes: activity.rx_bytes,
            last_heard_ms: activity.heard.map(|at| millis(now.since(at))),
        }
    }

    pub(super) fn path_status(&self, path: Option<Path>) -> PathStatus {
        match path {
            Some(Path::Direct(addr)) => {
                PathStatus { kind: PathKind::Direct, transport: Some(Transport::Udp), remote: Some(addr), via: None }
            }
            Some(Path::Relayed(leg, _)) => {
                let member =
                    self.peers.values().find_map(|peer| Some((peer, peer.own_leg.filter(|own| own.leg == leg)?)));
                if let Some((member, own)) = member {
                    let (remote, via) = (Some(own.at), Some(member.called()));
                    return PathStatus { kind: PathKind::Relayed, transport: Some(Transport::Udp), remote, via };
                }
                let home = self.homes.iter().find(|home| home.legs().iter().any(|(_, own)| *own == leg));
                let via = home.map(|home| home.address.clone());
                let remote = home.and_then(|home| home.remote);
                let (transport, remote) = (remote.map(transport), remote.filter(|remote| !is_stream(*remote)));
                PathStatus { kind: PathKind::Relayed, transport, remote, via }
            }
            None => PathStatus { kind: PathKind::None, transport: None, remote: None, via: None },
        }
    }

    fn fdb(&self, now: Time, datapath: &Datapath) -> Vec<FdbRow> {
        let mut rows = Vec::new();
        for (index, overlay) in self.overlays.iter().enumerate() {
            for entry in datapath.fdb_entries(now, OverlayIndex(index)) {
                let peer = self.peers.get(&entry.port);
                let port = match (entry.port, peer) {
                    (TAP, _) => "tap".into(),
                    (_, Some(peer)) => peer.called(),
                    (_, None) => continue,
                };
                let Entry { vlan, mac, sequence, frozen, age, .. } = entry;
                let (overlay, mac, age_ms) = (overlay.name.clone(), mac.to_string(), millis(age));
                rows.push(FdbRow { overlay, vlan, mac, port, sequence, frozen, age_ms });
            }
        }
        rows
    }

    /// Takes an address for a machine behind our TAP, by the word of somebody at this host.
    fn claim(
        &self,
        now: Time,
        datapath: &mut Datapath,
        (address, ip): (Address, Option<IpAddr>),
        overlay: Option<&str>,
    ) -> Result<(), String> {
        let overlay = self.overlay_named(overlay)?;
        check_vlan(address.vlan)?;
        if address.mac.is_group() || address.mac.is_zero() {
            return Err(format!("{address} is no address of a machine"));
        }
        if datapath.claim(now, overlay, address, ip) {
            Ok(())
        } else {
            Err(format!("{address} is frozen elsewhere, or the table is full; `longwire fdb` shows it"))
        }
    }

    /// The peer of this name or id, or start of one; `OVERLAY/PEER` where a node is met in several.
    fn find(&self, text: &str) -> Result<&Peer, String> {
        let (overlay, text) = text.rsplit_once('/').map_or((None, text), |(overlay, text)| (Some(overlay), text));
        let here = |peer: &&Peer| overlay.is_none_or(|name| self.overlays[peer.overlay.0].name == name);
        let peers = self.peers.values().filter(here).collect::<Vec<_>>();
        let mut found = peers.iter().filter(|peer| peer.name.as_deref() == Some(text)).collect::<Vec<_>>();
        if found.is_empty() && !text.is_empty() {
            let starts = |peer: &&&Peer| {
                peer.id.to_string().starts_with(text) || peer.name.as_ref().is_some_and(|name| name.starts_with(text))
            };
            found = peers.iter().filter(starts).collect();
        }
        match found[..] {
            [peer] => Ok(peer),
            [] if self.overlays.is_empty() => Err(NO_MEMBER.into()),
            [] if self.name == text => Err(format!("{text:?} is this node itself")),
            [] => Err(format!("no peer is called {text:?}; `longwire peers` lists them")),
            [first, ..] if found.iter().all(|peer| peer.id == first.id) => {
                let places = found.iter().map(|peer| format!("{}/{text}", self.overlays[peer.overlay.0].name));
                Err(format!("{text:?} is in several overlays; say {}", places.collect::<Vec<_>>().join(" or ")))
            }
            _ => Err(format!("{text:?} fits {} peers; say more of it", found.len())),
        }
    }
}

/// IEEE 802.1Q keeps the highest identifier for itself: no machine is in that one.
fn check_vlan(vlan: u16) -> Result<(), String> {
    if vlan < VLAN_MAX { Ok(()) } else { Err(format!("{vlan} is no VLAN: 1 to {} are, 0 is none", VLAN_MAX - 1)) }
}

/// A machine by its MAC address, or by the IP address that it says, or its member tells, is its own.
fn machine_called(datapath: &Datapath, overlay: OverlayIndex, (text, vlan): (&str, u16)) -> Result<Address, String> {
    let Ok(ip) = text.parse::<IpAddr>() else {
        let mac = text.parse().map_err(|error: crate::datapath::frame::MacError| error.to_string())?;
        return Ok(Address { vlan, mac });
    };
    let found = datapath.machines_with(overlay, vlan, ip).into_iter().collect::<Vec<_>>();
    let asks_for_mac = |why: String| Err(format!("{why}; give its MAC address"));
    match found[..] {
        [machine] => Ok(machine),
        [] if !datapath.answers(overlay) => asks_for_mac(format!(
            "no machine behind this host has {ip}, and of others nothing is told: `arp = \"flood\"`"
        )),
        [] => asks_for_mac(format!("no machine behind this host has {ip}, and no other member has told of one")),
        [..] => asks_for_mac(format!("{} machines have {ip}", found.len())),
    }
}
