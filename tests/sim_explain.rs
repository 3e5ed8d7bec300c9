//! `explain` tells what keeps a pair apart, from what the nodes found out by themselves.

mod common;

use common::Lab;
use longwire::control::report::{Explanation, Request, Response};
use longwire::sim::Behaviour;

const SYMMETRIC: Option<Behaviour> = Some(Behaviour::symmetric());
const RESTRICTED: Option<Behaviour> = Some(Behaviour::port_restricted());

fn explain(lab: &mut Lab, from: usize, peer: &str) -> Explanation {
    match lab.world.ask(lab.hosts[from], &Request::Explain { peer: peer.into() }) {
        Some(Response::Explain(explanation)) => explanation,
        other => panic!("{other:?}"),
    }
}

/// A pair behind these, after a minute, as the first sees it.
fn after_a_minute(seed: u64, boxes: [Option<Behaviour>; 2]) -> (Lab, Explanation) {
    let mut lab = Lab::new(seed, 1, &boxes);
    lab.run(60.0);
    let explanation = explain(&mut lab, 0, "n1");
    (lab, explanation)
}

#[test]
fn two_nats_of_random_ports_are_named_and_either_router_can_help() {
    let (_, told) = after_a_minute(1, [SYMMETRIC; 2]);
    assert!(told.advice[0].starts_with("the NATs at both ends take another port"), "{:#?}", told.advice);
    for place in ["router of this site", "router of n1"] {
        let helps = |sentence: &&String| sentence.starts_with("forward UDP 7777") && sentence.ends_with(place);
        assert_eq!(told.advice.iter().filter(helps).count(), 1, "{:#?}", told.advice);
    }
    assert_eq!((told.relays.len(), &*told.relays[0].result), (1, "in use"));
    assert!(told.relays[0].rtt_us.is_some() && told.since_ms.is_some_and(|ms| ms > 50_000));
    let private = told.candidates.iter().find(|one| one.kind == "host").expect("its own address");
    assert!(private.probes > 0 && private.probed_ms.is_some() && private.answered_ms.is_none());
    assert!(private.error.as_ref().is_some_and(|error| error.starts_with("a private address")), "{private:?}");
}

#[test]
fn a_pair_that_is_direct_needs_no_advice() {
    let (_, told) = after_a_minute(2, [RESTRICTED, None]);
    assert_eq!((&told.advice[..], &*told.better), (&[] as &[String], ""), "{}", told.why);
    let used = told.candidates.iter().find(|one| one.result == "in use").expect("one carries");
    assert!(used.answered_ms.is_some() && used.error.is_none());
}

#[test]
fn a_way_that_was_cut_leaves_a_firewall_and_the_path_that_was_better() {
    let (mut lab, _) = after_a_minute(3, [RESTRICTED; 2]);
    let sites = [0, 1].map(|number| lab.world.site_of(lab.hosts[number]));
    lab.world.cut(sites[0], sites[1]);
    lab.world.cut(sites[1], sites[0]);
    lab.run(60.0);
    let told = explain(&mut lab, 0, "n1");
    assert!(told.better.starts_with("it was direct by ") && told.better.ends_with(" s ago"), "{}", told.better);
    assert!(told.advice[0].ends_with("a firewall between this host and n1 drops their UDP"), "{:#?}", told.advice);
}
