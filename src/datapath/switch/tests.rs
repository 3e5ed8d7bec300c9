use std::collections::BTreeSet;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::*;
use crate::datapath::fdb::AGEING;
use crate::datapath::rules::{Pattern, Rule};

/// Nodes of the little world; node `n` is behind port `n + 1` of all the others.
const NODES: usize = 4;
/// Machines' addresses in it.
const MACHINES: usize = 3;
/// Worlds tried.
const WORLDS: usize = 1_000_000;
/// Legs of one frame, where every hop of it goes through a relay.
const LEGS_PER_HOP: u32 = 2;

struct Dice(ChaCha8Rng);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.0.next_u32()).unwrap_or(0) % end
    }
}

fn port(node: usize) -> PortId {
    PortId(u32::try_from(node + 1).expect("a few nodes"))
}

fn node(port: PortId) -> usize {
    usize::try_from(port.0).expect("a few nodes") - 1
}

fn mac(number: usize) -> Mac {
    Mac([2, 0, 0, 0, 0, u8::try_from(number + 1).expect("a few machines")])
}

fn frame(dst: Mac, src: Mac) -> Vec<u8> {
    [&dst.0[..], &src.0, &[0x88, 0xb6], &[0; 46]].concat()
}

/// A switch for each node, with tables that contradict each other in any way.
struct World {
    switches: Vec<Switch>,
    delivered: [u32; NODES],
}

impl World {
    fn new() -> Self {
        let switch = |own: usize| {
            let mut switch = Switch::new([1, 2, 3, 4], SwitchSettings::default());
            switch.ports = (0..NODES).filter(|other| *other != own).map(port).collect();
            switch
        };
        Self { switches: (0..NODES).map(switch).collect(), delivered: [0; NODES] }
    }

    fn shuffle(&mut self, dice: &mut Dice, (old, now): (Time, Time)) {
        for (own, switch) in self.switches.iter_mut().enumerate() {
            switch.news.clear();
            std::iter::once(TAP).chain((0..NODES).map(port)).for_each(|port| switch.fdb.flush_port(port));
            for number in 0..MACHINES {
                let address = Address { vlan: 0, mac: mac(number) };
                let place = dice.below(NODES + 1);
                let owner = if place == own || place == NODES { TAP } else { port(place) };
                // Some are known no more, some have just left, some belong nowhere.
                let heard = if dice.below(4) == 0 { old } else { now };
                switch.fdb.assign(heard, address, owner, 0);
                match dice.below(3) {
                    0 => switch.moves.leave(now, address, TAP),
                    1 => switch.moves.claim(now, address, TAP),
                    _ => {}
                }
            }
            switch.gate = match dice.below(6) {
                0 => Gate::Held,
                1 => {
                    let with = BTreeSet::from([port((own + 1) % NODES)]);
                    Gate::Shared { with, stands_by: dice.below(2) == 0 }
                }
                _ => Gate::Open,
            };
            switch.rules = Rules::new(&rules(own, dice), None);
        }
        self.delivered = [0; NODES];
    }

    /// A frame arrives at `at` from the peer `from`. Answers its hops until it ends.
    fn arrive(&mut self, now: Time, at: usize, (from, kind): (usize, FrameKind), bytes: &[u8]) -> u32 {
        let header = Header::parse(bytes).expect("a frame");
        match self.switches[at].judge_inbound(now, (port(from), kind), bytes, &header) {
            Verdict::Forward(TAP) => self.delivered[at] += 1,
            Verdict::SendOn(to) => {
                assert_eq!(kind, FrameKind::Direct, "only what came straight is sent on");
                assert_ne!(node(to), from, "and never back");
                return 1 + self.arrive(now, node(to), (at, FrameKind::Moved), bytes);
            }
            Verdict::Forward(_)
            | Verdict::Flood
            | Verdict::Group
            | Verdict::Ruled
            | Verdict::Answered
            | Verdict::Ask(_) => {
                panic!("a frame of a peer's goes to the TAP or ends")
            }
            Verdict::Drop(_) => {}
        }
        1
    }
}

/// Up to three static rules, of which some contradict each other; none in half of the worlds.
fn rules(own: usize, dice: &mut Dice) -> Vec<Rule> {
    let count = if dice.below(2) == 0 { 0 } else { 1 + dice.below(3) };
    let mut pattern = || match dice.below(4) {
        0 => Pattern::Any,
        1 => Pattern::Not(mac(dice.below(MACHINES))),
        2 => Pattern::Prefix(mac(0), 40),
        _ => Pattern::Prefix(mac(dice.below(MACHINES)), 48),
    };
    let patterns = (0..count).map(|_| (pattern(), pattern())).collect::<Vec<_>>();
    let mut action = || match dice.below(6) {
        0 => Action::Drop,
        1 => Action::Here,
        2 => Action::Learned(RuleWay::Supernode),
        _ => Action::To(port((own + 1 + dice.below(NODES - 1)) % NODES), RuleWay::Usual),
    };
    let rule = |(id, (src, dst)): (u32, (Pattern, Pattern))| Rule { id, src, dst, prio: 0, action: action() };
    (0..).zip(patterns).map(rule).collect()
}

#[test]
fn whatever_tables_and_rules_say_no_frame_makes_more_than_two_hops_or_comes_out_twice() {
    let mut dice = Dice(ChaCha8Rng::from_seed([7; 32]));
    let mut world = World::new();
    let (mut most, mut sent_on, mut delivered, mut ruled) = (0, 0, 0, 0);
    for number in 0..WORLDS {
        let old = Time::START + Duration::from_millis(2) * u32::try_from(number).expect("a million");
        let now = old + AGEING;
        world.shuffle(&mut dice, (old, now));
        let (from, dst) = (dice.below(NODES), mac(dice.below(MACHINES)));
        let bytes = frame(dst, mac(dice.below(MACHINES)));
        let header = Header::parse(&bytes).expect("a frame");
        let (ways, is_flood) = match world.switches[from].judge_outbound(now, &bytes, &header, bytes.len()) {
            Verdict::Forward(to) | Verdict::Ask(to) => (vec![(node(to), FrameKind::Direct)], false),
            Verdict::Flood => {
                let others = (0..NODES).filter(|to| *to != from);
                (others.map(|to| (to, FrameKind::Copy)).collect(), true)
            }
            Verdict::Ruled => {
                let hops = &world.switches[from].hops;
                ruled += 1;
                let kind = if hops.len() > 1 { FrameKind::Copy } else { FrameKind::Direct };
                (hops.iter().map(|hop| (node(hop.port), kind)).collect(), hops.len() > 1)
            }
            // And what no honest node sends: any kind, to anybody.
            Verdict::SendOn(_) | Verdict::Group | Verdict::Answered | Verdict::Drop(_) => {
                let kinds = [FrameKind::Direct, FrameKind::Copy, FrameKind::Moved];
                (vec![((from + 1 + dice.below(NODES - 1)) % NODES, kinds[dice.below(3)])], false)
            }
        };
        for (to, kind) in ways {
            let hops = world.arrive(now, to, (from, kind), &bytes);
            most = most.max(hops);
            sent_on += hops - 1;
        }
        let total: u32 = world.delivered.iter().sum();
        delivered += total;
        assert!(world.delivered.iter().all(|count| *count <= 1), "twice at one node");
        assert!(is_flood || total <= 1, "one frame came out at {total} nodes");
    }
    assert_eq!(most, 2, "so {} legs where every hop is relayed", most * LEGS_PER_HOP);
    assert!(sent_on > 1_000 && delivered > 100_000, "the worlds were worth trying: {sent_on} {delivered}");
    assert!(ruled > 100_000, "and so were the rules: {ruled}");
}
