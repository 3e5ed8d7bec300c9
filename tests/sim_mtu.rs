//! How large packets may be: found on every kind of path, lost and found again, and never at the cost of frames.

mod common;

use std::time::Duration;

use common::Lab;
use longwire::control::report::{MtuState, PathKind};
use longwire::sim::{Behaviour, Conditions, FrameId, MILLION, SiteSpec};

/// The longest frame of a machine, as payload: more than one packet of an ordinary underlay.
const WHOLE: usize = 1500;
/// A frame that fits one packet of 1400 bytes and none of 1280.
const LARGE: usize = 1300;
/// A frame that fits one packet of 1320 bytes and none of 1280, through a relay too.
const LARGE_AT_1320: usize = 1210;
/// A search is over by then.
const SEARCH: Duration = Duration::from_secs(8);
const TEN_MS: Duration = Duration::from_millis(10);
/// Without frames for at most so many seconds when the path becomes narrow.
const GAP_MAX: f64 = 3.5;

/// Two sites whose access links carry packets of `mtu` bytes, at rest.
fn pair(seed: u64, behaviour: Option<Behaviour>, mtu: usize) -> Lab {
    let mut lab = Lab::new(seed, 1, &[]);
    for _ in 0..2 {
        let conditions = Conditions { mtu, ..Conditions::default() };
        let site = lab.world.site(SiteSpec { behaviour, conditions, ..SiteSpec::default() });
        lab.member(site);
    }
    if mtu > 1500 {
        let supernode = lab.world.site_of(lab.supernodes[0]);
        lab.world.worsen(supernode, |now| now.mtu = mtu);
    }
    lab.settle();
    lab
}

/// Pings of `payload` bytes from the first machine to the second.
fn stream(lab: &mut Lab, payload: usize, every: Duration, span: Duration) -> Vec<FrameId> {
    let end = lab.world.now() + span;
    let mut pings = Vec::new();
    while lab.world.now() < end {
        pings.push(lab.world.ping(lab.vms[0], lab.vms[1], payload));
        lab.world.run_for(every);
    }
    lab.run(1.0);
    pings
}

/// What the first member thinks of its way to the second.
fn mtu(lab: &mut Lab) -> (u16, MtuState) {
    let peer = lab.world.peer(lab.hosts[0], lab.hosts[1], lab.overlay).expect("a peer");
    (peer.mtu.expect("a path"), peer.mtu_state.expect("a path"))
}

/// Frames that the first member cut in two.
fn splits(lab: &mut Lab) -> u64 {
    let status = lab.world.status(lab.hosts[0]).expect("it runs");
    status.overlays[0].counters["splits"]
}

fn narrow(lab: &mut Lab, mtu: usize) {
    let site = lab.world.site_of(lab.hosts[1]);
    lab.world.worsen(site, |now| now.mtu = mtu);
}

#[test]
fn the_mtu_of_every_underlay_is_found_while_large_frames_flow() {
    for (number, (underlay, found)) in
        [(1280, 1280), (1400, 1400), (1492, 1492), (1500, 1500), (9000, 1583)].into_iter().enumerate()
    {
        let mut lab = pair(100 + number as u64, None, underlay);
        let pings = stream(&mut lab, LARGE, TEN_MS, SEARCH);
        assert_eq!(mtu(&mut lab), (found, MtuState::Found), "underlay of {underlay}\n{}", lab.tale());
        let lost = lab.lost(&pings).len();
        assert!(lost == 0 || underlay == 1280 && lab.gap(&pings) < 2.0, "{underlay}: {lost} lost");
        lab.check();
    }
}

#[test]
fn a_jumbo_underlay_carries_a_whole_frame_in_one_packet() {
    for (behaviour, kind, whole) in
        [(None, PathKind::Direct, 1583), (Some(Behaviour::symmetric()), PathKind::Relayed, 1627)]
    {
        let mut lab = pair(120, behaviour, 9000);
        stream(&mut lab, WHOLE, TEN_MS, SEARCH);
        assert_eq!(lab.world.path(lab.hosts[0], lab.hosts[1], lab.overlay), kind);
        assert_eq!(mtu(&mut lab), (whole, MtuState::Found), "{}", lab.tale());
        let before = splits(&mut lab);
        let pings = stream(&mut lab, WHOLE, TEN_MS, SEARCH);
        assert_eq!((splits(&mut lab), lab.lost(&pings).len()), (before, 0));
        lab.check();
    }
}

#[test]
fn a_relay_whose_link_is_narrow_is_measured_too() {
    let mut lab = pair(121, Some(Behaviour::symmetric()), 1500);
    let supernode = lab.world.site_of(lab.supernodes[0]);
    lab.world.worsen(supernode, |now| now.mtu = 1440);
    let pings = stream(&mut lab, LARGE, TEN_MS, SEARCH);
    assert_eq!(mtu(&mut lab), (1440, MtuState::Found), "{}", lab.tale());
    assert_eq!(lab.lost(&pings), &[] as &[f64]);
    lab.check();
}

#[test]
fn a_way_over_ipv6_is_counted_with_its_longer_headers() {
    let mut lab = Lab::new(122, 1, &[]);
    for _ in 0..2 {
        let conditions = Conditions { mtu: 1480, ..Conditions::default() };
        let behaviour = Some(Behaviour::symmetric());
        let site = lab.world.site(SiteSpec { behaviour, conditions, ipv6: true, ..SiteSpec::default() });
        let spec = lab.spec(site).member(lab.overlay).with_ipv6();
        lab.add(spec);
    }
    lab.settle();
    let pings = stream(&mut lab, LARGE, TEN_MS, SEARCH);
    assert_eq!(mtu(&mut lab), (1480, MtuState::Found), "{}", lab.tale());
    assert_eq!(lab.lost(&pings), &[] as &[f64]);
    lab.check();
}

#[test]
fn loss_does_not_end_at_a_smaller_size() {
    for seed in 0..20 {
        let mut lab = pair(130 + seed, None, 1500);
        let site = lab.world.site_of(lab.hosts[0]);
        lab.world.worsen(site, |now| now.loss = MILLION / 20);
        stream(&mut lab, LARGE, TEN_MS, SEARCH);
        for _ in 0..5 {
            stream(&mut lab, LARGE, TEN_MS * 2, SEARCH);
            let (found, _) = mtu(&mut lab);
            assert_eq!(found, 1500, "{seed}\n{}", lab.tale());
        }
        lab.check();
    }
}

#[test]
fn a_black_hole_in_mid_stream_is_survived_and_it_grows_again_when_it_is_gone() {
    for (seed, behaviour) in [(150, None), (151, Some(Behaviour::symmetric()))] {
        let mut lab = pair(seed, behaviour, 1500);
        stream(&mut lab, LARGE, TEN_MS, SEARCH);
        assert_eq!(mtu(&mut lab).0, 1500);
        // Frames that travel in one packet before: halves of others pass anyway.
        for (narrower, found, payload) in [(1320, 1320, LARGE), (1280, 1280, LARGE_AT_1320)] {
            narrow(&mut lab, narrower);
            let pings = stream(&mut lab, payload, TEN_MS, Duration::from_secs(20));
            assert!(lab.gap(&pings) <= GAP_MAX, "gap of {} s\n{}", lab.gap(&pings), lab.tale());
            assert_eq!(mtu(&mut lab), (found, MtuState::Found), "{}", lab.tale());
        }
        narrow(&mut lab, 1500);
        let pings = stream(&mut lab, LARGE, TEN_MS * 10, Duration::from_secs(620));
        assert_eq!(lab.lost(&pings), &[] as &[f64]);
        assert_eq!(mtu(&mut lab), (1500, MtuState::Found), "ten minutes later\n{}", lab.tale());
        lab.check();
    }
}

#[test]
fn a_path_that_became_narrow_in_a_pause_is_noticed_by_the_first_frames() {
    let mut lab = pair(160, None, 1500);
    stream(&mut lab, LARGE, TEN_MS, SEARCH);
    lab.run(120.0);
    narrow(&mut lab, 1300);
    let pings = stream(&mut lab, LARGE, TEN_MS, SEARCH);
    assert!(lab.gap(&pings) <= GAP_MAX, "gap of {} s\n{}", lab.gap(&pings), lab.tale());
    assert_eq!(mtu(&mut lab).0, 1300);
}

#[test]
fn a_dead_path_is_left_as_soon_as_without_large_frames() {
    let mut lab = pair(161, None, 1500);
    stream(&mut lab, LARGE, TEN_MS, SEARCH);
    let [from, to] = [0, 1].map(|host| lab.world.site_of(lab.hosts[host]));
    lab.world.cut(from, to);
    lab.world.cut(to, from);
    let pings = stream(&mut lab, LARGE, TEN_MS, Duration::from_secs(20));
    assert!(lab.gap(&pings) <= 2.3, "gap of {} s\n{}", lab.gap(&pings), lab.tale());
    let relayed = lab.world.path(lab.hosts[0], lab.hosts[1], lab.overlay);
    assert_eq!((relayed, mtu(&mut lab)), (PathKind::Relayed, (1500, MtuState::Found)), "{}", lab.tale());
    lab.check();
}

#[test]
fn a_change_of_the_path_begins_a_new_search() {
    let mut lab = pair(162, None, 1492);
    stream(&mut lab, LARGE, TEN_MS, SEARCH);
    assert_eq!(mtu(&mut lab).0, 1492);
    let site = lab.site(Some(Behaviour::port_restricted()));
    lab.world.worsen(site, |now| now.mtu = 1452);
    lab.world.migrate(lab.hosts[1], site);
    lab.run(10.0);
    lab.settle();
    let pings = stream(&mut lab, LARGE, TEN_MS, SEARCH);
    assert_eq!(mtu(&mut lab), (1452, MtuState::Found), "{}", lab.tale());
    assert_eq!(lab.lost(&pings), &[] as &[f64]);
}

#[test]
fn small_frames_floods_and_idle_pairs_cost_no_probe() {
    let mut lab = Lab::new(163, 1, &[None; 12]);
    lab.settle();
    for round in 0..50 {
        lab.world.broadcast(lab.vms[round % 12]);
        lab.world.ping(lab.vms[round % 12], lab.vms[(round + 1) % 12], 500);
        lab.run(0.1);
    }
    for host in lab.hosts.clone() {
        let status = lab.world.status(host).expect("it runs");
        let assumed = |peer: &longwire::control::report::PeerStatus| peer.mtu_state == Some(MtuState::Assumed);
        assert!(status.overlays[0].peers.iter().all(assumed));
    }
    stream(&mut lab, LARGE, TEN_MS, SEARCH);
    assert_eq!(mtu(&mut lab).0, 1500);
    lab.run(60.0);
    assert_eq!(lab.world.chatter(Duration::from_secs(800)), &[] as &[String]);
    lab.check();
}
