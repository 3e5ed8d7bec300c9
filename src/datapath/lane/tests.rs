use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::datapath::SwitchSettings;
use crate::datapath::buf::Origin;
use crate::datapath::offload::Virtio;
use crate::datapath::seal::SessionKeys;
use crate::datapath::stats::DropReason;
use crate::wire::data::Header;
use crate::wire::handshake::Suite;
use crate::wire::tree::ShortId;

const OVERLAY: OverlayIndex = OverlayIndex(0);
const PORT: PortId = PortId(1);
const VMS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])];
const STRANGER: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn at(ms: u64) -> Time {
    Time::START + Duration::from_millis(ms)
}

/// One end of a session: lane 0 and the others.
struct Site {
    end: usize,
    first: Datapath,
    lanes: Vec<Lane>,
    notices: Vec<Notice>,
}

/// Both ends know each other's keys and, if `vms_are_known`, machines.
fn sites(lanes: [usize; 2], vms_are_known: bool) -> [Site; 2] {
    let mut sites = [0, 1].map(|end| Site::new(end, lanes[end]));
    for site in &mut sites {
        site.order(Command::Install { port: PORT, keys: keys(site.end, 0, true), confirmed: true });
    }
    if vms_are_known {
        // Whoever has spoken and was spoken to on a lane is known there.
        for _ in 0..3 {
            for lane in 0..lanes[0].max(lanes[1]) {
                for end in [0, 1] {
                    let packets = sites[end].send(at(0), lane % lanes[end], &frame(end, 60));
                    packets.into_iter().for_each(|packet| drop(sites[1 - end].receive(at(0), packet)));
                }
            }
        }
    }
    sites
}

fn keys(end: usize, generation: u8, streams: bool) -> SessionKeys {
    let own = u8::try_from(end).expect("two ends") + 10 * generation;
    let other = u8::try_from(1 - end).expect("two ends") + 10 * generation;
    let index = |number: u8| u32::from(number) + 100;
    let (local_index, remote_index) = (index(own), index(other));
    SessionKeys { suite: Suite::ChaChaPoly, send: [own; 32], receive: [other; 32], local_index, remote_index, streams }
}

fn address(end: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, u8::try_from(end).expect("two ends")], 7777))
}

/// From the machine at `end` to the other one.
fn frame(end: usize, len: usize) -> Vec<u8> {
    between(VMS[end], VMS[1 - end], len)
}

fn between(from: Mac, to: Mac, len: usize) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0, &[0x88, 0xb5]].concat();
    frame.resize(len, 0);
    frame
}

impl Site {
    fn new(end: usize, lanes: usize) -> Self {
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        let mut first = Datapath::new(&[SwitchSettings::default()], &mut rng);
        let lanes = first.split(lanes, [8; 32]);
        let mut site = Self { end, first, lanes, notices: Vec::new() };
        site.order(Command::OpenPort { port: PORT, overlay: OVERLAY, short: ShortId(1) });
        site.order(Command::UsePath { port: PORT, path: Some(Path::Direct(address(1 - end))) });
        site
    }

    fn order(&mut self, command: Command) {
        self.first.handle_command(at(0), command);
        self.settle(at(0));
    }

    /// Carries everything between the lanes until they are silent.
    fn settle(&mut self, now: Time) {
        loop {
            self.notices.extend(std::iter::from_fn(|| self.first.poll_notice()));
            let orders = self.first.take_orders();
            let handed = self.lanes.iter().position(Lane::has_handed);
            if orders.is_empty() && handed.is_none() {
                return;
            }
            for (lane, order) in orders {
                self.lanes[usize::from(lane) - 1].handle_order(now, order);
            }
            if let Some(place) = handed {
                let handed = self.lanes[place].take_handed();
                let known = self.first.handle_handed(now, handed);
                for (lane, order) in self.first.take_orders() {
                    self.lanes[usize::from(lane) - 1].handle_order(now, order);
                }
                self.lanes[place].handle_order(now, Order::Done(known));
            }
        }
    }

    fn report(&mut self, now: Time) {
        for lane in &mut self.lanes {
            self.first.handle_report(now, lane.take_report(now));
        }
        self.settle(now);
    }

    /// A frame out of the TAP's queue of `lane`: the packets that leave.
    fn send(&mut self, now: Time, lane: usize, frame: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = Frames::default();
        frames.push(frame, Virtio::default());
        match lane.checked_sub(1) {
            None => self.first.handle_frames(now, OVERLAY, &frames),
            Some(place) => self.lanes[place].handle_frames(now, OVERLAY, &frames),
        }
        self.settle(now);
        let (packets, _) = self.drain();
        packets
    }

    /// A packet that the kernel gives to its owner: the frames that come out of TAPs.
    fn receive(&mut self, now: Time, packet: Vec<u8>) -> Vec<Vec<u8>> {
        let lanes = u8::try_from(self.lanes.len() + 1).expect("few");
        let owner = owner(&packet, lanes).unwrap_or(0);
        self.receive_at(now, usize::from(owner), packet)
    }

    fn receive_at(&mut self, now: Time, lane: usize, packet: Vec<u8>) -> Vec<Vec<u8>> {
        let mut datagrams = Datagrams::default();
        datagrams.push(&packet, Origin { from: address(1 - self.end), to: None, stride: packet.len() });
        match lane.checked_sub(1) {
            None => self.first.handle_datagrams(now, &mut datagrams),
            Some(place) => self.lanes[place].handle_datagrams(now, &mut datagrams),
        }
        self.settle(now);
        self.drain().1
    }

    /// Packets and frames of all lanes.
    fn drain(&mut self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let (mut packets, mut frames) = (Vec::new(), Vec::new());
        let mut batches = vec![self.first.take_batches(Default::default())];
        batches.extend(self.lanes.iter_mut().map(|lane| lane.take_batches(Default::default())));
        for (transmits, deliveries) in batches {
            packets.extend(transmits.iter().map(|(packet, _)| packet.to_vec()));
            frames.extend(deliveries.iter().map(|(frame, _)| frame.to_vec()));
        }
        (packets, frames)
    }

    fn handed(&mut self) -> u64 {
        self.report(at(0));
        self.first.stats(OVERLAY).handed + self.first.node_stats().handed
    }

    fn measured(&mut self, now: Time) -> Activity {
        self.first.handle_command(now, Command::Measure { port: PORT });
        self.settle(now);
        let mut measured = None;
        for notice in &self.notices {
            if let Notice::Measured { activity, .. } = notice {
                measured = Some(*activity);
            }
        }
        measured.expect("an answer")
    }
}

fn stream(packet: &[u8]) -> u8 {
    Header::parse(packet).expect("a packet of ours").stream()
}

#[test]
fn what_is_not_known_is_lane_0s_and_then_the_lanes_own() {
    let [mut one, mut other] = sites([3, 3], false);
    let first = one.send(at(0), 2, &frame(0, 60));
    assert_eq!(first.iter().map(|packet| stream(packet)).collect::<Vec<_>>(), [0], "flooded by lane 0");
    assert_eq!(other.receive(at(0), first[0].clone()), [frame(0, 60)]);
    let back = other.send(at(0), 2, &frame(1, 60));
    assert_eq!(stream(&back[0]), 0, "lane 2 has never heard of the one machine");
    assert_eq!(one.receive(at(0), back[0].clone()), [frame(1, 60)]);
    assert_eq!(stream(&one.send(at(0), 2, &frame(0, 60))[0]), 0, "nor lane 2 here of the other");
    let handed = one.handed();
    for len in [60, 200, 1500] {
        let packets = one.send(at(0), 2, &frame(0, len));
        assert!(packets.iter().all(|packet| stream(packet) == 2), "now it has");
        let frames = packets.into_iter().flat_map(|packet| other.receive(at(0), packet)).collect::<Vec<_>>();
        assert_eq!(frames, [frame(0, len)], "in pieces or not");
    }
    assert_eq!(one.handed(), handed);
}

#[test]
fn only_what_is_plain_stays_with_a_lane() {
    let [mut one, _other] = sites([2, 2], true);
    let handed = one.handed();
    one.send(at(0), 1, &frame(0, 60));
    assert_eq!(one.handed(), handed);
    let odd = [
        between(VMS[0], Mac([0xff; 6]), 60),
        between(VMS[0], STRANGER, 60),
        between(STRANGER, VMS[1], 60),
        between(VMS[1], VMS[0], 60),
        vec![0; 10],
    ];
    for (count, frame) in (1..).zip(odd) {
        one.send(at(0), 1, &frame);
        assert_eq!(one.handed(), handed + count, "{frame:x?}");
    }
}

#[test]
fn a_lane_reads_nothing_until_what_it_handed_over_is_done() {
    let [mut one, _other] = sites([2, 1], false);
    let lane = &mut one.lanes[0];
    let mut frames = Frames::default();
    frames.push(&frame(0, 60), Virtio::default());
    let hand_over = |lane: &mut Lane| {
        lane.handle_frames(at(0), OVERLAY, &frames);
        lane.take_handed()
    };
    let _under_way = [hand_over(lane), hand_over(lane)];
    assert!(lane.wants_input(), "nothing was taught yet");
    let known = Known { overlay: OVERLAY, vlan: 0, mac: VMS[1], port: PORT, heard: at(0) };
    lane.handle_order(at(0), Order::Done(vec![known]));
    assert!(!lane.wants_input(), "what comes next would overtake the second frame");
    lane.handle_order(at(0), Order::Done(Vec::new()));
    assert!(lane.wants_input());

    lane.handle_frames(at(0), OVERLAY, &frames);
    lane.drop_handed();
    let report = lane.take_report(at(0));
    assert_eq!(report.node_stats.count(DropReason::LaneFull), 1);
    lane.handle_order(at(0), Order::Done(vec![known]));
    assert!(lane.wants_input(), "what was dropped is not under way");
}

#[test]
fn an_address_that_moves_is_forgotten_by_every_lane() {
    let [mut one, _other] = sites([3, 3], true);
    for lane in 1..3 {
        assert_eq!(stream(&one.send(at(0), lane, &frame(0, 60))[0]), u8::try_from(lane).expect("few"));
    }
    // A gratuitous ARP out of our own TAP: the other machine is behind us now.
    let mut arp = between(VMS[1], Mac([0xff; 6]), 60);
    arp[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp[22..28].copy_from_slice(&VMS[1].0);
    arp[28..32].copy_from_slice(&[10, 0, 0, 2]);
    arp[38..42].copy_from_slice(&[10, 0, 0, 2]);
    one.send(at(10), 1, &arp);
    for lane in 1..3 {
        assert!(one.send(at(20), lane, &frame(0, 60)).is_empty(), "lane {lane} still sends it away");
    }
}

#[test]
fn whatever_lane_a_packet_comes_to_it_is_opened_once() {
    let [mut one, mut other] = sites([4, 4], true);
    for sender in 0..4 {
        for receiver in 0..4 {
            let packet = one.send(at(0), sender, &frame(0, 100)).remove(0);
            assert_eq!(other.receive_at(at(0), receiver, packet.clone()), [frame(0, 100)], "{sender} to {receiver}");
            for again in 0..4 {
                assert!(other.receive_at(at(0), again, packet.clone()).is_empty(), "{sender} to {again} again");
            }
        }
    }
    other.report(at(0));
    assert_eq!(other.first.stats(OVERLAY).count(DropReason::Replayed), 64);
}

#[test]
fn no_counter_is_used_twice_whichever_lane_seals() {
    let [mut one, _other] = sites([4, 4], true);
    let mut seen = BTreeSet::new();
    for round in 0..400 {
        let frame = if round % 7 == 0 { between(VMS[0], Mac([0xff; 6]), 60) } else { frame(0, 60) };
        for packet in one.send(at(0), round % 4, &frame) {
            assert!(seen.insert(packet[4..16].to_vec()), "index and counter twice");
        }
    }
    assert_eq!(seen.len(), 400);
}

#[test]
fn a_peer_that_takes_no_streams_is_sent_to_by_lane_0() {
    let [mut one, _other] = sites([2, 2], true);
    one.order(Command::Install { port: PORT, keys: keys(0, 1, false), confirmed: true });
    assert_eq!(stream(&one.send(at(0), 1, &frame(0, 60))[0]), 0);
}

#[test]
fn a_relayed_path_is_lane_0s_and_other_streams_do_not_come_by_it() {
    let [mut one, mut other] = sites([2, 2], true);
    let packet = one.send(at(0), 1, &frame(0, 60)).remove(0);
    assert_eq!(stream(&packet), 1);
    let path = Path::Relayed(crate::datapath::LegId(1), crate::wire::relay::RelayId(5));
    other.first.open(at(0), (path, None), &mut None, &mut packet.clone());
    assert_eq!(other.first.node_stats().count(DropReason::Reserved), 1);
    assert_eq!(other.receive(at(0), packet), [frame(0, 60)], "it was not opened there");
    one.order(Command::UsePath { port: PORT, path: Some(path) });
    let handed = one.handed();
    one.send(at(0), 1, &frame(0, 60));
    assert_eq!(one.handed(), handed + 1);
}

#[test]
fn keys_that_wait_are_confirmed_by_the_first_packet_at_any_lane() {
    let [mut one, mut other] = sites([2, 2], true);
    other.order(Command::Install { port: PORT, keys: keys(1, 1, true), confirmed: false });
    one.order(Command::Install { port: PORT, keys: keys(0, 1, true), confirmed: true });
    let index = |packet: &[u8]| Header::parse(packet).expect("ours").receiver;
    assert_eq!(index(&other.send(at(0), 1, &frame(1, 60))[0]), 100, "the old keys are the present ones");
    let packet = one.send(at(0), 1, &frame(0, 60)).remove(0);
    assert_eq!((index(&packet), stream(&packet)), (111, 1));
    assert_eq!(other.receive(at(0), packet), [frame(0, 60)]);
    other.report(at(0));
    assert!(other.notices.iter().any(|notice| matches!(notice, Notice::Confirmed { .. })));
    for lane in [0, 1] {
        assert_eq!(index(&other.send(at(0), lane, &frame(1, 60))[0]), 110, "lane {lane} has the new keys");
    }
}

#[test]
fn packets_that_come_before_their_keys_do_are_not_lost() {
    let [mut one, mut other] = sites([2, 2], true);
    one.order(Command::Install { port: PORT, keys: keys(0, 1, true), confirmed: true });
    let packet = one.send(at(0), 1, &frame(0, 60)).remove(0);
    other.first.handle_command(at(0), Command::Install { port: PORT, keys: keys(1, 1, true), confirmed: false });
    // The lane has not read that order yet when the packet is there.
    let early = other.first.take_orders();
    let mut datagrams = Datagrams::default();
    datagrams.push(&packet, Origin { from: address(0), to: None, stride: packet.len() });
    other.lanes[0].handle_datagrams(at(0), &mut datagrams);
    assert!(other.lanes[0].has_handed());
    for (_, order) in early {
        other.lanes[0].handle_order(at(0), order);
    }
    other.settle(at(0));
    assert_eq!(other.drain().1, [frame(0, 60)]);
}

#[test]
fn strangers_keep_no_lane_0_busy() {
    let mut site = Site::new(0, 2);
    for counter in 0..5_000 {
        let header = Header { is_data: true, receiver: 77, counter: (1 << 60) + counter };
        let packet = [header.bytes().as_slice(), &[0; 17]].concat();
        assert!(site.receive_at(at(0), 1, packet).is_empty());
    }
    assert_eq!(site.handed(), 1_024);
    assert_eq!(site.first.node_stats().count(DropReason::UnknownIndex), 5_000, "each counted where it ended");
}

#[test]
fn what_one_lane_sent_and_another_heard_is_answered() {
    let [mut one, mut other] = sites([3, 3], true);
    one.report(at(0));
    one.send(at(100), 1, &frame(0, 60));
    one.report(at(100));
    assert_eq!(one.measured(at(100)).unanswered_since, Some(at(100)));
    let back = other.send(at(120), 2, &frame(1, 60)).remove(0);
    one.receive(at(130), back);
    one.report(at(130));
    let activity = one.measured(at(130));
    assert_eq!((activity.unanswered_since, activity.heard, activity.sent), (None, Some(at(130)), Some(at(100))));
    one.send(at(140), 1, &frame(0, 60));
    one.report(at(140));
    one.order(Command::UsePath { port: PORT, path: Some(Path::Direct(address(9))) });
    assert_eq!(one.measured(at(150)).unanswered_since, None, "another path, another count");
}

#[test]
fn addresses_heard_on_a_lane_stay_alive_at_lane_0() {
    let [mut one, _other] = sites([2, 2], true);
    one.send(at(4_500), 1, &frame(0, 60));
    one.report(at(5_000));
    let heard = one.first.switches[0].fdb.find(at(5_000), 0, VMS[0]);
    assert_eq!(heard, Some((crate::datapath::fdb::TAP, at(4_500))));
}

#[test]
fn a_closed_port_is_closed_in_every_lane() {
    let [mut one, mut other] = sites([2, 2], true);
    let packet = other.send(at(0), 1, &frame(1, 60)).remove(0);
    one.order(Command::ClosePort { port: PORT });
    assert!(one.send(at(0), 1, &frame(0, 60)).is_empty());
    assert!(one.receive(at(0), packet).is_empty());
    assert_eq!(one.first.node_stats().count(DropReason::UnknownIndex), 0);
    one.report(at(0));
    assert_eq!(one.first.node_stats().count(DropReason::UnknownIndex), 1, "counted where it ended");
}
