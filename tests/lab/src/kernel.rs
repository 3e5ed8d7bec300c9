//! What a test asks of the kernel and no safe crate can: a refusal made to order, and UDP segmentation.
#![allow(unsafe_code, reason = "seccomp filters and UDP_SEGMENT exist only in libc")]

use std::ffi::{c_int, c_void};
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use super::fail;

/// Where `struct seccomp_data` has the system call's number.
const NUMBER: u32 = 0;
/// Where it has the low half of an argument, counted from 0 (little-endian).
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// From now on, in this thread and all that it starts, this `ioctl` fails with EINVAL, as on a kernel that
/// does not know it; with a `value`, only if that is its argument. For ever: use a thread of its own.
#[track_caller]
pub fn refuse_ioctl(request: u32, value: Option<u32>) {
    let mut tests = vec![(NUMBER, u32::try_from(libc::SYS_ioctl).unwrap_or(u32::MAX)), (argument(1), request)];
    tests.extend(value.map(|value| (argument(2), value)));
    let (load, jump, end) =
        (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::BPF_RET);
    let one = |code: u32, k: u32, jf: usize| libc::sock_filter { code: code as u16, jt: 0, jf: jf as u8, k };
    let mut filter = Vec::new();
    for (place, (field, equals)) in tests.iter().enumerate() {
        // Past the tests that are left and the refusal.
        let to_allow = 2 * (tests.len() - place - 1) + 1;
        filter.extend([one(load, *field, 0), one(jump, *equals, to_allow)]);
    }
    filter.push(one(end, libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32, 0));
    filter.push(one(end, libc::SECCOMP_RET_ALLOW, 0));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program points to `len` instructions, which the kernel copies before it returns.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if set != 0 {
        fail(format_args!("seccomp: {}", io::Error::last_os_error()));
    }
}

/// What the socket sends is cut into datagrams of `size` bytes by the kernel, or by whoever takes it whole.
#[track_caller]
pub fn cut_datagrams(socket: &UdpSocket, size: u16) {
    let size = c_int::from(size);
    let len = size_of::<c_int>() as libc::socklen_t;
    let value = (&raw const size).cast::<c_void>();
    // SAFETY: the value is an int that lives until the call returns, and `len` is its size.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, value, len) };
    if set != 0 {
        fail(format_args!("UDP_SEGMENT: {}", io::Error::last_os_error()));
    }
}
