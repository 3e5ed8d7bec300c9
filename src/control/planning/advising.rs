//! Which machine should move, as far as hosts tell: asked for, or told to its host when a bottleneck stays.

use std::collections::BTreeMap;
use std::time::Duration;

use super::sight::short;
use super::{Planned, Planning};
use crate::control::effects::Effects;
use crate::control::sight::{MoveAdvice, percent};
use crate::control::topology::planner::advising::Advice;
use crate::keys::{NodeId, OverlayId};
use crate::seam::LinkId;
use crate::time::Time;
use crate::wire::advice::Advice as Told;
use crate::wire::message::Message;

/// Other ways are tried first; what they help needs no move.
const ADVISE_AFTER: Duration = Duration::from_secs(30);
/// The same is not told again before this.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

impl Planned {
    fn advise(&mut self, now: Time) -> Option<Advice> {
        let load = |node: &NodeId| self.heard.get(node).and_then(|heard| heard.load);
        let hosts: BTreeMap<NodeId, Option<u8>> = self.by_node.keys().map(|node| (*node, load(node))).collect();
        self.planner.advise(now, &hosts)
    }

    fn report(&self, overlay: OverlayId, advice: &Advice, here: &str) -> MoveAdvice {
        MoveAdvice {
            overlay: overlay.to_string(),
            seen_by: here.to_owned(),
            by: "plan".into(),
            machine: None,
            host: short(advice.host),
            partner: short(advice.partner),
            target: short(advice.target),
            bottleneck: Some(self.describe(advice.bottleneck)),
            gain_percent: percent(advice.gain),
        }
    }
}

impl Planning {
    /// The move that promises most in an overlay, if one is worth it.
    pub(in crate::control) fn advise(&mut self, now: Time, overlay: OverlayId, here: &str) -> Option<MoveAdvice> {
        let planned = self.overlays.get_mut(&overlay)?;
        let advice = planned.advise(now)?;
        Some(planned.report(overlay, &advice, here))
    }

    /// Tells the host of a machine that should move, now and then, while a bottleneck stays.
    pub(super) fn tell_advice(&mut self, fx: &mut Effects, overlay: OverlayId) {
        let Some(planned) = self.overlays.get_mut(&overlay) else { return };
        if !planned.planner.holds_back() {
            planned.advise_at = None;
            return;
        }
        if fx.now < *planned.advise_at.get_or_insert(fx.now + ADVISE_AFTER) {
            return;
        }
        planned.advise_at = Some(fx.now + ADVISE_AFTER);
        let Some(advice) = planned.advise(fx.now) else { return };
        let what = (advice.host, advice.target);
        if planned.advised.is_some_and(|(told, at)| told == what && fx.now.since(at) < AGAIN_AFTER) {
            return;
        }
        let place = |node: NodeId| planned.place(node).copied();
        let places = (place(advice.host), place(advice.partner), place(advice.target));
        let (Some(host), Some(partner), Some(target)) = places else { return };
        planned.advised = Some((what, fx.now));
        let gain = (advice.gain * 1000.0).round() as u32;
        let told = Told { partner: partner.relay, target: target.relay, gain };
        fx.tell(LinkId::Accepted(host.link), &Message::Advice { overlay, advice: told });
        fx.events.push_back(planned.report(overlay, &advice, "here").event());
    }
}
