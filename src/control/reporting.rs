//! Answers to this machine's questions, put together from what everybody knows.

use std::net::SocketAddr;
use std::time::Duration;

use super::candidate::CandidateState;
use super::report::{
    CandidateReport, Explanation, FdbRow, OverlayStatus, PathKind, PathStatus, PeerState, PeerStatus, Request,
    Response, Status, SupernodeStatus, Transport,
};
use super::{Control, Peer};
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::TAP;
use crate::datapath::{Datapath, Path};
use crate::seam::stream::is_stream;
use crate::time::Time;

fn micros(span: Option<Duration>) -> Option<u64> {
    span.map(|span| u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
}

fn millis(span: Duration) -> u64 {
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
            Request::Explain { peer } => match self.find(peer) {
                Ok(peer) => Response::Explain(self.explain(now, datapath, peer)),
                Err(sentence) => Response::Error(sentence),
            },
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
            counters,
        }
    }

    fn peer_status(&self, now: Time, datapath: &Datapath, peer: &Peer) -> PeerStatus {
        let activity = datapath.activity(peer.port);
        PeerStatus {
            name: peer.name.clone(),
            id: peer.id.to_string(),
            state: if peer.session.is_some() { PeerState::Up } else { peer.state },
            path: self.path_status(peer.paths.current()),
            rtt_us: micros(peer.paths.current_rtt()),
            mtu: peer.paths.current().map(|_| peer.mtu.in_use()),
            mtu_state: peer.paths.current().map(|_| peer.mtu.state()),
            tx_bytes: activity.tx_bytes,
            rx_bytes: activity.rx_bytes,
            last_heard_ms: activity.heard.map(|at| millis(now.since(at))),
        }
    }

    fn path_status(&self, path: Option<Path>) -> PathStatus {
        match path {
            Some(Path::Direct(addr)) => {
                PathStatus { kind: PathKind::Direct, transport: Some(Transport::Udp), remote: Some(addr), via: None }
            }
            Some(Path::Relayed(leg, _)) => {
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
                    (_, Some(peer)) => peer.name.clone().unwrap_or_else(|| peer.id.to_string()),
                    (_, None) => continue,
                };
                let (vlan, mac, age_ms) = (entry.vlan, entry.mac.to_string(), millis(entry.age));
                rows.push(FdbRow { overlay: overlay.name.clone(), vlan, mac, port, age_ms });
            }
        }
        rows
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
            [] => Err(format!("no peer is called {text:?}; `longwire peers` lists them")),
            [first, ..] if found.iter().all(|peer| peer.id == first.id) => {
                let places = found.iter().map(|peer| format!("{}/{text}", self.overlays[peer.overlay.0].name));
                Err(format!("{text:?} is in several overlays; say {}", places.collect::<Vec<_>>().join(" or ")))
            }
            _ => Err(format!("{text:?} fits {} peers; say more of it", found.len())),
        }
    }

    fn explain(&self, now: Time, datapath: &Datapath, peer: &Peer) -> Explanation {
        let current = peer.paths.current();
        let report = |(address, state): (std::net::SocketAddr, &CandidateState)| CandidateReport {
            address,
            kind: state.kind.name().into(),
            probes: state.probes,
            answers: state.answers,
            rtt_us: micros(state.rtt),
            result: result(state, current == Some(Path::Direct(address))).into(),
        };
        let mut why = match current {
            Some(path) if path.is_direct() => format!("direct, because {}", peer.paths.why()),
            Some(_) => format!("relayed, because {}", peer.paths.why()),
            None => "no path: nothing answers and no supernode can carry it".into(),
        };
        if let Some(at) = peer.next_punch(&self.fx).filter(|_| !current.is_some_and(Path::is_direct)) {
            let when = match at.since(now).as_secs() {
                0 => "now".to_owned(),
                seconds => format!("again in {seconds} s"),
            };
            why.push_str(&format!("; a direct path is sought {when}"));
        }
        Explanation {
            peer: self.peer_status(now, datapath, peer),
            overlay: self.overlays[peer.overlay.0].name.clone(),
            why,
            mtu: current.map_or_else(String::new, |_| peer.mtu.why(now)),
            nat: self.observing.class.map(|class| class.status(self.observing.public)),
            peer_nat: peer.nat.map(|class| class.status(None)),
            candidates: peer.paths.candidates.iter().map(report).collect(),
        }
    }
}

fn result(state: &CandidateState, is_current: bool) -> &'static str {
    match (is_current, state.proven, state.answers) {
        (true, _, _) => "in use",
        (false, true, _) => "answers",
        (false, false, 0) => "no answer yet",
        (false, false, _) => "fell silent",
    }
}
