//! Whole histories decoded from bytes, so that seeds, property tests and fuzzers share them: first storm, then calm.
//!
//! Any bytes are a scenario; what is missing reads as zero. A scenario builds a world, lets things go wrong
//! while machines talk, then ends every fault and demands what must hold at rest.

use std::time::Duration;

use super::nat::{Behaviour, Depends};
use super::underlay::SiteId;
use crate::node::LinkBudget;

mod play;

pub use play::Verdict;

/// Kinds of boxes that sites may have, from open to strict.
pub const BOXES: [Option<Behaviour>; 12] = [
    None,
    Some(Behaviour::nat(Depends::Nothing, Depends::Nothing)),
    Some(Behaviour::nat(Depends::Nothing, Depends::Address)),
    Some(Behaviour::port_restricted()),
    Some(Behaviour::port_restricted().random_ports()),
    Some(Behaviour::nat(Depends::Address, Depends::Nothing)),
    Some(Behaviour::nat(Depends::Address, Depends::Address)),
    Some(Behaviour::nat(Depends::Address, Depends::Port)),
    Some(Behaviour::nat(Depends::Port, Depends::Address)),
    Some(Behaviour::symmetric()),
    Some(Behaviour::firewall()),
    Some(Behaviour::bare_masquerade()),
];
/// Members of a scenario, at most.
const MEMBERS_MAX: u8 = 7;
/// Sites of a scenario, at most.
const SITES_MAX: u8 = 5;
/// Faults of a scenario, at most.
const TROUBLES_MAX: u8 = 16;
/// Exchanges between machines, at most.
const TALKS_MAX: u8 = 24;
/// Where the bytes of the sites' MTUs begin: behind everything that was decoded before there were any.
const MTUS_AT: usize = 220;
/// Where the byte of the budget of links is: behind those.
const BUDGET_AT: usize = 225;
/// Links that members keep awake though nothing uses them, at most.
const BUDGETS: [LinkBudget; 4] = [
    LinkBudget { soft: 64, hard: 256 },
    LinkBudget { soft: 1, hard: 256 },
    LinkBudget { soft: 2, hard: 3 },
    LinkBudget { soft: 3, hard: 4 },
];
/// What access links carry.
const MTUS: [usize; 8] = [1500, 1280, 1300, 1400, 1440, 1492, 1500, 9000];
/// The storm's length: `at` of faults and talks is below it.
pub const STORM: Duration = Duration::from_secs(64);

/// A site of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SitePlan {
    /// Which of [`BOXES`].
    pub kind: usize,
    /// Whether it hangs behind a carrier's translator that the scenario's sites share, and whether that has a hairpin.
    pub carrier: Option<bool>,
    /// Of its access link.
    pub delay: Duration,
    /// Whether its LAN has the same addresses as others.
    pub common_lan: bool,
    /// The largest packet of its access link.
    pub mtu: usize,
}

/// A member of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberPlan {
    /// Where.
    pub site: usize,
    /// Of both overlays, or only of the first.
    pub both: bool,
    /// Its machine's VLAN in the first overlay.
    pub vlan: u16,
    /// Whether it registers at the second supernode as well.
    pub two_supernodes: bool,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A member's process dies.
    Kill(usize),
    /// And comes back at once, or starts if it was dead.
    Restart(usize),
    /// A member leaves cleanly.
    Leave(usize),
    /// A member is suspended.
    Suspend(usize),
    /// And wakes up.
    Resume(usize),
    /// Packets from one site to another vanish.
    Cut(usize, usize),
    /// And pass again.
    Mend(usize, usize),
    /// A site's translator reboots; true: with a new address.
    Flush(usize, bool),
    /// A site's access link loses, doubles and reorders by these millionths.
    Worsen(usize, [u32; 3]),
    /// A member moves to another site.
    Migrate(usize, usize),
    /// A member's control links break.
    Break(usize),
    /// A member's control links carry nothing; false: again.
    Stall(usize, bool),
    /// A supernode dies.
    KillSupernode(usize),
    /// And comes back.
    StartSupernode(usize),
    /// A machine moves to another member; true: and says so.
    Move(usize, usize, bool),
    /// Nothing.
    Nothing,
}

/// A machine says something to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Talk {
    /// By its address, in a frame of this payload.
    Ping(usize, usize, usize),
    /// By broadcast.
    Call(usize, usize),
    /// Many frames at once.
    Burst(usize, usize, u16),
}

/// A history to be played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Of the world.
    pub seed: u64,
    /// How many supernodes, 1 or 2.
    pub supernodes: usize,
    /// Where members are.
    pub sites: Vec<SitePlan>,
    /// Who they are.
    pub members: Vec<MemberPlan>,
    /// What goes wrong, and when.
    pub troubles: Vec<(Duration, Trouble)>,
    /// What machines say, and when, each four times.
    pub talks: Vec<(Duration, Talk)>,
    /// Whether members that are dead after the storm stay so.
    pub dead_stay_dead: bool,
    /// How many links members keep awake.
    pub links: LinkBudget,
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(self.next()).checked_rem(end).unwrap_or(0)
    }

    fn at(&mut self) -> Duration {
        STORM * u32::from(self.next()) / 256
    }

    fn count(&mut self, max: u8) -> u8 {
        self.next() % (max + 1)
    }
}

impl Scenario {
    /// What `bytes` say.
    pub fn decode(bytes: &[u8]) -> Self {
        let mtus = bytes.get(MTUS_AT..).unwrap_or_default();
        let links = BUDGETS[bytes.get(BUDGET_AT).map_or(0, |byte| usize::from(*byte) % BUDGETS.len())];
        let mut bytes = Bytes(bytes);
        let seed = (0..4).fold(0, |seed, _| seed << 8 | u64::from(bytes.next()));
        let flags = bytes.next();
        let mut sites: Vec<_> = (0..1 + bytes.count(SITES_MAX - 1)).map(|_| site(&mut bytes)).collect();
        sites.iter_mut().zip(mtus).for_each(|(site, byte)| site.mtu = MTUS[usize::from(*byte) % MTUS.len()]);
        let members: Vec<_> = (0..2 + bytes.count(MEMBERS_MAX - 2)).map(|_| member(&mut bytes, sites.len())).collect();
        let scale = (members.len(), sites.len());
        let troubles = (0..bytes.count(TROUBLES_MAX)).map(|_| (bytes.at(), trouble(&mut bytes, scale))).collect();
        let talks = (0..bytes.count(TALKS_MAX)).map(|_| (bytes.at(), talk(&mut bytes, members.len()))).collect();
        let supernodes = 1 + usize::from(flags & 1);
        Self { seed, supernodes, sites, members, troubles, talks, dead_stay_dead: flags & 2 != 0, links }
    }
}

fn site(bytes: &mut Bytes) -> SitePlan {
    let kind = bytes.below(BOXES.len());
    let flags = bytes.next();
    let carrier = (flags & 0x07 == 0x07).then_some(flags & 0x08 != 0);
    let delay = Duration::from_millis(u64::from(flags >> 4));
    SitePlan { kind, carrier, delay, common_lan: bytes.next() & 1 != 0, mtu: MTUS[0] }
}

fn member(bytes: &mut Bytes, sites: usize) -> MemberPlan {
    let site = bytes.below(sites);
    let flags = bytes.next();
    let vlan = if flags & 4 != 0 { 10 } else { 0 };
    MemberPlan { site, both: flags & 1 != 0, vlan, two_supernodes: flags & 2 != 0 }
}

fn trouble(bytes: &mut Bytes, (members, sites): (usize, usize)) -> Trouble {
    let kind = bytes.next() % 16;
    let (a, b) = (bytes.next(), bytes.next());
    let (member, other) = (usize::from(a) % members, usize::from(b) % members);
    let (site, there) = (usize::from(a) % sites, usize::from(b) % sites);
    let share = |bits: u8| 50_000 * u32::from(bits & 3);
    match kind {
        0 => Trouble::Kill(member),
        1 => Trouble::Restart(member),
        2 => Trouble::Leave(member),
        3 => Trouble::Suspend(member),
        4 => Trouble::Resume(member),
        5 => Trouble::Cut(site, there),
        6 => Trouble::Mend(site, there),
        7 => Trouble::Flush(site, b & 1 != 0),
        8 => Trouble::Worsen(site, [share(b), share(b >> 2), share(b >> 4)]),
        9 => Trouble::Migrate(member, usize::from(b) % sites),
        10 => Trouble::Break(member),
        11 => Trouble::Stall(member, b & 1 == 0),
        12 => Trouble::KillSupernode(usize::from(a)),
        13 => Trouble::StartSupernode(usize::from(a)),
        14 => Trouble::Move(member, other, b & 0x80 != 0),
        _ => Trouble::Nothing,
    }
}

fn talk(bytes: &mut Bytes, members: usize) -> Talk {
    let kind = bytes.next();
    let (from, to) = (bytes.below(members), bytes.below(members));
    match kind % 4 {
        0 | 1 => Talk::Ping(from, to, 17 + 6 * usize::from(kind >> 2) * 4),
        2 => Talk::Call(from, to),
        _ => Talk::Burst(from, to, 10 + u16::from(kind)),
    }
}

/// Where the sites of a scenario stand in its world: after the supernodes' and the carrier's.
fn site_id(scenario: &Scenario, number: usize) -> SiteId {
    SiteId(2 + scenario.supernodes + number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_a_scenario() {
        for len in 0..200 {
            for byte in [0, 1, 7, 0x55, 0xff] {
                let scenario = Scenario::decode(&vec![byte; len]);
                assert!((1..=usize::from(SITES_MAX)).contains(&scenario.sites.len()));
                assert!((2..=usize::from(MEMBERS_MAX)).contains(&scenario.members.len()));
                assert!(scenario.members.iter().all(|member| member.site < scenario.sites.len()));
                assert!(scenario.troubles.iter().all(|(at, _)| *at < STORM));
            }
        }
    }

    #[test]
    fn nothing_is_the_smallest_scenario() {
        let scenario = Scenario::decode(&[]);
        assert_eq!((scenario.sites.len(), scenario.members.len(), scenario.supernodes), (1, 2, 1));
        assert!(scenario.troubles.is_empty() && scenario.talks.is_empty());
    }
}
