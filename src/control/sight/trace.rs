//! The way that frames of one machine take to another, as far as this member decides it: by static rules, else by what
//! was learned.

use super::{Hop, Machine, Trace};
use crate::control::reporting::{micros, millis};
use crate::control::rules::ruled::Ruled;
use crate::control::{Control, Peer};
use crate::datapath::Path;
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::{Address, Entry, PortId, TAP};

/// What becomes of a frame in words, why, its hops and their round trip.
type Travel = (String, Vec<String>, Vec<Hop>, Option<u64>);

impl Control {
    /// From `from` to `to` in an overlay whose switch knows `entries`.
    pub(in crate::control) fn trace(&self, overlay: OverlayIndex, ends: [Address; 2], entries: &[Entry]) -> Trace {
        let known = ends.map(|end| entries.iter().find(|entry| (entry.vlan, entry.mac) == (end.vlan, end.mac)));
        let [from, to] = [0, 1].map(|end| self.machine(ends[end], known[end]));
        let ports = known.map(|entry| entry.map(|entry| entry.port));
        let ruled = self.ruled(overlay, ends, ports[1]).filter(|_| ports[0] == Some(TAP));
        let (verdict, why, hops, rtt) = match ruled {
            Some(ruled) => self.travel_by_rules(&ruled, [&from, &to]),
            None => self.travel(ports, [&from, &to]),
        };
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

    fn travel_by_rules(&self, ruled: &Ruled, [from, to]: [&Machine; 2]) -> Travel {
        let numbers = ruled.by.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        let why = vec![format!("static rule {numbers}: `longwire route show` says what it wants")];
        let says = |text: &str| (format!("{text} by static rule {numbers}"), why.clone(), Vec::new(), None);
        if ruled.is_dropped {
            return says("dropped");
        }
        if ruled.is_flooded {
            return says("nobody here knows the receiver: flooded to every member");
        }
        let peers = ruled.to.iter().filter_map(|(port, path)| Some((self.peers.get(port)?, *path)));
        let mut travels = peers.map(|(peer, path)| self.travel_to(peer, path, why.clone(), [from, to]));
        let Some(mut whole) = travels.next() else { return says("left to this host's segment") };
        for (verdict, _, hops, _) in travels {
            whole.0 = format!("{}; {verdict}", whole.0);
            whole.2.extend(hops);
            // There is no one round trip of several ways.
            whole.3 = None;
        }
        whole
    }

    fn travel(&self, ports: [Option<PortId>; 2], [from, to]: [&Machine; 2]) -> Travel {
        let says = |text: &str| (text.to_owned(), Vec::new(), Vec::new(), None);
        match ports {
            [Some(TAP), Some(TAP)] => says("both are behind this host's TAP: their bridge carries it, not the overlay"),
            [Some(TAP), Some(port)] => match self.peers.get(&port) {
                Some(peer) => {
                    let why = vec![format!("learned: {} is behind {}", to.mac, peer.called()), self.reason(peer)];
                    self.travel_to(peer, peer.paths.current(), why, [from, to])
                }
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

    /// To a peer by this path.
    fn travel_to(&self, peer: &Peer, path: Option<Path>, why: Vec<String>, [from, to]: [&Machine; 2]) -> Travel {
        let (here, there) = (self.name.clone(), peer.called());
        let hop =
            |from: &str, to: &str, by: &str, rtt_us| Hop { from: from.into(), to: to.into(), by: by.into(), rtt_us };
        let Some(path) = path else {
            let verdict = format!("held for {there}: there is no way to it just now");
            return (verdict, why, Vec::new(), None);
        };
        let rtt = micros(peer.paths.rtt(path));
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
        (format!("sent to {there}, {}", self.way_text(path)), why, hops, rtt)
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
