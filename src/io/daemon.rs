//! A daemon from start to end: takes what it needs from the host, runs the loop, gives it back.
//!
//! In this order: state directory, socket, QUIC, TAPs and bridges, node, status socket, loop. At the end
//! the TAPs go first, then the bridges made here.

mod settings;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use thiserror::Error;
use tokio::runtime::{Builder, Handle as Background};
use tokio::sync::{mpsc, watch as latest};
use tracing::{info, warn};

use super::addresses::Surroundings;
use super::driver::{DriveError, Driver, Parts};
use super::egress::EgressError;
use super::interfaces::Rules;
use super::lanes::{self, Crew};
use super::links::{Ground, Links};
use super::mapping::Mapper;
use super::netlink::{self, NetlinkError, TapShape, Wiring};
use super::quic::{QuicError, inbox};
use super::state::{self, State, StateError};
use super::status::{self, Server, SocketError};
use super::tap::{self, Queue, Tap, TapError};
use super::tcp::{self, Dialler, Proxies, Streams, Tcp};
use super::udp::{Listen, UdpError, Underlay};
use super::{INPUT_QUEUE, Input, addresses, clock, discovery, egress, pressure, reflect};
use crate::config::{Attach, INTERFACE_NAME_MAX, Overlay, Settings, SocketChoice, TcpPort};
use crate::keys::Identity;
use crate::node::{Memory, Node};
use crate::time::{Time, WallTime};
use settings::{host_name, node_settings};

/// Between notes of the calendar in the state directory.
const KEEP_WALL: Duration = Duration::from_secs(600);
/// Threads for DNS and files.
const BLOCKING_THREADS: usize = 4;
/// For the background to end.
const BACKGROUND_END: Duration = Duration::from_millis(500);
/// Daemons of one name on one host that get a socket by themselves.
const SAME_NAME_MAX: usize = 64;

/// Why a daemon did not start or has ended.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The underlay socket.
    #[error(transparent)]
    Udp(#[from] UdpError),
    /// The TCP port that was asked for.
    #[error("{0}: give another `tcp-port`, or 0 for none")]
    Tcp(#[source] io::Error),
    /// How packets leave it.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// The control links.
    #[error(transparent)]
    Quic(#[from] QuicError),
    /// A TAP.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// A bridge or address.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The status socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// While running.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// Threads, random bytes, netlink socket.
    #[error("this host does not give what a daemon needs: {0}")]
    Host(#[from] io::Error),
}

/// Runs a daemon until it is told to end.
pub fn run(settings: Settings) -> Result<(), DaemonError> {
    let background = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("background")
        .enable_all()
        .build()?;
    let foreground = Builder::new_current_thread().enable_all().build()?;
    let ended = foreground.block_on(live(settings, background.handle()));
    background.shutdown_timeout(BACKGROUND_END);
    ended
}

async fn live(settings: Settings, background: &Background) -> Result<(), DaemonError> {
    let (connection, netlink) = {
        let _on = background.enter();
        let (connection, handle, _) = rtnetlink::new_connection()?;
        (connection, handle)
    };
    background.spawn(connection);
    let mut wirings = Vec::new();
    let ended = serve(settings, background, &netlink, &mut wirings).await;
    // The TAPs are closed by now.
    for wiring in wirings {
        netlink::unwire(&netlink, wiring).await;
    }
    ended
}

async fn serve(
    mut settings: Settings,
    background: &Background,
    netlink: &rtnetlink::Handle,
    wirings: &mut Vec<Wiring>,
) -> Result<(), DaemonError> {
    let state = Arc::new(State::open(&settings.state)?);
    let identity = Identity::from_secret(state.secret());
    let start = (clock::now(), state.not_before(clock::wall()));
    state.keep_wall(start.1);

    let underlay = Arc::new(Underlay::bind(settings.listen.map_or(Listen::Anywhere, Listen::At))?);
    let talks_to_itself = settings.serve.is_some() && !settings.overlays.is_empty();
    egress::restrict(&*underlay, &settings.underlay, talks_to_itself)?;
    let (inbox, received) = inbox();
    let (inputs_in, inputs) = mpsc::channel(INPUT_QUEUE);
    let serves = settings.serve.is_some();
    if serves {
        let _on = background.enter();
        reflect::start(&underlay, settings.observe.as_deref())?;
    }
    let ground = Ground {
        background: background.clone(),
        underlay: Arc::clone(&underlay),
        received,
        identity: &identity,
        serve: serves,
        inputs: inputs_in.clone(),
    };
    let links = Links::new(ground, open_tcp(&settings, background, underlay.local())?)?;

    let wanted = lanes::wanted(&settings);
    let (taps, queues) = open_taps(&mut settings.overlays, &identity, netlink, wirings, wanted).await?;
    let sockets = lanes::spread(&underlay, &queues, wanted, |socket| {
        egress::restrict(socket, &settings.underlay, talks_to_itself)
    })?;
    let tap_names: BTreeSet<String> = taps.iter().map(|tap| tap.name().to_owned()).collect();
    let _socket = open_socket(&settings.socket, background, &inputs_in)?;

    let rules = Rules::new(tap_names, &settings.underlay);
    let found = addresses::look(netlink, &rules).await.unwrap_or_else(|error| {
        warn!(%error, "this host's addresses cannot be read");
        Surroundings::default()
    });
    introduce(&settings, &identity, &underlay, &found.addresses);
    let (told, surroundings) = latest::channel(found.clone());
    background.spawn(addresses::watch(rules, told, inputs_in.clone()));
    let announces = settings
        .underlay
        .lan_discovery
        .then(|| discovery::start(background, settings.underlay.fwmark, surroundings.clone(), inputs_in.clone()));
    background.spawn(pressure::watch(inputs_in.clone()));
    let wants_mapping = settings.underlay.port_mapping;
    let mapper = wants_mapping.then(|| Mapper::start(background, underlay.port(), surroundings, inputs_in)).flatten();
    let (memory, remembered) = latest::channel(Memory::default());
    background.spawn(keep(Arc::clone(&state), remembered, start));

    let overlays = settings.overlays.iter().map(|overlay| overlay.name.clone()).collect();
    let priority = settings.priority;
    let node_settings = node_settings(settings, identity, underlay.local(), state.memory());
    let mut node = Node::new(node_settings, state::random()?, start.0, start.1);
    let inbox = Arc::new(inbox);
    let crew = Crew::start(lanes::man(&mut node, sockets, queues, &inbox, priority)?)?;
    let kept = memory.clone();
    let parts = Parts { node, underlay, inbox, taps, links, inputs, announces, memory, overlays, crew, priority };
    let driver = Driver::new(parts)?;
    notify(NotifyState::Ready);
    let ended = driver.drive(found).await;
    if let Some(mapper) = mapper {
        mapper.stop().await;
    }
    notify(NotifyState::Stopping);
    if kept.borrow().clone() != Memory::default() {
        state.remember(&kept.borrow());
    }
    state.keep_wall(calendar(start));
    Ok(ended?)
}

/// What TCP needs, and where it comes in.
fn open_tcp(settings: &Settings, background: &Background, at: SocketAddr) -> Result<Tcp, DaemonError> {
    let _on = background.enter();
    let listener = match settings.serve {
        Some(_) => tcp::listen(at, settings.tcp_port).map_err(DaemonError::Tcp)?,
        None => None,
    };
    let proxies = Proxies::new(&settings.underlay.proxy);
    let underlay = Arc::new(settings.underlay.clone());
    Ok(Tcp { dialler: Dialler { streams: Streams::default(), proxies, underlay }, listener })
}

/// The TAP of each overlay, and its queues for further lanes.
async fn open_taps(
    overlays: &mut [Overlay],
    identity: &Identity,
    netlink: &rtnetlink::Handle,
    wirings: &mut Vec<Wiring>,
    lanes: u8,
) -> Result<(Vec<Box<dyn Tap>>, Vec<Vec<Queue>>), DaemonError> {
    let (mut taps, mut queues) = (Vec::new(), Vec::new());
    for overlay in overlays {
        let (tap, further) = open_tap(overlay, identity, netlink, wirings, lanes).await?;
        overlay.switch.tap = tap.offload();
        taps.push(tap);
        queues.push(further);
    }
    Ok((taps, queues))
}

/// Opens and sets up the TAP of `overlay`.
async fn open_tap(
    overlay: &Overlay,
    identity: &Identity,
    netlink: &rtnetlink::Handle,
    wirings: &mut Vec<Wiring>,
    lanes: u8,
) -> Result<(Box<dyn Tap>, Vec<Queue>), DaemonError> {
    let name = overlay.tap.clone().unwrap_or_else(|| default_tap(&overlay.name));
    let (tap, queues) = tap::open(&name, overlay.switch.mtu, overlay.switch.tap, lanes)?;
    let mac = identity.tap_mac(overlay.secrets.id());
    let shape = TapShape { mac, mtu: overlay.switch.mtu, queue: overlay.tap_queue };
    wirings.push(netlink::wire(netlink, tap.name(), shape, &overlay.attach).await?);
    let offload = tap::word(tap.offload());
    info!(overlay = overlay.name, id = %overlay.secrets.id(), tap = tap.name(), offload, "joining");
    if overlay.attach == Attach::Nothing {
        warn!(
            tap = tap.name(),
            "the TAP has neither bridge nor address: put it on a bridge, or give --bridge or --address"
        );
    }
    Ok((tap, queues))
}

/// Named after the overlay, if the kernel takes so long a name.
fn default_tap(overlay: &str) -> String {
    let name = format!("lw-{overlay}");
    if name.len() <= INTERFACE_NAME_MAX { name } else { "lw%d".into() }
}

/// A socket that was asked for must be. The usual one takes another name beside a daemon of the same
/// name, and need not be at all: a supernode has no rights to /run.
fn open_socket(
    choice: &SocketChoice,
    background: &Background,
    inputs: &mpsc::Sender<Input>,
) -> Result<Option<Server>, SocketError> {
    let _on = background.enter();
    let name = match choice {
        SocketChoice::At(path) => return Server::start(path, inputs.clone()).map(Some),
        SocketChoice::Named(name) => name,
    };
    let names = std::iter::once(name.clone()).chain((2..=SAME_NAME_MAX).map(|number| format!("{name}-{number}")));
    let mut refused = None;
    for name in names {
        match Server::start(&status::default_path(&name), inputs.clone()) {
            Ok(server) => {
                if refused.is_some() {
                    info!(socket = %server.path().display(), "another longwire has the usual status socket");
                }
                return Ok(Some(server));
            }
            Err(error) => {
                let taken = matches!(error, SocketError::InUse(_));
                refused = Some(error);
                if !taken {
                    break;
                }
            }
        }
    }
    if let Some(error) = refused {
        warn!(%error, "`longwire status` will not work");
    }
    Ok(None)
}

/// The first lines of a daemon: who it is and how others reach it.
fn introduce(settings: &Settings, identity: &Identity, underlay: &Underlay, found: &[IpAddr]) {
    let name = settings.name.clone().unwrap_or_else(host_name);
    info!(name, id = %identity.id(), listen = %underlay.local(), version = env!("CARGO_PKG_VERSION"), "longwire");
    if settings.serve.is_some() {
        let local = super::udp::canonical(underlay.local());
        let bound = (!local.ip().is_unspecified()).then(|| local.ip());
        let ip = bound.or_else(|| found.first().copied()).unwrap_or_else(|| local.ip());
        let place = SocketAddr::new(ip, local.port());
        let tcp = match settings.tcp_port {
            TcpPort::At(port) => format!("/{port}"),
            TcpPort::Usual | TcpPort::None => String::new(),
        };
        info!("supernode: nodes reach it with --supernode {place}{tcp}#{}", identity.fingerprint());
    }
}

/// Writes down what the node wants to remember, and the calendar now and then.
async fn keep(state: Arc<State>, mut memory: latest::Receiver<Memory>, start: (Time, WallTime)) {
    loop {
        let changed = tokio::time::timeout(KEEP_WALL, memory.changed()).await;
        if let Ok(Err(_ended)) = changed {
            return;
        }
        let newest = changed.is_ok().then(|| memory.borrow_and_update().clone());
        let state = Arc::clone(&state);
        let write = move || {
            if let Some(memory) = newest {
                state.remember(&memory);
            }
            state.keep_wall(calendar(start));
        };
        if tokio::task::spawn_blocking(write).await.is_err() {
            return;
        }
    }
}

/// The calendar as the node counts it: never set back while it runs.
fn calendar((start, wall): (Time, WallTime)) -> WallTime {
    wall + clock::now().since(start)
}

/// Nobody listens unless systemd started us.
fn notify(state: NotifyState<'_>) {
    let _not_under_systemd = sd_notify::notify(&[state]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_is_named_after_its_overlay_if_the_kernel_takes_it() {
        assert_eq!(default_tap("lab"), "lw-lab");
        assert_eq!(default_tap("a-name-that-is-long"), "lw%d");
    }
}
