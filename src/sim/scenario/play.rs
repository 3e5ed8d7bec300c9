//! Playing a scenario: build, storm, calm, judge.

use std::time::Duration;

use super::{BOXES, STORM, Scenario, Talk, Trouble, site_id};
use crate::sim::host::HostSpec;
use crate::sim::kernel::Stream;
use crate::sim::nat::Behaviour;
use crate::sim::traffic::{FrameId, OverlayNo, VmId};
use crate::sim::underlay::{HostId, SiteSpec};
use crate::sim::world::World;
use crate::sim::{Conditions, oracle::Way};
use crate::time::Time;
use crate::wire::carry::RelayFor;

/// How often each talk is repeated, and how long apart.
const REPEATS: u32 = 4;
const REPEAT_AFTER: Duration = Duration::from_millis(700);
/// Faults are over; by then peers and supernodes agree on who is there (a peer is gone after 65 s of silence).
const SETTLING: Duration = Duration::from_secs(75);
/// Punching is tried again at 5 s, 33 s, 2 min and 10 min after a failure.
const SETTLE_LIMIT: Duration = Duration::from_secs(800);
/// A ping over any path takes less than this at rest.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Without traffic for this long before the quiet is measured: pairs that cannot be direct try only every
/// ten minutes by then.
const BEFORE_QUIET: Duration = Duration::from_secs(240);
const QUIET: Duration = Duration::from_secs(100);

/// What a scenario came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What was wrong; nothing if all laws held.
    pub wrong: Vec<String>,
    /// Fingerprint of the history.
    pub trace: u64,
}

struct Play<'a> {
    scenario: &'a Scenario,
    world: World,
    supernodes: Vec<HostId>,
    members: Vec<HostId>,
    vms: Vec<VmId>,
}

impl Scenario {
    /// Plays it to its end, or until a law is broken.
    pub fn play(&self) -> Verdict {
        let mut play = Play::build(self);
        play.storm();
        let wrong = play.judge();
        Verdict { wrong, trace: play.world.trace() }
    }
}

impl<'a> Play<'a> {
    fn build(scenario: &'a Scenario) -> Self {
        let mut world = World::new(scenario.seed);
        let overlays = [world.overlay("lab"), world.overlay("office")];
        let carriers = [false, true].map(|hairpin| {
            let behaviour = Some(Behaviour { hairpin, ..Behaviour::port_restricted() });
            world.site(SiteSpec { behaviour, ..SiteSpec::default() })
        });
        let supernodes: Vec<_> = (0..scenario.supernodes).map(|n| world.supernode(&format!("s{n}"))).collect();
        for plan in &scenario.sites {
            let carrier = plan.carrier.map(|hairpin| carriers[usize::from(hairpin)]);
            let lan = plan.common_lan.then_some(1);
            let conditions = Conditions { delay: plan.delay, mtu: plan.mtu, ..Conditions::default() };
            let behaviour = match BOXES[plan.kind] {
                Some(behaviour) if behaviour.translates => Some(behaviour),
                _ if carrier.is_some() => Some(Behaviour::port_restricted()),
                open => open,
            };
            world.site(SiteSpec { behaviour, carrier, lan, conditions, ipv6: false });
        }
        let mut play = Self { scenario, world, supernodes, members: Vec::new(), vms: Vec::new() };
        (0..scenario.members.len()).for_each(|number| play.join(number, overlays));
        play
    }

    fn join(&mut self, number: usize, overlays: [OverlayNo; 2]) {
        let plan = self.scenario.members[number];
        let mut spec = HostSpec::new(site_id(self.scenario, plan.site), &format!("n{number}"))
            .member(overlays[0])
            .keeping(self.scenario.links);
        if plan.both {
            spec = spec.member(overlays[1]);
        }
        // Few members, deep trees all the same.
        spec = spec.fanning_out(1 + number % 3);
        spec = spec.at(self.world.as_supernode(self.supernodes[0]));
        if plan.two_supernodes && self.supernodes.len() > 1 {
            spec = spec.at(self.world.as_supernode(self.supernodes[1]));
        }
        if number % 2 == 1 {
            spec = spec.relaying(RelayFor::Everyone);
        }
        let host = self.world.host(spec);
        self.members.push(host);
        let mac = [2, 0, 0, 0, 0, u8::try_from(number).unwrap_or(u8::MAX)];
        self.vms.push(self.world.vm(host, overlays[0], mac, plan.vlan));
        if plan.both {
            self.world.vm(host, overlays[1], mac, 0);
        }
    }

    fn storm(&mut self) {
        let scenario = self.scenario;
        let mut acts: Vec<(Duration, Act)> = scenario.troubles.iter().map(|(at, t)| (*at, Act::Trouble(*t))).collect();
        for (at, talk) in &scenario.talks {
            acts.extend((0..REPEATS).map(|turn| (*at + REPEAT_AFTER * turn, Act::Talk(*talk))));
        }
        acts.sort_by_key(|(at, _)| *at);
        for (at, act) in acts {
            self.world.run_until(Time::START + at);
            match act {
                Act::Trouble(trouble) => self.trouble(trouble),
                Act::Talk(talk) => self.talk(talk),
            }
            if !self.world.violations().is_empty() {
                return;
            }
        }
        self.world.run_until(Time::START + STORM);
    }

    fn trouble(&mut self, trouble: Trouble) {
        let (world, members) = (&mut self.world, &self.members);
        let site = |number| site_id(self.scenario, number);
        let supernode = |number: usize| self.supernodes[number % self.supernodes.len()];
        match trouble {
            Trouble::Kill(member) => world.kill(members[member]),
            Trouble::Restart(member) => world.restart(members[member]),
            Trouble::Leave(member) => world.leave(members[member]),
            Trouble::Suspend(member) => world.suspend(members[member]),
            Trouble::Resume(member) => world.resume(members[member]),
            Trouble::Cut(from, to) => world.cut(site(from), site(to)),
            Trouble::Mend(from, to) => world.mend(site(from), site(to)),
            Trouble::Flush(number, readdress) => world.flush_nat(site(number), readdress),
            Trouble::Worsen(number, [loss, duplication, reordering]) => {
                world.worsen(site(number), |now| *now = Conditions { loss, duplication, reordering, ..*now });
            }
            Trouble::Migrate(member, to) => world.migrate(members[member], site(to)),
            Trouble::Break(member) => world.break_links(members[member]),
            Trouble::Stall(member, stalled) => world.stall_links(members[member], stalled),
            Trouble::KillSupernode(number) => world.kill(supernode(number)),
            Trouble::StartSupernode(number) => world.start(supernode(number)),
            Trouble::Move(vm, to, says_so) => {
                world.move_vm(self.vms[vm], members[to]);
                if says_so {
                    world.announce(self.vms[vm]);
                }
            }
            Trouble::Nothing => {}
        }
    }

    fn talk(&mut self, talk: Talk) {
        match talk {
            Talk::Ping(from, to, payload) => {
                self.world.ping(self.vms[from], self.vms[to], payload.min(1500));
            }
            Talk::Call(from, to) => {
                self.world.call(self.vms[from], self.vms[to]);
            }
            Talk::Burst(from, to, count) => {
                let stream = if count % 2 == 0 { Stream::Tcp } else { Stream::Udp };
                self.world.stream(self.vms[from], self.vms[to], stream, usize::from(count), 1000);
            }
        }
    }

    /// Ends the storm and says what does not hold then.
    fn judge(&mut self) -> Vec<String> {
        if self.world.violations().is_empty() {
            let wrong = self.calm();
            if self.world.violations().is_empty() {
                return wrong;
            }
        }
        self.world.violations().to_vec()
    }

    fn calm(&mut self) -> Vec<String> {
        self.world.calm();
        self.supernodes.clone().into_iter().for_each(|host| self.world.start(host));
        if !self.scenario.dead_stay_dead {
            self.members.clone().into_iter().for_each(|host| self.world.start(host));
        }
        self.world.run_for(SETTLING);
        self.announce_all();
        if let Err(wrong) = self.world.settle(SETTLE_LIMIT) {
            return wrong;
        }
        let mut wrong = self.floods();
        wrong.extend(self.pings());
        self.world.run_for(BEFORE_QUIET);
        wrong.extend(self.world.chatter(QUIET));
        wrong.extend(self.world.unsettled());
        wrong
    }

    fn all_vms(&self) -> Vec<VmId> {
        (0..self.vms.len())
            .map(|n| self.vms[n])
            .filter(|vm| self.world.is_awake(self.world.vm_state(*vm).host))
            .collect()
    }

    fn announce_all(&mut self) {
        for vm in self.all_vms() {
            self.world.announce(vm);
        }
    }

    /// A broadcast of every machine reaches each other live member exactly once, unless there is no way.
    fn floods(&mut self) -> Vec<String> {
        let frames: Vec<FrameId> = self.all_vms().into_iter().map(|vm| self.world.broadcast(vm)).collect();
        self.world.run_for(ANSWER_LIMIT);
        if self.some_are_apart() {
            return Vec::new();
        }
        frames.into_iter().flat_map(|frame| self.world.missed(frame)).collect()
    }

    /// Machines of one VLAN answer each other.
    fn pings(&mut self) -> Vec<String> {
        let vms = self.all_vms();
        let mut pings = Vec::new();
        for (a, b) in vms.iter().flat_map(|a| vms.iter().map(move |b| (*a, *b))) {
            if a != b && self.world.vm_state(a).vlan == self.world.vm_state(b).vlan {
                pings.push((a, b, self.world.ping(a, b, 1000)));
                self.world.run_for(Duration::from_millis(20));
            }
        }
        self.world.run_for(ANSWER_LIMIT);
        if self.some_are_apart() {
            return Vec::new();
        }
        let lost = pings.into_iter().filter(|(_, _, ping)| self.world.sent(*ping).answered.is_none());
        lost.map(|(a, b, _)| format!("{a:?} at rest gets no answer from {b:?}")).collect()
    }

    /// Whether two members have no way to each other by right.
    fn some_are_apart(&self) -> bool {
        let apart = |(a, b, _)| self.world.expected(a, b) != Way::Direct && !self.world.have_relay(a, b);
        self.world.pairs().into_iter().any(apart)
    }
}

#[derive(Clone, Copy)]
enum Act {
    Trouble(Trouble),
    Talk(Talk),
}
