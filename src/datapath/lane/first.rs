//! What lane 0 does for the others: takes their rest, teaches, passes orders on, adds their reports up.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::net::{IpAddr, SocketAddr};

use super::{Handed, Known, Order, Report, Role, owner};
use crate::datapath::buf::{Datagrams, Origin, OverlayIndex};
use crate::datapath::fdb::{PortId, TAP};
use crate::datapath::frame::{Header, Mac};
use crate::datapath::{Command, Datapath, Notice};
use crate::time::Time;

/// What lane 0 has for the others.
pub(in crate::datapath) struct First {
    pub(super) lanes: u8,
    orders: VecDeque<(u8, Order)>,
    /// Packets that came here and are for another, by its number; no more than one wakeup receives.
    mail: Vec<Datagrams>,
}

/// What is taught, each address once.
type Lesson = BTreeMap<(OverlayIndex, u16, Mac), (PortId, Time)>;

impl First {
    pub(super) fn new(lanes: u8) -> Self {
        Self { lanes, orders: VecDeque::new(), mail: (0..lanes).map(|_| Datagrams::default()).collect() }
    }

    pub(super) fn is_anothers(&mut self, origin: Origin, datagram: &[u8]) -> bool {
        match owner(datagram, self.lanes) {
            None | Some(0) => false,
            Some(other) => {
                self.mail[usize::from(other)].push(datagram, origin);
                true
            }
        }
    }

    fn tell_all(&mut self, order: impl Fn() -> Order) {
        self.orders.extend((1..self.lanes).map(|lane| (lane, order())));
    }

    /// An order of the control room's, if it concerns all lanes.
    pub(in crate::datapath) fn pass_on(&mut self, command: &Command) {
        match command {
            Command::OpenPort { .. }
            | Command::ClosePort { .. }
            | Command::Install { .. }
            | Command::UsePath { .. }
            | Command::SetLimit { .. }
            | Command::KeepSources { .. }
            | Command::SetGate { .. }
            | Command::SetRules { .. }
            | Command::SetReserve { .. }
            | Command::SetMarking { .. }
            | Command::LapseKeys { .. }
            | Command::Silence { .. } => self.tell_all(|| Order::Command(command.clone())),
            Command::CountDrop { .. }
            | Command::SendSession { .. }
            | Command::SendSized { .. }
            | Command::SendPlain { .. }
            | Command::SetAsleep { .. }
            | Command::SetAbilities { .. }
            | Command::SetSite { .. }
            | Command::ClaimAgain { .. }
            | Command::AskAgain { .. }
            | Command::TellAll { .. }
            | Command::Tend { .. }
            | Command::Excerpt { .. }
            | Command::Believe { .. }
            | Command::Locate { .. }
            | Command::Deliver { .. }
            | Command::SetWays { .. }
            | Command::Release
            | Command::SetShare { .. }
            | Command::Measure { .. }
            | Command::Tally { .. }
            | Command::Watch { .. }
            | Command::SetLeg { .. }
            | Command::DropLeg { .. }
            | Command::MoveLeg { .. }
            | Command::MeasureLeg { .. }
            | Command::SetChannel { .. }
            | Command::MoveChannel { .. }
            | Command::DropChannel { .. } => {}
        }
    }

    /// Packets to a peer leave from another address.
    pub(in crate::datapath) fn pass_source_on(&mut self, port: PortId, peer: SocketAddr, own: IpAddr) {
        self.tell_all(|| Order::Source { port, peer, own });
    }

    /// Keys that waited are the present ones.
    pub(in crate::datapath) fn pass_promotion_on(&mut self, port: PortId, index: u32) {
        self.tell_all(|| Order::Promote { port, index });
    }
}

impl Datapath {
    /// What the other lanes are to be told, by their numbers.
    pub fn take_orders(&mut self) -> VecDeque<(u8, Order)> {
        let Role::First(first) = &mut self.role else { return VecDeque::new() };
        for (overlay, switch) in self.switches.iter_mut().enumerate() {
            for (vlan, mac) in switch.fdb.take_changes() {
                first.tell_all(|| Order::Forget { overlay: OverlayIndex(overlay), vlan, mac });
            }
        }
        for lane in 1..first.lanes {
            let mail = &mut first.mail[usize::from(lane)];
            if !mail.is_empty() {
                first.orders.push_back((lane, Order::Datagrams(mem::take(mail))));
            }
        }
        mem::take(&mut first.orders)
    }

    /// Does what another lane handed over; what that lane may do itself from now on.
    pub fn handle_handed(&mut self, now: Time, mut handed: Handed) -> Vec<Known> {
        let mut lesson = Lesson::new();
        for (overlay, frames) in handed.frames.iter().enumerate() {
            let overlay = OverlayIndex(overlay);
            self.handle_frames(now, overlay, frames);
            frames.iter().for_each(|(frame, _)| self.teach(now, (overlay, TAP), frame, &mut lesson));
        }
        self.handle_datagrams(now, &mut handed.datagrams);
        for (frame, opened) in handed.opened.iter() {
            self.deliver(now, opened.from, (opened.kind, opened.checksum), frame);
            self.teach(now, opened.from, frame, &mut lesson);
        }
        self.joining.close(&mut self.deliveries);
        let known = |((overlay, vlan, mac), (port, heard))| Known { overlay, vlan, mac, port, heard };
        lesson.into_iter().map(known).collect()
    }

    /// The addresses of a frame that came in by `from`, if frames like it are plain from now on.
    fn teach(&self, now: Time, from: (OverlayIndex, PortId), frame: &[u8], lesson: &mut Lesson) {
        let Some(header) = Header::parse(frame) else { return };
        let find = |mac: Mac| self.switches[from.0.0].fdb.find(now, header.vlan, mac);
        let Some(source) = find(header.src).filter(|(port, _)| *port == from.1) else { return };
        let destination = if header.dst.is_group() { None } else { find(header.dst) };
        let is_plain = match destination {
            Some((port, _)) if from.1 == TAP => {
                port == TAP || self.ports.get(&port).is_some_and(|port| port.is_fast(now))
            }
            // What is for elsewhere is sent on, or not: that is never plain.
            Some((port, _)) => port == TAP,
            None => false,
        };
        if is_plain {
            lesson.insert((from.0, header.vlan, header.src), source);
            lesson.extend(destination.map(|found| ((from.0, header.vlan, header.dst), found)));
        }
    }

    /// What another lane did.
    pub fn handle_report(&mut self, now: Time, report: Report) {
        let Report { ports, seen, confirmed, notices, stats, node_stats, machines } = report;
        for (id, activity) in ports {
            let Some(port) = self.ports.get_mut(&id) else { continue };
            if port.add(&activity) {
                self.notices.push_back(Notice::Active { port: id });
            }
            if port.note_busy() {
                self.notices.push_back(Notice::Busy { overlay: port.overlay });
            }
            if activity.used.is_some() && mem::take(&mut port.tells_use) {
                self.notices.push_back(Notice::Used { port: id });
            }
        }
        for Known { overlay, vlan, mac, port, heard } in seen {
            let fdb = &mut self.switches[overlay.0].fdb;
            if fdb.lookup(heard, vlan, mac) == Some(port) {
                fdb.learn(heard, vlan, mac, port, false);
            }
        }
        for (overlay, counted) in machines {
            self.switches[overlay.0].pairs.add(&counted);
        }
        self.notices.extend(notices);
        for (port, index, path) in confirmed {
            self.confirm(now, port, index, path);
        }
        self.stats.iter_mut().zip(&stats).for_each(|(sum, more)| sum.add(more));
        self.node_stats.add(&node_stats);
    }
}
