//! How a supernode answers those who dial it as a node does: by QUIC, by TLS on its TCP port, and with which key.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use quinn::Endpoint;
use serde::Serialize;
use tokio::time::timeout;

use crate::config::{ProxySettings, UnderlaySettings};
use crate::io::links::dial::{Target, resolve};
use crate::io::links::tls::wrong_key;
use crate::io::tcp::{Dialler, Proxies, Streams};
use crate::io::{quic, tcp};
use crate::keys::Fingerprint;
use crate::node::SupernodeSettings;

/// Who asks is a person: what takes longer is no answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// One supernode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Supernode {
    /// As it was named, without a key.
    pub address: String,
    /// Whether it answers by UDP.
    pub udp: bool,
    /// Its TCP port; 0 if it has none.
    pub tcp_port: u16,
    /// Whether it answers there.
    pub tcp: bool,
    /// Why it does not, in words.
    pub tcp_trouble: Option<String>,
    /// The key that it shows.
    pub fingerprint: Option<String>,
    /// Whether that is the one that was expected; `null` if none was.
    pub is_expected: Option<bool>,
    /// What is wrong, in sentences.
    pub wrong: Vec<String>,
}

/// Whom to dial. Any key is taken, so that another one than expected can be told.
pub(super) fn target(named: &SupernodeSettings) -> Target {
    Target { address: named.address.clone(), pin: None, known: None }
}

/// Dials all at once.
pub(super) async fn dial_all(named: &[SupernodeSettings]) -> io::Result<Vec<Supernode>> {
    let socket =
        UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    let endpoint = quic::dialling(socket)?;
    let proxies = Proxies::new(&ProxySettings::default());
    let dialler = Dialler { streams: Streams::default(), proxies, underlay: Arc::new(UnderlaySettings::default()) };
    Ok(join_all(named.iter().map(|one| dial(&endpoint, &dialler, one))).await)
}

async fn dial(endpoint: &Endpoint, dialler: &Dialler, named: &SupernodeSettings) -> Supernode {
    let target = target(named);
    let (place, (_, tcp_port)) = target.places();
    let (found, by_udp, by_tcp) = tokio::join!(
        timeout(PATIENCE, resolve(place, None)),
        timeout(PATIENCE, quic::connect(endpoint, &target)),
        timeout(PATIENCE, dialler.connect(&target))
    );
    let found = found.unwrap_or_else(|_elapsed| Err(format!("no name server answers about {place}")));
    let by_udp = by_udp.ok().and_then(Result::ok);
    let by_tcp = by_tcp.unwrap_or_else(|_elapsed| Err(format!("TCP {tcp_port}: no answer")));
    let shown = [
        by_udp.as_ref().and_then(quic::Established::fingerprint),
        by_tcp.as_ref().ok().and_then(tcp::Established::fingerprint),
    ];
    let mut wrong = Vec::new();
    if let Err(why) = found {
        wrong.push(format!("its name leads nowhere: {why}"));
    }
    wrong.extend(wrong_keys(named, shown));
    let key = shown.into_iter().flatten().next();
    Supernode {
        address: named.address.clone(),
        udp: by_udp.is_some(),
        tcp_port,
        tcp: by_tcp.is_ok(),
        tcp_trouble: by_tcp.err(),
        fingerprint: key.map(|key| key.to_string()),
        is_expected: named.pin.zip(key).map(|(pin, _)| shown.into_iter().flatten().all(|key| key == pin)),
        wrong,
    }
}

/// What is wrong with the keys that it shows by UDP and by TCP.
fn wrong_keys(named: &SupernodeSettings, shown: [Option<Fingerprint>; 2]) -> Option<String> {
    match (named.pin, shown) {
        (Some(pin), _) => {
            let other = shown.into_iter().flatten().find(|shown| *shown != pin)?;
            Some(wrong_key(&named.address, pin, other))
        }
        (None, [Some(by_udp), Some(by_tcp)]) if by_udp != by_tcp => Some(format!(
            "{} shows the key {by_udp} by UDP and {by_tcp} by TCP: somebody stands in between",
            named.address
        )),
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_not_expected_or_differs_between_transports_is_told() {
        let key = |byte: u8| Some(Fingerprint([byte; 32]));
        let says = |pin, shown| wrong_keys(&SupernodeSettings { address: "sn:7777".into(), pin }, shown);
        assert_eq!(says(key(1), [key(1), key(1)]), None);
        assert_eq!(says(key(1), [None, None]), None);
        assert!(says(key(1), [key(1), key(2)]).is_some_and(|why| why.contains("expected was")));
        assert_eq!(says(None, [key(1), key(1)]), None);
        assert!(says(None, [key(1), key(2)]).is_some_and(|why| why.ends_with("somebody stands in between")));
    }
}
