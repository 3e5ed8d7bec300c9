//! SESSION messages between two members, inside the seal (protocol.md section 5).

use std::net::SocketAddr;

use super::carry::{Carry, Leg, Neighbours};
use super::codec::{DecodeError, Reader, Writer};
use super::inventory::{INVENTORY, Inventory};
use super::observe::NatClass;
use crate::keys::NodeId;

pub use super::candidate::{Candidate, CandidateKind};
pub use super::claim::{ClaimReason, Moved};

/// Most candidates in one message.
pub const CANDIDATES_MAX: usize = 16;
/// The place of a candidate that holds the sender's NAT class instead: older versions skip it.
const NAT_CLASS: u8 = 7;
/// What fills a PROBE to the length of its ANSWER.
const PROBE_PADDING: usize = 13;
/// The least that follows the token of an MTU_PROBE: its answer is not longer.
const MTU_PADDING: usize = 2;
/// First byte of a CLAIM, which the corridor reads itself: it is about its table, and frames follow it.
pub const CLAIM: u8 = 0x08;

/// A socket opened for a search, behind a NAT that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    /// Where a supernode sees it.
    pub at: SocketAddr,
    /// From there to the port of the next remote.
    pub step: i8,
}

/// Where a search by two members stands (protocol.md section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchStep {
    /// "Let us search."
    Begin,
    /// "I have begun."
    Go,
    /// "Ask again soon: I am busy."
    Later,
    /// "Enough."
    Stop,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// "Do you hear me here?"
    Probe {
        /// Comes back in the answer.
        token: u64,
        /// When it left, by the sender's clock in microseconds modulo 2^32; 0: not told.
        sent: u32,
        /// The sender's frames go another way; false if no time is told.
        is_spare: bool,
    },
    /// "I heard you, and there."
    Answer {
        /// Of the probe.
        token: u64,
        /// Where the probe came from; `None` through a relay.
        seen: Option<SocketAddr>,
    },
    /// "Try me here, now."
    Candidates {
        /// Counts this sender's rounds.
        round: u32,
        /// The receiver shall send its own.
        wants_answer: bool,
        /// At most [`CANDIDATES_MAX`], together with `nat`.
        list: Vec<Candidate>,
        /// How the sender's NAT behaves, if it knows.
        nat: Option<NatClass>,
    },
    /// A word of a search for a direct path.
    Search {
        /// Which word.
        step: SearchStep,
        /// The socket that the sender opened for it, if its NAT counts.
        door: Option<Door>,
    },
    /// "I leave."
    Close,
    /// "I have the keys."
    Confirm,
    /// "Does a packet as long as this one come through?"
    MtuProbe {
        /// Comes back in the answer.
        token: u64,
    },
    /// "It came."
    MtuAnswer {
        /// Of the probe.
        token: u64,
        /// How many bytes of UDP payload it had.
        size: u16,
    },
    /// "Packets of yours that were so long came through."
    Received {
        /// The longest plain part of a DATA packet since the last such message.
        longest: u16,
    },
    /// "These I reach directly."
    Neighbours(Neighbours),
    /// "Carry what I send to this member."
    Carry(Carry),
    /// "Here is your leg", or "no".
    Leg(Leg),
    /// "Your loop probe came out of my TAP. Did you send it just now?"
    ProbeHeard {
        /// What it told.
        token: u64,
    },
    /// "I did."
    ProbeSent {
        /// What it told.
        token: u64,
    },
    /// "This address is behind my TAP now."
    Claim {
        /// Which.
        moved: Moved,
        /// Why.
        reason: ClaimReason,
    },
    /// "You look for this address here, or claim it with too low a sequence: it is there."
    Location {
        /// Which.
        moved: Moved,
        /// The node.
        owner: NodeId,
    },
    /// "This is behind my TAP."
    Inventory(Inventory),
    /// "I keep this link awake no more, since nothing uses it."
    Sleep,
}

impl Message {
    /// Reads one; never more than it should be, never a panic.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let message = match reader.u8()? {
            0x01 => {
                let (token, sent, is_spare) = (reader.u64()?, reader.u32()?, reader.u8()? & 1 != 0);
                reader.reserved(PROBE_PADDING)?;
                Self::Probe { token, sent, is_spare }
            }
            0x02 => {
                let token = reader.u64()?;
                let addr = reader.addr()?;
                Self::Answer { token, seen: Some(addr).filter(|addr| addr.port() != 0) }
            }
            0x03 => Self::parse_candidates(&mut reader)?,
            0x04 => {
                reader.u8()?;
                Self::Close
            }
            0x05 => Self::Confirm,
            0x06 => {
                let token = reader.u64()?;
                reader.reserved(reader.rest().len().max(MTU_PADDING))?;
                Self::MtuProbe { token }
            }
            0x07 => Self::MtuAnswer { token: reader.u64()?, size: reader.u16()? },
            0x0d => Self::Received { longest: reader.u16()? },
            0x0c => {
                let step = match reader.u8()? {
                    1 => SearchStep::Begin,
                    2 => SearchStep::Go,
                    3 => SearchStep::Later,
                    4 => SearchStep::Stop,
                    _ => return Err(DecodeError::Range),
                };
                let [stride] = reader.array()?;
                let door = Door { step: i8::from_be_bytes([stride]), at: reader.addr()? };
                Self::Search { step, door: Some(door).filter(|door| door.at.port() != 0) }
            }
            0x10 => Self::Neighbours(Neighbours::parse(&mut reader)?),
            0x11 => Self::Carry(Carry::parse(&mut reader)?),
            0x12 => Self::Leg(Leg::parse(&mut reader)?),
            CLAIM => {
                let reason = ClaimReason::of(reader.u8()?).ok_or(DecodeError::Range)?;
                Self::Claim { moved: Moved::read(&mut reader)?, reason }
            }
            0x09 => Self::Location { moved: Moved::read(&mut reader)?, owner: NodeId(reader.array()?) },
            INVENTORY => Self::Inventory(Inventory::parse(&mut reader)?),
            0x0a => Self::ProbeHeard { token: reader.u64()? },
            0x0b => Self::ProbeSent { token: reader.u64()? },
            0x19 => Self::Sleep,
            _ => return Err(DecodeError::Range),
        };
        reader.end()?;
        Ok(message)
    }

    fn parse_candidates(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let round = reader.u32()?;
        let flags = reader.u8()?;
        let count = usize::from(reader.u8()?);
        if flags > 1 || count > CANDIDATES_MAX {
            return Err(DecodeError::Range);
        }
        let (mut list, mut nat) = (Vec::with_capacity(count), None);
        for _ in 0..count {
            if reader.rest().first() == Some(&NAT_CLASS) {
                reader.u8()?;
                nat = NatClass::read(reader)?;
            } else {
                list.extend(Candidate::read(reader)?);
            }
        }
        Ok(Self::Candidates { round, wants_answer: flags == 1, list, nat })
    }

    /// Its bytes; an MTU_PROBE is as short as can be, zeros behind it make it longer.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Probe { token, sent, is_spare } => {
                let writer = Writer::new().u8(0x01).u64(*token).u32(*sent).u8(u8::from(*is_spare));
                writer.reserved(PROBE_PADDING).finish()
            }
            Self::Answer { token, seen } => {
                let writer = Writer::new().u8(0x02).u64(*token);
                match seen {
                    Some(addr) => writer.addr(*addr),
                    None => writer.reserved(18),
                }
                .finish()
            }
            Self::Candidates { round, wants_answer, list, nat } => {
                let list = &list[..list.len().min(CANDIDATES_MAX - usize::from(nat.is_some()))];
                let count = u8::try_from(list.len() + usize::from(nat.is_some())).expect("cut to the limit above");
                let writer = Writer::new().u8(0x03).u32(*round).u8(u8::from(*wants_answer)).u8(count);
                let writer = list.iter().fold(writer, |writer, candidate| candidate.write(writer));
                match nat {
                    Some(nat) => nat.write(writer.u8(NAT_CLASS)),
                    None => writer,
                }
                .finish()
            }
            Self::Search { step, door } => {
                let step = match step {
                    SearchStep::Begin => 1,
                    SearchStep::Go => 2,
                    SearchStep::Later => 3,
                    SearchStep::Stop => 4,
                };
                let writer = Writer::new().u8(0x0c).u8(step);
                match door {
                    Some(door) => writer.bytes(&door.step.to_be_bytes()).addr(door.at),
                    None => writer.reserved(19),
                }
                .finish()
            }
            Self::Close => Writer::new().u8(0x04).u8(0).finish(),
            Self::Confirm => Writer::new().u8(0x05).finish(),
            Self::MtuProbe { token } => Writer::new().u8(0x06).u64(*token).reserved(MTU_PADDING).finish(),
            Self::MtuAnswer { token, size } => Writer::new().u8(0x07).u64(*token).u16(*size).finish(),
            Self::Received { longest } => Writer::new().u8(0x0d).u16(*longest).finish(),
            Self::Neighbours(neighbours) => neighbours.write(Writer::new().u8(0x10)).finish(),
            Self::Carry(carry) => carry.write(Writer::new().u8(0x11)).finish(),
            Self::Leg(leg) => leg.write(Writer::new().u8(0x12)).finish(),
            Self::Inventory(inventory) => inventory.write(Writer::new().u8(INVENTORY)).finish(),
            Self::Sleep => Writer::new().u8(0x19).finish(),
            Self::ProbeHeard { token } => Writer::new().u8(0x0a).u64(*token).finish(),
            Self::ProbeSent { token } => Writer::new().u8(0x0b).u64(*token).finish(),
            Self::Claim { moved, reason } => moved.write(Writer::new().u8(CLAIM).u8(reason.byte())).finish(),
            Self::Location { moved, owner } => moved.write(Writer::new().u8(0x09)).bytes(&owner.0).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::carry::{Grant, Neighbour};
    use super::super::inventory::{Binding, Item};
    use super::super::observe::{Filtering, Mapping, Ports};
    use super::super::relay::{LegKey, RelayId};
    use super::*;
    use crate::keys::NodeId;
    use proptest::prelude::*;

    const MOVED: Moved = Moved { vlan: 10, mac: [2, 0, 0, 0, 0, 9], sequence: 3 };

    #[test]
    fn nobody_claims_a_group_or_a_vlan_that_cannot_be() {
        for moved in [Moved { mac: [0xff; 6], ..MOVED }, Moved { mac: [0; 6], ..MOVED }, Moved { vlan: 4096, ..MOVED }]
        {
            let bytes = Message::Claim { moved, reason: ClaimReason::Heard }.bytes();
            assert_eq!(Message::parse(&bytes), Err(DecodeError::Range));
        }
    }

    fn items() -> Vec<Item> {
        let one = Binding { vlan: 7, ip: [10, 0, 0, 1].into(), mac: [2, 0, 0, 0, 0, 9], is_router: false };
        let six = Binding { ip: std::net::Ipv6Addr::LOCALHOST.into(), is_router: true, ..one };
        let group = Binding::of_group([239, 1, 2, 3].into());
        [(one, true), (six, false), (group, false)].map(|(binding, is_gone)| Item { binding, is_gone }).into()
    }

    fn all() -> Vec<Message> {
        let v4 = "198.51.100.7:7777".parse().expect("address");
        let v6 = "[2001:db8::1]:1".parse().expect("address");
        vec![
            Message::Probe { token: 5, sent: 7, is_spare: true },
            Message::Answer { token: 5, seen: Some(v4) },
            Message::Answer { token: u64::MAX, seen: None },
            Message::Candidates {
                round: 3,
                wants_answer: true,
                list: vec![
                    Candidate { kind: CandidateKind::Host, addr: v6 },
                    Candidate { kind: CandidateKind::Reflexive, addr: v4 },
                    Candidate { kind: CandidateKind::Mapped, addr: v4 },
                ],
                nat: Some(NatClass {
                    mapping: Mapping::PerPort,
                    filtering: Some(Filtering::PerPort),
                    ports: Ports::Counting(-2),
                }),
            },
            Message::Neighbours(Neighbours {
                wants_answer: true,
                list: vec![Neighbour { node: NodeId([4; 32]), rtt_us: 20_000 }],
            }),
            Message::Carry(Carry { node: NodeId([4; 32]), wanted: false }),
            Message::Leg(Leg { node: NodeId([4; 32]), grant: None }),
            Message::Leg(Leg {
                node: NodeId([4; 32]),
                grant: Some(Grant { own: RelayId(7), key: LegKey([8; 16]), peer: RelayId(9) }),
            }),
            Message::Close,
            Message::Confirm,
            Message::Sleep,
            Message::Search { step: SearchStep::Begin, door: Some(Door { at: v4, step: -1 }) },
            Message::Search { step: SearchStep::Later, door: None },
            Message::ProbeHeard { token: 8 },
            Message::ProbeSent { token: 8 },
            Message::Claim { moved: MOVED, reason: ClaimReason::Announced },
            Message::Location { moved: MOVED, owner: NodeId([7; 32]) },
            Message::Inventory(Inventory { is_anew: true, wants_answer: true, digest: 7, ..Inventory::default() }),
            Message::Inventory(Inventory { has_more: true, items: items(), ..Inventory::default() }),
            Message::MtuAnswer { token: 6, size: 1472 },
            Message::MtuProbe { token: 6 },
        ]
    }

    #[test]
    fn every_message_survives_its_bytes() {
        for message in all() {
            assert_eq!(Message::parse(&message.bytes()).as_ref(), Ok(&message));
        }
    }

    #[test]
    fn an_answer_is_not_longer_than_its_probe() {
        let [probe, answer, .., mtu_answer, mtu_probe] = &all()[..] else { panic!("they are first and last") };
        assert!(answer.bytes().len() <= probe.bytes().len());
        assert!(mtu_answer.bytes().len() <= mtu_probe.bytes().len());
    }

    #[test]
    fn an_mtu_probe_is_as_long_as_its_zeros() {
        let probe = Message::MtuProbe { token: 7 };
        let long = [probe.bytes(), vec![0; 1400]].concat();
        assert_eq!(Message::parse(&long), Ok(probe));
        assert_eq!(Message::parse(&[long, vec![1]].concat()), Err(DecodeError::Reserved));
    }

    #[test]
    fn a_probe_that_tells_no_time_is_what_members_of_before_send() {
        let before = [&[0x01][..], &5_u64.to_be_bytes(), &[0; 18]].concat();
        assert_eq!(Message::Probe { token: 5, sent: 0, is_spare: false }.bytes(), before);
        assert_eq!(Message::parse(&before), Ok(Message::Probe { token: 5, sent: 0, is_spare: false }));
    }

    #[test]
    fn a_cut_or_longer_message_is_refused() {
        for message in all() {
            let bytes = message.bytes();
            for len in 0..bytes.len() {
                assert!(Message::parse(&bytes[..len]).is_err(), "{message:?} cut to {len}");
            }
            if !matches!(message, Message::MtuProbe { .. }) {
                assert_eq!(Message::parse(&[bytes, vec![0]].concat()), Err(DecodeError::Long));
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(message) = Message::parse(&bytes) {
                prop_assert_eq!(Message::parse(&message.bytes()), Ok(message));
            }
        }
    }
}
