//! Reading a world: who is where, what became of what.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::host::Sending;
use super::pipe::{Conditions, Loss};
use super::tally::Crossings;
use super::traffic::{FrameId, OverlayNo, Sent, Vm, VmId};
use super::underlay::{HostId, SiteId};
use super::world::World;
use crate::keys::{Fingerprint, NodeId, OverlayId};
use crate::node::Event;
use crate::time::Time;

impl World {
    /// How many hosts there are.
    pub fn host_count(&self) -> usize {
        self.hosts.len()
    }

    /// A host's underlay socket, as its LAN sees it.
    pub fn socket(&self, host: HostId) -> SocketAddr {
        let host = &self.hosts[host.0];
        let ip = host.addresses.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        SocketAddr::new(ip, host.spec.port)
    }

    /// What pins `host` as a supernode.
    pub fn fingerprint(&self, host: HostId) -> Fingerprint {
        self.hosts[host.0].identity.fingerprint()
    }

    /// Who `host` is.
    pub fn node_id(&self, host: HostId) -> NodeId {
        self.hosts[host.0].identity.id()
    }

    /// An overlay's public name.
    pub fn overlay_id(&self, overlay: OverlayNo) -> OverlayId {
        self.overlays[overlay.0].secrets.id()
    }

    /// Where `host` is.
    pub fn site_of(&self, host: HostId) -> SiteId {
        self.hosts[host.0].spec.site
    }

    /// What `host` is a member of.
    pub fn overlays_of(&self, host: HostId) -> &[OverlayNo] {
        &self.hosts[host.0].spec.overlays
    }

    /// Whether `host` runs and is not suspended.
    pub fn is_awake(&self, host: HostId) -> bool {
        self.hosts[host.0].is_awake()
    }

    /// Whether `host` is set up as a supernode.
    pub fn serves(&self, host: HostId) -> bool {
        self.hosts[host.0].spec.serve.is_some()
    }

    /// What `host` sent so far.
    pub fn sending(&self, host: HostId) -> Sending {
        self.hosts[host.0].sending
    }

    /// What crossed the underlay socket of `host` so far, by kind.
    pub fn crossings(&self, host: HostId) -> &Crossings {
        &self.hosts[host.0].crossings
    }

    /// What became of a frame.
    pub fn sent(&self, frame: FrameId) -> &Sent {
        &self.traffic.frames[frame.0]
    }

    /// A machine.
    pub fn vm_state(&self, vm: VmId) -> Vm {
        self.traffic.vms[vm.0]
    }

    /// What users would have read so far; in long histories, of late.
    pub fn events(&self) -> &[(Time, HostId, Event)] {
        &self.events
    }

    /// How many packets vanished in the underlay, and why.
    pub const fn losses(&self) -> &BTreeMap<Loss, u64> {
        &self.underlay.losses
    }

    /// How a site is connected.
    pub fn conditions(&self, site: SiteId) -> Conditions {
        self.sites[site.0].conditions
    }

    /// Violations of the laws so far.
    pub fn violations(&self) -> &[String] {
        self.laws.violations()
    }

    /// A fingerprint of everything that has happened.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// How much has happened.
    pub const fn happened(&self) -> u64 {
        self.happened
    }
}
