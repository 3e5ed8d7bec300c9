//! What a superframe costs in user space: cutting it, joining its segments, summing.
//!
//! ```sh
//! cargo bench --bench segment
//! ```
//!
//! Cutting and joining count segments of 1400 bytes as items: 1 / (items per second) is the cost of one.

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use longwire::datapath::buf::{Batch, Deliveries, OverlayIndex};
use longwire::datapath::checksum::{finish_ipv4, sum};
use longwire::datapath::coalesce::Coalescer;
use longwire::datapath::fdb::PortId;
use longwire::datapath::frame::Header;
use longwire::datapath::layout::Layout;
use longwire::datapath::offload::TapOffload;
use longwire::datapath::segment::Segments;
use longwire::wire::data::Checksum;

/// Payload of a segment whose frame has 1400 bytes.
const SIZE: usize = 1400 - 66;
/// Segments of one superframe of nearly 64 KB.
const SEGMENTS: usize = 48;

fn main() {
    divan::main();
}

#[divan::bench]
fn cut_64_kb(bencher: Bencher<'_, '_>) {
    let frame = superframe();
    let layout = Layout::find(&frame, &header(&frame)).expect("TCP");
    let mut batch = Batch::default();
    bencher.counter(ItemsCount::new(SEGMENTS)).bench_local(|| cut(&frame, layout, &mut batch));
}

#[divan::bench]
fn join_64_kb(bencher: Bencher<'_, '_>) {
    let frame = superframe();
    let mut segments = Batch::default();
    cut(&frame, Layout::find(&frame, &header(&frame)).expect("TCP"), &mut segments);
    let (mut coalescer, mut batch) = (Coalescer::default(), Deliveries::default());
    bencher.counter(ItemsCount::new(SEGMENTS)).bench_local(|| {
        batch.clear();
        for (segment, ()) in segments.iter() {
            join(&mut coalescer, &mut batch, segment);
        }
        coalescer.close(&mut batch);
        assert_eq!(batch.len(), 1);
    });
}

/// Frames that nothing follows: acknowledgements, requests.
#[divan::bench]
fn join_nothing(bencher: Bencher<'_, '_>) {
    let mut frame = superframe();
    frame.truncate(66 + 20);
    frame[16..18].copy_from_slice(&72_u16.to_be_bytes());
    finish_ipv4(&mut frame[14..34]);
    let (mut coalescer, mut batch) = (Coalescer::default(), Deliveries::default());
    bencher.counter(ItemsCount::new(SEGMENTS)).bench_local(|| {
        batch.clear();
        for _ in 0..SEGMENTS {
            join(&mut coalescer, &mut batch, &frame);
        }
        assert_eq!(batch.len(), SEGMENTS);
    });
}

#[divan::bench(args = [20, 1400, 65_536])]
fn sum_bytes(bencher: Bencher<'_, '_>, len: usize) {
    let bytes = vec![0xab; len];
    bencher.counter(BytesCount::new(len)).bench_local(|| sum(divan::black_box(&bytes)));
}

/// TCP over IPv4 with timestamps; its checksum is partial.
fn superframe() -> Vec<u8> {
    let payload = vec![0x5a; SIZE * SEGMENTS];
    let total = u16::try_from(52 + payload.len()).expect("64 KB at most").to_be_bytes();
    let ip = [0x45, 0, total[0], total[1], 0, 7, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let tcp = [0x1f, 0x90, 0x30, 0x39, 0, 0, 0, 0, 0, 0, 0, 9, 0x80, 0x10, 1, 0, 0, 0, 0, 0];
    let mut frame = [&[2; 12], [8, 0].as_slice(), &ip, &tcp, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], &payload].concat();
    finish_ipv4(&mut frame[14..34]);
    frame
}

fn header(frame: &[u8]) -> Header {
    Header::parse(frame).expect("Ethernet")
}

fn cut(frame: &[u8], layout: Layout, batch: &mut Batch<()>) {
    batch.clear();
    let mut segments = Segments::new(frame, layout, SIZE);
    while let Some(len) = segments.next_len() {
        segments.write_next(batch.reserve(len));
        batch.commit(len, ());
    }
}

fn join(coalescer: &mut Coalescer, batch: &mut Deliveries, frame: &[u8]) {
    let from = (OverlayIndex(0), PortId(1));
    let checksum = Checksum::TcpPartial;
    if !coalescer.extend(batch, from, checksum, frame) {
        let pushed = coalescer.push(batch, from, TapOffload::TcpAndUdp, checksum, &header(frame), frame);
        pushed.expect("a frame that can be delivered");
    }
}
