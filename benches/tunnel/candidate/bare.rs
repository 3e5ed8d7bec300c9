//! A cable between the guests' bridges: what the machine can do at all.

use crate::options::Options;
use crate::stage::{Stage, UNDERLAY_MTU};

const BRIDGE: &str = "br-bare";

pub fn stand(stage: &mut Stage, _: &Options) -> Result<(), String> {
    let hosts = stage.hosts.clone();
    let guests = stage.guests(&hosts, BRIDGE, UNDERLAY_MTU);
    let [a, b] = &hosts;
    stage.lab.cable((a, "cable", ""), (b, "cable", ""));
    for host in &hosts {
        host.space.ip(&format!("link set cable master {BRIDGE}"));
        stage.is_underlay(&host.space, "cable");
    }
    stage.add("bare", "a cable in the place of the underlay, no tunnel", &guests, UNDERLAY_MTU, &[]);
    Ok(())
}
