//! Where links are let in, by whatever transport: each gets a number, and no address takes every place.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::limits::{Backlog, Messages, Origins, Outgoing, Place};
use super::{Generation, Report};
use crate::io::Input;
use crate::node::LinkId;

/// Handshakes under way at a supernode; more are answered later, when the client repeats.
pub(in crate::io) const HANDSHAKES_MAX: usize = 512;
/// Handshakes under way from one address: whoever answers none of ours leaves places to the others.
const HANDSHAKES_PER_ADDRESS: usize = 64;
/// Links from one address: a site's nodes behind one NAT.
const PER_ADDRESS_MAX: usize = 1024;

/// Lets links in.
#[derive(Clone, Debug)]
pub(in crate::io) struct Reception {
    inputs: mpsc::Sender<Input>,
    backlog: Backlog,
    handshakes: Arc<Semaphore>,
    links: Origins,
    newcomers: Origins,
    next: Arc<AtomicU64>,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum Full {
    /// Too many shake hands.
    Now,
    /// Its address has all the links it may have.
    ForIt,
}

/// Somebody who was let in.
pub(in crate::io) struct Guest {
    /// To be dropped when it has shown that it means it.
    pub(in crate::io) handshake: (OwnedSemaphorePermit, Place),
    /// To be kept as long as the link.
    pub(in crate::io) place: Place,
    /// Speaks for the link.
    pub(in crate::io) report: Report,
    /// The link's queue.
    pub(in crate::io) queue: (Outgoing, Messages),
}

impl Reception {
    pub(in crate::io) fn new(inputs: mpsc::Sender<Input>, backlog: Backlog) -> Self {
        Self {
            inputs,
            backlog,
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            links: Origins::new(PER_ADDRESS_MAX),
            newcomers: Origins::new(HANDSHAKES_PER_ADDRESS),
            next: Arc::default(),
        }
    }

    /// Somebody knocks from this address.
    pub(in crate::io) fn let_in(&self, from: IpAddr) -> Result<Guest, Full> {
        let permit = Arc::clone(&self.handshakes).try_acquire_owned().map_err(|_| Full::Now)?;
        let newcomer = self.newcomers.enter(from).ok_or(Full::Now)?;
        let place = self.links.enter(from).ok_or(Full::ForIt)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let generation = Generation { dial: number, moves: 0 };
        let report = Report { inputs: self.inputs.clone(), link: LinkId::Accepted(number), generation };
        Ok(Guest { handshake: (permit, newcomer), place, report, queue: self.backlog.queue() })
    }
}
