//! Candidates: the addresses at which a peer may be heard, and what became of each.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::inward::Inward;
use super::path::trip::Trip;
use crate::seam::stream::is_stream;
use crate::time::Time;
use crate::wire::session::CandidateKind;

/// Most addresses kept for one peer: its own list and as many that it was heard from.
const CAPACITY: usize = 32;

/// One address of a peer.
#[derive(Clone, Debug)]
pub struct CandidateState {
    /// Where it was learned from.
    pub kind: CandidateKind,
    /// Probes sent to it.
    pub probes: u32,
    /// Answers that came back.
    pub answers: u32,
    /// When the last probe was sent.
    pub sent: Option<Time>,
    /// When the last answer came.
    pub answered: Option<Time>,
    /// Round trips of the last answers.
    pub trip: Option<Trip>,
    /// The other side has answered on it, and it has not fallen silent since.
    pub proven: bool,
    /// Counts up each time any address is told or heard: greater is newer.
    news: u64,
}

/// The candidates of one peer.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    table: BTreeMap<SocketAddr, CandidateState>,
    inward: Arc<Inward>,
    news: u64,
}

impl CandidateState {
    /// Round trip of the last answer.
    pub fn rtt(&self) -> Option<Duration> {
        self.trip.map(|trip| trip.last)
    }
}

impl Candidates {
    /// Learns of an address; one that is known keeps its history. Addresses that cannot be a peer's are refused.
    pub fn add(&mut self, kind: CandidateKind, addr: SocketAddr) {
        if !is_usable(addr) || self.inward.leads_to(addr.ip()) {
            return;
        }
        self.news += 1;
        let news = self.news;
        if let Some(state) = self.table.get_mut(&addr) {
            state.news = news;
            if kind == CandidateKind::Host {
                state.kind = kind;
            }
            return;
        }
        if self.table.len() >= CAPACITY {
            let oldest = self.table.iter().filter(|(_, state)| !state.proven).min_by_key(|(_, state)| state.news);
            let Some(oldest) = oldest.map(|(addr, _)| *addr) else { return };
            self.table.remove(&oldest);
        }
        let state =
            CandidateState { kind, probes: 0, answers: 0, sent: None, answered: None, trip: None, proven: false, news };
        self.table.insert(addr, state);
    }

    /// The host's routes lead these addresses into an overlay: nobody is sought there.
    pub fn set_inward(&mut self, inward: &Arc<Inward>) {
        self.inward = Arc::clone(inward);
        self.table.retain(|addr, _| !inward.leads_to(addr.ip()));
    }

    /// Whoever told of `addr` says something else now: it is forgotten, unless the peer ever answered there.
    pub fn withdraw(&mut self, kind: CandidateKind, addr: SocketAddr) {
        if self.table.get(&addr).is_some_and(|state| state.kind == kind && state.answers == 0) {
            self.table.remove(&addr);
        }
    }

    /// What is known of an address.
    pub fn get(&self, addr: SocketAddr) -> Option<&CandidateState> {
        self.table.get(&addr)
    }

    /// A probe goes to `addr`.
    pub fn on_probe(&mut self, now: Time, addr: SocketAddr) {
        if let Some(state) = self.table.get_mut(&addr) {
            state.probes += 1;
            state.sent = Some(now);
        }
    }

    /// The peer answered on `addr`; `true` if this is news.
    pub fn on_answer(&mut self, now: Time, addr: SocketAddr, rtt: Duration) -> bool {
        let Some(state) = self.table.get_mut(&addr) else { return false };
        state.answers += 1;
        state.answered = Some(now);
        state.trip = Some(state.trip.map_or(Trip::first(rtt), |trip| trip.and(rtt)));
        !std::mem::replace(&mut state.proven, true)
    }

    /// `addr` fell silent.
    pub fn on_silence(&mut self, addr: SocketAddr) {
        if let Some(state) = self.table.get_mut(&addr) {
            state.proven = false;
        }
    }

    /// The peer restarted or the network changed: nothing is proven any more.
    pub fn forget_proofs(&mut self) {
        for state in self.table.values_mut() {
            state.proven = false;
        }
    }

    /// All of them, in the order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, &CandidateState)> {
        self.table.iter().map(|(addr, state)| (*addr, state))
    }

    /// At most `limit` addresses worth a probe, the likeliest first.
    pub fn to_probe(&self, limit: usize) -> Vec<SocketAddr> {
        let mut list = self.table.iter().map(|(addr, state)| (rank(state), *addr)).collect::<Vec<_>>();
        list.sort_unstable();
        list.into_iter().take(limit).map(|(_, addr)| addr).collect()
    }
}

/// Lower is likelier: what answers, then what was told or heard last. An old address never hides a new one.
const fn rank(state: &CandidateState) -> (bool, Reverse<u64>) {
    (!state.proven, Reverse(state.news))
}

/// Whether packets to `addr` could reach another host: no wildcard, loopback, broadcast or group, and no stream.
pub fn is_usable(addr: SocketAddr) -> bool {
    let ip = addr.ip();
    if is_stream(addr) {
        return false;
    }
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    addr.port() != 0 && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !is_link_local
}

/// Whether `ip` means something outside its own site, so that a NAT lies before it.
pub fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_private() && !ip.is_link_local() && !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_unique_local() && !ip.is_unicast_link_local() && !ip.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::NetworkRoute;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn what_cannot_be_a_peer_is_refused() {
        for text in [
            "[100::7]:1",
            "127.0.0.1:7777",
            "0.0.0.0:7777",
            "255.255.255.255:7777",
            "224.0.0.1:7777",
            "10.0.0.1:0",
            "[::1]:1",
        ] {
            assert!(!is_usable(addr(text)), "{text}");
        }
        assert!(is_usable(addr("10.0.0.1:7777")));
    }

    #[test]
    fn nobody_is_sought_where_a_route_leads_into_an_overlay() {
        let mut table = Candidates::default();
        let (inside, outside) = (addr("10.77.0.2:7777"), addr("192.0.2.2:7777"));
        table.add(CandidateKind::Host, inside);
        table.add(CandidateKind::Host, outside);
        let route = NetworkRoute { network: inside.ip(), prefix: 16, is_inward: true };
        table.set_inward(&Arc::new(Inward::new(vec![route])));
        table.add(CandidateKind::PeerReflexive, inside);
        assert_eq!(table.to_probe(8), [outside]);
    }

    #[test]
    fn a_new_address_is_probed_before_old_ones_that_fell_silent() {
        let mut table = Candidates::default();
        for port in 1..=12 {
            let old = addr(&format!("198.51.100.2:{port}"));
            table.add(CandidateKind::Reflexive, old);
            table.on_answer(Time::START, old, Duration::ZERO);
            table.on_silence(old);
        }
        let new = addr("198.51.100.9:7777");
        table.add(CandidateKind::Reflexive, new);
        assert_eq!(table.to_probe(8).first(), Some(&new));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_is_proven() {
        let mut table = Candidates::default();
        let proven = addr("198.51.100.1:7777");
        table.add(CandidateKind::Host, proven);
        table.on_answer(Time::START, proven, Duration::ZERO);
        for port in 1..200 {
            table.add(CandidateKind::PeerReflexive, addr(&format!("198.51.100.2:{port}")));
        }
        assert_eq!(table.iter().count(), CAPACITY);
        assert!(table.get(proven).is_some_and(|state| state.proven));
        assert_eq!(table.to_probe(3).first(), Some(&proven));
    }
}
