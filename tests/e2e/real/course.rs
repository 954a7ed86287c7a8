//! The seven pipelines of the course, from the files in `examples/course`, on Cassandra, Kafka and InfluxDB.

use std::io::Write;
use std::net::TcpListener;

use acequia_tests::servers::{Cassandra, InfluxDb, Kafka};
use acequia_tests::{Daemon, json_lines, rows, wait_until, workspace};
use serde_json::{Value, json};

/// A daemon with one of the course's files, with something in it replaced, and what lies beside it.
fn course(name: &str, replace: &[(&str, &str)]) -> Daemon {
    let daemon = Daemon::new();
    let folder = workspace().join("examples/course");
    let mut text = std::fs::read_to_string(folder.join(format!("{name}.toml"))).unwrap();
    for (old, new) in replace {
        assert!(text.contains(old), "{name}.toml has no `{old}`");
        text = text.replace(old, new);
    }
    std::fs::copy(folder.join("people.json"), daemon.pipelines().join("people.json")).unwrap();
    let influxdb = InfluxDb::shared();
    let mut ini = std::fs::read_to_string(folder.join("influxdb.ini")).unwrap();
    for (old, new) in
        [("http://127.0.0.1:8086", influxdb.url()), ("my-org", influxdb.org()), ("my-token", influxdb.token())]
    {
        assert!(ini.contains(old), "influxdb.ini has no `{old}`");
        ini = ini.replace(old, new);
    }
    std::fs::write(daemon.pipelines().join("influxdb.ini"), ini).unwrap();
    daemon.pipeline(name, &text);
    daemon
}

/// Run it to its end.
fn once(daemon: &mut Daemon, name: &str) {
    let exit = daemon.once();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(rows(&daemon.dead_letters(name)), 0);
}

/// The rate source of the course has no end and a row a second: a test needs an end, and soon.
const FINITE: (&str, &str) = ("rows_per_second = 1\n", "rows_per_second = 1000\nrows = 300\n");

/// The course's tables, in a keyspace that nothing else has.
fn tables() -> (&'static Cassandra, String) {
    let cassandra = Cassandra::shared();
    let keyspace = cassandra.keyspace("course");
    let schema = std::fs::read_to_string(workspace().join("examples/course/schema.cql")).unwrap();
    let schema: String = schema.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
    let tables: Vec<String> = schema
        .split(';')
        .map(str::trim)
        .filter(|statement| statement.starts_with("CREATE TABLE"))
        .map(|statement| statement.replace(" test.", &format!(" {keyspace}.")))
        .collect();
    assert_eq!(tables.len(), 3);
    cassandra.execute(&tables.iter().map(String::as_str).collect::<Vec<_>>());
    (cassandra, keyspace)
}

fn cassandra_at<'a>(address: &'a str, keyspace: &'a str) -> [(&'static str, String); 2] {
    [("127.0.0.1:9042", address.to_owned()), ("keyspace = \"test\"", format!("keyspace = \"{keyspace}\""))]
}

/// As `course` takes them.
fn pairs<'a>(owned: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    owned.iter().map(|(old, new)| (*old, new.as_str())).collect()
}

#[test]
fn one_people_in_cassandra() {
    let (cassandra, keyspace) = tables();
    let mut daemon = course("people", &pairs(&cassandra_at(cassandra.address(), &keyspace)));
    once(&mut daemon, "people");
    let mut people = cassandra.query(&format!("SELECT id, name, age FROM {keyspace}.people"));
    people.sort_by_key(|person| person["name"].to_string());
    let uuid = regex::Regex::new("^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$").unwrap();
    let without: Vec<Value> = people
        .iter()
        .map(|person| {
            assert!(uuid.is_match(person["id"].as_str().unwrap()), "{person}");
            json!([person["name"], person["age"]])
        })
        .collect();
    assert_eq!(
        without,
        [json!(["Andy", 30]), json!(["Justin", 19]), json!(["Michael", null]), json!(["Zoë \"Z\"", 41])]
    );
    let types = cassandra.types(&format!("SELECT age FROM {keyspace}.people"));
    assert_eq!(types["age"], "int", "the table is the course's");

    // And back: the course shows its table.
    let back = Daemon::new();
    let address = cassandra.address();
    back.pipeline(
        "back",
        &format!(
            "[source]\ntype = \"cassandra\"\nnodes = [\"{address}\"]\nkeyspace = \"{keyspace}\"\ntable = \"people\"\n\n\
             [[sink]]\ntype = \"file\"\npath = \"OUT/people.jsonl\"\n"
        ),
    );
    let mut back = back;
    once(&mut back, "back");
    let mut found = json_lines(&back.out("people.jsonl"));
    found.sort_by_key(|person| person["name"].to_string());
    let shown = |people: &[Value]| people.iter().map(|p| json!([p["id"], p["name"], p["age"]])).collect::<Vec<_>>();
    assert_eq!(shown(&found), shown(&people));
}

#[test]
fn two_even_numbers_in_cassandra() {
    let (cassandra, keyspace) = tables();
    let address = cassandra_at(cassandra.address(), &keyspace);
    let mut replace = pairs(&address);
    replace.push(FINITE);
    let mut daemon = course("seq", &replace);
    once(&mut daemon, "seq");
    let mut rows = cassandra.query(&format!("SELECT to_unix_timestamp(timestamp) AS at, value FROM {keyspace}.seq"));
    assert_eq!(rows.len(), 150);
    rows.sort_by_key(|row| row["value"].as_str().unwrap().parse::<i64>().unwrap());
    let first = rows[0]["at"].as_i64().unwrap();
    for (row, value) in rows.iter().zip((0..300).step_by(2)) {
        assert_eq!(row["value"], value.to_string(), "text, as the table has it");
        // A row each millisecond; Cassandra keeps no more of a time than that.
        assert_eq!(row["at"].as_i64().unwrap() - first, value, "{row}");
    }
}

#[test]
fn three_words_in_cassandra() {
    let (cassandra, keyspace) = tables();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = listener.local_addr().unwrap().to_string();
    let address = cassandra_at(cassandra.address(), &keyspace);
    let mut replace = pairs(&address);
    replace.push(("127.0.0.1:9999", &socket));
    let mut daemon = course("wordcount", &replace);
    daemon.start();
    let (mut peer, _) = listener.accept().unwrap();
    // Half of it, a checkpoint and a stop in the middle, and the other half.
    for line in ["to be or not to be", "that is the question"] {
        writeln!(peer, "{line}").unwrap();
    }
    let counts = || cassandra.query(&format!("SELECT id, word, count FROM {keyspace}.wordcount"));
    wait_until("the first words", || counts().len() == 8);
    assert_eq!(daemon.stop().code, Some(0));
    daemon.start();
    let (mut peer, _) = listener.accept().unwrap();
    writeln!(peer, "to be is to do").unwrap();
    let expected =
        [("be", 3), ("do", 1), ("is", 2), ("not", 1), ("or", 1), ("question", 1), ("that", 1), ("the", 1), ("to", 4)];
    let expected: Vec<Value> =
        expected.iter().map(|(word, count)| json!({"id": word, "word": word, "count": count})).collect();
    wait_until("the totals go on from where they were", || {
        let mut found = counts();
        found.sort_by_key(|row| row["word"].to_string());
        found == expected
    });
    assert_eq!(daemon.stop().code, Some(0));
}

/// Pipeline 7 writes what pipeline 4 reads.
#[test]
fn seven_and_four_a_sine_wave_through_kafka_to_influxdb() {
    let (kafka, influxdb) = (Kafka::shared(), InfluxDb::shared());
    let topic = kafka.topic("course-sine", 1);
    let bucket = influxdb.bucket("course");
    let mut sine =
        course("sine", &[FINITE, ("127.0.0.1:9092", kafka.address()), ("\"test-topic\"", &format!("\"{topic}\""))]);
    once(&mut sine, "sine");
    let records = kafka.consume(&topic);
    assert_eq!(records.len(), 300);
    for (n, record) in records.iter().enumerate() {
        let sin: f64 = record.text().parse().unwrap();
        let expected = 50.0 * (0.1 * n as f64).sin();
        assert!((sin - expected).abs() <= 1e-12 * expected.abs(), "{n}: {sin} is not {expected}");
        assert_eq!(record.key, None);
    }

    let mut daemon = course(
        "sine-wave",
        &[
            ("127.0.0.1:9092", kafka.address()),
            ("\"test-topic\"", &format!("\"{topic}\"")),
            ("\"streaming\"", &format!("\"{bucket}\"")),
        ],
    );
    daemon.start();
    wait_until("all points", || influxdb.count(&bucket, "sine-wave", "value") == distinct(&records));
    // More come, one of them no number, as they are sent by hand.
    kafka.produce(&topic, ["0.25", "a quarter", "-1e3"]);
    wait_until("the ones behind the bad one too", || {
        points(influxdb, &bucket, "sine-wave", "value").iter().any(|(_, value)| value == &json!(-1000.0))
    });
    assert_eq!(daemon.stop().code, Some(0));
    let letters = json_lines(&daemon.dead_letters("sine-wave"));
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!((&letters[0]["stage"], &letters[0]["offset"]), (&json!("source"), &json!(301)));
    assert!(
        letters[0]["partition"].as_str().unwrap().contains(&topic) && letters[0]["row"].to_string().contains("quarter")
    );
    // Each point has its record's value and time; of records of the same millisecond the last one counts.
    let mut expected = std::collections::BTreeMap::new();
    for record in kafka.consume(&topic) {
        if let Ok(value) = record.text().parse::<f64>() {
            expected.insert(record.timestamp * 1000, json!(value));
        }
    }
    assert_eq!(points(influxdb, &bucket, "sine-wave", "value"), expected.into_iter().collect::<Vec<_>>());
}

/// How many points records of that many different times make.
fn distinct(records: &[acequia_tests::servers::Record]) -> u64 {
    records.iter().map(|record| record.timestamp).collect::<std::collections::BTreeSet<_>>().len() as u64
}

#[test]
fn five_messages_with_a_time_in_influxdb() {
    let (kafka, influxdb) = (Kafka::shared(), InfluxDb::shared());
    let topic = kafka.topic("course-json", 1);
    let bucket = influxdb.bucket("course");
    kafka.produce(
        &topic,
        [
            r#"{"time": "2020-04-13 12:09:37.768982", "sin": 15.5}"#,
            r#"{"time": "2020-04-13 12:09:37.768983", "sin": -0.1}"#,
            r#"{"time": "2020-04-13 12:09:37", "sin": "#,
            r#"{"time": "yesterday", "sin": 1}"#,
            r#"{"time": "2020-04-13T12:09:39.5Z", "sin": 7}"#,
        ],
    );
    let mut daemon = course(
        "sine-json",
        &[
            ("127.0.0.1:9092", kafka.address()),
            ("\"test-topic\"", &format!("\"{topic}\"")),
            ("\"streaming\"", &format!("\"{bucket}\"")),
        ],
    );
    daemon.start();
    // 2020-04-13 12:09:37 UTC is 1586779777: date -u -d '2020-04-13 12:09:37' +%s
    let expected = [
        (1_586_779_777_768_982, json!(15.5)),
        (1_586_779_777_768_983, json!(-0.1)),
        (1_586_779_779_500_000, json!(7.0)),
    ];
    wait_until("the good ones are there", || influxdb.count(&bucket, "sine-wave", "sin") == 3);
    assert_eq!(points(influxdb, &bucket, "sine-wave", "sin"), expected);
    assert_eq!(daemon.stop().code, Some(0));
    let letters = json_lines(&daemon.dead_letters("sine-json"));
    let places: Vec<_> = letters.iter().map(|letter| letter["offset"].as_i64().unwrap()).collect();
    assert_eq!(places, [2, 3], "{letters:?}");
}

#[test]
fn six_the_triangle_in_influxdb() {
    let influxdb = InfluxDb::shared();
    let bucket = influxdb.bucket("course");
    let mut daemon = course("triangle", &[FINITE, ("\"streaming\"", &format!("\"{bucket}\""))]);
    once(&mut daemon, "triangle");
    let found = points(influxdb, &bucket, "trwave", "tr");
    assert_eq!(found.len(), 300);
    let first = found[0].0;
    for (x, (time, value)) in found.iter().enumerate() {
        // A row each millisecond, to the microsecond; the course's formula, in its order of operations.
        assert_eq!(time - first, x as i64 * 1000);
        let (place, half) = (x as f64 % 30.0, x as f64 % 15.0);
        let (at, rising) = (f64::from(u8::from(place == 15.0)), f64::from(u8::from(place <= 15.0)));
        let alpha = 10.0 / 15.0;
        let tr = -5.0 + 10.0 * at + alpha * half * rising + (10.0 - alpha * half) * (1.0 - rising);
        assert_eq!(value.as_f64(), Some(tr), "{x}");
    }
}

/// Time (microseconds since the epoch) and value of a field's points, by time.
fn points(influxdb: &InfluxDb, bucket: &str, measurement: &str, field: &str) -> Vec<(i64, Value)> {
    let found = influxdb.query(&format!(
        "from(bucket: {bucket:?}) |> range(start: 0) |> filter(fn: (r) => r._measurement == {measurement:?} and r._field == {field:?})
         |> map(fn: (r) => ({{nanos: int(v: r._time), value: r._value}})) |> sort(columns: [\"nanos\"])"
    ));
    let nanos = |row: &serde_json::Map<String, Value>| row["nanos"].as_i64().unwrap();
    found
        .iter()
        .map(|row| {
            assert_eq!(nanos(row) % 1000, 0, "nothing was finer than a microsecond");
            (nanos(row) / 1000, row["value"].clone())
        })
        .collect()
}
