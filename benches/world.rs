//! A made-up world: how many events it works off in a second of ours.
//!
//! An item is an event: a packet at some place of the underlay, an alarm, a read. `cargo bench --bench world`

use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use longwire::node::HandshakeKind;
use longwire::sim::{Behaviour, HostSpec, SiteSpec, VmId, World};

/// Hosts: a usual network, and one with many pairs.
const HOSTS: [usize; 2] = [5, 50];
/// How long the world lives.
const SPAN: Duration = Duration::from_secs(10);
/// All pairs have met by then.
const JOINED: Duration = Duration::from_secs(10);

fn main() {
    divan::main();
}

/// Hosts on every kind of access, one machine each.
fn world(hosts: usize, handshake: HandshakeKind) -> (World, Vec<VmId>) {
    let mut world = World::with_handshake(1, handshake);
    let overlay = world.overlay("lab");
    let supernode = world.supernode("sn");
    let kinds = [None, Some(Behaviour::port_restricted()), Some(Behaviour::firewall()), Some(Behaviour::symmetric())];
    let machine = |number: usize| {
        let site = world.site(SiteSpec { behaviour: kinds[number % kinds.len()], ..SiteSpec::default() });
        let spec = HostSpec::new(site, &format!("n{number}")).at(world.as_supernode(supernode)).member(overlay);
        let host = world.host(spec);
        let last = u8::try_from(number).expect("a few hosts");
        world.vm(host, overlay, [2, 0, 0, 0, 0, last], 0)
    };
    let machines = (0..hosts).map(machine).collect();
    (world, machines)
}

/// From the start: registration, handshakes, punching.
fn join(bencher: Bencher<'_, '_>, hosts: usize, handshake: HandshakeKind) {
    let (mut sample, _) = world(hosts, handshake);
    sample.run_for(SPAN);
    bencher
        .counter(ItemsCount::new(sample.happened()))
        .with_inputs(|| world(hosts, handshake).0)
        .bench_local_refs(|world| world.run_for(SPAN));
}

#[divan::bench(args = HOSTS, sample_count = 10)]
fn join_with_noise(bencher: Bencher<'_, '_>, hosts: usize) {
    join(bencher, hosts, HandshakeKind::Noise);
}

#[divan::bench(args = HOSTS, sample_count = 10)]
fn join_with_stand_in(bencher: Bencher<'_, '_>, hosts: usize) {
    join(bencher, hosts, HandshakeKind::StandIn);
}

/// Everyone pings its neighbour, ten times a second, in a world that is at rest.
#[divan::bench(args = HOSTS, sample_count = 10)]
fn pings(bencher: Bencher<'_, '_>, hosts: usize) {
    let one_second = |(world, machines): &mut (World, Vec<VmId>)| {
        for _ in 0..10 {
            for (number, from) in machines.iter().enumerate() {
                world.ping(*from, machines[(number + 1) % machines.len()], 100);
            }
            world.run_for(Duration::from_millis(100));
        }
    };
    let rested = || {
        let mut scene = world(hosts, HandshakeKind::StandIn);
        scene.0.run_for(JOINED);
        scene
    };
    let mut sample = rested();
    let before = sample.0.happened();
    one_second(&mut sample);
    let events = sample.0.happened() - before;
    bencher.counter(ItemsCount::new(events)).with_inputs(rested).bench_local_refs(one_second);
}
