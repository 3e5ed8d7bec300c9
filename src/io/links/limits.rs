//! What one address, and one link, may take of a supernode.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// Bytes that may wait for one link: a roster of the largest overlay.
const LINK_BYTES: usize = 2 << 20;
/// Bytes that may wait for all links together.
const ALL_BYTES: usize = 256 << 20;
/// What a message takes beside its bytes.
const OVERHEAD: usize = 64;

/// How many links, or handshakes, each address has here.
#[derive(Clone, Debug)]
pub(in crate::io) struct Origins {
    counts: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    most: usize,
}

/// One place in [`Origins`]; free again when dropped.
#[derive(Debug)]
pub(in crate::io) struct Place {
    origins: Origins,
    network: IpAddr,
}

impl Origins {
    /// At most so many from each IPv4 address and each IPv6 /64, which one customer has.
    pub(in crate::io) fn new(most: usize) -> Self {
        Self { counts: Arc::default(), most }
    }

    pub(in crate::io) fn enter(&self, address: IpAddr) -> Option<Place> {
        let network = network(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { origins: self.clone(), network })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.origins.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// Messages that wait for a link, counted in bytes: the loop's end.
#[derive(Debug)]
pub(in crate::io) struct Outgoing(Arc<Waiting>);

/// The same, the link's end.
#[derive(Debug)]
pub(in crate::io) struct Messages(Arc<Waiting>);

/// No channel of tokio's: one of those keeps a kilobyte for each of thousands of links that are silent.
#[derive(Debug)]
struct Waiting {
    list: Mutex<List>,
    changed: Notify,
    all: Backlog,
}

#[derive(Debug, Default)]
struct List {
    messages: VecDeque<Bytes>,
    bytes: usize,
    /// One of the ends is gone.
    closed: bool,
}

/// Bytes that wait for all links.
#[derive(Clone, Debug, Default)]
pub(in crate::io) struct Backlog(Arc<AtomicUsize>);

impl Backlog {
    /// Both ends of a link's queue.
    pub(in crate::io) fn queue(&self) -> (Outgoing, Messages) {
        let waiting = Arc::new(Waiting { list: Mutex::default(), changed: Notify::new(), all: self.clone() });
        (Outgoing(Arc::clone(&waiting)), Messages(waiting))
    }
}

impl Outgoing {
    /// `false` if there is no room, or nobody who sends.
    pub(in crate::io) fn send(&self, message: Bytes) -> bool {
        let (len, all) = (message.len() + OVERHEAD, &self.0.all.0);
        let mut list = self.0.lock();
        if list.closed || list.bytes + len > LINK_BYTES || all.load(Ordering::Relaxed) + len > ALL_BYTES {
            return false;
        }
        list.bytes += len;
        all.fetch_add(len, Ordering::Relaxed);
        list.messages.push_back(message);
        drop(list);
        self.0.changed.notify_one();
        true
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_one();
    }
}

impl Messages {
    /// The next one; `None` once the loop has closed the link.
    pub(in crate::io) async fn recv(&mut self) -> Option<Bytes> {
        loop {
            if let Some(next) = self.0.take() {
                return next;
            }
            self.0.changed.notified().await;
        }
    }

    /// Nothing more is taken.
    pub(in crate::io) fn close(&mut self) {
        self.0.close();
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Waiting {
    /// The first message, or that there will be none; `None` if there is none now.
    fn take(&self) -> Option<Option<Bytes>> {
        let mut list = self.lock();
        let Some(message) = list.messages.pop_front() else { return list.closed.then_some(None) };
        let len = message.len() + OVERHEAD;
        list.bytes -= len;
        self.all.0.fetch_sub(len, Ordering::Relaxed);
        if list.messages.is_empty() {
            list.messages = VecDeque::new();
        }
        Some(Some(message))
    }

    /// What waits is given up.
    fn close(&self) {
        let mut list = self.lock();
        list.closed = true;
        self.all.0.fetch_sub(std::mem::take(&mut list.bytes), Ordering::Relaxed);
        list.messages = VecDeque::new();
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_places_and_not_those_of_others() {
        let at = |text: &str| text.parse::<IpAddr>().expect("address");
        let origins = Origins::new(2);
        let held: Vec<_> = (0..3).filter_map(|_| origins.enter(at("192.0.2.1"))).collect();
        assert_eq!(held.len(), 2);
        assert!(origins.enter(at("::ffff:192.0.2.1")).is_none() && origins.enter(at("192.0.2.2")).is_some());
        drop(held);
        assert!(origins.enter(at("192.0.2.1")).is_some());
        let six = [origins.enter(at("2001:db8:1:2::1")), origins.enter(at("2001:db8:1:2:ffff::9"))];
        assert!(six.iter().all(Option::is_some));
        assert!(origins.enter(at("2001:db8:1:2::7")).is_none() && origins.enter(at("2001:db8:1:3::7")).is_some());
        drop(six);
        assert!(origins.counts.lock().expect("lock").is_empty());
    }

    #[tokio::test]
    async fn a_queue_is_full_by_bytes_and_gives_them_back() {
        let backlog = Backlog::default();
        let (outgoing, mut messages) = backlog.queue();
        let mut count = 0;
        let long = || Bytes::from(vec![0; 16 * 1024]);
        while outgoing.send(long()) {
            count += 1;
        }
        assert!((120..128).contains(&count), "{count}");
        assert!(messages.recv().await.is_some());
        assert!(outgoing.send(long()) && !outgoing.send(long()));
        let (other, _kept) = backlog.queue();
        assert!(other.send(vec![0; 100].into()), "another link is not full");
        drop((outgoing, messages));
        assert_eq!(backlog.0.load(Ordering::Relaxed), 100 + OVERHEAD);
    }

    #[tokio::test]
    async fn what_was_sent_before_the_loop_let_go_still_comes_and_nothing_after_the_link_did() {
        let backlog = Backlog::default();
        let (outgoing, mut messages) = backlog.queue();
        assert!(outgoing.send(Bytes::from_static(b"last words")));
        drop(outgoing);
        assert_eq!(messages.recv().await.as_deref(), Some(&b"last words"[..]));
        assert_eq!(messages.recv().await, None);
        let (outgoing, mut messages) = backlog.queue();
        assert!(outgoing.send(Bytes::from_static(b"too late")));
        messages.close();
        assert!(!outgoing.send(Bytes::from_static(b"nobody sends it")));
        assert_eq!(backlog.0.load(Ordering::Relaxed), 0);
    }
}
