//! Every pair of networks: how soon after the second `up` the first ping is answered, and how soon it goes directly.
//!
//! The gate takes what `netns_nat` has not. The whole sweep takes eight minutes on two cores:
//! `cargo test --test netns_pairs -- --ignored --nocapture`. It prints a table and fails with what missed a bar.
//! `PAIR=cgn/symmetric` sweeps that pair only, `TIMES=20` each pair so often, `AT_ONCE=1` one world at a time; `TALE=1` has
//! the nodes explain what missed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::env;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use lab::{
    Daemon, Guest, Host, Join, Lab, Meeting, Nat, Ping, Site, Six, Supernode, inner_address, meeting, new_key, poll_for,
};

/// From the second `up` to the first answer: the relay is there from the first second.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// The same where UDP does not pass, which takes a while to be sure of.
const TCP_ANSWER_MAX: Duration = Duration::from_secs(5);
/// To the direct path where both sides keep one port for everybody...
const CONE_MAX: Duration = Duration::from_secs(2);
/// ...where one does not, or is misled by strays...
const DIRECT_MAX: Duration = Duration::from_secs(5);
/// ...and where it must be searched.
const SEARCHED_MAX: Duration = Duration::from_secs(20);
/// Pairs that are relayed are watched so long: by then they would be direct.
const WATCH: Duration = Duration::from_secs(4);
/// How long pings go on after the direct path was found.
const AFTER: Duration = Duration::from_millis(500);
/// Between two pings, and between two looks at the paths.
const PING_GAP: Duration = Duration::from_millis(50);
const LOOK_GAP: Duration = Duration::from_millis(50);

/// How often each pair is tried, and how often those of [`NAMED`].
const TIMES: usize = 3;
const NAMED_TIMES: usize = 20;
/// Worlds at once: with more of them two cores would be what is measured.
const AT_ONCE: usize = 3;

/// A kind of network, by the names of the field.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    /// Its router; `None` has no IPv4.
    nat: Option<Nat>,
    carrier: Option<Nat>,
    only_tcp: bool,
    six: Option<Six>,
}

const fn kind(name: &'static str, nat: Nat) -> Kind {
    Kind { name, nat: Some(nat), carrier: None, only_tcp: false, six: None }
}

const KINDS: [Kind; 12] = [
    kind("public", Nat::Open),
    kind("firewall", Nat::Firewall),
    kind("full-cone", Nat::FullCone),
    kind("restricted", Nat::Restricted),
    kind("port-restricted", Nat::PortRestricted),
    kind("bare-masquerade", Nat::BareMasquerade),
    kind("address-dependent", Nat::AddressDependent),
    kind("symmetric", Nat::Symmetric),
    kind("symmetric-seq", Nat::Counting),
    Kind { carrier: Some(Nat::PortRestricted), ..kind("cgn", Nat::PortRestricted) },
    Kind { carrier: Some(Nat::Symmetric), ..kind("cgn-symmetric", Nat::PortRestricted) },
    Kind { only_tcp: true, ..kind("tcp443", Nat::PortRestricted) },
];

/// Kinds with IPv6, and one without.
const SIX_KINDS: [Kind; 4] = [
    Kind { nat: None, six: Some(Six::Open), ..kind("v6-open", Nat::Open) },
    Kind { nat: None, six: Some(Six::Firewall), ..kind("v6-firewall", Nat::Open) },
    Kind { six: Some(Six::Firewall), ..kind("v6-firewall+symmetric", Nat::Symmetric) },
    kind("v4-symmetric", Nat::Symmetric),
];

/// Pairs whose times are known better: a plain one, the strict ones, the searched one.
const NAMED: [&str; 6] = [
    "port-restricted/port-restricted",
    "full-cone/symmetric",
    "restricted/symmetric-seq",
    "port-restricted/symmetric",
    "port-restricted/cgn",
    "firewall/symmetric",
];

/// What the gate tries, each once.
const SHORT: [&str; 6] = [
    "port-restricted/cgn",
    "full-cone/cgn-symmetric",
    "restricted/address-dependent",
    "symmetric/tcp443",
    "v6-firewall/v6-firewall+symmetric",
    "v6-firewall/v4-symmetric",
];

type Pair = (Kind, Kind);

fn name((one, other): &Pair) -> String {
    format!("{}/{}", one.name, other.name)
}

/// Every two of these once, also two of a kind.
fn pairs_of(kinds: &[Kind]) -> Vec<Pair> {
    let after = |(place, one): (usize, &Kind)| kinds[place..].iter().map(|other| (*one, *other)).collect::<Vec<_>>();
    kinds.iter().enumerate().flat_map(after).collect()
}

fn all_pairs() -> Vec<Pair> {
    [pairs_of(&KINDS), pairs_of(&SIX_KINDS)].concat()
}

impl Kind {
    /// What outside sees of it: the outermost box.
    fn face(&self) -> Option<Nat> {
        self.carrier.or(self.nat).filter(|_| !self.only_tcp)
    }

    fn keeps_its_port(&self) -> bool {
        self.face().is_some_and(|nat| !matches!(nat, Nat::Symmetric | Nat::Counting | Nat::AddressDependent))
    }
}

fn expected((one, other): &Pair) -> Meeting {
    if one.six.is_some() && other.six.is_some() {
        return Meeting::Direct;
    }
    match (one.face(), other.face()) {
        (Some(one), Some(other)) => meeting(one, other),
        _ => Meeting::Relayed,
    }
}

/// How long a pair may take to its direct path; `None` if it needs none.
fn direct_max(pair: &Pair) -> Option<Duration> {
    let is_misled = |kind: &Kind| kind.nat == Some(Nat::BareMasquerade);
    let is_cone = |kind: &Kind| (kind.keeps_its_port() && !is_misled(kind)) || kind.six.is_some();
    match expected(pair) {
        Meeting::Direct if is_cone(&pair.0) && is_cone(&pair.1) => Some(CONE_MAX),
        Meeting::Direct => Some(DIRECT_MAX),
        Meeting::Searched => Some(SEARCHED_MAX),
        Meeting::Either | Meeting::Relayed => None,
    }
}

fn answer_max((one, other): &Pair) -> Duration {
    if one.only_tcp || other.only_tcp { TCP_ANSWER_MAX } else { ANSWER_MAX }
}

/// Two nodes behind these networks, each with a guest.
struct Scene {
    ends: [(Daemon, Guest); 2],
    _supernode: Supernode,
    _lab: Lab,
}

impl Scene {
    fn new(pair: &Pair) -> Scene {
        let mut lab = Lab::new();
        let server = lab.supernode_host("sn");
        let six = (pair.0.six.or(pair.1.six)).map(|_| lab.six_for_server(&server));
        let places = [(1, pair.0), (2, pair.1)].map(|(number, kind)| {
            let host = place(&mut lab, number, kind);
            let guest = lab.guest(&host, &format!("g{number}"), inner_address(number));
            (host, guest, kind)
        });
        let supernode = match six {
            Some(_) => Supernode::start_everywhere(&lab, &server),
            None => Supernode::start(&lab, &server, &[]),
        };
        let (key, mut number) = (new_key(), 0);
        let ends = places.map(|(host, guest, kind)| {
            number += 1;
            let join = Join::new("lan", &key, &format!("n{number}")).bridge("br0");
            let join = if kind.nat.is_some() { join.supernode(&supernode.address) } else { join };
            let own_six = six.filter(|_| kind.six.is_some());
            let join = own_six.iter().fold(join, |join, six| join.supernode(&format!("[{six}]:7777")));
            (Daemon::start(&lab, &host, &join), guest)
        });
        Scene { ends, _supernode: supernode, _lab: lab }
    }

    /// Whether both say that they go directly.
    fn is_direct(&self) -> bool {
        [(0, "n2"), (1, "n1")].iter().all(|(from, to)| self.ends[*from].0.path_to(to) == "direct")
    }

    fn tale(&self) -> String {
        [(0, "n2"), (1, "n1")].map(|(from, to)| self.ends[from].0.show(&["explain", to])).concat()
    }
}

fn place(lab: &mut Lab, number: usize, kind: Kind) -> Host {
    let (site_name, nat) = (format!("s{number}"), kind.nat.unwrap_or(Nat::Open));
    let site: Site = match kind.carrier {
        Some(carrier) => lab.carried_site(&site_name, nat, carrier),
        None => lab.site(&site_name, nat),
    };
    let host = lab.host(&site, &format!("h{number}"));
    if kind.only_tcp {
        site.block_all_but_tcp(443);
    }
    if let Some(six) = kind.six {
        lab.six_for_site(&site, &host, six);
    }
    if kind.nat.is_none() {
        host.space.ip("-4 addr flush dev eth0");
    }
    host
}

/// What became of a pair, counted from the second `up`.
struct Outcome {
    answer: Option<Duration>,
    direct: Option<Duration>,
    wrong: Vec<String>,
}

fn meet(pair: &Pair) -> Outcome {
    let scene = Scene::new(pair);
    let (up_at, start) = (SystemTime::now(), Instant::now());
    let [(_, one), (_, other)] = &scene.ends;
    let ping = Ping::start(&one.space, other.address, PING_GAP, &[]);
    let direct = poll_for(direct_max(pair).unwrap_or(WATCH), || {
        std::thread::sleep(LOOK_GAP);
        scene.is_direct().then(|| start.elapsed())
    });
    std::thread::sleep(AFTER);
    let report = ping.finish();
    let first = report.replies.first().map(|reply| reply.at.duration_since(up_at).unwrap_or_default());
    let mut wrong = Vec::new();
    if first.is_none_or(|first| first > answer_max(pair)) {
        wrong.push(format!("first answer after {first:?}"));
    }
    if direct_max(pair).is_some() && direct.is_none() {
        wrong.push(format!("not direct after {:?}", direct_max(pair)));
    }
    if expected(pair) == Meeting::Relayed && direct.is_some() {
        wrong.push("direct, which nobody thought possible".into());
    }
    let (lost, duplicates) = (report.missing_after_first(), report.duplicates);
    if !lost.is_empty() || duplicates > 0 {
        wrong.push(format!("pings {lost:?} of {} lost after the first answer, {duplicates} came twice", report.sent));
    }
    if !wrong.is_empty() && env::var_os("TALE").is_some() {
        wrong.push(scene.tale());
    }
    Outcome { answer: first, direct, wrong }
}

/// Tries each pair so often, some at once; the outcomes in the order of the pairs.
fn sweep(jobs: &[(Pair, usize)], at_once: usize) -> Vec<Vec<Outcome>> {
    let tries = jobs.iter().enumerate().flat_map(|(place, (_, times))| std::iter::repeat_n(place, *times));
    let tries = Mutex::new(tries.collect::<Vec<_>>().into_iter());
    let outcomes = Mutex::new(jobs.iter().map(|_| Vec::new()).collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(place) = { tries.lock().unwrap().next() } {
                    let outcome = meet(&jobs[place].0);
                    outcomes.lock().unwrap()[place].push(outcome);
                }
            });
        }
    });
    outcomes.into_inner().unwrap()
}

/// Middle, 95th of a hundred, and longest of some times in seconds.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: usize| times.get((times.len() * share).div_ceil(100).max(1) - 1);
    match (at(50), at(95), times.last()) {
        (Some(middle), Some(most), Some(last)) => {
            let [middle, most, last] = [middle, most, last].map(Duration::as_secs_f64);
            format!("{middle:5.2} {most:5.2} {last:5.2}")
        }
        _ => format!("{:^17}", "-"),
    }
}

/// Prints the table and gives what missed a bar.
fn judge(jobs: &[(Pair, usize)], outcomes: &[Vec<Outcome>]) -> Vec<String> {
    eprintln!(
        "{:38} tries direct  first answer s      direct after s       bar\n{:38}              50 %  95 %  most  50 %  95 %  most",
        "", ""
    );
    let mut missed = Vec::new();
    for ((pair, _), outcomes) in jobs.iter().zip(outcomes) {
        let answers = outcomes.iter().filter_map(|outcome| outcome.answer).collect();
        let direct: Vec<Duration> = outcomes.iter().filter_map(|outcome| outcome.direct).collect();
        let bar = direct_max(pair).map_or(format!("{:?}", expected(pair)), |bar| format!("{bar:?}"));
        let (tries, count) = (outcomes.len(), direct.len());
        eprintln!("{:38} {tries:5} {count:6} {} {} {bar:>9}", name(pair), spread(answers), spread(direct));
        let complaints = outcomes.iter().flat_map(|outcome| &outcome.wrong);
        missed.extend(complaints.map(|what| format!("{}: {what}", name(pair))));
    }
    missed
}

fn number(variable: &str) -> Option<usize> {
    env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

fn run(jobs: &[(Pair, usize)], at_once: usize) {
    let start = Instant::now();
    let outcomes = sweep(jobs, at_once);
    let missed = judge(jobs, &outcomes);
    let tries: usize = outcomes.iter().map(Vec::len).sum();
    eprintln!("{} pairs, {tries} tries, {at_once} at once, {:.0} s", jobs.len(), start.elapsed().as_secs_f64());
    assert!(missed.is_empty(), "missed:\n{}", missed.join("\n"));
}

#[test]
fn carriers_strict_networks_and_ipv6_meet_in_time() {
    let jobs: Vec<_> =
        all_pairs().into_iter().filter(|pair| SHORT.contains(&name(pair).as_str())).map(|pair| (pair, 1)).collect();
    assert_eq!(jobs.len(), SHORT.len(), "a pair has another name");
    run(&jobs, AT_ONCE);
}

#[test]
#[ignore = "eight minutes: `cargo test --test netns_pairs -- --ignored --nocapture`"]
fn every_pair_meets_in_time() {
    let wanted = env::var("PAIR").ok();
    let times = |pair: &Pair| {
        let is_named = NAMED.contains(&name(pair).as_str());
        number("TIMES").unwrap_or(if is_named { NAMED_TIMES } else { TIMES })
    };
    let pairs = all_pairs().into_iter().filter(|pair| wanted.as_ref().is_none_or(|wanted| name(pair).contains(wanted)));
    let jobs: Vec<_> = pairs.map(|pair| (pair, times(&pair))).collect();
    assert!(!jobs.is_empty(), "no pair has that name");
    run(&jobs, number("AT_ONCE").unwrap_or(AT_ONCE));
}
