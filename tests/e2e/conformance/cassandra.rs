//! The `cassandra` connectors, on a real node.

use std::ops::Range;
use std::sync::Arc;

use acequia_tests::conformance::{Place, SinkWorld, SourceWorld, text_of};
use acequia_tests::servers::Cassandra;
use arrow_array::{Array, Int64Array, RecordBatch};
use arrow_schema::Schema;
use serde_json::{Value, json};

/// The node of all processes of this test run.
pub fn server() -> Vec<(&'static str, String)> {
    vec![("ACEQUIA_TEST_CASSANDRA", Cassandra::shared().address().to_owned())]
}

fn config(keyspace: &str) -> toml::Table {
    let address = Cassandra::shared().address();
    let text = format!("type = 'cassandra'\nnodes = ['{address}']\nkeyspace = '{keyspace}'\ntable = 'rows'");
    toml::from_str(&text).unwrap()
}

/// A table that is read.
pub struct Table {
    keyspace: String,
}

impl Table {
    pub fn new() -> Self {
        let keyspace = Cassandra::shared().keyspace("conformance");
        Cassandra::shared().query(&format!("CREATE TABLE {keyspace}.rows (n bigint PRIMARY KEY, text text)"));
        Table { keyspace }
    }
}

impl SourceWorld for Table {
    fn config(&self) -> toml::Table {
        config(&self.keyspace)
    }

    fn prepare(&mut self, numbers: Range<u64>, more: usize) {
        let insert = format!("INSERT INTO {}.rows (n, text) VALUES (?, ?)", self.keyspace);
        Cassandra::shared().insert_each(&insert, numbers.map(|n| vec![n.into(), text_of(n, more).into()]));
    }

    fn number(&self, row: &Value, more: usize) -> u64 {
        let number = row["n"].as_u64().unwrap();
        assert_eq!(*row, json!({ "n": number, "text": text_of(number, more) }));
        number
    }

    fn place(&self, _: u64) -> Option<Place> {
        None
    }

    /// A table has no order, and its rows no place but their key.
    fn located(&self) -> bool {
        false
    }

    /// Slow to fill: 64 MiB in few rows.
    fn backlog(&self) -> (u64, usize) {
        (8 << 10, 8 << 10)
    }
}

/// A table that is written to. A row's number is its key.
pub struct Written {
    keyspace: String,
}

impl Written {
    pub fn new() -> Self {
        let keyspace = Cassandra::shared().keyspace("conformance");
        Cassandra::shared().query(&format!(
            "CREATE TABLE {keyspace}.rows
             (n bigint PRIMARY KEY, t text, b boolean, f double, at text, raw blob, j text)"
        ));
        Written { keyspace }
    }
}

impl SinkWorld for Written {
    fn config(&self) -> toml::Table {
        config(&self.keyspace)
    }

    fn arrived(&mut self) -> Vec<Value> {
        let rows =
            Cassandra::shared().query(&format!("SELECT JSON n, t, b, f, at, raw, j FROM {}.rows", self.keyspace));
        rows.iter().map(|row| serde_json::from_str(row["[json]"].as_str().unwrap()).unwrap()).collect()
    }

    /// `at` is text here, for a timestamp of Cassandra has only milliseconds; so is JSON. A blob is shown in hex.
    fn seen(&self, row: &Value) -> Value {
        let mut seen = row.clone();
        if !row["j"].is_null() {
            seen["j"] = row["j"].to_string().into();
        }
        if !row["raw"].is_null() {
            seen["raw"] = format!("0x00ff{:02x}", row["n"].as_u64().unwrap() % 256).into();
        }
        seen
    }

    fn number(&self, arrived: &Value) -> Option<u64> {
        arrived["n"].as_u64()
    }

    /// A key can't be null.
    fn spoil(&self, rows: &RecordBatch, row: usize) -> Option<RecordBatch> {
        let old = rows.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
        let new = old.iter().enumerate().map(|(at, value)| if at == row { None } else { value });
        let mut columns = rows.columns().to_vec();
        columns[0] = Arc::new(new.collect::<Int64Array>());
        let nullable = |field: &Arc<arrow_schema::Field>| field.as_ref().clone().with_nullable(true);
        let schema = Schema::new(rows.schema_ref().fields().iter().map(nullable).collect::<Vec<_>>());
        Some(RecordBatch::try_new(Arc::new(schema), columns).unwrap())
    }

    fn many(&self) -> u64 {
        50
    }
}
