//! What static rules make of one frame, for people who ask where it goes. The corridor decides in the same order.

use crate::control::Control;
use crate::datapath::buf::OverlayIndex;
use crate::datapath::fdb::{Address, PortId, TAP};
use crate::datapath::{Action, Path, Rule, RuleWay, rank};

/// What the best rules that fit make of it.
#[derive(Debug, Default)]
pub(in crate::control) struct Ruled {
    /// Their numbers.
    pub(in crate::control) by: Vec<u32>,
    /// It ends here.
    pub(in crate::control) is_dropped: bool,
    /// Nobody knows where its receiver is: every member gets it.
    pub(in crate::control) is_flooded: bool,
    /// The peers that get it, and by which way, where there is one.
    pub(in crate::control) to: Vec<(PortId, Option<Path>)>,
}

impl Control {
    /// What becomes of a frame out of our TAP whose receiver was learned behind `known`; nothing if no rule is about it.
    pub(in crate::control) fn ruled(
        &self,
        overlay: OverlayIndex,
        [from, to]: [Address; 2],
        known: Option<PortId>,
    ) -> Option<Ruled> {
        let rules = self.rules.in_force.get(&overlay)?;
        let fitting = rules.iter().filter(|rule| rule.src.fits(from.mac) && rule.dst.fits(to.mac));
        let fitting = fitting.map(|rule| (rank(rule.prio, rule.src, rule.dst), rule)).collect::<Vec<_>>();
        let best = fitting.iter().map(|(rank, _)| *rank).max()?;
        let mut ruled = Ruled::default();
        for (_, Rule { id, action, .. }) in fitting.into_iter().filter(|(rank, _)| *rank == best) {
            ruled.by.push(*id);
            match (*action, known) {
                (Action::Drop, _) => ruled.is_dropped = true,
                (Action::Here, _) | (Action::Learned(_), Some(TAP)) => {}
                (Action::To(port, way), _) | (Action::Learned(way), Some(port)) => {
                    ruled.to.push((port, self.ruled_way(port, way)));
                }
                (Action::Learned(_), None) => ruled.is_flooded = true,
            }
        }
        Some(ruled)
    }

    /// The way that a rule wants, as long as it carries; else the usual one.
    fn ruled_way(&self, port: PortId, way: RuleWay) -> Option<Path> {
        let wanted = self.rules.ways.get(&port).and_then(|ways| ways.by(way));
        wanted.or_else(|| self.peers.get(&port)?.paths.current())
    }
}
