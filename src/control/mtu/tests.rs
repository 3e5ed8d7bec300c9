use super::*;
use crate::datapath::{LegId, MTU_ASSUMED, MTU_FLOOR};
use crate::wire::relay::RelayId;

const RTT: Duration = Duration::from_millis(40);
/// A whole frame of 1500 bytes over IPv4.
const WHOLE: u16 = 1583;

/// A path that carries packets up to a size, and the traffic on it.
struct Road {
    mtu: Mtu,
    now: Time,
    carries: u16,
    /// Whether the peer knows probes.
    answers: bool,
    /// One probe in so many is lost; 0: none.
    loses: u64,
    sent: Vec<u16>,
    token: u64,
}

impl Road {
    fn new(carries: u16) -> Self {
        let mut mtu = Mtu::new(1500);
        mtu.begin(Some(Path::Direct("192.0.2.1:7777".parse().expect("an address"))));
        Self { mtu, now: Time::START, carries, answers: true, loses: 0, sent: Vec::new(), token: 0 }
    }

    /// Large frames flow for `span`.
    fn busy(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            assert!(self.mtu.on_large(self.now, Some(self.now)));
            self.mtu.on_sent(LARGE_PLAIN + 100);
            self.step(end);
        }
    }

    /// One step and what follows at once; time goes on to the next, at most to `end`.
    fn step(&mut self, end: Time) -> Step {
        self.token += 1;
        let step = self.mtu.on_timer(self.now, RTT, self.token);
        let wait = match step {
            Step::Probe { token, size, beside, wait } => {
                self.sent.push(size);
                let lost = self.loses > 0 && (self.sent.len() as u64).is_multiple_of(self.loses);
                if beside && self.answers {
                    assert!(!self.mtu.on_answer(self.now + RTT, token, 67));
                }
                let passed = self.answers && size <= self.carries && !lost;
                if passed {
                    assert!(self.mtu.on_answer(self.now + RTT, token, size - 28));
                    RTT
                } else {
                    wait
                }
            }
            Step::Wait(wait) => wait,
            Step::Rest => Duration::from_secs(1),
        };
        self.now = (self.now + wait).min(end);
        step
    }

    fn found(&self) -> (u16, MtuState) {
        (self.mtu.in_use(), self.mtu.state())
    }
}

const SEARCH: Duration = Duration::from_secs(6);

#[test]
fn every_size_is_found_closely_and_never_too_large() {
    for carries in MTU_FLOOR..=1700 {
        let mut road = Road::new(carries);
        road.busy(SEARCH);
        let (found, state) = road.found();
        assert_eq!(state, MtuState::Found, "{carries}: {found}");
        let close = if carries > ORDINARY { found == WHOLE.min(carries) || found == ORDINARY } else { true };
        assert!(found <= carries && (carries - found <= CLOSE || carries > ORDINARY) && close, "{carries}: {found}");
        assert!(!TYPICAL.contains(&carries) || found == carries, "{carries}: {found}");
    }
}

#[test]
fn what_a_whole_frame_needs_depends_on_the_way() {
    let addr = |text: &str| Path::Direct(text.parse().expect("an address"));
    let ways = [addr("192.0.2.1:7"), addr("[2001:db8::1]:7"), Path::Relayed(LegId(1), RelayId(1))];
    for (way, whole) in ways.into_iter().zip([WHOLE, 1603, 1627]) {
        let mut road = Road::new(9000);
        road.mtu.begin(Some(way));
        road.busy(SEARCH);
        assert_eq!(road.found(), (whole, MtuState::Found));
    }
}

#[test]
fn nothing_is_sent_without_large_frames() {
    let mut road = Road::new(1500);
    assert!(!road.mtu.on_large(road.now, None));
    assert_eq!(road.step(Time::NEVER), Step::Rest);
    assert_eq!(road.found(), (MTU_ASSUMED, MtuState::Assumed));
    road.busy(SEARCH);
    road.now += FLOW;
    assert_eq!(road.step(Time::NEVER), Step::Rest);
    assert!(!road.mtu.on_large(road.now, None));
    assert_eq!(road.found(), (1500, MtuState::Found));
}

#[test]
fn a_lost_probe_in_five_does_not_end_at_a_smaller_size() {
    for carries in [1500, 1492, MTU_ASSUMED, 9000] {
        let mut road = Road::new(carries);
        road.loses = 5;
        road.busy(SEARCH);
        assert_eq!(road.found(), (carries.min(WHOLE), MtuState::Found));
    }
}

#[test]
fn a_black_hole_is_left_within_three_seconds_and_the_search_begins_anew() {
    for (before, after) in [(1500, MTU_ASSUMED), (1500, 1300), (9000, 1492), (MTU_ASSUMED, MTU_FLOOR)] {
        let mut road = Road::new(before);
        road.busy(SEARCH);
        road.carries = after;
        road.busy(Duration::from_secs(3));
        assert!(road.mtu.in_use() <= after, "{before} to {after}: {:?}", road.found());
        road.busy(SEARCH);
        let (found, state) = road.found();
        assert!(found <= after && after - found <= CLOSE, "{before} to {after}: {found}");
        assert_eq!(state, MtuState::Found);
        assert!(road.mtu.why(road.now).contains("vanished"), "{}", road.mtu.why(road.now));
    }
}

#[test]
fn it_grows_again_when_the_raise_timer_has_run_out() {
    let mut road = Road::new(1300);
    road.busy(SEARCH);
    road.carries = 1500;
    road.busy(RAISE_AFTER - SEARCH);
    assert_eq!(road.found(), (1300, MtuState::Found));
    road.busy(SEARCH * 2);
    assert_eq!(road.found(), (1500, MtuState::Found));
}

#[test]
fn an_older_peer_that_knows_no_probes_keeps_what_is_assumed() {
    let mut road = Road::new(1500);
    road.answers = false;
    road.busy(RAISE_AFTER);
    assert_eq!(road.found(), (MTU_ASSUMED, MtuState::Assumed));
    assert_eq!(road.sent.len(), 6, "it is asked {TRIES_DEAF} times in ten minutes");
}

#[test]
fn a_path_that_carries_nothing_for_a_while_is_no_black_hole() {
    let mut road = Road::new(1500);
    road.busy(SEARCH);
    road.answers = false;
    road.busy(Duration::from_secs(20));
    assert_eq!(road.found().0, 1500);
    road.answers = true;
    road.busy(Duration::from_secs(20));
    assert_eq!(road.found(), (1500, MtuState::Found));
}

#[test]
fn below_the_floor_it_says_so_and_asks_on() {
    let mut road = Road::new(1000);
    road.busy(Duration::from_secs(5));
    assert_eq!(road.found(), (MTU_FLOOR, MtuState::BlackHole));
    road.carries = 1500;
    road.busy(Duration::from_secs(20));
    assert_eq!(road.found(), (1500, MtuState::Found));
}

#[test]
fn an_answer_to_something_else_changes_nothing() {
    let mut road = Road::new(1500);
    assert!(!road.mtu.on_answer(road.now, 1, 1472));
    road.busy(SEARCH);
    let found = road.found();
    assert!(!road.mtu.on_answer(road.now, 1, 9000));
    assert_eq!(road.found(), found);
}

#[test]
fn frames_that_are_told_to_have_come_confirm_as_a_probe_does() {
    let mut road = Road::new(1500);
    road.busy(SEARCH);
    road.mtu.on_received(road.now, LARGE_PLAIN + 100);
    road.sent.clear();
    for _ in 0..100 {
        road.busy(Duration::from_secs(1));
        road.mtu.on_received(road.now, LARGE_PLAIN + 100);
    }
    assert!(road.sent.is_empty(), "{:?}", road.sent);
    // Longer ones were sent than came.
    road.mtu.on_sent(LARGE_PLAIN + 200);
    road.mtu.on_received(road.now, LARGE_PLAIN + 100);
    road.busy(CONFIRM_EVERY * 2);
    assert_eq!(road.sent, [1500]);
}
