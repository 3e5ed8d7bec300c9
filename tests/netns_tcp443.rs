//! Networks that let nothing out but TCP 443: members meet by TLS, and take UDP again once it passes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::time::{Duration, Instant};

use lab::{
    Daemon, Iperf, Join, Lab, Nat, OVERLAY, Ping, Stream, Supernode, Transfer, World, inner_address, new_key, poll_for,
    wait_for,
};

/// From the start of the last node to a first answer.
const JOIN_MAX: Duration = Duration::from_secs(5);
/// From the moment that UDP passes to the moment that it is used.
const BACK_MAX: Duration = Duration::from_secs(60);
/// From the moment that UDP is cut to the next answer.
const OVER_MAX: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(20);
/// Bits per second of which the throttle of 40 kB/s lets a third pass.
const THROTTLE_PASSED: f64 = 1e6;

/// A supernode and a site of each kind, those in `blocked` with nothing but TCP 443.
fn world(kinds: &[Nat], blocked: &[usize]) -> World {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let places = lab.places(kinds);
    blocked.iter().for_each(|number| places[*number].0.block_all_but_tcp(443));
    World::with_hosts(lab, server, places)
}

/// By what a node's supernode is reached.
fn transport(daemon: &Daemon) -> Option<String> {
    let status = daemon.try_status()?;
    let supernode = status.overlays.first()?.supernodes.first()?;
    supernode.transport.clone().filter(|_| supernode.state == "up")
}

/// How long until the first guest's ping to the second is answered.
#[track_caller]
fn first_answer(world: &World) -> Duration {
    let start = Instant::now();
    let to = world.nodes[1].guest.address;
    let ping = Ping::start(&world.nodes[0].guest.space, to, Duration::from_millis(50), &[]);
    wait_for("an answer", PATIENCE, || (!ping.so_far().replies.is_empty()).then_some(()));
    start.elapsed()
}

#[track_caller]
fn flows(world: &World) {
    let iperf = Iperf::tcp(&world.nodes[0].guest, &world.nodes[1].guest, 2);
    eprintln!("TCP inside: {:.0} Mbit/s", iperf.bits_per_second / 1e6);
    assert!(iperf.bits_per_second > 1e6);
    let report = Ping::count(&world.nodes[0].guest.space, world.nodes[1].guest.address, 10);
    assert_eq!(report.replies.len(), 10, "{:?}", report.missing());
}

fn needs(tool: &str, package: &str) {
    assert!(lab::find_tool(tool).is_some(), "the test needs {tool}: apt-get install {package}");
}

#[test]
fn a_site_without_udp_joins_by_tcp_and_takes_udp_when_it_passes() {
    let world = world(&[Nat::PortRestricted; 2], &[0]);
    let took = first_answer(&world);
    eprintln!("one side over TCP: first answer after {took:?}");
    assert!(took <= JOIN_MAX, "{took:?}");
    assert_eq!(transport(&world.nodes[0].daemon).as_deref(), Some("tcp"));
    assert_eq!(transport(&world.nodes[1].daemon).as_deref(), Some("udp"));
    assert!(world.nodes[0].daemon.show(&["peers"]).contains("over TCP"));
    assert!(world.nodes[0].daemon.show(&["status"]).contains("up over TCP"));
    assert!(world.nodes[0].daemon.show(&["explain", "n2"]).contains("over TCP"));
    for (one, other, who) in [(0, "n2", "this host"), (1, "n1", "n1")] {
        let said = world.nodes[one].daemon.show(&["explain", other]);
        assert!(said.contains(&format!("{who} reaches its supernodes by TCP only")), "{said}");
    }
    let program = lab::program().to_string_lossy().into_owned();
    let host = &world.nodes[0].host.space;
    let checked = host.run(&[&program, "netcheck", "--supernode", &world.supernode.address]);
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(said.contains("no answer by UDP; answers by TCP 443; its key is "), "{said}");
    flows(&world);
    let said = world.nodes[0].daemon.process().stderr();
    assert!(!said.contains("supernode lost"), "the first connection stands: {said}");

    let ends = (&world.nodes[0].guest, &world.nodes[1].guest);
    let stream = Stream::start(&ends.0.space, (&ends.1.space, ends.1.address), 100);
    world.nodes[0].site.unblock();
    let start = Instant::now();
    wait_for("UDP is used", BACK_MAX, || (transport(&world.nodes[0].daemon).as_deref() == Some("udp")).then_some(()));
    let back = start.elapsed();
    assert!(world.nodes[0].daemon.wait_path("n2", "direct", BACK_MAX.saturating_sub(back)).is_some());
    eprintln!("back on UDP after {back:?}, direct after {:?}", start.elapsed());
    std::thread::sleep(Duration::from_secs(2));
    let report = stream.finish();
    assert_eq!((report.lost(), report.duplicates()), (0, 0), "longest hole {:?}", report.longest_hole());
    let since = world.nodes[0].daemon.process().stderr().split_off(said.len());
    let warns = |line: &str| line.contains("WARN") && line.contains("supernode");
    assert!(since.contains("INFO registered") && !since.lines().any(warns), "good news: {since}");
}

#[test]
fn two_sites_without_udp_meet_and_carry_tcp() {
    let world = world(&[Nat::Symmetric; 2], &[0, 1]);
    let took = first_answer(&world);
    eprintln!("both sides over TCP: first answer after {took:?}");
    assert!(took <= JOIN_MAX, "{took:?}");
    for node in &world.nodes {
        assert_eq!(transport(&node.daemon).as_deref(), Some("tcp"));
    }
    flows(&world);
    for (one, other) in [(0, 1), (1, 0)] {
        assert_eq!(world.nodes[one].daemon.path_to(&format!("n{}", other + 1)), "relayed");
    }
}

#[test]
fn a_link_whose_udp_is_cut_goes_on_by_tcp() {
    let world = world(&[Nat::Symmetric; 2], &[]);
    first_answer(&world);
    assert_eq!(transport(&world.nodes[0].daemon).as_deref(), Some("udp"));
    let stream =
        Stream::start(&world.nodes[0].guest.space, (&world.nodes[1].guest.space, world.nodes[1].guest.address), 100);
    std::thread::sleep(Duration::from_secs(1));
    world.nodes[0].site.block_all_but_tcp(443);
    wait_for("TCP is used", PATIENCE, || (transport(&world.nodes[0].daemon).as_deref() == Some("tcp")).then_some(()));
    std::thread::sleep(Duration::from_secs(3));
    let report = stream.finish();
    let hole = report.longest_hole();
    eprintln!("UDP was cut: nothing passed for {hole:?}");
    assert!(hole <= OVER_MAX, "{hole:?}");
    assert_eq!(report.duplicates(), 0);
}

#[test]
fn a_proxy_is_the_way_out_where_nothing_else_is() {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let site = lab.site("s1", Nat::PortRestricted);
    let (host, proxy) = (lab.host(&site, "h1"), lab.host(&site, "px"));
    let guest = lab.guest(&host, "g1", inner_address(1));
    // Only the proxy gets out, by TCP; to any port, as its own rules allow 443.
    site.router.nft(&format!(
        r#"table ip block {{
            chain through {{
                type filter hook forward priority -10
                ct state established,related meta l4proto tcp accept
                ip saddr {} meta l4proto tcp accept
                drop
            }}
        }}"#,
        proxy.address
    ));
    let config = lab.dir().join("tinyproxy.conf");
    let text =
        format!("Port 3128\nListen {}\nTimeout 60\nMaxClients 10\nConnectPort 443\nLogLevel Info\n", proxy.address);
    std::fs::write(&config, text).unwrap();
    needs("tinyproxy", "tinyproxy-bin");
    let words = ["tinyproxy", "-d", "-c", config.to_str().unwrap()].map(str::to_owned);
    let _proxy = proxy.space.spawn("tinyproxy", &words);
    wait_for("the proxy listens", PATIENCE, || proxy.space.open_ports("tcp").contains(&3128).then_some(()));

    let key = new_key();
    let supernode = Supernode::start(&lab, &server, &[]);
    let other = lab.site("s2", Nat::Open);
    let other_host = lab.host(&other, "h2");
    let other_guest = lab.guest(&other_host, "g2", inner_address(2));
    let join = |node: &str| Join::new(OVERLAY, &key, node).supernode(&supernode.address).bridge("br0");
    let _n2 = Daemon::start(&lab, &other_host, &join("n2"));
    let url = format!("http://{}:3128", proxy.address);
    let named = Daemon::start(&lab, &host, &join("n1").word("--proxy").word(&url));
    let meet = |daemon: &Daemon, what: &str| {
        let start = Instant::now();
        let ping = Ping::start(&guest.space, other_guest.address, Duration::from_millis(50), &[]);
        wait_for("an answer through the proxy", PATIENCE, || (!ping.so_far().replies.is_empty()).then_some(()));
        eprintln!("through the proxy ({what}): first answer after {:?}", start.elapsed());
        assert!(start.elapsed() <= JOIN_MAX, "{:?}", start.elapsed());
        assert_eq!(transport(daemon).as_deref(), Some("tcp"));
    };
    meet(&named, "by its flag");
    named.process().terminate(PATIENCE);
    drop(named);

    // The same from the environment.
    let key_file = lab.dir().join("n1-lan.key");
    let variable = format!("https_proxy={url}");
    let words =
        ["up", OVERLAY, "--key-file", key_file.to_str().unwrap(), "--supernode", &supernode.address, "--bridge", "br0"];
    let by_environment = Daemon::start_words(&lab, &host, "n1-env", "n1", &["env", &variable], &words);
    meet(&by_environment, "by the environment");
}

#[test]
fn whoever_opens_tls_on_the_way_is_refused_by_the_pinned_key() {
    let mut lab = Lab::new();
    let (server, interceptor) = (lab.supernode_host("sn"), lab.supernode_host("mitm"));
    let supernode = Supernode::start(&lab, &server, &[]);
    let _theirs = Supernode::start(&lab, &interceptor, &[]);
    let site = lab.site("s1", Nat::PortRestricted);
    let host = lab.host(&site, "h1");
    site.block_all_but_tcp(443);
    site.router.nft(&format!(
        r#"table ip intercept {{
            chain divert {{
                type nat hook prerouting priority -100
                ip daddr {} tcp dport 443 dnat to {}
            }}
        }}"#,
        server.address, interceptor.address
    ));
    let pinned = format!("{}#{}", supernode.address, supernode.fingerprint());
    let join = Join::new(OVERLAY, &new_key(), "n1").supernode(&pinned).bridge("br0");
    let daemon = Daemon::start(&lab, &host, &join);
    let said = wait_for("the refusal is said", PATIENCE, || {
        Some(daemon.process().stderr()).filter(|said| said.contains("TCP 443: refused"))
    });
    assert!(said.contains("otherwise somebody stands in between"), "{said}");
    assert!(daemon.show(&["status"]).contains("TCP 443: refused"));
    let joined = poll_for(Duration::from_secs(3), || transport(&daemon));
    assert_eq!(joined, None);
}

#[test]
fn a_web_server_at_443_is_refused_and_other_ports_are_named() {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    needs("openssl", "openssl");
    let certificate = lab.dir().join("web.pem");
    let path = certificate.to_str().unwrap();
    let made = server.space.run(&[
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ed25519",
        "-nodes",
        "-subj",
        "/CN=sn.example",
        "-keyout",
        path,
        "-out",
        &format!("{path}.crt"),
    ]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let words = ["openssl", "s_server", "-4", "-www", "-accept", "443", "-key", path, "-cert", &format!("{path}.crt")];
    let _web = server.space.spawn("openssl", &words.map(str::to_owned));
    wait_for("the web server listens", PATIENCE, || server.space.open_ports("tcp").contains(&443).then_some(()));
    let supernode = Supernode::start(&lab, &server, &[]);
    wait_for("the refusal of the port is said", PATIENCE, || {
        supernode.process().stderr().contains("in use by another program").then_some(())
    });

    let site = lab.site("s1", Nat::PortRestricted);
    let host = lab.host(&site, "h1");
    site.block_all_but_tcp(443);
    let join = Join::new(OVERLAY, &new_key(), "n1").supernode(&supernode.address).bridge("br0");
    let daemon = Daemon::start(&lab, &host, &join);
    wait_for("the refusal is said", PATIENCE, || {
        daemon
            .process()
            .stderr()
            .contains("TCP 443: refused: what answers there shows no supernode's key")
            .then_some(())
    });
    drop(daemon);

    site.unblock();
    site.block_all_but_tcp(8443);
    drop(supernode);
    let supernode = Supernode::start(&lab, &server, &["--tcp-port", "8443"]);
    wait_for("how to come by that port is said", PATIENCE, || {
        supernode.process().stderr().contains("/8443#").then_some(())
    });
    let at = format!("{}/8443#{}", supernode.address, supernode.fingerprint());
    let join = Join::new(OVERLAY, &new_key(), "n2").supernode(&at).bridge("br0");
    let daemon = Daemon::start(&lab, &host, &join);
    wait_for("it is registered over TCP", PATIENCE, || (transport(&daemon).as_deref() == Some("tcp")).then_some(()));
}

#[test]
fn where_udp_is_throttled_tcp_is_taken() {
    let world = world(&[Nat::Symmetric; 2], &[]);
    first_answer(&world);
    assert_eq!(transport(&world.nodes[0].daemon).as_deref(), Some("udp"));
    let (from, to) = (&world.nodes[1].guest, &world.nodes[0].guest);
    // Only where something is lost, there is something to judge.
    let transfer = Transfer::start(&from.space, (&to.space, to.address));
    world.nodes[0].site.router.nft(
        r#"table ip throttle {
            chain through {
                type filter hook forward priority -10
                meta l4proto udp limit rate over 40 kbytes/second burst 8 kbytes drop
            }
        }"#,
    );
    let start = Instant::now();
    wait_for("TCP is used", PATIENCE, || (transport(&world.nodes[0].daemon).as_deref() == Some("tcp")).then_some(()));
    eprintln!("over TCP {:?} after UDP was throttled", start.elapsed());
    transfer.finish();
    assert!(world.nodes[0].daemon.process().stderr().contains("UDP loses much and carries little"));
    let iperf = Iperf::tcp(from, to, 3);
    eprintln!("{:.0} Mbit/s over TCP", iperf.bits_per_second / 1e6);
    assert!(iperf.bits_per_second > THROTTLE_PASSED, "{:.0} bit/s", iperf.bits_per_second);
}
