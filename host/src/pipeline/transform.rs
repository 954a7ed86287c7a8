//! What the engine asks of a transform. The plugin host implements it; tests may too.

use std::time::Duration;

use acequia_connector_api::{Batch, RowSchema};
use async_trait::async_trait;

/// What became of a batch: `in + added = out + dropped + failed`, where `out` is `batch.len()` and `failed` the rows that
/// this transform appended to `batch.failed`.
#[derive(Debug)]
pub struct Applied {
    /// The output, with the input's failed rows and then this transform's own.
    pub batch: Batch,
    /// Input rows that are in no output row, on purpose.
    pub dropped: u64,
    /// Output rows beyond one for each input row (a flat map's repeats, an aggregate's results).
    pub added: u64,
}

/// A transform that can't go on.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TransformError {
    /// What happened, naming plugin, rows and cause.
    pub message: String,
    /// True if the state since the last checkpoint is lost: the pipeline must go back to it, and go on carefully
    /// ([`Transform::set_careful`]). False if no retry can help until the plugin or its configuration changes.
    pub state_lost: bool,
}

/// A running transform.
#[async_trait]
pub trait Transform: Send {
    /// Transform a batch. A row that fails goes to `failed` of the output; a guest that fails as a whole is the
    /// transform's own business as long as it can lose nothing by it.
    ///
    /// Not cancel safe: if the future is dropped, so must be the transform.
    ///
    /// # Errors
    /// See [`TransformError`].
    async fn apply(&mut self, batch: Batch) -> Result<Applied, TransformError>;

    /// Whether it has state to be stored.
    fn is_stateful(&self) -> bool;

    /// Its state after the rows so far; `None` if it has none.
    ///
    /// # Errors
    /// See [`TransformError`].
    async fn snapshot(&mut self) -> Result<Option<Vec<u8>>, TransformError>;

    /// How often it wants [`Transform::tick`].
    fn tick_every(&self) -> Option<Duration>;

    /// Time has passed. `now` in microseconds since the epoch.
    ///
    /// # Errors
    /// See [`TransformError`].
    async fn tick(&mut self, now: i64) -> Result<Applied, TransformError>;

    /// What is known of its output rows.
    fn schema(&self) -> &RowSchema;

    /// Careful: a stateful transform snapshots itself before each batch, so that a guest which fails on it costs only the
    /// rows that make it fail. Slower; the engine switches it on after a failure and off again once past it.
    fn set_careful(&mut self, careful: bool);

    /// How often a guest had to be replaced since the start.
    fn replaced(&self) -> u64;
}
