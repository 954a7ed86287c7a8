//! A pipeline's configuration, resolved: checked, complete, and nothing opened yet.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use acequia_connector_api::{BatchLimits, ByteSize, SinkSpec, SourceSpec, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One pipeline, from one file. Secrets that stand in the file itself are not in what `Debug` shows.
#[derive(Clone)]
pub struct PipelineConfig {
    /// The file's stem.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its text, for diagnostics that only turn up when a plugin is loaded.
    pub text: Arc<str>,
    /// What the key `description` says, for people.
    pub description: Option<String>,
    /// The source.
    pub source: SourceStage,
    /// The transforms, in order.
    pub transforms: Vec<TransformStage>,
    /// The sinks; at least one.
    pub sinks: Vec<SinkStage>,
    /// What happens to rows that fail.
    pub errors: ErrorsConfig,
    /// Checkpoints and batches.
    pub delivery: DeliveryConfig,
}

impl fmt::Debug for PipelineConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PipelineConfig")
            .field("name", &self.name)
            .field("path", &self.path)
            .field("source", &self.source)
            .field("transforms", &self.transforms)
            .field("sinks", &self.sinks)
            .field("errors", &self.errors)
            .field("delivery", &self.delivery)
            .finish_non_exhaustive()
    }
}

/// The `[source]` table.
#[derive(Clone, Debug)]
pub struct SourceStage {
    /// The connector.
    pub spec: Arc<dyn SourceSpec>,
    /// Where the table stands in the file.
    pub place: Range<usize>,
    /// Hash of the table's content, comments and layout left out: tells whether a reload changed it.
    pub hash: String,
}

/// One `[[sink]]` table, or `[errors.dead_letter]`.
#[derive(Clone, Debug)]
pub struct SinkStage {
    /// `file`, and `file-2` for the second of its type; `dead-letter` for `[errors.dead_letter]`: names the stage in
    /// messages, metrics and checkpoints.
    pub id: String,
    /// The connector.
    pub spec: Arc<dyn SinkSpec>,
    /// Where the table stands in the file.
    pub place: Range<usize>,
    /// As in [`SourceStage::hash`].
    pub hash: String,
}

/// One `[[transform]]` table. `Debug` leaves the plugin's configuration out: no type says what in it is a secret.
#[derive(Clone)]
pub struct TransformStage {
    /// `even-filter`, and `even-filter-2` for the second of that name, or what the key `name` says. State is kept under
    /// it across reloads.
    pub id: String,
    /// What the key `plugin` says: a name on the plugin path or a path to a `.wasm`.
    pub plugin: String,
    /// The `config` table as a JSON object; empty if there is none.
    pub config: serde_json::Value,
    /// What it may use up.
    pub limits: Limits,
    /// What it may reach.
    pub grants: Grants,
    /// Where the table stands in the file.
    pub place: Range<usize>,
    /// Where the value of `plugin` stands in the file.
    pub plugin_place: Range<usize>,
    /// Where each key of `config` stands in the file; deeper ones as dotted keys.
    pub config_places: BTreeMap<String, Range<usize>>,
    /// Whether a value of the table hangs on a variable that is not known. Only with [`super::Env::None`].
    pub unresolved: bool,
    /// As in [`SourceStage::hash`].
    pub hash: String,
}

impl fmt::Debug for TransformStage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TransformStage")
            .field("id", &self.id)
            .field("plugin", &self.plugin)
            .field("limits", &self.limits)
            .field("grants", &self.grants)
            .field("place", &self.place)
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

/// What a plugin may use up. A call over a limit fails its batch, and the instance is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Linear memory of one instance.
    pub memory: ByteSize,
    /// Time of one call.
    pub time: Span,
    /// Size of what one call returns.
    pub output: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { memory: ByteSize(64 << 20), time: Span(Duration::from_secs(5)), output: ByteSize(64 << 20) }
    }
}

/// What a plugin may reach outside itself. Nothing, unless it is named here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Random numbers (`wasi:random`).
    pub random: bool,
    /// Wall clock and monotonic clock (`wasi:clocks`).
    pub clocks: bool,
    /// Environment variables of the daemon that it may read, by name.
    pub environment: Vec<String>,
    /// Folders that it may read.
    pub directories: Vec<DirectoryGrant>,
    /// Addresses that it may connect to: `host:port`, or `["*"]` for all.
    pub network: Vec<String>,
}

/// A folder that a plugin may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DirectoryGrant {
    /// The folder on this machine.
    pub path: PathBuf,
    /// Its name inside the plugin.
    pub guest: String,
    /// Whether it may write there too.
    #[serde(default)]
    pub write: bool,
}

/// What happens to a row that fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The pipeline stops before the row, and stays so until its file or a plugin changes.
    Stop,
    /// The row is counted and logged, and dropped.
    Skip,
    /// The row goes to the dead letters, with the stage, its position and the error; the rest goes on.
    #[default]
    DeadLetter,
}

/// The `[errors]` table.
#[derive(Clone, Debug, Default)]
pub struct ErrorsConfig {
    /// What happens to a row that fails.
    pub on_error: OnError,
    /// Where dead letters go. None: the file `dead-letters/PIPELINE.jsonl` in the state folder.
    pub dead_letter: Option<SinkStage>,
}

/// The `[delivery]` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeliveryConfig {
    /// How often position and state are stored while rows flow: the most that a crash can make the source repeat. Less often
    /// if the plugins' snapshots take more than a tenth of it.
    // Invariant 4: nothing that was confirmed for longer than this is read again.
    pub checkpoint_interval: Span,
    /// How many tasks share the source's partitions. Only 1 for a source that can't be shared out.
    pub tasks: usize,
    /// How large a batch is.
    pub batch: BatchLimits,
    /// How many batches may wait before each stage: with `batch.bytes`, what bounds the pipeline's memory.
    // Invariant 5: every queue between two stages has this length, and a stage waits where the next one's is full.
    pub in_flight: usize,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        DeliveryConfig {
            checkpoint_interval: Span(Duration::from_secs(1)),
            tasks: 1,
            batch: BatchLimits::default(),
            in_flight: 4,
        }
    }
}
