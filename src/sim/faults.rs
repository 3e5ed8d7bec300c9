//! What goes wrong: processes die, machines sleep, addresses change, translators reboot, ways are cut.

use std::time::Duration;

use std::net::IpAddr;

use super::pipe::Conditions;
use super::underlay::{HostId, SiteId};
use super::world::World;

impl World {
    /// Kills the node of `host` without a word (`kill -9`, or the power).
    pub fn kill(&mut self, host: HostId) {
        self.note(b'k', host, &[]);
        self.links.forget(host);
        self.hosts[host.0].end();
    }

    /// Kills the node of `host`, if it runs, and starts it again from what it remembered.
    pub fn restart(&mut self, host: HostId) {
        self.kill(host);
        self.start(host);
    }

    /// Sets the calendar of `host` back; its node reads it at its next start.
    pub fn set_clock_back(&mut self, host: HostId, span: Duration) {
        self.hosts[host.0].clock_behind += span;
    }

    /// Lets `host` leave cleanly: it tells the others, then it is gone.
    pub fn leave(&mut self, host: HostId) {
        self.feed(host, |node, now| node.handle_leave(now));
        self.kill(host);
    }

    /// Suspends `host`: it hears nothing and does nothing, while time goes on.
    pub fn suspend(&mut self, host: HostId) {
        self.note(b'z', host, &[]);
        let host = &mut self.hosts[host.0];
        host.asleep = host.alive;
        host.datagrams.clear();
        host.frames.clear();
        host.reading = false;
    }

    /// Wakes `host` up; what was due is late.
    pub fn resume(&mut self, id: HostId) {
        if !self.hosts[id.0].asleep {
            return;
        }
        self.note(b'w', id, &[]);
        self.hosts[id.0].asleep = false;
        if self.hosts[id.0].deadline <= self.now {
            self.time_out(id);
        } else {
            self.rearm(id);
        }
        self.tell_addresses(id);
    }

    /// The kernel tells of the host's addresses, as they are now.
    fn tell_addresses(&mut self, id: HostId) {
        let (port, addresses) = (self.hosts[id.0].spec.port, self.hosts[id.0].addresses.clone());
        self.feed(id, |node, now| node.handle_addresses(now, port, addresses));
    }

    /// Tells the node of `host` that it was restored from a snapshot.
    pub fn restore(&mut self, id: HostId) {
        let wall = self.wall_at(id);
        let seed = self.dice.bytes();
        self.feed(id, |node, now| node.handle_resumed(now, wall, seed));
    }

    /// A member lies: it names these addresses and this port as its own, while it stays where it is.
    pub fn claim(&mut self, id: HostId, port: u16, addresses: Vec<IpAddr>) {
        self.feed(id, |node, now| node.handle_addresses(now, port, addresses));
    }

    /// Takes `host` to `site`: new addresses, and the old ones are nobody's.
    pub fn migrate(&mut self, id: HostId, site: SiteId) {
        let old = self.hosts[id.0].spec.site;
        for address in std::mem::take(&mut self.hosts[id.0].addresses) {
            self.underlay.detach(old, address);
        }
        self.hosts[id.0].spec.site = site;
        self.settle_in(id);
        if !self.hosts[id.0].asleep {
            self.tell_addresses(id);
        }
    }

    /// Reboots a site's translator; with `readdress` it gets another outside address.
    pub fn flush_nat(&mut self, site: SiteId, readdress: bool) {
        self.underlay.flush(site, readdress);
    }

    /// Joins the segments behind two hosts by a cable, past their TAPs: a loop. It has to be over after `patience`.
    pub fn cable(&mut self, a: HostId, b: HostId, patience: Duration) {
        self.cables.push((a, b));
        self.laws.be_lenient(self.now + patience);
    }

    /// Pulls every cable.
    pub fn uncable(&mut self) {
        self.cables.clear();
    }

    /// Packets from `from` to `to` vanish from now on.
    pub fn cut(&mut self, from: SiteId, to: SiteId) {
        self.underlay.cut(from, to);
    }

    /// Undoes a [`World::cut`].
    pub fn mend(&mut self, from: SiteId, to: SiteId) {
        self.underlay.mend(from, to);
    }

    /// Packets from `from` to `to` take so much longer from now on.
    pub fn lengthen(&mut self, from: SiteId, to: SiteId, by: Duration) {
        self.underlay.lengthen(from, to, by);
    }

    /// Changes what a site's access link does, both ways, until [`World::calm`].
    pub fn worsen(&mut self, site: SiteId, change: impl Fn(&mut Conditions)) {
        self.underlay.conditions(site).into_iter().for_each(change);
    }

    /// A site's access link is as it was built.
    pub fn repair(&mut self, site: SiteId) {
        let conditions = self.sites[site.0].conditions;
        self.worsen(site, |now| *now = conditions);
    }

    /// Ends every fault: ways are mended, links are as they were built, sleepers wake. The dead stay dead.
    pub fn calm(&mut self) {
        self.underlay.mend_all();
        (0..self.sites.len()).for_each(|site| self.repair(SiteId(site)));
        self.links.stalled.clear();
        (0..self.hosts.len()).for_each(|host| self.resume(HostId(host)));
    }
}
