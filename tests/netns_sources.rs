//! A host with several addresses answers from the one that was spoken to: a NAT lets in nothing else.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::time::Duration;

use lab::{Lab, Nat, Ping, World};

const MEETING: Duration = Duration::from_secs(20);

#[test]
fn a_peer_behind_a_nat_that_speaks_to_the_second_address_is_answered_from_there() {
    let mut lab = Lab::new();
    let server = lab.supernode_host("sn");
    let sites = [Nat::Open, Nat::PortRestricted].map(|nat| lab.site(nat.label(), nat));
    let places: Vec<_> = sites.iter().map(|site| (site.clone(), lab.host(site, &format!("h-{}", site.name)))).collect();
    let (first, second) = (places[0].1.address, sites[0].lan_address(77));
    places[0].1.space.ip(&format!("addr add {second}/24 dev eth0"));
    // The peer reaches the second one only, and every packet with the first as its source is lost.
    sites[1].router.nft(&format!(
        "table ip wall {{
            chain forward {{
                type filter hook forward priority -10
                ip daddr {first} drop
                ip saddr {first} drop
            }}
        }}"
    ));
    let world = World::with_hosts(lab, server, places);
    world.wait_paths("direct", MEETING);
    let status = world.nodes[1].daemon.status();
    let remote = status.overlays[0].peers[0].path.as_ref().and_then(|path| path.remote.clone());
    assert_eq!(remote.as_deref().map(|remote| remote.starts_with(&second.to_string())), Some(true), "{remote:?}");
    let report = Ping::count(&world.nodes[0].guest.space, world.nodes[1].guest.address, 20);
    assert_eq!(report.lost(), 0);
}
