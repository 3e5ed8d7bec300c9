//! Several sockets on one port, one for each lane, and which of them gets a datagram.
//!
//! The kernel asks a program of ours: DATA goes to the lane that owns its stream (`datapath/lane`), everything
//! else to the first socket. A receive buffer that the kernel joined goes where its first datagram belongs; so
//! that one holds no streams of two lanes, each lane sends with a hop limit of its own, and packets of
//! different hop limits are never joined. Where that does not hold, lanes hand packets on.
//! Read first: `net/core/sock_reuseport.c`, `net/ipv4/udp_offload.c`, bpf(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket2::SockRef;

use super::{Underlay, open};
use crate::wire::data::{COUNTER_AT, DATA};

/// `BPF_LD | BPF_B | BPF_ABS`: the byte at an offset of the UDP payload. Behind its end, the answer is 0.
const LOAD_BYTE: u16 = 0x30;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
const JUMP_IF_EQUAL: u16 = 0x15;
/// `BPF_ALU | BPF_RSH | BPF_K`.
const SHIFT_RIGHT: u16 = 0x74;
/// `BPF_ALU | BPF_MOD | BPF_K`.
const MODULO: u16 = 0x94;
/// `BPF_RET | BPF_A`.
const RETURN: u16 = 0x16;
/// `BPF_RET | BPF_K`.
const RETURN_CONSTANT: u16 = 0x06;

impl Underlay {
    /// Sockets on the same port for the lanes from 1 on.
    ///
    /// The first one was bound without the sharing of ports, so a second daemon still finds the port busy. It is
    /// left as it was if the kernel refuses anything.
    pub fn spread(&self, lanes: u8) -> io::Result<Vec<Self>> {
        let first = SockRef::from(&self.socket);
        first.set_reuse_port(true)?;
        let further = (1..lanes).map(|lane| self.beside(lane)).collect::<io::Result<Vec<_>>>();
        let steered = further.and_then(|further| steer(self.socket.as_fd(), lanes).map(|()| further));
        if steered.is_err() {
            first.set_reuse_port(false)?;
        }
        steered
    }

    fn beside(&self, lane: u8) -> io::Result<Self> {
        let socket = open(self.local, true)?;
        let (raw, first) = (SockRef::from(&socket), SockRef::from(&self.socket));
        let lower = |hops: u32| hops.saturating_sub(u32::from(lane)).max(1);
        raw.set_ttl_v4(lower(first.ttl_v4()?))?;
        if self.local.is_ipv6() {
            raw.set_unicast_hops_v6(lower(first.unicast_hops_v6()?))?;
        }
        Self::with_socket(socket)
    }
}

/// The program, for so many sockets.
fn program(lanes: u8) -> [libc::sock_filter; 7] {
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    [
        step(LOAD_BYTE, 0, 0, 0),
        step(JUMP_IF_EQUAL, 0, 4, u32::from(DATA)),
        step(LOAD_BYTE, 0, 0, COUNTER_AT as u32),
        step(SHIFT_RIGHT, 0, 0, 4),
        step(MODULO, 0, 0, u32::from(lanes)),
        step(RETURN, 0, 0, 0),
        step(RETURN_CONSTANT, 0, 0, 0),
    ]
}

#[allow(unsafe_code, reason = "no safe crate attaches a program to a group of sockets")]
fn steer(socket: BorrowedFd<'_>, lanes: u8) -> io::Result<()> {
    let mut steps = program(lanes);
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the kernel reads one `sock_fprog` and the steps it points to, which both live until it returns;
    // the lengths are theirs.
    let refused = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if refused == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::buf::Datagrams;
    use crate::io::quic::inbox;
    use crate::io::udp::Listen;
    use crate::wire::data::{Header, first_counter};
    use std::net::UdpSocket;

    fn received(socket: &Underlay) -> Vec<Vec<u8>> {
        let (mut datagrams, (inbox, _queue)) = (Datagrams::default(), inbox());
        while socket.receive(&mut datagrams, &inbox).expect("loopback") {}
        let split = |(bytes, origin): (&[u8], &crate::datapath::buf::Origin)| {
            bytes.chunks(origin.stride).map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        datagrams.iter().flat_map(split).collect()
    }

    #[test]
    fn each_stream_comes_to_its_lane_and_all_else_to_the_first() {
        let first = Underlay::bind(Listen::At("127.0.0.1:0".parse().expect("address"))).expect("socket");
        let mut sockets = first.spread(3).expect("reuseport");
        sockets.insert(0, first);
        let peer = UdpSocket::bind("127.0.0.1:0").expect("socket");
        let to = sockets[0].local();
        for stream in 0..16 {
            let header = Header { is_data: true, receiver: 7, counter: first_counter(stream) + 1 };
            peer.send_to(&[header.bytes().as_slice(), &[stream; 17]].concat(), to).expect("loopback");
        }
        let session = Header { is_data: false, receiver: 7, counter: first_counter(1) }.bytes();
        for odd in [&session[..], &[DATA], &[1; 100], &[0x40; 30]] {
            peer.send_to(odd, to).expect("loopback");
        }
        for (lane, socket) in sockets.iter().enumerate() {
            let packets = received(socket);
            let streams = packets.iter().filter(|packet| packet.len() == 33).map(|packet| usize::from(packet[8] >> 4));
            assert_eq!(streams.collect::<Vec<_>>(), (0..16).filter(|stream| stream % 3 == lane).collect::<Vec<_>>());
            assert_eq!(packets.iter().filter(|packet| packet.len() != 33).count(), if lane == 0 { 3 } else { 0 });
        }
    }

    #[test]
    fn the_port_of_lanes_is_busy_for_another_daemon() {
        let first = Underlay::bind(Listen::At("[::]:0".parse().expect("address"))).expect("socket");
        let _further = first.spread(2).expect("reuseport");
        assert!(Underlay::bind(Listen::At(first.local())).is_err());
    }

    #[test]
    fn lanes_send_with_different_hop_limits() {
        let first = Underlay::bind(Listen::At("[::]:0".parse().expect("address"))).expect("socket");
        let further = first.spread(4).expect("reuseport");
        let hops = |socket: &Underlay| {
            let socket = SockRef::from(&socket.socket);
            (socket.ttl_v4().expect("IPv4"), socket.unicast_hops_v6().expect("IPv6"))
        };
        let (v4, v6) = hops(&first);
        assert_eq!(further.iter().map(hops).collect::<Vec<_>>(), [1, 2, 3].map(|lane| (v4 - lane, v6 - lane)));
    }
}
