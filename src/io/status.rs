//! The status socket: one line of JSON in ([`Request`]), one line of JSON out ([`Response`]).
//!
//! A unix socket of mode 0600: whoever may open it may ask. [`Server`] is the daemon's side on the
//! background runtime, [`ask`] the command line's.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader as AsyncBufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tracing::debug;

use super::Input;
use crate::control::report::{Request, Response};

/// Where daemons put their sockets when nobody says otherwise.
pub const DEFAULT_DIR: &str = "/run/longwire";
/// How sockets are named there.
const SUFFIX: &str = "sock";
/// The longest question.
const REQUEST_MAX: u64 = 64 * 1024;
/// The longest answer: 1,000 peers in 64 overlays and more.
const RESPONSE_MAX: u64 = 256 << 20;
/// Questioners at a time.
const CLIENTS_MAX: usize = 16;
/// For one line to come or go.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no status socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// A living daemon has it.
    #[error("another longwire answers on {0}: give this one a socket of its own with --socket PATH")]
    InUse(PathBuf),
    /// All else.
    #[error("status socket {0}: {1}; give another with --socket PATH")]
    Other(PathBuf, #[source] io::Error),
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// No daemon.
    #[error("no longwire runs here: there is no socket in {DEFAULT_DIR} (or name one with --socket PATH)")]
    None,
    /// Too many.
    #[error("more than one longwire runs here; name one with --socket:\n{}", .0.iter().map(|p| format!("  {}", p.display())).collect::<Vec<_>>().join("\n"))]
    Many(Vec<PathBuf>),
    /// No answer there.
    #[error("{0}: {1}")]
    Silent(PathBuf, #[source] io::Error),
    /// An answer of another version.
    #[error("{0} gives an answer that this longwire does not understand: {1}")]
    Strange(PathBuf, #[source] serde_json::Error),
}

/// The usual path of the socket called `name`.
pub fn default_path(name: &str) -> PathBuf {
    Path::new(DEFAULT_DIR).join(format!("{name}.{SUFFIX}"))
}

/// The daemon's side; the socket goes when this is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
}

impl Server {
    /// Listens at `path`. Must be called on the background runtime.
    pub fn start(path: &Path, inputs: mpsc::Sender<Input>) -> Result<Self, SocketError> {
        let listener = bind(path).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::ADDRINUSE) => SocketError::InUse(path.to_owned()),
            _ => SocketError::Other(path.to_owned(), error),
        })?;
        tokio::spawn(serve(listener, inputs));
        Ok(Self { path: path.to_owned() })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone_already = fs::remove_file(&self.path);
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    // One daemon at a time: a socket that is bound and does not listen yet looks dead.
    let turn = fs::File::open(dir)?;
    flock(&turn, FlockOperation::LockExclusive)?;
    match BlockingStream::connect(path) {
        Ok(_) => return Err(Errno::ADDRINUSE.into()),
        // Left behind by a daemon that died.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::CONNREFUSED) => fs::remove_file(path)?,
        Err(_none) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn serve(listener: UnixListener, inputs: mpsc::Sender<Input>) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let inputs = inputs.clone();
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, &inputs).await {
                        debug!(%error, "status request");
                    }
                    drop(place);
                });
            }
            // Out of descriptors: later there may be some.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(stream: UnixStream, inputs: &mpsc::Sender<Input>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    timeout(PATIENCE, AsyncBufReader::new(read.take(REQUEST_MAX)).read_line(&mut line)).await??;
    let response = match serde_json::from_str(&line) {
        Ok(request) => ask_loop(request, inputs).await,
        Err(error) => Response::Error(format!("not a request: {error}")),
    };
    let mut bytes = serde_json::to_vec(&response)?;
    bytes.push(b'\n');
    timeout(PATIENCE, write.write_all(&bytes)).await??;
    Ok(())
}

async fn ask_loop(request: Request, inputs: &mpsc::Sender<Input>) -> Response {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        inputs.send(Input::Request(request, reply)).await.ok()?;
        answer.await.ok()
    };
    let busy = || Response::Error("the daemon is busy or ends".into());
    timeout(PATIENCE, asked).await.ok().flatten().unwrap_or_else(busy)
}

/// Asks the daemon at `socket`, or the only one there is.
pub fn ask(socket: Option<&Path>, request: &Request) -> Result<Response, AskError> {
    let path = match socket {
        Some(path) => path.to_owned(),
        None => only_one(Path::new(DEFAULT_DIR))?,
    };
    let silent = |error: io::Error| AskError::Silent(path.clone(), error);
    let mut stream = BlockingStream::connect(&path).map_err(silent)?;
    stream.set_read_timeout(Some(2 * PATIENCE)).map_err(silent)?;
    let mut line = serde_json::to_vec(request).map_err(|error| AskError::Strange(path.clone(), error))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(silent)?;
    let mut answer = String::new();
    BufReader::new(stream.take(RESPONSE_MAX)).read_line(&mut answer).map_err(silent)?;
    serde_json::from_str(&answer).map_err(|error| AskError::Strange(path.clone(), error))
}

/// The only socket in `dir` behind which a daemon lives.
fn only_one(dir: &Path) -> Result<PathBuf, AskError> {
    let entries = fs::read_dir(dir).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
    let mut sockets: Vec<PathBuf> = entries.unwrap_or_default();
    sockets.retain(|path| path.extension().is_some_and(|extension| extension == SUFFIX));
    sockets.sort();
    // A killed daemon leaves its socket behind; one that is not ours to open belongs to a living one.
    let is_dead = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    sockets.retain(|path| !BlockingStream::connect(path).is_err_and(is_dead));
    match sockets.len() {
        0 => Err(AskError::None),
        1 => Ok(sockets.remove(0)),
        _ => Err(AskError::Many(sockets)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_gets_its_answer_and_nonsense_a_sentence() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("lab.v2.sock");
        let (runtime, server) = daemon(&path);
        let mode = fs::metadata(&path).expect("socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(ask(Some(&path), &Request::Fdb).expect("answer"), Response::Fdb(Vec::new()));
        assert_eq!(only_one(dir.path()).expect("one"), path);

        for nonsense in [&b"{}\n"[..], b"\xff\xfe\n", b"\n", &[b'x'; 100_000]] {
            let mut stream = BlockingStream::connect(&path).expect("connect");
            let _cut_short = stream.write_all(nonsense);
            let mut answer = String::new();
            let _reset = stream.read_to_string(&mut answer);
            assert!(answer.is_empty() || answer.contains("not a request"), "{answer}");
        }
        assert_eq!(ask(Some(&path), &Request::Fdb).expect("still there"), Response::Fdb(Vec::new()));
        drop(server);
        drop(runtime);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("lab.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("left behind"));
        let (runtime, _server) = daemon(&path);
        let _on = runtime.enter();
        let (inputs, _) = mpsc::channel(1);
        let says = Server::start(&path, inputs).expect_err("in use").to_string();
        assert!(says.contains("another longwire answers"), "{says}");
    }

    #[test]
    fn several_daemons_are_listed() {
        let dir = tempfile::tempdir().expect("directory");
        assert!(matches!(only_one(dir.path()), Err(AskError::None)));
        let _a = daemon(&dir.path().join("a.sock"));
        let _b = daemon(&dir.path().join("b.sock"));
        drop(std::os::unix::net::UnixListener::bind(dir.path().join("c.sock")).expect("left behind"));
        let says = only_one(dir.path()).expect_err("two").to_string();
        assert!(says.contains("a.sock") && says.contains("b.sock") && !says.contains("c.sock"), "{says}");
    }

    fn daemon(path: &Path) -> (tokio::runtime::Runtime, Server) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
        let (inputs, mut asked) = mpsc::channel(4);
        let server = {
            let _on = runtime.enter();
            Server::start(path, inputs).expect("socket")
        };
        runtime.spawn(async move {
            while let Some(input) = asked.recv().await {
                if let Input::Request(_, reply) = input {
                    let _left = reply.send(Response::Fdb(Vec::new()));
                }
            }
        });
        (runtime, server)
    }
}
