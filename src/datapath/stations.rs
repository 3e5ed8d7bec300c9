//! The IP addresses of the machines behind our TAP, as they say them themselves in ARP and neighbour discovery.
//!
//! Bounded by [`STATIONS`]; one address of each family per machine, the one heard last.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::fdb::{Address, PER_TAP};

/// Machines remembered: as many as may have an entry behind the TAP.
const STATIONS: usize = PER_TAP;

/// One machine.
#[derive(Clone, Copy, Debug, Default)]
struct Station {
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

/// The machines.
#[derive(Debug, Default)]
pub(super) struct Stations(BTreeMap<Address, Station>);

impl Stations {
    /// The machine at `address` says that `ip` is its own. Without room an arbitrary other one is forgotten.
    pub(super) fn note(&mut self, address: Address, ip: IpAddr) {
        if self.0.len() >= STATIONS && !self.0.contains_key(&address) {
            self.0.pop_first();
        }
        let station = self.0.entry(address).or_default();
        let place = if ip.is_ipv4() { &mut station.v4 } else { &mut station.v6 };
        *place = Some(ip);
    }

    /// The machine that has said that `ip` is its own. Looks at all: for people.
    pub(super) fn find(&self, ip: IpAddr) -> Option<Address> {
        let has = |station: &Station| [station.v4, station.v6].contains(&Some(ip));
        self.0.iter().find(|(_, station)| has(station)).map(|(address, _)| *address)
    }

    /// Where to ask for the machine.
    pub(super) fn addresses(&self, address: Address) -> impl Iterator<Item = IpAddr> + use<> {
        let Station { v4, v6 } = self.0.get(&address).copied().unwrap_or_default();
        [v4, v6].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::frame::Mac;

    #[test]
    fn the_last_address_of_each_family_is_asked_and_the_table_is_bounded() {
        let mut stations = Stations::default();
        let vm = |number: usize| Address { vlan: u16::try_from(number).unwrap_or(0), mac: Mac([2, 0, 0, 0, 0, 1]) };
        for ip in ["10.0.0.1", "10.0.0.2", "fd00::1"] {
            stations.note(vm(1), ip.parse().expect("an address"));
        }
        let known = stations.addresses(vm(1)).map(|ip| ip.to_string()).collect::<Vec<_>>();
        assert_eq!(known, ["10.0.0.2", "fd00::1"]);
        assert_eq!(stations.addresses(vm(2)).count(), 0);
        let find = |ip: &str| stations.find(ip.parse().expect("an address"));
        assert_eq!((find("10.0.0.2"), find("10.0.0.1")), (Some(vm(1)), None));
        (0..2 * STATIONS).for_each(|number| stations.note(vm(number), IpAddr::from([10, 0, 0, 1])));
        assert_eq!(stations.0.len(), STATIONS);
    }
}
