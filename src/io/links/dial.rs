//! How a node reaches its supernode: QUIC first, TLS over TCP where UDP does not pass, and back.
//!
//! As RFC 8305 races two families: QUIC has a head start, the first to stand wins. A link that had to take TCP keeps
//! looking for QUIC, and moves to it while it stands.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use quinn::Endpoint;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::Report;
use super::limits::{Backlog, Messages, Outgoing};
use crate::io::{quic, tcp};
use crate::keys::Fingerprint;

/// From the first packet to the first byte on the stream, on any transport.
pub(in crate::io) const HANDSHAKE: Duration = Duration::from_secs(5);
/// QUIC has this long before TCP is tried too: several round trips around the world, and one loss.
const HEAD_START: Duration = Duration::from_millis(1500);
/// A link on TCP tries QUIC again after these times; the last one repeats.
const BACK: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(10), Duration::from_secs(20)];
/// One whose UDP was throttled, after this: it would be throttled again.
const BACK_FROM_DETOUR: [Duration; 1] = [Duration::from_secs(600)];
/// A name is waited for this long if it is known where it was before...
const RESOLVE: Duration = Duration::from_secs(1);
/// ...and so long if not: a resolver asks its second name server 5 s after the first one (resolv.conf(5)).
const RESOLVE_NEW: Duration = Duration::from_secs(8);
/// Name servers that take longer are worth a word.
const SLOW: Duration = Duration::from_millis(1500);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// Between the tries of a name's addresses (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// The TCP port of a supernode that names no other.
pub(in crate::io) const TCP_PORT: u16 = 443;

/// Whom to dial.
#[derive(Clone, Debug)]
pub(in crate::io) struct Target {
    /// `host:port`, or `host:port/tcp-port`.
    pub(in crate::io) address: String,
    /// The only key to accept, if there is one.
    pub(in crate::io) pin: Option<Fingerprint>,
    /// Where it was reached last, by UDP.
    pub(in crate::io) known: Option<SocketAddr>,
}

impl Target {
    /// `host:port` for UDP, `host` and port for TCP.
    pub(in crate::io) fn places(&self) -> (&str, (&str, u16)) {
        let (udp, tcp) = self.address.split_once('/').unwrap_or((&self.address, ""));
        let host = udp.rsplit_once(':').map_or(udp, |(host, _)| host);
        (udp, (host, tcp.parse().unwrap_or(TCP_PORT)))
    }
}

/// Why it was not reached.
#[derive(Debug)]
pub(in crate::io) struct Failure {
    /// In words.
    pub(in crate::io) why: String,
    /// Something came back: this transport passes.
    pub(in crate::io) answered: bool,
}

/// A link that stands, on one of the transports.
enum Established {
    Quic(quic::Established),
    Tcp(tcp::Established),
}

/// By what a node dials.
#[derive(Clone, Debug)]
pub(in crate::io) struct Ways {
    pub(in crate::io) endpoint: Endpoint,
    pub(in crate::io) tcp: tcp::Dialler,
    pub(in crate::io) backlog: Backlog,
}

/// Dials `target` and serves the link until it ends.
pub(super) async fn dial(ways: Ways, target: Arc<Target>, mut messages: Messages, report: Report) {
    let tried = tokio::select! {
        tried = ways.race(&target, &report) => tried,
        // Given up by the node: nothing is sent before the link stands.
        _ = messages.recv() => return,
    };
    match tried {
        Ok(Established::Quic(link)) => quic::serve(link, messages, report, None, &target.address).await,
        Ok(Established::Tcp(link)) => ways.serve_tcp(link, (None, messages), report, (&target, &BACK)).await,
        Err(reason) => report.down(reason).await,
    }
}

/// Moves a link that stands on QUIC to TCP, if that passes.
pub(super) async fn detour(ways: Ways, target: Arc<Target>, report: Report) {
    match ways.tcp.connect(&target).await {
        Ok(link) => {
            let (outgoing, messages) = ways.backlog.queue();
            let queue = (Some(outgoing), messages);
            ways.serve_tcp(link, queue, report.moved(), (&target, &BACK_FROM_DETOUR)).await;
        }
        Err(why) => debug!(supernode = target.address, why, "no way round"),
    }
}

impl Ways {
    /// The first transport to answer.
    async fn race(&self, target: &Target, report: &Report) -> Result<Established, String> {
        // A proxy resolves names itself: by it, no name server of ours is waited for.
        let found = if self.tcp.has_proxy(target) { None } else { Some(look_up(target, report).await?) };
        let known = target.known.or_else(|| found.as_ref()?.first().copied());
        let quic = pin!(async {
            match found {
                Some(found) => quic::connect_to_any(&self.endpoint, target, found).await,
                None => quic::connect(&self.endpoint, target).await,
            }
        });
        let tcp = pin!(async {
            sleep(HEAD_START).await;
            // A name server that was slow is not waited for again.
            self.tcp.connect(&Target { known, ..target.clone() }).await
        });
        match select(quic, tcp).await {
            Either::Left((Ok(link), _)) => Ok(Established::Quic(link)),
            Either::Left((Err(Failure { why, answered: true }), _)) => Err(why),
            Either::Left((Err(Failure { why, .. }), tcp)) => {
                tcp.await.map(Established::Tcp).map_err(|by_tcp| both(&why, &by_tcp))
            }
            Either::Right((Ok(link), _)) => Ok(Established::Tcp(link)),
            Either::Right((Err(by_tcp), quic)) => match quic.await {
                Err(Failure { why, answered: true }) => Err(why),
                Err(Failure { why, .. }) => Err(both(&why, &by_tcp)),
                Ok(link) => Ok(Established::Quic(link)),
            },
        }
    }

    /// Serves a link on TCP, and on QUIC from the moment that this passes.
    async fn serve_tcp(
        &self,
        link: tcp::Established,
        (outgoing, messages): (Option<Outgoing>, Messages),
        report: Report,
        (target, rests): (&Target, &[Duration]),
    ) {
        let mut on_tcp = pin!(tcp::serve(link, messages, report.clone(), outgoing, &target.address));
        let found = tokio::select! {
            () = &mut on_tcp => return,
            found = self.find_quic(target, rests) => found,
        };
        debug!(supernode = target.address, "UDP passes again");
        let (outgoing, messages) = self.backlog.queue();
        // The loop gives the old one up when it hears of the new one.
        tokio::join!(on_tcp, quic::serve(found, messages, report.moved(), Some(outgoing), &target.address));
    }

    /// Tries until it succeeds.
    async fn find_quic(&self, target: &Target, rests: &[Duration]) -> quic::Established {
        let mut number = 0;
        loop {
            sleep(rests[number]).await;
            number = (number + 1).min(rests.len() - 1);
            match quic::connect(&self.endpoint, target).await {
                Ok(found) => return found,
                Err(Failure { why, .. }) => debug!(supernode = target.address, why, "UDP does not pass yet"),
            }
        }
    }
}

/// Both transports failed.
fn both(by_quic: &str, by_tcp: &str) -> String {
    format!("{by_quic}; {by_tcp}")
}

/// Where `target` is by UDP. If its name servers are slow, it is told that they are.
async fn look_up(target: &Target, report: &Report) -> Result<Vec<SocketAddr>, String> {
    let (name, _) = target.places();
    let mut found = pin!(resolve(name, target.known));
    if let Ok(found) = timeout(SLOW, &mut found).await {
        return found;
    }
    report.waiting(format!("no name server has answered yet about {name}")).await;
    found.await
}

/// The addresses of a name, both families in turn, and where it was reached last.
pub(in crate::io) async fn resolve(name: &str, known: Option<SocketAddr>) -> Result<Vec<SocketAddr>, String> {
    let patience = if known.is_some() { RESOLVE } else { RESOLVE_NEW };
    let found = match timeout(patience, tokio::net::lookup_host(name)).await {
        Ok(Ok(found)) => Ok(in_turn(&found.collect::<Vec<_>>())),
        Ok(Err(error)) => Err(format!("{name} cannot be resolved: {error}")),
        Err(_elapsed) => Err(format!("no name server answers about {name}")),
    };
    let Some(known) = known else { return found };
    let mut found = found.unwrap_or_default();
    if !found.contains(&known) {
        // Where the name leads now comes first; there is always room for the place it had.
        found.truncate(ADDRESSES_MAX - 1);
        found.push(known);
    }
    Ok(found)
}

/// Tries every address, each a little after the one before; the first to succeed wins.
pub(in crate::io) async fn first_of<T, F>(
    found: Vec<SocketAddr>,
    attempt: impl Fn(SocketAddr) -> F,
    nowhere: Failure,
) -> Result<T, Failure>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let mut tries = JoinSet::new();
    for (place, to) in found.into_iter().take(ADDRESSES_MAX).enumerate() {
        let head_start = STAGGER * u32::try_from(place).unwrap_or(u32::MAX);
        let attempt = attempt(to);
        tries.spawn(async move {
            sleep(head_start).await;
            attempt.await
        });
    }
    let mut failure = nowhere;
    while let Some(tried) = tries.join_next().await {
        match tried {
            Ok(Ok(established)) => return Ok(established),
            // One that answers tells more than many that do not.
            Ok(Err(other)) if !failure.answered => failure = other,
            Ok(Err(_)) => {}
            Err(aborted) => failure.why = aborted.to_string(),
        }
    }
    Err(failure)
}

/// One of the first address's family, one of the other, and so on (RFC 8305 section 4).
fn in_turn(found: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = found.iter().partition(|to| to.is_ipv6() == first_is_v6);
    let mut list = Vec::new();
    for place in 0..first.len().max(second.len()) {
        list.extend(first.get(place));
        list.extend(second.get(place));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_of_a_name_have_their_turn() {
        let at = |text: &str| text.parse().expect("address");
        let (a, b, c, d) = (at("[2001:db8::1]:1"), at("[2001:db8::2]:1"), at("192.0.2.1:1"), at("192.0.2.2:1"));
        assert_eq!(in_turn(&[a, b, c, d]), [a, c, b, d]);
        assert_eq!(in_turn(&[c, d, a]), [c, a, d]);
        assert_eq!(in_turn(&[]), []);
    }

    #[test]
    fn a_supernode_has_a_place_for_each_transport() {
        let places = |address: &str| {
            let target = Target { address: address.into(), pin: None, known: None };
            let (udp, (host, port)) = target.places();
            (udp.to_owned(), host.to_owned(), port)
        };
        assert_eq!(places("sn.example:7777"), ("sn.example:7777".into(), "sn.example".into(), 443));
        assert_eq!(places("[2001:db8::1]:9/8443"), ("[2001:db8::1]:9".into(), "[2001:db8::1]".into(), 8443));
        assert_eq!(places("192.0.2.1:9/0"), ("192.0.2.1:9".into(), "192.0.2.1".into(), 0));
    }
}
