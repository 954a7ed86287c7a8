//! The keys of a `[source]` table.

use std::path::PathBuf;

use acequia_connector_api::{
    CheckError, ConnectorError, Context, Position, RowSchema, Secret, Source, SourceConfig, Span,
};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::client::{Client, Consistency, Tls};
use crate::config::default_request_timeout;
use crate::source::CassandraReader;

/// The rows of a table of Cassandra or ScyllaDB, each once, in no order. The columns have the table's names. Whole numbers
/// are int64 (counters too), floats float64, blobs binary, lists, sets, maps, tuples, vectors and user-defined types JSON;
/// `decimal`, `varint`, `uuid`, `inet`, `date`, `time` and `duration` are text that says them exactly.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CassandraSource {
    /// Some of the cluster's nodes, such as `["127.0.0.1:9042"]`; the others are found through them.
    pub nodes: Vec<String>,
    /// The keyspace, exactly as it is named.
    pub keyspace: String,
    /// The table, exactly as it is named.
    pub table: String,
    /// The table's columns to read, in this order. Without it: all, the key first.
    pub columns: Option<Vec<String>>,
    /// The user's name, where the cluster asks for one.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// TLS towards the nodes.
    pub tls: Option<Tls>,
    /// The datacenter whose nodes are asked first.
    pub datacenter: Option<String>,
    /// How many replicas must answer.
    #[serde(default)]
    pub consistency: Consistency,
    /// How many parts of the table are read at a time.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// How many rows one answer of the server has at most. Less for very large rows.
    #[serde(default = "default_page")]
    pub page: usize,
    /// Read the whole table again that long after its end, for ever. Without it the source ends.
    pub poll: Option<Span>,
    /// How long a statement may take before it is tried again.
    #[serde(default = "default_request_timeout")]
    pub request_timeout: Span,
}

fn default_concurrency() -> usize {
    8
}

fn default_page() -> usize {
    1000
}

impl CassandraSource {
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
}

#[async_trait]
impl SourceConfig for CassandraSource {
    const TYPE: &'static str = "cassandra";
    const SUMMARY: &'static str = "the rows of a table of Cassandra or ScyllaDB, once or every so often";
    const EXAMPLE: &'static str = r#"type = "cassandra"
nodes = ["127.0.0.1:9042"]
keyspace = "test"
table = "people"
# columns = ["id", "name"]     # without it: all
# poll = "10s"                 # read it again and again; without it: once
# username = "app"
# password = { env = "CASSANDRA_PASSWORD" }
"#;

    fn check(&self) -> Result<(), CheckError> {
        self.client().check()?;
        if self.columns.as_ref().is_some_and(Vec::is_empty) {
            return Err(CheckError::new("columns", "no column at all: name some, or leave it out for all"));
        }
        if let Some(columns) = &self.columns
            && let Some((_, twice)) =
                columns.iter().enumerate().find(|(index, name)| columns.iter().take(*index).any(|other| other == *name))
        {
            return Err(CheckError::new("columns", format!("`{twice}` is there twice")));
        }
        if self.concurrency == 0 || self.concurrency > 1024 {
            return Err(CheckError::new("concurrency", "must be from 1 to 1024"));
        }
        if self.page == 0 || self.page > 1_000_000 {
            return Err(CheckError::new("page", "must be from 1 to 1000000"));
        }
        if matches!(self.consistency, Consistency::Any | Consistency::EachQuorum) {
            return Err(CheckError::new("consistency", "is for writes only"));
        }
        if self.poll.is_some_and(|poll| poll.0.is_zero()) {
            return Err(CheckError::new("poll", "must be above 0"));
        }
        Ok(())
    }

    fn schema(&self) -> RowSchema {
        RowSchema::unknown()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.client().files()
    }

    fn finite(&self) -> bool {
        self.poll.is_none()
    }

    async fn open(&self, context: &Context, position: Option<&Position>) -> Result<Box<dyn Source>, ConnectorError> {
        Ok(Box::new(CassandraReader::open(self, context, position).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> CassandraSource {
        toml::from_str(&format!("nodes = ['localhost']\nkeyspace = 'k'\ntable = 't'\n{text}")).unwrap()
    }

    #[test]
    fn the_example_parses() {
        let lines = CassandraSource::EXAMPLE.lines().filter(|line| !line.starts_with("type = "));
        let example: String = lines.map(|line| format!("{}\n", line.strip_prefix("# ").unwrap_or(line))).collect();
        let example: CassandraSource = toml::from_str(&example).unwrap();
        assert!(example.check().is_ok());
        assert!(!example.finite());
        assert!(parse("").finite());
    }

    #[test]
    fn wrong_values_are_named() {
        let mut report = String::new();
        for text in [
            "columns = []",
            "columns = ['a', 'b', 'a']",
            "concurrency = 0",
            "page = 0",
            "poll = '0s'",
            "consistency = 'ANY'",
            "username = 'me'",
        ] {
            let error = parse(text).check().unwrap_err();
            report += &format!("{text}\n  -> `{}`: {error}\n", error.key);
        }
        insta::assert_snapshot!(report);
    }
}
