//! The keys of the `[[sink]]` table.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use acequia_connector_api::{ByteSize, CheckError, ConnectorError, Context, Secret, Sink, SinkConfig, Span};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::escape::{Place, check_name};
use crate::server::{Keys, Tls};
use crate::sink::InfluxWriter;

/// Points in a bucket of InfluxDB 2, by line protocol over HTTP. A point is its series (the measurement and the tags) and its
/// time: writing it again changes nothing, so a replay after a crash is seen once.
///
/// | column | field |
/// |---|---|
/// | int64 | integer |
/// | float64 | float; what is not a number or infinite is a failed row |
/// | boolean | boolean |
/// | text, json | string |
/// | timestamp | string, RFC 3339: InfluxDB has no fields of that type |
/// | binary | string, base64 |
///
/// A null is left out; a row without any field is a failed row.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InfluxSink {
    /// The server, such as `"http://127.0.0.1:8086"`. A path is kept: `"https://example.org/influx"`.
    pub url: Option<String>,
    /// Name of the organization.
    pub org: Option<String>,
    /// Name of the bucket. It must be there.
    pub bucket: Option<String>,
    /// A token that may write to the bucket.
    pub token: Option<Secret>,
    /// A file of InfluxDB's own Python client, `"influxdb.ini"`, whose section `[influx2]` has url, org, token and also
    /// timeout, verify_ssl, ssl_ca_cert, cert_file, cert_key_file, proxy, auth_basic and a bucket; `[tags]` are tags of
    /// every point. Keys given here count before those of the file.
    pub config: Option<PathBuf>,
    /// The points' measurement.
    pub measurement: Option<String>,
    /// The column with the measurement, in place of `measurement`.
    pub measurement_column: Option<String>,
    /// The columns that are tags, by name, or as `{ tag = "column" }`. Values of any type are written as text; null and
    /// empty ones are left out.
    pub tags: Names,
    /// The columns that are fields, by name, or as `{ field = "column" }`. Without it: all that are not used otherwise.
    pub fields: Option<Names>,
    /// The column with the points' time: a timestamp, a text that is one, or an int64 in the unit of `precision`. Without it:
    /// `timestamp`, else `time`, if that is a timestamp.
    pub time: Option<String>,
    /// Give points the time at which they are written, each its own. Rows that are replayed after a crash are then written
    /// again, at another time.
    pub time_of_writing: bool,
    /// The unit of times: `"ns"`, `"us"`, `"ms"` or `"s"`. A timestamp is cut to it.
    pub precision: Precision,
    /// How many points are sent at a time.
    pub batch: PostLimits,
    /// Compress what is sent: about a third of the bytes, at the cost of processor time on both sides. Worth it over a slow
    /// network, not on one machine.
    pub gzip: bool,
    /// How many requests are sent side by side. Above 1, two rows of the same series and time may be written in the other
    /// order.
    pub concurrency: usize,
    /// How long the server may take to answer: `"10s"`, unless the file of `config` says otherwise.
    pub timeout: Option<Span>,
    /// Certificates, for a URL with `https`.
    pub tls: Option<Tls>,
}

impl Default for InfluxSink {
    fn default() -> Self {
        InfluxSink {
            url: None,
            org: None,
            bucket: None,
            token: None,
            config: None,
            measurement: None,
            measurement_column: None,
            tags: Names::default(),
            fields: None,
            time: None,
            time_of_writing: false,
            precision: Precision::Us,
            batch: PostLimits::default(),
            gzip: false,
            concurrency: 1,
            timeout: None,
            tls: None,
        }
    }
}

/// Columns, each with its name in InfluxDB: `["column"]`, or `{ name = "column" }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Names {
    /// Columns that keep their name.
    Same(Vec<String>),
    /// Name and column.
    Other(BTreeMap<String, String>),
}

impl Default for Names {
    fn default() -> Self {
        Names::Same(Vec::new())
    }
}

impl Names {
    /// Name and column, each.
    pub(crate) fn pairs(&self) -> Vec<(&str, &str)> {
        match self {
            Names::Same(columns) => columns.iter().map(|column| (column.as_str(), column.as_str())).collect(),
            Names::Other(names) => names.iter().map(|(name, column)| (name.as_str(), column.as_str())).collect(),
        }
    }
}

/// The unit of a point's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Nanoseconds.
    Ns,
    /// Microseconds.
    #[default]
    Us,
    /// Milliseconds.
    Ms,
    /// Seconds.
    S,
}

impl Precision {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Precision::Ns => "ns",
            Precision::Us => "us",
            Precision::Ms => "ms",
            Precision::S => "s",
        }
    }

    /// Nanoseconds in one.
    pub(crate) fn nanos(self) -> i64 {
        match self {
            Precision::Ns => 1,
            Precision::Us => 1000,
            Precision::Ms => 1_000_000,
            Precision::S => 1_000_000_000,
        }
    }
}

/// When points are sent: as soon as one of the three is reached, and at every checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PostLimits {
    /// So many points.
    pub rows: usize,
    /// About so many bytes of line protocol.
    pub bytes: ByteSize,
    /// So long after the first of them.
    pub wait: Span,
}

impl Default for PostLimits {
    fn default() -> Self {
        PostLimits { rows: 5000, bytes: ByteSize(1 << 20), wait: Span(Duration::from_secs(1)) }
    }
}

impl InfluxSink {
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

    fn check_names(&self, key: &str, names: &Names, place: Place) -> Result<(), CheckError> {
        let pairs = names.pairs();
        for (index, (name, column)) in pairs.iter().enumerate() {
            check_name(place, name).map_err(|message| CheckError::new(key, message))?;
            if column.is_empty() {
                return Err(CheckError::new(key, "the name of a column is empty"));
            }
            if pairs.iter().take(index).any(|(other, _)| other == name) {
                return Err(CheckError::new(key, format!("`{name}` stands here twice")));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl SinkConfig for InfluxSink {
    const TYPE: &'static str = "influxdb";
    const SUMMARY: &'static str = "points in a bucket of InfluxDB 2";
    const EXAMPLE: &'static str = r#"type = "influxdb"
url = "http://127.0.0.1:8086"
org = "my-org"
bucket = "streaming"
token = { env = "INFLUX_TOKEN" }
measurement = "trwave"
tags = []                      # columns that are tags, such as ["host"]
fields = { tr = "value" }      # all other columns, unless given
time = "timestamp"
precision = "us"               # or "ns", "ms", "s"
batch = { rows = 5000, bytes = "1MiB", wait = "1s" }
"#;

    fn check(&self) -> Result<(), CheckError> {
        self.keys().check()?;
        if self.config.is_none() && self.bucket.is_none() {
            return Err(CheckError::new("", "`bucket` is missing: name the bucket to write to"));
        }
        if self.bucket.as_deref() == Some("") {
            return Err(CheckError::new("bucket", "the bucket's name is empty"));
        }
        match (&self.measurement, &self.measurement_column) {
            (None, None) => {
                return Err(CheckError::new("", "`measurement` is missing: name the measurement of the points"));
            }
            (Some(_), Some(_)) => {
                return Err(CheckError::new(
                    "measurement_column",
                    "give either `measurement` or `measurement_column`, not both",
                ));
            }
            (Some(name), None) => {
                check_name(Place::Measurement, name).map_err(|message| CheckError::new("measurement", message))?;
            }
            (None, Some(_)) => {}
        }
        self.check_names("tags", &self.tags, Place::Tag)?;
        if let Some(fields) = &self.fields {
            self.check_names("fields", fields, Place::Field)?;
            if fields.pairs().is_empty() {
                return Err(CheckError::new("fields", "a point needs at least one field"));
            }
        }
        if self.time.is_some() && self.time_of_writing {
            return Err(CheckError::new("time_of_writing", "give either `time` or `time_of_writing`, not both"));
        }
        if self.time_of_writing && self.precision.nanos() > 1000 {
            // Each point gets a time of its own, so many a second would run ahead of the clock.
            return Err(CheckError::new("precision", "`time_of_writing` needs the precision \"us\" or \"ns\""));
        }
        for (key, zero) in [
            ("batch.rows", self.batch.rows == 0),
            ("batch.bytes", self.batch.bytes.0 == 0),
            ("batch.wait", self.batch.wait.0.is_zero()),
            ("concurrency", self.concurrency == 0),
        ] {
            if zero {
                return Err(CheckError::new(key, "must be above 0"));
            }
        }
        Ok(())
    }

    fn reads(&self) -> Option<Vec<String>> {
        let fields = self.fields.as_ref()?;
        let time = match (&self.time, self.time_of_writing) {
            (Some(time), _) => Some(time.clone()),
            (None, true) => None,
            // It is only known from the columns which one is the time.
            (None, false) => return None,
        };
        let named = fields.pairs().into_iter().chain(self.tags.pairs()).map(|(_, column)| column.to_owned());
        let mut columns: Vec<String> = named.chain(time).chain(self.measurement_column.clone()).collect();
        columns.sort();
        columns.dedup();
        Some(columns)
    }

    fn files(&self) -> Vec<PathBuf> {
        self.keys().files()
    }

    async fn open(&self, context: &Context, _: Option<&Value>) -> Result<Box<dyn Sink>, ConnectorError> {
        Ok(Box::new(InfluxWriter::open(self, context).await?))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may")]
mod tests {
    use super::*;

    #[test]
    fn the_example_and_what_it_reads() {
        let config: InfluxSink = toml::from_str(&InfluxSink::EXAMPLE.replace("type = \"influxdb\"\n", "")).unwrap();
        config.check().unwrap();
        assert_eq!(config.reads().unwrap(), ["timestamp", "value"]);
        assert_eq!(InfluxSink::default().reads(), None);
        assert!(!format!("{config:?}").contains("token: Some(Text"));
    }

    #[test]
    fn what_is_wrong_names_the_key() {
        let base = "url = 'http://x'\norg = 'o'\nbucket = 'b'\ntoken = 't'\n";
        let check = |more: &str| {
            let config: InfluxSink = toml::from_str(&format!("{base}{more}")).unwrap();
            config.check().map_or_else(|error| format!("{}: {error}", error.key), |()| String::new())
        };
        assert_eq!(check("measurement = 'm'"), "");
        assert_eq!(check(""), ": `measurement` is missing: name the measurement of the points");
        assert!(check("measurement = '#m'").starts_with("measurement: "));
        assert!(check("measurement = 'm'\nmeasurement_column = 'm'").starts_with("measurement_column: "));
        assert!(check("measurement = 'm'\ntags = { time = 'x' }").starts_with("tags: a tag can't be named `time`"));
        assert!(check("measurement = 'm'\nfields = ['a', 'a']").starts_with("fields: `a` stands here twice"));
        assert!(check("measurement = 'm'\nfields = []").starts_with("fields: "));
        assert!(check("measurement = 'm'\nbatch = { rows = 0 }").starts_with("batch.rows: "));
        assert!(check("measurement = 'm'\ntime_of_writing = true\nprecision = 's'").starts_with("precision: "));
        assert!(check("measurement = 'm'\ntime_of_writing = true\ntime = 't'").starts_with("time_of_writing: "));
        let none: InfluxSink = toml::from_str("url = 'http://x'\norg = 'o'\nbucket = 'b'\nmeasurement = 'm'").unwrap();
        assert!(none.check().unwrap_err().message.starts_with("`token` is missing"));
        let file: InfluxSink = toml::from_str("config = 'influxdb.ini'\nmeasurement = 'm'").unwrap();
        file.check().unwrap();
    }
}
