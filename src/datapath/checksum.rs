//! The Internet checksum: of an IPv4 header, and of what a partial checksum still lacks.
//!
//! Sums are ones' complement sums, folded to 16 bits and not complemented until they are stored. The
//! order of bytes does not matter to them (RFC 1071 2), so they are taken four bytes at a time.
//! No input panics. Read first: RFC 1071, RFC 768, RFC 8200 8.1.

use super::frame::Header;
use super::layout::{Layout, packet_end};

/// Where an IPv4 header has its checksum.
const IPV4_CHECKSUM: usize = 10;

/// The sum of `bytes`, which begin at an even place; an odd last byte counts as if a zero followed.
pub fn sum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let whole = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum::<u64>();
    u16::from_be(fold(whole + u64::from(u32::from_ne_bytes(last))))
}

/// Folds a sum of sums to one.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded to 16 bits above")
}

/// The sum of the pseudo header of `len` bytes of transport header and payload. `layout` is the frame's.
///
/// A routing header may name another final destination than this counts (RFC 8200 8.1).
pub fn pseudo_header(frame: &[u8], layout: &Layout, len: usize) -> u16 {
    let addresses = if layout.is_v6 { 8..40 } else { 12..20 };
    let addresses = frame.get(layout.ip + addresses.start..layout.ip + addresses.end).unwrap_or_default();
    fold(u64::from(sum(addresses)) + u64::from(layout.protocol.number()) + len as u64)
}

/// Stores the checksum of a whole IPv4 header in it.
pub fn finish_ipv4(header: &mut [u8]) {
    if let Some(field) = header.get_mut(IPV4_CHECKSUM..IPV4_CHECKSUM + 2) {
        field.fill(0);
        let checksum = !sum(header);
        header[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Finishes a partial checksum: sums from `start` to the end of the packet, and stores the complement
/// `offset` behind `start`. `false`, and nothing changed, if the field is not within the packet.
///
/// The packet ends where IP says, because a short frame is padded with anything; at the end of the frame
/// if it is not IP. A checksum of 0 is stored as 0xffff, as the kernel does: to UDP, 0 means none.
pub fn finish(frame: &mut [u8], start: usize, offset: usize) -> bool {
    let end = Header::parse(frame).and_then(|header| packet_end(frame, &header)).unwrap_or(frame.len());
    let Some(packet) = frame.get_mut(start..end).filter(|packet| offset + 2 <= packet.len()) else { return false };
    let checksum = match !sum(packet) {
        0 => 0xffff,
        checksum => checksum,
    };
    packet[offset..offset + 2].copy_from_slice(&checksum.to_be_bytes());
    true
}

#[cfg(test)]
mod tests;
