//! The offloading backend: the kernel's note in front of each frame, superframes in one piece.
//!
//! The kernel neither cuts nor sums what it hands over, and takes the same from us: one system call
//! moves up to 64 KB. Opened in three steps, each of which a kernel may refuse: the device with notes,
//! the length of a note, what they may ask for. Read first: `drivers/net/tun.c`, `linux/if_tun.h`.

use std::ffi::c_int;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::task::{Context, Poll};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Opcode, Setter, Updater, ioctl, opcode};

use super::{Device, FRAME_EXTRA, READ_FRAMES, Tap, TapCounters};
use crate::datapath::buf::Frames;
use crate::datapath::offload::{TapOffload, VIRTIO_LEN, Virtio};

/// The longest frame: an IP packet of the longest length there is, and its Ethernet header.
const ROOM: usize = 65_535 + FRAME_EXTRA;
/// Bytes of one batch, room for the next read included: 16 superframes, which a second-level cache holds
/// and which leave others their turn.
const BATCH: usize = 1 << 20;

const TUNSETIFF: Opcode = opcode::write::<c_int>(b'T', 202);
const TUNSETOFFLOAD: Opcode = opcode::write::<u32>(b'T', 208);
const TUNSETVNETHDRSZ: Opcode = opcode::write::<c_int>(b'T', 216);

/// `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`.
const FLAGS: u16 = 0x0002 | 0x1000 | 0x4000;
/// `IFF_MULTI_QUEUE`. Flags are the device's: all its queues are opened with the same ones.
const MULTI_QUEUE: u16 = 0x0100;
/// `TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN`.
const TCP: u32 = 0x01 | 0x02 | 0x04 | 0x08;
/// `TUN_F_USO4 | TUN_F_USO6`: the kernel takes both or neither.
const UDP: u32 = 0x20 | 0x40;
/// What is asked for, the most first.
const PROBES: [(TapOffload, u32); 2] = [(TapOffload::TcpAndUdp, TCP | UDP), (TapOffload::Tcp, TCP)];

/// `struct ifreq` of `TUNSETIFF`.
#[repr(C)]
struct Request {
    name: [u8; Request::NAME_LEN],
    flags: u16,
    rest: [u8; 22],
}

impl Request {
    /// `IFNAMSIZ`, the closing zero included.
    const NAME_LEN: usize = 16;
}

/// Superframes and partial checksums, one per system call.
#[derive(Debug)]
pub(super) struct OffloadTap {
    device: Device,
    offload: TapOffload,
}

/// A further queue of such a TAP, which no poller watches yet: another thread will.
#[derive(Debug)]
pub struct Queue {
    name: String,
    file: File,
    offload: TapOffload,
}

impl Queue {
    /// Makes the TAP `name` or takes one more queue of it.
    fn open(name: &str, flags: u16) -> io::Result<Self> {
        let access = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open("/dev/net/tun", access, Mode::empty())?);
        let name = attach(&file, name, flags)?;
        set_note_len(&file)?;
        Ok(Self { name, file, offload: TapOffload::None })
    }

    /// For the thread that will read it: must be called on its runtime.
    pub fn watch(self) -> io::Result<Box<dyn Tap>> {
        Ok(Box::new(OffloadTap { device: Device::watch(self.name, self.file)?, offload: self.offload }))
    }
}

impl OffloadTap {
    /// Makes the TAP `name`, with the most of `wanted` that the kernel gives. The device is gone again
    /// where this fails. For several lanes, it has a queue for each, or one if the kernel refuses that.
    pub(super) fn open_with(name: &str, wanted: TapOffload, lanes: u8) -> io::Result<(Self, Vec<Queue>)> {
        if lanes > 1 {
            match Self::open(name, wanted, FLAGS | MULTI_QUEUE) {
                Ok(first) => {
                    let further = |_| {
                        Ok(Queue { offload: first.offload, ..Queue::open(&first.device.name, FLAGS | MULTI_QUEUE)? })
                    };
                    let queues = (1..lanes).map(further).collect::<io::Result<Vec<_>>>();
                    return Ok((first, queues.unwrap_or_default()));
                }
                Err(error) if is_refusal(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((Self::open(name, wanted, FLAGS)?, Vec::new()))
    }

    fn open(name: &str, wanted: TapOffload, flags: u16) -> io::Result<Self> {
        let Queue { name, file, .. } = Queue::open(name, flags)?;
        let offload = negotiate(wanted, |bits| set_offload(&file, bits))?;
        Ok(Self { device: Device::watch(name, file)?, offload })
    }
}

/// Whether an error of [`OffloadTap::open_with`] says that this kernel has no such thing. A device of that name
/// with other flags is the same to the kernel; the plain backend finds out.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS))
}

/// A device that outlives its users remembers what the last one took: a frame of the plain backend must be
/// finished. An old kernel has nothing to forget.
pub(super) fn forget_offload(file: &File) {
    let _nothing_to_forget = set_offload(file, 0);
}

/// Asks for less until the kernel agrees; its last refusal if it never does.
fn negotiate(wanted: TapOffload, mut ask: impl FnMut(u32) -> io::Result<()>) -> io::Result<TapOffload> {
    let mut refusal = Errno::OPNOTSUPP.into();
    for (offload, bits) in PROBES.into_iter().filter(|(offload, _)| *offload <= wanted) {
        match ask(bits) {
            Ok(()) => return Ok(offload),
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

/// Makes the device, or takes the one that is there; the name it has.
#[allow(unsafe_code, reason = "no safe crate opens a TAP with virtio headers")]
fn attach(file: &File, name: &str, flags: u16) -> io::Result<String> {
    let mut request = Request { name: [0; Request::NAME_LEN], flags, rest: [0; 22] };
    if name.len() >= request.name.len() {
        return Err(Errno::NAMETOOLONG.into());
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which is what `Request` is: a name of 16 bytes
    // and a union of at most 24 whose first member here is a short.
    unsafe { ioctl(file, Updater::<TUNSETIFF, Request>::new(&mut request)) }?;
    let len = request.name.iter().position(|byte| *byte == 0).unwrap_or(request.name.len());
    Ok(String::from_utf8_lossy(&request.name[..len]).into_owned())
}

/// Says how long the notes are: another user of a lasting device may have chosen otherwise.
#[allow(unsafe_code, reason = "no safe crate opens a TAP with virtio headers")]
fn set_note_len(file: &File) -> io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    Ok(unsafe { ioctl(file, Setter::<TUNSETVNETHDRSZ, c_int>::new(VIRTIO_LEN as c_int)) }?)
}

#[allow(unsafe_code, reason = "no safe crate opens a TAP with virtio headers")]
fn set_offload(file: &File, bits: u32) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value, any value.
    Ok(unsafe { ioctl(file, IntegerSetter::<TUNSETOFFLOAD>::new_usize(bits as usize)) }?)
}

impl Tap for OffloadTap {
    fn name(&self) -> &str {
        &self.device.name
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.device.poll_readable(cx)
    }

    fn read(&mut self, frames: &mut Frames) -> io::Result<()> {
        for _ in 0..READ_FRAMES {
            if frames.byte_len() + ROOM > BATCH {
                break;
            }
            let mut note = [0; VIRTIO_LEN];
            let room = &mut frames.reserve(ROOM)[..ROOM];
            let mut parts = [IoSliceMut::new(&mut note), IoSliceMut::new(room)];
            let Some(len) = self.device.read(|mut file| file.read_vectored(&mut parts))? else {
                break;
            };
            match len.checked_sub(VIRTIO_LEN).zip(Virtio::parse(note)) {
                Some((len, virtio)) => frames.commit(len, virtio),
                None => self.device.counters.read += 1,
            }
        }
        if frames.is_empty() { self.device.look() } else { Ok(()) }
    }

    fn write(&mut self, frame: &[u8], virtio: Virtio) -> io::Result<()> {
        let note = virtio.bytes();
        self.device.write(|mut file| file.write_vectored(&[IoSlice::new(&note), IoSlice::new(frame)]))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn offload(&self) -> TapOffload {
        self.offload
    }

    fn counters(&self) -> TapCounters {
        self.device.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_asked_for_less_until_it_agrees() {
        let up_to = |wanted, most: u32| {
            let mut asked = Vec::new();
            let answer = negotiate(wanted, |bits| {
                asked.push(bits);
                if bits & !most == 0 { Ok(()) } else { Err(Errno::INVAL.into()) }
            });
            (answer.ok(), asked)
        };
        let all = TapOffload::TcpAndUdp;
        assert_eq!(up_to(all, 0x6f), (Some(TapOffload::TcpAndUdp), vec![0x6f]));
        assert_eq!(up_to(all, 0x0f), (Some(TapOffload::Tcp), vec![0x6f, 0x0f]));
        assert_eq!(up_to(all, 0x01), (None, vec![0x6f, 0x0f]));
        assert_eq!(up_to(TapOffload::Tcp, 0x6f), (Some(TapOffload::Tcp), vec![0x0f]));
        assert_eq!(up_to(TapOffload::None, 0x6f), (None, vec![]));
    }

    #[test]
    fn a_kernel_without_offloads_is_told_from_a_device_that_cannot_be_had() {
        for errno in [Errno::INVAL, Errno::NOTTY, Errno::OPNOTSUPP, Errno::NOSYS] {
            assert!(is_refusal(&errno.into()), "{errno}");
        }
        for errno in [Errno::BUSY, Errno::PERM, Errno::NOENT, Errno::NOMEM, Errno::NAMETOOLONG] {
            assert!(!is_refusal(&errno.into()), "{errno}");
        }
        let never = negotiate(TapOffload::TcpAndUdp, |_| Err(Errno::INVAL.into()));
        assert!(is_refusal(&never.expect_err("refused")));
    }

    #[test]
    fn a_request_is_what_the_kernel_reads() {
        assert_eq!(size_of::<Request>(), 40);
        assert_eq!((TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ), (0x4004_54ca, 0x4004_54d0, 0x4004_54d8));
    }
}
