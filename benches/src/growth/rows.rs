//! Wider rows and longer rows: JSON lines from file to file, as they are and through a plugin.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::{Growth, curve, grouped, in_turns, spread};
use crate::daemon::{Daemon, Usage};
use crate::plot::{Panel, Plot};
use crate::report::{Line, Section, Unit};

const COLUMNS: [u64; 8] = [1, 2, 5, 10, 20, 50, 100, 200];
/// Values in all rows together, and rows at most.
const VALUES: u64 = 4_000_000;
const MOST_ROWS: u64 = 800_000;

const BYTES: [u64; 5] = [10, 100, 1_000, 10_000, 100_000];
/// Bytes in all rows together.
const TOTAL: u64 = 64_000_000;

/// How a row comes from the one file to the other.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    transform: &'static str,
}

/// Reads one column, whatever there is beside it.
const ONE: Way = Way {
    name: "through even-filter, which reads one column",
    transform: "[[transform]]\nplugin = \"even-filter\"\nconfig = { column = \"c0\" }\n",
};
/// Reads the whole text of the row.
const ALL: Way = Way {
    name: "through uuid, which reads all of it",
    transform: "[[transform]]\nplugin = \"uuid\"\nconfig = { from = [\"c0\"] }\n",
};
const PLAIN: Way = Way { name: "file -> file", transform: "" };

pub(super) fn columns(daemon: &Daemon, rounds: usize) -> Result<Growth> {
    let rows = |columns: u64| (VALUES / columns).min(MOST_ROWS);
    let make = |columns: u64, file: &mut dyn Write| {
        for row in 0..rows(columns) {
            // Even, so that the filter keeps every row and both ways write the same.
            write!(file, "{{\"c0\":{}", row * 2)?;
            for column in 1..columns {
                match column % 3 {
                    0 => write!(file, ",\"c{column}\":{}", row + column)?,
                    1 => write!(file, ",\"c{column}\":\"text {}\"", row % 1000)?,
                    _ => write!(file, ",\"c{column}\":{}.5", row % 1000)?,
                }
            }
            writeln!(file, "}}")?;
        }
        Ok(())
    };
    let lines = compare(daemon, rounds, &COLUMNS, [PLAIN, ONE], &rows, &make)?;
    let of = ("columns", "a row, ns of processor time", "a value, ns of processor time");
    let plot = plot("JSON lines from file to file, 1 to 200 columns", of, &COLUMNS, [PLAIN, ONE], &lines);
    let about = format!(
        "JSON lines from file to file, types inferred, in a daemon kept on one core: {} values in all (at most {} rows), integers, texts and \
         decimals in turn. Processor time of the whole process, start and stop included. Median and extremes of {rounds} rounds, in turns.",
        grouped(VALUES),
        grouped(MOST_ROWS)
    );
    let columns = vec![
        ("a row", Unit::Nanos),
        ("a value", Unit::Nanos),
        ("peak memory", Unit::Mebibytes),
        ("a row, even-filter", Unit::Nanos),
        ("a value, even-filter", Unit::Nanos),
        ("peak memory, even-filter", Unit::Mebibytes),
    ];
    let section = Section { name: "growth: columns", about, of: "columns", columns, lines };
    Ok(Growth { section, file: "columns.svg", plot })
}

pub(super) fn bytes(daemon: &Daemon, rounds: usize) -> Result<Growth> {
    let rows = |bytes: u64| (TOTAL / bytes).min(2_000_000);
    let make = |bytes: u64, file: &mut dyn Write| {
        // `{"c0":""}` and the line break are ten.
        let long = "the quick brown fox jumps over the lazy dog ".repeat(bytes as usize / 44 + 1);
        let long = &long[..(bytes as usize).saturating_sub(10)];
        for row in 0..rows(bytes) {
            if long.is_empty() {
                // One digit too few for ten: eleven is the least that has something in it.
                writeln!(file, "{{\"c0\":\"{}\"}}", row % 10)?;
            } else {
                writeln!(file, "{{\"c0\":\"{long}\"}}")?;
            }
        }
        Ok(())
    };
    let lines = compare(daemon, rounds, &BYTES, [PLAIN, ALL], &rows, &make)?;
    let of = ("bytes of a row", "a row, ns of processor time", "a byte, ns of processor time");
    let plot = plot("JSON lines from file to file, 10 to 100,000 bytes", of, &BYTES, [PLAIN, ALL], &lines);
    let about = format!(
        "JSON lines with one text, from file to file, in a daemon kept on one core: {} bytes in all (at most 2,000,000 rows). Processor time of the \
         whole process, start and stop included. Median and extremes of {rounds} rounds, in turns.",
        grouped(TOTAL)
    );
    let columns = vec![
        ("a row", Unit::Nanos),
        ("a byte", Unit::Nanos),
        ("peak memory", Unit::Mebibytes),
        ("a row, uuid", Unit::Nanos),
        ("a byte, uuid", Unit::Nanos),
        ("peak memory, uuid", Unit::Mebibytes),
    ];
    let section = Section { name: "growth: bytes", about, of: "bytes of a row", columns, lines };
    Ok(Growth { section, file: "bytes.svg", plot })
}

/// A line for each size; its figures are a row, a part of a row and the peak memory, for each way.
fn compare(
    daemon: &Daemon,
    rounds: usize,
    sizes: &[u64],
    ways: [Way; 2],
    rows: &dyn Fn(u64) -> u64,
    make: &dyn Fn(u64, &mut dyn Write) -> Result<()>,
) -> Result<Vec<Line>> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    for size in sizes {
        let mut file = BufWriter::new(File::create(folder.path().join(format!("in{size}.jsonl")))?);
        make(*size, &mut file)?;
        file.flush()?;
    }
    let cases: Vec<(u64, Way)> = sizes.iter().flat_map(|size| ways.map(|way| (*size, way))).collect();
    // So that the compiled code is in the cache.
    for way in ways {
        let size = sizes.last().copied().unwrap_or_default();
        run(daemon, folder.path(), size, way, rows(size))?;
    }
    let usages = in_turns(&cases, rounds, |(size, way)| run(daemon, folder.path(), *size, *way, rows(*size)))?;
    let lines = sizes.iter().zip(usages.chunks(ways.len())).map(|(size, usages)| {
        let rows = rows(*size) as f64;
        let figures = usages.iter().flat_map(|usages| {
            [
                spread(usages, |usage| usage.cpu * 1e9 / rows),
                spread(usages, |usage| usage.cpu * 1e9 / rows / *size as f64),
                spread(usages, |usage| usage.peak / f64::from(1 << 20)),
            ]
        });
        Line { case: grouped(*size), figures: figures.collect() }
    });
    Ok(lines.collect())
}

fn run(daemon: &Daemon, folder: &Path, size: u64, way: Way, rows: u64) -> Result<Usage> {
    let (pipeline, state, output) = (folder.join("lines.toml"), folder.join("state"), folder.join("out.jsonl"));
    let text = format!(
        "[source]\ntype = \"file\"\npath = \"in{size}.jsonl\"\n\n{}\n[[sink]]\ntype = \"file\"\npath = \"out.jsonl\"\n",
        way.transform
    );
    std::fs::write(&pipeline, text)?;
    let _ = std::fs::remove_file(state.join("acequia.redb"));
    let _ = std::fs::remove_file(&output);
    let usage = daemon.run(&pipeline, &state, &["--once"], true)?.wait()?;
    let written = BufReader::new(File::open(&output)?).split(b'\n').count() as u64;
    ensure!(written == rows, "{written} rows were written, not {rows}");
    Ok(usage)
}

/// The cost of a row, where linear goes up with its size, and that of a part of it, where linear is flat.
fn plot(
    title: &str,
    of: (&'static str, &'static str, &'static str),
    sizes: &[u64],
    ways: [Way; 2],
    lines: &[Line],
) -> Plot {
    let (x, row, part) = of;
    let sizes: Vec<f64> = sizes.iter().map(|size| *size as f64).collect();
    let panel = |y, column, whole| {
        let curves = ways.iter().enumerate();
        let curves = curves.map(|(index, way)| curve(way.name, &sizes, lines, 3 * index + column)).collect();
        Panel { x, y, curves, whole }
    };
    Plot { title: title.to_owned(), panels: vec![panel(row, 0, true), panel(part, 1, false)] }
}
