//! The threads of the further lanes, and lane 0's end of the channels to them.
//!
//! A lane's thread ([`worker`]) never waits for lane 0, which waits for it: orders must not be lost. What a lane
//! hands over and lane 0 is too slow to take is lost and counted. A host that does not give each lane a queue of
//! each TAP and a socket on the same port has one lane, and a line in the log says why.

mod worker;

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::driver::DriveError;
use super::egress::EgressError;
use super::quic::Inbox;
use super::state;
use super::tap::{Queue, TapCounters};
use super::udp::Underlay;
use crate::config::Settings;
use crate::datapath::lane::{Handed, LANES_MAX, Lane, Order, Report};
use crate::node::Node;

/// Orders that may wait for a lane. A full channel makes lane 0 wait for that lane.
const ORDERS: usize = 1024;
/// Of these, packets that came to another lane: beyond, they are lost. Each is of 1 MB at most.
const MAIL: usize = 16;
/// What all lanes together may have handed over and reported, each up to 1 MB of frames.
const NEWS: usize = 64;
/// Without a word of the user's, lanes are for hosts with more cores than guests and softirqs fill by themselves.
const CORES_MIN: usize = 4;
/// And more than so many were never measured.
const LANES_DEFAULT_MAX: usize = 4;

/// How many lanes a host with so many cores gets where the user does not say.
fn default_lanes(cores: usize) -> u8 {
    let lanes = if cores < CORES_MIN { 1 } else { (cores / 2).min(LANES_DEFAULT_MAX) };
    u8::try_from(lanes.min(LANES_MAX)).unwrap_or(1)
}

/// A mere supernode relays, which is lane 0's business.
pub(super) fn wanted(settings: &Settings) -> u8 {
    let by_cores = || default_lanes(std::thread::available_parallelism().map_or(1, usize::from));
    if settings.overlays.is_empty() { 1 } else { settings.lanes.unwrap_or_else(by_cores) }
}

/// The sockets of the lanes from 1 on; none if the kernel gave fewer `queues` or does not share the port.
pub(super) fn spread(
    underlay: &Underlay,
    queues: &[Vec<Queue>],
    wanted: u8,
    restrict: impl Fn(&Underlay) -> Result<(), EgressError>,
) -> Result<Vec<Arc<Underlay>>, EgressError> {
    if wanted == 1 {
        return Ok(Vec::new());
    }
    if queues.iter().any(|queues| queues.len() + 1 != usize::from(wanted)) {
        warn!(
            "one lane: a TAP has one queue only (no offloads, an older kernel, or a lasting device without multi_queue)"
        );
        return Ok(Vec::new());
    }
    match underlay.spread(wanted) {
        Ok(sockets) => {
            sockets.iter().try_for_each(restrict)?;
            info!(lanes = wanted, "threads that carry frames");
            Ok(sockets.into_iter().map(Arc::new).collect())
        }
        Err(error) => {
            warn!(%error, "one lane: this kernel does not share a port between sockets");
            Ok(Vec::new())
        }
    }
}

/// The further lanes, each with its socket and its queue of each TAP.
pub(super) fn man(
    node: &mut Node,
    sockets: Vec<Arc<Underlay>>,
    queues: Vec<Vec<Queue>>,
    inbox: &Arc<Inbox>,
    priority: i32,
) -> io::Result<Vec<Parts>> {
    let mut queues = queues.into_iter().map(Vec::into_iter).collect::<Vec<_>>();
    let lanes = node.split(1 + sockets.len(), state::random()?);
    let parts = lanes.into_iter().zip(sockets).map(|(lane, underlay)| Parts {
        lane,
        underlay,
        queues: queues.iter_mut().filter_map(Iterator::next).collect(),
        inbox: Arc::clone(inbox),
        priority,
    });
    Ok(parts.collect())
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
    mail_lost: u64,
}

impl Crew {
    /// Starts a thread for each.
    pub fn start(lanes: Vec<Parts>) -> io::Result<Self> {
        let (news_in, news) = mpsc::channel(NEWS);
        let taps = vec![Vec::new(); lanes.len()];
        let mut crew =
            Self { orders: Vec::new(), news, threads: Vec::new(), underlays: Vec::new(), taps, mail_lost: 0 };
        for parts in lanes {
            let (orders, ordered) = mpsc::channel(ORDERS);
            crew.orders.push(orders);
            crew.underlays.push(Arc::clone(&parts.underlay));
            let (name, news) = (format!("lane {}", parts.lane.number()), news_in.clone());
            crew.threads.push(thread::Builder::new().name(name).spawn(|| worker::run(parts, ordered, news))?);
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
    pub(super) async fn tell(&mut self, lane: u8, order: Order) -> Result<(), DriveError> {
        let Some(orders) = usize::from(lane).checked_sub(1).and_then(|place| self.orders.get(place)) else {
            return Ok(());
        };
        if matches!(order, Order::Datagrams(_)) && orders.max_capacity() - orders.capacity() >= MAIL {
            self.mail_lost += 1;
            return Ok(());
        }
        orders.send(order).await.map_err(|_ended| DriveError::Lane)
    }

    /// Batches of packets for other lanes that were lost because those were behind.
    pub(super) const fn mail_lost(&self) -> u64 {
        self.mail_lost
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_hosts_have_one_lane_and_large_ones_four() {
        let lanes = [1, 2, 3, 4, 6, 8, 64].map(default_lanes);
        assert_eq!(lanes, [1, 1, 1, 2, 3, 4, 4]);
    }
}
