//! The event loop: waits for the kernel and the background, feeds the node, does what it says.
//!
//! One thread, one wait for everything. Every wakeup does a bounded piece of work for each source that
//! is ready, in this order: signal, underlay, control inputs, timer, TAPs. So what was heard counts before a timer
//! says that nothing was, and control packets leave before new frames fill the socket. Nothing here blocks; a full
//! underlay socket is waited for a short while, which keeps frames in the TAP's queue, where the kernel
//! drops them as any congested link does.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch as latest};
use tracing::{info, trace, warn};

use super::addresses::Surroundings;
use super::clock::{self, JumpWatch, Timer};
use super::doors::Doors;
use super::events::EventLog;
use super::lanes::{Crew, News};
use super::links::Links;
use super::moderation::Moderation;
use super::quic::Inbox;
use super::state::random;
use super::tap::{self, Tap, TapCounters, TapGone};
use super::udp::{UdpCounters, Underlay};
use super::{Input, watch};
use crate::control::report::{Request, Response};
use crate::datapath::buf::{Datagrams, Frames, OverlayIndex, Transmits};
use crate::datapath::lane::Order;
use crate::datapath::{Command, Path};
use crate::node::{Announce, Memory, Node, Output};
use crate::seam::stream;
use crate::time::Time;

/// Control inputs per wakeup before frames have their turn.
const INPUTS_PER_WAKEUP: usize = 64;
/// What other lanes tell, per wakeup, before control inputs have their turn.
const NEWS_PER_WAKEUP: usize = 16;
/// A timer that fires this late tells of a host that slept.
const SLEPT: Duration = Duration::from_secs(5);
/// Between looks at the calendar.
const JUMP_CHECK: Duration = Duration::from_secs(10);
/// For the last messages to supernodes.
const FAREWELL: Duration = Duration::from_millis(500);

/// What ends a daemon that nobody told to end.
#[derive(Debug, Error)]
pub enum DriveError {
    /// Somebody removed it.
    #[error(transparent)]
    Tap(#[from] TapGone),
    /// The socket.
    #[error("the underlay socket fails: {0}")]
    Underlay(#[source] io::Error),
    /// A thread of another lane has ended.
    #[error("a lane has ended")]
    Lane,
    /// Timer or signals.
    #[error("the event loop fails: {0}")]
    Loop(#[from] io::Error),
}

/// What a driver is made of.
pub struct Parts {
    /// The node.
    pub node: Node,
    /// Its socket.
    pub underlay: Arc<Underlay>,
    /// Where QUIC's datagrams go.
    pub inbox: Arc<Inbox>,
    /// Its TAPs, in the order of the overlays.
    pub taps: Vec<Box<dyn Tap>>,
    /// Its control links.
    pub links: Links,
    /// What the background tells.
    pub inputs: mpsc::Receiver<Input>,
    /// Where announcements go to, if there are any.
    pub announces: Option<mpsc::Sender<Announce>>,
    /// What is to be kept.
    pub memory: latest::Sender<Memory>,
    /// Names of the overlays.
    pub overlays: Vec<String>,
    /// The other lanes.
    pub crew: Crew,
    /// The loop's nice value.
    pub priority: i32,
}

/// The loop's state.
pub struct Driver {
    node: Node,
    underlay: AsyncFd<Arc<Underlay>>,
    doors: Doors,
    inbox: Arc<Inbox>,
    taps: Vec<Box<dyn Tap>>,
    links: Links,
    inputs: mpsc::Receiver<Input>,
    announces: Option<mpsc::Sender<Announce>>,
    memory: latest::Sender<Memory>,
    timer: Timer,
    signals: [Signal; 2],
    log: EventLog,
    frames: Frames,
    datagrams: Datagrams,
    jumps: JumpWatch,
    jumps_at: Time,
    crew: Crew,
    moderation: Moderation,
}

/// What is ready after a wait.
#[derive(Default)]
struct Ready {
    stop: bool,
    underlay: bool,
    doors: bool,
    /// One bit for each TAP; the config allows no more than there are bits.
    taps: u64,
    input: Option<Input>,
    news: Option<News>,
    timer: Option<Time>,
}

impl Ready {
    fn any(&self) -> bool {
        let one = self.stop || self.underlay || self.doors || self.taps != 0;
        one || self.news.is_some() || self.input.is_some() || self.timer.is_some()
    }
}

impl Driver {
    /// Must be called on the loop's thread and runtime.
    pub fn new(parts: Parts) -> io::Result<Self> {
        let Parts { node, underlay, inbox, taps, links, inputs, announces, memory, overlays, crew, priority } = parts;
        let now = clock::now();
        let names = taps.iter().map(|tap| tap.name().to_owned()).collect();
        Ok(Self {
            node,
            underlay: watch(underlay, Interest::READABLE)?,
            doors: Doors::default(),
            inbox,
            taps,
            links,
            inputs,
            announces,
            memory,
            timer: Timer::new()?,
            signals: [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?],
            log: EventLog::new(overlays, names),
            frames: Frames::default(),
            datagrams: Datagrams::default(),
            jumps: JumpWatch::new(now, clock::wall()),
            jumps_at: now,
            crew,
            moderation: Moderation::start(now, priority),
        })
    }

    /// Runs until a signal comes or something is broken for good, and tells the others either way.
    /// `surroundings` are the host's at the start.
    pub async fn drive(mut self, surroundings: Surroundings) -> Result<(), DriveError> {
        let ended = self.run(surroundings).await;
        info!("leaving");
        let now = clock::now();
        self.node.handle_leave(now);
        let left = self.drain(now).await;
        self.part().await;
        ended.and(left)
    }

    async fn run(&mut self, surroundings: Surroundings) -> Result<(), DriveError> {
        let now = clock::now();
        self.node.handle_routes(now, surroundings.routes);
        self.node.handle_addresses(now, self.underlay.get_ref().port(), surroundings.addresses);
        self.drain(now).await?;
        loop {
            let ready = poll_fn(|cx| self.poll_ready(cx)).await;
            if ready.stop {
                return Ok(());
            }
            self.turn(ready).await?;
        }
    }

    /// Gives the last messages time to arrive. QUIC needs to hear the answers meanwhile.
    async fn part(self) {
        let Self { underlay, inbox, mut datagrams, links, crew, .. } = self;
        crew.stop();
        let listen = async {
            while let Ok(mut readable) = underlay.readable().await {
                datagrams.clear();
                if !underlay.get_ref().receive(&mut datagrams, &inbox).unwrap_or(false) {
                    readable.clear_ready();
                }
            }
        };
        tokio::select! {
            () = links.shut_down(FAREWELL) => {}
            () = listen => {}
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Ready> {
        let mut ready = Ready {
            stop: self.signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready()),
            underlay: self.underlay.poll_read_ready(cx).is_ready(),
            doors: self.doors.poll_ready(cx),
            ..Ready::default()
        };
        for (place, tap) in self.taps.iter().enumerate() {
            ready.taps |= u64::from(tap.poll_readable(cx).is_ready()) << place;
        }
        if let Poll::Ready(input) = self.inputs.poll_recv(cx) {
            ready.input = input;
        }
        if let Poll::Ready(news) = self.crew.poll_news(cx) {
            ready.news = Some(news);
        }
        if let Poll::Ready(at) = self.timer.poll_fired(cx) {
            ready.timer = Some(at);
        }
        if ready.any() { Poll::Ready(ready) } else { Poll::Pending }
    }

    /// A bounded piece of work for each source that is ready.
    async fn turn(&mut self, ready: Ready) -> Result<(), DriveError> {
        let now = clock::now();
        if ready.underlay {
            self.receive(now).await?;
        }
        if ready.doors {
            self.datagrams.clear();
            self.doors.receive(&mut self.datagrams);
            self.node.handle_datagrams(now, &mut self.datagrams);
            self.drain(now).await?;
        }
        let mut news = ready.news;
        for _ in 0..NEWS_PER_WAKEUP {
            let Some(one) = news.take().or_else(|| self.crew.try_news()) else { break };
            self.hear_lane(now, one)?;
            self.drain(now).await?;
        }
        let mut input = ready.input;
        for _ in 0..INPUTS_PER_WAKEUP {
            let Some(one) = input.take().or_else(|| self.inputs.try_recv().ok()) else {
                break;
            };
            self.hear(now, one);
            self.drain(now).await?;
        }
        if let Some(at) = ready.timer {
            self.notice_jumps(now, at);
            self.node.handle_timeout(now);
            self.drain(now).await?;
        }
        for place in 0..self.taps.len() {
            if ready.taps & 1 << place != 0 {
                self.read_tap(now, place).await?;
            }
        }
        self.moderation.rest(now);
        Ok(())
    }

    async fn receive(&mut self, now: Time) -> Result<(), DriveError> {
        Underlay::receive_woken(&self.underlay, &mut self.datagrams, &self.inbox).map_err(DriveError::Underlay)?;
        if self.datagrams.is_empty() {
            return Ok(());
        }
        let bytes = || self.datagrams.iter().map(|(bytes, _)| bytes.len()).sum::<usize>();
        trace!(buffers = self.datagrams.len(), bytes = bytes(), "received");
        self.node.handle_datagrams(now, &mut self.datagrams);
        self.drain(now).await
    }

    async fn read_tap(&mut self, now: Time, place: usize) -> Result<(), DriveError> {
        self.frames.clear();
        let tap = &mut self.taps[place];
        tap.read(&mut self.frames).map_err(|error| tap.gone(error))?;
        if self.frames.is_empty() {
            return Ok(());
        }
        trace!(frames = self.frames.len(), tap = tap.name(), "read");
        self.moderation.note(self.frames.len(), self.frames.byte_len());
        self.node.handle_frames(now, OverlayIndex(place), &self.frames);
        self.drain(now).await
    }

    fn hear_lane(&mut self, now: Time, news: News) -> Result<(), DriveError> {
        match news {
            News::Handed(lane, handed) => self.node.handle_handed(now, lane, handed),
            News::Report(lane, report, taps) => {
                self.crew.note_taps(lane, taps);
                self.node.handle_report(now, *report);
            }
            News::Ended(error) => return Err(error),
        }
        Ok(())
    }

    fn hear(&mut self, now: Time, input: Input) {
        match input {
            Input::Link(input) => {
                if let Some(event) = self.links.admit(input) {
                    self.node.handle_link(now, event);
                }
            }
            Input::Datagrams(mut datagrams) => self.node.handle_datagrams(now, &mut datagrams),
            Input::Addresses(addresses) => {
                info!(?addresses, "this host's addresses");
                self.node.handle_addresses(now, self.underlay.get_ref().port(), addresses);
            }
            Input::Announcement(from, packet) => self.node.handle_announcement(now, from, &packet),
            Input::Routes(routes) => self.node.handle_routes(now, routes),
            Input::Pressure(load) => self.node.handle_pressure(now, load),
            Input::Mapped(mapped) => self.node.handle_mapped(now, mapped),
            Input::Request(request, reply) => {
                let response = self.answer(now, &request);
                // Whoever asked may have left.
                let _left = reply.send(response);
            }
        }
    }

    /// The node's answer with what only the loop knows: names of TAPs, lanes and its own counters.
    fn answer(&mut self, now: Time, request: &Request) -> Response {
        let mut response = self.node.handle_request(now, request);
        let Response::Status(status) = &mut response else { return response };
        status.lanes = self.crew.lanes();
        for (place, (overlay, tap)) in status.overlays.iter_mut().zip(&self.taps).enumerate() {
            overlay.tap = tap.name().to_owned();
            overlay.tap_offload = tap::word(tap.offload()).to_owned();
            let counters = self.crew.tap_counters(place).fold(tap.counters(), TapCounters::add);
            overlay.counters.insert("tap_read_errors".into(), counters.read);
            overlay.counters.insert("tap_write_errors".into(), counters.write);
        }
        let underlays = || std::iter::once(self.underlay.get_ref().as_ref()).chain(self.crew.underlays());
        let sum = |counter: fn(&UdpCounters) -> &AtomicU64| {
            underlays().map(|underlay| counter(&underlay.counters).load(Ordering::Relaxed)).sum::<u64>()
        };
        let of_sockets = [
            ("udp_too_big", sum(|counters| &counters.too_big)),
            ("udp_refused", sum(|counters| &counters.refused)),
            ("udp_blocked", sum(|counters| &counters.blocked)),
            ("udp_receive_errors", sum(|counters| &counters.receive)),
            ("lane_mail_lost", self.crew.mail_lost()),
            ("quic_queue_full", self.inbox.dropped.load(Ordering::Relaxed)),
            ("tcp_dropped", self.links.streams().dropped().load(Ordering::Relaxed)),
        ];
        let serving = status.serving.as_mut().map(|serving| &mut serving.counters);
        for counters in status.overlays.iter_mut().map(|overlay| &mut overlay.counters).chain(serving) {
            counters.extend(of_sockets.map(|(name, value)| (name.to_owned(), value)));
        }
        response
    }

    /// Does what the node says until it says wait.
    async fn drain(&mut self, now: Time) -> Result<(), DriveError> {
        let mut owed = Vec::new();
        loop {
            match self.node.poll_output() {
                Output::Transmit(batch) => {
                    self.transmit(&batch).await;
                    self.node.recycle_transmits(batch);
                }
                Output::Deliver(batch) => {
                    self.moderation.note(batch.len(), batch.byte_len());
                    tap::deliver(&mut self.taps, &batch)?;
                    self.node.recycle_deliveries(batch);
                }
                Output::Door(command) => self.doors.obey(command, self.underlay.get_ref()),
                Output::Link(command) => owed.extend(self.links.obey(command)),
                Output::Lane(lane, mut order) => {
                    self.keep_from_lanes(&mut order);
                    self.crew.tell(lane, order).await?;
                }
                Output::Remember(memory) => {
                    self.memory.send_replace(memory);
                }
                Output::Announce(announce) => {
                    // Lost if the background is so far behind; the next one comes.
                    let _lost = self.announces.as_ref().map(|announces| announces.try_send(announce));
                }
                Output::Event(event) => self.log.log(now, &event),
                Output::Wait(deadline) => {
                    let Some(event) = owed.pop() else {
                        return Ok(self.timer.arm(deadline.at)?);
                    };
                    self.node.handle_link(now, event);
                }
            }
        }
    }

    /// What leaves by a door or a stream is lane 0's: to the others it is no path.
    fn keep_from_lanes(&self, order: &mut Order) {
        if let Order::Command(Command::UsePath { path, .. }) = order
            && matches!(*path, Some(Path::Direct(to)) if stream::is_stream(to) || self.doors.leads(to))
        {
            *path = None;
        }
    }

    /// Sends a batch, by doors, by streams and by the socket.
    async fn transmit(&mut self, batch: &Transmits) {
        if self.doors.has_routes() {
            self.doors.send(batch);
        }
        let streams = self.links.streams();
        if streams.any() {
            streams.send(clock::now(), batch);
        }
        let elsewhere = |to| stream::is_stream(to) || self.doors.leads(to);
        self.underlay.get_ref().send_patiently(batch, elsewhere).await;
    }

    /// The calendar jumped ahead, as it does where a snapshot of this host was restored: then another host may use the
    /// keys we have, with the same numbers. New ones cost each peer one round trip, if it was only somebody's hand.
    /// A snapshot whose calendar nobody corrects, or that is younger than the jump that counts, goes unnoticed.
    fn resume(&mut self, now: Time) {
        match random() {
            Ok(seed) => self.node.handle_resumed(now, clock::wall(), seed),
            Err(error) => warn!(%error, "no new keys"),
        }
    }

    /// Says so when the host slept or its calendar was changed; paths mend themselves.
    fn notice_jumps(&mut self, now: Time, armed_for: Time) {
        let late = now.since(armed_for);
        if late >= SLEPT {
            warn!(seconds = late.as_secs(), "this host slept or was too busy; peers are found again");
        }
        if now.since(self.jumps_at) < JUMP_CHECK {
            return;
        }
        self.jumps_at = now;
        if let Some(seconds) = self.jumps.jumped(now, clock::wall()) {
            warn!(seconds, "this host's clock was changed");
            if seconds > 0 {
                self.resume(now);
            }
        }
    }
}
