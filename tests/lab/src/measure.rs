//! ping, iperf3 and captures, with their results as values.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::packet::{PacketSocket, Style};
use super::process::{Process, poll_for, wait_for};
use super::{Guest, Space, fail};

/// Where iperf3 listens.
const IPERF_PORT: u16 = 5201;

/// How long a tool may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// An iperf3 that has not ended by then hangs on a path that died.
const HUNG: Duration = Duration::from_secs(120);

/// A running ping.
pub struct Ping {
    process: Process,
}

/// One answer.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// `icmp_seq`, from 1.
    pub sequence: u32,
    /// When it arrived.
    pub at: SystemTime,
    /// Round trip.
    pub rtt: Duration,
}

/// What a ping found.
#[derive(Clone, Debug, Default)]
pub struct PingReport {
    /// Requests sent (0 while it runs: only its last words tell).
    pub sent: u32,
    /// Answers, without duplicates, in order of arrival.
    pub replies: Vec<Reply>,
    /// Answers that came again.
    pub duplicates: u32,
}

impl Ping {
    /// Starts `ping -D -n -i INTERVAL [MORE] TO` in a namespace.
    pub fn start(space: &Space, to: Ipv4Addr, interval: Duration, more: &[&str]) -> Ping {
        let mut words: Vec<String> = ["ping", "-D", "-n", "-i"].map(Into::into).into();
        words.push(format!("{:.3}", interval.as_secs_f64()));
        words.extend(more.iter().map(|word| (*word).to_owned()));
        words.push(to.to_string());
        Ping { process: space.spawn("ping", &words) }
    }

    /// The answers so far.
    pub fn so_far(&self) -> PingReport {
        PingReport::parse(&self.process.stdout())
    }

    /// Ends it, and all it found. The last request does not count if it is still on its way.
    pub fn finish(self) -> PingReport {
        self.process.interrupt();
        self.process.wait(PATIENCE);
        let mut report = self.so_far();
        if report.missing().last() == Some(&report.sent) {
            report.sent -= 1;
        }
        report
    }

    /// Waits for its own end (`-c`), and all it found.
    pub fn wait(self, timeout: Duration) -> PingReport {
        if self.process.wait(timeout).is_none() {
            self.process.interrupt();
            self.process.wait(PATIENCE);
        }
        self.so_far()
    }

    /// Asks until there is a first answer: a path that is known may still wait for its session, and a
    /// guest's kernel gives an address up after three lost ARP requests.
    #[track_caller]
    pub fn until_answered(space: &Space, to: Ipv4Addr, timeout: Duration) {
        wait_for("a first answer", timeout, || (!Ping::count(space, to, 1).replies.is_empty()).then_some(()));
    }

    /// Sends `count` requests, each 0.2 s after the other, waits a second for late answers.
    pub fn count(space: &Space, to: Ipv4Addr, count: u32) -> PingReport {
        Ping::count_with(space, to, count, &[])
    }

    /// The same with more options.
    pub fn count_with(space: &Space, to: Ipv4Addr, count: u32, more: &[&str]) -> PingReport {
        let number = count.to_string();
        let words = [&["-c", &number, "-W", "1"], more].concat();
        let interval = Duration::from_millis(200);
        Ping::start(space, to, interval, &words).wait(interval * count + PATIENCE)
    }
}

impl PingReport {
    fn parse(text: &str) -> PingReport {
        let mut report = PingReport::default();
        for line in text.lines() {
            if let Some(reply) = parse_reply(line) {
                if line.contains("DUP!") {
                    report.duplicates += 1;
                } else {
                    report.replies.push(reply);
                }
            } else if let Some((sent, _)) = line.split_once(" packets transmitted") {
                report.sent = sent.trim().parse().unwrap_or(0);
            }
        }
        report
    }

    /// Requests without an answer.
    pub fn lost(&self) -> u32 {
        self.missing().len().try_into().unwrap_or(u32::MAX)
    }

    /// Which requests had no answer.
    pub fn missing(&self) -> Vec<u32> {
        (1..=self.sent).filter(|sequence| self.replies.iter().all(|reply| reply.sequence != *sequence)).collect()
    }

    /// Requests without an answer after the first one that had one.
    pub fn missing_after_first(&self) -> Vec<u32> {
        let first = self.replies.iter().map(|reply| reply.sequence).min();
        let mut missing = self.missing();
        missing.retain(|sequence| first.is_some_and(|first| *sequence > first));
        missing
    }

    /// Shortest, middle and longest round trip in milliseconds.
    pub fn rtt_ms(&self) -> Option<(f64, f64, f64)> {
        let mut rtts: Vec<f64> = self.replies.iter().map(|reply| reply.rtt.as_secs_f64() * 1000.0).collect();
        rtts.sort_by(f64::total_cmp);
        Some((*rtts.first()?, rtts[rtts.len() / 2], *rtts.last()?))
    }
}

/// `[1700000000.123456] 64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time=0.042 ms`
fn parse_reply(line: &str) -> Option<Reply> {
    let (at, rest) = line.strip_prefix('[')?.split_once(']')?;
    let value = |key: &str| rest.split_once(key)?.1.split_whitespace().next();
    Some(Reply {
        sequence: value("icmp_seq=")?.parse().ok()?,
        at: UNIX_EPOCH + Duration::from_secs_f64(at.parse().ok()?),
        rtt: Duration::from_secs_f64(value("time=")?.parse::<f64>().ok()? / 1000.0),
    })
}

/// The result of an iperf3 run.
#[derive(Clone, Debug)]
pub struct Iperf {
    /// What the receiver got, in bits per second.
    pub bits_per_second: f64,
    /// Segments that TCP had to send again.
    pub retransmits: u64,
    /// All that iperf3 said.
    pub json: serde_json::Value,
}

impl Iperf {
    /// One TCP stream from one guest to the other.
    #[track_caller]
    pub fn tcp(from: &Guest, to: &Guest, seconds: u32) -> Iperf {
        Iperf::run(from, to, &["-t", &seconds.to_string()])
    }

    /// The same with iperf3's own options.
    #[track_caller]
    pub fn run(from: &Guest, to: &Guest, options: &[&str]) -> Iperf {
        Iperf::run_to(&from.space, &to.space, to.address.into(), options)
    }

    /// The same to one of the addresses of a namespace.
    #[track_caller]
    pub fn run_to(from: &Space, to: &Space, address: IpAddr, options: &[&str]) -> Iperf {
        Iperf::try_run_to(from, to, address, options).unwrap_or_else(|sentence| fail(sentence))
    }

    /// The same, or why it has no result.
    pub fn try_run_to(from: &Space, to: &Space, address: IpAddr, options: &[&str]) -> Result<Iperf, String> {
        let server = ["iperf3", "-s", "-1"].map(Into::into);
        let server = to.spawn("iperf3-server", &server);
        let listens = || {
            to.open_ports("tcp6").into_iter().chain(to.open_ports("tcp")).any(|port| port == IPERF_PORT).then_some(())
        };
        poll_for(PATIENCE, listens).ok_or("iperf3 does not listen")?;
        let (address, hung) = (address.to_string(), HUNG.as_secs().to_string());
        let words = [&["timeout", &hung, "iperf3", "-J", "-c", &address], options].concat();
        let output = from.run(&words);
        drop(server);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let end = &json["end"];
        let got = ["sum_received", "sum"].map(|sum| end[sum]["bits_per_second"].as_f64());
        let Some(bits_per_second) = got[0].or(got[1]) else {
            return Err(format!("iperf3 from {} to {} has no result: {}", from.name(), to.name(), json["error"]));
        };
        Ok(Iperf { bits_per_second, retransmits: end["sum_sent"]["retransmits"].as_u64().unwrap_or(0), json })
    }
}

/// A running capture of all that crosses an interface, both ways.
///
/// Not tcpdump: inside a user namespace it cannot change to its own user and ends.
pub struct Capture {
    ending: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Vec<u8>>>,
}

impl Capture {
    /// Captures whole frames from now on.
    #[track_caller]
    pub fn start(space: &Space, interface: &str) -> Capture {
        let socket = PacketSocket::open_as(space, interface, Style::BothWays);
        let ending = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ending);
        let thread = std::thread::spawn(move || {
            let mut frames = Vec::new();
            // Where traffic never pauses, a few more rounds take what had arrived until `stop`.
            let mut rounds_after_stop = 0;
            while rounds_after_stop < 5 {
                let last = ended.load(Ordering::Relaxed);
                let before = frames.len();
                frames.extend(socket.collect(Duration::from_millis(50), |_| false));
                if last && frames.len() == before {
                    break;
                }
                rounds_after_stop += u32::from(last);
            }
            frames
        });
        Capture { ending, thread }
    }

    /// Ends when nothing arrives any more, or a quarter of a second later; the frames in order.
    pub fn stop(self) -> Vec<Vec<u8>> {
        self.ending.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
