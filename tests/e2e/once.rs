//! `--once`: what its exit code says.

use std::fs;

use acequia_tests::{Daemon, Exit, json_lines, rows, values_of};

const PEOPLE: &str = r#"
[source]
type = "file"
path = "DIR/people.jsonl"

[source.schema]
name = "text"
age = "int64"

[[transform]]
plugin = "even-filter"
config = { column = "age" }

[[sink]]
type = "file"
path = "OUT/people.jsonl"
"#;

const GOOD: &str = "{\"name\":\"Andy\",\"age\":30}\n{\"name\":\"Justin\",\"age\":19}\n";

fn once(people: &str, text: &str) -> (Daemon, Exit) {
    let mut daemon = Daemon::new();
    daemon.file("people.jsonl", people);
    daemon.pipeline("people", text);
    let exit = daemon.once();
    (daemon, exit)
}

#[test]
fn zero_if_every_row_is_confirmed() {
    let (mut daemon, exit) = once(GOOD, PEOPLE);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(values_of(&daemon.out("people.jsonl"), "age"), [30]);
    // Once more: there is nothing left to do.
    assert_eq!(daemon.once().code, Some(0));
    assert_eq!(values_of(&daemon.out("people.jsonl"), "age"), [30]);
    // A source that never ends does not keep it from its end, if there is one that does.
    daemon.pipeline("endless", "[source]\ntype = \"rate\"\n[[sink]]\ntype = \"blackhole\"\n");
    assert_eq!(daemon.once().code, Some(0));
}

#[test]
fn one_if_something_failed() {
    // A file that can't be used, beside one that can: the one that can is done.
    let mut daemon = Daemon::new();
    daemon.file("people.jsonl", GOOD);
    daemon.pipeline("people", PEOPLE);
    daemon.pipeline("wrong", "[source]\n");
    let exit = daemon.once();
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    assert_eq!(values_of(&daemon.out("people.jsonl"), "age"), [30]);

    // Nothing that could end.
    let mut daemon = Daemon::new();
    daemon.pipeline("endless", "[source]\ntype = \"rate\"\n[[sink]]\ntype = \"blackhole\"\n");
    let exit = daemon.once();
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    assert!(exit.stderr.contains("--once needs a source that ends"), "{}", exit.stderr);

    // Nothing at all.
    let exit = Daemon::new().once();
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);

    // on_error = "stop".
    let stop = format!("{PEOPLE}\n[errors]\non_error = \"stop\"\n");
    let (daemon, exit) = once(&format!("{GOOD}no JSON\n{GOOD}"), &stop);
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    assert!(exit.stderr.contains("row 3"), "{}", exit.stderr);
    assert!(rows(&daemon.out("people.jsonl")) <= 1);
}

#[test]
fn one_if_a_sink_never_works() {
    let mut daemon = Daemon::new();
    daemon.file("people.jsonl", GOOD);
    fs::write(daemon.out("blocked"), "").unwrap();
    daemon.pipeline("people", &PEOPLE.replace("OUT/people.jsonl", "OUT/blocked/people.jsonl"));
    let exit = daemon.once();
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    assert!(exit.stderr.contains("did not complete") && exit.stderr.contains("blocked"), "{}", exit.stderr);
}

#[test]
fn three_if_rows_are_dead() {
    let people = format!("{GOOD}no JSON\n{{\"name\":\"Ann\",\"age\":\"old\"}}\n{GOOD}");
    let (daemon, exit) = once(&people, PEOPLE);
    assert_eq!(exit.code, Some(3), "{}", exit.stderr);
    assert_eq!(values_of(&daemon.out("people.jsonl"), "age"), [30, 30]);
    let letters = json_lines(&daemon.dead_letters("people"));
    let places: Vec<_> = letters.iter().map(|letter| (letter["stage"].as_str(), letter["offset"].as_i64())).collect();
    assert_eq!(places, [(Some("source"), Some(3)), (Some("source"), Some(4))], "{letters:?}");
    assert!(exit.stderr.contains("rows=2") && exit.stderr.contains("dead letters"), "{}", exit.stderr);

    let (daemon, exit) = once(&people, &format!("{PEOPLE}\n[errors]\non_error = \"skip\"\n"));
    assert_eq!(exit.code, Some(3), "{}", exit.stderr);
    assert_eq!(values_of(&daemon.out("people.jsonl"), "age"), [30, 30]);
    assert!(!daemon.dead_letters("people").exists());
}
