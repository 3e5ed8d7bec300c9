use super::*;
use crate::datapath::checksum::sum;
use crate::datapath::layout::tests::{find, tcp4, tcp6, udp4};

/// What the kernel says of a TCP frame that it did not sum.
const TCP4: Virtio = Virtio {
    needs_csum: true,
    gso: Gso::None,
    ecn: false,
    header_len: 0,
    gso_size: 0,
    csum_start: 34,
    csum_offset: 16,
};
/// A superframe of [`tcp4`].
pub(in crate::datapath) const TSO4: Virtio = Virtio { gso: Gso::TcpV4, header_len: 54, gso_size: 100, ..TCP4 };
const TSO6: Virtio = Virtio { gso: Gso::TcpV6, header_len: 74, csum_start: 54, ..TSO4 };
const UDP4: Virtio = Virtio { csum_offset: 6, ..TCP4 };
/// A superframe of [`udp4`].
pub(in crate::datapath) const USO4: Virtio = Virtio { gso: Gso::Udp, csum_offset: 6, header_len: 42, ..TSO4 };

fn ask(frame: &[u8], virtio: Virtio) -> Result<Work, DropReason> {
    inspect(frame, &Header::parse(frame).expect("an Ethernet header"), virtio)
}

fn cut(frame: &[u8], size: usize) -> Vec<Vec<u8>> {
    let mut segments = Segments::new(frame, find(frame).expect("whole"), size);
    let mut all = Vec::new();
    while let Some(len) = segments.next_len() {
        let mut room = vec![0xaa; len + 3];
        segments.write_next(&mut room);
        assert_eq!(room.split_off(len), [0xaa; 3], "written beyond its length");
        all.push(room);
    }
    all
}

#[test]
fn what_kernels_send_is_taken() {
    let (tcp, udp, v6) = (tcp4(&[1; 250]), udp4(&[1; 250]), tcp6(&[], 6, &[1; 250]));
    let superframe = |frame: &[u8], checksum| Work::Cut { layout: find(frame).expect("whole"), size: 100, checksum };
    let cases = [
        ("no note", &tcp, Virtio::default(), Work::Whole(Checksum::Finished)),
        ("partial TCP", &tcp, TCP4, Work::Whole(Checksum::TcpPartial)),
        ("partial UDP", &udp, UDP4, Work::Whole(Checksum::UdpPartial)),
        ("TSO", &tcp, TSO4, superframe(&tcp, Checksum::TcpPartial)),
        ("TSO, ECN", &tcp, Virtio { ecn: true, ..TSO4 }, superframe(&tcp, Checksum::TcpPartial)),
        (
            "TSO, all in the linear part",
            &tcp,
            Virtio { header_len: 304, ..TSO4 },
            superframe(&tcp, Checksum::TcpPartial),
        ),
        ("TSO, no hint", &tcp, Virtio { header_len: 0, ..TSO4 }, superframe(&tcp, Checksum::TcpPartial)),
        ("TSO over IPv6", &v6, TSO6, superframe(&v6, Checksum::TcpPartial)),
        ("USO", &udp, USO4, superframe(&udp, Checksum::UdpPartial)),
        ("GSO of one segment", &tcp, Virtio { gso_size: 250, ..TSO4 }, Work::Whole(Checksum::TcpPartial)),
        ("GSO of less than one", &udp, Virtio { gso_size: 251, ..USO4 }, Work::Whole(Checksum::UdpPartial)),
        ("a packet in UDP", &udp, Virtio { csum_start: 84, ..TCP4 }, Work::FinishFirst { start: 84, offset: 16 }),
    ];
    for (name, frame, virtio, work) in cases {
        assert_eq!(ask(frame, virtio), Ok(work), "{name}");
    }
    let padded = [tcp.as_slice(), &[0; 6]].concat();
    assert_eq!(ask(&padded, TCP4), Ok(Work::Whole(Checksum::TcpPartial)), "one frame may be padded");
}

#[test]
fn every_lie_is_refused() {
    let (tcp, udp, v6) = (tcp4(&[1; 250]), udp4(&[1; 250]), tcp6(&[], 6, &[1; 250]));
    let padded = [tcp.as_slice(), &[0; 6]].concat();
    let mut fragment = tcp.clone();
    fragment[20] = 0x20;
    let (tiny, floods) = (tcp4(&[1; SEGMENTS_MAX]), tcp4(&[1; SEGMENTS_MAX + 1]));
    let lies = [
        ("GSO without a partial checksum", &tcp, Virtio { needs_csum: false, ..TSO4 }),
        ("ECN of one frame", &tcp, Virtio { ecn: true, ..TCP4 }),
        ("ECN of UDP", &udp, Virtio { ecn: true, ..USO4 }),
        ("segments longer than the frame", &udp, Virtio { gso_size: 293, ..USO4 }),
        ("TCP segments longer than the frame", &tcp, Virtio { gso_size: 305, ..TSO4 }),
        ("headers beyond the frame", &tcp, Virtio { header_len: 305, ..TSO4 }),
        ("headers beyond one frame", &tcp, Virtio { header_len: 305, ..Virtio::default() }),
        ("a sum that starts before IP", &tcp, Virtio { csum_start: 13, ..TCP4 }),
        ("a sum that starts beyond the frame", &tcp, Virtio { csum_start: 305, ..TCP4 }),
        ("a checksum beyond the frame", &tcp, Virtio { csum_start: 40, csum_offset: 263, ..TCP4 }),
        ("a checksum in the padding", &padded, Virtio { csum_start: 40, csum_offset: 264, ..TCP4 }),
        ("a checksum elsewhere in TCP", &tcp, Virtio { csum_offset: 6, ..TCP4 }),
        ("a checksum elsewhere in UDP", &udp, Virtio { csum_offset: 16, ..UDP4 }),
        ("GSO that starts elsewhere", &tcp, Virtio { csum_start: 38, ..TSO4 }),
        ("segments of no size", &tcp, Virtio { gso_size: 0, ..TSO4 }),
        ("too many segments", &floods, Virtio { gso_size: 1, ..TSO4 }),
        ("IPv6 that is not", &tcp, Virtio { gso: Gso::TcpV6, ..TSO4 }),
        ("IPv4 that is not", &v6, Virtio { gso: Gso::TcpV4, ..TSO6 }),
        ("UDP that is TCP", &tcp, Virtio { gso: Gso::Udp, ..TSO4 }),
        ("TCP that is UDP", &udp, Virtio { gso: Gso::TcpV4, ..USO4 }),
        ("a superframe with padding", &padded, TSO4),
        ("a superframe in fragments", &fragment, TSO4),
    ];
    for (name, frame, virtio) in lies {
        assert_eq!(ask(frame, virtio), Err(DropReason::Offload), "{name}");
    }
    assert!(matches!(ask(&tiny, Virtio { gso_size: 1, ..TSO4 }), Ok(Work::Cut { .. })), "not yet too many");
}

#[test]
fn flags_belong_to_the_first_or_the_last() {
    let mut frame = tcp4(&[7; 250]);
    frame[47] = !(SYN | RST | URG);
    let flags = cut(&frame, 100).iter().map(|segment| segment[47]).collect::<Vec<_>>();
    assert_eq!(flags, [0xd0, 0x50, 0x59], "CWR first; FIN and PSH last; ECE and ACK always");
}

#[test]
fn numbers_and_lengths_count_on() {
    let mut frame = tcp4(&[7; 250]);
    frame[18..20].copy_from_slice(&[0xff, 0xff]);
    frame[38..42].copy_from_slice(&0xffff_ffff_u32.to_be_bytes());
    let segments = cut(&frame, 100);
    let read = |segment: &[u8]| {
        let layout = find(segment).expect("a whole packet");
        assert_eq!((layout.end(segment), sum(&segment[14..34])), (segment.len(), 0xffff));
        let seq = u32::from_be_bytes(*segment[38..].first_chunk().expect("four bytes"));
        let pseudo = pseudo_header(segment, &layout, segment.len() - 34);
        assert_eq!(word(segment, 50), Some(pseudo));
        (word(segment, 18), seq, segment.len())
    };
    let seen = segments.iter().map(|segment| read(segment)).collect::<Vec<_>>();
    assert_eq!(seen, [(Some(0xffff), 0xffff_ffff, 154), (Some(0), 99, 154), (Some(1), 199, 104)]);
    let lengths = cut(&udp4(&[7; 250]), 100).iter().map(|datagram| word(datagram, 38)).collect::<Vec<_>>();
    assert_eq!(lengths, [Some(108), Some(108), Some(58)]);
}

#[test]
fn the_kernels_sum_is_kept_where_a_routing_header_hides_the_destination() {
    // One segment left, so the sum was taken with the address in the routing header.
    let routing = [[6, 2, 4, 1, 0, 0, 0, 0].as_slice(), &[0xcc; 16]].concat();
    let mut frame = tcp6(&routing, 43, &[1; 250]);
    let real = |frame: &[u8]| {
        let addresses = [&frame[22..38], &[0xcc; 16]].concat();
        fold(u64::from(sum(&addresses)) + 6 + (frame.len() - 78) as u64)
    };
    let field = real(&frame);
    put(&mut frame, 78 + 16, field);
    for segment in cut(&frame, 100) {
        assert_eq!(word(&segment, 78 + 16), Some(real(&segment)));
    }
}

#[test]
fn only_plain_tcp_is_cut_without_being_asked() {
    let ask = |frame: &[u8], limit| tcp_cut(frame, find(frame).expect("whole"), limit);
    let tcp = tcp4(&[1; 250]);
    assert_eq!(ask(&tcp, 154), Some(100));
    assert_eq!(ask(&tcp, 55), Some(1));
    assert_eq!(ask(&tcp, 54), None, "no room for payload");
    assert_eq!(ask(&tcp, 10), None);
    assert_eq!(ask(&tcp6(&[], 6, &[1; 250]), 154), Some(80));
    assert_eq!(ask(&tcp4(&[]), 154), None, "nothing to cut");
    assert_eq!(ask(&udp4(&[1; 250]), 154), None, "a datagram is one");
    assert_eq!(ask(&[tcp.as_slice(), &[0]].concat(), 154), None, "padded");
    assert_eq!(ask(&tcp4(&[1; SEGMENTS_MAX + 1]), 55), None, "a flood");
    for (flag, size) in [(SYN, None), (RST, None), (URG, None), (FIN, Some(100)), (PSH, Some(100)), (CWR, Some(100))] {
        let mut frame = tcp.clone();
        frame[47] |= flag;
        assert_eq!(ask(&frame, 154), size, "flag {flag:#x}");
    }
}

#[test]
fn a_superframe_without_payload_has_no_segments() {
    assert_eq!(cut(&tcp4(&[]), 100), Vec::<Vec<u8>>::new());
    assert_eq!(cut(&tcp4(&[1; 3]), 0).len(), 3, "a size of nothing counts as one byte");
}
