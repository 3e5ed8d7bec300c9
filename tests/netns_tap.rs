//! The TAP backends: what crosses them, what the kernel may refuse, and how a user sees which one it is.
//!
//! A cable of two TAPs, each in a namespace of its own, hands on what is read at one end together with
//! the kernel's note: superframes travel whole, and the kernel at the other end must understand them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::fs;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use lab::{
    Daemon, Host, Lab, Nat, Ping, Space, Supernode, cut_datagrams, inner_address, new_key, refuse_ioctl, wait_for,
};
use longwire::datapath::buf::Frames;
use longwire::datapath::offload::{Gso, TapOffload};
use longwire::io::tap::{self, Tap, TapCounters, TapError};
use tokio::runtime::{Builder, Runtime};

const MEETING: Duration = Duration::from_secs(15);

/// The TAP's name at both ends of a cable.
const END: &str = "lwtap0";

/// What TCP carries: enough that its window opens.
const LOAD: usize = 16 << 20;

/// More than any frame of the MTU 1500 has.
const WHOLE_FRAME: usize = 1518;

/// The `ioctl`s a kernel may refuse.
const TUNSETOFFLOAD: u32 = 0x4004_54d0;
const TUNSETVNETHDRSZ: u32 = 0x4004_54d8;

/// What a cable has carried, both ways.
#[derive(Debug, Default)]
struct Carried {
    /// Longer than a frame can be, by how they are to be cut.
    superframes: Vec<Gso>,
    largest: usize,
    most_at_once: usize,
    counters: Vec<TapCounters>,
}

/// A TAP here, a TAP there, and somebody who carries frames between them.
struct Cable {
    spaces: [Space; 2],
    ending: Arc<AtomicBool>,
    thread: JoinHandle<Carried>,
}

impl Cable {
    /// `open` makes each end, in its namespace, on the runtime.
    fn new(spaces: [Space; 2], open: impl Fn() -> Box<dyn Tap> + Sync) -> Cable {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let taps = [1, 2].map(|number| {
            let space = &spaces[number - 1];
            let tap = space.inside(|| {
                let _on = runtime.enter();
                open()
            });
            assert_eq!(tap.name(), END);
            space.ip(&format!("link set {END} up"));
            space.sysctl(&format!("ipv6/conf/{END}/disable_ipv6"), "0");
            space.ip(&format!("addr add 10.9.0.{number}/24 dev {END}"));
            space.ip(&format!("addr add fd09::{number}/64 dev {END} nodad"));
            tap
        });
        let ending = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ending);
        let thread = std::thread::spawn(move || carry(&runtime, taps, &ended));
        Cable { spaces, ending, thread }
    }

    fn unplug(self) -> Carried {
        self.ending.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }

    /// Sends a load by TCP from the first end to the second, where every byte is looked at.
    fn load(&self, to: IpAddr) {
        let listener = self.spaces[1].inside(|| TcpListener::bind((to, 0))).unwrap();
        let at = listener.local_addr().unwrap();
        let mut stream = self.spaces[0].inside(|| TcpStream::connect_timeout(&at, MEETING)).unwrap();
        let sender = std::thread::spawn(move || stream.write_all(&pattern()));
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(MEETING)).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        sender.join().unwrap().unwrap();
        assert!(got == pattern(), "{} bytes arrived, and not those that were sent", got.len());
    }
}

fn pattern() -> Vec<u8> {
    (0..LOAD).map(|place| (place / 7 + place / 65_521) as u8).collect()
}

fn carry(runtime: &Runtime, mut taps: [Box<dyn Tap>; 2], ended: &AtomicBool) -> Carried {
    let (mut carried, mut frames) = (Carried::default(), Frames::default());
    runtime.block_on(async {
        while !ended.load(Ordering::Relaxed) {
            let ready = poll_fn(|cx| {
                let ready = [0, 1].map(|end| taps[end].poll_readable(cx).is_ready());
                if ready.contains(&true) { Poll::Ready(()) } else { Poll::Pending }
            });
            let _or_look_at_the_end = tokio::time::timeout(Duration::from_millis(20), ready).await;
            for (from, to) in [(0, 1), (1, 0)] {
                frames.clear();
                taps[from].read(&mut frames).unwrap();
                carried.most_at_once = carried.most_at_once.max(frames.byte_len());
                for (frame, virtio) in frames.iter() {
                    carried.largest = carried.largest.max(frame.len());
                    if frame.len() > WHOLE_FRAME {
                        carried.superframes.push(virtio.gso);
                    }
                    taps[to].write(frame, *virtio).unwrap();
                }
                taps[to].flush().unwrap();
            }
        }
    });
    carried.counters = taps.iter().map(|tap| tap.counters()).collect();
    carried
}

fn two_spaces() -> (Lab, [Space; 2]) {
    let mut lab = Lab::new();
    let spaces = ["one", "two"].map(|name| lab.supernode_host(name).space);
    (lab, spaces)
}

/// A process that another test starts just now holds an open TAP until it is itself: the name may be busy
/// for a moment.
fn open(wanted: TapOffload) -> Box<dyn Tap> {
    wait_for("a TAP", MEETING, || match tap::open(END, 1500, wanted, 1) {
        Err(TapError::Busy(_)) => None,
        opened => Some(opened.unwrap().0),
    })
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn tcp_crosses_offloading_taps_in_superframes_and_plain_ones_in_frames() {
    let (_lab, spaces) = two_spaces();
    let cable = Cable::new(spaces.clone(), || open(TapOffload::Tcp));
    cable.load(address("10.9.0.2"));
    cable.load(address("fd09::2"));
    let carried = cable.unplug();
    let count = |gso| carried.superframes.iter().filter(|one| **one == gso).count();
    let (four, six) = (count(Gso::TcpV4), count(Gso::TcpV6));
    eprintln!("superframes: {four} v4, {six} v6; largest {}, batch {}", carried.largest, carried.most_at_once);
    assert!(four > 0 && six > 0 && four + six == carried.superframes.len(), "{four} and {six}");
    assert!(carried.largest > 20_000 && carried.most_at_once <= 1 << 20, "{carried:?}");
    assert_eq!(carried.counters, [TapCounters::default(); 2]);

    let cable = Cable::new(spaces, || open(TapOffload::None));
    cable.load(address("10.9.0.2"));
    cable.load(address("fd09::2"));
    let carried = cable.unplug();
    assert!(carried.superframes.is_empty() && carried.largest <= WHOLE_FRAME, "{carried:?}");
}

#[test]
fn a_udp_superframe_is_read_whole_and_written_whole_and_arrives_as_datagrams() {
    const SIZE: usize = 1000;
    const COUNT: usize = 40;
    let (_lab, spaces) = two_spaces();
    let cable = Cable::new(spaces, || {
        let tap = open(TapOffload::TcpAndUdp);
        assert_eq!(tap.offload(), TapOffload::TcpAndUdp, "the kernel is older than 6.2");
        tap
    });
    for to in ["10.9.0.2", "fd09::2"].map(address) {
        let any = SocketAddr::new(if to.is_ipv4() { address("0.0.0.0") } else { address("::") }, 0);
        let receiver = cable.spaces[1].inside(|| UdpSocket::bind((to, 0))).unwrap();
        let sender = cable.spaces[0].inside(|| UdpSocket::bind(any)).unwrap();
        receiver.set_read_timeout(Some(MEETING)).unwrap();
        let at = receiver.local_addr().unwrap();
        cut_datagrams(&sender, u16::try_from(SIZE).unwrap());
        let sent: Vec<u8> = (0..SIZE * COUNT - 10).map(|place| (place / 3) as u8).collect();
        sender.send_to(&sent, at).unwrap();
        let mut got = Vec::new();
        let mut datagram = [0; 2 * SIZE];
        for _ in 0..COUNT {
            let len = receiver.recv(&mut datagram).unwrap();
            assert!(len == SIZE || (len == SIZE - 10 && got.len() == SIZE * (COUNT - 1)));
            got.extend_from_slice(&datagram[..len]);
        }
        assert!(got == sent, "{to}: the datagrams are not those that were sent");
    }
    let carried = cable.unplug();
    assert_eq!(carried.superframes, [Gso::Udp; 2]);
    assert_eq!(carried.counters, [TapCounters::default(); 2]);
}

#[test]
fn a_kernel_that_refuses_gets_frames_as_it_wants_them() {
    let (_lab, spaces) = two_spaces();
    let cases = [
        (TUNSETOFFLOAD, Some(0x6f), TapOffload::Tcp),
        (TUNSETOFFLOAD, None, TapOffload::None),
        (TUNSETVNETHDRSZ, None, TapOffload::None),
    ];
    for (request, value, given) in cases {
        let cable = Cable::new(spaces.clone(), || {
            refuse_ioctl(request, value);
            let tap = open(TapOffload::TcpAndUdp);
            assert_eq!(tap.offload(), given, "{request:#x} {value:x?}");
            tap
        });
        cable.load(address("10.9.0.2"));
        let carried = cable.unplug();
        assert_eq!(carried.superframes.is_empty(), given == TapOffload::None);
        for space in &spaces {
            wait_for("the TAP goes", MEETING, || (!space.has_link(END)).then_some(()));
        }
    }
}

#[test]
fn a_lasting_tap_forgets_what_its_last_user_took() {
    let (_lab, spaces) = two_spaces();
    for space in &spaces {
        space.ip(&format!("tuntap add {END} mode tap"));
    }
    let cable = Cable::new(spaces.clone(), || {
        drop(open(TapOffload::TcpAndUdp));
        open(TapOffload::None)
    });
    cable.load(address("10.9.0.2"));
    let carried = cable.unplug();
    assert!(carried.superframes.is_empty() && carried.largest <= WHOLE_FRAME, "{carried:?}");
    assert!(spaces.iter().all(|space| space.has_link(END)));
}

#[test]
fn a_name_that_is_taken_is_named_with_and_without_offloads() {
    let mut lab = Lab::new();
    let space = lab.supernode_host("one").space;
    space.ip("link add taken type veth peer name other");
    space.ip("tuntap add many mode tap multi_queue");
    space.ip("tuntap add layer3 mode tun");
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    space.inside(|| {
        let _on = runtime.enter();
        let _busy = tap::open("busy", 1500, TapOffload::TcpAndUdp, 1).unwrap();
        for wanted in [TapOffload::None, TapOffload::TcpAndUdp] {
            for (name, sentence) in [
                ("taken", "the interface taken exists and is no TAP"),
                ("many", "the interface many exists and is no TAP"),
                ("layer3", "the interface layer3 exists and is no TAP"),
                ("busy", "the TAP busy is in use by another program"),
            ] {
                let says = tap::open(name, 1500, wanted, 1).map(|_| ()).unwrap_err().to_string();
                assert!(says.starts_with(sentence), "{says}");
            }
        }
    });
}

/// Three members, each with an address on its TAP.
struct Scene {
    lab: Lab,
    supernode: Supernode,
    hosts: Vec<Host>,
    key_file: String,
}

impl Scene {
    fn new() -> Scene {
        let mut lab = Lab::new();
        let server = lab.supernode_host("sn");
        let supernode = Supernode::start(&lab, &server, &[]);
        let site = lab.site("s", Nat::Open);
        let hosts = (1..=3).map(|number| lab.host(&site, &format!("h{number}"))).collect();
        let key_file = write(&lab, "lan.key", &new_key());
        Scene { lab, supernode, hosts, key_file }
    }

    /// A member by a config that says this of its overlay.
    fn start(&self, number: usize, top: &str, overlay: &str) -> Daemon {
        let (address, key, supernode) = (inner_address(number), &self.key_file, &self.supernode.address);
        let text = format!(
            "{top}\nsupernode = [\"{supernode}\"]\n[[overlay]]\nname = \"lan\"\n\
             key-file = {key:?}\naddress = \"{address}/24\"\n{overlay}\n"
        );
        let config = write(&self.lab, &format!("n{number}.toml"), &text);
        self.start_words(number, &["up", "--config", &config])
    }

    fn start_words(&self, number: usize, words: &[&str]) -> Daemon {
        let name = format!("n{number}");
        Daemon::start_words(&self.lab, &self.hosts[number - 1], &name, &name, &[], words)
    }

    /// The length of the TAP's queue.
    fn queue(&self, number: usize) -> String {
        let shown = self.hosts[number - 1].space.ip("link show dev lw-lan");
        shown.split_whitespace().skip_while(|word| *word != "qlen").nth(1).unwrap_or_default().to_owned()
    }
}

fn write(lab: &Lab, name: &str, text: &str) -> String {
    let path = lab.dir().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_string_lossy().into_owned()
}

/// The nice value of each thread of a process, by its number; the first of a daemon is the loop's.
fn nice_values(pid: u32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let mut tasks: Vec<u32> = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect();
    tasks.sort_unstable();
    let nice = |task: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/task/{task}/stat")).ok()?;
        // Behind the name in brackets, as the 17th.
        stat.rsplit_once(") ")?.1.split_whitespace().nth(16)?.parse().ok()
    };
    tasks.into_iter().filter_map(nice).collect()
}

#[test]
fn a_user_sees_and_chooses_the_backend_its_queue_and_the_priority() {
    let scene = Scene::new();
    let offloading = scene.start(1, "", "");
    let key = &scene.key_file;
    let address = format!("{}/24", inner_address(2));
    let flags = ["up", "lan", "--key-file", key, "--supernode", &scene.supernode.address, "--address", &address];
    let plain = scene.start_words(2, &[&flags[..], &["--no-tap-offload"]].concat());
    let chosen = scene.start(3, "priority = 3", "tap-offload = false\ntap-queue = 200");
    let cases = [(&offloading, "tcp and udp", "1000", -15), (&plain, "none", "1000", -15), (&chosen, "none", "200", 3)];
    let usual = nice_values(std::process::id())[0];
    for (number, (daemon, offload, queue, nice)) in (1..).zip(cases) {
        let said = daemon.status().overlays[0].tap_offload.clone();
        assert_eq!((said.as_str(), scene.queue(number).as_str()), (offload, queue), "n{number}");
        let line = format!("overlay lan on lw-lan (offload: {offload}): ");
        assert!(daemon.show(&["status"]).contains(&line), "{}", daemon.show(&["status"]));
        let values = nice_values(daemon.process().pid());
        assert_eq!(values[0], nice, "n{number}: {values:?}");
        assert!(values.len() > 1 && values[1..].iter().all(|value| *value == usual), "n{number}: {values:?}");
    }
    // Whichever it is, frames pass.
    for (from, to) in [(1, 2), (2, 1), (3, 1), (2, 3)] {
        let space = &scene.hosts[from - 1].space;
        let ping = Ping::start(space, inner_address(to), Duration::from_millis(100), &[]);
        wait_for("an answered ping", MEETING, || (!ping.so_far().replies.is_empty()).then_some(()));
    }
    scene.hosts[0].space.ip("link del lw-lan");
    let ended = offloading.process().wait(MEETING);
    assert_eq!(ended.and_then(|status| status.code()), Some(1));
    assert!(offloading.process().stderr().contains("the TAP lw-lan is gone"), "{}", offloading.process().stderr());
}

#[test]
fn a_daemon_that_must_do_without_says_so_once() {
    let scene = Scene::new();
    let daemon = std::thread::scope(|scope| {
        let refused = scope.spawn(|| {
            refuse_ioctl(TUNSETOFFLOAD, None);
            scene.start(1, "", "")
        });
        refused.join().unwrap()
    });
    assert_eq!(daemon.status().overlays[0].tap_offload, "none");
    assert_eq!(scene.queue(1), "1000");
    let said = daemon.process().stderr();
    assert_eq!(said.matches("this kernel has no offloads on TAPs: frames go one by one").count(), 1, "{said}");
}
