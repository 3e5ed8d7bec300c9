//! fastd in TAP mode with the method its manual recommends.

use super::{need, output_of, version, words, write};
use crate::options::Options;
use crate::stage::{Stage, UNDERLAY_MTU};

const BRIDGE: &str = "br-fastd";
const PORT: u16 = 10_000;
const METHOD: &str = "salsa2012+umac";
/// Outer IPv4 and UDP 28, fastd 24, the inner Ethernet header 14.
const OVERHEAD: u16 = 66;

pub fn stand(stage: &mut Stage, _: &Options) -> Result<(), String> {
    let program = need("fastd")?;
    let dir = stage.dir("fastd")?;
    let hosts = stage.hosts.clone();
    let mtu = UNDERLAY_MTU - OVERHEAD;
    let (mut secrets, mut keys) = (Vec::new(), Vec::new());
    for _ in &hosts {
        let secret = output_of(&program, &["--generate-key", "--machine-readable"])?.trim().to_owned();
        let file = dir.join("secret.conf");
        write(&file, &format!("secret \"{secret}\";\n"))?;
        let file = file.display().to_string();
        keys.push(output_of(&program, &["-c", &file, "--show-key", "--machine-readable"])?.trim().to_owned());
        secrets.push(secret);
    }
    let mut pids = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        let other = 1 - index;
        host.bridge(BRIDGE);
        let file = dir.join(format!("{}.conf", host.name));
        let text = format!(
            "log level warn;\nmode tap;\ninterface \"fastd0\";\nmethod \"{METHOD}\";\nmtu {mtu};\n\
             bind {}:{PORT};\nsecret \"{}\";\n\
             peer \"other\" {{ key \"{}\"; remote {}:{PORT}; }}\n",
            host.address, secrets[index], keys[other], hosts[other].address
        );
        write(&file, &text)?;
        let process = host.space.spawn("fastd", &words(&[&program, "-c", &file.display().to_string()]));
        Stage::plug(host, &process, "fastd0", BRIDGE)?;
        pids.push(process.pid());
        stage.running.push(process);
    }
    let guests = stage.guests(&hosts, BRIDGE, mtu);
    stage.add("fastd", &format!("{}, {METHOD}", version(&program, "--version")), &guests, mtu, &pids);
    Ok(())
}
