//! The candidates, each family in a file that shows how it is started.

mod bare;
mod fastd;
mod longwire;
mod n2n;
mod openvpn;
mod tinc;
mod vpncloud;
mod vxlan;

use std::path::PathBuf;
use std::process::Command;

use lab::find_tool;

pub use longwire::{USUAL, Wanted, start_pair};

use crate::stage::Family;

/// All of them, as the tables show them.
pub const FAMILIES: [Family; 8] = [
    Family { names: &["bare"], stand: bare::stand },
    Family { names: &["vxlan", "vxlan-1400"], stand: vxlan::stand },
    Family { names: &longwire::NAMES, stand: longwire::stand },
    Family { names: &["vpncloud"], stand: vpncloud::stand },
    Family { names: &["fastd"], stand: fastd::stand },
    Family { names: &["tinc"], stand: tinc::stand },
    Family { names: &["openvpn"], stand: openvpn::stand },
    Family { names: &["n2n"], stand: n2n::stand },
];

/// Other programs that carry Ethernet frames encrypted in user space.
pub const PEERS: [&str; 5] = ["vpncloud", "fastd", "tinc", "openvpn", "n2n"];

/// Those without which no comparison is worth making, and how to get them.
pub const MANDATORY: [(&str, &str); 2] = [
    ("vpncloud", "the bench needs vpncloud: `cargo install vpncloud`, or name it in the environment as VPNCLOUD"),
    ("fastd", "the bench needs fastd: `apt-get install fastd`, or name it in the environment as FASTD"),
];

/// Where a program is: named in the environment (FASTD for `fastd`), in the PATH, or where cargo installs.
pub fn find(name: &str) -> Option<PathBuf> {
    let named = std::env::var_os(name.to_uppercase()).map(PathBuf::from);
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let by_cargo = home.map(|home| home.join("bin").join(name));
    named.or_else(|| find_tool(name)).or(by_cargo).filter(|path| path.is_file())
}

/// The same as a word of a command, or why there is no such candidate.
fn need(name: &str) -> Result<String, String> {
    let found = find(name).ok_or_else(|| format!("`{name}` is not installed"))?;
    Ok(found.display().to_string())
}

/// The first line that a program says about itself.
pub fn version(program: &str, word: &str) -> String {
    let Ok(output) = Command::new(program).arg(word).output() else { return format!("{program}: no version") };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}

/// Runs a program outside of the lab, for keys and the like; what it printed.
fn output_of(program: &str, words: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(words).output().map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program} {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn write(path: &std::path::Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
