//! What it costs until a plugin is ready, and what would make it cheaper: compiled code that is kept, a pool of instances,
//! memory that stays with the pool. Without the plugin host, as in `engine`.

use anyhow::{Context as _, Result, anyhow};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Store};

use crate::daemon::Daemon;
use crate::engine::bindings::Plugin;
use crate::engine::bindings::acequia::plugin::types::{Batch, ColumnParam, Schema, ValuesParam};
use crate::measure::{Contestant, Spread, Time, in_turns};
use crate::report::{Line, Section, Unit};

/// Rows of the first batch.
const ROWS: usize = 8192;
/// More than `even-filter` ever has: a pool that keeps so much resident gives none back.
const WARM: usize = 4 << 20;

/// Where instances get their memory from.
#[derive(Clone, Copy)]
enum Allocation {
    /// The system, each time.
    OnDemand,
    /// A pool that gives its memory back to the system when an instance ends.
    Pool,
    /// A pool that keeps it, and clears it.
    WarmPool,
}

const ALLOCATIONS: [(&str, Allocation); 3] =
    [("on demand", Allocation::OnDemand), ("pool", Allocation::Pool), ("pool, memory kept warm", Allocation::WarmPool)];

pub(crate) fn measure(daemon: &Daemon, rounds: usize) -> Result<Section> {
    let file = daemon.plugin("even-filter");
    let bytes = std::fs::read(&file).with_context(|| file.display().to_string())?;
    let text = |error: wasmtime::Error| anyhow!("{error:#}");
    let engine = engine(Allocation::OnDemand)?;
    let code = Component::new(&engine, &bytes).and_then(|component| component.serialize()).map_err(text)?;

    let mut names = vec!["compile".to_owned(), "load compiled code".to_owned()];
    let mut contestants: Vec<Contestant<'_>> = vec![
        Box::new(|count| repeat(count, || Component::new(&engine, &bytes).map_err(text))),
        Box::new(|count| {
            repeat(count, || {
                // SAFETY: it is what `serialize` returned above, for the same engine.
                unsafe { Component::deserialize(&engine, &code) }.map_err(text)
            })
        }),
    ];
    for (name, allocation) in ALLOCATIONS {
        names.push(format!("engine, {name}"));
        contestants.push(Box::new(move |count| repeat(count, || self::engine(allocation))));
    }
    for (name, allocation) in ALLOCATIONS {
        names.push(format!("instance and its first batch, {name}"));
        contestants.push(first_batch(&bytes, allocation)?);
    }
    let times = in_turns(&mut contestants, rounds)?;
    let millis = |value: fn(&Time) -> f64, times: &[Time]| Some(Spread::of(times.iter().map(|time| value(time) * 1e3)));
    let lines = names.into_iter().zip(&times).map(|(case, times)| Line {
        case,
        figures: vec![millis(|time| time.wall, times), millis(|time| time.cpu, times)],
    });
    Ok(Section {
        name: "instances",
        about: format!(
            "Until even-filter is ready, without the plugin host; what the daemon does is `on demand`, with compiled code kept. \
             An engine's pool is for a thousand instances, wasmtime's default. The first batch has {ROWS} rows. Compiling uses \
             all cores, of which this thread's processor time tells nothing. Median and extremes of {rounds} rounds, in turns."
        ),
        of: "step",
        columns: vec![("wall", Unit::Millis), ("processor time of the thread", Unit::Millis)],
        lines: lines.collect(),
    })
}

fn repeat<T>(count: u64, mut step: impl FnMut() -> Result<T>) -> Result<()> {
    for _ in 0..count {
        std::hint::black_box(step()?);
    }
    Ok(())
}

fn engine(allocation: Allocation) -> Result<Engine> {
    let strategy = match allocation {
        Allocation::OnDemand => InstanceAllocationStrategy::OnDemand,
        Allocation::Pool => InstanceAllocationStrategy::Pooling(PoolingAllocationConfig::new()),
        Allocation::WarmPool => {
            let mut pool = PoolingAllocationConfig::new();
            pool.linear_memory_keep_resident(WARM).table_keep_resident(WARM).async_stack_keep_resident(WARM);
            InstanceAllocationStrategy::Pooling(pool)
        }
    };
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(false)
        .cranelift_opt_level(OptLevel::Speed)
        .allocation_strategy(strategy);
    Engine::new(&config).map_err(|error| anyhow!("{error:#}"))
}

/// A new instance each time, configured, that gets one batch and ends.
fn first_batch(bytes: &[u8], allocation: Allocation) -> Result<Contestant<'static>> {
    let text = |error: wasmtime::Error| anyhow!("{error:#}");
    let engine = engine(allocation)?;
    let component = Component::new(&engine, bytes).map_err(text)?;
    let mut linker = Linker::<()>::new(&engine);
    // It logs nothing unless it panics.
    linker.define_unknown_imports_as_traps(&component).map_err(text)?;
    let linked = linker.instantiate_pre(&component).map_err(text)?;
    let values: Vec<i64> = (0..ROWS as i64).collect();
    Ok(Box::new(move |count| {
        repeat(count, || {
            let mut store = Store::new(&engine, ());
            store.set_hostcall_fuel(64 << 20);
            store.epoch_deadline_trap();
            store.set_epoch_deadline(1);
            let instance = linked.instantiate(&mut store).map_err(text)?;
            let plugin = Plugin::new(&mut store, &instance).map_err(text)?;
            let transform = plugin.acequia_plugin_transform();
            let schema = Schema { fields: &[], open: true };
            transform.call_configure(&mut store, "{}", schema).map_err(text)?.map_err(anyhow::Error::msg)?;
            let columns = [ColumnParam { name: "value", values: ValuesParam::Int64(&values), valid: None }];
            let batch = Batch { rows: ROWS as u32, columns: &columns };
            transform.call_apply(&mut store, batch).map_err(text)?.map_err(anyhow::Error::msg)
        })
    }))
}
