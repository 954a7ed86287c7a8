//! What a connector is: the traits that every source and sink implements, and the types that travel between them and
//! the engine.
//!
//! A connector is a crate of its own beside this one. It knows nothing of WebAssembly, of the engine or of other
//! connectors. Its configuration is a plain serde struct that implements [`SourceConfig`] or [`SinkConfig`]; the host
//! registers that struct in one line, and everything else (parsing, diagnostics, JSON Schema, the reference in the
//! documentation) follows from the type.
//!
//! The stages of a connector's life: **raw** (TOML) -> **resolved** (the struct, checked by `check`, no input or output
//! done, no environment read) -> **running** (`open`).

mod batch;
mod calendar;
mod demand;
mod error;
mod position;
mod record;
mod registry;
mod secret;
mod share;
mod sink;
mod source;
mod types;
mod units;

pub use batch::{Batch, FailedRow, Origin, Segment, base64, format_timestamp, from_base64, row_to_json};
pub use calendar::{civil_from_days, days_from_civil};
pub use demand::{Demand, Pass};
pub use error::{CheckError, ConnectorError, Kind};
pub use position::Position;
pub use record::{RECORD, record_column, record_field, without_record};
pub use registry::{ConnectorInfo, Registry, SinkSpec, SinkType, SourceSpec, SourceType};
pub use secret::{ResolvedSecret, Secret};
pub use share::{Cores, Share, step_aside};
pub use sink::{Flushed, Sink, SinkConfig};
pub use source::{Event, Handoff, Progress, Source, SourceConfig};
pub use types::{ColumnType, Field, RowSchema, column_type_of, normalize};
pub use units::{BatchLimits, ByteSize, Span};

use std::path::{Path, PathBuf};

/// What a connector is told when it is opened.
#[derive(Clone, Debug)]
pub struct Context {
    /// Name of the pipeline, for messages.
    pub pipeline: String,
    /// Name of the stage within the pipeline, for messages: `source`, `sink 1 (file)`.
    pub stage: String,
    /// The folder that relative paths in the configuration start from: that of the file that names them.
    pub base: PathBuf,
    /// How large a batch a source makes, and how long it waits for one to fill.
    pub batch: BatchLimits,
    /// How many tasks a source may use to read side by side; 1 unless it is [`SourceConfig::partitioned`].
    pub tasks: usize,
    /// The only columns that are read behind a source that can leave out the others ([`SourceConfig::projects`]); it then
    /// gives each row what it was read from ([`RECORD`]). `None`: every column, and no such text.
    pub reads: Option<Vec<String>>,
    /// What the pipeline may take of the cores. Tasks that the connector spawns are to be counted too ([`Share::meter_source`], [`Share::meter`]).
    pub share: Share,
}

impl Context {
    /// A path from the configuration, made absolute.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.base.join(path)
    }
}
