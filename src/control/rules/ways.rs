//! The ways among which rules choose: kept open, probed, and told to the corridor as long as they carry.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Rules;
use crate::control::timers::Timer;
use crate::control::{Control, Peer};
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::PortId;
use crate::datapath::{Action, Command, Path, Rule, RuleWay, Ways};
use crate::time::Time;

/// Ways to a peer that no frame went to for this long are not probed: two of the readings of an idle peer.
const IDLE: Duration = Duration::from_secs(40);

/// What rules want of the ways to one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    direct: bool,
    supernode: bool,
    members: BTreeSet<PortId>,
}

impl Wanted {
    fn add(&mut self, way: RuleWay) {
        match way {
            RuleWay::Usual => {}
            RuleWay::Direct => self.direct = true,
            RuleWay::Supernode => self.supernode = true,
            RuleWay::Member(member) => {
                self.members.insert(member);
            }
        }
    }
}

impl Control {
    /// Probes what rules want and tells the corridor what carries.
    pub(super) fn review_ways(&mut self, rules: &mut Rules) {
        let wanted = self.wanted(rules);
        for (port, wanted) in &wanted {
            self.hold_members(*port, &wanted.members);
            self.probe_ways(*port, wanted);
            let ways = self.ways(*port, wanted);
            if rules.ways.get(port).is_none_or(|told| *told != ways) {
                rules.ways.insert(*port, ways.clone());
                self.fx.commands.push_back(Command::SetWays { port: *port, ways });
            }
        }
        let over: Vec<PortId> = rules.ways.keys().filter(|port| !wanted.contains_key(port)).copied().collect();
        for port in over {
            rules.ways.remove(&port);
            self.hold_members(port, &BTreeSet::new());
            self.fx.commands.push_back(Command::SetWays { port, ways: Ways::default() });
        }
    }

    fn wanted(&self, rules: &Rules) -> BTreeMap<PortId, Wanted> {
        let mut wanted: BTreeMap<PortId, Wanted> = BTreeMap::new();
        for (overlay, Rule { action, .. }) in
            rules.in_force.iter().flat_map(|(at, rules)| rules.iter().map(move |rule| (*at, rule)))
        {
            match *action {
                Action::To(_, RuleWay::Usual) | Action::Learned(RuleWay::Usual) | Action::Drop | Action::Here => {}
                Action::To(port, way) => wanted.entry(port).or_default().add(way),
                Action::Learned(way) => {
                    let peers = self.peers.values().filter(|peer| peer.overlay == overlay);
                    peers.for_each(|peer| wanted.entry(peer.port).or_default().add(way));
                }
            }
        }
        wanted
    }

    /// These members are to have legs towards the peer.
    fn hold_members(&mut self, port: PortId, members: &BTreeSet<PortId>) {
        if let Some(peer) = self.peers.get_mut(&port).filter(|peer| peer.carriers.ruled != *members) {
            peer.carriers.ruled.clone_from(members);
            self.fx.timers.set(Timer::Carry(port), self.fx.now);
        }
    }

    fn probe_ways(&mut self, port: PortId, wanted: &Wanted) {
        let Some(peer) = self.peers.get(&port).filter(|peer| peer.session.is_some()) else { return };
        let is_busy = peer.carriers.sent.is_some_and(|sent| self.fx.now.since(sent) < IDLE);
        if !is_busy && wanted.members.is_empty() {
            return;
        }
        let paths = self.open_ways(peer, wanted);
        let unused = paths.into_iter().filter(|path| Some(*path) != peer.paths.current()).collect::<Vec<_>>();
        self.with(port, |peer, fx| unused.into_iter().for_each(|path| peer.probe(fx, path)));
    }

    /// The ways that are wanted, whether or not they carry.
    fn open_ways(&self, peer: &Peer, wanted: &Wanted) -> Vec<Path> {
        let proven = peer.paths.candidates.to_probe(1).into_iter().map(Path::Direct);
        let mut paths: Vec<Path> = proven.filter(|_| wanted.direct).collect();
        let legs = wanted.members.iter().filter_map(|member| peer.carriers.leg(*member));
        paths.extend(legs.filter_map(|leg| peer.paths.relay_by(leg)));
        if wanted.supernode {
            paths.extend(self.supernode_ways(peer, peer.overlay));
        }
        paths
    }

    fn supernode_ways(&self, peer: &Peer, overlay: OverlayIndex) -> Vec<Path> {
        let legs = self.homes.iter().filter_map(|home| home.leg(overlay));
        legs.filter_map(|leg| peer.paths.relay_by(leg)).collect()
    }

    /// Those of the wanted that carry.
    fn ways(&self, port: PortId, wanted: &Wanted) -> Ways {
        let Some(peer) = self.peers.get(&port) else { return Ways::default() };
        let carries = |path: &Path| carries(peer, *path, self.fx.now);
        let by = |member: &PortId| {
            let path = peer.paths.relay_by(peer.carriers.leg(*member)?).filter(carries)?;
            Some((*member, path))
        };
        let by_supernode = self.supernode_ways(peer, peer.overlay).into_iter().filter(carries);
        Ways {
            direct: peer.paths.direct(self.fx.now).filter(|_| wanted.direct),
            supernode: by_supernode.filter(|_| wanted.supernode).min_by_key(|path| peer.paths.rtt(*path)),
            members: wanted.members.iter().filter_map(by).collect(),
        }
    }
}

fn carries(peer: &Peer, path: Path, now: Time) -> bool {
    match path {
        Path::Direct(_) => peer.paths.direct(now) == Some(path),
        Path::Relayed(leg, _) => peer.paths.relayed(leg) == Some(path),
    }
}
