//! What daemons cost: processor time, system calls, memory; and what the whole machine is busy with.

use std::fs;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Units of `/proc/stat` in a second (`USER_HZ`, 100 on every Linux that Rust runs on).
const USER_HZ: f64 = 100.0;

/// Seconds of processor time of these processes so far, all threads, to the nanosecond.
///
/// Work that the kernel does on their behalf counts, and so does what an interrupt did meanwhile.
pub fn cpu_seconds(pids: &[u32]) -> f64 {
    pids.iter().map(|pid| process_nanoseconds(*pid)).sum::<u64>() as f64 / 1e9
}

fn process_nanoseconds(pid: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let of_thread = |path: std::path::PathBuf| {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    threads.flatten().filter_map(|thread| of_thread(thread.path())).sum()
}

/// Seconds that all processors together were busy so far.
pub fn machine_seconds() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    let fields = first.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0.0));
    // user nice system idle iowait irq softirq steal
    let busy = |(place, _): &(usize, f64)| matches!(place, 0 | 1 | 2 | 5 | 6);
    fields.enumerate().filter(busy).map(|(_, value)| value).sum::<f64>() / USER_HZ
}

/// Resident memory of the largest of these processes, in MB.
pub fn memory_mb(pids: &[u32]) -> Option<f64> {
    let of_one = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    pids.iter().filter_map(of_one).max_by(f64::total_cmp).map(|kib| kib * 1024.0 / 1e6)
}

/// Counts system calls of processes with `perf stat`; nothing if perf is missing or not allowed.
pub struct CallCount {
    perf: Option<Child>,
}

impl CallCount {
    /// Counts from now on.
    pub fn start(pids: &[u32]) -> CallCount {
        if pids.is_empty() {
            return CallCount { perf: None };
        }
        let list = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let perf = Command::new("perf")
            .args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &list])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        CallCount { perf: perf.ok() }
    }

    /// How many there were.
    pub fn finish(mut self) -> Option<f64> {
        let perf = self.perf.take()?;
        let pid = i32::try_from(perf.id()).ok().and_then(Pid::from_raw)?;
        kill_process(pid, Signal::INT).ok();
        let output = perf.wait_with_output().ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = text.lines().find(|line| line.contains("sys_enter"))?;
        line.split(',').next()?.parse().ok()
    }
}

impl Drop for CallCount {
    fn drop(&mut self) {
        if let Some(mut perf) = self.perf.take() {
            perf.kill().ok();
            perf.wait().ok();
        }
    }
}
