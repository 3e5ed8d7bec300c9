//! Judging a NAT from what others see of it: pure, observations in, class out.
//!
//! Who asks and when is `observing`; `longwire netcheck` asks by itself and has the same judge.
//! Read first: RFC 4787 sections 4 and 5 (the terms), RFC 5780 section 4 (the tests).

pub mod questions;

use std::net::SocketAddr;

use super::report::NatStatus;
use crate::wire::observe::{Filtering, Mapping, NatClass, Ports};

/// A port this near to the last one given was counted, not drawn: by chance one of a thousand is.
const STEP_MAX: i32 = 32;
/// The longest step that is believed; a longer one is many steps, made by others in between.
const STEP_LIKELY: i32 = 2;

/// What somebody saw of one socket of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Whom we asked.
    pub asked: SocketAddr,
    /// Where it saw us.
    pub seen: SocketAddr,
}

/// What became of the wish to be answered from a port that we never sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// Nobody was there who could do that.
    Unasked,
    /// Nothing came.
    Silent,
    /// It came, from another port of the address that we asked.
    OtherPort,
    /// It came from an address that we never sent to.
    OtherAddress,
}

/// Judges by observations of one socket, in the order in which they were asked for. `local` tells whether an
/// address is the socket's own; `port` is its port. `None` if there are too few to say anything.
pub fn judge(
    observations: &[Observation],
    local: impl Fn(SocketAddr) -> bool,
    port: u16,
    stranger: Stranger,
) -> Option<NatClass> {
    let first = observations.first()?;
    let filtering = match stranger {
        Stranger::Unasked => None,
        Stranger::Silent => Some(Filtering::PerPort),
        Stranger::OtherPort => Some(Filtering::PerAddress),
        Stranger::OtherAddress => Some(Filtering::Independent),
    };
    if observations.iter().all(|one| local(one.seen)) {
        return Some(NatClass { mapping: Mapping::None, filtering, ports: Ports::Kept });
    }
    if !observations.iter().any(|other| other.asked != first.asked) {
        return None;
    }
    let mapping = mapping(observations);
    let ports = match mapping {
        Mapping::None | Mapping::Independent if first.seen.port() == port => Ports::Kept,
        Mapping::None | Mapping::Independent => Ports::Changed,
        Mapping::PerAddress | Mapping::PerPort => counting(observations).map_or(Ports::Random, Ports::Counting),
    };
    Some(NatClass { mapping, filtering, ports })
}

fn mapping(observations: &[Observation]) -> Mapping {
    let differ = |same_address: bool| {
        pairs(observations)
            .any(|(a, b)| (a.asked.ip() == b.asked.ip()) == same_address && a.asked != b.asked && a.seen != b.seen)
    };
    if differ(true) {
        Mapping::PerPort
    } else if differ(false) {
        Mapping::PerAddress
    } else {
        Mapping::Independent
    }
}

fn pairs(all: &[Observation]) -> impl Iterator<Item = (&Observation, &Observation)> {
    all.iter().enumerate().flat_map(|(place, a)| all[place + 1..].iter().map(move |b| (a, b)))
}

/// The step, if every new port is a little above (or below) the one before.
fn counting(observations: &[Observation]) -> Option<i8> {
    let ports: Vec<i32> = observations.iter().map(|one| i32::from(one.seen.port())).collect();
    let mut steps = ports.windows(2).map(|pair| pair[1] - pair[0]).filter(|step| *step != 0).collect::<Vec<_>>();
    steps.sort_unstable_by_key(|step| step.abs());
    let least = *steps.first()?;
    let same_way = steps.iter().all(|step| step.signum() == least.signum() && step.abs() <= STEP_MAX);
    let step = if least.abs() <= STEP_LIKELY { least } else { least.signum() };
    same_way.then_some(i8::try_from(step).unwrap_or(1))
}

impl NatClass {
    /// Whether a peer cannot know the port it will be sent from.
    pub const fn is_hard(&self) -> bool {
        matches!(self.mapping, Mapping::PerAddress | Mapping::PerPort)
    }

    /// Whether it refuses ports that were not sent to.
    pub fn filters_per_port(&self) -> bool {
        self.filtering == Some(Filtering::PerPort)
    }

    /// The step, if its next port can be guessed.
    pub const fn step(&self) -> Option<i8> {
        match self.ports {
            Ports::Counting(step) => Some(step),
            Ports::Kept | Ports::Changed | Ports::Random => None,
        }
    }

    /// For reports.
    pub fn status(&self, public: Option<SocketAddr>) -> NatStatus {
        NatStatus {
            public,
            mapping: self.mapping_text().into(),
            filtering: self.filtering_text().into(),
            ports: self.ports_text().into(),
            meaning: self.meaning().into(),
        }
    }

    /// Mapping in a word.
    pub const fn mapping_text(&self) -> &'static str {
        match self.mapping {
            Mapping::None => "none",
            Mapping::Independent => "endpoint-independent",
            Mapping::PerAddress => "address-dependent",
            Mapping::PerPort => "address-and-port-dependent",
        }
    }

    /// Filtering in a word: the strictest that fits what was seen.
    pub const fn filtering_text(&self) -> &'static str {
        match self.filtering {
            None => "unknown",
            Some(Filtering::Independent) => "endpoint-independent",
            Some(Filtering::PerAddress) => "address-dependent",
            Some(Filtering::PerPort) => "address-and-port-dependent",
        }
    }

    /// Port allocation in a word.
    pub const fn ports_text(&self) -> &'static str {
        match self.ports {
            Ports::Kept => "kept",
            Ports::Changed => "changed",
            Ports::Counting(_) => "counting",
            Ports::Random => "random",
        }
    }

    /// What it means for direct paths, in a sentence.
    pub fn meaning(&self) -> &'static str {
        match (self.is_hard(), self.step().is_some(), self.filters_per_port()) {
            (false, _, false) => "direct with everybody",
            (false, _, true) => {
                "direct with everybody; with a NAT that takes a random port for each remote only by a search"
            }
            (true, true, true) => {
                "direct with everybody whose NAT keeps one port or counts; relayed with one of random ports"
            }
            (true, false, true) => {
                "direct with everybody who does not filter by port; with those who do only by a search, with its like never"
            }
            (true, _, false) => "direct with everybody who does not filter by port; with those who do only by a search",
        }
    }
}

/// How two sides should look for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Each sends where the other is seen. Also if nothing better would help.
    Plain,
    /// The side that maps per remote counts its ports: the other guesses the next ones.
    Predict,
    /// Both count: both guess.
    PredictBoth,
    /// One side opens many sockets, the other tries many ports.
    Birthday,
}

/// What fits two classes; `None` is a NAT that nobody knows. The side that maps per remote begins; if both do,
/// anybody may.
pub fn plan(a: Option<NatClass>, b: Option<NatClass>) -> Plan {
    let (Some(a), Some(b)) = (a, b) else { return Plan::Plain };
    let is_stuck = |hard: NatClass, other: NatClass| hard.is_hard() && other.filters_per_port();
    if !is_stuck(a, b) && !is_stuck(b, a) {
        return Plan::Plain;
    }
    match (a.is_hard(), b.is_hard(), if a.is_hard() { a.step() } else { b.step() }) {
        (true, true, Some(_)) if b.step().is_some() => Plan::PredictBoth,
        (true, true, _) => Plan::Plain,
        (_, _, Some(_)) => Plan::Predict,
        (_, _, None) => Plan::Birthday,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn class(seen: &[(&str, u16)], stranger: Stranger) -> Option<NatClass> {
        let observe = |(asked, port): &(&str, u16)| {
            let (asked, seen) = (addr(asked), SocketAddr::new(addr("198.51.100.7:1").ip(), *port));
            Observation { asked, seen }
        };
        let observations: Vec<_> = seen.iter().map(observe).collect();
        judge(&observations, |_| false, 7777, stranger)
    }

    const A1: &str = "192.0.2.1:7777";
    const A2: &str = "192.0.2.1:7778";
    const B1: &str = "192.0.2.9:7777";

    #[test]
    fn each_axis_is_judged_by_its_own_evidence() {
        use Filtering as F;
        use Mapping as M;
        use Stranger as S;
        let cases = [
            (vec![(A1, 7777), (A2, 7777)], S::Silent, M::Independent, Some(F::PerPort), Ports::Kept),
            (vec![(A1, 9000), (A2, 9000)], S::OtherPort, M::Independent, Some(F::PerAddress), Ports::Changed),
            (vec![(A1, 9000), (B1, 9000)], S::OtherAddress, M::Independent, Some(F::Independent), Ports::Changed),
            (vec![(A1, 9), (A2, 9), (B1, 40_000)], S::Unasked, M::PerAddress, None, Ports::Random),
            (vec![(A1, 9000), (A2, 31_000)], S::Silent, M::PerPort, Some(F::PerPort), Ports::Random),
            (vec![(A1, 9000), (A2, 9001)], S::Silent, M::PerPort, Some(F::PerPort), Ports::Counting(1)),
            (vec![(A1, 9000), (A2, 9002), (B1, 9004)], S::Silent, M::PerPort, Some(F::PerPort), Ports::Counting(2)),
            (vec![(A1, 9000), (A2, 8999), (B1, 8980)], S::Silent, M::PerPort, Some(F::PerPort), Ports::Counting(-1)),
            (vec![(A1, 9000), (A2, 9007)], S::Silent, M::PerPort, Some(F::PerPort), Ports::Counting(1)),
            (vec![(A1, 9000), (A2, 9001), (B1, 50_000)], S::Silent, M::PerPort, Some(F::PerPort), Ports::Random),
        ];
        for (seen, stranger, mapping, filtering, ports) in cases {
            assert_eq!(class(&seen, stranger), Some(NatClass { mapping, filtering, ports }), "{seen:?}");
        }
    }

    #[test]
    fn one_place_says_nothing_of_a_translator_and_enough_of_none() {
        assert_eq!(class(&[(A1, 9000)], Stranger::Silent), None);
        assert_eq!(class(&[], Stranger::Silent), None);
        let own = [Observation { asked: addr(A1), seen: addr("203.0.113.5:7777") }];
        let judged = judge(&own, |seen| seen == own[0].seen, 7777, Stranger::OtherPort);
        assert_eq!(judged.map(|class| class.mapping), Some(Mapping::None));
    }

    #[test]
    fn ports_are_guessed_only_where_that_helps() {
        let of = |mapping, filtering, ports| Some(NatClass { mapping, filtering: Some(filtering), ports });
        let home = of(Mapping::Independent, Filtering::PerPort, Ports::Kept);
        let cone = of(Mapping::Independent, Filtering::PerAddress, Ports::Kept);
        let random = of(Mapping::PerPort, Filtering::PerPort, Ports::Random);
        let counts = of(Mapping::PerPort, Filtering::PerPort, Ports::Counting(1));
        let table = [
            (home, home, Plan::Plain),
            (cone, random, Plan::Plain),
            (home, random, Plan::Birthday),
            (home, counts, Plan::Predict),
            (counts, counts, Plan::PredictBoth),
            (counts, random, Plan::Plain),
            (random, random, Plan::Plain),
            (None, random, Plan::Plain),
        ];
        for (a, b, expected) in table {
            assert_eq!((plan(a, b), plan(b, a)), (expected, expected), "{a:?} and {b:?}");
        }
    }
}
