use super::*;
use crate::wire::data::FRAGMENT_LEN;

#[test]
fn a_frame_for_one_machine_is_use_and_a_flooded_one_is_not() {
    let plain = |kind, first| [Meta { kind, fragment: false, checksum: Checksum::Finished }.byte(), first, 0, 0, 0];
    assert!(is_use(&plain(FrameKind::Direct, 0x02)) && is_use(&plain(FrameKind::Moved, 0x02)));
    assert!(!is_use(&plain(FrameKind::Copy, 0x02)), "an unknown address is flooded");
    assert!(!is_use(&plain(FrameKind::Tree, 0x02)), "a list comes first");
    assert!(!is_use(&plain(FrameKind::Direct, 0x33)) && !is_use(&plain(FrameKind::Direct, 0xff)), "groups");
    assert!(!is_use(&[]));
}

#[test]
fn of_two_pieces_the_first_tells() {
    let meta = Meta { kind: FrameKind::Direct, fragment: true, checksum: Checksum::Finished }.byte();
    let piece = |part, first: u8| [[meta].as_slice(), &Fragment { id: 7, part }.bytes()[..], &[first; 8]].concat();
    assert_eq!(piece(0, 0).len(), 1 + FRAGMENT_LEN + 8);
    assert!(is_use(&piece(0, 0x02)));
    assert!(!is_use(&piece(0, 0xff)) && !is_use(&piece(1, 0x02)));
}
