//! The keys of the `[[sink]]` table.

use std::io::IsTerminal;

use acequia_connector_api::{ConnectorError, Context, Sink, SinkConfig};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::{ConsoleSink, Output};

/// How rows look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConsoleFormat {
    /// Aligned columns with a header, for people. Control characters are shown escaped; long values are cut when standard
    /// output is a terminal.
    #[default]
    Table,
    /// One JSON object a line, for programs.
    Json,
}

/// Writes rows to standard output. Where several pipelines do that, each line of a table begins with the pipeline's name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConsoleConfig {
    /// `"table"` for people, `"json"` for programs: one object a line.
    pub format: ConsoleFormat,
}

#[async_trait]
impl SinkConfig for ConsoleConfig {
    const TYPE: &'static str = "console";
    const SUMMARY: &'static str = "writes rows to standard output, as a table or as JSON lines";
    const EXAMPLE: &'static str = "type = \"console\"\nformat = \"table\"     # or \"json\": one object a line\n";

    fn reads_beside_record(&self) -> Option<Vec<String>> {
        (self.format == ConsoleFormat::Json).then(Vec::new)
    }

    async fn open(&self, context: &Context, _state: Option<&Value>) -> Result<Box<dyn Sink>, ConnectorError> {
        let shorten = std::io::stdout().is_terminal();
        Ok(Box::new(ConsoleSink::new(self.format, &context.pipeline, Output::stdout(), shorten)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_and_the_defaults() {
        let example = ConsoleConfig::EXAMPLE.replace("type = \"console\"\n", "");
        assert_eq!(toml::from_str::<ConsoleConfig>(&example).unwrap(), ConsoleConfig::default());
        let json: ConsoleConfig = toml::from_str("format = \"json\"").unwrap();
        assert_eq!(json.format, ConsoleFormat::Json);
        let error = toml::from_str::<ConsoleConfig>("format = \"xml\"").unwrap_err().to_string();
        assert!(error.contains("`table` or `json`"), "{error}");
        assert!(toml::from_str::<ConsoleConfig>("colour = true").is_err());
    }
}
