//! One of the simulated networks, built of real daemons: four sites of three hosts behind NATs, with uplinks, trunks
//! and a supernode of the same widths, a fortieth each.
//!
//! An uplink is one queue that all which leaves a site shares; a trunk is one for what goes from one site to another.
//! Into a site, and to its hosts, leads more than ever comes.

use std::collections::BTreeMap;
use std::time::Duration;

use lab::{By, Guest, GuestPair, Lab, Nat, Offer, Rates, World, wait_for};
use longwire::control::topology::resources::{Capacities, Resource, Site};
use longwire::control::topology::view::{NodeView, View};
use longwire::control::topology::{NodeIndex, Pair, Via};

use crate::model::{Kind, MBIT, network};

pub(crate) const SITES: usize = 4;
pub(crate) const HOSTS: usize = 12;
/// Two cores carry this beside everything else that tests do.
const SCALE: f64 = 1.0 / 40.0;
/// More than ever comes, in Mb/s.
const WIDE: f64 = 1_000.0;
/// Hosts behind one NAT that all took one port would get a different one outside for each peer.
const FIRST_PORT: usize = 7_100;
const MEETING: Duration = Duration::from_secs(60);
/// A trunk is offered so many times what it carries to find out what that is.
const FULL: f64 = 1.3;
/// Until queues are full, and then.
const FILLING: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(3);
/// What is left of a trunk for guests is as much as this alike on all.
const SPREAD_MAX: f64 = 0.05;

/// The network.
pub(crate) struct Scene {
    pub(crate) world: World,
    /// As it was made, in bytes per second of all that is on the wire.
    shaped: View,
}

impl Scene {
    /// All members relay; all have met, directly.
    pub(crate) fn new(seed: u64) -> Self {
        let mut lab = Lab::new();
        let server = lab.supernode_host("sn");
        let sites: Vec<lab::Site> = (1..=SITES).map(|n| lab.site(&format!("s{n}"), Nat::PortRestricted)).collect();
        let place = |n: usize| {
            let site = sites[n % SITES].clone();
            let host = lab.host(&site, &format!("h{}", n + 1));
            (site, host)
        };
        let places = (0..HOSTS).map(place).collect();
        let words: Vec<_> = (0..HOSTS).map(|n| format!("--relay=on --listen=0.0.0.0:{}", FIRST_PORT + n)).collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let world = World::with_words(lab, server, places, &words);
        world.wait_paths("direct", MEETING);
        let mut shaped = network(Kind::Sites, HOSTS as u16, seed);
        shaped.capacities = scaled(&shaped.capacities);
        let scene = Self { world, shaped };
        scene.shape();
        scene
    }

    fn shape(&self) {
        let rate = |resource| self.shaped.capacities.of(resource) / MBIT;
        let inet = self.world.lab.inet();
        for (to, node) in self.world.nodes[..SITES].iter().enumerate() {
            node.site.router.shape("wan0", Rates::whole(rate(Resource::SiteOut(site(to)))));
            let trunk = |from: usize| {
                let width = rate(Resource::Trunk(site(from), site(to)));
                (self.world.nodes[from].site.outside, width)
            };
            let parts: Vec<_> = (0..SITES).filter(|from| *from != to).map(trunk).collect();
            inet.shape(&node.site.inet_link, Rates { all: WIDE, rest: WIDE, by: By::Source, parts: &parts });
        }
        let hub = Rates::whole(rate(Resource::NodeOut(NodeIndex(HOSTS as u16))));
        inet.shape("to-sn", hub);
        self.world.server.space.shape(self.world.server.uplink, hub);
        // A superframe would take the whole of a short queue.
        for node in &self.world.nodes {
            node.host.space.ip("link set eth0 gso_max_segs 1");
        }
    }

    pub(crate) fn guests(&self) -> Vec<&Guest> {
        self.world.nodes.iter().map(|node| &node.guest).collect()
    }

    /// What guests get across, in bytes of payload per second: of everything the share that is measured on the trunks,
    /// while everybody goes directly.
    pub(crate) fn measure(&self) -> View {
        let mut shares = Vec::new();
        for step in 1..SITES {
            let pairs = (0..SITES).map(|from| (from, (from + step) % SITES));
            let widths: BTreeMap<GuestPair, f64> = pairs.map(|pair| (pair, self.trunk(pair))).collect();
            let offer =
                Offer::start(&self.guests(), &widths.iter().map(|(pair, width)| (*pair, FULL * width)).collect());
            std::thread::sleep(FILLING);
            shares.extend(offer.rates(MEASURED).into_iter().map(|(pair, rate)| rate / widths[&pair]));
        }
        shares.sort_by(f64::total_cmp);
        let middle = shares[shares.len() / 2];
        let alike = shares.iter().filter(|share| (*share / middle - 1.0).abs() < SPREAD_MAX).count();
        eprintln!("{middle:.3} of a trunk's rate is left for guests; all trunks: {shares:.3?}");
        assert!(alike * 4 >= shares.len() * 3, "trunks are not as they were made");
        let mut capacities = Capacities::default();
        for (resource, capacity) in self.shaped.capacities.iter() {
            capacities.set(resource, capacity * middle);
        }
        View { capacities, ..self.shaped.clone() }
    }

    fn trunk(&self, (from, to): GuestPair) -> f64 {
        self.shaped.capacities.of(Resource::Trunk(site(from), site(to)))
    }

    /// Whether everybody goes directly, by order, or as is planned.
    pub(crate) fn pin(&self, is_direct: bool) {
        let via = if is_direct { "direct" } else { "auto" };
        for (one, other) in self.world.pairs().flat_map(|(one, other)| [(one, other), (other, one)]) {
            self.order(one, &["via", &self.world.nodes[other].daemon.node, via]);
        }
    }

    /// What happens while everything goes through the supernode.
    pub(crate) fn as_star<T>(&self, act: impl FnOnce() -> T) -> T {
        let add = |number| self.order(number, &["route", "add", "any", "any", "via", "supernode", "--json"]);
        let ids: Vec<_> = (0..HOSTS).map(|number| add(number)[0]["id"].to_string()).collect();
        let result = act();
        for (number, id) in ids.iter().enumerate() {
            self.order(number, &["route", "del", id]);
        }
        result
    }

    fn order(&self, number: usize, words: &[&str]) -> serde_json::Value {
        let output = self.world.nodes[number].daemon.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// The supernode forgets all that it learned and planned.
    pub(crate) fn forget(&mut self) {
        self.world.supernode.process().kill();
        self.world.supernode.start_again();
        wait_for("all members are back", MEETING, || {
            let status = self.world.supernode.try_status()?;
            (status["serving"]["overlays"][0]["members"].as_array()?.len() == HOSTS).then_some(())
        });
    }

    /// The ways that the supernode planned.
    pub(crate) fn ways(&self) -> BTreeMap<Pair, Via> {
        let ids = self.world.nodes.iter().map(|node| node.daemon.status().node_id);
        let ids: Vec<String> = ids.chain(["here".to_owned()]).collect();
        let index = |id: &serde_json::Value| {
            let place = ids.iter().position(|known| id == known.as_str()).expect("a member");
            NodeIndex(place as u16)
        };
        let way = |way: &serde_json::Value| {
            let via = if way["via"] == "direct" { Via::Direct } else { Via::Relay(index(&way["via"])) };
            (Pair::new(index(&way["from"]), index(&way["to"])), via)
        };
        let status = self.world.supernode.try_status().unwrap_or_default();
        status["serving"]["overlays"][0]["ways"].as_array().into_iter().flatten().map(way).collect()
    }

    /// What the supernode decided of late, the last first.
    pub(crate) fn decisions(&self) -> Vec<String> {
        let status = self.world.supernode.try_status().unwrap_or_default();
        let decisions = status["serving"]["overlays"][0]["decisions"].as_array().cloned().unwrap_or_default();
        decisions.iter().filter_map(|decision| decision.as_str().map(str::to_owned)).collect()
    }
}

fn site(number: usize) -> Site {
    Site(number as u16 % SITES as u16)
}

/// What is narrow in the lab: trunks, uplinks, and the supernode's line.
fn scaled(capacities: &Capacities) -> Capacities {
    let hub = NodeIndex(HOSTS as u16);
    let mut scaled = Capacities::default();
    for (resource, capacity) in capacities.iter() {
        let is_narrow = match resource {
            Resource::Trunk(..) | Resource::SiteOut(_) => true,
            Resource::NodeOut(node) | Resource::NodeIn(node) => node == hub,
            Resource::SiteIn(_) | Resource::Relay(_) | Resource::Path(_) => false,
        };
        if is_narrow {
            scaled.set(resource, capacity * SCALE);
        }
    }
    scaled
}

/// The same without the supernode as a relay: planners spare it.
pub(crate) fn by_members(view: &View) -> View {
    let mut view = view.clone();
    view.nodes[HOSTS] = NodeView::default();
    view
}

/// Places of guests as nodes of a view.
pub(crate) fn guests_of(pair: Pair) -> GuestPair {
    (usize::from(pair.from.0), usize::from(pair.to.0))
}
