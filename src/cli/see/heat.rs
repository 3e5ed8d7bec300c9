//! The traffic matrix as a heat map: senders are rows, receivers columns, colours go by the logarithm of the rate.

use std::collections::{BTreeMap, BTreeSet};

use longwire::control::sight::Traffic;

use super::chart::{Anchor, FAINT, INK, PALE, Point, Sheet, cut};
use super::text::{patterns, rate};
use crate::cli::table::bytes;

/// Rows and columns that a picture has room for; those that talk most.
const SIDE_MAX: usize = 64;
/// The picture of the cells is about so large.
const SPREAD: f64 = 560.0;
/// A cell of this size has room for its figure.
const ROOM: f64 = 44.0;
/// Letters of a label.
const LETTERS: usize = 20;
/// Decades of rates that are told apart.
const DECADES: f64 = 4.0;
/// From little to much.
const COLOURS: [[f64; 3]; 5] =
    [[255., 247., 188.], [254., 196., 79.], [236., 112., 20.], [189., 0., 38.], [80., 0., 38.]];

/// Who sends how much to whom.
pub(super) struct Grid {
    title: String,
    patterns: String,
    names: Vec<String>,
    rates: BTreeMap<(usize, usize), u64>,
    left_out: usize,
    /// What is said if there are none.
    none: String,
}

impl Grid {
    pub(super) fn new(traffic: &Traffic, machines: bool) -> Self {
        let (talks, unknown) = match machines {
            true => (&traffic.machines, &traffic.machines_unknown),
            false => (&traffic.hosts, &traffic.hosts_unknown),
        };
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for talk in talks {
            *sums.entry(&talk.from).or_default() += talk.bytes_per_s;
            *sums.entry(&talk.to).or_default() += talk.bytes_per_s;
        }
        let mut busiest = sums.iter().map(|(name, sum)| (*sum, *name)).collect::<Vec<_>>();
        busiest.sort_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(other.1)));
        let names: BTreeSet<&str> = busiest.iter().take(SIDE_MAX).map(|(_, name)| *name).collect();
        let place: BTreeMap<&str, usize> = names.iter().enumerate().map(|(place, name)| (*name, place)).collect();
        let mut rates = BTreeMap::new();
        for talk in talks {
            if let (Some(from), Some(to)) = (place.get(talk.from.as_str()), place.get(talk.to.as_str())) {
                *rates.entry((*from, *to)).or_default() += talk.bytes_per_s;
            }
        }
        let what = if machines { "machines" } else { "hosts" };
        Self {
            title: format!("{what} of {}, as {} sees them", cut(&traffic.overlay, LETTERS), traffic.seen_by),
            patterns: patterns(traffic),
            left_out: sums.len() - names.len(),
            names: names.into_iter().map(str::to_owned).collect(),
            rates,
            none: unknown.clone().unwrap_or_else(|| "nothing flows".into()),
        }
    }

    fn most(&self) -> u64 {
        self.rates.values().copied().max().unwrap_or(0)
    }

    /// From 0 to 1 by the logarithm; 1 is the most there is.
    fn warmth(&self, rate: u64) -> f64 {
        let below = (self.most().max(1) as f64 / rate.max(1) as f64).log10();
        (1.0 - below / DECADES).clamp(0.0, 1.0)
    }

    fn note(&self) -> String {
        if self.left_out == 0 { String::new() } else { format!("{} that talk less are left out\n", self.left_out) }
    }

    /// For a terminal: the darker, the more.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}\n{}{}", self.title, self.patterns, self.note());
        if self.names.is_empty() {
            return format!("{text}{}\n", self.none);
        }
        let width = self.names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let numbers = (1..=self.names.len()).map(|number| format!("{number:>3}")).collect::<String>();
        text += &format!("{:width$}    {numbers}  SENDS\n", "");
        for (from, name) in self.names.iter().enumerate() {
            let cell = |to| match self.rates.get(&(from, to)) {
                _ if from == to => "  \\",
                None | Some(0) => "  .",
                Some(rate) => ["  ░", " ░░", " ▒▒", " ▓▓", " ██"][(self.warmth(*rate) * 4.0).round() as usize],
            };
            let cells = (0..self.names.len()).map(cell).collect::<String>();
            let sum = self.rates.range((from, 0)..=(from, usize::MAX)).map(|(_, rate)| rate).sum::<u64>();
            text += &format!("{name:width$} {:>3}{cells}  {}\n", from + 1, rate(Some(sum)));
        }
        text + &format!("██ is {}/s, each step down a tenth of it\n", bytes(self.most()))
    }

    pub(super) fn picture(&self) -> String {
        let side = (SPREAD / self.names.len().max(1) as f64).clamp(14.0, 72.0);
        let letters = self.names.iter().map(|name| name.chars().count().min(LETTERS)).max().unwrap_or(0);
        let size = (side * 0.7).clamp(9.0, 13.0) as u32;
        let label = letters as f64 * f64::from(size) * 0.66 + 14.0;
        let spread = side * self.names.len() as f64;
        let corner = Point(24.0 + label, 84.0 + label);
        let width = (corner.0 + spread + 130.0).max(640.0);
        let mut sheet = Sheet::new(width, corner.1 + spread.max(180.0) + 40.0);
        sheet.words(Point(20.0, 24.0), 16, INK, Anchor::Start, &self.title);
        let note = self.note();
        for (number, line) in self.patterns.lines().chain(note.lines()).enumerate() {
            sheet.words(Point(20.0, 46.0 + 16.0 * number as f64), 11, FAINT, Anchor::Start, line);
        }
        for (place, name) in self.names.iter().enumerate() {
            let middle = (place as f64 + 0.5) * side;
            let name = cut(name, LETTERS);
            sheet.words(Point(corner.0 - 8.0, corner.1 + middle), size, INK, Anchor::End, &name);
            let above = Point(corner.0 + middle, corner.1 - 8.0);
            sheet.turned_words(above, size, INK, (Anchor::Start, -90.0), &name);
        }
        self.cells(&mut sheet, corner, side);
        self.scale(&mut sheet, Point(corner.0 + spread + 28.0, corner.1));
        sheet.text()
    }

    fn cells(&self, sheet: &mut Sheet, corner: Point, side: f64) {
        for from in 0..self.names.len() {
            for to in 0..self.names.len() {
                let at = Point(corner.0 + to as f64 * side, corner.1 + from as f64 * side);
                let sent = self.rates.get(&(from, to)).copied().filter(|sent| *sent > 0);
                let fill = match sent {
                    _ if from == to => PALE.to_owned(),
                    None => "#ffffff".into(),
                    Some(sent) => colour(self.warmth(sent)),
                };
                let says = format!("{} to {}: {}", self.names[from], self.names[to], rate(sent.or(Some(0))));
                sheet.cell(at, (side, side), (&fill, PALE), &says);
                if let Some(sent) = sent.filter(|_| side >= ROOM) {
                    let ink = if self.warmth(sent) > 0.6 { "#ffffff" } else { INK };
                    let middle = Point(at.0 + side / 2.0, at.1 + side / 2.0);
                    sheet.plain_words(middle, 10, ink, &bytes(sent));
                }
            }
        }
    }

    /// Which colour is how much.
    fn scale(&self, sheet: &mut Sheet, at: Point) {
        const STEPS: u32 = 5;
        for step in 0..STEPS {
            let corner = Point(at.0, at.1 + f64::from(step) * 26.0);
            sheet.cell(corner, (20.0, 26.0), (&colour(1.0 - f64::from(step) / f64::from(STEPS - 1)), PALE), "");
            let words = rate(Some(self.most() / 10_u64.pow(step)));
            sheet.words(Point(corner.0 + 28.0, corner.1 + 13.0), 11, INK, Anchor::Start, &words);
        }
        let below = Point(at.0, at.1 + f64::from(STEPS) * 26.0 + 14.0);
        sheet.words(below, 11, FAINT, Anchor::Start, "rows send");
    }
}

/// Between the colours of the scale.
fn colour(warmth: f64) -> String {
    let at = warmth * (COLOURS.len() - 1) as f64;
    let below = (at as usize).min(COLOURS.len() - 2);
    let share = at - below as f64;
    let mix = |part: usize| (COLOURS[below][part] * (1.0 - share) + COLOURS[below + 1][part] * share).round() as u8;
    format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2))
}
