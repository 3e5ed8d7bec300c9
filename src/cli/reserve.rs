//! `longwire reserve`: what is guaranteed and capped, and the tc commands for the same in the kernel.

use std::fmt::Write;

use clap::Args;
use longwire::control::report::reserve::{Reservations, ReserveRequest, ReserveRow};
use longwire::control::report::{Request, Response};
use longwire::node::MEGABIT;

use super::args::{AskArgs, OverlayArgs};
use super::ask::{ask, print_json, strange};
use super::table::Table;
use super::{Failure, print};

/// Where nothing says what the uplink carries, tc is told a rate that no class comes near.
const UPLINK_UNKNOWN: u64 = 10_000 * MEGABIT;

#[derive(Debug, Args)]
pub(crate) struct ReserveArgs {
    /// The member; the whole overlay if missing.
    peer: Option<String>,
    /// Megabits per second that are guaranteed, if the uplink is known; 0 takes it back.
    #[arg(long, value_name = "MBIT")]
    rate: Option<u32>,
    /// Megabits per second at most; 0 takes it back.
    #[arg(long, value_name = "MBIT")]
    cap: Option<u32>,
    /// Megabits per second that this host may send in all; 0 takes it back.
    #[arg(long, value_name = "MBIT")]
    uplink: Option<u32>,
    /// What outer packets are marked with.
    #[arg(long, value_name = "none|inherit|0..63")]
    dscp: Option<String>,
    /// Print tc commands that reserve the same in the kernel, against all that this host sends; runs nothing.
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    which: OverlayArgs,
    #[command(flatten)]
    ask: AskArgs,
}

pub(super) fn run(args: ReserveArgs) -> Result<(), Failure> {
    let ReserveArgs { peer, rate, cap, uplink, dscp, print: prints, which, ask: whom } = args;
    let bytes = |megabits: Option<u32>| megabits.map(|megabits| u64::from(megabits) * MEGABIT);
    let (rate, cap, uplink) = (bytes(rate), bytes(cap), bytes(uplink));
    let order = ReserveRequest { overlay: which.overlay, peer, rate, cap, uplink, dscp };
    let Response::Reservations(reserved) = ask(&whom, &Request::Reserve(order))? else { return Err(strange()) };
    match (prints, whom.json) {
        (true, _) => print(&commands(&reserved)),
        (false, true) => print_json(&reserved),
        (false, false) => print(&table(&reserved)),
    }
}

fn megabits(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".into(), |bytes| format!("{} Mb/s", bytes / MEGABIT))
}

fn table(reserved: &Reservations) -> String {
    let mut table = Table::new(&["OVERLAY", "PEER", "RATE", "CAP", "DSCP", "STATE"]);
    for row in &reserved.rows {
        let peer = row.peer.clone().unwrap_or_else(|| "all".into());
        let (rate, cap) = (megabits(row.rate), megabits(row.cap));
        table.row([row.overlay.clone(), peer, rate, cap, row.dscp.clone(), row.state.clone()]);
    }
    format!("uplink {}\n{}", megabits(reserved.uplink), table.text())
}

/// A shell script. All overlays leave by one socket, so that classes are told apart by mark and receiver.
fn commands(reserved: &Reservations) -> String {
    let uplink = reserved.uplink.unwrap_or(UPLINK_UNKNOWN);
    let kilobits = |bytes: u64| format!("{}kbit", (bytes / 125).max(8));
    let mut text = format!(
        "DEV=${{DEV:-eth0}}\n\
         tc qdisc replace dev $DEV root handle 1: htb default 2\n\
         tc class replace dev $DEV parent 1: classid 1:1 htb rate {all}\n\
         tc class replace dev $DEV parent 1:1 classid 1:2 htb rate {rest} ceil {all} prio 1\n",
        all = kilobits(uplink),
        rest = kilobits(uplink.saturating_sub(reserved.rows.iter().filter_map(|row| row.rate).sum())),
    );
    let known = reserved.rows.iter().filter(|row| row.rate.is_some() || row.cap.is_some());
    for (row, class) in known.zip(16..) {
        let (rate, ceil) = (row.rate.unwrap_or(row.cap.unwrap_or(uplink) / 10), row.cap.unwrap_or(uplink));
        let (rate, ceil) = (kilobits(rate), kilobits(ceil));
        let who = row.peer.as_deref().unwrap_or("all");
        let _cannot_fail = match matches(row) {
            Some((protocol, what)) => write!(
                text,
                "# {overlay}, {who}\n\
                 tc class replace dev $DEV parent 1:1 classid 1:{class:x} htb rate {rate} ceil {ceil} prio 0\n\
                 tc filter add dev $DEV parent 1: protocol {protocol} u32 {what} flowid 1:{class:x}\n",
                overlay = row.overlay,
            ),
            None => writeln!(
                text,
                "# {}, {who}: nothing tells its packets apart (give the overlay a dscp, the peer a direct path)",
                row.overlay
            ),
        };
    }
    text
}

/// What tells the packets of a row apart: the receiver of a peer, the mark of an overlay.
fn matches(row: &ReserveRow) -> Option<(&'static str, String)> {
    match (&row.peer, row.remote) {
        (Some(_), Some(remote)) if remote.is_ipv4() => {
            Some(("ip", format!("match ip dst {}/32 match ip dport {} 0xffff", remote.ip(), remote.port())))
        }
        (Some(_), Some(remote)) => {
            Some(("ipv6", format!("match ip6 dst {}/128 match ip6 dport {} 0xffff", remote.ip(), remote.port())))
        }
        (Some(_), None) => None,
        (None, _) => {
            let dscp: u8 = row.dscp.parse().ok()?;
            Some(("ip", format!("match ip tos {:#04x} 0xfc", dscp << 2)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_make_a_class_for_each_row_that_can_be_told_apart() {
        let row = |peer: Option<&str>, rate, cap, dscp: &str, remote: Option<&str>| ReserveRow {
            overlay: "lab".into(),
            peer: peer.map(str::to_owned),
            rate,
            cap,
            dscp: dscp.into(),
            remote: remote.map(|remote| remote.parse().expect("an address")),
            state: String::new(),
        };
        let rows = vec![
            row(None, Some(20 * MEGABIT), None, "46", None),
            row(Some("mill"), Some(30 * MEGABIT), Some(40 * MEGABIT), "46", Some("192.0.2.7:7777")),
            row(Some("forge"), None, Some(MEGABIT), "46", None),
        ];
        let text = commands(&Reservations { uplink: Some(100 * MEGABIT), rows });
        for line in [
            "classid 1:1 htb rate 100000kbit",
            "classid 1:2 htb rate 50000kbit ceil 100000kbit",
            "classid 1:10 htb rate 20000kbit ceil 100000kbit",
            "u32 match ip tos 0xb8 0xfc flowid 1:10",
            "classid 1:11 htb rate 30000kbit ceil 40000kbit",
            "match ip dst 192.0.2.7/32 match ip dport 7777 0xffff flowid 1:11",
            "# lab, forge: nothing tells",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
