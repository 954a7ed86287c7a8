//! The pipelines of the course that need no server, from the files in `examples/course-files`.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;

use acequia_tests::{Daemon, json_lines, out_dir, rows, run, wait_until, workspace};
use regex::Regex;
use serde_json::{Value, json};

/// A daemon with one of the course's files, with something in it replaced.
fn course(name: &str, replace: &[(&str, &str)]) -> Daemon {
    let daemon = Daemon::new();
    let folder = workspace().join("examples/course-files");
    let mut text = std::fs::read_to_string(folder.join(format!("{name}.toml"))).unwrap();
    for (old, new) in replace {
        assert!(text.contains(old), "{name}.toml has no `{old}`");
        text = text.replace(old, new);
    }
    daemon.pipeline(name, &text);
    for data in ["people.json", "person.json"] {
        std::fs::copy(folder.join(data), daemon.pipelines().join(data)).unwrap();
    }
    daemon
}

/// What a pipeline of the course wrote when it has ended.
fn rows_of(name: &str, replace: &[(&str, &str)]) -> Vec<Value> {
    let mut daemon = course(name, replace);
    let exit = daemon.once();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(!daemon.dead_letters(name).exists() || rows(&daemon.dead_letters(name)) == 0);
    json_lines(&daemon.pipelines().join(format!("out/{name}.jsonl")))
}

/// The rate source of the course has no end and a row a second: a test needs an end, and soon.
const FINITE: (&str, &str) = ("rows_per_second = 1\n", "rows_per_second = 1000\nrows = 300\n");

/// Microseconds since midnight, and the day: enough to tell the distance of two times.
fn micros(timestamp: &Value) -> (String, i64) {
    let format = Regex::new(r"^([0-9]{4}-[0-9]{2}-[0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})[.]([0-9]{6})Z$").unwrap();
    let text = timestamp.as_str().unwrap();
    let parts = format.captures(text).unwrap_or_else(|| panic!("{text} is no RFC 3339 time of six digits"));
    let number = |index: usize| parts[index].parse::<i64>().unwrap();
    (parts[1].to_owned(), ((number(2) * 60 + number(3)) * 60 + number(4)) * 1_000_000 + number(5))
}

/// The timestamps are the first one plus `value` milliseconds (FINITE has 1000 rows a second), to the microsecond.
fn check_timestamps(rows: &[Value], values: impl Iterator<Item = i64>) {
    let (first_day, first) = micros(&rows[0]["timestamp"]);
    for (row, value) in rows.iter().zip(values) {
        let (day, now) = micros(&row["timestamp"]);
        let midnight = if day == first_day { 0 } else { 86_400_000_000 };
        assert_eq!(now + midnight - first, value * 1000, "{row}");
    }
}

#[test]
fn one_people_with_random_ids() {
    let people = rows_of("people", &[]);
    let mut ids = Vec::new();
    let mut without = Vec::new();
    // RFC 9562: version 4, variant 0b10.
    let version_4 = Regex::new("^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$").unwrap();
    for mut person in people {
        let id = person.as_object_mut().unwrap().remove("id").unwrap();
        assert!(version_4.is_match(id.as_str().unwrap()), "{id}");
        ids.push(id.to_string());
        without.push(person);
    }
    assert_eq!(
        without,
        [
            json!({ "name": "Michael", "age": null }),
            json!({ "name": "Andy", "age": 30 }),
            json!({ "name": "Justin", "age": 19 }),
            json!({ "name": "Zoë \"Z\"", "age": 41 }),
        ]
    );
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[test]
fn one_people_with_ids_by_name() {
    // Python: N = uuid5(NAMESPACE_DNS, "uuid.plugins.acequia"); uuid5(N, '["Michael",null]'), uuid5(N, '["Andy","30"]'), ...
    let people = rows_of("people-by-name", &[]);
    let andy = json!({ "name": "Andy", "age": 30, "id": "6d5ac1b2-be61-5f79-8db2-a533af6a2464" });
    assert_eq!(
        people,
        [
            json!({ "name": "Michael", "age": null, "id": "974b9dcf-6735-5ae7-b533-4dd2118eca5b" }),
            andy.clone(),
            json!({ "name": "Justin", "age": 19, "id": "b142b274-b3d2-51e2-a4fd-ee1694e484c2" }),
            json!({ "name": "Zoë \"Z\"", "age": 41, "id": "5ec7ab90-db5f-51c1-9c61-04e415ad0822" }),
        ]
    );
    // One object over several lines is one person; so the types are those of the array's without a schema too.
    let one = rows_of("people-by-name", &[("people.json", "person.json")]);
    assert_eq!(one, std::slice::from_ref(&andy));
    let schema = "[source.schema]\nname = \"text\"\nage = \"int64\"\n";
    assert_eq!(rows_of("people-by-name", &[("people.json", "person.json"), (schema, "")]), [andy]);
    let inferred = rows_of("people-by-name", &[(schema, "")]);
    // What no row before had is not there to be null: the first person's row is the same for who reads it by name.
    assert!(inferred[0]["age"].is_null());
    assert_eq!(inferred[1..], people[1..]);
}

#[test]
fn two_even_numbers_as_text() {
    let rows = rows_of("seq", &[FINITE]);
    assert_eq!(rows.len(), 150);
    for (row, value) in rows.iter().zip((0..300).step_by(2)) {
        assert_eq!(row["value"], json!(value.to_string()));
        assert_eq!(row.as_object().unwrap().len(), 2, "{row}");
    }
    check_timestamps(&rows, (0..300).step_by(2));
}

#[test]
fn three_words_of_a_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut daemon = course("wordcount", &[("127.0.0.1:9999", &address)]);
    daemon.start();
    let (mut peer, _) = listener.accept().unwrap();
    let out = daemon.pipelines().join("out/wordcount.jsonl");
    peer.write_all("to be or not to be\nthat is the question\n".as_bytes()).unwrap();
    wait_until("the first words are counted", || totals(&out).len() == 8);
    peer.write_all("\nto  be \nêtre ou ne pas être\nhalf a".as_bytes()).unwrap();
    // Python, with lines as above, the last one left out:
    // Counter(word for line in lines for word in line.split(" "))
    let expected = json!({
        "to": 3, "be": 3, "or": 1, "not": 1, "that": 1, "is": 1, "the": 1, "question": 1, "": 3,
        "être": 2, "ou": 1, "ne": 1, "pas": 1,
    });
    wait_until("all words are counted", || Value::Object(totals(&out)) == expected);
    // The end of a line, and the end of the stream in the place of one, end a line. The peer goes and comes back.
    peer.write_all(b" line\nthe end").unwrap();
    drop(peer);
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(b"again\n").unwrap();
    let mut expected = expected;
    for (word, count) in [("half", 1), ("a", 1), ("line", 1), ("the", 2), ("end", 1), ("again", 1)] {
        expected[word] = json!(count);
    }
    wait_until("the words of both connections are counted", || Value::Object(totals(&out)) == expected);
    assert_eq!(daemon.stop().code, Some(0));
    // In each row the total only grows.
    let mut last = serde_json::Map::new();
    for row in json_lines(&out) {
        let word = row["word"].as_str().unwrap();
        assert!(last.get(word).and_then(Value::as_i64).unwrap_or(0) < row["count"].as_i64().unwrap(), "{row}");
        last.insert(word.to_owned(), row["count"].clone());
    }
}

/// The last total of each word.
fn totals(path: &Path) -> serde_json::Map<String, Value> {
    json_lines(path).into_iter().map(|row| (row["word"].as_str().unwrap().to_owned(), row["count"].clone())).collect()
}

#[test]
fn six_the_triangle() {
    // Python: [tr(x) for x in range(30)], tr being the formula of the course; it says tr(x) == tr(x % 30) for all x < 3000.
    let period = [
        -5.0,
        -4.333333333333333,
        -3.666666666666667,
        -3.0,
        -2.3333333333333335,
        -1.666666666666667,
        -1.0,
        -0.3333333333333339,
        0.33333333333333304,
        1.0,
        1.666666666666666,
        2.333333333333333,
        3.0,
        3.666666666666666,
        4.333333333333332,
        5.0,
        4.333333333333334,
        3.666666666666666,
        3.0,
        2.333333333333334,
        1.666666666666667,
        1.0,
        0.3333333333333339,
        -0.33333333333333304,
        -1.0,
        -1.666666666666666,
        -2.333333333333333,
        -3.0,
        -3.666666666666666,
        -4.333333333333332,
    ];
    let rows = rows_of("triangle", &[FINITE]);
    assert_eq!(rows.len(), 300);
    for (value, row) in rows.iter().enumerate() {
        assert_eq!(row["value"], value);
        assert_eq!(row["tr"].as_f64(), Some(period[value % 30]), "{row}");
    }
    check_timestamps(&rows, 0..300);
}

#[test]
fn seven_the_sine() {
    let rows = rows_of("sine", &[FINITE]);
    assert_eq!(rows.len(), 300);
    // One mathematical library's sine is not another's in the last bit.
    let near = |row: &Value, expected: f64| {
        let sin = row["sin"].as_f64().unwrap();
        assert!((sin - expected).abs() <= 1e-12 * expected.abs(), "{row} is not {expected}");
    };
    for (value, row) in rows.iter().enumerate() {
        assert_eq!(row["value"], value);
        near(row, 50.0 * (0.1 * value as f64).sin());
    }
    // Python: [(n, 50*math.sin(0.1*n)) for n in (0, 1, 2, 15, 31, 100, 299)]
    for (value, sin) in [
        (0, 0.0),
        (1, 4.991670832341407),
        (2, 9.933466539753061),
        (15, 49.874749330202725),
        (31, 2.0790331216645246),
        (100, -27.20105554446849),
        (299, -49.92475153319072),
    ] {
        near(&rows[value], sin);
    }
    check_timestamps(&rows, 0..300);
}

/// Every example is right as it lies there.
#[test]
fn the_examples_are_valid() {
    let mut folders = 0;
    for entry in std::fs::read_dir(workspace().join("examples")).unwrap() {
        let folder = entry.unwrap().path();
        if folder.is_dir() {
            let plugins = out_dir().join("plugins");
            let exit =
                run(&["validate".as_ref(), "--no-env".as_ref(), "--plugins".as_ref(), plugins.as_path(), &folder]);
            assert_eq!(exit.code, Some(0), "{}", exit.stderr);
            folders += 1;
        }
    }
    assert!(folders >= 2);
}
