//! A virtual machine moves from host to host while somebody pings it and holds a TCP connection to it.
//!
//! Once over one plain bridge, and once over the overlay between sites: what the overlay costs is the difference.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::process::wait_for;
use super::vm::{Migration, Vm};
use super::{Guest, Host, Lab, Nat, Ping, Transfer, World};

/// Between the pings: 50 a second.
const EVERY: Duration = Duration::from_millis(20);
/// What is watched before and after the move.
const CALM: Duration = Duration::from_secs(2);
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
    /// Pings sent and not answered.
    pub sent: u32,
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

/// Moves the machine to `host`, which it reaches at `to`, before the eyes of `watcher`; it runs there then.
#[track_caller]
pub fn relocate(lab: &Lab, vm: &mut Vm, (host, to): (&Host, Ipv4Addr), watcher: &Guest) -> Relocation {
    let mut landing = vm.landing(lab, host, "br0");
    let ping = Ping::start(&watcher.space, vm.address, EVERY, &[]);
    wait_for("a first answer", PATIENCE, || (!ping.so_far().replies.is_empty()).then_some(()));
    let connection = Transfer::echoed(&watcher.space, vm.address);
    std::thread::sleep(CALM);
    let migration = vm.move_to(&mut landing, to);
    let before = connection.so_far();
    std::thread::sleep(CALM);
    wait_for("TCP goes on", PATIENCE, || (connection.so_far() > before + GOES_ON).then_some(()));
    let (echoed, report) = (connection.finish(), ping.finish());
    *vm = landing;
    let times = report.replies.windows(2).filter_map(|pair| pair[1].at.duration_since(pair[0].at).ok());
    Relocation {
        migration,
        sent: report.sent,
        lost: u32::try_from(report.missing_after_first().len()).unwrap_or(u32::MAX),
        silence: times.max().unwrap_or(Duration::MAX),
        echoed,
    }
}

/// Three hosts whose bridges are joined by one more: the machine moves from the first to the second, a guest of the
/// third watches.
#[track_caller]
pub fn over_a_plain_bridge() -> Relocation {
    let mut lab = Lab::new();
    let site = lab.site("lan", Nat::Open);
    let [from, to, third] = ["h1", "h2", "h3"].map(|name| lab.kvm_host(&site, name));
    let watcher = lab.guest(&third, "watcher", Ipv4Addr::new(10, 77, 0, 3));
    let mut vm = Vm::boot(&lab, &from, "br0", ADDRESS);
    relocate(&lab, &mut vm, (&to, to.address), &watcher)
}

/// Three nodes at three sites: the machine boots at the first one's host. The hosts have inner addresses, by which
/// it can move though NATs keep them apart.
#[track_caller]
pub fn boot_in(world: &World) -> Vm {
    for (number, node) in (1..).zip(&world.nodes) {
        node.host.space.ip(&format!("addr add {}/16 dev br0", inner_address_of_host(number)));
    }
    Vm::boot(&world.lab, &world.nodes[0].host, "br0", ADDRESS)
}

/// The inner address that [`boot_in`] gives the host of node `number`, from 1.
pub fn inner_address_of_host(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 1, number)
}
