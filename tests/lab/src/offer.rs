//! What programs offer to a network, whether it arrives or not: datagrams between guests, so much from each to each,
//! counted where they arrive.
//!
//! One thread of each guest sends, one counts. Between two datagrams of a pair pass 0 to 2 times their mean distance:
//! pairs in step would lose or win every race for the last place in a queue.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::{Guest, fail};

/// Where they arrive.
const PORT: u16 = 4713;
/// Bytes of a datagram: with all headers it fits one packet before anything is known of the underlay. Of two packets,
/// each would have to get through.
const PAYLOAD: usize = 1_200;
/// How often a receiver looks whether it should end, and a sender with nothing to send.
const LOOK: Duration = Duration::from_millis(50);
/// A sender that was kept from its work longer does not make up for it.
const LATE_MAX: Duration = Duration::from_millis(200);

/// Programs send this share of what they are to, at least.
const OFFERED_MIN: f64 = 0.9;

/// From one guest to another, by their places.
pub type GuestPair = (usize, usize);

/// Bytes of payload of each pair.
type Sums = BTreeMap<GuestPair, AtomicU64>;

/// Traffic that goes on until it is dropped.
pub struct Offer {
    ending: Arc<AtomicBool>,
    sent: Arc<Sums>,
    arrived: Arc<Sums>,
    threads: Vec<JoinHandle<()>>,
}

/// One pair, at its sender.
struct Course {
    to: usize,
    address: SocketAddr,
    /// Mean seconds from one datagram to the next.
    gap: f64,
    due: Instant,
}

impl Offer {
    /// Begins: `rates` are bytes of payload per second.
    #[track_caller]
    pub fn start(guests: &[&Guest], rates: &BTreeMap<GuestPair, f64>) -> Offer {
        let ending = Arc::new(AtomicBool::new(false));
        let sums = || Arc::new(rates.keys().map(|pair| (*pair, AtomicU64::new(0))).collect());
        let (sent, arrived): (Arc<Sums>, Arc<Sums>) = (sums(), sums());
        let mut threads = Vec::new();
        for (place, guest) in guests.iter().enumerate().filter(|(place, _)| rates.keys().any(|pair| pair.1 == *place)) {
            let (socket, ended, sums) = (bind(guest, PORT), Arc::clone(&ending), Arc::clone(&arrived));
            threads.push(std::thread::spawn(move || count(&socket, place, &sums, &ended)));
        }
        for (place, guest) in guests.iter().enumerate() {
            let own = rates.iter().filter(|((from, _), rate)| *from == place && **rate > 0.0);
            let course = |((_, to), rate): (&GuestPair, &f64)| {
                let (address, gap) = (SocketAddr::from((guests[*to].address, PORT)), PAYLOAD as f64 / rate);
                Course { to: *to, address, gap, due: Instant::now() + Duration::from_secs_f64(gap) }
            };
            let courses: Vec<Course> = own.map(course).collect();
            if !courses.is_empty() {
                let (socket, ended, sums) = (bind(guest, 0), Arc::clone(&ending), Arc::clone(&sent));
                threads.push(std::thread::spawn(move || send(&socket, place, (courses, &sums), &ended)));
            }
        }
        Offer { ending, sent, arrived, threads }
    }

    /// Bytes of payload that each pair got across so far.
    pub fn arrived(&self) -> BTreeMap<GuestPair, u64> {
        read(&self.arrived)
    }

    /// Of what each pair sends from now on, for so long, the share that gets across. Fails where programs sent clearly
    /// less than they were to.
    #[track_caller]
    pub fn shares(&self, span: Duration, rates: &BTreeMap<GuestPair, f64>) -> BTreeMap<GuestPair, f64> {
        let (start, sent, arrived) = (Instant::now(), read(&self.sent), read(&self.arrived));
        std::thread::sleep(span);
        let (sent_now, arrived_now, seconds) = (read(&self.sent), read(&self.arrived), start.elapsed().as_secs_f64());
        let grown = |pair: &GuestPair| (sent_now[pair] - sent[pair]).max(1) as f64;
        let (wanted, offered): (f64, f64) = (rates.values().sum(), rates.keys().map(grown).sum::<f64>() / seconds);
        if offered < wanted * OFFERED_MIN {
            fail(format_args!("programs sent {offered:.0} B/s in place of {wanted:.0}: this machine is too busy"));
        }
        rates.keys().map(|pair| (*pair, (arrived_now[pair] - arrived[pair]) as f64 / grown(pair))).collect()
    }

    /// Bytes per second that each pair gets across from now on, for so long.
    pub fn rates(&self, span: Duration) -> BTreeMap<GuestPair, f64> {
        let (start, before) = (Instant::now(), self.arrived());
        std::thread::sleep(span);
        let (after, seconds) = (self.arrived(), start.elapsed().as_secs_f64());
        after.iter().map(|(pair, sum)| (*pair, (sum - before[pair]) as f64 / seconds)).collect()
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that failed has said why.
            thread.join().ok();
        }
    }
}

fn read(sums: &Sums) -> BTreeMap<GuestPair, u64> {
    sums.iter().map(|(pair, sum)| (*pair, sum.load(Ordering::Relaxed))).collect()
}

fn bind(guest: &Guest, port: u16) -> UdpSocket {
    let bound = guest.space.inside(|| UdpSocket::bind((guest.address, port)));
    bound.unwrap_or_else(|e| fail(format_args!("UDP port {port} of {}: {e}", guest.name)))
}

/// Every datagram begins with the place of its sender.
fn send(socket: &UdpSocket, place: usize, (mut courses, sums): (Vec<Course>, &Sums), ended: &AtomicBool) {
    let mut chance = ChaCha8Rng::seed_from_u64(place as u64);
    let mut payload = [0; PAYLOAD];
    payload[..8].copy_from_slice(&(place as u64).to_be_bytes());
    while !ended.load(Ordering::Relaxed) {
        let Some(next) = courses.iter_mut().min_by_key(|course| course.due) else { return };
        let now = Instant::now();
        if next.due > now {
            std::thread::sleep((next.due - now).min(LOOK));
            continue;
        }
        // What the kernel refuses (no neighbour yet) is lost like anything else.
        socket.send_to(&payload, next.address).ok();
        sums[&(place, next.to)].fetch_add(PAYLOAD as u64, Ordering::Relaxed);
        let share = f64::from(chance.next_u32()) / f64::from(u32::MAX);
        next.due += Duration::from_secs_f64(2.0 * share * next.gap);
        if now.duration_since(next.due) > LATE_MAX {
            next.due = now;
        }
    }
}

fn count(socket: &UdpSocket, place: usize, sums: &Sums, ended: &AtomicBool) {
    socket.set_read_timeout(Some(LOOK)).ok();
    let mut payload = [0; PAYLOAD];
    while !ended.load(Ordering::Relaxed) {
        let Ok(len) = socket.recv(&mut payload) else { continue };
        let from = payload.first_chunk().map_or(usize::MAX, |from| u64::from_be_bytes(*from) as usize);
        if let Some(sum) = sums.get(&(from, place)) {
            sum.fetch_add(len as u64, Ordering::Relaxed);
        }
    }
}
