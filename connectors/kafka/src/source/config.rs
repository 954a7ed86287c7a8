//! The keys of the `[source]` table.

use std::path::PathBuf;

use acequia_connector_api::{
    ByteSize, CheckError, ColumnType, ConnectorError, Context, Field, Position, RowSchema, Source, SourceConfig,
};
use acequia_format::{CsvOptions, Format, FormatOptions, SchemaConfig, parse_timestamp};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::reader::Reader;
use crate::client::Client;
use crate::{Properties, Sasl, Tls};

/// The records of Kafka topics.
///
/// The source is a member of a consumer group: several pipelines, or several daemons with the same files, share the
/// partitions out among themselves. Offsets are committed to the group once every sink has confirmed the rows before
/// them. The checkpoint has them too; the later of both is where reading goes on.
///
/// A record without a value (a tombstone) is a row whose value columns are null.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaSource {
    /// Some of the cluster's brokers, each `"host:port"`; the others are found through them.
    pub brokers: Vec<String>,
    /// The topics.
    pub topics: Vec<String>,
    /// In place of `topics`: a regular expression that a topic's whole name must match. Topics that are made later are found
    /// too, within five minutes (librdkafka's `topic.metadata.refresh.interval.ms`).
    pub pattern: Option<String>,
    /// The consumer group. Default: `acequia-` and the name of the pipeline.
    pub group: Option<String>,
    /// Where to begin with a partition of which neither the checkpoint nor the group knows an offset: `"earliest"`,
    /// `"latest"`, or `{ timestamp = "2026-01-01T00:00:00Z" }`, the first record of that time or later. Partitions that are
    /// added while the pipeline runs are always read from their beginning.
    pub start: Start,
    /// `"end"`: read up to where each partition ends when the source is opened, then end, for `--once`. All partitions are
    /// read, without joining the group (its offsets are used and committed all the same): run one such pipeline at a time.
    pub until: Option<Until>,
    /// What a record's value is. `"json"`: an object, whose fields become columns. `"text"`: UTF-8, in the column `value`.
    /// `"raw"`: bytes, in the column `value`. `"csv"`: one CSV record without a header; `csv.columns` names its columns.
    pub format: Format,
    /// Columns of the value and their types. For text and raw the type of `value`; for JSON and CSV all columns.
    pub schema: Option<SchemaConfig>,
    /// How CSV is written. There is no header.
    pub csv: CsvOptions,
    /// `"raw"`: the column `key` is binary. `"text"`: it is text, and a record whose key is not UTF-8 is a failed row.
    pub key_format: KeyFormat,
    /// Which columns are made beside those of the value. `key`; `topic` (text), `partition` and `offset` (int64); `timestamp`,
    /// of milliseconds; `headers` (json), in the order of the record: `[{"key": "k", "value": "v"}]`, with `base64` in place
    /// of `value` where that is not UTF-8. They are null where the record has none. A field of the value with the same name
    /// takes precedence. Fewer columns are faster; `[]` makes none.
    pub metadata: Vec<Metadata>,
    /// How much is read ahead for each task. When less is there, up to as much again is asked for at once. More helps where
    /// the brokers are far away: about as much comes in one round trip. A record that is larger comes all the same.
    pub read_ahead: ByteSize,
    /// TLS, if the brokers want it. `{}` is enough where their certificates are signed by an authority that this machine
    /// trusts.
    pub tls: Option<Tls>,
    /// The user, if the brokers want one.
    pub sasl: Option<Sasl>,
    /// librdkafka's own properties, such as `"session.timeout.ms" = 10000`. They override what the source sets.
    pub properties: Properties,
}

/// Where to begin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// With the oldest record.
    #[default]
    Earliest,
    /// With the next record that is written after the source is opened.
    Latest,
    /// With the first record of that time or later; see [timestamps](formats.md#timestamps).
    Timestamp(String),
}

/// Where to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Until {
    /// Where the partitions end when the source is opened.
    End,
}

/// What a key is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyFormat {
    /// Bytes.
    #[default]
    Raw,
    /// UTF-8.
    Text,
}

/// A column that comes from the record, not from its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Metadata {
    /// The record's key.
    Key,
    /// The name of the topic.
    Topic,
    /// The number of the partition.
    Partition,
    /// The place in the partition.
    Offset,
    /// When the record was made, or appended, as the topic is set up.
    Timestamp,
    /// The record's headers.
    Headers,
}

impl Metadata {
    /// All of them, in the order of the columns.
    pub(super) const ALL: [Metadata; 6] =
        [Metadata::Key, Metadata::Topic, Metadata::Partition, Metadata::Offset, Metadata::Timestamp, Metadata::Headers];

    pub(super) fn name(self) -> &'static str {
        match self {
            Metadata::Key => "key",
            Metadata::Topic => "topic",
            Metadata::Partition => "partition",
            Metadata::Offset => "offset",
            Metadata::Timestamp => "timestamp",
            Metadata::Headers => "headers",
        }
    }

    pub(super) fn field(self, key_format: KeyFormat) -> Field {
        let (kind, nullable) = match (self, key_format) {
            (Metadata::Key, KeyFormat::Raw) => (ColumnType::Binary, true),
            (Metadata::Key, KeyFormat::Text) => (ColumnType::Text, true),
            (Metadata::Topic, _) => (ColumnType::Text, false),
            (Metadata::Partition | Metadata::Offset, _) => (ColumnType::Int64, false),
            (Metadata::Timestamp, _) => (ColumnType::Timestamp, true),
            (Metadata::Headers, _) => (ColumnType::Json, true),
        };
        Field::new(self.name(), kind, nullable)
    }
}

impl Default for KafkaSource {
    fn default() -> Self {
        KafkaSource {
            brokers: Vec::new(),
            topics: Vec::new(),
            pattern: None,
            group: None,
            start: Start::default(),
            until: None,
            format: Format::Json,
            schema: None,
            csv: CsvOptions::default(),
            key_format: KeyFormat::default(),
            metadata: Metadata::ALL.to_vec(),
            read_ahead: ByteSize(1 << 20),
            tls: None,
            sasl: None,
            properties: Properties::new(),
        }
    }
}

/// Properties that must be as the source sets them.
const KEPT: &[(&str, &str)] = &[
    ("bootstrap.servers", "use `brokers`"),
    ("metadata.broker.list", "use `brokers`"),
    ("group.id", "use `group`"),
    ("enable.auto.commit", "offsets are committed once the sinks have confirmed the rows before them"),
    ("enable.auto.offset.store", "offsets are committed once the sinks have confirmed the rows before them"),
    ("enable.partition.eof", "the source needs it for `until`"),
    ("auto.offset.reset", "use `start`"),
    ("queued.max.messages.kbytes", "use `read_ahead`"),
];

impl KafkaSource {
    pub(super) fn client(&self) -> Client<'_> {
        Client {
            brokers: &self.brokers,
            tls: self.tls.as_ref(),
            sasl: self.sasl.as_ref(),
            properties: &self.properties,
        }
    }

    /// A record is a CSV record, so there is no header whatever the options say.
    pub(super) fn format_options(&self) -> FormatOptions {
        let csv = CsvOptions { header: false, ..self.csv.clone() };
        FormatOptions { format: self.format, schema: self.schema.clone(), csv }
    }

    /// What the subscription is: names, or one regular expression as librdkafka writes it.
    pub(super) fn subscription(&self) -> Vec<String> {
        match &self.pattern {
            Some(pattern) => vec![whole(pattern)],
            None => self.topics.clone(),
        }
    }

    pub(super) fn group(&self, context: &Context) -> String {
        self.group.clone().unwrap_or_else(|| format!("acequia-{}", context.pipeline))
    }

    fn check_topics(&self) -> Result<(), CheckError> {
        match (&self.pattern, self.topics.as_slice()) {
            (None, []) => Err(CheckError::new("", "what to read is missing: give `topics` or `pattern`")),
            (Some(_), [_, ..]) => Err(CheckError::new("pattern", "give either `topics` or `pattern`, not both")),
            (Some(pattern), []) => match regex::Regex::new(&whole(pattern)) {
                Ok(_) if !pattern.is_empty() => Ok(()),
                Ok(_) => Err(CheckError::new("pattern", "is empty: a topic's name must match it")),
                Err(error) => Err(CheckError::new("pattern", format!("is not a regular expression: {error}"))),
            },
            (None, topics) => {
                for (index, topic) in topics.iter().enumerate() {
                    check_topic(topic).map_err(|message| CheckError::new("topics", message))?;
                    if topics.iter().take(index).any(|other| other == topic) {
                        return Err(CheckError::new("topics", format!("`{topic}` is there twice")));
                    }
                }
                Ok(())
            }
        }
    }
}

/// The expression for a whole name. librdkafka takes a `^` at the front for "this is an expression".
pub(super) fn whole(pattern: &str) -> String {
    format!("^({pattern})$")
}

/// A name that Kafka allows. (It allows dots and underscores, and warns that they collide in metrics.)
fn check_topic(topic: &str) -> Result<(), String> {
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
    if topic.is_empty() || topic.len() > 249 || topic == "." || topic == ".." || !topic.chars().all(allowed) {
        return Err(format!(
            "`{topic}` is no topic's name: those have up to 249 letters, digits, `.`, `_` and `-`; for a regular expression use `pattern`"
        ));
    }
    Ok(())
}

#[async_trait]
impl SourceConfig for KafkaSource {
    const TYPE: &'static str = "kafka";
    const SUMMARY: &'static str = "records of Kafka topics, as a member of a consumer group";
    const EXAMPLE: &'static str = r#"type = "kafka"
brokers = ["127.0.0.1:9092"]
topics = ["test-topic"]
group = "acequia-sine"         # default: acequia- and the pipeline's name
start = "earliest"             # or "latest", or { timestamp = "2026-01-01T00:00:00Z" }
format = "json"                # or "text", "csv", "raw"
schema = { time = "timestamp", sin = "float64" }
"#;

    fn check(&self) -> Result<(), CheckError> {
        self.client().check(KEPT)?;
        self.check_topics()?;
        if self.group.as_deref() == Some("") {
            return Err(CheckError::new("group", "the name is empty: leave it out for the default"));
        }
        if let Start::Timestamp(text) = &self.start
            && parse_timestamp(text).is_none()
        {
            let message = format!("`{text}` is no date and time, such as 2026-01-01T00:00:00Z");
            return Err(CheckError::new("start.timestamp", message));
        }
        for (index, column) in self.metadata.iter().enumerate() {
            if self.metadata.iter().take(index).any(|other| other == column) {
                return Err(CheckError::new("metadata", format!("`{}` is there twice", column.name())));
            }
        }
        // librdkafka counts in KiB, up to 2^21 - 1 of them, and must have room for one fetch.
        if self.read_ahead.0 < 1 << 20 || self.read_ahead.0 >= 1 << 31 {
            return Err(CheckError::new("read_ahead", "must be from 1MiB to below 2GiB"));
        }
        self.format_options().check()
    }

    fn schema(&self) -> RowSchema {
        let mut schema = self.format_options().row_schema();
        for field in &mut schema.fields {
            field.nullable = true;
        }
        let columns = Metadata::ALL.into_iter().filter(|column| self.metadata.contains(column));
        for column in columns {
            if schema.field(column.name()).is_none() {
                let place = if column == Metadata::Key { 0 } else { schema.fields.len() };
                schema.fields.insert(place, column.field(self.key_format));
            }
        }
        schema
    }

    fn files(&self) -> Vec<PathBuf> {
        self.client().files()
    }

    fn partitioned(&self) -> bool {
        true
    }

    fn projects(&self) -> bool {
        // The columns beside the value are no part of a record's text.
        self.metadata.is_empty() && self.format_options().projects()
    }

    fn finite(&self) -> bool {
        self.until.is_some()
    }

    async fn open(&self, context: &Context, position: Option<&Position>) -> Result<Box<dyn Source>, ConnectorError> {
        Ok(Box::new(Reader::open(self, context, position).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> KafkaSource {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_example_and_the_defaults() {
        let example = parse(&KafkaSource::EXAMPLE.replace("type = \"kafka\"\n", ""));
        assert!(example.check().is_ok());
        assert_eq!(example.start, Start::Earliest);
        assert!(!example.finite() && example.partitioned() && example.exclusive().is_empty());
        let names: Vec<_> = example.schema().fields.into_iter().map(|field| field.name).collect();
        assert_eq!(names, ["key", "time", "sin", "topic", "partition", "offset", "timestamp", "headers"]);
        let least = parse("brokers = ['b:1']\ntopics = ['t']\nuntil = 'end'\nformat = 'text'\nmetadata = []");
        assert!(least.check().is_ok() && least.finite());
        assert_eq!(least.schema().fields, [Field::new("value", ColumnType::Text, true)]);
        assert!(parse("brokers = ['b:1']\ntopics = ['t']").schema().open);
    }

    #[test]
    fn a_field_of_the_value_has_its_own_type() {
        let config =
            parse("brokers = ['b:1']\ntopics = ['t']\nschema = { timestamp = 'int64' }\nmetadata = ['timestamp']");
        assert_eq!(config.schema().fields, [Field::new("timestamp", ColumnType::Int64, true)]);
    }

    #[test]
    fn a_pattern_is_for_the_whole_name() {
        let config = parse("brokers = ['b:1']\npattern = 'a|b.*'");
        assert!(config.check().is_ok());
        assert_eq!(config.subscription(), ["^(a|b.*)$"]);
    }

    #[test]
    fn wrong_values_are_named() {
        let mut report = String::new();
        for text in [
            "topics = ['t']",
            "brokers = ['localhost']\ntopics = ['t']",
            "brokers = ['b:1']",
            "brokers = ['b:1']\ntopics = ['t']\npattern = 'x'",
            "brokers = ['b:1']\ntopics = ['t', 't']",
            "brokers = ['b:1']\ntopics = ['^t.*']",
            "brokers = ['b:1']\npattern = ''",
            "brokers = ['b:1']\npattern = '['",
            "brokers = ['b:1']\ntopics = ['t']\ngroup = ''",
            "brokers = ['b:1']\ntopics = ['t']\nstart = { timestamp = 'yesterday' }",
            "brokers = ['b:1']\ntopics = ['t']\nmetadata = ['key', 'key']",
            "brokers = ['b:1']\ntopics = ['t']\nread_ahead = '4GiB'",
            "brokers = ['b:1']\ntopics = ['t']\nformat = 'text'\nschema = { name = 'text' }",
            "brokers = ['b:1']\ntopics = ['t']\nproperties = { 'group.id' = 'x' }",
            "brokers = ['b:1']\ntopics = ['t']\nproperties = { 'enable.auto.commit' = true }",
        ] {
            let error = parse(text).check().unwrap_err();
            report += &format!("{text}\n  -> `{}`: {error}\n", error.key);
        }
        insta::assert_snapshot!(report);
        for text in ["topic = 't'", "start = 'now'", "until = 'now'", "format = 'avro'", "metadata = ['size']"] {
            assert!(toml::from_str::<KafkaSource>(text).is_err(), "{text}");
        }
    }
}
