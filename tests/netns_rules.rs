//! Static rules by the command line: frames of a real segment go where they say, and `show` counts them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lab::frame::marked;
use lab::{Daemon, Mac, Nat, PacketSocket, World, heard, wait_for};

const MEETING: Duration = Duration::from_secs(20);
/// From an order to the word of it.
const SHOWN: Duration = Duration::from_secs(3);
/// An address of a host's block, which nobody has.
const NOBODY: Mac = Mac([2, 0x1f, 0x40, 0, 0, 7]);
const OWN: Mac = Mac([2, 0x1f, 0x41, 0, 0, 1]);

/// What the daemon says to an order; the sentence on stderr if it refuses.
fn order(daemon: &Daemon, words: &str) -> Result<String, String> {
    let output = daemon.run(&words.split(' ').collect::<Vec<_>>());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Sends a frame to [`NOBODY`] from the first guest; the second and the third hear it so often.
#[track_caller]
fn expect_heard(wires: &[PacketSocket], expected: [usize; 2], why: &str) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let frame = marked(NOBODY, OWN, NEXT.fetch_add(1, Ordering::Relaxed));
    wires[0].send(&frame).unwrap();
    assert_eq!(heard(&wires[1..], &frame, &expected), expected, "{why}");
}

#[test]
fn rules_given_by_hand_decide_are_counted_and_are_taken_back() {
    let world = World::new(&[Nat::Open; 3]);
    world.wait_paths("direct", MEETING);
    let wires: Vec<_> = world.nodes.iter().map(|node| PacketSocket::open(&node.guest.space, "eth0")).collect();
    let daemon = &world.nodes[0].daemon;
    expect_heard(&wires, [1, 1], "unknown addresses are flooded");

    let shown = order(daemon, "route add any 02:1f:40:00:00:00/24 via n2").unwrap();
    assert!(shown.contains("in force"), "{shown}");
    expect_heard(&wires, [1, 0], "only there");
    order(daemon, "route add any 02:1f:40:00:00:00/24 via n3").unwrap();
    expect_heard(&wires, [1, 1], "equally good: to each of them");
    let refused = order(daemon, "route add any 02:1f:40:00:00:00/24 via drop").unwrap_err();
    assert!(refused.contains("contradicts rule 1: one drops what the other sends"), "{refused}");
    let refused = order(daemon, "route add any any via mill").unwrap_err();
    assert!(refused.contains("no member is called \"mill\""), "{refused}");
    order(daemon, &format!("route add any {NOBODY} via n3")).unwrap();
    expect_heard(&wires, [0, 1], "the longest prefix");
    order(daemon, &format!("route add {OWN} any via drop prio 9")).unwrap();
    expect_heard(&wires, [0, 0], "priority first");

    let rows: serde_json::Value = serde_json::from_str(&order(daemon, "route show --json").unwrap()).unwrap();
    let counted: Vec<_> =
        rows.as_array().unwrap().iter().map(|row| (row["id"].as_u64(), row["frames"].as_u64())).collect();
    assert_eq!(counted, [(1, 2), (2, 1), (3, 1), (4, 1)].map(|(id, frames)| (Some(id), Some(frames))));
    eprintln!("{}", order(daemon, "route show").unwrap());
    for id in 1..=4 {
        order(daemon, &format!("route del {id}")).unwrap();
    }
    expect_heard(&wires, [1, 1], "as before");
    assert!(order(daemon, "route del 4").unwrap_err().contains("there is no rule 4"));

    order(daemon, "link add n2 pin").unwrap();
    let links = wait_for("the link is shown", SHOWN, || {
        order(daemon, "link show").ok().filter(|shown| shown.contains("direct"))
    });
    assert!(links.contains("n2") && links.contains("pin"), "{links}");
    assert!(daemon.show(&["explain", "n2"]).contains("by order no member relays"));
    order(daemon, "link del n2").unwrap();
    assert!(!daemon.show(&["explain", "n2"]).contains("by order"));
}
