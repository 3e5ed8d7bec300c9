//! What the pictures have in common: a sheet, lines and words on it, colours.

use svg::Document;
use svg::node::element::{Circle, Path, Rectangle, Text, Title};

pub(super) const INK: &str = "#24292f";
pub(super) const FAINT: &str = "#8c959f";
pub(super) const PALE: &str = "#d8dee4";

/// A point, x to the right and y down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point(pub(super) f64, pub(super) f64);

impl Point {
    /// So far from `self` in this direction, 0 to the right and clockwise.
    pub(super) fn toward(self, angle: f64, distance: f64) -> Self {
        Self(self.0 + angle.cos() * distance, self.1 + angle.sin() * distance)
    }

    pub(super) fn middle(self, other: Self) -> Self {
        Self((self.0 + other.0) / 2.0, (self.1 + other.1) / 2.0)
    }
}

/// Where words stand beside their point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A sheet that is drawn on.
pub(super) struct Sheet(Document);

impl Sheet {
    pub(super) fn new(width: f64, height: f64) -> Self {
        let document = Document::new()
            .set("viewBox", (0.0, 0.0, width.round(), height.round()))
            .set("width", width.round())
            .set("height", height.round())
            .set("font-family", "DejaVu Sans, Verdana, sans-serif");
        Self(document.add(Rectangle::new().set("width", "100%").set("height", "100%").set("fill", "#ffffff")))
    }

    pub(super) fn words(&mut self, at: Point, size: u32, colour: &str, anchor: Anchor, words: &str) {
        self.write(at, (size, colour), (anchor, 0.0), words, true);
    }

    /// Without a rim: on what has a colour.
    pub(super) fn plain_words(&mut self, at: Point, size: u32, colour: &str, words: &str) {
        self.write(at, (size, colour), (Anchor::Middle, 0.0), words, false);
    }

    /// Turned around their point, in degrees.
    pub(super) fn turned_words(&mut self, at: Point, size: u32, colour: &str, turned: (Anchor, f64), words: &str) {
        self.write(at, (size, colour), turned, words, true);
    }

    fn write(
        &mut self,
        at: Point,
        (size, colour): (u32, &str),
        (anchor, turn): (Anchor, f64),
        words: &str,
        halo: bool,
    ) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let mut text = Text::new(words)
            .set("x", round(at.0))
            .set("y", round(at.1))
            .set("dy", "0.35em")
            .set("font-size", size)
            .set("fill", colour)
            .set("text-anchor", anchor);
        if halo {
            // What lies below does not cross the letters.
            text = text.set("stroke", "#ffffff").set("stroke-width", 3).set("paint-order", "stroke");
        }
        if turn != 0.0 {
            text = text.set("transform", format!("rotate({} {} {})", round(turn), round(at.0), round(at.1)));
        }
        self.add(text);
    }

    /// A curve from one point to another, drawn towards a third; the words appear where the pointer rests on it.
    pub(super) fn curve(
        &mut self,
        [from, toward, to]: [Point; 3],
        (colour, width, dash): (&str, f64, &str),
        says: &str,
    ) {
        let data = format!(
            "M{} {} Q{} {} {} {}",
            round(from.0),
            round(from.1),
            round(toward.0),
            round(toward.1),
            round(to.0),
            round(to.1)
        );
        let path =
            Path::new().set("d", data).set("fill", "none").set("stroke", colour).set("stroke-width", round(width));
        self.add(path.set("stroke-dasharray", dash).add(Title::new(says)));
    }

    /// Along a circle, between two angles.
    pub(super) fn arc(&mut self, (centre, radius): (Point, f64), (start, end): (f64, f64), colour: &str, width: f64) {
        let (from, to) = (centre.toward(start, radius), centre.toward(end, radius));
        let large = i32::from(end - start > std::f64::consts::PI);
        let radius = round(radius);
        let data = format!(
            "M{} {} A{radius} {radius} 0 {large} 1 {} {}",
            round(from.0),
            round(from.1),
            round(to.0),
            round(to.1)
        );
        let path = Path::new().set("d", data).set("fill", "none").set("stroke", colour).set("stroke-width", width);
        self.add(path.set("stroke-linecap", "round"));
    }

    pub(super) fn dot(&mut self, at: Point, radius: f64, (fill, stroke): (&str, &str)) {
        let dot = Circle::new().set("cx", round(at.0)).set("cy", round(at.1)).set("r", radius).set("fill", fill);
        self.add(dot.set("stroke", stroke).set("stroke-width", 2));
    }

    pub(super) fn square(&mut self, at: Point, half: f64, (fill, stroke): (&str, &str)) {
        let corner = Point(at.0 - half, at.1 - half);
        self.cell(corner, (2.0 * half, 2.0 * half), (fill, stroke), "");
    }

    pub(super) fn cell(&mut self, at: Point, (width, height): (f64, f64), (fill, stroke): (&str, &str), says: &str) {
        let cell = Rectangle::new().set("x", round(at.0)).set("y", round(at.1)).set("width", round(width));
        let cell = cell.set("height", round(height)).set("fill", fill).set("stroke", stroke);
        self.add(if says.is_empty() { cell } else { cell.add(Title::new(says)) });
    }

    fn add(&mut self, node: impl Into<Box<dyn svg::Node>>) {
        svg::Node::append(&mut self.0, node);
    }

    pub(super) fn text(&self) -> String {
        format!("{}\n", self.0)
    }
}

/// A tenth of a point is fine enough.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Words cut to so many letters.
pub(super) fn cut(words: &str, letters: usize) -> String {
    if words.chars().count() <= letters {
        return words.to_owned();
    }
    words.chars().take(letters.saturating_sub(1)).chain(['…']).collect()
}
