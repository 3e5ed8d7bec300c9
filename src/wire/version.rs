//! The version of the protocol that a node speaks (protocol.md, section 10).
//!
//! Another major version is another protocol and is refused with that reason. A minor version only adds:
//! whoever is older skips what it does not know, whoever is newer does not expect it.

use std::fmt;

use super::codec::{DecodeError, Reader, Writer};

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Must be equal at both ends.
    pub major: u8,
    /// May differ.
    pub minor: u8,
}

impl Version {
    /// What this program speaks.
    pub const OURS: Self = Self { major: 1, minor: 3 };
    /// What those speak that do not say it.
    pub const FIRST: Self = Self { major: 1, minor: 0 };
    /// Whoever speaks this knows of machines that move.
    pub const FOLLOWS: Self = Self { major: 1, minor: 2 };
    /// Whoever speaks this hands on what is for everybody.
    pub const TREES: Self = Self { major: 1, minor: 3 };

    /// Whether both understand each other.
    pub const fn suits(self, other: Self) -> bool {
        self.major == other.major
    }

    /// Reads it from the end of a message that may be older than versions.
    pub(super) fn read_tail(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if r.rest().is_empty() { Ok(Self::FIRST) } else { Ok(Self { major: r.u8()?, minor: r.u8()? }) }
    }

    pub(super) fn write(self, w: Writer) -> Writer {
        w.u8(self.major).u8(self.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_older_than_versions_is_of_the_first_one() {
        assert_eq!(Version::read_tail(&mut Reader::new(&[])), Ok(Version::FIRST));
        assert_eq!(Version::read_tail(&mut Reader::new(&[1, 7, 9])), Ok(Version { major: 1, minor: 7 }));
        assert_eq!(Version::read_tail(&mut Reader::new(&[1])), Err(DecodeError::Short));
    }

    #[test]
    fn a_minor_version_never_keeps_anybody_out() {
        assert!(Version::OURS.suits(Version::FIRST) && Version::FIRST.suits(Version { major: 1, minor: 200 }));
        assert!(!Version::OURS.suits(Version { major: 2, minor: 0 }));
    }
}
