//! What the host's surroundings mean: where the router lets others in, and where nobody is to be sought.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Control;
use super::inward::Inward;
use crate::datapath::Path;
use crate::seam::NetworkRoute;
use crate::time::Time;

impl Control {
    /// Other addresses lead into an overlay than before: a peer that was reached there is sought elsewhere.
    pub fn handle_routes(&mut self, now: Time, routes: Vec<NetworkRoute>) {
        self.fx.now = now;
        let inward = Inward::new(routes);
        if *self.inward == inward {
            return;
        }
        self.inward = Arc::new(inward);
        for peer in self.peers.values_mut() {
            let is_lost = matches!(peer.paths.current(), Some(Path::Direct(addr)) if self.inward.leads_to(addr.ip()));
            if is_lost {
                peer.on_path_dead(&mut self.fx);
            }
            peer.paths.candidates.set_inward(&self.inward);
        }
    }

    /// The router lets strangers in at another address than before, or at none.
    pub fn handle_mapped(&mut self, now: Time, mapped: Option<SocketAddr>) {
        self.fx.now = now;
        if std::mem::replace(&mut self.mapped, mapped) != mapped {
            self.on_own_addresses();
        }
    }
}
