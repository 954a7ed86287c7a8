//! Rows that can't be read: each is a dead letter with its file and line, and all others arrive.

use acequia_tests::{Account, Daemon, json_lines};
use serde_json::{Value, json};

use super::steady;

struct Case {
    /// Of the pipeline, and of the file: its ending says the format.
    file: &'static str,
    /// More keys of the source.
    keys: &'static str,
    content: Vec<u8>,
    /// The rows that arrive.
    rows: Vec<Value>,
    /// The lines that don't.
    dead: Vec<u64>,
}

fn numbers(rows: impl IntoIterator<Item = u64>) -> Vec<Value> {
    rows.into_iter().map(|n| json!({ "n": n })).collect()
}

fn case(file: &'static str, content: impl Into<Vec<u8>>, rows: Vec<Value>, dead: &[u64]) -> Case {
    let keys = if file.ends_with(".txt") { "format = \"text\"" } else { "" };
    Case { file, keys, content: content.into(), rows, dead: dead.to_vec() }
}

fn ten_lines(third: &[u8]) -> Vec<u8> {
    let line = |n: u64| if n == 3 { third.to_vec() } else { format!("{{\"n\":{n}}}").into_bytes() };
    (1..=10).flat_map(|n| [line(n), b"\n".to_vec()].concat()).collect()
}

fn all_but_the_third() -> Vec<Value> {
    numbers((1..=10).filter(|n| *n != 3))
}

fn json() -> Vec<Case> {
    let array = |third: &str| {
        let row = |n: u64| if n == 3 { third.to_owned() } else { format!("  {{\n    \"n\": {n}\n  }}") };
        format!("[\n{}\n]\n", (1..=10).map(row).collect::<Vec<_>>().join(",\n"))
    };
    let deep = format!("{{\"n\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let long = |bytes: usize| format!("{{\"n\":3,\"text\":\"{}\"}}", "x".repeat(bytes));
    let with_text = |bytes: usize| {
        let row = |n: u64| json!({ "n": n, "text": (n == 3).then(|| "x".repeat(bytes)) });
        (1..=10).map(row).collect::<Vec<_>>()
    };
    let lines = ten_lines(b"{\"n\":3}");
    let text = String::from_utf8(lines.clone()).unwrap();
    let bom = |text: &str| format!("\u{feff}{text}");
    let utf16 =
        |text: &str| [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    vec![
        case("broken.jsonl", ten_lines(b"{\"n\":3,"), all_but_the_third(), &[3]),
        case("broken-word.jsonl", ten_lines(b"{\"n\": three}"), all_but_the_third(), &[3]),
        case("broken-array.json", array("  {\n    \"n\": 3 \"x\"\n  }"), all_but_the_third(), &[8]),
        case("open-object.json", array("  {\n    \"n\": 3"), all_but_the_third(), &[8]),
        case("scalars.jsonl", "{\"n\":1}\n5\n\"x\"\nnull\n[1]\n{\"n\":6}\n", numbers([1, 6]), &[2, 3, 4, 5]),
        case("cut-off.json", "[{\"n\":1},\n{\"n\":2},\n{\"n\":", numbers([1, 2]), &[3]),
        case("no-end.json", "[{\"n\":1},\n{\"n\":2}\n", numbers([1, 2]), &[3]),
        case("deep.jsonl", ten_lines(deep.as_bytes()), all_but_the_third(), &[3]),
        case("ten-megabytes.jsonl", ten_lines(long(10_000_000).as_bytes()), with_text(10_000_000), &[]),
        case("twenty-megabytes.jsonl", ten_lines(long(20_000_000).as_bytes()), all_but_the_third(), &[3]),
        Case {
            keys: "max_record = \"1MiB\"",
            ..case("over-its-limit.jsonl", ten_lines(long(10_000_000).as_bytes()), all_but_the_third(), &[3])
        },
        case("nul.jsonl", ten_lines(b"{\"n\":\"\0\"}"), all_but_the_third(), &[3]),
        case("nul-line.jsonl", ten_lines(b"\0"), all_but_the_third(), &[3]),
        case("not-utf8.jsonl", ten_lines(b"{\"n\":\"caf\xe9\"}"), all_but_the_third(), &[3]),
        case("half-surrogate.jsonl", ten_lines(b"{\"n\":\"\\ud800\"}"), all_but_the_third(), &[3]),
        case("empty.jsonl", "", vec![], &[]),
        case("blank.jsonl", "\n\n  \r\n\n", vec![], &[]),
        case("empty-array.json", "[]", vec![], &[]),
        case("crlf.jsonl", text.replace('\n', "\r\n"), numbers(1..=10), &[]),
        case("bom.jsonl", bom(&text), numbers(1..=10), &[]),
        case("bom-crlf.json", bom(&array("  {\n    \"n\": 3\n  }").replace('\n', "\r\n")), numbers(1..=10), &[]),
        case("bom-alone.jsonl", "\u{feff}", vec![], &[]),
        case("utf16.jsonl", utf16("{\"n\":1}\n{\"n\":2}"), vec![], &[1, 2]),
        Case {
            keys: "schema = { n = \"int64\" }",
            ..case(
                "cast.jsonl",
                "{\"n\":1}\n{\"n\":\"2\"}\n{\"n\":\"three\"}\n{\"n\":4.5}\n{\"n\":1e30}\n{\"n\":{}}\n{\"n\":null}\n{}\n",
                vec![json!({ "n": 1 }), json!({ "n": 2 }), json!({ "n": null }), json!({ "n": null })],
                &[3, 4, 5, 6],
            )
        },
        // Where no type is declared, such a number is kept digit by digit.
        Case {
            keys: "schema = { n = \"float64\" }",
            ..case(
                "huge-number.jsonl",
                ten_lines(b"{\"n\":1e999}"),
                (1..=10).filter(|n| *n != 3).map(|n| json!({ "n": f64::from(n) })).collect(),
                &[3],
            )
        },
    ]
}

fn lines_and_csv() -> Vec<Case> {
    let values = |texts: &[&str]| texts.iter().map(|text| json!({ "value": text })).collect::<Vec<_>>();
    let fields = |rows: &[(&str, &str)]| rows.iter().map(|(a, b)| json!({ "a": a, "b": b })).collect::<Vec<_>>();
    vec![
        case("nul.txt", "one\nt\0wo\nthree\n", values(&["one", "t\0wo", "three"]), &[]),
        case("not-utf8.txt", b"one\ncaf\xe9\nthree\n", values(&["one", "three"]), &[2]),
        case("crlf.txt", "one\r\n\r\nthree", values(&["one", "", "three"]), &[]),
        case("bom.txt", "\u{feff}one\ntwo\n", values(&["one", "two"]), &[]),
        case("empty.txt", "", vec![], &[]),
        case("short.csv", "a,b\n1,2\n3\n4,5,6\n7,8\n", fields(&[("1", "2"), ("7", "8")]), &[3, 4]),
        case("quote.csv", "a,b\n1,2\n\"3,4\n5,6\n7,8\n", fields(&[("1", "2"), ("5", "6"), ("7", "8")]), &[3]),
        case("not-utf8.csv", b"a,b\n1,2\n3,\xe9\n5,6\n", fields(&[("1", "2"), ("5", "6")]), &[3]),
        case("nul.csv", "a,b\n1,\0\n", fields(&[("1", "\0")]), &[]),
        case("bom-crlf.csv", "\u{feff}a,b\r\n1,2\r\n\r\n3,4\r\n", fields(&[("1", "2"), ("3", "4")]), &[]),
        case("empty.csv", "", vec![], &[]),
        case("header-alone.csv", "a,b\n", vec![], &[]),
        case("twins.csv", "a,a\n1,2\n", vec![], &[1, 2]),
        Case {
            keys: "schema = { a = \"int64\", c = \"text\" }",
            ..case("missing-column.csv", "a,b\n1,2\n", vec![], &[1, 2])
        },
        Case {
            keys: "schema = { a = \"timestamp\" }",
            ..case(
                "cast.csv",
                "a,b\n2020-04-13 12:09:37.768982,x\n2020-02-30,x\nnever,x\n,x\n",
                vec![json!({ "a": "2020-04-13T12:09:37.768982Z" }), json!({ "a": null })],
                &[3, 4],
            )
        },
    ]
}

#[test]
fn a_row_that_can_not_be_read_is_a_dead_letter_with_file_and_line() {
    let mut daemon = Daemon::new();
    let cases: Vec<Case> = json().into_iter().chain(lines_and_csv()).collect();
    for Case { file, keys, content, .. } in &cases {
        daemon.file(file, content);
        let comma = if keys.is_empty() { "" } else { ", " };
        daemon.pipeline(
            file,
            &format!(
                "source = {{ type = \"file\", path = \"../{file}\"{comma}{keys} }}\n\
                 sink = [{{ type = \"file\", path = \"OUT/{file}\", format = \"json\" }}]\n"
            ),
        );
    }
    daemon.start();
    let mut seen = String::new();
    for Case { file, rows, dead, .. } in &cases {
        let status = daemon.wait_state(file, "COMPLETED");
        let letters = json_lines(&daemon.dead_letters(file));
        let lines: Vec<u64> = letters.iter().map(|letter| letter["offset"].as_u64().unwrap()).collect();
        let partition = daemon.folder().join(file).display().to_string();
        for letter in &letters {
            assert_eq!((&letter["stage"], &letter["partition"]), (&"source".into(), &partition.as_str().into()));
            let shown: String = letter["row"].as_str().unwrap_or("(none)").chars().take(40).collect();
            let error = letter["error"].as_str().unwrap();
            assert!(error.len() < 1000, "{file}: a message of {} bytes", error.len());
            seen.push_str(&format!("{file}:{}: {error}\n    {shown:?}\n", letter["offset"]));
        }
        assert_eq!(&lines, dead, "{file}: {letters:?}");
        let arrived = json_lines(&daemon.out(file));
        assert!(plain(&arrived) == plain(rows), "{file}: {}", short(&arrived));
        let account = Account::of(&status);
        account.check("file", true);
        assert_eq!(account.stage("source").rows_in, (rows.len() + dead.len()) as u64, "{file}: each is counted");
    }
    insta::assert_snapshot!("data", steady(&daemon, &seen));
    assert_eq!(daemon.stop().code, Some(0));
}

/// Rows of JSON are written as they were read, so their nulls and the type of their column show only in a source's columns.
fn plain(rows: &[Value]) -> Vec<Vec<(String, Value)>> {
    let value = |value: &Value| value.as_f64().map_or_else(|| value.clone(), Value::from);
    let row = |row: &Value| {
        let fields = row.as_object().unwrap().iter().filter(|(_, value)| !value.is_null());
        fields.map(|(name, field)| (name.clone(), value(field))).collect()
    };
    rows.iter().map(row).collect()
}

fn short(rows: &[Value]) -> String {
    format!("{} rows: {}", rows.len(), format!("{rows:?}").chars().take(2000).collect::<String>())
}

/// A pipeline that takes 100 ms for each row of `path`, since its plugin is ended by its time limit; so there is time to
/// do something in the middle. Every row of it is dead.
fn slowly(path: &str) -> String {
    format!(
        r#"
        source = {{ type = "file", path = "{path}" }}
        transform = [{{ plugin = "evil", config = {{ mode = "loop", column = "n" }}, limits = {{ time = "100ms" }} }}]
        sink = [{{ type = "file", path = "OUT/slow.jsonl" }}]
        delivery = {{ batch = {{ rows = 1 }}, in_flight = 1, checkpoint_interval = "20ms" }}
        "#
    )
}

#[test]
fn a_file_that_vanishes_in_the_middle_is_waited_for() {
    let evil = acequia_tests::evil_plugin("evil");
    let mut daemon = Daemon::new().arg("--plugins").arg(&evil.parent().unwrap().display().to_string());
    std::fs::create_dir(daemon.folder().join("in")).unwrap();
    let lines = |from: u64, to: u64| (from..to).map(|n| format!("{{\"n\":{n}}}\n")).collect::<String>();
    daemon.file("in/a.jsonl", lines(0, 20));
    daemon.file("in/b.jsonl", lines(20, 23));
    daemon.file("in/c.jsonl", lines(23, 25));
    daemon.pipeline("slow", &slowly("../in/*.jsonl"));
    daemon.start();
    let letters = |daemon: &Daemon| json_lines(&daemon.dead_letters("slow"));
    acequia_tests::wait_until("the first rows are through", || letters(&daemon).len() > 1);
    // One that is being read, and one that is not yet.
    assert!(letters(&daemon).len() < 15, "too late to be in the middle");
    std::fs::remove_file(daemon.folder().join("in/a.jsonl")).unwrap();
    std::fs::rename(daemon.folder().join("in/b.jsonl"), daemon.folder().join("in/b.away")).unwrap();
    let status = daemon.wait_state("slow", "RETRYING");
    let error = status["acequia"]["last_error"]["message"].as_str().unwrap();
    insta::assert_snapshot!("data_vanished", steady(&daemon, error));
    acequia_tests::wait_until("the open file is read to its end", || letters(&daemon).len() == 20);
    assert_eq!(daemon.status("slow")["acequia"]["restarts"], 0, "it is still the same run");

    std::fs::rename(daemon.folder().join("in/b.away"), daemon.folder().join("in/b.jsonl")).unwrap();
    let status = daemon.wait_state("slow", "COMPLETED");
    Account::of(&status).check("file", true);
    assert_eq!(Account::of(&status).stage("source").rows_in, 25);
    let rows: Vec<Value> =
        letters(&daemon).iter().map(|letter| serde_json::from_str(letter["row"].as_str().unwrap()).unwrap()).collect();
    assert_eq!(rows, numbers(0..25));
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn what_is_no_file_is_said_and_waited_for() {
    let mut daemon = Daemon::new();
    let cases = [
        ("missing", "../nothing.json"),
        ("no-match", "../nothing/*.json"),
        ("folder", "../out"),
        ("below-a-file", "../file/x.json"),
        ("device", "/dev/null"),
    ];
    daemon.file("file", "");
    for (name, path) in cases {
        daemon.pipeline(
            name,
            &format!(
                "source = {{ type = \"file\", path = \"{path}\" }}\n\
                 sink = [{{ type = \"file\", path = \"OUT/{name}.jsonl\" }}]\n"
            ),
        );
    }
    daemon.start();
    let mut seen = String::new();
    for (name, _) in cases {
        let status = daemon.wait_state(name, "RETRYING");
        let error = status["acequia"]["first_error"]["message"].as_str().unwrap();
        seen.push_str(&format!("{name}: {}\n", steady(&daemon, error)));
    }
    insta::assert_snapshot!("data_no_file", seen);
    daemon.file("nothing.json", "[{\"n\":1}]");
    daemon.wait_state("missing", "COMPLETED");
    assert_eq!(json_lines(&daemon.out("missing.jsonl")), numbers([1]));
    assert_eq!(daemon.stop().code, Some(0));
}
