//! Which of our addresses a packet leaves from, on a host that has several.
//!
//! A peer's NAT lets in what comes from the address that the peer spoke to. Of a peer with keys its port takes note, by
//! what was opened; of a relay its leg. Handshakes have neither yet: the last few are noted here. Where the host
//! has one address of a kind, nothing is noted, and the system chooses.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use super::path::Path;

/// Handshakes whose packets are answered within the same wakeup: more only come in a storm, and try again.
const NOTED_MAX: usize = 16;

/// The addresses that handshakes came to.
#[derive(Default)]
pub(super) struct Sources {
    keep: bool,
    noted: VecDeque<(SocketAddr, IpAddr)>,
}

impl Sources {
    /// Nothing is noted yet, and will be only if `keep`.
    pub(super) fn new(keep: bool) -> Self {
        Self { keep, noted: VecDeque::new() }
    }

    /// Whether it matters.
    pub(super) const fn are_kept(&self) -> bool {
        self.keep
    }

    /// A handshake packet came from `from` to `to`.
    pub(super) fn note(&mut self, from: SocketAddr, to: Option<IpAddr>) {
        let Some(to) = to else { return };
        self.noted.retain(|(known, _)| *known != from);
        self.noted.push_front((from, to));
        self.noted.truncate(NOTED_MAX);
    }

    /// Where the last handshake packet by `path` came to.
    pub(super) fn noted(&self, path: Path) -> Option<IpAddr> {
        self.noted.iter().find(|(from, _)| path == Path::Direct(*from)).map(|(_, to)| *to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_few_handshakes_is_answered_where_it_came_to() {
        let from = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let to = |last| IpAddr::from([198, 51, 100, last]);
        let mut sources = Sources::new(true);
        sources.note(from(1), Some(to(1)));
        sources.note(from(1), Some(to(2)));
        sources.note(from(2), None);
        assert_eq!([1, 2].map(|port| sources.noted(Path::Direct(from(port)))), [Some(to(2)), None]);
        (100..200).for_each(|port| sources.note(from(port), Some(to(3))));
        assert_eq!((sources.noted.len(), sources.noted(Path::Direct(from(1)))), (NOTED_MAX, None));
    }
}
