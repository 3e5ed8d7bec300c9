//! One look at the whole: the search over 256 pairs of an all-to-all on 4 sites.
//!
//! ```sh
//! cargo bench --bench plan
//! ```

use divan::{Bencher, black_box};
use longwire::control::topology::plan::plan;
use longwire::control::topology::resources::{Resource, Site};
use longwire::control::topology::view::{Config, NodeView, View};
use longwire::control::topology::{NodeIndex, Pair};
use longwire::time::Time;

/// As many hosts as it takes for 256 pairs and more.
const HOSTS: u16 = 17;
const SITES: u16 = 4;

fn main() {
    divan::main();
}

#[divan::bench]
fn epoch_of_256_pairs(bencher: Bencher<'_, '_>) {
    let (view, config) = (view(), Config::default());
    assert!(view.demands.len() >= config.pairs_max);
    bencher.bench_local(|| plan(black_box(&view), &config, Time::START));
}

/// Hosts and a supernode; trunks of very different widths.
fn view() -> View {
    let site = |node: u16| (node < HOSTS).then_some(Site(node % SITES));
    let node = |node: u16| NodeView { site: site(node), is_supernode: node == HOSTS, relays: node < HOSTS };
    let mut view = View { nodes: (0..=HOSTS).map(node).collect(), ..View::default() };
    for node in (0..=HOSTS).map(NodeIndex) {
        view.capacities.set(Resource::NodeOut(node), 1000.0);
        view.capacities.set(Resource::NodeIn(node), 1000.0);
    }
    for (from, to) in (0..SITES).flat_map(|from| (0..SITES).map(move |to| (from, to))).filter(|(from, to)| from != to) {
        view.capacities.set(Resource::SiteOut(Site(from)), 1000.0);
        view.capacities.set(Resource::SiteIn(Site(from)), 1000.0);
        view.capacities
            .set(Resource::Trunk(Site(from), Site(to)), f64::from(100 + 130 * from.abs_diff(to) * from.max(to)));
    }
    let pairs = (0..HOSTS).flat_map(|from| (0..HOSTS).map(move |to| (from, to))).filter(|(from, to)| from != to);
    view.demands = pairs.map(|(from, to)| (Pair::new(NodeIndex(from), NodeIndex(to)), 1.0)).collect();
    view
}
