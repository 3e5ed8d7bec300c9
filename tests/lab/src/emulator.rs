//! A link with delay and faults: frames cross between two interfaces through a thread.
//!
//! Two raw sockets, one heap of frames ordered by when they are due. Both directions have
//! the same settings, which can change at any time; the seed makes the choices repeatable
//! for the same sequence of frames. The kernel's offload header crosses with each frame, so
//! that checksums that are still to be made stay so.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::packet::{FRAME_MAX, OFFLOAD_HEADER, PacketSocket, Style, wait};
use super::process::Shared;
use super::{Space, fail};

/// Frames in flight at most; more are lost, as on a full queue.
const IN_FLIGHT_MAX: usize = 65_536;

/// Frames taken from one socket before due ones are sent.
const BATCH: usize = 64;

/// How long the thread sleeps at most before it looks whether it must end.
const NAP: Duration = Duration::from_millis(100);

/// What a link does to frames, in both directions.
#[derive(Clone, Copy, Debug)]
pub struct Impairment {
    /// One way.
    pub delay: Duration,
    /// Share of frames that vanish, 0 to 1.
    pub loss: f64,
    /// Share of frames that arrive twice.
    pub duplicate: f64,
    /// Share of frames that are held back by `hold` and overtaken.
    pub reorder: f64,
    /// How long those are held back.
    pub hold: Duration,
    /// Nothing passes.
    pub cut: bool,
    /// Chooses which frames; taken when the emulator starts.
    pub seed: u64,
}

impl Impairment {
    /// A link that does nothing to frames.
    pub const NONE: Impairment = Impairment {
        delay: Duration::ZERO,
        loss: 0.0,
        duplicate: 0.0,
        reorder: 0.0,
        hold: Duration::from_millis(5),
        cut: false,
        seed: 1,
    };

    /// A link that only takes its time.
    pub const fn delay(delay: Duration) -> Impairment {
        Impairment { delay, ..Impairment::NONE }
    }

    /// A link on which nothing passes.
    pub const CUT: Impairment = Impairment { cut: true, ..Impairment::NONE };
}

/// The handle of a running emulator.
#[derive(Clone)]
pub(super) struct Emulator {
    settings: Arc<Mutex<Impairment>>,
}

impl Emulator {
    /// Joins two interfaces of a namespace until the lab ends.
    pub(super) fn start(shared: &Arc<Shared>, space: &Space, ends: [&str; 2], impairment: Impairment) -> Emulator {
        let settings = Arc::new(Mutex::new(impairment));
        let link = Link {
            sockets: ends.map(|end| PacketSocket::open_as(space, end, Style::Offload)),
            settings: Arc::clone(&settings),
            due: BinaryHeap::new(),
            accepted: 0,
            chance: Chance(impairment.seed),
        };
        let ending = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ending);
        let thread = std::thread::Builder::new()
            .name("emulator".into())
            .spawn(move || link.run(&ended))
            .unwrap_or_else(|e| fail(format_args!("no thread for the emulator: {e}")));
        shared.stop_at_end(move || {
            ending.store(true, Ordering::Relaxed);
            thread.join().ok();
        });
        Emulator { settings }
    }

    pub(super) fn set(&self, impairment: Impairment) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = impairment;
    }
}

/// A frame on its way. Ordered by time, then by arrival.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    due: Instant,
    order: u64,
    to: usize,
    frame: Vec<u8>,
}

struct Link {
    sockets: [PacketSocket; 2],
    settings: Arc<Mutex<Impairment>>,
    due: BinaryHeap<Reverse<Flight>>,
    accepted: u64,
    chance: Chance,
}

impl Link {
    fn run(mut self, ending: &AtomicBool) {
        let mut buffer = vec![0; FRAME_MAX + OFFLOAD_HEADER];
        while !ending.load(Ordering::Relaxed) {
            let settings = *self.settings.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = self.take(0, &settings, &mut buffer) + self.take(1, &settings, &mut buffer);
            self.send_due();
            if taken == 0 {
                let next =
                    self.due.peek().map_or(NAP, |Reverse(flight)| flight.due.saturating_duration_since(Instant::now()));
                let [one, other] = &self.sockets;
                wait(&[one, other], next.min(NAP));
            }
        }
    }

    /// Takes a batch of frames that arrived at one end.
    fn take(&mut self, from: usize, settings: &Impairment, buffer: &mut [u8]) -> usize {
        for taken in 0..BATCH {
            let Ok((len, _)) = self.sockets[from].receive_now(buffer) else {
                return taken;
            };
            self.accept(1 - from, settings, &buffer[..len]);
        }
        BATCH
    }

    /// Decides what becomes of a frame.
    fn accept(&mut self, to: usize, settings: &Impairment, frame: &[u8]) {
        if settings.cut || self.chance.hits(settings.loss) || self.due.len() >= IN_FLIGHT_MAX {
            return;
        }
        let mut due = Instant::now() + settings.delay;
        if self.chance.hits(settings.reorder) {
            due += settings.hold;
        }
        let copies = 1 + u8::from(self.chance.hits(settings.duplicate));
        for _ in 0..copies {
            self.accepted += 1;
            self.due.push(Reverse(Flight { due, order: self.accepted, to, frame: frame.to_vec() }));
        }
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        while self.due.peek().is_some_and(|Reverse(next)| next.due <= now) {
            if let Some(Reverse(flight)) = self.due.pop() {
                // An end that is down loses the frame, as a cable does.
                self.sockets[flight.to].send(&flight.frame).ok();
            }
        }
    }
}

/// A small seeded generator (SplitMix64).
struct Chance(u64);

impl Chance {
    fn hits(&mut self, share: f64) -> bool {
        if share <= 0.0 {
            return false;
        }
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // 53 bits are what a f64 holds exactly.
        ((mixed >> 11) as f64) < share * (1_u64 << 53) as f64
    }
}
