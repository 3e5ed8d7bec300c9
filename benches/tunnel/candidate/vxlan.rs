//! The kernel's VXLAN (RFC 7348): unencrypted, no user space, one fixed peer.

use crate::options::Options;
use crate::stage::{Scope, Stage, UNDERLAY_MTU};

const BRIDGE: &str = "br-vxlan";
/// Outer IPv4 and UDP, VXLAN's own header, the inner Ethernet header.
const OVERHEAD: u16 = 50;

pub fn stand(stage: &mut Stage, options: &Options) -> Result<(), String> {
    let hosts = stage.hosts.clone();
    let [a, b] = &hosts;
    let mtu = UNDERLAY_MTU - OVERHEAD;
    for (here, there) in [(a, b), (b, a)] {
        here.bridge(BRIDGE);
        let ends = format!("local {} remote {} dstport 4789", here.address, there.address);
        here.space.ip(&format!("link add vx0 mtu {mtu} type vxlan id 42 {ends} dev eth0"));
        here.space.ip(&format!("link set vx0 master {BRIDGE} up"));
    }
    let about = "the kernel's, unencrypted";
    if options.wants("vxlan") {
        let guests = stage.guests(&hosts, BRIDGE, mtu);
        stage.add("vxlan", about, &guests, mtu, &[]);
    }
    if options.wants("vxlan-1400") {
        let guests = stage.guests(&hosts, BRIDGE, 1400);
        stage.add("vxlan-1400", about, &guests, 1400, &[]);
        stage.narrow("vxlan-1400", Scope::Tcp);
    }
    Ok(())
}
