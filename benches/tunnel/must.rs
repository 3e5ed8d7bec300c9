//! What must hold: ratios and limits, each judged round by round.

use serde_json::{Value, json};

use crate::candidate::PEERS;
use crate::figure::{Better, Figure, digits};
use crate::options::Underlay;
use crate::results::{Results, Spread};

/// What a figure is compared with.
enum Against {
    /// A limit: the figure itself.
    Nothing,
    /// Divided by the best of these.
    Best(&'static [&'static str]),
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// One thing that must hold.
pub struct Must {
    what: &'static str,
    underlay: Underlay,
    figure: Figure,
    of: &'static str,
    against: Against,
    bound: Bound,
}

/// What came of it.
pub struct Verdict {
    what: &'static str,
    underlay: Underlay,
    bound: String,
    spread: Option<Spread>,
    /// Rounds that gave a value.
    judged: usize,
    /// All of them.
    rounds: usize,
    holds: Option<bool>,
}

const VXLAN_AND_PEERS: [&str; 6] = ["vxlan", "vpncloud", "fastd", "tinc", "openvpn", "n2n"];

/// All that must hold.
pub fn all() -> Vec<Must> {
    use Against::{Best, Nothing};
    use Bound::{AtLeast, AtMost};
    use Underlay::{Offload, Software};
    let must = |what, underlay, figure, of, against, bound| Must { what, underlay, figure, of, against, bound };
    let own = |what, figure, against, bound| must(what, Offload, figure, "longwire", against, bound);
    let tcp = |what, underlay, of, against, bound| must(what, underlay, Figure::Tcp1, of, against, AtLeast(bound));
    vec![
        tcp("TCP x1 / best peer", Offload, "longwire", Best(&PEERS), 10.0),
        tcp("TCP x1 / VXLAN, VM MTU 1500 / 1450", Offload, "longwire", Best(&["vxlan"]), 0.4),
        tcp("TCP x1 / VXLAN, VM MTU 1400", Offload, "longwire-1400", Best(&["vxlan-1400"]), 0.5),
        tcp("TCP x1 / VXLAN, VM MTU 1500 / 1450", Software, "longwire", Best(&["vxlan"]), 0.75),
        tcp("TCP x1 / VXLAN, VM MTU 1400", Software, "longwire-1400", Best(&["vxlan-1400"]), 0.9),
        tcp("TCP x1 relayed / direct", Offload, "longwire-relayed", Best(&["longwire"]), 0.5),
        tcp("TCP x1 IPv6 / IPv4", Offload, "longwire-v6", Best(&["longwire"]), 0.9),
        tcp("TCP x1 VLAN-tagged / untagged", Offload, "longwire-vlan", Best(&["longwire"]), 0.9),
        own("TCP x4, 1 % loss, 20 ms / bare", Figure::Lossy, Best(&["bare"]), AtLeast(0.9)),
        own("daemons s/GB, AES-256-GCM", Figure::Cpu, Nothing, AtMost(0.9)),
        must("daemons s/GB, ChaCha20-Poly1305", Offload, Figure::Cpu, "longwire-chacha", Nothing, AtMost(1.9)),
        own("daemons s/GB, AES / best peer", Figure::Cpu, Best(&PEERS), AtMost(0.1)),
        must("daemons s/GB, ChaCha / best peer", Offload, Figure::Cpu, "longwire-chacha", Best(&PEERS), AtMost(0.1)),
        own("syscalls/MB", Figure::Calls, Nothing, AtMost(100.0)),
        own("64 B frames/s / best of VXLAN and peers", Figure::Frames, Best(&VXLAN_AND_PEERS), AtLeast(1.0)),
        own("UDP 1400 B / best peer", Figure::Udp, Best(&PEERS), AtLeast(2.0)),
        own("ping -f us", Figure::PingFlood, Nothing, AtMost(40.0)),
        own("ping under load us", Figure::PingLoaded, Nothing, AtMost(1000.0)),
        own("RSS MB", Figure::Memory, Nothing, AtMost(60.0)),
    ]
}

impl Must {
    /// Judges it by the medians of what each round gave.
    pub fn judge(&self, results: &Results) -> Verdict {
        let values = (0..results.rounds()).filter_map(|round| self.value(results, round)).collect::<Vec<_>>();
        let spread = Spread::of(values.iter().copied());
        let (bound, holds): (_, fn(f64, f64) -> bool) = match self.bound {
            Bound::AtLeast(bound) => (bound, |value, bound| value >= bound),
            Bound::AtMost(bound) => (bound, |value, bound| value <= bound),
        };
        let sign = if matches!(self.bound, Bound::AtLeast(_)) { ">=" } else { "<=" };
        Verdict {
            what: self.what,
            underlay: self.underlay,
            bound: format!("{sign} {bound}"),
            spread,
            judged: values.len(),
            rounds: results.rounds(),
            holds: spread.map(|spread| holds(spread.median, bound)),
        }
    }

    fn value(&self, results: &Results, round: usize) -> Option<f64> {
        let of = |name: &str| results.value(self.underlay, name, self.figure, round);
        let own = of(self.of)?;
        match self.against {
            Against::Nothing => Some(own),
            Against::Best(others) => {
                let values = others.iter().filter_map(|name| of(name));
                let best = match self.figure.better() {
                    Better::More => values.max_by(f64::total_cmp),
                    Better::Less => values.min_by(f64::total_cmp),
                };
                best.map(|best| own / best)
            }
        }
    }
}

impl Verdict {
    /// A row of the table: what, underlay, median with its spread, must, verdict. Where rounds failed, it says how many
    /// were judged.
    pub fn row(&self) -> [String; 5] {
        let value = self.spread.map_or("-".to_owned(), |spread| {
            let value = format!("{} [{} {}]", digits(spread.median), digits(spread.min), digits(spread.max));
            let (judged, rounds) = (self.judged, self.rounds);
            if judged < rounds { format!("{value}, {judged} of {rounds} rounds") } else { value }
        });
        let holds = match self.holds {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "-",
        };
        [self.what.into(), self.underlay.key().into(), value, self.bound.clone(), holds.into()]
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let spread = self.spread.map(|spread| json!([spread.min, spread.median, spread.max]));
        json!({
            "what": self.what,
            "underlay": self.underlay.key(),
            "min_median_max": spread,
            "rounds_judged": self.judged,
            "must": self.bound,
            "holds": self.holds,
        })
    }
}
