//! What it costs to count which machines talk, beside the lookup that every frame needs anyway.
//!
//! Machines talk unevenly, as they do: the lower its number, the more often. A pass is of a million
//! frames: its milliseconds are nanoseconds per frame, and the counters cost the difference of the two. A window of half
//! a million is taken twice in each. `cargo bench --bench pairs`

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use longwire::datapath::fdb::{Fdb, Learned, PER_PORT, PER_TAP, PortId, TAP};
use longwire::datapath::frame::Mac;
use longwire::datapath::pairs::{Pairs, Side, Volume};
use longwire::time::Time;

const MACS: [usize; 4] = [64, 1_000, 10_000, 60_000];
const NOW: Time = Time::START;
/// Frames of a pass: about a million.
const FRAMES: usize = 1 << 20;
/// Frames between two readings of the counters: half a second at a million frames per second.
const WINDOW: usize = 1 << 19;

fn main() {
    divan::main();
}

fn mac(number: usize) -> Mac {
    let mixed = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let [.., high, low] = number.to_be_bytes();
    Mac([0x02, mixed[0], mixed[1], mixed[2], high, low])
}

fn table(macs: usize) -> Fdb {
    let mut fdb = Fdb::new([1, 2, 3, 4]);
    for number in 0..macs {
        let peer = number.checked_sub(PER_TAP).map(|beyond| 1 + beyond / PER_PORT);
        let port = peer.map_or(TAP, |peer| PortId(u32::try_from(peer).expect("a few peers")));
        assert_eq!(fdb.learn(NOW, 0, mac(number), port, false), Learned::New);
    }
    fdb
}

/// Headers of a skewed stream between so many machines: each talks to 8 others.
fn stream(macs: usize) -> Vec<[u8; 14]> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let frame = |_| {
        let share = (next() >> 11) as f64 / (1_u64 << 53) as f64;
        let from = (share * share * macs as f64) as usize;
        let to = (from + 1 + (next() % 8) as usize) % macs;
        let mut header = [0; 14];
        header[..6].copy_from_slice(&mac(to).0);
        header[6..12].copy_from_slice(&mac(from).0);
        header
    };
    (0..FRAMES).map(frame).collect()
}

fn destination(frame: &[u8; 14]) -> Mac {
    let [a, b, c, d, e, f, ..] = *frame;
    Mac([a, b, c, d, e, f])
}

#[divan::bench(args = MACS, sample_count = 10)]
fn lookup_alone(bencher: Bencher<'_, '_>, macs: usize) {
    let (fdb, frames) = (table(macs), stream(macs));
    bencher.counter(ItemsCount::new(FRAMES)).bench_local(|| {
        for frame in &frames {
            black_box(fdb.lookup(NOW, 0, destination(black_box(frame))));
        }
    });
}

#[divan::bench(args = MACS, sample_count = 10)]
fn lookup_and_counters(bencher: Bencher<'_, '_>, macs: usize) {
    let (fdb, frames) = (table(macs), stream(macs));
    let mut pairs = Pairs::new([1, 2, 3, 4]);
    bencher.counter(ItemsCount::new(FRAMES)).bench_local(|| {
        for window in frames.chunks(WINDOW) {
            for frame in window {
                pairs.count(Side::Out(PortId(1)), black_box(frame), Volume { frames: 1, bytes: 1_514 });
                black_box(fdb.lookup(NOW, 0, destination(black_box(frame))));
            }
            drop(pairs.take());
        }
    });
}
