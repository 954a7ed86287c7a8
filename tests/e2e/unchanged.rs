//! A source makes columns of what is read, and a row that nothing changes keeps its bytes.

use std::fs;
use std::io::Write;

use acequia_tests::servers::{InfluxDb, Kafka, Produce};
use acequia_tests::{Daemon, json_lines, values_of, wait_until};
use serde_json::{Value, json};

const EVEN: &str = "[[transform]]\nplugin = \"even-filter\"\n";
const TO_FILE: &str = "[[sink]]\ntype = \"file\"\npath = \"OUT/rows.jsonl\"\n";

/// What can be written in more than one way, and rows that can't be used.
const ROWS: &str = r#"{"value": 2, "price":1.50, "name":"caf\u00e9"}
{"name":"no value"}
{"b":[1, 2],"value":4 , "a":1e2}
{"value":null, "name":"no number"}
{"value":8,"value":10}
{"value":3}
{"value":12
{"value":14}
"#;

fn text(daemon: &Daemon) -> String {
    fs::read_to_string(daemon.out("rows.jsonl")).unwrap()
}

/// Place and row of each dead letter.
fn letters(daemon: &Daemon) -> Vec<(i64, String)> {
    let letters = json_lines(&daemon.dead_letters("p"));
    letters.iter().map(|row| (row["offset"].as_i64().unwrap(), row["row"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn a_row_from_file_to_file_keeps_its_bytes() {
    let mut daemon = Daemon::new();
    daemon.file("in.jsonl", ROWS);
    daemon.pipeline("p", &format!("[source]\ntype = \"file\"\npath = \"DIR/in.jsonl\"\n{EVEN}{TO_FILE}"));
    let exit = daemon.once();
    assert_eq!(exit.code, Some(3), "{}", exit.stderr);
    let expected = r#"{"value": 2, "price":1.50, "name":"caf\u00e9"}
{"b":[1, 2],"value":4 , "a":1e2}
{"value":8,"value":10}
{"value":14}
"#;
    assert_eq!(text(&daemon), expected);
    let bad = |place, row: &str| (place, row.to_owned());
    let expected =
        [bad(2, r#"{"name":"no value"}"#), bad(4, r#"{"value":null,"name":"no number"}"#), bad(7, "{\"value\":12")];
    let mut letters = letters(&daemon);
    letters.sort();
    assert_eq!(letters, expected);
}

/// The columns that are written are followed back to the source, and a dead letter has the others too.
#[test]
fn a_row_that_is_changed_has_the_columns_that_were_named() {
    let mut daemon = Daemon::new();
    daemon.file("in.jsonl", ROWS);
    let select = "[[transform]]\nplugin = \"select\"\nconfig = { keep = [\"value\", \"name\"] }\n";
    daemon.pipeline("p", &format!("[source]\ntype = \"file\"\npath = \"DIR/in.jsonl\"\n{EVEN}{select}{TO_FILE}"));
    assert_eq!(daemon.once().code, Some(3));
    let rows = json_lines(&daemon.out("rows.jsonl"));
    assert_eq!(rows[0], json!({"value": 2, "name": "café"}));
    assert_eq!(rows[1], json!({"value": 4, "name": null}));
    assert_eq!(values_of(&daemon.out("rows.jsonl"), "value"), [2, 4, 10, 14]);
    assert_eq!(letters(&daemon).iter().map(|(place, _)| *place).collect::<Vec<_>>(), [7, 2, 4]);
}

/// A reload with transforms that read more than the source was asked for starts it anew, and one that reads less does not.
#[test]
fn a_reload_that_needs_more_of_the_rows_gets_it() {
    let mut daemon = Daemon::new();
    let input = daemon.file("in.jsonl", "");
    let append = |from: i64, to: i64| {
        let mut file = fs::OpenOptions::new().append(true).open(&input).unwrap();
        (from..to).for_each(|n| writeln!(file, "{{\"value\": {}, \"n\":{n}}}", n * 2).unwrap());
    };
    let source = "[source]\ntype = \"file\"\npath = \"DIR/in.jsonl\"\nfollow = true\npoll = \"20ms\"\n";
    let sine = "[[transform]]\nplugin = \"sine-wave\"\n";
    let kind = |daemon: &Daemon| daemon.status("p")["acequia"]["last_reload"]["kind"].clone();
    append(0, 100);
    daemon.pipeline("p", &format!("{source}{EVEN}{TO_FILE}"));
    daemon.start();
    daemon.wait_rows("rows.jsonl", 100);
    assert!(text(&daemon).starts_with("{\"value\": 0, \"n\":0}\n"));

    daemon.pipeline("p", &format!("{source}{EVEN}{sine}{TO_FILE}"));
    wait_until("it is started anew", || kind(&daemon) == "restarted");
    append(100, 200);
    daemon.wait_rows("rows.jsonl", 200);
    let rows = json_lines(&daemon.out("rows.jsonl"));
    assert!(rows[100..].iter().all(|row| row["sin"].is_f64() && row["n"].is_i64()), "{:?}", rows[100]);

    daemon.pipeline("p", &format!("{source}{EVEN}{TO_FILE}"));
    wait_until("it is swapped", || kind(&daemon) == "swapped");
    append(200, 300);
    daemon.wait_rows("rows.jsonl", 300);
    assert_eq!(daemon.stop().code, Some(0));
    // From its file alone: only the columns that are read, again.
    daemon.start();
    append(300, 400);
    daemon.wait_rows("rows.jsonl", 400);
    assert!(text(&daemon).ends_with("{\"value\": 798, \"n\":399}\n"));
    assert_eq!(daemon.stop().code, Some(0));
    assert_eq!(values_of(&daemon.out("rows.jsonl"), "n"), (0..400).collect::<Vec<i64>>());
}

#[test]
fn a_message_from_kafka_to_kafka_keeps_its_bytes() {
    let kafka = Kafka::shared();
    let (from, to) = (kafka.topic("unchanged-from", 1), kafka.topic("unchanged-to", 1));
    let how = Produce { null: Some("NULL".to_owned()), ..Produce::default() };
    kafka.produce_with(
        &from,
        &how,
        ["{\"value\": 2, \"k\":\"x\",\"f\":1.0}", "{\"value\":3}", "NULL", "{\"value\":4}"],
    );
    let mut daemon = Daemon::new();
    let brokers = format!("brokers = [\"{}\"]\n", kafka.address());
    daemon.pipeline(
        "p",
        &format!(
            "[source]\ntype = \"kafka\"\n{brokers}topics = [\"{from}\"]\nmetadata = []\nuntil = \"end\"\n{EVEN}\
             [[sink]]\ntype = \"kafka\"\n{brokers}topic = \"{to}\"\nkey = \"k\"\nkeep = [\"k\"]\n{TO_FILE}"
        ),
    );
    let exit = daemon.once();
    // A message without a value has no number that could be even.
    assert_eq!(exit.code, Some(3), "{}", exit.stderr);
    let records = kafka.consume(&to);
    let values: Vec<_> = records.iter().map(|record| record.value.clone().unwrap()).collect();
    assert_eq!(values, [&b"{\"value\": 2, \"k\":\"x\",\"f\":1.0}"[..], b"{\"value\":4}"]);
    assert_eq!(records[0].key.as_deref(), Some(&b"x"[..]));
    assert_eq!(text(&daemon), "{\"value\": 2, \"k\":\"x\",\"f\":1.0}\n{\"value\":4}\n");
}

/// A sink that names its columns gets these; what it refuses is a dead letter with the whole row.
#[test]
fn a_sink_that_names_its_columns_leaves_the_others() {
    let influxdb = InfluxDb::shared();
    let bucket = influxdb.bucket("unchanged");
    let mut daemon = Daemon::new();
    daemon.file(
        "in.jsonl",
        "{\"value\":2,\"at\":\"2020-01-01T00:00:00Z\",\"x\":{\"y\":1}}\n{\"value\":4,\"at\":\"never\",\"x\":1.0}\n",
    );
    let (url, org, token) = (influxdb.url(), influxdb.org(), influxdb.token());
    daemon.pipeline(
        "p",
        &format!(
            "[source]\ntype = \"file\"\npath = \"DIR/in.jsonl\"\n{EVEN}[[sink]]\ntype = \"influxdb\"\nurl = \"{url}\"\n\
             org = \"{org}\"\nbucket = \"{bucket}\"\ntoken = \"{token}\"\nmeasurement = \"m\"\nfields = [\"value\"]\ntime = \"at\"\n"
        ),
    );
    let exit = daemon.once();
    assert_eq!(exit.code, Some(3), "{}", exit.stderr);
    assert_eq!(influxdb.count(&bucket, "m", "value"), 1);
    let letters = letters(&daemon);
    assert_eq!(letters.len(), 1);
    let row: Value = serde_json::from_str(&letters[0].1).unwrap();
    assert_eq!((letters[0].0, row), (2, json!({"value": 4, "at": "never", "x": 1.0})));
}
