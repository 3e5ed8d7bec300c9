//! `longwire netcheck`: the report in plain words.

use std::collections::BTreeMap;

use anyhow::anyhow;
use longwire::io::netcheck::{Family, Report, Supernode, check};
use longwire::node::SupernodeSettings;

use super::args::{AskArgs, NetcheckArgs};
use super::ask::{nat_line, print_json, status_of};
use super::{Failure, print};

/// Why nobody may have answered.
const NO_UDP: &str = "nobody answered by UDP: it is blocked on the way, or no supernode is there, or it is an old one";
/// The same, where TCP passes.
const TCP_ONLY: &str = "by TCP alone: UDP is blocked on the way, or the supernode has another UDP port than this; what \
                        goes by TCP is slower, and no path will be direct";
/// What is wrong was told with the supernode.
const WRONG: &str = "a supernode is not what it should be";

pub(super) fn run(args: NetcheckArgs) -> Result<(), Failure> {
    let NetcheckArgs { supernode, ask } = args;
    let mut named: Vec<SupernodeSettings> = supernode.into_iter().map(|text| text.0).collect();
    if named.is_empty() {
        named = known(&ask)?;
    }
    let report = check(&named).map_err(|error| Failure::Ran(error.into()))?;
    if ask.json {
        print_json(&report)?
    } else {
        print(&text(&report))?
    };
    let supernodes = || report.supernodes.iter();
    match (report.udp, supernodes().any(|one| !one.wrong.is_empty())) {
        (_, true) => Err(Failure::Ran(anyhow!(WRONG))),
        (true, false) => Ok(()),
        (false, false) if supernodes().any(|one| one.tcp) => Err(Failure::Ran(anyhow!(TCP_ONLY))),
        (false, false) => Err(Failure::Ran(anyhow!(NO_UDP))),
    }
}

/// The supernodes of the daemon that runs here, with the keys that they must show.
fn known(ask: &AskArgs) -> Result<Vec<SupernodeSettings>, Failure> {
    let status = status_of(ask)
        .map_err(|_| Failure::Asked(anyhow!("no daemon runs here: name a supernode with --supernode HOST[:PORT]")))?;
    let supernodes = status.overlays.into_iter().flat_map(|overlay| overlay.supernodes);
    let known: BTreeMap<String, Option<String>> = supernodes.map(|one| (one.address, one.fingerprint)).collect();
    let settings = |(address, pin): (String, Option<String>)| SupernodeSettings {
        address,
        pin: pin.and_then(|pin| pin.parse().ok()),
    };
    Ok(known.into_iter().map(settings).collect())
}

fn text(report: &Report) -> String {
    let mut text = report.supernodes.iter().map(supernode_text).collect::<String>();
    for (name, family) in [("IPv4", &report.ipv4), ("IPv6", &report.ipv6)] {
        text += &match family {
            Some(family) => family_text(name, family),
            None => format!("{name}: no answer\n"),
        };
    }
    text
}

fn supernode_text(one: &Supernode) -> String {
    let udp = if one.udp { "answers by UDP" } else { "no answer by UDP" };
    let tcp = match (one.tcp_port, &one.tcp_trouble) {
        (0, _) => "has no TCP port".into(),
        (port, None) => format!("answers by TCP {port}"),
        (_, Some(trouble)) => format!("no answer by {trouble}"),
    };
    let key = match (&one.fingerprint, one.is_expected) {
        (Some(key), None) => format!("; its key is {key}"),
        (Some(_), Some(true)) => "; its key is the expected one".into(),
        (Some(_), Some(false)) | (None, _) => String::new(),
    };
    let wrong = one.wrong.iter().map(|sentence| format!("  {sentence}\n")).collect::<String>();
    format!("supernode {}: {udp}; {tcp}{key}\n{wrong}", one.address)
}

fn family_text(name: &str, family: &Family) -> String {
    let Some(nat) = &family.nat else {
        let public = family.public;
        return format!(
            "{name}: seen as {public}; more can be said with a supernode of two ports, or two supernodes\n"
        );
    };
    let mut text = nat_line(name, Some(nat));
    if let Some(hairpin) = family.hairpin {
        let can = if hairpin { "reach" } else { "do not reach" };
        text += &format!("  hosts behind it {can} each other by its outside address (hairpin)\n");
    }
    if !family.several {
        text += "  one address was asked: what depends on addresses is not known\n";
    }
    text + &format!("  {}\n", nat.meaning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use longwire::control::report::NatStatus;

    #[test]
    fn the_report_says_what_works_and_what_it_means() {
        let nat = NatStatus {
            public: "198.51.100.7:4000".parse().ok(),
            mapping: "endpoint-independent".into(),
            filtering: "address-and-port-dependent".into(),
            ports: "kept".into(),
            meaning: "direct with everybody".into(),
        };
        let public = "198.51.100.7:4000".parse().expect("address");
        let family = Family { public, nat: Some(nat), hairpin: Some(false), several: false };
        let supernode = Supernode {
            address: "sn:7777".into(),
            udp: true,
            tcp_port: 443,
            tcp: false,
            tcp_trouble: Some("TCP 443: no answer".into()),
            fingerprint: Some("abc".into()),
            is_expected: Some(true),
            wrong: vec!["a sentence".into()],
        };
        let said = text(&Report { udp: true, supernodes: vec![supernode], ipv4: Some(family), ipv6: None });
        let line = "supernode sn:7777: answers by UDP; no answer by TCP 443: no answer; its key is the expected one\n";
        for part in
            [line, "  a sentence\n", "seen as 198.51.100.7:4000", "do not reach", "direct with everybody", "IPv6: no"]
        {
            assert!(said.contains(part), "{part} is missing:\n{said}");
        }
    }
}
