//! What a pipeline's file says about a Kafka sink.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use acequia_connector_api::{CheckError, ConnectorError, Context, Sink, SinkConfig, Span};
use acequia_format::Format;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::topics;
use super::writer::Writer;
use crate::client::{Client, Properties, Sasl, Tls};

/// Writes rows to a Kafka topic, each as one message.
///
/// By default each row arrives at least once: after a crash the rows since the last checkpoint come again. With `delivery
/// = "exactly_once"` they are written in transactions, one for each checkpoint; if the source is Kafka too, on the same
/// cluster, its group's offsets are part of them. Consumers see such rows once they are committed, if they read with
/// `isolation.level=read_committed`.
///
/// A row that the broker can't take is a failed row: too large for its topic (`max.message.bytes`, counted before
/// compression), a partition or a topic that is not there, headers that are none, no key where the topic is compacted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSink {
    /// Where to find the cluster: hosts and ports of some of its brokers.
    pub brokers: Vec<String>,
    /// The topic. With `topic_column` it is for the rows that have none.
    pub topic: Option<String>,
    /// The column with the name of each row's topic.
    pub topic_column: Option<String>,
    /// The column with the message's key; null is no key. Rows of one key go to one partition, the same that Java's
    /// clients choose.
    pub key: Option<String>,
    /// The column with the number of the partition, from 0. Where it is null, or without it, the key decides; rows
    /// without a key are spread.
    pub partition: Option<String>,
    /// The column with the message's headers as JSON, or a table of header names and their columns.
    pub headers: Option<Headers>,
    /// The column with the message's time, after 1970. Where it is null, or without it, it is the time of sending.
    pub timestamp: Option<String>,
    /// How the message's value is written.
    #[serde(default)]
    pub format: ValueFormat,
    /// With `text` and `raw`: the column that is the value. By default `value`, or the only column. Where it is null the
    /// message has no value: a tombstone, which deletes its key from a compacted topic.
    pub value: Option<String>,
    /// With `json`: columns that are in the value although they are also used as key, headers, topic or partition.
    #[serde(default)]
    pub keep: Vec<String>,
    /// How batches of messages are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// How often a row can arrive.
    #[serde(default)]
    pub delivery: Delivery,
    /// With `exactly_once`: the name under which the cluster knows this pipeline's transactions, and the consumer group in
    /// which it marks them. By default one is made up at the first start and kept in the pipeline's state. Two pipelines
    /// that run at once must not share it.
    pub transactional_id: Option<String>,
    /// With `exactly_once`: the cluster gives up a transaction that takes longer. It must be longer than the pipeline's
    /// `checkpoint_interval` and than the brokers may be away, and no longer than their `transaction.max.timeout.ms`.
    #[serde(default = "default_transaction_timeout")]
    pub transaction_timeout: Span,
    /// Create the topic, or the topics, where there is none. Without it a missing topic is an error, unless the brokers
    /// create topics by themselves.
    pub create: Option<CreateTopic>,
    /// TLS towards the brokers; an empty table turns it on with the machine's own certificates.
    pub tls: Option<Tls>,
    /// The user at the brokers.
    pub sasl: Option<Sasl>,
    /// librdkafka's own properties for a producer, such as `"linger.ms" = 20`; they override what is set otherwise.
    #[serde(default)]
    pub properties: Properties,
}

/// Where a message's headers come from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Headers {
    /// A column with JSON: an object of names and values, or an array of `{"key": ..., "value": ...}`, with `base64` in
    /// place of `value` for bytes, as the Kafka source makes it. Text is written as UTF-8, null as null, other values as JSON.
    Column(String),
    /// Each header's name and the column with its value. A null is no header.
    Columns(BTreeMap<String, String>),
}

/// How a message's value is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ValueFormat {
    /// One JSON object: the row without the columns that are used as key, headers, topic or partition.
    #[default]
    Json,
    /// One column as text.
    Text,
    /// The bytes of one column.
    Raw,
}

impl ValueFormat {
    pub(super) fn format(self) -> Format {
        match self {
            ValueFormat::Json => Format::Json,
            ValueFormat::Text => Format::Text,
            ValueFormat::Raw => Format::Raw,
        }
    }
}

/// How batches of messages are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Deflate.
    Gzip,
    /// Fast, light.
    Snappy,
    /// Fast, light.
    Lz4,
    /// As fast, and smaller.
    Zstd,
}

impl Compression {
    pub(super) fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

/// How often a row can arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Once, and after a crash perhaps again.
    #[default]
    AtLeastOnce,
    /// Once, for consumers that read what is committed.
    ExactlyOnce,
}

/// What a topic is created with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CreateTopic {
    /// Number of its partitions. By default the brokers' own (`num.partitions`).
    pub partitions: Option<u16>,
    /// On how many brokers each partition is. By default the brokers' own (`default.replication.factor`).
    pub replication: Option<u16>,
}

fn default_transaction_timeout() -> Span {
    Span(Duration::from_secs(60))
}

/// Properties that the sink can't work without, and why.
const KEPT: [(&str, &str); 6] = [
    ("bootstrap.servers", "use `brokers`"),
    ("transactional.id", "use `transactional_id`, with `delivery = \"exactly_once\"`"),
    ("transaction.timeout.ms", "use `transaction_timeout`"),
    ("delivery.report.only.error", "every delivery is counted before a checkpoint"),
    ("enable.gapless.guarantee", "a row that the broker refuses is a failed row and must not stop the producer"),
    ("group.id", "this is a producer"),
];

impl KafkaSink {
    pub(crate) fn client(&self) -> Client<'_> {
        Client {
            brokers: &self.brokers,
            tls: self.tls.as_ref(),
            sasl: self.sasl.as_ref(),
            properties: &self.properties,
        }
    }

    pub(super) fn transactional(&self) -> bool {
        self.delivery == Delivery::ExactlyOnce
    }

    /// The columns that are used beside the value, each with its key in the configuration.
    pub(super) fn mapped(&self) -> Vec<(&str, &str)> {
        let single = [("topic_column", &self.topic_column), ("key", &self.key), ("partition", &self.partition)];
        let mut mapped: Vec<_> =
            single.into_iter().filter_map(|(key, column)| Some((key, column.as_deref()?))).collect();
        match &self.headers {
            Some(Headers::Column(column)) => mapped.push(("headers", column)),
            Some(Headers::Columns(columns)) => {
                mapped.extend(columns.values().map(|column| ("headers", column.as_str())))
            }
            None => {}
        }
        mapped
    }
}

#[async_trait]
impl SinkConfig for KafkaSink {
    const TYPE: &'static str = "kafka";
    const SUMMARY: &'static str = "writes rows to a Kafka topic: JSON, text or bytes, at least or exactly once";
    const EXAMPLE: &'static str = r#"type = "kafka"
brokers = ["127.0.0.1:9092"]
topic = "people"
key = "name"
"#;

    fn check(&self) -> Result<(), CheckError> {
        self.client().check(&KEPT)?;
        if self.topic.is_none() && self.topic_column.is_none() {
            return Err(CheckError::new("topic", "is missing: name a topic, or its column in `topic_column`"));
        }
        if let Some(topic) = &self.topic {
            topics::check_name(topic).map_err(|message| CheckError::new("topic", message))?;
        }
        for (key, column) in self.mapped().into_iter().chain(self.timestamp.as_deref().map(|name| ("timestamp", name)))
        {
            if column.is_empty() {
                return Err(CheckError::new(key, "is empty; name a column"));
            }
        }
        if self.format == ValueFormat::Json && self.value.is_some() {
            return Err(CheckError::new(
                "value",
                "is only for the formats \"text\" and \"raw\"; with \"json\" the value is the whole row",
            ));
        }
        if self.format != ValueFormat::Json && !self.keep.is_empty() {
            return Err(CheckError::new("keep", "is only for the format \"json\"; the others write one column"));
        }
        for column in &self.keep {
            if !self.mapped().iter().any(|(_, mapped)| mapped == column) {
                return Err(CheckError::new(
                    "keep",
                    format!("column `{column}` is not used as key, headers, topic or partition: it is kept anyway"),
                ));
            }
        }
        if self.create.is_some_and(|create| create.partitions == Some(0) || create.replication == Some(0)) {
            return Err(CheckError::new("create", "a topic has at least one partition, on at least one broker"));
        }
        if !self.transactional() && self.transactional_id.is_some() {
            return Err(CheckError::new("transactional_id", "is only for `delivery = \"exactly_once\"`"));
        }
        if self.transactional_id.as_deref() == Some("") {
            return Err(CheckError::new("transactional_id", "is empty; leave it out to have one made up"));
        }
        if self.transaction_timeout.0 < Duration::from_secs(1) || self.transaction_timeout.0 > Duration::from_secs(900)
        {
            return Err(CheckError::new(
                "transaction_timeout",
                "must be between \"1s\" and \"15m\", what brokers allow",
            ));
        }
        Ok(())
    }

    fn reads(&self) -> Option<Vec<String>> {
        let value = match self.format {
            ValueFormat::Json => return None,
            ValueFormat::Text | ValueFormat::Raw => self.value.as_deref()?,
        };
        let mut columns: Vec<_> = self.mapped().into_iter().map(|(_, column)| column).collect();
        columns.push(value);
        columns.extend(self.timestamp.as_deref());
        columns.sort_unstable();
        columns.dedup();
        Some(columns.into_iter().map(str::to_owned).collect())
    }

    fn reads_beside_record(&self) -> Option<Vec<String>> {
        let mapped: Vec<_> = self.mapped().into_iter().map(|(_, column)| column).collect();
        // A column that is mapped is left out of the value, unless it is to be kept there.
        let is_whole = mapped.iter().all(|column| self.keep.iter().any(|kept| kept == column));
        let columns = mapped.into_iter().chain(self.timestamp.as_deref()).map(str::to_owned);
        (self.format == ValueFormat::Json && is_whole).then(|| columns.collect())
    }

    fn files(&self) -> Vec<PathBuf> {
        self.client().files()
    }

    fn two_phase(&self) -> bool {
        self.transactional()
    }

    fn exclusive(&self, _context: &Context) -> Vec<String> {
        self.transactional_id.iter().map(|id| format!("the Kafka transactional id `{id}`")).collect()
    }

    async fn open(&self, context: &Context, state: Option<&Value>) -> Result<Box<dyn Sink>, ConnectorError> {
        Ok(Box::new(Writer::open(self, context, state).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(extra: &str) -> Result<KafkaSink, String> {
        let config: KafkaSink = toml::from_str(&format!("brokers = [\"127.0.0.1:9092\"]\n{extra}"))
            .map_err(|error| error.message().to_owned())?;
        config.check().map_err(|error| format!("{}: {error}", error.key))?;
        Ok(config)
    }

    #[test]
    fn headers_are_a_column_or_a_table() {
        let one = parse("topic = \"t\"\nheaders = \"h\"").unwrap();
        assert_eq!(one.headers, Some(Headers::Column("h".to_owned())));
        let many = parse("topic = \"t\"\nheaders = { trace = \"id\" }").unwrap();
        assert_eq!(many.mapped(), [("headers", "id")]);
    }

    #[test]
    fn what_can_not_be_right_names_its_key() {
        for (extra, key) in [
            ("", "topic: "),
            ("topic = \"a b\"", "topic: "),
            ("topic = \"t\"\nvalue = \"v\"", "value: "),
            ("topic = \"t\"\nformat = \"text\"\nkeep = [\"k\"]", "keep: "),
            ("topic = \"t\"\nkeep = [\"k\"]", "keep: "),
            ("topic = \"t\"\nkey = \"\"", "key: "),
            ("topic = \"t\"\ntransactional_id = \"x\"", "transactional_id: "),
            ("topic = \"t\"\ntransaction_timeout = \"10ms\"", "transaction_timeout: "),
            ("topic = \"t\"\ncreate = { partitions = 0 }", "create: "),
            ("topic = \"t\"\nproperties = { \"transactional.id\" = \"x\" }", "properties: "),
        ] {
            let error = parse(extra).unwrap_err();
            assert!(error.starts_with(key), "{extra}: {error}");
        }
    }

    #[test]
    fn it_reads_what_it_writes() {
        assert_eq!(parse("topic = \"t\"\nkey = \"k\"").unwrap().reads(), None);
        let text = "topic = \"t\"\nformat = \"text\"\nvalue = \"v\"\nkey = \"k\"\ntimestamp = \"time\"";
        assert_eq!(parse(text).unwrap().reads().unwrap(), ["k", "time", "v"]);
    }
}
