//! Random faults in the lab: translators forget, links are cut, hosts move, daemons die and sleep, UDP is blocked.
//!
//! Four members at four kinds of sites, each in two overlays whose machines have equal addresses, and two
//! supernodes. A numbered stream runs in a ring of one overlay; the machines of the other one say nothing and listen.
//! When the faults are over, every pair must be reachable within ten seconds. By default half a minute:
//!
//! ```sh
//! LONGWIRE_STORM_SECONDS=1200 LONGWIRE_STORM=7 cargo test --test netns_storm     # seed 7, 20 minutes
//! ```
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use lab::frame::udp_payload;
use lab::{
    Capture, Daemon, Guest, Host, Lab, Nat, Ping, Site, Stream, Supernode, inner_address, new_key, poll_for, wait_for,
};
use longwire::sim::chance::{Chance, Dice};

const KINDS: [Nat; 4] = [Nat::PortRestricted, Nat::Symmetric, Nat::Open, Nat::FullCone];
const OVERLAYS: [(&str, &str); 2] = [("lan", "br0"), ("office", "br1")];
const MEETING: Duration = Duration::from_secs(20);
/// Datagrams per second of each stream.
const RATE: u32 = 100;
/// From the end of the last fault until every pair answers.
const REACHABLE: Duration = Duration::from_secs(10);
/// The longest time between two faults, and the longest a fault lasts.
const GAP_MAX: Duration = Duration::from_secs(4);
const FAULT_MAX: Duration = Duration::from_secs(8);
/// This member is never killed, so that its memory can be looked at.
const WITNESS: usize = 0;
/// A daemon that ran through the second half may have grown by so many bytes.
const GROWTH_MAX: u64 = 4 << 20;

struct Member {
    daemon: Daemon,
    host: Host,
    site: Site,
    /// Of either overlay, with equal MAC and address.
    guests: [Guest; 2],
    address: Ipv4Addr,
}

struct Scene {
    members: Vec<Member>,
    supernodes: Vec<Supernode>,
    lab: Lab,
}

/// What ends a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heal {
    StartMember(usize),
    StartSupernode(usize),
    Resume(usize),
    /// Rules in `inet` of this number.
    Rules(u32),
}

impl Scene {
    fn new() -> Scene {
        let mut lab = Lab::new();
        let servers = ["sn0", "sn1"].map(|name| lab.supernode_host(name));
        let first = Supernode::start(&lab, &servers[0], &[]);
        let told = format!("{}#{}", first.address, first.fingerprint());
        let second = Supernode::start(&lab, &servers[1], &["--peer", &told]);
        let supernodes = vec![first, second];
        for (overlay, _) in OVERLAYS {
            let file = lab.dir().join(format!("{overlay}.key"));
            fs::write(&file, new_key()).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let members = (1..).zip(KINDS).map(|(number, nat)| Scene::member(&mut lab, &supernodes, number, nat)).collect();
        Scene { members, supernodes, lab }
    }

    fn member(lab: &mut Lab, supernodes: &[Supernode], number: usize, nat: Nat) -> Member {
        let site = lab.site(&format!("s{number}"), nat);
        let host = lab.host(&site, &format!("h{number}"));
        let addresses: Vec<&str> = supernodes.iter().map(|supernode| supernode.address.as_str()).collect();
        let mut config = format!("port-mapping = false\nlan-discovery = false\nsupernode = {addresses:?}\n");
        for (overlay, bridge) in OVERLAYS {
            let file = lab.dir().join(format!("{overlay}.key"));
            config += &format!("[[overlay]]\nname = {overlay:?}\nkey-file = {file:?}\nbridge = {bridge:?}\n");
        }
        let file = lab.dir().join(format!("{number}.toml"));
        fs::write(&file, config).unwrap();
        let guests = OVERLAYS
            .map(|(overlay, bridge)| lab.guest_on(&host, bridge, &format!("{overlay}{number}"), inner_address(number)));
        guests[1].space.ip(&format!("link set eth0 address {}", guests[0].mac));
        let name = format!("n{number}");
        let daemon = Daemon::start_words(lab, &host, &name, &name, &[], &["up", "--config", &file.to_string_lossy()]);
        let address = host.address;
        Member { daemon, host, site, guests, address }
    }

    /// Every ordered pair answers a ping; the time that took.
    fn reach_everybody(&self, patience: Duration) -> Option<Duration> {
        let start = Instant::now();
        let pings: Vec<Ping> = self
            .members
            .iter()
            .flat_map(|from| self.members.iter().map(move |to| (from, to)))
            .filter(|(from, to)| from.address != to.address)
            .map(|(from, to)| Ping::start(&from.guests[0].space, to.guests[0].address, Duration::from_millis(200), &[]))
            .collect();
        poll_for(patience, || pings.iter().all(|ping| !ping.so_far().replies.is_empty()).then_some(()))?;
        Some(start.elapsed())
    }

    /// Does something bad. Gives what ends it, if it does not end by itself.
    fn fault(&mut self, dice: &mut Dice, number: u32) -> (String, Option<Heal>) {
        let count = self.members.len();
        let (one, other) = (dice.below_usize(count), dice.below_usize(count));
        let member = &mut self.members[one];
        match dice.below(9) {
            0 => {
                member.site.reboot_router();
                (format!("{} reboots its router", member.site.name), None)
            }
            1 if member.site.nat.translates() => {
                member.site.readdress_router();
                (format!("{} gets another outside address", member.site.name), None)
            }
            1 | 2 => {
                let new = if member.address == member.host.address {
                    member.site.lan_address(99)
                } else {
                    member.host.address
                };
                let (space, uplink) = (&member.host.space, member.host.uplink);
                space.ip(&format!("addr del {}/24 dev {uplink}", member.address));
                space.ip(&format!("addr add {new}/24 dev {uplink}"));
                space.ip(&format!("route replace default via {}", member.site.lan_address(1)));
                member.address = new;
                (format!("{} takes the address {new}", member.host.name), None)
            }
            3 | 4 if one != other => {
                let (from, to) = (&self.members[one].site.inet_link, &self.members[other].site.inet_link);
                let both = dice.hits(500_000);
                let back = if both { format!("iifname {to} oifname {from} drop") } else { String::new() };
                self.rule(number, &format!("iifname {from} oifname {to} drop\n{back}"));
                (format!("cut {from} -> {to}, both ways: {both}"), Some(Heal::Rules(number)))
            }
            5 => {
                let link = member.site.inet_link.clone();
                self.rule(number, &format!("iifname {link} meta l4proto udp drop"));
                (format!("UDP of {link} is blocked"), Some(Heal::Rules(number)))
            }
            6 => {
                let server = dice.below_usize(self.supernodes.len());
                self.supernodes[server].process().kill();
                (format!("supernode {server} is killed"), Some(Heal::StartSupernode(server)))
            }
            8 if one != WITNESS => {
                member.daemon.process().kill();
                (format!("{} is killed", member.daemon.node), Some(Heal::StartMember(one)))
            }
            _ => {
                member.daemon.process().pause();
                (format!("{} is suspended", member.daemon.node), Some(Heal::Resume(one)))
            }
        }
    }

    fn rule(&self, number: u32, rules: &str) {
        self.lab.inet().nft(&format!(
            "table ip storm{number} {{\n chain cut {{\n type filter hook forward priority 0; {rules}\n }}\n}}"
        ));
    }

    fn heal(&mut self, heal: Heal) {
        match heal {
            Heal::StartMember(member) => self.members[member].daemon.start_again(),
            Heal::StartSupernode(server) => self.supernodes[server].start_again(),
            Heal::Resume(member) => self.members[member].daemon.process().resume(),
            Heal::Rules(number) => self.lab.inet().nft(&format!("delete table ip storm{number}")),
        }
    }

    /// Nobody ended but those that were killed.
    fn check_alive(&self, ended: &[Heal]) {
        for (place, member) in self.members.iter().enumerate() {
            assert!(
                member.daemon.process().is_running() || ended.contains(&Heal::StartMember(place)),
                "{} died by itself",
                member.daemon.node
            );
        }
        for (place, supernode) in self.supernodes.iter().enumerate() {
            let killed = ended.contains(&Heal::StartSupernode(place));
            assert!(supernode.process().is_running() || killed, "supernode {place} died by itself");
        }
    }

    /// Resident bytes by process.
    fn memory(&self) -> BTreeMap<u32, u64> {
        let processes = self.members.iter().map(|member| member.daemon.process().pid());
        let pids = processes.chain(self.supernodes.iter().map(|supernode| supernode.process().pid()));
        pids.filter_map(|pid| Some((pid, resident(pid)?))).collect()
    }
}

fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn after_random_faults_everybody_is_reachable_and_nothing_came_twice() {
    let (seed, seconds) = (number("LONGWIRE_STORM", 1), number("LONGWIRE_STORM_SECONDS", 30));
    let mut dice = Chance::new(seed).stream("storm", 0);
    let mut scene = Scene::new();
    assert!(scene.reach_everybody(MEETING).is_some(), "they do not even meet");
    let streams: Vec<Stream> = (0..KINDS.len())
        .map(|place| {
            let [from, to] = [place, (place + 1) % KINDS.len()].map(|place| &scene.members[place].guests[0]);
            Stream::start(&from.space, (&to.space, to.address), RATE)
        })
        .collect();
    let ears: Vec<Capture> =
        scene.members.iter().map(|member| Capture::start(&member.guests[1].space, "eth0")).collect();

    let (start, end) = (Instant::now(), Instant::now() + Duration::from_secs(seconds));
    let (mut open, mut faults, mut middle) = (Vec::<(Instant, Heal)>::new(), 0, None);
    let mut next = start;
    while Instant::now() < end {
        let now = Instant::now();
        for (_, heal) in open.extract_if(.., |(at, _)| *at <= now) {
            scene.heal(heal);
        }
        let ended: Vec<Heal> = open.iter().map(|(_, heal)| *heal).collect();
        scene.check_alive(&ended);
        if now >= next {
            faults += 1;
            let (said, heal) = scene.fault(&mut dice, faults);
            eprintln!("{:7.1} s: {said}", start.elapsed().as_secs_f64());
            if let Some(heal) = heal {
                // What is killed or asleep already stays so until its first end comes.
                if !open.iter().any(|(_, other)| *other == heal) {
                    open.push((now + Duration::from_millis(500) + dice.within(FAULT_MAX), heal));
                }
            }
            next = now + Duration::from_millis(200) + dice.within(GAP_MAX);
        }
        if middle.is_none() && start.elapsed() > Duration::from_secs(seconds / 2) {
            middle = Some(scene.memory());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for (_, heal) in open {
        scene.heal(heal);
    }
    let reached = scene.reach_everybody(REACHABLE);
    assert!(reached.is_some(), "after {faults} faults not every pair is reachable within {REACHABLE:?}");
    scene.check_alive(&[]);

    let reports: Vec<_> = streams.into_iter().map(Stream::finish).collect();
    let lost: Vec<usize> = reports.iter().map(lab::StreamReport::lost).collect();
    let sent: usize = reports.iter().map(|report| report.sent.len()).sum();
    let after = scene.memory();
    let grown: Vec<(u64, u64)> =
        middle.unwrap_or_default().iter().filter_map(|(pid, before)| Some((*before, *after.get(pid)?))).collect();
    assert!(!grown.is_empty(), "nobody lived through the second half");
    eprintln!("{faults} faults in {seconds} s (seed {seed}): all reachable after {reached:?}");
    eprintln!("{lost:?} of {sent} datagrams lost, resident bytes in the middle and at the end {grown:?}");
    assert!(reports.iter().all(|report| report.duplicates() == 0), "a datagram came twice");
    for ear in ears {
        let heard = ear.stop();
        assert!(!heard.iter().any(|frame| udp_payload(frame).is_some()), "a frame came to the wrong overlay");
    }
    assert!(grown.iter().all(|(before, after)| *after < before + GROWTH_MAX), "memory grows: {grown:?}");
    wait_for("everybody is still there", MEETING, || {
        scene.members.iter().all(|member| member.daemon.status().overlays.len() == 2).then_some(())
    });
}
