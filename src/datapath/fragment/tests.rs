use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const T: Time = Time::START;

#[test]
fn a_frame_is_cut_into_halves_that_fit() {
    for (len, limit, expected) in [
        (1514, 1400, Some(757)),
        (1515, 1400, Some(758)),
        (1514, 757, Some(757)),
        (1514, 756, None),
        (2, 1, Some(1)),
        (1, 1400, None),
        (0, 1400, None),
        (usize::MAX, usize::MAX, Some(usize::MAX / 2 + 1)),
    ] {
        assert_eq!(split(len, limit), expected, "{len} by {limit}");
    }
}

#[test]
fn both_orders_give_the_frame() {
    let mut joined = Reassembly::default();
    assert_eq!(joined.accept(T, 7, 0, b"first,"), None);
    assert_eq!(joined.accept(T, 7, 1, b"second"), Some(&b"first,second"[..]));
    assert_eq!(joined.accept(T, 8, 1, b"second"), None);
    assert_eq!(joined.accept(T, 8, 0, b"first,"), Some(&b"first,second"[..]));
    assert_eq!((joined.waiting(), joined.take_lost()), (0, 0));
}

#[test]
fn a_repeated_piece_changes_nothing() {
    let mut joined = Reassembly::default();
    assert_eq!(joined.accept(T, 7, 0, b"a"), None);
    assert_eq!(joined.accept(T, 7, 0, b"x"), None);
    assert_eq!(joined.accept(T, 7, 1, b"b"), Some(&b"ab"[..]));
    assert_eq!(joined.accept(T, 7, 1, b"b"), None, "alone again");
    assert_eq!(joined.take_lost(), 0);
}

#[test]
fn pieces_of_different_frames_are_never_joined() {
    let mut joined = Reassembly::default();
    assert_eq!(joined.accept(T, 7, 0, b"a"), None);
    assert_eq!(joined.accept(T, 8, 1, b"b"), None);
    assert_eq!(joined.accept(T, 7 + 64, 1, b"c"), None, "the same slot");
    assert_eq!(joined.accept(T, 7, 1, b"d"), None, "displaced meanwhile");
    assert_eq!(joined.take_lost(), 2);
    assert_eq!(joined.take_lost(), 0, "told once");
}

#[test]
fn the_oldest_of_too_many_is_displaced() {
    let mut joined = Reassembly::default();
    for id in 0..=64 {
        assert_eq!(joined.accept(T, id, 0, b"a"), None);
    }
    assert_eq!((joined.waiting(), joined.take_lost()), (64, 1));
    assert_eq!(joined.accept(T, 1, 1, b"b"), Some(&b"ab"[..]), "the second oldest is there");
}

#[test]
fn a_half_waits_half_a_second() {
    let mut joined = Reassembly::default();
    assert_eq!(joined.accept(T, 7, 0, b"a"), None);
    let just = T + (TIMEOUT - Duration::from_nanos(1));
    assert_eq!(joined.accept(just, 7, 1, b"b"), Some(&b"ab"[..]));

    assert_eq!(joined.accept(T, 7, 0, b"a"), None);
    assert_eq!(joined.accept(T + TIMEOUT, 7, 1, b"b"), None, "too late: it waits itself now");
    assert_eq!((joined.waiting(), joined.take_lost()), (1, 1));
    assert_eq!(joined.accept(T + TIMEOUT, 7, 0, b"A"), Some(&b"Ab"[..]));
}

#[test]
fn what_waits_too_long_is_given_up() {
    let mut joined = Reassembly::default();
    joined.expire(T);
    assert_eq!(joined.accept(T, 7, 0, b"a"), None);
    assert_eq!(joined.accept(T + TIMEOUT / 2, 8, 0, b"a"), None);
    joined.expire(T + TIMEOUT);
    assert_eq!((joined.waiting(), joined.take_lost()), (1, 1));
}

#[test]
fn what_is_no_piece_is_counted() {
    let mut joined = Reassembly::default();
    assert_eq!(joined.accept(T, 7, 2, b"a"), None);
    assert_eq!(joined.accept(T, 7, 0, b""), None);
    assert_eq!(joined.accept(T, 7, 0, &[0; PIECE_MAX + 1]), None);
    assert_eq!((joined.waiting(), joined.take_lost()), (0, 3));
}

#[test]
fn buffers_are_used_again() {
    let mut joined = Reassembly::default();
    for id in 0..1_000 {
        assert_eq!(joined.accept(T, id, 0, &[1; 757]), None);
        assert_eq!(joined.accept(T, id, 1, &[2; 757]).map(<[u8]>::len), Some(1514));
    }
    assert_eq!(joined.spare.len(), 1);
    for id in 0..1_000 {
        assert_eq!(joined.accept(T, id, 0, b"loss"), None);
    }
    joined.expire(T + TIMEOUT);
    assert_eq!(joined.spare.len(), SPARE);
}

proptest! {
    #[test]
    fn every_split_frame_comes_back_whole(frame in proptest::collection::vec(any::<u8>(), 2..1600), second_first: bool) {
        let end = split(frame.len(), 1400).expect("two pieces");
        let pieces = [(0, &frame[..end]), (1, &frame[end..])];
        prop_assert!(pieces[0].1.len() <= 1400 && !pieces[1].1.is_empty() && pieces[1].1.len() <= pieces[0].1.len());
        let mut joined = Reassembly::default();
        let order = if second_first { [1, 0] } else { [0, 1] };
        let (part, bytes) = pieces[order[0]];
        prop_assert_eq!(joined.accept(T, 9, part, bytes), None);
        let (part, bytes) = pieces[order[1]];
        prop_assert_eq!(joined.accept(T, 9, part, bytes), Some(&frame[..]));
    }

    #[test]
    fn whatever_comes_a_frame_is_two_halves_of_one_id(
        pieces in proptest::collection::vec((0u16..200, 0u8..3, 0u64..400_000_000), 0..600),
    ) {
        let (mut joined, mut now, mut came) = (Reassembly::default(), T, BTreeMap::<_, u32>::new());
        for (id, part, wait) in pieces {
            now += Duration::from_nanos(wait);
            *came.entry((id, part)).or_default() += 1;
            if let Some(frame) = joined.accept(now, id, part, &[id.to_be_bytes()[1], part]) {
                let low = id.to_be_bytes()[1];
                prop_assert_eq!(frame, &[low, 0, low, 1][..]);
                for part in [0, 1] {
                    let left = came.get_mut(&(id, part)).expect("came");
                    prop_assert!(*left > 0, "used twice");
                    *left -= 1;
                }
            }
            prop_assert!(joined.waiting() <= SLOTS);
        }
    }
}
