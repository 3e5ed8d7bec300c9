//! Where the candidates stand: two hosts on one cable, and a supernode beside them.
//!
//! ```text
//!   guests - bridge - host a ====== underlay ====== host b - bridge - guests   (one bridge per candidate)
//!                        \                            /
//!                         '------- supernode --------'
//!                        /                            \
//!   guests - bridge - host c   (no way but the relay)  host d - bridge - guests
//! ```
//!
//! All candidates stand at the same time; only one carries traffic.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use lab::{Guest, Host, Lab, Ping, Process, Space, Supernode, poll_for};

use crate::candidate::PEERS;
use crate::options::{Options, Underlay};

/// Bytes of IP that the underlay carries.
pub const UNDERLAY_MTU: u16 = 1500;
/// The supernode's address, the same towards every host.
const SUPERNODE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// IPv4 and ICMP headers.
const PING_HEADERS: u16 = 28;
/// For two guests to meet over a tunnel that starts.
const MEETING: Duration = Duration::from_secs(20);
/// For a program to make its TAP.
const STARTING: Duration = Duration::from_secs(10);
/// What a network card that cannot cut superframes lacks, and the joining of what arrives.
const CUTTING: [&str; 4] = ["tx-udp-segmentation", "tso", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"];

/// What is measured of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    All,
    /// TCP and what it costs: the rest does not depend on what this candidate varies.
    Tcp,
    /// One TCP stream.
    OneStream,
}

/// One way from a guest to another, or from host to host where there are no guests.
pub struct Candidate {
    /// Its name in tables and for `--only`.
    pub name: &'static str,
    /// Program, version and settings.
    pub about: String,
    /// The guests' MTU.
    pub mtu: u16,
    /// Who sends.
    pub from: Space,
    /// Who receives.
    pub to: Space,
    /// Its address.
    pub address: IpAddr,
    /// The processes that carry the frames.
    pub pids: Vec<u32>,
    /// What is measured.
    pub scope: Scope,
}

/// The hosts, what runs on them, and the candidates so far.
pub struct Stage {
    /// Those that can be measured.
    pub candidates: Vec<Candidate>,
    /// Names of those that cannot, each with the reason.
    pub absent: Vec<(&'static str, String)>,
    /// Programs that stay until the end.
    pub running: Vec<Process>,
    /// Daemons that stay until the end.
    pub daemons: Vec<lab::Daemon>,
    /// Guests that are tagged.
    pub taggings: Vec<lab::Tagging>,
    /// Where longwire's nodes register.
    pub supernode: Supernode,
    /// The supernode's host.
    pub server: Host,
    /// The two ends of the underlay.
    pub hosts: [Host; 2],
    /// Two hosts that only the supernode reaches.
    pub far: [Host; 2],
    /// Links of the underlay: they change with it.
    links: Vec<(Space, String)>,
    hosts_at_supernode: u8,
    pairs: u8,
    /// The namespaces.
    pub lab: Lab,
}

impl Stage {
    /// Builds hosts, links and the supernode.
    pub fn new() -> Stage {
        let lab = Lab::new();
        let server = lab.lone_host("sn", SUPERNODE);
        server.space.ip(&format!("addr add {SUPERNODE}/32 dev lo"));
        let [a, b, c, d] = [1, 2, 3, 4].map(|n| lab.lone_host(["a", "b", "c", "d"][n - 1], address_of(n)));
        lab.cable((&a, "eth0", "10.90.0.1/24"), (&b, "eth0", "10.90.0.2/24"));
        let links = [&a, &b].map(|host| (host.space.clone(), "eth0".to_owned()));
        let supernode = Supernode::start(&lab, &server, &[]);
        let mut stage = Stage {
            candidates: Vec::new(),
            absent: Vec::new(),
            running: Vec::new(),
            daemons: Vec::new(),
            taggings: Vec::new(),
            supernode,
            server,
            hosts: [a, b],
            far: [c, d],
            links: links.into(),
            hosts_at_supernode: 0,
            pairs: 0,
            lab,
        };
        for host in [0, 1].map(|n| stage.hosts[n].clone()) {
            stage.join_supernode(&host);
        }
        for host in [0, 1].map(|n| stage.far[n].clone()) {
            let port = stage.join_supernode(&host);
            stage.is_underlay(&stage.server.space.clone(), &port);
            stage.is_underlay(&host.space, "sn0");
        }
        stage
    }

    /// Gives a host a cable of its own to the supernode; the supernode's end of it.
    pub fn join_supernode(&mut self, host: &Host) -> String {
        self.hosts_at_supernode += 1;
        let number = self.hosts_at_supernode;
        let port = format!("h{number}");
        let (near, far) = (format!("10.91.{number}.2/24"), format!("10.91.{number}.1/24"));
        self.lab.cable((host, "sn0", &near), (&self.server, &port, &far));
        // The supernode's host does not forward; but some programs do not start without a way out.
        host.space.ip(&format!("route add default via 10.91.{number}.1"));
        port
    }

    /// From now on this link changes with the underlay.
    pub fn is_underlay(&mut self, space: &Space, link: &str) {
        self.links.push((space.clone(), link.to_owned()));
    }

    /// Makes every link of the underlay of this kind.
    pub fn set_underlay(&self, underlay: Underlay) {
        let cuts_later = underlay == Underlay::Offload;
        let mut features = CUTTING.map(|name| (name, cuts_later)).to_vec();
        features.push(("gro", !cuts_later));
        for (space, link) in &self.links {
            lab::set_features(space, link, &features);
        }
    }

    /// Two guests on a bridge of two hosts, with this MTU.
    pub fn guests(&mut self, hosts: &[Host; 2], bridge: &str, mtu: u16) -> [Guest; 2] {
        self.pairs += 1;
        let pair = self.pairs;
        let guests = [(0, 1), (1, 2)].map(|(index, last)| {
            let name = format!("g{pair}-{last}");
            self.lab.guest_on(&hosts[index], bridge, &name, Ipv4Addr::new(10, 77, pair, last))
        });
        set_mtu(&guests, mtu);
        guests
    }

    /// Puts the TAP that a program makes on a bridge and up.
    pub fn plug(host: &Host, program: &Process, tap: &str, bridge: &str) -> Result<(), String> {
        let came = poll_for(STARTING, || (host.space.has_link(tap) || !program.is_running()).then_some(()));
        if came.is_none() || !host.space.has_link(tap) {
            return Err(format!("{} makes no TAP: {}", program.label(), last_words(program)));
        }
        host.space.ip(&format!("link set {tap} master {bridge}"));
        host.space.ip(&format!("link set {tap} up"));
        Ok(())
    }

    /// A candidate of two guests, if they meet and packets of their MTU pass. Where that is to be the largest, `about`
    /// says so if it is not.
    pub fn add(&mut self, name: &'static str, about: &str, guests: &[Guest; 2], mtu: u16, pids: &[u32]) {
        let [from, to] = guests;
        self.add_between(name, about, (&from.space, &to.space, to.address), mtu, pids);
        let is_at_largest = name == "vxlan" || PEERS.contains(&name);
        let is_there = self.candidates.last().is_some_and(|last| last.name == name);
        let could_more = is_there && is_at_largest && self.carries_more(guests, mtu);
        if let Some(last) = self.candidates.last_mut().filter(|_| could_more) {
            last.about.push_str("; a larger VM MTU would work");
        }
    }

    /// The same of a sender, a receiver and the receiver's address.
    pub fn add_between(
        &mut self,
        name: &'static str,
        about: &str,
        (from, to, address): (&Space, &Space, Ipv4Addr),
        mtu: u16,
        pids: &[u32],
    ) {
        let meets = || (Ping::count(from, address, 1).lost() == 0).then_some(());
        if poll_for(MEETING, meets).is_none() {
            return self.absent.push((name, "its two ends do not meet".into()));
        }
        if Ping::count_with(from, address, 2, &["-M", "do", "-s", &ping_size(mtu)]).lost() == 2 {
            return self.absent.push((name, format!("packets of {mtu} bytes do not pass")));
        }
        self.candidates.push(Candidate {
            name,
            about: about.to_owned(),
            mtu,
            from: from.clone(),
            to: to.clone(),
            address: address.into(),
            pids: pids.to_vec(),
            scope: Scope::All,
        });
    }

    /// Whether packets larger by one byte pass as well, each in one datagram of the underlay.
    fn carries_more(&self, guests: &[Guest; 2], mtu: u16) -> bool {
        let [from, to] = guests;
        let before = self.parts();
        set_mtu(guests, mtu + 1);
        let report = Ping::count_with(&from.space, to.address, 2, &["-M", "do", "-s", &ping_size(mtu + 1)]);
        set_mtu(guests, mtu);
        let (passed, parts) = (report.replies.len() as u64, self.parts().saturating_sub(before));
        passed > 0 && parts < passed
    }

    /// Fragments and TCP segments that both hosts sent so far: what is too large for one datagram leaves as those.
    fn parts(&self) -> u64 {
        let of = |host: &Host| counter(&host.space, "Ip:", "FragCreates") + counter(&host.space, "Tcp:", "OutSegs");
        self.hosts.iter().map(of).sum()
    }

    /// Narrows what is measured of the candidate added last, if it is this one.
    pub fn narrow(&mut self, name: &str, scope: Scope) {
        if let Some(last) = self.candidates.last_mut().filter(|last| last.name == name) {
            last.scope = scope;
        }
    }

    /// A candidate's own directory for files.
    pub fn dir(&self, name: &str) -> Result<std::path::PathBuf, String> {
        let dir = self.lab.dir().join(name);
        std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(dir)
    }

    /// Takes up a family of candidates that are all there or all not.
    pub fn try_family(&mut self, options: &Options, family: &Family) {
        let wanted = family.names.iter().filter(|name| options.wants(name)).collect::<Vec<_>>();
        if wanted.is_empty() {
            return;
        }
        if let Err(reason) = (family.stand)(self, options) {
            self.absent.extend(wanted.into_iter().map(|name| (*name, reason.clone())));
        }
    }
}

/// Candidates that one file sets up.
pub struct Family {
    /// All names it may add.
    pub names: &'static [&'static str],
    /// Sets them up; an error is why none of them is there.
    pub stand: fn(&mut Stage, &Options) -> Result<(), String>,
}

fn address_of(number: usize) -> Ipv4Addr {
    match number {
        1 => Ipv4Addr::new(10, 90, 0, 1),
        2 => Ipv4Addr::new(10, 90, 0, 2),
        far => Ipv4Addr::new(10, 91, u8::try_from(far).unwrap_or(u8::MAX), 2),
    }
}

fn set_mtu(guests: &[Guest; 2], mtu: u16) {
    for guest in guests {
        guest.space.ip(&format!("link set eth0 mtu {mtu}"));
    }
}

/// What `ping -s` is told for packets of `mtu` bytes.
fn ping_size(mtu: u16) -> String {
    (mtu - PING_HEADERS).to_string()
}

/// A counter of the kernel for this namespace, 0 if it has none of that name.
fn counter(space: &Space, protocol: &str, name: &str) -> u64 {
    let text = space.inside(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).unwrap_or_default();
    // Ip: Forwarding DefaultTTL ..
    // Ip: 1 64 ..
    let mut lines = text.lines().filter(|line| line.starts_with(protocol)).map(str::split_whitespace);
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    names.zip(values).find(|(known, _)| *known == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

/// The last line that a program wrote.
fn last_words(program: &Process) -> String {
    let text = program.stderr() + &program.stdout();
    text.lines().last().unwrap_or("it said nothing").trim().to_owned()
}
