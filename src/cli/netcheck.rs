//! `longwire netcheck`: the report in plain words.

use anyhow::anyhow;
use longwire::io::netcheck::{Family, Report, check};

use super::args::NetcheckArgs;
use super::ask::{nat_line, print_json, status_of};
use super::{Failure, print};

/// What to do where no UDP passes.
const NO_UDP: &str = "nobody answered by UDP: it is blocked on the way, or no supernode is there, or it is an old one";

pub(super) fn run(args: NetcheckArgs) -> Result<(), Failure> {
    let NetcheckArgs { supernode, ask } = args;
    let mut names: Vec<String> = supernode.into_iter().map(|text| text.0.address).collect();
    if names.is_empty() {
        let known = status_of(&ask).map_err(|_| {
            Failure::Asked(anyhow!("no daemon runs here: name a supernode with --supernode HOST[:PORT]"))
        })?;
        names.extend(known.overlays.into_iter().flat_map(|overlay| overlay.supernodes).map(|one| one.address));
        names.sort_unstable();
        names.dedup();
    }
    let report = check(&names).map_err(|error| Failure::Ran(error.into()))?;
    if ask.json {
        print_json(&report)?
    } else {
        print(&text(&report))?
    };
    if report.udp { Ok(()) } else { Err(Failure::Ran(anyhow!(NO_UDP))) }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for (name, answered) in &report.supernodes {
        text += &format!("supernode {name}: {}\n", if *answered { "answers by UDP" } else { "no answer by UDP" });
    }
    for (name, family) in [("IPv4", &report.ipv4), ("IPv6", &report.ipv6)] {
        text += &match family {
            Some(family) => family_text(name, family),
            None => format!("{name}: no answer\n"),
        };
    }
    text
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
        let supernodes = vec![("sn:7777".to_owned(), true)];
        let said = text(&Report { udp: true, supernodes, ipv4: Some(family), ipv6: None });
        for part in ["answers by UDP", "seen as 198.51.100.7:4000", "do not reach", "direct with everybody", "IPv6: no"]
        {
            assert!(said.contains(part), "{part} is missing:\n{said}");
        }
    }
}
