//! JSON lines from file to file.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::daemon::{Daemon, Usage};
use crate::measure::Spread;
use crate::report::{Line, Section, Unit};

struct Case {
    name: &'static str,
    filtered: bool,
    /// Kept on one core.
    pinned: bool,
}

const CASES: [Case; 3] = [
    Case { name: "file -> even-filter -> file", filtered: true, pinned: true },
    Case { name: "file -> file", filtered: false, pinned: true },
    Case { name: "file -> even-filter -> file, all cores", filtered: true, pinned: false },
];

pub(crate) fn measure(daemon: &Daemon, rows: u64, rounds: usize) -> Result<Section> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let size = write_input(&folder.path().join("in.jsonl"), rows)?;
    let mut usages = CASES.map(|_| Vec::new());
    // One round more: the first compiles, and is not counted.
    for round in 0..=rounds {
        for (case, usages) in CASES.iter().zip(&mut usages) {
            let usage = run(daemon, folder.path(), case, rows).with_context(|| case.name)?;
            if round > 0 {
                usages.push(usage);
            }
        }
    }
    let line = |name: &str, usages: &[Usage]| {
        let spread = |value: &dyn Fn(&Usage) -> f64| Some(Spread::of(usages.iter().map(value)));
        Line {
            case: name.to_owned(),
            figures: vec![
                spread(&|usage| rows as f64 / usage.wall / 1e6),
                spread(&|usage| usage.cpu * 1e9 / rows as f64),
                spread(&|usage| usage.wall),
                spread(&|usage| usage.peak / f64::from(1 << 20)),
            ],
        }
    };
    Ok(Section {
        name: "file",
        about: format!(
            "{rows} JSON lines, {:.1} MB, of a number, a name and a time, from file to file, types inferred; where nothing else is said, in a daemon kept on one core. \
             Median and extremes of {rounds} rounds, in turns.",
            size as f64 / 1e6
        ),
        of: "pipeline",
        columns: vec![
            ("rows", Unit::MillionsPerSecond),
            ("processor time a row", Unit::Nanos),
            ("wall", Unit::Seconds),
            ("peak memory", Unit::Mebibytes),
        ],
        lines: CASES.iter().zip(&usages).map(|(case, usages)| line(case.name, usages)).collect(),
    })
}

/// `{"value":7,"name":"user 7","time":"2020-04-13 12:09:37.768982"}`: row 7 of the input.
pub(crate) fn line(row: u64) -> String {
    let (minute, second, micros) = (row / 60 % 60, row % 60, row % 1_000_000);
    format!(r#"{{"value":{row},"name":"user {row}","time":"2020-04-13 12:{minute:02}:{second:02}.{micros:06}"}}"#)
}

/// Lines from row 0 on; returns the size in bytes.
pub(crate) fn write_input(path: &Path, rows: u64) -> Result<u64> {
    let mut file = BufWriter::new(File::create(path)?);
    for row in 0..rows {
        writeln!(file, "{}", line(row))?;
    }
    file.flush()?;
    Ok(std::fs::metadata(path)?.len())
}

fn run(daemon: &Daemon, folder: &Path, case: &Case, rows: u64) -> Result<Usage> {
    let Case { filtered, pinned, .. } = *case;
    let transform = if filtered { "[[transform]]\nplugin = \"even-filter\"\n\n" } else { "" };
    let pipeline = folder.join("lines.toml");
    let sink = "[[sink]]\ntype = \"file\"\npath = \"out.jsonl\"\n";
    std::fs::write(&pipeline, format!("[source]\ntype = \"file\"\npath = \"in.jsonl\"\n\n{transform}{sink}"))?;
    let (state, output) = (folder.join("state"), folder.join("out.jsonl"));
    let _ = std::fs::remove_file(state.join("acequia.redb"));
    let _ = std::fs::remove_file(&output);
    let usage = daemon.run(&pipeline, &state, &["--once"], pinned)?.wait()?;
    let written = BufReader::new(File::open(&output)?).split(b'\n').count() as u64;
    let expected = if filtered { rows.div_ceil(2) } else { rows };
    ensure!(written == expected, "{written} rows were written, not {expected}");
    Ok(usage)
}
