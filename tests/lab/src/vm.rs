//! A virtual machine: QEMU without KVM boots Debian's kernel, with its network on a bridge of a host.
//!
//! `guest-image` of this crate makes kernel and initial RAM disk, once, in `target/guest`. The machine answers
//! pings and echoes TCP at port 7, and can be moved to another host while it runs.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

use super::process::{Process, wait_for};
use super::{Host, Lab, Mac, fail, find_tool};

/// The program, and the Debian package that has it.
const QEMU: &str = "qemu-system-x86_64";
const QEMU_PACKAGE: &str = "qemu-system-x86";

/// What the machine has; its kernel and disk take 40 of it.
const MEMORY_MB: u32 = 128;

/// Where the place that a machine moves to waits for it.
const LANDING_PORT: u16 = 4444;

/// A boot takes 4 s on an idle processor.
const BOOT: Duration = Duration::from_secs(60);

/// A move takes 1 s there.
const MOVE: Duration = Duration::from_secs(60);

/// How long QEMU may take to start, or to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a machine says when it is up.
const READY: &str = "guest ready";

/// A running virtual machine, or the place for one that will come.
pub struct Vm {
    process: Process,
    monitor: Monitor,
    console: PathBuf,
    host: Host,
    /// Of its network card.
    pub mac: Mac,
    /// Its inner address.
    pub address: Ipv4Addr,
}

/// What QEMU says of a move.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// From the order to the end.
    pub took: Duration,
    /// For which the machine stood still.
    pub still: Duration,
    /// What crossed.
    pub bytes: u64,
}

impl Vm {
    /// Boots a machine with its network card on a bridge of the host; waits until it is up.
    #[track_caller]
    pub fn boot(lab: &Lab, host: &Host, bridge: &str, address: Ipv4Addr) -> Vm {
        let [.., high, low] = lab.shared.next_number().to_be_bytes();
        let mac = Mac([0x02, 0x9e, 0x57, 0xc2, high, low]);
        let vm = Vm::start(lab, host, bridge, (mac, address), &[]);
        wait_for("the virtual machine boots", BOOT, || vm.console().contains(READY).then_some(()));
        vm
    }

    /// The same machine at another host, empty until this one moves there.
    #[track_caller]
    pub fn landing(&self, lab: &Lab, host: &Host, bridge: &str) -> Vm {
        let vm = Vm::start(
            lab,
            host,
            bridge,
            (self.mac, self.address),
            &["-incoming", &format!("tcp:0.0.0.0:{LANDING_PORT}")],
        );
        wait_for("the place to land is open", PATIENCE, || {
            host.space.open_ports("tcp").contains(&LANDING_PORT).then_some(())
        });
        vm
    }

    #[track_caller]
    fn start(lab: &Lab, host: &Host, bridge: &str, (mac, address): (Mac, Ipv4Addr), more: &[&str]) -> Vm {
        let image = image();
        let number = lab.shared.next_number();
        let (tap, stem) = (format!("vmtap{number}"), lab.dir().join(format!("vm{number}")));
        let (console, socket) = (stem.with_extension("console"), stem.with_extension("qmp"));
        host.bridge(bridge);
        host.space.ip(&format!("tuntap add {tap} mode tap vnet_hdr"));
        host.space.ip(&format!("link set {tap} master {bridge} up"));
        let mut words: Vec<String> = format!(
            "{QEMU} -accel tcg -m {MEMORY_MB} -nodefaults -no-user-config -display none \
             -serial file:{console} -qmp unix:{socket},server=on,wait=off \
             -kernel {image}/vmlinuz -initrd {image}/initrd \
             -netdev tap,id=wire,ifname={tap},script=no,downscript=no \
             -device virtio-net-pci,netdev=wire,mac={mac},romfile=",
            console = console.display(),
            socket = socket.display(),
            image = image.display(),
        )
        .split_whitespace()
        .chain(more.iter().copied())
        .map(Into::into)
        .collect();
        words.extend(["-append".into(), format!("console=ttyS0 quiet address={address}/16")]);
        let process = host.space.spawn("qemu", &words);
        let monitor = Monitor::open(&process, &socket);
        Vm { process, monitor, console, host: host.clone(), mac, address }
    }

    /// All that it wrote to its console.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// Where it runs.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Moves it to `landing` while it runs, by a TCP connection to `to`; the old place stays, stopped, until it is
    /// dropped.
    #[track_caller]
    pub fn move_to(&mut self, landing: &mut Vm, to: Ipv4Addr) -> Migration {
        self.monitor.execute("migrate", &json!({ "uri": format!("tcp:{to}:{LANDING_PORT}") }));
        let told = wait_for("the virtual machine moves", MOVE, || {
            let told = self.monitor.execute("query-migrate", &json!({}));
            match told["status"].as_str() {
                Some("failed" | "cancelled") => fail(format_args!("the move failed: {told}\n{}", landing.errors())),
                status => (status == Some("completed")).then_some(told),
            }
        });
        wait_for("it runs where it landed", PATIENCE, || {
            landing.monitor.execute("query-status", &json!({}))["running"].as_bool()?.then_some(())
        });
        let millis = |name: &str| Duration::from_millis(told[name].as_u64().unwrap_or(u64::MAX));
        Migration {
            took: millis("total-time"),
            still: millis("downtime"),
            bytes: told["ram"]["transferred"].as_u64().unwrap_or(0),
        }
    }

    fn errors(&self) -> String {
        self.process.stderr()
    }
}

/// The directory with kernel and initial RAM disk, made if it is missing or older than what makes it.
#[track_caller]
fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        if find_tool(QEMU).is_none() {
            fail(format_args!(
                "virtual machines need `{QEMU}`, which is missing: \
                 apt-get install --no-install-recommends {QEMU_PACKAGE} busybox-static cpio"
            ));
        }
        let lab = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (maker, image) = (lab.join("guest-image"), lab.join("../../target/guest"));
        let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
        if changed(&image.join("vmlinuz")) <= changed(&maker) {
            let made = Command::new(&maker).arg(&image).output();
            let made = made.unwrap_or_else(|e| fail(format_args!("{}: {e}", maker.display())));
            if !made.status.success() {
                fail(String::from_utf8_lossy(&made.stderr).trim());
            }
        }
        image
    })
}

/// QEMU's machine protocol: one JSON object per line.
struct Monitor {
    socket: BufReader<UnixStream>,
}

impl Monitor {
    #[track_caller]
    fn open(qemu: &Process, path: &Path) -> Monitor {
        let socket = wait_for("QEMU opens its monitor", PATIENCE, || {
            if !qemu.is_running() {
                fail(format_args!("QEMU ended: {}", qemu.stderr()));
            }
            UnixStream::connect(path).ok()
        });
        socket.set_read_timeout(Some(PATIENCE)).ok();
        let mut monitor = Monitor { socket: BufReader::new(socket) };
        monitor.execute("qmp_capabilities", &json!({}));
        monitor
    }

    /// What a command returns. The greeting and events come in between.
    #[track_caller]
    fn execute(&mut self, command: &str, arguments: &Value) -> Value {
        let asked = json!({ "execute": command, "arguments": arguments });
        if let Err(e) = writeln!(self.socket.get_mut(), "{asked}") {
            fail(format_args!("QEMU hears no `{command}`: {e}"));
        }
        loop {
            let mut line = String::new();
            match self.socket.read_line(&mut line) {
                Ok(len) if len > 0 => {}
                ended => fail(format_args!("QEMU does not answer `{command}`: {ended:?}")),
            }
            let mut said: Value = serde_json::from_str(&line).unwrap_or_default();
            if said.get("error").is_some() {
                fail(format_args!("QEMU refuses `{command}`: {}", said["error"]["desc"]));
            }
            if said.get("return").is_some() {
                return said["return"].take();
            }
        }
    }
}
