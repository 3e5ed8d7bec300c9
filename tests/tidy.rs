//! Keeps the house as it was built: sizes, arrows between modules, where clocks and unsafe may stand.

use std::fs;
use std::path::{Path, PathBuf};

/// More lines than this in one file are refused.
const FILE_LINES_MAX: usize = 600;

/// Who may name whom: a module and what it may import of ours.
const ARROWS: [(&str, &[&str]); 8] = [
    ("time", &[]),
    ("keys", &[]),
    ("wire", &["wire", "keys", "time"]),
    ("datapath", &["datapath", "wire", "keys", "time"]),
    ("seam", &["seam", "datapath", "wire", "keys", "time", "node"]),
    ("control", &["control", "seam", "datapath", "wire", "keys", "time"]),
    ("node", &["node", "control", "seam", "datapath", "wire", "keys", "time"]),
    ("sim", &["sim", "node", "seam", "control", "datapath", "wire", "keys", "time"]),
];

/// What the corridor names of the control room, and the other way round: nothing but these.
const CORRIDOR_FOR_CONTROL: [&str; 8] = ["buf", "fdb", "limit", "seal", "stats", "Command", "Notice", "{"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every Rust file of ours with its path from the root, and its text.
fn sources(dirs: &[&str]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for dir in dirs {
        rust_files(&root().join(dir), &mut files);
    }
    files.sort();
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).expect("below the root").display().to_string();
        (name, fs::read_to_string(&path).expect("a readable source file"))
    };
    let sources = files.into_iter().map(read).collect::<Vec<_>>();
    assert!(!sources.is_empty(), "no sources found");
    sources
}

/// The module of a file under src: `src/wire/data.rs` is in `wire`.
fn module(name: &str) -> &str {
    let inside = name.strip_prefix("src/").expect("a file under src");
    let end = inside.find(['/', '.']).expect("a directory or an extension");
    &inside[..end]
}

#[test]
fn no_file_is_a_novel() {
    for (name, text) in sources(&["src", "tests", "examples", "benches"]) {
        let lines = text.lines().count();
        assert!(lines <= FILE_LINES_MAX, "{name} has {lines} lines; {FILE_LINES_MAX} are allowed");
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (name, text) in sources(&["src", "tests", "examples", "benches"]) {
        let first = text.lines().next().unwrap_or_default();
        let is_unit_tests = name.ends_with("/tests.rs");
        assert!(is_unit_tests || first.starts_with("//! "), "{name} begins without a head");
    }
}

#[test]
fn modules_only_point_down() {
    for (name, text) in sources(&["src"]) {
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == module(&name)) else { continue };
        for used in text.split("crate::").skip(1) {
            let end = used.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(used.len());
            assert!(allowed.contains(&&used[..end]), "{name} uses crate::{}", &used[..end]);
        }
    }
}

#[test]
fn corridor_and_control_room_meet_only_in_the_node() {
    for (name, text) in sources(&["src"]) {
        if module(&name) == "control" && !name.ends_with("reporting.rs") {
            for used in text.split("crate::datapath::").skip(1) {
                let is_seam = CORRIDOR_FOR_CONTROL.iter().any(|word| used.starts_with(word))
                    || ["Path", "LegId", "LegTally", "Activity", "Side", "SwitchSettings"]
                        .iter()
                        .any(|word| used.starts_with(word));
                assert!(is_seam, "{name} reaches into the corridor: {used:.30}");
                assert!(!used.starts_with("Datapath"), "{name} holds the corridor");
            }
        }
    }
}

#[test]
fn clocks_sockets_and_unsafe_live_in_io() {
    let clocks = ["Instant::now", "SystemTime::now", "clock_gettime"];
    let kernel = ["UdpSocket", "TcpStream", "std::thread", "tokio::", "std::fs"];
    for (name, text) in sources(&["src"]) {
        let is_io = name.starts_with("src/io/");
        let is_program = name == "src/main.rs" || name.starts_with("src/cli/") || name.starts_with("src/config");
        for word in clocks {
            assert!(name == "src/io/clock.rs" || !text.contains(word), "{name} reads a clock: {word}");
        }
        for word in kernel {
            assert!(is_io || is_program || !text.contains(word), "{name} reaches out of the house: {word}");
        }
        let has_unsafe =
            text.lines().any(|line| line.trim_start().starts_with("unsafe ") || line.contains(" unsafe {"));
        assert!(is_io || !has_unsafe, "{name} has unsafe code");
        assert!(!has_unsafe || text.contains("// SAFETY:"), "{name} has unsafe code without a reason");
    }
}

#[test]
fn a_hashed_table_is_never_iterated() {
    for (name, text) in sources(&["src/datapath", "src/control", "src/wire", "src/node"]) {
        let tables = text.lines().filter(|line| line.contains(": HashMap<") || line.contains(": HashSet<"));
        for table in tables.filter_map(|line| line.trim().trim_start_matches("pub(super) ").split(':').next()) {
            for walk in [".iter()", ".iter_mut()", ".keys()", ".values()", ".values_mut()", ".drain(", ".retain("] {
                let walked = format!("self.{table}{walk}");
                assert!(!text.contains(&walked), "{name} iterates a hashed table: {walked}");
            }
        }
    }
}

#[test]
fn the_top_level_holds_what_it_should() {
    let allowed = ["Cargo.toml", "Cargo.lock", "src", "benches", "examples", "config", "tests", "README.md", "target"];
    for entry in fs::read_dir(root()).expect("the root").flatten() {
        let name = entry.file_name().into_string().expect("a name in UTF-8");
        assert!(name.starts_with('.') || allowed.contains(&name.as_str()), "{name} does not belong here");
    }
}

#[test]
fn every_dependency_says_what_for() {
    let manifests = ["Cargo.toml", "tests/lab/Cargo.toml"];
    let manifests = manifests.map(|name| fs::read_to_string(root().join(name)).expect("a manifest"));
    let mut explained = false;
    let mut in_dependencies = false;
    for line in manifests.iter().flat_map(|manifest| manifest.lines()) {
        match line {
            _ if line.starts_with('[') => in_dependencies = line.contains("dependencies]"),
            _ if line.starts_with('#') => explained = true,
            "" => explained = false,
            _ if in_dependencies => assert!(explained, "{line} has no comment saying what for"),
            _ => {}
        }
    }
}
