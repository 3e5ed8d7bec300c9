//! Hosts without an internet between them: cabled straight to each other, for measurements.
//!
//! A router on the way costs both sides of a comparison the same and so hides a part of the
//! difference; here there is none.

use std::net::Ipv4Addr;

use super::emulator::{Emulator, Impairment};
use super::topology::wire;
use super::{Host, Lab, Space, fail};

/// One end of a cable: the host, the name of its interface, its address there with the prefix.
pub type End<'h> = (&'h Host, &'h str, &'h str);

impl Lab {
    /// A host without any interface yet; `address` is the one that others reach it by.
    pub fn lone_host(&self, name: &str, address: Ipv4Addr) -> Host {
        let space = Space::new(&self.shared, name);
        Host { name: name.to_owned(), space, address, second: None, uplink: "eth0" }
    }

    /// A cable between two hosts. An end with an empty address gets none.
    pub fn cable(&self, one: End<'_>, other: End<'_>) {
        wire(&one.0.space, one.1, &other.0.space, other.1);
        for end in [one, other] {
            number(end);
        }
    }

    /// A cable that passes the emulator, which sees one packet at a time and never a superframe.
    pub fn emulated_cable(&self, one: End<'_>, other: End<'_>, impairment: Impairment) {
        let between = Space::new(&self.shared, &format!("{}-{}", one.0.name, other.0.name));
        for (end, inside) in [(one, "one"), (other, "other")] {
            wire(&end.0.space, end.1, &between, inside);
            end.0.space.ip(&format!("link set {} gso_max_segs 1", end.1));
            number(end);
        }
        Emulator::start(&self.shared, &between, ["one", "other"], impairment);
    }
}

fn number((host, interface, address): End<'_>) {
    if !address.is_empty() {
        host.space.ip(&format!("addr add {address} dev {interface}"));
    }
}

/// Switches offloads of an interface: pairs of a name that `ethtool -K` knows and on or off.
#[track_caller]
pub fn set_features(space: &Space, interface: &str, features: &[(&str, bool)]) {
    let states = features.iter().flat_map(|(name, on)| [*name, if *on { "on" } else { "off" }]);
    let words = ["ethtool", "-K", interface].into_iter().chain(states).collect::<Vec<_>>();
    let output = space.run(&words);
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        fail(format_args!("{}: {} (apt-get install ethtool)", words.join(" "), why.trim()));
    }
}
