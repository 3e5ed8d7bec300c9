//! Messages of the control link between a node and a supernode (protocol.md section 7).

use std::net::SocketAddr;

use super::NONCE_LEN;
use super::advice::Advice;
use super::carry::RelayFor;
use super::certificate::CERTIFICATE_MAX;
use super::codec::{DecodeError, Reader, Writer, count};
use super::data::TAG_LEN;
use super::inventory::Excerpt;
use super::plan::{Plan, Report};
use super::relay::{LegKey, RelayId};
use super::session::Candidate;
use super::version::Version;
use crate::keys::{Fingerprint, OverlayId};

/// The longest message, type and body.
pub const MESSAGE_MAX: usize = 16 * 1024;
/// The longest sealed directory entry.
pub const DIRECTORY_MAX: usize = 512;
/// The same before it was sealed: without nonce and tag.
const DIRECTORY_PLAIN_MAX: usize = DIRECTORY_MAX - NONCE_LEN - TAG_LEN;
/// Most members in one ROSTER; with the limits above it stays below [`MESSAGE_MAX`].
pub const ROSTER_MAX: usize = 14;
/// Most members in one GONE.
pub const GONE_MAX: usize = 1000;
/// Most addresses in a directory entry.
pub const DIRECTORY_CANDIDATES_MAX: usize = 8;
/// Most supernodes in one SUPERNODES.
pub const SUPERNODES_MAX: usize = 8;
/// The longest `host:port` of a supernode: a host name has at most 253 bytes.
pub const PLACE_MAX: usize = 260;
/// The longest node name, in bytes.
pub const NAME_MAX: usize = 63;

/// Why a supernode refuses a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The supernode has an allow list without this overlay.
    NotAllowed,
    /// The certificate does not hold.
    Certificate,
    /// The signature is not by the certificate's node, or for another link.
    Signature,
    /// No room.
    Full,
    /// Another protocol version, or a reason of a later one.
    Version,
    /// Another link registered the same node later.
    Replaced,
}

impl Refusal {
    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotAllowed => {
                "this overlay is not allowed there: wrong key or name, or the supernode's allow list lacks it"
            }
            Self::Certificate => "it does not accept our certificate",
            Self::Signature => "it does not accept our signature",
            Self::Full => "it is full",
            Self::Version => "it speaks another version of the protocol",
            Self::Replaced => "another node registered there with this node's key: is this host a copy of another one?",
        }
    }

    const fn byte(self) -> u8 {
        match self {
            Self::NotAllowed => 1,
            Self::Certificate => 2,
            Self::Signature => 3,
            Self::Full => 4,
            Self::Version => 5,
            Self::Replaced => 6,
        }
    }

    const fn of(byte: u8) -> Self {
        match byte {
            1 => Self::NotAllowed,
            2 => Self::Certificate,
            3 => Self::Signature,
            4 => Self::Full,
            6 => Self::Replaced,
            _ => Self::Version,
        }
    }
}

/// A member, as a supernode tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its leg.
    pub relay: RelayId,
    /// Where the supernode sees it.
    pub seen: SocketAddr,
    /// Its certificate, not checked yet.
    pub certificate: Vec<u8>,
    /// Its sealed directory entry.
    pub directory: Vec<u8>,
    /// What it speaks.
    pub version: Version,
}

/// Another supernode, as a supernode tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherSupernode {
    /// `host:port`.
    pub address: String,
    /// The key it shows.
    pub fingerprint: Fingerprint,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// "I am a member."
    Register {
        /// Its certificate, not checked yet.
        certificate: Vec<u8>,
        /// Over [`registration`].
        signature: [u8; 64],
        /// Its sealed directory entry.
        directory: Vec<u8>,
        /// What the node speaks.
        version: Version,
        /// The leg that goes on by this link, with its key and counters.
        continues: Option<RelayId>,
    },
    /// "Are you there, and where am I?"
    Ping {
        /// Comes back.
        nonce: u64,
    },
    /// "My directory entry changed."
    Update {
        /// In this overlay.
        overlay: OverlayId,
        /// The new one.
        directory: Vec<u8>,
    },
    /// "I leave."
    Leave {
        /// This overlay.
        overlay: OverlayId,
    },
    /// "I measured this."
    Report {
        /// In this overlay.
        overlay: OverlayId,
        /// All of it; what it does not name has no traffic.
        report: Report,
    },
    /// "You are registered."
    Welcome {
        /// In this overlay.
        overlay: OverlayId,
        /// Your leg.
        relay: RelayId,
        /// Its key.
        key: LegKey,
        /// Where I see you.
        seen: SocketAddr,
        /// What I speak.
        version: Version,
    },
    /// "You are not."
    Refused {
        /// In this overlay; zero if I cannot tell which was meant.
        overlay: OverlayId,
        /// Why.
        reason: Refusal,
        /// What I speak.
        version: Version,
    },
    /// Answers PING.
    Pong {
        /// Of the PING.
        nonce: u64,
        /// Where I see you.
        seen: SocketAddr,
    },
    /// Members that are new or changed.
    Roster {
        /// Of this overlay.
        overlay: OverlayId,
        /// Forget those you had from me.
        reset: bool,
        /// At most [`ROSTER_MAX`].
        members: Vec<Member>,
    },
    /// Members that are gone from me.
    Gone {
        /// From this overlay.
        overlay: OverlayId,
        /// Their legs.
        relays: Vec<RelayId>,
    },
    /// Other supernodes that the members may register at too.
    Supernodes {
        /// At most [`SUPERNODES_MAX`].
        list: Vec<OtherSupernode>,
    },
    /// "Go these ways."
    Plan {
        /// In this overlay.
        overlay: OverlayId,
        /// What changes.
        plan: Plan,
    },
    /// "One of your machines should move."
    Advice {
        /// In this overlay.
        overlay: OverlayId,
        /// Which, and where to.
        advice: Advice,
    },
}

/// What REGISTER's signature covers.
pub fn registration(exporter: &[u8; 32], overlay: OverlayId) -> Vec<u8> {
    [b"longwire register".as_slice(), exporter, &overlay.0].concat()
}

impl Message {
    /// Reads type and body; `Ok(None)` for a type of a later version.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        if bytes.len() > MESSAGE_MAX {
            return Err(DecodeError::Long);
        }
        let mut r = Reader::new(bytes);
        Ok(Some(match r.u8()? {
            0x01 => Self::Register {
                certificate: r.blob(CERTIFICATE_MAX)?.to_vec(),
                signature: r.array()?,
                directory: r.blob(DIRECTORY_MAX)?.to_vec(),
                version: Version::read_tail(&mut r)?,
                continues: if r.rest().is_empty() { None } else { Some(RelayId(r.u32()?)) },
            },
            0x02 => Self::Ping { nonce: r.u64()? },
            0x03 => Self::Update { overlay: OverlayId(r.array()?), directory: r.blob(DIRECTORY_MAX)?.to_vec() },
            0x04 => Self::Leave { overlay: OverlayId(r.array()?) },
            0x05 => {
                let (overlay, report) = Report::read(&mut r)?;
                Self::Report { overlay, report }
            }
            0x81 => Self::Welcome {
                overlay: OverlayId(r.array()?),
                relay: RelayId(r.u32()?),
                key: LegKey(r.array()?),
                seen: r.addr()?,
                version: Version::read_tail(&mut r)?,
            },
            0x82 => Self::Refused {
                overlay: OverlayId(r.array()?),
                reason: Refusal::of(r.u8()?),
                version: Version::read_tail(&mut r)?,
            },
            0x83 => Self::Pong { nonce: r.u64()?, seen: r.addr()? },
            0x84 => parse_roster(&mut r)?,
            0x85 => parse_gone(&mut r)?,
            0x86 => parse_supernodes(&mut r)?,
            0x87 => {
                let (overlay, plan) = Plan::read(&mut r)?;
                Self::Plan { overlay, plan }
            }
            0x88 => {
                let (overlay, advice) = Advice::read(&mut r)?;
                Self::Advice { overlay, advice }
            }
            _ => return Ok(None),
        }))
    }

    /// Type and body.
    pub fn bytes(&self) -> Vec<u8> {
        let w = Writer::new();
        match self {
            Self::Register { certificate, signature, directory, version, continues } => {
                let w = version.write(w.u8(0x01).blob(certificate).bytes(signature).blob(directory));
                match continues {
                    Some(relay) => w.u32(relay.0),
                    None => w,
                }
            }
            Self::Ping { nonce } => w.u8(0x02).u64(*nonce),
            Self::Update { overlay, directory } => w.u8(0x03).bytes(&overlay.0).blob(directory),
            Self::Leave { overlay } => w.u8(0x04).bytes(&overlay.0),
            Self::Report { overlay, report } => report.write(w.u8(0x05), *overlay),
            Self::Plan { overlay, plan } => plan.write(w.u8(0x87), *overlay),
            Self::Advice { overlay, advice } => advice.write(w.u8(0x88), *overlay),
            Self::Welcome { overlay, relay, key, seen, version } => {
                version.write(w.u8(0x81).bytes(&overlay.0).u32(relay.0).bytes(&key.0).addr(*seen))
            }
            Self::Refused { overlay, reason, version } => version.write(w.u8(0x82).bytes(&overlay.0).u8(reason.byte())),
            Self::Pong { nonce, seen } => w.u8(0x83).u64(*nonce).addr(*seen),
            Self::Roster { overlay, reset, members } => return roster(*overlay, *reset, members.iter()),
            Self::Gone { overlay, relays } => {
                let head = w.u8(0x85).bytes(&overlay.0).u16(count(relays.len(), GONE_MAX));
                relays.iter().take(GONE_MAX).fold(head, |w, relay| w.u32(relay.0))
            }
            Self::Supernodes { list } => {
                let head = w.u8(0x86).u16(count(list.len(), SUPERNODES_MAX));
                let one =
                    |w: Writer, other: &OtherSupernode| w.bytes(&other.fingerprint.0).blob(other.address.as_bytes());
                list.iter().take(SUPERNODES_MAX).fold(head, one)
            }
        }
        .finish()
    }
}

/// Type and body of a ROSTER with these members, at most [`ROSTER_MAX`].
pub fn roster<'a>(
    overlay: OverlayId,
    reset: bool,
    members: impl ExactSizeIterator<Item = &'a Member> + Clone,
) -> Vec<u8> {
    let count = count(members.len(), ROSTER_MAX);
    let list = members.take(ROSTER_MAX);
    let head = Writer::new().u8(0x84).bytes(&overlay.0).u8(u8::from(reset)).u16(count);
    let entries = list.clone().fold(head, |w, member| {
        w.u32(member.relay.0).addr(member.seen).blob(&member.certificate).blob(&member.directory)
    });
    list.fold(entries, |w, member| member.version.write(w)).finish()
}

fn parse_roster(r: &mut Reader<'_>) -> Result<Message, DecodeError> {
    let overlay = OverlayId(r.array()?);
    let reset = r.u8()? & 1 != 0;
    let count = usize::from(r.u16()?);
    if count > ROSTER_MAX {
        return Err(DecodeError::Range);
    }
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        members.push(Member {
            relay: RelayId(r.u32()?),
            seen: r.addr()?,
            certificate: r.blob(CERTIFICATE_MAX)?.to_vec(),
            directory: r.blob(DIRECTORY_MAX)?.to_vec(),
            version: Version::FIRST,
        });
    }
    for member in &mut members {
        member.version = Version::read_tail(r)?;
    }
    Ok(Message::Roster { overlay, reset, members })
}

fn parse_gone(r: &mut Reader<'_>) -> Result<Message, DecodeError> {
    let overlay = OverlayId(r.array()?);
    let count = usize::from(r.u16()?);
    if count > GONE_MAX {
        return Err(DecodeError::Range);
    }
    let relays = (0..count).map(|_| r.u32().map(RelayId)).collect::<Result<_, _>>()?;
    Ok(Message::Gone { overlay, relays })
}

fn parse_supernodes(r: &mut Reader<'_>) -> Result<Message, DecodeError> {
    let count = usize::from(r.u16()?);
    if count > SUPERNODES_MAX {
        return Err(DecodeError::Range);
    }
    let mut list = Vec::with_capacity(count);
    for _ in 0..count {
        let fingerprint = Fingerprint(r.array()?);
        let address = std::str::from_utf8(r.blob(PLACE_MAX)?).map_err(|_| DecodeError::Range)?;
        if !is_place(address) {
            return Err(DecodeError::Range);
        }
        list.push(OtherSupernode { address: address.to_owned(), fingerprint });
    }
    Ok(Message::Supernodes { list })
}

/// Whether it has the form `host:port` or `host:port/tcp-port`, with nothing in it that a terminal or a resolver could
/// mistake.
fn is_place(text: &str) -> bool {
    let (text, tcp) = text.split_once('/').unwrap_or((text, "0"));
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    !host.is_empty()
        && host.chars().all(allowed)
        && port.parse::<u16>().is_ok_and(|port| port != 0)
        && tcp.parse::<u16>().is_ok()
}

/// What a member tells the other members through a supernode that cannot read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// What people call it; at most [`NAME_MAX`] bytes.
    pub name: String,
    /// Its own addresses, at most [`DIRECTORY_CANDIDATES_MAX`].
    pub candidates: Vec<Candidate>,
    /// For whom it relays.
    pub relays: RelayFor,
    /// Where it is, if it says; at most [`NAME_MAX`] bytes.
    pub site: String,
    /// What is behind its TAP, if it says.
    pub machines: Option<Excerpt>,
}

impl Directory {
    /// Reads the plain form.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > DIRECTORY_PLAIN_MAX {
            return Err(DecodeError::Long);
        }
        let mut r = Reader::new(bytes);
        let name = parse_name(&mut r)?;
        let count = usize::from(r.u8()?);
        if count > DIRECTORY_CANDIDATES_MAX {
            return Err(DecodeError::Range);
        }
        let mut candidates = Vec::with_capacity(count);
        for _ in 0..count {
            candidates.extend(Candidate::read(&mut r)?);
        }
        if r.rest().is_empty() {
            return Ok(Self { name, candidates, relays: RelayFor::Nobody, ..Self::default() });
        }
        let (relays, site) = (RelayFor::of(r.u8()?), parse_name(&mut r)?);
        let machines = if r.rest().is_empty() { None } else { Some(Excerpt::read(&mut r)?) };
        Ok(Self { name, candidates, relays, site, machines })
    }

    /// The plain form.
    pub fn bytes(&self) -> Vec<u8> {
        let list = &self.candidates[..self.candidates.len().min(DIRECTORY_CANDIDATES_MAX)];
        let count = u8::try_from(list.len()).expect("cut to the limit above");
        let head = write_name(Writer::new(), &self.name).u8(count);
        let entries = list.iter().fold(head, |w, candidate| candidate.write(w));
        let entry = write_name(entries.u8(self.relays.byte()), &self.site);
        let room = DIRECTORY_PLAIN_MAX - entry.as_slice().len();
        match &self.machines {
            Some(machines) => machines.write(entry, room),
            None => entry,
        }
        .finish()
    }
}

/// A length and so many bytes of UTF-8; what would move a cursor is left out.
fn parse_name(r: &mut Reader<'_>) -> Result<String, DecodeError> {
    let len = usize::from(r.u8()?);
    if len > NAME_MAX {
        return Err(DecodeError::Range);
    }
    let name = std::str::from_utf8(r.bytes(len)?).map_err(|_| DecodeError::Range)?;
    Ok(name.chars().filter(|c| is_shown(*c)).collect())
}

/// Whether a character stands for itself where it is written: neither moves the cursor, nor turns the direction of
/// what follows, nor is forbidden in XML.
fn is_shown(c: char) -> bool {
    !(c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}'))
}

fn write_name(w: Writer, name: &str) -> Writer {
    let end = (0..=name.len().min(NAME_MAX)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    w.u8(u8::try_from(end).expect("a name has at most 63 bytes")).bytes(&name.as_bytes()[..end])
}

#[cfg(test)]
mod tests;
