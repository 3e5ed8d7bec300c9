use super::*;

fn pattern(text: &str) -> Pattern {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

/// Rules as "src dst prio", each to the peer of its place, from 1.
fn rules(texts: &[&str]) -> Rules {
    let rule = |(place, text): (usize, &&str)| {
        let words: Vec<&str> = text.split(' ').collect();
        let id = u32::try_from(place + 1).expect("a few");
        let prio = words.get(2).map_or(0, |prio| prio.parse().expect("a priority"));
        let action = Action::To(PortId(id), RuleWay::Usual);
        Rule { id, src: pattern(words[0]), dst: pattern(words[1]), prio, action }
    };
    let rules = texts.iter().enumerate().map(rule).collect::<Vec<_>>();
    Rules::new(&rules, None).expect("rules")
}

/// The numbers of the rules that get a frame.
fn taken(rules: &mut Rules, src: Mac, dst: Mac) -> Vec<u32> {
    let mut actions = Vec::new();
    rules.decide(src, dst, 100, &mut actions);
    let port = |action: &Action| match action {
        Action::To(port, _) => port.0,
        Action::Drop | Action::Here | Action::Learned(_) => panic!("each rule leads to a peer"),
    };
    let mut ports: Vec<_> = actions.iter().map(port).collect();
    ports.sort_unstable();
    ports
}

#[test]
fn every_word_of_the_grammar_is_read_and_written_the_same() {
    for text in ["any", "none", "02:00:00:00:00:01", "not-02:00:00:00:00:01", "02:1f:40:00:00:00/24"] {
        assert_eq!(pattern(text).to_string(), text);
    }
    assert_eq!(pattern("02:00:00:00:00:01/48").to_string(), "02:00:00:00:00:01");
    for wrong in
        ["", "all", "not-any", "02:00/8", "02:00:00:00:00:00/0", "02:00:00:00:00:00/49", "02:1f:40:00:00:01/24"]
    {
        assert!(wrong.parse::<Pattern>().is_err(), "{wrong}");
    }
}

#[test]
fn a_prefix_fits_what_begins_like_it() {
    let host = pattern("02:1f:40:00:00:00/24");
    assert!(host.fits(Mac([2, 0x1f, 0x40, 9, 9, 9])) && !host.fits(Mac([2, 0x1f, 0x41, 0, 0, 0])));
    assert!(pattern("80:00:00:00:00:00/1").fits(Mac([0xff; 6])) && !pattern("80:00:00:00:00:00/1").fits(mac(1)));
    assert!(!pattern("not-02:00:00:00:00:01").fits(mac(1)) && pattern("not-02:00:00:00:00:01").fits(mac(2)));
}

#[test]
fn a_default_rule_does_not_get_what_a_rule_for_one_address_fits() {
    // The trap of VNET/P, where `any any` and `any MAC` rank alike and both get the frame.
    let mut rules = rules(&["any any", "any 02:00:00:00:00:02"]);
    assert_eq!(taken(&mut rules, mac(1), mac(2)), [2]);
    assert_eq!(taken(&mut rules, mac(1), mac(3)), [1]);
}

#[test]
fn priority_then_destination_then_source_then_not_then_none_then_any() {
    let worst_first = [
        "any any",
        "02:00:00:00:00:01 none",
        "any not-02:00:00:00:00:09",
        "not-02:00:00:00:00:08 not-02:00:00:00:00:09",
        "02:00:00:00:00:00/24 any",
        "02:00:00:00:00:01 any",
        "any 02:00:00:00:00:00/24",
        "02:00:00:00:00:00/24 02:00:00:00:00:00/24",
        "any 02:00:00:00:00:02",
        "not-02:00:00:00:00:08 02:00:00:00:00:02",
        "02:00:00:00:00:01 02:00:00:00:00:02",
        "any any 1",
    ];
    for most in 1..=worst_first.len() {
        let expected = u32::try_from(most).expect("a few");
        assert_eq!(taken(&mut rules(&worst_first[..most]), mac(1), mac(2)), [expected], "{}", worst_first[most - 1]);
    }
}

#[test]
fn several_that_are_equally_good_each_get_the_frame() {
    let mut rules = rules(&["any 02:00:00:00:00:02", "any 02:00:00:00:00:02", "any any", "any not-02:00:00:00:00:07"]);
    assert_eq!(taken(&mut rules, mac(1), mac(2)), [1, 2]);
    assert_eq!(taken(&mut rules, mac(1), mac(3)), [4]);
    assert_eq!(taken(&mut rules, mac(1), mac(7)), [3]);
}

#[test]
fn what_is_remembered_is_what_would_be_found_and_every_hit_is_counted() {
    let mut rules = rules(&["any 02:00:00:00:00:00/47", "02:00:00:00:00:05 any", "any not-02:00:00:00:00:09"]);
    for round in 0..2 {
        for (src, dst) in (0..60).flat_map(|src| (0..60).map(move |dst| (mac(src), mac(dst)))) {
            let expected = match (src.0[5], dst.0[5]) {
                (_, 0 | 1) => vec![1],
                (5, _) => vec![2],
                (_, 9) => vec![],
                _ => vec![3],
            };
            assert_eq!(taken(&mut rules, src, dst), expected, "{src} to {dst} in round {round}");
        }
    }
    assert_eq!(rules.hits(1), Some(Hits { frames: 240, bytes: 24_000 }));
    let renamed = Rule { id: 9, ..rules.rules[0] };
    let kept = [rules.rules[1], renamed];
    let (kept_id, rules) = (kept[0].id, Rules::new(&kept, Some(&rules)).expect("two"));
    assert!(rules.hits(kept_id).is_some_and(|hits| hits.frames > 0), "it goes on counting");
    assert_eq!(rules.hits(9), Some(Hits::default()));
}
