//! Reservations and what others know of them: who keeps room for its own is not sent others' frames, and who caps
//! itself is not taken for held back.

mod common;

use std::time::Duration;

use common::Lab;
use longwire::control::report::reserve::ReserveRequest;
use longwire::control::report::{PathKind, Request, Response};
use longwire::control::sight::Link;
use longwire::node::HandshakeKind;
use longwire::sim::{Behaviour, HostId, SiteSpec};
use longwire::wire::carry::RelayFor;

const STEP: Duration = Duration::from_millis(50);

fn order(lab: &mut Lab, host: HostId, order: ReserveRequest) {
    let answer = lab.world.ask(host, &Request::Reserve(order));
    assert!(matches!(answer, Some(Response::Reservations(_))), "{answer:?}");
}

/// The link from the first host to the second, as the first one sees it.
fn link(lab: &mut Lab) -> Link {
    let Some(Response::Topology(all)) = lab.world.ask(lab.hosts[0], &Request::Topology) else { panic!("no topology") };
    let to = lab.world.status(lab.hosts[1]).expect("it runs").node_id;
    all[0].links.iter().find(|link| link.to == to).expect("a link").clone()
}

#[test]
fn who_caps_what_it_sends_is_not_taken_for_held_back_by_the_network() {
    let mut lab = Lab::three(1);
    let member = lab.hosts[0];
    order(&mut lab, member, ReserveRequest { peer: Some("n1".into()), cap: Some(100_000), ..Default::default() });
    // 250 kB/s for a cap of 100.
    for _ in 0..200 {
        for _ in 0..20 {
            lab.world.send(lab.vms[0], lab.vms[1], 1_250);
        }
        lab.world.run_for(Duration::from_millis(100));
    }
    let link = link(&mut lab);
    let sent = link.sent.expect("it counts");
    assert!((80_000..=130_000).contains(&sent), "{sent} bytes a second go");
    assert_eq!((link.kind, link.is_limited), (PathKind::Direct, Some(false)));
}

#[test]
fn who_has_guaranteed_all_of_its_uplink_carries_for_nobody_until_it_takes_that_back() {
    let mut lab = Lab::empty(2, 1, HandshakeKind::Noise);
    let supernode = lab.world.site_of(lab.supernodes[0]);
    lab.world.worsen(supernode, |now| now.delay = Duration::from_millis(100));
    for _ in 0..2 {
        let site = lab.site(Some(Behaviour::symmetric()));
        lab.member(site);
    }
    let site = lab.world.site(SiteSpec::default());
    let spec = lab.spec(site).member(lab.overlay).relaying(RelayFor::Everyone);
    let third = lab.add(spec);
    order(&mut lab, third, ReserveRequest { rate: Some(1_000), uplink: Some(1_000), ..Default::default() });
    lab.settle();
    lab.stream(0, 1, STEP, Duration::from_secs(20));
    let relayed = |lab: &mut Lab| lab.world.status(third).expect("it runs").overlays[0].counters["relayed"];
    assert_eq!(relayed(&mut lab), 0, "{}", lab.tale());
    order(&mut lab, third, ReserveRequest { rate: Some(0), uplink: Some(0), ..Default::default() });
    // Who was refused asks again after ten minutes.
    lab.run(600.0);
    lab.stream(0, 1, STEP, Duration::from_secs(90));
    assert!(relayed(&mut lab) > 0, "{}", lab.tale());
    lab.check();
}
