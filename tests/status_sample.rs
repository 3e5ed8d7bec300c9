//! The JSON of `longwire status --json` is a contract: the sample parses, comes back equal, and has
//! exactly the keys that scripts rely on.

use longwire::control::report::{FdbRow, Status};
use serde_json::{Value, json};

#[test]
fn the_sample_survives_the_types() {
    let sample = sample();
    let status: Status = serde_json::from_value(sample.clone()).expect("the sample");
    assert_eq!(serde_json::to_value(&status).expect("JSON"), sample);
}

#[test]
fn the_keys_are_those_of_the_contract() {
    let sample = sample();
    assert_eq!(
        keys(&sample),
        ["fingerprint", "lanes", "mapped", "nat", "node", "node_id", "overlays", "serving", "version"]
    );
    assert_eq!(keys(&sample["nat"]), ["filtering", "mapping", "meaning", "ports", "public"]);
    let overlay = &sample["overlays"][0];
    assert_eq!(
        keys(overlay),
        ["arp", "bindings", "counters", "fdb_entries", "id", "name", "peers", "supernodes", "tap", "tap_offload"]
    );
    assert_eq!(keys(&overlay["supernodes"][0]), ["address", "reason", "rtt_us", "state", "transport"]);
    let peer = &overlay["peers"][0];
    let of_peer = [
        ["id", "last_heard_ms", "mtu", "mtu_state", "name"].as_slice(),
        &["path", "rtt_us", "rx_bytes", "state", "tx_bytes"],
    ];
    assert_eq!(keys(peer), of_peer.concat());
    assert_eq!(keys(&peer["path"]), ["kind", "remote", "transport", "via"]);
}

#[test]
fn a_row_of_the_fdb_has_the_keys_of_the_contract() {
    let row = json!({"overlay": "lab", "vlan": 10, "mac": "02:00:5e:10:00:01", "port": "tap", "age_ms": 40});
    let old: FdbRow = serde_json::from_value(row.clone()).expect("a row of an older daemon");
    assert_eq!((old.sequence, old.frozen), (0, false));
    let mut row = row;
    (row["sequence"], row["frozen"]) = (json!(3), json!(true));
    let parsed: FdbRow = serde_json::from_value(row.clone()).expect("a row");
    assert_eq!(serde_json::to_value(parsed).expect("JSON"), row);
}

fn sample() -> Value {
    serde_json::from_str(include_str!("status_sample.json")).expect("JSON")
}

/// In order.
fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}
