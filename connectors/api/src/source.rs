//! What a source is.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::{Batch, CheckError, ConnectorError, Context, Demand, Position, RowSchema};

/// What [`Source::next`] brings.
#[derive(Debug)]
pub enum Event {
    /// Rows, failed rows, or both; neither, to say after an error that the source works again though nothing comes yet.
    Batch(Batch),
    /// A checkpoint is wanted now, without waiting for the interval: a part of the source is about to be taken away (a
    /// Kafka partition), and what was read of it should be confirmed first. [`Source::committed`] says when it was.
    Checkpoint,
    /// A finite source has given its last row. It is not asked again.
    End,
}

/// How far a finite source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Done so far.
    pub done: u64,
    /// In all.
    pub total: u64,
    /// What is counted: `bytes` or `rows`.
    pub unit: &'static str,
}

/// Something that a source gives to a sink and that only these two understand; see [`Source::handoff`].
#[derive(Clone)]
pub struct Handoff(Arc<dyn Any + Send + Sync>);

impl Handoff {
    /// Wrap it.
    pub fn new<T: Any + Send + Sync>(value: T) -> Self {
        Handoff(Arc::new(value))
    }

    /// What it is, if it is of that type.
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl std::fmt::Debug for Handoff {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Handoff")
    }
}

/// A running source.
#[async_trait]
pub trait Source: Send {
    /// The next rows; waits while there are none. A batch is as full as [`Context::batch`] says, or the wait is over, or
    /// the stages behind have nothing to do ([`Source::set_demand`]).
    ///
    /// **Must be cancel safe**: the engine drops the future when a barrier is due or the pipeline stops. Whatever was
    /// taken from outside before that must be in the next batch, and [`Source::position`] must not cover it yet.
    ///
    /// # Errors
    /// [`crate::Kind::Retryable`]: the engine waits and calls again. [`crate::Kind::Failed`]: the pipeline restarts from
    /// its checkpoint.
    async fn next(&mut self) -> Result<Event, ConnectorError>;

    /// Whether the stages behind have nothing to do can be seen here. Called once, before the first `next`; without effect
    /// on a source that never lets rows wait for more.
    fn set_demand(&mut self, _demand: Demand) {}

    /// Where the source stands after the last batch that `next` returned: opening a source there must bring the row
    /// after it.
    fn position(&self) -> Position;

    /// What a sink in two phases can make part of its own commit, so that rows and position come to count together (the
    /// offsets of a consumer group, for a Kafka transaction). Asked right after `position`, at the same barrier.
    fn handoff(&self) -> Option<Handoff> {
        None
    }

    /// Every row before `position` is confirmed by every sink, and that is on disk. A source that can acknowledge to the
    /// other side does it here.
    ///
    /// # Errors
    /// Logged and counted; the checkpoint stands.
    async fn committed(&mut self, _position: &Position) -> Result<(), ConnectorError> {
        Ok(())
    }

    /// How far a finite source is, where it can be known.
    fn progress(&self) -> Option<Progress> {
        None
    }

    /// The pipeline is about to stop in good order (also to be replaced by a reload). A source that has taken rows which it
    /// can't ask for again, such as a socket's, takes no more from outside and answers true: the engine then calls `next`
    /// until [`Event::End`] before the last barrier, and these rows are not lost. Other sources have nothing to do.
    fn stop(&mut self) -> bool {
        false
    }

    /// Give back what is held outside this process (a port, a place in a consumer group).
    async fn close(&mut self) {}
}

/// The configuration of a kind of source, resolved: pure data. The keys of the TOML table are its fields; use
/// `#[serde(deny_unknown_fields)]`. The field docs become the reference in the documentation.
#[async_trait]
pub trait SourceConfig: DeserializeOwned + JsonSchema + std::fmt::Debug + Send + Sync + 'static {
    /// The `type` key that names it.
    const TYPE: &'static str;
    /// One sentence for `acequia connectors`.
    const SUMMARY: &'static str;
    /// A whole example table, for the reference; a test parses it.
    const EXAMPLE: &'static str;

    /// Is it right in itself? No input or output, no environment: `validate --no-env` calls this too.
    ///
    /// # Errors
    /// Names the key at fault.
    fn check(&self) -> Result<(), CheckError> {
        Ok(())
    }

    /// What is known of the rows before the first one.
    fn schema(&self) -> RowSchema;

    /// What only one pipeline can have at a time, such as `listen 127.0.0.1:9999`.
    fn exclusive(&self) -> Vec<String> {
        Vec::new()
    }

    /// Files that are read when it is opened, such as certificates and secrets. If what one of them holds changes, that
    /// is a change of the configuration. Relative paths start from its folder.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Whether several tasks can read it side by side (`tasks` in the configuration, [`Context::tasks`] when it is opened).
    fn partitioned(&self) -> bool {
        false
    }

    /// Whether it can leave out columns that nobody reads, and give its rows their own text instead
    /// ([`Context::reads`], [`crate::RECORD`]).
    fn projects(&self) -> bool {
        false
    }

    /// Whether it can end. `--once` needs a finite source.
    fn finite(&self) -> bool;

    /// Start, at `position` if the pipeline has run before.
    ///
    /// # Errors
    /// The engine tries again with backoff, whatever the kind.
    async fn open(&self, context: &Context, position: Option<&Position>) -> Result<Box<dyn Source>, ConnectorError>;
}
