//! What would make a pair direct, in sentences for whoever can change a router.
//!
//! Pure: what is known of both ends in, sentences out. `reporting` asks it for `longwire explain`.

use std::net::SocketAddr;

use crate::wire::observe::{Filtering, Mapping, NatClass};

/// What is known of one end of a pair.
#[derive(Clone, Debug, Default)]
pub(super) struct End {
    /// `this host`, or the member's name.
    pub(super) who: String,
    /// Where its router is: `this site`, or the member's site or name.
    pub(super) place: String,
    /// Its own address on its own network.
    pub(super) host: Option<SocketAddr>,
    /// How the NAT in front of it behaves.
    pub(super) nat: Option<NatClass>,
    /// Where its router says that it lets others in.
    pub(super) mapped: Option<SocketAddr>,
    /// It reaches supernodes, and none of them by UDP.
    pub(super) is_on_tcp: bool,
}

/// What else matters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Between {
    /// Supernodes see both at one address.
    pub(super) is_one_address: bool,
    /// Many ports may be tried at a NAT of random ones.
    pub(super) birthday: bool,
}

/// Why the two do not meet, and what would help, the surest first. They have no direct path.
pub(super) fn advise(here: &End, there: &End, between: Between) -> Vec<String> {
    let without_udp = [here, there].into_iter().filter(|end| end.is_on_tcp).map(no_udp).collect::<Vec<_>>();
    if !without_udp.is_empty() {
        return without_udp;
    }
    let unknown = [here, there].into_iter().find(|end| end.nat.is_none());
    let mut said = Vec::new();
    if between.is_one_address {
        said.push(format!(
            "both are behind one NAT, which does not turn packets back to its own side, and {} is not reached on its \
             own network: let the two networks there reach each other",
            there.who
        ));
    } else if let (Some(a), Some(b)) = (here.nat, there.nat) {
        said.push(obstacle((here, a), (there, b), between));
    } else if let Some(end) = unknown {
        said.push(format!(
            "how the NAT of {} behaves is not known: `longwire netcheck` there tells what it finds",
            end.place
        ));
    }
    for end in [here, there] {
        said.extend(helps(end));
    }
    said
}

fn no_udp(end: &End) -> String {
    format!(
        "{} reaches its supernodes by TCP only: its network lets no UDP out, or hardly any, and a direct path is UDP; \
         let UDP out at the firewall of {}",
        end.who, end.place
    )
}

/// Why two known NATs keep their ends apart.
fn obstacle((here, a): (&End, NatClass), (there, b): (&End, NatClass), between: Between) -> String {
    let is_stuck = |hard: NatClass, other: NatClass| hard.is_hard() && other.filters_per_port();
    if !is_stuck(a, b) && !is_stuck(b, a) {
        return format!(
            "the NATs would allow a direct path and nothing came through: a firewall between {} and {} drops their UDP",
            here.who, there.who
        );
    }
    if a.is_hard() && b.is_hard() {
        return "the NATs at both ends take another port for each remote, so that neither end knows where the other \
                will be"
            .into();
    }
    let (end, hard, strict) = if a.is_hard() { (here, a, there) } else { (there, b, here) };
    let (place, other) = (&end.place, &strict.place);
    match (hard.step(), between.birthday) {
        (Some(_), _) => format!(
            "the NAT of {place} takes another port for each remote, which is guessed, and what stands before {other} \
             lets in only who was sent to: no guess was right so far"
        ),
        (None, true) => format!(
            "one of the two NATs takes random ports, that of {place}, and what stands before {other} lets in only who \
             was sent to: a search for the port has found nothing so far"
        ),
        (None, false) => format!(
            "one of the two NATs takes random ports, that of {place}, and what stands before {other} lets in only who \
             was sent to: `birthday = true` at both ends allows a search for the port"
        ),
    }
}

/// Whether it lets in only whom the end wrote to.
const fn filters(nat: NatClass) -> bool {
    matches!(nat.filtering, Some(Filtering::PerAddress | Filtering::PerPort))
}

/// What can be done at one end.
fn helps(end: &End) -> Vec<String> {
    let Some(host) = end.host else { return Vec::new() };
    let (port, ip, place) = (host.port(), host.ip(), &end.place);
    match (end.nat.map(|nat| nat.mapping), end.mapped) {
        (_, Some(mapped)) => vec![format!(
            "the router of {place} says that it lets others in at {mapped}, and nothing comes back from there: forward \
             UDP {port} at the NAT in front of it too"
        )],
        (Some(Mapping::None), None) if end.nat.is_some_and(filters) => {
            vec![format!("the firewall of {place} drops what comes from outside: let UDP {port} in to {ip}")]
        }
        (Some(Mapping::None) | None, None) => Vec::new(),
        (Some(Mapping::Independent | Mapping::PerAddress | Mapping::PerPort), None) => vec![
            format!("forward UDP {port} to {ip} ({}) at the router of {place}", end.who),
            format!("or enable UPnP, NAT-PMP or PCP at the router of {place}: {} asks for the port by itself", end.who),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::observe::Ports;

    fn class(mapping: Mapping, filtering: Filtering, ports: Ports) -> Option<NatClass> {
        Some(NatClass { mapping, filtering: Some(filtering), ports })
    }

    fn home() -> Option<NatClass> {
        class(Mapping::Independent, Filtering::PerPort, Ports::Kept)
    }

    fn random() -> Option<NatClass> {
        class(Mapping::PerPort, Filtering::PerPort, Ports::Random)
    }

    fn here(nat: Option<NatClass>) -> End {
        let host = "10.0.0.5:7777".parse().ok();
        End { who: "this host".into(), place: "this site".into(), host, nat, mapped: None, is_on_tcp: false }
    }

    fn there(nat: Option<NatClass>) -> End {
        let host = "192.168.1.9:7778".parse().ok();
        End { who: "attic".into(), place: "site b".into(), host, nat, mapped: None, is_on_tcp: false }
    }

    fn first(a: Option<NatClass>, b: Option<NatClass>, birthday: bool) -> String {
        advise(&here(a), &there(b), Between { is_one_address: false, birthday }).swap_remove(0)
    }

    #[test]
    fn a_router_is_told_which_port_goes_where() {
        let said = advise(&here(random()), &there(random()), Between::default());
        assert_eq!(
            said[1..],
            [
                "forward UDP 7777 to 10.0.0.5 (this host) at the router of this site",
                "or enable UPnP, NAT-PMP or PCP at the router of this site: this host asks for the port by itself",
                "forward UDP 7778 to 192.168.1.9 (attic) at the router of site b",
                "or enable UPnP, NAT-PMP or PCP at the router of site b: attic asks for the port by itself",
            ]
        );
        assert!(said[0].starts_with("the NATs at both ends take another port for each remote"), "{}", said[0]);
    }

    #[test]
    fn random_ports_are_named_with_their_end_and_the_search() {
        for (a, b, site) in [(home(), random(), "site b"), (random(), home(), "this site")] {
            let named = format!("one of the two NATs takes random ports, that of {site}");
            let (may, may_not) = (first(a, b, true), first(a, b, false));
            assert!(may.starts_with(&named) && may.ends_with("found nothing so far"), "{may}");
            assert!(may_not.starts_with(&named) && may_not.contains("`birthday = true`"), "{may_not}");
        }
    }

    #[test]
    fn ports_that_count_are_guessed() {
        let counts = class(Mapping::PerPort, Filtering::PerPort, Ports::Counting(1));
        let said = first(home(), counts, true);
        assert!(said.starts_with("the NAT of site b takes another port for each remote, which is guessed"), "{said}");
    }

    #[test]
    fn nats_that_would_let_them_meet_leave_a_firewall_on_the_way() {
        let said = first(home(), home(), true);
        assert!(said.ends_with("a firewall between this host and attic drops their UDP"), "{said}");
    }

    #[test]
    fn one_address_is_one_nat_without_a_hairpin() {
        let between = Between { is_one_address: true, birthday: true };
        let said = advise(&here(home()), &there(home()), between);
        assert!(said[0].starts_with("both are behind one NAT, which does not turn packets back"), "{}", said[0]);
    }

    #[test]
    fn an_unknown_nat_is_said_to_be() {
        for (a, b, place) in [(None, home(), "this site"), (home(), None, "site b")] {
            let said = first(a, b, true);
            assert!(said.starts_with(&format!("how the NAT of {place} behaves is not known")), "{said}");
        }
    }

    #[test]
    fn without_udp_no_router_helps_and_the_end_is_named() {
        let mut end = there(None);
        end.is_on_tcp = true;
        let said = advise(&here(home()), &end, Between::default());
        assert!(said[0].starts_with("attic reaches its supernodes by TCP only"), "{}", said[0]);
        assert!(said[0].ends_with("let UDP out at the firewall of site b"), "{}", said[0]);
        assert_eq!(said.len(), 1);
    }

    #[test]
    fn a_firewall_without_translation_is_to_let_the_port_in() {
        let firewall = class(Mapping::None, Filtering::PerPort, Ports::Kept);
        let said = advise(&here(home()), &there(firewall), Between::default());
        let wanted = "the firewall of site b drops what comes from outside: let UDP 7778 in to 192.168.1.9";
        assert_eq!(said.last().map(String::as_str), Some(wanted));
        let open = class(Mapping::None, Filtering::Independent, Ports::Kept);
        assert_eq!(advise(&here(open), &there(open), Between::default()).len(), 1, "nothing to be done at either end");
    }

    #[test]
    fn a_mapping_that_leads_nowhere_has_another_nat_in_front() {
        let mut end = there(home());
        end.mapped = "100.64.0.7:7778".parse().ok();
        let said = advise(&here(random()), &end, Between::default());
        let wanted = "the router of site b says that it lets others in at 100.64.0.7:7778, and nothing comes back from \
                      there: forward UDP 7778 at the NAT in front of it too";
        assert_eq!(said.last().map(String::as_str), Some(wanted));
    }
}
