//! The keys of a `[[sink]]` table.

use std::collections::BTreeMap;
use std::path::PathBuf;

use acequia_connector_api::{CheckError, ConnectorError, Context, Secret, Sink, SinkConfig, Span};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::client::{Client, Consistency, Tls};
use crate::sink::CassandraWriter;

/// Rows into a table of Cassandra or ScyllaDB, one statement a row, many in flight. Writing a row again changes nothing,
/// so that after a crash no row is missing and none is there twice (but see counters).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CassandraSink {
    /// Some of the cluster's nodes, such as `["127.0.0.1:9042"]`; the others are found through them.
    pub nodes: Vec<String>,
    /// The keyspace, exactly as it is named.
    pub keyspace: String,
    /// The table, exactly as it is named.
    pub table: String,
    /// Where a column of the table is not named as the row's: `{ id = "word" }` fills `id` from the row's `word`. Other
    /// columns of the table are filled from the row's column of the same name. A column of the row that the table does
    /// not have is left out.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// The user's name, where the cluster asks for one.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// TLS towards the nodes.
    pub tls: Option<Tls>,
    /// The datacenter whose nodes are asked first.
    pub datacenter: Option<String>,
    /// How many replicas must confirm a row. `LOCAL_QUORUM` survives the loss of a node, and with one replica it is that
    /// one.
    #[serde(default)]
    pub consistency: Consistency,
    /// How many rows are in flight at a time.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// How long a row lives: seconds, a length of time such as `"7d"`, or the name of a row's int64 column with seconds.
    /// Without it the table's own default holds.
    pub ttl: Option<Ttl>,
    /// The row's column that says when it was written, in place of the sink's clock: of two rows with the same key the
    /// one with the greater timestamp stays. A timestamp, or int64 with microseconds.
    pub timestamp: Option<String>,
    /// What a null becomes. `"unset"` leaves the table's value as it is and costs nothing; `"null"` deletes it, which
    /// leaves a tombstone.
    #[serde(default)]
    pub nulls: Nulls,
    /// Create the keyspace and the table if they are not there, with the columns of the first rows: boolean, bigint,
    /// double, timestamp, text (also for JSON) and blob. Needs `primary_key`.
    #[serde(default)]
    pub create: bool,
    /// The table's columns that are its key, for `create`: the first is the partition key, the others order the rows
    /// within a partition. `[["a", "b"], "c"]` makes a partition key of two.
    #[serde(default)]
    pub primary_key: Vec<KeyPart>,
    /// How the keyspace is replicated, for `create`.
    #[serde(default = "default_replication")]
    pub replication: BTreeMap<String, ReplicationValue>,
    /// How long a statement may take before it is tried again.
    #[serde(default = "default_request_timeout")]
    pub request_timeout: Span,
}

/// How long rows live.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Ttl {
    /// Seconds; 0 is for ever, whatever the table's default.
    Seconds(u32),
    /// A length of time, or a column.
    Text(String),
}

/// What a null becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Nulls {
    /// The table's value stays as it is.
    #[default]
    Unset,
    /// The table's value is deleted.
    Null,
}

/// A part of the primary key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum KeyPart {
    /// One column.
    Column(String),
    /// The columns of the partition key.
    Partition(Vec<String>),
}

/// A value of the keyspace's replication.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ReplicationValue {
    /// How many replicas.
    Number(u32),
    /// The class.
    Text(String),
}

/// Cassandra refuses a longer one: 20 years.
pub(crate) const MAX_TTL: i64 = 630_720_000;

impl Ttl {
    /// The seconds that are the same for all rows, or the column that says them.
    pub(crate) fn resolve(&self) -> Result<Result<i64, &str>, String> {
        let seconds = match self {
            Ttl::Seconds(seconds) => i64::from(*seconds),
            Ttl::Text(text) => match toml_span(text) {
                None => return Ok(Err(text)),
                Some(span) if span.0.subsec_nanos() != 0 => {
                    return Err(format!("`{text}` is not a whole number of seconds"));
                }
                Some(span) => i64::try_from(span.0.as_secs()).unwrap_or(i64::MAX),
            },
        };
        if seconds > MAX_TTL {
            return Err(format!("must be at most {MAX_TTL} seconds (20 years): Cassandra takes no more"));
        }
        Ok(Ok(seconds))
    }
}

/// A length of time, if the text is one.
fn toml_span(text: &str) -> Option<Span> {
    serde_json::from_value(Value::String(text.to_owned())).ok()
}

pub(crate) fn default_concurrency() -> usize {
    256
}

fn default_replication() -> BTreeMap<String, ReplicationValue> {
    BTreeMap::from([
        ("class".to_owned(), ReplicationValue::Text("SimpleStrategy".to_owned())),
        ("replication_factor".to_owned(), ReplicationValue::Number(1)),
    ])
}

pub(crate) fn default_request_timeout() -> Span {
    Span(std::time::Duration::from_secs(10))
}

impl CassandraSink {
    pub(crate) fn client(&self) -> Client<'_> {
        Client {
            nodes: &self.nodes,
            keyspace: &self.keyspace,
            table: &self.table,
            username: self.username.as_deref(),
            password: self.password.as_ref(),
            tls: self.tls.as_ref(),
            datacenter: self.datacenter.as_deref(),
            consistency: self.consistency,
            request_timeout: self.request_timeout.0,
        }
    }

    /// Partition key and clustering columns, for `create`.
    pub(crate) fn key(&self) -> Option<(Vec<&str>, Vec<&str>)> {
        let (first, rest) = self.primary_key.split_first()?;
        let partition = match first {
            KeyPart::Column(name) => vec![name.as_str()],
            KeyPart::Partition(names) => names.iter().map(String::as_str).collect(),
        };
        let clustering = rest.iter().map(|part| match part {
            KeyPart::Column(name) => Some(name.as_str()),
            KeyPart::Partition(_) => None,
        });
        Some((partition, clustering.collect::<Option<Vec<_>>>()?)).filter(|(partition, _)| !partition.is_empty())
    }
}

#[async_trait]
impl SinkConfig for CassandraSink {
    const TYPE: &'static str = "cassandra";
    const SUMMARY: &'static str = "rows into a table of Cassandra or ScyllaDB";
    const EXAMPLE: &'static str = r#"type = "cassandra"
nodes = ["127.0.0.1:9042"]
keyspace = "test"
table = "wordcount"
columns = { id = "word" }      # the table's column = the row's
consistency = "LOCAL_QUORUM"
concurrency = 256              # rows in flight
nulls = "unset"                # or "null": delete what is there
# username = "app"
# password = { env = "CASSANDRA_PASSWORD" }
# tls = { ca = "ca.pem" }
# ttl = "7d"                   # or seconds, or a column
# create = true
# primary_key = ["id"]
"#;

    fn check(&self) -> Result<(), CheckError> {
        self.client().check()?;
        if self.concurrency == 0 || self.concurrency > 32_768 {
            return Err(CheckError::new("concurrency", "must be from 1 to 32768, what one connection can carry"));
        }
        if let Some(Err(message)) = self.ttl.as_ref().map(Ttl::resolve) {
            return Err(CheckError::new("ttl", message));
        }
        if self.create && self.key().is_none() {
            let message = "`create` needs the table's key, such as [\"id\"], or [[\"a\", \"b\"], \"c\"] with a partition \
                           key of two; only the first part can be a list";
            return Err(CheckError::new("primary_key", message));
        }
        if !self.create && !self.primary_key.is_empty() {
            return Err(CheckError::new("primary_key", "the table's key is its own; this is for `create = true` only"));
        }
        Ok(())
    }

    fn files(&self) -> Vec<PathBuf> {
        self.client().files()
    }

    async fn open(&self, context: &Context, state: Option<&Value>) -> Result<Box<dyn Sink>, ConnectorError> {
        Ok(Box::new(CassandraWriter::open(self.clone(), context, state).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> CassandraSink {
        let text = format!("nodes = ['localhost']\nkeyspace = 'k'\ntable = 't'\n{text}");
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn the_example_parses() {
        let lines = CassandraSink::EXAMPLE.lines().filter(|line| !line.starts_with("type = "));
        let example: String = lines.map(|line| format!("{}\n", line.strip_prefix("# ").unwrap_or(line))).collect();
        let example: CassandraSink = toml::from_str(&example).unwrap();
        assert!(example.check().is_ok());
        assert_eq!(example.columns["id"], "word");
    }

    #[test]
    fn ttl_is_a_number_a_length_or_a_column() {
        assert_eq!(parse("ttl = 60").ttl.unwrap().resolve(), Ok(Ok(60)));
        assert_eq!(parse("ttl = '7d'").ttl.unwrap().resolve(), Ok(Ok(604_800)));
        assert_eq!(parse("ttl = 'keep_for'").ttl.unwrap().resolve(), Ok(Err("keep_for")));
    }

    #[test]
    fn wrong_values_are_named() {
        let mut report = String::new();
        for text in [
            "concurrency = 0",
            "concurrency = 100000",
            "ttl = '1ms'",
            "ttl = 4000000000",
            "create = true",
            "create = true\nprimary_key = ['a', ['b']]",
            "create = true\nprimary_key = [[]]",
            "primary_key = ['id']",
            "username = 'me'",
            "password = 'secret'",
            "request_timeout = '0s'",
            "tls = { key = 'x' }",
        ] {
            let error = parse(text).check().unwrap_err();
            report += &format!("{text}\n  -> `{}`: {error}\n", error.key);
        }
        for (nodes, keyspace, table) in [("", "k", "t"), ("'a:b'", "k", "t"), ("'a'", "", "t"), ("'a'", "k", "k.t")] {
            let text = format!("nodes = [{nodes}]\nkeyspace = '{keyspace}'\ntable = '{table}'");
            let error = toml::from_str::<CassandraSink>(&text).unwrap().check().unwrap_err();
            report += &format!("{nodes} {keyspace} {table}\n  -> `{}`: {error}\n", error.key);
        }
        insta::assert_snapshot!(report);
    }
}
