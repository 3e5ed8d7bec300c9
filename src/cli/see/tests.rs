use longwire::control::report::PathKind;
use longwire::control::sight::{Link, Node, Route, Talk};

use super::*;

/// So many members on so many sites, as the supernode knows them: everybody talks with the next three, a few are
/// relayed by plan, one way is held back.
fn world(members: usize, sites: usize) -> Topology {
    let id = |number: usize| format!("member-{number}");
    let node = |number: usize| Node {
        id: id(number),
        name: format!("node{number:02}"),
        site: Some(format!("198.51.100.{}", number * sites / members)),
        is_supernode: false,
        is_here: false,
        is_up: number != 2,
        load_percent: Some(7),
    };
    let here = Node { id: "here".into(), name: "sn1".into(), site: None, is_supernode: true, is_here: true, ..node(0) };
    let link = |from: usize, step: usize| {
        let is_relayed = (from + step).is_multiple_of(7);
        Link {
            from: id(from),
            to: id((from + step) % members),
            kind: if is_relayed { PathKind::Relayed } else { PathKind::Direct },
            is_asleep: false,
            via: is_relayed
                .then(|| if from.is_multiple_of(2) { "here".into() } else { id((from + members / 2) % members) }),
            rtt_us: Some(3_000 + 977 * from as u64),
            loss_percent: None,
            sent: Some(20_000 << (from % 12)),
            heard: Some(10_000),
            is_limited: Some(from == 1 && step == 1),
            capacity: None,
        }
    };
    let steps = 3.min(members / 2);
    let links = (0..members).flat_map(|from| (1..=steps).map(move |step| link(from, step))).collect::<Vec<_>>();
    let planned = links.iter().filter(|link| link.via.as_deref() == Some("here"));
    let route =
        |link: &Link| Route { from: link.from.clone(), to: link.to.clone(), via: link.via.clone(), by: "plan".into() };
    Topology {
        overlay: "vof5rsu3r4rgyzl2".into(),
        seen_by: "sn1".into(),
        nodes: (0..members).map(node).chain([here]).collect(),
        routes: planned.map(route).collect(),
        links,
        unknown: vec!["links on which little flows: they are not reported".into()],
    }
}

fn traffic(hosts: usize) -> Traffic {
    let host = |number: usize| format!("node{number:02}");
    let talk = |from: usize, step: usize| Talk {
        from: host(from),
        to: host((from + step) % hosts),
        from_host: host(from),
        to_host: host((from + step) % hosts),
        bytes_per_s: 9_000_000 >> (2 * step + from % 7),
        frames_per_s: None,
        path: Some("direct".into()),
        rtt_us: Some(1_200),
        loss_percent: None,
        why: None,
    };
    Traffic {
        overlay: "lab".into(),
        seen_by: "sn1".into(),
        hosts: (0..hosts).flat_map(|from| (1..4.min(hosts)).map(move |step| talk(from, step))).collect(),
        machines: Vec::new(),
        machines_left_out: 0,
        host_pattern: Some(format!("ring of {hosts} nodes, 97 % of the traffic")),
        machine_pattern: None,
        hosts_unknown: None,
        machines_unknown: None,
    }
}

/// Keeps a picture where `LONGWIRE_PICTURES` says, for whoever changes how they are drawn.
fn keep(name: &str, picture: &str) {
    if let Ok(dir) = std::env::var("LONGWIRE_PICTURES") {
        fs::write(Path::new(&dir).join(name), picture).expect("a directory");
    }
}

#[test]
fn small_and_large_overlays_are_drawn_with_every_member_and_link() {
    for (members, sites) in [(3, 3), (12, 4), (40, 6)] {
        let world = world(members, sites);
        let picture = circle::picture(&world);
        keep(&format!("topo-{members}.svg"), &picture);
        for node in &world.nodes {
            assert!(picture.contains(&node.name), "{} is missing", node.name);
        }
        // Of two directions one line is drawn, and four in the legend.
        let ends = |link: &Link| {
            if link.from < link.to {
                (link.from.clone(), link.to.clone())
            } else {
                (link.to.clone(), link.from.clone())
            }
        };
        let pairs: std::collections::BTreeSet<_> = world.links.iter().map(ends).collect();
        assert_eq!(picture.matches("Q").count(), pairs.len() + 4);
        let dashes = picture.matches("7 4").count();
        assert!(members < 7 || dashes > 2, "relayed ways are dashed");
    }
}

#[test]
fn what_a_name_contains_does_not_break_a_picture_or_a_graph() {
    let mut world = world(3, 1);
    world.nodes[0].name = "a<b>&\"c".into();
    let picture = circle::picture(&world);
    assert!(picture.contains("a&lt;b&gt;&amp;") && !picture.contains("a<b>"), "{picture}");
    assert!(text::dot(&world).contains(r#"label="a<b>&\"c""#));
}

#[test]
fn an_overlay_of_nobody_is_drawn_too() {
    let nobody = Topology { nodes: Vec::new(), links: Vec::new(), routes: Vec::new(), ..world(3, 1) };
    assert!(circle::picture(&nobody).contains("</svg>"));
    let silent = Traffic { hosts: Vec::new(), ..traffic(3) };
    assert!(heat::Grid::new(&silent, false).picture().contains("</svg>"));
    assert!(heat::Grid::new(&silent, false).text().contains("nothing flows"));
}

#[test]
fn the_matrix_has_a_cell_for_each_pair_and_its_darkest_is_the_most() {
    for hosts in [3, 12, 40] {
        let grid = heat::Grid::new(&traffic(hosts), false);
        let picture = grid.picture();
        keep(&format!("matrix-{hosts}.svg"), &picture);
        assert_eq!(picture.matches("<title>").count(), hosts * hosts);
        assert!(grid.text().contains("██ is 2250 kB/s"), "{}", grid.text());
    }
}

#[test]
fn what_is_not_known_is_called_unknown() {
    let mut world = world(3, 3);
    (world.links[0].rtt_us, world.links[0].sent) = (None, None);
    let shown = text::topology(&world);
    let line = shown.lines().find(|line| line.starts_with("node00  node01")).expect("the link");
    assert_eq!(line.matches("unknown").count(), 3, "{line}");
    assert!(shown.contains("not known here: links on which little flows"), "{shown}");
    let top = text::top(&traffic(3), 1);
    assert!(
        top.contains("and 5 more") && top.contains("pattern of machines that talk across this node: unknown"),
        "{top}"
    );
}

#[test]
fn an_empty_table_says_why_it_is_empty() {
    let silent = Traffic { hosts: Vec::new(), ..traffic(3) };
    assert!(text::top(&silent, 20).ends_with("no hosts talk\nno machines talk\n"), "{}", text::top(&silent, 20));
    let why = "machines are not counted here".to_owned();
    let uncounted = Traffic { machines_unknown: Some(why.clone()), ..silent };
    let top = text::top(&uncounted, 20);
    assert!(top.ends_with("machines are not counted here\n") && !top.contains("nothing flows here"), "{top}");
    assert!(heat::Grid::new(&uncounted, true).text().ends_with(&format!("{why}\n")));
    assert!(heat::Grid::new(&uncounted, false).text().ends_with("nothing flows\n"));
}
