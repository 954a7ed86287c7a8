//! The keys of the `[source]` table.

use std::net::SocketAddr;
use std::path::PathBuf;

use acequia_connector_api::{ByteSize, CheckError, ConnectorError, Context, Position, RowSchema, Source, SourceConfig};
use acequia_format::{CsvOptions, Format, FormatOptions, SchemaConfig};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::SocketSource;

/// Lines from a TCP or Unix socket. A socket can't be read again: across a crash of the daemon, rows that had been read but
/// not yet written are lost.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SocketConfig {
    /// Host and port, such as `"127.0.0.1:9999"` or `"[::1]:9999"`.
    pub address: Option<String>,
    /// Path of a Unix socket, in place of `address`.
    pub unix: Option<PathBuf>,
    /// Wait for clients to connect, in place of connecting to a server. The rows of several clients are merged.
    pub listen: bool,
    /// `"text"`: a line is a row with the column `value`. `"json"`: a JSON object is a row. `"csv"`: each connection has a
    /// header of its own. `"raw"`: lines of bytes that need not be UTF-8.
    pub format: Format,
    /// Columns and their types. For text and raw the type of `value`; for JSON and CSV all columns.
    pub schema: Option<SchemaConfig>,
    /// How CSV is written.
    pub csv: CsvOptions,
    /// A longer line, or other record, is a failed row.
    pub max_record: ByteSize,
    /// At most this many clients at a time, if `listen` is set; others wait until one has gone.
    pub max_connections: usize,
}

impl Default for SocketConfig {
    fn default() -> Self {
        SocketConfig {
            address: None,
            unix: None,
            listen: false,
            format: Format::Text,
            schema: None,
            csv: CsvOptions::default(),
            max_record: ByteSize(1 << 20),
            max_connections: 256,
        }
    }
}

impl SocketConfig {
    pub(crate) fn format_options(&self) -> FormatOptions {
        FormatOptions { format: self.format, schema: self.schema.clone(), csv: self.csv.clone() }
    }
}

/// The port of `host:port`.
fn port(address: &str) -> Result<u16, String> {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !bracketed) {
        return Err(format!("`{address}` is not a host and a port, such as 127.0.0.1:9999 or [::1]:9999"));
    }
    port.parse().map_err(|_| format!("`{address}` does not end in a port (0 to 65535), such as 127.0.0.1:9999"))
}

#[async_trait]
impl SourceConfig for SocketConfig {
    const TYPE: &'static str = "socket";
    const SUMMARY: &'static str = "lines from a TCP or Unix socket, as a client or as a server";
    const EXAMPLE: &'static str = r#"type = "socket"
address = "127.0.0.1:9999"     # or unix = "path"
listen = false                 # true: wait for clients instead
format = "text"                # or "json", "csv", "raw"
"#;

    fn check(&self) -> Result<(), CheckError> {
        match (&self.address, &self.unix) {
            (None, None) => return Err(CheckError::new("", "where to connect is missing: give `address` or `unix`")),
            (Some(_), Some(_)) => return Err(CheckError::new("unix", "give either `address` or `unix`, not both")),
            (Some(address), None) => match port(address) {
                Err(message) => return Err(CheckError::new("address", message)),
                Ok(0) if !self.listen => {
                    return Err(CheckError::new("address", "port 0 can't be connected to; it is for `listen` only"));
                }
                Ok(_) => {}
            },
            (None, Some(path)) if path.as_os_str().is_empty() => {
                return Err(CheckError::new("unix", "the path is empty"));
            }
            (None, Some(_)) => {}
        }
        if self.max_record.0 == 0 {
            return Err(CheckError::new("max_record", "must be above 0"));
        }
        if self.max_connections == 0 {
            return Err(CheckError::new("max_connections", "must be above 0"));
        }
        self.format_options().check()
    }

    fn schema(&self) -> RowSchema {
        self.format_options().row_schema()
    }

    fn projects(&self) -> bool {
        self.format_options().projects()
    }

    fn exclusive(&self) -> Vec<String> {
        if !self.listen {
            return Vec::new();
        }
        match (&self.address, &self.unix) {
            // Every listener on port 0 gets a port of its own.
            (Some(address), _) if port(address) == Ok(0) => Vec::new(),
            (Some(address), _) => {
                // One spelling for each: IPv6 addresses have many.
                let parsed = address.parse::<SocketAddr>().map(|address| address.to_string());
                vec![format!("tcp {}", parsed.unwrap_or_else(|_| address.to_lowercase()))]
            }
            (None, Some(path)) => vec![format!("unix {}", path.display())],
            (None, None) => Vec::new(),
        }
    }

    fn finite(&self) -> bool {
        false
    }

    async fn open(&self, context: &Context, position: Option<&Position>) -> Result<Box<dyn Source>, ConnectorError> {
        Ok(Box::new(SocketSource::open(self, context, position).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use acequia_connector_api::ColumnType;

    fn parse(text: &str) -> SocketConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_example_and_the_defaults() {
        let example = parse(&SocketConfig::EXAMPLE.replace("type = \"socket\"\n", ""));
        assert!(example.check().is_ok());
        assert_eq!(example, parse("address = '127.0.0.1:9999'"));
        assert!(!example.finite());
        assert!(example.exclusive().is_empty());
        assert_eq!(example.schema().field("value").unwrap().kind, ColumnType::Text);
        let typed = parse("unix = 'numbers.sock'\nschema = { value = 'float64' }");
        assert!(typed.check().is_ok());
        assert_eq!(typed.schema().field("value").unwrap().kind, ColumnType::Float64);
    }

    #[test]
    fn only_a_listener_is_exclusive() {
        for (text, names) in [
            ("address = '127.0.0.1:9999'\nlisten = true", vec!["tcp 127.0.0.1:9999"]),
            ("address = '[0:0::1]:9999'\nlisten = true", vec!["tcp [::1]:9999"]),
            ("address = 'LocalHost:9999'\nlisten = true", vec!["tcp localhost:9999"]),
            ("address = '127.0.0.1:0'\nlisten = true", vec![]),
            ("unix = 'a/b.sock'\nlisten = true", vec!["unix a/b.sock"]),
            ("unix = 'a/b.sock'", vec![]),
        ] {
            let config = parse(text);
            assert!(config.check().is_ok(), "{text}");
            assert_eq!(config.exclusive(), names, "{text}");
        }
    }

    #[test]
    fn wrong_values_are_named() {
        let mut report = String::new();
        for text in [
            "",
            "address = '127.0.0.1:9999'\nunix = 'x'",
            "address = '127.0.0.1'",
            "address = ':9999'",
            "address = '::1:9999'",
            "address = 'host:99999'",
            "address = 'host:0'",
            "unix = ''",
            "unix = 'x'\nmax_record = 0",
            "unix = 'x'\nmax_connections = 0",
            "unix = 'x'\nschema = { name = 'text' }",
            "unix = 'x'\nformat = 'csv'\ncsv = { delimiter = 'ä' }",
        ] {
            let error = parse(text).check().unwrap_err();
            report += &format!("{text}\n  -> `{}`: {error}\n", error.key);
        }
        insta::assert_snapshot!(report);
        assert!(toml::from_str::<SocketConfig>("format = 'parquet'").is_err());
        assert!(toml::from_str::<SocketConfig>("adress = 'host:1'").is_err());
    }
}
