//! The keys of the `[source]` table.

use std::path::PathBuf;

use acequia_connector_api::{
    CheckError, ConnectorError, Context, Field, Position, RowSchema, Secret, Source, SourceConfig, Span,
};
use acequia_format::{SchemaConfig, parse_timestamp};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::server::{Keys, Tls};
use crate::source::InfluxReader;

/// The rows of a Flux query to InfluxDB 2: once, or again and again about consecutive windows of time.
///
/// The query's columns are the rows' columns: `string` and `duration` are text, `long` and `unsignedLong` int64, `double`
/// float64, `boolean` boolean, `dateTime` a timestamp (cut to microseconds). Tables with different columns are rows with different
/// columns. An empty value is null: the answer does not tell an empty string from a missing one.
///
/// In the query `v.timeRangeStart` and `v.timeRangeStop` are the window, as in InfluxDB's own pages, and `now()` is the window's
/// end. With `every` there is also `v.windowPeriod`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InfluxSource {
    /// The server, such as `"http://127.0.0.1:8086"`. A path is kept: `"https://example.org/influx"`.
    pub url: Option<String>,
    /// Name of the organization.
    pub org: Option<String>,
    /// A token that may read what the query reads.
    pub token: Option<Secret>,
    /// A file of InfluxDB's own Python client, `"influxdb.ini"`, with url, org and token in its section `[influx2]`. Keys
    /// given here count before those of the file.
    pub config: Option<PathBuf>,
    /// The query, in Flux.
    pub query: Option<String>,
    /// A file with the query, in place of `query`.
    pub query_file: Option<PathBuf>,
    /// Ask again each time so much time has passed. Each run is about the time since the one before. Without it the query runs
    /// once, and the pipeline ends.
    pub every: Option<Span>,
    /// Where the first window starts: a date and time, such as `"2026-01-01T00:00:00Z"`. Without it: one `every` before the
    /// pipeline's first start; without `every`, 1970.
    pub start: Option<String>,
    /// How long after its end a window is asked for, so that points that come late are in it. Only with `every`.
    pub delay: Option<Span>,
    /// Columns and their types. Then these are the rows' columns, in place of the query's.
    pub schema: Option<SchemaConfig>,
    /// How long the server may take before each part of the answer: `"10s"`, unless the file of `config` says otherwise.
    pub timeout: Option<Span>,
    /// Certificates, for a URL with `https`.
    pub tls: Option<Tls>,
}

impl InfluxSource {
    pub(crate) fn keys(&self) -> Keys<'_> {
        Keys {
            url: self.url.as_deref(),
            org: self.org.as_deref(),
            token: self.token.as_ref(),
            config: self.config.as_deref(),
            timeout: self.timeout,
            tls: self.tls.as_ref(),
        }
    }

    /// Where the first window starts, in microseconds, if that is given.
    pub(crate) fn first(&self) -> Option<i64> {
        self.start.as_deref().and_then(parse_timestamp)
    }
}

#[async_trait]
impl SourceConfig for InfluxSource {
    const TYPE: &'static str = "influxdb";
    const SUMMARY: &'static str = "a Flux query to InfluxDB 2, once or every so often";
    const EXAMPLE: &'static str = r#"type = "influxdb"
url = "http://127.0.0.1:8086"
org = "my-org"
token = { env = "INFLUX_TOKEN" }
query = '''
from(bucket: "streaming")
  |> range(start: v.timeRangeStart, stop: v.timeRangeStop)
  |> filter(fn: (r) => r._measurement == "trwave")
'''
every = "10s"                  # once, unless given
delay = "2s"                   # points that come late
"#;

    fn check(&self) -> Result<(), CheckError> {
        self.keys().check()?;
        match (&self.query, &self.query_file) {
            (None, None) => return Err(CheckError::new("", "what to ask is missing: give `query` or `query_file`")),
            (Some(_), Some(_)) => {
                return Err(CheckError::new("query_file", "give either `query` or `query_file`, not both"));
            }
            (Some(query), None) if query.trim().is_empty() => {
                return Err(CheckError::new("query", "the query is empty"));
            }
            _ => {}
        }
        if self.every.is_some_and(|every| every.0.as_micros() == 0) {
            return Err(CheckError::new("every", "must be above 0"));
        }
        if self.delay.is_some() && self.every.is_none() {
            return Err(CheckError::new("delay", "only goes with `every`"));
        }
        if let (Some(start), None) = (&self.start, self.first()) {
            return Err(CheckError::new(
                "start",
                format!("`{start}` is not a date and time, such as \"2026-01-01T00:00:00Z\""),
            ));
        }
        Ok(())
    }

    fn schema(&self) -> RowSchema {
        match &self.schema {
            Some(schema) => {
                RowSchema::closed(schema.0.iter().map(|(name, kind)| Field::new(name, *kind, true)).collect())
            }
            None => RowSchema::unknown(),
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        self.keys().files().into_iter().chain(self.query_file.clone()).collect()
    }

    fn finite(&self) -> bool {
        self.every.is_none()
    }

    async fn open(&self, context: &Context, position: Option<&Position>) -> Result<Box<dyn Source>, ConnectorError> {
        Ok(Box::new(InfluxReader::open(self, context, position)?))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may")]
mod tests {
    use super::*;

    #[test]
    fn the_example_and_what_is_wrong() {
        let example: InfluxSource =
            toml::from_str(&InfluxSource::EXAMPLE.replace("type = \"influxdb\"\n", "")).unwrap();
        example.check().unwrap();
        assert!(!example.finite());
        let check = |more: &str| {
            let text = format!("url = 'http://x'\norg = 'o'\ntoken = 't'\n{more}");
            let config: InfluxSource = toml::from_str(&text).unwrap();
            config.check().map_or_else(|error| error.key, |()| "right".to_owned())
        };
        assert_eq!(check("query = 'buckets()'"), "right");
        assert_eq!(check(""), "");
        assert_eq!(check("query = ' '"), "query");
        assert_eq!(check("query = 'x'\nquery_file = 'x'"), "query_file");
        assert_eq!(check("query = 'x'\ndelay = '1s'"), "delay");
        assert_eq!(check("query = 'x'\nevery = '0s'"), "every");
        assert_eq!(check("query = 'x'\nstart = 'yesterday'"), "start");
        assert_eq!(check("query = 'x'\nstart = '2026-01-01'"), "right");
    }
}
