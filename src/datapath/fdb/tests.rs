use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const A: PortId = PortId(1);
const B: PortId = PortId(2);
const VM: Mac = Mac([0x02, 0, 0x5e, 0x10, 0, 0x01]);

#[test]
fn the_rules_of_learning() {
    use Learned::{Group, Held, Moved, New, Refreshed};
    let group = Mac([0x01, 0x00, 0x5e, 0, 0, 1]);
    let (just, quiet) = (QUIET - Duration::from_nanos(1), QUIET);
    let (late, aged) = (AGEING - Duration::from_nanos(1), AGEING);
    // The owner, the silence since it was heard, who is heard now, announced -> what, and who has it.
    let mut table = Vec::new();
    for announced in [false, true] {
        for port in [TAP, A] {
            table.push((None, just, VM, port, announced, New, Some(port)));
            table.push((None, just, Mac([0; 6]), port, announced, Group, None));
            table.push((None, just, Mac([0xff; 6]), port, announced, Group, None));
            table.push((None, just, group, port, announced, Group, None));
            table.push((Some(port), just, VM, port, announced, Refreshed, Some(port)));
            table.push((Some(port), late, VM, port, announced, Refreshed, Some(port)));
            table.push((Some(port), aged, VM, port, announced, New, Some(port)));
        }
    }
    for (from, to) in [(TAP, A), (A, TAP), (A, B)] {
        table.push((Some(from), Duration::ZERO, VM, to, false, Held, Some(from)));
        table.push((Some(from), just, VM, to, false, Held, Some(from)));
        table.push((Some(from), quiet, VM, to, false, Moved(from), Some(to)));
        table.push((Some(from), late, VM, to, false, Moved(from), Some(to)));
        table.push((Some(from), aged, VM, to, false, New, Some(to)));
        table.push((Some(from), Duration::ZERO, VM, to, true, Moved(from), Some(to)));
        table.push((Some(from), just, VM, to, true, Moved(from), Some(to)));
        table.push((Some(from), aged, VM, to, true, New, Some(to)));
    }
    for (owner, silence, mac, port, announced, expected, then) in table {
        let mut fdb = fdb();
        let start = Time::from_nanos(77);
        if let Some(owner) = owner {
            assert_eq!(fdb.learn(start, 0, mac, owner, false), New);
        }
        let now = start + silence;
        let what = format!("{owner:?} silent {silence:?}, {mac} at {port:?}, announced {announced}");
        assert_eq!(fdb.learn(now, 0, mac, port, announced), expected, "{what}");
        assert_eq!(fdb.lookup(now, 0, mac), then, "{what}");
        sound(&fdb);
    }
}

#[test]
fn each_frame_of_the_owner_keeps_the_address_for_five_more_seconds() {
    let mut fdb = fdb();
    for second in [0, 4, 8] {
        fdb.learn(at(second), 0, VM, TAP, false);
        assert_eq!(fdb.learn(at(second + 4), 0, VM, A, false), Learned::Held);
    }
    assert_eq!(fdb.learn(at(13), 0, VM, A, false), Learned::Moved(TAP));
    assert_eq!(fdb.learn(at(13), 0, VM, TAP, false), Learned::Held, "the same rule on the way back");
}

#[test]
fn an_entry_is_found_until_it_is_300_seconds_old() {
    let mut fdb = fdb();
    fdb.learn(at(0), 0, VM, A, false);
    assert_eq!(fdb.lookup(at(299), 0, VM), Some(A));
    assert_eq!(fdb.lookup(at(300), 0, VM), None);
    assert_eq!((fdb.len(at(299)), fdb.len(at(300))), (1, 0));
    assert_eq!(fdb.entries(at(300)).count(), 0);
}

#[test]
fn the_same_mac_in_two_vlans_is_two_entries() {
    let mut fdb = fdb();
    assert_eq!(fdb.learn(at(0), 10, VM, A, false), Learned::New);
    assert_eq!(fdb.learn(at(0), 20, VM, B, false), Learned::New);
    assert_eq!(fdb.lookup(at(0), 10, VM), Some(A));
    assert_eq!(fdb.lookup(at(0), 20, VM), Some(B));
    assert_eq!(fdb.lookup(at(0), 0, VM), None);
}

#[test]
fn a_flushed_port_is_forgotten_and_the_others_are_not() {
    let mut fdb = fdb();
    for n in 0..100 {
        fdb.learn(at(0), 0, mac(n), if n % 2 == 0 { A } else { B }, false);
    }
    fdb.flush_port(A);
    fdb.flush_port(PortId(99));
    assert_eq!(fdb.len(at(0)), 50);
    assert!((0..100).all(|n| fdb.lookup(at(0), 0, mac(n)) == (n % 2 == 1).then_some(B)));
    sound(&fdb);
}

#[test]
fn entries_are_listed_by_vlan_and_address_whatever_the_seed() {
    let list = |seed| {
        let mut fdb = Fdb::new(seed);
        for n in [5, 1, 4, 2, 3] {
            fdb.learn(at(n), if n < 3 { 20 } else { 0 }, mac(n), A, false);
        }
        fdb.entries(at(10)).collect::<Vec<_>>()
    };
    let entries = list([1, 2, 3, 4]);
    assert_eq!(entries, list([5, 6, 7, 8]));
    let seen: Vec<_> = entries.iter().map(|entry| (entry.vlan, entry.mac, entry.age.as_secs())).collect();
    assert_eq!(seen, [(0, mac(3), 7), (0, mac(4), 6), (0, mac(5), 5), (20, mac(1), 9), (20, mac(2), 8)]);
}

#[test]
fn a_flood_of_addresses_ends_at_the_ports_limit() {
    for (port, limit) in [(A, PER_PORT), (TAP, PER_TAP)] {
        let mut fdb = fdb();
        fdb.learn(at(0), 0, VM, B, false);
        let new = fill(&mut fdb, at(0), port, 2 * limit);
        assert_eq!(new, limit);
        assert_eq!(fdb.learn(at(0), 0, mac(u64::MAX >> 24), port, false), Learned::Full);
        assert_eq!(fdb.lookup(at(0), 0, VM), Some(B), "others stay");
        assert_eq!(fdb.learn(at(0), 0, unique(port, 0), port, false), Learned::Refreshed, "and so do its own");
        assert_eq!(fdb.learn(at(0), 0, mac(1), PortId(7), false), Learned::New, "others still learn");
        sound(&fdb);
    }
}

#[test]
fn all_peers_together_leave_the_taps_room_alone() {
    let mut fdb = fdb();
    let peers = u32::try_from((CAPACITY - PER_TAP) / PER_PORT).expect("small");
    for port in 1..=peers {
        assert_eq!(fill(&mut fdb, at(0), PortId(port), PER_PORT), PER_PORT);
    }
    assert_eq!(fdb.learn(at(0), 0, VM, PortId(peers + 1), false), Learned::Full);
    assert_eq!(fill(&mut fdb, at(0), TAP, PER_TAP), PER_TAP);
    assert_eq!(fdb.len(at(0)), CAPACITY);
    assert_eq!(fdb.learn(at(0), 0, VM, TAP, false), Learned::Full);
    // What one peer leaves behind is there for any other.
    fdb.flush_port(PortId(3));
    assert_eq!(fdb.learn(at(0), 0, VM, PortId(peers + 1), false), Learned::New);
    sound(&fdb);
}

#[test]
fn room_of_what_is_too_old_is_taken_back_at_once() {
    let mut fdb = fdb();
    let last = u32::try_from((CAPACITY - PER_TAP) / PER_PORT).expect("small");
    for port in 1..=last {
        fill(&mut fdb, at(u64::from(port)), PortId(port), PER_PORT);
    }
    // Port 1 is full of its own: only its own can make room, and they are the oldest.
    assert_eq!(fdb.learn(at(300), 0, VM, A, false), Learned::Full);
    assert_eq!(fdb.learn(at(301), 0, VM, A, false), Learned::New);
    // Another port takes room of whoever is too old.
    assert_eq!(fdb.learn(at(301), 0, VM, PortId(last + 1), true), Learned::Moved(A));
    assert_eq!(fill(&mut fdb, at(302), PortId(last + 1), 1_000), 1_000);
    assert!(fdb.entries.len() <= CAPACITY - PER_TAP);
    sound(&fdb);
}

#[test]
fn addresses_that_are_still_heard_are_put_off_and_not_lost() {
    let mut fdb = fdb();
    fill(&mut fdb, at(0), A, PER_PORT);
    fill(&mut fdb, at(200), A, PER_PORT - 1); // heard again, all but the last
    let tries = (0..PER_PORT).take_while(|_| fdb.learn(at(300), 0, VM, A, false) == Learned::Full).count();
    assert!(tries <= PER_PORT / due::STEPS, "{tries} frames to find the one that is too old");
    assert_eq!(fdb.lookup(at(300), 0, VM), Some(A));
    assert_eq!(fdb.len(at(300)), PER_PORT);
    sound(&fdb);
}

#[test]
fn a_machine_that_moves_to_a_full_port_is_flooded_to_and_not_sent_to_its_old_place() {
    let mut fdb = fdb();
    fill(&mut fdb, at(0), A, PER_PORT);
    fdb.learn(at(0), 0, VM, B, false);
    assert_eq!(fdb.learn(at(1), 0, VM, A, false), Learned::Held);
    assert_eq!(fdb.learn(at(1), 0, VM, A, true), Learned::Full);
    assert_eq!(fdb.lookup(at(1), 0, VM), None);
    sound(&fdb);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_table_does_what_a_plain_map_does(
        steps in proptest::collection::vec((0u64..8, 0u32..4, any::<bool>(), 0u64..40, 0u8..20), 0..300),
    ) {
        let mut fdb = fdb();
        let mut model: BTreeMap<u64, (PortId, Time)> = BTreeMap::new();
        let mut now = at(0);
        for (n, port, announced, wait, flush) in steps {
            now += Duration::from_secs(wait);
            let port = PortId(port);
            if flush == 0 {
                fdb.flush_port(port);
                model.retain(|_, (owner, _)| *owner != port);
            }
            model.retain(|_, (_, heard)| now.since(*heard) < AGEING);
            let expected = match model.get(&n) {
                None => Learned::New,
                Some((owner, _)) if *owner == port => Learned::Refreshed,
                Some((_, heard)) if !announced && now.since(*heard) < QUIET => Learned::Held,
                Some((owner, _)) => Learned::Moved(*owner),
            };
            if expected != Learned::Held {
                model.insert(n, (port, now));
            }
            prop_assert_eq!(fdb.learn(now, 0, mac(n), port, announced), expected);
            prop_assert_eq!(fdb.len(now), model.len());
            for n in 0..8 {
                prop_assert_eq!(fdb.lookup(now, 0, mac(n)), model.get(&n).map(|(port, _)| *port));
            }
            sound(&fdb);
        }
    }
}

fn fdb() -> Fdb {
    Fdb::new([1, 2, 3, 4])
}

fn at(seconds: u64) -> Time {
    Time::START + Duration::from_secs(seconds)
}

/// Station `n`, of no port in particular.
fn mac(n: u64) -> Mac {
    let [.., b, c, d, e, f] = n.to_be_bytes();
    Mac([0x02, b, c, d, e, f])
}

/// Station `n` of the many of `port`.
fn unique(port: PortId, n: usize) -> Mac {
    mac((u64::from(port.0) + 1) << 24 | n as u64)
}

/// Frames from `count` stations of `port`; how many were new.
fn fill(fdb: &mut Fdb, now: Time, port: PortId, count: usize) -> usize {
    (0..count).filter(|n| fdb.learn(now, 0, unique(port, *n), port, false) == Learned::New).count()
}

/// Every entry stands in each order it belongs to, exactly once and in time.
fn sound(fdb: &Fdb) {
    let mut orders = Due::default();
    for (key, slot) in &fdb.entries {
        assert!(slot.due <= slot.heard + AGEING);
        orders.insert(slot.due, slot.port, *key);
    }
    assert!(orders == fdb.due);
}
