//! Driving one node by the contract of [`node`](crate::node): one `handle_*`, then everything it says,
//! then wait for its deadline.

use std::net::SocketAddr;
use std::time::Duration;

use super::chance::MILLION;
use super::doors::reflector;
use super::kernel;
use super::traffic::Question;
use super::underlay::HostId;
use super::world::{Happening, Payload, World};
use crate::datapath::buf::{Datagrams, Deliveries, Frames, Origin, OverlayIndex, Transmits};
use crate::node::{Deadline, Node, Output};
use crate::time::Time;
use crate::wire::probe;

/// From a packet's arrival to its being read, at most: neighbours are read in one batch.
const WAKE_UP: Duration = Duration::from_micros(30);
/// The longest run that the kernel joins (UDP GRO).
const GRO_SEGMENTS: usize = 64;
/// How often a node is called for nothing, in millionths of its calls.
const POKES: u32 = 10_000;
/// Outputs of one drain.
const OUTPUTS_MAX: usize = 100_000;

impl World {
    /// Starts the node of `host`, if it does not run.
    pub fn start(&mut self, id: HostId) {
        let (now, wall) = (self.now, self.wall_at(id));
        let host = &mut self.hosts[id.0];
        if host.alive {
            return;
        }
        host.boot += 1;
        let label = format!("node {}", id.0);
        let seed = self.chance.stream(&label, usize::try_from(host.boot).unwrap_or(usize::MAX)).bytes();
        let settings = host.settings(&self.overlays, self.handshake);
        host.node = Some(Node::new(settings, seed, now, wall));
        host.alive = true;
        host.reflector = host.spec.serve.is_some().then(|| reflector(host.spec.port));
        let (port, addresses) = (host.spec.port, host.addresses.clone());
        self.drain(id);
        self.feed(id, |node, now| node.handle_addresses(now, port, addresses));
    }

    /// Calls `host`'s node and does what it says.
    pub(super) fn feed(&mut self, id: HostId, call: impl FnOnce(&mut Node, Time)) {
        let now = self.now;
        if let Some(node) = self.hosts[id.0].node.as_mut() {
            call(node, now);
            self.drain(id);
        }
    }

    /// Does what a node says until it waits. Answers how many things it said.
    pub(super) fn drain(&mut self, id: HostId) -> usize {
        let Some(mut node) = self.hosts[id.0].node.take() else { return 0 };
        let mut outputs = 0;
        let deadline = loop {
            if outputs > OUTPUTS_MAX {
                self.laws.broken(self.now, &format!("{id:?} never stops talking"));
                break Deadline { at: Time::NEVER, reason: "gave up" };
            }
            match node.poll_output() {
                Output::Transmit(batch) => {
                    self.transmit(id, &batch);
                    node.recycle_transmits(batch);
                }
                Output::Deliver(batch) => {
                    self.deliver(id, &batch);
                    node.recycle_deliveries(batch);
                }
                Output::Door(command) => self.obey_door(id, command),
                Output::Link(command) => self.command(id, command),
                Output::Remember(memory) => self.hosts[id.0].memory = memory,
                // No host here has a link that it shares with another one.
                Output::Announce(_) | Output::Lane(..) => {}
                Output::Event(event) => self.note_event(id, event),
                Output::Wait(deadline) => break deadline,
            }
            outputs += 1;
        };
        self.hosts[id.0].node = Some(node);
        self.hosts[id.0].reason = deadline.reason;
        self.set_deadline(id, deadline.at);
        outputs
    }

    /// Sets the alarm for the deadline a node gave before.
    pub(super) fn rearm(&mut self, id: HostId) {
        self.set_deadline(id, self.hosts[id.0].deadline);
    }

    fn set_deadline(&mut self, id: HostId, at: Time) {
        let host = &mut self.hosts[id.0];
        host.deadline = at;
        if at < Time::NEVER && host.alarm.is_none_or(|alarm| at < alarm) {
            let at = at.max(self.now);
            host.alarm = Some(at);
            let boot = host.boot;
            self.heap.push(at, Happening::Alarm { host: id, boot });
        }
    }

    /// An alarm of `host` rings; it may be one that was moved.
    pub(super) fn ring(&mut self, id: HostId, boot: u64) {
        let host = &mut self.hosts[id.0];
        if !host.alive || host.boot != boot || host.alarm != Some(self.now) {
            return;
        }
        host.alarm = None;
        if host.asleep {
            return;
        }
        let deadline = host.deadline;
        if deadline > self.now {
            return self.set_deadline(id, deadline);
        }
        self.note(b't', id, &[]);
        self.time_out(id);
        self.poke(id);
    }

    /// Calls `handle_timeout` and checks that the next deadline lies ahead.
    pub(super) fn time_out(&mut self, id: HostId) {
        self.feed(id, |node, now| node.handle_timeout(now));
        let deadline = self.hosts[id.0].deadline;
        if deadline <= self.now {
            let reason = self.hosts[id.0].reason;
            self.laws.broken(self.now, &format!("{id:?} has a deadline that is not later than its timeout: {reason}"));
            self.set_deadline(id, self.now + Duration::from_millis(1));
        }
    }

    /// Now and then calls a node that has nothing to do: it must not do anything.
    fn poke(&mut self, id: HostId) {
        let before = self.hosts[id.0].deadline;
        if before <= self.now || !self.dice.hits(POKES) {
            return;
        }
        let now = self.now;
        let Some(node) = self.hosts[id.0].node.as_mut() else { return };
        node.handle_timeout(now);
        let outputs = self.drain(id);
        if outputs > 0 || self.hosts[id.0].deadline != before {
            self.laws.broken(now, &format!("{id:?} does something at an early handle_timeout"));
        }
    }

    /// Has `host` read its queues soon.
    pub(super) fn wake(&mut self, id: HostId) {
        if self.hosts[id.0].reading {
            return;
        }
        let at = self.now + self.dice.within(WAKE_UP);
        let host = &mut self.hosts[id.0];
        host.reading = true;
        let boot = host.boot;
        self.heap.push(at, Happening::Read { host: id, boot });
    }

    /// Hands a node everything that waits for it.
    pub(super) fn read(&mut self, id: HostId, boot: u64) {
        let host = &mut self.hosts[id.0];
        if host.boot != boot || !host.is_awake() {
            return;
        }
        host.reading = false;
        let datagrams = std::mem::take(&mut host.datagrams);
        let frames = std::mem::take(&mut host.frames);
        let mut rest = &datagrams[..];
        while !rest.is_empty() {
            let (now_read, later) = rest.split_at(self.some_of(rest.len()));
            let mut batch = joined(now_read);
            self.feed(id, |node, now| node.handle_datagrams(now, &mut batch));
            rest = later;
        }
        for group in frames.chunk_by(|left, right| left.0 == right.0) {
            let mut rest = group;
            while !rest.is_empty() {
                let (now_read, later) = rest.split_at(self.some_of(rest.len()));
                let mut batch = Frames::default();
                now_read.iter().for_each(|(_, frame, virtio)| batch.push(frame, *virtio));
                let overlay = OverlayIndex(group[0].0);
                self.feed(id, |node, now| node.handle_frames(now, overlay, &batch));
                rest = later;
            }
        }
        self.poke(id);
    }

    /// How many of `waiting` pieces a read takes: all, as often as not.
    fn some_of(&mut self, waiting: usize) -> usize {
        if self.reads.hits(MILLION / 2) { waiting } else { 1 + self.reads.below_usize(waiting) }
    }

    fn transmit(&mut self, id: HostId, batch: &Transmits) {
        self.laws.on_batch(self.now, id, batch.len());
        for (bytes, target) in batch.iter() {
            self.laws.on_transmit(self.now, id, bytes);
            self.note(b'x', id, bytes);
            let sending = &mut self.hosts[id.0].sending;
            sending.datagrams += 1;
            sending.bytes += bytes.len() as u64;
            let port = self.hosts[id.0].doors.port_to(target.to).unwrap_or(self.hosts[id.0].spec.port);
            self.launch_by(id, port, (target.to, target.hops), Payload::Datagram(bytes.to_vec()));
        }
    }

    fn deliver(&mut self, id: HostId, batch: &Deliveries) {
        self.laws.on_batch(self.now, id, batch.len());
        for (frame, delivery) in batch.iter() {
            self.note(b'f', id, frame);
            let Some(overlay) = self.hosts[id.0].spec.overlays.get(delivery.overlay.0).copied() else {
                self.laws.broken(self.now, &format!("{id:?} delivers to an overlay it is not in"));
                continue;
            };
            let Some(pieces) = kernel::cut(frame, delivery.virtio) else {
                self.laws.broken(self.now, &format!("{id:?} writes a frame with a false note: {:?}", delivery.virtio));
                continue;
            };
            for piece in pieces {
                let is_of_nodes = piece.get(..6) == Some(&probe::GROUP[..]) || Question::is_answer(&piece);
                if is_of_nodes
                    || self.take_home_answer(id, overlay, &piece)
                    || self.answer_question(id, overlay, &piece)
                {
                    self.cross(id, overlay, &piece);
                    continue;
                }
                let (now, frames) = (self.now, &mut self.traffic.frames);
                if self.laws.on_delivered(now, (id, overlay), &piece, frames).is_some() {
                    self.reach_vms(id, overlay, &piece);
                    self.cross(id, overlay, &piece);
                }
            }
        }
    }
}

/// The receive buffers that the kernel makes of datagrams: runs of one sender and size in one buffer.
fn joined(datagrams: &[(SocketAddr, Vec<u8>)]) -> Datagrams {
    let mut batch = Datagrams::default();
    let mut rest = datagrams;
    while let Some((from, first)) = rest.first() {
        let stride = first.len();
        let mut run = 1;
        let joins = |(sender, next): &&(SocketAddr, Vec<u8>)| sender == from && (1..=stride).contains(&next.len());
        while run < GRO_SEGMENTS && rest[run - 1].1.len() == stride && rest.get(run).filter(joins).is_some() {
            run += 1;
        }
        let bytes: Vec<u8> = rest[..run].iter().flat_map(|(_, bytes)| bytes).copied().collect();
        batch.push(&bytes, Origin { from: *from, to: None, stride });
        rest = &rest[run..];
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strides(datagrams: &[(u16, usize)]) -> Vec<(usize, usize)> {
        let from = |port| SocketAddr::from(([5, 0, 0, 1], port));
        let datagrams: Vec<_> = datagrams.iter().map(|(port, len)| (from(*port), vec![0; *len])).collect();
        joined(&datagrams).iter().map(|(bytes, origin)| (bytes.len(), origin.stride)).collect()
    }

    #[test]
    fn neighbours_of_one_sender_and_size_are_joined_and_a_shorter_one_ends_the_run() {
        assert_eq!(strides(&[(1, 100), (1, 100), (1, 40), (1, 40)]), [(240, 100), (40, 40)]);
        assert_eq!(strides(&[(1, 100), (2, 100), (2, 101)]), [(100, 100), (100, 100), (101, 101)]);
        assert_eq!(strides(&[(1, 10); 70]), [(640, 10), (60, 10)]);
    }
}
