//! The tables that every frame meets: the forwarding database, and the counters of which machines talk.
//!
//! A pass of `counting` is of a million frames: its milliseconds are nanoseconds per frame, and the counters cost the
//! difference of `lookup_and_counters` and `lookup_alone`. A window of half a million is taken twice in each.
//! `cargo bench --bench fdb`

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use longwire::datapath::fdb::{CAPACITY, Fdb, Learned, PER_PORT, PER_TAP, PortId, TAP};
use longwire::datapath::frame::Mac;
use longwire::datapath::pairs::{Pairs, Side, Volume};
use longwire::time::Time;

/// Entries: a small network, and all that the table takes.
const ENTRIES: [usize; 2] = [100, CAPACITY];
/// Machines that talk.
const MACS: [usize; 4] = [64, 1_000, 10_000, 60_000];
const NOW: Time = Time::START;
const SEED: [u64; 4] = [1, 2, 3, 4];
/// Frames of a pass: about a million.
const FRAMES: usize = 1 << 20;
/// Frames between two readings of the counters: half a second at a million frames per second.
const WINDOW: usize = 1 << 19;

fn main() {
    divan::main();
}

/// Another address for each number, in no order.
fn mac(number: usize) -> Mac {
    let mixed = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let [.., high, low] = number.to_be_bytes();
    Mac([0x02, mixed[0], mixed[1], mixed[2], high, low])
}

/// The TAP's room first, then one peer after the other.
fn port(number: usize) -> PortId {
    let peer = number.checked_sub(PER_TAP).map(|beyond| 1 + beyond / PER_PORT);
    peer.map_or(TAP, |peer| PortId(u32::try_from(peer).expect("a few peers")))
}

fn table(entries: usize) -> Fdb {
    let mut fdb = Fdb::new(SEED);
    for number in 0..entries {
        assert_eq!(fdb.learn(NOW, 0, mac(number), port(number), false), Learned::New);
    }
    fdb
}

/// Numbers from 0 to `end`, again and again, far from each other.
fn walk(end: usize) -> impl FnMut() -> usize {
    let mut at = 0;
    move || {
        at = (at + 7919) % end;
        at
    }
}

#[divan::bench(args = ENTRIES)]
fn lookup_hit(bencher: Bencher<'_, '_>, entries: usize) {
    let (fdb, mut next) = (table(entries), walk(entries));
    bencher.bench_local(|| fdb.lookup(NOW, 0, black_box(mac(next()))));
}

#[divan::bench(args = ENTRIES)]
fn lookup_miss(bencher: Bencher<'_, '_>, entries: usize) {
    let (fdb, mut next) = (table(entries), walk(entries));
    bencher.bench_local(|| fdb.lookup(NOW, 1, black_box(mac(next()))));
}

#[divan::bench(args = ENTRIES)]
fn learn_known(bencher: Bencher<'_, '_>, entries: usize) {
    let (mut fdb, mut next) = (table(entries), walk(entries));
    bencher.bench_local(|| {
        let number = next();
        fdb.learn(NOW, 0, black_box(mac(number)), port(number), false)
    });
}

/// What a table costs that refuses: a member makes addresses up.
#[divan::bench]
fn learn_refused_by_a_full_table(bencher: Bencher<'_, '_>) {
    let (mut fdb, mut next) = (table(CAPACITY), walk(CAPACITY));
    bencher.bench_local(|| fdb.learn(NOW, 2, black_box(mac(next())), PortId(1), false));
}

/// A whole table of new addresses; the time is that of all together.
#[divan::bench(args = ENTRIES)]
fn learn_new(entries: usize) -> Fdb {
    table(entries)
}

/// What it costs to count which machines talk, beside the lookup that every frame needs anyway.
mod counting {
    use super::*;

    /// Headers of a skewed stream between so many machines: the lower its number, the more often a machine talks; each
    /// talks to 8 others.
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
        let mut pairs = Pairs::new(SEED);
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
}
