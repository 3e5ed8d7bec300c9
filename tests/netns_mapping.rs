//! A router that lets others in when it is asked: two sites that only the relay could join meet directly,
//! because one of them has miniupnpd. Mapped, shown, used, taken back; and not asked where it is switched off.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::fs;
use std::time::Duration;

use lab::{Daemon, Guest, Host, Join, Lab, Nat, Ping, Process, Site, Supernode, inner_address, new_key, wait_for};

const MEETING: Duration = Duration::from_secs(20);

/// Time in which a node that asks at all has asked.
const ASKED: Duration = Duration::from_secs(8);

/// The router's address outside, as miniupnpd tells it: it takes none of those kept for documentation and tests.
const OUTSIDE: &str = "11.0.0.2";

/// Where miniupnpd puts its rules.
const CHAINS: &str = "
table inet filter {
    chain forward { type filter hook forward priority -10; jump miniupnpd; }
    chain miniupnpd { }
    chain prerouting { type nat hook prerouting priority -110; jump prerouting_miniupnpd; }
    chain postrouting { type nat hook postrouting priority 90; jump postrouting_miniupnpd; }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
}
";

/// What the router speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaks {
    PcpAndNatPmp,
    OnlyUpnp,
}

/// Two sites behind symmetric NATs; the router of the first can be asked.
struct Scene {
    lab: Lab,
    supernode: Supernode,
    sites: [Site; 2],
    hosts: [Host; 2],
    guests: [Guest; 2],
    router: Process,
    key: String,
}

impl Scene {
    fn new(speaks: Speaks) -> Scene {
        let mut lab = Lab::new();
        let server = lab.supernode_host("sn");
        let sites = ["s1", "s2"].map(|name| lab.site(name, Nat::Symmetric));
        let hosts = [lab.host(&sites[0], "h1"), lab.host(&sites[1], "h2")];
        let guests = [1, 2].map(|number| lab.guest(&hosts[number - 1], &format!("g{number}"), inner_address(number)));
        let router = start_router(&lab, &sites[0], speaks);
        let supernode = Supernode::start(&lab, &server, &[]);
        Scene { lab, supernode, sites, hosts, guests, router, key: new_key() }
    }

    /// Node 1 or 2, with more lines at the top of its config.
    fn start(&self, number: usize, more: &str) -> Daemon {
        let host = &self.hosts[number - 1];
        let join = Join::new("lan", &self.key, &format!("n{number}")).supernode(&self.supernode.address);
        if more.is_empty() {
            return Daemon::start(&self.lab, host, &join.bridge("br0"));
        }
        let key_file = self.lab.dir().join("n2-lan.key");
        let config = format!(
            "supernode = [{:?}]\n{more}\n[[overlay]]\nname = \"lan\"\nkey-file = {key_file:?}\nbridge = \"br0\"\n",
            self.supernode.address
        );
        let file = self.lab.dir().join(format!("{number}.toml"));
        fs::write(&file, config).unwrap();
        let (name, file) = (format!("n{number}"), file.to_string_lossy());
        Daemon::start_words(&self.lab, host, &name, &name, &[], &["up", "--config", &file])
    }

    /// The rule of the first router that leads to the first host, if there is one.
    fn rules(&self) -> String {
        let listed = self.sites[0].router.run(&["nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd"]);
        String::from_utf8_lossy(&listed.stdout).lines().filter(|line| line.contains("dnat")).collect()
    }

    /// The router's log.
    fn said(&self) -> String {
        self.router.stderr() + &self.router.stdout()
    }

    fn is_pinged(&self) {
        let [one, other] = &self.guests;
        let ping = Ping::start(&one.space, other.address, Duration::from_millis(100), &[]);
        wait_for("a first answered ping", MEETING, || (!ping.so_far().replies.is_empty()).then_some(()));
    }
}

fn start_router(lab: &Lab, site: &Site, speaks: Speaks) -> Process {
    let found = std::process::Command::new("/usr/sbin/miniupnpd").arg("--version").output();
    assert!(found.is_ok(), "the test needs miniupnpd, which is missing: apt-get install miniupnpd-nftables");
    site.router.nft(CHAINS);
    lab.inet().ip(&format!("route add {OUTSIDE}/32 via {}", site.outside));
    let asked = if speaks == Speaks::PcpAndNatPmp { "yes" } else { "no" };
    let config = format!(
        "ext_ifname=wan0\next_ip={OUTSIDE}\nlistening_ip=lan0\nenable_natpmp={asked}\nenable_upnp=yes\n\
         secure_mode=yes\nipv6_disable=yes\nuuid=5d1b4e5a-6d5e-4c1a-9e43-0b7a5f3d0001\n\
         allow 1024-65535 10.0.0.0/8 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n"
    );
    let (file, pid) = (lab.dir().join("miniupnpd.conf"), lab.dir().join("miniupnpd.pid"));
    fs::write(&file, config).unwrap();
    let words = ["/usr/sbin/miniupnpd", "-d", "-f", &file.to_string_lossy(), "-P", &pid.to_string_lossy()];
    let process = site.router.spawn("miniupnpd", &words.map(str::to_owned));
    wait_for("the router answers questions", Duration::from_secs(5), || {
        assert!(process.is_running(), "miniupnpd ended: {}", process.stderr());
        let port = if speaks == Speaks::PcpAndNatPmp { 5351 } else { 1900 };
        site.router.open_ports("udp").contains(&port).then_some(())
    });
    process
}

#[track_caller]
fn mapped(daemon: &Daemon) -> String {
    wait_for("the node shows a mapping", MEETING, || {
        let status = daemon.try_ask("status")?;
        status["mapped"].as_str().map(str::to_owned)
    })
}

/// From the first packet to the end of the node.
fn is_mapped_shown_used_and_taken_back(speaks: Speaks, protocol: &str) {
    let scene = Scene::new(speaks);
    let [one, other] = [1, 2].map(|number| scene.start(number, ""));
    let outside = mapped(&one);
    assert_eq!(outside, format!("{OUTSIDE}:7777"), "the same port outside where it is free");
    assert!(scene.rules().contains("7777"), "{}", scene.rules());
    assert!(one.process().stderr().contains(&format!("by=\"{protocol}\"")), "{}", one.process().stderr());
    assert!(one.show(&["status"]).contains(&format!("the router lets others in at {outside}")));

    scene.is_pinged();
    assert!(other.wait_path("n1", "direct", MEETING).is_some(), "{}", other.show(&["explain", "n1"]));
    assert!(one.wait_path("n2", "direct", MEETING).is_some(), "{}", one.show(&["explain", "n2"]));
    let used = other.status().overlays[0].peers[0].path.as_ref().and_then(|path| path.remote.clone());
    assert_eq!(used.as_deref(), Some(outside.as_str()));
    let told = other.show(&["explain", "n1"]);
    assert!(told.lines().any(|line| line.contains(&outside) && line.contains(" mapped ")), "{told}");

    assert!(one.process().terminate(Duration::from_secs(5)).is_some_and(|status| status.success()));
    wait_for("the mapping is taken back", Duration::from_secs(2), || scene.rules().is_empty().then_some(()));
    assert!(scene.said().contains("10.1.0.11"), "the next test trusts that the router tells who asks");
}

#[test]
fn a_pair_that_only_a_mapping_joins_is_direct_by_pcp() {
    is_mapped_shown_used_and_taken_back(Speaks::PcpAndNatPmp, "PCP");
}

#[test]
fn a_router_that_knows_upnp_only_is_asked_so() {
    is_mapped_shown_used_and_taken_back(Speaks::OnlyUpnp, "UPnP");
}

#[test]
fn without_port_mapping_the_pair_is_relayed_and_nobody_is_asked() {
    let scene = Scene::new(Speaks::PcpAndNatPmp);
    let other = scene.start(2, "");
    let one = scene.start(1, "port-mapping = false");
    scene.is_pinged();
    std::thread::sleep(ASKED);
    assert_eq!((one.path_to("n2").as_str(), other.path_to("n1").as_str()), ("relayed", "relayed"));
    assert!(one.status().overlays[0].peers.len() == 1 && scene.rules().is_empty());
    assert!(one.try_ask("status").is_some_and(|status| status["mapped"].is_null()));
    assert!(scene.router.is_running() && !scene.said().contains("10.1.0.11"), "{}", scene.said());
}
