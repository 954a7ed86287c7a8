//! The `file` sink.

use std::fs::File;
use std::path::PathBuf;

use acequia_connector_api::{base64, format_timestamp};
use acequia_tests::conformance::SinkWorld;
use arrow_array::RecordBatch;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;
use tempfile::TempDir;

use super::console::with_broken_json;

pub struct Written {
    folder: TempDir,
    format: &'static str,
}

impl Written {
    pub fn new(format: &'static str) -> Self {
        Written { folder: tempfile::tempdir().unwrap(), format }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// Rows of all complete Parquet files, by the reader of records and not the one for Arrow.
    fn parquet(&self) -> Vec<Value> {
        let mut rows = Vec::new();
        for entry in std::fs::read_dir(self.folder.path()).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let reader = SerializedFileReader::new(File::open(entry.path()).unwrap()).unwrap();
            for row in reader.get_row_iter(None).unwrap() {
                let row = row.unwrap();
                let columns = row.get_column_iter().map(|(name, field)| (name.clone(), value(name, field)));
                rows.push(Value::Object(columns.collect()));
            }
        }
        rows
    }
}

fn value(name: &str, field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::Double(value) => (*value).into(),
        Field::TimestampMicros(value) => format_timestamp(*value).into(),
        Field::Str(text) if name == "j" => serde_json::from_str(text).unwrap(),
        Field::Str(text) => text.as_str().into(),
        Field::Bytes(bytes) => base64(bytes.data()).into(),
        other => panic!("no column of ours is stored as {other:?}"),
    }
}

impl SinkWorld for Written {
    fn config(&self) -> toml::Table {
        let value = if self.format == "text" { "value = 't'" } else { "" };
        let (path, format) = (self.path(), self.format);
        toml::from_str(&format!("type = 'file'\npath = '{}'\nformat = '{format}'\n{value}", path.display())).unwrap()
    }

    fn arrived(&mut self) -> Vec<Value> {
        if self.format == "parquet" {
            return self.parquet();
        }
        let Ok(text) = std::fs::read_to_string(self.path()) else { return Vec::new() };
        match self.format {
            "json" => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
            "csv" => {
                let mut reader = csv::Reader::from_reader(text.as_bytes());
                let header = reader.headers().unwrap().clone();
                let object = |record: csv::StringRecord| -> Value {
                    header.iter().zip(&record).map(|(name, field)| (name.to_owned(), Value::from(field))).collect()
                };
                reader.records().map(|record| object(record.unwrap())).collect()
            }
            _ => text.lines().map(Value::from).collect(),
        }
    }

    fn seen(&self, row: &Value) -> Value {
        match self.format {
            // docs/formats.md: a null is an empty field, JSON is as it is, and so are texts.
            "csv" => {
                let text = |value: &Value| match value {
                    Value::Null => String::new(),
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                row.as_object().unwrap().iter().map(|(name, value)| (name.clone(), Value::from(text(value)))).collect()
            }
            "text" => row["t"].as_str().unwrap_or_default().into(),
            _ => row.clone(),
        }
    }

    fn number(&self, arrived: &Value) -> Option<u64> {
        match self.format {
            // A row whose text is null is an empty line.
            "text" => None,
            "csv" => arrived["n"].as_str()?.parse().ok(),
            _ => arrived["n"].as_u64(),
        }
    }

    fn spoil(&self, rows: &RecordBatch, row: usize) -> Option<RecordBatch> {
        match self.format {
            "json" => Some(with_broken_json(rows, row)),
            "csv" => Some(with_another_column(rows, row)),
            _ => None,
        }
    }
}

/// One column more, which is null in all rows but this one: the header of a CSV file has no room for it.
fn with_another_column(rows: &RecordBatch, row: usize) -> RecordBatch {
    use std::sync::Arc;

    use acequia_connector_api::ColumnType;
    use arrow_array::StringArray;
    use arrow_schema::Schema;

    let mut fields: Vec<_> = rows.schema_ref().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(ColumnType::Text.arrow_field("late", true));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new((0..rows.num_rows()).map(|at| (at == row).then_some("here")).collect::<StringArray>()));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}
