//! A lane's thread: one wait for its socket, its queue of each TAP, orders and a timer. It drives a [`Lane`] as
//! the loop drives the node.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use super::{News, Parts};
use crate::datapath::buf::{Datagrams, Deliveries, Frames, OverlayIndex, Transmits};
use crate::datapath::lane::{Lane, Order};
use crate::io::clock::{self, Timer};
use crate::io::driver::DriveError;
use crate::io::moderation::Moderation;
use crate::io::quic::Inbox;
use crate::io::tap::{self, Queue, Tap};
use crate::io::udp::Underlay;
use crate::io::watch;
use crate::time::Time;

/// Orders obeyed before frames have their turn again.
const ORDERS_PER_WAKEUP: usize = 256;

/// A lane's thread.
pub(super) fn run(parts: Parts, orders: mpsc::Receiver<Order>, news: mpsc::Sender<News>) {
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
    moderation: Moderation,
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
        let Parts { lane, underlay, queues, inbox, priority } = parts;
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
            moderation: Moderation::start(clock::now(), priority),
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
            self.moderation.rest(now);
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
        Underlay::receive_woken(&self.underlay, &mut self.datagrams, &self.inbox).map_err(DriveError::Underlay)?;
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
        self.moderation.note(self.frames.len(), self.frames.byte_len());
        self.lane.handle_frames(now, OverlayIndex(place), &self.frames);
        self.drain(now).await
    }

    /// Sends, writes, hands over and reports what there is.
    async fn drain(&mut self, now: Time) -> Result<(), DriveError> {
        let (mut transmits, mut deliveries) = self.lane.take_batches(std::mem::take(&mut self.spare));
        self.underlay.get_ref().send_patiently(&transmits, |_| false).await;
        self.moderation.note(deliveries.len(), deliveries.byte_len());
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
