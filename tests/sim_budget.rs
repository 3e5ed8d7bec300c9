//! What the overlay itself sends: bytes of control beside the frames, by kind.
//!
//! The world of 1,000 nodes takes 12 minutes and 11 GB: `cargo test --test sim_budget -- --ignored --nocapture`

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::Lab;
use longwire::node::HandshakeKind;
use longwire::sim::kernel::Stream;
use longwire::sim::tally::{Crossings, FRAMES, Tally};
use longwire::sim::{Behaviour, HostId};

/// What a node may send, and receive, beside frames (bytes per second), where little flows.
const BUDGET: f64 = 500.0;
/// What no node may send or receive, whatever its place.
const MOST: f64 = 1_000.0;
/// Links that were not used for so long sleep: three minutes, a keepalive, and a look.
const TIRED: f64 = 240.0;
/// And of its frames, where much flows.
const SHARE: f64 = 0.001;
/// Each node talks to so many others.
const PARTNERS: usize = 16;
/// Of a datagram that a machine sends.
const PAYLOAD: usize = 1_350;

/// `count` nodes on every kind of access, at rest; the switches know every machine.
fn crowd(count: usize, handshake: HandshakeKind) -> Lab {
    let mut lab = Lab::empty(1, 1, handshake);
    let boxes = [None, Some(Behaviour::port_restricted()), Some(Behaviour::firewall()), None];
    for number in 0..count {
        let site = lab.site(boxes[number % boxes.len()]);
        lab.member(site);
        lab.world.run_for(Duration::from_secs(10) / u32::try_from(count).expect("small"));
    }
    lab.settle();
    lab
}

/// Each machine asks for its partners' addresses, and is answered at home: what a switch has learned it forgets in
/// five minutes.
fn ask(lab: &mut Lab) {
    let nodes = lab.vms.len();
    for from in 0..nodes {
        for to in partners(from, nodes) {
            lab.world.ask_for(lab.vms[from], lab.vms[to]);
        }
    }
    lab.run(1.0);
}

/// The nodes before and behind it.
fn partners(from: usize, nodes: usize) -> impl Iterator<Item = usize> {
    (1..=PARTNERS / 2).flat_map(move |step| [(from + step) % nodes, (from + nodes - step) % nodes])
}

/// Each machine asks everybody for an address that nobody has, one after the other within `seconds`.
fn ask_in_vain(lab: &mut Lab, seconds: u64) {
    // A place without an overlay.
    let nobody = lab.world.vm(lab.supernodes[0], lab.overlay, [2, 0, 0, 0xff, 0, 1], 0);
    let vms = lab.vms.clone();
    let pause = Duration::from_secs(seconds) / u32::try_from(vms.len()).expect("small");
    let ask = |vm| {
        let asked = lab.world.ask_for(vm, nobody);
        lab.world.run_for(pause);
        asked
    };
    let asked = vms.into_iter().map(ask).collect::<Vec<_>>();
    lab.run(3.0);
    assert!(asked.into_iter().all(|asked| lab.world.missed(asked).is_empty()));
}

/// Each machine sends `count` datagrams to each of its partners, four times a second.
fn talk(lab: &mut Lab, count: usize, seconds: usize) {
    let nodes = lab.vms.len();
    let pause = Duration::from_millis(250) / u32::try_from(nodes).expect("small");
    for _ in 0..seconds * 4 {
        for from in 0..nodes {
            for to in partners(from, nodes) {
                lab.world.stream(lab.vms[from], lab.vms[to], Stream::Udp, count, PAYLOAD);
            }
            lab.world.run_for(pause);
        }
    }
}

/// Bytes per second and node, one way.
struct Way {
    kinds: BTreeMap<&'static str, f64>,
    mean: f64,
    most: f64,
    frames: f64,
}

impl Way {
    fn new(grown: &[Tally], seconds: f64) -> Self {
        let nodes = grown.len() as f64;
        let mut kinds = BTreeMap::new();
        for (kind, bytes) in grown.iter().flat_map(|tally| &tally.0) {
            *kinds.entry(*kind).or_default() += *bytes as f64 / seconds / nodes;
        }
        let control: Vec<f64> = grown.iter().map(|tally| tally.control() as f64 / seconds).collect();
        let frames = kinds.remove(FRAMES).unwrap_or_default();
        Self {
            kinds,
            mean: control.iter().sum::<f64>() / nodes,
            most: control.iter().copied().fold(0.0, f64::max),
            frames,
        }
    }
}

/// What crosses each member's socket while `live` goes on; sent, and received.
fn measure(lab: &mut Lab, what: &str, live: impl FnOnce(&mut Lab)) -> [Way; 2] {
    let crossings = |lab: &Lab| -> Vec<Crossings> {
        lab.hosts.iter().map(|host: &HostId| lab.world.crossings(*host).clone()).collect()
    };
    let (before, start) = (crossings(lab), lab.world.now());
    live(lab);
    let (after, seconds) = (crossings(lab), lab.world.now().since(start).as_secs_f64());
    let grown = |of: fn(&Crossings) -> &Tally| -> Vec<Tally> {
        before.iter().zip(&after).map(|(before, after)| of(after).since(of(before))).collect()
    };
    let ways = [grown(|crossings| &crossings.sent), grown(|crossings| &crossings.received)];
    let ways = ways.map(|grown| Way::new(&grown, seconds));
    for (way, name) in ways.iter().zip(["sent", "received"]) {
        let kinds = way.kinds.iter().map(|(kind, rate)| format!("{kind} {rate:.0}")).collect::<Vec<_>>().join(", ");
        eprintln!(
            "{what}: {name} {:.0} B/s per node, {:.0} at most, beside {:.0} of frames ({:.3} %): {kinds}",
            way.mean,
            way.most,
            way.frames,
            way.mean / way.frames.max(1.0) * 100.0
        );
    }
    ways
}

/// At rest, and then with partners.
fn keeps_the_budget(count: usize, handshake: HandshakeKind) {
    let mut lab = crowd(count, handshake);
    lab.run(TIRED);
    let rest = measure(&mut lab, "at rest", |lab| lab.run(125.0));
    let vain = measure(&mut lab, "a question for nobody each in three minutes", |lab| ask_in_vain(lab, 180));
    ask(&mut lab);
    talk(&mut lab, 1, 10);
    let busy = measure(&mut lab, "a little traffic", |lab| talk(lab, 1, 20));
    for way in rest.iter().chain(&vain).chain(&busy) {
        assert!(way.mean <= BUDGET, "{:.0} B/s", way.mean);
        assert!(way.most <= MOST, "{:.0} B/s", way.most);
    }
    lab.check();
}

/// A node's links that are awake cost what they cost, however many sleep: a hundred members are as many as a thousand.
#[test]
fn sixteen_partners_of_a_hundred_members_keep_the_budget() {
    keeps_the_budget(100, HandshakeKind::Noise);
}

#[test]
#[ignore = "long: half a million pairs; `cargo test --test sim_budget -- --ignored --nocapture`"]
fn sixteen_partners_of_a_thousand_members_keep_the_budget() {
    keeps_the_budget(1000, HandshakeKind::StandIn);
}

#[test]
fn where_much_flows_control_is_a_thousandth() {
    let mut lab = crowd(PARTNERS + 2, HandshakeKind::Noise);
    talk(&mut lab, 23, 15);
    let ways = measure(&mut lab, "1 Mb/s each way and pair", |lab| talk(lab, 23, 15));
    for way in &ways {
        assert!(way.mean <= SHARE * way.frames, "{:.0} B/s of {:.0}", way.mean, way.frames);
    }
    lab.check();
}
