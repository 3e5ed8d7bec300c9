//! Two machines that talk while something happens: a numbered stream each way, a TCP transfer beside them that must
//! survive.

use std::time::Duration;

use super::process::wait_for;
use super::{Guest, Ping, Stream, StreamReport, Transfer, fail};

/// Datagrams per second of a stream.
const RATE: u32 = 200;

/// How long it may take until anything crosses.
const MEETING: Duration = Duration::from_secs(20);

/// The streams run this long before anything happens.
const BEFORE: Duration = Duration::from_secs(1);

/// In this time TCP must have carried something at the end: its timer may have been doubled a few times.
const STIRS: Duration = Duration::from_secs(4);

/// A running talk.
pub struct Talk {
    streams: [Stream; 2],
    transfer: Transfer,
}

impl Talk {
    /// Begins when a ping is answered.
    #[track_caller]
    pub fn start(one: &Guest, other: &Guest) -> Talk {
        Ping::until_answered(&one.space, other.address, MEETING);
        let streams =
            [(one, other), (other, one)].map(|(from, to)| Stream::start(&from.space, (&to.space, to.address), RATE));
        let transfer = Transfer::start(&other.space, (&one.space, one.address));
        std::thread::sleep(BEFORE);
        Talk { streams, transfer }
    }

    /// Ends it: what the streams found, from the first machine and to it. Fails if TCP stands still or broke, or if
    /// anything came twice.
    #[track_caller]
    pub fn finish(self) -> [StreamReport; 2] {
        let before = self.transfer.so_far();
        wait_for("the TCP transfer goes on", STIRS, || (self.transfer.so_far() > before).then_some(()));
        let bytes = self.transfer.finish();
        let reports = self.streams.map(Stream::finish);
        if reports.iter().any(|report| report.duplicates() > 0) {
            fail("datagrams came twice");
        }
        let holes = reports.each_ref().map(StreamReport::longest_hole);
        eprintln!("longest holes from and to the host: {holes:?}; TCP carried {bytes} bytes");
        reports
    }

    /// The same; nothing may have been missing for longer than `limit`.
    #[track_caller]
    pub fn finish_within(self, limit: Duration) {
        let holes = self.finish().each_ref().map(StreamReport::longest_hole);
        if holes.iter().any(|hole| *hole > limit) {
            fail(format_args!("nothing passed for {holes:?}, {limit:?} are allowed"));
        }
    }
}

/// Tries cases that have nothing to do with each other at once; fails if one does.
pub fn at_once<C: Sync>(cases: &[C], run: impl Fn(&C) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| run(case));
        }
    });
}
