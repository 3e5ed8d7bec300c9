//! Bytes for decoders: arbitrary ones, and genuine ones that something has happened to.
//!
//! A seed makes all of them, so a failure comes again; the input that was being read when a test
//! panics is printed. `LONGWIRE_INPUTS` raises the number, and another number means other inputs.
#![allow(dead_code, reason = "each test program uses its part")]

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// How many inputs all tests of bytes together read if nobody asks for more.
const INPUTS: u64 = 1_000_000;

/// The longest arbitrary input.
const LONGEST: usize = 600;

/// This share of all inputs, in thousandths.
pub(crate) fn share(thousandths: u64) -> u64 {
    let asked = std::env::var("LONGWIRE_INPUTS").ok().map(|text| text.parse().expect("LONGWIRE_INPUTS is a number"));
    asked.unwrap_or(INPUTS).max(INPUTS) * thousandths / 1000
}

/// A maker of inputs.
pub(crate) struct Bytes {
    chance: ChaCha8Rng,
    genuine: Vec<Vec<u8>>,
}

impl Bytes {
    /// Inputs of which most descend from these.
    pub(crate) fn new(label: &str, genuine: Vec<Vec<u8>>) -> Self {
        assert!(!genuine.is_empty(), "{label}: nothing to bend");
        let seed = label.bytes().fold(share(1000), |seed, byte| seed.wrapping_mul(31) + u64::from(byte));
        Self { chance: ChaCha8Rng::seed_from_u64(seed), genuine }
    }

    /// Another genuine input.
    pub(crate) fn learn(&mut self, genuine: Vec<u8>) {
        self.genuine.push(genuine);
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.chance.next_u64() % (end.max(1) as u64)).expect("below a usize")
    }

    /// One of the genuine inputs, untouched.
    pub(crate) fn genuine(&mut self) -> Vec<u8> {
        let place = self.below(self.genuine.len());
        self.genuine[place].clone()
    }

    /// The next input: one of ten is arbitrary, the others are bent once to four times.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        if self.below(10) == 0 {
            let len = self.below(LONGEST);
            return self.fresh(len);
        }
        let mut bytes = self.genuine();
        for _ in 0..=self.below(4) {
            self.bend(&mut bytes);
        }
        bytes
    }

    fn fresh(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.chance.fill_bytes(&mut bytes);
        bytes
    }

    fn bend(&mut self, bytes: &mut Vec<u8>) {
        let place = self.below(bytes.len());
        let what = if bytes.is_empty() { 4 } else { self.below(8) };
        match what {
            0 | 1 => bytes[place] ^= 1 << self.below(8),
            2 => bytes[place] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
            3 => bytes.truncate(place),
            4 => {
                let len = 1 + self.below(40);
                let more = self.fresh(len);
                bytes.splice(place..place, more);
            }
            5 => {
                let end = place + self.below(bytes.len() - place + 1).min(40);
                bytes.drain(place..end);
            }
            6 => {
                // A length or a count that promises too much or too little.
                let value = [0, 1, 2, 15, 255, 512, 0x4000, u16::MAX][self.below(8)].to_be_bytes();
                for (byte, new) in bytes[place..].iter_mut().zip(value) {
                    *byte = new;
                }
            }
            _ => {
                let other = self.genuine();
                let cut = self.below(other.len());
                bytes.truncate(place);
                bytes.extend_from_slice(&other[cut..]);
            }
        }
    }
}

/// Reads `count` inputs; shows the one at which a reader panics.
pub(crate) fn feed(count: u64, bytes: &mut Bytes, mut read: impl FnMut(&[u8])) {
    for _ in 0..count {
        let input = Input(bytes.next());
        read(&input.0);
    }
}

struct Input(Vec<u8>);

impl Drop for Input {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("while reading {hex}");
        }
    }
}
