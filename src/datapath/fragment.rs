//! Frames that do not fit the path travel in two pieces.
//!
//! [`split`] says where to cut; [`Reassembly`], one per port, joins. It holds at most [`SLOTS`] first
//! comers, each for [`TIMEOUT`]; the frames it gave up are counted. Memory is taken when pieces
//! wait and reused: in order, no allocation per frame and no copy but the arrival of the pieces.

use std::mem;
use std::time::Duration;

use crate::time::Time;

/// How long a piece waits for the other: far more than two paths differ by, and short enough that
/// an id is not given again meanwhile at 130,000 split frames a second.
pub const TIMEOUT: Duration = Duration::from_millis(500);
/// Frames in pieces at once, per port. The halves of a frame leave back to back; 64 between them
/// is heavy reordering already.
pub const SLOTS: usize = 64;
/// Longest piece: half a jumbo frame of 9 KB with tags. Bounds a port to 300 KB.
pub const PIECE_MAX: usize = 4_608;

/// Buffers kept for the next pieces; in order there is never more than one in use.
const SPARE: usize = 4;

/// Where to cut a frame of `frame_len` bytes into two pieces of at most `limit`: the first piece is
/// `..end`, the second `end..`. `None` if two pieces are not enough, or there is nothing to cut.
///
/// Halves, not "first full": all pieces of equally long frames are then equally long, which is what
/// UDP segmentation offload wants of a run (an odd byte goes to the first), and they pass where
/// the path is narrower than we think.
pub const fn split(frame_len: usize, limit: usize) -> Option<usize> {
    let end = frame_len.div_ceil(2);
    if frame_len < 2 || end > limit { None } else { Some(end) }
}

/// Joins the pieces that come in by one port.
///
/// The slot of a frame is its id modulo [`SLOTS`]: ids count up, so whom a new frame displaces is
/// the oldest, and a half left over is displaced long before its id comes round again.
#[derive(Debug, Default)]
pub struct Reassembly {
    slots: Vec<Option<Waiting>>,
    /// The last frame joined; lent out until the next call.
    frame: Vec<u8>,
    spare: Vec<Vec<u8>>,
    lost: u64,
}

/// A piece whose other half has not come.
#[derive(Debug)]
struct Waiting {
    id: u16,
    part: u8,
    since: Time,
    bytes: Vec<u8>,
}

impl Reassembly {
    /// Takes in piece `part` (0 first, 1 second) of frame `id`; the frame if it is whole now.
    ///
    /// A repeated piece changes nothing. What is no piece of ours is lost and counted.
    pub fn accept(&mut self, now: Time, id: u16, part: u8, bytes: &[u8]) -> Option<&[u8]> {
        if part > 1 || bytes.is_empty() || bytes.len() > PIECE_MAX {
            self.lost += 1;
            return None;
        }
        self.slots.resize_with(SLOTS, || None);
        let slot = usize::from(id) % SLOTS;
        match self.slots[slot].take() {
            Some(waiting) if waiting.id == id && now.since(waiting.since) < TIMEOUT => {
                if waiting.part != part {
                    return Some(self.join(waiting, bytes));
                }
                self.slots[slot] = Some(waiting);
            }
            displaced => {
                if let Some(waiting) = displaced {
                    self.lose(waiting);
                }
                let mut copy = self.spare.pop().unwrap_or_default();
                copy.extend_from_slice(bytes);
                self.slots[slot] = Some(Waiting { id, part, since: now, bytes: copy });
            }
        }
        None
    }

    /// Gives up what has waited too long. Pieces that came meanwhile are right without it; it frees
    /// the memory of a port that went quiet.
    pub fn expire(&mut self, now: Time) {
        for slot in 0..self.slots.len() {
            if let Some(waiting) = self.slots[slot].take_if(|waiting| now.since(waiting.since) >= TIMEOUT) {
                self.lose(waiting);
            }
        }
    }

    /// Frames given up since the last time asked: a half never came, was displaced, or was refused.
    pub fn take_lost(&mut self) -> u64 {
        mem::take(&mut self.lost)
    }

    /// Pieces that wait for their other half.
    pub fn waiting(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    fn join(&mut self, waiting: Waiting, bytes: &[u8]) -> &[u8] {
        let Waiting { part, bytes: mut held, .. } = waiting;
        if part == 0 {
            held.extend_from_slice(bytes);
            mem::swap(&mut self.frame, &mut held);
        } else {
            self.frame.clear();
            self.frame.extend_from_slice(bytes);
            self.frame.extend_from_slice(&held);
        }
        self.reuse(held);
        &self.frame
    }

    fn lose(&mut self, waiting: Waiting) {
        self.lost += 1;
        self.reuse(waiting.bytes);
    }

    fn reuse(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests;
