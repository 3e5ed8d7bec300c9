//! Fairness within a wakeup: a ping does not wait until a bulk stream's superframes are sealed.
//!
//! Frames of flows that brought little go first, as the "new flows" of fq_codel do (RFC 8290 4.2). All
//! frames of a flow are in one of the two groups and keep their order. Holds nothing back: a batch goes in
//! and the same batch goes out.

use super::buf::Frames;
use super::frame::{Header, IPV4, IPV4_FRAGMENT, IPV6};
use super::offload::Virtio;

/// A flow that brought no more than two full frames is no bulk stream.
const SPARSE_BYTES: usize = 3_100;
/// Frames that are ordered at once: the work grows with the square of it, and a batch has few superframes.
const GROUP: usize = 64;

/// The order in which frames are sealed.
#[derive(Debug, Default)]
pub struct Order {
    flows: Vec<(u64, usize)>,
}

impl Order {
    /// Calls `seal` for each frame once.
    pub fn each(&mut self, frames: &Frames, mut seal: impl FnMut(&[u8], Virtio)) {
        for first in (0..frames.len()).step_by(GROUP) {
            let group = first..frames.len().min(first + GROUP);
            let mut lengths = group.clone().filter_map(|index| frames.get(index)).map(|(frame, _)| frame.len());
            let has_bulk = group.len() > 1 && lengths.any(|len| len > SPARSE_BYTES);
            if has_bulk {
                self.note_flows(frames, group.clone());
            }
            for wanted in [true, false] {
                for index in group.clone() {
                    let Some((frame, virtio)) = frames.get(index) else { continue };
                    let sparse = !has_bulk || self.is_sparse(index - first);
                    if sparse == wanted {
                        seal(frame, *virtio);
                    }
                }
            }
        }
    }

    fn note_flows(&mut self, frames: &Frames, group: std::ops::Range<usize>) {
        self.flows.clear();
        let measured = group.filter_map(|index| frames.get(index)).map(|(frame, _)| (flow(frame), frame.len()));
        self.flows.extend(measured);
    }

    fn is_sparse(&self, place: usize) -> bool {
        let Some((flow, _)) = self.flows.get(place) else { return true };
        let bytes = self.flows.iter().filter(|(other, _)| other == flow).map(|(_, len)| len).sum::<usize>();
        bytes <= SPARSE_BYTES
    }
}

/// A number that is the same for all frames of a flow. Two flows of one number share their fate.
fn flow(frame: &[u8]) -> u64 {
    let Some(header) = Header::parse(frame) else { return 0 };
    let link = mix(mix(0, &frame[..header.payload]), &[]);
    let packet = frame.get(header.payload..).unwrap_or_default();
    match header.ethertype {
        IPV4 => ipv4_flow(link, packet),
        IPV6 => ipv6_flow(link, packet),
        _ => link,
    }
}

fn ipv4_flow(link: u64, packet: &[u8]) -> u64 {
    let Some(header) = packet.first_chunk::<20>() else { return link };
    let hosts = mix(mix(link, &header[9..10]), &header[12..20]);
    if u16::from_be_bytes([header[6], header[7]]) & IPV4_FRAGMENT != 0 {
        return mix(link, &header[12..20]);
    }
    let start = usize::from(header[0] & 0x0f) * 4;
    mix(hosts, packet.get(start..start + 4).unwrap_or_default())
}

fn ipv6_flow(link: u64, packet: &[u8]) -> u64 {
    // The flow label is the same for all packets of a flow, extension headers or not (RFC 6437).
    let Some(header) = packet.first_chunk::<40>() else { return link };
    let hosts = mix(mix(link, &header[1..4]), &header[8..40]);
    match header[6] {
        6 | 17 => mix(hosts, packet.get(40..44).unwrap_or_default()),
        _ => hosts,
    }
}

/// Folds bytes into a number; fast, and with no key: who makes two flows meet harms only his own.
fn mix(seed: u64, bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    bytes.chunks(8).fold(seed, |number, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (number ^ u64::from_le_bytes(word)).wrapping_mul(ODD).rotate_left(29)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 UDP frame of `len` bytes; `number` tells the frames of a flow apart.
    fn frame(port: u8, number: u8, len: usize) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend([8, 0, 0x45, 0, 0, 0, 0, number, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, port, 0, 9]);
        frame.resize(len, number);
        frame
    }

    fn ordered(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut batch = Frames::default();
        frames.iter().for_each(|frame| batch.push(frame, Virtio::default()));
        let mut out = Vec::new();
        Order::default().each(&batch, |frame, _| out.push(frame.to_vec()));
        out
    }

    #[test]
    fn a_ping_overtakes_a_superframe_and_each_flow_keeps_its_order() {
        let [bulk1, bulk2, ping1, ping2] = [frame(1, 1, 60_000), frame(1, 2, 80), frame(2, 3, 98), frame(2, 4, 98)];
        let frames = [&bulk1, &ping1, &bulk2, &ping2].map(Clone::clone);
        assert_eq!(ordered(&frames), [ping1, ping2, bulk1, bulk2]);
    }

    #[test]
    fn without_bulk_nothing_moves() {
        let frames = (0..200).map(|number| frame(number % 3, number, 98)).collect::<Vec<_>>();
        assert_eq!(ordered(&frames), frames);
    }

    #[test]
    fn every_frame_comes_out_once_whatever_it_is() {
        let mut frames = (0..150).map(|number| frame(number, number, usize::from(number) * 40)).collect::<Vec<_>>();
        frames.push(vec![]);
        let mut out = ordered(&frames);
        out.sort();
        frames.sort();
        assert_eq!(out, frames);
    }
}
