//! More pipelines in one daemon: the same rows in all, shared out among them.

use anyhow::{Context as _, Result};

use super::{Growth, curve, grouped, in_turns, spread};
use crate::daemon::Daemon;
use crate::plot::{Panel, Plot};
use crate::report::{Line, Section, Unit};

const SIZES: [u64; 7] = [1, 3, 10, 30, 100, 300, 1000];
/// In all pipelines together.
const ROWS: u64 = 2_000_000_000;

pub(super) fn measure(daemon: &Daemon, rounds: usize) -> Result<Growth> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let state = folder.path().join("state");
    let place = |size: u64| folder.path().join(format!("pipelines{size}"));
    for size in SIZES {
        std::fs::create_dir(place(size))?;
        for number in 0..size {
            let text = format!(
                "[source]\ntype = \"rate\"\nrows_per_second = \"max\"\nrows = {}\n\n[[transform]]\nplugin = \"even-filter\"\n\n\
                 [[sink]]\ntype = \"blackhole\"\n",
                ROWS / size
            );
            std::fs::write(place(size).join(format!("even{number}.toml")), text)?;
        }
    }
    let run = |size: &u64| {
        // Each run from the first row on; the compiled code stays.
        let _ = std::fs::remove_file(state.join("acequia.redb"));
        daemon.run(&place(*size), &state, &["--once"], false)?.wait()
    };
    run(&1)?;
    let usages = in_turns(&SIZES, rounds, run)?;
    let lines: Vec<Line> = SIZES
        .iter()
        .zip(&usages)
        .map(|(size, usages)| Line {
            case: grouped(*size),
            figures: vec![
                spread(usages, |usage| ROWS as f64 / usage.wall / 1e6),
                spread(usages, |usage| usage.cpu * 1e9 / ROWS as f64),
                spread(usages, |usage| usage.wall),
                spread(usages, |usage| usage.peak / f64::from(1 << 20)),
            ],
        })
        .collect();
    let sizes = SIZES.map(|size| size as f64);
    let panel = |y, name: &str, column, whole| Panel {
        x: "pipelines",
        y,
        curves: vec![curve(name, &sizes, &lines, column)],
        whole,
    };
    Ok(Growth {
        file: "pipelines.svg",
        plot: Plot {
            title: format!("{} rows through 1 to 1,000 pipelines", grouped(ROWS)),
            panels: vec![
                panel("million rows a second, all together", "rate -> even-filter -> blackhole", 0, false),
                panel("a row, ns of processor time", "rate -> even-filter -> blackhole", 1, false),
                panel("peak memory, MiB", "rate -> even-filter -> blackhole", 3, true),
            ],
        },
        section: Section {
            name: "growth: pipelines",
            about: format!(
                "`acequia run --once` on a folder of so many pipelines, each rate at \"max\" -> even-filter -> blackhole, {} rows in all of them \
                 together; start and stop included, on all cores. Median and extremes of {rounds} rounds, in turns.",
                grouped(ROWS)
            ),
            of: "pipelines",
            columns: vec![
                ("rows, all together", Unit::MillionsPerSecond),
                ("processor time a row", Unit::Nanos),
                ("wall", Unit::Seconds),
                ("peak memory", Unit::Mebibytes),
            ],
            lines,
        },
    })
}
