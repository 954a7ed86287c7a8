//! What the engine's settings cost: `apply` of `even-filter` called without the plugin host, so without its limits, checks and
//! Arrow, in engines that differ in one setting.

use std::path::{Path, PathBuf};

use acequia_plugin_sdk::Bitmap;
use anyhow::{Context as _, Result, anyhow, ensure};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Store};

use crate::daemon::Daemon;
use crate::measure::{Contestant, Spread, Time, in_turns};
use crate::report::{Line, Section, Unit};

#[allow(missing_docs, clippy::all, reason = "generated code")]
pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "plugin",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

#[allow(missing_docs, clippy::all, reason = "generated code")]
mod bindings_async {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "plugin",
        ownership: Borrowing { duplicate_if_necessary: true },
        exports: { default: async },
    });
}

/// Rows of a batch.
const SIZES: [usize; 2] = [1, 8192];
/// Epochs and own stacks: the first is what the plugin host uses.
const SETTINGS: [(bool, bool); 4] = [(true, true), (false, true), (true, false), (false, false)];

pub(crate) fn measure(daemon: &Daemon, builds: &[PathBuf], rounds: usize) -> Result<Section> {
    let bundled = [daemon.plugin("even-filter")];
    let builds = if builds.is_empty() { &bundled[..] } else { builds };
    let mut lines = Vec::new();
    for rows in SIZES {
        let mut names = Vec::new();
        let mut contestants: Vec<Contestant<'_>> = Vec::new();
        for build in builds {
            for (epochs, stack) in SETTINGS {
                names.push(format!(
                    "{}{}, {}, {rows}",
                    if builds.len() > 1 { format!("{}, ", build.display()) } else { String::new() },
                    if epochs { "epochs" } else { "no epochs" },
                    if stack { "own stack" } else { "caller's stack" }
                ));
                let contestant = contestant(build, rows, epochs, stack);
                contestants.push(contestant.with_context(|| build.display().to_string())?);
            }
        }
        let times = in_turns(&mut contestants, rounds)?;
        let nanos = |time: &Time| time.wall * 1e9 / rows as f64;
        let first = times.first().map(Vec::as_slice).unwrap_or_default();
        for (case, times) in names.into_iter().zip(&times) {
            let ratio = times.iter().zip(first).map(|(time, first)| time.wall / first.wall);
            lines
                .push(Line { case, figures: vec![Some(Spread::of(times.iter().map(nanos))), Some(Spread::of(ratio))] });
        }
    }
    Ok(Section {
        name: "engine",
        about: format!(
            "Nanoseconds a row for `apply` of even-filter, called without the plugin host: no limits, no checks, no Arrow. \
             Median and extremes of {rounds} rounds, in turns; the ratio is to the first line of as many rows, in the same round."
        ),
        of: "build, settings, rows a batch",
        columns: vec![("apply", Unit::Nanos), ("ratio", Unit::Ratio)],
        lines,
    })
}

fn engine(epochs: bool) -> Result<Engine> {
    let mut config = Config::new();
    let pool = PoolingAllocationConfig::new();
    config
        .epoch_interruption(epochs)
        .concurrency_support(false)
        .cranelift_opt_level(OptLevel::Speed)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config).map_err(|error| anyhow!("{error:#}"))
}

/// A build of the plugin in an engine of its own. Epochs do not end here: what is measured is that the guest looks.
fn contestant(build: &Path, rows: usize, epochs: bool, stack: bool) -> Result<Contestant<'static>> {
    let engine = engine(epochs)?;
    let text = |error: wasmtime::Error| anyhow!("{error:#}");
    let component = Component::from_file(&engine, build).map_err(text)?;
    let mut linker = Linker::<()>::new(&engine);
    // It logs nothing unless it panics.
    linker.define_unknown_imports_as_traps(&component).map_err(text)?;
    let mut store = Store::new(&engine, ());
    store.set_hostcall_fuel(64 << 20);
    if epochs {
        store.epoch_deadline_trap();
        store.set_epoch_deadline(1);
    }
    let values: Vec<i64> = (0..rows as i64).collect();
    let expected = Bitmap::of(&values, |value| value % 2 == 0).into_bytes();
    let count = u32::try_from(rows)?;
    if !stack {
        use bindings::acequia::plugin::types::{Batch, ColumnParam, Schema, ValuesParam};
        use bindings::exports::acequia::plugin::transform::Selection;
        let plugin = bindings::Plugin::instantiate(&mut store, &component, &linker).map_err(text)?;
        let transform = plugin.acequia_plugin_transform().clone();
        let schema = Schema { fields: &[], open: true };
        transform.call_configure(&mut store, "{}", schema).map_err(text)?.map_err(anyhow::Error::msg)?;
        return Ok(Box::new(move |repetitions| {
            for _ in 0..repetitions {
                let columns = [ColumnParam { name: "value", values: ValuesParam::Int64(&values), valid: None }];
                let batch = Batch { rows: count, columns: &columns };
                let output = transform.call_apply(&mut store, batch).map_err(text)?.map_err(anyhow::Error::msg)?;
                ensure!(
                    matches!(&output.rows, Selection::Kept(kept) if kept.len() == expected.len()),
                    "a wrong answer"
                );
                std::hint::black_box(output);
            }
            Ok(())
        }));
    }
    use bindings_async::acequia::plugin::types::{Batch, ColumnParam, Schema, ValuesParam};
    use bindings_async::exports::acequia::plugin::transform::Selection;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let plugin = bindings_async::Plugin::instantiate_async(&mut store, &component, &linker);
    let transform = runtime.block_on(plugin).map_err(text)?.acequia_plugin_transform().clone();
    let schema = Schema { fields: &[], open: true };
    let configured = runtime.block_on(transform.call_configure(&mut store, "{}", schema));
    configured.map_err(text)?.map_err(anyhow::Error::msg)?;
    Ok(Box::new(move |repetitions| {
        runtime.block_on(async {
            for _ in 0..repetitions {
                let columns = [ColumnParam { name: "value", values: ValuesParam::Int64(&values), valid: None }];
                let batch = Batch { rows: count, columns: &columns };
                let output = transform.call_apply(&mut store, batch).await;
                let output = output.map_err(text)?.map_err(anyhow::Error::msg)?;
                ensure!(
                    matches!(&output.rows, Selection::Kept(kept) if kept.len() == expected.len()),
                    "a wrong answer"
                );
                std::hint::black_box(output);
            }
            Ok(())
        })
    }))
}
