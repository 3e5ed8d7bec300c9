use std::time::Duration;

use super::*;
use crate::datapath::frame::Mac;
use crate::datapath::switch::SwitchSettings;

const KEEPER: PortId = PortId(2);
const THIEF: PortId = PortId(3);
const ADDRESS: Address = Address { vlan: 0, mac: Mac([2, 0, 0, 0, 0, 1]) };

/// A switch that knows the others and where the machine is.
fn switch(now: Time, peers: &[PortId], at: PortId) -> Switch {
    let mut switch = Switch::new([1, 2, 3, 4], SwitchSettings::default());
    switch.ports = peers.iter().copied().collect();
    switch.fdb.assign(now, ADDRESS, at, 0);
    switch
}

/// The sequences of what it claims since it was asked last.
fn claims(switch: &mut Switch) -> Vec<u32> {
    let claimed = |(_, news)| if let News::Claimed { sequence, .. } = news { Some(sequence) } else { None };
    std::mem::take(&mut switch.news).into_iter().filter_map(claimed).collect()
}

fn owner(switch: &Switch, now: Time) -> Owner {
    switch.fdb.owner(now, ADDRESS).expect("it is known")
}

#[test]
fn whoever_keeps_a_frozen_address_says_so_to_those_who_have_counted_less() {
    let at = |second| Time::START + Duration::from_secs(second);
    let mut keeper = switch(at(0), &[PortId(1), THIEF], TAP);
    let mut bystander = switch(at(0), &[KEEPER, THIEF], KEEPER);
    for round in 1..=3 {
        let now = at(round);
        let stolen = owner(&keeper, now).sequence + 1;
        keeper.on_claim(now, THIEF, (ADDRESS, stolen), ClaimReason::Announced);
        if !owner(&keeper, now).frozen {
            keeper.on_answer(now, ADDRESS);
        }
        let claimed = claims(&mut keeper);
        assert_eq!(claimed, [stolen + 1]);
        // By another way, and earlier; but for the last time, when nobody would claim anything again.
        let [first, second] =
            if round < 3 { [(KEEPER, stolen + 1), (THIEF, stolen)] } else { [(THIEF, stolen), (KEEPER, stolen + 1)] };
        for (by, sequence) in [first, second] {
            bystander.on_claim(now, by, (ADDRESS, sequence), ClaimReason::Announced);
        }
        assert_eq!((owner(&bystander, now).port, owner(&bystander, now).frozen), (KEEPER, false));
    }
    assert_eq!((owner(&keeper, at(3)).port, owner(&keeper, at(3)).frozen), (TAP, true));
}

#[test]
fn frames_for_an_address_that_was_frozen_elsewhere_are_sent_on() {
    let now = Time::START;
    let mut thief = switch(now, &[PortId(1), KEEPER], KEEPER);
    for sequence in 1..=3 {
        assert!(thief.claim_for_user(now, ADDRESS), "claim {sequence}");
        if owner(&thief, now).frozen {
            break;
        }
        thief.on_claim(now, KEEPER, (ADDRESS, owner(&thief, now).sequence + 1), ClaimReason::Answered);
    }
    assert_eq!((owner(&thief, now).port, owner(&thief, now).frozen), (KEEPER, true));
    assert!(thief.moves.forwards(now, ADDRESS));
}

#[test]
fn who_first_hears_of_a_machine_by_a_false_claim_freezes_it_where_it_answers() {
    let at = |second| Time::START + Duration::from_secs(second);
    let mut bystander = Switch::new([1, 2, 3, 4], SwitchSettings::default());
    bystander.ports = [KEEPER, THIEF].into();
    // The thief's daemon had not heard of it either: what its segment announces is its own.
    let mut thief = Switch::new([1, 2, 3, 4], SwitchSettings::default());
    thief.ports = [PortId(1), KEEPER].into();
    for round in 0..3 {
        let (now, sequence) = (at(round), u32::try_from(round).expect("small") * 2 + 1);
        assert!(thief.claim_for_user(now, ADDRESS));
        bystander.on_claim(now, THIEF, (ADDRESS, sequence), ClaimReason::Announced);
        thief.on_claim(now, KEEPER, (ADDRESS, sequence + 1), ClaimReason::Answered);
        bystander.on_claim(now, KEEPER, (ADDRESS, sequence + 1), ClaimReason::Answered);
    }
    let kept = |switch: &Switch| (owner(switch, at(3)).port, owner(switch, at(3)).frozen);
    assert_eq!((kept(&bystander), kept(&thief)), ((KEEPER, true), (KEEPER, true)));
}
