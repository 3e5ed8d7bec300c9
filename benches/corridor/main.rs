//! The corridor of two nodes without kernel: frames in, packets out, packets in, frames out.
//!
//! Each figure is of one batch: divide by the frames or bytes that stand beside it.
//!
//! ```sh
//! cargo bench --bench corridor
//! cargo bench --bench corridor -- --adapt-cost     # what adapting adds to it, in ten seconds
//! ```
#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]
#![allow(unreachable_pub, reason = "modules of a program")]

mod adapt;
mod pair;

use std::process::ExitCode;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use longwire::datapath::buf::Frames;
use longwire::wire::handshake::Suite;
use pair::{Pair, frame, frames, superframe};

/// Frames of one batch, as one wakeup reads them.
const BATCH: usize = 64;

fn main() -> ExitCode {
    if std::env::args().any(|arg| arg == "--adapt-cost") {
        return adapt::run();
    }
    divan::main();
    ExitCode::SUCCESS
}

fn carry(bencher: Bencher<'_, '_>, suite: Suite, frames: &Frames) {
    let mut pair = Pair::new(suite, true);
    // What arrives in several pieces has more headers.
    assert!(pair.carry(0, frames) >= frames.byte_len(), "something is lost");
    bencher
        .counter(ItemsCount::new(frames.len()))
        .counter(BytesCount::new(frames.byte_len()))
        .bench_local(|| pair.carry(0, black_box(frames)));
}

#[divan::bench(args = [64, 1340, 1514])]
fn frames_across(bencher: Bencher<'_, '_>, len: usize) {
    carry(bencher, Suite::AesGcm, &frames(&vec![frame(0, len); BATCH]));
}

#[divan::bench(args = [64, 1340, 1514])]
fn frames_to_packets(bencher: Bencher<'_, '_>, len: usize) {
    let (mut pair, frames) = (Pair::new(Suite::AesGcm, true), frames(&vec![frame(0, len); BATCH]));
    bencher.counter(ItemsCount::new(BATCH)).counter(BytesCount::new(frames.byte_len())).bench_local(|| {
        let transmits = pair.outbound(0, black_box(&frames));
        pair.recycle(0, transmits);
    });
}

#[divan::bench]
fn superframe_across_aes_gcm(bencher: Bencher<'_, '_>) {
    carry(bencher, Suite::AesGcm, &superframe());
}

#[divan::bench]
fn superframe_across_chacha20_poly1305(bencher: Bencher<'_, '_>) {
    carry(bencher, Suite::ChaChaPoly, &superframe());
}
