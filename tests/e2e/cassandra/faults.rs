//! Servers that are down, passwords that are wrong, tables that are missing or altered.

use acequia_tests::servers::{Cassandra, CassandraOptions, free_port};
use acequia_tests::{Daemon, wait_until};
use serde_json::json;

use super::{into_table, run_once};

/// A pipeline that counts without an end, into `keyspace.t`.
fn counting(address: &str, keyspace: &str, keys: &str) -> Daemon {
    let daemon = Daemon::new();
    daemon.pipeline(
        "p",
        &format!(
            "[source]\ntype = 'rate'\nrows_per_second = 2000\nrows = 20000\n\
             [[sink]]\ntype = 'cassandra'\nnodes = ['{address}']\nkeyspace = '{keyspace}'\ntable = 't'\n\
             columns = {{ id = 'value' }}\n{keys}\n\
             [errors.dead_letter]\ntype = 'file'\npath = 'OUT/dead.jsonl'\n\
             [delivery]\ncheckpoint_interval = '100ms'\n"
        ),
    );
    daemon
}

/// Start it and wait until it says something.
fn says(mut daemon: Daemon, expected: &str) {
    daemon.start();
    wait_until(expected, || daemon.stderr().contains(expected));
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn what_is_missing_is_said() {
    let cassandra = Cassandra::shared();
    let keyspace = cassandra.keyspace("missing");
    cassandra.query(&format!("CREATE TABLE {keyspace}.t (id int PRIMARY KEY)"));
    let rows = [json!({ "id": 1 })];
    for (keyspace, table, keys, message) in [
        (keyspace.as_str(), "nope", "", format!("there is no table `nope` in the keyspace `{keyspace}`")),
        (keyspace.as_str(), "T", "", "(there is `t`; names are case-sensitive here)".to_owned()),
        ("nope", "t", "", "there is no keyspace `nope`".to_owned()),
        (keyspace.as_str(), "t", "columns = { x = 'id' }", "has no such column; it has: id".to_owned()),
        (
            keyspace.as_str(),
            "t",
            "columns = { id = 'x' }",
            "the table's key column `id` gets no value: the rows have no column `x` (they have: id)".to_owned(),
        ),
    ] {
        says(into_table(cassandra, keyspace, table, &rows, keys), &message);
    }
    let port = free_port();
    says(
        counting(&format!("127.0.0.1:{port}"), "k", ""),
        &format!("can't connect to 127.0.0.1:{port}: Connection refused"),
    );
}

#[test]
fn users_are_asked_for_and_checked() {
    let cassandra = Cassandra::start_with(CassandraOptions { users: true, tls: true, ..CassandraOptions::default() });
    let keyspace = cassandra.keyspace("users");
    cassandra.query(&format!("CREATE TABLE {keyspace}.t (id bigint PRIMARY KEY)"));
    let ca = cassandra.certificate().display().to_string();
    let tls = format!("tls = {{ ca = '{ca}' }}\n");
    let rows = [json!({ "id": 1 })];
    let user = |password: &str| format!("{tls}username = 'cassandra'\npassword = '{password}'");
    says(into_table(&cassandra, &keyspace, "t", &rows, &tls), "asks for a user: set `username` and `password`");
    says(into_table(&cassandra, &keyspace, "t", &rows, &user("wrong")), "refuses the user `cassandra`");
    let mut daemon = into_table(&cassandra, &keyspace, "t", &rows, &user("cassandra"));
    assert_eq!(run_once(&mut daemon), (Some(0), Vec::new()));
    assert_eq!(cassandra.count(&format!("{keyspace}.t")), 1);
}

#[test]
fn a_column_that_is_added_while_rows_flow_is_filled() {
    let cassandra = Cassandra::shared();
    let keyspace = cassandra.keyspace("altered");
    cassandra.query(&format!("CREATE TABLE {keyspace}.t (id bigint PRIMARY KEY, timestamp timestamp)"));
    let mut daemon = counting(cassandra.address(), &keyspace, "");
    daemon.start();
    let table = format!("{keyspace}.t");
    wait_until("rows", || cassandra.count(&table) > 0);
    cassandra.query(&format!("ALTER TABLE {table} ADD value int"));
    let filled = || cassandra.query(&format!("SELECT count(value) AS n FROM {table}"))[0]["n"].as_i64() > Some(0);
    wait_until("the new column is filled", filled);
    wait_until("all rows are there", || cassandra.count(&table) == 20_000);
    assert_eq!(daemon.stop().code, Some(0));
    assert!(!daemon.out("dead.jsonl").exists() || acequia_tests::rows(&daemon.out("dead.jsonl")) == 0);
}

#[test]
fn a_server_that_goes_away_and_a_kill_lose_nothing() {
    let mut cassandra = Cassandra::start();
    let keyspace = cassandra.keyspace("away");
    let table = format!("{keyspace}.t");
    cassandra.query(&format!("CREATE TABLE {table} (id bigint PRIMARY KEY, timestamp timestamp)"));
    let mut daemon = counting(cassandra.address(), &keyspace, "");
    daemon.start();
    wait_until("rows", || cassandra.count(&table) > 0);
    cassandra.stop();
    wait_until("it is tried again", || daemon.stderr().contains("the sink will be tried again"));
    daemon.kill();
    daemon.start();
    wait_until("it can't connect", || daemon.stderr().contains("can't connect to"));
    cassandra.start_again();
    wait_until("all rows are there", || cassandra.count(&table) == 20_000);
    assert_eq!(daemon.stop().code, Some(0));
}
