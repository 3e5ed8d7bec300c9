//! What a supernode tells its members of each other, gathered: one push per overlay for all that changed meanwhile.
//!
//! Whoever registers gets the whole roster at once. The others hear of it at once too if nothing was pushed of
//! late, else with the next push: a thousand nodes that join in one second cost each other twenty messages a second,
//! not a thousand. Nobody hears again what its roster said.

use std::time::Duration;

use bytes::Bytes;

use super::{OtherSupernode, Registered, Supernode, SupernodeSettings};
use crate::control::effects::Effects;
use crate::control::timers::Timer;
use crate::keys::OverlayId;
use crate::seam::LinkId;
use crate::wire::message::{GONE_MAX, Message, ROSTER_MAX, SUPERNODES_MAX, roster};
use crate::wire::relay::RelayId;

/// Between two pushes, at least...
const PUSH_GAP: Duration = Duration::from_millis(50);
/// ...more after one of many messages, which cost about 100 us each with what answers them: pushes take a tenth of a
/// core...
const PUSH_REST: Duration = Duration::from_millis(1);
/// ...and at most this long. Whoever is new has the whole roster and can begin with everybody meanwhile.
const PUSH_GAP_MAX: Duration = Duration::from_secs(1);

impl Supernode {
    /// Once to each link: where its node may register too.
    pub(super) fn tell_of_others(&mut self, fx: &mut Effects, id: u64) {
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.is_told) else { return };
        link.is_told = true;
        let other =
            |peer: &SupernodeSettings| Some(OtherSupernode { address: peer.address.clone(), fingerprint: peer.pin? });
        let list = self.settings.peers.iter().filter_map(other).take(SUPERNODES_MAX).collect::<Vec<_>>();
        if !list.is_empty() {
            fx.tell(LinkId::Accepted(id), &Message::Supernodes { list });
        }
    }

    /// Everybody else, to a new member.
    pub(super) fn tell_roster(&self, fx: &mut Effects, overlay: OverlayId, to: RelayId, link: u64) {
        let Some(served) = self.overlays.get(&overlay) else { return };
        let others = served.members.iter().filter(|(relay, _)| **relay != to).map(|(_, member)| &member.told);
        let others = others.collect::<Vec<_>>();
        let mut reset = true;
        for members in others.chunks(ROSTER_MAX) {
            let message = roster(overlay, reset, members.iter().copied());
            fx.tell_bytes(LinkId::Accepted(link), message.into());
            reset = false;
        }
    }

    /// A new or changed member: everybody else is to hear of it.
    pub(super) fn announce(&mut self, fx: &mut Effects, overlay: OverlayId, relay: RelayId) {
        let Some(served) = self.overlays.get_mut(&overlay) else { return };
        let Some(member) = served.members.get_mut(&relay) else { return };
        served.changes += 1;
        served.changed.remove(&std::mem::replace(&mut member.change, served.changes));
        served.changed.insert(served.changes, relay);
        self.push_soon(fx, overlay);
    }

    /// A member is gone: everybody else is to hear of it.
    pub(super) fn announce_gone(&mut self, fx: &mut Effects, overlay: OverlayId, relay: RelayId) {
        if let Some(served) = self.overlays.get_mut(&overlay) {
            served.gone.push(relay);
            self.push_soon(fx, overlay);
        }
    }

    fn push_soon(&mut self, fx: &mut Effects, overlay: OverlayId) {
        self.to_push.insert(overlay);
        fx.timers.set_earlier(Timer::Push, self.next_push.max(fx.now));
    }

    /// [`Timer::Push`]: every overlay in which something changed hears of it.
    pub fn on_push_timer(&mut self, fx: &mut Effects) {
        let before = fx.links.len();
        for overlay in std::mem::take(&mut self.to_push) {
            self.push(fx, overlay);
        }
        let messages = u32::try_from(fx.links.len() - before).unwrap_or(u32::MAX);
        let rest = PUSH_REST.saturating_mul(messages);
        self.next_push = fx.now + rest.clamp(PUSH_GAP, PUSH_GAP_MAX);
    }

    fn push(&mut self, fx: &mut Effects, overlay: OverlayId) {
        let Some(served) = self.overlays.get_mut(&overlay) else { return };
        let (changed, gone) = (std::mem::take(&mut served.changed), std::mem::take(&mut served.gone));
        let told = |(change, relay)| Some((change, &served.members.get(&relay)?.told));
        let told = changed.into_iter().filter_map(told).collect::<Vec<_>>();
        for relays in gone.chunks(GONE_MAX) {
            let message = Bytes::from(Message::Gone { overlay, relays: relays.to_vec() }.bytes());
            for member in served.members.values() {
                fx.tell_bytes(LinkId::Accepted(member.link), message.clone());
            }
        }
        // Members skip what they hear of themselves; but nothing else is no message.
        let alone = if let [(_, only)] = &told[..] { Some(only.relay) } else { None };
        for part in told.chunks(ROSTER_MAX) {
            let newest = part.last().map_or(0, |(change, _)| *change);
            let message = Bytes::from(roster(overlay, false, part.iter().map(|(_, member)| *member)));
            let is_news = |relay, member: &Registered| member.knows < newest && alone != Some(relay);
            for (_, member) in served.members.iter().filter(|(relay, member)| is_news(**relay, member)) {
                fx.tell_bytes(LinkId::Accepted(member.link), message.clone());
            }
        }
    }
}
