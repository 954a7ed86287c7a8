//! Every type there and back.

use acequia_tests::servers::Cassandra;
use acequia_tests::{Daemon, json_lines};
use serde_json::{Value, json};

use super::{into_table, run_once};

const COLUMNS: &str = "a ascii, b boolean, d date, de decimal, dou double, du duration, f float, i int, bi bigint, \
                       ine inet, si smallint, ti tinyint, t time, ts timestamp, tu timeuuid, u uuid, v varint, \
                       l list<int>, s set<text>, m map<text, int>, fm frozen<map<int, text>>, tp tuple<int, text>, \
                       ud frozen<address>, vec vector<float, 3>";

/// A row with a value of each type, as the source must give it back.
fn whole() -> Value {
    json!({
        "id": 1, "c": "x", "a": "abc", "b": true, "d": "2020-04-13", "de": "-12.340", "dou": 0.1, "du": "1mo2d3h",
        "f": 1.5, "i": -2_147_483_648_i64, "bi": i64::MAX, "ine": "2001:db8::1", "si": 32767, "ti": -128,
        "t": "12:09:37.768982000", "ts": "2020-04-13T12:09:37.768000Z", "tu": "d06f5a2e-cf0e-11ec-9d64-0242ac120002",
        "u": "991f7575-c1c6-44a0-964c-a7d1afc244e7", "v": "-170141183460469231731687303715884105729",
        "l": [1, -2], "s": ["a", "b"], "m": { "a": 1 }, "fm": { "7": "seven" }, "tp": [1, null],
        "ud": { "street": "Main", "number": null, "tags": ["x"] }, "vec": [0.5, 1.0, -2.0],
    })
}

/// The table through our source into a file: its rows by their `id`.
fn read_back(cassandra: &Cassandra, keyspace: &str, keys: &str) -> Vec<Value> {
    let mut daemon = Daemon::new();
    let address = cassandra.address();
    daemon.pipeline(
        "back",
        &format!(
            "[source]\ntype = 'cassandra'\nnodes = ['{address}']\nkeyspace = '{keyspace}'\ntable = 't'\n{keys}\n\
             [[sink]]\ntype = 'file'\npath = 'OUT/back.jsonl'\n"
        ),
    );
    let exit = daemon.once();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let mut rows = json_lines(&daemon.out("back.jsonl"));
    rows.sort_by_key(|row| row["id"].as_i64());
    rows
}

#[test]
fn every_type_there_and_back() {
    let cassandra = Cassandra::shared();
    let keyspace = cassandra.keyspace("types");
    let columns = COLUMNS.replace("address", &format!("{keyspace}.address"));
    cassandra.execute(&[
        &format!("CREATE TYPE {keyspace}.address (street text, number int, tags frozen<list<text>>)"),
        &format!("CREATE TABLE {keyspace}.t (id int, c text, {columns}, PRIMARY KEY (id, c))"),
    ]);
    let rows = [whole(), json!({ "id": 2, "c": "nothing else" })];
    let mut daemon = into_table(cassandra, &keyspace, "t", &rows, "");
    assert_eq!(run_once(&mut daemon), (Some(0), Vec::new()));

    let theirs = cassandra.query(&format!("SELECT * FROM {keyspace}.t WHERE id = 1")).remove(0);
    for (column, value) in [
        ("i", json!(-2_147_483_648_i64)),
        ("de", json!("-12.340")),
        ("ts", json!("2020-04-13T12:09:37.768Z")),
        ("u", json!("991f7575-c1c6-44a0-964c-a7d1afc244e7")),
        ("s", json!(["a", "b"])),
        ("vec", json!([0.5, 1.0, -2.0])),
        ("ud", json!({ "street": "Main", "number": null, "tags": ["x"] })),
    ] {
        assert_eq!(theirs[column], value, "{column}");
    }

    let ours = read_back(cassandra, &keyspace, "");
    assert_eq!(ours.len(), 2);
    assert_eq!(ours[0], whole());
    let nothing = ours[1].as_object().unwrap();
    assert_eq!(nothing.values().filter(|value| !value.is_null()).count(), 2, "{nothing:?}");
    assert_eq!(read_back(cassandra, &keyspace, "columns = ['c', 'id']")[1], json!({ "c": "nothing else", "id": 2 }));
}

#[test]
fn values_that_do_not_fit_are_failed_rows() {
    let cassandra = Cassandra::shared();
    let keyspace = cassandra.keyspace("misfits");
    cassandra.query(&format!("CREATE TABLE {keyspace}.t (id int PRIMARY KEY, n smallint, u uuid, x text)"));
    let rows = [
        json!({ "key": 1, "n": 32768 }),
        json!({ "key": 2, "u": "no" }),
        json!({ "key": null, "n": 1 }),
        json!({ "key": 4, "n": 4 }),
        json!({ "key": 5, "n": 5, "x": "x".repeat(17_500_000) }),
        json!({ "key": 6, "n": 6, "x": "x".repeat(2_000_000) }),
    ];
    let mut daemon = into_table(cassandra, &keyspace, "t", &rows, "columns = { id = 'key' }");
    let (code, mut errors) = run_once(&mut daemon);
    errors.sort();
    assert_eq!(code, Some(3), "{errors:?}");
    let [too_large, key, n, u] = errors.as_slice() else { panic!("{errors:?}") };
    assert!(too_large.contains("too big") || too_large.contains("too large"), "{too_large}");
    assert_eq!(key, "column `id` (from `key`) is part of the table's key and can't be null (int)");
    assert_eq!(n, "column `n` has 32768, which does not fit smallint: it is beyond the range");
    assert_eq!(u, "column `u` has \"no\", which does not fit uuid");
    let mut left: Vec<_> =
        cassandra.query(&format!("SELECT id FROM {keyspace}.t")).iter().map(|row| row["id"].as_i64()).collect();
    left.sort_unstable();
    assert_eq!(left, [Some(4), Some(6)]);
}

#[test]
fn the_source_reads_each_row_once_across_kills() {
    let cassandra = Cassandra::shared();
    let keyspace = cassandra.keyspace("resume");
    // Wide partitions: many rows with the same token, over several pages.
    cassandra.query(&format!("CREATE TABLE {keyspace}.t (p int, c int, x text, PRIMARY KEY (p, c))"));
    let rows = (0..20_000).map(|n| vec![json!(n % 7), json!(n), json!(format!("x{n}"))]);
    cassandra.insert_each(&format!("INSERT INTO {keyspace}.t (p, c, x) VALUES (?, ?, ?)"), rows);
    let mut daemon = Daemon::new();
    let address = cassandra.address();
    daemon.pipeline(
        "back",
        &format!(
            "[source]\ntype = 'cassandra'\nnodes = ['{address}']\nkeyspace = '{keyspace}'\ntable = 't'\npage = 10\n\
             [[sink]]\ntype = 'file'\npath = 'OUT/back.jsonl'\n\
             [delivery]\ncheckpoint_interval = '20ms'\nbatch = {{ rows = 100 }}\n"
        ),
    );
    for enough in [500, 4000, 9000] {
        daemon.start();
        acequia_tests::wait_until("more rows", || {
            acequia_tests::rows(&daemon.out("back.jsonl")) > enough || !daemon.is_running()
        });
        daemon.kill();
    }
    let exit = daemon.once();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let mut read = acequia_tests::values_of(&daemon.out("back.jsonl"), "c");
    read.sort_unstable();
    assert!(read == (0..20_000).collect::<Vec<_>>(), "{} rows", read.len());
}
