//! A virtual machine moves to and fro between two hosts while somebody pings it and holds a TCP connection to it.
//!
//! Over one plain bridge, and over the overlay between sites: what the overlay costs is the difference.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::process::wait_for;
use super::vm::{Migration, Vm};
use super::{Guest, Host, Lab, Nat, Ping, Transfer, World, fail};

/// Between the pings: 50 a second.
const EVERY: Duration = Duration::from_millis(20);
/// What is watched before and after the move.
const CALM: Duration = Duration::from_secs(1);
/// For a first answer, and for what TCP holds back when a segment was lost again and again.
const PATIENCE: Duration = Duration::from_secs(15);
/// The inner address of the virtual machine.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);
/// What crosses the TCP connection after the move, at least.
const GOES_ON: u64 = 100_000;

/// What the watcher saw.
#[derive(Clone, Debug)]
pub struct Relocation {
    /// What QEMU says.
    pub migration: Migration,
    /// Pings.
    pub sent: u32,
    /// Those of them that were not answered.
    pub lost: u32,
    /// The longest time between two answers.
    pub silence: Duration,
    /// Bytes that the machine echoed over one TCP connection.
    pub echoed: u64,
}

impl std::fmt::Display for Relocation {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Migration { took, still, bytes } = self.migration;
        write!(
            to,
            "{} of {} pings lost, longest silence {:.0} ms; moved {:.0} MB in {:.1} s, stood still for {:.0} ms; \
             TCP echoed {:.1} MB, all bytes right",
            self.lost,
            self.sent,
            self.silence.as_secs_f64() * 1e3,
            bytes as f64 / 1e6,
            took.as_secs_f64(),
            still.as_secs_f64() * 1e3,
            self.echoed as f64 / 1e6,
        )
    }
}

/// A machine, two hosts between which it moves, and who watches it.
pub struct Shuttle {
    /// Where it is now.
    pub vm: Vm,
    /// Each with the address by which the other one reaches it.
    places: [(Host, Ipv4Addr); 2],
    watcher: Guest,
}

impl Shuttle {
    /// Three hosts whose bridges are joined by one more: the machine boots at the first, a guest of the third watches.
    #[track_caller]
    pub fn over_a_plain_bridge(lab: &mut Lab) -> Shuttle {
        let site = lab.site("lan", Nat::Open);
        let [from, to, third] = ["h1", "h2", "h3"].map(|name| lab.kvm_host(&site, name));
        let watcher = lab.guest(&third, "watcher", Ipv4Addr::new(10, 77, 0, 3));
        let vm = Vm::boot(lab, &from, "br0", ADDRESS);
        let places = [from, to].map(|host| (host.clone(), host.address));
        Shuttle { vm, places, watcher }
    }

    /// Three nodes at three sites, the same with their hosts. These get inner addresses, by which the machine can move
    /// though NATs keep them apart.
    #[track_caller]
    pub fn between_sites(world: &World) -> Shuttle {
        let [from, to, third] = &world.nodes[..] else { fail("the world has three nodes") };
        let places = [(1, from), (2, to)].map(|(number, node)| {
            let address = Ipv4Addr::new(10, 77, 1, number);
            node.host.space.ip(&format!("addr add {address}/16 dev br0"));
            (node.host.clone(), address)
        });
        let vm = Vm::boot(&world.lab, &from.host, "br0", ADDRESS);
        Shuttle { vm, places, watcher: third.guest.clone() }
    }

    /// Moves the machine to the host where it is not.
    #[track_caller]
    pub fn go(&mut self, lab: &Lab) -> Relocation {
        let away = |(host, _): &&(Host, Ipv4Addr)| host.name != self.vm.host().name;
        let Some((host, to)) = self.places.iter().find(away) else { fail("the machine has nowhere to go") };
        let mut landing = self.vm.landing(lab, host, "br0");
        let ping = Ping::start(&self.watcher.space, self.vm.address, EVERY, &[]);
        wait_for("a first answer", PATIENCE, || (!ping.so_far().replies.is_empty()).then_some(()));
        let connection = Transfer::echoed(&self.watcher.space, self.vm.address);
        std::thread::sleep(CALM);
        let migration = self.vm.move_to(&mut landing, *to);
        let before = connection.so_far();
        std::thread::sleep(CALM);
        wait_for("TCP goes on", PATIENCE, || (connection.so_far() > before + GOES_ON).then_some(()));
        let (echoed, report) = (connection.finish(), ping.finish());
        self.vm = landing;
        let times = report.replies.windows(2).filter_map(|pair| pair[1].at.duration_since(pair[0].at).ok());
        Relocation {
            migration,
            sent: report.sent,
            lost: u32::try_from(report.missing_after_first().len()).unwrap_or(u32::MAX),
            silence: times.max().unwrap_or(Duration::MAX),
            echoed,
        }
    }
}
