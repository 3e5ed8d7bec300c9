//! Starts longwire itself and asks it how it is, by the words of its command line and its JSON.

use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use super::process::{Process, poll_for, wait_for};
use super::status::{FdbEntry, Status};
use super::{Host, Lab, Space, fail};

/// The port of a supernode that was told no other.
const PORT: u16 = 7777;

/// How long a daemon may take to answer at its socket.
const PATIENCE: Duration = Duration::from_secs(10);

/// The program under test: cargo puts it into `target/PROFILE`, and whoever asks into a directory there.
/// `LONGWIRE_PROGRAM` names another one, such as an installed package.
pub fn program() -> PathBuf {
    if let Some(other) = std::env::var_os("LONGWIRE_PROGRAM") {
        return other.into();
    }
    static BUILT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    BUILT.get_or_init(find_program).clone()
}

fn find_program() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let (Some(place), Some(profile_dir)) = (exe.parent(), exe.ancestors().nth(2)) else {
        fail("the lab is used by programs in target/PROFILE/deps and target/PROFILE/examples")
    };
    // Before a test or a bench runs, cargo itself has done so.
    if place.ends_with("examples") {
        bring_up_to_date(profile_dir);
    }
    let program = profile_dir.join("longwire");
    if !program.is_file() {
        fail(format_args!("the program {} is missing: cargo build", program.display()));
    }
    program
}

/// `cargo run --example` builds only the example: has cargo build the program too.
fn bring_up_to_date(profile_dir: &Path) {
    let (Some(cargo), Some(target)) = (std::env::var_os("CARGO"), profile_dir.parent()) else { return };
    let profile = match profile_dir.file_name().unwrap_or_default().to_string_lossy() {
        name if name == "debug" => "dev".to_owned(),
        name => name.into_owned(),
    };
    let mut build = Command::new(cargo);
    // What cargo tells the example about its package would look to build scripts like a
    // change, and their crates would be built again each time.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            build.env_remove(&name);
        }
    }
    build.args(["build", "--quiet", "--bin", "longwire", "--profile", &profile]);
    let status = build.arg("--target-dir").arg(target).status();
    if !status.is_ok_and(|status| status.success()) {
        fail("cargo could not build the program `longwire`");
    }
}

/// `longwire keygen`.
#[track_caller]
pub fn new_key() -> String {
    let output = longwire(&["keygen"]);
    if !output.status.success() || output.stdout.is_empty() {
        fail(format_args!("longwire keygen gave no key: {}", String::from_utf8_lossy(&output.stderr)));
    }
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs a longwire command to its end, outside of every namespace of the lab.
#[track_caller]
pub fn longwire(words: &[&str]) -> Output {
    Command::new(program())
        .args(words)
        .env_remove("LONGWIRE_KEY")
        .output()
        .unwrap_or_else(|e| fail(format_args!("{}: {e}", program().display())))
}

/// `longwire supernode` on a host with a public address.
pub struct Supernode {
    process: Process,
    space: Space,
    words: Vec<String>,
    socket: PathBuf,
    /// `ADDRESS:PORT`, for `--supernode`.
    pub address: String,
}

impl Supernode {
    /// Starts it and waits until its UDP port is open.
    #[track_caller]
    pub fn start(lab: &Lab, host: &Host, more: &[&str]) -> Supernode {
        Supernode::start_at(lab, host, &format!("{}:{PORT}", host.address), more)
    }

    /// The same on the addresses of both families.
    #[track_caller]
    pub fn start_everywhere(lab: &Lab, host: &Host) -> Supernode {
        Supernode::start_at(lab, host, &format!("[::]:{PORT}"), &[])
    }

    #[track_caller]
    fn start_at(lab: &Lab, host: &Host, listen: &str, more: &[&str]) -> Supernode {
        let address = format!("{}:{PORT}", host.address);
        let [state, socket] = ["state", "sock"].map(|end| lab.dir().join(format!("{}.{end}", host.name)));
        let mut words = vec![text(&program()), "supernode".into()];
        words.extend(["--listen".into(), listen.into()]);
        words.extend(["--state".into(), text(&state)]);
        words.extend(["--socket".into(), text(&socket)]);
        words.extend(more.iter().map(|word| (*word).to_owned()));
        let (process, space) = (host.space.spawn("supernode", &words), host.space.clone());
        let node = Supernode { process, space, words, socket, address };
        node.wait_ready();
        node
    }

    /// The running process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its `status --json`, if it answers.
    pub fn try_status(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&longwire(&["status", "--json", "--socket", &text(&self.socket)]).stdout).ok()
    }

    /// The fingerprint that it tells in its first lines.
    #[track_caller]
    pub fn fingerprint(&self) -> String {
        wait_for("the supernode tells its fingerprint", PATIENCE, || {
            let said = self.process.stderr();
            let (_, rest) = said.split_once("with --supernode ")?;
            let (_, fingerprint) = rest.split_whitespace().next()?.split_once('#')?;
            Some(fingerprint.to_owned())
        })
    }

    /// Starts it again with the same words and state, after `process().kill()`.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.process = self.space.spawn("supernode", &self.words);
        self.wait_ready();
    }

    #[track_caller]
    fn wait_ready(&self) {
        wait_for("the supernode opens its UDP port", PATIENCE, || {
            if !self.process.is_running() {
                fail(format_args!("the supernode ended: {}", self.process.stderr()));
            }
            ["udp", "udp6"].iter().any(|family| self.space.open_ports(family).contains(&PORT)).then_some(())
        });
    }
}

/// The words of a `longwire up`.
#[derive(Clone)]
pub struct Join {
    overlay: String,
    key: String,
    node: String,
    words: Vec<String>,
}

impl Join {
    /// Joins `overlay` with this key line, as `node`.
    pub fn new(overlay: &str, key: &str, node: &str) -> Join {
        Join { overlay: overlay.into(), key: key.into(), node: node.into(), words: Vec::new() }
    }

    /// `--supernode ADDRESS`.
    pub fn supernode(self, address: &str) -> Join {
        self.word("--supernode").word(address)
    }

    /// `--bridge BRIDGE`.
    pub fn bridge(self, bridge: &str) -> Join {
        self.word("--bridge").word(bridge)
    }

    /// One more word.
    pub fn word(mut self, word: &str) -> Join {
        self.words.push(word.into());
        self
    }
}

/// A running `longwire up`.
pub struct Daemon {
    process: Process,
    space: Space,
    words: Vec<String>,
    state: PathBuf,
    socket: PathBuf,
    /// Its node name.
    pub node: String,
}

impl Daemon {
    /// Starts it, with state and socket of its own; does not wait.
    #[track_caller]
    pub fn start(lab: &Lab, host: &Host, join: &Join) -> Daemon {
        let stem = format!("{}-{}", join.node, join.overlay);
        let key_file = lab.dir().join(format!("{stem}.key"));
        write_secret(&key_file, &join.key);
        let key_file = text(&key_file);
        let words = ["up", &join.overlay, "--key-file", &key_file];
        let more = join.words.iter().map(String::as_str);
        Daemon::start_words(lab, host, &stem, &join.node, &[], &words.into_iter().chain(more).collect::<Vec<_>>())
    }

    /// Starts `longwire` with these words and a name, state (`STEM.state`) and socket of its own. What
    /// stands `before` is a command that becomes another one: `env A=B`, `setpriv ..`, `sh -c 'exec "$@"' sh`.
    #[track_caller]
    pub fn start_words(lab: &Lab, host: &Host, stem: &str, node: &str, before: &[&str], words: &[&str]) -> Daemon {
        let state = lab.dir().join(format!("{stem}.state"));
        let socket = lab.dir().join(format!("{stem}.sock"));
        let (program, state_dir, path) = (text(&program()), text(&state), text(&socket));
        let own = ["--name", node, "--state", &state_dir, "--socket", &path];
        let words = [before, &[&program], words, &own].concat();
        let words: Vec<String> = words.into_iter().map(Into::into).collect();
        let process = host.space.spawn(node, &words);
        Daemon { process, space: host.space.clone(), words, state, socket, node: node.to_owned() }
    }

    /// Its state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The running process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Starts it again with the same words and state, after it has ended.
    pub fn start_again(&mut self) {
        self.process = self.space.spawn(&self.node, &self.words);
    }

    /// `longwire WHAT --json` at its socket, if it answers.
    pub fn try_ask(&self, what: &str) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.run(&[what, "--json"]).stdout).ok()
    }

    /// The same, as the text that a user sees.
    pub fn show(&self, words: &[&str]) -> String {
        String::from_utf8_lossy(&self.run(words).stdout).into_owned()
    }

    /// A command that asks it, to its end.
    pub fn run(&self, words: &[&str]) -> Output {
        let socket = text(&self.socket);
        longwire(&[words, &["--socket", &socket]].concat())
    }

    /// Its status, if it answers by now.
    #[track_caller]
    pub fn try_status(&self) -> Option<Status> {
        let value = self.try_ask("status")?;
        match serde_json::from_value(value.clone()) {
            Ok(status) => Some(status),
            Err(e) => fail(format_args!("status --json of {} is not as agreed: {e}\n{value:#}", self.node)),
        }
    }

    /// Its status; waits for the socket.
    #[track_caller]
    pub fn status(&self) -> Status {
        wait_for("the daemon answers at its socket", PATIENCE, || {
            if !self.process.is_running() {
                fail(format_args!("the daemon {} ended: {}", self.node, self.process.stderr()));
            }
            self.try_status()
        })
    }

    /// Its forwarding database.
    #[track_caller]
    pub fn fdb(&self) -> Vec<FdbEntry> {
        let value = self.try_ask("fdb").unwrap_or_default();
        match serde_json::from_value(value.clone()) {
            Ok(entries) => entries,
            Err(e) => fail(format_args!("fdb --json is not as agreed: {e}\n{value:#}")),
        }
    }

    /// The kind of its path to a peer: `direct`, `relayed`, or `none`.
    pub fn path_to(&self, peer: &str) -> String {
        let status = self.try_status().unwrap_or_default();
        status
            .overlays
            .iter()
            .flat_map(|overlay| &overlay.peers)
            .find(|known| known.name.as_deref() == Some(peer))
            .and_then(|known| known.path.as_ref())
            .map_or_else(|| "none".into(), |path| path.kind.clone())
    }

    /// Waits until its path to a peer is of a kind; the time that took.
    pub fn wait_path(&self, peer: &str, kind: &str, timeout: Duration) -> Option<Duration> {
        let start = Instant::now();
        poll_for(timeout, || (self.path_to(peer) == kind).then_some(()))?;
        Some(start.elapsed())
    }

    /// All counters of its overlays, added up by name.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for overlay in self.status().overlays {
            for (name, count) in overlay.counters {
                *sums.entry(name).or_insert(0) += count;
            }
        }
        sums
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn write_secret(path: &Path, secret: &str) {
    use std::io::Write;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| writeln!(file, "{secret}"));
    if let Err(e) = written {
        fail(format_args!("{}: {e}", path.display()));
    }
}
