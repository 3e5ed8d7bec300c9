//! How often a frame is heard: where it should be, and where it should not.

use std::time::{Duration, Instant};

use super::PacketSocket;

/// What must come may take its time: the machine has other things to do.
const PATIENCE: Duration = Duration::from_secs(5);

/// What comes once more, or where it should not, comes no later than this after what must.
const AFTER: Duration = Duration::from_millis(300);

/// How often each socket hears the frame, unchanged. `expected` says only how many are waited for.
pub fn heard(wires: &[PacketSocket], frame: &[u8], expected: &[usize]) -> Vec<usize> {
    let copies = |frames: &[Vec<u8>]| frames.iter().filter(|heard| *heard == frame).count();
    let until = |end: Instant| end.saturating_duration_since(Instant::now());
    let end = Instant::now() + PATIENCE;
    let must = |(wire, expected): (&PacketSocket, &usize)| {
        copies(&wire.collect(until(end), |frames| copies(frames) >= *expected))
    };
    let came: Vec<usize> = wires.iter().zip(expected).map(must).collect();
    let end = Instant::now() + AFTER;
    let more = |wire: &PacketSocket| copies(&wire.collect(until(end), |_| false));
    wires.iter().map(more).zip(came).map(|(more, came)| came + more).collect()
}
