//! The overlay is one Ethernet: each row of the switch table, end to end.
//!
//! Three nodes, each at a site of its own, a guest on each one's bridge, raw sockets on the
//! guests' interfaces that send from MAC addresses of nobody. Two such worlds stand for all
//! rows, one where all paths are direct and one where all are relayed; a row holds in both.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use lab::frame::{self, C_TAG, S_TAG, ethernet, marked, tagged};
use lab::{Mac, Nat, PacketSocket, Ping, World, heard};

/// How long the first direct path may take before this table gives up; `netns_nat` is stricter.
const MEETING: Duration = Duration::from_secs(15);

/// How often a frame was heard at each node's segment.
type Heard = [usize; 3];

struct Table {
    world: World,
    wires: Vec<PacketSocket>,
    name: &'static str,
}

impl Table {
    /// None if it cannot be built: that row says why, the others need not build it again.
    fn new(name: &'static str, nat: Nat) -> Option<Mutex<Table>> {
        std::panic::catch_unwind(|| Table::build(name, nat)).ok()
    }

    fn build(name: &'static str, nat: Nat) -> Mutex<Table> {
        let world = World::new(&[nat; 3]);
        world.wait_paths(name, MEETING);
        let wires = world.nodes.iter().map(|node| PacketSocket::open(&node.guest.space, "eth0")).collect();
        Mutex::new(Table { world, wires, name })
    }

    /// Makes a MAC known at a node, to everyone, untagged.
    #[track_caller]
    fn introduce(&self, node: usize, mac: Mac) {
        let mut all_others = [1; 3];
        all_others[node - 1] = 0;
        self.check("introduction", node, &marked(Mac::BROADCAST, mac, mark()), all_others);
    }

    /// Sends a frame from the guest of node `from` (1 to 3) and looks how often each guest hears it, unchanged.
    #[track_caller]
    fn check(&self, what: &str, from: usize, frame: &[u8], expected: Heard) {
        for wire in &self.wires {
            wire.collect(Duration::ZERO, |_| false);
        }
        self.wires[from - 1].send(frame).unwrap();
        let heard = heard(&self.wires, frame, &expected);
        assert_eq!(heard, expected, "{what} ({} paths), from node {from}", self.name);
    }
}

/// Runs a row in both worlds, one row at a time.
fn row(check: impl Fn(&Table)) {
    static DIRECT: LazyLock<Option<Mutex<Table>>> = LazyLock::new(|| Table::new("direct", Nat::PortRestricted));
    static RELAYED: LazyLock<Option<Mutex<Table>>> = LazyLock::new(|| Table::new("relayed", Nat::Symmetric));
    for table in [&DIRECT, &RELAYED] {
        let Some(table) = &**table else {
            panic!("the world of this table could not be built; an earlier row says why");
        };
        let table = table.lock().unwrap_or_else(PoisonError::into_inner);
        let logs = LogsOnPanic(&table);
        check(&table);
        drop(logs);
    }
}

/// The worlds outlive a failed row (their keepers remove them), so it shows the logs itself.
struct LogsOnPanic<'a>(&'a Table);

impl Drop for LogsOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.world.lab.show_logs();
        }
    }
}

/// A MAC address that no row has used.
fn new_mac() -> Mac {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    Mac::foreign(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A mark that no frame has carried.
fn mark() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[test]
fn a_broadcast_reaches_both_others_once_and_never_comes_back() {
    row(|table| {
        let frame = |mac| marked(Mac::BROADCAST, mac, mark());
        table.check("broadcast", 1, &frame(new_mac()), [0, 1, 1]);
        table.check("broadcast", 2, &frame(new_mac()), [1, 0, 1]);
        table.check("broadcast", 3, &frame(new_mac()), [1, 1, 0]);
    });
}

#[test]
fn a_unicast_to_a_learned_mac_goes_only_there() {
    row(|table| {
        let (at_one, at_two) = (new_mac(), new_mac());
        table.introduce(2, at_two);
        let there = marked(at_two, at_one, mark());
        table.check("learned unicast", 1, &there, [0, 1, 0]);
        let back = marked(at_one, at_two, mark());
        table.check("its answer", 2, &back, [1, 0, 0]);
    });
}

#[test]
fn an_unknown_unicast_is_flooded() {
    row(|table| {
        let frame = marked(new_mac(), new_mac(), mark());
        table.check("unknown unicast", 1, &frame, [0, 1, 1]);
    });
}

#[test]
fn multicast_of_ipv4_and_ipv6_reaches_both_others_once() {
    row(|table| {
        for group in [
            [0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb],
            [0x01, 0x00, 0x5e, 0x7f, 0xff, 0xfa],
            [0x33, 0x33, 0x00, 0x00, 0x00, 0x01],
            [0x33, 0x33, 0xff, 0x12, 0x34, 0x56],
        ] {
            let frame = marked(Mac(group), new_mac(), mark());
            table.check("multicast", 1, &frame, [0, 1, 1]);
        }
    });
}

#[test]
fn profinet_spanning_tree_and_lldp_pass() {
    row(|table| {
        let body = |lead: &[u8]| [lead, &mark().to_be_bytes(), &[0; 40]].concat();
        let profinet = Mac([0x01, 0x0e, 0xcf, 0, 0, 0]);
        let frame = ethernet(profinet, new_mac(), 0x8892, &body(&[]));
        table.check("PROFINET", 1, &frame, [0, 1, 1]);
        let bridges = Mac([0x01, 0x80, 0xc2, 0, 0, 0]);
        // IEEE 802.3 with a length, then the LLC header of spanning tree.
        let lead = body(&[0x42, 0x42, 0x03]);
        let frame = ethernet(bridges, new_mac(), u16::try_from(lead.len()).unwrap(), &lead);
        table.check("a BPDU", 1, &frame, [0, 1, 1]);
        let nearest = Mac([0x01, 0x80, 0xc2, 0, 0, 0x0e]);
        let frame = ethernet(nearest, new_mac(), 0x88cc, &body(&[]));
        table.check("LLDP", 1, &frame, [0, 1, 1]);
    });
}

#[test]
fn vlan_tags_and_double_tags_cross_unchanged() {
    row(|table| {
        let plain = |mac| marked(Mac::BROADCAST, mac, mark());
        let frame = tagged(&plain(new_mac()), C_TAG, 10, 3);
        table.check("VLAN 10", 1, &frame, [0, 1, 1]);
        let frame = tagged(&tagged(&plain(new_mac()), C_TAG, 10, 0), S_TAG, 200, 5);
        table.check("802.1ad", 2, &frame, [1, 0, 1]);
        let frame = tagged(&tagged(&plain(new_mac()), C_TAG, 10, 0), C_TAG, 300, 0);
        table.check("802.1Q twice", 3, &frame, [1, 1, 0]);
    });
}

#[test]
fn one_mac_in_two_vlans_at_two_nodes_is_right_in_each() {
    row(|table| {
        let (asker, twin) = (new_mac(), new_mac());
        for vlan in [10, 20] {
            let hello = tagged(&marked(Mac::BROADCAST, asker, mark()), C_TAG, vlan, 0);
            table.check("the asker's hello", 1, &hello, [0, 1, 1]);
        }
        for (node, vlan) in [(2, 10), (3, 20)] {
            let hello = tagged(&marked(asker, twin, mark()), C_TAG, vlan, 0);
            table.check("a twin's hello", node, &hello, [1, 0, 0]);
        }
        let to_twin = |vlan| tagged(&marked(twin, asker, mark()), C_TAG, vlan, 0);
        table.check("in VLAN 10", 1, &to_twin(10), [0, 1, 0]);
        table.check("in VLAN 20", 1, &to_twin(20), [0, 0, 1]);
    });
}

#[test]
fn a_priority_tagged_frame_finds_a_mac_that_was_learned_untagged() {
    row(|table| {
        let (asker, known) = (new_mac(), new_mac());
        table.introduce(2, known);
        let frame = tagged(&marked(known, asker, mark()), C_TAG, 0, 5);
        table.check("priority tag", 1, &frame, [0, 1, 0]);
    });
}

#[test]
fn a_vm_that_moves_with_an_announcement_is_found_at_its_new_place_at_once() {
    row(|table| {
        let announcements: [fn(Mac) -> Vec<u8>; 2] =
            [|mac| frame::gratuitous_arp(mac, Ipv4Addr::new(10, 77, 5, mac.0[5])), frame::rarp];
        for announce in announcements {
            let vm = new_mac();
            table.introduce(2, vm);
            table.check("before", 1, &marked(vm, new_mac(), mark()), [0, 1, 0]);
            table.check("announcement", 3, &announce(vm), [1, 1, 0]);
            table.check("from 1", 1, &marked(vm, new_mac(), mark()), [0, 0, 1]);
            table.check("from 2", 2, &marked(vm, new_mac(), mark()), [0, 0, 1]);
        }
    });
}

#[test]
fn full_size_packets_cross_in_both_directions_without_fragments() {
    row(|table| {
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
            let (from, to) = (&table.world.nodes[from].guest, &table.world.nodes[to].guest);
            let big = ["-M", "do", "-s", "1472"];
            let report = Ping::count_with(&from.space, to.address, 3, &big);
            assert_eq!(report.replies.len(), 3, "{} to {}", from.name, to.name);
        }
    });
}

#[test]
fn the_shortest_and_the_longest_frame_arrive_whole() {
    row(|table| {
        let shortest = ethernet(Mac::BROADCAST, new_mac(), frame::EXPERIMENT, &[]);
        table.check("14 bytes", 1, &shortest, [0, 1, 1]);
        let mut payload = vec![0xa5; 1500];
        payload[..8].copy_from_slice(&mark().to_be_bytes());
        let longest = ethernet(Mac::BROADCAST, new_mac(), frame::EXPERIMENT, &payload);
        table.check("1514 bytes", 1, &longest, [0, 1, 1]);
        let longest = tagged(&longest, C_TAG, 10, 0);
        table.check("1518 bytes with a tag", 2, &longest, [1, 0, 1]);
    });
}

#[test]
fn a_machine_that_boots_from_the_network_is_answered_across() {
    row(|table| {
        let machine = new_mac();
        let discover = frame::dhcp_discover(machine, 0x1357);
        table.check("DHCP discover", 1, &discover, [0, 1, 1]);
        let server = &table.world.nodes[1].guest;
        let offer = frame::udp(
            (server.mac, server.address, 67),
            (machine, Ipv4Addr::new(10, 77, 3, 3), 68),
            &mark().to_be_bytes(),
        );
        table.check("DHCP offer", 2, &offer, [1, 0, 0]);
    });
}
