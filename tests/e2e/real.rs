//! Whole pipelines on real servers, counted by clients that are not ours.

mod course;
mod exactly_once;
mod million;
mod sharing;

use std::fmt::Write;
use std::path::Path;

use acequia_tests::{Account, Daemon};
use serde_json::Value;

/// `rows` JSON rows of about 100 bytes, `{"value":0,...}` on, one a line.
fn write_rows(path: &Path, range: std::ops::Range<u64>) {
    let mut text = String::new();
    for value in range {
        // Fields of several types, as in what people send.
        writeln!(
            text,
            r#"{{"value":{value},"name":"row {value}","half":{:.1},"even":{},"time":"2026-01-01T00:{:02}:{:02}.{:06}Z"}}"#,
            value as f64 / 2.0,
            value % 2 == 0,
            value / 60_000_000 % 60,
            value / 1_000_000 % 60,
            value % 1_000_000,
        )
        .unwrap();
    }
    std::fs::write(path, text).unwrap();
}

/// The columns of these rows.
const SCHEMA: &str = "[source.schema]\nvalue = \"int64\"\nname = \"text\"\nhalf = \"float64\"\neven = \"boolean\"\ntime = \"timestamp\"\n";

/// How many rows have come out of the source so far, as far as status says.
fn read_so_far(daemon: &Daemon, pipeline: &str) -> u64 {
    let status = daemon.admin().and_then(|admin| admin.get(&format!("/connectors/{pipeline}/status")));
    let stages = status.as_ref().and_then(|status| status["acequia"]["stages"].as_array());
    let source = stages.and_then(|stages| stages.iter().find(|stage| stage["id"] == "source"));
    source.and_then(|stage| stage["rows_out"].as_u64()).unwrap_or(0)
}

/// Nothing failed on the way, and the account of every stage is even.
#[track_caller]
fn check_account(status: &Value, sink: &str, rows: u64) {
    let account = Account::of(status);
    account.check(sink, true);
    assert_eq!(account.dead(), 0, "{account:?}");
    assert_eq!(account.stage(sink).rows_out, rows, "{account:?}");
}
