//! Raw packet sockets (AF_PACKET): frames out of and into an interface, byte for byte.
//!
//! With `kernel` and `tag` a file of the lab with `unsafe`: safe crates have neither the addresses
//! nor the options of these sockets. The kernel takes the outer VLAN tag off an arriving frame and
//! tells it beside the frame; [`PacketSocket::receive`] puts it back.
#![allow(unsafe_code, reason = "AF_PACKET addresses, options and control messages exist only in libc")]

use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Space, fail};

/// Longer than any frame, also a superframe of segmentation offload.
pub(super) const FRAME_MAX: usize = 65_600;

/// The receive buffer: a whole burst while the test thread does not run.
const BUFFER: usize = 8 << 20;

/// `struct virtio_net_hdr` in front of each frame, when asked for.
pub(super) const OFFLOAD_HEADER: usize = 10;

/// What a socket hears, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Frames, with their VLAN tags.
    Frames,
    /// The same, and also what leaves by the interface.
    BothWays,
    /// Frames behind the kernel's offload header, to hand them on unchanged.
    Offload,
}

/// A raw socket on one interface. Sees what arrives there.
pub struct PacketSocket {
    socket: Socket,
}

impl PacketSocket {
    /// Opens on an interface of a namespace; sees frames to every MAC address.
    #[track_caller]
    pub fn open(space: &Space, interface: &str) -> PacketSocket {
        PacketSocket::open_as(space, interface, Style::Frames)
    }

    #[track_caller]
    pub(super) fn open_as(space: &Space, interface: &str, style: Style) -> PacketSocket {
        match space.inside(|| open(interface, style)) {
            Ok(socket) => PacketSocket { socket },
            Err(e) => fail(format_args!("raw socket on {interface} of {}: {e}", space.name())),
        }
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(|_| ())
    }

    /// The next frame, or none within the time.
    pub fn receive(&self, timeout: Duration) -> Option<Vec<u8>> {
        let end = Instant::now() + timeout;
        let mut buffer = vec![0; FRAME_MAX];
        loop {
            match self.receive_now(&mut buffer) {
                Ok((len, tag)) => return Some(with_tag(&buffer[..len], tag)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            wait(&[self], left);
        }
    }

    /// All frames until the time is over, or until `enough` says so of those so far.
    pub fn collect(&self, time: Duration, enough: impl Fn(&[Vec<u8>]) -> bool) -> Vec<Vec<u8>> {
        let end = Instant::now() + time;
        let mut frames = Vec::new();
        while !enough(&frames) {
            match self.receive(end.saturating_duration_since(Instant::now())) {
                Some(frame) => frames.push(frame),
                None => break,
            }
        }
        frames
    }

    /// One datagram of the socket as it is, with the VLAN tag told beside it (TPID, TCI).
    pub(super) fn receive_now(&self, buffer: &mut [u8]) -> io::Result<(usize, Option<(u16, u16)>)> {
        let mut control = Control([0; 64]);
        let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: all zero is a valid `msghdr`: null pointers with length zero.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len() as _;
        // SAFETY: the message points to `buffer` and `control`, which outlive the call, with
        // their true lengths.
        let len = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
        Ok((len, tag_of(&message)))
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends `bytes` as datagrams of `size` bytes with one call (Linux `UDP_SEGMENT`).
pub fn send_segmented(socket: &UdpSocket, bytes: &[u8], size: u16, to: (Ipv4Addr, u16)) -> io::Result<()> {
    set_at(socket, libc::SOL_UDP, libc::UDP_SEGMENT, libc::c_int::from(size))?;
    socket.send_to(bytes, to).map(|_| ())
}

/// Waits until one of the sockets has a frame, or the time is over.
pub(super) fn wait(sockets: &[&PacketSocket], timeout: Duration) {
    let mut fds: Vec<PollFd<'_>> = sockets.iter().map(|socket| PollFd::new(*socket, PollFlags::IN)).collect();
    let timeout =
        Timespec { tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: timeout.subsec_nanos().into() };
    // An interrupted wait is a short one.
    poll(&mut fds, Some(&timeout)).ok();
}

/// Space for control messages, aligned as their headers want it.
#[repr(align(8))]
struct Control([u8; 64]);

fn open(interface: &str, style: Style) -> io::Result<Socket> {
    // Protocol 0 hears nothing until the socket is bound.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    let index = rustix::net::netdevice::name_to_index(&socket, interface)?;
    let name = match style {
        Style::Frames | Style::BothWays => libc::PACKET_AUXDATA,
        Style::Offload => libc::PACKET_VNET_HDR,
    };
    set(&socket, name, 1_i32)?;
    let deaf_to_own = i32::from(style != Style::BothWays);
    set(&socket, libc::PACKET_IGNORE_OUTGOING, deaf_to_own)?;
    // As root the buffer may pass the system's limit.
    let size = libc::c_int::try_from(BUFFER).unwrap_or(libc::c_int::MAX);
    if set_at(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size).is_err() {
        socket.set_recv_buffer_size(BUFFER)?;
    }
    let index = libc::c_int::try_from(index).map_err(io::Error::other)?;
    bind(&socket, index)?;
    let everything =
        libc::packet_mreq { mr_ifindex: index, mr_type: libc::PACKET_MR_PROMISC as _, mr_alen: 0, mr_address: [0; 8] };
    set(&socket, libc::PACKET_ADD_MEMBERSHIP, everything)?;
    Ok(socket)
}

fn bind(socket: &Socket, index: libc::c_int) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as _,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `address` is a whole `sockaddr_ll` and its size is given; the kernel copies it.
    let done = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set<T>(socket: &Socket, name: libc::c_int, value: T) -> io::Result<()> {
    set_at(socket, libc::SOL_PACKET, name, value)
}

fn set_at<T>(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: T) -> io::Result<()> {
    // SAFETY: `value` is a whole T and its size is given; the kernel copies it.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size_of::<T>() as libc::socklen_t)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The VLAN tag that the kernel took off, from the control messages.
fn tag_of(message: &libc::msghdr) -> Option<(u16, u16)> {
    // SAFETY: `message` was filled by `recvmsg`, and its control buffer is still alive.
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    if header.cmsg_level != libc::SOL_PACKET || header.cmsg_type != libc::PACKET_AUXDATA {
        return None;
    }
    // SAFETY: the kernel writes a whole `tpacket_auxdata` behind a header of this type; the read
    // asks for no alignment.
    let data = unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() };
    let has = |bit: u32| data.tp_status & bit != 0;
    let tpid = if has(libc::TP_STATUS_VLAN_TPID_VALID) { data.tp_vlan_tpid } else { 0x8100 };
    has(libc::TP_STATUS_VLAN_VALID).then_some((tpid, data.tp_vlan_tci))
}

fn with_tag(frame: &[u8], tag: Option<(u16, u16)>) -> Vec<u8> {
    let mut whole = frame.to_vec();
    if let (Some((tpid, tci)), true) = (tag, frame.len() >= 12) {
        let bytes = [tpid.to_be_bytes(), tci.to_be_bytes()].concat();
        whole.splice(12..12, bytes);
    }
    whole
}
