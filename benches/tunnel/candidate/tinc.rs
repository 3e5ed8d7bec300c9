//! tinc 1.0 as a switch: AES-256-CBC with SHA-256, as it has no AEAD; no compression.

use super::{need, version, words, write};
use crate::options::Options;
use crate::stage::Stage;

const BRIDGE: &str = "br-tinc";
/// The largest frame that it sends in one datagram is 1451 bytes long with this cipher (it probes); larger ones go
/// through TCP.
const MTU: u16 = 1437;

pub fn stand(stage: &mut Stage, _: &Options) -> Result<(), String> {
    let program = need("tincd")?;
    let hosts = stage.hosts.clone();
    let dir = |name: &str| stage.lab.dir().join(format!("tinc-{name}"));
    let dirs = [dir("a"), dir("b")];
    for (index, host) in hosts.iter().enumerate() {
        let (own, path) = (&dirs[index], dirs[index].display().to_string());
        std::fs::create_dir_all(own.join("hosts")).map_err(|error| error.to_string())?;
        let other = &hosts[1 - index].name;
        let text = format!(
            "Name = {}\nMode = switch\nDeviceType = tap\nInterface = tinc0\nAddressFamily = ipv4\nConnectTo = {other}\n",
            host.name
        );
        write(&own.join("tinc.conf"), &text)?;
        let about = "Cipher = aes-256-cbc\nDigest = sha256\nCompression = 0\n";
        write(&own.join("hosts").join(&host.name), &format!("Address = {}\n{about}", host.address))?;
        // It asks where keys go unless its input is at its end.
        super::output_of(&program, &["-c", &path, "-K2048"])?;
    }
    for (index, host) in hosts.iter().enumerate() {
        let card = |dir: &std::path::Path| dir.join("hosts").join(&host.name);
        std::fs::copy(card(&dirs[index]), card(&dirs[1 - index])).map_err(|error| error.to_string())?;
    }
    let mut pids = Vec::new();
    for (host, dir) in hosts.iter().zip(&dirs) {
        host.bridge(BRIDGE);
        let pid_file = dir.join("pid").display().to_string();
        let line = words(&[&program, "-c", &dir.display().to_string(), "-D", "--pidfile", &pid_file]);
        let process = host.space.spawn("tinc", &line);
        Stage::plug(host, &process, "tinc0", BRIDGE)?;
        pids.push(process.pid());
        stage.running.push(process);
    }
    let guests = stage.guests(&hosts, BRIDGE, MTU);
    let about = format!("{}, AES-256-CBC, SHA-256", version(&program, "--version"));
    stage.add("tinc", &about, &guests, MTU, &pids);
    Ok(())
}
