//! The `kafka` connectors, on a real broker.

use std::ops::Range;

use acequia_tests::conformance::{Place, SinkWorld, SourceWorld, text_of};
use acequia_tests::servers::{Consume, Kafka, unique};
use arrow_array::RecordBatch;
use serde_json::{Value, json};

use super::console::with_broken_json;

/// The broker of all processes of this test run.
pub fn server() -> Vec<(&'static str, String)> {
    vec![("ACEQUIA_TEST_KAFKA", Kafka::shared().address().to_owned())]
}

/// A topic that is read.
pub struct Records {
    topic: String,
    group: String,
}

impl Records {
    pub fn new() -> Self {
        Records { topic: Kafka::shared().topic("conformance", 1), group: unique("conformance") }
    }
}

impl SourceWorld for Records {
    fn config(&self) -> toml::Table {
        let text = format!(
            "type = 'kafka'\nbrokers = ['{}']\ntopics = ['{}']\ngroup = '{}'\nstart = 'earliest'\nformat = 'json'
             schema = {{ n = 'int64', text = 'text' }}\nmetadata = []",
            Kafka::shared().address(),
            self.topic,
            self.group
        );
        toml::from_str(&text).unwrap()
    }

    fn prepare(&mut self, numbers: Range<u64>, more: usize) {
        let line = |n: u64| match self.broken(n) {
            true => format!(r#"{{"n":{n},"text":}}"#),
            false => json!({ "n": n, "text": text_of(n, more) }).to_string(),
        };
        if !numbers.is_empty() {
            Kafka::shared().produce(&self.topic, numbers.map(line));
        }
    }

    fn number(&self, row: &Value, more: usize) -> u64 {
        let number = row["n"].as_u64().unwrap();
        assert_eq!(*row, json!({ "n": number, "text": text_of(number, more) }));
        number
    }

    fn place(&self, number: u64) -> Option<Place> {
        Some(Place { partition: None, offset: i64::try_from(number).unwrap() })
    }

    fn broken(&self, number: u64) -> bool {
        number % 11 == 4
    }

    fn remembers(&self) -> bool {
        true
    }
}

/// A topic that is written to.
pub struct Messages {
    topic: String,
    exactly_once: bool,
}

impl Messages {
    pub fn new(exactly_once: bool) -> Self {
        Messages { topic: Kafka::shared().topic("conformance", 1), exactly_once }
    }
}

impl SinkWorld for Messages {
    fn config(&self) -> toml::Table {
        let (address, topic) = (Kafka::shared().address(), &self.topic);
        let delivery = if self.exactly_once { "exactly_once" } else { "at_least_once" };
        let text = format!("type = 'kafka'\nbrokers = ['{address}']\ntopic = '{topic}'\ndelivery = '{delivery}'");
        toml::from_str(&text).unwrap()
    }

    fn arrived(&mut self) -> Vec<Value> {
        let values = Kafka::shared().values(&self.topic, &Consume { patience: 2000, ..Consume::default() });
        values.iter().map(|value| serde_json::from_str(value).unwrap()).collect()
    }

    fn seen(&self, row: &Value) -> Value {
        row.clone()
    }

    fn number(&self, arrived: &Value) -> Option<u64> {
        arrived["n"].as_u64()
    }

    fn spoil(&self, rows: &RecordBatch, row: usize) -> Option<RecordBatch> {
        Some(with_broken_json(rows, row))
    }

    fn once(&self) -> bool {
        self.exactly_once
    }

    fn many(&self) -> u64 {
        50
    }
}
