use super::*;

const PORT: u16 = 7777;

struct Net {
    underlay: Underlay,
    addresses: Vec<(SiteId, IpAddr)>,
}

impl Net {
    fn new() -> Self {
        Self { underlay: Underlay::new(Chance::new(1)), addresses: Vec::new() }
    }

    fn site(&mut self, behaviour: Option<Behaviour>, carrier: Option<SiteId>) -> SiteId {
        self.underlay.add(SiteSpec { behaviour, carrier, ..SiteSpec::default() })
    }

    fn host(&mut self, site: SiteId) -> usize {
        let host = self.addresses.len();
        let address = self.underlay.attach(site, HostId(host), false);
        self.addresses.push((site, address));
        host
    }

    fn socket(&self, host: usize) -> SocketAddr {
        SocketAddr::new(self.addresses[host].1, PORT)
    }

    /// Who gets a packet of `len` bytes, and whom it seems to come from.
    fn send(&mut self, host: usize, to: SocketAddr, hops: u8, len: usize) -> Option<(HostId, SocketAddr)> {
        let (origin, _) = self.addresses[host];
        let mut packet = Packet { from: self.socket(host), to, hops, origin, len, payload: () };
        let (mut now, mut place) = (Time::START, Place::Up(origin));
        let mut steps = Vec::new();
        loop {
            if let Place::Host(host) = place {
                return Some((host, packet.from));
            }
            if self.underlay.carry(now, place, packet, &mut steps).is_some() {
                return None;
            }
            let step = steps.pop().expect("carried on or lost");
            (now, place, packet) = (step.at, step.place, step.packet);
        }
    }
}

#[test]
fn public_hosts_reach_each_other() {
    let mut net = Net::new();
    let [a, b] = [net.site(None, None), net.site(None, None)].map(|site| net.host(site));
    assert_eq!(net.send(a, net.socket(b), 64, 100), Some((HostId(b), net.socket(a))));
    assert_eq!(net.send(a, net.socket(b), 64, 1473), None, "over the MTU");
    assert_eq!(net.send(a, SocketAddr::from(([192, 168, 0, 10], 1)), 64, 100), None, "no such address");
}

#[test]
fn a_host_behind_a_translator_is_seen_with_its_outside_address_and_answered() {
    let mut net = Net::new();
    let [home, open] = [Some(Behaviour::port_restricted()), None].map(|behaviour| net.site(behaviour, None));
    let (a, b) = (net.host(home), net.host(open));
    let (_, seen) = net.send(a, net.socket(b), 64, 100).expect("goes out");
    assert_eq!(seen, SocketAddr::from(([31, 0, 0, 1], PORT)));
    assert_eq!(net.send(b, seen, 64, 100), Some((HostId(a), net.socket(b))));
    assert_eq!(net.underlay.losses, BTreeMap::new());
}

#[test]
fn hosts_of_one_lan_need_no_router() {
    let mut net = Net::new();
    let home = net.site(Some(Behaviour::symmetric()), None);
    let (a, b) = (net.host(home), net.host(home));
    assert_eq!(net.send(a, net.socket(b), 1, 100), Some((HostId(b), net.socket(a))));
}

#[test]
fn a_packet_of_two_hops_passes_its_own_translator_and_dies() {
    let mut net = Net::new();
    let site = || Some(Behaviour::port_restricted());
    let [a, b] = [net.site(site(), None), net.site(site(), None)].map(|site| net.host(site));
    let outside = |net: &Net, host: usize| {
        let (site, _) = net.addresses[host];
        SocketAddr::new(net.underlay.nat(site).expect("built with one").outside(), PORT)
    };
    assert_eq!(net.send(a, outside(&net, b), 2, 100), None);
    assert_eq!(net.underlay.losses, BTreeMap::from([(Loss::Hops, 1)]));
    assert!(net.send(b, outside(&net, a), 64, 100).is_some(), "a's translator was opened");
}

#[test]
fn a_hairpin_is_there_or_not() {
    for hairpin in [false, true] {
        let mut net = Net::new();
        let carrier = net.site(Some(Behaviour { hairpin, ..Behaviour::port_restricted() }), None);
        let home = || Some(Behaviour::nat(super::super::nat::Depends::Nothing, super::super::nat::Depends::Nothing));
        let [a, b] = [net.site(home(), Some(carrier)), net.site(home(), Some(carrier))].map(|site| net.host(site));
        let open = net.site(None, None);
        let server = net.host(open);
        let [seen_a, seen_b] = [a, b].map(|host| net.send(host, net.socket(server), 64, 100).expect("goes out").1);
        assert_ne!(seen_a, seen_b, "one outside address, two ports");
        net.send(b, seen_a, 64, 100);
        assert_eq!(net.send(a, seen_b, 64, 100), hairpin.then_some((HostId(b), seen_a)));
    }
}

#[test]
fn a_cut_is_one_way() {
    let mut net = Net::new();
    let (x, y) = (net.site(None, None), net.site(None, None));
    let (a, b) = (net.host(x), net.host(y));
    net.underlay.cut(x, y);
    assert_eq!(net.send(a, net.socket(b), 64, 100), None);
    assert!(net.send(b, net.socket(a), 64, 100).is_some());
    net.underlay.mend(x, y);
    assert!(net.send(a, net.socket(b), 64, 100).is_some());
}

#[test]
fn a_new_outside_address_takes_the_place_of_the_old_one() {
    let mut net = Net::new();
    let (home, open) = (net.site(Some(Behaviour::port_restricted()), None), net.site(None, None));
    let (a, b) = (net.host(home), net.host(open));
    let (_, before) = net.send(a, net.socket(b), 64, 100).expect("goes out");
    net.underlay.flush(home, true);
    assert_eq!(net.send(b, before, 64, 100), None);
    let (_, after) = net.send(a, net.socket(b), 64, 100).expect("goes out");
    assert_ne!(before.ip(), after.ip());
    assert!(net.send(b, after, 64, 100).is_some());
}

#[test]
fn ipv6_is_routed_through_a_filter() {
    let mut net = Net::new();
    let spec = SiteSpec { behaviour: Some(Behaviour::symmetric()), ipv6: true, ..SiteSpec::default() };
    let sites = [net.underlay.add(spec), net.underlay.add(spec)];
    let [a, b] = [0, 1].map(|host| {
        let address = net.underlay.attach(sites[host], HostId(host), true);
        net.addresses.push((sites[host], address));
        host
    });
    assert_eq!(net.send(a, net.socket(b), 64, 100), None, "b's filter");
    assert_eq!(net.send(b, net.socket(a), 64, 100), Some((HostId(a), net.socket(b))), "a's is open now");
}
