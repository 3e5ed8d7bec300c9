//! n2n: two edges and its own supernode, as its manual starts them.

use std::time::Duration;

use super::{need, version, words};
use crate::options::Options;
use crate::stage::Stage;

const BRIDGE: &str = "br-n2n";
const PORT: u16 = 7654;
/// Its default.
const MTU: u16 = 1400;
/// The supernode must listen before the first edge registers: it is asked again much later.
const SUPERNODE_START: Duration = Duration::from_millis(300);

pub fn stand(stage: &mut Stage, _: &Options) -> Result<(), String> {
    let (edge, supernode) = (need("edge")?, need("supernode")?);
    let hosts = stage.hosts.clone();
    let listen = PORT.to_string();
    let server = stage.server.space.spawn("n2n-supernode", &words(&[&supernode, "-l", &listen]));
    stage.running.push(server);
    std::thread::sleep(SUPERNODE_START);
    let mut pids = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        host.bridge(BRIDGE);
        let (address, at) = (format!("10.76.0.{}", index + 1), format!("{}:{PORT}", stage.server.address));
        let mtu = MTU.to_string();
        let kind = ["-d", "n2n0", "-c", "bench", "-k", "a bench of tunnels", "-M", &mtu, "-r"];
        let line = words(&[&[edge.as_str()][..], &kind, &["-a", &address, "-l", &at]].concat());
        let process = host.space.spawn("n2n-edge", &line);
        Stage::plug(host, &process, "n2n0", BRIDGE)?;
        pids.push(process.pid());
        stage.running.push(process);
    }
    let guests = stage.guests(&hosts, BRIDGE, MTU);
    stage.add("n2n", &version(&edge, "-h"), &guests, MTU, &pids);
    Ok(())
}
