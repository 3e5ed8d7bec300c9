//! How many links a node keeps awake: keys, probes and keepalives are for these.

/// In each overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkBudget {
    /// Up to so many other members, every link is awake. Of more, so many may stay awake though nothing uses them.
    pub soft: usize,
    /// Of more, links that are used are awake up to this many; the others' frames go by a supernode.
    pub hard: usize,
}

impl Default for LinkBudget {
    /// An idle link costs each end 14 bytes per second: 0.9 kB/s for 64. All-to-all traffic of 64 hosts needs that many;
    /// with fewer it drops to two thirds.
    fn default() -> Self {
        Self { soft: 64, hard: 256 }
    }
}
