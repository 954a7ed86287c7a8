//! What a connector's configuration says about its format.

use std::borrow::Cow;
use std::fmt;

use acequia_connector_api::{CheckError, ColumnType, Field, RowSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// How rows are written as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// JSON objects: an array of them, one a line, or one after the other.
    Json,
    /// Lines of UTF-8 text, in the column `value`.
    Text,
    /// Records of fields, RFC 4180.
    Csv,
    /// Bytes as they are, in the column `value`. Where bytes are a stream (a file, a socket) a record is a line.
    Raw,
}

impl Format {
    /// The name as it stands in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Text => "text",
            Format::Csv => "csv",
            Format::Raw => "raw",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Columns declared by name and type: `schema = { value = "float64", time = "timestamp" }`.
///
/// The order is the file's where the parser keeps it. Nothing but the order of a batch's columns depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaConfig(pub Vec<(String, ColumnType)>);

impl SchemaConfig {
    /// The type of a column.
    pub fn get(&self, name: &str) -> Option<ColumnType> {
        self.0.iter().find(|(column, _)| column == name).map(|(_, kind)| *kind)
    }
}

impl<'de> Deserialize<'de> for SchemaConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ColumnsVisitor;
        impl<'de> Visitor<'de> for ColumnsVisitor {
            type Value = SchemaConfig;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a table of column names and types, such as { value = \"float64\" }")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SchemaConfig, A::Error> {
                let mut columns = Vec::new();
                while let Some(column) = map.next_entry()? {
                    columns.push(column);
                }
                Ok(SchemaConfig(columns))
            }
        }
        deserializer.deserialize_map(ColumnsVisitor)
    }
}

impl JsonSchema for SchemaConfig {
    fn schema_name() -> Cow<'static, str> {
        "ColumnTypes".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let kind = generator.subschema_for::<ColumnType>();
        json_schema!({
            "description": "column names and their types",
            "type": "object",
            "additionalProperties": kind,
        })
    }
}

/// How CSV is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CsvOptions {
    /// What stands between two fields: one ASCII character.
    pub delimiter: char,
    /// What a field is wrapped in when it contains a delimiter, a quote or a line break: one ASCII character. Inside, it is
    /// written twice.
    pub quote: char,
    /// Whether the first record names the columns.
    pub header: bool,
    /// The names of the columns where there is no header. Without it they are `_c0`, `_c1`, … as in Spark.
    pub columns: Vec<String>,
}

impl Default for CsvOptions {
    fn default() -> Self {
        CsvOptions { delimiter: ',', quote: '"', header: true, columns: Vec::new() }
    }
}

/// Everything that decides how records become rows. A connector fills it from keys of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatOptions {
    /// The format.
    pub format: Format,
    /// The declared columns. `text` and `raw` have one column, `value`, and only its type can be declared. For `json` and
    /// `csv` a declared schema is authoritative: a key or field that it does not name is dropped, one that is missing is
    /// null, a value that can't be cast fails its row.
    pub schema: Option<SchemaConfig>,
    /// For `csv`.
    pub csv: CsvOptions,
}

impl FormatOptions {
    /// A format with everything else as it is by default.
    pub fn new(format: Format) -> Self {
        FormatOptions { format, schema: None, csv: CsvOptions::default() }
    }

    /// Is it right in itself?
    ///
    /// # Errors
    /// Names the key at fault as if the options stood in a connector's table as `format`, `schema` and `csv`.
    pub fn check(&self) -> Result<(), CheckError> {
        if let Some(schema) = &self.schema {
            self.check_schema(schema)?;
        }
        match self.format {
            Format::Csv => self.csv.check(),
            Format::Json | Format::Text | Format::Raw => Ok(()),
        }
    }

    fn check_schema(&self, schema: &SchemaConfig) -> Result<(), CheckError> {
        if schema.0.is_empty() {
            return Err(CheckError::new("schema", "declares no column: name at least one, or leave `schema` out"));
        }
        let refuse = |name: &str, message: String| Err(CheckError::new(format!("schema.{name}"), message));
        for (name, _) in &schema.0 {
            match self.format {
                Format::Text | Format::Raw if name != "value" => {
                    let format = self.format;
                    return refuse(
                        name,
                        format!("format {format} has only the column `value`: declare its type, or use json or csv"),
                    );
                }
                Format::Csv if !self.csv.header && !self.csv.has_column(name) => {
                    return refuse(
                        name,
                        "no such column: a file without a header has the columns that `csv.columns` names".into(),
                    );
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a decoder can leave out columns and give rows their own text instead ([`crate::Decoder::reading`]).
    pub fn projects(&self) -> bool {
        self.format == Format::Json && self.schema.is_none()
    }

    /// What is known of the rows before the first one: `value` for `text` (text) and `raw` (binary), the declared columns,
    /// the columns of a CSV file without a header, or nothing for JSON, and CSV with a header, without a schema.
    pub fn row_schema(&self) -> RowSchema {
        if let Some(schema) = &self.schema {
            return RowSchema::closed(schema.0.iter().map(|(name, kind)| Field::new(name, *kind, true)).collect());
        }
        match self.format {
            Format::Text => RowSchema::closed(vec![Field::new("value", ColumnType::Text, false)]),
            Format::Raw => RowSchema::closed(vec![Field::new("value", ColumnType::Binary, false)]),
            Format::Csv if !self.csv.header && !self.csv.columns.is_empty() => {
                let columns = self.csv.columns.iter();
                RowSchema::closed(columns.map(|name| Field::new(name, ColumnType::Text, true)).collect())
            }
            Format::Json | Format::Csv => RowSchema::unknown(),
        }
    }
}

impl CsvOptions {
    /// Are these characters that CSV can have, and columns with names of their own?
    ///
    /// # Errors
    /// Names the key as `csv.delimiter` and so on.
    pub fn check(&self) -> Result<(), CheckError> {
        for (key, character) in [("csv.delimiter", self.delimiter), ("csv.quote", self.quote)] {
            if !character.is_ascii() || matches!(character, '\r' | '\n') {
                return Err(CheckError::new(
                    key,
                    format!("{character:?} can't be used: take one ASCII character, no line break"),
                ));
            }
        }
        if self.delimiter == self.quote {
            return Err(CheckError::new("csv.quote", "is the same as `csv.delimiter`: take another character"));
        }
        if self.header && !self.columns.is_empty() {
            return Err(CheckError::new(
                "csv.columns",
                "is for files without a header: set `csv.header = false` or leave it out",
            ));
        }
        for (index, name) in self.columns.iter().enumerate() {
            if self.columns.iter().take(index).any(|other| other == name) {
                return Err(CheckError::new("csv.columns", format!("{name:?} is there twice")));
            }
        }
        Ok(())
    }

    fn has_column(&self, name: &str) -> bool {
        if self.columns.is_empty() {
            let number = name.strip_prefix("_c").and_then(|number| number.parse::<usize>().ok());
            return number.is_some_and(|number| format!("_c{number}") == name);
        }
        self.columns.iter().any(|column| column == name)
    }

    pub(crate) fn delimiter_byte(&self) -> u8 {
        u8::try_from(self.delimiter).unwrap_or(b',')
    }

    pub(crate) fn quote_byte(&self) -> u8 {
        u8::try_from(self.quote).unwrap_or(b'"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Table {
        format: Format,
        schema: Option<SchemaConfig>,
        #[serde(default)]
        csv: CsvOptions,
    }

    fn parse(text: &str) -> FormatOptions {
        let Table { format, schema, csv } = toml::from_str(text).unwrap();
        FormatOptions { format, schema, csv }
    }

    #[test]
    fn a_connector_table() {
        let options = parse("format = \"csv\"\nschema = { a = \"float64\" }\n[csv]\ndelimiter = \";\"");
        assert_eq!(options.schema.as_ref().unwrap().get("a"), Some(ColumnType::Float64));
        assert_eq!(options.csv, CsvOptions { delimiter: ';', ..CsvOptions::default() });
        assert!(toml::from_str::<Table>("format = \"csv\"\ncsv = { delimeter = \";\" }").is_err());
        let error = toml::from_str::<Table>("format = \"csv\"\nschema = { a = \"float\" }").unwrap_err().to_string();
        assert!(error.contains("float64"), "{error}");
        let schema = serde_json::to_value(schemars::schema_for!(Table)).unwrap();
        assert_eq!(schema["$defs"]["ColumnTypes"]["additionalProperties"]["$ref"], "#/$defs/ColumnType");
    }

    #[test]
    fn what_can_not_be_right() {
        for (text, key) in [
            ("format = \"json\"\nschema = {}", "schema"),
            ("format = \"text\"\nschema = { a = \"int64\" }", "schema.a"),
            ("format = \"raw\"\nschema = { value = \"int64\", a = \"int64\" }", "schema.a"),
            ("format = \"csv\"\ncsv = { delimiter = \"é\" }", "csv.delimiter"),
            ("format = \"csv\"\ncsv = { delimiter = \"\\n\" }", "csv.delimiter"),
            ("format = \"csv\"\ncsv = { quote = \",\" }", "csv.quote"),
            ("format = \"csv\"\ncsv = { columns = [\"a\"] }", "csv.columns"),
            ("format = \"csv\"\ncsv = { header = false, columns = [\"a\", \"a\"] }", "csv.columns"),
            ("format = \"csv\"\nschema = { b = \"text\" }\ncsv = { header = false, columns = [\"a\"] }", "schema.b"),
            ("format = \"csv\"\nschema = { _c01 = \"text\" }\ncsv = { header = false }", "schema._c01"),
        ] {
            assert_eq!(parse(text).check().unwrap_err().key, key, "{text}");
        }
        for text in [
            "format = \"json\"",
            "format = \"text\"\nschema = { value = \"int64\" }",
            "format = \"csv\"\nschema = { _c1 = \"text\" }\ncsv = { header = false }",
            "format = \"csv\"\nschema = { b = \"text\" }\ncsv = { header = false, columns = [\"a\", \"b\"] }",
        ] {
            parse(text).check().unwrap();
        }
    }

    #[test]
    fn what_is_known_before_the_first_row() {
        let value = |kind, nullable| RowSchema::closed(vec![Field::new("value", kind, nullable)]);
        assert_eq!(parse("format = \"text\"").row_schema(), value(ColumnType::Text, false));
        assert_eq!(parse("format = \"raw\"").row_schema(), value(ColumnType::Binary, false));
        let declared = parse("format = \"text\"\nschema = { value = \"int64\" }");
        assert_eq!(declared.row_schema(), value(ColumnType::Int64, true));
        assert_eq!(parse("format = \"json\"").row_schema(), RowSchema::unknown());
        assert_eq!(parse("format = \"csv\"").row_schema(), RowSchema::unknown());
        let bare = parse("format = \"csv\"\ncsv = { header = false, columns = [\"value\"] }");
        assert_eq!(bare.row_schema(), value(ColumnType::Text, true));
    }
}
