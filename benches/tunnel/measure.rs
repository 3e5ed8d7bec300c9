//! One measurement of one candidate: iperf3, ping, floods, and what the daemons cost meanwhile.

use std::time::Duration;

use lab::{Iperf, Ping, PingReport};
use serde_json::Value;

use crate::figure::Figure;
use crate::flood::Flood;
use crate::options::Pace;
use crate::stage::{Candidate, Scope};
use crate::usage::{CallCount, cpu_seconds, machine_seconds, memory_mb};

/// UDP payload of a frame of 64 bytes (without FCS): 14 Ethernet, 20 IPv4, 8 UDP.
const SMALL: usize = 22;
/// Bytes of the large UDP packets, with IP.
const LARGE_PACKET: u16 = 1400;
/// IPv4 and UDP headers.
const HEADERS: u16 = 28;
/// Between pings on an idle path.
const IDLE_INTERVAL: Duration = Duration::from_millis(10);
/// Between pings under load.
const LOADED_INTERVAL: Duration = Duration::from_millis(20);
/// For a tool to end, beyond the time it was given.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is done to every candidate before the next one is done to any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// A TCP stream, and the cost of it.
    Tcp1,
    /// Four of them.
    Tcp4,
    /// One the other way.
    Reverse,
    /// A stream with pings beside it.
    Loaded,
    /// Large datagrams.
    Udp,
    /// Small frames.
    Frames,
    /// Pings with pauses.
    Idle,
    /// Pings without.
    PingFlood,
}

/// What one task gave; a figure that could not be measured is missing.
pub type Values = Vec<(Figure, f64)>;

impl Task {
    /// All, in the order of a round.
    pub const ALL: [Task; 8] =
        [Task::Tcp1, Task::Tcp4, Task::Reverse, Task::Loaded, Task::Udp, Task::Frames, Task::Idle, Task::PingFlood];

    /// Whether it is done to a candidate of this scope.
    pub fn suits(self, scope: Scope) -> bool {
        match scope {
            Scope::All => true,
            Scope::Tcp => matches!(self, Task::Tcp1 | Task::Tcp4 | Task::Reverse),
            Scope::OneStream => self == Task::Tcp1,
        }
    }

    /// Does it.
    pub fn run(self, candidate: &Candidate, pace: &Pace) -> Result<Values, String> {
        match self {
            Task::Tcp1 => tcp_with_cost(candidate, pace),
            Task::Tcp4 => Ok(vec![(Figure::Tcp4, tcp(candidate, pace, &["-P", "4"])?.bits_per_second / 1e9)]),
            Task::Reverse => Ok(vec![(Figure::TcpReverse, tcp(candidate, pace, &["-R"])?.bits_per_second / 1e9)]),
            Task::Loaded => loaded(candidate, pace),
            Task::Udp => {
                let payload = LARGE_PACKET.min(candidate.mtu) - HEADERS;
                let rate = flood(candidate, pace, usize::from(payload))?;
                Ok(vec![(Figure::Udp, rate * f64::from(payload) * 8.0 / 1e9)])
            }
            Task::Frames => Ok(vec![(Figure::Frames, flood(candidate, pace, SMALL)? / 1e3)]),
            Task::Idle => idle(candidate, pace),
            Task::PingFlood => ping_flood(candidate, pace),
        }
    }
}

/// The same for a pair of namespaces: TCP with cubic, whatever the machine's default is.
pub fn iperf(candidate: &Candidate, warm_up: u32, seconds: u32, more: &[&str]) -> Result<Iperf, String> {
    let (omit, time) = (warm_up.to_string(), seconds.to_string());
    let options = [&["-C", "cubic", "-O", &omit, "-t", &time], more].concat();
    let run = Iperf::try_run_to(&candidate.from, &candidate.to, candidate.address, &options)?;
    let used = run.json["end"]["sender_tcp_congestion"].as_str().unwrap_or("cubic");
    if used == "cubic" { Ok(run) } else { Err(format!("iperf3 used {used} instead of cubic")) }
}

fn tcp(candidate: &Candidate, pace: &Pace, more: &[&str]) -> Result<Iperf, String> {
    iperf(candidate, pace.warm_up, pace.seconds, more)
}

fn tcp_with_cost(candidate: &Candidate, pace: &Pace) -> Result<Values, String> {
    let before = (cpu_seconds(&candidate.pids), machine_seconds());
    let run = tcp(candidate, pace, &[])?;
    let after = (cpu_seconds(&candidate.pids), machine_seconds());
    let gigabytes = all_bytes(&run.json) / 1e9;
    let mut values =
        vec![(Figure::Tcp1, run.bits_per_second / 1e9), (Figure::Machine, (after.1 - before.1) / gigabytes)];
    if !candidate.pids.is_empty() {
        values.push((Figure::Cpu, (after.0 - before.0) / gigabytes));
    }
    Ok(values)
}

/// Everything that was sent, also before the part that counts.
fn all_bytes(json: &Value) -> f64 {
    let intervals = json["intervals"].as_array().map(Vec::as_slice).unwrap_or_default();
    intervals.iter().filter_map(|interval| interval["sum"]["bytes"].as_f64()).sum()
}

fn loaded(candidate: &Candidate, pace: &Pace) -> Result<Values, String> {
    let calls = CallCount::start(&candidate.pids);
    let (run, pings, memory) = std::thread::scope(|scope| {
        let run = scope.spawn(|| iperf(candidate, 0, pace.seconds + pace.warm_up, &[]));
        // Not before the stream has its speed, not after its end.
        std::thread::sleep(Duration::from_millis(500));
        let time = Duration::from_secs(u64::from(pace.seconds + pace.warm_up)) - Duration::from_millis(500);
        let count = (time.as_millis() / LOADED_INTERVAL.as_millis()).to_string();
        let std::net::IpAddr::V4(to) = candidate.address else { return (run.join(), None, None) };
        let ping = Ping::start(&candidate.from, to, LOADED_INTERVAL, &["-c", &count, "-W", "1"]);
        let report = ping.wait(time + PATIENCE);
        (run.join(), Some(report), memory_mb(&candidate.pids))
    });
    let calls = calls.finish();
    let run = run.map_err(|_| "iperf3 could not be run")??;
    let mut values = Vec::new();
    let figures = [Figure::PingLoaded, Figure::PingLoadedDeviation, Figure::PingLoadedP99];
    values.extend(pings.and_then(|report| round_trips(&report, figures)).unwrap_or_default());
    values.extend(calls.map(|calls| (Figure::Calls, calls / (all_bytes(&run.json) / 1e6))));
    values.extend(memory.map(|value| (Figure::Memory, value)));
    Ok(values)
}

/// Datagrams per second with less than 0.5 % lost.
fn flood(candidate: &Candidate, pace: &Pace, payload: usize) -> Result<f64, String> {
    let flood = Flood::new(&candidate.from, &candidate.to, candidate.address, payload);
    Ok(flood.map_err(|error| format!("sockets of a flood: {error}"))?.largest_rate(pace.step))
}

fn idle(candidate: &Candidate, pace: &Pace) -> Result<Values, String> {
    let std::net::IpAddr::V4(to) = candidate.address else { return Ok(Vec::new()) };
    let count = pace.pings.to_string();
    let ping = Ping::start(&candidate.from, to, IDLE_INTERVAL, &["-c", &count, "-W", "1"]);
    let report = ping.wait(IDLE_INTERVAL * pace.pings + PATIENCE);
    let values = round_trips(&report, [Figure::Ping, Figure::PingDeviation, Figure::PingP99]);
    values.ok_or_else(|| "no ping was answered".to_owned())
}

/// No 99th percentile: `ping -f` prints no single round trips, not even without `-q`.
fn ping_flood(candidate: &Candidate, pace: &Pace) -> Result<Values, String> {
    let (count, address) = (pace.flood_pings.to_string(), candidate.address.to_string());
    let output = candidate.from.run(&["ping", "-f", "-q", "-n", "-c", &count, &address]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // rtt min/avg/max/mdev = 0.008/0.010/0.120/0.004 ms, ..
    let (_, rest) = text.split_once("mdev = ").ok_or("ping -f has no result")?;
    let numbers = rest.split(['/', ' ']).map_while(|word| word.parse::<f64>().ok()).collect::<Vec<_>>();
    let [_, average, _, deviation] = numbers[..] else { return Err("ping -f has another result".to_owned()) };
    Ok(vec![(Figure::PingFlood, average * 1e3), (Figure::PingFloodDeviation, deviation * 1e3)])
}

/// Average, deviation and 99th percentile as these figures, if anything was answered.
fn round_trips(report: &PingReport, [average, deviation, p99]: [Figure; 3]) -> Option<Values> {
    let mut rtts = report.replies.iter().map(|reply| reply.rtt.as_secs_f64() * 1e6).collect::<Vec<_>>();
    rtts.sort_by(f64::total_cmp);
    let count = rtts.len() as f64;
    let near_last = *rtts.get((rtts.len() * 99).div_ceil(100).checked_sub(1)?)?;
    let mean = rtts.iter().sum::<f64>() / count;
    let variance = rtts.iter().map(|rtt| (rtt - mean).powi(2)).sum::<f64>() / count;
    Some(vec![(average, mean), (deviation, variance.sqrt()), (p99, near_last)])
}
