//! Small connectors for the tests of this module.

use std::collections::BTreeMap;

use acequia_connector_api::{
    ByteSize, CheckError, ConnectorError, Context, Position, Registry, RowSchema, Secret, Sink, SinkConfig, Source,
    SourceConfig, Span,
};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// All of them.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.source::<Count>().source::<Lines>().sink::<Null>().sink::<LinesSink>();
    registry
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Count {
    /// How many rows there are. All of them by default.
    pub rows: Option<u64>,
    /// Rows a second.
    pub per_second: Option<f64>,
    /// Whether `port` is listened on.
    #[serde(default)]
    pub listen: bool,
    /// The port.
    pub port: Option<u16>,
}

#[async_trait]
impl SourceConfig for Count {
    const TYPE: &'static str = "count";
    const SUMMARY: &'static str = "Numbers from 0.";
    const EXAMPLE: &'static str = "[source]\ntype = \"count\"\nrows = 10\n";

    fn check(&self) -> Result<(), CheckError> {
        match self.per_second {
            Some(rate) if rate <= 0.0 => Err(CheckError::new("per_second", "expected a number above 0")),
            _ => Ok(()),
        }
    }

    fn schema(&self) -> RowSchema {
        RowSchema::unknown()
    }

    fn exclusive(&self) -> Vec<String> {
        self.port.filter(|_| self.listen).map(|port| format!("port {port}")).into_iter().collect()
    }

    fn finite(&self) -> bool {
        self.rows.is_some()
    }

    async fn open(&self, _: &Context, _: Option<&Position>) -> Result<Box<dyn Source>, ConnectorError> {
        Err(ConnectorError::failed("only for tests of the configuration"))
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    Json,
    Text,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Csv {
    /// What stands between two values.
    #[allow(dead_code)]
    pub delimiter: char,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
pub(crate) struct Lines {
    /// The file to read.
    pub path: String,
    /// How a line is read.
    pub format: Format,
    /// How long to wait for more.
    pub wait: Option<Span>,
    /// More of the format.
    pub csv: Option<Csv>,
}

#[async_trait]
impl SourceConfig for Lines {
    const TYPE: &'static str = "lines";
    const SUMMARY: &'static str = "Lines of a file.";
    const EXAMPLE: &'static str = "type = \"lines\"\npath = \"a.txt\"\nformat = \"text\"\n";

    fn schema(&self) -> RowSchema {
        RowSchema::unknown()
    }

    fn finite(&self) -> bool {
        true
    }

    async fn open(&self, _: &Context, _: Option<&Position>) -> Result<Box<dyn Source>, ConnectorError> {
        Err(ConnectorError::failed("only for tests of the configuration"))
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Null {}

#[async_trait]
impl SinkConfig for Null {
    const TYPE: &'static str = "null";
    const SUMMARY: &'static str = "Nothing.";
    const EXAMPLE: &'static str = "type = \"null\"\n";

    async fn open(&self, _: &Context, _: Option<&Value>) -> Result<Box<dyn Sink>, ConnectorError> {
        Err(ConnectorError::failed("only for tests of the configuration"))
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
pub(crate) struct LinesSink {
    /// The file to write.
    pub path: String,
    /// Opens the file.
    pub token: Option<Secret>,
    /// When to begin a new one.
    pub largest: Option<ByteSize>,
    /// Column names.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// Machines.
    #[serde(default)]
    pub nodes: Vec<String>,
}

#[async_trait]
impl SinkConfig for LinesSink {
    const TYPE: &'static str = "lines";
    const SUMMARY: &'static str = "Lines of a file.";
    const EXAMPLE: &'static str = "[[sink]]\ntype = \"lines\"\npath = \"a.txt\"\n";

    fn check(&self) -> Result<(), CheckError> {
        if self.nodes.iter().any(|node| !node.contains(':')) {
            return Err(CheckError::new("nodes", "expected `host:port`"));
        }
        if self.path.ends_with('/') {
            return Err(CheckError::new("", "a folder can't be written"));
        }
        Ok(())
    }

    fn exclusive(&self, context: &Context) -> Vec<String> {
        vec![format!("file {}", context.path(&self.path).display())]
    }

    async fn open(&self, _: &Context, _: Option<&Value>) -> Result<Box<dyn Sink>, ConnectorError> {
        Err(ConnectorError::failed("only for tests of the configuration"))
    }
}
