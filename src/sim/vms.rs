//! What machines do: send, answer, move.

use super::kernel::{self, Stream};
use super::traffic::{BROADCAST, FrameId, HomeAnswer, OverlayNo, Purpose, Question, Vm, VmId, decode};
use super::underlay::HostId;
use super::world::World;
use crate::datapath::offload::{TapOffload, Virtio};

/// Payload bytes of small frames.
const SMALL: usize = 46;

impl World {
    /// Sends a frame of `vm` with at least `payload` bytes, to one machine by its address.
    pub fn send(&mut self, vm: VmId, to: VmId, payload: usize) -> FrameId {
        self.send_frame(vm, self.traffic.vms[to.0].mac, Purpose::Data, payload)
    }

    /// Sends a frame of `vm` to any MAC address.
    pub fn send_to(&mut self, vm: VmId, to: [u8; 6], payload: usize) -> FrameId {
        self.send_frame(vm, to, Purpose::Data, payload)
    }

    /// Sends `count` frames of a stream of `vm` in one go: as superframes, where its host's TAP gives such.
    pub fn stream(&mut self, vm: VmId, to: VmId, stream: Stream, count: usize, payload: usize) {
        let Vm { host, overlay, .. } = self.traffic.vms[vm.0];
        let mac = self.traffic.vms[to.0].mac;
        let build = |_| self.traffic.build_stream(self.now, vm, mac, stream, payload);
        let frames = (0..count).map(build).collect::<Vec<_>>();
        if frames.iter().map(|frame| self.reach_vms(host, overlay, frame)).sum::<usize>() > 0 {
            return;
        }
        let index = self.overlays_of(host).iter().position(|own| *own == overlay);
        let Some(index) = index.filter(|_| self.is_awake(host)) else { return };
        let tap = self.hosts[host.0].tap();
        for group in frames.chunks(stream.segments(tap, payload)) {
            let (bytes, virtio) =
                if tap == TapOffload::None { (group[0].clone(), Virtio::default()) } else { kernel::join(group) };
            self.note(b'v', host, &bytes);
            self.hosts[host.0].frames.push((index, bytes, virtio));
        }
        self.wake(host);
    }

    /// Sends a broadcast of `vm`.
    pub fn broadcast(&mut self, vm: VmId) -> FrameId {
        self.send_frame(vm, BROADCAST, Purpose::Data, SMALL)
    }

    /// Sends a frame of `vm` that `to` answers.
    pub fn ping(&mut self, vm: VmId, to: VmId, payload: usize) -> FrameId {
        self.send_frame(vm, self.traffic.vms[to.0].mac, Purpose::Ping(to), payload)
    }

    /// Sends a broadcast of `vm` that `to` answers, as ARP and DHCP do.
    pub fn call(&mut self, vm: VmId, to: VmId) -> FrameId {
        self.send_frame(vm, BROADCAST, Purpose::Ping(to), SMALL)
    }

    /// Lets `vm` tell everyone where it is, by a gratuitous ARP.
    pub fn announce(&mut self, vm: VmId) -> FrameId {
        self.send_frame(vm, BROADCAST, Purpose::Announce, SMALL)
    }

    /// Lets `vm` ask everyone by ARP for the address of `to`.
    pub fn ask_for(&mut self, vm: VmId, to: VmId) -> FrameId {
        self.send_frame(vm, BROADCAST, Purpose::WhoHas(to), SMALL)
    }

    /// Moves `vm` to another host without a word.
    pub fn move_vm(&mut self, vm: VmId, to: HostId) {
        self.traffic.vms[vm.0].host = to;
    }

    /// Puts a frame of `vm` on its segment: to its neighbours, and into the TAP unless the segment's
    /// bridge knows better.
    fn send_frame(&mut self, vm: VmId, to: [u8; 6], purpose: Purpose, payload: usize) -> FrameId {
        let (id, bytes) = self.traffic.build(self.now, vm, to, purpose, payload);
        let Vm { host, overlay, .. } = self.traffic.vms[vm.0];
        let heard = self.reach_vms(host, overlay, &bytes);
        let stays = to[0] & 1 == 0 && heard > 0;
        if !stays {
            self.put_frame(host, overlay, bytes.clone());
        }
        self.cross(host, overlay, &bytes);
        id
    }

    /// A frame on the segment of `host` is also on those that are cabled to it, with their TAPs.
    pub(super) fn cross(&mut self, host: HostId, overlay: OverlayNo, frame: &[u8]) {
        let is_group = frame.first().is_some_and(|first| first & 1 == 1);
        for (a, b) in self.cables.clone() {
            let other = if a == host { b } else { a };
            if a != host && b != host {
                continue;
            }
            self.reach_vms(other, overlay, frame);
            // The bridges have learned behind which TAP a machine far away is: the nearest one.
            if is_group {
                self.put_frame(other, overlay, frame.to_vec());
            }
        }
    }

    /// Lets the machines behind `host` answer what its node asks by `frame`. Whether it asks anything.
    pub(super) fn answer_node(&mut self, host: HostId, overlay: OverlayNo, frame: &[u8]) -> bool {
        let Some(question) = Question::read(frame) else { return false };
        let cabled = |(a, b): &(HostId, HostId), at: HostId| (*a == host && *b == at) || (*b == host && *a == at);
        let is_near = |at: HostId| at == host || self.cables.iter().any(|cable| cabled(cable, at));
        let here = |vm: &&Vm| is_near(vm.host) && vm.overlay == overlay;
        let answers = self.traffic.vms.iter().filter(here).filter_map(|vm| question.answer(vm)).collect::<Vec<_>>();
        for bytes in answers {
            self.put_frame(host, overlay, bytes);
        }
        true
    }

    /// A node answers one of its own machines in the name of another one: that must be true. Whether it does.
    pub(super) fn take_home_answer(&mut self, host: HostId, overlay: OverlayNo, frame: &[u8]) -> bool {
        let Some(answer) = HomeAnswer::read(frame) else { return false };
        let vms = &self.traffic.vms;
        if !vms.iter().any(|vm| vm.overlay == overlay && answer.is_true_of(vm)) {
            let now = self.now;
            self.laws.broken(now, &format!("{host:?} answers for an address whose it is not: {answer:?}"));
        }
        let is_asker = |vm: &Vm| (vm.host, vm.overlay, vm.vlan, vm.mac) == (host, overlay, answer.vlan, answer.to);
        let vms = &self.traffic.vms;
        let asked = vms.iter().position(is_asker).and_then(|vm| self.traffic.asked.get(&(VmId(vm), answer.ip)));
        if let Some(asked) = asked.copied() {
            self.traffic.frames[asked.0].answered.get_or_insert(self.now);
        }
        true
    }

    /// A frame for the TAP of `host`, if it is awake.
    pub(super) fn put_frame(&mut self, host: HostId, overlay: OverlayNo, bytes: Vec<u8>) {
        let index = self.overlays_of(host).iter().position(|own| *own == overlay);
        if let Some(index) = index.filter(|_| self.is_awake(host)) {
            self.note(b'v', host, &bytes);
            self.hosts[host.0].frames.push((index, bytes, Virtio::default()));
            self.wake(host);
        }
    }

    /// A frame is on the segment of `host`. Answers how many machines it was for.
    pub(super) fn reach_vms(&mut self, host: HostId, overlay: OverlayNo, frame: &[u8]) -> usize {
        let Some(label) = decode(frame) else { return 0 };
        let sender = self.traffic.frames[label.id.0].vm;
        let mut receivers = self.traffic.receivers(host, overlay, &label);
        receivers.retain(|receiver| *receiver != sender);
        for receiver in &receivers {
            self.hear(*receiver, label.id, label.purpose);
        }
        receivers.len()
    }

    fn hear(&mut self, vm: VmId, id: FrameId, purpose: Purpose) {
        let now = self.now;
        let sent = &mut self.traffic.frames[id.0];
        let first = !sent.heard.contains_key(&vm);
        sent.heard.entry(vm).or_insert(now);
        let asker = self.traffic.vms[sent.vm.0].mac;
        match purpose {
            Purpose::Ping(target) if target == vm && first => {
                self.send_frame(vm, asker, Purpose::Pong(id), SMALL);
            }
            Purpose::WhoHas(target) if target == vm && first => {
                self.send_frame(vm, asker, Purpose::IsAt(id), SMALL);
            }
            Purpose::Pong(asked) | Purpose::IsAt(asked) => {
                self.traffic.frames[asked.0].answered.get_or_insert(now);
            }
            Purpose::Ping(_) | Purpose::WhoHas(_) | Purpose::Data | Purpose::Announce => {}
        }
    }
}
