//! A picture of the medians: a panel per figure, a bar per candidate, a whisker for the rounds' spread.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::candidate::PEERS;
use crate::figure::{Better, Figure, digits};
use crate::options::Underlay;
use crate::results::{Results, Spread};
use crate::stage::Candidate;

/// What is drawn, two panels in a row.
const FIGURES: [Figure; 8] = [
    Figure::Tcp1,
    Figure::Tcp4,
    Figure::Cpu,
    Figure::Machine,
    Figure::Udp,
    Figure::Frames,
    Figure::PingFlood,
    Figure::PingLoaded,
];
const COLUMNS: usize = 2;
const PANEL_WIDTH: i32 = 620;
/// Above the bars of a panel: its title.
const TITLE: i32 = 40;
/// One bar with the space around it.
const ROW: i32 = 24;
/// Left of the bars: names.
const NAMES: i32 = 140;
/// Right of the longest bar: its value.
const VALUES: i32 = 70;
/// Between panels.
const MARGIN: i32 = 16;
/// Above everything: what it is.
const HEAD: i32 = 36;

const OURS: RGBColor = RGBColor(0, 105, 148);
const KERNEL: RGBColor = RGBColor(150, 150, 150);
const OTHERS: RGBColor = RGBColor(217, 119, 54);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// What is drawn, and a bar for each candidate that has it.
type Panel = (Figure, Vec<(&'static str, Spread)>);
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// Writes the picture.
pub fn draw(file: &Path, candidates: &[Candidate], results: &Results, underlay: Underlay) -> Result<(), String> {
    let panels = FIGURES.map(|figure| (figure, bars(figure, candidates, results, underlay)));
    let panels = panels.iter().filter(|(_, bars)| !bars.is_empty()).collect::<Vec<_>>();
    let heights = panels.chunks(COLUMNS).map(height).collect::<Vec<_>>();
    let size = [PANEL_WIDTH * COLUMNS as i32, HEAD + heights.iter().sum::<i32>()].map(|side| side.unsigned_abs());
    let picture = || -> Drawn {
        let whole = SVGBackend::new(file, (size[0], size[1])).into_drawing_area();
        whole.fill(&WHITE)?;
        let head = format!("Medians, rounds: {}, underlay: {}", results.rounds(), underlay.key());
        whole.draw(&Text::new(head, (MARGIN, MARGIN), ("sans-serif", 18).into_font()))?;
        let (_, mut below) = whole.split_vertically(HEAD);
        for (row, height) in panels.chunks(COLUMNS).zip(&heights) {
            let (these, rest) = below.split_vertically(*height);
            for (area, (figure, bars)) in these.split_evenly((1, COLUMNS)).iter().zip(row) {
                panel(area, *figure, bars)?;
            }
            below = rest;
        }
        whole.present()
    };
    picture().map_err(|error| format!("{}: {error}", file.display()))
}

/// The height of panels beside each other.
fn height(row: &[&Panel]) -> i32 {
    let most = row.iter().map(|(_, bars)| bars.len()).max().unwrap_or(0);
    TITLE + ROW * i32::try_from(most).unwrap_or(0) + MARGIN
}

fn bars(
    figure: Figure,
    candidates: &[Candidate],
    results: &Results,
    underlay: Underlay,
) -> Vec<(&'static str, Spread)> {
    let bar = |candidate: &Candidate| Some((candidate.name, results.spread(underlay, candidate.name, figure)?));
    candidates.iter().filter_map(bar).collect()
}

fn panel(area: &Area<'_>, figure: Figure, bars: &[(&str, Spread)]) -> Drawn {
    let better = if figure.better() == Better::More { "more is better" } else { "less is better" };
    let title = format!("{} ({better})", figure.title());
    area.draw(&Text::new(title, (MARGIN, MARGIN), ("sans-serif", 16).into_font()))?;
    let longest = bars.iter().map(|(_, spread)| spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let room = f64::from(PANEL_WIDTH - NAMES - VALUES - MARGIN);
    let at = |value: f64| NAMES + (value / longest * room) as i32;
    for (row, (name, spread)) in bars.iter().enumerate() {
        let top = TITLE + ROW * i32::try_from(row).unwrap_or(0);
        let middle = top + ROW / 2;
        let text = |size: u32, h| TextStyle::from(("sans-serif", size).into_font()).pos(Pos::new(h, VPos::Center));
        area.draw(&Text::new(*name, (NAMES - 8, middle), text(13, HPos::Right)))?;
        let corners = [(NAMES, top + 4), (at(spread.median).max(NAMES + 1), top + ROW - 4)];
        area.draw(&Rectangle::new(corners, color(name).filled()))?;
        let whisker = [(at(spread.min), middle), (at(spread.max), middle)];
        area.draw(&PathElement::new(whisker, BLACK.stroke_width(1)))?;
        area.draw(&Text::new(digits(spread.median), (at(spread.max) + 6, middle), text(13, HPos::Left)))?;
    }
    Ok(())
}

fn color(name: &str) -> RGBColor {
    match name {
        name if name.starts_with("longwire") => OURS,
        name if PEERS.contains(&name) => OTHERS,
        _ => KERNEL,
    }
}
