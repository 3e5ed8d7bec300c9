use super::*;
use crate::datapath::checksum::fold;
use crate::datapath::layout::tests::{find, tcp4, tcp6, udp4};
use crate::datapath::segment::{RST, SYN, Segments, URG, Work, inspect};

const A: (OverlayIndex, PortId) = (OverlayIndex(0), PortId(1));
/// By another port of the same overlay.
const B: (OverlayIndex, PortId) = (OverlayIndex(0), PortId(2));
const TCP: Checksum = Checksum::TcpPartial;
const UDP: Checksum = Checksum::UdpPartial;

/// A coalescer and what it made.
#[derive(Default)]
struct Tap {
    coalescer: Coalescer,
    batch: Deliveries,
    takes: TapOffload,
}

impl Tap {
    fn new() -> Self {
        Self { takes: TapOffload::TcpAndUdp, ..Self::default() }
    }

    /// As the corridor does it; whether the frame was joined to the one before.
    fn take(&mut self, from: (OverlayIndex, PortId), checksum: Checksum, frame: &[u8]) -> bool {
        if self.coalescer.extend(&mut self.batch, from, checksum, frame) {
            return true;
        }
        let header = Header::parse(frame).expect("an Ethernet header");
        let pushed = self.coalescer.push(&mut self.batch, from, self.takes, checksum, &header, frame);
        pushed.expect("a frame that can be delivered");
        false
    }

    fn pieces(&mut self) -> Vec<(Vec<u8>, Virtio)> {
        self.coalescer.close(&mut self.batch);
        self.batch.iter().map(|(piece, delivery)| (piece.to_vec(), delivery.virtio)).collect()
    }
}

/// A superframe cut into segments of 100 bytes.
fn segments(superframe: &[u8]) -> Vec<Vec<u8>> {
    let mut segments = Segments::new(superframe, find(superframe).expect("whole"), 100);
    let mut all = Vec::new();
    while let Some(len) = segments.next_len() {
        all.push(vec![0; len]);
        segments.write_next(all.last_mut().expect("just pushed"));
    }
    all
}

/// A superframe as its sender leaves it, which [`Tap`] should make of its segments.
fn superframe(mut frame: Vec<u8>) -> Vec<u8> {
    let layout = find(&frame).expect("whole");
    let pseudo = pseudo_header(&frame, &layout, frame.len() - layout.transport);
    put(&mut frame, layout.transport + layout.protocol.checksum_offset(), pseudo);
    frame
}

/// IPv4's header is right again after a change.
fn mend(frame: &mut [u8]) {
    if frame[12..14] == [8, 0] {
        finish_ipv4(&mut frame[14..34]);
    }
}

#[test]
fn segments_become_the_superframe_again() {
    let base = Virtio { needs_csum: true, gso_size: 100, ..Virtio::default() };
    let tcp = Virtio { gso: Gso::TcpV4, header_len: 54, csum_start: 34, csum_offset: 16, ..base };
    let cases = [
        (tcp4(&[5; 777]), TCP, tcp),
        (tcp6(&[], 6, &[5; 300]), TCP, Virtio { gso: Gso::TcpV6, header_len: 74, csum_start: 54, ..tcp }),
        (udp4(&[5; 250]), UDP, Virtio { gso: Gso::Udp, header_len: 42, csum_start: 34, csum_offset: 6, ..base }),
    ];
    for (frame, checksum, virtio) in cases {
        let frame = superframe(frame);
        let mut tap = Tap::new();
        let joined = segments(&frame).iter().map(|segment| tap.take(A, checksum, segment)).collect::<Vec<_>>();
        assert!(!joined[0] && joined[1..].iter().all(|joined| *joined));
        assert_eq!(tap.pieces(), [(frame.clone(), virtio)]);
        let work = inspect(&frame, &Header::parse(&frame).expect("whole"), virtio);
        assert!(matches!(work, Ok(Work::Cut { size: 100, .. })), "{work:?}");
    }
}

#[test]
fn a_lone_frame_stays_as_it_came() {
    let lone = Virtio { needs_csum: true, csum_start: 34, csum_offset: 16, ..Virtio::default() };
    for takes in [TapOffload::Tcp, TapOffload::TcpAndUdp] {
        let mut tap = Tap { takes, ..Tap::new() };
        let (tcp, udp) = (tcp4(b"damaged? nobody knows"), udp4(b"datagram"));
        tap.take(A, TCP, &tcp);
        tap.take(A, UDP, &udp);
        tap.take(A, Checksum::Finished, &tcp);
        let udp_lone = Virtio { csum_offset: 6, ..lone };
        assert_eq!(tap.pieces(), [(tcp.clone(), lone), (udp, udp_lone), (tcp, Virtio::default())]);
    }
}

#[test]
fn a_tap_without_offloads_gets_finished_frames_one_by_one() {
    let mut tap = Tap { takes: TapOffload::None, ..Tap::new() };
    let frames = segments(&superframe(tcp4(&[5; 300])));
    for frame in &frames {
        assert!(!tap.take(A, TCP, frame));
    }
    for ((piece, virtio), frame) in tap.pieces().iter().zip(&frames) {
        assert_eq!(*virtio, Virtio::default());
        let pseudo = pseudo_header(piece, &find(piece).expect("whole"), piece.len() - 34);
        assert_eq!(fold(u64::from(pseudo) + u64::from(sum(&piece[34..]))), 0xffff);
        assert_eq!((&piece[..50], &piece[52..]), (&frame[..50], &frame[52..]), "nothing else changed");
    }
}

#[test]
fn datagrams_are_joined_only_where_they_are_taken() {
    let mut tap = Tap { takes: TapOffload::Tcp, ..Tap::new() };
    for datagram in segments(&udp4(&[5; 300])) {
        assert!(!tap.take(A, UDP, &datagram));
    }
}

/// Each rule: what is done to the second segment, and whether it still continues the first.
#[test]
fn a_segment_continues_only_if_nothing_else_differs() {
    type Change = fn(&mut Vec<u8>);
    let table: [(&str, bool, Change); 23] = [
        ("as it was cut", true, |_| {}),
        ("PSH", true, |frame| frame[47] |= PSH),
        ("FIN", true, |frame| frame[47] |= FIN),
        ("shorter", true, |frame| {
            frame.truncate(60);
            frame[17] = 46;
        }),
        ("longer", false, |frame| {
            frame.push(0);
            frame[17] += 1;
        }),
        ("empty", false, |frame| {
            frame.truncate(54);
            frame[17] = 40;
        }),
        ("padded", false, |frame| frame.push(0)),
        ("longer than IP says", false, |frame| frame[17] -= 1),
        ("another identification, but atomic", true, |frame| frame[18] = 99),
        ("other Ethernet addresses", false, |frame| frame[3] = 9),
        ("another TOS", false, |frame| frame[15] = 1),
        ("another TTL", false, |frame| frame[22] = 63),
        ("not atomic", false, |frame| frame[20] = 0),
        ("another sender", false, |frame| frame[29] = 9),
        ("another port", false, |frame| frame[35] = 9),
        ("a gap", false, |frame| frame[41] ^= 1),
        ("another acknowledgement", false, |frame| frame[45] = 10),
        ("another window", false, |frame| frame[49] = 1),
        ("an urgent pointer", false, |frame| frame[53] = 1),
        ("ECE", false, |frame| frame[47] |= ECE),
        ("CWR", false, |frame| frame[47] |= CWR),
        ("URG", false, |frame| frame[47] |= URG),
        ("RST", false, |frame| frame[47] |= RST),
    ];
    let frames = segments(&tcp4(&[5; 300]));
    for (name, joins, change) in table {
        let mut tap = Tap::new();
        tap.take(A, TCP, &frames[0]);
        let mut second = frames[1].clone();
        change(&mut second);
        mend(&mut second);
        assert_eq!(tap.take(A, TCP, &second), joins, "{name}");
        let expected = if joins { 1 } else { 2 };
        assert_eq!(tap.pieces().len(), expected, "{name}");
    }
    let mut damaged = frames[1].clone();
    damaged[24] ^= 1;
    let mut tap = Tap::new();
    tap.take(A, TCP, &frames[0]);
    assert!(!tap.take(A, TCP, &damaged), "a wrong checksum of IPv4 is not made right");
}

/// Each rule: a first segment that nothing may continue.
#[test]
fn what_is_not_plain_is_never_opened() {
    type Change = fn(&mut Vec<u8>);
    let table: [(&str, bool, Change); 13] = [
        ("plain", true, |_| {}),
        ("CWR", true, |frame| frame[47] |= CWR),
        ("ECE", true, |frame| frame[47] |= ECE),
        ("PSH", false, |frame| frame[47] |= PSH),
        ("FIN", false, |frame| frame[47] |= FIN),
        ("SYN", false, |frame| frame[47] |= SYN),
        ("RST", false, |frame| frame[47] |= RST),
        ("URG", false, |frame| frame[47] |= URG),
        ("no ACK", false, |frame| frame[47] = 0),
        ("a reserved flag", false, |frame| frame[46] |= 1),
        ("a reserved bit of IPv4", false, |frame| frame[20] |= 0x80),
        ("padding", false, |frame| frame.push(0)),
        ("IP options", false, |frame| {
            frame.splice(34..34, [1; 4]);
            frame[14] = 0x46;
            frame[17] += 4;
            finish_ipv4(&mut frame[14..38]);
        }),
    ];
    for (name, opens, change) in table {
        let mut first = tcp4(&[5; 100]);
        change(&mut first);
        if first[14] == 0x45 {
            mend(&mut first);
        }
        let mut second = first.clone();
        let seq = find(&first).expect("whole").transport + 4;
        second[seq + 3] += 100;
        second[seq + 9] &= !CWR;
        let mut tap = Tap::new();
        tap.take(A, TCP, &first);
        assert_eq!(tap.take(A, TCP, &second), opens, "{name}");
    }
    let extended = |seq| {
        let mut frame = tcp6(&[6, 0, 0, 0, 0, 0, 0, 0], 60, &[5; 100]);
        frame[62 + 7] = seq;
        frame
    };
    let mut tap = Tap::new();
    assert!(!tap.take(A, TCP, &extended(0)) && !tap.take(A, TCP, &extended(100)), "extension headers");
    let small = segments(&tcp4(&[5; 107]))[1].clone();
    let mut next = small.clone();
    next[41] += 7;
    assert!(!tap.take(A, TCP, &small) && !tap.take(A, TCP, &next), "less than TCP's least segment");
}

#[test]
fn nothing_continues_an_unsound_first() {
    let frames = segments(&tcp4(&[5; 200]));
    let mut damaged = frames[0].clone();
    damaged[24] ^= 1;
    let padded = [frames[0].as_slice(), &[0]].concat();
    let mut behind = frames[1].clone();
    behind[41] += 1;
    for (name, first, second) in [("damaged", damaged, &frames[1]), ("padded", padded, &behind)] {
        let mut tap = Tap::new();
        assert!(!tap.take(A, TCP, &first) && !tap.take(A, TCP, second), "{name}");
    }
}

#[test]
fn a_datagram_must_be_as_long_as_it_says() {
    let datagrams = segments(&udp4(&[5; 200]));
    let mut short = datagrams[0].clone();
    short[39] -= 1;
    for (first, second) in [(&datagrams[0], &short), (&short, &datagrams[1])] {
        let mut tap = Tap::new();
        assert!(!tap.take(A, UDP, first) && !tap.take(A, UDP, second));
    }
    let mut other = datagrams[1].clone();
    other[35] ^= 1;
    let mut tap = Tap::new();
    assert!(!tap.take(A, UDP, &datagrams[0]) && !tap.take(A, UDP, &other), "another port");
}

#[test]
fn identifications_count_where_fragments_could_be_made() {
    for (step, joins) in [(0, false), (1, true), (2, false)] {
        let mut tap = Tap::new();
        let mut frames = segments(&tcp4(&[5; 200]));
        for (frame, id) in frames.iter_mut().zip([0xffff_u16, 0xffff_u16.wrapping_add(step)]) {
            frame[20] = 0;
            put(frame, 18, id);
            mend(frame);
        }
        tap.take(A, TCP, &frames[0]);
        assert_eq!(tap.take(A, TCP, &frames[1]), joins, "a step of {step}");
    }
}

#[test]
fn the_last_segments_flags_and_the_firsts_are_the_superframes() {
    let mut frame = tcp4(&[5; 300]);
    frame[47] |= CWR | ECE | PSH | FIN;
    let frame = superframe(frame);
    let mut tap = Tap::new();
    let frames = segments(&frame);
    for segment in &frames {
        tap.take(A, TCP, segment);
    }
    assert!(!tap.take(A, TCP, &frames[2]), "closed by PSH or FIN");
    let pieces = tap.pieces();
    assert_eq!(pieces[0].0, frame);
    assert!(pieces[0].1.ecn && !pieces[1].1.ecn);
}

#[test]
fn a_shorter_one_is_the_last() {
    for (frame, checksum) in [(tcp4(&[5; 250]), TCP), (udp4(&[5; 250]), UDP)] {
        let frames = segments(&frame);
        let mut tap = Tap::new();
        let joined = frames.iter().map(|frame| tap.take(A, checksum, frame)).collect::<Vec<_>>();
        assert_eq!(joined, [false, true, true]);
        let mut next = frames[2].clone();
        if checksum == TCP {
            next[41] += 50;
        }
        assert!(!tap.take(A, checksum, &next));
    }
}

#[test]
fn a_superframe_ends_at_what_ip_and_the_kernel_allow() {
    let frames = segments(&tcp4(&[5; 65_495]));
    let mut tap = Tap::new();
    let joined = frames.iter().filter(|segment| tap.take(A, TCP, segment)).count();
    assert_eq!(joined + 1, frames.len(), "65,535 bytes of IP");
    let mut grown = segments(&tcp4(&[5; 65_400]));
    let (mut next, mut tap) = (grown[653].clone(), Tap::new());
    let seq = u32::from_be_bytes(*next[38..].first_chunk().expect("four bytes")).wrapping_add(100);
    next[38..42].copy_from_slice(&seq.to_be_bytes());
    grown.push(next);
    let joined = grown.iter().map(|segment| tap.take(A, TCP, segment)).collect::<Vec<_>>();
    assert_eq!(joined.iter().filter(|joined| !**joined).count(), 2, "65,540 bytes are two pieces");
    assert!(!joined[654] && tap.pieces()[0].0.len() == 54 + 65_400);
    let mut tap = Tap::new();
    let joined = segments(&udp4(&[5; 13_000])).iter().map(|datagram| tap.take(A, UDP, datagram)).collect::<Vec<_>>();
    let firsts = (0..joined.len()).filter(|index| !joined[*index]).collect::<Vec<_>>();
    assert_eq!(firsts, [0, 64, 128]);
}

#[test]
fn ports_and_states_are_not_mixed() {
    let frames = segments(&tcp4(&[5; 300]));
    let mut tap = Tap::new();
    tap.take(A, TCP, &frames[0]);
    assert!(!tap.take(B, TCP, &frames[1]), "by another port");
    assert!(!tap.take((OverlayIndex(1), B.1), TCP, &frames[2]), "to another overlay");
    let mut tap = Tap::new();
    tap.take(A, TCP, &frames[0]);
    assert!(!tap.take(A, Checksum::Finished, &frames[1]), "a finished checksum speaks for one frame");
    assert!(!tap.take(A, TCP, &frames[2]), "nothing is put behind it");
    assert_eq!(tap.pieces()[1].0, frames[1]);
}

#[test]
fn nothing_grows_that_is_not_the_last_piece() {
    let frames = segments(&tcp4(&[5; 300]));
    let mut tap = Tap::new();
    tap.take(A, TCP, &frames[0]);
    tap.batch.push(b"somebody else's", Delivery { overlay: A.0, virtio: Virtio::default() });
    assert!(!tap.take(A, TCP, &frames[1]));
    tap.batch.clear();
    assert!(!tap.coalescer.extend(&mut tap.batch, A, TCP, &frames[2]));
    assert_eq!(tap.pieces(), []);
}

#[test]
fn a_partial_checksum_of_nothing_known_is_refused() {
    let mut fragment = tcp4(&[5; 100]);
    fragment[20] = 0x20;
    for (frame, checksum) in [(&fragment, TCP), (&tcp4(&[5; 100]), UDP), (&udp4(&[5; 100]), TCP)] {
        for takes in [TapOffload::None, TapOffload::TcpAndUdp] {
            let (mut coalescer, mut batch) = (Coalescer::default(), Deliveries::default());
            let header = Header::parse(frame).expect("an Ethernet header");
            let refused = coalescer.push(&mut batch, A, takes, checksum, &header, frame);
            assert_eq!((refused, batch.len()), (Err(DropReason::Offload), 0));
        }
    }
}
