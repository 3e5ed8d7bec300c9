//! Reading and writing the fields of protocol.md, with every length checked once, here.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// Why bytes are not the message they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// It ends before it should.
    #[error("too short")]
    Short,
    /// It goes on after its end.
    #[error("too long")]
    Long,
    /// A byte that must be zero is not.
    #[error("a reserved field is used")]
    Reserved,
    /// A field holds what it cannot hold.
    #[error("a field is out of range")]
    Range,
    /// Of another version of the protocol.
    #[error("another protocol version")]
    Version,
    /// A signature or seal does not fit.
    #[error("not genuine")]
    Forged,
}

/// Takes fields from the front of a message.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Over a whole message.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What was not read yet.
    pub const fn rest(self) -> &'a [u8] {
        self.0
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A 2-byte length and that many bytes, at most `limit`.
    pub fn blob(&mut self, limit: usize) -> Result<&'a [u8], DecodeError> {
        let len = usize::from(self.u16()?);
        if len > limit {
            return Err(DecodeError::Range);
        }
        self.bytes(len)
    }

    /// An address of 18 bytes; IPv4 comes out as IPv4.
    pub fn addr(&mut self) -> Result<SocketAddr, DecodeError> {
        let ip = Ipv6Addr::from(self.array::<16>()?);
        let port = self.u16()?;
        Ok(SocketAddr::new(IpAddr::V6(ip).to_canonical(), port))
    }

    /// `len` bytes that must be zero.
    pub fn reserved(&mut self, len: usize) -> Result<(), DecodeError> {
        if self.bytes(len)?.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(DecodeError::Reserved) }
    }

    /// Nothing may be left.
    pub const fn end(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Long) }
    }
}

/// Puts fields at the end of a message.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// An empty message.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// These bytes as they are.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// One byte.
    #[must_use]
    pub fn u8(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    /// Two bytes.
    #[must_use]
    pub fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Four bytes.
    #[must_use]
    pub fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Eight bytes.
    #[must_use]
    pub fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    /// A 2-byte length and these bytes.
    #[must_use]
    pub fn blob(self, bytes: &[u8]) -> Self {
        let len = u16::try_from(bytes.len()).expect("a blob is cut to its limit before it is sent");
        self.u16(len).bytes(bytes)
    }

    /// An address as 18 bytes.
    #[must_use]
    pub fn addr(self, addr: SocketAddr) -> Self {
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        self.bytes(&ip.octets()).u16(addr.port())
    }

    /// `len` zero bytes.
    #[must_use]
    pub fn reserved(mut self, len: usize) -> Self {
        self.0.resize(self.0.len() + len, 0);
        self
    }

    /// What was written so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The finished message.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// How many of a list are written.
pub(super) fn count(len: usize, limit: usize) -> u16 {
    u16::try_from(len.min(limit)).expect("the limits are below 65,536")
}
