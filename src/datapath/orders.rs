//! Carrying out the control room's orders.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use rand_chacha::rand_core::RngCore;

use super::buf::{Batch, Deliveries, Delivery, OverlayIndex, Transmits};
use super::coalesce::Coalescer;
use super::fair::Order;
use super::fdb::{Address, Entry, PortId};
use super::holdings::Place;
use super::lane::Role;
use super::offload::Virtio;
use super::path::Path;
use super::port::{Epoch, Port};
use super::relay::{Channels, Legs};
use super::rules::{Hits, Rule, Rules};
use super::seal::SessionKeys;
use super::source::Sources;
use super::stats::Stats;
use super::switch::{Switch, SwitchSettings};
use super::{Activity, Command, Datapath, MTU_FLOOR, Notice, Target, ip_headers, lead};
use crate::time::Time;
use crate::wire::data::{HEADER_LEN, TAG_LEN};
use crate::wire::handshake::Suite;

/// What makes a message longer: enough for the longest frame that any overlay carries.
const ZEROS: [u8; 3072] = [0; 3072];

impl Datapath {
    /// An empty corridor for overlays with these switches.
    pub fn new(overlays: &[SwitchSettings], rng: &mut impl RngCore) -> Self {
        let mut seed = || std::array::from_fn(|_| rng.next_u64());
        let hasher = |[a, b, c, d]: [u64; 4]| ahash::RandomState::with_seeds(a, b, c, d);
        Self {
            switches: overlays.iter().map(|settings| Switch::new(seed(), *settings)).collect(),
            ports: BTreeMap::new(),
            by_index: HashMap::with_hasher(hasher(seed())),
            remote_indices: HashSet::with_hasher(hasher(seed())),
            legs: Legs::default(),
            channels: Channels::new(seed()),
            stats: overlays.iter().map(|_| Stats::default()).collect(),
            node_stats: Stats::default(),
            sources: Sources::default(),
            transmits: Transmits::default(),
            deliveries: Deliveries::default(),
            order: Order::default(),
            joining: Coalescer::default(),
            cut: Batch::default(),
            ruled: Vec::new(),
            finished: Vec::new(),
            branch: Vec::new(),
            scratch: Vec::new(),
            notices: overlays.iter().enumerate().filter_map(first_call).collect(),
            reserve: None,
            waiting: BTreeSet::new(),
            turn: 0,
            role: Role::Alone,
        }
    }

    /// The next notice for the control room.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// What is to be sent and delivered since the last call; `spare` batches take their places.
    pub fn take_batches(&mut self, spare: (Transmits, Deliveries)) -> (Transmits, Deliveries) {
        (std::mem::replace(&mut self.transmits, spare.0), std::mem::replace(&mut self.deliveries, spare.1))
    }

    /// Whether [`Datapath::take_batches`] would give anything.
    pub fn has_batches(&self) -> bool {
        !self.transmits.is_empty() || !self.deliveries.is_empty()
    }

    /// Counters of one overlay.
    pub fn stats(&self, overlay: OverlayIndex) -> &Stats {
        &self.stats[overlay.0]
    }

    /// Counters of what belongs to no overlay (yet): strangers, relaying, handshakes.
    pub fn node_stats(&mut self) -> &mut Stats {
        &mut self.node_stats
    }

    /// What the switch of `overlay` knows.
    pub fn fdb_entries(&self, now: Time, overlay: OverlayIndex) -> Vec<Entry> {
        self.switches[overlay.0].fdb.entries(now).collect()
    }

    /// The machine behind our TAP that has said that `ip` is its own, else those that other members say have it.
    pub fn machines_with(&self, overlay: OverlayIndex, vlan: u16, ip: IpAddr) -> BTreeSet<Address> {
        let switch = &self.switches[overlay.0];
        let told = switch.suppression.told.tellers(Place { vlan, ip }).map(|teller| Address { vlan, mac: teller.mac });
        switch.stations.find(ip).map_or_else(|| told.collect(), |own| BTreeSet::from([own]))
    }

    /// What a static rule of `overlay` has decided so far; nothing if it is not in force.
    pub fn hits(&self, overlay: OverlayIndex, rule: u32) -> Hits {
        self.switches[overlay.0].rules.as_ref().and_then(|rules| rules.hits(rule)).unwrap_or_default()
    }

    /// How many IP addresses of machines are known, behind our TAP and behind others.
    pub fn bindings(&self, overlay: OverlayIndex) -> usize {
        let suppression = &self.switches[overlay.0].suppression;
        suppression.holdings.len() + suppression.told.len()
    }

    /// Whether questions for IP addresses are answered at home.
    pub fn answers(&self, overlay: OverlayIndex) -> bool {
        self.switches[overlay.0].settings().answers
    }

    /// Whether frames for groups go to those that want to hear them.
    pub fn snoops(&self, overlay: OverlayIndex) -> bool {
        self.switches[overlay.0].settings().snoops
    }

    /// How many groups our segment wants to hear.
    pub fn groups(&self, overlay: OverlayIndex) -> usize {
        self.switches[overlay.0].groups.len()
    }

    /// Somebody at this host says that a machine is behind our TAP. Whether it is now: it may be frozen elsewhere.
    pub fn claim(&mut self, now: Time, overlay: OverlayIndex, address: Address, ip: Option<IpAddr>) -> bool {
        let switch = &mut self.switches[overlay.0];
        let is_here = switch.claim_for_user(now, address);
        if let Some(ip) = ip.filter(|_| is_here) {
            switch.stations.note(address, ip);
        }
        self.publish(now, overlay);
        if is_here {
            // Bridges still think that it is far away, until it speaks.
            self.question(overlay, address);
        }
        is_here
    }

    /// Carries out an order.
    pub fn handle_command(&mut self, now: Time, command: Command) {
        if let Role::First(first) = &mut self.role {
            first.pass_on(&command);
        }
        match command {
            Command::OpenPort { port, overlay, short } => {
                self.ports.insert(port, Port::new(overlay, short));
                self.switches[overlay.0].ports.insert(port);
                self.switches[overlay.0].trees.open(short, port);
            }
            Command::ClosePort { port } => self.close_port(port),
            Command::Install { port, keys, confirmed } => self.install(now, port, &keys, confirmed),
            Command::UsePath { port, path } => self.use_path(now, port, path),
            Command::SetLimit { port, path, mtu } => self.set_limit(port, path, mtu),
            Command::Silence { port } => self.silence(now, port),
            Command::LapseKeys { port } => self.lapse_keys(port),
            Command::SetAsleep { port, asleep } => self.set_asleep(port, asleep),
            Command::SetAbilities { port, follows, trees } => {
                if let Some(port) = self.ports.get_mut(&port) {
                    (port.follows, port.trees) = (follows, trees);
                }
            }
            Command::SetSite { overlay, port, site } => self.set_site(overlay, port, site),
            Command::ClaimAgain { overlay, address, news } => self.tell_claim(now, overlay, address, news),
            Command::AskAgain { overlay, address } => self.ask(now, overlay, address),
            Command::TellAll { port } => self.tell_all(now, port, true),
            Command::Excerpt { overlay } => self.tell_excerpt(overlay),
            Command::Believe { port, excerpt } => self.believe(port, &excerpt),
            Command::Tend { overlay } => self.tend(now, overlay),
            Command::Locate { from, owner, address, sequence } => self.locate(now, from, owner, (address, sequence)),
            Command::SetGate { overlay, gate } => self.switches[overlay.0].gate = gate,
            Command::SetRules { overlay, rules } => self.set_rules(overlay, &rules),
            Command::SetReserve { shares } => self.set_reserve(now, &shares),
            Command::Release => self.release(now),
            Command::SetMarking { overlay, marking } => self.switches[overlay.0].marking = marking,
            Command::SetWays { port, ways } => {
                if let Some(port) = self.ports.get_mut(&port) {
                    port.ways = ways;
                }
            }
            Command::Deliver { overlay, frame } => self.deliver_own(overlay, &frame),
            Command::CountDrop { reason } => self.node_stats.dropped(reason),
            Command::SendSession { port, path, message, hops } => {
                if let Some(mut way) = self.way(now, port, path, hops) {
                    way.seal_parts(false, &[&message]);
                }
            }
            Command::SendSized { port, path, message, size } => {
                self.send_sized(now, port, path, (&message, usize::from(size)));
            }
            Command::SendPlain { path, packet } => self.send_plain(path, &packet),
            Command::Measure { port } => self.measure(now, port),
            Command::Tally { overlay } => self.tally(overlay),
            Command::Watch { port } => {
                if let Some(port) = self.ports.get_mut(&port) {
                    port.watched = false;
                }
            }
            Command::SetLeg { leg, relay, key } => self.legs.set(leg, relay, key),
            Command::MoveLeg { leg, relay } => self.legs.rebind(leg, relay),
            Command::MeasureLeg { leg } => {
                let tally = self.legs.tally(leg);
                self.notices.extend(tally.map(|tally| Notice::LegMeasured { leg, tally }));
            }
            Command::DropLeg { leg } => self.legs.drop(leg),
            Command::SetChannel { relay, overlay, addr, key } => self.channels.set(relay, overlay, addr, key),
            Command::MoveChannel { relay, addr } => self.channels.rebind(relay, addr),
            Command::DropChannel { relay } => self.channels.drop(relay),
            Command::KeepSources { keep } => self.keep_sources(keep),
            Command::SetShare { bytes_per_s } => self.channels.share(bytes_per_s),
        }
    }

    /// The peer at `from` says where a machine is: at `owner`, or with a node that we do not know.
    fn locate(&mut self, now: Time, from: PortId, owner: Option<PortId>, (address, sequence): (Address, u32)) {
        let Some(overlay) = self.ports.get(&from).map(|port| port.overlay) else { return };
        self.switches[overlay.0].on_location(now, from, owner, address, sequence);
        self.publish(now, overlay);
    }

    fn set_rules(&mut self, overlay: OverlayIndex, rules: &[Rule]) {
        let switch = &mut self.switches[overlay.0];
        switch.rules = Rules::new(rules, switch.rules.as_ref());
    }

    fn close_port(&mut self, id: PortId) {
        let Some(port) = self.ports.remove(&id) else { return };
        let switch = &mut self.switches[port.overlay.0];
        switch.ports.remove(&id);
        switch.trees.close(port.short, id);
        switch.fdb.flush_port(id);
        switch.moves.forget_port(id);
        switch.suppression.forget_port(id);
        for epoch in [port.current, port.previous, port.next].into_iter().flatten() {
            self.retire(&epoch);
        }
    }

    /// No flood reaches the peer, and nobody looks for its MACs there, until it has new keys.
    fn silence(&mut self, now: Time, id: PortId) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        port.drop_held();
        port.use_path(now, None, None);
        let epochs = [port.current.take(), port.previous.take(), port.next.take()];
        let switch = &mut self.switches[port.overlay.0];
        switch.ports.remove(&id);
        switch.fdb.flush_port(id);
        switch.moves.forget_port(id);
        switch.suppression.forget_port(id);
        for epoch in epochs.into_iter().flatten() {
            self.retire(&epoch);
        }
    }

    fn set_asleep(&mut self, id: PortId, asleep: bool) {
        if let Some(port) = self.ports.get_mut(&id) {
            (port.asleep, port.tells_use) = (asleep, asleep);
        }
    }

    fn tell_excerpt(&mut self, overlay: OverlayIndex) {
        let excerpt = self.switches[overlay.0].suppression.holdings.excerpt();
        self.notices.push_back(Notice::Excerpt { overlay, excerpt });
    }

    fn lapse_keys(&mut self, id: PortId) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        let Some(current) = port.current.take() else { return };
        if let Some(epoch) = port.previous.replace(current) {
            self.retire(&epoch);
        }
    }

    fn retire(&mut self, epoch: &Epoch) {
        self.by_index.remove(&epoch.local_index);
        self.remote_indices.remove(&epoch.sealer.remote_index());
        self.notices.push_back(Notice::Retired { index: epoch.local_index });
    }

    fn install(&mut self, now: Time, id: PortId, keys: &SessionKeys, confirmed: bool) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        let epoch = Box::new(Epoch::new(now, keys, self.role.share()));
        self.switches[port.overlay.0].ports.insert(id);
        self.by_index.insert(keys.local_index, id);
        self.remote_indices.insert(keys.remote_index);
        let retired = if confirmed { port.promote(epoch) } else { port.next.replace(epoch) };
        if let Some(epoch) = retired {
            self.retire(&epoch);
        }
        if confirmed {
            self.flush_pending(now, id);
        }
    }

    /// The first packet with the keys that waited: the peer has them.
    pub(super) fn confirm(&mut self, now: Time, id: PortId, index: u32, path: Path) {
        match &mut self.role {
            Role::Alone => {}
            Role::First(first) => first.pass_promotion_on(id, index),
            Role::Further(lane) => return lane.note_confirmed(id, index, path),
        }
        if self.promote(id, index) {
            self.notices.push_back(Notice::Confirmed { port: id, path });
            self.flush_pending(now, id);
        }
    }

    /// The keys that waited under `index` are the present ones, if they still wait.
    pub(super) fn promote(&mut self, id: PortId, index: u32) -> bool {
        let Some(port) = self.ports.get_mut(&id) else { return false };
        let Some(epoch) = port.next.take_if(|epoch| epoch.local_index == index) else { return false };
        if let Some(epoch) = port.promote(epoch) {
            self.retire(&epoch);
        }
        true
    }

    fn use_path(&mut self, now: Time, id: PortId, path: Option<Path>) {
        if let Some(port) = self.ports.get_mut(&id) {
            port.use_path(now, path, path.and_then(|path| self.sources.noted(path)));
            self.flush_pending(now, id);
        }
    }

    fn set_limit(&mut self, id: PortId, path: Path, mtu: u16) {
        if let Some(port) = self.ports.get_mut(&id).filter(|port| port.path == Some(path)) {
            port.mtu = Some(mtu.max(MTU_FLOOR));
        }
    }

    fn send_sized(&mut self, now: Time, id: PortId, path: Path, (message, size): (&[u8], usize)) {
        let Some(to) = self.legs.address(path) else { return };
        let bare = ip_headers(to) + lead(path) + HEADER_LEN + message.len() + TAG_LEN;
        let zeros = &ZEROS[..size.saturating_sub(bare).min(ZEROS.len())];
        if let Some(mut way) = self.way(now, id, path, None) {
            way.seal_parts(false, &[message, zeros]);
        }
    }

    fn flush_pending(&mut self, now: Time, id: PortId) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        if port.path.is_some() && port.can_send(now) {
            for (frame, work, kind) in port.take_held(now) {
                self.send(now, id, &frame, work, kind);
            }
        }
    }

    fn send_plain(&mut self, path: Path, packet: &[u8]) {
        let Some(to) = self.legs.address(path) else { return };
        let lead = lead(path);
        let len = lead + packet.len();
        let room = &mut self.transmits.reserve(len)[..len];
        room[lead..].copy_from_slice(packet);
        self.legs.wrap(path, room);
        let from = self.legs.source(path).or_else(|| self.sources.noted(path));
        self.transmits.commit(len, Target { to, hops: None, from, tos: 0 });
    }

    /// Our addresses are others now; with several, it matters which one a packet leaves from.
    fn keep_sources(&mut self, keep: bool) {
        self.sources = Sources::new(keep);
        self.legs.forget_sources();
        self.ports.values_mut().for_each(Port::forget_sources);
    }

    /// A frame of our own to our segment.
    pub(super) fn deliver_own(&mut self, overlay: OverlayIndex, frame: &[u8]) {
        self.joining.close(&mut self.deliveries);
        self.deliveries.push(frame, Delivery { overlay, virtio: Virtio::default() });
    }

    fn measure(&mut self, now: Time, id: PortId) {
        if let Some(port) = self.ports.get_mut(&id) {
            port.activity.has_keys = port.can_send(now);
            self.notices.push_back(Notice::Measured { port: id, activity: port.activity });
            (port.activity.longest_sent, port.activity.longest_heard) = (0, 0);
        }
    }

    fn tally(&mut self, overlay: OverlayIndex) {
        let ours = self.ports.iter_mut().filter(|(_, port)| port.overlay == overlay);
        let ports = ours.filter_map(|(id, port)| Some((*id, port.tally()?))).collect();
        let machines = self.switches[overlay.0].pairs.take();
        self.notices.push_back(Notice::Tallied { overlay, ports, machines });
    }

    /// What happened on a port, for reports.
    pub fn activity(&self, id: PortId) -> Activity {
        self.ports.get(&id).map(|port| port.activity).unwrap_or_default()
    }

    /// What seals the packets to the peer at `id`; `None` without keys.
    pub fn suite(&self, now: Time, id: PortId) -> Option<Suite> {
        let epoch = self.ports.get(&id)?.current.as_ref().filter(|epoch| epoch.can_send(now))?;
        Some(epoch.suite)
    }
}

/// A segment that is snooped is asked from the start.
fn first_call((overlay, settings): (usize, &SwitchSettings)) -> Option<Notice> {
    settings.snoops.then_some(Notice::Inventory { overlay: OverlayIndex(overlay), at: Time::START })
}
