//! The queues between the loop and the streams: short, and the newest data wins.
//!
//! The loop puts packets in by the name of their stream; the stream's task takes them out as frames. A packet that
//! waited longer than [`DELAY`] is dropped when its turn comes, the oldest one when the queue is full.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::datapath::buf::Transmits;
use crate::io::clock;
use crate::seam::stream;
use crate::time::Time;
use crate::wire::stream::{FRAME_MAX, push_frame};

/// Bytes that may wait for one stream: 10 ms at 200 Mb/s, four superframes of a guest.
const QUEUE_BYTES: usize = 256 * 1024;
/// Bytes that may wait for all streams together.
const ALL_BYTES: usize = 64 << 20;
/// A packet that waited for longer helps nobody: its sender has given it up, or sends on in vain.
const DELAY: Duration = Duration::from_millis(100);
/// Bytes taken out at once: what one TLS record holds.
const TAKE: usize = 16 * 1024;
/// What a packet takes beside its bytes.
const OVERHEAD: usize = 64;

/// All streams of this daemon.
#[derive(Clone, Debug, Default)]
pub(in crate::io) struct Streams(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    next: AtomicU64,
    open: AtomicUsize,
    waiting: AtomicUsize,
    table: Mutex<BTreeMap<u64, Arc<Queue>>>,
    closed: Notify,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    packets: Mutex<Packets>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Packets {
    list: VecDeque<(Time, Vec<u8>)>,
    bytes: usize,
    /// The stream is gone: what the loop still puts in would be counted for ever.
    closed: bool,
}

/// One stream's end of its queue; dropped, the stream is closed.
#[derive(Debug)]
pub(in crate::io) struct Stream {
    streams: Streams,
    number: u64,
    queue: Arc<Queue>,
}

impl Streams {
    /// A new stream, under a number that was never used.
    pub(super) fn open(&self) -> Stream {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let queue = Arc::<Queue>::default();
        lock(&self.0.table).insert(number, Arc::clone(&queue));
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Stream { streams: self.clone(), number, queue }
    }

    /// Whether there is one: else nothing need be looked at.
    pub(in crate::io) fn any(&self) -> bool {
        self.0.open.load(Ordering::Relaxed) > 0
    }

    /// Queues what of `batch` goes to streams.
    pub(in crate::io) fn send(&self, now: Time, batch: &Transmits) {
        for (packet, target) in batch.iter() {
            if let Some(number) = stream::number(target.to) {
                let queue = lock(&self.0.table).get(&number).map(Arc::clone);
                match queue {
                    Some(queue) if packet.len() <= FRAME_MAX => self.push(now, &queue, packet),
                    Some(_) | None => self.count(1),
                }
            }
        }
    }

    fn push(&self, now: Time, queue: &Queue, packet: &[u8]) {
        let cost = packet.len() + OVERHEAD;
        let mut packets = lock(&queue.packets);
        if packets.closed {
            return self.count(1);
        }
        let is_full = |packets: &Packets| {
            packets.bytes + cost > QUEUE_BYTES || self.0.waiting.load(Ordering::Relaxed) + cost > ALL_BYTES
        };
        while is_full(&packets) {
            self.count(1);
            if self.pop(&mut packets).is_none() {
                return;
            }
        }
        packets.list.push_back((now, packet.to_vec()));
        packets.bytes += cost;
        self.0.waiting.fetch_add(cost, Ordering::Relaxed);
        queue.filled.notify_one();
    }

    fn pop(&self, packets: &mut Packets) -> Option<(Time, Vec<u8>)> {
        let (at, packet) = packets.list.pop_front()?;
        packets.bytes -= packet.len() + OVERHEAD;
        self.0.waiting.fetch_sub(packet.len() + OVERHEAD, Ordering::Relaxed);
        Some((at, packet))
    }

    fn count(&self, packets: u64) {
        self.0.dropped.fetch_add(packets, Ordering::Relaxed);
    }

    /// Packets that found no room, no stream, or no time.
    pub(in crate::io) fn dropped(&self) -> &AtomicU64 {
        &self.0.dropped
    }

    /// Until every stream is closed.
    pub(in crate::io) async fn wait_idle(&self) {
        while self.any() {
            self.0.closed.notified().await;
        }
    }
}

impl Stream {
    /// What stands for its other end in the corridor.
    pub(super) const fn address(&self) -> SocketAddr {
        stream::address(self.number)
    }

    /// Waits for packets and appends them to `out` as frames.
    pub(super) async fn take(&self, out: &mut Vec<u8>) {
        loop {
            self.take_now(clock::now(), out);
            if !out.is_empty() {
                return;
            }
            self.queue.filled.notified().await;
        }
    }

    fn take_now(&self, now: Time, out: &mut Vec<u8>) {
        let mut packets = lock(&self.queue.packets);
        while out.len() < TAKE
            && let Some((at, packet)) = self.streams.pop(&mut packets)
        {
            if now.since(at) > DELAY {
                self.streams.count(1);
            } else {
                push_frame(out, &[], &packet);
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        lock(&self.streams.0.table).remove(&self.number);
        let mut packets = lock(&self.queue.packets);
        packets.closed = true;
        while self.streams.pop(&mut packets).is_some() {}
        self.streams.0.open.fetch_sub(1, Ordering::Relaxed);
        self.streams.0.closed.notify_waiters();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::buf::Target;

    fn batch(to: SocketAddr, packets: &[Vec<u8>]) -> Transmits {
        let mut batch = Transmits::default();
        packets.iter().for_each(|packet| batch.push(packet, Target { to, from: None, hops: None, tos: 0 }));
        batch
    }

    fn taken(stream: &Stream, now: Time) -> Vec<u8> {
        let mut out = Vec::new();
        stream.take_now(now, &mut out);
        out
    }

    #[test]
    fn a_full_queue_gives_the_oldest_packet_up() {
        let (streams, now) = (Streams::default(), Time::START);
        let stream = streams.open();
        let packets: Vec<_> = (0..200_u8).map(|number| vec![number; 1500]).collect();
        streams.send(now, &batch(stream.address(), &packets));
        let kept = QUEUE_BYTES / (1500 + OVERHEAD);
        assert_eq!(streams.dropped().load(Ordering::Relaxed), 200 - kept as u64);
        let first = taken(&stream, now);
        assert_eq!(usize::from(first[2]), 200 - kept, "the newest are kept, in their order");
        assert_eq!(first.len(), 11 * 1502, "a record at once");
    }

    #[test]
    fn a_packet_that_came_too_late_is_not_sent() {
        let (streams, now) = (Streams::default(), Time::START);
        let stream = streams.open();
        streams.send(now, &batch(stream.address(), &[vec![1]]));
        streams.send(now + DELAY, &batch(stream.address(), &[vec![2]]));
        assert_eq!(taken(&stream, now + DELAY * 2), [0, 1, 2]);
        assert_eq!(streams.dropped().load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_closed_stream_keeps_nothing_and_takes_nothing() {
        let (streams, now) = (Streams::default(), Time::START);
        assert!(!streams.any());
        let stream = streams.open();
        let (address, other) = (stream.address(), streams.open());
        assert!(streams.any() && address != other.address());
        streams.send(now, &batch(address, &[vec![1; 100]]));
        let queue = Arc::clone(&stream.queue);
        drop(stream);
        assert_eq!(streams.0.waiting.load(Ordering::Relaxed), 0);
        // As a loop that found the queue just before.
        streams.push(now, &queue, &[1; 100]);
        assert_eq!(streams.0.waiting.load(Ordering::Relaxed), 0);
        streams.send(now, &batch(address, &[vec![1; 100], vec![0; FRAME_MAX + 1]]));
        streams.send(now, &batch(other.address(), &[vec![0; FRAME_MAX + 1]]));
        assert_eq!(streams.dropped().load(Ordering::Relaxed), 4);
        assert!(taken(&other, now).is_empty());
    }
}
