//! Why a peer is reached as it is: what was tried, what came back, what would be better and how.

use std::net::SocketAddr;

use super::advice::{self, Between, End};
use super::candidate::{CandidateState, is_global};
use super::report::{CandidateReport, Explanation, PeerStatus, RelayReport};
use super::reporting::{micros, millis};
use super::{Control, Peer};
use crate::datapath::Path;
use crate::time::Time;
use crate::wire::session::{Candidate, CandidateKind};

impl Control {
    /// Everything that led to the path in use.
    pub(super) fn explain(&self, now: Time, status: PeerStatus, peer: &Peer) -> Explanation {
        let current = peer.paths.current();
        // A relay may carry though a direct way does, by order or since it is nearer.
        let needs_advice = peer.paths.known_direct().is_none() && !peer.is_asleep();
        Explanation {
            peer: status,
            overlay: self.overlays[peer.overlay.0].name.clone(),
            why: self.why(now, peer),
            order: self.order_text(peer),
            mtu: current.map_or_else(String::new, |_| peer.mtu.why(now)),
            nat: self.observing.class.map(|class| class.status(self.observing.public)),
            peer_nat: peer.nat.map(|class| class.status(None)),
            since_ms: current.map(|_| millis(now.since(peer.paths.since()))),
            better: if peer.is_direct() { String::new() } else { better(now, peer) },
            advice: if needs_advice { self.advice(peer) } else { Vec::new() },
            relays: self.relays(peer),
            candidates: peer.paths.candidates.iter().map(|one| self.candidate(now, peer, one)).collect(),
        }
    }

    fn why(&self, now: Time, peer: &Peer) -> String {
        let current = peer.paths.current();
        if peer.is_asleep() {
            let way = if current.is_some() { self.fx.describe(current) } else { "to where it was heard before".into() };
            return format!("asleep: the overlay is large and nothing was sent for long; the first frame goes {way}");
        }
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
        why
    }

    fn relays(&self, peer: &Peer) -> Vec<RelayReport> {
        let report = |(path, rtt, loss_percent)| RelayReport {
            via: self.path_status(Some(path)).via.unwrap_or_else(|| "a relay that is gone".into()),
            rtt_us: micros(rtt),
            loss_percent,
            result: match (peer.paths.current() == Some(path), rtt) {
                (true, _) => "in use",
                (false, Some(_)) => "answers",
                (false, None) => "no answer yet",
            }
            .into(),
        };
        peer.paths.relay_ways().map(report).collect()
    }

    fn candidate(&self, now: Time, peer: &Peer, (address, state): (SocketAddr, &CandidateState)) -> CandidateReport {
        let is_current = peer.paths.current() == Some(Path::Direct(address));
        let error = if state.proven { None } else { hopeless(&self.me.candidates, address, state.kind) };
        CandidateReport {
            address,
            kind: state.kind.name().into(),
            probes: state.probes,
            answers: state.answers,
            rtt_us: micros(state.rtt()),
            result: result(state, is_current).into(),
            probed_ms: state.sent.map(|at| millis(now.since(at))),
            answered_ms: state.answered.map(|at| millis(now.since(at))),
            error: error.map(str::to_owned),
        }
    }

    /// What would make the peer direct.
    fn advice(&self, peer: &Peer) -> Vec<String> {
        let here = End {
            who: "this host".into(),
            place: "this site".into(),
            host: own_host(self.me.candidates.iter().map(|one| (one.kind, one.addr))),
            nat: self.observing.class,
            mapped: self.mapped,
            is_on_tcp: only(self.homes.iter().filter(|home| home.remote.is_some()), |home| home.is_on_stream()),
        };
        let known = || peer.paths.candidates.iter().map(|(addr, state)| (state.kind, addr));
        let there = End {
            who: peer.called(),
            place: if peer.site.is_empty() { peer.called() } else { format!("site {}", peer.site) },
            host: own_host(known()),
            nat: peer.nat,
            mapped: known().find(|(kind, _)| *kind == CandidateKind::Mapped).map(|(_, addr)| addr),
            // Who comes by TCP is seen nowhere.
            is_on_tcp: only(peer.seen.values(), |seen| seen.port() == 0),
        };
        let between = Between { is_one_address: self.is_at_our_address(peer), birthday: self.me.birthday };
        advice::advise(&here, &there, between)
    }
}

/// Whether there are any, all of this kind.
fn only<T>(mut all: impl Iterator<Item = T>, is_of_it: impl Fn(T) -> bool) -> bool {
    all.next().is_some_and(&is_of_it) && all.all(is_of_it)
}

/// The address that a router would forward to.
fn own_host(candidates: impl Iterator<Item = (CandidateKind, SocketAddr)>) -> Option<SocketAddr> {
    candidates.filter(|(kind, addr)| *kind == CandidateKind::Host && addr.is_ipv4()).map(|(_, addr)| addr).next()
}

/// When a direct path carried last.
fn better(now: Time, peer: &Peer) -> String {
    let Some((addr, at)) = peer.paths.bettered() else { return String::new() };
    format!("it was direct by {addr} until {} s ago", now.since(at).as_secs())
}

/// Why nothing comes from an address, if that is plain to see.
fn hopeless(own: &[Candidate], address: SocketAddr, kind: CandidateKind) -> Option<&'static str> {
    let has_ipv6 = own.iter().any(|one| one.addr.is_ipv6() && is_global(one.addr.ip()));
    if address.is_ipv6() && is_global(address.ip()) && !has_ipv6 {
        return Some("this host has no IPv6 address of the internet");
    }
    match kind {
        CandidateKind::Host if !is_global(address.ip()) => Some("a private address: only its own network leads there"),
        CandidateKind::Mapped => Some("its router says that it lets others in here"),
        CandidateKind::Host
        | CandidateKind::Reflexive
        | CandidateKind::PeerReflexive
        | CandidateKind::Configured
        | CandidateKind::Predicted => None,
    }
}

const fn result(state: &CandidateState, is_current: bool) -> &'static str {
    match (is_current, state.proven, state.answers) {
        (true, _, _) => "in use",
        (false, true, _) => "answers",
        (false, false, 0) => "no answer yet",
        (false, false, _) => "fell silent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_answer_has_its_reason() {
        let addr = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let own = [Candidate { kind: CandidateKind::Host, addr: addr("10.0.0.1:7777") }];
        let says = |address, kind| hopeless(&own, addr(address), kind).unwrap_or("");
        assert!(says("[2001:db8::1]:1", CandidateKind::Host).starts_with("this host has no IPv6"));
        assert!(says("192.168.1.1:1", CandidateKind::Host).starts_with("a private address"));
        assert!(says("198.51.100.1:1", CandidateKind::Mapped).starts_with("its router says"));
        assert_eq!(says("198.51.100.1:1", CandidateKind::Reflexive), "");
    }
}
