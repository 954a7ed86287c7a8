//! The `influxdb` connectors, on a real server.

use std::ops::Range;
use std::sync::Arc;

use acequia_tests::conformance::{Place, SinkWorld, SourceWorld, text_of};
use acequia_tests::servers::InfluxDb;
use arrow_array::{Array, Float64Array, RecordBatch};
use serde_json::{Map, Value, json};

/// The server of all processes of this test run.
pub fn server() -> Vec<(&'static str, String)> {
    let server = InfluxDb::shared();
    vec![
        ("ACEQUIA_TEST_INFLUXDB", server.url().to_owned()),
        ("ACEQUIA_TEST_INFLUXDB_ORG", server.org().to_owned()),
        ("ACEQUIA_TEST_INFLUXDB_TOKEN", server.token().to_owned()),
    ]
}

/// The keys that say where the server is. The token is in a variable of this process.
fn keys() -> String {
    let server = InfluxDb::shared();
    let (url, org) = (server.url(), server.org());
    format!("type = 'influxdb'\nurl = '{url}'\norg = '{org}'\ntoken = {{ env = 'ACEQUIA_TEST_INFLUXDB_TOKEN' }}\n")
}

/// Points of one series, a microsecond apart, which the source reads in the order of time.
pub struct Points {
    bucket: String,
}

impl Points {
    pub fn new() -> Self {
        Points { bucket: InfluxDb::shared().bucket("conformance") }
    }
}

impl SourceWorld for Points {
    fn config(&self) -> toml::Table {
        let query = format!(
            "from(bucket: \"{}\") |> range(start: 0) |> keep(columns: [\"_time\", \"_value\"])
             |> sort(columns: [\"_time\"]) |> keep(columns: [\"_value\"])",
            self.bucket
        );
        toml::from_str(&format!("{}query = '''{query}'''", keys())).unwrap()
    }

    fn prepare(&mut self, numbers: Range<u64>, more: usize) {
        let numbers: Vec<u64> = numbers.collect();
        for some in numbers.chunks(10_000) {
            let point = |n: &u64| format!("m value=\"{}\" {}\n", text_of(*n, more), 1_600_000_000_000_000 + n);
            InfluxDb::shared().write(&self.bucket, "us", &some.iter().map(point).collect::<String>());
        }
    }

    fn number(&self, row: &Value, more: usize) -> u64 {
        let text = row["_value"].as_str().unwrap_or_else(|| panic!("{row}"));
        let number = text.split(' ').next().and_then(|number| number.parse().ok()).unwrap();
        assert_eq!(*row, json!({ "_value": text_of(number, more) }));
        number
    }

    fn place(&self, _: u64) -> Option<Place> {
        None
    }
}

/// A bucket that is written to. A row's number is its time, and so its natural key.
pub struct Bucket {
    name: String,
}

impl Bucket {
    pub fn new() -> Self {
        Bucket { name: InfluxDb::shared().bucket("conformance") }
    }
}

const FIELDS: [&str; 6] = ["t", "b", "f", "at", "raw", "j"];

impl SinkWorld for Bucket {
    fn config(&self) -> toml::Table {
        let table = format!("{}bucket = '{}'\nmeasurement = 'm'\ntime = 'n'\nprecision = 'us'", keys(), self.name);
        toml::from_str(&table).unwrap()
    }

    fn arrived(&mut self) -> Vec<Value> {
        let query = format!(
            "from(bucket: \"{}\") |> range(start: 0) |> drop(columns: [\"_start\", \"_stop\"])
             |> pivot(rowKey: [\"_time\"], columnKey: [\"_field\"], valueColumn: \"_value\")",
            self.name
        );
        let rows = InfluxDb::shared().query(&query);
        rows.into_iter()
            .map(|row| {
                let mut seen = Map::from_iter([("n".to_owned(), micros(row["_time"].as_str().unwrap()).into())]);
                for field in FIELDS {
                    seen.insert(field.to_owned(), row.get(field).cloned().unwrap_or(Value::Null));
                }
                Value::Object(seen)
            })
            .collect()
    }

    /// Fields have no times, bytes or JSON: those are strings.
    fn seen(&self, row: &Value) -> Value {
        let mut seen = row.as_object().unwrap().clone();
        if !seen["j"].is_null() {
            seen["j"] = seen["j"].to_string().into();
        }
        Value::Object(seen)
    }

    fn number(&self, arrived: &Value) -> Option<u64> {
        arrived["n"].as_u64()
    }

    /// No field holds an infinity.
    fn spoil(&self, rows: &RecordBatch, row: usize) -> Option<RecordBatch> {
        let (index, _) = rows.schema_ref().column_with_name("f").unwrap();
        let old = rows.column(index).as_any().downcast_ref::<Float64Array>().unwrap();
        let new = old.iter().enumerate().map(|(at, value)| if at == row { Some(f64::INFINITY) } else { value });
        let mut columns = rows.columns().to_vec();
        columns[index] = Arc::new(new.collect::<Float64Array>());
        Some(RecordBatch::try_new(rows.schema(), columns).unwrap())
    }

    fn many(&self) -> u64 {
        50
    }
}

/// Microseconds of a time in the first second of 1970.
fn micros(time: &str) -> u64 {
    let fraction = time.strip_prefix("1970-01-01T00:00:00").and_then(|rest| rest.strip_suffix('Z'));
    let digits = fraction.unwrap_or_else(|| panic!("{time}")).trim_start_matches('.');
    format!("{digits:0<6}").parse().unwrap()
}
