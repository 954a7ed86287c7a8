//! The `rate` source, which makes its rows itself.

use std::ops::Range;

use acequia_tests::conformance::{Place, SourceWorld};
use serde_json::Value;

pub struct Rate {
    rate: &'static str,
    rows: u64,
}

impl Rate {
    /// `"max"`, or rows a second.
    pub fn new(rate: &'static str) -> Self {
        Rate { rate, rows: 0 }
    }
}

impl SourceWorld for Rate {
    fn config(&self) -> toml::Table {
        let rate = if self.rate == "max" { "'max'" } else { self.rate };
        toml::from_str(&format!("type = 'rate'\nrows_per_second = {rate}\nrows = {}", self.rows)).unwrap()
    }

    fn prepare(&mut self, numbers: Range<u64>, _: usize) {
        self.rows = numbers.end;
    }

    fn number(&self, row: &Value, _: usize) -> u64 {
        assert!(row["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')), "{row}");
        assert_eq!(row.as_object().map(serde_json::Map::len), Some(2), "{row}");
        row["value"].as_u64().unwrap()
    }

    fn place(&self, number: u64) -> Option<Place> {
        Some(Place { partition: Some(String::new()), offset: i64::try_from(number).unwrap() })
    }

    fn backlog(&self) -> (u64, usize) {
        (20_000, 0)
    }
}
