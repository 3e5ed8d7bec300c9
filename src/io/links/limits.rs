//! What one address, and one link, may take of a supernode.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

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
pub(in crate::io) struct Outgoing {
    messages: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Arc<Waiting>,
}

/// The same, the link's end.
#[derive(Debug)]
pub(in crate::io) struct Messages {
    messages: mpsc::UnboundedReceiver<Vec<u8>>,
    waiting: Arc<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: AtomicUsize,
    all: Arc<AtomicUsize>,
}

/// Bytes that wait for all links.
#[derive(Clone, Debug, Default)]
pub(in crate::io) struct Backlog(Arc<AtomicUsize>);

impl Backlog {
    /// Both ends of a link's queue.
    pub(in crate::io) fn queue(&self) -> (Outgoing, Messages) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(Waiting { bytes: AtomicUsize::new(0), all: Arc::clone(&self.0) });
        (Outgoing { messages: sender, waiting: Arc::clone(&waiting) }, Messages { messages: receiver, waiting })
    }
}

impl Outgoing {
    /// `false` if there is no room, or nobody who sends.
    pub(in crate::io) fn send(&self, message: Vec<u8>) -> bool {
        let len = message.len() + OVERHEAD;
        let fits = |counter: &AtomicUsize, most| counter.load(Ordering::Relaxed) + len <= most;
        if !fits(&self.waiting.bytes, LINK_BYTES) || !fits(&self.waiting.all, ALL_BYTES) {
            return false;
        }
        self.waiting.bytes.fetch_add(len, Ordering::Relaxed);
        self.waiting.all.fetch_add(len, Ordering::Relaxed);
        self.messages.send(message).is_ok()
    }
}

impl Messages {
    /// The next one; `None` once the loop has closed the link.
    pub(in crate::io) async fn recv(&mut self) -> Option<Vec<u8>> {
        let message = self.messages.recv().await?;
        let len = message.len() + OVERHEAD;
        self.waiting.bytes.fetch_sub(len, Ordering::Relaxed);
        self.waiting.all.fetch_sub(len, Ordering::Relaxed);
        Some(message)
    }

    /// Nothing more is taken.
    pub(in crate::io) fn close(&mut self) {
        self.messages.close();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.all.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
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
        while outgoing.send(vec![0; 16 * 1024]) {
            count += 1;
        }
        assert!((120..128).contains(&count), "{count}");
        assert!(messages.recv().await.is_some());
        assert!(outgoing.send(vec![0; 16 * 1024]) && !outgoing.send(vec![0; 16 * 1024]));
        let (other, _kept) = backlog.queue();
        assert!(other.send(vec![0; 100]), "another link is not full");
        drop((outgoing, messages));
        assert_eq!(backlog.0.load(Ordering::Relaxed), 100 + OVERHEAD);
    }
}
