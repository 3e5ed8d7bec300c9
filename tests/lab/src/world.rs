//! The usual scene: a supernode, and nodes of one overlay, each at a site of its own with a guest.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::process::poll_for;
use super::{Daemon, Guest, Host, Join, Lab, Nat, Ping, Site, Supernode, fail, new_key};

/// The overlay's name in every world.
pub const OVERLAY: &str = "lan";

/// A node: `n1`, `n2` ... with the guest `g1`, `g2` ... on its `br0`.
pub struct Node {
    /// Its `longwire up`.
    pub daemon: Daemon,
    /// The machine behind it.
    pub guest: Guest,
    /// Where it runs.
    pub host: Host,
    /// Where that stands.
    pub site: Site,
}

/// The scene. Dropped, it is gone.
pub struct World {
    /// In order, `n1` first.
    pub nodes: Vec<Node>,
    /// The one that all know.
    pub supernode: Supernode,
    /// Where that runs.
    pub server: Host,
    /// The overlay's key line.
    pub key: String,
    /// What all of it stands in.
    pub lab: Lab,
}

/// The address of guest `number`, from 1.
pub fn inner_address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, u8::try_from(number).unwrap_or(u8::MAX))
}

impl Lab {
    /// A site of each kind, `s1`, `s2` ..., with a host `h1`, `h2` ...
    #[track_caller]
    pub fn places(&mut self, kinds: &[Nat]) -> Vec<(Site, Host)> {
        let place = |(number, nat): (usize, &Nat)| {
            let site = self.site(&format!("s{number}"), *nat);
            let host = self.host(&site, &format!("h{number}"));
            (site, host)
        };
        (1..).zip(kinds).map(place).collect()
    }
}

impl World {
    /// A site of each kind, with a node and a guest. Does not wait until they have met.
    #[track_caller]
    pub fn new(kinds: &[Nat]) -> World {
        World::new_with(kinds, "")
    }

    /// The same; `words` are more for the command of every node.
    #[track_caller]
    pub fn new_with(kinds: &[Nat], words: &str) -> World {
        let mut lab = Lab::new();
        let server = lab.supernode_host("sn");
        let places = lab.places(kinds);
        World::with_words(lab, server, places, &vec![words; kinds.len()])
    }

    /// The same with places already built. All boxes stand before the first daemon starts.
    #[track_caller]
    pub fn with_hosts(lab: Lab, server: Host, places: Vec<(Site, Host)>) -> World {
        World::with_words(lab, server, places, &[])
    }

    /// The same; `words` are more for the command of each node, as far as they reach, split at blanks.
    #[track_caller]
    pub fn with_words(mut lab: Lab, server: Host, places: Vec<(Site, Host)>, words: &[&str]) -> World {
        let key = new_key();
        let guests: Vec<Guest> = places
            .iter()
            .enumerate()
            .map(|(i, (_, host))| lab.guest(host, &format!("g{}", i + 1), inner_address(i + 1)))
            .collect();
        let supernode = Supernode::start(&lab, &server, &[]);
        let nodes = places
            .into_iter()
            .zip(guests)
            .enumerate()
            .map(|(i, ((site, host), guest))| {
                let join = Join::new(OVERLAY, &key, &format!("n{}", i + 1)).supernode(&supernode.address).bridge("br0");
                let words = words.get(i).copied().unwrap_or_default();
                let join = words.split_whitespace().fold(join, |join, word| join.word(word));
                Node { daemon: Daemon::start(&lab, &host, &join), guest, host, site }
            })
            .collect();
        World { nodes, supernode, server, key, lab }
    }

    /// Lets every guest ping every other one until all paths, seen from both ends, are of this
    /// kind; the time that took.
    #[track_caller]
    pub fn wait_paths(&self, kind: &str, timeout: Duration) -> Duration {
        let start = Instant::now();
        let pings = self.ping_everyone();
        let met = poll_for(timeout, || {
            let wrong = self.pairs().find(|(one, other)| {
                self.nodes[*one].daemon.path_to(&self.name(*other)) != kind
                    || self.nodes[*other].daemon.path_to(&self.name(*one)) != kind
            });
            let heard = |ping: &Ping| !ping.so_far().replies.is_empty();
            (wrong.is_none() && pings.iter().all(heard)).then_some(())
        });
        if met.is_none() {
            for ((one, other), ping) in self.pairs().zip(&pings) {
                eprintln!(
                    "n{} and n{}: {}, {} pings answered",
                    one + 1,
                    other + 1,
                    self.nodes[one].daemon.path_to(&self.name(other)),
                    ping.so_far().replies.len()
                );
            }
            fail(format_args!("not all paths are {kind} and alive within {timeout:?}"));
        }
        start.elapsed()
    }

    /// A ping from each guest to each one after it, five a second.
    pub fn ping_everyone(&self) -> Vec<Ping> {
        let interval = Duration::from_millis(200);
        self.pairs()
            .map(|(one, other)| {
                let to = self.nodes[other].guest.address;
                Ping::start(&self.nodes[one].guest.space, to, interval, &[])
            })
            .collect()
    }

    /// Each pair of nodes once, by index.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let count = self.nodes.len();
        (0..count).flat_map(move |one| (one + 1..count).map(move |other| (one, other)))
    }

    fn name(&self, index: usize) -> String {
        self.nodes[index].daemon.node.clone()
    }
}
