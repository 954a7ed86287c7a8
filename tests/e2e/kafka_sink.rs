//! The Kafka sink on a real broker, read with Kafka's own console consumer.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use acequia_tests::servers::{Consume, Kafka, KafkaOptions, Produce, free_port, unique};
use acequia_tests::{Daemon, eventually, json_lines, wait_until};
use rand::RngExt;
use serde_json::{Value, json};

/// A pipeline from `in.jsonl` with these keys of the source and of the sink.
fn pipeline(kafka: &str, source: &str, sink: &str) -> String {
    format!(
        "[source]\ntype = \"file\"\npath = \"DIR/in.jsonl\"\n{source}\n[[sink]]\ntype = \"kafka\"\n\
         brokers = [\"{kafka}\"]\n{sink}\n[errors]\non_error = \"dead_letter\"\n"
    )
}

fn lines(rows: impl IntoIterator<Item = Value>) -> String {
    rows.into_iter().map(|row| format!("{row}\n")).collect()
}

fn letters(daemon: &Daemon, pipeline: &str) -> Vec<(i64, String)> {
    let letters = json_lines(&daemon.dead_letters(pipeline));
    letters.iter().map(|row| (row["offset"].as_i64().unwrap(), row["error"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn a_row_becomes_a_message_and_one_that_can_not_be_is_a_dead_letter() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("message", 3);
    let other = kafka.topic("other", 1);
    let time = "2020-04-13T12:09:37.768982Z";
    let rows = [
        json!({"id": 1, "k": "a", "p": 2, "t": null, "h": {"x": "1", "y": null}, "at": time}),
        json!({"id": 2, "k": null, "p": 0, "t": other, "h": [{"key": "x", "value": "1"}, {"key": "x", "value": "2"}], "at": time}),
        json!({"id": 3, "k": "c", "p": 3, "t": null, "h": null, "at": time}),
        json!({"id": 4, "k": "d", "p": 0, "t": "no such", "h": null, "at": time}),
        json!({"id": 5, "k": "e", "p": 0, "t": "is-not-there", "h": null, "at": time}),
        json!({"id": 6, "k": "f", "p": -1, "t": null, "h": null, "at": time}),
        json!({"id": 7, "k": "g", "p": 1, "t": null, "h": 7, "at": time}),
        json!({"id": 8, "k": "h", "p": 1, "t": null, "h": null, "at": "1970-01-01T00:00:00Z"}),
        json!({"id": 9, "k": "i", "p": 1, "t": null, "h": null, "at": time}),
    ];
    let mut daemon = Daemon::new();
    daemon.file("in.jsonl", lines(rows));
    let schema =
        "schema = { id = \"int64\", k = \"text\", p = \"int64\", t = \"text\", h = \"json\", at = \"timestamp\" }";
    let sink = format!(
        "topic = \"{topic}\"\ntopic_column = \"t\"\nkey = \"k\"\npartition = \"p\"\nheaders = \"h\"\ntimestamp = \"at\"\n\
         keep = [\"k\"]\ncompression = \"zstd\""
    );
    daemon.pipeline("p", &pipeline(kafka.address(), schema, &sink));
    let exit = daemon.once();
    assert_eq!(exit.code, Some(3), "{}", exit.stderr);

    let mut records = kafka.consume(&topic);
    records.sort_by_key(|record| record.partition);
    assert_eq!(records.len(), 2, "{records:?}");
    let (ninth, first) = (&records[0], &records[1]);
    assert_eq!((ninth.partition, first.partition), (1, 2));
    assert_eq!(first.key.as_deref(), Some(b"a".as_slice()));
    assert_eq!(first.timestamp, 1_586_779_777_768);
    assert_eq!(first.headers, [("x".to_owned(), Some("1".to_owned())), ("y".to_owned(), None)]);
    assert_eq!(first.json(), json!({"id": 1, "k": "a", "at": time}));
    assert_eq!((ninth.json()["id"].as_i64(), ninth.headers.len()), (Some(9), 0));
    let second = kafka.consume(&other);
    assert_eq!((second.len(), second[0].key.as_deref()), (1, None));
    assert_eq!(second[0].headers.iter().map(|(_, value)| value.as_deref()).collect::<Vec<_>>(), [Some("1"), Some("2")]);

    let dead = letters(&daemon, "p");
    let expected = [
        (3, "no partition 3"),
        (4, "no name of a topic"),
        (5, "`is-not-there` is not there"),
        (6, "-1 is no partition"),
        (7, "neither a JSON object"),
        (8, "after 1970"),
    ];
    assert_eq!(dead.len(), expected.len(), "{dead:?}");
    for ((line, error), (expected_line, part)) in dead.iter().zip(expected) {
        assert!(*line == expected_line && error.contains(part), "{line}: {error}");
    }
}

#[test]
fn a_key_lands_where_javas_clients_put_it() {
    let kafka = Kafka::shared();
    let [ours, theirs] = ["ours", "theirs"].map(|name| kafka.topic(name, 7));
    let keys: Vec<String> = (0..500).map(|number| format!("key {number} ñ")).collect();
    let how = Produce { key_separator: Some("=".to_owned()), ..Produce::default() };
    kafka.produce_with(&theirs, &how, keys.iter().map(|key| format!("{key}=x")));
    let mut daemon = Daemon::new();
    daemon.file("in.jsonl", lines(keys.iter().map(|key| json!({"k": key, "value": "x"}))));
    let sink = format!("topic = \"{ours}\"\nkey = \"k\"\nformat = \"text\"\nvalue = \"value\"");
    daemon.pipeline("p", &pipeline(kafka.address(), "", &sink));
    let exit = daemon.once();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let [ours, theirs] = [ours, theirs].map(|topic| {
        let records = kafka.consume(&topic).into_iter();
        records.map(|record| (record.key.unwrap(), record.partition)).collect::<BTreeMap<_, _>>()
    });
    assert_eq!(ours.len(), keys.len());
    assert_eq!(ours, theirs);
}

#[test]
fn null_values_are_tombstones_and_a_compacted_topic_needs_keys() {
    let kafka = Kafka::shared();
    let topic = unique("compacted");
    kafka.create_topic(&topic, 1, &[("cleanup.policy", "compact")]);
    let mut daemon = Daemon::new();
    let rows = [json!({"k": "a", "v": "1"}), json!({"k": "a", "v": null}), json!({"k": null, "v": "3"})];
    daemon.file("in.jsonl", lines(rows));
    let sink = format!("topic = \"{topic}\"\nkey = \"k\"\nformat = \"raw\"\nvalue = \"v\"");
    daemon.pipeline("p", &pipeline(kafka.address(), "", &sink));
    assert_eq!(daemon.once().code, Some(3));
    let values: Vec<_> = kafka.consume(&topic).into_iter().map(|record| record.value).collect();
    assert_eq!(values, [Some(b"1".to_vec()), None]);
    let dead = letters(&daemon, "p");
    assert!(dead.len() == 1 && dead[0].0 == 3 && dead[0].1.contains("has no key"), "{dead:?}");
}

#[test]
fn a_row_that_is_too_large_fails_alone() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("large", 1);
    let mut daemon = Daemon::new();
    let row = |id: usize, length: usize| json!({"id": id, "note": "x".repeat(length)});
    let path = daemon.file("in.jsonl", lines((0..200).map(|id| row(id, if id == 77 { 2_000_000 } else { 100 }))));
    let text = pipeline(kafka.address(), "follow = true", &format!("topic = \"{topic}\""));
    daemon.pipeline("p", &text);
    daemon.start();
    wait_until("199 rows have arrived", || kafka.end_offsets(&topic)[&0] == 199);

    // The topic takes less from now on: the broker refuses the whole batch, and the sink finds the one that does not fit.
    kafka.alter_topic(&topic, &[("max.message.bytes", "3000")]);
    let more = lines((200..300).map(|id| row(id, if id == 250 { 4000 } else { 100 })));
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(more.as_bytes()).unwrap();
    wait_until("99 more rows have arrived", || kafka.end_offsets(&topic)[&0] == 298);
    let dead = eventually("both have their letters", || Some(letters(&daemon, "p")).filter(|dead| dead.len() == 2));
    assert!(dead[0].0 == 78 && dead[0].1.contains("2000"), "{dead:?}");
    assert!(dead[1].0 == 251 && dead[1].1.contains("max.message.bytes"), "{dead:?}");
    assert_eq!(daemon.stop().code, Some(0));
    let mut ids: Vec<_> = kafka.consume(&topic).iter().map(|record| record.json()["id"].as_i64().unwrap()).collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq((0..300).filter(|id| ![77, 250].contains(id))));
}

/// Each transaction is committed with its checkpoint or not at all, whenever the process dies.
#[test]
fn every_row_once_through_kills() {
    const ROWS: i64 = 400_000;
    let kafka = Kafka::shared();
    let topic = kafka.topic("once", 3);
    let mut daemon = Daemon::new();
    daemon.pipeline(
        "p",
        &format!(
            "[source]\ntype = \"rate\"\nrows_per_second = 30000\nrows = {ROWS}\n[[transform]]\nplugin = \"even-filter\"\n\
             [[sink]]\ntype = \"kafka\"\nbrokers = [\"{}\"]\ntopic = \"{topic}\"\ndelivery = \"exactly_once\"\n\
             [delivery]\ncheckpoint_interval = \"50ms\"\n",
            kafka.address()
        ),
    );
    let mut random = rand::rng();
    let mut kills = 0;
    for _ in 0..10 {
        daemon.spawn(&["--once"]);
        wait_until("it runs", || daemon.stderr().contains("running"));
        // The moment is the test's matter, not a wait for something.
        std::thread::sleep(random.random_range(Duration::ZERO..Duration::from_millis(600)));
        // The rate goes by the clock: on a busy machine it is over before the tenth.
        if !daemon.is_running() {
            daemon.wait_exit();
            break;
        }
        daemon.kill();
        kills += 1;
    }
    assert!(kills >= 3, "{kills} kills");
    let exit = daemon.once();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let values = kafka.values(&topic, &Consume::default());
    let mut values: Vec<i64> =
        values.iter().map(|value| serde_json::from_str::<Value>(value).unwrap()["value"].as_i64().unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values.len() as i64, ROWS / 2);
    assert!(values.into_iter().eq((0..ROWS).step_by(2)), "a row is missing or comes twice");
}

#[test]
fn it_goes_on_when_the_broker_is_back() {
    let mut kafka = Kafka::start();
    let topic = kafka.topic("back", 1);
    let mut daemon = Daemon::new();
    daemon.file("in.jsonl", lines((0..1000).map(|id| json!({"id": id}))));
    let sink = format!("topic = \"{topic}\"");
    daemon.pipeline("p", &pipeline(kafka.address(), "follow = true", &sink));
    daemon.start();
    wait_until("the first rows have arrived", || kafka.end_offsets(&topic)[&0] == 1000);
    kafka.stop();
    let path = daemon.folder().join("in.jsonl");
    let more = lines((1000..2000).map(|id| json!({"id": id})));
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(more.as_bytes()).unwrap();
    wait_until("the status names the broker", || {
        let status = daemon.status("p").to_string();
        status.contains(kafka.address()) && status.contains("refused")
    });
    kafka.start_again();
    wait_until("the other rows have arrived", || kafka.end_offsets(&topic)[&0] == 2000);
    assert_eq!(daemon.stop().code, Some(0));
    let ids: Vec<_> = kafka.consume(&topic).iter().map(|record| record.json()["id"].as_i64().unwrap()).collect();
    assert!(ids.into_iter().eq(0..2000));
}

#[test]
fn what_is_wrong_with_the_broker_is_said() {
    let kafka = Kafka::start_with(&KafkaOptions { sasl: true, ..KafkaOptions::default() });
    let topic = kafka.topic("said", 1);
    let nobody = format!("127.0.0.1:{}", free_port());
    let mut daemon = Daemon::new();
    daemon.file("in.jsonl", lines([json!({"id": 1})]));
    let sasl = |password: &str| {
        format!(
            "topic = \"{topic}\"\nsasl = {{ mechanism = \"SCRAM-SHA-256\", username = \"alice\", password = \"{password}\" }}"
        )
    };
    daemon.pipeline("missing", &pipeline(kafka.address(), "", "topic = \"is-missing\""));
    daemon.pipeline("nobody", &pipeline(&nobody, "", "topic = \"t\""));
    daemon.pipeline("wrong", &pipeline(&kafka.sasl_address(), "", &sasl("guess-who")));
    daemon.pipeline("right", &pipeline(&kafka.sasl_address(), "", &sasl("alice-secret")));
    daemon.pipeline("made", &pipeline(kafka.address(), "", "topic = \"made\"\ncreate = { partitions = 2 }"));
    daemon.start();
    for (name, part) in [
        ("missing", "topic `is-missing` is not there".to_owned()),
        ("nobody", format!("the brokers {nobody} can't be reached")),
        ("wrong", "refuse the user or the password".to_owned()),
    ] {
        wait_until(&format!("the status of {name} says: {part}"), || daemon.status(name).to_string().contains(&part));
    }
    for name in ["right", "made"] {
        daemon.wait_state(name, "COMPLETED");
    }
    assert!(!daemon.stderr().contains("guess-who"));
    assert_eq!(kafka.end_offsets(&topic).values().sum::<i64>(), 1);
    assert_eq!(kafka.end_offsets("made").len(), 2);
    daemon.stop();
}
