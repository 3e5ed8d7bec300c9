//! The kernel's half of offloading: joins what a machine sends in one go, and cuts what comes out of a
//! TAP. By the book and byte by byte, so that the corridor's fast way is held against another one.
//!
//! Streams are TCP or UDP over IPv6: without an identification field every segment of a superframe is
//! the very frame that the machine would have sent.

use crate::datapath::offload::{Gso, TapOffload, Virtio};

/// IPv6 in Ethernet.
pub const IPV6: u16 = 0x86dd;
/// Bytes of its header.
pub const IPV6_HEADER: usize = 40;
const ETHERNET: usize = 14;
const TAG: usize = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Datagrams of one UDP superframe (Linux: `UDP_MAX_SEGMENTS`, 64 before 6.9).
const UDP_SEGMENTS: usize = 64;
/// The longest IPv6 payload without the jumbo option.
const PAYLOAD_MAX: usize = 65_535;

/// What a stream is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Segments, the next with the sequence number where this one ends.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Stream {
    /// The transport header of the frame that carries `number`, before its `len` bytes of payload.
    pub fn header(self, number: usize, len: usize) -> Vec<u8> {
        let sequence = u32::try_from(number * len % (1 << 32)).expect("a remainder of 2^32");
        match self {
            Self::Tcp => {
                [&[9, 1, 9, 2], &sequence.to_be_bytes()[..], &[0, 0, 0, 7, 0x50, 0x10, 1, 0, 0, 0, 0, 0]].concat()
            }
            Self::Udp => [&[9, 3, 9, 4], &short(8 + len)[..], &[0, 0]].concat(),
        }
    }

    /// Of the IPv6 header.
    pub const fn next_header(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
        }
    }

    /// How many frames of `len` bytes of payload one superframe carries, if `tap` takes any.
    pub fn segments(self, tap: TapOffload, len: usize) -> usize {
        match (self, tap) {
            (Self::Tcp, TapOffload::Tcp | TapOffload::TcpAndUdp) => (PAYLOAD_MAX - 20) / len,
            (Self::Udp, TapOffload::TcpAndUdp) => ((PAYLOAD_MAX - 8) / len).min(UDP_SEGMENTS),
            (_, TapOffload::None) | (Self::Udp, TapOffload::Tcp) => 1,
        }
    }
}

/// Where transport header and payload begin, and what it is; `None` if the frame is no stream's.
fn places(frame: &[u8]) -> Option<(usize, usize, Stream)> {
    let tagged = frame.get(12..14)? == [0x81, 0];
    let ip = ETHERNET + if tagged { TAG } else { 0 };
    if frame.get(ip - 2..ip)? != IPV6.to_be_bytes() {
        return None;
    }
    let transport = ip + IPV6_HEADER;
    match *frame.get(ip + 6)? {
        TCP => Some((transport, transport + usize::from(*frame.get(transport + 12)? >> 4) * 4, Stream::Tcp)),
        UDP => Some((transport, transport + 8, Stream::Udp)),
        _ => None,
    }
}

/// What a stream's frame carries.
pub fn payload(frame: &[u8]) -> Option<&[u8]> {
    frame.get(places(frame)?.1..)
}

/// Frames of one stream, equally long, as the kernel hands them over: one superframe with a partial checksum.
///
/// # Panics
/// If they are no frames of a stream.
pub fn join(frames: &[Vec<u8>]) -> (Vec<u8>, Virtio) {
    let (transport, start, stream) = places(&frames[0]).expect("a frame of a stream");
    let mut joined = frames[0].clone();
    frames[1..].iter().for_each(|frame| joined.extend_from_slice(&frame[start..]));
    set_length(&mut joined, transport);
    let partial = !checksum(&pseudo_header(&joined, transport));
    let at = transport + checksum_offset(stream);
    joined[at..at + 2].copy_from_slice(&partial.to_be_bytes());
    let half = |place: usize| u16::try_from(place).expect("headers are short");
    let gso = match stream {
        _ if frames.len() == 1 => Gso::None,
        Stream::Tcp => Gso::TcpV6,
        Stream::Udp => Gso::Udp,
    };
    let virtio = Virtio {
        needs_csum: true,
        gso,
        header_len: half(start),
        gso_size: if gso == Gso::None { 0 } else { half(frames[0].len() - start) },
        csum_start: half(transport),
        csum_offset: half(checksum_offset(stream)),
        ..Virtio::default()
    };
    (joined, virtio)
}

/// The frames that a machine receives of what came out of a TAP; `None` if the note does not fit.
pub fn cut(frame: &[u8], virtio: Virtio) -> Option<Vec<Vec<u8>>> {
    if !virtio.needs_csum {
        return (virtio == Virtio::default()).then(|| vec![frame.to_vec()]);
    }
    let (transport, start, stream) = places(frame)?;
    let says = (usize::from(virtio.csum_start), usize::from(virtio.csum_offset));
    let partial =
        frame.get(transport + checksum_offset(stream)..)?.first_chunk().map(|sum| u16::from_be_bytes(*sum))?;
    if says != (transport, checksum_offset(stream)) || partial != !checksum(&pseudo_header(frame, transport)) {
        return None;
    }
    let size = match (virtio.gso, stream) {
        (Gso::None, _) => frame.len() - start,
        (Gso::TcpV6, Stream::Tcp) | (Gso::Udp, Stream::Udp) if virtio.gso_size > 0 => usize::from(virtio.gso_size),
        _ => return None,
    };
    let segment = |(number, piece): (usize, &[u8])| {
        let mut segment = [&frame[..start], piece].concat();
        set_length(&mut segment, transport);
        if stream == Stream::Tcp {
            let sequence = u32::from_be_bytes(*frame[transport + 4..].first_chunk().expect("a TCP header"));
            let shift = u32::try_from(number * size).expect("within a superframe");
            segment[transport + 4..transport + 8].copy_from_slice(&sequence.wrapping_add(shift).to_be_bytes());
        }
        finish(&mut segment);
        segment
    };
    Some(frame[start..].chunks(size).enumerate().map(segment).collect())
}

/// Sums the checksum of a stream's frame.
///
/// # Panics
/// If it is no frame of a stream.
pub fn finish(frame: &mut [u8]) {
    let (transport, _, stream) = places(frame).expect("a frame of a stream");
    let at = transport + checksum_offset(stream);
    frame[at..at + 2].fill(0);
    let sum = checksum(&[&pseudo_header(frame, transport)[..], &frame[transport..]].concat());
    let sum = if sum == 0 { 0xffff } else { sum };
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn set_length(frame: &mut [u8], transport: usize) {
    let length = short(frame.len() - transport);
    let ip = transport - IPV6_HEADER;
    frame[ip + 4..ip + 6].copy_from_slice(&length);
    if frame[ip + 6] == UDP {
        frame[transport + 4..transport + 6].copy_from_slice(&length);
    }
}

const fn checksum_offset(stream: Stream) -> usize {
    match stream {
        Stream::Tcp => 16,
        Stream::Udp => 6,
    }
}

/// RFC 8200 8.1.
fn pseudo_header(frame: &[u8], transport: usize) -> Vec<u8> {
    let ip = transport - IPV6_HEADER;
    let length = u32::try_from(frame.len() - transport).expect("a frame");
    [&frame[ip + 8..ip + 40], &length.to_be_bytes()[..], &[0, 0, 0, frame[ip + 6]]].concat()
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded after each word")
}

fn short(len: usize) -> [u8; 2] {
    u16::try_from(len).expect("a packet is shorter than 64 KiB").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::traffic::{OverlayNo, Traffic, Vm, VmId, decode};
    use crate::sim::underlay::HostId;
    use crate::time::Time;

    #[test]
    fn what_was_joined_is_cut_to_what_it_was() {
        for (stream, gso) in [(Stream::Tcp, Gso::TcpV6), (Stream::Udp, Gso::Udp)] {
            for vlan in [0, 10] {
                let vm = Vm { mac: [2, 0, 0, 0, 0, 1], vlan, overlay: OverlayNo(0), host: HostId(0) };
                let mut traffic = Traffic { vms: vec![vm], ..Traffic::default() };
                let build = |_| traffic.build_stream(Time::START, VmId(0), [2, 0, 0, 0, 0, 2], stream, 999);
                let frames = (0..5).map(build).collect::<Vec<_>>();
                assert!(frames.iter().all(|frame| decode(frame).is_some()));
                let (joined, virtio) = join(&frames);
                assert_eq!((virtio.gso, virtio.gso_size), (gso, 999));
                assert_eq!(cut(&joined, virtio), Some(frames.clone()));
                let lone = join(&frames[..1]);
                assert_eq!(cut(&lone.0, lone.1), Some(frames[..1].to_vec()));
                assert_eq!(cut(&frames[0], virtio), None, "a finished checksum is not partial");
            }
        }
    }
}
