//! Superframes are cut as the kernel would, and joined so that cutting gives the same frames again.
//!
//! A million superframes are cut, and each other test has its share of as many; `LONGWIRE_INPUTS=100000000` makes it
//! a long run.

mod bytes;
mod superframes;

use bytes::{Bytes, feed, share};
use longwire::datapath::buf::{Batch, Deliveries, OverlayIndex};
use longwire::datapath::checksum::finish;
use longwire::datapath::coalesce::Coalescer;
use longwire::datapath::fdb::PortId;
use longwire::datapath::frame::Header;
use longwire::datapath::layout::{Layout, Transport};
use longwire::datapath::offload::{Gso, TapOffload, VIRTIO_LEN, Virtio};
use longwire::datapath::segment::{SEGMENTS_MAX, Segments, Work, inspect, tcp_cut};
use longwire::datapath::stats::DropReason;
use longwire::wire::data::Checksum;
use superframes::{Chance, Packet, slow_finish};

const FROM: (OverlayIndex, PortId) = (OverlayIndex(0), PortId(7));

#[test]
fn segments_are_those_of_the_reference() {
    let mut chance = Chance::new(share(1000) + 1);
    let mut batch = Batch::default();
    for _ in 0..share(1000) {
        let (packet, size) = superframe(&mut chance);
        let frame = packet.encode(false);
        let work = inspect(&frame, &header(&frame), note(&packet, size));
        let Ok(Work::Cut { layout, size: cut_size, checksum }) = work else {
            panic!("{work:?} of {packet:?}");
        };
        assert_eq!((layout, cut_size, checksum), (layout_of(&packet), size, checksum_of(&packet)));
        batch.clear();
        cut(&frame, layout, size, &mut batch);
        let expected = packet.cut(size);
        assert_eq!(batch.len(), expected.len());
        for (index, expected) in expected.iter().enumerate() {
            let (segment, ()) = batch.get_mut(index).expect("as many");
            let (start, offset) = (packet.transport_start(), packet.checksum_offset());
            assert!(finish(segment, start, offset));
            assert_eq!(segment, expected.encode(true), "segment {index} of {packet:?}");
        }
    }
}

#[test]
fn a_long_frame_is_cut_as_a_superframe_of_that_size() {
    let mut chance = Chance::new(share(1000) + 2);
    let mut batch = Batch::default();
    for _ in 0..share(50) {
        let len = 1 + chance.below(9000);
        let (packet, limit) = (chance.packet(len), 60 + chance.below(1500));
        let frame = packet.encode(false);
        let work = inspect(&frame, &header(&frame), note(&packet, 0));
        assert_eq!(work, Ok(Work::Whole(checksum_of(&packet))));
        let size = tcp_cut(&frame, layout_of(&packet), limit);
        let room = limit.saturating_sub(packet.headers());
        assert_eq!(size.is_some(), packet.is_tcp && packet.payload.len() <= room.saturating_mul(SEGMENTS_MAX));
        let Some(size) = size else { continue };
        batch.clear();
        cut(&frame, layout_of(&packet), size, &mut batch);
        let expected = packet.cut(size);
        assert_eq!(batch.len(), expected.len());
        for ((segment, ()), expected) in batch.iter().zip(&expected) {
            assert!(segment.len() <= limit);
            assert_eq!(segment, expected.encode(false));
        }
    }
}

/// A frame on its way to the TAP.
struct Arrival {
    checksum: Checksum,
    bytes: Vec<u8>,
}

#[test]
fn joined_frames_cut_again_are_the_same_frames() {
    let mut chance = Chance::new(share(1000) + 3);
    let (mut frames, mut pieces, mut storms) = (0, 0, 0);
    while frames < share(350) {
        let takes = [TapOffload::None, TapOffload::Tcp, TapOffload::TcpAndUdp, TapOffload::TcpAndUdp][storms % 4];
        storms += 1;
        let arrivals = storm(&mut chance);
        let mut batch = Deliveries::default();
        let mut coalescer = Coalescer::default();
        for Arrival { checksum, bytes } in &arrivals {
            if !coalescer.extend(&mut batch, FROM, *checksum, bytes) {
                let pushed = coalescer.push(&mut batch, FROM, takes, *checksum, &header(bytes), bytes);
                pushed.expect("every arrival has its headers");
            }
        }
        coalescer.close(&mut batch);
        let mut rest = arrivals.iter();
        for (piece, delivery) in batch.iter() {
            check_delivery(piece, delivery.virtio, takes, &mut rest);
        }
        assert_eq!(rest.count(), 0, "frames were lost");
        frames += arrivals.len() as u64;
        pieces += batch.len() as u64;
    }
    assert!(frames > pieces + pieces / 2, "hardly anything was joined: {frames} frames in {pieces} pieces");
}

/// Holds one delivery against the arrivals that it should be.
fn check_delivery<'a>(piece: &[u8], virtio: Virtio, takes: TapOffload, rest: &mut impl Iterator<Item = &'a Arrival>) {
    let first = rest.next().expect("no more pieces than frames");
    let work = inspect(piece, &header(piece), virtio).expect("the kernel takes it");
    let Work::Cut { size, checksum, .. } = work else {
        let mut expected = first.bytes.clone();
        let is_partial = first.checksum != Checksum::Finished && takes != TapOffload::None;
        if first.checksum != Checksum::Finished && takes == TapOffload::None {
            let packet = Packet::parse(&expected);
            slow_finish(&mut expected, packet.transport_start(), packet.checksum_offset());
        }
        assert_eq!(piece, expected, "a lone frame is as it came");
        assert_eq!(work, Work::Whole(if is_partial { first.checksum } else { Checksum::Finished }));
        return;
    };
    let packet = Packet::parse(piece);
    assert!(takes >= if packet.is_tcp { TapOffload::Tcp } else { TapOffload::TcpAndUdp });
    assert_eq!(piece, packet.encode(false), "lengths and sums of a superframe are right");
    let segments = packet.cut(size);
    assert!(packet.is_tcp || segments.len() <= 64);
    for (segment, arrival) in segments.iter().zip(std::iter::once(first).chain(rest)) {
        assert_eq!(arrival.checksum, checksum);
        let mut arrived = Packet::parse(&arrival.bytes);
        if arrived.is_atomic() {
            arrived.id = segment.id;
        }
        assert_eq!(segment, &arrived, "cut at {size}, {virtio:?}");
    }
}

/// Segments of some flows: interleaved, and sometimes bent, lost, doubled, out of order.
fn storm(chance: &mut Chance) -> Vec<Arrival> {
    let flow = |chance: &mut Chance| {
        let (packet, size) = superframe(chance);
        let is_finished = chance.one_in(8);
        let checksum = if is_finished { Checksum::Finished } else { checksum_of(&packet) };
        let mut segments = packet.cut(size);
        let has_fixed_id = packet.is_atomic() && chance.one_in(4);
        segments.iter_mut().filter(|_| has_fixed_id).for_each(|segment| segment.id = packet.id);
        let arrivals = segments.into_iter().map(|segment| Arrival { checksum, bytes: segment.encode(is_finished) });
        arrivals.collect::<std::collections::VecDeque<_>>()
    };
    let mut flows = (0..=chance.below(3)).map(|_| flow(chance)).collect::<Vec<_>>();
    let calm = chance.one_in(3);
    let mut arrivals = Vec::new();
    while flows.iter().any(|flow| !flow.is_empty()) {
        let which = chance.below(flows.len());
        let run = 1 + chance.below(12);
        let run = run.min(flows[which].len());
        arrivals.extend(flows[which].drain(..run));
    }
    for _ in 0..if calm { 0 } else { 1 + arrivals.len() / 16 } {
        disturb(chance, &mut arrivals);
    }
    arrivals
}

fn disturb(chance: &mut Chance, arrivals: &mut Vec<Arrival>) {
    let place = chance.below(arrivals.len());
    let Some(arrival) = arrivals.get_mut(place) else { return };
    match chance.below(8) {
        0 => drop(arrivals.remove(place)),
        1 => {
            let copy = Arrival { checksum: arrival.checksum, bytes: arrival.bytes.clone() };
            arrivals.insert(place, copy);
        }
        2 => {
            let other = chance.below(arrivals.len());
            arrivals.swap(place, other);
        }
        3 => {
            // Padding, if it is short.
            let len = arrival.bytes.len().max(60);
            arrival.bytes.resize(len, 0);
        }
        // A bit of the addresses, of IP without its lengths, or of TCP and its options; not of UDP's length.
        _ => {
            let packet = Packet::parse(&arrival.bytes);
            let (ip, transport) = (packet.link.len(), packet.transport_start());
            let options = packet.transport.len().saturating_sub(20);
            let spots = if packet.is_v6() { [1, 2, 3, 7, 8, 25, 39] } else { [1, 4, 5, 8, 10, 12, 19] };
            let at = match chance.below(3) {
                0 => chance.below(12),
                1 => ip + spots[chance.below(spots.len())],
                _ if packet.is_tcp && options > 0 && chance.one_in(2) => transport + 20 + chance.below(options),
                _ if packet.is_tcp => transport + [0, 3, 4, 7, 8, 11, 13, 14, 18][chance.below(9)],
                _ => transport + chance.below(4),
            };
            arrival.bytes[at] ^= 1 << chance.below(8);
            if chance.one_in(2) && arrival.checksum != Checksum::Finished {
                // Not damage, but what its sender meant.
                arrival.bytes = Packet::parse(&arrival.bytes).encode(false);
            }
        }
    }
}

#[test]
fn arbitrary_notes_and_frames_never_panic() {
    let mut chance = Chance::new(share(1000) + 4);
    let genuine = (0..200).map(|_| {
        let (packet, size) = superframe(&mut chance);
        let frame = packet.encode(false);
        [note(&packet, size).bytes().as_slice(), &frame[..frame.len().min(400)]].concat()
    });
    let mut coalescer = Coalescer::default();
    let mut deliveries = Deliveries::default();
    let mut batch = Batch::default();
    feed(share(400), &mut Bytes::new("superframe", genuine.collect()), |input| {
        let Some((note, frame)) = input.split_first_chunk::<VIRTIO_LEN>() else { return };
        let (Some(virtio), Some(header)) = (Virtio::parse(*note), Header::parse(frame)) else { return };
        batch.clear();
        match inspect(frame, &header, virtio) {
            Ok(Work::Cut { layout, size, .. }) => cut(frame, layout, size, &mut batch),
            Ok(Work::FinishFirst { start, offset }) => assert!(finish(&mut frame.to_vec(), start, offset)),
            Ok(Work::Whole(_)) => {}
            Err(reason) => assert_eq!(reason, DropReason::Offload),
        }
        if let Some(layout) = Layout::find(frame, &header) {
            let size = tcp_cut(frame, layout, usize::from(virtio.gso_size));
            cut(frame, layout, size.unwrap_or(usize::from(virtio.header_len)), &mut batch);
        }
        finish(&mut frame.to_vec(), usize::from(virtio.csum_start), usize::from(virtio.csum_offset));
        let checksum = [Checksum::Finished, Checksum::TcpPartial, Checksum::UdpPartial][usize::from(note[2]) % 3];
        let takes = [TapOffload::None, TapOffload::Tcp, TapOffload::TcpAndUdp][usize::from(note[3]) % 3];
        for _ in 0..2 {
            if !coalescer.extend(&mut deliveries, FROM, checksum, frame) {
                let _refused = coalescer.push(&mut deliveries, FROM, takes, checksum, &header, frame);
            }
        }
        if deliveries.len() > 20 {
            coalescer.close(&mut deliveries);
            for (piece, delivery) in deliveries.iter() {
                inspect(piece, &self::header(piece), delivery.virtio).expect("the kernel takes it");
            }
            deliveries.clear();
        }
    });
}

/// Mostly small, since each byte takes time; one in 20 is longer, a few are as large as they come. Always more than one
/// segment.
fn superframe(chance: &mut Chance) -> (Packet, usize) {
    let (len, size) = match chance.below(1000) {
        0 => (65_535, 8 + chance.below(300)),
        1..5 => (20_000 + chance.below(46_000), 300 + chance.below(9000)),
        5..50 => (400 + chance.below(3600), 100 + chance.below(1400)),
        _ => (10 + chance.below(400), 8 + chance.below(200)),
    };
    let packet = chance.packet(len);
    let size = size.min(packet.payload.len() - 1);
    (packet, size)
}

/// What the kernel says of it; of one frame if `size` is 0.
fn note(packet: &Packet, size: usize) -> Virtio {
    let short = |number: usize| u16::try_from(number).expect("a short number");
    let virtio = Virtio {
        needs_csum: true,
        csum_start: short(packet.transport_start()),
        csum_offset: short(packet.checksum_offset()),
        ..Virtio::default()
    };
    if size == 0 {
        return virtio;
    }
    let gso = match (packet.is_tcp, packet.is_v6()) {
        (true, false) => Gso::TcpV4,
        (true, true) => Gso::TcpV6,
        (false, _) => Gso::Udp,
    };
    let ecn = packet.flags & superframes::CWR != 0;
    Virtio { gso, ecn, header_len: short(packet.headers()), gso_size: short(size), ..virtio }
}

fn layout_of(packet: &Packet) -> Layout {
    Layout {
        ip: packet.link.len(),
        transport: packet.transport_start(),
        payload: packet.headers(),
        is_v6: packet.is_v6(),
        protocol: if packet.is_tcp { Transport::Tcp } else { Transport::Udp },
    }
}

fn checksum_of(packet: &Packet) -> Checksum {
    if packet.is_tcp { Checksum::TcpPartial } else { Checksum::UdpPartial }
}

fn header(frame: &[u8]) -> Header {
    Header::parse(frame).expect("a whole header")
}

fn cut(frame: &[u8], layout: Layout, size: usize, batch: &mut Batch<()>) {
    let mut segments = Segments::new(frame, layout, size);
    while let Some(len) = segments.next_len() {
        segments.write_next(batch.reserve(len));
        batch.commit(len, ());
    }
}
