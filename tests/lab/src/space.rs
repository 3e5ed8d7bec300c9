//! One network namespace: commands and threads inside it.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Output, Stdio};
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};

use super::fail;
use super::privilege::tool;
use super::process::{Process, Shared};

/// The kernel's numbers of the socket that connection tracking listens to.
const AF_NETLINK: i32 = 16;
const NETLINK_NETFILTER: i32 = 12;

/// A network namespace of a lab. A clone is the same one.
#[derive(Clone)]
pub struct Space {
    name: String,
    shared: Arc<Shared>,
}

impl Space {
    /// Makes the namespace: loopback up, no IPv6, no reverse path filter, bridges that filter nothing.
    pub(super) fn new(shared: &Arc<Shared>, label: &str) -> Space {
        let name = format!("{}-{label}", shared.prefix());
        shared.own_space(&name);
        let made = tool("ip").args(["netns", "add", &name]).output().unwrap_or_else(|e| fail(format_args!("ip: {e}")));
        if !made.status.success() {
            fail(format_args!(
                "cannot make the network namespace {name} ({}): the lab needs root with CAP_SYS_ADMIN",
                String::from_utf8_lossy(&made.stderr).trim()
            ));
        }
        let space = Space { name, shared: Arc::clone(shared) };
        space.inside(|| {
            for scope in ["all", "default"] {
                write_sysctl(&format!("ipv4/conf/{scope}/rp_filter"), "0").ok();
                write_sysctl(&format!("ipv6/conf/{scope}/disable_ipv6"), "1").ok();
            }
            for table in ["iptables", "ip6tables", "arptables"] {
                // Only there with the module br_netfilter; then a bridge must carry all the same.
                write_sysctl(&format!("bridge/bridge-nf-call-{table}"), "0").ok();
            }
        });
        space.ip("link set lo up");
        space
    }

    /// The full name, as `ip netns list` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip -n SPACE ...`, words split at blanks.
    #[track_caller]
    pub fn ip(&self, words: &str) -> String {
        let output = tool("ip")
            .args(["-n", &self.name])
            .args(words.split_whitespace())
            .output()
            .unwrap_or_else(|e| fail(format_args!("ip: {e}")));
        if !output.status.success() {
            fail(format_args!("ip -n {} {words}: {}", self.name, String::from_utf8_lossy(&output.stderr).trim()));
        }
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Whether the link is there.
    pub fn has_link(&self, link: &str) -> bool {
        let output = tool("ip").args(["-n", &self.name, "link", "show", "dev", link]).output();
        output.is_ok_and(|output| output.status.success())
    }

    /// Loads nftables rules.
    #[track_caller]
    pub fn nft(&self, rules: &str) {
        let mut command = tool("ip");
        command.args(["netns", "exec", &self.name, "nft", "-f", "-"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| fail(format_args!("nft: {e}")));
        if let Some(mut input) = child.stdin.take() {
            input.write_all(rules.as_bytes()).ok();
        }
        let output = child.wait_with_output().unwrap_or_else(|e| fail(format_args!("nft: {e}")));
        if !output.status.success() {
            fail(format_args!("nft in {}: {}", self.name, String::from_utf8_lossy(&output.stderr).trim()));
        }
    }

    /// Forgets every flow that the kernel tracks here, as a reboot does (no tool for that is always there).
    #[track_caller]
    pub fn forget_flows(&self) {
        // nfnetlink: an IPCTNL_MSG_CT_DELETE that names none, to be acknowledged; 20 bytes with its nfgenmsg.
        let mut message = [0; 20];
        message[..4].copy_from_slice(&20_u32.to_ne_bytes());
        message[4..6].copy_from_slice(&0x0102_u16.to_ne_bytes());
        message[6..8].copy_from_slice(&0x0005_u16.to_ne_bytes());
        let answer = self.inside(|| {
            let socket = Socket::new(Domain::from(AF_NETLINK), Type::RAW, Some(Protocol::from(NETLINK_NETFILTER)))?;
            socket.send(&message)?;
            let mut answer = [0; 20];
            (&socket).read_exact(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        });
        match answer {
            // The error code behind the header of the acknowledgement.
            Ok(answer) if answer[16..20] == [0; 4] => {}
            other => fail(format_args!("{}: flows cannot be forgotten: {other:?}", self.name)),
        }
    }

    /// Writes `/proc/sys/net/KEY` of this namespace.
    #[track_caller]
    pub fn sysctl(&self, key: &str, value: &str) {
        let written = self.inside(|| write_sysctl(key, value));
        if let Err(e) = written {
            fail(format_args!("{}: /proc/sys/net/{key}: {e}", self.name));
        }
    }

    /// Runs `work` in a thread that stands in this namespace. Sockets it opens stay there.
    #[track_caller]
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = std::fs::File::open(&path).unwrap_or_else(|e| fail(format_args!("{path}: {e}")));
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .unwrap_or_else(|e| fail(format_args!("{path}: setns: {e}")));
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a command to its end.
    pub fn run(&self, words: &[&str]) -> Output {
        tool("ip")
            .args(["netns", "exec", &self.name])
            .args(words)
            .output()
            .unwrap_or_else(|e| fail(format_args!("{}: {e}", words.join(" "))))
    }

    /// Starts a command; its output goes to files named after `label`.
    pub fn spawn(&self, label: &str, words: &[String]) -> Process {
        let mut command = tool("ip");
        command.args(["netns", "exec", &self.name]).args(words);
        Process::start(&self.shared, label, command)
    }

    /// The local ports that a protocol has open here (`udp`: bound, `tcp`: listening).
    pub fn open_ports(&self, protocol: &str) -> Vec<u16> {
        let table =
            self.inside(|| std::fs::read_to_string(format!("/proc/thread-self/net/{protocol}")).unwrap_or_default());
        table
            .lines()
            .skip(1)
            .filter_map(|line| {
                let mut fields = line.split_whitespace().skip(1);
                let (_, port) = fields.next()?.split_once(':')?;
                let listening = protocol != "tcp" || fields.nth(1) == Some("0A");
                listening.then(|| u16::from_str_radix(port, 16).ok())?
            })
            .collect()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

fn write_sysctl(key: &str, value: &str) -> std::io::Result<()> {
    std::fs::write(format!("/proc/sys/net/{key}"), value)
}
