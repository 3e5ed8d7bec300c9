//! Storms decoded from bytes: whatever goes wrong, the laws hold, and afterwards the world comes to rest.
//!
//! A failing input is printed as bytes and as a smaller scenario, and kept in `tests/corpus/`, all of which is
//! played first. `LONGWIRE_STORMS=500 cargo test --test sim_laws` plays more; `LONGWIRE_STORM=7` begins at another.

use std::fs;
use std::path::PathBuf;

use longwire::sim::chance::Chance;
use longwire::sim::scenario::{Scenario, Trouble};

/// Storms played by default.
const STORMS: u64 = 150;
/// Bytes of a storm: the last ones are its sites' MTUs and the budget of links.
const LENGTH: usize = 226;

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn bytes(number: u64) -> Vec<u8> {
    let mut dice = Chance::new(number).stream("storm", 0);
    std::iter::repeat_with(|| dice.bytes()).flatten().take(LENGTH).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|letter| letter.to_digit(16)).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8)).collect()
}

/// A smaller scenario that breaks the same kind of law.
fn shrink(scenario: &Scenario, tries: usize) -> Scenario {
    let mut small = scenario.clone();
    let mut tries = tries;
    let mut place = 0;
    while tries > 0 && place < small.talks.len() + small.troubles.len() {
        let mut smaller = small.clone();
        if place < smaller.talks.len() {
            smaller.talks.remove(place);
        } else {
            let number = place - smaller.talks.len();
            if smaller.troubles[number].1 == Trouble::Nothing {
                place += 1;
                continue;
            }
            smaller.troubles[number].1 = Trouble::Nothing;
        }
        tries -= 1;
        if smaller.play().wrong.is_empty() {
            place += 1;
        } else {
            small = smaller;
        }
    }
    small.troubles.retain(|(_, trouble)| *trouble != Trouble::Nothing);
    small
}

fn report(name: &str, bytes: &[u8], wrong: &[String]) -> String {
    let scenario = Scenario::decode(bytes);
    let small = if number("LONGWIRE_SHRINK", 1) == 0 { scenario } else { shrink(&scenario, 100) };
    let again = small.play();
    format!("{name}: {}\n{wrong:#?}\nsmaller: {small:#?}\n{:#?}", hex(bytes), again.wrong)
}

#[test]
fn what_failed_once_never_fails_again() {
    let mut files: Vec<_> = fs::read_dir(corpus()).expect("tests/corpus").flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "hex"));
    files.sort();
    let mut failures = Vec::new();
    for path in files {
        let bytes = unhex(&fs::read_to_string(&path).expect("listed just now"));
        let verdict = Scenario::decode(&bytes).play();
        if !verdict.wrong.is_empty() {
            failures.push(report(&path.display().to_string(), &bytes, &verdict.wrong));
        }
    }
    assert!(failures.is_empty(), "{} of the corpus:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn after_every_storm_there_is_calm() {
    let first = number("LONGWIRE_STORM", 0);
    let mut failures = Vec::new();
    for storm in first..first + number("LONGWIRE_STORMS", STORMS) {
        let bytes = bytes(storm);
        let verdict = Scenario::decode(&bytes).play();
        if !verdict.wrong.is_empty() {
            fs::write(corpus().join(format!("storm-{storm}.hex")), hex(&bytes)).expect("tests/corpus can be written");
            failures.push(report(&format!("storm {storm}"), &bytes, &verdict.wrong));
        }
    }
    assert!(failures.is_empty(), "{} storms:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn hex_is_read_as_it_is_written() {
    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(unhex(&hex(&bytes)), bytes);
}
