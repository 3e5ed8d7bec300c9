use std::collections::BTreeMap;

use super::*;
use crate::datapath::frame::Header;
use crate::datapath::layout::Layout;
use crate::wire::data::Checksum;

const OUT: Side = Side::Out(PortId(7));

fn mac(number: usize) -> Mac {
    let [.., high, middle, low] = number.to_be_bytes();
    Mac([2, 0, 0, high, middle, low])
}

fn frame(from: usize, to: usize, len: usize) -> Vec<u8> {
    let head = [mac(to).0, mac(from).0].concat();
    head.into_iter().chain([8, 0]).chain(std::iter::repeat(0)).take(len).collect()
}

fn one(bytes: u64) -> Volume {
    Volume { frames: 1, bytes }
}

fn of(counted: &[(MacPair, Volume)], from: usize, to: usize) -> Option<Volume> {
    let pair = MacPair { from: mac(from), to: mac(to), side: OUT };
    counted.iter().find(|(other, _)| *other == pair).map(|(_, volume)| *volume)
}

#[test]
fn each_direction_is_counted_exactly_and_a_window_once() {
    let mut pairs = Pairs::new([1, 2, 3, 4]);
    for _ in 0..3 {
        pairs.count(OUT, &frame(1, 2, 100), one(100));
    }
    pairs.count(OUT, &frame(2, 1, 60), one(60));
    let counted = pairs.take();
    assert_eq!(of(&counted, 1, 2), Some(Volume { frames: 3, bytes: 300 }));
    assert_eq!(of(&counted, 2, 1), Some(one(60)));
    assert_eq!(pairs.take(), []);
}

#[test]
fn runs_of_a_pair_are_told_apart_in_every_window() {
    let mut pairs = Pairs::new([1, 2, 3, 4]);
    for runs in [[(1, 2), (3, 4), (1, 2)], [(3, 4), (1, 2), (3, 4)], [(5, 6), (5, 6), (5, 6)]] {
        let mut expected = BTreeMap::<_, u64>::new();
        for ((from, to), frames) in runs.into_iter().zip([3, 1, 2]) {
            (0..frames).for_each(|_| pairs.count(OUT, &frame(from, to, 60), one(60)));
            *expected.entry((from, to)).or_default() += frames;
        }
        let counted = pairs.take();
        assert_eq!(counted.len(), expected.len());
        for ((from, to), frames) in expected {
            assert_eq!(of(&counted, from, to), Some(Volume { frames, bytes: 60 * frames }));
        }
    }
}

#[test]
fn what_another_lane_put_where_the_last_pair_was_is_left_alone() {
    let (mut first, mut further) = (Pairs::new([1, 2, 3, 4]), Pairs::new([5, 6, 7, 8]));
    first.count(OUT, &frame(1, 2, 100), one(100));
    first.take();
    further.count(OUT, &frame(3, 4, 70), one(70));
    first.add(&further.take());
    first.count(OUT, &frame(1, 2, 100), one(100));
    let counted = first.take();
    assert_eq!((of(&counted, 1, 2), of(&counted, 3, 4)), (Some(one(100)), Some(one(70))));
}

#[test]
fn the_two_sides_are_told_apart_and_say_whose_machine_it_is() {
    let mut pairs = Pairs::new([1, 2, 3, 4]);
    pairs.count(Side::In(PortId(9)), &frame(1, 2, 100), one(100));
    pairs.count(OUT, &frame(1, 2, 100), one(100));
    let counted = pairs.take().into_iter().map(|(pair, _)| (pair.own(), pair.port())).collect::<Vec<_>>();
    assert_eq!(counted, [(mac(2), PortId(9)), (mac(1), PortId(7))]);
}

#[test]
fn what_is_for_a_group_or_too_short_is_not_counted() {
    let mut pairs = Pairs::new([1, 2, 3, 4]);
    let mut broadcast = frame(1, 2, 60);
    broadcast[..6].fill(0xff);
    pairs.count(OUT, &broadcast, one(60));
    pairs.count(OUT, &[2; 11], one(11));
    assert_eq!(pairs.take(), []);
}

#[test]
fn what_is_large_is_found_among_more_pairs_than_are_counted() {
    let mut pairs = Pairs::new([1, 2, 3, 4]);
    // The table is full before the elephant comes.
    (0..EXACT_MAX).for_each(|number| pairs.count(OUT, &frame(number, 9_000_000, 64), one(64)));
    for round in 0..64_000 {
        pairs.count(OUT, &frame(100_000 + round, 9_000_001, 64), one(64));
        pairs.count(OUT, &frame(7_000_000, 7_000_001, 1514), one(1514));
    }
    let counted = pairs.take();
    assert!(counted.len() <= EXACT_MAX + SAMPLED_MAX);
    let found = of(&counted, 7_000_000, 7_000_001).expect("the elephant");
    let off = found.bytes as f64 / (64_000.0 * 1514.0);
    // A thousand samples: 3 % deviate by one in three, and Space-Saving only ever adds.
    assert!((0.85..1.15).contains(&off), "{off} of the truth");
    assert_eq!(of(&counted, 5, 9_000_000), Some(one(64)), "what was counted before is exact still");
}

#[test]
fn a_full_table_of_samples_keeps_the_greatest() {
    let hasher = RandomState::with_seeds(1, 2, 3, 4);
    let mut sampled = Sampled { volumes: IndexMap::with_hasher(hasher), order: BTreeSet::new() };
    sampled.add(1, one(1_000_000));
    (2..20_000).for_each(|key| sampled.add(key, one(100)));
    assert_eq!((sampled.volumes.len(), sampled.order.len()), (SAMPLED_MAX, SAMPLED_MAX));
    assert_eq!(sampled.volumes[&1], one(1_000_000));
    let sum = sampled.volumes.values().map(|volume| volume.bytes).sum::<u64>();
    assert_eq!(sum, 1_000_000 + 19_998 * 100, "no byte is lost: the newcomer has what it displaced");
}

#[test]
fn what_other_lanes_counted_is_added() {
    let (mut first, mut further) = (Pairs::new([1, 2, 3, 4]), Pairs::new([5, 6, 7, 8]));
    first.count(OUT, &frame(1, 2, 100), one(100));
    further.count(OUT, &frame(1, 2, 50), one(50));
    further.count(OUT, &frame(3, 4, 70), one(70));
    first.add(&further.take());
    let counted = first.take();
    assert_eq!(of(&counted, 1, 2), Some(Volume { frames: 2, bytes: 150 }));
    assert_eq!(of(&counted, 3, 4), Some(one(70)));
}

#[test]
fn a_superframe_counts_once_with_the_frames_it_stands_for() {
    // Ethernet, IPv4 and TCP without options, and 4,000 bytes.
    let mut bytes = frame(1, 2, 14);
    bytes.extend([0x45, 0, 0x0f, 0xc8, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend([0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0]);
    bytes.resize(54 + 4_000, 0);
    let header = Header::parse(&bytes).expect("a frame");
    let layout = Layout::find(&bytes, &header).expect("TCP");
    let work = Work::Cut { layout, size: 1_400, checksum: Checksum::TcpPartial };
    assert_eq!(Volume::of(&bytes, &work), Volume { frames: 3, bytes: 4_000 + 3 * 54 });
    assert_eq!(Volume::of(&bytes, &Work::Whole(Checksum::Finished)), one(4_054));
}
