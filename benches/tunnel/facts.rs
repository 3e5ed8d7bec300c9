//! The machine and the programs: without them no figure means anything.

use std::fs;

use serde_json::{Value, json};

use crate::candidate::version;
use crate::options::Options;
use crate::stage::Stage;

/// Lines of facts, each a name and a text.
pub fn of(stage: &Stage, options: &Options) -> Vec<(&'static str, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let model = model.trim_start_matches([' ', '\t', ':']).to_owned();
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let memory = read("/proc/meminfo");
    let memory = memory.lines().next().unwrap_or_default().split_whitespace().nth(1).and_then(|kib| kib.parse().ok());
    let memory = memory.map_or(0.0, |kib: f64| kib * 1024.0 / 1e9);
    let load = read("/proc/loadavg").split_whitespace().next().unwrap_or_default().to_owned();
    let in_lab = stage.lab.inet().run(&["cat", "/proc/sys/net/bridge/bridge-nf-call-iptables"]).stdout;
    let in_lab = String::from_utf8_lossy(&in_lab).trim().to_owned();
    let pace = options.pace();
    vec![
        ("kernel", format!("Linux {}", rustix::system::uname().release().to_string_lossy())),
        ("processors", format!("{count} x {model}; {memory:.0} GB; guests, daemons and kernel share them")),
        ("idle processors", idle_processors(&read(GOVERNOR), &read(HALT_POLL))),
        ("load when it began", load),
        ("build", if cfg!(debug_assertions) { "dev profile: do not quote" } else { "release profile" }.to_owned()),
        (
            "TCP",
            format!(
                "cubic in every run; the machine's default is {}",
                read("/proc/sys/net/ipv4/tcp_congestion_control")
            ),
        ),
        (
            "bridge-nf-call-iptables",
            format!("{} in the lab; {} on the machine", or_none(&in_lab), or_none(&read(BRIDGE_NF))),
        ),
        ("underlay", "veth, MTU 1500; \"software\": cut and joined by the kernel at both ends, also for `bare`".into()),
        ("iperf3", version("iperf3", "--version")),
        ("runs", format!("{} rounds, interleaved; TCP {} s after {} s", options.rounds(), pace.seconds, pace.warm_up)),
    ]
}

const GOVERNOR: &str = "/sys/devices/system/cpu/cpuidle/current_governor";
/// Nanoseconds for which an idle virtual processor looks for work before it halts (Linux, virt/guest-halt-polling).
const HALT_POLL: &str = "/sys/module/haltpoll/parameters/guest_halt_poll_ns";

/// A halted virtual processor costs whoever wakes it an interrupt through the hypervisor: most of a `ping -f`.
fn idle_processors(governor: &str, halt_poll_ns: &str) -> String {
    match (governor, halt_poll_ns) {
        ("haltpoll", "0") => "halt at once (guest_halt_poll_ns is 0)".into(),
        ("haltpoll", polled) if !polled.is_empty() => {
            format!("look for work before they halt (guest_halt_poll_ns is {polled})")
        }
        ("", _) => "no governor".into(),
        (other, _) => format!("sleep as the governor `{other}` lets them"),
    }
}

const BRIDGE_NF: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

fn or_none(text: &str) -> &str {
    if text.is_empty() { "not there (no br_netfilter)" } else { text }
}

/// The same for programs.
pub fn json(facts: &[(&'static str, String)]) -> Value {
    facts.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect::<serde_json::Map<_, _>>().into()
}
