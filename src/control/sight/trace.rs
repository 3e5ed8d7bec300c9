//! The way that frames of one machine take to another, as far as this member decides it.

use super::{Hop, Machine, Trace};
use crate::control::reporting::{micros, millis};
use crate::control::{Control, Peer};
use crate::datapath::Path;
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::{Address, Entry, PortId, TAP};

impl Control {
    /// From `from` to `to` in an overlay whose switch knows `entries`.
    pub(in crate::control) fn trace(&self, overlay: OverlayIndex, ends: [Address; 2], entries: &[Entry]) -> Trace {
        let known = ends.map(|end| entries.iter().find(|entry| (entry.vlan, entry.mac) == (end.vlan, end.mac)));
        let [from, to] = [0, 1].map(|end| self.machine(ends[end], known[end]));
        let ports = known.map(|entry| entry.map(|entry| entry.port));
        let (verdict, why, hops, rtt) = self.travel(ports, [&from, &to]);
        let (overlay, seen_by) = (self.overlays[overlay.0].name.clone(), self.name.clone());
        Trace { overlay, seen_by, from, to, verdict, why, hops, rtt_us: rtt }
    }

    fn machine(&self, address: Address, entry: Option<&Entry>) -> Machine {
        let Address { vlan, mac } = address;
        Machine {
            mac: mac.to_string(),
            vlan,
            host: entry.map(|entry| self.host_of(entry.port)),
            age_ms: entry.map(|entry| millis(entry.age)),
            sequence: entry.map(|entry| entry.sequence),
        }
    }

    fn host_of(&self, port: PortId) -> String {
        if port == TAP {
            return self.name.clone();
        }
        self.peers.get(&port).map_or_else(|| "a member that is gone".into(), Peer::called)
    }

    fn travel(
        &self,
        ports: [Option<PortId>; 2],
        [from, to]: [&Machine; 2],
    ) -> (String, Vec<String>, Vec<Hop>, Option<u64>) {
        let says = |text: &str| (text.to_owned(), Vec::new(), Vec::new(), None);
        match ports {
            [Some(TAP), Some(TAP)] => says("both are behind this host's TAP: their bridge carries it, not the overlay"),
            [Some(TAP), Some(port)] => match self.peers.get(&port) {
                Some(peer) => self.travel_to(peer, from, to),
                None => says("the member that had the receiver is gone: flooded until it is heard again"),
            },
            [Some(TAP), None] => says("nobody here knows the receiver: flooded to every member"),
            [Some(port), Some(TAP)] => {
                let host = self.host_of(port);
                let verdict = format!("delivered to this host's TAP; {host} chooses the way here, ask there");
                let hop =
                    Hop { from: self.name.clone(), to: to.mac.clone(), by: "this host's TAP".into(), rtt_us: None };
                (verdict, Vec::new(), vec![hop], None)
            }
            [Some(_), Some(_)] => {
                says("neither is behind this host: it does not see their frames; ask the sender's host")
            }
            [Some(_), None] => says("the receiver is unknown here; the sender's host decides: ask there"),
            [None, _] => says("the sender is unknown here: it has not been heard for five minutes"),
        }
    }

    fn travel_to(&self, peer: &Peer, from: &Machine, to: &Machine) -> (String, Vec<String>, Vec<Hop>, Option<u64>) {
        let (here, there) = (self.name.clone(), peer.called());
        let why = vec![format!("learned: {} is behind {there}", to.mac), self.reason(peer)];
        let hop =
            |from: &str, to: &str, by: &str, rtt_us| Hop { from: from.into(), to: to.into(), by: by.into(), rtt_us };
        let Some(path) = peer.paths.current() else {
            let verdict = format!("held for {there}: there is no way to it just now");
            return (verdict, why, Vec::new(), None);
        };
        let rtt = micros(peer.paths.current_rtt());
        let mut hops = vec![hop(&from.mac, &here, "this host's TAP", None)];
        match path {
            Path::Direct(at) => hops.push(hop(&here, &there, &format!("UDP to {at}"), rtt)),
            Path::Relayed(..) => {
                let (relay, first) = self.relay_of(path);
                // What is left of the whole round trip is the relay's to the peer.
                let second = first.zip(rtt).and_then(|(first, whole)| whole.checked_sub(first));
                hops.push(hop(&here, &relay, "sealed, with a relay's header", first));
                hops.push(hop(&relay, &there, "passed on unopened", second));
            }
        }
        hops.push(hop(&there, &to.mac, "its TAP", None));
        (format!("sent to {there}, {}", self.way_text(peer)), why, hops, rtt)
    }

    /// Who relays on a path, and the round trip to it.
    fn relay_of(&self, path: Path) -> (String, Option<u64>) {
        let name = self.path_status(Some(path)).via.unwrap_or_else(|| "a relay that is gone".into());
        let Path::Relayed(leg, _) = path else { return (name, None) };
        let member = self.peers.values().find(|peer| peer.own_leg.is_some_and(|own| own.leg == leg));
        let home = || self.homes.iter().find(|home| home.legs().iter().any(|(_, own)| *own == leg));
        let rtt = member.map_or_else(|| home().and_then(|home| home.rtt), |member| member.paths.current_rtt());
        (name, micros(rtt))
    }
}
