//! OpenVPN with a TAP, TLS between two fixed ends, AES-256-GCM, large socket buffers.

use std::path::Path;

use super::{need, output_of, version, words};
use crate::options::Options;
use crate::stage::{Stage, UNDERLAY_MTU};

const BRIDGE: &str = "br-openvpn";
/// Outer IPv4 and UDP 28, OpenVPN's data header and tag 24, the inner Ethernet header 14.
const OVERHEAD: u16 = 66;
/// Kernel buffers of its socket: the default loses bursts.
const BUFFER: &str = "4194304";

pub fn stand(stage: &mut Stage, _: &Options) -> Result<(), String> {
    let program = need("openvpn")?;
    let dir = stage.dir("openvpn")?;
    let hosts = stage.hosts.clone();
    let mtu = UNDERLAY_MTU - OVERHEAD;
    let prints = [certificate(&dir, "a")?, certificate(&dir, "b")?];
    let mut pids = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        let (other, role) = (1 - index, ["--tls-server", "--tls-client"][index]);
        host.bridge(BRIDGE);
        let (here, there) = (host.address.to_string(), hosts[other].address.to_string());
        let file = |kind: &str| dir.join(format!("{}.{kind}", host.name)).display().to_string();
        let (certificate, key) = (file("crt"), file("key"));
        let ends = ["--dev", "ovpn0", "--dev-type", "tap", "--local", &here, "--remote", &there];
        let trust = ["--cert", &certificate, "--key", &key, "--peer-fingerprint", &prints[other], "--dh", "none"];
        let data = ["--data-ciphers", "AES-256-GCM", "--cipher", "AES-256-GCM", "--mssfix", "0"];
        let speed = ["--fast-io", "--sndbuf", BUFFER, "--rcvbuf", BUFFER, "--txqueuelen", "1000", "--verb", "2"];
        let own_mtu = mtu.to_string();
        let tail = ["--tun-mtu", &own_mtu, "--ping", "10", role];
        let line = words(&[&[program.as_str()][..], &ends, &trust, &data, &speed, &tail].concat());
        let process = host.space.spawn("openvpn", &line);
        Stage::plug(host, &process, "ovpn0", BRIDGE)?;
        pids.push(process.pid());
        stage.running.push(process);
    }
    let guests = stage.guests(&hosts, BRIDGE, mtu);
    let words = version(&program, "--version");
    let name = words.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    stage.add("openvpn", &format!("{name}, TLS, AES-256-GCM"), &guests, mtu, &pids);
    Ok(())
}

/// Makes a key and a certificate that nobody signed; its SHA-256 fingerprint.
fn certificate(dir: &Path, name: &str) -> Result<String, String> {
    let (key, file) = (dir.join(format!("{name}.key")), dir.join(format!("{name}.crt")));
    let (key, file) = (key.display().to_string(), file.display().to_string());
    let subject = format!("/CN={name}");
    let kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    output_of("openssl", &[&kind[..], &["-subj", &subject, "-days", "30", "-keyout", &key, "-out", &file]].concat())?;
    let text = output_of("openssl", &["x509", "-noout", "-fingerprint", "-sha256", "-in", &file])?;
    let (_, print) = text.trim().split_once('=').ok_or("openssl tells no fingerprint")?;
    Ok(print.to_owned())
}
