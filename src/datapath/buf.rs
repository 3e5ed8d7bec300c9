//! Batches: many frames or datagrams in one allocation, so that a wakeup costs no allocation per frame.
//!
//! Whoever drained a batch gives it back to be filled again. Neighbours of a batch lie back to back
//! in memory: equal-sized datagrams to one address are one UDP GSO run without a copy.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::offload::Virtio;

/// Pieces of bytes back to back, each with what is known of it.
#[derive(Debug)]
pub struct Batch<M> {
    bytes: Vec<u8>,
    used: usize,
    items: Vec<Item<M>>,
}

#[derive(Debug)]
struct Item<M> {
    start: usize,
    len: usize,
    meta: M,
}

impl<M> Default for Batch<M> {
    fn default() -> Self {
        Self { bytes: Vec::new(), used: 0, items: Vec::new() }
    }
}

impl<M> Batch<M> {
    /// Forgets the pieces and keeps the memory.
    pub fn clear(&mut self) {
        self.used = 0;
        self.items.clear();
    }

    /// How many pieces there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes from the first piece to the end of the last: of all pieces together if they lie back to back.
    pub fn byte_len(&self) -> usize {
        self.used
    }

    /// Appends a copy of `bytes`.
    pub fn push(&mut self, bytes: &[u8], meta: M) {
        self.reserve(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.commit(bytes.len(), meta);
    }

    /// At least `room` bytes to write the next piece into; [`Batch::commit`] makes it one.
    /// They hold what an earlier batch left there.
    pub fn reserve(&mut self, room: usize) -> &mut [u8] {
        if self.bytes.len() < self.used + room {
            self.bytes.resize(self.used + room, 0);
        }
        &mut self.bytes[self.used..]
    }

    /// The first `len` bytes of the last [`Batch::reserve`] are a piece now.
    ///
    /// # Panics
    /// If `len` is more than was reserved.
    pub fn commit(&mut self, len: usize, meta: M) {
        assert!(self.used + len <= self.bytes.len(), "more committed than reserved");
        self.items.push(Item { start: self.used, len, meta });
        self.used += len;
    }

    /// The `len` bytes at `offset` of the last [`Batch::reserve`] are a piece now. There may be gaps, and
    /// any order; [`Batch::close`] ends it, and nothing may be reserved for another purpose before.
    ///
    /// # Panics
    /// If that is more than was reserved.
    pub fn place(&mut self, offset: usize, len: usize, meta: M) {
        let start = self.used + offset;
        assert!(start + len <= self.bytes.len(), "more placed than reserved");
        self.items.push(Item { start, len, meta });
    }

    /// What was placed is not written over by the next piece.
    pub fn close(&mut self) {
        let placed = self.items.iter().rev().take_while(|item| item.start >= self.used);
        self.used = placed.map(|item| item.start + item.len).max().unwrap_or(self.used);
    }

    /// The last piece grows by `bytes`.
    ///
    /// # Panics
    /// If there is no piece.
    pub fn extend_last(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.used += bytes.len();
        self.items.last_mut().expect("a piece that may grow").len += bytes.len();
    }

    /// The last piece, to be changed in place, with what is known of it.
    pub fn last_mut(&mut self) -> Option<(&mut [u8], &mut M)> {
        let item = self.items.last_mut()?;
        Some((&mut self.bytes[item.start..item.start + item.len], &mut item.meta))
    }

    /// Piece `index` and what is known of it.
    pub fn get(&self, index: usize) -> Option<(&[u8], &M)> {
        let item = self.items.get(index)?;
        Some((&self.bytes[item.start..item.start + item.len], &item.meta))
    }

    /// The pieces in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &M)> {
        self.items.iter().map(|item| (&self.bytes[item.start..item.start + item.len], &item.meta))
    }

    /// The bytes of the pieces `range`, which lie back to back.
    ///
    /// # Panics
    /// If there are no such pieces.
    pub fn span(&self, range: Range<usize>) -> &[u8] {
        let Some(last) = self.items[range.clone()].last() else {
            return &[];
        };
        &self.bytes[self.items[range.start].start..last.start + last.len]
    }

    /// Piece `index`, to be changed in place, and what is known of it.
    pub fn get_mut(&mut self, index: usize) -> Option<(&mut [u8], &M)> {
        let item = self.items.get(index)?;
        Some((&mut self.bytes[item.start..item.start + item.len], &item.meta))
    }
}

/// Frames and superframes read from one TAP, each without preamble and FCS, with what the kernel says of it.
pub type Frames = Batch<Virtio>;

/// Where a received buffer came from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The sender, IPv4 never as `::ffff:`.
    pub from: SocketAddr,
    /// Which of our addresses it came to, where that is known.
    pub to: Option<IpAddr>,
    /// Bytes of each datagram in the buffer; the last may be shorter (UDP GRO).
    pub stride: usize,
}

/// Receive buffers of the underlay socket; each holds one datagram or a GRO run of them.
pub type Datagrams = Batch<Origin>;

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The receiver, IPv4 never as `::ffff:`.
    pub to: SocketAddr,
    /// A hop limit other than the system's: openers die on their way.
    pub hops: Option<u8>,
    /// Which of our addresses it leaves from; the system's choice if `None`.
    pub from: Option<IpAddr>,
    /// TOS or traffic class; the socket's if 0.
    pub tos: u8,
}

/// Datagrams for the underlay socket, in order.
pub type Transmits = Batch<Target>;

/// Which overlay of a node, by its place in the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OverlayIndex(pub usize);

/// Where a frame goes, and what it still lacks.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// The TAP of this overlay.
    pub overlay: OverlayIndex,
    /// For the kernel; a TAP without offloads gets finished frames only.
    pub virtio: Virtio,
}

/// Frames and superframes for the TAPs, in order.
pub type Deliveries = Batch<Delivery>;
