//! The two configurations: what a pipeline's file says.

use std::path::Path;
use std::time::Duration;

use acequia_connector_api::{
    ByteSize, CheckError, ConnectorError, Context, Position, RowSchema, Sink, SinkConfig, Source, SourceConfig, Span,
};
use acequia_format::{CsvOptions, Format, FormatOptions, SchemaConfig};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{listing, parquet_sink, parquet_source, sink, source};

/// How rows lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// Read: one JSON array of objects, JSON lines, or objects over many lines. Written: one object a line.
    Json,
    /// Comma-separated values, RFC 4180.
    Csv,
    /// One row a line, in the column `value`.
    Text,
    /// Apache Parquet.
    Parquet,
    /// Bytes. Read: one row a line, in the binary column `value`, not checked for UTF-8. Written: the bytes of the
    /// column `value` as they are, nothing between them.
    Raw,
}

impl FileFormat {
    /// The format that a name without one in the configuration stands for.
    fn of(path: &str) -> Self {
        match Path::new(path).extension().and_then(|extension| extension.to_str()) {
            Some("csv") => FileFormat::Csv,
            Some("parquet") => FileFormat::Parquet,
            _ => FileFormat::Json,
        }
    }

    /// As the shared converter knows it; Parquet is this connector's own.
    fn converter(self) -> Option<Format> {
        match self {
            FileFormat::Json => Some(Format::Json),
            FileFormat::Csv => Some(Format::Csv),
            FileFormat::Text => Some(Format::Text),
            FileFormat::Raw => Some(Format::Raw),
            FileFormat::Parquet => None,
        }
    }
}

/// Reads rows from a file, or from all files that match a pattern, in the order of their names.
///
/// It ends after the last row, unless `follow` is set. Started again, it goes on where it stopped: a file that has
/// grown brings its new rows, one that was replaced or written anew is read from its start.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSource {
    /// The file, from the folder of this configuration. `*`, `?`, `[a-z]` and `**` match names as in a shell.
    pub path: String,
    /// How rows lie in it. By default `csv` for a name that ends in `.csv`, `parquet` for `.parquet`, else `json`.
    pub format: Option<FileFormat>,
    /// Columns and their types, such as `value = "float64"`. Without it JSON's types are inferred.
    pub schema: Option<SchemaConfig>,
    /// How a CSV file is written.
    #[serde(default)]
    pub csv: CsvOptions,
    /// Wait for more at the end, through rotation (by renaming or by cutting short) and, with a pattern, for new files.
    #[serde(default)]
    pub follow: bool,
    /// How often a followed file is looked at when nothing is new.
    #[serde(default = "default_poll")]
    pub poll: Span,
    /// A row with more bytes than this fails.
    #[serde(default = "default_max_record")]
    pub max_record: ByteSize,
}

fn default_poll() -> Span {
    Span(Duration::from_millis(250))
}

fn default_max_record() -> ByteSize {
    ByteSize(16 << 20)
}

impl FileSource {
    /// The format, whether named or by the name of the file.
    pub fn format(&self) -> FileFormat {
        self.format.unwrap_or_else(|| FileFormat::of(&self.path))
    }

    /// For the shared converter; `None` for Parquet.
    pub(crate) fn options(&self) -> Option<FormatOptions> {
        let format = self.format().converter()?;
        Some(FormatOptions { format, schema: self.schema.clone(), csv: self.csv.clone() })
    }
}

#[async_trait]
impl SourceConfig for FileSource {
    const TYPE: &'static str = "file";
    const SUMMARY: &'static str = "reads rows from files: JSON, CSV, text or Parquet, once or following what is added";
    const EXAMPLE: &'static str = r#"type = "file"
path = "people.json"
schema = { name = "text", age = "int64" }
"#;

    fn check(&self) -> Result<(), CheckError> {
        if self.path.is_empty() {
            return Err(CheckError::new("path", "is empty; name a file, such as \"people.json\""));
        }
        listing::check(&self.path)
            .map_err(|error| CheckError::new("path", format!("is not a pattern that can be read: {error}")))?;
        if self.max_record.0 == 0 {
            return Err(CheckError::new("max_record", "must be at least 1 byte; the default is \"16MiB\""));
        }
        if self.poll.0.is_zero() {
            return Err(CheckError::new("poll", "must be longer than nothing; the default is \"250ms\""));
        }
        match self.options() {
            Some(options) => options.check(),
            None if self.follow => Err(CheckError::new(
                "follow",
                "can't be used with Parquet: such a file can only be read once it is complete",
            )),
            None => Ok(()),
        }
    }

    fn schema(&self) -> RowSchema {
        match (self.options(), &self.schema) {
            (Some(options), _) => options.row_schema(),
            // Parquet: the same rules as for any declared schema.
            (None, Some(_)) => {
                FormatOptions { format: Format::Json, schema: self.schema.clone(), csv: self.csv.clone() }.row_schema()
            }
            (None, None) => RowSchema::unknown(),
        }
    }

    fn projects(&self) -> bool {
        self.options().is_some_and(|options| options.projects())
    }

    fn finite(&self) -> bool {
        !self.follow
    }

    async fn open(&self, context: &Context, position: Option<&Position>) -> Result<Box<dyn Source>, ConnectorError> {
        match self.options() {
            Some(options) => Ok(Box::new(source::Reader::open(self, options, context, position)?)),
            None => {
                let declared = self.schema.is_some().then(|| self.schema());
                Ok(Box::new(parquet_source::ParquetSource::open(self, declared, context, position)?))
            }
        }
    }
}

/// Writes rows to a file, each exactly once.
///
/// The file's length is part of the pipeline's checkpoint: after a crash the file is cut back to it, and the rows after
/// it come again. A file that is there before the pipeline first runs is appended to; a last line of it without a line
/// break gets one, so that no row runs into it. A file that is renamed (rotation) or deleted while the pipeline runs is
/// begun anew at the next checkpoint; what was not yet confirmed of a deleted one is carried over.
///
/// A Parquet file can't be cut back at any place, so `out.parquet` becomes `out-00001.parquet`, `out-00002.parquet` and
/// so on, one for each checkpoint that had rows; files beyond the last checkpoint are deleted on a restart. With
/// `[delivery] checkpoint_interval = "5m"` they are fewer and larger.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSink {
    /// The file, from the folder of this configuration. Folders that are missing are made.
    pub path: String,
    /// How rows are written. By default `csv` for a name that ends in `.csv`, `parquet` for `.parquet`, else `json`.
    pub format: Option<FileFormat>,
    /// How a CSV file is written.
    #[serde(default)]
    pub csv: CsvOptions,
    /// With `text` and `raw`: the column that is written. By default `value`, or the only column.
    pub value: Option<String>,
    /// What happens, when the pipeline first runs, to a file that is already there: it is kept and appended to, or, if
    /// false, emptied (Parquet: its numbered files are deleted).
    #[serde(default = "default_append")]
    pub append: bool,
}

fn default_append() -> bool {
    true
}

impl FileSink {
    /// The format, whether named or by the name of the file.
    pub fn format(&self) -> FileFormat {
        self.format.unwrap_or_else(|| FileFormat::of(&self.path))
    }
}

#[async_trait]
impl SinkConfig for FileSink {
    const TYPE: &'static str = "file";
    const SUMMARY: &'static str = "writes rows to a file, each exactly once: JSON lines, CSV, text or Parquet";
    const EXAMPLE: &'static str = r#"type = "file"
path = "out/words.jsonl"
"#;

    fn check(&self) -> Result<(), CheckError> {
        if self.path.is_empty() {
            return Err(CheckError::new("path", "is empty; name a file, such as \"out.jsonl\""));
        }
        if Path::new(&self.path).file_name().is_none() || self.path.ends_with('/') {
            return Err(CheckError::new("path", "names a folder; name a file in it"));
        }
        match (&self.value, self.format()) {
            (Some(_), FileFormat::Json | FileFormat::Csv | FileFormat::Parquet) => Err(CheckError::new(
                "value",
                "is only for the formats \"text\" and \"raw\"; the others write every column",
            )),
            _ => match self.format().converter() {
                Some(format) => FormatOptions { format, schema: None, csv: self.csv.clone() }.check(),
                None => Ok(()),
            },
        }
    }

    fn reads(&self) -> Option<Vec<String>> {
        self.value.clone().map(|column| vec![column])
    }

    fn reads_beside_record(&self) -> Option<Vec<String>> {
        (self.format().converter() == Some(Format::Json)).then(Vec::new)
    }

    fn exclusive(&self, context: &Context) -> Vec<String> {
        vec![listing::normalize(&context.path(&self.path)).display().to_string()]
    }

    async fn open(&self, context: &Context, state: Option<&Value>) -> Result<Box<dyn Sink>, ConnectorError> {
        let path = listing::normalize(&context.path(&self.path));
        match self.format().converter() {
            Some(format) => Ok(Box::new(sink::FileWriter::open(self, format, path, state)?)),
            None => Ok(Box::new(parquet_sink::ParquetSink::open(path, self.append, state)?)),
        }
    }
}
