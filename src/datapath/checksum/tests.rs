use super::*;
use crate::datapath::layout::tests::{find, tcp4, tcp6, udp4};

#[test]
fn sums_are_those_of_rfc_1071() {
    assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    assert_eq!(sum(&[]), 0);
    assert_eq!(sum(&[0xab]), 0xab00, "as if a zero followed");
    assert_eq!(sum(&[0xff; 65_536]), 0xffff);
    let bytes = (0..=255).cycle().take(300).collect::<Vec<u8>>();
    for len in 0..bytes.len() {
        let words = bytes[..len].chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
        assert_eq!(sum(&bytes[..len]), fold(words.sum()), "{len} bytes");
    }
}

#[test]
fn an_ipv4_header_gets_its_checksum() {
    let mut header = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 9, 9, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
    finish_ipv4(&mut header);
    assert_eq!(header[10..12], [0xb8, 0x61]);
    assert_eq!(sum(&header), 0xffff);
    finish_ipv4(&mut header[..11]);
}

#[test]
fn a_finished_checksum_is_right_and_padding_does_not_count() {
    for frame in [tcp4(b"odd"), tcp6(&[], 6, b"even"), udp4(b"odd")] {
        let layout = find(&frame).expect("whole");
        let (start, offset) = (layout.transport, layout.protocol.checksum_offset());
        let (len, pseudo) = (frame.len(), pseudo_header(&frame, &layout, frame.len() - start));
        let mut padded = [frame.as_slice(), &[0xee; 20]].concat();
        padded[start + offset..start + offset + 2].copy_from_slice(&pseudo.to_be_bytes());
        assert!(finish(&mut padded, start, offset));
        assert_eq!(fold(u64::from(sum(&padded[start..len])) + u64::from(pseudo)), 0xffff);
        assert_eq!(padded[len..], [0xee; 20]);
    }
}

#[test]
fn a_checksum_of_zero_is_stored_as_its_other_zero() {
    let mut frame = udp4(&[0, 0]);
    frame[34..44].copy_from_slice(&[0; 10]);
    frame[42..44].copy_from_slice(&[0xff, 0xff]);
    assert!(finish(&mut frame, 34, 6));
    assert_eq!(frame[40..42], [0xff, 0xff]);
}

#[test]
fn a_field_beyond_the_packet_changes_nothing() {
    let frame = [tcp4(b"payload").as_slice(), &[0; 8]].concat();
    for (start, offset) in [(34, 26), (60, 0), (61, 0), (65, 0), (100, 0), (usize::from(u16::MAX), 16), (34, 65_535)] {
        let mut changed = frame.clone();
        assert!(!finish(&mut changed, start, offset), "{start} {offset}");
        assert_eq!(changed, frame);
    }
    assert!(finish(&mut frame.clone(), 34, 25), "the last two bytes of the packet");
    let mut arp = [[2; 12].as_slice(), &[8, 6, 1, 2, 3, 4]].concat();
    assert!(finish(&mut arp, 14, 2), "to the end of a frame that is not IP");
    assert!(!finish(&mut arp, 14, 3));
    assert!(!finish(&mut arp[..5], 6, 0));
}
