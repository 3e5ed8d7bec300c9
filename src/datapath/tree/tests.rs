use std::collections::BTreeSet;
use std::net::SocketAddr;

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::*;
use crate::datapath::buf::{Datagrams, Frames, Origin};
use crate::datapath::frame::Mac;
use crate::datapath::layout::tests::udp4;
use crate::datapath::offload::Virtio;
use crate::datapath::seal::SessionKeys;
use crate::datapath::segment::tests::USO4;
use crate::datapath::{Command, Path, SwitchSettings};
use crate::wire::handshake::Suite;

const NOW: Time = Time::START;
const OVERLAY: OverlayIndex = OverlayIndex(0);
const FRAME_LEN: usize = 60;
/// An ordinary broadcast.
const SPREAD: (FrameKind, Checksum) = (FrameKind::Direct, Checksum::Finished);

struct Dice(ChaCha8Rng);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.0.next_u32()).expect("32 bits") % end
    }

    fn hits(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A few members with nothing but corridors.
struct World {
    members: Vec<Datapath>,
    delivered: Vec<usize>,
    copies: Vec<usize>,
}

fn port(member: usize) -> PortId {
    PortId(u32::try_from(member + 1).expect("a few members"))
}

fn address(member: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(member).expect("a few members")], 7777))
}

fn short(member: usize) -> ShortId {
    ShortId(u32::try_from(member).expect("a few members") * 0x0101_0101)
}

impl World {
    /// Members at up to four sites, none of which knows another one.
    fn new(count: usize, fan_out: usize, dice: &mut Dice) -> Self {
        let mut members = Vec::new();
        for member in 0..count {
            let station = Mac([2, 9, 0, 0, 0, u8::try_from(member).expect("a few members")]);
            let settings = SwitchSettings { fan_out, station, short: short(member), ..SwitchSettings::default() };
            let mut datapath = Datapath::new(&[settings], &mut dice.0);
            datapath.set_site(OVERLAY, TAP, Site(dice.below(4) as u64));
            members.push(datapath);
        }
        Self { members, delivered: vec![0; count], copies: vec![0; count] }
    }

    /// The one is told of the other, which is taken for a member of this site.
    fn introduce(&mut self, at: usize, other: usize, site: u64) {
        let member = &mut self.members[at];
        member.handle_command(NOW, Command::OpenPort { port: port(other), overlay: OVERLAY, short: short(other) });
        member.set_site(OVERLAY, port(other), Site(site));
    }

    /// Both have keys.
    fn join(&mut self, a: usize, b: usize, trees: bool) {
        let key = |from: usize, to: usize| std::array::from_fn(|at| [from, to][at % 2].to_le_bytes()[0]);
        let index = |member: usize| port(member).0;
        for (own, other) in [(a, b), (b, a)] {
            let keys = SessionKeys {
                suite: Suite::StandIn,
                send: key(own, other),
                receive: key(other, own),
                local_index: index(other),
                remote_index: index(own),
                streams: true,
            };
            let (port, path) = (port(other), Some(Path::Direct(address(other))));
            let member = &mut self.members[own];
            member.handle_command(NOW, Command::SetAbilities { port, follows: true, trees });
            member.handle_command(NOW, Command::Install { port, keys, confirmed: true });
            member.handle_command(NOW, Command::UsePath { port, path });
        }
    }

    /// A broadcast out of the TAP of `root`, and everything that comes of it.
    fn broadcast(&mut self, root: usize) {
        let [high, low] = u16::try_from(root).expect("a few members").to_be_bytes();
        let mut frame = [&[0xff; 6][..], &[2, 0, 0, 0, high, low], &[0x88, 0xb6]].concat();
        frame.resize(FRAME_LEN, 7);
        let mut frames = Frames::default();
        frames.push(&frame, Virtio::default());
        self.members[root].handle_frames(NOW, OVERLAY, &frames);
        let mut under_way = self.take(root);
        while let Some((from, to, packet)) = under_way.pop() {
            let mut datagrams = Datagrams::default();
            datagrams.push(&packet, Origin { from: address(from), to: None, stride: packet.len() });
            self.members[to].handle_datagrams(NOW, &mut datagrams);
            under_way.extend(self.take(to));
        }
    }

    fn take(&mut self, member: usize) -> Vec<(usize, usize, Vec<u8>)> {
        while self.members[member].poll_notice().is_some() {}
        let (transmits, deliveries) = self.members[member].take_batches(Default::default());
        self.delivered[member] += deliveries.len();
        self.copies[member] += transmits.len();
        let to = |addr: SocketAddr| (0..self.members.len()).find(|to| address(*to) == addr).expect("a member");
        transmits.iter().map(|(packet, target)| (member, to(target.to), packet.to_vec())).collect()
    }

    fn sum(&self, count: impl Fn(&Datapath) -> u64) -> u64 {
        self.members.iter().map(count).sum()
    }
}

/// All know each other.
fn whole(count: usize, fan_out: usize, seed: u64) -> World {
    let mut dice = Dice::new(seed);
    let mut world = World::new(count, fan_out, &mut dice);
    for (a, b) in (0..count).flat_map(|a| (0..count).map(move |b| (a, b))).filter(|(a, b)| a != b) {
        // They may well take each other for members of other sites than they are.
        world.introduce(a, b, dice.below(4) as u64);
    }
    for (a, b) in (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))) {
        world.join(a, b, true);
    }
    world
}

fn leaves(count: u32, sites: u32) -> Vec<Leaf> {
    let leaf = |number: u32| {
        let site = Site(u64::from(number * sites / count) + 1);
        let trust = [Trust::Leads, Trust::Awake, Trust::Asleep][number as usize % 3];
        Leaf { site, short: ShortId(number), port: PortId(number + 1), trust }
    };
    (0..count).map(leaf).collect()
}

/// Hands a list on until it is empty. Answers the most copies of one member, the most hops, and how often each was reached.
fn play(leaves: &[Leaf], room: usize) -> (usize, u8, Vec<usize>) {
    let (mut most, mut depth, mut reached) = (0, 0, vec![0; leaves.len()]);
    let mut lists = vec![(leaves.to_vec(), 0, Site::default())];
    while let Some((list, level, home)) = lists.pop() {
        if list.is_empty() {
            continue;
        }
        let shares = Cut { fan_out: FAN_OUT, room, home: Some(home).filter(|_| level < SITE_LEVELS) }.divide(&list);
        most = most.max(shares.len());
        for share in shares {
            let mut share = list[share].to_vec();
            let head = share.remove(head(&share, 7));
            assert!(share.len() <= room, "{} of {room}", share.len());
            reached[usize::try_from(head.short.0).expect("small")] += 1;
            depth = depth.max(level + 1);
            lists.push((share, level + 1, head.site));
        }
    }
    (most, depth, reached)
}

#[test]
fn a_full_overlay_is_reached_within_eight_hops_by_eight_copies_of_each_member() {
    let room = room(FRAME_LEN).expect("a short frame");
    for count in [9, 10, 73, 100, 999, 4_096] {
        for sites in [1, 2, 7, 20, 100, 4_096] {
            let (most, depth, reached) = play(&leaves(count, sites), room);
            assert!(most <= FAN_OUT && depth <= HOPS_MAX, "{count} at {sites} sites: {most} copies, {depth} hops");
            assert!(reached.iter().all(|times| *times == 1), "{count} at {sites} sites");
        }
    }
}

#[test]
fn lists_fit_before_the_longest_frames_too() {
    let room = room(1_522).expect("a full frame");
    let (most, depth, reached) = play(&leaves(4_096, 20), room);
    assert!(most <= 4_096_usize.div_ceil(room) && depth <= HOPS_MAX, "{most} copies, {depth} hops");
    assert!(reached.iter().all(|times| *times == 1));
    assert_eq!(super::room(ROOM), None);
}

#[test]
fn a_site_is_entered_once_on_the_first_levels() {
    let list = leaves(100, 5);
    let shares = Cut { fan_out: FAN_OUT, room: 500, home: Some(Site(3)) }.divide(&list);
    let entered = |site: u64| {
        let holds = |share: &&Range<usize>| list[(*share).clone()].iter().any(|leaf| leaf.site == Site(site));
        shares.iter().filter(holds).count()
    };
    for site in [1, 2, 4, 5] {
        assert_eq!(entered(site), 1, "site {site}");
    }
    assert!(entered(3) > 1, "our own is divided");
}

#[test]
fn a_short_id_that_two_members_have_names_nobody() {
    let mut trees = Trees::default();
    trees.open(ShortId(7), PortId(1));
    trees.open(ShortId(8), PortId(2));
    assert_eq!((trees.find(ShortId(7)), trees.find(ShortId(9))), (Some(PortId(1)), None));
    trees.open(ShortId(7), PortId(3));
    assert_eq!(trees.find(ShortId(7)), None);
    trees.close(ShortId(7), PortId(1));
    assert_eq!(trees.find(ShortId(7)), Some(PortId(3)));
}

#[test]
fn a_member_that_others_cannot_reach_is_served_by_the_root_and_later_without_a_detour() {
    let mut world = World::new(12, 2, &mut Dice::new(1));
    for (a, b) in (0..12).flat_map(|a| (0..12).map(move |b| (a, b))).filter(|(a, b)| a != b) {
        world.introduce(a, b, 0);
    }
    // The last one has keys with the root alone.
    for (a, b) in (0..12).flat_map(|a| (a + 1..12).map(move |b| (a, b))).filter(|(a, b)| *a == 0 || *b != 11) {
        world.join(a, b, true);
    }
    for times in 1..=3 {
        world.broadcast(0);
        assert_eq!(world.delivered[1..], [times; 11]);
        assert_eq!(world.sum(|member| member.stats(OVERLAY).given_back), 1, "only the first one");
    }
}

/// A TREE frame of member 0's, with a list.
fn tree(is_returned: bool, root: usize, list: &[ShortId], frame: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let head = Head { is_returned, hops: HOPS_MAX, root: short(root) };
    tree::write(&mut bytes, head, list.iter().copied(), frame);
    bytes
}

fn frame(number: u8) -> Vec<u8> {
    [&[0xff; 6][..], &[2, 0, 0, 0, 0, number], &[0x88, 0xb6], &[number; 46]].concat()
}

#[test]
fn a_list_that_no_honest_member_makes_is_divided_by_nobody() {
    let mut world = whole(12, 2, 1);
    let list = (2..12).map(short).collect::<Vec<_>>();
    for (long, copies) in [(ROOM - HEAD_LEN - 40, 2), (ROOM - HEAD_LEN - 39, 0)] {
        let mut frame = frame(0);
        frame.resize(long, 7);
        world.members[1].branch(NOW, (OVERLAY, port(0)), Checksum::Finished, &tree(false, 0, &list, &frame));
        let (transmits, _) = world.members[1].take_batches(Default::default());
        let to = transmits.iter().map(|(_, target)| target.to).collect::<BTreeSet<_>>();
        assert_eq!(to.len(), copies, "{long} bytes");
    }
}

#[test]
fn nobody_makes_a_root_say_what_it_has_not_said() {
    let mut world = whole(12, 2, 1);
    let list = [short(2), short(2), short(0)];
    world.members[1].branch(NOW, (OVERLAY, port(0)), Checksum::Finished, &tree(true, 1, &list, &frame(1)));
    assert!(world.take(1).is_empty());
    world.members[1].spread(NOW, (OVERLAY, &(2..12).map(port).collect::<Vec<_>>()), &[&frame(1)[..]], SPREAD);
    assert!(!world.take(1).is_empty());
    world.members[1].branch(NOW, (OVERLAY, port(0)), Checksum::Finished, &tree(true, 1, &list, &frame(1)));
    assert_eq!(world.take(1).len(), 1, "once, and not to who gave it back");
}

#[test]
fn who_sends_too_much_silences_nobody_else() {
    let mut world = whole(12, 2, 1);
    let list = [short(2)];
    let mut handed_on = 0;
    for _ in 0..2 * BRANCH_BURST {
        world.members[1].branch(NOW, (OVERLAY, port(0)), Checksum::Finished, &tree(false, 0, &list, &frame(0)));
        handed_on += world.take(1).len();
    }
    assert_eq!(handed_on, BRANCH_BURST as usize);
    assert_eq!(world.delivered[1], 2 * BRANCH_BURST as usize, "our own machines hear it all");
    world.members[1].branch(NOW, (OVERLAY, port(3)), Checksum::Finished, &tree(false, 3, &list, &frame(3)));
    assert_eq!(world.take(1).len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn where_all_know_each_other_all_get_it_once_and_nobody_sends_many(
        (count, fan_out, seed) in (2_usize..30, 1_usize..9, any::<u64>()),
    ) {
        let mut world = whole(count, fan_out, seed);
        let root = Dice::new(seed).below(count);
        world.broadcast(root);
        let expected = (0..count).map(|member| usize::from(member != root)).collect::<Vec<_>>();
        // Chains of single members may be longer than a frame travels: then the root serves those behind.
        let is_deep = world.sum(|member| member.stats(OVERLAY).given_back) > 0;
        prop_assert!(!is_deep || fan_out == 1);
        prop_assert_eq!(&world.delivered, &expected);
        let most = world.copies.iter().max().copied().unwrap_or(0);
        prop_assert!(most <= fan_out || is_deep, "{} copies", most);
    }

    #[test]
    fn whatever_they_know_nobody_gets_it_twice_and_those_whom_all_know_get_it(
        (count, know, meet, seed) in (2_usize..24, 0_usize..100, 0_usize..100, any::<u64>()),
    ) {
        let mut dice = Dice::new(seed);
        let fan_out = 1 + dice.below(4);
        let mut world = World::new(count, fan_out, &mut dice);
        let (mut known, mut met) = (BTreeSet::new(), BTreeSet::new());
        for (a, b) in (0..count).flat_map(|a| (0..count).map(move |b| (a, b))).filter(|(a, b)| a != b) {
            // The root is everybody's neighbour.
            if a == 0 || b == 0 || dice.hits(know) {
                known.insert((a, b));
                world.introduce(a, b, dice.below(4) as u64);
            }
        }
        for (a, b) in (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))) {
            let has_room = known.contains(&(a, b)) && known.contains(&(b, a));
            if has_room && (a == 0 || dice.hits(meet)) {
                met.insert((a, b));
                let trees = dice.hits(90);
                world.join(a, b, trees);
            }
        }
        world.broadcast(0);
        prop_assert_eq!(world.delivered[0], 0);
        prop_assert_eq!(&world.delivered[1..], vec![1; count - 1]);
        let sent = world.copies.iter().sum::<usize>();
        let given_back = usize::try_from(world.sum(|member| member.stats(OVERLAY).given_back)).unwrap_or(0);
        prop_assert!((count - 1..count + given_back).contains(&sent), "{} copies", sent);
        // Whoever else sends reaches nobody twice.
        let before = world.delivered.clone();
        let root = dice.below(count);
        world.broadcast(root);
        prop_assert_eq!(world.delivered[root], before[root]);
        prop_assert!(world.delivered.iter().zip(&before).all(|(after, before)| after - before <= 1));
    }
}

#[test]
fn a_superframe_for_all_leaves_as_one_run_to_each_receiver() {
    let mut frame = udp4(&[1; 250]);
    frame[..6].fill(0xff);
    let mut frames = Frames::default();
    frames.push(&frame, USO4);
    for fan_out in [FAN_OUT, 2] {
        let mut world = whole(6, fan_out, 1);
        world.members[0].handle_frames(NOW, OVERLAY, &frames);
        let to = world.take(0).iter().map(|(_, to, _)| *to).collect::<Vec<_>>();
        let runs = to.chunk_by(|one, next| one == next).map(<[usize]>::len).collect::<Vec<_>>();
        let receivers = to.iter().collect::<BTreeSet<_>>().len();
        assert_eq!(runs, vec![3; receivers], "all segments to one, then all to the next");
        assert!(if fan_out == FAN_OUT { receivers == 5 } else { (1..5).contains(&receivers) }, "{receivers}");
    }
}
