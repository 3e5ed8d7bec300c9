//! Frames that wait until what is reserved lets them go: in order for each peer, bounded, let go in small steps.
//! Of several peers the one is next for which the fewest bytes went (start-time fair queueing), so that big frames
//! get nobody more.
//!
//! A queue, since a policer alone holds TCP to a quarter of its cap where round trips are short: 5 Mb/s of 20 were
//! measured. The corridor has no clock: the control room is told that something waits ([`Notice::Shaped`]) and says
//! when to try again ([`Command::Release`](super::Command::Release)).

use std::collections::{BTreeSet, VecDeque};
use std::mem;

use super::fdb::PortId;
use super::reserve::{Reserve, Shares};
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
    /// In bytes, counted with those of all others ([`Datapath::turn`]): the least is next.
    turn: u64,
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

    /// This is reserved from now on. What waits goes first: nothing overtakes it where nothing is reserved any more.
    pub(super) fn set_reserve(&mut self, now: Time, shares: &Shares) {
        self.reserve = Reserve::new(shares);
        self.release(now);
    }

    /// What may go by now goes; whether anything still waits is told anew.
    pub(super) fn release(&mut self, now: Time) {
        let waiting = mem::take(&mut self.waiting);
        // Who had to wait when others had not claims nothing for it.
        let turn = |id: PortId| Some((self.ports.get(&id)?.shaped.turn.max(self.turn), id));
        let mut turns = waiting.into_iter().filter_map(turn).collect::<BTreeSet<_>>();
        while let Some((turn, id)) = turns.pop_first() {
            if let Some(Waiting { frame, work, how }) = self.next_admitted(now, id, turn) {
                turns.insert((turn + frame.len() as u64, id));
                self.send_now(now, id, &frame, work, how);
            } else if self.ports.get(&id).is_some_and(|port| !port.shaped.frames.is_empty()) {
                self.waiting.insert(id);
            }
        }
        if !self.waiting.is_empty() {
            self.notices.push_back(Notice::Shaped);
        }
    }

    fn next_admitted(&mut self, now: Time, id: PortId, turn: u64) -> Option<Waiting> {
        let port = self.ports.get_mut(&id)?;
        let bytes = port.shaped.frames.front()?.frame.len();
        let goes = self.reserve.as_mut().is_none_or(|reserve| reserve.admits(now, (port.overlay, id), bytes));
        if !goes {
            return None;
        }
        (self.turn, port.shaped.turn) = (turn, turn + bytes as u64);
        port.shaped.pop()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::datapath::buf::OverlayIndex;
    use crate::datapath::seal::SessionKeys;
    use crate::datapath::{Command, Path, Share, SwitchSettings};
    use crate::wire::data::Checksum;
    use crate::wire::handshake::Suite;
    use crate::wire::tree::ShortId;

    const PEERS: [PortId; 2] = [PortId(1), PortId(2)];

    /// A corridor with two peers that can be sent to.
    fn corridor(shares: Shares) -> Datapath {
        let mut datapath = Datapath::new(&[SwitchSettings::default()], &mut ChaCha20Rng::from_seed([7; 32]));
        for port in PEERS {
            let path = Some(Path::Direct(SocketAddr::from(([192, 0, 2, 1], 7777))));
            let (suite, index) = (Suite::ChaChaPoly, port.0);
            let keys = SessionKeys {
                suite,
                send: [1; 32],
                receive: [2; 32],
                local_index: index,
                remote_index: index,
                streams: false,
            };
            datapath.handle_command(
                Time::START,
                Command::OpenPort { port, overlay: OverlayIndex(0), short: ShortId(port.0) },
            );
            datapath.handle_command(Time::START, Command::UsePath { port, path });
            datapath.handle_command(Time::START, Command::Install { port, keys, confirmed: true });
        }
        datapath.handle_command(Time::START, Command::SetReserve { shares });
        datapath
    }

    fn send(datapath: &mut Datapath, now: Time, to: PortId, len: usize) {
        datapath.send(now, to, &vec![2; len], Work::Whole(Checksum::Finished), FrameKind::Direct);
    }

    #[test]
    fn who_sends_big_frames_gets_no_more_than_who_sends_small_ones() {
        let mut datapath = corridor(Shares { uplink: Some(1_000_000), ..Shares::default() });
        let sent = |datapath: &Datapath| PEERS.map(|peer| datapath.activity(peer).tx_bytes);
        let mut before = [0; 2];
        for step in 0..1500 {
            let now = Time::START + Duration::from_millis(2) * step;
            if step == 500 {
                before = sent(&datapath);
            }
            for (peer, len) in PEERS.into_iter().zip([1_400, 300]) {
                (0..10).for_each(|_| send(&mut datapath, now, peer, len));
            }
            datapath.handle_command(now, Command::Release);
        }
        let [big, small] = sent(&datapath);
        let shares = [big - before[0], small - before[1]];
        assert!(shares[0].abs_diff(shares[1]) < 5_000, "{shares:?} bytes in 2 s");
        assert!(shares.iter().sum::<u64>().abs_diff(2_000_000) < 100_000, "{shares:?} bytes in 2 s");
    }

    #[test]
    fn nothing_overtakes_what_waits_when_nothing_is_reserved_any_more() {
        let share = Share { cap: Some(1_000), rate: None };
        let mut datapath = corridor(Shares { peers: [(PEERS[0], share)].into(), ..Shares::default() });
        (0..100).for_each(|_| send(&mut datapath, Time::START, PEERS[0], 1_000));
        assert!(datapath.transmits.iter().count() < 100, "some wait");
        datapath.handle_command(Time::START, Command::SetReserve { shares: Shares::default() });
        send(&mut datapath, Time::START, PEERS[0], 500);
        let lengths = datapath.transmits.iter().map(|(packet, _)| packet.len()).collect::<Vec<_>>();
        assert_eq!(lengths.len(), 101);
        assert_eq!(lengths.iter().position(|len| *len < 1_000), Some(100), "the last one sent");
    }

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
