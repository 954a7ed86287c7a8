//! The sinks that keep nothing: `console` and `blackhole`.

use std::path::PathBuf;

use acequia_tests::conformance::{SinkWorld, own_output};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use serde_json::Value;
use std::sync::Arc;

/// Standard output of this process, which is a file.
pub struct Console {
    format: &'static str,
    output: PathBuf,
    /// Where this world's part of it begins.
    start: usize,
}

impl Console {
    pub fn new(format: &'static str) -> Self {
        let output = own_output().expect("a process of its own");
        let start = std::fs::read(&output).unwrap().len();
        Console { format, output, start }
    }

    fn text(&self) -> String {
        String::from_utf8(std::fs::read(&self.output).unwrap().split_off(self.start)).unwrap()
    }
}

impl SinkWorld for Console {
    fn config(&self) -> toml::Table {
        toml::from_str(&format!("type = 'console'\nformat = '{}'", self.format)).unwrap()
    }

    /// Of a table the first two columns, by which rows are told from each other: they are cut out under their rules.
    fn arrived(&mut self) -> Vec<Value> {
        let text = self.text();
        if self.format == "json" {
            return text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        }
        let (mut rows, mut lines, mut rule) = (Vec::new(), text.lines().peekable(), 0);
        while let Some(line) = lines.next() {
            let next_is_rule =
                lines.peek().is_some_and(|next| !next.is_empty() && next.chars().all(|c| "- ".contains(c)));
            if next_is_rule {
                let next = lines.next().unwrap_or_default();
                rule = next.find(' ').unwrap_or(next.len());
            } else if !line.is_empty() {
                rows.push(line[..rule].trim().into());
            }
        }
        rows
    }

    fn seen(&self, row: &Value) -> Value {
        match self.format {
            "json" => row.clone(),
            _ => row["n"].to_string().into(),
        }
    }

    fn number(&self, arrived: &Value) -> Option<u64> {
        match self.format {
            "json" => arrived["n"].as_u64(),
            _ => arrived.as_str().and_then(|n| n.parse().ok()),
        }
    }

    fn spoil(&self, rows: &RecordBatch, row: usize) -> Option<RecordBatch> {
        (self.format == "json").then(|| with_broken_json(rows, row))
    }

    /// What is on a screen stays there.
    fn once(&self) -> bool {
        false
    }

    fn many(&self) -> u64 {
        50
    }
}

/// The same rows, but this one's column `j` holds no JSON.
pub fn with_broken_json(rows: &RecordBatch, row: usize) -> RecordBatch {
    let (index, _) = rows.schema_ref().column_with_name("j").unwrap();
    let old = rows.column(index).as_any().downcast_ref::<StringArray>().unwrap();
    let new = old.iter().enumerate().map(|(at, value)| if at == row { Some("{broken") } else { value });
    let mut columns = rows.columns().to_vec();
    columns[index] = Arc::new(new.collect::<StringArray>()) as ArrayRef;
    assert_eq!(columns[index].len(), rows.num_rows());
    RecordBatch::try_new(rows.schema(), columns).unwrap()
}

/// The sink that only counts: its state says how far.
#[derive(Default)]
pub struct Count {
    rows: u64,
}

impl SinkWorld for Count {
    fn config(&self) -> toml::Table {
        toml::from_str("type = 'blackhole'").unwrap()
    }

    fn arrived(&mut self) -> Vec<Value> {
        vec![Value::Null; usize::try_from(self.rows).unwrap()]
    }

    fn seen(&self, _: &Value) -> Value {
        Value::Null
    }

    fn number(&self, _: &Value) -> Option<u64> {
        None
    }

    fn flushed(&mut self, state: Option<&Value>) {
        self.rows = state.unwrap()["rows"].as_u64().unwrap();
    }
}
