//! A small world to begin with: public supernodes, and one host with one machine per site.
#![allow(dead_code, reason = "each test file uses its part")]

use std::time::Duration;

use longwire::node::{Event, HandshakeKind};
use longwire::sim::{Behaviour, FrameId, HostId, HostSpec, OverlayNo, SiteId, SiteSpec, VmId, World};
use longwire::time::Time;

/// A world is at rest this long after the last change, where no attempt failed before.
pub(crate) const SETTLED: Duration = Duration::from_secs(60);

/// A world with its hosts in order.
pub(crate) struct Lab {
    pub(crate) world: World,
    pub(crate) overlay: OverlayNo,
    pub(crate) supernodes: Vec<HostId>,
    pub(crate) hosts: Vec<HostId>,
    pub(crate) vms: Vec<VmId>,
}

impl Lab {
    /// One site and host per box, all started now.
    pub(crate) fn new(seed: u64, supernodes: usize, boxes: &[Option<Behaviour>]) -> Self {
        let mut lab = Self::empty(seed, supernodes, HandshakeKind::Noise);
        for behaviour in boxes {
            let site = lab.site(*behaviour);
            lab.member(site);
        }
        lab
    }

    /// Supernodes only.
    pub(crate) fn empty(seed: u64, supernodes: usize, handshake: HandshakeKind) -> Self {
        let mut world = World::with_handshake(seed, handshake);
        let overlay = world.overlay("lab");
        let supernodes = (0..supernodes).map(|number| world.supernode(&format!("s{number}"))).collect();
        Self { world, overlay, supernodes, hosts: Vec::new(), vms: Vec::new() }
    }

    /// Three public hosts that are at rest.
    pub(crate) fn three(seed: u64) -> Self {
        let mut lab = Self::new(seed, 1, &[None; 3]);
        lab.settle();
        lab
    }

    pub(crate) fn site(&mut self, behaviour: Option<Behaviour>) -> SiteId {
        self.world.site(SiteSpec { behaviour, ..SiteSpec::default() })
    }

    /// A host at `site` that registers at every supernode, with a machine.
    pub(crate) fn member(&mut self, site: SiteId) -> HostId {
        let spec = self.spec(site).member(self.overlay);
        self.add(spec)
    }

    /// How the next host is set up, but for its overlays.
    pub(crate) fn spec(&self, site: SiteId) -> HostSpec {
        let spec = HostSpec::new(site, &format!("n{}", self.hosts.len()));
        self.supernodes.iter().fold(spec, |spec, supernode| spec.at(self.world.as_supernode(*supernode)))
    }

    /// A host with a machine in the first overlay.
    pub(crate) fn add(&mut self, spec: HostSpec) -> HostId {
        let host = self.world.host(spec);
        let [.., high, low] = self.hosts.len().to_be_bytes();
        self.hosts.push(host);
        self.vms.push(self.world.vm(host, self.overlay, [2, 0, 0, 0, high, low], 0));
        host
    }

    /// Lets `seconds` pass.
    pub(crate) fn run(&mut self, seconds: f64) {
        self.world.run_for(Duration::from_secs_f64(seconds));
    }

    /// Waits for the world to be at rest, and lets the switches learn every machine.
    pub(crate) fn settle(&mut self) {
        if let Err(wrong) = self.world.settle(SETTLED) {
            panic!("not at rest: {wrong:#?}\n{}", self.tale());
        }
        for vm in self.vms.clone() {
            self.world.announce(vm);
        }
        self.run(1.0);
        self.check();
    }

    /// A ping from machine to machine every `every` for `span`.
    pub(crate) fn stream(&mut self, from: usize, to: usize, every: Duration, span: Duration) -> Vec<FrameId> {
        let end = self.world.now() + span;
        let mut pings = Vec::new();
        while self.world.now() < end {
            pings.push(self.world.ping(self.vms[from], self.vms[to], 100));
            self.world.run_for(every);
        }
        pings
    }

    /// Whether a ping is answered within a second.
    pub(crate) fn answers(&mut self, from: usize, to: usize) -> bool {
        let ping = self.world.ping(self.vms[from], self.vms[to], 100);
        self.run(1.0);
        self.answered(ping)
    }

    pub(crate) fn answered(&self, ping: FrameId) -> bool {
        self.world.sent(ping).answered.is_some()
    }

    /// When the unanswered ones were sent, in seconds.
    pub(crate) fn lost(&self, pings: &[FrameId]) -> Vec<f64> {
        let unanswered = pings.iter().filter(|ping| !self.answered(**ping));
        unanswered.map(|ping| self.world.sent(*ping).at.as_nanos() as f64 / 1e9).collect()
    }

    /// The longest time between two answered pings, in seconds.
    pub(crate) fn gap(&self, pings: &[FrameId]) -> f64 {
        let sent = |ping: &FrameId| self.world.sent(*ping).at.as_nanos() as f64 / 1e9;
        let mut times: Vec<f64> = pings.iter().filter(|ping| self.answered(**ping)).map(sent).collect();
        times.insert(0, pings.first().map_or(0.0, sent));
        times.push(pings.last().map_or(f64::MAX, sent));
        times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
    }

    /// No law is broken.
    pub(crate) fn check(&self) {
        assert_eq!(self.world.violations(), &[] as &[String], "{}", self.tale());
    }

    /// What users would have read.
    pub(crate) fn tale(&self) -> String {
        let line = |(at, host, event): &(Time, HostId, Event)| {
            format!("{:10.6} {host:?} {event:?}", at.as_nanos() as f64 / 1e9)
        };
        let events = self.world.events();
        events.iter().skip(events.len().saturating_sub(60)).map(line).collect::<Vec<_>>().join("\n")
    }
}
