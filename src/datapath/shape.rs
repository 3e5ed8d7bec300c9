//! Frames that wait until what is reserved lets them go: in order for each peer, bounded, let go in small steps.
//!
//! A queue, since a policer alone holds TCP to a quarter of its cap where round trips are short: 5 Mb/s of 20 were
//! measured. The corridor has no clock: the control room is told that something waits ([`Notice::Shaped`]) and says
//! when to try again ([`Command::Release`](super::Command::Release)).

use std::collections::VecDeque;
use std::mem;

use super::fdb::PortId;
use super::rules::RuleWay;
use super::segment::Work;
use super::stats::DropReason;
use super::{Datapath, Notice};
use crate::time::Time;
use crate::wire::data::FrameKind;

/// Bytes that wait for one peer: two superframes, which is 50 ms at 20 Mb/s.
const BYTES_MAX: usize = 128 * 1024;
/// Frames that wait for one peer, however small.
const FRAMES_MAX: usize = 512;

/// A frame that waits.
pub(super) struct Waiting {
    frame: Vec<u8>,
    work: Work,
    how: (FrameKind, RuleWay),
}

/// The frames that wait for one peer.
#[derive(Default)]
pub(super) struct Queue {
    frames: VecDeque<Waiting>,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, frame: &[u8], work: Work, how: (FrameKind, RuleWay)) -> bool {
        let has_room = self.frames.len() < FRAMES_MAX && self.bytes + frame.len() <= BYTES_MAX;
        if has_room {
            self.bytes += frame.len();
            self.frames.push_back(Waiting { frame: frame.to_vec(), work, how });
        }
        has_room
    }

    fn pop(&mut self) -> Option<Waiting> {
        let first = self.frames.pop_front()?;
        self.bytes -= first.frame.len();
        Some(first)
    }
}

impl Datapath {
    /// Whether a frame has to wait, or finds no room to. Behind others it always does, so that none is overtaken.
    pub(super) fn holds_back(
        &mut self,
        now: Time,
        id: PortId,
        frame: &[u8],
        work: Work,
        how: (FrameKind, RuleWay),
    ) -> bool {
        let (Some(reserve), Some(port)) = (&mut self.reserve, self.ports.get_mut(&id)) else { return false };
        let goes = port.shaped.frames.is_empty() && reserve.admits(now, (port.overlay, id), frame.len());
        if goes || !port.can_send(now) {
            return false;
        }
        if !port.shaped.push(frame, work, how) {
            self.stats[port.overlay.0].dropped(DropReason::RateLimit);
        } else if self.waiting.insert(id) && self.waiting.len() == 1 {
            self.notices.push_back(Notice::Shaped);
        }
        true
    }

    /// What may go by now goes, a frame of each peer in turn; whether anything still waits is told anew.
    pub(super) fn release(&mut self, now: Time) {
        let mut turns = mem::take(&mut self.waiting).into_iter().collect::<VecDeque<_>>();
        // Who was served last begins last.
        let behind = turns.iter().position(|id| Some(*id) > self.released);
        turns.rotate_left(behind.unwrap_or(0));
        while let Some(id) = turns.pop_front() {
            if let Some(Waiting { frame, work, how }) = self.next_admitted(now, id) {
                self.send_now(now, id, &frame, work, how);
                self.released = Some(id);
                turns.push_back(id);
            } else if self.ports.get(&id).is_some_and(|port| !port.shaped.frames.is_empty()) {
                self.waiting.insert(id);
            }
        }
        if !self.waiting.is_empty() {
            self.notices.push_back(Notice::Shaped);
        }
    }

    fn next_admitted(&mut self, now: Time, id: PortId) -> Option<Waiting> {
        let port = self.ports.get_mut(&id)?;
        let bytes = port.shaped.frames.front()?.frame.len();
        let goes = self.reserve.as_mut().is_none_or(|reserve| reserve.admits(now, (port.overlay, id), bytes));
        if goes { port.shaped.pop() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::data::Checksum;

    #[test]
    fn frames_wait_in_order_and_within_bounds() {
        let (mut queue, how) = (Queue::default(), (FrameKind::Direct, RuleWay::Usual));
        let work = Work::Whole(Checksum::Finished);
        let room = (0..u16::MAX).take_while(|number| queue.push(&[number.to_be_bytes()[1]; 60], work, how)).count();
        assert_eq!(room, FRAMES_MAX);
        for number in 0..FRAMES_MAX {
            let next = queue.pop().expect("one of them");
            assert_eq!(usize::from(next.frame[0]), number % 256);
        }
        assert!(queue.pop().is_none() && queue.bytes == 0);
        assert!(queue.push(&vec![0; 65_000], work, how) && queue.push(&vec![0; 65_000], work, how));
        assert!(!queue.push(&vec![0; 65_000], work, how));
    }
}
