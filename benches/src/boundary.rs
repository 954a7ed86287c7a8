//! What a batch through a plugin costs, exactly as the engine does it, beside the same work in native code.

use std::path::Path;

use acequia::pipeline::transform::Transform;
use acequia::plugin::{Host, HostOptions, PluginTransform, StartOptions};
use acequia_connector_api::{Batch, Origin, RowSchema};
use anyhow::{Context as _, Result, bail, ensure};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use tokio::runtime::Runtime;

use crate::cases::{self, Case, Native};
use crate::daemon::Daemon;
use crate::measure::{Contestant, Spread, Time, in_turns};
use crate::report::{Line, Section, Unit};

/// Rows of a batch. 8192 is what a source makes at most, if nobody says otherwise.
const SIZES: [usize; 4] = [1, 64, 1024, 8192];

/// `only` names plugins; all, if it is empty.
pub(crate) fn measure(daemon: &Daemon, only: &[String], rounds: usize) -> Result<Section> {
    if let Some(unknown) = only.iter().find(|name| !ORDER.contains(&name.as_str())) {
        bail!("there is no case for `{unknown}`: there are {}", ORDER.join(", "));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let host = Host::new(&HostOptions::default())?;
    let mut lines = Vec::new();
    for size in SIZES {
        for case in cases::all(size)? {
            if !only.is_empty() && !only.iter().any(|name| name == case.plugin) {
                continue;
            }
            let name = format!("{}, {size}", case.plugin);
            let mut beside = |name: String, native: MakeNative| -> Result<()> {
                let figures = figures(&runtime, &host, daemon, &case, native, rounds).with_context(|| name.clone())?;
                lines.push(Line { case: name, figures });
                Ok(())
            };
            beside(name.clone(), cases::native)?;
            if case.plugin == "word-count" {
                beside(format!("{name}, plain loop"), cases::plain_word_count)?;
            }
        }
    }
    // One plugin after the other.
    lines.sort_by_key(|line| line.case.split(',').next().and_then(|name| ORDER.iter().position(|one| *one == name)));
    Ok(Section {
        name: "boundary",
        about: format!(
            "Nanoseconds a row for one call of a plugin as the engine makes it, with all limits and checks on, from batch to batch; \
             beside it the plugin's own logic as native code, with the same Arrow functions around it. Median and extremes of \
             {rounds} rounds, in each of which all take turns; `ratio` is of the two processor times in the same round, \
             `noise` that of the native code to itself, measured twice. The plain loop counts words with the standard library's \
             hash map."
        ),
        of: "plugin, rows a batch",
        columns: vec![
            ("plugin", Unit::Nanos),
            ("its processor time", Unit::Nanos),
            ("native", Unit::Nanos),
            ("native's processor time", Unit::Nanos),
            ("ratio", Unit::Ratio),
            ("noise", Unit::Ratio),
        ],
        lines,
    })
}

const ORDER: [&str; 6] = ["even-filter", "sine-wave", "triangle-wave", "word-count", "select", "uuid"];

/// Makes the native counterpart of a case; see [`cases::native`].
type MakeNative = fn(&Case, SchemaRef) -> Result<Native>;

fn figures(
    runtime: &Runtime,
    host: &Host,
    daemon: &Daemon,
    case: &Case,
    make: MakeNative,
    rounds: usize,
) -> Result<Vec<Option<Spread>>> {
    let rows = case.rows.num_rows();
    let mut plugin = runtime.block_on(start(host, &daemon.plugin(case.plugin), case))?;
    let first = runtime.block_on(plugin.apply(batch(&case.rows)))?.batch.rows;
    let output = first.schema();
    let same = cases::are_same(&make(case, output.clone())?(&case.rows)?, &first);
    ensure!(same, "the native code has another result");
    let mut native = [make(case, output.clone())?, make(case, output)?];
    let mut contestants: Vec<Contestant<'_>> = vec![Box::new(|count| {
        runtime.block_on(async {
            for _ in 0..count {
                std::hint::black_box(plugin.apply(batch(&case.rows)).await?);
            }
            Ok(())
        })
    })];
    for native in &mut native {
        contestants.push(Box::new(|count| repeat(native, &case.rows, count)));
    }
    let times = in_turns(&mut contestants, rounds)?;
    let [wasm, first, second] = &times[..] else { return Err(anyhow::anyhow!("a contestant is missing")) };
    let nanos = |times: &[Time], value: fn(&Time) -> f64| {
        Some(Spread::of(times.iter().map(|time| value(time) * 1e9 / rows as f64)))
    };
    let ratio = |a: &[Time], b: &[Time]| Some(Spread::of(a.iter().zip(b).map(|(a, b)| a.cpu / b.cpu)));
    Ok(vec![
        nanos(wasm, |time| time.wall),
        nanos(wasm, |time| time.cpu),
        nanos(first, |time| time.wall),
        nanos(first, |time| time.cpu),
        ratio(wasm, first),
        ratio(second, first),
    ])
}

fn repeat(native: &mut Native, rows: &RecordBatch, count: u64) -> Result<()> {
    for _ in 0..count {
        // A batch of its own, as the plugin's side has it.
        let batch = batch(rows);
        std::hint::black_box(native(&batch.rows)?);
    }
    Ok(())
}

pub(crate) fn batch(rows: &RecordBatch) -> Batch {
    Batch::new(rows.clone(), Origin::Unknown)
}

pub(crate) async fn start(host: &Host, file: &Path, case: &Case) -> Result<PluginTransform> {
    let plugin = host.load(file)?;
    let input = RowSchema::from_arrow(case.rows.schema_ref());
    let options = StartOptions {
        pipeline: "bench",
        stage: case.plugin,
        config: &case.config,
        limits: Default::default(),
        grants: &Default::default(),
        base: Path::new("."),
        input: &input,
        snapshot: None,
    };
    Ok(plugin.start(options).await?)
}
