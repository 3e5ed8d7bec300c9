//! MSS clamping: TCP is asked at its first packet for segments that fit one packet of ours.
//!
//! Without it every full segment would travel in two pieces. The option is only ever lowered
//! (RFC 9293 3.7.1; the checksum is mended by RFC 1624), and only in SYNs without data.

use super::frame::{Header, IPV4, IPV6};
use super::layout::{TCP_HEADER, Transport};
use crate::wire::data::Checksum;

/// A SYN is not longer: Ethernet, two tags, the longest IP and TCP headers.
const SYN_MAX: usize = 14 + 8 + 60 + 60;
const TCP: u8 = Transport::Tcp.number();
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;

/// `frame`, or a copy of it in `scratch` that asks for segments whose frames have `limit` bytes at most.
/// A partial checksum does not cover the option yet and stays.
pub fn clamp_mss<'f>(frame: &'f [u8], checksum: Checksum, limit: usize, scratch: &'f mut Vec<u8>) -> &'f [u8] {
    let Some((tcp, option)) = find_mss(frame) else { return frame };
    let Ok(most) = u16::try_from(limit.saturating_sub(tcp + TCP_HEADER)) else { return frame };
    let asked = u16::from_be_bytes([frame[option], frame[option + 1]]);
    if asked <= most {
        return frame;
    }
    scratch.clear();
    scratch.extend_from_slice(frame);
    scratch[option..option + 2].copy_from_slice(&most.to_be_bytes());
    if checksum == Checksum::TcpPartial {
        return scratch;
    }
    let (mut old, mut new) = (asked, most);
    if (option - tcp) % 2 == 1 {
        (old, new) = (old.swap_bytes(), new.swap_bytes());
    }
    let checksum = u16::from_be_bytes([frame[tcp + 16], frame[tcp + 17]]);
    scratch[tcp + 16..tcp + 18].copy_from_slice(&mended(checksum, old, new).to_be_bytes());
    scratch
}

/// RFC 1624, equation 3.
fn mended(checksum: u16, old: u16, new: u16) -> u16 {
    let mut sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits above")
}

/// Where the TCP header of a SYN begins, and where the value of its MSS option.
fn find_mss(frame: &[u8]) -> Option<(usize, usize)> {
    if frame.len() > SYN_MAX {
        return None;
    }
    let header = Header::parse(frame)?;
    let ip = frame.get(header.payload..)?;
    let ip_len = match header.ethertype {
        IPV4 => {
            let is_first = u16::from_be_bytes([*ip.get(6)?, *ip.get(7)?]) & 0x3fff == 0;
            (is_first && *ip.get(9)? == TCP).then_some(usize::from(*ip.first()? & 0x0f) * 4)?
        }
        IPV6 => (*ip.get(6)? == TCP).then_some(40)?,
        _ => return None,
    };
    let tcp = ip.get(ip_len..).filter(|tcp| tcp.len() >= TCP_HEADER && tcp[13] & 0x02 != 0)?;
    let options = tcp.get(TCP_HEADER..usize::from(tcp[12] >> 4) * 4)?;
    let mut at = 0;
    loop {
        match (*options.get(at)?, options.get(at + 1)) {
            (OPTION_END, _) => return None,
            (OPTION_NOP, _) => at += 1,
            (OPTION_MSS, Some(4)) if options.len() >= at + 4 => {
                let start = header.payload + ip_len;
                return Some((start, start + TCP_HEADER + at + 2));
            }
            (_, Some(len)) if *len >= 2 => at += usize::from(*len),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A SYN with these options, over IPv4; its checksum is right.
    fn syn(options: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend([8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let data_offset = u8::try_from((TCP_HEADER + options.len()) / 4).expect("short") << 4;
        frame.extend([1, 2, 3, 4, 0, 0, 0, 9, 0, 0, 0, 0, data_offset, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
        frame.extend(options);
        let sum = sum(&frame);
        frame[50..52].copy_from_slice(&(!sum).to_be_bytes());
        frame
    }

    /// The ones' complement sum of pseudo header and TCP.
    fn sum(frame: &[u8]) -> u16 {
        let length = u32::try_from(frame.len() - 34).expect("short");
        let words = frame[26..].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
        let mut sum = words.sum::<u32>() + length + u32::from(TCP);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).expect("folded")
    }

    #[test]
    fn a_large_mss_is_lowered_and_the_checksum_holds_at_any_place() {
        for options in [[2, 4, 5, 180, 1, 1, 1, 1], [1, 2, 4, 5, 180, 1, 1, 1], [3, 3, 7, 2, 4, 5, 180, 0]] {
            let (frame, mut scratch) = (syn(&options), Vec::new());
            assert_eq!(sum(&frame), 0xffff, "the test's own checksum");
            let clamped = clamp_mss(&frame, Checksum::Finished, 1439, &mut scratch);
            let (_, option) = find_mss(clamped).expect("still there");
            assert_eq!(u16::from_be_bytes([clamped[option], clamped[option + 1]]), 1439 - 14 - 40);
            assert_eq!(sum(clamped), 0xffff, "{options:?}");
        }
    }

    #[test]
    fn a_partial_checksum_stays_as_it_is() {
        let (frame, mut scratch) = (syn(&[2, 4, 5, 180, 1, 1, 1, 1]), Vec::new());
        let clamped = clamp_mss(&frame, Checksum::TcpPartial, 1439, &mut scratch);
        assert_ne!(clamped, frame);
        assert_eq!(clamped[50..52], frame[50..52]);
    }

    #[test]
    fn a_small_mss_and_everything_else_stays() {
        let mut scratch = Vec::new();
        let small = syn(&[2, 4, 2, 0]);
        assert_eq!(clamp_mss(&small, Checksum::Finished, 1439, &mut scratch), small);
        let mut data = syn(&[2, 4, 5, 180]);
        data[34 + 13] = 0x10;
        assert_eq!(clamp_mss(&data, Checksum::Finished, 1439, &mut scratch), data);
    }

    proptest! {
        #[test]
        fn arbitrary_options_never_panic(options in proptest::collection::vec(any::<u8>(), 0..10), limit in 0..2000usize) {
            let options = options.iter().flat_map(|byte| [*byte; 4]).collect::<Vec<_>>();
            let mut frame = syn(&options);
            clamp_mss(&frame, Checksum::Finished, limit, &mut Vec::new());
            frame.truncate(limit);
            clamp_mss(&frame, Checksum::Finished, limit, &mut Vec::new());
        }
    }
}
