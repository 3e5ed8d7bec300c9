//! The plain backend: one finished frame per system call, no offloads. Works on every kernel.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::task::{Context, Poll};

use super::offload::forget_offload;
use super::{Device, FRAME_EXTRA, READ_FRAMES, Tap, TapCounters};
use crate::datapath::buf::Frames;
use crate::datapath::offload::{TapOffload, Virtio};

/// One frame per system call, no offloads.
#[derive(Debug)]
pub(super) struct PlainTap {
    device: Device,
    room: usize,
}

impl PlainTap {
    /// Makes the TAP `name` for payloads of `mtu` bytes.
    pub(super) fn open(name: &str, mtu: usize) -> io::Result<Self> {
        let iface = tun_tap::Iface::without_packet_info(name, tun_tap::Mode::Tap)?;
        iface.set_non_blocking()?;
        let name = iface.name().to_owned();
        let file = file_of(iface);
        forget_offload(&file);
        let device = Device::watch(name, file)?;
        Ok(Self { device, room: mtu + FRAME_EXTRA })
    }
}

#[allow(unsafe_code, reason = "tun-tap gives its descriptor away as a number only")]
fn file_of(iface: tun_tap::Iface) -> File {
    // SAFETY: `into_raw_fd` hands the open descriptor over, so nobody else will close it.
    unsafe { OwnedFd::from_raw_fd(iface.into_raw_fd()) }.into()
}

impl Tap for PlainTap {
    fn name(&self) -> &str {
        &self.device.name
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.device.poll_readable(cx)
    }

    fn read(&mut self, frames: &mut Frames) -> io::Result<()> {
        for _ in 0..READ_FRAMES {
            let room = &mut frames.reserve(self.room)[..self.room];
            let Some(len) = self.device.read(|mut file| file.read(room))? else {
                break;
            };
            frames.commit(len, Virtio::default());
        }
        if frames.is_empty() { self.device.look() } else { Ok(()) }
    }

    fn write(&mut self, frame: &[u8], _finished: Virtio) -> io::Result<()> {
        self.device.write(|mut file| file.write(frame))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn offload(&self) -> TapOffload {
        TapOffload::None
    }

    fn counters(&self) -> TapCounters {
        self.device.counters
    }
}
