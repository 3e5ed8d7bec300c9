//! `topo`, `top`, `matrix`, `trace` and `advise` of real daemons, while a machine sends to another one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::time::Duration;

use lab::{Iperf, Nat, World, wait_for};

const MEETING: Duration = Duration::from_secs(20);
/// Of the stream, in Mb/s and in bytes per second.
const MEGABITS: &str = "40M";
const RATE: u64 = 5_000_000;

#[test]
fn the_views_tell_what_flows_between_which_machines() {
    let world = World::new(&[Nat::Open; 3]);
    world.wait_paths("direct", MEETING);
    let (one, two) = (&world.nodes[0], &world.nodes[1]);
    let (from, to) = (one.guest.mac.to_string(), two.guest.mac.to_string());
    std::thread::scope(|scope| {
        let stream =
            scope.spawn(|| Iperf::run(&one.guest, &two.guest, &["-u", "-b", MEGABITS, "-l", "1400", "-t", "8"]));
        let row = wait_for("the pair of machines is at its rate", Duration::from_secs(8), || {
            let top = one.daemon.try_ask("top")?;
            let rows = top[0]["machines"].as_array()?.clone();
            let row = rows.into_iter().find(|row| row["from"] == from.as_str() && row["to"] == to.as_str())?;
            (row["bytes_per_s"].as_u64()? > RATE * 8 / 10).then_some(row)
        });
        // 3 % are headers; the average is over two seconds.
        let bytes = row["bytes_per_s"].as_u64().unwrap();
        assert!(bytes < RATE * 12 / 10, "{row}");
        let frame = bytes / row["frames_per_s"].as_u64().unwrap().max(1);
        assert!((1_400..1_500).contains(&frame), "a superframe counts the frames it stands for: {row}");
        assert_eq!((row["path"].as_str(), row["to_host"].as_str()), (Some("direct"), Some("n2")));
        let heard = two.daemon.try_ask("top").unwrap();
        let heard = heard[0]["machines"].as_array().unwrap().iter().any(|row| row["from"] == from.as_str());
        assert!(heard, "the receiving member counts it too");

        let top = one.daemon.show(&["top", "--once"]);
        assert!(top.contains(&from) && top.contains("direct") && top.contains("unknown"), "{top}");
        let matrix = one.daemon.show(&["matrix", "--machines"]);
        assert!(matrix.contains(&from) && matrix.contains("██"), "{matrix}");
        let picture = one.daemon.show(&["matrix", "--svg", "-"]);
        assert!(picture.contains("<svg") && picture.contains("n2"), "{picture}");
        eprintln!("{top}{matrix}");
        stream.join().unwrap();
    });
    let topo = one.daemon.show(&["topo"]);
    for name in ["n1", "n2", "n3"] {
        assert!(topo.contains(name), "{topo}");
    }
    eprintln!("{topo}");
    assert!(one.daemon.show(&["topo", "--svg", "-"]).contains("</svg>"));
    assert!(
        one.daemon.show(&["topo", "--dot"]).starts_with("digraph \"lan\""),
        "{}",
        one.daemon.show(&["topo", "--dot"])
    );
    let trace = one.daemon.show(&["trace", &from, &to]);
    assert!(trace.contains("sent to n2, direct") && trace.contains("learned:"), "{trace}");
    let by_ip = one.daemon.show(&["trace", &one.guest.address.to_string(), &two.guest.address.to_string()]);
    assert!(by_ip.contains("sent to n2, direct"), "{by_ip}");
    let advice = one.daemon.run(&["advise"]);
    assert!(advice.status.success(), "{advice:?}");
    eprintln!("{trace}{}", String::from_utf8_lossy(&advice.stdout));
}
