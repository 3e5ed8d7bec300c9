//! Many registered nodes against one real supernode process, on this machine.
//!
//! ```text
//! cargo run --release --example load [OVERLAYS [NODES_OF_EACH]]
//! ```
//!
//! Starts `longwire supernode` in a network namespace and registers nodes there over its loopback, as fast as it
//! takes them (100 overlays of 100 nodes if not told otherwise), then leaves them idle. A node here is a control
//! link and a certificate: it dials, registers, pings every five seconds and reads what it is told. Says how long
//! the registrations took, what CPU and memory the supernode used, and apart from that the CPU of this program.
//! Before all that some nodes dial, ask once and leave: what a link costs without a registration.
#![allow(clippy::print_stdout, reason = "the example shows what it finds")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lab::{Lab, Supernode, fail};
use longwire::io::quic::client_config;
use longwire::keys::{Identity, OverlayKey, OverlaySecrets, sign};
use longwire::wire::certificate::Certificate;
use longwire::wire::message::{Message, registration};
use longwire::wire::version::Version;
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, RecvStream, SendStream, TokioRuntime};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Handshakes under way at a time, of all nodes together.
const AT_ONCE: usize = 256;

/// So many links are made and ended before, to see what they cost alone.
const BARE: usize = 1000;

/// The supernode has forgotten them after this time.
const BARE_REST: Duration = Duration::from_secs(2);

/// A node asks its supernode this often.
const PING_EVERY: Duration = Duration::from_secs(5);

/// How long all stay idle while memory and CPU are looked at.
const IDLE: Duration = Duration::from_secs(20);

/// A dial is given up after this time, and a node after so many dials.
const DIAL: Duration = Duration::from_secs(5);
const DIALS: usize = 5;

/// As many failures are shown.
const FAILURES_SHOWN: usize = 5;

/// All must be registered by then.
const PATIENCE: Duration = Duration::from_secs(120);

/// As long as a real one: a name and three addresses.
const DIRECTORY: usize = 100;

fn main() {
    let mut words = std::env::args().skip(1).map(|word| word.parse().unwrap_or(0));
    let (overlays, each) = (words.next().unwrap_or(100), words.next().unwrap_or(100));
    if overlays == 0 || each == 0 || overlays > 200 {
        fail("usage: load [OVERLAYS [NODES_OF_EACH]], at most 200 overlays");
    }
    lab::program();
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let supernode = Supernode::start(&lab, &server, &["--log", "warn"]);
    let to: SocketAddr = supernode.address.parse().unwrap_or_else(|_| fail("the lab gives an address"));
    let pid = supernode.process().pid();
    let empty = memory(pid, "VmRSS:");
    println!("{overlays} overlays of {each} nodes; the supernode alone takes {} MB", empty / 1024);

    // Each socket stands for one host that is a node of every overlay.
    let open = |host: usize| {
        let ip = Ipv4Addr::from(0x7f01_0001 + u32::try_from(host).unwrap_or(0) * 256);
        UdpSocket::bind((ip, 0)).unwrap_or_else(|e| fail(format_args!("UDP socket on {ip}: {e}")))
    };
    let sockets: Vec<UdpSocket> = server.space.inside(|| (0..each).map(open).collect());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.unwrap_or_else(|e| fail(format_args!("no runtime: {e}")));
    runtime.block_on(load(overlays, sockets, to, pid));
    let idle = memory(pid, "VmRSS:");
    let (nodes, peak) = (overlays * each, memory(pid, "VmHWM:"));
    println!(
        "idle: {} MB, {:.1} KiB a node; at most {} MB",
        idle / 1024,
        (idle - empty) as f64 / nodes as f64,
        peak / 1024
    );
}

/// Registers everybody, then waits, and says what it found.
async fn load(overlays: usize, sockets: Vec<UdpSocket>, to: SocketAddr, pid: u32) {
    let nodes = overlays * sockets.len();
    let config = client_config(None).unwrap_or_else(|e| fail(e));
    let secrets: Arc<Vec<OverlaySecrets>> = Arc::new((0..overlays).map(secrets).collect());
    let mut endpoint_config = EndpointConfig::default();
    endpoint_config.grease_quic_bit(false);
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let [registered, failed, again] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    let endpoints = sockets.into_iter().map(|socket| {
        let endpoint = Endpoint::new(endpoint_config.clone(), None, socket, Arc::new(TokioRuntime));
        endpoint.unwrap_or_else(|e| fail(format_args!("QUIC: {e}")))
    });
    let endpoints: Vec<Endpoint> = endpoints.collect();
    let node = |overlay: usize, host: usize| {
        let (endpoint, config, secrets) = (endpoints[host].clone(), config.clone(), Arc::clone(&secrets));
        Node { endpoint, config, to, host, overlay, secrets }
    };
    bare((0..BARE).map(|number| node(0, number % endpoints.len())), &permits, pid).await;
    let (start, spent, own) = (Instant::now(), cpu(pid), cpu(std::process::id()));
    for (overlay, host) in (0..overlays).flat_map(|overlay| (0..endpoints.len()).map(move |host| (overlay, host))) {
        let node = node(overlay, host);
        let [registered, failed, again] = [&registered, &failed, &again].map(Arc::clone);
        let permits = Arc::clone(&permits);
        tokio::spawn(async move {
            let permit = permits.acquire_owned().await;
            let link = match node.register_as_nodes_do(&again).await {
                Ok(link) => link,
                Err(why) => {
                    if failed.fetch_add(1, Ordering::Relaxed) < FAILURES_SHOWN {
                        println!("failed after {:.1} s: {why}", start.elapsed().as_secs_f64());
                    }
                    return;
                }
            };
            registered.fetch_add(1, Ordering::Relaxed);
            drop(permit);
            link.live().await;
        });
    }
    while registered.load(Ordering::Relaxed) + failed.load(Ordering::Relaxed) < nodes && start.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = start.elapsed().as_secs_f64();
    let (done, lost) = (registered.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
    println!("{done} registered in {took:.1} s, {:.0} a second; {lost} failed", done as f64 / took);
    println!("dialled again: {}", again.load(Ordering::Relaxed));
    let share = |spent: Duration| {
        format!("{:.1} s of CPU, {:.2} ms a node", spent.as_secs_f64(), spent.as_secs_f64() * 1e3 / nodes as f64)
    };
    let spent = cpu(pid) - spent;
    println!("supernode: {}, {:.0} registrations in a second of it", share(spent), done as f64 / spent.as_secs_f64());
    println!("this program: {}", share(cpu(std::process::id()) - own));
    tokio::time::sleep(IDLE / 3).await;
    let (spent, start) = (cpu(pid), Instant::now());
    tokio::time::sleep(IDLE).await;
    let share = (cpu(pid) - spent).as_secs_f64() / start.elapsed().as_secs_f64();
    println!("idle: {:.1} % of a core; {} links lost", share * 100.0, failed.load(Ordering::Relaxed));
}

/// Links that end before anybody registers.
async fn bare(nodes: impl Iterator<Item = Node>, permits: &Arc<Semaphore>, pid: u32) {
    let spent = cpu(pid);
    let mut links = JoinSet::new();
    for node in nodes {
        let permits = Arc::clone(permits);
        links.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let (mut link, _) = node.dial().await.ok()?;
            link.say(&Message::Ping { nonce: 1 }).await?;
            link.hear().await
        });
    }
    let answered = links.join_all().await.iter().flatten().count();
    tokio::time::sleep(BARE_REST).await;
    let each = (cpu(pid) - spent).as_secs_f64() * 1e3 / answered.max(1) as f64;
    println!("{answered} links without registration: {each:.2} ms of the supernode's CPU each");
}

fn secrets(overlay: usize) -> OverlaySecrets {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&overlay.to_be_bytes());
    OverlaySecrets::derive("load", &OverlayKey::from_bytes(key))
}

/// A node that is to be.
struct Node {
    endpoint: Endpoint,
    config: ClientConfig,
    to: SocketAddr,
    host: usize,
    overlay: usize,
    secrets: Arc<Vec<OverlaySecrets>>,
}

/// A node's control link.
struct Link {
    _connection: Connection,
    send: SendStream,
    receive: RecvStream,
}

impl Node {
    /// Gives a dial up after five seconds, as nodes do, and dials again.
    async fn register_as_nodes_do(&self, again: &AtomicUsize) -> Result<Link, String> {
        let mut why = String::new();
        for _ in 0..DIALS {
            match tokio::time::timeout(DIAL, self.register()).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(reason)) => why = reason,
                Err(_elapsed) => why = "no answer".into(),
            }
            again.fetch_add(1, Ordering::Relaxed);
        }
        Err(why)
    }

    /// The link, and the value that ties a registration to it.
    async fn dial(&self) -> Result<(Link, [u8; 32]), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let dialled =
            self.endpoint.connect_with(self.config.clone(), self.to, "longwire").map_err(|error| text(&error))?;
        let connection = dialled.await.map_err(|error| text(&error))?;
        let (send, receive) = connection.open_bi().await.map_err(|error| text(&error))?;
        let mut exporter = [0; 32];
        connection.export_keying_material(&mut exporter, b"longwire register", b"").map_err(|_| "no exporter")?;
        Ok((Link { _connection: connection, send, receive }, exporter))
    }

    async fn register(&self) -> Result<Link, String> {
        let mut secret = [9; 32];
        secret[..8].copy_from_slice(&self.host.to_be_bytes());
        secret[8..16].copy_from_slice(&self.overlay.to_be_bytes());
        let identity = Identity::from_secret(&secret);
        let secrets = &self.secrets[self.overlay];
        let (mut link, exporter) = self.dial().await?;
        let register = Message::Register {
            certificate: Certificate::issue(secrets, &identity).bytes().to_vec(),
            signature: sign(&identity, &registration(&exporter, secrets.id())),
            directory: vec![1; DIRECTORY],
            version: Version::OURS,
            continues: None,
        };
        link.say(&register).await.ok_or("the link broke before REGISTER")?;
        loop {
            match link.hear().await.ok_or("the link broke before WELCOME")? {
                Some(Message::Welcome { .. }) => return Ok(link),
                Some(Message::Refused { reason, .. }) => return Err(reason.text().into()),
                _ => {}
            }
        }
    }
}

impl Link {
    async fn say(&mut self, message: &Message) -> Option<()> {
        let bytes = message.bytes();
        let length = u16::try_from(bytes.len()).ok()?;
        self.send.write_all(&[&length.to_be_bytes(), &*bytes].concat()).await.ok()
    }

    async fn hear(&mut self) -> Option<Option<Message>> {
        let mut length = [0; 2];
        self.receive.read_exact(&mut length).await.ok()?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        self.receive.read_exact(&mut message).await.ok()?;
        Message::parse(&message).ok()
    }

    /// Asks now and then, hears everything.
    async fn live(self) {
        let Link { _connection, mut send, mut receive } = self;
        let ping = Message::Ping { nonce: 1 }.bytes();
        let framed = [&u16::try_from(ping.len()).unwrap_or(0).to_be_bytes(), &*ping].concat();
        let ask = async {
            loop {
                tokio::time::sleep(PING_EVERY).await;
                if send.write_all(&framed).await.is_err() {
                    return;
                }
            }
        };
        let hear = async {
            let mut room = vec![0; 4096];
            while let Ok(Some(_)) = receive.read(&mut room).await {}
        };
        tokio::select! {
            () = ask => {}
            () = hear => {}
        }
    }
}

/// A line of `/proc/PID/status`, in KiB.
fn memory(pid: u32, line: &str) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = text.lines().find_map(|text| text.strip_prefix(line)?.split_whitespace().next()?.parse().ok());
    value.unwrap_or(0)
}

/// CPU time of all threads that a process has now.
fn cpu(pid: u32) -> Duration {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let nanos = tasks.flatten().filter_map(|task| {
        let spent = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        spent.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}
