//! What every connector must do, as checks that know nothing but the traits of `acequia-connector-api`.
//!
//! A connector brings a **world** of its own: how rows get to where its source reads them ([`SourceWorld`]), or how what its
//! sink wrote is read by an independent client ([`SinkWorld`]). The checks do the rest. Each is given a new world, and each
//! connector is judged in a process of its own, so that what it holds (descriptors, threads, memory) can be counted.

mod process;
mod random;
mod rows;
mod sink;
mod source;

pub use process::{Held, alone, own_output, resident};
pub use random::Random;
pub use rows::{rows, text};
pub use sink::{SinkWorld, judge_sink};
pub use source::{Place, SourceWorld, judge_source, text_of};

use std::time::Duration;

use acequia_connector_api::{BatchLimits, ByteSize, Context, Span};

/// How long anything may take that must come. Generous: it only costs time when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);
/// Letting go must be a matter of moments.
const QUICK: Duration = Duration::from_secs(10);

/// A runtime like the daemon's. Idle blocking threads go at once, so that those of a connector can be counted.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_keep_alive(Duration::from_millis(1))
        .enable_all()
        .build()
        .expect("a runtime")
}

/// What a connector is told when it is opened.
fn context(stage: &str, rows: usize, bytes: u64, wait: Duration) -> Context {
    let batch = BatchLimits { rows, bytes: ByteSize(bytes), wait: Span(wait) };
    Context {
        pipeline: "conformance".into(),
        stage: stage.into(),
        base: std::env::temp_dir(),
        batch,
        tasks: 1,
        reads: None,
        share: Default::default(),
    }
}

/// The table without `type`, as a connector's `parse` takes it, and the type.
fn split(mut table: toml::Table) -> (String, String) {
    let kind = table.remove("type").and_then(|kind| kind.as_str().map(str::to_owned));
    (kind.expect("a world's table has a `type`"), toml::Value::Table(table).to_string())
}
