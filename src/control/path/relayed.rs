//! One way through a relay: how long it takes, how much it loses, and when it failed.

use std::time::Duration;

use super::trip::Trip;
use crate::time::Time;
use crate::wire::relay::RelayId;

/// A relay that failed is not taken again before this, if there is another.
const RELAY_REST: Duration = Duration::from_secs(10);
/// What a relayed way that loses everything seems to take longer; one that loses a tenth, a tenth of it.
const LOSS_COST: Duration = Duration::from_millis(500);
/// A probe through a relay that was not answered when the next one goes out, this much later, is lost.
pub(super) const RELAY_LOST: Duration = Duration::from_secs(1);
/// Shares of loss: this many are all.
pub(super) const LOSS_ALL: u32 = 1024;
/// A way probed less often than this is not known yet.
pub(super) const KNOWN_AFTER: u32 = 2;

/// One way through a supernode or a member: both legs, there and back.
#[derive(Clone, Copy, Debug)]
pub(super) struct RelayWay {
    pub(super) relay: RelayId,
    pub(super) trip: Option<Trip>,
    /// Answers to probes.
    pub(super) answers: u32,
    /// The probe that waits for its answer.
    pub(super) asked: Option<Time>,
    /// Of [`LOSS_ALL`], of late.
    pub(super) loss: u32,
    pub(super) failed: Option<Time>,
}

impl RelayWay {
    pub(super) const fn new(relay: RelayId) -> Self {
        Self { relay, trip: None, answers: 0, asked: None, loss: 0, failed: None }
    }

    pub(super) fn on_probe(&mut self, now: Time) {
        match self.asked {
            Some(asked) if now.since(asked) < RELAY_LOST => return,
            Some(_) => self.loss += (LOSS_ALL - self.loss) / 8,
            None => {}
        }
        self.asked = Some(now);
    }

    pub(super) fn on_answer(&mut self, rtt: Duration) {
        self.trip = Some(self.trip.filter(|_| self.answers > 0).map_or(Trip::first(rtt), |trip| trip.and(rtt)));
        self.answers += 1;
        self.asked = None;
        self.loss -= self.loss.div_ceil(8);
        self.failed = None;
    }

    pub(super) fn rests(&self, now: Time) -> bool {
        self.failed.is_some_and(|at| now.since(at) < RELAY_REST)
    }

    /// What it takes, losses counted as time.
    pub(super) fn cost(&self) -> Duration {
        self.rtt().map_or(Duration::MAX, |rtt| rtt + LOSS_COST * self.loss / LOSS_ALL)
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.trip.map(|trip| trip.smooth)
    }
}
