//! TCP over a link that loses 1 % and takes 20 ms, through longwire and without.
//!
//! The emulator takes 10 ms each way and loses single packets: its links carry no superframes.

use std::time::Duration;

use lab::{Impairment, poll_for};

use crate::candidate::{USUAL, Wanted, start_pair};
use crate::figure::Figure;
use crate::measure::{Values, iperf};
use crate::options::Pace;
use crate::stage::{Candidate, Scope, Stage};

/// One way.
const DELAY: Duration = Duration::from_millis(10);
const LOSS: f64 = 0.01;
/// For the guests to meet over such a link.
const MEETING: Duration = Duration::from_secs(30);
const LOSSY: Wanted = Wanted { overlay: "lossy", ..USUAL };

/// The hosts at both ends of the lossy link, and the guests behind them.
pub struct Lossy {
    candidates: [Candidate; 2],
}

impl Lossy {
    /// Two more hosts, a link of their own, longwire on them.
    pub fn stand(stage: &mut Stage) -> Result<Lossy, String> {
        let hosts = [("e", 1), ("f", 2)].map(|(name, last)| stage.lab.lone_host(name, [10, 92, 0, last].into()));
        let impairment = Impairment { delay: DELAY, loss: LOSS, ..Impairment::NONE };
        let [e, f] = &hosts;
        stage.lab.emulated_cable((e, "eth0", "10.92.0.1/24"), (f, "eth0", "10.92.0.2/24"), impairment);
        for host in &hosts {
            stage.join_supernode(host);
        }
        let pids = start_pair(stage, &hosts, LOSSY)?;
        let guests = stage.guests(&hosts, "br-lossy", 1500);
        let candidate = |name, [from, to]: [&lab::Space; 2], address, pids| Candidate {
            name,
            about: String::new(),
            mtu: 1500,
            from: from.clone(),
            to: to.clone(),
            address,
            pids,
            scope: Scope::OneStream,
        };
        let bare = candidate("bare", [&e.space, &f.space], f.address.into(), Vec::new());
        let tunnel = candidate("longwire", [&guests[0].space, &guests[1].space], guests[1].address.into(), pids);
        let to = tunnel.address.to_string();
        let answers = || tunnel.from.run(&["ping", "-c", "3", "-i", "0.2", "-W", "1", &to]).status.success();
        let direct = || stage.daemons.last().is_some_and(|daemon| daemon.path_to("e") == "direct");
        poll_for(MEETING, || (answers() && direct()).then_some(())).ok_or("guests on the lossy link do not meet")?;
        Ok(Lossy { candidates: [bare, tunnel] })
    }

    /// Four streams over each: notes Mb/s under the names of the usual candidates.
    pub fn run(&self, pace: &Pace, mut note: impl FnMut(&'static str, Result<Values, String>)) {
        for candidate in &self.candidates {
            let run = iperf(candidate, pace.warm_up, pace.lossy_seconds, &["-P", "4"]);
            note(candidate.name, run.map(|run| vec![(Figure::Lossy, run.bits_per_second / 1e6)]));
        }
    }
}
