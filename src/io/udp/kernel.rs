//! The two system calls of the underlay socket, `sendmmsg` and `recvmmsg`, and what their messages carry
//! beside the bytes: an address and control messages.
//!
//! Both are written and read as plain bytes in the kernel's layout, so that only the calls themselves are
//! `unsafe`. All arrays live on the stack and are written only as far as they are used.
//! Read first: udp(7), ip(7), cmsg(3).

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Messages of one `sendmmsg`: 4 MB of full runs, and 11 KB of stack for what describes them.
pub(super) const SEND_MESSAGES: usize = 64;
/// Messages of one `recvmmsg`, each with a buffer of [`RECEIVE_ROOM`].
pub(super) const RECEIVE_MESSAGES: usize = 16;
/// The longest GRO buffer there is.
pub(super) const RECEIVE_ROOM: usize = 65536;

/// A segment size (24), a hop limit (24), a traffic class (24) and a source address (40).
const SEND_NOTES: usize = 112;
/// Destination address (40), traffic class or TOS (24), segment size (24), and one to spare.
const RECEIVE_NOTES: usize = 128;

/// A `sockaddr_in` or `sockaddr_in6`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address {
    bytes: [u8; mem::size_of::<libc::sockaddr_in6>()],
    len: usize,
}

impl Address {
    const EMPTY: Self = Self { bytes: [0; 28], len: 0 };

    /// The kernel's layout of `address`.
    pub(super) fn encode(address: SocketAddr) -> Self {
        let mut this = Self::EMPTY;
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        this.bytes[..2].copy_from_slice(&(family as libc::sa_family_t).to_ne_bytes());
        this.bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(v4) => {
                this.bytes[4..8].copy_from_slice(&v4.ip().octets());
                this.len = mem::size_of::<libc::sockaddr_in>();
            }
            SocketAddr::V6(v6) => {
                this.bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                this.bytes[8..24].copy_from_slice(&v6.ip().octets());
                this.bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                this.len = this.bytes.len();
            }
        }
        this
    }

    /// What the kernel wrote; `None` if it is no address of the internet.
    pub(super) fn decode(&self) -> Option<SocketAddr> {
        let family = i32::from(libc::sa_family_t::from_ne_bytes(part(&self.bytes, 0)?));
        let port = u16::from_be_bytes(part(&self.bytes, 2)?);
        if family == libc::AF_INET {
            return Some(SocketAddr::new(Ipv4Addr::from(part::<4>(&self.bytes, 4)?).into(), port));
        }
        let flow = u32::from_ne_bytes(part(&self.bytes, 4)?);
        let ip = Ipv6Addr::from(part::<16>(&self.bytes, 8)?);
        let scope = u32::from_ne_bytes(part(&self.bytes, 24)?);
        (family == libc::AF_INET6).then(|| SocketAddrV6::new(ip, port, flow, scope).into())
    }
}

/// Control messages: of each its length, level, kind and value, padded to a word.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct Notes<const ROOM: usize> {
    bytes: [u8; ROOM],
    len: usize,
}

/// The length, a `size_t`.
const WORD: usize = mem::size_of::<usize>();
/// The length, level and kind.
const HEAD: usize = WORD + 8;

impl<const ROOM: usize> Notes<ROOM> {
    pub(super) const EMPTY: Self = Self { bytes: [0; ROOM], len: 0 };

    /// Appends one.
    ///
    /// # Panics
    /// If there is no room for it.
    pub(super) fn push(&mut self, level: i32, kind: i32, value: &[u8]) {
        let note = &mut self.bytes[self.len..];
        note[..WORD].copy_from_slice(&(HEAD + value.len()).to_ne_bytes());
        note[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
        note[WORD + 4..HEAD].copy_from_slice(&kind.to_ne_bytes());
        note[HEAD..HEAD + value.len()].copy_from_slice(value);
        self.len += (HEAD + value.len()).next_multiple_of(WORD);
    }

    /// Level, kind and value of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i32, i32, &[u8])> {
        let mut rest = &self.bytes[..self.len];
        std::iter::from_fn(move || {
            let len = usize::from_ne_bytes(part(rest, 0)?);
            let level = i32::from_ne_bytes(part(rest, WORD)?);
            let kind = i32::from_ne_bytes(part(rest, WORD + 4)?);
            let value = rest.get(HEAD..len)?;
            rest = rest.get(len.next_multiple_of(WORD)..).unwrap_or_default();
            Some((level, kind, value))
        })
    }
}

/// `N` bytes of `bytes` from `start`.
fn part<const N: usize>(bytes: &[u8], start: usize) -> Option<[u8; N]> {
    bytes.get(start..start + N)?.try_into().ok()
}

/// One message to send: datagrams of one size but for the last, to one address.
#[derive(Debug)]
pub(super) struct Outgoing<'a> {
    /// The datagrams, back to back.
    pub(super) bytes: &'a [u8],
    /// Bytes of each but the last.
    pub(super) size: usize,
    /// In the kernel's form.
    pub(super) to: SocketAddr,
    /// A hop limit other than the socket's.
    pub(super) hops: Option<u8>,
    /// The address of this host that it leaves from, IPv4 never as `::ffff:`.
    pub(super) from: Option<IpAddr>,
    /// TOS or traffic class; the socket's if 0.
    pub(super) tos: u8,
}

impl Outgoing<'_> {
    fn notes(&self) -> Notes<SEND_NOTES> {
        let mut notes = Notes::EMPTY;
        if self.bytes.len() > self.size {
            let size = u16::try_from(self.size).expect("a run is shorter than 65,536 bytes");
            notes.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
        }
        if let Some(hops) = self.hops {
            // The kernel hands `::ffff:` over to IPv4, which knows no IPv6 option but the source address.
            let is_v4 = self.to.ip().to_canonical().is_ipv4();
            let (level, kind) =
                if is_v4 { (libc::SOL_IP, libc::IP_TTL) } else { (libc::SOL_IPV6, libc::IPV6_HOPLIMIT) };
            notes.push(level, kind, &i32::from(hops).to_ne_bytes());
        }
        if self.tos != 0 {
            let is_v4 = self.to.ip().to_canonical().is_ipv4();
            let (level, kind) = if is_v4 { (libc::SOL_IP, libc::IP_TOS) } else { (libc::SOL_IPV6, libc::IPV6_TCLASS) };
            notes.push(level, kind, &i32::from(self.tos).to_ne_bytes());
        }
        // Any interface; before or behind it the address.
        match self.from {
            Some(IpAddr::V4(ip)) => {
                let [a, b, c, d] = ip.octets();
                notes.push(libc::SOL_IP, libc::IP_PKTINFO, &[0, 0, 0, 0, a, b, c, d, 0, 0, 0, 0]);
            }
            Some(IpAddr::V6(ip)) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&ip.octets());
                notes.push(libc::SOL_IPV6, libc::IPV6_PKTINFO, &info);
            }
            None => {}
        }
        notes
    }
}

/// Sends as many of the messages as the kernel takes, at most [`SEND_MESSAGES`], and says how many went.
/// An error is that of the first.
#[allow(unsafe_code, reason = "no safe crate has sendmmsg with UDP_SEGMENT")]
pub(super) fn send<'a>(socket: BorrowedFd<'_>, messages: impl IntoIterator<Item = Outgoing<'a>>) -> io::Result<usize> {
    let mut addresses = [const { MaybeUninit::<Address>::uninit() }; SEND_MESSAGES];
    let mut notes = [const { MaybeUninit::<Notes<SEND_NOTES>>::uninit() }; SEND_MESSAGES];
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; SEND_MESSAGES];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; SEND_MESSAGES];
    let mut count = 0;
    for (place, message) in messages.into_iter().take(SEND_MESSAGES).enumerate() {
        let address = addresses[place].write(Address::encode(message.to));
        let notes = notes[place].write(message.notes());
        // `sendmmsg` only reads through these pointers; the type is shared with `recvmmsg`.
        let base = message.bytes.as_ptr().cast_mut().cast();
        let vector = vectors[place].write(libc::iovec { iov_base: base, iov_len: message.bytes.len() });
        headers[place].write(header(address.bytes.as_mut_ptr(), address.len, vector, &mut notes.bytes, notes.len));
        count += 1;
    }
    // SAFETY: the first `count` headers are written, and what they point to lives in the arrays above and in
    // the `'a` of the messages. The lengths beside the pointers are those of what is pointed to.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr().cast(), count, libc::MSG_DONTWAIT) };
    usize::try_from(sent).map_err(|_negative| io::Error::last_os_error())
}

/// What is known of a received buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// Bytes of it.
    pub(super) len: usize,
    /// Its sender, in the kernel's form.
    pub(super) from: Address,
    /// All else.
    pub(super) notes: Notes<RECEIVE_NOTES>,
}

impl Received {
    /// Nothing yet.
    pub(super) const EMPTY: Self = Self { len: 0, from: Address::EMPTY, notes: Notes::EMPTY };

    /// Bytes of each datagram in the buffer; the last may be shorter.
    pub(super) fn stride(&self) -> usize {
        let gro = self.notes.iter().find(|(level, kind, _)| (*level, *kind) == (libc::SOL_UDP, libc::UDP_GRO));
        let stride = gro.and_then(|(_, _, value)| part(value, 0)).map_or(0, i32::from_ne_bytes);
        usize::try_from(stride).ok().filter(|stride| *stride > 0).unwrap_or(self.len).min(self.len)
    }

    /// The address it came to, in the kernel's form.
    pub(super) fn to(&self) -> Option<IpAddr> {
        self.notes.iter().find_map(|(level, kind, value)| match (level, kind) {
            // Behind the interface and the local address.
            (libc::SOL_IP, libc::IP_PKTINFO) => Some(Ipv4Addr::from(part::<4>(value, 8)?).into()),
            (libc::SOL_IPV6, libc::IPV6_PKTINFO) => Some(Ipv6Addr::from(part::<16>(value, 0)?).into()),
            _ => None,
        })
    }

    /// The traffic class or TOS, with the two bits of ECN.
    pub(super) fn class(&self) -> u8 {
        let class = self.notes.iter().find_map(|(level, kind, value)| match (level, kind) {
            (libc::SOL_IP, libc::IP_TOS) => value.first().copied(),
            (libc::SOL_IPV6, libc::IPV6_TCLASS) => part(value, 0).map(|class| i32::from_ne_bytes(class) as u8),
            _ => None,
        });
        class.unwrap_or_default()
    }
}

/// Receives what is there into `room`, each message into its own [`RECEIVE_ROOM`], at most
/// [`RECEIVE_MESSAGES`] and as many as `into` holds, and says how many. Fewer than that: there are no more.
#[allow(unsafe_code, reason = "no safe crate has recvmmsg with UDP_GRO")]
pub(super) fn receive(socket: BorrowedFd<'_>, room: &mut [u8], into: &mut [Received]) -> io::Result<usize> {
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; RECEIVE_MESSAGES];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; RECEIVE_MESSAGES];
    let mut count = 0;
    for (place, (buffer, received)) in room.chunks_exact_mut(RECEIVE_ROOM).zip(&mut *into).enumerate() {
        let vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let vector = vectors[place].write(vector);
        let Received { from, notes, .. } = received;
        let name = from.bytes.as_mut_ptr();
        headers[place].write(header(name, from.bytes.len(), vector, &mut notes.bytes, RECEIVE_NOTES));
        count += 1;
    }
    // SAFETY: the first `count` headers are written, and what they point to lives in `vectors`, `room` and
    // `into`, which are borrowed for longer than the call. The lengths beside the pointers are those of what
    // is pointed to. The last pointer is that of a timeout, which may be null.
    let received = unsafe {
        let headers = headers.as_mut_ptr().cast();
        libc::recvmmsg(socket.as_raw_fd(), headers, count, libc::MSG_DONTWAIT, ptr::null_mut())
    };
    let received = usize::try_from(received).map_err(|_negative| io::Error::last_os_error())?;
    for (header, received) in headers[..received].iter().zip(into) {
        // SAFETY: there are no more messages than headers, and those were all written above.
        let header = unsafe { header.assume_init_ref() };
        received.len = header.msg_len as usize;
        received.notes.len = header.msg_hdr.msg_controllen.min(RECEIVE_NOTES);
    }
    Ok(received)
}

/// What both calls take. The pointers are stored, not followed.
#[allow(unsafe_code, reason = "the C library may have padding of its own in the structure")]
fn header(
    name: *mut u8,
    name_len: usize,
    vector: *mut libc::iovec,
    notes: &mut [u8],
    notes_len: usize,
) -> libc::mmsghdr {
    // SAFETY: numbers and pointers only, for all of which zero is a value.
    let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
    header.msg_hdr.msg_name = name.cast();
    header.msg_hdr.msg_namelen = name_len as libc::socklen_t;
    header.msg_hdr.msg_iov = vector;
    header.msg_hdr.msg_iovlen = 1;
    header.msg_hdr.msg_control = notes.as_mut_ptr().cast();
    header.msg_hdr.msg_controllen = notes_len as _;
    header
}
