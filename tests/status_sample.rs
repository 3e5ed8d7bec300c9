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
        [
            "arp",
            "bindings",
            "counters",
            "fdb_entries",
            "groups",
            "id",
            "multicast",
            "name",
            "peers",
            "supernodes",
            "tap",
            "tap_offload"
        ]
    );
    assert_eq!(keys(&overlay["supernodes"][0]), ["address", "fingerprint", "reason", "rtt_us", "state", "transport"]);
    let peer = &overlay["peers"][0];
    let of_peer = [
        ["cipher", "id", "last_heard_ms", "mtu", "mtu_state", "name"].as_slice(),
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

#[test]
fn the_views_have_the_keys_of_the_contract() {
    use longwire::control::sight::{MoveAdvice, Topology, Trace, Traffic};

    let node = json!({"id": "aeaq", "name": "cellar", "site": null, "is_supernode": false, "is_here": true,
        "is_up": true, "load_percent": null});
    let link = json!({"from": "aeaq", "to": "aiaq", "kind": "relayed", "is_asleep": false, "via": "amaq", "rtt_us": 850,
        "loss_percent": null, "sent": 1000, "heard": null, "is_limited": true, "capacity": 125_000});
    let route = json!({"from": "aeaq", "to": "aiaq", "via": null, "by": "plan"});
    let topology = json!({"overlay": "lab", "seen_by": "cellar", "nodes": [node], "links": [link], "routes": [route],
        "unknown": ["loss"]});
    let talk = json!({"from": "02:00:5e:10:00:01", "to": "02:00:5e:10:00:02", "from_host": "cellar",
        "to_host": "garage", "bytes_per_s": 1000, "frames_per_s": 2, "path": "direct", "rtt_us": 850,
        "loss_percent": null, "why": "it answers"});
    let traffic = json!({"overlay": "lab", "seen_by": "cellar", "hosts": [], "machines": [talk],
        "machines_left_out": 0, "host_pattern": null, "machine_pattern": "ring of 4 nodes, 97 % of the traffic",
        "hosts_unknown": null, "machines_unknown": "not counted"});
    let machine = json!({"mac": "02:00:5e:10:00:01", "vlan": 0, "host": "cellar", "age_ms": 40, "sequence": 3});
    let hop = json!({"from": "cellar", "to": "garage", "by": "UDP to 192.0.2.7:7777", "rtt_us": 850});
    let trace = json!({"overlay": "lab", "seen_by": "cellar", "from": machine, "to": machine, "verdict": "sent",
        "why": ["learned"], "hops": [hop], "rtt_us": 850});
    let advice = json!({"overlay": "lab", "seen_by": "cellar", "by": "plan", "machine": null, "host": "cellar",
        "partner": "garage", "target": "garage", "bottleneck": null, "gain_percent": 450});
    survives::<Topology>(&topology);
    survives::<Traffic>(&traffic);
    survives::<Trace>(&trace);
    survives::<MoveAdvice>(&advice);
}

fn survives<T: serde::Serialize + serde::de::DeserializeOwned>(sample: &Value) {
    let parsed: T = serde_json::from_value(sample.clone()).expect("the sample");
    assert_eq!(&serde_json::to_value(&parsed).expect("JSON"), sample);
}
