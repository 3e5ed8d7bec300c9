//! Our side of a control link: dialling a supernode, registering every overlay, hearing the roster.
//!
//! It knows the supernode's link; what the roster means for peers is decided in `control`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::rand_core::RngCore;

use super::effects::Effects;
use super::report::LinkState;
use super::standing::{Registration, Standing};
use super::timers::Timer;
use crate::datapath::buf::OverlayIndex;
use crate::datapath::{Command, LegId, LegTally};
use crate::keys::Fingerprint;
use crate::seam::stream::is_stream;
use crate::seam::{Event, LinkCommand, LinkId, SupernodeSettings};
use crate::time::Time;
use crate::wire::message::Message;
use crate::wire::relay::{LegKey, RelayId};

/// Waits between dials; the last one repeats.
const REDIAL: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(700),
    Duration::from_millis(1500),
    Duration::from_secs(3),
];
/// A supernode that ends or restarts loses all its nodes in the same instant: they come back within this time,
/// each at a moment of its own.
const SPREAD: Duration = Duration::from_secs(1);
/// A dial that has not come to an end by then is given up.
const DIAL_PATIENCE: Duration = Duration::from_secs(10);
/// A quiet link is asked this often...
const PING_IDLE: Duration = Duration::from_secs(5);
/// ...one that relays for us this often...
const PING_BUSY: Duration = Duration::from_secs(1);
/// ...and is dead when a ping was not answered for this long.
const PING_PATIENCE: Duration = Duration::from_secs(3);
/// Where something is wrong with other paths, a supernode is asked at once and must answer within three round trips,
/// or this time if that is longer: our address may have changed, of which QUIC at the other end wants to hear nothing.
const HURRY: Duration = Duration::from_millis(500);
/// Not again before this.
const HURRY_GAP: Duration = Duration::from_secs(2);
/// TCP is not asked for again before this.
const DETOUR_REST: Duration = Duration::from_secs(60);
/// Routes follow addresses after a moment.
const NEW_ADDRESS_REST: Duration = Duration::from_millis(50);
/// A refused registration is tried again after this time.
const REFUSED_REST: Duration = Duration::from_secs(60);

/// Who ended a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// The supernode, or whoever made the link break.
    Theirs,
    /// We, who heard nothing.
    Ours,
}

/// One supernode of ours.
#[derive(Debug)]
pub struct Home {
    /// Its place in the settings.
    pub place: usize,
    /// `host:port`.
    pub address: String,
    /// The key it must show.
    pub pin: Option<Fingerprint>,
    /// Of the link.
    pub state: LinkState,
    /// Round trip of the link.
    pub rtt: Option<Duration>,
    /// Its address, while the link stands.
    pub remote: Option<SocketAddr>,
    /// Where it was reached last, in this run or an earlier one.
    pub reached: Option<SocketAddr>,
    /// Whether another supernode told of it.
    pub is_learned: bool,
    /// Where it sees us.
    pub seen: Option<SocketAddr>,
    /// By overlay.
    pub registrations: BTreeMap<OverlayIndex, Registration>,
    /// Why it is not up, in words.
    pub trouble: Option<String>,
    exporter: [u8; 32],
    failures: usize,
    ping: Option<Ping>,
    hurried: Option<Time>,
    /// When TCP was asked for last.
    detoured: Option<Time>,
}

/// A PING on its way.
#[derive(Clone, Copy, Debug)]
struct Ping {
    nonce: u64,
    sent: Time,
    /// Without an answer by then, the link is dead.
    until: Time,
}

impl Home {
    /// Not dialled yet, and not asked to.
    pub fn new(place: usize, settings: &SupernodeSettings) -> Self {
        Self {
            place,
            address: settings.address.clone(),
            pin: settings.pin,
            state: LinkState::Spare,
            rtt: None,
            remote: None,
            reached: None,
            is_learned: false,
            seen: None,
            registrations: BTreeMap::new(),
            trouble: None,
            exporter: [0; 32],
            failures: 0,
            ping: None,
            hurried: None,
            detoured: None,
        }
    }

    const fn link(&self) -> LinkId {
        LinkId::Dialled(self.place)
    }

    /// Whether it is worth a place among those we register at: it answers, or may.
    pub fn is_promising(&self) -> bool {
        match self.state {
            LinkState::Up | LinkState::Spare => true,
            LinkState::Connecting => self.failures < 2,
            LinkState::Down => self.failures == 0 && self.registrations.is_empty(),
        }
    }

    /// It is needed: dialled from now on.
    pub fn engage(&mut self, fx: &mut Effects) {
        if self.state == LinkState::Spare {
            self.state = LinkState::Connecting;
            self.failures = 0;
            fx.timers.set(Timer::Link(self.place), fx.now);
        }
    }

    /// It is not needed any more. Gives what was registered there.
    pub fn release(&mut self, fx: &mut Effects) -> Vec<(OverlayIndex, Registration)> {
        if self.state == LinkState::Spare {
            return Vec::new();
        }
        for (_, leg) in self.legs() {
            fx.drop_leg(leg);
        }
        fx.links.push_back(LinkCommand::Close { link: self.link() });
        for timer in [Timer::Link, Timer::Ping] {
            fx.timers.cancel(timer(self.place));
        }
        let registrations = std::mem::take(&mut self.registrations);
        let settings = SupernodeSettings { address: self.address.clone(), pin: self.pin };
        let (reached, is_learned) = (self.reached, self.is_learned);
        *self = Self { reached, is_learned, ..Self::new(self.place, &settings) };
        registrations.into_iter().collect()
    }

    /// [`Timer::Link`]: dial, or give a dial up.
    pub fn on_link_timer(&mut self, fx: &mut Effects) {
        if self.state == LinkState::Connecting && self.failures > 0 {
            fx.links.push_back(LinkCommand::Close { link: self.link() });
        }
        self.state = LinkState::Connecting;
        self.failures += 1;
        let (link, address, pin, known) = (self.link(), self.address.clone(), self.pin, self.reached);
        fx.links.push_back(LinkCommand::Dial { link, address, pin, known });
        fx.timers.set(Timer::Link(self.place), fx.now + DIAL_PATIENCE);
    }

    /// The link stands. Gives the exporter that registrations sign.
    pub fn on_up(&mut self, fx: &mut Effects, remote: SocketAddr, exporter: [u8; 32], shown: Option<Fingerprint>) {
        self.remote = Some(remote);
        if !is_stream(remote) && self.reached.replace(remote) != Some(remote) {
            fx.timers.set_earlier(Timer::Remember, fx.now + Duration::from_secs(2));
        }
        self.exporter = exporter;
        self.ping = None;
        fx.timers.cancel(Timer::Link(self.place));
        fx.timers.set(Timer::Ping(self.place), fx.now);
        if let (None, Some(fingerprint)) = (self.pin, shown) {
            self.pin = Some(fingerprint);
            let supernode = self.address.clone();
            fx.events.push_back(Event::SupernodeTrusted { supernode, fingerprint });
            fx.timers.set_earlier(Timer::Remember, fx.now);
        }
    }

    /// What a registration's signature covers besides the overlay.
    pub const fn exporter(&self) -> &[u8; 32] {
        &self.exporter
    }

    /// The leg of `overlay` that a REGISTER goes on with.
    pub fn continued(&self, overlay: OverlayIndex) -> Option<RelayId> {
        let registration =
            self.registrations.get(&overlay).filter(|registration| registration.standing.leg().is_some());
        registration?.own.map(|(relay, _)| relay)
    }

    /// REGISTER for `overlay` goes out.
    pub fn register(&mut self, fx: &mut Effects, overlay: OverlayIndex, message: &Message) {
        let registration = self.registrations.entry(overlay).or_insert_with(|| Registration::new(Standing::Asked));
        match registration.standing.leg() {
            Some(leg) => registration.standing = Standing::Moving(leg),
            None => *registration = Registration::new(Standing::Asked),
        }
        fx.tell(self.link(), message);
    }

    /// WELCOME: we have a leg. One that went on by another transport is the same leg.
    pub fn on_welcome(&mut self, fx: &mut Effects, overlay: OverlayIndex, own: (RelayId, LegKey)) -> Option<LegId> {
        let supernode = self.remote?;
        let registration = self.registrations.get_mut(&overlay)?;
        let leg = match registration.standing {
            Standing::Moving(leg) if registration.own == Some(own) => {
                fx.commands.push_back(Command::MoveLeg { leg, relay: supernode });
                leg
            }
            Standing::Asked | Standing::Moving(_) => {
                if let Some(before) = registration.standing.leg() {
                    fx.drop_leg(before);
                }
                let leg = fx.new_leg(&self.address);
                fx.commands.push_back(Command::SetLeg { leg, relay: supernode, key: own.1 });
                *registration = Registration::new(Standing::Asked);
                leg
            }
            Standing::Registered(_) | Standing::Refused(_) => return None,
        };
        registration.own = Some(own);
        registration.standing = Standing::Registered(leg);
        self.state = LinkState::Up;
        self.trouble = None;
        self.failures = 0;
        Some(leg)
    }

    /// The leg of `overlay`, if there is one.
    pub fn leg(&self, overlay: OverlayIndex) -> Option<LegId> {
        self.registrations.get(&overlay)?.standing.leg()
    }

    /// Whether it is reached by TCP.
    pub fn is_on_stream(&self) -> bool {
        self.remote.is_some_and(is_stream)
    }

    /// All legs at this supernode.
    pub fn legs(&self) -> Vec<(OverlayIndex, LegId)> {
        self.registrations.keys().filter_map(|overlay| Some((*overlay, self.leg(*overlay)?))).collect()
    }

    /// REFUSED: the reason was told; later we ask again.
    pub fn on_refused(&mut self, fx: &mut Effects, overlay: OverlayIndex, reason: &str) {
        self.trouble = Some(reason.to_owned());
        if let Some(leg) = self.leg(overlay) {
            fx.drop_leg(leg);
        }
        if let Some(registration) = self.registrations.get_mut(&overlay) {
            registration.standing = Standing::Refused(fx.now);
        }
        if self.legs().is_empty() {
            self.state = LinkState::Down;
        }
    }

    /// Overlays for which no answer has come.
    pub fn asked(&self) -> Vec<OverlayIndex> {
        let asked = self.registrations.iter().filter(|(_, registration)| registration.standing == Standing::Asked);
        asked.map(|(overlay, _)| *overlay).collect()
    }

    /// Overlays whose refusal is old enough to ask again.
    pub fn to_retry(&self, now: Time) -> Vec<OverlayIndex> {
        let rested = |standing| matches!(standing, Standing::Refused(at) if now.since(at) >= REFUSED_REST);
        self.registrations.iter().filter(|(_, r)| rested(r.standing)).map(|(overlay, _)| *overlay).collect()
    }

    /// PONG. `true` if we are seen somewhere else than before.
    pub fn on_pong(&mut self, fx: &Effects, nonce: u64, seen: SocketAddr) -> bool {
        let Some(ping) = self.ping.take_if(|ping| ping.nonce == nonce) else { return false };
        self.rtt = Some(fx.now.since(ping.sent));
        self.on_seen(seen)
    }

    /// Where the supernode sees us. `true` if that is news.
    pub fn on_seen(&mut self, seen: SocketAddr) -> bool {
        self.seen.replace(seen) != Some(seen)
    }

    /// [`Timer::Ping`]. `true` if the supernode is dead.
    pub fn on_ping_timer(&mut self, fx: &mut Effects, is_busy: bool) -> bool {
        if self.ping.is_some_and(|ping| fx.now >= ping.until) {
            fx.links.push_back(LinkCommand::Close { link: self.link() });
            return true;
        }
        let until = match self.ping {
            Some(ping) => ping.until,
            None => self.send_ping(fx, PING_PATIENCE),
        };
        if is_busy && !self.is_on_stream() {
            fx.commands.extend(self.legs().into_iter().map(|(_, leg)| Command::MeasureLeg { leg }));
        }
        let wait = if is_busy || self.rtt.is_none() { PING_BUSY } else { PING_IDLE };
        fx.timers.set(Timer::Ping(self.place), until.min(fx.now + wait));
        false
    }

    /// What came by a leg, if it is one of ours. Where UDP is throttled, the link is to take TCP.
    pub fn on_tally(&mut self, fx: &mut Effects, leg: LegId, tally: LegTally) {
        let registration =
            self.registrations.values_mut().find(|registration| registration.standing.leg() == Some(leg));
        let Some(registration) = registration else { return };
        let rested = self.detoured.is_none_or(|at| fx.now.since(at) >= DETOUR_REST);
        if registration.throttle.look(fx.now, tally) && rested && !self.is_on_stream() {
            self.detoured = Some(fx.now);
            fx.events.push_back(Event::Throttled { supernode: self.address.clone() });
            fx.links.push_back(LinkCommand::Detour { link: self.link() });
        }
    }

    fn send_ping(&mut self, fx: &mut Effects, patience: Duration) -> Time {
        let (nonce, until) = (fx.rng.next_u64(), fx.now + patience);
        self.ping = Some(Ping { nonce, sent: fx.now, until });
        fx.tell(self.link(), &Message::Ping { nonce });
        until
    }

    /// Something tells that this link may be dead: it has to show that it is not, soon.
    pub fn hurry(&mut self, fx: &mut Effects) {
        let rested = self.hurried.is_none_or(|at| fx.now.since(at) >= HURRY_GAP);
        if self.state == LinkState::Up && rested {
            self.hurried = Some(fx.now);
            // TCP repeats what was lost, in its own time.
            let soon = if self.is_on_stream() { PING_PATIENCE } else { HURRY };
            let patience = soon.max(self.rtt.unwrap_or_default() * 3).min(PING_PATIENCE);
            let until = self.send_ping(fx, patience);
            fx.timers.set_earlier(Timer::Ping(self.place), until);
        }
    }

    /// This host has other addresses: a link that stands must show that it still does, a dial begins anew.
    pub fn on_new_addresses(&mut self, fx: &mut Effects) {
        match self.state {
            LinkState::Up => {
                self.hurried = None;
                self.hurry(fx);
            }
            LinkState::Connecting | LinkState::Down if self.remote.is_none() => {
                self.failures = self.failures.min(1);
                fx.timers.set(Timer::Link(self.place), fx.now + NEW_ADDRESS_REST);
            }
            LinkState::Connecting | LinkState::Down | LinkState::Spare => {}
        }
    }

    /// It relays for us now: look more often.
    pub fn on_busy(&self, fx: &mut Effects) {
        if self.state == LinkState::Up {
            fx.timers.set_earlier(Timer::Ping(self.place), fx.now + PING_BUSY);
        }
    }

    /// A dial takes a while: the first time it is told why.
    pub fn on_waiting(&mut self, fx: &mut Effects, reason: String) {
        if self.failures == 1 {
            fx.events.push_back(Event::SupernodeLost { supernode: self.address.clone(), reason: reason.clone() });
        }
        self.trouble = Some(reason);
    }

    /// The link is gone, ended by the other side or, after silence, by us. Gives what was registered; a new dial
    /// follows.
    pub fn on_down(&mut self, fx: &mut Effects, reason: String, end: LinkEnd) -> Vec<(OverlayIndex, Registration)> {
        let stood = self.remote.is_some();
        if self.state == LinkState::Up || self.failures == 1 {
            fx.events.push_back(Event::SupernodeLost { supernode: self.address.clone(), reason: reason.clone() });
        }
        self.trouble = Some(reason);
        for (_, leg) in self.legs() {
            fx.drop_leg(leg);
        }
        self.state = LinkState::Down;
        self.remote = None;
        self.rtt = None;
        self.ping = None;
        fx.timers.cancel(Timer::Ping(self.place));
        let is_refused = |registration: &Registration| matches!(registration.standing, Standing::Refused(_));
        let rest = match end {
            // It closes links that have nothing to do there.
            _ if !self.registrations.is_empty() && self.registrations.values().all(is_refused) => {
                fx.jittered(REFUSED_REST)
            }
            LinkEnd::Theirs if stood => fx.within(SPREAD),
            LinkEnd::Theirs | LinkEnd::Ours => fx.jittered(REDIAL[self.failures.min(REDIAL.len() - 1)]),
        };
        fx.timers.set(Timer::Link(self.place), fx.now + rest);
        std::mem::take(&mut self.registrations).into_iter().collect()
    }
}
