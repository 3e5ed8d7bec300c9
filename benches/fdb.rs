//! The forwarding database: learning and looking up, with few entries and with a full table.
//!
//! `cargo bench --bench fdb`

use divan::{Bencher, black_box};
use longwire::datapath::fdb::{CAPACITY, Fdb, Learned, PER_PORT, PER_TAP, PortId, TAP};
use longwire::datapath::frame::Mac;
use longwire::time::Time;

/// Entries: a small network, and all that the table takes.
const ENTRIES: [usize; 2] = [100, CAPACITY];
const NOW: Time = Time::START;

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
    let mut fdb = Fdb::new([1, 2, 3, 4]);
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
