//! More state: distinct words that a plugin counts, and its snapshots.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Growth, curve, grouped, in_turns, spread};
use crate::daemon::{Daemon, Usage};
use crate::measure::Spread;
use crate::plot::{Panel, Plot};
use crate::report::{Line, Section, Unit};

const SIZES: [u64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];
/// Words in the file; every distinct one is there.
const WORDS: u64 = 40_000_000;
/// Words of a line.
const LINE: u64 = 8;
/// Without a common divisor with any of the sizes: the words come in an order without one.
const STEP: u64 = 7_654_321;

/// What a checkpoint was like, at the end of a run.
#[derive(Clone, Copy)]
struct Checkpoint {
    /// Bytes of the snapshot.
    bytes: f64,
    /// Seconds from its barrier to its being stored.
    took: f64,
    /// How many there were.
    number: f64,
}

pub(super) fn measure(daemon: &Daemon, rounds: usize) -> Result<Growth> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let mut lines = Vec::new();
    for size in SIZES {
        let file = folder.path().join("in.txt");
        write_input(&file, size)?;
        if lines.is_empty() {
            // So that the compiled code is in the cache.
            run(daemon, folder.path(), "1h")?;
        }
        let mut checkpoints = Vec::new();
        let usages = in_turns(&["1s", "1h"], rounds, |interval| {
            let (usage, checkpoint) = run(daemon, folder.path(), interval)?;
            if *interval == "1s" {
                checkpoints.push(checkpoint);
            }
            Ok(usage)
        })?;
        lines.push(line(size, &usages, &checkpoints)?);
    }
    Ok(Growth { plot: plot(&lines), file: "words.svg", section: section(lines, rounds) })
}

fn line(size: u64, usages: &[Vec<Usage>], checkpoints: &[Checkpoint]) -> Result<Line> {
    let [often, never] = usages else { bail!("there are two intervals") };
    let checkpoint = |value: fn(&Checkpoint) -> f64| Some(Spread::of(checkpoints.iter().map(value)));
    let ratio = often.iter().zip(never).map(|(often, never)| often.wall / never.wall);
    let figures = vec![
        spread(often, |usage| usage.cpu * 1e9 / WORDS as f64),
        spread(never, |usage| usage.cpu * 1e9 / WORDS as f64),
        Some(Spread::of(ratio)),
        checkpoint(|checkpoint| checkpoint.number),
        checkpoint(|checkpoint| checkpoint.took * 1e3),
        checkpoint(|checkpoint| checkpoint.bytes / f64::from(1 << 20)),
        spread(often, |usage| usage.peak / f64::from(1 << 20)),
    ];
    Ok(Line { case: grouped(size), figures })
}

fn write_input(file: &Path, size: u64) -> Result<()> {
    let mut file = BufWriter::new(File::create(file)?);
    for number in 0..WORDS {
        let word = number.wrapping_mul(STEP) % size;
        let after = if (number + 1).is_multiple_of(LINE) { '\n' } else { ' ' };
        write!(file, "w{word:07}{after}")?;
    }
    Ok(file.flush()?)
}

fn run(daemon: &Daemon, folder: &Path, interval: &str) -> Result<(Usage, Checkpoint)> {
    let (pipeline, state) = (folder.join("words.toml"), folder.join("state"));
    std::fs::write(
        &pipeline,
        format!(
            "[source]\ntype = \"file\"\npath = \"in.txt\"\nformat = \"text\"\n\n[[transform]]\nplugin = \"word-count\"\n\
             config = {{ max_words = {WORDS}, max_bytes = 1000000000 }}\nlimits = {{ memory = \"3GiB\", time = \"60s\", output = \"1GiB\" }}\n\n\
             [[sink]]\ntype = \"blackhole\"\n\n[delivery]\ncheckpoint_interval = \"{interval}\"\n"
        ),
    )?;
    let _ = std::fs::remove_file(state.join("acequia.redb"));
    let running = daemon.run(&pipeline, &state, &["--listen", "127.0.0.1:0"], false)?;
    let admin = running.admin()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut text = String::new();
    for _ in 0..3000 {
        text = runtime.block_on(async { reqwest::get(format!("{admin}/metrics")).await?.text().await })?;
        if value(&text, "acequia_pipeline_state{pipeline=\"words\",state=\"COMPLETED\"}") == Some(1.0) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let taken = value(&text, "acequia_rows_in_total{pipeline=\"words\",stage=\"source\"}");
    ensure!(taken == Some((WORDS / LINE) as f64), "{taken:?} lines were read, not {}", WORDS / LINE);
    let dead = value(&text, "acequia_rows_dead_total{pipeline=\"words\",stage=\"word-count\"}");
    ensure!(dead == Some(0.0), "{dead:?} lines were refused");
    let of = |name: &str| value(&text, &format!("{name}{{pipeline=\"words\"}}")).with_context(|| format!("no {name}"));
    let checkpoint = Checkpoint {
        bytes: of("acequia_checkpoint_snapshot_bytes")?,
        took: of("acequia_checkpoint_duration_seconds")?,
        number: of("acequia_checkpoint_number")?,
    };
    Ok((running.stop()?, checkpoint))
}

/// The value of a sample with that name and those labels.
fn value(text: &str, sample: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
}

fn section(lines: Vec<Line>, rounds: usize) -> Section {
    Section {
        name: "growth: words",
        about: format!(
            "{} words of eight letters, eight a line, of which so many are distinct, in an order without one: file -> word-count -> blackhole, on all \
             cores. With a checkpoint every second, and with none but the first and the last; processor time is the whole process's, the ratio is of wall \
             times in the same round. Duration and size are those of the last checkpoint. Median and extremes of {rounds} rounds, in turns.",
            grouped(WORDS)
        ),
        of: "distinct words",
        columns: vec![
            ("a word", Unit::Nanos),
            ("a word, no checkpoints", Unit::Nanos),
            ("wall, with to without", Unit::Ratio),
            ("checkpoints", Unit::Count),
            ("the last one took", Unit::Millis),
            ("its snapshot", Unit::Mebibytes),
            ("peak memory", Unit::Mebibytes),
        ],
        lines,
    }
}

fn plot(lines: &[Line]) -> Plot {
    let sizes = SIZES.map(|size| size as f64);
    let panel = |y, curves: &[(&str, usize)], whole| Panel {
        x: "distinct words",
        y,
        curves: curves.iter().map(|(name, column)| curve(*name, &sizes, lines, *column)).collect(),
        whole,
    };
    Plot {
        title: format!("{} words counted, 1 to 10,000,000 of them distinct", grouped(WORDS)),
        panels: vec![
            panel("a word, ns of processor time", &[("a checkpoint every second", 0), ("no checkpoints", 1)], false),
            panel("MiB", &[("peak memory", 6), ("snapshot", 5)], true),
            panel("the last checkpoint, ms", &[("from barrier to disk", 4)], true),
        ],
    }
}
