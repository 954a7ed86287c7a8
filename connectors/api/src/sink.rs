//! What a sink is.

use std::path::PathBuf;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Batch, CheckError, ConnectorError, Context, FailedRow, Handoff};

/// What [`Sink::flush`] says.
#[derive(Debug, Default)]
pub struct Flushed {
    /// Rows that the target refused since the last flush and that `write` has not named.
    pub failed: Vec<FailedRow>,
    /// What the sink must know to go on from exactly here (a file's length). Stored in the checkpoint and given to
    /// [`SinkConfig::open`] on a restart.
    pub state: Option<Value>,
}

/// A running sink.
#[async_trait]
pub trait Sink: Send {
    /// Take these rows (`batch.rows`; never `batch.failed`, which is the engine's). They need not be safe yet when this
    /// returns: that is what [`Sink::flush`] is for. Returns the rows that can't be written, ever ([`Batch::fail`]).
    ///
    /// # Errors
    /// [`crate::Kind::Retryable`]: the engine waits and calls again **with the same batch**, so undo or remember what
    /// was already taken of it. [`crate::Kind::Failed`]: the pipeline restarts from its checkpoint.
    async fn write(&mut self, batch: &Batch) -> Result<Vec<FailedRow>, ConnectorError>;

    /// Make everything written so far safe in the target, and say so. Called at every barrier. Once it has
    /// returned, the position after these rows may be stored (invariant 1).
    ///
    /// # Errors
    /// As for `write`; a retry calls `flush` alone again.
    async fn flush(&mut self) -> Result<Flushed, ConnectorError>;

    /// The checkpoint that has the state of the last flush is on disk. A sink in two phases ([`SinkConfig::two_phase`])
    /// makes what it wrote before that flush count, and with it the source's `handoff`, all or nothing; nothing is
    /// written between its flush and this.
    ///
    /// # Errors
    /// As for `flush`. If it fails for good, the pipeline restarts from its checkpoint, and [`Sink::rolled_back`] says
    /// what came of it.
    async fn committed(&mut self, _handoff: Option<&Handoff>) -> Result<(), ConnectorError> {
        Ok(())
    }

    /// For a sink in two phases, asked once, right after it was opened: what it wrote before the flush whose state it was
    /// opened with never came to count, since the process ended between the checkpoint and the commit. The engine then
    /// goes back to the checkpoint before that one. A sink that can't tell fails to open.
    fn rolled_back(&self) -> bool {
        false
    }

    /// Let go, after a last `flush` if the engine stops in good order, without one otherwise.
    async fn close(&mut self) {}
}

/// The configuration of a kind of sink, resolved: pure data; see [`crate::SourceConfig`].
#[async_trait]
pub trait SinkConfig: DeserializeOwned + JsonSchema + std::fmt::Debug + Send + Sync + 'static {
    /// The `type` key that names it.
    const TYPE: &'static str;
    /// One sentence for `acequia connectors`.
    const SUMMARY: &'static str;
    /// A whole example table, for the reference; a test parses it.
    const EXAMPLE: &'static str;

    /// Is it right in itself? No input or output, no environment.
    ///
    /// # Errors
    /// Names the key at fault.
    fn check(&self) -> Result<(), CheckError> {
        Ok(())
    }

    /// The columns that it reads, or `None` for every column.
    fn reads(&self) -> Option<Vec<String>> {
        None
    }

    /// The columns that it reads of rows that carry their own text ([`crate::RECORD`]), which it writes as it is. `None`: it
    /// can't do that. Then, unless [`SinkConfig::reads`] names its columns, it never meets such rows.
    fn reads_beside_record(&self) -> Option<Vec<String>> {
        None
    }

    /// Whether what it writes only comes to count with [`Sink::committed`]: exactly once. A pipeline can have one such
    /// sink.
    fn two_phase(&self) -> bool {
        false
    }

    /// What only one pipeline can have at a time, such as the path of an output file. Relative paths are taken from
    /// `context.base`.
    fn exclusive(&self, _context: &Context) -> Vec<String> {
        Vec::new()
    }

    /// Files that are read when it is opened, such as certificates and secrets. If what one of them holds changes, that
    /// is a change of the configuration. Relative paths start from its folder.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Start; `state` is what the last stored flush returned, if the pipeline has run before with this sink.
    ///
    /// # Errors
    /// The engine tries again with backoff, whatever the kind.
    async fn open(&self, context: &Context, state: Option<&Value>) -> Result<Box<dyn Sink>, ConnectorError>;
}
