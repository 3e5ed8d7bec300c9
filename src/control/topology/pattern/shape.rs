//! Which shape a graph has, by its degrees, its number of edges and whether it has two sides.

use std::collections::{BTreeMap, VecDeque};

use super::Shape;
use crate::control::topology::{NodeIndex, Pair};

/// This share of all possible edges is everybody with everybody.
const NEARLY_ALL: f64 = 0.9;

/// Whether a graph has a shape.
type Test = fn(&Graph) -> bool;

/// What is counted of a graph.
struct Graph {
    nodes: usize,
    edges: usize,
    /// How many neighbours, ascending.
    degrees: Vec<usize>,
    is_connected: bool,
    has_two_sides: bool,
}

/// The first shape that fits.
pub(super) fn classify(edges: &[Pair]) -> Shape {
    let graph = Graph::new(edges);
    if graph.nodes < 2 {
        return Shape::Idle;
    }
    let tests: [(Shape, Test); 11] = [
        (Shape::AllToAll, Graph::is_all_to_all),
        (Shape::Star, |graph| graph.is_tree() && graph.nodes > 3 && graph.most() == graph.nodes - 1),
        (Shape::Line, |graph| graph.is_tree() && graph.most() <= 2),
        (Shape::Tree, Graph::is_tree),
        (Shape::Ring, |graph| graph.is_connected && graph.is_regular(2)),
        (Shape::Torus2d, |graph| graph.is_connected && graph.is_regular(4) && graph.is_product(2)),
        (Shape::Hypercube, Graph::is_hypercube),
        (Shape::Mesh2d, |graph| graph.is_grid(2)),
        (Shape::Mesh3d, |graph| graph.is_grid(3)),
        (Shape::Torus3d, |graph| graph.is_connected && graph.is_regular(6) && graph.is_product(3)),
        (Shape::Bipartite, |graph| graph.is_connected && graph.has_two_sides),
    ];
    tests.iter().find(|(_, fits)| fits(&graph)).map_or(Shape::General, |(shape, _)| *shape)
}

impl Graph {
    fn new(edges: &[Pair]) -> Self {
        let mut neighbours: BTreeMap<NodeIndex, Vec<NodeIndex>> = BTreeMap::new();
        for pair in edges {
            neighbours.entry(pair.from).or_default().push(pair.to);
            neighbours.entry(pair.to).or_default().push(pair.from);
        }
        let mut degrees = neighbours.values().map(Vec::len).collect::<Vec<_>>();
        degrees.sort_unstable();
        let (reached, has_two_sides) = walk(&neighbours);
        let is_connected = reached == neighbours.len();
        Self { nodes: neighbours.len(), edges: edges.len(), degrees, is_connected, has_two_sides }
    }

    fn most(&self) -> usize {
        self.degrees.last().copied().unwrap_or(0)
    }

    fn is_tree(&self) -> bool {
        self.is_connected && self.edges + 1 == self.nodes
    }

    fn is_all_to_all(&self) -> bool {
        self.nodes > 3 && self.edges as f64 >= NEARLY_ALL * (self.nodes * (self.nodes - 1) / 2) as f64
    }

    fn is_regular(&self, degree: usize) -> bool {
        self.degrees.iter().all(|of| *of == degree)
    }

    /// A power of two of nodes, each with as many neighbours as it has bits. Of 16 nodes it is a torus.
    fn is_hypercube(&self) -> bool {
        let bits = self.nodes.trailing_zeros() as usize;
        self.is_connected && self.has_two_sides && self.nodes.is_power_of_two() && self.is_regular(bits)
    }

    /// Whether the nodes fill a torus with sides of at least 3.
    fn is_product(&self, dimensions: u32) -> bool {
        sides(self.nodes, dimensions, 3).next().is_some()
    }

    /// Whether the degrees are those of some grid.
    fn is_grid(&self, dimensions: u32) -> bool {
        let fits = |sides: Vec<usize>| degrees_of_grid(&sides) == self.degrees;
        self.is_connected && self.has_two_sides && sides(self.nodes, dimensions, 2).any(fits)
    }
}

/// How many nodes the first one reaches, and whether they have two sides that only talk across.
fn walk(neighbours: &BTreeMap<NodeIndex, Vec<NodeIndex>>) -> (usize, bool) {
    let mut sides: BTreeMap<NodeIndex, bool> = neighbours.keys().take(1).map(|first| (*first, false)).collect();
    let mut waiting = sides.keys().copied().collect::<VecDeque<_>>();
    let mut has_two_sides = true;
    while let Some(node) = waiting.pop_front() {
        let side = sides[&node];
        for neighbour in &neighbours[&node] {
            match sides.insert(*neighbour, !side) {
                None => waiting.push_back(*neighbour),
                Some(known) => has_two_sides &= known != side,
            }
        }
    }
    (sides.len(), has_two_sides)
}

/// Every way to write `count` as a product of sides, ascending, none below `least`.
fn sides(count: usize, dimensions: u32, least: usize) -> impl Iterator<Item = Vec<usize>> {
    let mut found = Vec::new();
    let fits = move |side: &usize| count.is_multiple_of(*side);
    for first in (least..=count.isqrt()).filter(fits) {
        let rest = count / first;
        match dimensions {
            2 => found.push(vec![first, rest]),
            _ => found.extend(sides(rest, 2, first).map(|more| [vec![first], more].concat())),
        }
    }
    found.into_iter()
}

/// How many neighbours the nodes of a grid have, ascending.
fn degrees_of_grid(sides: &[usize]) -> Vec<usize> {
    let count = sides.iter().product::<usize>();
    let degree = |node: usize| {
        let mut rest = node;
        let of_side = |side: &usize| {
            let place = rest % side;
            rest /= side;
            usize::from(place > 0) + usize::from(place + 1 < *side)
        };
        sides.iter().map(of_side).sum::<usize>()
    };
    let mut degrees = (0..count).map(degree).collect::<Vec<_>>();
    degrees.sort_unstable();
    degrees
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(sides: &[u16], wraps: bool) -> Vec<Pair> {
        let count = sides.iter().product::<u16>();
        let mut edges = Vec::new();
        for node in 0..count {
            let mut step = 1;
            for side in sides {
                let place = node / step % side;
                if place + 1 < *side {
                    edges.push(Pair::new(NodeIndex(node), NodeIndex(node + step)));
                } else if wraps && *side > 2 {
                    edges.push(Pair::new(NodeIndex(node), NodeIndex(node - place * step)));
                }
                step *= side;
            }
        }
        edges
    }

    #[test]
    fn grids_and_tori_are_told_apart() {
        assert_eq!(classify(&grid(&[3, 4], false)), Shape::Mesh2d);
        assert_eq!(classify(&grid(&[3, 3, 4], false)), Shape::Mesh3d);
        assert_eq!(classify(&grid(&[3, 5], true)), Shape::Torus2d);
        assert_eq!(classify(&grid(&[3, 3, 4], true)), Shape::Torus3d);
        assert_eq!(classify(&grid(&[2, 2, 2], false)), Shape::Hypercube);
        assert_eq!(classify(&grid(&[2, 2, 2, 2, 2], false)), Shape::Hypercube);
        assert_eq!(classify(&grid(&[7], false)), Shape::Line);
        assert_eq!(classify(&grid(&[7], true)), Shape::Ring);
    }

    #[test]
    fn two_groups_are_seen_and_what_is_none_of_these_is_general() {
        let edge = |(a, b): &(u16, u16)| Pair::new(NodeIndex(*a), NodeIndex(*b));
        let groups = [(0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4), (5, 2)];
        assert_eq!(classify(&groups.iter().map(edge).collect::<Vec<_>>()), Shape::Bipartite);
        let triangle_and_tail = [(0, 1), (1, 2), (2, 0), (2, 3)];
        assert_eq!(classify(&triangle_and_tail.iter().map(edge).collect::<Vec<_>>()), Shape::General);
    }
}
