//! A story of adaptation: four sites lie idle, a pattern of traffic appears, the planner finds its way round
//! the narrow trunks. Simulated; draws `target/adapt.svg`.
//!
//! ```sh
//! cargo run --example adapt
//! ```

use std::path::Path;

use plotters::prelude::*;

// The simulation serves tests as well, which use more of it.
#[allow(dead_code)]
#[path = "../tests/plan/model.rs"]
mod model;
#[allow(dead_code)]
#[path = "../tests/plan/world.rs"]
mod world;

use model::{Kind, network, pattern};
use world::{Weather, World};

const HOSTS: u16 = 12;
/// Epochs of 2 seconds: idle, a mesh, another one.
const EPOCHS: usize = 60;
const BEGINS: usize = 5;
const SWAPS: usize = 35;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut world = World::new(network(Kind::Sites, HOSTS, 0), Weather { noise: 0.1, drift: 0.05 }, 0);
    let mut curve = Vec::new();
    for epoch in 0..EPOCHS {
        match epoch {
            BEGINS => world.offer(&pattern("mesh2d", HOSTS, 1)),
            SWAPS => world.offer(&pattern("ring", HOSTS, 2)),
            _ => {}
        }
        if let Some(plan) = world.step() {
            eprintln!("{}", plan.reason);
        }
        let least = world.shares.values().copied().reduce(f64::min).unwrap_or(0.0);
        curve.push((2.0 * epoch as f64, 100.0 * least.min(1.0)));
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/adapt.svg");
    draw(&file, &curve)?;
    eprintln!("drawn: {}", file.display());
    Ok(())
}

/// The share of its wish that the worst pair gets, over time.
fn draw(file: &Path, curve: &[(f64, f64)]) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(file, (900, 400)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("What the worst pair gets of what it wants: a mesh at 10 s, a ring at 70 s", ("sans-serif", 18))
        .margin(16)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..2.0 * EPOCHS as f64, 0.0..100.0)?;
    chart.configure_mesh().x_desc("seconds").y_desc("%").draw()?;
    let line = PathElement::new(curve.to_vec(), RGBColor(0, 105, 148).stroke_width(2));
    chart.draw_series([line])?;
    area.present()?;
    Ok(())
}
