//! REPORT and PLAN: what a member measured, and which ways it shall take (protocol.md section 7).
//!
//! Members are named by their relay ids at the supernode that plans: four bytes that both ends have anyway.

use super::codec::{DecodeError, Reader, Writer, count};
use super::relay::RelayId;
use crate::keys::OverlayId;

/// Most peers in one REPORT, the busiest first: the hard limit of links of a node.
pub const PEERS_MAX: usize = 256;
/// Most changes in one PLAN.
pub const CHANGES_MAX: usize = 256;
/// All of the time.
const LOAD_MAX: u8 = 100;

/// A site, told from others by whoever does not know its name: that is hashed with a key of the overlay's members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SiteTag(pub [u8; 8]);

/// What a member measured of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// It forwards for other members.
    pub relays: bool,
    /// How much of the time tasks wait for a processor there, in percent; not everywhere known.
    pub load: Option<u8>,
    /// At most [`PEERS_MAX`].
    pub peers: Vec<PeerReport>,
    /// The site it is at, if its user named one.
    pub site: Option<SiteTag>,
    /// What it forwards at most, in kilobytes per second; as much as comes if `None`.
    pub spare: Option<u32>,
}

/// What a member measured of one peer. Rates are in kilobytes (1,000 bytes) per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerReport {
    /// The peer.
    pub relay: RelayId,
    /// Sent to it, averaged over about 2 seconds...
    pub fast: u32,
    /// ...and over about 30.
    pub slow: u32,
    /// Heard from it, whichever way it came.
    pub arrives: u32,
    /// What the network lets through to it; 0: not known.
    pub capacity: u32,
    /// Round trip in microseconds; 0: not known.
    pub rtt_us: u32,
    /// The network holds back what is sent to it.
    pub is_limited: bool,
    /// What comes from it waits in a full queue on its way, if that is known.
    pub is_queued: Option<bool>,
    /// There is a direct way, or there was one before a relay was ordered.
    pub has_link: bool,
    /// Which way frames to it go, if it is said.
    pub goes: Option<Goes>,
}

/// The way that frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goes {
    /// By which hop.
    pub by: Hop,
    /// Since so many milliseconds; `u16::MAX`: that or more.
    pub since_ms: u16,
}

/// Where frames go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// To the peer.
    Peer,
    /// To this member.
    Member(RelayId),
    /// To the supernode that is told.
    Here,
    /// To somebody whom that supernode does not know, or nowhere.
    Elsewhere,
}

impl Goes {
    /// What is not worth a word.
    const LONG_DIRECT: Self = Self { by: Hop::Peer, since_ms: u16::MAX };
}

/// By which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As the member itself finds best.
    Usual,
    /// By this member.
    Member(RelayId),
    /// By the supernode that says so.
    Here,
}

/// One change of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Frames to this member...
    pub to: RelayId,
    /// ...take this way from now on.
    pub way: Way,
}

/// Which ways a member shall take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Greater is newer.
    pub version: u64,
    /// What the whole plan promises, in per mille of what there is; 0 where nothing is promised.
    pub gain: u32,
    /// At most [`CHANGES_MAX`].
    pub changes: Vec<Change>,
}

impl Report {
    pub(super) fn write(&self, w: Writer, overlay: OverlayId) -> Writer {
        let load = self.load.map_or(0, |load| load.min(LOAD_MAX) + 1);
        let head = w.bytes(&overlay.0).u8(u8::from(self.relays) | load << 1).u16(count(self.peers.len(), PEERS_MAX));
        let peers = self.peers.iter().take(PEERS_MAX).fold(head, |w, peer| {
            let queued = peer.is_queued.map_or(0, |is_queued| 1 | u8::from(is_queued) << 1);
            let flags = u8::from(peer.is_limited) | u8::from(peer.has_link) << 1 | queued << 2;
            let rates = w.u32(peer.relay.0).u32(peer.fast).u32(peer.slow).u32(peer.arrives);
            rates.u32(peer.capacity).u32(peer.rtt_us).u8(flags)
        });
        let end = peers.bytes(&self.site.map_or([0; 8], |site| site.0)).u32(self.spare.unwrap_or(0));
        self.write_ways(end)
    }

    /// Of peers to which frames go otherwise than directly for long.
    fn write_ways(&self, w: Writer) -> Writer {
        let goes = (0..).zip(self.peers.iter().take(PEERS_MAX)).map(|(place, peer): (u16, _)| (place, peer.goes));
        let Some(ways) = goes.map(|(place, goes)| Some((place, goes?))).collect::<Option<Vec<_>>>() else { return w };
        let ways: Vec<_> = ways.into_iter().filter(|(_, goes)| *goes != Goes::LONG_DIRECT).collect();
        ways.iter().fold(w.u16(count(ways.len(), PEERS_MAX)), |w, (place, goes)| {
            let (what, relay) = match goes.by {
                Hop::Peer => (0, 0),
                Hop::Member(relay) => (1, relay.0),
                Hop::Here => (2, 0),
                Hop::Elsewhere => (3, 0),
            };
            w.u16(*place).u8(what).u32(relay).u16(goes.since_ms)
        })
    }

    fn read_ways(r: &mut Reader<'_>, peers: &mut [PeerReport]) -> Result<(), DecodeError> {
        let ways = list(r, PEERS_MAX, |r| {
            let (place, what, relay, since_ms) = (r.u16()?, r.u8()?, RelayId(r.u32()?), r.u16()?);
            let by = match what {
                0 => Hop::Peer,
                1 => Hop::Member(relay),
                2 => Hop::Here,
                3 => Hop::Elsewhere,
                _ => return Err(DecodeError::Range),
            };
            Ok((place, Goes { by, since_ms }))
        })?;
        peers.iter_mut().for_each(|peer| peer.goes = Some(Goes::LONG_DIRECT));
        for (place, goes) in ways {
            peers.get_mut(usize::from(place)).ok_or(DecodeError::Range)?.goes = Some(goes);
        }
        Ok(())
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<(OverlayId, Self), DecodeError> {
        let overlay = OverlayId(r.array()?);
        let flags = r.u8()?;
        let (relays, load) = (flags & 1 != 0, (flags >> 1).checked_sub(1).map(|load| load.min(LOAD_MAX)));
        let mut peers = list(r, PEERS_MAX, |r| {
            let (relay, fast, slow) = (RelayId(r.u32()?), r.u32()?, r.u32()?);
            let (arrives, capacity, rtt_us, flags) = (r.u32()?, r.u32()?, r.u32()?, r.u8()?);
            let (is_limited, has_link) = (flags & 1 != 0, flags & 2 != 0);
            let is_queued = (flags & 4 != 0).then_some(flags & 8 != 0);
            let goes = None;
            Ok(PeerReport { relay, fast, slow, arrives, capacity, rtt_us, is_limited, is_queued, has_link, goes })
        })?;
        if r.rest().is_empty() {
            return Ok((overlay, Self { relays, load, peers, site: None, spare: None }));
        }
        let (site, spare) = (SiteTag(r.array()?), r.u32()?);
        let site = Some(site).filter(|site| site.0 != [0; 8]);
        if !r.rest().is_empty() {
            Self::read_ways(r, &mut peers)?;
        }
        Ok((overlay, Self { relays, load, peers, site, spare: Some(spare).filter(|spare| *spare > 0) }))
    }
}

impl Plan {
    pub(super) fn write(&self, w: Writer, overlay: OverlayId) -> Writer {
        let head = w.bytes(&overlay.0).u64(self.version).u32(self.gain).u16(count(self.changes.len(), CHANGES_MAX));
        self.changes.iter().take(CHANGES_MAX).fold(head, |w, change| {
            let (what, relay) = match change.way {
                Way::Usual => (0, 0),
                Way::Member(relay) => (1, relay.0),
                Way::Here => (2, 0),
            };
            w.u32(change.to.0).u8(what).u32(relay)
        })
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<(OverlayId, Self), DecodeError> {
        let (overlay, version, gain) = (OverlayId(r.array()?), r.u64()?, r.u32()?);
        let changes = list(r, CHANGES_MAX, |r| {
            let (to, what, relay) = (RelayId(r.u32()?), r.u8()?, RelayId(r.u32()?));
            let way = match what {
                0 => Way::Usual,
                1 => Way::Member(relay),
                2 => Way::Here,
                _ => return Err(DecodeError::Range),
            };
            Ok(Change { to, way })
        })?;
        Ok((overlay, Self { version, gain, changes }))
    }
}

fn list<'a, T>(
    r: &mut Reader<'a>,
    limit: usize,
    one: impl Fn(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = usize::from(r.u16()?);
    if count > limit {
        return Err(DecodeError::Range);
    }
    (0..count).map(|_| one(r)).collect()
}
