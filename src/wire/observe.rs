//! OBSERVE and OBSERVED: "where do you see me?" without a control link, and what is learned from the answers.
//!
//! A question is as long as its answer, so that nobody can make a supernode send more than was sent to it.
//! Read first: protocol.md section 8; RFC 5780 section 4 for what the questions are good for.

use std::net::{Ipv6Addr, SocketAddr};

use super::codec::{DecodeError, Reader, Writer};

/// First byte of a question.
pub const OBSERVE: u8 = 0x0a;
/// First byte of an answer.
pub const OBSERVED: u8 = 0x0b;
/// First byte of a packet that opens a NAT and says nothing.
pub const OPENER: u8 = 0x0d;
/// Bytes of a question, and of an answer.
pub const LEN: usize = 48;
/// Where the answer has its addresses.
const PADDING: usize = 36;

/// "Where do you see me?"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observe {
    /// Comes back.
    pub token: u64,
    /// The answer shall come from a port that we never sent to.
    pub elsewhere: bool,
}

/// "There."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Of the question.
    pub token: u64,
    /// It comes from a port that the asker never sent to.
    pub elsewhere: bool,
    /// Where the question came from.
    pub seen: SocketAddr,
    /// Where the same supernode can be asked too; without an IP address it is the one that was asked.
    pub other: Option<SocketAddr>,
}

impl Observe {
    /// Reads one.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let (elsewhere, token) = head(&mut reader, OBSERVE)?;
        reader.reserved(PADDING)?;
        reader.end()?;
        Ok(Self { token, elsewhere })
    }

    /// Its bytes.
    pub fn bytes(self) -> Vec<u8> {
        start(OBSERVE, self.elsewhere, self.token).reserved(PADDING).finish()
    }
}

impl Observed {
    /// Reads one.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let (elsewhere, token) = head(&mut reader, OBSERVED)?;
        let (seen, other) = (reader.addr()?, reader.addr()?);
        reader.end()?;
        Ok(Self { token, elsewhere, seen, other: Some(other).filter(|other| other.port() != 0) })
    }

    /// Its bytes.
    pub fn bytes(self) -> Vec<u8> {
        let nowhere = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
        start(OBSERVED, self.elsewhere, self.token).addr(self.seen).addr(self.other.unwrap_or(nowhere)).finish()
    }

    /// The other place to ask, for who asked at `asked`.
    pub fn other_of(&self, asked: SocketAddr) -> Option<SocketAddr> {
        let other = self.other?;
        Some(if other.ip().is_unspecified() { SocketAddr::new(asked.ip(), other.port()) } else { other })
    }
}

fn start(first: u8, elsewhere: bool, token: u64) -> Writer {
    Writer::new().u8(first).u8(u8::from(elsewhere)).reserved(2).u64(token)
}

fn head(reader: &mut Reader<'_>, first: u8) -> Result<(bool, u64), DecodeError> {
    let (kind, flags) = (reader.u8()?, reader.u8()?);
    if kind != first || flags > 1 {
        return Err(DecodeError::Range);
    }
    reader.reserved(2)?;
    Ok((flags == 1, reader.u64()?))
}

/// What the outside address of a socket depends on (RFC 4787 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mapping {
    /// There is no translator.
    None,
    /// On the socket alone.
    Independent,
    /// On the remote address too.
    PerAddress,
    /// On the remote address and port.
    PerPort,
}

/// Who is let in (RFC 4787 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filtering {
    /// Everybody.
    Independent,
    /// Every port of an address that was sent to, or more than that.
    PerAddress,
    /// The address and port that were sent to.
    PerPort,
}

/// How outside ports are chosen (RFC 4787 section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// The inside port.
    Kept,
    /// Another one that does not change from remote to remote.
    Changed,
    /// The last one and this much, for each new remote.
    Counting(i8),
    /// By chance, for each new remote.
    Random,
}

/// How the NATs and firewalls in front of a socket behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NatClass {
    /// What the outside address depends on.
    pub mapping: Mapping,
    /// Who is let in; `None` if nobody could be asked.
    pub filtering: Option<Filtering>,
    /// How outside ports are chosen.
    pub ports: Ports,
}

impl NatClass {
    /// As it stands in the place of an address: 18 bytes.
    pub(super) fn write(self, writer: Writer) -> Writer {
        let mapping = match self.mapping {
            Mapping::None => 1,
            Mapping::Independent => 2,
            Mapping::PerAddress => 3,
            Mapping::PerPort => 4,
        };
        let filtering = match self.filtering {
            None => 0,
            Some(Filtering::Independent) => 1,
            Some(Filtering::PerAddress) => 2,
            Some(Filtering::PerPort) => 3,
        };
        let (ports, step) = match self.ports {
            Ports::Kept => (1, 0),
            Ports::Changed => (2, 0),
            Ports::Counting(step) => (3, step),
            Ports::Random => (4, 0),
        };
        writer.u8(mapping).u8(filtering).u8(ports).bytes(&step.to_be_bytes()).reserved(14)
    }

    /// `None` for what a later version may say.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        let [mapping, filtering, ports, step] = reader.array()?;
        reader.bytes(14)?;
        let mapping = match mapping {
            1 => Mapping::None,
            2 => Mapping::Independent,
            3 => Mapping::PerAddress,
            4 => Mapping::PerPort,
            _ => return Ok(None),
        };
        let filtering = match filtering {
            0 => None,
            1 => Some(Filtering::Independent),
            2 => Some(Filtering::PerAddress),
            3 => Some(Filtering::PerPort),
            _ => return Ok(None),
        };
        let ports = match ports {
            1 => Ports::Kept,
            2 => Ports::Changed,
            3 => Ports::Counting(i8::from_be_bytes([step])),
            4 => Ports::Random,
            _ => return Ok(None),
        };
        Ok(Some(Self { mapping, filtering, ports }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Observed {
        let seen = "198.51.100.7:7777".parse().expect("address");
        Observed { token: 7, elsewhere: true, seen, other: "[::]:7778".parse().ok() }
    }

    #[test]
    fn a_question_is_as_long_as_its_answer_and_both_survive_their_bytes() {
        let question = Observe { token: 7, elsewhere: false };
        assert_eq!((question.bytes().len(), answer().bytes().len()), (LEN, LEN));
        assert_eq!(Observe::parse(&question.bytes()), Ok(question));
        assert_eq!(Observed::parse(&answer().bytes()), Ok(answer()));
        let alone = Observed { other: None, ..answer() };
        assert_eq!(Observed::parse(&alone.bytes()), Ok(alone));
    }

    #[test]
    fn a_cut_longer_or_unpadded_one_is_refused() {
        let question = Observe { token: 7, elsewhere: true }.bytes();
        for len in 0..LEN {
            assert!(Observe::parse(&question[..len]).is_err());
            assert!(Observed::parse(&answer().bytes()[..len]).is_err());
        }
        assert_eq!(Observe::parse(&[question.clone(), vec![0]].concat()), Err(DecodeError::Long));
        let mut strange = question;
        strange[LEN - 1] = 1;
        assert_eq!(Observe::parse(&strange), Err(DecodeError::Reserved));
    }

    #[test]
    fn the_other_place_is_at_the_address_that_was_asked_unless_it_has_its_own() {
        let asked = "192.0.2.1:7777".parse().expect("address");
        assert_eq!(answer().other_of(asked), "192.0.2.1:7778".parse().ok());
        let elsewhere = Observed { other: "192.0.2.2:9".parse().ok(), ..answer() };
        assert_eq!(elsewhere.other_of(asked), "192.0.2.2:9".parse().ok());
    }
}
