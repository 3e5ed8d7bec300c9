//! Traffic that tells how long nothing passed: a numbered UDP stream, and a TCP transfer beside it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Space, fail};

/// Where streams arrive.
const UDP_PORT: u16 = 4711;

/// Where transfers arrive.
const TCP_PORT: u16 = 4712;

/// Where virtual machines echo.
const ECHO_PORT: u16 = 7;

/// An echo that has not come by then will not.
const SILENT: Duration = Duration::from_secs(20);

/// How often a receiver looks whether it should end.
const LOOK: Duration = Duration::from_millis(50);

/// What arrives later than this after the last datagram does not arrive.
const LATE: Duration = Duration::from_millis(500);

/// A transfer writes this much...
const CHUNK: usize = 16 * 1024;

/// ...and rests this long: about 1.6 MB/s, which no lab is too slow for.
const REST: Duration = Duration::from_millis(10);

/// How long a transfer may take to be connected.
const CONNECT: Duration = Duration::from_secs(10);

/// A running stream of numbered datagrams.
pub struct Stream {
    ending: Arc<AtomicBool>,
    sender: JoinHandle<Vec<Instant>>,
    receiver: JoinHandle<Vec<(u64, Instant)>>,
}

/// What a stream found.
#[derive(Clone, Debug)]
pub struct StreamReport {
    /// When each datagram was sent, by number.
    pub sent: Vec<Instant>,
    /// Number and time of each arrival, in order.
    pub arrived: Vec<(u64, Instant)>,
}

impl Stream {
    /// Sends `per_second` datagrams from one namespace to `to` in the other.
    #[track_caller]
    pub fn start(from: &Space, (space, to): (&Space, Ipv4Addr), per_second: u32) -> Stream {
        let bind = |space: &Space, address: SocketAddr| match space.inside(|| UdpSocket::bind(address)) {
            Ok(socket) => socket,
            Err(e) => fail(format_args!("UDP socket {address} of {}: {e}", space.name())),
        };
        let arrivals = bind(space, (to, UDP_PORT).into());
        let departures = bind(from, (Ipv4Addr::UNSPECIFIED, 0).into());
        let ending = Arc::new(AtomicBool::new(false));
        let (stop_sending, stop_hearing) = (Arc::clone(&ending), Arc::clone(&ending));
        let gap = Duration::from_secs(1) / per_second;
        let sender = std::thread::spawn(move || send_numbers(&departures, (to, UDP_PORT).into(), gap, &stop_sending));
        let receiver = std::thread::spawn(move || hear_numbers(&arrivals, &stop_hearing));
        Stream { ending, sender, receiver }
    }

    /// Ends it, and all it found.
    pub fn finish(self) -> StreamReport {
        self.ending.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let arrived = self.receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        StreamReport { sent, arrived }
    }
}

impl StreamReport {
    /// The longest time for which nothing of what was sent arrived, by the times of sending. While the sender itself was
    /// kept from its work, nothing was missing.
    pub fn longest_hole(&self) -> Duration {
        let mut came = vec![false; self.sent.len()];
        for (number, _) in &self.arrived {
            came[usize::try_from(*number).unwrap_or(usize::MAX)] = true;
        }
        let Some(first) = self.sent.first() else { return Duration::MAX };
        let (mut since, mut longest, mut is_hole) = (*first, Duration::ZERO, false);
        for (at, came) in self.sent.iter().zip(came) {
            is_hole |= !came;
            if is_hole {
                longest = longest.max(*at - since);
            }
            if came {
                (since, is_hole) = (*at, false);
            }
        }
        longest
    }

    /// Datagrams that never arrived.
    pub fn lost(&self) -> usize {
        let numbers: std::collections::BTreeSet<u64> = self.arrived.iter().map(|(number, _)| *number).collect();
        self.sent.len() - numbers.len()
    }

    /// Datagrams that arrived again.
    pub fn duplicates(&self) -> usize {
        self.arrived.len() + self.lost() - self.sent.len()
    }
}

fn send_numbers(socket: &UdpSocket, to: SocketAddr, gap: Duration, ending: &AtomicBool) -> Vec<Instant> {
    let (start, mut sent) = (Instant::now(), Vec::new());
    while !ending.load(Ordering::Relaxed) {
        // What the kernel refuses (no neighbour yet) is lost like anything else.
        let _refused = socket.send_to(&(sent.len() as u64).to_be_bytes(), to);
        sent.push(Instant::now());
        let next = start + gap * u32::try_from(sent.len()).unwrap_or(u32::MAX);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    sent
}

fn hear_numbers(socket: &UdpSocket, ending: &AtomicBool) -> Vec<(u64, Instant)> {
    socket.set_read_timeout(Some(LOOK)).ok();
    let (mut arrived, mut end) = (Vec::new(), None);
    while end.is_none_or(|end| Instant::now() < end) {
        if end.is_none() && ending.load(Ordering::Relaxed) {
            end = Some(Instant::now() + LATE);
        }
        let mut number = [0; 8];
        if socket.recv(&mut number).is_ok_and(|len| len == number.len()) {
            arrived.push((u64::from_be_bytes(number), Instant::now()));
        }
    }
    arrived
}

/// A running TCP transfer whose bytes are checked at the other end.
pub struct Transfer {
    ending: Arc<AtomicBool>,
    arrived: Arc<AtomicU64>,
    sender: JoinHandle<std::io::Result<u64>>,
    receiver: JoinHandle<Result<u64, String>>,
}

impl Transfer {
    /// Connects from one namespace to `to` in the other and begins to send.
    #[track_caller]
    pub fn start(from: &Space, (space, to): (&Space, Ipv4Addr)) -> Transfer {
        let address = SocketAddr::from((to, TCP_PORT));
        let listener = space.inside(|| TcpListener::bind(address));
        let listener = listener.unwrap_or_else(|e| fail(format_args!("TCP {address} of {}: {e}", space.name())));
        let stream = from.inside(|| TcpStream::connect_timeout(&address, CONNECT));
        let stream = stream.unwrap_or_else(|e| fail(format_args!("TCP to {address} from {}: {e}", from.name())));
        let (accepted, _) = listener.accept().unwrap_or_else(|e| fail(format_args!("accept at {address}: {e}")));
        Transfer::between(stream, accepted)
    }

    /// Connects to a machine that echoes at port 7 and begins to send; what comes back is checked.
    #[track_caller]
    pub fn echoed(from: &Space, to: Ipv4Addr) -> Transfer {
        let address = SocketAddr::from((to, ECHO_PORT));
        let stream = from.inside(|| TcpStream::connect_timeout(&address, CONNECT));
        let stream = stream.unwrap_or_else(|e| fail(format_args!("TCP to {address} from {}: {e}", from.name())));
        stream.set_read_timeout(Some(SILENT)).ok();
        let back = stream.try_clone().unwrap_or_else(|e| fail(format_args!("TCP to {address}: {e}")));
        Transfer::between(stream, back)
    }

    fn between(stream: TcpStream, accepted: TcpStream) -> Transfer {
        let (ending, arrived) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stop, count) = (Arc::clone(&ending), Arc::clone(&arrived));
        let sender = std::thread::spawn(move || send_pattern(stream, &stop));
        let receiver = std::thread::spawn(move || check_pattern(accepted, &count));
        Transfer { ending, arrived, sender, receiver }
    }

    /// Bytes that arrived so far.
    pub fn so_far(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Ends it; the bytes that arrived. Fails if it broke, or if anything is missing or wrong.
    #[track_caller]
    pub fn finish(self) -> u64 {
        self.ending.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let arrived = self.receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (sent, arrived) {
            (Ok(sent), Ok(arrived)) if sent == arrived => arrived,
            (sent, arrived) => fail(format_args!("the TCP transfer did not survive: {sent:?} sent, {arrived:?} came")),
        }
    }
}

/// Byte `place` of every transfer.
fn pattern(place: u64) -> u8 {
    (place ^ place >> 8 ^ place >> 16).to_le_bytes()[0]
}

fn send_pattern(mut stream: TcpStream, ending: &AtomicBool) -> std::io::Result<u64> {
    let mut place = 0;
    while !ending.load(Ordering::Relaxed) {
        let chunk: Vec<u8> = (place..).take(CHUNK).map(pattern).collect();
        stream.write_all(&chunk)?;
        place += CHUNK as u64;
        std::thread::sleep(REST);
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(place)
}

fn check_pattern(mut stream: TcpStream, count: &AtomicU64) -> Result<u64, String> {
    let (mut place, mut room) = (0, vec![0; CHUNK]);
    loop {
        let len = stream.read(&mut room).map_err(|e| e.to_string())?;
        if len == 0 {
            return Ok(place);
        }
        for byte in &room[..len] {
            if *byte != pattern(place) {
                return Err(format!("byte {place} is wrong"));
            }
            place += 1;
        }
        count.store(place, Ordering::Relaxed);
    }
}
