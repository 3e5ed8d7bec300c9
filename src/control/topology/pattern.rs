//! What the application looks like: a ring, a mesh, everybody with everybody.
//!
//! For the eyes of an operator, and to open all links of an all-to-all at once; the planner itself uses
//! the matrix. The chatter of ssh, NFS and DNS is cut off at the widest gap between weights.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::matrix::Matrix;
use super::{NodeIndex, Pair};

mod shape;

/// The reference is the mean of this share of the pairs, the greatest.
const TOP: f64 = 0.1;
/// The gap that separates chatter lies between these shares of the reference.
const GAP: (f64, f64) = (0.02, 0.6);
/// Where there is no gap, everything above this share counts.
const NO_GAP: f64 = 0.1;
/// Windows that must agree before a pattern is announced.
const AGREED: u32 = 2;

/// The shapes that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Nobody sends.
    Idle,
    /// Everybody with everybody.
    AllToAll,
    /// One with all others: master and workers.
    Star,
    /// One after the other.
    Line,
    /// Any other tree.
    Tree,
    /// A line that closes.
    Ring,
    /// A plane whose edges meet.
    Torus2d,
    /// A space whose faces meet.
    Torus3d,
    /// Neighbours differ in one bit.
    Hypercube,
    /// A plane.
    Mesh2d,
    /// A space.
    Mesh3d,
    /// Two groups, such as clients and servers.
    Bipartite,
    /// None of these.
    General,
}

/// A shape, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pattern {
    /// The shape.
    pub shape: Shape,
    /// The share of all traffic that is part of it.
    pub confidence: f64,
    /// Nodes that take part.
    pub nodes: usize,
}

impl Shape {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::AllToAll => "all-to-all",
            Self::Star => "star",
            Self::Line => "line",
            Self::Tree => "tree",
            Self::Ring => "ring",
            Self::Torus2d => "2d torus",
            Self::Torus3d => "3d torus",
            Self::Hypercube => "hypercube",
            Self::Mesh2d => "2d mesh",
            Self::Mesh3d => "3d mesh",
            Self::Bipartite => "two groups",
            Self::General => "no known shape",
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shape, confidence, nodes } = self;
        write!(f, "{} of {nodes} nodes, {:.0} % of the traffic", shape.name(), confidence * 100.0)
    }
}

/// The pattern of a window.
pub fn infer(matrix: &Matrix) -> Pattern {
    infer_weights(&matrix.snapshot())
}

/// The pattern of weights, in whatever unit.
pub fn infer_weights(weights: &BTreeMap<Pair, f64>) -> Pattern {
    let mut both: BTreeMap<Pair, f64> = BTreeMap::new();
    for (pair, weight) in weights.iter().filter(|(pair, weight)| pair.from != pair.to && **weight > 0.0) {
        let most = both.entry(pair.unordered()).or_default();
        *most = most.max(*weight);
    }
    let bar = threshold(both.values().copied().collect());
    let edges = both.iter().filter(|(_, weight)| **weight >= bar).map(|(pair, _)| *pair).collect::<Vec<_>>();
    let kept = edges.iter().map(|pair| both[pair]).sum::<f64>();
    let all = both.values().sum::<f64>();
    let nodes = edges.iter().flat_map(|pair| [pair.from, pair.to]).collect::<BTreeSet<NodeIndex>>();
    let confidence = if all > 0.0 { kept / all } else { 1.0 };
    Pattern { shape: shape::classify(&edges), confidence, nodes: nodes.len() }
}

/// Below this weight it is chatter.
fn threshold(mut weights: Vec<f64>) -> f64 {
    weights.sort_by(f64::total_cmp);
    let top = ((weights.len() as f64 * TOP) as usize).max(1);
    let reference = weights.iter().rev().take(top).sum::<f64>() / top as f64;
    let gaps = weights.windows(2).map(|pair| (pair[1] / pair[0], (pair[0] * pair[1]).sqrt()));
    let inside = gaps.filter(|(_, middle)| (GAP.0 * reference..=GAP.1 * reference).contains(middle));
    let widest = inside.filter(|(ratio, _)| *ratio > 1.0).max_by(|one, other| one.0.total_cmp(&other.0));
    widest.map_or(NO_GAP * reference, |(_, middle)| middle)
}

/// Announces a pattern when windows agree on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    announced: Option<Pattern>,
    seen: Option<Shape>,
    agreed: u32,
}

impl Watch {
    /// Takes the pattern of the next window; gives the announced one when that changes.
    pub fn next(&mut self, pattern: Pattern) -> Option<Pattern> {
        self.agreed = if self.seen == Some(pattern.shape) { self.agreed + 1 } else { 1 };
        self.seen = Some(pattern.shape);
        let is_new = self.announced.is_none_or(|announced| announced.shape != pattern.shape);
        if self.agreed < AGREED || !is_new {
            return None;
        }
        self.announced = Some(pattern);
        self.announced
    }

    /// The pattern announced last.
    pub const fn announced(&self) -> Option<Pattern> {
        self.announced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(edges: &[(u16, u16, f64)]) -> BTreeMap<Pair, f64> {
        edges.iter().map(|(a, b, weight)| (Pair::new(NodeIndex(*a), NodeIndex(*b)), *weight)).collect()
    }

    #[test]
    fn chatter_is_cut_off() {
        let pattern = infer_weights(&weights(&[(0, 1, 10.0), (1, 2, 9.0), (2, 3, 4.0), (3, 0, 0.8), (0, 2, 0.5)]));
        assert_eq!((pattern.shape, pattern.nodes), (Shape::Line, 4));
        assert!((0.9..1.0).contains(&pattern.confidence), "{pattern:?}");
        assert_eq!(infer_weights(&BTreeMap::new()).shape, Shape::Idle);
    }

    #[test]
    fn a_pattern_is_announced_when_two_windows_agree() {
        let pattern = |shape| Pattern { shape, confidence: 1.0, nodes: 4 };
        let mut watch = Watch::default();
        assert_eq!(watch.next(pattern(Shape::Ring)), None);
        assert_eq!(watch.next(pattern(Shape::Ring)), Some(pattern(Shape::Ring)));
        assert_eq!(watch.next(pattern(Shape::General)), None);
        assert_eq!(watch.next(pattern(Shape::Ring)), None);
        assert_eq!(watch.announced(), Some(pattern(Shape::Ring)));
    }
}
