//! HTTP CONNECT (RFC 9110 section 9.3.6): TCP through a proxy, where nothing else leads out.

use std::io;
use std::sync::Arc;

use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::ProxySettings;

/// The longest head of a proxy's answer.
const ANSWER_MAX: usize = 8 * 1024;

/// Which proxy leads to a host.
#[derive(Clone, Debug)]
pub(in crate::io) struct Proxies(Arc<Matcher>);

impl Proxies {
    /// The one that the user names, or those of the environment: https_proxy and no_proxy, as curl reads them.
    pub(in crate::io) fn new(settings: &ProxySettings) -> Self {
        let matcher = match settings {
            ProxySettings::Environment => Matcher::from_env(),
            ProxySettings::None => Matcher::builder().build(),
            ProxySettings::Through(proxy) => Matcher::builder().https(proxy.clone()).build(),
        };
        Self(Arc::new(matcher))
    }

    /// The proxy for this place, if it is reached by one.
    pub(super) fn find(&self, host: &str, port: u16) -> Option<Proxy> {
        let place = format!("https://{host}:{port}").parse().ok()?;
        self.0.intercept(&place).map(Proxy)
    }
}

/// A proxy.
pub(super) struct Proxy(Intercept);

impl Proxy {
    /// `host:port`, if it is of the kind that is understood.
    pub(super) fn place(&self) -> Result<String, String> {
        let uri = self.0.uri();
        match (uri.scheme_str(), uri.host()) {
            (Some("http"), Some(host)) => Ok(format!("{host}:{}", uri.port_u16().unwrap_or(80))),
            _ => Err(format!("the proxy {uri} is of a kind that is not known here: http:// is")),
        }
    }

    /// Has the proxy connect `socket` to `host:port`; a sentence if it will not.
    pub(super) async fn connect(&self, socket: &mut TcpStream, host: &str, port: u16) -> Result<(), String> {
        let silent = |error: io::Error| format!("the proxy ends the connection: {error}");
        socket.write_all(&self.request(host, port)).await.map_err(silent)?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() >= ANSWER_MAX {
                return Err("the proxy's answer is too long".into());
            }
            answer.push(socket.read_u8().await.map_err(silent)?);
        }
        verdict(&answer)
    }

    fn request(&self, host: &str, port: u16) -> Vec<u8> {
        let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
        if let Some(credentials) = self.0.basic_auth() {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(credentials.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        request
    }
}

/// What a proxy's answer means.
fn verdict(answer: &[u8]) -> Result<(), String> {
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line: String = String::from_utf8_lossy(line).chars().filter(|c| !c.is_control()).take(100).collect();
    match line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)) {
        Some(status) if status.len() == 3 && status.starts_with('2') => Ok(()),
        Some("407") => Err("the proxy wants a user and a password: http://USER:PASSWORD@HOST:PORT".into()),
        Some(_) => Err(format!("the proxy refuses: {line}")),
        None => Err(format!("the proxy does not speak HTTP: {line}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_asked_as_the_rfc_says() {
        let through = |proxy: &str| Proxies::new(&ProxySettings::Through(proxy.into()));
        let proxy = through("http://user:secret@proxy.example:3128").find("sn.example", 443).expect("a proxy");
        assert_eq!(proxy.place().as_deref(), Ok("proxy.example:3128"));
        let request = String::from_utf8(proxy.request("sn.example", 443)).expect("text");
        let head = "CONNECT sn.example:443 HTTP/1.1\r\nHost: sn.example:443\r\nProxy-Authorization: Basic ";
        assert!(request.starts_with(head) && request.ends_with("\r\n\r\n"), "{request}");
        let plain = through("http://proxy.example:3128").find("[2001:db8::1]", 443).expect("a proxy");
        let request = String::from_utf8(plain.request("[2001:db8::1]", 443)).expect("text");
        assert_eq!(request, "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n");
        assert!(through("https://proxy.example").find("sn.example", 443).expect("a proxy").place().is_err());
        assert!(Proxies::new(&ProxySettings::None).find("sn.example", 443).is_none());
    }

    #[test]
    fn what_a_proxy_answers_is_understood() {
        assert_eq!(verdict(b"HTTP/1.0 200 Connection established\r\n\r\n"), Ok(()));
        let refused = verdict(b"HTTP/1.1 403 Forbidden\r\nX: y\r\n\r\n").expect_err("refused");
        assert!(refused.contains("403 Forbidden") && !refused.contains('X'), "{refused}");
        assert!(verdict(b"HTTP/1.1 407 Who?\r\n\r\n").expect_err("refused").contains("password"));
        assert!(verdict(b"SSH-2.0-x\r\n\r\n").expect_err("refused").contains("does not speak HTTP"));
    }
}
