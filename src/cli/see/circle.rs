//! The overlay as a picture: members on a circle, site by site; supernodes in the middle; links across.
//!
//! A relayed way is dashed and bends to its relay. The wider a line, the more it carries. Figures stand at the links
//! where there are few, and in a list beside the picture.

use std::collections::BTreeMap;
use std::f64::consts::{PI, TAU};

use longwire::control::report::PathKind;
use longwire::control::sight::{Link, Node, Topology};

use super::chart::{Anchor, FAINT, INK, PALE, Point, Sheet, cut};
use super::text;

const DIRECT: &str = "#0969da";
const RELAYED: &str = "#bc4c00";
const PLANNED: &str = "#8250df";
const HELD_BACK: &str = "#cf222e";
/// One after the other for the sites.
const SITES: [&str; 6] = ["#ddf4ff", "#dafbe1", "#fff8c5", "#ffebe9", "#fbefff", "#eaeef2"];
/// Between two members on the circle.
const SPACING: f64 = 34.0;
/// Between two sites, in members.
const GAP: f64 = 0.8;
const RADIUS_MIN: f64 = 150.0;
/// Letters of a label.
const LETTERS: usize = 16;
/// With no more links than this, figures stand at them.
const FEW: usize = 8;
/// Links in the list.
const LISTED: usize = 16;
/// Of the list.
const LIST_WIDTH: f64 = 470.0;
/// Of a line of it.
const LINE: f64 = 18.0;

/// Where everything is.
struct Layout<'a> {
    centre: Point,
    radius: f64,
    places: BTreeMap<&'a str, (Point, f64)>,
    /// Name, and between which angles.
    sites: Vec<(&'a str, f64, f64)>,
}

pub(super) fn picture(topology: &Topology) -> String {
    let layout = Layout::new(topology);
    let links = merged(topology);
    let names = text::names(topology);
    let margin = layout.margin(topology);
    let width = 2.0 * (layout.radius + margin) + LIST_WIDTH;
    let list = 130.0 + LINE * (links.len().min(LISTED) + topology.unknown.len() + 8) as f64;
    let mut sheet = Sheet::new(width, (layout.centre.1 + layout.radius + margin).max(list));
    let title = format!("overlay {}, as {} knows it", cut(&topology.overlay, LETTERS), topology.seen_by);
    sheet.words(Point(20.0, 26.0), 16, INK, Anchor::Start, &title);
    for (number, (_, start, end)) in layout.sites.iter().enumerate() {
        sheet.arc((layout.centre, layout.radius), (*start, *end), SITES[number % SITES.len()], 34.0);
    }
    for link in &links {
        layout.draw(&mut sheet, topology, link, links.len() <= FEW);
    }
    for node in &topology.nodes {
        layout.mark(&mut sheet, node);
    }
    layout.name_sites(&mut sheet, topology);
    let corner = Point(width - LIST_WIDTH + 20.0, 60.0);
    legend(&mut sheet, corner, topology, &links, |id| names.get(id).copied().unwrap_or(id).to_owned());
    sheet.text()
}

/// One line for both directions: the busier one's, with what both carry. Links that sleep are left out.
fn merged(topology: &Topology) -> Vec<Link> {
    let mut links: BTreeMap<(&str, &str), Link> = BTreeMap::new();
    for link in topology.links.iter().filter(|link| link.kind != PathKind::None && !link.is_asleep) {
        let ends = if link.from <= link.to { (link.from.as_str(), link.to.as_str()) } else { (&*link.to, &*link.from) };
        let known = links.entry(ends).or_insert_with(|| link.clone());
        if weight(link) > weight(known) || (link.kind, known.kind) == (PathKind::Relayed, PathKind::Direct) {
            *known = link.clone();
        }
    }
    let mut links = links.into_values().collect::<Vec<_>>();
    links.sort_by_key(weight);
    links
}

fn weight(link: &Link) -> u64 {
    link.sent.unwrap_or(0) + link.heard.unwrap_or(0)
}

impl<'a> Layout<'a> {
    fn new(topology: &'a Topology) -> Self {
        let mut sites: BTreeMap<&str, Vec<&Node>> = BTreeMap::new();
        for node in topology.nodes.iter().filter(|node| !node.is_supernode) {
            // Of whom it is not known, each is alone.
            sites.entry(node.site.as_deref().unwrap_or(&node.id)).or_default().push(node);
        }
        let members = sites.values().map(Vec::len).sum::<usize>() as f64;
        let steps = (members + GAP * sites.len() as f64).max(1.0);
        let radius = (steps * SPACING / TAU).max(RADIUS_MIN);
        let step = TAU / steps;
        let mut layout = Self { centre: Point(0.0, 0.0), radius, places: BTreeMap::new(), sites: Vec::new() };
        let margin = layout.margin(topology);
        layout.centre = Point(radius + margin, radius + margin.max(70.0) + 20.0);
        let mut angle = -PI / 2.0;
        for (site, nodes) in &sites {
            let start = angle;
            for node in nodes {
                layout.places.insert(&node.id, (layout.centre.toward(angle, radius), angle));
                angle += step;
            }
            if nodes.iter().any(|node| node.site.is_some()) {
                layout.sites.push((site, start, angle - step));
            }
            angle += step * GAP;
        }
        layout.place_supernodes(topology);
        layout
    }

    fn place_supernodes(&mut self, topology: &'a Topology) {
        let supernodes = topology.nodes.iter().filter(|node| node.is_supernode).collect::<Vec<_>>();
        let around = if supernodes.len() > 1 { self.radius * 0.25 } else { 0.0 };
        for (number, node) in supernodes.iter().enumerate() {
            let angle = TAU * number as f64 / supernodes.len() as f64 - PI / 2.0;
            self.places.insert(&node.id, (self.centre.toward(angle, around), angle));
        }
    }

    /// Room for names outside of the circle.
    fn margin(&self, topology: &Topology) -> f64 {
        let letters = |name: &str| name.chars().count().min(LETTERS) as f64;
        let members = topology.nodes.iter().filter(|node| !node.is_supernode);
        let longest = members.clone().map(|node| letters(&node.name)).fold(0.0, f64::max);
        let site = members.filter_map(|node| node.site.as_deref()).map(letters).fold(0.0, f64::max);
        40.0 + 7.5 * longest + 8.0 * site
    }

    fn draw(&self, sheet: &mut Sheet, topology: &Topology, link: &Link, is_one_of_few: bool) {
        let place = |id: &str| self.places.get(id).map(|(point, _)| *point);
        let (Some(from), Some(to)) = (place(&link.from), place(&link.to)) else { return };
        let middle = from.middle(to);
        // Towards the centre, so that lines of neighbours do not run along the circle.
        let bent = Point(middle.0 * 0.7 + self.centre.0 * 0.3, middle.1 * 0.7 + self.centre.1 * 0.3);
        let toward = link.via.as_deref().and_then(place).unwrap_or(bent);
        let width = 1.0 + (weight(link) as f64 / 10_000.0).max(1.0).log10() * 1.2;
        let dash = if link.kind == PathKind::Relayed { "7 4" } else { "none" };
        let figures = format!("{}, {}", text::rtt(link.rtt_us), text::rate(link.sent));
        sheet.curve([from, toward, to], (colour(topology, link), width, dash), &figures);
        if is_one_of_few {
            // The curve passes half way between its ends and what it bends to.
            sheet.words(middle.middle(toward), 10, INK, Anchor::Middle, &figures);
        }
    }

    fn mark(&self, sheet: &mut Sheet, node: &Node) {
        let Some((at, angle)) = self.places.get(node.id.as_str()).copied() else { return };
        let stroke = if node.is_here { INK } else { DIRECT };
        let colours = (if node.is_up { "#ffffff" } else { PALE }, if node.is_up { stroke } else { FAINT });
        let name = cut(&node.name, LETTERS + 6);
        if node.is_supernode {
            sheet.square(at, 9.0, colours);
            return sheet.words(Point(at.0, at.1 + 20.0), 11, INK, Anchor::Middle, &name);
        }
        sheet.dot(at, if node.is_here { 8.0 } else { 6.0 }, colours);
        let degrees = angle.to_degrees();
        let (anchor, turn) =
            if angle.cos() < -1e-9 { (Anchor::End, degrees + 180.0) } else { (Anchor::Start, degrees) };
        let name = cut(&node.name, LETTERS);
        sheet.turned_words(self.centre.toward(angle, self.radius + 22.0), 12, INK, (anchor, turn), &name);
    }

    fn name_sites(&self, sheet: &mut Sheet, topology: &Topology) {
        let longest = topology.nodes.iter().filter(|node| !node.is_supernode);
        let longest = longest.map(|node| node.name.chars().count().min(LETTERS)).max().unwrap_or(0) as f64;
        for (site, start, end) in &self.sites {
            let angle = (start + end) / 2.0;
            let at = self.centre.toward(angle, self.radius + 34.0 + 7.5 * longest);
            let anchor = match angle.cos() {
                side if side > 0.3 => Anchor::Start,
                side if side < -0.3 => Anchor::End,
                _ => Anchor::Middle,
            };
            sheet.words(at, 13, FAINT, anchor, &cut(site, LETTERS));
        }
    }
}

fn colour(topology: &Topology, link: &Link) -> &'static str {
    let is_planned = topology.routes.iter().any(|route| (&route.from, &route.to) == (&link.from, &link.to));
    match link.kind {
        _ if link.is_limited == Some(true) => HELD_BACK,
        _ if is_planned => PLANNED,
        PathKind::Relayed => RELAYED,
        PathKind::Direct | PathKind::None => DIRECT,
    }
}

/// What the lines mean, the busiest links with their figures, and what is not known.
fn legend(sheet: &mut Sheet, at: Point, topology: &Topology, links: &[Link], name: impl Fn(&str) -> String + Copy) {
    let mut y = at.1;
    let lines = [
        (DIRECT, "none", "direct"),
        (RELAYED, "7 4", "relayed"),
        (PLANNED, "7 4", "by plan or order"),
        (HELD_BACK, "none", "held back by the network"),
    ];
    for (colour, dash, words) in lines {
        let (from, to) = (Point(at.0, y), Point(at.0 + 40.0, y));
        sheet.curve([from, from.middle(to), to], (colour, 2.5, dash), words);
        sheet.words(Point(at.0 + 50.0, y), 11, INK, Anchor::Start, words);
        y += LINE;
    }
    y += LINE / 2.0;
    let columns = [0.0, 190.0, 270.0, 345.0];
    let row = |sheet: &mut Sheet, y: f64, colour: &str, cells: [String; 4]| {
        for (x, cell) in columns.iter().zip(&cells) {
            sheet.words(Point(at.0 + x, y), 10, colour, Anchor::Start, cell);
        }
    };
    row(sheet, y, FAINT, ["busiest links", "round trip", "lost", "sent / heard"].map(str::to_owned));
    for link in links.iter().rev().take(LISTED) {
        y += LINE;
        let short = |id: &str| cut(&name(id), 13);
        let via = link.via.as_deref().map(|via| format!(" by {}", cut(&name(via), 8))).unwrap_or_default();
        let rates = format!("{} / {}", text::rate(link.sent), text::rate(link.heard));
        let ends = cut(&format!("{} > {}{via}", short(&link.from), short(&link.to)), 32);
        row(sheet, y, INK, [ends, text::rtt(link.rtt_us), text::loss(link.loss_percent), rates]);
    }
    y += LINE / 2.0;
    for unknown in &topology.unknown {
        y += LINE;
        let words = format!("not known: {}", cut(unknown, 64));
        sheet.words(Point(at.0, y), 10, FAINT, Anchor::Start, &words);
    }
}
