//! Liveness: whether the path in use still carries, and whether the peer is there at all.
//!
//! While frames flow, the path is probed once a second and becomes suspect after half a second of
//! silence (three round trips if that is longer); three more probes, and it is dead: more of them where many were lost
//! before, or nothing is sent. Without traffic a keepalive each [`KEEPALIVE`] is all; a peer not heard on any path for
//! [`GONE_AFTER`] is gone.
//!
//! A path may be dead in one direction, where frames still come in by it. So whoever suspects a direct path says so
//! by the relay, and whoever hears its peer by another path doubts the one in use: both leave it together,
//! and `punch` seeks it again.

use std::time::Duration;

use super::carriers::Via;
use super::effects::Effects;
use super::path::Health;
use super::peer::{KEEPALIVE, Peer};
use super::timers::Timer;
use super::topology::planner::BULK;
use crate::datapath::{Activity, Command, Path};
use crate::time::Time;

/// A peer not heard for this long is gone: three keepalives and their answers' patience.
const GONE_AFTER: Duration = Duration::from_secs(65);
/// While frames flow, the path in use is probed this often, unless that is too much of what flows.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(1);
/// What a probe and an answer cost each way, with their headers, and what a word of the packets that came.
const PROBE_COST: f64 = 174.0;
const WORD_COST: f64 = 63.0;
/// Each may be this share of what flows, both less than a thousandth...
const PROBE_SHARE: f64 = 0.0003;
const WORD_SHARE: f64 = 0.000_45;
/// ...or so many bytes per second for all peers together with whom less flows: one alone is probed each second.
const PURSE: f64 = 180.0;
/// The planner needs a round trip this often of those with whom much flows.
const PROBE_BULK: Duration = Duration::from_millis(3_500);
/// A keepalive comes in this time anyway.
const PROBE_RARELY: Duration = KEEPALIVE.saturating_add(Duration::from_secs(4));
/// Frames flow as long as the last one is not older than this.
const ACTIVE_FOR: Duration = Duration::from_secs(2);
/// A supernode that does not carry is measured this often while frames flow through another one...
const MEASURE_BUSY: Duration = Duration::from_secs(5);
/// ...and without frames.
const MEASURE_IDLE: Duration = Duration::from_secs(60);
/// A direct way that is only kept is probed this often: who is sent by it as it was ordered counts on it for
/// four seconds after an answer, who has another look at it for thirty.
const KEEP_STRAIGHT: Duration = Duration::from_secs(3);
/// The shortest wait between two looks.
const LOOK_MIN: Duration = Duration::from_millis(10);

impl Peer {
    /// So many bytes per second go out and come in, and frames flow with so many peers in all: what is asked and told
    /// beside them must not cost more than it is worth.
    pub(super) fn on_rate(&mut self, (sent, heard): (f64, f64), busy: usize) {
        let each = PURSE / busy.max(1) as f64;
        let pays = |cost: f64, paid: f64| Duration::from_secs_f64(cost / paid.max(each));
        let rarely = if sent >= BULK { PROBE_BULK } else { PROBE_RARELY };
        self.probe_every = pays(PROBE_COST, PROBE_SHARE * sent.max(heard)).clamp(PROBE_EVERY, rarely);
        self.tell_every = pays(WORD_COST, WORD_SHARE * heard);
        self.mtu.confirm_each(pays(WORD_COST, WORD_SHARE * sent));
    }

    /// Frames begin to flow.
    pub fn on_active(&mut self, fx: &mut Effects) {
        if self.is_asleep() {
            return;
        }
        fx.timers.set_earlier(Timer::Liveness(self.port), fx.now + Duration::from_millis(500));
    }

    /// [`Timer::Keepalive`].
    pub fn on_keepalive_timer(&mut self, fx: &mut Effects) {
        // While frames flow, they keep mappings open, and the path was asked for their sake.
        let is_asked = self.carriers.sent.is_some_and(|sent| fx.now.since(sent) < ACTIVE_FOR)
            && fx.now.since(self.probed) < KEEPALIVE;
        if let Some(path) = self.paths.current().filter(|_| !is_asked) {
            self.probe(fx, path);
            let patience = Duration::from_millis(500).max(self.paths.current_rtt().unwrap_or_default() * 3);
            fx.timers.set_earlier(Timer::Liveness(self.port), fx.now + patience);
            self.measure_relay(fx, path, MEASURE_IDLE);
        }
        fx.commands.push_back(Command::Measure { port: self.port });
        let wait = fx.jittered(KEEPALIVE);
        fx.timers.set(Timer::Keepalive(self.port), fx.now + wait);
    }

    /// The peer was heard by another path than the one in use: that is asked whether it still carries.
    pub fn on_heard(&mut self, fx: &mut Effects, path: Path) {
        self.check(fx, path);
        let is_worse = path.is_direct() && self.paths.current().is_some_and(|current| !current.is_direct());
        if self.paths.current() != Some(path) && !is_worse {
            self.doubt(fx);
        }
    }

    /// The path in use is asked whether it still carries, and left soon if it does not.
    pub(super) fn doubt(&mut self, fx: &mut Effects) {
        if self.is_asleep() {
            return;
        }
        if let (Some(current), Some(patience)) = (self.paths.current(), self.paths.doubt(fx.now)) {
            self.probe(fx, current);
            fx.timers.set_earlier(Timer::Liveness(self.port), fx.now + patience);
        }
    }

    /// While a supernode carries, probes one of the others now and then: the best one should carry.
    fn measure_relay(&mut self, fx: &mut Effects, current: Path, every: Duration) {
        if !current.is_direct() && fx.now.since(self.measured) >= every {
            self.probe_relay(fx);
        }
    }

    /// Probes one of the supernodes that do not carry now.
    pub(super) fn probe_relay(&mut self, fx: &mut Effects) {
        if let Some(path) = self.paths.relay_to_measure().filter(|_| self.session.is_some() && !self.is_asleep()) {
            self.measured = fx.now;
            self.probe(fx, path);
        }
    }

    /// [`Timer::Liveness`].
    pub fn on_liveness_timer(&mut self, fx: &mut Effects) {
        self.liveness_due = true;
        fx.commands.push_back(Command::Measure { port: self.port });
    }

    /// What happened on the port.
    pub fn on_measured(&mut self, fx: &mut Effects, activity: &Activity) {
        self.heard = self.heard.max(activity.heard.unwrap_or_default());
        self.used = self.used.max(activity.used);
        if self.is_asleep() {
            return;
        }
        if self.session.is_some() && fx.now.since(self.heard) >= GONE_AFTER {
            return self.on_gone(fx, "not heard for 65 seconds");
        }
        self.carriers.sent = self.carriers.sent.max(activity.sent);
        self.mtu.on_sent(activity.longest_sent);
        self.watch_mtu(fx, activity.large);
        self.tell_received(fx, activity.longest_heard);
        if std::mem::take(&mut self.liveness_due) && self.session.is_some() {
            self.look(fx, activity);
        }
    }

    fn look(&mut self, fx: &mut Effects, activity: &Activity) {
        let is_active = activity.sent.is_some_and(|sent| fx.now.since(sent) < ACTIVE_FOR);
        if is_active {
            self.want_carriers(fx);
        }
        let wait = match self.paths.health(fx.now, activity.unanswered_since, is_active) {
            Health::Good(wait) if is_active => {
                if let Some(path) = self.paths.current().filter(|_| fx.now.since(self.probed) >= self.probe_every) {
                    self.probe(fx, path);
                    self.measure_relay(fx, path, MEASURE_BUSY);
                }
                self.keep_straight(fx);
                wait.min(PROBE_EVERY)
            }
            Health::Good(wait) if self.paths.is_waiting() => wait,
            Health::Good(_) => {
                fx.commands.push_back(Command::Watch { port: self.port });
                return;
            }
            Health::Probe(wait) => {
                fx.is_uneasy = true;
                let relay = self.paths.relays().next().filter(|_| self.is_direct());
                for path in self.paths.current().into_iter().chain(relay) {
                    self.probe(fx, path);
                }
                wait
            }
            Health::Dead => {
                self.on_path_dead(fx);
                LOOK_MIN
            }
        };
        fx.timers.set(Timer::Liveness(self.port), fx.now + wait.max(LOOK_MIN));
    }

    /// Nothing comes back on the path in use: another one, or a new search.
    pub(super) fn on_path_dead(&mut self, fx: &mut Effects) {
        let was_direct = self.paths.current().is_some_and(Path::is_direct);
        let before = self.paths.current();
        if let Some(change) = self.paths.on_dead(fx.now) {
            self.on_change(fx, change);
        } else if before != self.paths.current() {
            self.use_path(fx);
        }
        match self.paths.current() {
            Some(path) => {
                self.probe(fx, path);
                // The one that was ordered is taken again as soon as it answers.
                if matches!(self.carriers.via, Via::Member(_)) {
                    fx.timers.set_earlier(Timer::Carry(self.port), fx.now + PROBE_EVERY);
                }
            }
            None => {
                fx.timers.set_earlier(Timer::Handshake(self.port), fx.now);
                fx.timers.set(Timer::Carry(self.port), fx.now);
            }
        }
        if let Some(Path::Relayed(leg, _)) = before.filter(|before| self.paths.current() != Some(*before)) {
            self.on_carrier_dead(fx, leg);
        }
        if was_direct {
            self.on_direct_lost(fx);
        }
    }

    /// While a relay is preferred, by order or since it is nearer, the direct way is kept: what others send to the peer
    /// by us goes there.
    fn keep_straight(&mut self, fx: &mut Effects) {
        let is_passed_over = self.paths.preferred().is_some() && !self.is_direct();
        let is_due = fx.now.since(self.kept) >= KEEP_STRAIGHT;
        if let Some((path, _)) = self.paths.known_direct().filter(|_| is_passed_over && is_due) {
            self.kept = fx.now;
            self.probe(fx, path);
        }
    }

    /// The direct way, in use or not, if it carried of late. What is sent on it, or by whoever is behind it, is watched
    /// from end to end; its probes get lost in full queues.
    pub(super) fn straight(&self, now: Time) -> Option<Path> {
        self.paths.current().filter(|path| path.is_direct()).or_else(|| self.paths.proven_direct(now))
    }

    /// Whether frames go straight to the peer.
    pub(super) fn is_direct(&self) -> bool {
        self.paths.current().is_some_and(Path::is_direct)
    }
}
