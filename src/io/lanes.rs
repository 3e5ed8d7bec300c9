//! The threads of the further lanes, and lane 0's end of the channels to them.
//!
//! Each thread has one wait for its socket, its queue of each TAP, orders and a timer, and drives a
//! [`Lane`] as the loop drives the node. It never waits for lane 0, which waits for it: orders must not be
//! lost. What a lane hands over and lane 0 is too slow to take is lost and counted.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tracing::error;

use super::clock::{self, Timer};
use super::driver::DriveError;
use super::quic::Inbox;
use super::tap::{self, Queue, Tap, TapCounters};
use super::udp::Underlay;
use super::{prefer, watch};
use crate::datapath::buf::{Datagrams, Deliveries, Frames, OverlayIndex, Transmits};
use crate::datapath::lane::{Handed, LANES_MAX, Lane, Order, Report};
use crate::time::Time;

/// Orders that may wait for a lane. A full channel makes lane 0 wait for that lane.
const ORDERS: usize = 1024;
/// Orders obeyed before frames have their turn again.
const ORDERS_PER_WAKEUP: usize = 256;
/// What all lanes together may have handed over and reported, each up to 1 MB of frames.
const NEWS: usize = 64;
/// Without a word of the user's, lanes are for hosts with more cores than guests and softirqs fill by themselves.
const CORES_MIN: usize = 4;
/// And more than so many were never measured.
const LANES_DEFAULT_MAX: usize = 4;

/// How many lanes a host with so many cores gets where the user does not say.
pub fn default_lanes(cores: usize) -> u8 {
    let lanes = if cores < CORES_MIN { 1 } else { (cores / 2).min(LANES_DEFAULT_MAX) };
    u8::try_from(lanes.min(LANES_MAX)).unwrap_or(1)
}

/// From a lane to lane 0.
#[derive(Debug)]
pub(super) enum News {
    /// Lane 0 is to do this.
    Handed(u8, Handed),
    /// What the lane did, and what went wrong at its queues so far.
    Report(u8, Box<Report>, Vec<TapCounters>),
    /// The lane cannot go on.
    Ended(DriveError),
}

/// What a lane's thread is made of.
pub struct Parts {
    /// The lane.
    pub lane: Lane,
    /// Its socket.
    pub underlay: Arc<Underlay>,
    /// Its queue of each TAP, in the order of the overlays.
    pub queues: Vec<Queue>,
    /// Where QUIC's datagrams go.
    pub inbox: Arc<Inbox>,
    /// Its nice value.
    pub priority: i32,
}

/// Lane 0's view of the others.
pub struct Crew {
    orders: Vec<mpsc::Sender<Order>>,
    news: mpsc::Receiver<News>,
    threads: Vec<JoinHandle<()>>,
    underlays: Vec<Arc<Underlay>>,
    taps: Vec<Vec<TapCounters>>,
}

impl Crew {
    /// Starts a thread for each.
    pub fn start(lanes: Vec<Parts>) -> io::Result<Self> {
        let (news_in, news) = mpsc::channel(NEWS);
        let taps = vec![Vec::new(); lanes.len()];
        let mut crew = Self { orders: Vec::new(), news, threads: Vec::new(), underlays: Vec::new(), taps };
        for parts in lanes {
            let (orders, ordered) = mpsc::channel(ORDERS);
            crew.orders.push(orders);
            crew.underlays.push(Arc::clone(&parts.underlay));
            let (name, news) = (format!("lane {}", parts.lane.number()), news_in.clone());
            crew.threads.push(thread::Builder::new().name(name).spawn(|| run(parts, ordered, news))?);
        }
        Ok(crew)
    }

    /// Lanes in all, lane 0 too.
    pub(super) fn lanes(&self) -> usize {
        1 + self.threads.len()
    }

    /// Ready if a lane tells something.
    pub(super) fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<News> {
        if self.threads.is_empty() {
            return Poll::Pending;
        }
        match self.news.poll_recv(cx) {
            Poll::Ready(Some(news)) => Poll::Ready(news),
            Poll::Ready(None) => Poll::Ready(News::Ended(DriveError::Lane)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The next, if there is one.
    pub(super) fn try_news(&mut self) -> Option<News> {
        self.news.try_recv().ok()
    }

    /// Tells a lane.
    pub(super) async fn tell(&self, lane: u8, order: Order) -> Result<(), DriveError> {
        let Some(orders) = usize::from(lane).checked_sub(1).and_then(|place| self.orders.get(place)) else {
            return Ok(());
        };
        orders.send(order).await.map_err(|_ended| DriveError::Lane)
    }

    /// Keeps what a lane says of its queues.
    pub(super) fn note_taps(&mut self, lane: u8, counters: Vec<TapCounters>) {
        if let Some(known) = usize::from(lane).checked_sub(1).and_then(|place| self.taps.get_mut(place)) {
            *known = counters;
        }
    }

    /// What went wrong at all further queues of the TAP at `place`.
    pub(super) fn tap_counters(&self, place: usize) -> impl Iterator<Item = TapCounters> {
        self.taps.iter().filter_map(move |lane| lane.get(place).copied())
    }

    /// The sockets of the further lanes.
    pub(super) fn underlays(&self) -> impl Iterator<Item = &Underlay> {
        self.underlays.iter().map(AsRef::as_ref)
    }

    /// Ends the threads; their queues and sockets are closed then.
    pub(super) fn stop(self) {
        let Self { orders, news, threads, .. } = self;
        drop((orders, news));
        for thread in threads {
            if thread.join().is_err() {
                error!("a lane ended in a panic");
            }
        }
    }
}

/// A lane's thread.
fn run(parts: Parts, orders: mpsc::Receiver<Order>, news: mpsc::Sender<News>) {
    prefer(parts.priority);
    let live = || {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { Worker::new(parts, orders, news.clone())?.run().await })
    };
    if let Err(error) = live() {
        // Lane 0 learns it from the closed channel if this one is full.
        let _full = news.try_send(News::Ended(error));
    }
}

struct Worker {
    lane: Lane,
    underlay: AsyncFd<Arc<Underlay>>,
    taps: Vec<Box<dyn Tap>>,
    inbox: Arc<Inbox>,
    orders: mpsc::Receiver<Order>,
    news: mpsc::Sender<News>,
    timer: Timer,
    frames: Frames,
    datagrams: Datagrams,
    spare: (Transmits, Deliveries),
}

/// What is ready after a wait.
#[derive(Default)]
struct Ready {
    /// The inner `None`: lane 0 is gone.
    order: Option<Option<Order>>,
    underlay: bool,
    /// One bit for each TAP.
    taps: u64,
    timer: bool,
}

impl Worker {
    fn new(parts: Parts, orders: mpsc::Receiver<Order>, news: mpsc::Sender<News>) -> Result<Self, DriveError> {
        let Parts { lane, underlay, queues, inbox, .. } = parts;
        Ok(Self {
            lane,
            underlay: watch(underlay, Interest::READABLE)?,
            taps: queues.into_iter().map(Queue::watch).collect::<io::Result<_>>()?,
            inbox,
            orders,
            news,
            timer: Timer::new()?,
            frames: Frames::default(),
            datagrams: Datagrams::default(),
            spare: Default::default(),
        })
    }

    async fn run(mut self) -> Result<(), DriveError> {
        loop {
            let ready = poll_fn(|cx| self.poll_ready(cx)).await;
            let now = clock::now();
            if let Some(order) = ready.order {
                let Some(order) = order else { return Ok(()) };
                self.obey(now, order);
                self.drain(now).await?;
            }
            // An order may have asked for a pause.
            if ready.underlay && self.lane.wants_input() {
                self.receive(now).await?;
            }
            for place in 0..self.taps.len() {
                if ready.taps & 1 << place != 0 && self.lane.wants_input() {
                    self.read_tap(now, place).await?;
                }
            }
            if ready.timer {
                self.drain(now).await?;
            }
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Ready> {
        let mut ready = Ready { timer: self.timer.poll_fired(cx).is_ready(), ..Ready::default() };
        if let Poll::Ready(order) = self.orders.poll_recv(cx) {
            ready.order = Some(order);
        }
        if self.lane.wants_input() {
            ready.underlay = self.underlay.poll_read_ready(cx).is_ready();
            for (place, tap) in self.taps.iter().enumerate() {
                ready.taps |= u64::from(tap.poll_readable(cx).is_ready()) << place;
            }
        }
        let any = ready.order.is_some() || ready.underlay || ready.taps != 0 || ready.timer;
        if any { Poll::Ready(ready) } else { Poll::Pending }
    }

    fn obey(&mut self, now: Time, first: Order) {
        self.lane.handle_order(now, first);
        for _ in 1..ORDERS_PER_WAKEUP {
            let Ok(order) = self.orders.try_recv() else { break };
            self.lane.handle_order(now, order);
        }
    }

    async fn receive(&mut self, now: Time) -> Result<(), DriveError> {
        self.datagrams.clear();
        let (datagrams, inbox) = (&mut self.datagrams, &self.inbox);
        let received = self.underlay.try_io(Interest::READABLE, |underlay| {
            let more = underlay.receive(datagrams, inbox)?;
            if more { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        match received {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(DriveError::Underlay(error)),
            Ok(()) | Err(_) => {}
        }
        if self.datagrams.is_empty() {
            return Ok(());
        }
        self.lane.handle_datagrams(now, &mut self.datagrams);
        self.drain(now).await
    }

    async fn read_tap(&mut self, now: Time, place: usize) -> Result<(), DriveError> {
        self.frames.clear();
        let tap = &mut self.taps[place];
        tap.read(&mut self.frames).map_err(|error| tap.gone(error))?;
        if self.frames.is_empty() {
            return Ok(());
        }
        self.lane.handle_frames(now, OverlayIndex(place), &self.frames);
        self.drain(now).await
    }

    /// Sends, writes, hands over and reports what there is.
    async fn drain(&mut self, now: Time) -> Result<(), DriveError> {
        let (mut transmits, mut deliveries) = self.lane.take_batches(std::mem::take(&mut self.spare));
        self.underlay.get_ref().send_patiently(&transmits, |_| false).await;
        tap::deliver(&mut self.taps, &deliveries)?;
        transmits.clear();
        deliveries.clear();
        self.spare = (transmits, deliveries);
        let number = self.lane.number();
        if self.lane.has_handed() {
            match self.news.try_reserve() {
                Ok(place) => place.send(News::Handed(number, self.lane.take_handed())),
                Err(_full) => self.lane.drop_handed(),
            }
        }
        if self.lane.report_at() <= now {
            match self.news.try_reserve() {
                Ok(place) => {
                    let counters = self.taps.iter().map(|tap| tap.counters()).collect();
                    place.send(News::Report(number, Box::new(self.lane.take_report(now)), counters));
                }
                Err(_full) => self.lane.put_report_off(now),
            }
        }
        Ok(self.timer.arm(self.lane.report_at())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_hosts_have_one_lane_and_large_ones_four() {
        let lanes = [1, 2, 3, 4, 6, 8, 64].map(default_lanes);
        assert_eq!(lanes, [1, 1, 1, 2, 3, 4, 4]);
    }
}
