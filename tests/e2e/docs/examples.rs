//! Each example runs as it lies there.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use acequia_tests::{Daemon, json_lines, plugin, rows, wait_until, workspace};
use serde_json::json;
use tempfile::TempDir;

use super::session::acequia;

/// A folder and all in it but what earlier runs left there.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if !entry.file_type().unwrap().is_dir() {
            std::fs::copy(entry.path(), target).unwrap();
        } else if entry.file_name() != "out" {
            copy_tree(&entry.path(), &target);
        }
    }
}

/// A copy of the examples.
struct Examples(TempDir);

impl Examples {
    fn new() -> Self {
        assert!(plugin("uuid").exists());
        let folder = tempfile::Builder::new().prefix("acequia-examples-").tempdir().unwrap();
        copy_tree(&workspace().join("examples"), &folder.path().join("examples"));
        Examples(folder)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join("examples").join(path)
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// As the first lines of the example say.
    fn once(&self, path: &str, code: i32) {
        let output = acequia(self.0.path(), &["run", &format!("examples/{path}"), "--once"]);
        assert_eq!(output.status.code(), Some(code), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_example_is_valid() {
    let examples = Examples::new();
    let mut pipelines = 0;
    for entry in std::fs::read_dir(examples.path("")).unwrap() {
        let folder = entry.unwrap().path();
        pipelines += std::fs::read_dir(&folder)
            .unwrap()
            .filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "toml"))
            .count();
        let output = acequia(&folder, &["validate", "."]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(pipelines >= 8, "{pipelines} pipelines");
}

#[test]
fn people_get_ids() {
    let examples = Examples::new();
    examples.once("people", 0);
    // The ids are Python's: uuid.uuid5(NAMESPACE, json.dumps([name, age])), see plugins/uuid.
    let expected = [
        json!({ "name": "Michael", "age": null, "id": "974b9dcf-6735-5ae7-b533-4dd2118eca5b" }),
        json!({ "name": "Andy", "age": 30, "id": "6d5ac1b2-be61-5f79-8db2-a533af6a2464" }),
        json!({ "name": "Justin", "age": 19, "id": "b142b274-b3d2-51e2-a4fd-ee1694e484c2" }),
    ];
    assert_eq!(json_lines(&examples.path("people/out/people.jsonl")), expected);
}

#[test]
fn csv_becomes_json() {
    let examples = Examples::new();
    examples.once("csv-to-json", 0);
    let expected = [
        json!({ "item": "tea", "price": 3.5, "time": "2024-02-29T08:15:00.000000Z" }),
        json!({ "item": "coffee, ground", "price": 12.99, "time": "2024-03-01T17:40:30.000000Z" }),
        json!({ "item": "sugar", "price": null, "time": "2024-03-02T00:00:00.000000Z" }),
    ];
    assert_eq!(json_lines(&examples.path("csv-to-json/out/prices.jsonl")), expected);
}

#[test]
fn parquet_there_and_back() {
    let examples = Examples::new();
    examples.once("parquet/write.toml", 0);
    examples.once("parquet/read.toml", 0);
    let path = examples.path("parquet/out/wave.csv");
    assert_eq!(rows(&path), 100_001, "the header and every row");
    let text = std::fs::read_to_string(path).unwrap();
    let last = text.lines().last();
    // 99,999 is 9 in a wave of 30: -5 + 9 * 10 / 15.
    assert!(text.starts_with("value,tr\n0,-5.0\n") && last == Some("99999,1.0"), "{last:?}");
}

#[test]
fn bad_rows_become_dead_letters() {
    let examples = Examples::new();
    examples.once("dead-letters", 3);
    let good = json_lines(&examples.path("dead-letters/out/readings.jsonl"));
    let expected = [
        json!({ "sensor": "a", "value": 20.5 }),
        json!({ "sensor": "b", "value": 21.0 }),
        json!({ "sensor": "e", "value": 19.0 }),
    ];
    assert_eq!(good, expected);
    let dead = json_lines(&examples.path("dead-letters/out/failed.jsonl"));
    let places: Vec<_> = dead.iter().map(|letter| (&letter["stage"], letter["offset"].as_i64())).collect();
    assert_eq!(places, [(&json!("source"), Some(3)), (&json!("source"), Some(4))]);
    assert_eq!(dead[0]["error"], "column `value`: can't cast \"warm\" to float64");
    assert_eq!(dead[0]["row"], "{\"sensor\": \"c\", \"value\": \"warm\"}");
}

#[test]
fn every_sink_gets_every_row() {
    let examples = Examples::new();
    examples.once("several-sinks", 0);
    let json = json_lines(&examples.path("several-sinks/out/wave.jsonl"));
    assert_eq!(json.iter().map(|row| row["value"].as_i64().unwrap()).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    let csv = examples.text("several-sinks/out/wave.csv");
    let (header, lines) = csv.split_once('\n').unwrap();
    assert_eq!(header, "value,timestamp,sin");
    for (line, row) in lines.lines().zip(&json) {
        let line: Vec<&str> = line.split(',').collect();
        assert_eq!(line[0], row["value"].to_string());
        assert_eq!(line[1], row["timestamp"]);
        assert_eq!(line[2].parse::<f64>().unwrap(), row["sin"].as_f64().unwrap());
    }
    assert_eq!(lines.lines().count(), 8);
}

#[test]
fn words_are_counted_over_a_socket() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    let mut daemon = Daemon::new();
    daemon.pipeline("words", &Examples::new().text("word-count/words.toml").replace("127.0.0.1:9999", &address));
    daemon.start();
    let (mut client, _) = server.accept().unwrap();
    client.write_all(b"The quick brown fox\n").unwrap();
    wait_until("the first words", || daemon.stdout().contains("fox"));
    client.write_all(b"the  lazy dog\n").unwrap();
    wait_until("the second ones", || daemon.stdout().contains("dog"));
    let shown: Vec<Vec<String>> =
        daemon.stdout().lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
    assert!(shown.contains(&vec!["the".to_owned(), "1".to_owned()]), "{shown:?}");
    assert!(shown.contains(&vec!["the".to_owned(), "2".to_owned()]), "{shown:?}");
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn the_quickstart_shows_even_numbers() {
    let mut daemon = Daemon::new();
    daemon.pipeline("even", &Examples::new().text("quickstart/even.toml").replace("_second = 2", "_second = 100"));
    daemon.start();
    wait_until("ten rows", || daemon.stdout().lines().count() > 12);
    let values: Vec<i64> = daemon
        .stdout()
        .lines()
        .skip(2)
        .filter_map(|line| line.split_whitespace().next().and_then(|value| value.parse().ok()))
        .take(10)
        .collect();
    assert_eq!(values, (0..10).map(|value| 2 * value).collect::<Vec<_>>());
    assert_eq!(daemon.stop().code, Some(0));
}
