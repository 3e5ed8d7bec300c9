//! How packets leave the underlay socket: by one interface only, with a mark for the host's routing rules.

use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;
use socket2::SockRef;
use thiserror::Error;

use crate::config::{BindText, UnderlaySettings};

/// Why the socket is not as the config wants it.
#[derive(Debug, Error)]
pub enum EgressError {
    /// No such interface.
    #[error("`bind` names {0}: this host has no such interface")]
    NoInterface(String),
    /// Not allowed to.
    #[error("`{0}` needs {1}: run as root, or give the service that capability")]
    NotAllowed(&'static str, &'static str),
    /// All else.
    #[error("`{0}`: {1}")]
    Other(&'static str, #[source] io::Error),
}

/// Sets the mark, and ties the socket to the interface if `bind` is one interface and nothing else. A node
/// that talks to itself (a supernode that is a member) is not tied: that goes by the loopback.
pub fn restrict(socket: &impl AsFd, settings: &UnderlaySettings, talks_to_itself: bool) -> Result<(), EgressError> {
    let socket = SockRef::from(socket);
    if let Some(mark) = settings.fwmark {
        socket.set_mark(mark).map_err(|error| explain("fwmark", "CAP_NET_ADMIN", error))?;
    }
    if let ([BindText::Interface(name)], false) = (&settings.bind[..], talks_to_itself) {
        socket.bind_device(Some(name.as_bytes())).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NODEV) => EgressError::NoInterface(name.clone()),
            _ => explain("bind", "CAP_NET_RAW", error),
        })?;
    }
    Ok(())
}

fn explain(key: &'static str, capability: &'static str, error: io::Error) -> EgressError {
    match Errno::from_io_error(&error) {
        Some(Errno::PERM | Errno::ACCESS) => EgressError::NotAllowed(key, capability),
        _ => EgressError::Other(key, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let bind = vec![BindText::Interface("lwedge-none".into())];
        let settings = UnderlaySettings { bind, ..UnderlaySettings::default() };
        let says = restrict(&socket, &settings, false).expect_err("no such interface").to_string();
        assert_eq!(says, "`bind` names lwedge-none: this host has no such interface");
        assert!(restrict(&socket, &settings, true).is_ok(), "a node that talks to itself is not tied");
        assert!(restrict(&socket, &UnderlaySettings::default(), false).is_ok());
    }
}
