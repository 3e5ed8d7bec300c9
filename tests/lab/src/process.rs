//! Processes of a lab, and the end of everything it made.
//!
//! [`Shared`] knows each process and namespace of a lab and removes them when the lab is
//! dropped. Beside it stands the *keeper*, a small shell that is told the same and waits for
//! the end of its input: it cleans up if the test program is killed. Processes are ended by
//! the handle or the number of a process that the lab started, never by name.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::fail;
use super::privilege::tool;

/// How often a condition is looked at while it is waited for.
const POLL: Duration = Duration::from_millis(10);

/// Lines of each log that a failed test shows.
const LOG_TAIL: usize = 60;

/// What the keeper does: notes names, and at the end of its input ends and removes them.
const KEEPER: &str = r#"
trap '' INT TERM HUP
pids= spaces=
while read -r word name; do
    case $word in
    pid) pids="$pids $name" ;;
    gone) left=; for p in $pids; do [ "$p" = "$name" ] || left="$left $p"; done; pids=$left ;;
    space) spaces="$spaces $name" ;;
    done) exit 0 ;;
    esac
done
for p in $pids; do kill -9 "$p"; done
for s in $spaces; do ip netns del "$s"; done
rm -rf -- "$1"
"#;

/// Looks every 10 ms until `probe` has an answer or the time is over.
pub fn poll_for<T>(timeout: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + timeout;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

/// As [`poll_for`], but time over is a failed test: `what` did not come.
#[track_caller]
pub fn wait_for<T>(what: &str, timeout: Duration, probe: impl FnMut() -> Option<T>) -> T {
    match poll_for(timeout, probe) {
        Some(found) => found,
        None => fail(format_args!("waited {timeout:?} in vain: {what}")),
    }
}

/// What all parts of one lab share.
pub(super) struct Shared {
    prefix: String,
    dir: tempfile::TempDir,
    started: AtomicU32,
    owned: Mutex<Owned>,
}

struct Owned {
    keeper: Child,
    keeper_input: Option<ChildStdin>,
    children: Vec<Arc<Mutex<Child>>>,
    logs: Vec<PathBuf>,
    spaces: Vec<String>,
    /// Ends of other things, called before the namespaces go.
    stops: Vec<Box<dyn FnOnce() + Send>>,
}

impl Owned {
    fn tell_keeper(&mut self, line: &str) {
        if let Some(input) = &mut self.keeper_input {
            writeln!(input, "{line}").ok();
        }
    }
}

impl Shared {
    pub(super) fn new(prefix: String) -> Arc<Shared> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("{prefix}-"))
            .tempdir()
            .unwrap_or_else(|e| fail(format_args!("no scratch directory: {e}")));
        let mut keeper = tool("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| fail(format_args!("sh: {e}")));
        let keeper_input = keeper.stdin.take();
        Arc::new(Shared {
            prefix,
            dir,
            started: AtomicU32::new(0),
            owned: Mutex::new(Owned {
                keeper,
                keeper_input,
                children: Vec::new(),
                logs: Vec::new(),
                spaces: Vec::new(),
                stops: Vec::new(),
            }),
        })
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Notes a namespace before it is made.
    pub(super) fn own_space(&self, name: &str) {
        let mut owned = lock(&self.owned);
        owned.tell_keeper(&format!("space {name}"));
        owned.spaces.push(name.to_owned());
    }

    /// Notes something that must end before the namespaces go.
    pub(super) fn stop_at_end(&self, stop: impl FnOnce() + Send + 'static) {
        lock(&self.owned).stops.push(Box::new(stop));
    }

    /// A number of its own for each file or process of the lab.
    pub(super) fn next_number(&self) -> u32 {
        self.started.fetch_add(1, Ordering::Relaxed)
    }

    /// Shows the last lines of every log.
    pub(super) fn show_logs(&self) {
        show_logs(&lock(&self.owned).logs);
    }

    /// Ends and removes all of it. After a failed test shows the logs first.
    pub(super) fn tear_down(&self, failed: bool) {
        let mut owned = lock(&self.owned);
        if failed {
            show_logs(&owned.logs);
        }
        for stop in owned.stops.drain(..) {
            stop();
        }
        for child in owned.children.drain(..) {
            let mut child = lock(&child);
            child.kill().ok();
            child.wait().ok();
        }
        for name in owned.spaces.drain(..).rev() {
            let removed = tool("ip").args(["netns", "del", &name]).output();
            if !removed.is_ok_and(|output| output.status.success()) {
                eprintln!("the lab could not remove the namespace {name}");
            }
        }
        owned.tell_keeper("done");
        owned.keeper_input = None;
        owned.keeper.wait().ok();
        std::fs::remove_dir_all(self.dir.path()).ok();
    }
}

fn show_logs(logs: &[PathBuf]) {
    for log in logs {
        let text = std::fs::read(log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        if !lines.is_empty() {
            let name = log.file_name().unwrap_or_default().to_string_lossy();
            let tail = lines.len().saturating_sub(LOG_TAIL);
            eprintln!("---- {name}, last lines ----\n{}", lines[tail..].join("\n"));
        }
    }
}

/// A process of the lab. Dropped, it is killed.
pub struct Process {
    label: String,
    pid: u32,
    child: Arc<Mutex<Child>>,
    out: PathBuf,
    err: PathBuf,
    shared: Arc<Shared>,
}

impl Process {
    pub(super) fn start(shared: &Arc<Shared>, label: &str, mut command: Command) -> Process {
        let stem = format!("{label}.{}", shared.next_number());
        let out = shared.dir().join(format!("{stem}.out"));
        let err = shared.dir().join(format!("{stem}.err"));
        let create =
            |path: &Path| std::fs::File::create(path).unwrap_or_else(|e| fail(format_args!("{}: {e}", path.display())));
        let child = command
            .stdin(Stdio::null())
            .stdout(create(&out))
            .stderr(create(&err))
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| fail(format_args!("{label} does not start: {e}")));
        let pid = child.id();
        let child = Arc::new(Mutex::new(child));
        let mut owned = lock(&shared.owned);
        owned.tell_keeper(&format!("pid {pid}"));
        owned.children.push(Arc::clone(&child));
        owned.logs.push(err.clone());
        Process { label: label.to_owned(), pid, child, out, err, shared: Arc::clone(shared) }
    }

    /// The process number; the command itself, as `ip netns exec` becomes it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it was called when it was started.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        matches!(lock(&self.child).try_wait(), Ok(None))
    }

    /// Its status if it has ended within the time.
    pub fn wait(&self, timeout: Duration) -> Option<ExitStatus> {
        let status = poll_for(timeout, || lock(&self.child).try_wait().ok().flatten())?;
        self.forget();
        Some(status)
    }

    /// SIGTERM, and its status if it ends within the time.
    pub fn terminate(&self, timeout: Duration) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        self.wait(timeout)
    }

    /// SIGINT: as a user's Ctrl-C.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// SIGSTOP: as a host that sleeps, or a VM that is suspended.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// `kill -9`.
    pub fn kill(&self) {
        let mut child = lock(&self.child);
        child.kill().ok();
        child.wait().ok();
        drop(child);
        self.forget();
    }

    /// All that it wrote to its standard output so far.
    pub fn stdout(&self) -> String {
        read(&self.out)
    }

    /// All that it wrote to its standard error so far.
    pub fn stderr(&self) -> String {
        read(&self.err)
    }

    fn signal(&self, signal: Signal) {
        let mut child = lock(&self.child);
        // While the child is locked and not waited for, the number cannot be another's.
        if matches!(child.try_wait(), Ok(None)) {
            let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
            if let Some(pid) = pid {
                kill_process(pid, signal).ok();
            }
        }
    }

    fn forget(&self) {
        let mut owned = lock(&self.shared.owned);
        owned.tell_keeper(&format!("gone {}", self.pid));
        owned.children.retain(|child| !Arc::ptr_eq(child, &self.child));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// A lock that a panic elsewhere does not spoil: cleaning up must always work.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
