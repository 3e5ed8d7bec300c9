//! Every example in `config/` loads and means what its comments say.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use longwire::config::{Attach, Config, Settings};
use longwire::keys::OverlayKey;

#[test]
fn every_toml_loads() {
    let mut seen = Vec::new();
    for entry in fs::read_dir(examples()).expect("config/").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            load(&path);
            seen.push(entry.file_name().into_string().expect("UTF-8"));
        }
    }
    seen.sort();
    assert_eq!(seen, ["node.toml", "supernode.toml", "two-overlays.toml"]);
}

#[test]
fn what_is_commented_out_loads_too() {
    for name in ["node.toml", "supernode.toml"] {
        let text = fs::read_to_string(examples().join(name)).expect(name);
        let is_key = |line: &str| {
            let word = line.strip_prefix("# ").and_then(|rest| rest.split_once(" = "));
            line.starts_with("# [[")
                || word.is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
        };
        let whole: String = text
            .lines()
            .map(|line| if is_key(line) { format!("{}\n", &line[2..]) } else { format!("{line}\n") })
            .collect();
        let config = Config::parse(&whole).expect(name);
        assert!(config.socket.is_some() && config != Config::parse(&text).expect(name));
    }
}

#[test]
fn the_examples_mean_what_they_say() {
    let node = load(&examples().join("node.toml"));
    assert_eq!(node.overlays[0].attach, Attach::Bridge("br-lab".into()));
    assert_eq!(node.supernodes[0].address, "sn1.example.org:7777");
    assert!(node.serve.is_none());
    let supernode = load(&examples().join("supernode.toml"));
    assert!(supernode.serve.is_some_and(|serve| serve.allow.is_none()) && supernode.overlays.is_empty());
    let two = load(&examples().join("two-overlays.toml"));
    assert!(two.serve.is_some());
    assert_eq!(two.overlays.len(), 2);
    assert_ne!(two.overlays[0].secrets.id(), two.overlays[1].secrets.id());
}

#[test]
fn the_units_start_what_there_is() {
    for name in ["longwire@.service", "longwire-supernode.service"] {
        let unit = fs::read_to_string(examples().join(name)).expect(name);
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("ExecStart");
        assert!(start.starts_with("/usr/local/bin/longwire "), "{start}");
        assert!(unit.contains("Type=notify"));
    }
}

/// Checked with key files that exist instead of those in /etc.
fn load(path: &Path) -> Settings {
    let dir = tempfile::tempdir().expect("directory");
    let key = dir.path().join("key");
    fs::write(&key, OverlayKey::from_bytes([5; 32]).to_text()).expect("key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("chmod");
    let mut config = Config::read(path).expect("an example that loads");
    for overlay in &mut config.overlay {
        overlay.key_file = Some(key.clone());
    }
    config.check(None).expect("an example that means something")
}

fn examples() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config"))
}
