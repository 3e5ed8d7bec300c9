//! Many small datagrams from one guest to the other at a set rate, counted where they arrive.
//!
//! Plain datagrams, each a system-call message of its own: no segmentation offload makes many of one.
//! iperf3 would do for large ones, but with small ones it is the limit itself.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::Space;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg, sockopt};

/// Where the counting guest listens.
const PORT: u16 = 9000;
/// Datagrams of one call, at most.
const BATCH: usize = 64;
/// The receive buffer: a receiver that waits for a processor for some milliseconds loses nothing.
const BUFFER: usize = 8 << 20;
/// Between looks of a sender whose next datagram is not due.
const NAP: Duration = Duration::from_micros(50);
/// Nothing more arrives if nothing has for so long.
const SILENCE: Duration = Duration::from_millis(40);
/// Steps of the search: the last one moves the rate by 2 %.
const STEPS: u32 = 6;
/// The share that may be lost.
const LOSS_MAX: f64 = 0.005;
/// The rate tried first may be this much above what an unpaced flood delivers.
const ABOVE_FLOOD: f64 = 1.3;

/// A sender and a counter, each in its guest.
pub struct Flood {
    sender: UdpSocket,
    receiver: UdpSocket,
    payload: usize,
}

/// What one step did.
struct Burst {
    sent: u64,
    received: u64,
    /// From the first to the last datagram sent.
    seconds: f64,
}

impl Burst {
    fn loses_little(&self) -> bool {
        self.received as f64 >= self.sent as f64 * (1.0 - LOSS_MAX)
    }

    fn delivered(&self) -> f64 {
        self.received as f64 / self.seconds
    }
}

impl Flood {
    /// Opens both sockets; datagrams carry `payload` bytes.
    pub fn new(from: &Space, to: &Space, address: IpAddr, payload: usize) -> std::io::Result<Flood> {
        let receiver = to.inside(|| UdpSocket::bind((address, PORT)))?;
        // Only the real root may pass the system's limit.
        sockopt::set_socket_recv_buffer_size_force(&receiver, BUFFER)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&receiver, BUFFER))?;
        receiver.set_read_timeout(Some(SILENCE))?;
        let anywhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let sender = from.inside(|| UdpSocket::bind(anywhere))?;
        sender.connect((address, PORT))?;
        Ok(Flood { sender, receiver, payload })
    }

    /// The largest rate at which less than 0.5 % are lost, in datagrams per second.
    ///
    /// A step has failed only if it failed twice: a hiccup of the machine is not the tunnel's limit.
    pub fn largest_rate(&self, step: Duration) -> f64 {
        let first = self.run(None, step);
        if first.loses_little() {
            return first.delivered();
        }
        let (mut low, mut high, mut best) = (0.0, first.delivered() * ABOVE_FLOOD, 0.0);
        for _ in 0..STEPS {
            let rate = f64::midpoint(low, high);
            let passed = (0..2).map(|_| self.run(Some(rate), step)).find(Burst::loses_little);
            match passed {
                Some(burst) => (low, best) = (rate, burst.delivered()),
                None => high = rate,
            }
        }
        best
    }

    fn run(&self, rate: Option<f64>, time: Duration) -> Burst {
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let counter = scope.spawn(|| self.count(&ended));
            let (sent, seconds) = self.send(rate, time);
            ended.store(true, Ordering::Relaxed);
            Burst { sent, received: counter.join().unwrap_or(0), seconds }
        })
    }

    /// Sends for `time`; how many, and how long that took.
    fn send(&self, rate: Option<f64>, time: Duration) -> (u64, f64) {
        let (payload, start, mut sent) = (vec![0; self.payload], Instant::now(), 0_u64);
        loop {
            let elapsed = start.elapsed();
            if elapsed >= time {
                return (sent, elapsed.as_secs_f64());
            }
            let planned = rate.map(|rate| (rate * elapsed.as_secs_f64()) as u64);
            let due = planned.map_or(BATCH as u64, |planned| planned.saturating_sub(sent));
            if due == 0 {
                std::thread::sleep(NAP);
                continue;
            }
            sent += self.send_some(&payload, usize::try_from(due).unwrap_or(BATCH).min(BATCH));
        }
    }

    fn send_some(&self, payload: &[u8], count: usize) -> u64 {
        let part = [IoSlice::new(payload)];
        let mut controls = (0..count).map(|_| SendAncillaryBuffer::default()).collect::<Vec<_>>();
        let mut messages = controls.iter_mut().map(|control| MMsgHdr::new(&part, control)).collect::<Vec<_>>();
        // What the kernel refuses counts as sent and lost.
        sendmmsg(&self.sender, &mut messages, SendFlags::empty()).unwrap_or(count) as u64
    }

    /// Counts until the sender has ended and nothing comes any more.
    fn count(&self, ended: &AtomicBool) -> u64 {
        let (mut buffer, mut received) = ([0; 2048], 0);
        loop {
            match self.receiver.recv(&mut buffer) {
                Ok(_) => received += 1,
                Err(_) if ended.load(Ordering::Relaxed) => return received,
                Err(_) => {}
            }
        }
    }
}
