//! The views as text for a terminal, and as text for Graphviz.

use std::collections::BTreeMap;

use longwire::control::report::PathKind;
use longwire::control::sight::{Link, Machine, MoveAdvice, Node, Talk, Topology, Trace, Traffic};

use crate::cli::table::{Table, age, bytes};

/// What is shown where nothing is known.
const UNKNOWN: &str = "unknown";

pub(super) fn rtt(us: Option<u64>) -> String {
    us.map_or_else(|| UNKNOWN.into(), |us| crate::cli::table::rtt(Some(us)))
}

pub(super) fn loss(percent: Option<u32>) -> String {
    percent.map_or_else(|| UNKNOWN.into(), |percent| format!("{percent} %"))
}

pub(super) fn rate(bytes_per_s: Option<u64>) -> String {
    bytes_per_s.map_or_else(|| UNKNOWN.into(), |rate| format!("{}/s", bytes(rate)))
}

/// What the nodes of a picture are called, by their ids.
pub(super) fn names(topology: &Topology) -> BTreeMap<&str, &str> {
    topology.nodes.iter().map(|node| (node.id.as_str(), node.name.as_str())).collect()
}

pub(super) fn topology(topology: &Topology) -> String {
    let names = names(topology);
    let name = |id: &str| names.get(id).copied().unwrap_or(id).to_owned();
    let mut text = format!("overlay {}, as {} knows it\n", topology.overlay, topology.seen_by);
    let mut nodes = Table::new(&["NODE", "SITE", "WHAT", "STATE", "LOAD"]);
    for node in &topology.nodes {
        nodes.row([
            node.name.clone(),
            node.site.clone().unwrap_or_else(|| if node.is_supernode { "-" } else { UNKNOWN }.into()),
            what(node).into(),
            if node.is_up { "up" } else { "down" }.into(),
            node.load_percent.map_or_else(|| UNKNOWN.into(), |load| format!("{load} %")),
        ]);
    }
    text += &nodes.text();
    let mut links = Table::new(&["FROM", "TO", "PATH", "RTT", "LOST", "SENT", "HEARD", ""]);
    for link in &topology.links {
        let note = match (link.is_limited, link.capacity) {
            _ if link.is_asleep => "asleep".into(),
            (Some(true), Some(_)) => format!("held back at {}", rate(link.capacity)),
            (Some(true), None) => "held back".into(),
            (Some(false) | None, _) => String::new(),
        };
        links.row([
            name(&link.from),
            name(&link.to),
            path(link, name),
            rtt(link.rtt_us),
            loss(link.loss_percent),
            rate(link.sent),
            rate(link.heard),
            note,
        ]);
    }
    text += &links.text();
    for route in &topology.routes {
        let via = route.via.as_deref().map_or_else(|| "directly".into(), |via| format!("by {}", name(via)));
        text += &format!("{}: {} to {} {via}\n", route.by, name(&route.from), name(&route.to));
    }
    for unknown in &topology.unknown {
        text += &format!("not known here: {unknown}\n");
    }
    text
}

fn what(node: &Node) -> &'static str {
    match (node.is_supernode, node.is_here) {
        (false, true) => "this member",
        (false, false) => "member",
        (true, true) => "this supernode",
        (true, false) => "supernode",
    }
}

pub(super) fn path(link: &Link, name: impl Fn(&str) -> String) -> String {
    match (link.kind, &link.via) {
        (PathKind::Direct, _) => "direct".into(),
        (PathKind::Relayed, Some(via)) => format!("by {}", name(via)),
        (PathKind::Relayed, None) => "relayed".into(),
        (PathKind::None, _) => "none".into(),
    }
}

/// For Graphviz: sites are clusters, relayed ways dashed, and links that sleep are left out.
pub(super) fn dot(topology: &Topology) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut sites: BTreeMap<&str, Vec<&Node>> = BTreeMap::new();
    for node in &topology.nodes {
        sites.entry(node.site.as_deref().unwrap_or_default()).or_default().push(node);
    }
    let mut text = format!("digraph {} {{\n  layout=fdp; node [shape=ellipse];\n", quoted(&topology.overlay));
    for (number, (site, nodes)) in sites.iter().enumerate() {
        let is_known = !site.is_empty();
        if is_known {
            text += &format!("  subgraph cluster_{number} {{ label={};\n", quoted(site));
        }
        for node in nodes {
            let shape = if node.is_supernode { " shape=box" } else { "" };
            text += &format!("    {} [label={}{shape}];\n", quoted(&node.id), quoted(&node.name));
        }
        if is_known {
            text += "  }\n";
        }
    }
    let names = names(topology);
    for link in topology.links.iter().filter(|link| link.kind != PathKind::None && !link.is_asleep) {
        let style = if link.kind == PathKind::Direct { "solid" } else { "dashed" };
        let via = path(link, |id| names.get(id).copied().unwrap_or(id).to_owned());
        let label = quoted(&format!("{via}, {}, {}", rtt(link.rtt_us), rate(link.sent)));
        text += &format!("  {} -> {} [style={style} label={label}];\n", quoted(&link.from), quoted(&link.to));
    }
    text + "}\n"
}

pub(super) fn top(traffic: &Traffic, rows: usize) -> String {
    let mut text = format!("overlay {}, as {} sees it\n", traffic.overlay, traffic.seen_by);
    text += &patterns(traffic);
    text += &talks(("hosts", traffic.hosts_unknown.as_deref()), &traffic.hosts, rows);
    text += &talks(("machines", traffic.machines_unknown.as_deref()), &traffic.machines, rows);
    if traffic.machines_left_out > 0 {
        text += &format!("{} pairs of machines were not kept: too many talk\n", traffic.machines_left_out);
    }
    text
}

pub(super) fn patterns(traffic: &Traffic) -> String {
    let unknown = || "unknown (nothing flows, or only the supernode that plans sees it)".to_owned();
    let of_hosts = traffic.host_pattern.clone().unwrap_or_else(unknown);
    let why = if traffic.machines_unknown.is_some() { "" } else { " (nothing flows here)" };
    let of_machines = traffic.machine_pattern.clone().unwrap_or_else(|| format!("{UNKNOWN}{why}"));
    format!("pattern of hosts: {of_hosts}\npattern of machines that talk across this node: {of_machines}\n")
}

fn talks((what, unknown): (&str, Option<&str>), talks: &[Talk], rows: usize) -> String {
    if talks.is_empty() {
        return unknown.map_or_else(|| format!("no {what} talk\n"), |why| format!("{why}\n"));
    }
    let mut table = Table::new(&["FROM", "TO", "AT", "RATE", "FRAMES", "PATH", "RTT", "LOST", "WHY"]);
    let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| UNKNOWN.into());
    for talk in talks.iter().take(rows) {
        let at =
            if talk.from == talk.from_host { "-".into() } else { format!("{} > {}", talk.from_host, talk.to_host) };
        table.row([
            talk.from.clone(),
            talk.to.clone(),
            at,
            rate(Some(talk.bytes_per_s)),
            talk.frames_per_s.map_or_else(|| UNKNOWN.into(), |frames| format!("{frames}/s")),
            or_unknown(&talk.path),
            rtt(talk.rtt_us),
            loss(talk.loss_percent),
            or_unknown(&talk.why),
        ]);
    }
    let more = talks.len().saturating_sub(rows);
    let more = if more > 0 { format!("and {more} more\n") } else { String::new() };
    format!("\n{}{more}", table.text())
}

pub(super) fn trace(trace: &Trace) -> String {
    let machine = |machine: &Machine| {
        let vlan = if machine.vlan == 0 { String::new() } else { format!(" in VLAN {}", machine.vlan) };
        let learned = match (&machine.host, machine.sequence) {
            (Some(host), Some(moves)) => format!("behind {host}, heard {} ago, sequence {moves}", age(machine.age_ms)),
            _ => "not known here".into(),
        };
        format!("{}{vlan}: {learned}\n", machine.mac)
    };
    let mut text = format!("overlay {}, as {} decides\n", trace.overlay, trace.seen_by);
    text += &format!("from {}to   {}{}\n", machine(&trace.from), machine(&trace.to), trace.verdict);
    for why in &trace.why {
        text += &format!("because {why}\n");
    }
    let mut hops = Table::new(&["HOP", "FROM", "TO", "BY", "RTT"]);
    for (number, hop) in (1..).zip(&trace.hops) {
        let rtt = if hop.by.contains("TAP") { "-".into() } else { rtt(hop.rtt_us) };
        hops.row([format!("{number}"), hop.from.clone(), hop.to.clone(), hop.by.clone(), rtt]);
    }
    text += &hops.text();
    if !trace.hops.is_empty() && trace.rtt_us.is_some() {
        text += &format!("between the hosts and back: {}\n", rtt(trace.rtt_us));
    }
    text
}

pub(super) fn advice(advice: &[MoveAdvice]) -> String {
    if advice.is_empty() {
        return "no move of a machine is worth it: nothing is held back, or no host would do better\n".into();
    }
    let one = |advice: &MoveAdvice| {
        let gain = format!("{}.{:02}", advice.gain_percent / 100, advice.gain_percent % 100);
        let machine = match &advice.machine {
            Some(mac) => format!("machine {mac}"),
            None => format!("the machine that talks to {}", advice.partner),
        };
        let relieved = advice.bottleneck.as_ref().map(|what| format!("{what} has less to carry; ")).unwrap_or_default();
        let MoveAdvice { overlay, host, target, .. } = advice;
        let whose = if advice.machine.is_some() { "" } else { " (its host knows which: ask there)" };
        format!(
            "{overlay}: move {machine} from {host} to {target}{whose}: {relieved}{gain} times the rate by the model\n"
        )
    };
    advice.iter().map(one).collect()
}
