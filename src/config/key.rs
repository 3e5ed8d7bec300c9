//! Overlay keys from where users keep them: a file, standard input, the environment, a passphrase.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::ConfigError;
use crate::keys::OverlayKey;

/// A key is 60 letters; more than this is another file.
const FILE_MAX: u64 = 4096;
/// Anybody on the host may read, write or enter.
const OTHERS: u32 = 0o007;

/// Where an overlay's key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file with one key line; `-` is standard input.
    KeyFile(PathBuf),
    /// A file with a passphrase; `-` is standard input.
    PassphraseFile(PathBuf),
    /// The key line itself, from the environment.
    Text(String),
}

impl KeySource {
    /// Reads the key of the overlay `name`.
    pub fn read(&self, name: &str) -> Result<OverlayKey, ConfigError> {
        match self {
            Self::KeyFile(path) => {
                let text = read(path)?;
                text.parse().map_err(|error| ConfigError::Key(format!("key file {}", path.display()), error))
            }
            Self::PassphraseFile(path) => {
                let text = read(path)?;
                let passphrase = text.trim_end_matches(['\r', '\n']);
                OverlayKey::from_passphrase(name, passphrase)
                    .map_err(|error| ConfigError::Key(format!("passphrase file {}", path.display()), error))
            }
            Self::Text(text) => text.parse().map_err(|error| ConfigError::Key("LONGWIRE_KEY".into(), error)),
        }
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let failed = |error| ConfigError::KeyFile(path.to_owned(), error);
    let mut text = Zeroizing::new(String::new());
    if path == Path::new("-") {
        io::stdin().take(FILE_MAX).read_to_string(&mut text).map_err(failed)?;
        return Ok(text);
    }
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o7777;
    // A pipe of the shell is nobody else's.
    if metadata.is_file() && mode & OTHERS != 0 {
        return Err(ConfigError::KeyFileOpen(path.to_owned(), mode));
    }
    file.take(FILE_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}
