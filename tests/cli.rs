//! The command line from outside: sentences and exit codes. Needs no root and no network.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

#[test]
fn keygen_prints_one_key_line_and_each_time_another() {
    let first = longwire(&["keygen"]);
    assert!(first.status.success());
    let line = String::from_utf8(first.stdout.clone()).expect("UTF-8");
    assert!(line.starts_with("lw1-") && line.len() == 61 && line.ends_with('\n'), "{line}");
    assert_ne!(longwire(&["keygen"]).stdout, first.stdout);
}

#[test]
fn an_id_depends_on_name_and_key_and_not_on_where_the_key_stands() {
    let dir = tempfile::tempdir().expect("directory");
    let key = new_key(dir.path(), 0o600);
    let by_file = longwire(&["id", "lab", "--key-file", text(&key)]);
    assert!(by_file.status.success(), "{by_file:?}");
    assert_eq!(by_file.stdout.len(), 53);
    let mut by_env = command(&["id", "lab"]);
    by_env.env("LONGWIRE_KEY", fs::read_to_string(&key).expect("key").trim());
    assert_eq!(by_env.output().expect("run").stdout, by_file.stdout);
    let mut by_stdin = command(&["id", "lab", "--key-file", "-"]);
    by_stdin.stdin(fs::File::open(&key).expect("key"));
    assert_eq!(by_stdin.output().expect("run").stdout, by_file.stdout);
    assert_ne!(longwire(&["id", "lab2", "--key-file", text(&key)]).stdout, by_file.stdout);
}

#[test]
fn wrong_arguments_exit_with_2() {
    let cases: [&[&str]; 9] = [
        &[],
        &["down"],
        &["up"],
        &["up", "lab", "--supernode", "sn:0"],
        &["up", "../lab", "--supernode", "sn"],
        &["up", "lab", "--address", "10.0.0.1"],
        &["up", "lab", "--bridge", "br0", "--address", "10.0.0.1/24"],
        &["up", "lab", "--listen", "[::]:1", "--serve", "[::]:1"],
        &["supernode", "--allow", "xyz"],
    ];
    for case in cases {
        let output = longwire(case);
        assert_eq!(output.status.code(), Some(2), "{case:?}: {output:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn each_bad_key_and_config_is_one_sentence_and_exit_2() {
    let dir = tempfile::tempdir().expect("directory");
    let good = new_key(dir.path(), 0o600);
    let open = dir.path().join("open.key");
    fs::copy(&good, &open).expect("copy");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).expect("chmod");
    let mistyped = write(dir.path(), "mistyped.key", &mistype(&fs::read_to_string(&good).expect("key")));
    let short = write(dir.path(), "passphrase", "letmein\n");
    let unknown = write(dir.path(), "unknown.toml", "name = \"x\"\nsupernodes = []\n");
    let cases: [(&[&str], &str); 9] = [
        (&["up", "lab", "--supernode", "sn"], "no key for the overlay lab"),
        (&["up", "lab", "--key-file", text(&good)], "no supernode"),
        (&["up", "lab", "--supernode", "sn", "--key-file", text(&open)], "has mode 0644"),
        (&["up", "lab", "--supernode", "sn", "--key-file", text(&mistyped)], "is mistyped: its checksum does not fit"),
        (&["up", "lab", "--supernode", "sn", "--key-file", "/no/such"], "key file /no/such: No such file"),
        (&["up", "lab", "--supernode", "sn", "--passphrase-file", text(&short)], "at least 12 bytes"),
        (&["up", "--config", text(&unknown)], "unknown.toml: line 2: unknown key `supernodes`; did you mean"),
        (&["up", "--config", "/no/such.toml"], "/no/such.toml: No such file"),
        (&["id", "lab"], "no key for the overlay lab"),
    ];
    for (case, words) in cases {
        let output = longwire(case);
        let says = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{case:?}: {says}");
        assert!(says.contains(words) && says.lines().count() == 1, "{case:?}: {says}");
    }
}

#[test]
fn nobody_to_ask_is_exit_1() {
    let dir = tempfile::tempdir().expect("directory");
    let socket = dir.path().join("none.sock");
    for verb in [&["status"][..], &["peers"], &["fdb"], &["explain", "cellar"]] {
        let output = longwire(&[verb, &["--socket", text(&socket)]].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(stderr(&output).contains("none.sock: No such file"), "{output:?}");
    }
}

#[test]
fn a_supernode_runs_without_privileges_and_ends_when_told() {
    let dir = tempfile::tempdir().expect("directory");
    let (state, socket) = (dir.path().join("state"), dir.path().join("sn.sock"));
    let args = ["supernode", "--listen", "127.0.0.1:0", "--state", text(&state), "--socket", text(&socket)];
    let running = command(&args).stderr(Stdio::piped()).spawn().expect("run");
    let answered = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        socket.exists() && std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    let second = longwire(&args);
    let pid = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signal");
    let output = running.wait_with_output().expect("end");
    assert!(answered, "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("nodes reach it with --supernode 127.0.0.1:"), "{}", stderr(&output));
    assert!(!socket.exists(), "the socket goes with the daemon");
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("another longwire (process "), "{}", stderr(&second));
}

#[test]
fn a_busy_port_is_one_sentence_and_exit_1() {
    let dir = tempfile::tempdir().expect("directory");
    let busy = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let listen = busy.local_addr().expect("address").to_string();
    let output = longwire(&["supernode", "--listen", &listen, "--state", text(&dir.path().join("state"))]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&format!("UDP {listen} is in use by another program")), "{output:?}");
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longwire"));
    command.args(args).env_remove("LONGWIRE_KEY").stdin(Stdio::null());
    command
}

fn longwire(args: &[&str]) -> Output {
    command(args).output().expect("run")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn write(dir: &Path, name: &str, contents: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, contents).expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
    path
}

fn new_key(dir: &Path, mode: u32) -> PathBuf {
    let path = write(dir, "lab.key", &String::from_utf8(longwire(&["keygen"]).stdout).expect("UTF-8"));
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
    path
}

/// With another letter in the middle.
fn mistype(key: &str) -> String {
    let mut letters = key.as_bytes().to_vec();
    letters[20] = if letters[20] == b'a' { b'b' } else { b'a' };
    String::from_utf8(letters).expect("ASCII")
}
