//! A host with more than one way: which of its addresses are told, where nobody is sought, what `bind`,
//! `exclude-interfaces` and `fwmark` do.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::fs;
use std::time::Duration;

use lab::{Daemon, Guest, Host, Join, Lab, Nat, Ping, Supernode, inner_address, new_key, wait_for};

const MEETING: Duration = Duration::from_secs(15);

/// A bridge as Docker makes one, with an address and a machine.
const DOCKER: &str = "172.17.0.1";

struct Scene {
    lab: Lab,
    supernode: Supernode,
    hosts: [Host; 2],
    guests: [Guest; 2],
    key: String,
    key_file: String,
}

impl Scene {
    /// Two hosts with public addresses. Each is in its overlay's network itself, by an address on `br0`.
    fn new() -> Scene {
        let mut lab = Lab::new();
        let server = lab.supernode_host("sn");
        let sites = ["s1", "s2"].map(|name| lab.site(name, Nat::Open));
        let hosts = [lab.host(&sites[0], "h1"), lab.host(&sites[1], "h2")];
        let guests = [1, 2].map(|number| lab.guest(&hosts[number - 1], &format!("g{number}"), inner_address(number)));
        for (host, number) in hosts.iter().zip(1..) {
            host.space.ip(&format!("addr add 10.77.9.{number}/16 dev br0"));
        }
        lab.guest_on(&hosts[0], "docker0", "container", [172, 17, 0, 2].into());
        hosts[0].space.ip(&format!("addr add {DOCKER}/16 dev docker0"));
        let supernode = Supernode::start(&lab, &server, &[]);
        let key = new_key();
        let key_file = lab.dir().join("n2-lan.key").to_string_lossy().into_owned();
        Scene { lab, supernode, hosts, guests, key, key_file }
    }

    /// Node 2, as everybody starts one.
    fn usual(&self) -> Daemon {
        let join = Join::new("lan", &self.key, "n2").supernode(&self.supernode.address).bridge("br0");
        Daemon::start(&self.lab, &self.hosts[1], &join)
    }

    /// Node 1 or 2 with these lines in its config. Node 2 must have been started the usual way once.
    fn with(&self, number: usize, more: &str) -> Daemon {
        let config = format!(
            "supernode = [{:?}]\n{more}\n[[overlay]]\nname = \"lan\"\nkey-file = {:?}\nbridge = \"br0\"\n",
            self.supernode.address, self.key_file
        );
        let file = self.lab.dir().join(format!("{number}.toml"));
        fs::write(&file, config).unwrap();
        let (name, file) = (format!("n{number}"), file.to_string_lossy());
        Daemon::start_words(&self.lab, &self.hosts[number - 1], &name, &name, &[], &["up", "--config", &file])
    }

    #[track_caller]
    fn meet(&self, daemon: &Daemon, peer: &str) {
        let [one, other] = &self.guests;
        let ping = Ping::start(&one.space, other.address, Duration::from_millis(100), &[]);
        wait_for("a first answered ping", MEETING, || (!ping.so_far().replies.is_empty()).then_some(()));
        assert!(daemon.wait_path(peer, "direct", MEETING).is_some(), "{}", daemon.show(&["explain", peer]));
    }
}

/// The addresses that a peer has told as its own, as `explain` shows them (in their order), without ports.
fn told(daemon: &Daemon, peer: &str) -> Vec<String> {
    let text = daemon.show(&["explain", peer]);
    let hosts = text.lines().filter(|line| line.contains(" host "));
    let address = |line: &str| Some(line.split_whitespace().next()?.rsplit_once(':')?.0.to_owned());
    hosts.filter_map(address).collect()
}

#[test]
fn addresses_of_the_overlay_and_of_containers_are_told_to_nobody() {
    let scene = Scene::new();
    let other = scene.usual();
    let one = scene.with(1, "");
    scene.meet(&other, "n1");
    assert_eq!(told(&other, "n1"), [scene.hosts[0].address.to_string()]);
    assert_eq!(told(&one, "n2"), [scene.hosts[1].address.to_string()]);
    let own = |daemon: &Daemon| daemon.counters()["underlay_loop"];
    assert_eq!((own(&one), own(&other)), (0, 0));
}

#[test]
fn a_peer_is_not_sought_at_an_address_that_a_route_leads_into_the_overlay() {
    let scene = Scene::new();
    let mut other = scene.usual();
    other.process().terminate(MEETING);
    other = scene.with(2, "bind = [\"eth0\", \"br0\"]");
    let one = scene.with(1, "bind = [\"eth0\", \"docker0\"]");
    scene.meet(&one, "n2");
    assert_eq!(told(&one, "n2"), [scene.hosts[1].address.to_string()], "10.77.9.2 was told, and refused");
    assert_eq!(told(&other, "n1"), [DOCKER.to_owned(), scene.hosts[0].address.to_string()], "docker0 is named");
}

#[test]
fn one_interface_ties_the_socket_and_the_mark_is_on_every_packet() {
    let scene = Scene::new();
    let space = &scene.hosts[0].space;
    space.ip("addr add 198.19.1.99/24 dev eth0");
    space.nft(
        "table ip seen {\n chain out {\n type filter hook output priority 0\n \
         udp sport 7777 meta mark 0x6c77 counter\n udp sport 7777 meta mark != 0x6c77 counter\n \
         udp dport 17777 meta mark 0x6c77 counter\n }\n }\n",
    );
    let other = scene.usual();
    let one = scene.with(1, "bind = [\"eth0\"]\nfwmark = 0x6c77");
    scene.meet(&other, "n1");
    assert_eq!(told(&other, "n1"), [scene.hosts[0].address.to_string(), "198.19.1.99".to_owned()]);
    wait_for("an announcement is marked too", MEETING, || {
        let listed = space.run(&["nft", "list", "table", "ip", "seen"]).stdout;
        let counted = String::from_utf8_lossy(&listed).into_owned();
        let counts = counted.split("counter packets ").skip(1).map(|rest| rest.split(' ').next()?.parse().ok());
        let [Some(marked), Some(unmarked), Some(announced)] = counts.collect::<Vec<Option<u64>>>()[..] else {
            panic!("{counted}")
        };
        assert_eq!(unmarked, 0, "{counted}");
        (marked > 10 && announced > 0).then_some(())
    });
    let bound = String::from_utf8_lossy(&space.run(&["ss", "-uanH"]).stdout).into_owned();
    assert!(bound.contains("%eth0:7777"), "{bound}");
    drop(one);
}

#[test]
fn what_the_config_names_and_is_not_there_is_a_sentence() {
    let scene = Scene::new();
    drop(scene.usual());
    let one = scene.with(1, "bind = [\"eth7\"]");
    assert!(one.process().wait(MEETING).is_some_and(|status| status.code() == Some(1)));
    let said = one.process().stderr();
    assert!(said.contains("`bind` names eth7: this host has no such interface"), "{said}");
}

#[test]
fn one_address_of_several_can_be_chosen_and_an_interface_left_out() {
    let scene = Scene::new();
    scene.hosts[0].space.ip("addr add 198.19.1.99/24 dev eth0");
    let other = scene.usual();
    let one = scene.with(1, "bind = [\"198.19.1.99\", \"docker0\"]\nexclude-interfaces = [\"docker*\"]");
    scene.meet(&other, "n1");
    assert_eq!(told(&other, "n1"), ["198.19.1.99"]);
    drop(one);
}
