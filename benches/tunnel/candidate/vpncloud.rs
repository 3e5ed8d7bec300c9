//! vpncloud as a switch, with the ciphers it chooses itself.

use std::time::Duration;

use lab::poll_for;

use super::{need, version, words};
use crate::options::Options;
use crate::stage::Stage;

const BRIDGE: &str = "br-vpncloud";
const PORT: u16 = 3210;
/// It sets its device's MTU some time after it made it.
const SETTING: Duration = Duration::from_secs(3);

pub fn stand(stage: &mut Stage, _: &Options) -> Result<(), String> {
    let program = need("vpncloud")?;
    let hosts = stage.hosts.clone();
    let [a, b] = &hosts;
    let mut pids = Vec::new();
    for (here, there) in [(a, b), (b, a)] {
        here.bridge(BRIDGE);
        let (listen, peer) = (PORT.to_string(), format!("{}:{PORT}", there.address));
        let kind = ["--type", "tap", "--mode", "switch", "--device", "vpncloud0"];
        let ends = ["--listen", &listen, "--peer", &peer, "--no-port-forwarding"];
        let line = words(&[&[program.as_str()], &kind[..], &ends, &["--password", "a bench of tunnels"]].concat());
        let process = here.space.spawn("vpncloud", &line);
        Stage::plug(here, &process, "vpncloud0", BRIDGE)?;
        pids.push(process.pid());
        stage.running.push(process);
    }
    // It knows its overhead and lowers its device's MTU by that.
    let device_mtu = || {
        let text = a.space.run(&["cat", "/sys/class/net/vpncloud0/mtu"]).stdout;
        String::from_utf8_lossy(&text).trim().parse::<u16>().ok().filter(|mtu| *mtu < 1500)
    };
    let mtu = poll_for(SETTING, device_mtu).ok_or("vpncloud sets no MTU")?;
    let guests = stage.guests(&hosts, BRIDGE, mtu);
    stage.add("vpncloud", &format!("{}, ciphers as it chooses", version(&program, "--version")), &guests, mtu, &pids);
    Ok(())
}
