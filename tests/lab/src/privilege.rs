//! Root, or something as good; and the tools that the lab needs.
//!
//! Never skips: a lab that cannot be built is a failed test with a sentence that says what to do.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;

use super::fail;

/// Set in the program that was started again inside a user namespace.
const INSIDE: &str = "LONGWIRE_LAB_INSIDE";

/// Where the tools of an administrator are, which a user's PATH may lack.
const ADMIN_PATHS: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// Each tool and the Debian package that has it.
const TOOLS: [(&str, &str); 6] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iperf3", "iperf3"),
    ("ping", "iputils-ping"),
    ("sh", "dash"),
    ("sleep", "coreutils"),
];

/// Makes sure, once per process, that a lab can be built; does not return otherwise.
pub(super) fn ensure() {
    static CHECKED: Once = Once::new();
    if !rustix::process::geteuid().is_root() {
        static AGAIN: Once = Once::new();
        AGAIN.call_once(start_again_as_root);
    }
    CHECKED.call_once(|| {
        for (tool, package) in TOOLS {
            if find(tool).is_none() {
                fail(format_args!("the lab needs `{tool}`, which is missing: apt-get install {package}"));
            }
        }
        check_tun();
    });
}

/// A command that finds the tools of an administrator too.
pub(super) fn tool(name: &str) -> Command {
    let mut command = Command::new(find(name).unwrap_or_else(|| PathBuf::from(name)));
    command.env("PATH", search_path()).stdin(Stdio::null());
    command
}

fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".into());
    format!("{path}:{ADMIN_PATHS}")
}

/// Where a program is, in the PATH or where an administrator's are.
pub fn find(name: &str) -> Option<PathBuf> {
    search_path().split(':').map(|dir| Path::new(dir).join(name)).find(|file| file.is_file())
}

fn check_tun() {
    let device = Path::new("/dev/net/tun");
    let opened = std::fs::OpenOptions::new().read(true).write(true).open(device);
    match opened {
        Ok(_) => {}
        Err(e) if !device.exists() => fail(format_args!(
            "the lab needs /dev/net/tun, which is missing ({e}): modprobe tun, or give the container the device"
        )),
        Err(e) => fail(format_args!(
            "the lab cannot open /dev/net/tun ({e}): run the test as root, or chmod 0666 /dev/net/tun"
        )),
    }
}

/// Replaces this program by itself inside a user namespace in which it is root.
fn start_again_as_root() {
    let advice = "the lab makes network namespaces and needs root: run it with sudo, \
                  or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1 \
                  kernel.apparmor_restrict_unprivileged_userns=0)";
    let allowed = tool("unshare").args(["-Urnm", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if std::env::var_os(INSIDE).is_some() || !allowed.is_ok_and(|status| status.success()) {
        fail(advice);
    }
    let Ok(exe) = std::env::current_exe() else { fail(advice) };
    // `ip netns` keeps its names under /run, which belongs to the real root: take a fresh one.
    let error = tool("unshare")
        .args(["-Urnm", "sh", "-c"])
        .arg("mount -t tmpfs tmpfs /run && exec \"$@\"")
        .arg("lab")
        .arg(exe)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    fail(format_args!("{advice}; unshare did not start: {error}"));
}
