//! Guests whose every frame carries a VLAN tag.
//!
//! With the kernel's VLAN interface where it has one. Some small kernels do not: there two programs of
//! six instructions stand at the guest's `eth0` (tcx, Linux 6.6), and the tag takes the same way through
//! the kernel, beside the frame. They go when the [`Tagging`] is dropped.
#![allow(unsafe_code, reason = "bpf(2) exists only in libc")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::Guest;

const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const SCHED_CLS: u32 = 3;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
/// `bpf_skb_vlan_push(ctx, protocol, tag)`.
const VLAN_PUSH: i32 = 18;
/// `bpf_skb_vlan_pop(ctx)`.
const VLAN_POP: i32 = 19;
/// Customer tags, in network order.
const C_TAG: u16 = 0x8100_u16.to_be();

/// Holds the tagging of a guest.
pub struct Tagging {
    _links: Vec<OwnedFd>,
}

impl Guest {
    /// From now on its frames carry the tag of `vlan`, and it hears only such.
    pub fn tag(&self, vlan: u16) -> Result<Tagging, String> {
        let add = format!("ip link add link eth0 name tagged type vlan id {vlan}");
        let made = self.space.run(&add.split(' ').collect::<Vec<_>>());
        if made.status.success() {
            self.space.ip("addr flush dev eth0");
            self.space.ip("link set tagged up");
            self.space.ip(&format!("addr add {}/16 dev tagged", self.address));
            return Ok(Tagging { _links: Vec::new() });
        }
        let links = self.space.inside(|| -> io::Result<_> {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
            let index = rustix::net::netdevice::name_to_index(&socket, "eth0")?;
            let push = [move_to(2, i32::from(C_TAG)), move_to(3, i32::from(vlan)), call(VLAN_PUSH)];
            Ok(vec![attach(index, TCX_EGRESS, &push)?, attach(index, TCX_INGRESS, &[call(VLAN_POP)])?])
        });
        let links = links.map_err(|error| format!("no VLAN interfaces in this kernel, and no tcx: {error}"))?;
        Ok(Tagging { _links: links })
    }
}

/// One instruction: operation, registers, offset, immediate value.
type Instruction = [u8; 8];

fn instruction(operation: u8, register: u8, value: i32) -> Instruction {
    let [a, b, c, d] = value.to_ne_bytes();
    [operation, register, 0, 0, a, b, c, d]
}

fn move_to(register: u8, value: i32) -> Instruction {
    instruction(0xb7, register, value)
}

fn call(helper: i32) -> Instruction {
    instruction(0x85, 0, helper)
}

#[repr(C)]
struct ProgLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    rest: [u64; 3],
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    place: u32,
    flags: u32,
}

/// Loads a program that ends with "go on", and puts it at an interface.
fn attach(interface: u32, place: u32, body: &[Instruction]) -> io::Result<OwnedFd> {
    let exit = instruction(0x95, 0, 0);
    let program = [body, &[move_to(0, 0), exit]].concat();
    let load = ProgLoad {
        kind: SCHED_CLS,
        count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        rest: [0; 3],
    };
    let program = bpf(PROG_LOAD, &load)?;
    let number = u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?;
    bpf(LINK_CREATE, &LinkCreate { program: number, target: interface, place, flags: 0 })
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attributes` is the whole value that the command wants, with its true size; what it points
    // to outlives the call, and the kernel copies it.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: both commands give a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
