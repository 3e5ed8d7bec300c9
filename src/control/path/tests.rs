use super::*;

const LEG: LegId = LegId(1);
const RELAY: Path = Path::Relayed(LEG, RelayId(5));

fn at(ms: u64) -> Time {
    Time::START + Duration::from_millis(ms)
}

fn addr(last: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, last], 7777))
}

fn relayed() -> Paths {
    let mut paths = Paths::default();
    paths.add_relay(LEG, RelayId(5));
    assert_eq!(paths.choose(at(0), "").and_then(|change| change.path), Some(RELAY));
    paths
}

fn direct(now: Time) -> Paths {
    let mut paths = relayed();
    paths.candidates.add(CandidateKind::Reflexive, addr(1));
    paths.on_probe(now, 1, Path::Direct(addr(1)));
    assert_eq!(paths.on_answer(now + Duration::from_millis(10), 1, Path::Direct(addr(1))), Some(Path::Direct(addr(1))));
    assert_eq!(paths.choose(now, "").and_then(|change| change.path), Some(Path::Direct(addr(1))));
    paths
}

#[test]
fn an_unproven_candidate_is_never_used() {
    let mut paths = relayed();
    paths.candidates.add(CandidateKind::Host, addr(1));
    paths.on_probe(at(1), 1, Path::Direct(addr(1)));
    assert_eq!(paths.choose(at(2), ""), None);
    assert_eq!(paths.on_answer(at(3), 99, Path::Direct(addr(1))), None);
    assert_eq!(paths.choose(at(3), ""), None);
}

#[test]
fn an_answer_from_elsewhere_proves_nothing() {
    let mut paths = relayed();
    paths.candidates.add(CandidateKind::Reflexive, addr(1));
    paths.on_probe(at(0), 1, Path::Direct(addr(1)));
    assert_eq!(paths.on_answer(at(10), 1, Path::Direct(addr(2))), None);
    assert_eq!(paths.choose(at(10), ""), None);
}

#[test]
fn a_silent_path_is_dead_within_a_second_and_a_quarter() {
    let mut paths = direct(at(0));
    let (mut now, sending_since) = (at(1000), Some(at(1000)));
    let mut probes = 0;
    loop {
        match paths.health(now, sending_since, true) {
            Health::Good(wait) => now += wait,
            Health::Probe(wait) => {
                probes += 1;
                now += wait;
            }
            Health::Dead => break,
        }
    }
    assert_eq!(probes, 3);
    assert_eq!(now.since(at(1000)), Duration::from_millis(1250));
    assert_eq!(paths.on_dead(now).and_then(|change| change.path), Some(RELAY));
    assert_eq!(paths.choose(now, ""), None, "the dead path does not come back by itself");
}

#[test]
fn an_answer_clears_suspicion() {
    let mut paths = direct(at(0));
    assert!(matches!(paths.health(at(2000), Some(at(1000)), true), Health::Probe(_)));
    paths.on_probe(at(2000), 7, Path::Direct(addr(1)));
    paths.on_answer(at(2050), 7, Path::Direct(addr(1)));
    assert!(matches!(paths.health(at(2250), None, true), Health::Good(_)));
}

#[test]
fn a_one_way_path_is_found_by_its_unanswered_probe() {
    let mut paths = direct(at(0));
    paths.on_probe(at(1000), 7, Path::Direct(addr(1)));
    assert!(matches!(paths.health(at(1600), None, true), Health::Probe(_)), "frames still come in, answers do not");
}

#[test]
fn patience_grows_with_the_round_trip() {
    let mut paths = relayed();
    paths.candidates.add(CandidateKind::Reflexive, addr(1));
    paths.on_probe(at(0), 1, Path::Direct(addr(1)));
    paths.on_answer(at(600), 1, Path::Direct(addr(1)));
    paths.choose(at(600), "");
    assert!(matches!(paths.health(at(2300), Some(at(600)), true), Health::Good(_)), "600 ms away: 1.8 s of patience");
}

#[test]
fn the_last_round_trip_of_a_relayed_path_is_no_average() {
    let mut paths = relayed();
    for (token, ms) in [(1, 10), (2, 10), (3, 90)] {
        paths.on_probe(at(1000 * token), token, RELAY);
        paths.on_answer(at(1000 * token + ms), token, RELAY);
    }
    assert_eq!(paths.last_rtt(), Some(Duration::from_millis(90)));
    assert_eq!(paths.current_rtt(), Some(Duration::from_millis(30)));
}

#[test]
fn equal_paths_do_not_flap() {
    let mut paths = direct(at(0));
    paths.candidates.add(CandidateKind::Reflexive, addr(2));
    for step in 0..100_u64 {
        let now = at(1000 + step * 100);
        let token = 1000 + step;
        paths.on_probe(now, token, Path::Direct(addr(2)));
        paths.on_answer(now + Duration::from_millis(8), token, Path::Direct(addr(2)));
        assert_eq!(paths.choose(now, ""), None, "8 ms against 10 ms is not worth a change");
    }
}

#[test]
fn the_lan_is_better_than_the_way_around() {
    let mut paths = direct(at(0));
    paths.candidates.add(CandidateKind::Host, addr(3));
    paths.on_probe(at(50), 9, Path::Direct(addr(3)));
    paths.on_answer(at(61), 9, Path::Direct(addr(3)));
    assert_eq!(paths.choose(at(61), "").and_then(|change| change.path), Some(Path::Direct(addr(3))));
}

#[test]
fn a_second_supernode_takes_over() {
    let mut paths = relayed();
    paths.add_relay(LegId(2), RelayId(8));
    let change = paths.on_dead(at(5)).expect("there is another way");
    assert_eq!(change.path, Some(Path::Relayed(LegId(2), RelayId(8))));
    paths.drop_relay(LegId(2));
    assert_eq!(paths.choose(at(6), "").and_then(|change| change.path), Some(RELAY));
}
