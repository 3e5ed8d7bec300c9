//! Which machine should move: where the right answer is known, and in a world whose hosts find it out by themselves.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::Lab;
use longwire::control::report::{PathKind, Request, Response};
use longwire::control::sight::{MoveAdvice, Topology, Trace, Traffic};
use longwire::control::topology::relief::{LOADED, Relief, relieve};
use longwire::control::topology::resources::{Resource, Site};
use longwire::control::topology::view::{Config, NodeView, View};
use longwire::control::topology::{NodeIndex, Pair};
use longwire::node::{Event, HandshakeKind};
use longwire::sim::{Conditions, HostId, HostSpec, SiteSpec};
use longwire::time::Time;

const MB: f64 = 1e6;

/// Two hosts at each of three sites; the trunks that are named have so many MB/s, all else has plenty.
fn sites(trunks: &[(u16, u16, f64)], demands: &[(u16, u16, f64)]) -> View {
    let site = |node: u16| NodeView { site: Some(Site(node / 2)), is_supernode: false, relays: false };
    let mut view = View { nodes: (0..6).map(site).collect(), ..View::default() };
    for node in (0..6).map(NodeIndex) {
        view.capacities.set(Resource::NodeOut(node), 125.0 * MB);
        view.capacities.set(Resource::NodeIn(node), 125.0 * MB);
    }
    for (from, to, width) in trunks {
        view.capacities.set(Resource::Trunk(Site(*from), Site(*to)), width * MB);
        view.capacities.set(Resource::Trunk(Site(*to), Site(*from)), width * MB);
    }
    let demand = |(from, to, rate): &(u16, u16, f64)| (Pair::new(NodeIndex(*from), NodeIndex(*to)), rate * MB);
    view.demands = demands.iter().map(demand).collect();
    view
}

fn advise(view: &View, loaded: &[u16]) -> Option<Relief> {
    let load = |node: u16| Some(if loaded.contains(&node) { LOADED } else { LOADED - 1 });
    let hosts = (0..6).map(|node| (NodeIndex(node), load(node))).collect::<BTreeMap<_, _>>();
    relieve(view, &Config::default(), Time::START, &hosts)
}

#[test]
fn who_fills_a_narrow_trunk_moves_to_its_partner() {
    let view = sites(&[(0, 1, 10.0)], &[(0, 2, 9.0), (2, 0, 1.0), (1, 3, 0.5)]);
    let found = advise(&view, &[]).expect("a move");
    assert_eq!(found.bottleneck, Resource::Trunk(Site(0), Site(1)));
    assert_eq!((found.host, found.partner, found.target), (NodeIndex(0), NodeIndex(2), NodeIndex(2)));
    // 10 for 9.5 before; after it what is left has 10 for 0.5, of which ten times the demand is believed.
    assert!((found.gain - 9.5).abs() < 1e-9, "{found:?}");
}

#[test]
fn a_loaded_host_takes_nobody_and_its_neighbour_does() {
    let view = sites(&[(0, 1, 10.0)], &[(0, 2, 9.0), (2, 0, 1.0), (1, 3, 0.5)]);
    let found = advise(&view, &[2]).expect("a move");
    assert_eq!((found.host, found.target), (NodeIndex(0), NodeIndex(3)), "the same site as its partner");
    let found = advise(&view, &[2, 3, 4, 5]).expect("a move");
    assert_eq!((found.host, found.target), (NodeIndex(2), NodeIndex(0)), "then the other end moves");
    assert_eq!(advise(&view, &[0, 1, 2, 3, 4, 5]), None);
}

#[test]
fn the_worst_bottleneck_counts_and_not_the_loudest_pair() {
    let view = sites(&[(0, 1, 100.0), (0, 2, 1.0)], &[(0, 2, 50.0), (1, 4, 1.0)]);
    let found = advise(&view, &[]).expect("a move");
    assert_eq!((found.host, found.partner), (NodeIndex(1), NodeIndex(4)), "{found:?}");
}

#[test]
fn where_there_is_room_nobody_is_told_to_move() {
    assert_eq!(advise(&sites(&[(0, 1, 100.0)], &[(0, 2, 9.0), (1, 3, 0.5)]), &[]), None);
    assert_eq!(advise(&sites(&[(0, 1, 10.0)], &[]), &[]), None);
}

#[test]
fn a_move_that_helps_less_than_half_as_much_again_is_not_advised() {
    // The one free host is at a site whose trunk is as narrow.
    let view = sites(&[(0, 1, 1.0), (0, 2, 1.0), (1, 2, 1.0)], &[(0, 2, 1.0), (1, 3, 0.1), (1, 4, 0.8)]);
    assert_eq!(advise(&view, &[0, 1, 2, 3, 4]), None);
    assert!(advise(&view, &[]).is_some());
}

/// A line of 250 kB/s in front of the first of three members.
fn narrow() -> Lab {
    narrow_with(|spec| spec)
}

/// The same with members that are set up like this.
fn narrow_with(set_up: fn(HostSpec) -> HostSpec) -> Lab {
    let mut lab = Lab::empty(1, 1, HandshakeKind::Noise);
    let conditions = Conditions { rate: Some(250_000), queue: 40_000, ..Conditions::default() };
    let narrow = lab.world.site(SiteSpec { conditions, ..SiteSpec::default() });
    for site in [narrow, lab.site(None), lab.site(None)] {
        let spec = set_up(lab.spec(site).member(lab.overlay));
        lab.add(spec);
    }
    lab.settle();
    lab
}

/// 230 kB/s from the first machine to the second, in bursts: they wait for the line, and nothing is lost.
fn blast(lab: &mut Lab, seconds: u32) {
    for _ in 0..seconds * 10 {
        for _ in 0..18 {
            lab.world.send(lab.vms[0], lab.vms[1], 1_250);
        }
        lab.world.run_for(Duration::from_millis(100));
    }
}

fn advice(lab: &mut Lab, host: HostId) -> Vec<MoveAdvice> {
    match lab.world.ask(host, &Request::Advise) {
        Some(Response::Advice(advice)) => advice,
        other => panic!("{other:?}"),
    }
}

fn traffic(lab: &mut Lab, host: HostId) -> Traffic {
    match lab.world.ask(host, &Request::Traffic) {
        Some(Response::Traffic(mut all)) => all.remove(0),
        other => panic!("{other:?}"),
    }
}

fn topology(lab: &mut Lab, host: HostId) -> Topology {
    match lab.world.ask(host, &Request::Topology) {
        Some(Response::Topology(mut all)) => all.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bottleneck_that_stays_is_told_to_the_host_of_the_machine_which_names_it() {
    let mut lab = narrow();
    blast(&mut lab, 60);
    let told = |host: HostId, lab: &Lab| {
        let advised = lab.world.events().iter().filter(|(_, at, _)| *at == host).find_map(|(.., event)| {
            let Event::MoveAdvised { machine, host, target, .. } = event else { return None };
            Some((machine.clone(), host.clone(), target.clone()))
        });
        advised.unwrap_or_else(|| panic!("nothing was said\n{}", lab.tale()))
    };
    let (machine, from, target) = told(lab.hosts[0], &lab);
    assert_eq!((machine.as_deref(), &*from, &*target), (Some("02:00:00:00:00:00"), "n0", "n1"));
    let (machine, ..) = told(lab.supernodes[0], &lab);
    assert_eq!(machine, None, "a supernode knows no machines");

    let (member, supernode) = (lab.hosts[0], lab.supernodes[0]);
    let own = advice(&mut lab, member);
    assert_eq!(own.len(), 1, "{own:?}");
    assert_eq!((own[0].by.as_str(), own[0].machine.as_deref()), ("member", Some("02:00:00:00:00:00")));
    assert_eq!((&*own[0].host, &*own[0].target), ("n0", "n1"));
    assert!(own[0].gain_percent >= 150, "{own:?}");
    let planned = advice(&mut lab, supernode);
    assert_eq!((planned.len(), &planned[0].machine), (1, &None), "{planned:?}");
    let id = lab.world.node_id(member).to_string();
    assert!(id.starts_with(&planned[0].host) && planned[0].bottleneck.is_some(), "{planned:?}");
}

#[test]
fn a_member_sees_its_machines_and_a_supernode_sees_hosts_only() {
    let mut lab = narrow();
    blast(&mut lab, 12);
    let (member, supernode) = (lab.hosts[0], lab.supernodes[0]);
    let seen = traffic(&mut lab, member);
    let row = seen.machines.iter().find(|row| row.from == "02:00:00:00:00:00").expect("the pair");
    assert_eq!((&*row.to, &*row.from_host, &*row.to_host), ("02:00:00:00:00:01", "n0", "n1"));
    // What the machine offers; the narrow line comes behind the counters.
    assert!((215_000..245_000).contains(&row.bytes_per_s), "{row:?}");
    assert!((170..190).contains(&row.frames_per_s.expect("frames")), "{row:?}");
    assert_eq!(row.path.as_deref(), Some("direct"));
    assert_eq!((&seen.host_pattern, row.loss_percent), (&None, None), "not known there");
    assert_eq!((&seen.hosts_unknown, &seen.machines_unknown), (&None, &None));

    let served = traffic(&mut lab, supernode);
    assert_eq!(served.machines, [], "machines stay with the members");
    assert!((200_000..245_000).contains(&served.hosts[0].bytes_per_s), "{:?}", served.hosts);
    assert!(!format!("{served:?}").contains("02:00:00:00"), "{served:?}");

    let own = topology(&mut lab, member);
    assert_eq!((own.nodes.len(), own.links.len()), (4, 3), "{own:?}");
    let busy = own.links.iter().find(|link| link.sent > Some(200_000)).expect("the busy link");
    assert!(busy.kind == PathKind::Direct && busy.rtt_us.is_some() && busy.is_limited == Some(true), "{busy:?}");
    let whole = topology(&mut lab, supernode);
    assert_eq!(whole.nodes.len(), 4, "{whole:?}");
    assert!(whole.links.iter().any(|link| link.is_limited == Some(true) && link.rtt_us.is_some()), "{whole:?}");
}

#[test]
fn a_trace_follows_what_was_learned() {
    let mut lab = narrow();
    assert!(lab.answers(0, 1));
    let mut trace = |host: usize, from: &str, to: &str| -> Trace {
        let (from, to) = (from.to_owned(), to.to_owned());
        match lab.world.ask(lab.hosts[host], &Request::Trace { from, to, vlan: 0, overlay: None }) {
            Some(Response::Trace(trace)) => trace,
            other => panic!("{other:?}"),
        }
    };
    let [here, there, nobody] = ["02:00:00:00:00:00", "02:00:00:00:00:01", "02:00:00:00:00:99"];
    let way = trace(0, here, there);
    assert_eq!((way.from.host.as_deref(), way.to.host.as_deref()), (Some("n0"), Some("n1")));
    assert_eq!(way.verdict, "sent to n1, direct");
    assert_eq!(way.hops.iter().map(|hop| &*hop.to).collect::<Vec<_>>(), ["n0", "n1", there]);
    assert!(way.rtt_us.is_some() && way.hops[1].rtt_us == way.rtt_us);
    assert!(trace(1, here, there).verdict.starts_with("delivered to this host's TAP"));
    assert!(trace(2, here, there).verdict.starts_with("neither is behind this host"));
    assert!(trace(0, here, nobody).verdict.starts_with("nobody here knows the receiver"));
    assert!(trace(0, nobody, here).verdict.starts_with("the sender is unknown"));
}

#[test]
fn a_trace_by_ip_addresses_finds_machines_behind_other_members_or_says_why_not() {
    let mut lab = narrow();
    assert!(lab.answers(0, 1));
    lab.run(10.0);
    let mut trace = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        lab.world.ask(lab.hosts[0], &Request::Trace { from, to, vlan: 0, overlay: None })
    };
    let Some(Response::Trace(way)) = trace("10.0.0.0", "10.0.0.1") else {
        panic!("{:?}", trace("10.0.0.0", "10.0.0.1"))
    };
    assert_eq!((&*way.to.mac, &*way.verdict), ("02:00:00:00:00:01", "sent to n1, direct"));
    let Some(Response::Error(why)) = trace("10.0.0.0", "10.9.9.9") else { panic!("nobody has it") };
    assert_eq!(
        why,
        "no machine behind this host has 10.9.9.9, and no other member has told of one; give its MAC address"
    );
}

#[test]
fn a_busy_host_tells_the_supernode_and_takes_no_machine() {
    let mut lab = narrow();
    let (supernode, busy) = (lab.supernodes[0], lab.hosts[1]);
    lab.world.press(busy, 80);
    lab.run(1.0);
    blast(&mut lab, 12);
    let id = lab.world.node_id(busy).to_string();
    let whole = topology(&mut lab, supernode);
    let node = whole.nodes.iter().find(|node| node.id == id).expect("the busy host");
    assert_eq!(node.load_percent, Some(80));
    let planned = advice(&mut lab, supernode);
    assert!(planned.iter().all(|advice| !id.starts_with(&advice.target)), "{planned:?}");
}

#[test]
fn members_that_do_not_adapt_count_no_machines_and_tell_the_supernode_nothing() {
    let mut lab = narrow_with(HostSpec::without_adapting);
    blast(&mut lab, 12);
    let (member, supernode) = (lab.hosts[0], lab.supernodes[0]);
    let seen = traffic(&mut lab, member);
    assert!(seen.machines.is_empty() && seen.hosts[0].bytes_per_s > 200_000, "{seen:?}");
    assert!(seen.machines_unknown.is_some_and(|why| why.contains("`adapt = false`")));
    let served = traffic(&mut lab, supernode);
    assert_eq!(served.hosts, []);
    assert!(served.hosts_unknown.is_some_and(|why| why.contains("`adapt = false`")));
    assert_eq!(topology(&mut lab, supernode).links, []);
}
