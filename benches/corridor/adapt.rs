//! What adapting adds to the corridor: superframes through switches that count and are asked, and through switches that
//! do not, in turns of milliseconds, as only ratios of one moment mean anything.
//!
//! The kernel's part, which is larger than the corridor, is not in it: the share of a daemon's time is smaller. Nor are
//! reports and plans, a few microseconds in two seconds (`cargo bench --bench plan`).

use std::process::ExitCode;
use std::time::Duration;

use longwire::wire::handshake::Suite;
use rustix::time::{ClockId, clock_gettime};

use super::pair::{Pair, superframe};

/// Student's t for 29 degrees of freedom and more: 95 % are below.
const QUANTILE: f64 = 1.70;
const PAIRS: usize = 40;
/// Turns of each side in a pair.
const TURNS: usize = 8;
/// Superframes of a turn, 6 MB. The counters are read after each: at 8 Gb/s eighty times as often as by a daemon.
const SUPERFRAMES: usize = 100;
/// The share that adapting may cost.
const COST_MAX: f64 = 0.03;

/// Measures it and says what came of it; a failure if it is too much.
pub fn run() -> ExitCode {
    let mut sides = [true, false].map(|adapts| Pair::new(Suite::AesGcm, adapts));
    let ratios: Vec<f64> = (0..PAIRS).map(|_| ratio(&mut sides)).collect();
    let (mean, bound) = judge(&ratios);
    println!(
        "adapting takes {mean:.4} times the CPU time of a corridor without ({PAIRS} pairs of {TURNS} turns); with 95 % \
         confidence no more than {bound:.4} times"
    );
    if bound <= 1.0 + COST_MAX { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The time with, in times of the time without.
fn ratio(sides: &mut [Pair; 2]) -> f64 {
    let mut spent = [Duration::ZERO; 2];
    for turn in 0..TURNS {
        // Neither is always the first.
        for side in if turn % 2 == 0 { [0, 1] } else { [1, 0] } {
            spent[side] += carry(&mut sides[side]);
        }
    }
    spent[0].as_secs_f64() / spent[1].as_secs_f64()
}

/// The processor's time for a turn.
fn carry(pair: &mut Pair) -> Duration {
    let frames = superframe();
    let start = thread_time();
    for _ in 0..SUPERFRAMES {
        assert!(pair.carry(0, &frames) >= frames.byte_len(), "something is lost");
    }
    assert!(pair.tally() > 0, "nothing was counted");
    thread_time() - start
}

/// Of this thread alone, whoever else runs.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// The mean ratio, and what the true one is below with 95 % confidence; of logarithms, as ratios are.
fn judge(ratios: &[f64]) -> (f64, f64) {
    let count = ratios.len() as f64;
    let logs: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).collect();
    let mean = logs.iter().sum::<f64>() / count;
    let squares = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>();
    let deviation = (squares / (count - 1.0)).sqrt();
    (mean.exp(), (mean + QUANTILE * deviation / count.sqrt()).exp())
}
