use super::*;
use crate::sim::chance::Chance;

const OUTSIDE: [u8; 4] = [5, 0, 0, 1];

fn nat(behaviour: Behaviour) -> Nat {
    Nat::new(behaviour, IpAddr::from(OUTSIDE), Chance::new(1).stream("nat", 0))
}

fn inside(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 168, 1, host], 7777))
}

fn remote(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([5, 0, 9, host], port))
}

fn at(seconds: u64) -> Time {
    Time::START + Duration::from_secs(seconds)
}

/// The outside sockets for one inside socket towards two ports of one address and a port of another.
fn outsides(nat: &mut Nat) -> [SocketAddr; 3] {
    [remote(1, 1), remote(1, 2), remote(2, 1)].map(|to| nat.outbound(Time::START, inside(2), to))
}

#[test]
fn an_endpoint_independent_mapping_is_one_for_all() {
    let [a, b, c] = outsides(&mut nat(Behaviour::port_restricted()));
    assert!(a == b && b == c);
    assert_eq!(a, SocketAddr::from((OUTSIDE, 7777)), "the port is kept");
}

#[test]
fn an_address_dependent_mapping_is_one_per_address() {
    let [a, b, c] = outsides(&mut nat(Behaviour::nat(Depends::Address, Depends::Port)));
    assert!(a == b && b != c);
}

#[test]
fn an_address_and_port_dependent_mapping_is_one_per_socket() {
    let [a, b, c] = outsides(&mut nat(Behaviour::symmetric()));
    assert!(a != b && b != c && a != c);
}

#[test]
fn filters_let_in_what_they_depend_on() {
    let passes = |filtering| {
        let mut nat = nat(Behaviour::nat(Depends::Nothing, filtering));
        let outside = nat.outbound(Time::START, inside(2), remote(1, 1));
        [remote(1, 1), remote(1, 2), remote(2, 1)].map(|from| nat.inbound(at(1), from, outside).is_some())
    };
    assert_eq!(passes(Depends::Nothing), [true, true, true]);
    assert_eq!(passes(Depends::Address), [true, true, false]);
    assert_eq!(passes(Depends::Port), [true, false, false]);
}

#[test]
fn what_has_no_mapping_is_refused_by_every_filter() {
    for filtering in [Depends::Nothing, Depends::Address, Depends::Port] {
        let mut nat = nat(Behaviour::nat(Depends::Nothing, filtering));
        assert_eq!(nat.inbound(Time::START, remote(1, 1), SocketAddr::from((OUTSIDE, 7777))), None);
    }
}

#[test]
fn an_unanswered_flow_lives_30_s_and_an_answered_one_120_s() {
    let mut nat = nat(Behaviour::port_restricted());
    let outside = nat.outbound(at(0), inside(2), remote(1, 1));
    assert!(nat.inbound(at(29), remote(1, 1), outside).is_some(), "and is answered now");
    assert!(nat.inbound(at(148), remote(1, 1), outside).is_some());
    assert_eq!(nat.inbound(at(268), remote(1, 1), outside), None);

    let outside = nat.outbound(at(300), inside(2), remote(1, 1));
    assert_eq!(nat.inbound(at(330), remote(1, 1), outside), None);
}

#[test]
fn an_expired_mapping_does_not_come_back_with_its_filter() {
    let mut nat = nat(Behaviour::port_restricted());
    let outside = nat.outbound(at(0), inside(2), remote(1, 1));
    assert_eq!(nat.outbound(at(31), inside(2), remote(2, 1)), outside, "the same port again");
    assert_eq!(nat.inbound(at(32), remote(1, 1), outside), None);
}

#[test]
fn a_mapping_lives_as_long_as_one_of_its_flows() {
    let mut nat = nat(Behaviour::port_restricted().random_ports());
    let outside = nat.outbound(at(0), inside(2), remote(1, 1));
    nat.inbound(at(1), remote(1, 1), outside);
    nat.outbound(at(1), inside(2), remote(2, 1));
    assert_eq!(nat.inbound(at(40), remote(2, 1), outside), None, "this one is over");
    assert_eq!(nat.outbound(at(41), inside(2), remote(2, 1)), outside, "the mapping is not");
}

#[test]
fn a_port_in_use_is_not_given_again() {
    let mut nat = nat(Behaviour::port_restricted());
    let first = nat.outbound(at(0), inside(2), remote(1, 1));
    let second = nat.outbound(at(0), inside(3), remote(1, 1));
    assert_eq!(first.port(), 7777);
    assert_ne!(second.port(), 7777);
    assert_eq!(nat.inbound(at(1), remote(1, 1), first), Some(inside(2)));
    assert_eq!(nat.inbound(at(1), remote(1, 1), second), Some(inside(3)));
}

#[test]
fn random_ports_are_not_the_inside_ones() {
    let mut nat = nat(Behaviour::port_restricted().random_ports());
    let ports: Vec<_> = (2..6).map(|host| nat.outbound(at(0), inside(host), remote(1, 1)).port()).collect();
    assert!(ports.iter().all(|port| *port != 7777 && *port >= 1024));
}

#[test]
fn a_reboot_forgets_all_and_may_come_back_elsewhere() {
    let mut nat = nat(Behaviour::port_restricted());
    let outside = nat.outbound(at(0), inside(2), remote(1, 1));
    nat.flush(Some(IpAddr::from([5, 0, 0, 99])));
    assert_eq!(nat.inbound(at(0), remote(1, 1), outside), None);
    assert_eq!(nat.outbound(at(0), inside(2), remote(1, 1)), SocketAddr::from(([5, 0, 0, 99], 7777)));
}

#[test]
fn a_firewall_keeps_addresses_and_lets_answers_in() {
    let mut nat = nat(Behaviour::firewall());
    let host = SocketAddr::from(([5, 0, 0, 10], 7777));
    assert_eq!(nat.inbound(at(0), remote(1, 1), host), None);
    assert_eq!(nat.outbound(at(0), host, remote(1, 1)), host);
    assert_eq!(nat.inbound(at(1), remote(1, 1), host), Some(host));
    assert_eq!(nat.inbound(at(1), remote(1, 2), host), None);
}

#[test]
fn a_stray_packet_at_a_bare_masquerade_takes_the_hosts_port_for_30_s() {
    let mut nat = nat(Behaviour::bare_masquerade());
    let outside = nat.outbound(at(0), inside(2), remote(1, 1));
    nat.inbound(at(1), remote(1, 1), outside);
    assert_eq!(nat.inbound(at(1), remote(2, 1), outside), None, "the stray");
    let other = nat.outbound(at(2), inside(2), remote(2, 1));
    assert_ne!(other, outside);
    assert_eq!(nat.outbound(at(3), inside(2), remote(2, 1)), other, "and stays so");
    assert_eq!(nat.inbound(at(4), remote(2, 1), other), Some(inside(2)));
    assert_eq!(nat.outbound(at(4), inside(2), remote(3, 1)), outside, "others are as before");
}

#[test]
fn a_bare_masquerade_that_was_opened_first_keeps_the_port() {
    let mut nat = nat(Behaviour::bare_masquerade());
    let outside = nat.outbound(at(0), inside(2), remote(2, 1));
    assert_eq!(nat.inbound(at(1), remote(2, 1), outside), Some(inside(2)));
}

#[test]
fn the_stray_is_forgotten_after_30_s_of_silence() {
    let mut nat = nat(Behaviour::bare_masquerade());
    let outside = nat.outbound(at(0), inside(2), remote(1, 1));
    nat.inbound(at(0), remote(1, 1), outside);
    nat.inbound(at(1), remote(2, 1), outside);
    assert_eq!(nat.outbound(at(32), inside(2), remote(2, 1)), outside);
}
