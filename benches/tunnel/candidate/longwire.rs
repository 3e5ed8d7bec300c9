//! longwire itself: as it comes, and with one thing changed at a time.
//!
//! Each variant is an overlay and a pair of daemons of its own, and is checked to be what its name says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use lab::{Daemon, Guest, Host, new_key, poll_for, program};

use super::write;
use crate::options::Options;
use crate::stage::{Candidate, Scope, Stage};

/// Every candidate of this file.
pub const NAMES: [&str; 9] = [
    "longwire",
    "longwire-1400",
    "longwire-v6",
    "longwire-vlan",
    "longwire-hosts",
    "longwire-plain",
    "longwire-chacha",
    "longwire-still",
    "longwire-relayed",
];

/// For two daemons to find the path that they are to have.
const MEETING: Duration = Duration::from_secs(20);
/// For a daemon to answer, or to end because it does not know a key of its config.
const STARTING: Duration = Duration::from_secs(5);
/// The guests' VLAN.
const VLAN: u16 = 10;
/// The hosts' own addresses in an overlay that has no guests.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 78, 0, 1), Ipv4Addr::new(10, 78, 0, 2)];

/// What its TAPs are joined to.
#[derive(Clone, Copy)]
pub enum Attach {
    /// Bridges, with guests on them.
    Bridges,
    /// The hosts themselves, under an address each.
    Hosts,
}

/// A variant of longwire.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// Name of its overlay, and of the bridge behind `br-`.
    pub overlay: &'static str,
    /// Who is behind its TAPs.
    pub attach: Attach,
    /// Lines at the top of the config.
    pub top: &'static str,
    /// Lines of the overlay's table.
    pub table: &'static str,
    /// The kind of path that both must find.
    pub path: &'static str,
}

/// As it comes.
pub const USUAL: Wanted = Wanted { overlay: "lan", attach: Attach::Bridges, top: "", table: "", path: "direct" };
const HOSTS: Wanted = Wanted { overlay: "hosts", attach: Attach::Hosts, ..USUAL };
const PLAIN: Wanted = Wanted { overlay: "plain", table: "tap-offload = false\n", ..USUAL };
const CHACHA: Wanted = Wanted { overlay: "chacha", top: "cipher = \"chacha20-poly1305\"\n", ..USUAL };
const RELAYED: Wanted = Wanted { overlay: "relayed", path: "relayed", ..USUAL };
const STILL: Wanted = Wanted { overlay: "still", table: "adapt = false\n", ..USUAL };

pub fn stand(stage: &mut Stage, options: &Options) -> Result<(), String> {
    let (near, far) = (stage.hosts.clone(), stage.far.clone());
    if NAMES[..4].iter().any(|name| options.wants(name)) {
        let pids = start_pair(stage, &near, USUAL)?;
        usual(stage, options, &near, &pids)?;
    }
    for (name, wanted, about) in [
        ("longwire-hosts", HOSTS, "no VM: the hosts themselves"),
        ("longwire-plain", PLAIN, "a TAP without offloads"),
        ("longwire-chacha", CHACHA, "ChaCha20-Poly1305"),
        ("longwire-still", STILL, "neither counts nor reports"),
        ("longwire-relayed", RELAYED, "by a supernode on a third host, whose cost counts too"),
    ] {
        if !options.wants(name) {
            continue;
        }
        let hosts = if wanted.path == "relayed" { &far } else { &near };
        if let Err(reason) = variant(stage, hosts, wanted, (name, about)) {
            stage.absent.push((name, reason));
        }
    }
    Ok(())
}

fn variant(
    stage: &mut Stage,
    hosts: &[Host; 2],
    wanted: Wanted,
    (name, about): (&'static str, &str),
) -> Result<(), String> {
    let mut pids = start_pair(stage, hosts, wanted)?;
    if wanted.path == "relayed" {
        pids.push(stage.supernode.process().pid());
    }
    match wanted.attach {
        Attach::Bridges => {
            let guests = stage.guests(hosts, &bridge(wanted), 1500);
            stage.add(name, about, &guests, 1500, &pids);
        }
        Attach::Hosts => {
            let ends = (&hosts[0].space, &hosts[1].space, ADDRESSES[1]);
            stage.add_between(name, about, ends, 1500, &pids);
            stage.narrow(name, Scope::OneStream);
        }
    }
    check(stage, name, wanted)
}

/// The candidates that share one pair of daemons.
fn usual(stage: &mut Stage, options: &Options, hosts: &[Host; 2], pids: &[u32]) -> Result<(), String> {
    let guests = stage.guests(hosts, &bridge(USUAL), 1500);
    stage.add(
        "longwire",
        &crate::candidate::version(&program().display().to_string(), "--version"),
        &guests,
        1500,
        pids,
    );
    check(stage, "longwire", USUAL)?;
    if options.wants("longwire-v6") {
        let address = give_v6(&guests);
        stage.candidates.push(Candidate {
            name: "longwire-v6",
            about: "IPv6 inside".to_owned(),
            mtu: 1500,
            from: guests[0].space.clone(),
            to: guests[1].space.clone(),
            address,
            pids: pids.to_vec(),
            scope: Scope::OneStream,
        });
    }
    if options.wants("longwire-vlan") {
        let guests = stage.guests(hosts, &bridge(USUAL), 1500);
        match guests.each_ref().map(|guest| guest.tag(VLAN)) {
            [Ok(one), Ok(other)] => {
                stage.taggings.extend([one, other]);
                stage.add("longwire-vlan", "frames with a VLAN tag", &guests, 1500, pids);
                stage.narrow("longwire-vlan", Scope::OneStream);
            }
            [Err(reason), _] | [_, Err(reason)] => stage.absent.push(("longwire-vlan", reason)),
        }
    }
    if options.wants("longwire-1400") {
        let guests = stage.guests(hosts, &bridge(USUAL), 1400);
        stage.add("longwire-1400", "", &guests, 1400, pids);
        stage.narrow("longwire-1400", Scope::Tcp);
    }
    stage.candidates.retain(|candidate| options.wants(candidate.name));
    Ok(())
}

/// Starts a daemon on each host, the way a user with a config file does; their process numbers.
pub fn start_pair(stage: &mut Stage, hosts: &[Host; 2], wanted: Wanted) -> Result<Vec<u32>, String> {
    let Wanted { overlay, attach, top, table, .. } = wanted;
    let (dir, bridge) = (stage.dir(overlay)?, bridge(wanted));
    let key_file = dir.join("key");
    write(&key_file, &new_key())?;
    std::fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .map_err(|error| error.to_string())?;
    let mut pids = Vec::new();
    for (host, address) in hosts.iter().zip(ADDRESSES) {
        let joined_to = match attach {
            Attach::Bridges => {
                host.bridge(&bridge);
                format!("bridge = \"{bridge}\"")
            }
            Attach::Hosts => format!("address = \"{address}/24\""),
        };
        let text = format!(
            "supernode = [\"{}\"]\n{top}\n[[overlay]]\nname = \"{overlay}\"\nkey-file = {key_file:?}\n\
             {joined_to}\n{table}",
            stage.supernode.address
        );
        let file = dir.join(format!("{}.toml", host.name));
        write(&file, &text)?;
        let file = file.display().to_string();
        let stem = format!("{}-{overlay}", host.name);
        let daemon = Daemon::start_words(&stage.lab, host, &stem, &host.name, &[], &["up", "--config", &file]);
        let runs = || daemon.process().is_running();
        poll_for(STARTING, || (daemon.try_ask("status").is_some() || !runs()).then_some(()));
        if !runs() {
            let said = daemon.process().stderr();
            return Err(said.lines().last().unwrap_or("the daemon ended").to_owned());
        }
        pids.push(daemon.process().pid());
        stage.daemons.push(daemon);
    }
    Ok(pids)
}

/// Whether the last two daemons have the path and the cipher that they should; their candidate goes if not.
fn check(stage: &mut Stage, name: &str, wanted: Wanted) -> Result<(), String> {
    let [.., one, other] = stage.daemons.as_slice() else { return Err("there are no daemons".into()) };
    let met = one.wait_path(&other.node, wanted.path, MEETING).is_some()
        && other.wait_path(&one.node, wanted.path, MEETING).is_some();
    let cipher = cipher(one, &other.node).unwrap_or_else(|| "nothing".into());
    let reason = if !met {
        format!("its path is {} instead of {}", one.path_to(&other.node), wanted.path)
    } else if wanted.overlay == CHACHA.overlay && cipher != "ChaCha20-Poly1305" {
        format!("it is sealed with {cipher}")
    } else {
        return Ok(());
    };
    stage.candidates.retain(|candidate| candidate.name != name);
    Err(reason)
}

/// What `daemon` says that it seals its frames to `peer` with.
fn cipher(daemon: &Daemon, peer: &str) -> Option<String> {
    let peers = daemon.try_ask("peers")?;
    let peer = peers.as_array()?.iter().find(|row| row["name"] == peer)?;
    Some(peer["cipher"].as_str()?.to_owned())
}

fn bridge(wanted: Wanted) -> String {
    format!("br-{}", wanted.overlay)
}

/// IPv6 addresses for both guests; that of the second.
fn give_v6(guests: &[Guest; 2]) -> IpAddr {
    let of = |last: u16| Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last);
    for (guest, last) in guests.iter().zip([1, 2]) {
        guest.space.sysctl("ipv6/conf/eth0/disable_ipv6", "0");
        guest.space.ip(&format!("addr add {}/64 dev eth0 nodad", of(last)));
    }
    of(2).into()
}
