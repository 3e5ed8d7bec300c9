use super::*;

const ETH0: u32 = 2;
const BR0: u32 = 3;
const TAP: u32 = 4;
const DOCKER: u32 = 5;
const ETH1: u32 = 6;

fn rules(bind: &[&str], exclude: &[&str]) -> Rules {
    let bind = bind.iter().map(|text| text.parse().expect("an interface or address")).collect();
    let exclude = exclude.iter().map(|&name| name.to_owned()).collect();
    Rules { taps: BTreeSet::from(["lw-lab".to_owned()]), bind, exclude }
}

fn link(index: u32, name: &str, controller: Option<u32>) -> Link {
    let mut link = Link::default();
    (link.index, link.name, link.controller) = (index, name.into(), controller);
    (link.running, link.loopback) = (true, name == "lo");
    link
}

fn links() -> Vec<Link> {
    vec![
        link(1, "lo", None),
        link(ETH0, "eth0", None),
        link(BR0, "br0", None),
        link(TAP, "lw-lab", Some(BR0)),
        link(DOCKER, "docker0", None),
        link(ETH1, "eth1", None),
    ]
}

fn at(index: u32, ip: &str) -> (u32, IpAddr) {
    (index, ip.parse().expect("an address"))
}

fn default_by(link: u32, gateway: &str) -> Route {
    Route { network: Ipv4Addr::UNSPECIFIED.into(), prefix: 0, link, gateway: gateway.parse().ok(), metric: 0 }
}

fn connected(link: u32, network: &str, prefix: u8) -> Route {
    Route { network: network.parse().expect("an address"), prefix, link, gateway: None, metric: 0 }
}

fn texts(surroundings: &Surroundings) -> Vec<String> {
    surroundings.addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn the_bridge_of_an_ordinary_kvm_host_is_its_way_to_the_underlay() {
    let addresses = [at(BR0, "192.168.1.5"), at(DOCKER, "172.17.0.1")];
    for routes in [vec![default_by(BR0, "192.168.1.1")], Vec::new()] {
        let found = survey(&links(), &addresses, &routes, &rules(&[], &[]));
        assert_eq!(texts(&found), ["192.168.1.5"], "{routes:?}");
        assert!(found.routes.is_empty() && found.links[0].index == BR0);
    }
}

#[test]
fn addresses_on_the_bridge_of_an_overlay_are_not_offered_and_nobody_is_sought_there() {
    let addresses = [at(ETH0, "192.168.1.5"), at(BR0, "10.77.0.1"), at(TAP, "10.78.0.1")];
    let routes = [
        default_by(ETH0, "192.168.1.1"),
        connected(ETH0, "192.168.1.0", 24),
        connected(BR0, "10.77.0.0", 16),
        connected(TAP, "10.78.0.0", 16),
        connected(ETH0, "10.77.9.0", 24),
    ];
    let found = survey(&links(), &addresses, &routes, &rules(&[], &[]));
    assert_eq!(texts(&found), ["192.168.1.5"]);
    assert_eq!(found.router, Some(Ipv4Addr::new(192, 168, 1, 1)));
    let told: Vec<_> = found.routes.iter().map(|r| (r.network.to_string(), r.prefix, r.is_inward)).collect();
    let expected = [("10.77.0.0", 16, true), ("10.78.0.0", 16, true), ("10.77.9.0", 24, false)];
    assert_eq!(told, expected.map(|(network, prefix, inward)| (network.to_owned(), prefix, inward)));
    let found = survey(&links(), &addresses, &routes, &rules(&["eth0", "br0"], &[]));
    assert_eq!(texts(&found), ["192.168.1.5", "10.77.0.1"], "what the config names wins");
}

#[test]
fn bridges_behind_the_hosts_own_nat_are_left_out_unless_named() {
    let addresses = [at(ETH0, "192.168.1.5"), at(DOCKER, "172.17.0.1")];
    let routes = [default_by(ETH0, "192.168.1.1")];
    assert_eq!(texts(&survey(&links(), &addresses, &routes, &rules(&[], &[]))), ["192.168.1.5"]);
    let named = rules(&["eth0", "docker0"], &[]);
    assert_eq!(texts(&survey(&links(), &addresses, &routes, &named)), ["192.168.1.5", "172.17.0.1"]);
    for name in ["docker0", "virbr0", "virbr12", "br-0a1b2c3d4e5f", "lxdbr0", "podman1"] {
        assert!(is_nat_bridge(name), "{name}");
    }
    for name in ["br0", "br-lan", "br-lab", "eth0", "br-0a1b2c", "mydocker0"] {
        assert!(!is_nat_bridge(name), "{name}");
    }
}

#[test]
fn the_config_chooses_interfaces_and_addresses() {
    let addresses = [at(ETH0, "192.168.1.5"), at(ETH0, "192.168.1.6"), at(ETH1, "192.0.2.7"), at(ETH1, "fd00::7")];
    let chosen = |bind: &[&str], exclude: &[&str]| texts(&survey(&links(), &addresses, &[], &rules(bind, exclude)));
    assert_eq!(chosen(&["eth1"], &[]), ["192.0.2.7", "fd00::7"]);
    assert_eq!(chosen(&["192.168.1.6", "fd00::7"], &[]), ["192.168.1.6", "fd00::7"]);
    assert_eq!(chosen(&[], &["eth0"]), ["192.0.2.7", "fd00::7"]);
    assert_eq!(chosen(&[], &["eth*"]), Vec::<String>::new());
}

#[test]
fn what_has_the_default_route_comes_first_and_no_link_hides_another() {
    let addresses = [
        at(ETH0, "10.1.0.1"),
        at(ETH1, "192.0.2.7"),
        at(ETH1, "2001:db8::7"),
        at(ETH1, "2001:db8::8"),
        at(ETH1, "2001:db8::9"),
    ];
    let found = survey(&links(), &addresses, &[default_by(ETH1, "192.0.2.1")], &rules(&[], &[]));
    assert_eq!(texts(&found), ["192.0.2.7", "2001:db8::7", "10.1.0.1", "2001:db8::8", "2001:db8::9"]);
}

#[test]
fn a_tap_of_another_daemon_is_known_by_its_mark() {
    let mut links = links();
    links[1].mark_as_tap();
    let addresses = [at(ETH0, "10.77.0.1"), at(ETH1, "192.0.2.7")];
    assert_eq!(texts(&survey(&links, &addresses, &[], &rules(&[], &[]))), ["192.0.2.7"]);
}
