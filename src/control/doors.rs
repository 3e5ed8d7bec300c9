//! Doors: sockets beside the underlay socket, for peers behind NATs that give each socket another outside port.
//!
//! Their commands go to whoever drives the node; what comes in by a door is handed in as any datagram. One search
//! at a time: its packets are what a port scan's would be, and their number per second is a promise.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;

use crate::datapath::fdb::PortId;
use crate::seam::{DoorCommand, DoorId};

/// Doors of the node, and who searches.
#[derive(Debug, Default)]
pub struct Doors {
    /// For whoever drives the node.
    pub commands: VecDeque<DoorCommand>,
    next: u32,
    searching: Option<PortId>,
    asked: BTreeMap<u64, PortId>,
}

impl Doors {
    /// Numbers that were never used.
    pub fn take(&mut self, count: u32) -> Range<u32> {
        let first = self.next;
        self.next = self.next.wrapping_add(count);
        first..self.next
    }

    /// Lets the peer of `port` search, unless another one does.
    pub fn begin(&mut self, port: PortId) -> bool {
        *self.searching.get_or_insert(port) == port
    }

    /// The peer of `port` searches no more.
    pub fn end(&mut self, port: PortId) {
        if self.searching == Some(port) {
            self.searching = None;
            self.asked.retain(|_, asker| *asker != port);
        }
    }

    /// Who searches.
    pub const fn searching(&self) -> Option<PortId> {
        self.searching
    }

    /// The answer with `token` will be for the peer of `port`.
    pub fn expect(&mut self, token: u64, port: PortId) {
        self.asked.insert(token, port);
    }

    /// Whom an answer is for.
    pub fn take_asker(&mut self, token: u64) -> Option<PortId> {
        self.asked.remove(&token)
    }

    /// Sends by a door, which is opened if need be.
    pub fn send(&mut self, door: u32, to: SocketAddr, packet: Vec<u8>) {
        self.commands.push_back(DoorCommand::Send { door: DoorId(door), to, packet });
    }

    /// What is sent to `to` leaves by this door.
    pub fn route(&mut self, door: u32, to: SocketAddr) {
        self.commands.push_back(DoorCommand::Route { door: DoorId(door), to });
    }

    /// Closes doors, but for the one that leads to `keep`.
    pub fn close(&mut self, doors: &Range<u32>, keep: Option<SocketAddr>) {
        if !doors.is_empty() {
            let (first, end) = (DoorId(doors.start), DoorId(doors.end));
            self.commands.push_back(DoorCommand::Close { doors: first..end, keep });
        }
    }
}
