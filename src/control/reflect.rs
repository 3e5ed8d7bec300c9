//! Answering OBSERVE: a supernode tells strangers where it sees them.
//!
//! An answer is never longer than its question and goes nowhere but to the question's source, so that nobody
//! can be flooded with more than was sent; and each address may ask only so often. Keeps nothing else.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::customer::customer;
use crate::datapath::limit::Bucket;
use crate::time::Time;
use crate::wire::observe::{Observe, Observed};

/// Questions of one address (of one /48 for IPv6) answered per second.
const ADDRESS_RATE: u32 = 20;
/// And at once: a site of thirty nodes that start together.
const ADDRESS_BURST: u32 = 200;
/// Questions of the world answered per second: 2 Mbit/s.
const WORLD_RATE: u32 = 5000;
/// Addresses remembered; beyond that all are forgotten, and the limit of the world holds alone.
const CAPACITY: usize = 4096;

/// An answer, and by which socket it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The packet, for where the question came from.
    pub bytes: Vec<u8>,
    /// By the socket that nobody ever sends to, not by the one that was asked.
    pub elsewhere: bool,
}

/// What a supernode needs to answer.
#[derive(Debug)]
pub struct Reflector {
    other: Option<SocketAddr>,
    limits: BTreeMap<IpAddr, Bucket>,
    world: Bucket,
}

impl Reflector {
    /// `other` is the second place to ask; without an IP address it is at the address that was asked.
    pub fn new(other: Option<SocketAddr>) -> Self {
        Self { other, limits: BTreeMap::new(), world: Bucket::new(WORLD_RATE, WORLD_RATE) }
    }

    /// Answers a question; not one that is malformed, or one too many.
    pub fn answer(&mut self, now: Time, from: SocketAddr, question: &[u8]) -> Option<Answer> {
        let Observe { token, elsewhere } = Observe::parse(question).ok()?;
        if (elsewhere && self.other.is_none()) || !self.admits(now, from.ip()) {
            return None;
        }
        let answer = Observed { token, elsewhere, seen: from, other: self.other };
        Some(Answer { bytes: answer.bytes(), elsewhere })
    }

    fn admits(&mut self, now: Time, from: IpAddr) -> bool {
        let key = customer(from);
        if self.limits.len() >= CAPACITY && !self.limits.contains_key(&key) {
            self.limits.clear();
        }
        let limit = self.limits.entry(key).or_insert_with(|| Bucket::new(ADDRESS_RATE, ADDRESS_BURST));
        limit.take(now) && self.world.take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ask(reflector: &mut Reflector, now: Time, from: &str, elsewhere: bool) -> Option<Answer> {
        let question = Observe { token: 5, elsewhere }.bytes();
        let answer = reflector.answer(now, from.parse().expect("address"), &question)?;
        assert!(answer.bytes.len() <= question.len());
        Some(answer)
    }

    #[test]
    fn the_asker_learns_where_it_is_seen_and_no_more_bytes_than_it_sent() {
        let other = "[::]:7778".parse().ok();
        let mut reflector = Reflector::new(other);
        let answer = ask(&mut reflector, Time::START, "198.51.100.7:99", true).expect("an answer");
        let seen = "198.51.100.7:99".parse().expect("address");
        assert_eq!(Observed::parse(&answer.bytes), Ok(Observed { token: 5, elsewhere: true, seen, other }));
        assert!(answer.elsewhere);
        assert_eq!(ask(&mut Reflector::new(None), Time::START, "198.51.100.7:99", true), None);
    }

    #[test]
    fn an_address_may_ask_only_so_often_and_its_ports_are_no_way_round() {
        let mut reflector = Reflector::new(None);
        let asked = |reflector: &mut Reflector, now, ip: &str| {
            (1..1000).filter(|port| ask(reflector, now, &format!("{ip}:{port}"), false).is_some()).count()
        };
        let now = Time::START + Duration::from_secs(1);
        assert_eq!(asked(&mut reflector, now, "198.51.100.7"), 200);
        assert_eq!(asked(&mut reflector, now + Duration::from_secs(1), "198.51.100.7"), 20);
        assert_eq!(asked(&mut reflector, now, "[2001:db8::1]"), 200);
        assert_eq!(asked(&mut reflector, now, "[2001:db8::2]"), 0, "the same customer");
    }

    #[test]
    fn a_world_of_addresses_takes_bounded_room_and_time() {
        let mut reflector = Reflector::new(None);
        let addresses = (0..20_000_u32).map(|n| SocketAddr::from(((0x0b00_0000 + n).to_be_bytes(), 9)));
        let question = Observe { token: 5, elsewhere: false }.bytes();
        let answered = addresses.filter(|from| reflector.answer(Time::START, *from, &question).is_some()).count();
        assert_eq!(answered, WORLD_RATE as usize);
        assert!(reflector.limits.len() <= CAPACITY);
    }

    #[test]
    fn nonsense_is_not_answered() {
        let mut reflector = Reflector::new(None);
        let from = "198.51.100.7:99".parse().expect("address");
        for len in 0..100 {
            assert_eq!(reflector.answer(Time::START, from, &vec![0x0a; len]), None);
        }
    }
}
