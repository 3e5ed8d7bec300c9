//! What travels on TLS over TCP (protocol.md section 11): control messages and RELAY packets, each with its length.
//!
//! ```text
//! greeting (10 bytes, each side once) | length 2 | first byte 1 | ...
//! ```

use super::codec::DecodeError;
use super::message::MESSAGE_MAX;
use super::{ALPN, Kind};

/// What each side sends first: name and major version, as ALPN does on QUIC.
pub const GREETING: &[u8] = ALPN;
/// In front of a control message: the bit that stands for the control link everywhere (protocol.md section 1).
pub const CONTROL: u8 = 0x40;
/// Bytes in front of each frame of the stream.
pub const LENGTH_LEN: usize = 2;
/// The longest frame: a control message. No packet of ours is as long.
pub const FRAME_MAX: usize = 1 + MESSAGE_MAX;

/// One frame of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Type and body of a control message.
    Control(&'a [u8]),
    /// A RELAY packet, as UDP would carry it.
    Packet(&'a [u8]),
}

impl<'a> Frame<'a> {
    /// Reads what came behind a length.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (first, body) = bytes.split_first().ok_or(DecodeError::Short)?;
        if bytes.len() > FRAME_MAX {
            return Err(DecodeError::Long);
        }
        match Kind::of(*first) {
            _ if *first == CONTROL => Ok(Self::Control(body)),
            Some(Kind::Relay) => Ok(Self::Packet(bytes)),
            Some(_) | None => Err(DecodeError::Range),
        }
    }
}

/// The length of the frame behind these bytes; `None` if there is no such frame.
pub fn frame_len(length: [u8; LENGTH_LEN]) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes(length))).filter(|len| (1..=FRAME_MAX).contains(len))
}

/// Appends a frame: its length, then `head` and `body`.
///
/// # Panics
/// If they are longer than [`FRAME_MAX`] together.
pub fn push_frame(out: &mut Vec<u8>, head: &[u8], body: &[u8]) {
    let len = head.len() + body.len();
    assert!(len <= FRAME_MAX, "a frame of {len} bytes");
    out.extend_from_slice(&u16::try_from(len).expect("the limit is below 65,536").to_be_bytes());
    out.extend_from_slice(head);
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::relay::RELAY;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let mut out = Vec::new();
        push_frame(&mut out, &[CONTROL], b"\x02nonce");
        push_frame(&mut out, &[], &[RELAY, 1, 2]);
        assert_eq!(out, [&[0, 7, CONTROL][..], b"\x02nonce", &[0, 3, RELAY, 1, 2]].concat());
        assert_eq!(frame_len([0, 7]), Some(7));
        assert_eq!(Frame::parse(&out[2..9]), Ok(Frame::Control(b"\x02nonce")));
        assert_eq!(Frame::parse(&out[11..]), Ok(Frame::Packet(&[RELAY, 1, 2])));
    }

    #[test]
    fn what_is_not_for_a_stream_is_no_frame() {
        for first in (0..=u8::MAX).filter(|first| ![RELAY, CONTROL].contains(first)) {
            assert!(Frame::parse(&[first, 0]).is_err(), "{first:02x}");
        }
        assert_eq!(frame_len([0, 0]), None);
        assert_eq!(frame_len([0xff, 0xff]), None);
    }
}
