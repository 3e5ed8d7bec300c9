//! The supernode's ear for OBSERVE: its underlay socket, a second one, and a third that only speaks.
//!
//! Runs on the background runtime, so that strangers' questions never wait in the loop; what it says is
//! [`Reflector`]'s. The third socket sends the answers that shall come from a port nobody sent to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use quinn::udp::{RecvMeta, Transmit};
use tokio::io::Interest;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::udp::{Listen, UdpError, Underlay};
use super::{clock, quic, watch};
use crate::control::reflect::Reflector;
use crate::datapath::buf::Datagrams;

/// Questions that may wait; more are dropped, and their askers ask again.
const QUEUE: usize = 256;

/// A question, and which socket it came to.
#[derive(Debug)]
pub(in crate::io) struct Question {
    socket: usize,
    from: SocketAddr,
    /// Our address that was asked, for the answer to come from.
    at: Option<IpAddr>,
    bytes: Vec<u8>,
}

/// Where a socket puts the questions that come to it.
#[derive(Debug)]
pub(in crate::io) struct Questions {
    socket: usize,
    queue: mpsc::Sender<Question>,
}

impl Questions {
    /// Takes one, or drops it.
    pub(in crate::io) fn push(&self, datagram: &[u8], from: SocketAddr, meta: &RecvMeta) {
        let question = Question { socket: self.socket, from, at: meta.dst_ip, bytes: datagram.to_vec() };
        let _full = self.queue.try_send(question);
    }
}

/// Answers questions from now on. `places` are the further sockets to listen on; the next port if nothing was
/// said, and then it is no misfortune if somebody else has it. Must be called on the background runtime.
pub fn start(underlay: &Arc<Underlay>, places: Option<&[SocketAddr]>) -> Result<(), UdpError> {
    let (queue, questions) = mpsc::channel(QUEUE);
    let mut sockets = vec![Arc::clone(underlay)];
    let local = super::udp::canonical(underlay.local());
    match places {
        Some(places) => {
            for place in places {
                sockets.push(Arc::new(Underlay::bind(Listen::At(*place))?));
            }
        }
        None => match underlay.port().checked_add(1).map(|port| Underlay::bind(Listen::At(at(local, port)))) {
            Some(Ok(socket)) => sockets.push(Arc::new(socket)),
            Some(Err(error)) => warn!(%error, "nodes cannot learn from this supernode how their NAT filters"),
            None => {}
        },
    }
    let second = sockets.get(1).map(|socket| super::udp::canonical(socket.local()));
    // A port to speak from, at the second socket's address.
    let speaker = match second {
        Some(second) => Some(Underlay::bind(Listen::At(at(second, 0)))?),
        None => None,
    };
    let other = second.filter(|_| speaker.is_some());
    let told = other.map(|other| if other.ip() == local.ip() { at(nowhere(other), other.port()) } else { other });
    for (socket, underlay) in sockets.iter().enumerate() {
        underlay.listen_for_questions(Questions { socket, queue: queue.clone() });
    }
    for socket in sockets.iter().skip(1) {
        tokio::spawn(read(Arc::clone(socket)));
    }
    tokio::spawn(answer(Reflector::new(told), questions, sockets, speaker));
    Ok(())
}

const fn at(address: SocketAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.ip(), port)
}

/// "At the address that you asked."
fn nowhere(like: SocketAddr) -> SocketAddr {
    let ip: IpAddr = if like.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    SocketAddr::new(ip, 0)
}

/// Reads a socket that gets nothing but questions.
pub(in crate::io) async fn read(socket: Arc<Underlay>) {
    let (nobody, _) = quic::inbox();
    let mut datagrams = Datagrams::default();
    let watched = match watch(Arc::clone(&socket), Interest::READABLE) {
        Ok(watched) => watched,
        Err(error) => return warn!(%error, "the second port is deaf"),
    };
    while let Ok(mut readable) = watched.readable().await {
        datagrams.clear();
        match socket.receive(&mut datagrams, &nobody) {
            Ok(true) => {}
            Ok(false) => readable.clear_ready(),
            Err(error) => return warn!(%error, "the second port is deaf from now on"),
        }
    }
}

async fn answer(
    mut reflector: Reflector,
    mut questions: mpsc::Receiver<Question>,
    sockets: Vec<Arc<Underlay>>,
    speaker: Option<Underlay>,
) {
    while let Some(Question { socket, from, at, bytes }) = questions.recv().await {
        let Some(answer) = reflector.answer(clock::now(), from, &bytes) else { continue };
        let by = if answer.elsewhere { speaker.as_ref() } else { sockets.get(socket).map(Arc::as_ref) };
        let Some(by) = by else { continue };
        let is_anywhere = by.local().ip().to_canonical().is_unspecified();
        let transmit = Transmit {
            destination: by.kernel_form(from),
            ecn: None,
            contents: &answer.bytes,
            segment_size: None,
            src_ip: at.filter(|_| is_anywhere),
        };
        if let Err(error) = by.send_raw(&transmit) {
            debug!(%error, %from, "an answer was not sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::observe::{Observe, Observed};
    use std::net::UdpSocket;
    use std::time::Duration;

    /// Asks at `at`; the answer and the port it came from.
    fn ask(socket: &UdpSocket, at: SocketAddr, elsewhere: bool) -> Option<(Observed, SocketAddr)> {
        socket.send_to(&Observe { token: 9, elsewhere }.bytes(), at).expect("sent");
        let mut room = [0; 100];
        let (len, from) = socket.recv_from(&mut room).ok()?;
        Some((Observed::parse(&room[..len]).expect("an answer"), from))
    }

    #[test]
    fn three_ports_answer_as_they_are_asked() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
        let _on = runtime.enter();
        let any = "127.0.0.1:0".parse().expect("address");
        let underlay = Arc::new(Underlay::bind(Listen::At(any)).expect("socket"));
        start(&underlay, Some(&[any])).expect("started");
        runtime.spawn(read(Arc::clone(&underlay)));
        let socket = UdpSocket::bind(any).expect("socket");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        let home = underlay.local();

        let (here, from) = ask(&socket, home, false).expect("an answer");
        assert_eq!((here.seen, from), (socket.local_addr().expect("address"), home));
        let second = here.other_of(home).expect("a second port");
        let (there, from) = ask(&socket, second, false).expect("an answer");
        assert_eq!((there.seen, from), (here.seen, second));
        let (strange, from) = ask(&socket, home, true).expect("an answer");
        assert!(strange.elsewhere && from != home && from != second, "{from}");
    }
}
