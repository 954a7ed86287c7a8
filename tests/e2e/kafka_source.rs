//! The Kafka source on a real broker, fed by Kafka's own console producer.

use std::collections::BTreeMap;

use acequia_tests::servers::{Kafka, KafkaOptions, Produce, free_port, unique};
use acequia_tests::{Daemon, json_lines, rows, values_of, wait_until};
use serde_json::json;

/// A pipeline to `out/p.jsonl` with these keys of the source.
fn pipeline(kafka: &str, source: &str) -> String {
    format!(
        "[source]\ntype = \"kafka\"\nbrokers = [\"{kafka}\"]\n{source}\n\
         [[sink]]\ntype = \"file\"\npath = \"OUT/p.jsonl\"\n\
         [errors]\non_error = \"dead_letter\"\n[delivery]\ncheckpoint_interval = \"100ms\"\n"
    )
}

/// `{"value": n}`, one a line.
fn numbers(daemon: &Daemon, count: usize) -> std::path::PathBuf {
    let lines: Vec<String> = (0..count).map(|number| format!("{{\"value\":{number}}}\n")).collect();
    daemon.file("lines", lines.concat())
}

fn assert_each_once(mut values: Vec<i64>, count: usize) {
    values.sort_unstable();
    let doubled = values.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert_eq!((values.len() - doubled, doubled), (count, 0), "distinct values, and those that are there twice");
}

/// Every partition is in the order of its offsets, without a gap.
fn assert_in_order(rows: &[serde_json::Value]) {
    let mut next = BTreeMap::new();
    for row in rows {
        let offset = row["offset"].as_i64().unwrap();
        let expected = next.insert(row["partition"].as_i64().unwrap(), offset + 1).unwrap_or(offset);
        assert_eq!(offset, expected, "{row}");
    }
}

#[test]
fn the_columns_of_a_record_and_a_bad_one_between() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("columns", 1);
    let how = Produce {
        key_separator: Some("=".to_owned()),
        headers: true,
        null: Some("NULL".to_owned()),
        ..Produce::default()
    };
    let lines = [r#"a:1,a:2\tk1={"sin": 15.5}"#, "h:x\tk2=broken {", "h:y\tk3=NULL"];
    kafka.produce_with(&topic, &how, lines.map(|line| line.replace("\\t", "\t")));
    let mut daemon = Daemon::new();
    let group = unique("columns");
    daemon.pipeline(
        "p",
        &pipeline(
            kafka.address(),
            &format!("topics = [\"{topic}\"]\ngroup = \"{group}\"\nuntil = \"end\"\nkey_format = \"text\""),
        ),
    );
    let exit = daemon.once();
    assert_eq!(exit.code, Some(3), "{}", exit.stderr);

    let mut rows = json_lines(&daemon.out("p.jsonl"));
    let times: Vec<_> = rows.iter_mut().map(|row| row.as_object_mut().unwrap().remove("timestamp").unwrap()).collect();
    let written: Vec<_> = kafka.consume(&topic).iter().map(|record| record.timestamp).collect();
    for (time, millis) in times.iter().zip([written[0], written[2]]) {
        let second = time.as_str().unwrap();
        assert!(second.ends_with(&format!(".{:03}000Z", millis % 1000)), "{second} is not {millis}");
    }
    let headers = |headers: &[(&str, &str)]| -> serde_json::Value {
        headers.iter().map(|(key, value)| json!({"key": key, "value": value})).collect()
    };
    assert_eq!(
        rows,
        [
            json!({"key": "k1", "sin": 15.5, "topic": topic, "partition": 0, "offset": 0, "headers": headers(&[("a", "1"), ("a", "2")])}),
            json!({"key": "k3", "sin": null, "topic": topic, "partition": 0, "offset": 2, "headers": headers(&[("h", "y")])}),
        ]
    );
    let letters = json_lines(&daemon.dead_letters("p"));
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (&letters[0]["partition"], &letters[0]["offset"], &letters[0]["row"]),
        (&json!(format!("{topic}/0")), &json!(1), &json!("broken {"))
    );
    assert_eq!(kafka.group_offsets(&group), BTreeMap::from([((topic, 0), 3)]));
}

// invariants 1, 2 and 4
#[test]
fn each_record_once_through_kill_9() {
    const COUNT: usize = 300_000;
    let kafka = Kafka::shared();
    let topic = kafka.topic("killed", 3);
    let mut daemon = Daemon::new();
    kafka.produce_file(&topic, &Produce::default(), &numbers(&daemon, COUNT));
    // Slow enough to be killed on the way: small batches, and a checkpoint every 10 ms.
    let text = pipeline(kafka.address(), &format!("topics = [\"{topic}\"]\nuntil = \"end\""))
        .replace("checkpoint_interval = \"100ms\"", "checkpoint_interval = \"10ms\"\ntasks = 2\nbatch = { rows = 64 }");
    daemon.pipeline("p", &text);
    let out = daemon.out("p.jsonl");
    for _ in 0..5 {
        let before = rows(&out);
        daemon.spawn(&["--once"]);
        wait_until("rows are written again, or all are there", || rows(&out) != before || !daemon.is_running());
        daemon.kill();
    }
    let exit = daemon.once();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_each_once(values_of(&out, "value"), COUNT);
    assert_in_order(&json_lines(&out));
}

/// With an hour to wait for others: a record is handed on where nothing else is on its way.
#[test]
fn a_record_that_is_alone_does_not_wait_for_others() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("alone", 2);
    let mut daemon = Daemon::new();
    let text = pipeline(kafka.address(), &format!("topics = [\"{topic}\"]\ngroup = \"{}\"", unique("alone")));
    daemon.pipeline("p", &format!("{text}tasks = 2\nbatch = {{ wait = \"1h\" }}\n"));
    daemon.start();
    for number in 0..3 {
        kafka.produce(&topic, [format!("{{\"value\":{number}}}")]);
        wait_until("it is written", || rows(&daemon.out("p.jsonl")) == number + 1);
    }
    assert_eq!(values_of(&daemon.out("p.jsonl"), "value"), [0, 1, 2]);
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn two_daemons_share_the_partitions() {
    const COUNT: usize = 60_000;
    let kafka = Kafka::shared();
    let topic = kafka.topic("shared", 6);
    let group = unique("shared");
    let text = pipeline(kafka.address(), &format!("topics = [\"{topic}\"]\ngroup = \"{group}\""));
    let (mut one, mut other) = (Daemon::new(), Daemon::new());
    one.pipeline("p", &text);
    other.pipeline("p", &text);
    let path = numbers(&one, COUNT);
    let produce = |part: usize| {
        let lines = std::fs::read_to_string(&path).unwrap();
        // With keys, so that each partition gets some.
        let how = Produce { key_separator: Some("=".to_owned()), ..Produce::default() };
        let lines = lines.lines().enumerate().skip(part * COUNT / 4).take(COUNT / 4);
        kafka.produce_with(&topic, &how, lines.map(|(key, line)| format!("{key}={line}")));
    };
    let outs = [one.out("p.jsonl"), other.out("p.jsonl")];
    let total = || outs.iter().map(|out| rows(out)).sum::<usize>();
    produce(0);
    one.start();
    wait_until("the first has everything", || total() == COUNT / 4);
    other.start();
    wait_until("the second has partitions", || other.stderr().contains("partitions assigned"));
    produce(1);
    wait_until("both have rows", || total() == COUNT / 2 && outs.iter().all(|out| rows(out) > 0));
    other.stop();
    produce(2);
    wait_until("the first has them all again", || total() == COUNT / 4 * 3);
    // What had not got to the group by then would come twice, and rightly so.
    let committed = || kafka.group_offsets(&group).values().sum::<i64>();
    wait_until("the group knows", || usize::try_from(committed()).unwrap() == COUNT / 4 * 3);
    other.start();
    one.kill();
    produce(3);
    wait_until("the second has those of the one that was killed", || total() == COUNT);
    one.start();
    let values = || outs.iter().flat_map(|out| values_of(out, "value")).collect::<Vec<_>>();
    wait_until("everything is there", || total() >= COUNT);
    one.stop();
    other.stop();
    assert_each_once(values(), COUNT);
    assert_eq!(usize::try_from(committed()).unwrap(), COUNT);
}

#[test]
fn the_broker_goes_away_and_comes_back() {
    let mut kafka = Kafka::start();
    let topic = kafka.topic("away", 1);
    let mut daemon = Daemon::new();
    daemon.pipeline("p", &pipeline(kafka.address(), &format!("topics = [\"{topic}\"]")));
    kafka.stop();
    daemon.start();
    wait_until("status says why nothing comes", || {
        daemon.status("p").to_string().contains(&format!("can't reach the Kafka brokers {}", kafka.address()))
    });
    kafka.start_again();
    kafka.produce(&topic, [r#"{"value": 0}"#]);
    daemon.wait_rows("p.jsonl", 1);
    kafka.stop();
    daemon.wait_state("p", "RETRYING");
    kafka.start_again();
    kafka.produce(&topic, [r#"{"value": 1}"#]);
    daemon.wait_rows("p.jsonl", 2);
    daemon.wait_state("p", "RUNNING");
    daemon.stop();
    assert_each_once(values_of(&daemon.out("p.jsonl"), "value"), 2);
}

#[test]
fn what_is_wrong_is_named() {
    let kafka = Kafka::start_with(&KafkaOptions { sasl: true, ..KafkaOptions::default() });
    let nobody = format!("127.0.0.1:{}", free_port());
    let user = "sasl = { mechanism = \"SCRAM-SHA-256\", username = \"alice\", password = { env = \"WORD\" } }";
    for (address, keys, word, expected) in [
        (kafka.address().to_owned(), "topics = [\"missing\"]", "", "topic `missing` does not exist"),
        (nobody, "topics = [\"t\"]", "", "Connection refused"),
        (kafka.sasl_address(), &*format!("topics = [\"t\"]\n{user}"), "wrong", "refuse the user"),
        (kafka.sasl_address(), &*format!("topics = [\"t\"]\n{user}"), "alice-secret", "topic `t` does not exist"),
    ] {
        let mut daemon = Daemon::new().env("WORD", word);
        daemon.pipeline("p", &pipeline(&address, &format!("{keys}\nuntil = \"end\"")));
        let exit = daemon.once();
        assert_eq!(exit.code, Some(1), "{}", exit.stderr);
        assert!(exit.stderr.contains(expected) && !exit.stderr.contains("alice-secret"), "{}", exit.stderr);
    }
    assert!(!kafka.topics().contains(&"missing".to_owned()), "it is not made by asking for it");
}

#[test]
fn it_begins_where_it_is_told_to() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("start", 1);
    kafka.produce(&topic, (0..3).map(|number| format!("{{\"value\":{number}}}")));
    let before = kafka.consume(&topic).iter().map(|record| record.timestamp).max().unwrap();
    // Records of the next call have a later millisecond: the tool takes longer than that to start.
    kafka.produce(&topic, (3..5).map(|number| format!("{{\"value\":{number}}}")));
    let keys = |start: &str| format!("topics = [\"{topic}\"]\ngroup = \"{}\"\nstart = {start}", unique("start"));
    for (start, expected) in [
        ("\"earliest\"".to_owned(), vec![0, 1, 2, 3, 4]),
        ("{ timestamp = \"2001-01-01T00:00:00Z\" }".to_owned(), vec![0, 1, 2, 3, 4]),
        (format!("{{ timestamp = \"{}\" }}", rfc_3339(before + 1)), vec![3, 4]),
        ("\"latest\"".to_owned(), vec![]),
    ] {
        let mut daemon = Daemon::new();
        daemon.pipeline("p", &pipeline(kafka.address(), &format!("{}\nuntil = \"end\"", keys(&start))));
        let exit = daemon.once();
        assert_eq!(exit.code, Some(0), "{start}: {}", exit.stderr);
        assert_eq!(values_of(&daemon.out("p.jsonl"), "value"), expected, "{start}");
    }
    let mut daemon = Daemon::new();
    daemon.pipeline("p", &pipeline(kafka.address(), &keys("\"latest\"")));
    daemon.start();
    wait_until("it has its partition", || daemon.stderr().contains("partitions assigned"));
    kafka.produce(&topic, [r#"{"value": 5}"#]);
    daemon.wait_rows("p.jsonl", 1);
    daemon.stop();
    assert_eq!(values_of(&daemon.out("p.jsonl"), "value"), [5]);
}

/// Milliseconds since the epoch, as `date` writes them.
fn rfc_3339(millis: i64) -> String {
    let output = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{}.{:03}", millis / 1000, millis % 1000), "+%Y-%m-%dT%H:%M:%S.%3NZ"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Both connectors over TLS, and not without its certificate.
#[test]
fn over_tls() {
    let kafka = Kafka::start_with(&KafkaOptions { tls: true, ..KafkaOptions::default() });
    let (from, to) = (kafka.topic("tls-from", 1), kafka.topic("tls-to", 1));
    kafka.produce(&from, ["one", "two"]);
    let address = kafka.tls_address();
    let copy = |tls: &str| {
        format!(
            "[source]\ntype = \"kafka\"\nbrokers = [\"{address}\"]\ntopics = [\"{from}\"]\nformat = \"text\"\nuntil = \"end\"\n\
             tls = {tls}\n[[sink]]\ntype = \"kafka\"\nbrokers = [\"{address}\"]\ntopic = \"{to}\"\nformat = \"text\"\n\
             value = \"value\"\ntls = {tls}\n"
        )
    };
    let mut daemon = Daemon::new();
    daemon.pipeline("p", &copy("{}"));
    let exit = daemon.once();
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    assert!(exit.stderr.contains("certificate verify failed"), "{}", exit.stderr);
    daemon.pipeline("p", &copy(&format!("{{ ca = \"{}\" }}", kafka.certificate().display())));
    let exit = daemon.once();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(kafka.consume(&to).iter().map(|record| record.text()).collect::<Vec<_>>(), ["one", "two"]);
}
