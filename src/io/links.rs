//! Control links: messages between a node and a supernode, on QUIC or on TLS over TCP.
//!
//! [`Links`] is the loop's side: it obeys [`LinkCommand`]s without blocking and knows which links stand.
//! Each link is a task of the background runtime: [`dial`] chooses its transport, [`quic`] and [`tcp`] carry it. Its
//! events come back through the loop's input channel, marked with the link's generation, so that what an old link
//! still says is not taken for its successor's. A link whose other end does not read is closed when its queue is full.
//!
//! A dialled link may move from one transport to the other while it stands: it is up a second time, the node
//! registers anew, and what the supernode said on the old transport until then still counts.

pub(super) mod dial;
pub(super) mod limits;
pub(super) mod reception;
pub(super) mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Input;
use super::quic::{self, QuicError, Received};
use super::tcp::{self, Streams, Tcp};
use super::udp::Underlay;
use crate::keys::Identity;
use crate::node::{LinkCommand, LinkEvent, LinkId};
use dial::Ways;
use limits::{Backlog, Outgoing};
use reception::Reception;

/// Links a supernode accepts. Each takes about 30 KB.
const ACCEPTED_MAX: usize = 16 * 1024;

/// Which of the links that ever had one [`LinkId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation {
    /// The dial, or the number of an accepted link.
    pub(super) dial: u64,
    /// How often it has changed its transport since.
    pub(super) moves: u32,
}

/// What a link's task tells the loop.
#[derive(Debug)]
pub struct LinkInput {
    event: LinkEvent,
    generation: Generation,
    /// With the first event of a link that the loop does not know, or that has moved: where its messages go.
    outgoing: Option<Outgoing>,
}

/// Speaks for one link to the loop.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) link: LinkId,
    pub(super) generation: Generation,
}

impl Report {
    /// For the same link on another transport.
    fn moved(&self) -> Self {
        let Generation { dial, moves } = self.generation;
        Self { generation: Generation { dial, moves: moves + 1 }, ..self.clone() }
    }

    /// False once the loop has ended.
    pub(super) async fn tell(&self, event: LinkEvent, outgoing: Option<Outgoing>) -> bool {
        let input = LinkInput { event, generation: self.generation, outgoing };
        self.inputs.send(Input::Link(input)).await.is_ok()
    }

    /// It takes a while.
    async fn waiting(&self, reason: String) {
        self.tell(LinkEvent::Waiting { link: self.link, reason }, None).await;
    }

    pub(super) async fn down(&self, reason: String) {
        self.tell(LinkEvent::Down { link: self.link, reason }, None).await;
    }
}

/// A link that stands or is being dialled. Dropping it ends its task.
#[derive(Debug)]
struct Entry {
    generation: Generation,
    outgoing: Outgoing,
    /// Where a dialled one leads.
    target: Option<Arc<dial::Target>>,
}

/// What links are made on.
pub(super) struct Ground<'a> {
    pub(super) background: Handle,
    pub(super) underlay: Arc<Underlay>,
    /// QUIC's datagrams.
    pub(super) received: mpsc::Receiver<Received>,
    pub(super) identity: &'a Identity,
    /// Whether links are accepted.
    pub(super) serve: bool,
    pub(super) inputs: mpsc::Sender<Input>,
}

/// The loop's side of all control links.
#[derive(Debug)]
pub struct Links {
    background: Handle,
    ways: Ways,
    inputs: mpsc::Sender<Input>,
    backlog: Backlog,
    table: BTreeMap<LinkId, Entry>,
    accepted: usize,
    dials: u64,
}

impl Links {
    /// Brings QUIC up on the shared socket, and TLS on the listeners that there are; accepts links if asked to.
    pub(super) fn new(ground: Ground<'_>, tcp: Tcp) -> Result<Self, QuicError> {
        let Ground { background, underlay, received, identity, serve, inputs } = ground;
        let _on_background = background.enter();
        let endpoint = quic::endpoint(underlay, received, identity, serve)?;
        let backlog = Backlog::default();
        let Tcp { dialler, listener } = tcp;
        if serve {
            let reception = Reception::new(inputs.clone(), backlog.clone());
            background.spawn(quic::accept_all(endpoint.clone(), reception.clone()));
            if let Some(listener) = listener {
                let acceptor = tcp::Acceptor::new(identity, dialler.streams.clone(), reception)?;
                background.spawn(acceptor.accept_all(listener));
            }
        }
        let ways = Ways { endpoint, tcp: dialler, backlog: backlog.clone() };
        Ok(Self { background, ways, inputs, backlog, table: BTreeMap::new(), accepted: 0, dials: 0 })
    }

    /// Does what the node says. Never blocks. Answers with what the node must hear at once.
    pub fn obey(&mut self, command: LinkCommand) -> Option<LinkEvent> {
        match command {
            LinkCommand::Dial { link, address, pin, known } => {
                self.dials += 1;
                let generation = Generation { dial: self.dials, moves: 0 };
                let (outgoing, messages) = self.backlog.queue();
                let target = Arc::new(dial::Target { address, pin, known });
                self.insert(link, Entry { generation, outgoing, target: Some(Arc::clone(&target)) });
                let report = Report { inputs: self.inputs.clone(), link, generation };
                self.background.spawn(dial::dial(self.ways.clone(), target, messages, report));
                None
            }
            LinkCommand::Detour { link } => {
                let Entry { generation, target, .. } = self.table.get(&link)?;
                let report = Report { inputs: self.inputs.clone(), link, generation: *generation };
                self.background.spawn(dial::detour(self.ways.clone(), Arc::clone(target.as_ref()?), report));
                None
            }
            LinkCommand::Send { link, message } => {
                let full = !self.table.get(&link)?.outgoing.send(message);
                full.then(|| {
                    self.remove(link);
                    LinkEvent::Down { link, reason: "the other end does not keep up with its messages".into() }
                })
            }
            LinkCommand::Close { link } => {
                self.remove(link);
                None
            }
        }
    }

    /// What of `input` the node should hear: nothing of a link that was closed or dialled anew since.
    pub fn admit(&mut self, input: LinkInput) -> Option<LinkEvent> {
        let LinkInput { event, generation, outgoing } = input;
        let (LinkEvent::Up { link, .. }
        | LinkEvent::Message { link, .. }
        | LinkEvent::Waiting { link, .. }
        | LinkEvent::Down { link, .. }) = event;
        if let Some(outgoing) = outgoing {
            let target = match link {
                LinkId::Accepted(_) if self.accepted >= ACCEPTED_MAX => return None,
                LinkId::Accepted(_) => None,
                LinkId::Dialled(_) => {
                    let before = self.table.get(&link).filter(|before| before.generation.dial == generation.dial)?;
                    before.target.clone()
                }
            };
            self.insert(link, Entry { generation, outgoing, target });
        }
        let now = self.table.get(&link)?.generation;
        let is_before = now.dial == generation.dial && now.moves > generation.moves;
        if is_before && matches!(event, LinkEvent::Message { .. }) {
            return Some(event);
        }
        if now != generation {
            return None;
        }
        if matches!(event, LinkEvent::Down { .. }) {
            self.remove(link);
        }
        Some(event)
    }

    /// The queues of those on TCP.
    pub(super) const fn streams(&self) -> &Streams {
        &self.ways.tcp.streams
    }

    /// Closes every link after what was sent on it, and gives the packets time to leave.
    pub async fn shut_down(mut self, patience: Duration) {
        self.table.clear();
        let Ways { endpoint, tcp, .. } = self.ways;
        let idle = async { tokio::join!(endpoint.wait_idle(), tcp.streams.wait_idle()) };
        let _timed_out = tokio::time::timeout(patience, idle).await;
    }

    fn insert(&mut self, link: LinkId, entry: Entry) {
        self.remove(link);
        self.table.insert(link, entry);
        self.accepted += usize::from(matches!(link, LinkId::Accepted(_)));
    }

    fn remove(&mut self, link: LinkId) {
        if self.table.remove(&link).is_some() && matches!(link, LinkId::Accepted(_)) {
            self.accepted -= 1;
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
