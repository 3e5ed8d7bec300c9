//! Multicast: machines join groups and leave them, send to them, and answer their node's questions (IGMPv2).

use super::traffic::{FrameId, OverlayNo, VmId};
use super::underlay::HostId;
use super::world::World;

const IGMP: u8 = 2;
const UDP: u8 = 17;
const QUERY: u8 = 0x11;
const REPORT: u8 = 0x16;
const LEAVE: u8 = 0x17;
const ALL_ROUTERS: [u8; 4] = [224, 0, 0, 2];
/// What every node asks: to all machines on the link, and without an address.
const QUESTION: [u8; 6] = [1, 0, 0x5e, 0, 0, 1];
const QUESTION_V6: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
/// IPv6, and behind its header one for each hop: MLD, which no machine of ours speaks.
const MLD: ([u8; 2], u8) = ([0x86, 0xdd], 0);
const NEXT_HEADER_AT: usize = 14 + 6;
/// Ethernet and IPv4; a node's question has an option besides.
const IGMP_AT: usize = 14 + 20;
const NODES_IGMP_AT: usize = IGMP_AT + 4;

impl World {
    /// `vm` joins a group, and says so.
    pub fn join(&mut self, vm: VmId, group: [u8; 4]) -> FrameId {
        self.traffic.joined.insert((vm, group));
        self.send_ipv4(vm, group, &packet(IGMP, vm, group, &[&[REPORT, 0, 0, 0], &group[..]].concat()))
    }

    /// `vm` leaves a group, and says so.
    pub fn part(&mut self, vm: VmId, group: [u8; 4]) -> FrameId {
        self.traffic.joined.remove(&(vm, group));
        self.send_ipv4(vm, ALL_ROUTERS, &packet(IGMP, vm, ALL_ROUTERS, &[&[LEAVE, 0, 0, 0], &group[..]].concat()))
    }

    /// `vm` asks as a multicast router who wants to hear what.
    pub fn query(&mut self, vm: VmId) -> FrameId {
        let all = [224, 0, 0, 1];
        self.send_ipv4(vm, all, &packet(IGMP, vm, all, &[QUERY, 100, 0, 0, 0, 0, 0, 0]))
    }

    /// `vm` sends to a group.
    pub fn cast(&mut self, vm: VmId, group: [u8; 4]) -> FrameId {
        self.cast_bytes(vm, group, 0)
    }

    /// The same with so many bytes of payload.
    pub fn cast_bytes(&mut self, vm: VmId, group: [u8; 4], payload: u16) -> FrameId {
        let [high, low] = (8 + payload).to_be_bytes();
        let mut body = vec![0x13, 0x88, 0x13, 0x88, high, low, 0, 0];
        body.resize(8 + usize::from(payload), 0);
        self.send_ipv4(vm, group, &packet(UDP, vm, group, &body))
    }

    fn send_ipv4(&mut self, vm: VmId, to: [u8; 4], packet: &[u8]) -> FrameId {
        let (id, bytes) = self.traffic.build_ipv4(self.now, vm, mac(to), packet);
        let (host, overlay) = (self.traffic.vms[vm.0].host, self.traffic.vms[vm.0].overlay);
        self.reach_vms(host, overlay, &bytes);
        self.put_frame(host, overlay, bytes);
        id
    }

    /// Lets the machines behind `host` answer what is asked by `frame`. Whether it is the node that asks.
    pub(super) fn answer_question(&mut self, host: HostId, overlay: OverlayNo, frame: &[u8]) -> bool {
        let to = frame.first_chunk::<6>().copied();
        let kind = (frame.get(12..14), frame.get(NEXT_HEADER_AT));
        if to == Some(QUESTION_V6) && kind == (Some(&MLD.0[..]), Some(&MLD.1)) {
            return true;
        }
        let is_nodes = frame.get(NODES_IGMP_AT) == Some(&QUERY);
        if to != Some(QUESTION) || !(is_nodes || frame.get(IGMP_AT) == Some(&QUERY)) {
            return self.answer_node(host, overlay, frame);
        }
        let joined = self.traffic.joined.iter().copied();
        let here = joined.filter(|(vm, _)| self.traffic.vms[vm.0].host == host).collect::<Vec<_>>();
        for (vm, group) in here {
            self.join(vm, group);
        }
        is_nodes
    }
}

/// RFC 1112 6.4.
const fn mac([_, b, c, d]: [u8; 4]) -> [u8; 6] {
    [1, 0, 0x5e, b & 0x7f, c, d]
}

fn packet(protocol: u8, vm: VmId, to: [u8; 4], body: &[u8]) -> Vec<u8> {
    let [upper, lower] = u16::try_from(20 + body.len()).expect("a short packet").to_be_bytes();
    let [.., high, low] = vm.0.to_be_bytes();
    let head = [0x45, 0, upper, lower, 0, 0, 0, 0, 1, protocol, 0, 0, 10, 1, high, low];
    [&head[..], &to, body].concat()
}
