//! Sealing and opening one packet: 64 and 1400 bytes, both ciphers, one core.
//!
//! `cargo bench --bench seal`

use std::cell::RefCell;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use longwire::datapath::seal::{Opener, Sealer, SessionKeys, Share};
use longwire::wire::data::{HEADER_LEN, Header, TAG_LEN};
use longwire::wire::handshake::Suite;

/// Bytes of what is sealed: a frame of the smallest size, and one that fills an ordinary packet.
const SIZES: [usize; 2] = [64, 1400];

fn main() {
    divan::main();
}

fn keys(suite: Suite) -> SessionKeys {
    SessionKeys { suite, send: [1; 32], receive: [1; 32], local_index: 5, remote_index: 5, streams: true }
}

fn packet(size: usize) -> Vec<u8> {
    vec![0x5a; HEADER_LEN + size + TAG_LEN]
}

fn seal(bencher: Bencher<'_, '_>, suite: Suite, size: usize) {
    let (mut sealer, mut packet) = (Sealer::new(&keys(suite), Share::WHOLE), packet(size));
    bencher.counter(BytesCount::new(size)).bench_local(|| sealer.seal(true, black_box(&mut packet)));
}

/// Each packet opens once, so each is sealed before, outside of the time that counts.
fn open(bencher: Bencher<'_, '_>, suite: Suite, size: usize) {
    let sealer = RefCell::new(Sealer::new(&keys(suite), Share::WHOLE));
    let mut opener = Opener::new(&keys(suite));
    let sealed = || {
        let mut packet = packet(size);
        sealer.borrow_mut().seal(true, &mut packet);
        packet
    };
    bencher.counter(BytesCount::new(size)).with_inputs(sealed).bench_local_refs(|packet| {
        let header = Header::parse(packet).expect("a packet of ours");
        opener.open(header, packet).expect("a genuine packet").len()
    });
}

#[divan::bench(args = SIZES)]
fn seal_aes_gcm(bencher: Bencher<'_, '_>, size: usize) {
    seal(bencher, Suite::AesGcm, size);
}

#[divan::bench(args = SIZES)]
fn seal_chacha20_poly1305(bencher: Bencher<'_, '_>, size: usize) {
    seal(bencher, Suite::ChaChaPoly, size);
}

#[divan::bench(args = SIZES)]
fn open_aes_gcm(bencher: Bencher<'_, '_>, size: usize) {
    open(bencher, Suite::AesGcm, size);
}

#[divan::bench(args = SIZES)]
fn open_chacha20_poly1305(bencher: Bencher<'_, '_>, size: usize) {
    open(bencher, Suite::ChaChaPoly, size);
}
