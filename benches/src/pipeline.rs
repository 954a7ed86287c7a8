//! Rows a second of whole pipelines: the real daemon, from its start to its end.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::daemon::{Daemon, Usage};
use crate::measure::Spread;
use crate::report::{Line, Section, Unit};

struct Case {
    name: &'static str,
    plugins: &'static [&'static str],
    checkpoint: &'static str,
    /// On one core.
    pinned: bool,
    /// A part of the rows that the others have: its transform is slow.
    part: u64,
}

const CASES: [Case; 7] = [
    Case { name: "rate -> blackhole", plugins: &[], checkpoint: "1s", pinned: true, part: 1 },
    Case {
        name: "rate -> even-filter -> blackhole",
        plugins: &["even-filter"],
        checkpoint: "1s",
        pinned: true,
        part: 1,
    },
    Case {
        name: "the same, a checkpoint every 10 ms",
        plugins: &["even-filter"],
        checkpoint: "10ms",
        pinned: true,
        part: 1,
    },
    Case {
        name: "the same, no checkpoint until the end",
        plugins: &["even-filter"],
        checkpoint: "1h",
        pinned: true,
        part: 1,
    },
    Case { name: "the same, all cores", plugins: &["even-filter"], checkpoint: "1s", pinned: false, part: 1 },
    Case {
        name: "rate -> even-filter, 4 times -> blackhole",
        plugins: &["even-filter", "even-filter", "even-filter", "even-filter"],
        checkpoint: "1s",
        pinned: true,
        part: 1,
    },
    Case { name: "rate -> sine-wave -> blackhole", plugins: &["sine-wave"], checkpoint: "1s", pinned: true, part: 20 },
];

pub(crate) fn measure(daemon: &Daemon, rows: u64, rounds: usize) -> Result<Section> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let mut usages: Vec<Vec<Usage>> = CASES.iter().map(|_| Vec::new()).collect();
    for (index, case) in CASES.iter().enumerate() {
        write(folder.path(), index, case, rows)?;
        // So that the compiled code is in the cache.
        run(daemon, folder.path(), index, case)?;
    }
    for round in 0..rounds {
        for turn in 0..CASES.len() {
            let index = (round + turn) % CASES.len();
            let (Some(case), Some(usages)) = (CASES.get(index), usages.get_mut(index)) else { continue };
            usages.push(run(daemon, folder.path(), index, case)?);
        }
    }
    let lines = CASES.iter().zip(&usages).map(|(case, usages)| line(case, rows, usages)).collect();
    Ok(Section {
        name: "pipeline",
        about: format!(
            "`acequia run --once`, kept on one core: {rows} rows from `rate` at \"max\" (a twentieth for the sine wave), counted by `blackhole`. \
             Wall and processor time are the whole process's, start and stop included. Median and extremes of {rounds} rounds, in turns."
        ),
        of: "pipeline",
        columns: vec![
            ("rows", Unit::MillionsPerSecond),
            ("a row", Unit::Nanos),
            ("its processor time", Unit::Nanos),
            ("wall", Unit::Seconds),
            ("peak memory", Unit::Mebibytes),
        ],
        lines,
    })
}

fn line(case: &Case, rows: u64, usages: &[Usage]) -> Line {
    let rows = (rows / case.part) as f64;
    let spread = |value: &dyn Fn(&Usage) -> f64| Some(Spread::of(usages.iter().map(value)));
    Line {
        case: case.name.to_owned(),
        figures: vec![
            spread(&|usage| rows / usage.wall / 1e6),
            spread(&|usage| usage.wall * 1e9 / rows),
            spread(&|usage| usage.cpu * 1e9 / rows),
            spread(&|usage| usage.wall),
            spread(&|usage| usage.peak / f64::from(1 << 20)),
        ],
    }
}

fn write(folder: &Path, index: usize, case: &Case, rows: u64) -> Result<()> {
    let mut text = format!("[source]\ntype = \"rate\"\nrows_per_second = \"max\"\nrows = {}\n", rows / case.part);
    for plugin in case.plugins {
        text.push_str(&format!("\n[[transform]]\nplugin = \"{plugin}\"\n"));
    }
    text.push_str(&format!(
        "\n[[sink]]\ntype = \"blackhole\"\n\n[delivery]\ncheckpoint_interval = \"{}\"\n",
        case.checkpoint
    ));
    Ok(std::fs::write(folder.join(format!("p{index}.toml")), text)?)
}

fn run(daemon: &Daemon, folder: &Path, index: usize, case: &Case) -> Result<Usage> {
    let state = folder.join(format!("state{index}"));
    // Each run from the first row on; the compiled code stays.
    let _ = std::fs::remove_file(state.join("acequia.redb"));
    let usage = daemon.run(&folder.join(format!("p{index}.toml")), &state, &["--once"], case.pinned)?.wait();
    usage.with_context(|| case.name.to_owned())
}
