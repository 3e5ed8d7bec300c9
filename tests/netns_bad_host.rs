//! A host that does not give what a daemon needs, or takes it away: one sentence each, never a panic,
//! and no end of a daemon that can go on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use lab::{Daemon, Host, Lab, Nat, Ping, Supernode, inner_address, new_key, wait_for};

const MEETING: Duration = Duration::from_secs(15);

/// A daemon that cannot start has ended by then.
const REFUSAL: Duration = Duration::from_secs(5);

/// Exit status of a question that was right and did not work.
const DID_NOT_WORK: i32 = 1;

/// Exit status of a wrong question.
const WRONG: i32 = 2;

/// Puts a small disk in the place of `$1`, and becomes the other words.
const SMALL_DISK: &str = "mkdir -p \"$1\" && mount -t tmpfs -o size=64k tmpfs \"$1\" && shift && exec \"$@\"";

/// The same, but the disk is full already.
const FULL_DISK: &str = "mkdir -p \"$1\" && mount -t tmpfs -o size=64k tmpfs \"$1\" \
     && { dd if=/dev/zero of=\"$1/full\" bs=4k 2>/dev/null; shift; exec \"$@\"; }";

struct Scene {
    lab: Lab,
    host: Host,
    key_file: String,
}

impl Scene {
    fn new() -> Scene {
        let mut lab = Lab::new();
        let site = lab.site("s", Nat::Open);
        let host = lab.host(&site, "h");
        let key_file = write(&lab, "good.key", &new_key(), 0o600);
        Scene { lab, host, key_file }
    }

    /// Starts `up`; `stem` names its state.
    fn start(&self, stem: &str, before: &[&str], words: &[&str]) -> Daemon {
        let usual = ["up", "lan", "--key-file", &self.key_file, "--supernode", "203.0.113.2:7777"];
        let words = [&usual, words].concat();
        Daemon::start_words(&self.lab, &self.host, stem, "n1", before, &words)
    }

    /// `up` must end with this status and one line on stderr that has this sentence.
    #[track_caller]
    fn refuses(&self, before: &[&str], words: &[&str], status: i32, sentence: &str) {
        let daemon = self.start("bad", before, words);
        expect_refusal(&daemon, status, sentence);
        assert!(!self.host.space.has_link("lw-lan"), "a TAP is left");
    }
}

#[track_caller]
fn expect_refusal(daemon: &Daemon, status: i32, sentence: &str) {
    let ended = daemon.process().wait(REFUSAL);
    let said = daemon.process().stderr();
    let Some(ended) = ended else { panic!("it runs on: {said}") };
    assert_eq!(ended.code(), Some(status), "{said}");
    assert!(said.lines().last().is_some_and(|line| line.contains(sentence)), "nothing of `{sentence}`: {said}");
    assert!(!said.contains("panicked"), "{said}");
}

fn write(lab: &Lab, name: &str, text: &str, mode: u32) -> String {
    let path = lab.dir().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_string_lossy().into_owned()
}

#[test]
fn what_the_host_does_not_give_is_one_sentence_that_says_what_to_do() {
    let scene = Scene::new();
    let hidden = ["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /dev/net && exec \"$@\"", "sh"];
    scene.refuses(&hidden, &[], DID_NOT_WORK, "there is no /dev/net/tun: load the driver (`modprobe tun`)");

    let powerless = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"];
    let needs = "making the TAP lw-lan needs CAP_NET_ADMIN: run as root";
    scene.refuses(&powerless, &[], DID_NOT_WORK, needs);
    scene.refuses(&powerless, &["--bridge", "br7"], DID_NOT_WORK, needs);
    assert!(!scene.host.space.has_link("br7"));

    let _taken = scene.host.space.inside(|| UdpSocket::bind("0.0.0.0:7000")).unwrap();
    let busy = "UDP 0.0.0.0:7000 is in use by another program: stop it, or choose another port";
    scene.refuses(&[], &["--listen", "0.0.0.0:7000"], DID_NOT_WORK, busy);
    scene.refuses(&[], &["--serve", "0.0.0.0:7000"], DID_NOT_WORK, busy);
    let elsewhere = "UDP 192.0.2.1:7000: this host has no such address";
    scene.refuses(&[], &["--listen", "192.0.2.1:7000"], DID_NOT_WORK, elsewhere);

    scene.host.space.ip("link add veth-a type veth peer name veth-b");
    let no_bridge = "veth-a is no bridge: --bridge takes a bridge, or a name that does not exist yet";
    scene.refuses(&[], &["--bridge", "veth-a"], DID_NOT_WORK, no_bridge);
    let no_tap = "the interface veth-a exists and is no TAP: choose another name with --tap";
    scene.refuses(&[], &["--tap", "veth-a"], DID_NOT_WORK, no_tap);
}

#[test]
fn keys_and_configs_that_cannot_be_read_are_named() {
    let mut scene = Scene::new();
    let key = fs::read_to_string(&scene.key_file).unwrap();
    // Root may read everything, unless it may not.
    let honest = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"];
    scene.key_file = write(&scene.lab, "secret.key", &key, 0o000);
    let denied = format!("key file {}: Permission denied", scene.key_file);
    scene.refuses(&honest, &[], WRONG, &denied);
    scene.key_file = write(&scene.lab, "open.key", &key, 0o604);
    scene.refuses(&[], &[], WRONG, "open.key has mode 0604: everybody on this host can read it; `chmod 600");
    let typo = if key.as_bytes()[9] == b'a' { "b" } else { "a" };
    let mut mistyped = key.clone();
    mistyped.replace_range(9..=9, typo);
    scene.key_file = write(&scene.lab, "mistyped.key", &mistyped, 0o600);
    scene.refuses(&[], &[], WRONG, "mistyped.key: the key is mistyped: its checksum does not fit");
    scene.key_file = scene.lab.dir().to_string_lossy().into_owned();
    scene.refuses(&[], &[], WRONG, "Is a directory");

    let config =
        write(&scene.lab, "node.toml", "supernode = [\"sn\"]\n[[overlay]]\nname = \"lan\"\nbrigde = \"b\"\n", 0o600);
    let start =
        |config: &str| Daemon::start_words(&scene.lab, &scene.host, "bad", "n1", &[], &["up", "--config", config]);
    expect_refusal(&start(&config), WRONG, "node.toml: line 4: unknown key `brigde`; did you mean `bridge`?");
    expect_refusal(&start("/no/such.toml"), WRONG, "/no/such.toml: No such file");
}

#[test]
fn a_tap_that_is_removed_ends_the_daemon_with_a_sentence() {
    let scene = Scene::new();
    let daemon = scene.start("removed", &[], &["--bridge", "br0"]);
    daemon.status();
    assert!(scene.host.space.has_link("lw-lan") && scene.host.space.has_link("br0"));
    scene.host.space.ip("link del lw-lan");
    expect_refusal(&daemon, DID_NOT_WORK, "the TAP lw-lan is gone");
    assert!(!scene.host.space.has_link("br0"), "the bridge that it made is left");
}

#[test]
fn a_first_start_on_a_full_disk_is_refused_with_a_sentence() {
    let scene = Scene::new();
    let state = scene.lab.dir().join("full.state").to_string_lossy().into_owned();
    let daemon = scene.start("full", &["unshare", "-m", "sh", "-c", FULL_DISK, "sh", &state], &[]);
    expect_refusal(&daemon, DID_NOT_WORK, "full.state/node.key: No space left on device");
}

/// Writes to the disk that a daemon sees at `dir` until nothing fits any more.
fn fill(daemon: &Daemon, dir: &Path) {
    let inside = format!("/proc/{}/root{}/full", daemon.process().pid(), dir.display());
    while fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&inside)
        .and_then(|mut file| {
            use std::io::Write;
            file.write_all(&[0; 4096])
        })
        .is_ok()
    {}
}

#[test]
fn a_disk_that_becomes_full_is_told_once_and_the_daemon_goes_on() {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let supernode = Supernode::start(&lab, &server, &[]);
    let site = lab.site("s", Nat::Open);
    let key = write(&lab, "lan.key", &new_key(), 0o600);
    let state = lab.dir().join("n1.state").to_string_lossy().into_owned();
    let mut start = |number: usize, before: &[&str]| {
        let host = lab.host(&site, &format!("h{number}"));
        let address = format!("{}/24", inner_address(number));
        let words = ["up", "lan", "--key-file", &key, "--supernode", &supernode.address, "--address", &address];
        let name = format!("n{number}");
        (Daemon::start_words(&lab, &host, &name, &name, before, &words), host)
    };
    let (daemon, host) = start(1, &["unshare", "-m", "sh", "-c", SMALL_DISK, "sh", &state]);
    daemon.status();
    wait_for("the daemon writes its state", MEETING, || {
        daemon.process().stderr().contains("trusted on first use").then_some(())
    });
    std::thread::sleep(Duration::from_millis(500));
    assert!(!daemon.process().stderr().contains("state cannot be written"), "there was room");
    fill(&daemon, Path::new(&state));

    // Each new member is something to remember.
    let others = [2, 3].map(|number| {
        let other = start(number, &[]);
        let met = daemon.wait_path(&other.0.node, "direct", MEETING);
        assert!(met.is_some(), "n{number} is not met on a full disk");
        wait_for("the warning", MEETING, || {
            daemon.process().stderr().contains("state cannot be written; going on without").then_some(())
        });
        other
    });
    for number in [2, 3] {
        assert_eq!(Ping::count(&host.space, inner_address(number), 3).replies.len(), 3, "n{number}");
    }
    // An end writes once more.
    assert!(daemon.process().terminate(REFUSAL).is_some_and(|status| status.success()));
    let said = daemon.process().stderr();
    assert_eq!(said.matches("state cannot be written").count(), 1, "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    drop(others);
}
