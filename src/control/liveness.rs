//! Liveness: whether the path in use still carries, and whether the peer is there at all.
//!
//! While frames flow, the path is probed once a second and becomes suspect after half a second of
//! silence (three round trips if that is longer); three more probes, and it is dead. Without traffic a
//! keepalive each [`KEEPALIVE`] is all; a peer not heard on any path for [`GONE_AFTER`] is gone.
//!
//! A path may be dead in one direction, where frames still come in by it. So whoever suspects a direct path says so
//! by the relay, and whoever hears its peer by a relay suspects the direct path too: both leave it together. The
//! address that carried is tried each [`RETURN_EVERY`] from then on, so that the path is back soon after it heals.

use std::time::Duration;

use super::effects::Effects;
use super::path::Health;
use super::peer::{KEEPALIVE, Peer};
use super::timers::Timer;
use crate::datapath::{Activity, Command, Path};
use crate::wire::session::CandidateKind;

/// A peer not heard for this long is gone: three keepalives and their answers' patience.
const GONE_AFTER: Duration = Duration::from_secs(65);
/// While frames flow, the path in use is probed this often.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Frames flow as long as the last one is not older than this.
const ACTIVE_FOR: Duration = Duration::from_secs(2);
/// A direct path that died is tried again this often...
const RETURN_EVERY: Duration = Duration::from_secs(10);
/// ...for this long: a cut that lasted longer is found by punching.
const RETURN_FOR: Duration = Duration::from_secs(900);
/// The shortest wait between two looks.
const LOOK_MIN: Duration = Duration::from_millis(10);

impl Peer {
    /// Frames begin to flow.
    pub fn on_active(&mut self, fx: &mut Effects) {
        fx.timers.set_earlier(Timer::Liveness(self.port), fx.now + Duration::from_millis(500));
    }

    /// [`Timer::Keepalive`].
    pub fn on_keepalive_timer(&mut self, fx: &mut Effects) {
        if let Some(path) = self.paths.current() {
            self.probe(fx, path);
            let patience = Duration::from_millis(500).max(self.paths.current_rtt().unwrap_or_default() * 3);
            fx.timers.set_earlier(Timer::Liveness(self.port), fx.now + patience);
        }
        fx.commands.push_back(Command::Measure { port: self.port });
        let wait = fx.jittered(KEEPALIVE);
        fx.timers.set(Timer::Keepalive(self.port), fx.now + wait);
    }

    /// [`Timer::Liveness`].
    pub fn on_liveness_timer(&mut self, fx: &mut Effects) {
        self.liveness_due = true;
        fx.commands.push_back(Command::Measure { port: self.port });
    }

    /// What happened on the port.
    pub fn on_measured(&mut self, fx: &mut Effects, activity: &Activity) {
        self.heard = self.heard.max(activity.heard.unwrap_or_default());
        if self.session.is_some() && fx.now.since(self.heard) >= GONE_AFTER {
            return self.on_gone(fx, "not heard for 65 seconds");
        }
        if std::mem::take(&mut self.liveness_due) && self.session.is_some() {
            self.look(fx, activity);
        }
    }

    fn look(&mut self, fx: &mut Effects, activity: &Activity) {
        let is_active = activity.sent.is_some_and(|sent| fx.now.since(sent) < ACTIVE_FOR);
        let wait = match self.paths.health(fx.now, activity.unanswered_since) {
            Health::Good(wait) if is_active => {
                if let Some(path) = self.paths.current().filter(|_| fx.now.since(self.probed) >= PROBE_EVERY) {
                    self.probe(fx, path);
                }
                wait.min(PROBE_EVERY)
            }
            Health::Good(wait) if self.paths.is_waiting() => wait,
            Health::Good(_) => {
                fx.commands.push_back(Command::Watch { port: self.port });
                return;
            }
            Health::Probe(wait) => {
                let relay = self.paths.relays().next();
                for path in
                    self.paths.current().into_iter().chain(relay.filter(|_| self.is_direct() && !self.paths.is_hint()))
                {
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

    fn on_path_dead(&mut self, fx: &mut Effects) {
        let was_direct = self.paths.current().is_some_and(Path::is_direct);
        let before = self.paths.current();
        if let Some(change) = self.paths.on_dead(fx.now) {
            self.on_change(fx, change);
        } else if before != self.paths.current() {
            fx.commands.push_back(Command::UsePath { port: self.port, path: self.paths.current() });
        }
        match self.paths.current() {
            Some(path) => self.probe(fx, path),
            None => fx.timers.set_earlier(Timer::Handshake(self.port), fx.now),
        }
        if let (true, Some(Path::Direct(lost))) = (was_direct, before) {
            self.on_direct_lost(fx);
            self.lost = Some((lost, fx.now));
            let wait = fx.jittered(RETURN_EVERY);
            fx.timers.set(Timer::Return(self.port), fx.now + wait);
        }
    }

    /// [`Timer::Return`]: the direct path that died may carry again.
    pub fn on_return_timer(&mut self, fx: &mut Effects) {
        let Some((lost, since)) = self.lost else { return };
        if self.session.is_none() || self.is_direct() || fx.now.since(since) >= RETURN_FOR {
            self.lost = None;
            return;
        }
        self.paths.candidates.add(CandidateKind::PeerReflexive, lost);
        self.probe(fx, Path::Direct(lost));
        let wait = fx.jittered(RETURN_EVERY);
        fx.timers.set(Timer::Return(self.port), fx.now + wait);
    }

    /// The peer speaks by a relay: it may not hear us on the direct path that we use.
    pub fn on_heard_relayed(&mut self, fx: &mut Effects) {
        if let Some(path) = self.paths.current().filter(|path| path.is_direct())
            && let Some(wait) = self.paths.suspect(fx.now)
        {
            self.probe(fx, path);
            fx.timers.set_earlier(Timer::Liveness(self.port), fx.now + wait);
        }
    }

    /// Whether frames go straight to the peer.
    pub(super) fn is_direct(&self) -> bool {
        self.paths.current().is_some_and(Path::is_direct)
    }
}
