//! The engine: one pipeline from its source to its sinks.
//!
//! A run of a pipeline is a handful of tasks joined by bounded channels: the source, the transforms (one task for the whole
//! chain, so that it can be swapped in one place), each sink, and the dead letters. What flows between them is batches and
//! **barriers**. A barrier is a moment in the stream: the source notes its position as it sends one, the transforms snapshot
//! themselves as it passes, each sink makes everything before it safe and says so. When all have, that moment is stored
//! (Carbone et al., "Lightweight Asynchronous Snapshots for Distributed Dataflows", 2015; in a chain the barriers are
//! aligned by themselves). The invariants that this keeps are numbered in `docs/invariants.md`.
//!
//! The engine knows connectors and transforms only by their traits; it never names one.

mod backoff;
mod chain;
mod dead_letters;
mod error;
mod inlet;
mod lifecycle;
mod open;
mod pace;
mod run;
mod setup;
mod sink;
mod source;
pub mod status;
#[cfg(test)]
mod tests;
pub mod transform;

pub use dead_letters::dead_letter_schema;
pub use error::RunError;
pub use lifecycle::{Command, Pipeline, ReloadError};
pub use setup::{Projection, Setup, TransformFactory};

use std::time::Duration;

use acequia_connector_api::{Batch, Pass};

/// How long a source or a sink may take to close; then it is dropped.
const CLOSE: Duration = Duration::from_secs(1);

/// What flows from stage to stage.
#[derive(Clone, Debug)]
enum Message {
    /// With what tells the source that it is on its way, if it comes from there.
    Batch(Batch, Option<Pass>),
    Barrier(Barrier),
}

/// A moment in the stream.
#[derive(Clone, Copy, Debug)]
struct Barrier {
    /// The number of the checkpoint that it makes.
    number: u64,
    /// Nothing comes after it.
    last: bool,
}
