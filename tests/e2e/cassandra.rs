//! Cassandra, on a real node: what the sink wrote is read with the Python driver, what the source read with our file sink.

mod faults;
mod types;

use acequia_tests::Daemon;
use acequia_tests::servers::Cassandra;
use serde_json::{Value, json};

/// A daemon with one pipeline: JSON lines into a table, dead letters beside it.
fn into_table(cassandra: &Cassandra, keyspace: &str, table: &str, rows: &[Value], keys: &str) -> Daemon {
    let daemon = Daemon::new();
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    daemon.file("rows.jsonl", lines);
    let address = cassandra.address();
    daemon.pipeline(
        "p",
        &format!(
            "[source]\ntype = 'file'\npath = 'DIR/rows.jsonl'\nformat = 'json'\nmax_record = '64MiB'\n\
             [[sink]]\ntype = 'cassandra'\nnodes = ['{address}']\nkeyspace = '{keyspace}'\ntable = '{table}'\n{keys}\n\
             [errors.dead_letter]\ntype = 'file'\npath = 'OUT/dead.jsonl'\n"
        ),
    );
    daemon
}

/// Run it to its end: its exit code, and the errors of its dead letters.
fn run_once(daemon: &mut Daemon) -> (Option<i32>, Vec<String>) {
    let exit = daemon.once();
    let dead = acequia_tests::json_lines(&daemon.out("dead.jsonl"));
    let errors = dead.iter().map(|letter| letter["error"].as_str().unwrap_or_default().to_owned());
    (exit.code, errors.collect())
}

#[test]
fn the_last_row_with_a_key_stays() {
    let cassandra = Cassandra::shared();
    let keyspace = cassandra.keyspace("last");
    cassandra.query(&format!("CREATE TABLE {keyspace}.t (id int PRIMARY KEY, n int)"));
    let rows: Vec<_> = (0..20_000).map(|n| json!({ "id": n % 10, "n": n })).collect();
    let mut daemon = into_table(cassandra, &keyspace, "t", &rows, "");
    assert_eq!(run_once(&mut daemon), (Some(0), Vec::new()));
    let mut left: Vec<_> =
        cassandra.query(&format!("SELECT id, n FROM {keyspace}.t")).iter().map(|row| row["n"].as_i64()).collect();
    left.sort_unstable();
    assert_eq!(left, (19_990..20_000).map(Some).collect::<Vec<_>>());
}

#[test]
fn nulls_leave_what_is_there_or_delete_it() {
    let cassandra = Cassandra::shared();
    let keyspace = cassandra.keyspace("nulls");
    for (keys, left) in [("", json!("old")), ("nulls = 'null'", Value::Null)] {
        cassandra.execute(&[
            &format!("CREATE TABLE IF NOT EXISTS {keyspace}.t (id int PRIMARY KEY, x text, y text)"),
            &format!("INSERT INTO {keyspace}.t (id, x) VALUES (1, 'old')"),
        ]);
        let rows = [
            json!({ "id": 1, "x": null, "y": "new", "not in the table": 7 }),
            // A column that no row has a value of would be no column.
            json!({ "id": 2, "x": "two", "y": "new", "not in the table": 7 }),
        ];
        let mut daemon = into_table(cassandra, &keyspace, "t", &rows, keys);
        assert_eq!(run_once(&mut daemon), (Some(0), Vec::new()));
        assert_eq!(
            cassandra.query(&format!("SELECT * FROM {keyspace}.t WHERE id = 1")),
            [json!({ "id": 1, "x": left, "y": "new" })]
        );
    }
}

#[test]
fn counters_are_added_to() {
    let cassandra = Cassandra::shared();
    let keyspace = cassandra.keyspace("counters");
    cassandra.query(&format!("CREATE TABLE {keyspace}.t (word text PRIMARY KEY, n counter, m counter)"));
    let mut rows = vec![json!({ "w": "a", "n": 1, "m": 2 }); 1000];
    rows.push(json!({ "w": "b", "n": -5, "m": null }));
    let mut daemon = into_table(cassandra, &keyspace, "t", &rows, "columns = { word = 'w' }");
    assert_eq!(run_once(&mut daemon), (Some(0), Vec::new()));
    let mut left = cassandra.query(&format!("SELECT word, n, m FROM {keyspace}.t"));
    left.sort_by_key(|row| row["word"].to_string());
    assert_eq!(left, [json!({ "word": "a", "n": 1000, "m": 2000 }), json!({ "word": "b", "n": -5, "m": null })]);
}

#[test]
fn a_row_says_when_it_was_written_and_how_long_it_lives() {
    let cassandra = Cassandra::shared();
    let keyspace = cassandra.keyspace("using");
    cassandra.query(&format!("CREATE TABLE {keyspace}.t (id int PRIMARY KEY, n int)"));
    let rows = [
        json!({ "id": 1, "n": 1, "at": 2000, "keep": 1000 }),
        json!({ "id": 1, "n": 2, "at": 1000, "keep": 1000 }),
        json!({ "id": 2, "n": 3, "at": 3000, "keep": null }),
        json!({ "id": 3, "n": 4, "at": 1, "keep": -1 }),
    ];
    let mut daemon = into_table(cassandra, &keyspace, "t", &rows, "timestamp = 'at'\nttl = 'keep'");
    let (code, errors) = run_once(&mut daemon);
    assert_eq!((code, errors), (Some(3), vec!["the ttl must be from 0 to 630720000 seconds, but is -1".to_owned()]));
    let statement = format!("SELECT id, n, writetime(n) AS at, ttl(n) AS keep FROM {keyspace}.t");
    let mut left = cassandra.query(&statement);
    left.sort_by_key(|row| row["id"].as_i64());
    assert_eq!(left[1], json!({ "id": 2, "n": 3, "at": 3000, "keep": null }));
    let keep = left[0]["keep"].take().as_i64().unwrap();
    assert!((500..=1000).contains(&keep), "{keep}");
    assert_eq!((left.len(), &left[0]), (2, &json!({ "id": 1, "n": 1, "at": 2000, "keep": null })));
}

#[test]
fn keyspace_and_table_are_created() {
    let cassandra = Cassandra::shared();
    let keyspace = acequia_tests::servers::unique("Made");
    let rows = [json!({ "word": "a", "n": 1, "x": 0.5, "ok": true, "more": { "a": [1] } })];
    let keys = "create = true\nprimary_key = [['id', 'n'], 'x']\ncolumns = { id = 'word' }";
    let mut daemon = into_table(cassandra, &keyspace, "T", &rows, keys);
    assert_eq!(run_once(&mut daemon), (Some(0), Vec::new()));
    let all = format!("SELECT * FROM \"{keyspace}\".\"T\"");
    let expected = json!({ "id": "a", "word": "a", "n": 1, "x": 0.5, "ok": true, "more": "{\"a\":[1]}" });
    assert_eq!(cassandra.query(&all), [expected]);
    let types = cassandra.types(&all);
    assert_eq!((&types["n"], &types["x"], &types["ok"]), (&json!("bigint"), &json!("double"), &json!("boolean")));
}
