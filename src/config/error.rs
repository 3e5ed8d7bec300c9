//! What is wrong with a config, each as one sentence with file, line and key.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::keys::KeyError;

/// Why a config is refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{0}: {1}")]
    Unreadable(PathBuf, #[source] io::Error),
    /// It is not what the keys allow.
    #[error("line {line}: {message}")]
    Toml {
        /// Counted from 1.
        line: usize,
        /// One sentence.
        message: String,
    },
    /// The same, with the file.
    #[error("{}: {error}", file.display())]
    InFile {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        error: Box<ConfigError>,
    },
    /// Two keys exclude each other.
    #[error("`{0}` and `{1}` exclude each other: give one")]
    Together(&'static str, &'static str),
    /// A key needs another.
    #[error("`{0}` means nothing without `{1}`")]
    Without(&'static str, &'static str),
    /// Nothing to do.
    #[error("no overlay: give `up NAME`, or an [[overlay]] in the config; a mere supernode needs `serve`")]
    NoOverlay,
    /// Nobody to ask.
    #[error(
        "no supernode: give --supernode HOST[:PORT][#FINGERPRINT] (or `supernode = [..]`), or --serve ADDR:PORT to be one"
    )]
    NoSupernode,
    /// Members would have to trust whatever they find there.
    #[error("`peers` {0} has no fingerprint: give HOST:PORT#FINGERPRINT, which that supernode prints when it starts")]
    PeerWithoutKey(String),
    /// More than there is room for.
    #[error("more than {1} entries of `{0}`")]
    TooMany(&'static str, usize),
    /// The same thing twice.
    #[error("two overlays with the {0} {1}")]
    Twice(&'static str, String),
    /// No key.
    #[error("no key for the overlay {0}: give `key-file` or `passphrase-file`, or LONGWIRE_KEY in the environment")]
    NoKey(String),
    /// One key, many overlays.
    #[error("LONGWIRE_KEY is for one overlay, and more than one names no `key-file`")]
    EnvForMany,
    /// No such MTU.
    #[error("`mtu` {0}: from {1} to {2} are carried")]
    Mtu(u16, u16, u16),
    /// Reservations that cannot all hold.
    #[error("`rate` and `cap`: {0}")]
    Reserve(String),
    /// One of several that cannot be, counted from 1.
    #[error("`{0}` {1} of an overlay: {2}")]
    Entry(&'static str, usize, String),
    /// A number too small or too large.
    #[error("`{0}` {1}: from {2} to {3} is possible")]
    OutOfRange(&'static str, i64, i64, i64),
    /// A name that does not fit a directory entry.
    #[error("`site` is a name of at most {0} bytes")]
    Site(usize),
    /// A key file cannot be read.
    #[error("key file {0}: {1}")]
    KeyFile(PathBuf, #[source] io::Error),
    /// Everybody can read it.
    #[error("key file {0} has mode {1:04o}: everybody on this host can read it; `chmod 600 {0}`")]
    KeyFileOpen(PathBuf, u32),
    /// What is in it is no key.
    #[error("{0}: {1}")]
    Key(String, #[source] KeyError),
}

impl ConfigError {
    /// The same, naming the file.
    pub fn in_file(self, path: &Path) -> Self {
        Self::InFile { file: path.to_owned(), error: Box::new(self) }
    }
}
