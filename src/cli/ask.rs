//! Questions to the daemon, and their answers as tables or JSON.

use anyhow::anyhow;
use longwire::control::report::{
    CandidateReport, LinkState, MtuState, NatStatus, OverlayStatus, PathKind, PathStatus, PeerState, PeerStatus,
    Request, Response, Status, Transport,
};
use longwire::io::status;
use serde::Serialize;

use super::args::AskArgs;
use super::table::{Table, age, bytes, rtt};
use super::{Failure, print};

pub(super) fn status(args: &AskArgs) -> Result<(), Failure> {
    let status = status_of(args)?;
    if args.json {
        return print_json(&status);
    }
    let mut text = format!("node {} ({}) longwire {}\n", status.node, status.node_id, status.version);
    if status.lanes > 1 {
        text += &format!("{} lanes\n", status.lanes);
    }
    if let Some(fingerprint) = &status.fingerprint {
        text += &format!("supernode with the fingerprint {fingerprint}\n");
    }
    if let Some(mapped) = status.mapped {
        text += &format!("the router lets others in at {mapped}\n");
    }
    text += &nat_line("NAT", status.nat.as_ref());
    for overlay in &status.overlays {
        text += &overlay_text(overlay);
    }
    if let Some(serving) = &status.serving {
        for overlay in &serving.overlays {
            text += &format!("\nserving {}: {} members\n", overlay.id, overlay.members.len());
            let mut table = Table::new(&["MEMBER", "SEEN AS"]);
            for (id, address) in &overlay.members {
                let seen = if address.port() == 0 { "TCP".into() } else { address.to_string() };
                table.row([id.clone(), seen]);
            }
            text += &table.text();
        }
    }
    print(&text)
}

pub(super) fn peers(args: &AskArgs) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Row<'a> {
        overlay: &'a str,
        #[serde(flatten)]
        peer: &'a PeerStatus,
    }
    let status = status_of(args)?;
    if args.json {
        let rows = status
            .overlays
            .iter()
            .flat_map(|overlay| overlay.peers.iter().map(|peer| Row { overlay: &overlay.name, peer }));
        return print_json(&rows.collect::<Vec<_>>());
    }
    let mut table = Table::new(&["OVERLAY", "PEER", "STATE", "PATH", "RTT", "MTU", "SENT", "RECEIVED", "HEARD"]);
    for overlay in &status.overlays {
        for peer in &overlay.peers {
            table.row([vec![overlay.name.clone()], peer_cells(peer)].concat());
        }
    }
    print(&table.text())
}

pub(super) fn fdb(args: &AskArgs) -> Result<(), Failure> {
    let Response::Fdb(rows) = ask(args, &Request::Fdb)? else {
        return Err(strange());
    };
    if args.json {
        return print_json(&rows);
    }
    let mut table = Table::new(&["OVERLAY", "VLAN", "MAC", "PORT", "SEQUENCE", "AGE"]);
    for row in rows {
        let vlan = if row.vlan == 0 { "-".into() } else { row.vlan.to_string() };
        let sequence = if row.frozen { format!("{} (frozen)", row.sequence) } else { row.sequence.to_string() };
        table.row([row.overlay, vlan, row.mac, row.port, sequence, age(Some(row.age_ms))]);
    }
    print(&table.text())
}

pub(super) fn claim(claim: &Request, args: &AskArgs) -> Result<(), Failure> {
    if ask(args, claim)? == Response::Done { Ok(()) } else { Err(strange()) }
}

pub(super) fn explain(peer: String, args: &AskArgs) -> Result<(), Failure> {
    let Response::Explain(explanation) = ask(args, &Request::Explain { peer })? else {
        return Err(strange());
    };
    if args.json {
        return print_json(&explanation);
    }
    let mut text = format!(
        "{} in {}: {}, {}\n{}\n",
        name(&explanation.peer),
        explanation.overlay,
        state(explanation.peer.state),
        path(&explanation.peer.path),
        explanation.why
    );
    if let Some(since) = explanation.since_ms {
        text += &format!("on this path for {}\n", age(Some(since)));
    }
    if let Some(cipher) = &explanation.peer.cipher {
        text += &format!("sealed with {cipher}\n");
    }
    for line in [&explanation.better, &explanation.order, &explanation.mtu] {
        if !line.is_empty() {
            text += &format!("{line}\n");
        }
    }
    text += &nat_line("NAT here", explanation.nat.as_ref());
    text += &nat_line("NAT there", explanation.peer_nat.as_ref());
    if !explanation.advice.is_empty() {
        text += "what would make it direct:\n";
    }
    for sentence in &explanation.advice {
        text += &format!("  {sentence}\n");
    }
    let mut relays = Table::new(&["RELAY", "RTT", "LOST", "RESULT"]);
    for relay in explanation.relays {
        relays.row([relay.via, rtt(relay.rtt_us), format!("{} %", relay.loss_percent), relay.result]);
    }
    text += &relays.text();
    text += &candidates(explanation.candidates);
    print(&text)
}

fn candidates(tried: Vec<CandidateReport>) -> String {
    let heads = ["CANDIDATE", "KIND", "PROBES", "PROBED", "ANSWERS", "ANSWERED", "RTT", "RESULT"];
    let mut table = Table::new(&heads);
    for tried in tried {
        table.row([
            tried.address.to_string(),
            tried.kind,
            tried.probes.to_string(),
            age(tried.probed_ms),
            tried.answers.to_string(),
            age(tried.answered_ms),
            rtt(tried.rtt_us),
            tried.error.map_or(tried.result.clone(), |error| format!("{}: {error}", tried.result)),
        ]);
    }
    table.text()
}

pub(super) fn via(peer: String, via: String, args: &AskArgs) -> Result<(), Failure> {
    if ask(args, &Request::Via { peer, via })? == Response::Done { Ok(()) } else { Err(strange()) }
}

fn overlay_text(overlay: &OverlayStatus) -> String {
    let tap = match overlay.tap.as_str() {
        "" => "no TAP".into(),
        tap => format!("{tap} (offload: {})", overlay.tap_offload),
    };
    let asleep = match overlay.peers.iter().filter(|peer| peer.state == PeerState::Asleep).count() {
        0 => String::new(),
        asleep => format!(" ({asleep} asleep: the first frame wakes the link)"),
    };
    let mut text = format!(
        "\noverlay {} on {tap}: {} peers{asleep}, {} addresses known\n",
        overlay.name,
        overlay.peers.len(),
        overlay.fdb_entries
    );
    let counted = |name: &str| overlay.counters.get(name).copied().unwrap_or_default();
    text += &match overlay.arp.as_str() {
        "local" => format!(
            "ARP is answered at home: {} IP addresses known, {} questions answered, {} frames flooded\n",
            overlay.bindings,
            counted("answered"),
            counted("floods")
        ),
        _ => "ARP is flooded\n".into(),
    };
    if overlay.multicast == "snoop" {
        text += &format!(
            "multicast is pruned: {} groups wanted here, {} frames to those that want them, {} to nobody\n",
            overlay.groups,
            counted("pruned"),
            counted("unwanted")
        );
    }
    for supernode in &overlay.supernodes {
        let state = match supernode.state {
            LinkState::Up => "up",
            LinkState::Connecting => "connecting",
            LinkState::Down => "down",
            LinkState::Spare => "spare",
        };
        let why = supernode.reason.as_ref().map(|reason| format!("({reason})")).unwrap_or_default();
        let over = over(supernode.transport);
        let line = format!("supernode {} {state}{over} {} {why}", supernode.address, rtt(supernode.rtt_us));
        text += line.trim_end();
        text.push('\n');
    }
    let mut table = Table::new(&["PEER", "STATE", "PATH", "RTT", "MTU", "SENT", "RECEIVED", "HEARD"]);
    for peer in &overlay.peers {
        table.row(peer_cells(peer));
    }
    text += &table.text();
    let noted: Vec<String> = overlay
        .counters
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(counter, count)| format!("{counter} {count}"))
        .collect();
    if !noted.is_empty() {
        text += &format!("counted: {}\n", noted.join(", "));
    }
    text
}

/// A NAT in one line; nothing if it is not known.
pub(super) fn nat_line(title: &str, nat: Option<&NatStatus>) -> String {
    let Some(nat) = nat else { return String::new() };
    let seen = nat.public.map(|public| format!("seen as {public}, ")).unwrap_or_default();
    let NatStatus { mapping, filtering, ports, .. } = nat;
    format!("{title}: {seen}mapping {mapping}, filtering {filtering}, ports {ports}\n")
}

fn peer_cells(peer: &PeerStatus) -> Vec<String> {
    vec![
        name(peer),
        state(peer.state).into(),
        path(&peer.path),
        rtt(peer.rtt_us),
        mtu(peer),
        bytes(peer.tx_bytes),
        bytes(peer.rx_bytes),
        age(peer.last_heard_ms),
    ]
}

fn name(peer: &PeerStatus) -> String {
    peer.name.clone().unwrap_or_else(|| peer.id.chars().take(8).collect())
}

fn mtu(peer: &PeerStatus) -> String {
    let Some(mtu) = peer.mtu else { return "-".into() };
    match peer.mtu_state {
        Some(MtuState::Found) | None => mtu.to_string(),
        Some(MtuState::Assumed) => format!("{mtu} assumed"),
        Some(MtuState::Probing) => format!("{mtu} probing"),
        Some(MtuState::BlackHole) => format!("{mtu} black hole"),
    }
}

const fn state(state: PeerState) -> &'static str {
    match state {
        PeerState::Up => "up",
        PeerState::Connecting => "connecting",
        PeerState::Gone => "gone",
        PeerState::Asleep => "asleep",
    }
}

fn path(path: &PathStatus) -> String {
    let at = |what: Option<String>| what.map(|what| format!(" {what}")).unwrap_or_default();
    match path.kind {
        PathKind::Direct => format!("direct{}", at(path.remote.map(|remote| remote.to_string()))),
        PathKind::Relayed => {
            let by = at(path.via.as_ref().map(|via| format!("by {via}")));
            format!("relayed{by}{}", over(path.transport))
        }
        PathKind::None => "none".into(),
    }
}

/// What is worth a word.
const fn over(transport: Option<Transport>) -> &'static str {
    match transport {
        Some(Transport::Tcp) => " over TCP",
        Some(Transport::Udp) | None => "",
    }
}

pub(super) fn status_of(args: &AskArgs) -> Result<Status, Failure> {
    let Response::Status(status) = ask(args, &Request::Status)? else {
        return Err(strange());
    };
    Ok(status)
}

/// The answer; a sentence of the daemon is a failure.
pub(super) fn ask(args: &AskArgs, request: &Request) -> Result<Response, Failure> {
    match status::ask(args.socket.as_deref(), request) {
        Ok(Response::Error(sentence)) => Err(Failure::Ran(anyhow!(sentence))),
        Ok(response) => Ok(response),
        Err(error) => Err(Failure::Ran(error.into())),
    }
}

pub(super) fn strange() -> Failure {
    Failure::Ran(anyhow!("the daemon answers another question: is it of another version?"))
}

pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Ran(error.into()))?;
    print(&format!("{text}\n"))
}
