//! Links with a rate: token buckets of the kernel (htb), with short queues.
//!
//! Two traps: rates that classes are guaranteed must not add up past their parent's, so each has a small one and its
//! own rate as the ceiling; and a large burst would let whole trains pass at the speed of the sender.

use std::net::Ipv4Addr;

use super::{Space, fail};

/// What may leave at once, after a pause.
const BURST: &str = "burst 16k cburst 16k";
/// How long the last byte of a full queue waits, in seconds: as in the routers of access networks.
const QUEUE: f64 = 0.05;
/// And no queue is shorter: ten packets.
const QUEUE_MIN: u32 = 15_000;
/// What a class is sure of, in Mb/s.
const SURE: f64 = 0.1;

/// How packets are told apart.
#[derive(Clone, Copy, Debug)]
pub enum By {
    /// By the address they come from.
    Source,
    /// By the address they go to.
    Destination,
}

/// What leaves by a link, in Mb/s.
#[derive(Clone, Copy, Debug)]
pub struct Rates<'a> {
    /// All together.
    pub all: f64,
    /// What has no rate of its own.
    pub rest: f64,
    /// How the others are told apart.
    pub by: By,
    /// The others.
    pub parts: &'a [(Ipv4Addr, f64)],
}

impl Rates<'_> {
    /// One rate and one queue for everything.
    pub const fn whole(rate: f64) -> Self {
        Self { all: rate, rest: rate, by: By::Destination, parts: &[] }
    }
}

impl Space {
    /// Gives what leaves by a link its rates. It has none yet.
    #[track_caller]
    pub fn shape(&self, link: &str, rates: Rates<'_>) {
        let Rates { all, rest, by, parts } = rates;
        self.tc(&format!("qdisc add dev {link} root handle 1: htb default 99 r2q 100"));
        self.tc(&format!("class add dev {link} parent 1: classid 1:1 htb rate {all}mbit ceil {all}mbit {BURST}"));
        self.class(link, 99, rest);
        let side = match by {
            By::Source => "src",
            By::Destination => "dst",
        };
        for (number, (address, rate)) in (10..).zip(parts) {
            self.class(link, number, *rate);
            let matched = format!("u32 match ip {side} {address}/32 flowid 1:{number}");
            self.tc(&format!("filter add dev {link} parent 1: protocol ip prio 5 {matched}"));
        }
    }

    fn class(&self, link: &str, number: u32, rate: f64) {
        let rates = format!("rate {}mbit ceil {rate}mbit {BURST} quantum 3000", SURE.min(rate));
        self.tc(&format!("class add dev {link} parent 1:1 classid 1:{number} htb {rates}"));
        // A cast of a float saturates.
        let limit = ((rate * 1e6 / 8.0 * QUEUE) as u32).max(QUEUE_MIN);
        self.tc(&format!("qdisc add dev {link} parent 1:{number} bfifo limit {limit}"));
    }

    fn tc(&self, words: &str) {
        let words: Vec<&str> = ["tc"].into_iter().chain(words.split_whitespace()).collect();
        let output = self.run(&words);
        if !output.status.success() {
            fail(format_args!("{}: {words:?}: {}", self.name(), String::from_utf8_lossy(&output.stderr).trim()));
        }
    }
}
