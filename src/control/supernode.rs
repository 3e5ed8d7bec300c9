//! The supernode's side of control links: who is a member of what, and where.
//!
//! It verifies members by the overlay id alone, tells members of each other, hands out relay legs,
//! and keeps nothing that would let it read or join (DESIGN: "introduces, reflects, relays, reads nothing").

mod moving;
mod push;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand_chacha::rand_core::RngCore;

use super::effects::Effects;
use super::planning::{Place, Planning};
use super::report::{ServedOverlay, Serving};
use super::sight::{MoveAdvice, Topology, Traffic};
use super::timers::Timer;
use crate::datapath::Command;
use crate::datapath::limit::Bucket;
use crate::keys::{NodeId, OverlayId, verify};
use crate::seam::stream::public;
use crate::seam::{Event, LinkCommand, LinkId, ServeSettings, SupernodeSettings};
use crate::time::Time;
use crate::wire::DecodeError;
use crate::wire::certificate::Certificate;
use crate::wire::message::{Member, Message, OtherSupernode, Refusal, registration};
use crate::wire::plan::Report;
use crate::wire::relay::{LegKey, RelayId};
use crate::wire::version::Version;

/// Most members of one overlay.
pub const MEMBERS_MAX: usize = 4096;
/// Most overlays.
pub const OVERLAYS_MAX: usize = 4096;
/// Most registrations, of all overlays together: each takes 1 KB here and in the corridor.
const REGISTRATIONS_MAX: usize = 128 * 1024;
/// Most registrations from one address: a big site behind one NAT.
pub const PER_ADDRESS_MAX: usize = 1024;
/// Messages a link may send per second: a ping each, and news now and then. Each may go to every member.
const LINK_RATE: u32 = 10;
/// And at once: every overlay registers at the start.
const LINK_BURST: u32 = 200;
/// A link that has not registered by then is closed: a node does at once.
const REGISTER_PATIENCE: Duration = Duration::from_secs(10);
/// Where a certificate names its overlay (protocol.md section 3).
const CERTIFICATE_OVERLAY: std::ops::Range<usize> = 4..36;
/// Most overlays of one link.
const PER_LINK_MAX: usize = 64;

/// A control link that some node dialled.
#[derive(Debug)]
struct ServedLink {
    remote: SocketAddr,
    /// Where it comes from: `remote`, or the TCP address.
    origin: SocketAddr,
    exporter: [u8; 32],
    registered: BTreeMap<OverlayId, RelayId>,
    limit: Bucket,
    /// Whether it has registered, and was told of other supernodes then.
    is_told: bool,
}

/// What a node tells of itself in its registration.
#[derive(Debug)]
struct Told {
    directory: Vec<u8>,
    version: Version,
    continues: Option<RelayId>,
}

#[derive(Debug)]
struct Registered {
    node: NodeId,
    signing_key: [u8; 32],
    link: u64,
    /// The address its registration was counted for.
    counted: IpAddr,
    key: LegKey,
    told: Member,
    /// The last of the overlay's changes that it knows, from its first roster.
    knows: u64,
    /// The last change that is about it.
    change: u64,
}

/// The members of one overlay.
#[derive(Debug, Default)]
struct Served {
    members: BTreeMap<RelayId, Registered>,
    by_node: BTreeMap<NodeId, RelayId>,
    /// Changes so far.
    changes: u64,
    /// Those that the others are to hear of, and the members they are about.
    changed: BTreeMap<u64, RelayId>,
    /// Members that are gone, of which the others are to hear.
    gone: Vec<RelayId>,
}

impl Registered {
    fn place(&self, relay: RelayId) -> Place {
        Place { node: self.node, relay, link: self.link, seen: self.told.seen.ip() }
    }
}

impl Served {
    /// Its members, for whoever plans.
    fn places(&self) -> Vec<Place> {
        self.members.iter().map(|(relay, member)| member.place(*relay)).collect()
    }
}

/// What a supernode knows. All of it is told again by the members after a restart.
#[derive(Debug, Default)]
pub struct Supernode {
    settings: ServeSettings,
    links: BTreeMap<u64, ServedLink>,
    overlays: BTreeMap<OverlayId, Served>,
    overlay_of: BTreeMap<RelayId, OverlayId>,
    per_address: BTreeMap<IpAddr, usize>,
    /// Links that have not registered yet, and by when they must.
    newcomers: VecDeque<(Time, u64)>,
    /// Overlays in which something is to be told.
    to_push: BTreeSet<OverlayId>,
    /// Not before this.
    next_push: Time,
    planning: Planning,
}

impl Supernode {
    /// With nobody registered.
    pub fn new(settings: ServeSettings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// A node dialled us.
    pub fn on_up(
        &mut self,
        fx: &mut Effects,
        link: u64,
        (remote, origin): (SocketAddr, SocketAddr),
        exporter: [u8; 32],
    ) {
        self.newcomers.push_back((fx.now + REGISTER_PATIENCE, link));
        fx.timers.set_earlier(Timer::Newcomers, fx.now + REGISTER_PATIENCE);
        let limit = Bucket::new(LINK_RATE, LINK_BURST);
        let registered = BTreeMap::new();
        self.links.insert(link, ServedLink { remote, origin, exporter, registered, limit, is_told: false });
    }

    /// A node is gone.
    pub fn on_down(&mut self, fx: &mut Effects, link: u64, reason: &str) {
        let Some(link) = self.links.remove(&link) else { return };
        if link.registered.is_empty() {
            fx.events.push_back(Event::LinkEnded { from: link.origin, reason: reason.to_owned() });
        }
        for (overlay, relay) in link.registered {
            self.remove(fx, (overlay, relay), reason);
        }
    }

    /// We end a link.
    fn close(&mut self, fx: &mut Effects, link: u64, reason: &str) {
        fx.links.push_back(LinkCommand::Close { link: LinkId::Accepted(link) });
        self.on_down(fx, link, reason);
    }

    /// [`Timer::Newcomers`]: whoever is connected and has not registered by now takes the place of others.
    pub fn on_newcomers_timer(&mut self, fx: &mut Effects) {
        while let Some((_, link)) = self.newcomers.front().copied().filter(|(until, _)| *until <= fx.now) {
            self.newcomers.pop_front();
            if self.links.get(&link).is_some_and(|link| !link.is_told) {
                self.close(fx, link, "it has not registered in time");
            }
        }
        if let Some((until, _)) = self.newcomers.front() {
            fx.timers.set(Timer::Newcomers, *until);
        }
    }

    /// Every link ends, and with it every leg: the nodes come back and get new ones.
    pub fn on_resumed(&mut self, fx: &mut Effects) {
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.close(fx, link, "this host was restored");
        }
    }

    /// A node said something.
    pub fn on_message(&mut self, fx: &mut Effects, link: u64, remote: SocketAddr, bytes: &[u8]) {
        if !self.links.get_mut(&link).is_some_and(|link| link.limit.take(fx.now)) {
            return self.close(fx, link, "it sends too many messages");
        }
        self.follow(fx, link, remote);
        let Ok(Some(message)) = Message::parse(bytes) else { return };
        match message {
            Message::Register { certificate, signature, directory, version, continues } => {
                let told = Told { directory, version, continues };
                self.on_register(fx, link, (&certificate, &signature), told);
            }
            Message::Ping { nonce } => fx.tell(LinkId::Accepted(link), &Message::Pong { nonce, seen: public(remote) }),
            Message::Update { overlay, directory } => self.on_update(fx, link, overlay, directory),
            Message::Leave { overlay } => {
                let registered = self.links.get_mut(&link).and_then(|link| link.registered.remove(&overlay));
                if let Some(relay) = registered {
                    self.remove(fx, (overlay, relay), "it left");
                }
            }
            Message::Report { overlay, report } => self.on_report(fx, link, overlay, &report),
            Message::Welcome { .. }
            | Message::Plan { .. }
            | Message::Advice { .. }
            | Message::Refused { .. }
            | Message::Pong { .. }
            | Message::Roster { .. }
            | Message::Gone { .. }
            | Message::Supernodes { .. } => {}
        }
    }

    /// QUIC has validated another address of a node: its legs move with it.
    fn follow(&mut self, fx: &mut Effects, id: u64, remote: SocketAddr) {
        let Some(link) = self.links.get_mut(&id).filter(|link| link.remote != remote) else { return };
        (link.remote, link.origin) = (remote, remote);
        let registered = link.registered.clone();
        for (overlay, relay) in registered {
            fx.commands.push_back(Command::MoveChannel { relay, addr: remote });
            if let Some(member) = self.overlays.get_mut(&overlay).and_then(|served| served.members.get_mut(&relay)) {
                member.told.seen = public(remote);
                self.planning.on_place(overlay, member.place(relay));
            }
            self.announce(fx, overlay, relay);
        }
    }

    fn on_register(&mut self, fx: &mut Effects, id: u64, (certificate, signature): (&[u8], &[u8; 64]), told: Told) {
        let Some(link) = self.links.get(&id) else { return };
        let (remote, origin) = (link.remote, link.origin);
        let claimed = claimed_overlay(certificate);
        let admitted = match told.version.suits(Version::OURS) {
            true => self.admit(link, certificate, signature),
            false => Err((None, Refusal::Version)),
        };
        match admitted {
            Ok(certificate) => {
                let known = told.continues.filter(|relay| self.is_of(*relay, &certificate));
                match known {
                    Some(relay) => self.carry_on(fx, (id, remote, origin), relay, told),
                    None => self.add(fx, (id, remote, origin), &certificate, told),
                }
            }
            Err((overlay, reason)) => {
                fx.events.push_back(Event::MemberRefused { from: origin, reason: reason.text() });
                let overlay = overlay.unwrap_or(claimed);
                refuse(fx, id, overlay, reason);
            }
        }
    }

    fn admit(
        &self,
        link: &ServedLink,
        certificate: &[u8],
        signature: &[u8; 64],
    ) -> Result<Certificate, (Option<OverlayId>, Refusal)> {
        let unread = |error| {
            let is_later = error == DecodeError::Version;
            (None, if is_later { Refusal::Version } else { Refusal::Certificate })
        };
        let certificate = Certificate::parse(certificate).map_err(unread)?;
        let overlay = certificate.overlay;
        let refused = |reason| (Some(overlay), reason);
        if self.settings.allow.as_ref().is_some_and(|allow| !allow.contains(&overlay)) {
            return Err(refused(Refusal::NotAllowed));
        }
        if !verify(&certificate.signing_key, &registration(&link.exporter, overlay), signature) {
            return Err(refused(Refusal::Signature));
        }
        let served = self.overlays.get(&overlay);
        let known = served.and_then(|served| served.members.get(served.by_node.get(&certificate.node)?));
        if known.is_some_and(|known| known.signing_key != certificate.signing_key) {
            return Err(refused(Refusal::Certificate));
        }
        let members = served.map(|served| served.members.len());
        let from_address = self.per_address.get(&link.origin.ip()).copied().unwrap_or_default();
        let is_full = self.overlay_of.len() >= REGISTRATIONS_MAX
            || members.map_or(self.overlays.len() >= OVERLAYS_MAX, |members| members >= MEMBERS_MAX)
            || from_address >= PER_ADDRESS_MAX
            || link.registered.len() >= PER_LINK_MAX;
        if is_full { Err(refused(Refusal::Full)) } else { Ok(certificate) }
    }

    /// The same node key replaces its older registration at once: it restarted.
    fn add(
        &mut self,
        fx: &mut Effects,
        (link, remote, origin): (u64, SocketAddr, SocketAddr),
        certificate: &Certificate,
        Told { directory, version, .. }: Told,
    ) {
        let overlay = certificate.overlay;
        let of_link = self.links.get(&link).and_then(|link| link.registered.get(&overlay).copied());
        let of_node = self.overlays.get(&overlay).and_then(|served| served.by_node.get(&certificate.node).copied());
        for old in [of_link, of_node].into_iter().flatten() {
            self.replace(fx, overlay, old, link);
        }
        let relay = self.new_relay_id(fx);
        let mut key = LegKey([0; 16]);
        fx.rng.fill_bytes(&mut key.0);
        fx.commands.push_back(Command::SetChannel { relay, overlay, addr: remote, key });
        let seen = public(remote);
        fx.tell(LinkId::Accepted(link), &Message::Welcome { overlay, relay, key, seen, version: Version::OURS });
        let told = Member { relay, seen, certificate: certificate.bytes().to_vec(), directory, version };
        let served = self.overlays.entry(overlay).or_default();
        let (node, signing_key, counted) = (certificate.node, certificate.signing_key, origin.ip());
        // All before, and its own.
        let knows = served.changes + 1;
        let member = Registered { node, signing_key, link, counted, key, told, knows, change: 0 };
        served.members.insert(relay, member);
        served.by_node.insert(certificate.node, relay);
        let place = Place { node: certificate.node, relay, link, seen: seen.ip() };
        self.planning.on_place(overlay, place);
        self.overlay_of.insert(relay, overlay);
        *self.per_address.entry(origin.ip()).or_default() += 1;
        if let Some(link) = self.links.get_mut(&link) {
            link.registered.insert(overlay, relay);
        }
        self.tell_of_others(fx, link);
        fx.events.push_back(Event::MemberJoined { overlay, member: certificate.node, from: origin });
        self.tell_roster(fx, overlay, relay, link);
        self.announce(fx, overlay, relay);
    }

    /// An older registration ends. If it is another link's, that one is told: it may be a clone of this node.
    fn replace(&mut self, fx: &mut Effects, overlay: OverlayId, old: RelayId, by: u64) {
        let member = self.overlays.get(&overlay).and_then(|served| served.members.get(&old));
        if let Some(link) = member.map(|member| member.link).filter(|link| *link != by) {
            refuse(fx, link, overlay, Refusal::Replaced);
        }
        self.remove(fx, (overlay, old), "it has registered anew");
    }

    fn new_relay_id(&self, fx: &mut Effects) -> RelayId {
        loop {
            let relay = RelayId(fx.rng.next_u32());
            if !self.overlay_of.contains_key(&relay) {
                return relay;
            }
        }
    }

    fn on_update(&mut self, fx: &mut Effects, link: u64, overlay: OverlayId, directory: Vec<u8>) {
        let Some(relay) = self.links.get(&link).and_then(|link| link.registered.get(&overlay)).copied() else { return };
        if let Some(member) = self.overlays.get_mut(&overlay).and_then(|served| served.members.get_mut(&relay)) {
            member.told.directory = directory;
            self.announce(fx, overlay, relay);
        }
    }

    fn remove(&mut self, fx: &mut Effects, (overlay, relay): (OverlayId, RelayId), reason: &str) {
        let Some(served) = self.overlays.get_mut(&overlay) else { return };
        let Some(gone) = served.members.remove(&relay) else { return };
        served.by_node.remove(&gone.node);
        self.overlay_of.remove(&relay);
        if let Some(link) = self.links.get_mut(&gone.link) {
            link.registered.remove(&overlay);
        }
        let is_last = served.members.is_empty();
        self.uncount(gone.counted);
        fx.commands.push_back(Command::DropChannel { relay });
        fx.events.push_back(Event::MemberLeft { overlay, member: gone.node, reason: reason.to_owned() });
        self.planning.on_gone(fx, overlay, (gone.node, relay), is_last);
        if is_last {
            self.overlays.remove(&overlay);
        } else {
            self.announce_gone(fx, overlay, relay);
        }
    }

    /// REPORT: only of what the link is a member of.
    fn on_report(&mut self, fx: &mut Effects, link: u64, overlay: OverlayId, report: &Report) {
        let Some(relay) = self.links.get(&link).and_then(|link| link.registered.get(&overlay)) else { return };
        let Some(served) = self.overlays.get(&overlay) else { return };
        let Some(member) = served.members.get(relay) else { return };
        self.planning.on_report(fx, (overlay, member.node, member.counted), report, || served.places());
    }

    /// [`Timer::Plan`]
    pub fn on_plan_timer(&mut self, fx: &mut Effects, overlay: OverlayId) {
        self.planning.on_timer(fx, overlay);
    }

    fn uncount(&mut self, address: IpAddr) {
        if let Some(count) = self.per_address.get_mut(&address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_address.remove(&address);
            }
        }
    }

    /// What it does for others.
    pub fn report(&self, mut counters: BTreeMap<String, u64>) -> Serving {
        counters.insert("reports_crowded_out".into(), self.planning.crowded_out());
        let overlay = |(id, served): (&OverlayId, &Served)| ServedOverlay {
            id: id.to_string(),
            pattern: self.planning.pattern(*id),
            ways: self.planning.ways(*id),
            limits: self.planning.limits(*id),
            decisions: self.planning.decisions(*id),
            members: served.members.values().map(|member| (member.node.to_string(), member.told.seen)).collect(),
        };
        Serving { overlays: self.overlays.iter().map(overlay).collect(), counters }
    }
}

/// For people, who look at the whole.
impl Supernode {
    /// Every overlay as it is known here.
    pub fn topologies(&self, here: &str) -> Vec<Topology> {
        let overlay = |(id, served): (&OverlayId, &Served)| {
            let members = served.members.values().map(|member| (member.node, member.told.seen.ip())).collect();
            self.planning.topology(*id, &members, here)
        };
        self.overlays.iter().map(overlay).collect()
    }

    /// What flows in every overlay, by what its members report.
    pub fn traffics(&self, here: &str) -> Vec<Traffic> {
        self.overlays.keys().map(|overlay| self.planning.traffic(*overlay, here)).collect()
    }

    /// Moves that would relieve the worst bottleneck of an overlay.
    pub fn move_advice(&mut self, now: Time, here: &str) -> Vec<MoveAdvice> {
        self.overlays.keys().filter_map(|overlay| self.planning.advise(now, *overlay, here)).collect()
    }
}

fn refuse(fx: &mut Effects, link: u64, overlay: OverlayId, reason: Refusal) {
    fx.tell(LinkId::Accepted(link), &Message::Refused { overlay, reason, version: Version::OURS });
}

/// The overlay that a certificate is for by its own word; zero if it has no room for one.
fn claimed_overlay(certificate: &[u8]) -> OverlayId {
    let word = certificate.get(CERTIFICATE_OVERLAY).and_then(|id| id.try_into().ok());
    OverlayId(word.unwrap_or_default())
}

#[cfg(test)]
mod tests;
