//! The state directory: what outlives the daemon.
//!
//! | file | what |
//! | --- | --- |
//! | `lock` | held as long as the daemon runs; names its process |
//! | `node.key` | the node's secret in base 32, mode 0600, made at the first start |
//! | `memory.json` | [`Memory`]: supernode keys and last addresses |
//! | `clock` | the latest calendar time seen, in nanoseconds |
//!
//! Files are replaced by rename, so that a crash leaves the old one or the new one. A disk that does not
//! take a write is reported once and does not stop anything.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use data_encoding::{BASE32_NOPAD, BASE32_NOPAD_NOCASE};
use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::{FlockOperation, flock};
use thiserror::Error;
use tracing::warn;
use zeroize::Zeroizing;

use crate::node::Memory;
use crate::time::WallTime;

const LOCK: &str = "lock";
const KEY: &str = "node.key";
const MEMORY: &str = "memory.json";
const CLOCK: &str = "clock";

/// Why the state cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// It cannot be made or entered.
    #[error("state directory {0}: {1}; give another with --state DIR")]
    Directory(PathBuf, #[source] io::Error),
    /// Another daemon has it.
    #[error(
        "another longwire (process {1}) uses {0}: stop it, or give this one a directory of its own with --state DIR"
    )]
    InUse(PathBuf, String),
    /// The node key cannot be read or made.
    #[error("node key {0}: {1}")]
    Key(PathBuf, #[source] io::Error),
    /// The node key is not one.
    #[error("node key {0} is damaged: restore it, or remove it and be another node")]
    Damaged(PathBuf),
    /// Others can read the node key.
    #[error("node key {0} has mode {1:04o}: others can read it; `chmod 600` it, or remove it if they have")]
    Open(PathBuf, u32),
}

/// The directory, held by this process.
#[derive(Debug)]
pub struct State {
    dir: PathBuf,
    secret: Zeroizing<[u8; 32]>,
    complained: AtomicBool,
    /// Unlocked when closed.
    _lock: File,
}

impl State {
    /// Takes the directory and the node's secret in it; makes both where missing.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let in_dir = |error| StateError::Directory(dir.to_owned(), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(in_dir)?;
        let lock = lock(dir)?;
        let key = dir.join(KEY);
        let secret = match fs::metadata(&key) {
            Ok(_) => read_secret(&key)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_secret(&key)?,
            Err(error) => return Err(StateError::Key(key, error)),
        };
        Ok(Self { dir: dir.to_owned(), secret, complained: AtomicBool::new(false), _lock: lock })
    }

    /// The node's secret.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// What was remembered last; nothing if that is unreadable (it only helps).
    pub fn memory(&self) -> Memory {
        let path = self.dir.join(MEMORY);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                warn!(file = %path.display(), %error, "what was remembered is unreadable; starting without");
                Memory::default()
            }),
            Err(_none) => Memory::default(),
        }
    }

    /// Keeps `memory`.
    pub fn remember(&self, memory: &Memory) {
        let bytes = serde_json::to_vec_pretty(memory).expect("a map of strings is JSON");
        self.replace(MEMORY, &bytes);
    }

    /// `wall`, or the latest time an earlier run has seen if that is later: the calendar of a node never
    /// goes back.
    pub fn not_before(&self, wall: WallTime) -> WallTime {
        let stored = fs::read_to_string(self.dir.join(CLOCK)).ok().and_then(|text| text.trim().parse().ok());
        let floor = WallTime::since_1970(Duration::from_nanos(stored.unwrap_or(0)));
        if floor > wall {
            let seconds = floor.as_duration().abs_diff(wall.as_duration()).as_secs();
            warn!(seconds, "the clock is behind where it was; going on from there");
        }
        wall.max(floor)
    }

    /// Keeps `wall` for [`State::not_before`].
    pub fn keep_wall(&self, wall: WallTime) {
        self.replace(CLOCK, wall.as_duration().as_nanos().to_string().as_bytes());
    }

    fn replace(&self, name: &str, bytes: &[u8]) {
        let path = self.dir.join(name);
        match replace(&path, bytes) {
            Ok(()) => self.complained.store(false, Ordering::Relaxed),
            Err(error) => {
                if !self.complained.swap(true, Ordering::Relaxed) {
                    warn!(file = %path.display(), %error, "state cannot be written; going on without");
                }
            }
        }
    }
}

fn lock(dir: &Path) -> Result<File, StateError> {
    let in_dir = |error| StateError::Directory(dir.to_owned(), error);
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(dir.join(LOCK));
    let mut lock = open.map_err(in_dir)?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        let _unknown = lock.read_to_string(&mut holder);
        return Err(StateError::InUse(dir.to_owned(), holder.trim().to_owned()));
    }
    // Only for the sentence above.
    let _unnamed = lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id()));
    Ok(lock)
}

fn read_secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, StateError> {
    let failed = |error| StateError::Key(path.to_owned(), error);
    let mut file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StateError::Open(path.to_owned(), mode));
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(failed)?;
    let bytes = BASE32_NOPAD_NOCASE.decode(text.trim().as_bytes()).map(Zeroizing::new);
    let secret = bytes.ok().and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
    secret.map(Zeroizing::new).ok_or_else(|| StateError::Damaged(path.to_owned()))
}

fn make_secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, StateError> {
    let failed = |error| StateError::Key(path.to_owned(), error);
    let secret = Zeroizing::new(random().map_err(failed)?);
    let text = Zeroizing::new(format!("{}\n", BASE32_NOPAD.encode(secret.as_slice()).to_lowercase()));
    replace(path, text.as_bytes()).map_err(failed)?;
    Ok(secret)
}

/// 32 bytes from the kernel.
pub fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("the kernel gives no random bytes"))?;
    Ok(bytes)
}

/// Writes beside `path` and renames: there is always a whole file. Mode 0600.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_the_same_after_a_restart() {
        let dir = tempfile::tempdir().expect("directory");
        let first = *State::open(dir.path()).expect("first").secret();
        assert_eq!(*State::open(dir.path()).expect("second").secret(), first);
        let mode = fs::metadata(dir.path().join(KEY)).expect("key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_second_daemon_is_told_what_to_do() {
        let dir = tempfile::tempdir().expect("directory");
        let _held = State::open(dir.path()).expect("first");
        let says = State::open(dir.path()).expect_err("second").to_string();
        assert!(says.contains(&format!("process {}", std::process::id())) && says.contains("--state DIR"), "{says}");
    }

    #[test]
    fn an_open_or_damaged_key_is_refused() {
        let dir = tempfile::tempdir().expect("directory");
        drop(State::open(dir.path()).expect("first"));
        let key = dir.path().join(KEY);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("chmod");
        let says = State::open(dir.path()).expect_err("open").to_string();
        assert!(says.contains("mode 0644"), "{says}");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("chmod");
        fs::write(&key, "not a key").expect("write");
        assert!(State::open(dir.path()).expect_err("damaged").to_string().contains("is damaged"));
    }

    #[test]
    fn memory_comes_back_and_a_torn_one_is_none() {
        let dir = tempfile::tempdir().expect("directory");
        let state = State::open(dir.path()).expect("state");
        let mut memory = Memory::default();
        assert_eq!(state.memory(), memory);
        memory.supernodes.insert("sn.example:7777".into(), "key".into());
        state.remember(&memory);
        assert_eq!(state.memory(), memory);
        fs::write(dir.path().join(MEMORY), "{\"super").expect("write");
        assert_eq!(state.memory(), Memory::default());
    }

    #[test]
    fn the_calendar_never_goes_back() {
        let dir = tempfile::tempdir().expect("directory");
        let state = State::open(dir.path()).expect("state");
        let at = |seconds| WallTime::since_1970(Duration::from_secs(seconds));
        state.keep_wall(at(2_000));
        assert_eq!(state.not_before(at(1_000)), at(2_000));
        assert_eq!(state.not_before(at(3_000)), at(3_000));
    }

    #[test]
    fn a_disk_that_takes_nothing_stops_nothing() {
        let dir = tempfile::tempdir().expect("directory");
        let state = State::open(dir.path()).expect("state");
        fs::create_dir(dir.path().join("memory.new")).expect("in the way");
        state.remember(&Memory::default());
        state.remember(&Memory::default());
        assert!(state.complained.load(Ordering::Relaxed));
    }
}
