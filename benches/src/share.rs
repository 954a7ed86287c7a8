//! How the pipelines of one daemon share its cores while all of them have more to do than they can: each one's rows, counted.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::runtime::Runtime;

use crate::daemon::Daemon;
use crate::measure::Spread;
use crate::metrics;
use crate::report::{Line, Section, Unit};

/// Until all of them run, and their plugins are compiled.
const WARM: Duration = Duration::from_secs(1);
/// How long rows are counted.
const WATCH: Duration = Duration::from_secs(3);
const KINDS: [&str; 2] = ["even-filter", "sine-wave"];
/// How many of each kind run beside each other.
const CASES: [[usize; 2]; 8] = [[3, 0], [8, 0], [30, 0], [100, 0], [1, 2], [1, 4], [4, 1], [4, 4]];

pub(crate) fn measure(daemon: &Daemon, rounds: usize) -> Result<Section> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // What a row costs, by itself on one core: seconds of processor time.
    let mut costs = [Vec::new(), Vec::new()];
    let mut found: Vec<Vec<[Vec<f64>; 2]>> = CASES.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for (kind, costs) in costs.iter_mut().enumerate() {
            let mut alone = [0, 0];
            if let Some(count) = alone.get_mut(kind) {
                *count = 1;
            }
            let (rates, cores) = watch(&runtime, daemon, alone, true)?;
            let rate = rates.iter().flatten().sum::<f64>();
            ensure!(rate > 0.0, "no rows come");
            costs.push(cores / rate);
        }
        for turn in 0..CASES.len() {
            let index = (round + turn) % CASES.len();
            let (Some(case), Some(found)) = (CASES.get(index), found.get_mut(index)) else { continue };
            found.push(watch(&runtime, daemon, *case, false)?.0);
        }
    }
    let costs = costs.map(|costs| Spread::of(costs).median);
    let lines = CASES.iter().zip(&found).map(|(case, rounds)| line(*case, rounds, costs)).collect();
    let [even, sine] = costs.map(|cost| cost * 1e9);
    Ok(Section {
        name: "share",
        about: format!(
            "Pipelines in one daemon on all cores, each rate at \"max\" -> even-filter or sine-wave -> blackhole, for {} s; the rows of each from /metrics. \
             What a pipeline had of a core is its rows a second times what a row costs alone on one core, measured in the same run: {even:.2} ns, and {sine:.0} ns with \
             the sine. Median and extremes of {rounds} rounds, in turns.",
            WATCH.as_secs()
        ),
        of: "pipelines",
        columns: vec![
            ("rows of each even-filter", Unit::MillionsPerSecond),
            ("rows of each sine-wave", Unit::MillionsPerSecond),
            ("of a core for each even-filter", Unit::Count),
            ("of a core for each sine-wave", Unit::Count),
            ("most to least of a kind", Unit::Ratio),
        ],
        lines,
    })
}

fn line(case: [usize; 2], rounds: &[[Vec<f64>; 2]], costs: [f64; 2]) -> Line {
    let of = |kind: usize| rounds.iter().filter_map(move |kinds| kinds.get(kind)).flatten().copied();
    let spread =
        |kind: usize, scale: f64| (of(kind).next().is_some()).then(|| Spread::of(of(kind).map(|rate| rate * scale)));
    let ratio = |rates: &Vec<f64>| {
        let spread = Spread::of(rates.iter().copied());
        (rates.len() > 1).then(|| spread.max / spread.min)
    };
    // Of the kind that is shared out worst.
    let ratios: Vec<f64> =
        rounds.iter().filter_map(|kinds| kinds.iter().filter_map(ratio).max_by(f64::total_cmp)).collect();
    let names: Vec<String> = case
        .into_iter()
        .zip(KINDS)
        .filter(|(count, _)| *count > 0)
        .map(|(count, kind)| format!("{count} {kind}"))
        .collect();
    let [even, sine] = costs;
    Line {
        case: names.join(", "),
        figures: vec![
            spread(0, 1e-6),
            spread(1, 1e-6),
            spread(0, even),
            spread(1, sine),
            (!ratios.is_empty()).then(|| Spread::of(ratios)),
        ],
    }
}

/// Let so many of each kind run: the rows a second of each, by kind, and how many cores the daemon had.
fn watch(runtime: &Runtime, daemon: &Daemon, counts: [usize; 2], pinned: bool) -> Result<([Vec<f64>; 2], f64)> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let configs = folder.path().join("pipelines");
    write(&configs, counts)?;
    let running = daemon.run(&configs, &folder.path().join("state"), &["--listen", "127.0.0.1:0"], pinned)?;
    let admin = running.admin()?;
    let all = counts.iter().sum::<usize>();
    let begin = Instant::now();
    while rows(runtime, &admin)?.values().filter(|rows| **rows > 0.0).count() < all {
        ensure!(begin.elapsed() < Duration::from_secs(60), "not all pipelines have rows: {}", running.said());
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(WARM);
    let (before, cpu, begin) = (rows(runtime, &admin)?, running.cpu()?, Instant::now());
    std::thread::sleep(WATCH);
    let (after, cores, seconds) = (rows(runtime, &admin)?, running.cpu()? - cpu, begin.elapsed().as_secs_f64());
    running.stop()?;
    let rates = KINDS.map(|kind| {
        let of_kind = after.iter().filter(|(name, _)| name.starts_with(kind));
        of_kind.map(|(name, rows)| (rows - before.get(name).unwrap_or(&0.0)) / seconds).collect()
    });
    Ok((rates, cores / seconds))
}

fn write(configs: &Path, counts: [usize; 2]) -> Result<()> {
    std::fs::create_dir(configs)?;
    for (kind, count) in KINDS.into_iter().zip(counts) {
        for number in 0..count {
            let text = format!(
                "[source]\ntype = \"rate\"\nrows_per_second = \"max\"\n\n[[transform]]\nplugin = \"{kind}\"\n\n[[sink]]\ntype = \"blackhole\"\n"
            );
            std::fs::write(configs.join(format!("{kind}-{number}.toml")), text)?;
        }
    }
    Ok(())
}

/// The rows that each pipeline's source has made.
fn rows(runtime: &Runtime, admin: &str) -> Result<BTreeMap<String, f64>> {
    let text = runtime.block_on(metrics::fetch(admin))?;
    metrics::of_stage(&text, "acequia_rows_out_total", "source")
}
