//! Promises of `docs/guarantees.md`, with their conditions, that no other test holds.

use std::io::Write;
use std::net::TcpStream;

use acequia_tests::servers::{Cassandra, Kafka, free_port, unique};
use acequia_tests::{Daemon, eventually, json_lines, rows, values_of, wait_until};
use serde_json::json;

fn read(daemon: &Daemon, pipeline: &str) -> u64 {
    daemon.status(pipeline)["acequia"]["stages"][0]["rows_in"].as_u64().unwrap_or_default()
}

/// What a crash costs, and that a stop costs nothing: rows that no checkpoint has are in memory alone.
#[test]
fn lines_of_a_socket_are_lost_by_a_crash_and_by_nothing_else() {
    let port = free_port();
    let mut daemon = Daemon::new();
    daemon.pipeline(
        "p",
        &format!(
            "source = {{ type = \"socket\", address = \"127.0.0.1:{port}\", listen = true, format = \"json\" }}\n\
             sink = [{{ type = \"file\", path = \"OUT/rows.jsonl\" }}]\ndelivery = {{ checkpoint_interval = \"1h\" }}\n"
        ),
    );
    let send = |daemon: &mut Daemon, numbers: std::ops::Range<i64>| {
        daemon.start();
        // Before that, its counts are not those of its checkpoint yet.
        daemon.wait_state("p", "RUNNING");
        let before = read(daemon, "p");
        let mut client = eventually("the port", || TcpStream::connect(("127.0.0.1", port)).ok());
        for n in numbers.clone() {
            writeln!(client, "{{\"n\":{n}}}").unwrap();
        }
        wait_until("they are read", || read(daemon, "p") == before + numbers.clone().count() as u64);
        client
    };
    let client = send(&mut daemon, 0..1000);
    assert_eq!(daemon.stop().code, Some(0));
    drop(client);
    assert_eq!(rows(&daemon.out("rows.jsonl")), 1000);
    let client = send(&mut daemon, 1000..2000);
    daemon.wait_rows("rows.jsonl", 2000);
    daemon.kill();
    drop(client);
    let client = send(&mut daemon, 2000..3000);
    assert_eq!(daemon.stop().code, Some(0));
    drop(client);
    let left: Vec<i64> = (0..1000).chain(2000..3000).collect();
    assert_eq!(values_of(&daemon.out("rows.jsonl"), "n"), left);
}

#[test]
fn a_letter_is_there_once_however_often_the_daemon_is_killed() {
    const ROWS: usize = 60_000;
    let mut daemon = Daemon::new();
    let line =
        |n: usize| if n.is_multiple_of(100) { "{\"n\": broken\n".to_owned() } else { format!("{{\"n\":{n}}}\n") };
    daemon.file("in.jsonl", (1..=ROWS).map(line).collect::<String>());
    daemon.pipeline(
        "p",
        "source = { type = \"file\", path = \"DIR/in.jsonl\" }\nsink = [{ type = \"file\", path = \"OUT/rows.jsonl\" }]\n\
         delivery = { checkpoint_interval = \"5ms\", batch = { rows = 50 } }\n",
    );
    let letters = daemon.dead_letters("p");
    for _ in 0..4 {
        let before = rows(&letters);
        daemon.spawn(&["--once"]);
        wait_until("letters are written again, or all are there", || rows(&letters) != before || !daemon.is_running());
        daemon.kill();
    }
    assert_eq!(daemon.once().code, Some(3));
    let places: Vec<_> = json_lines(&letters).iter().map(|letter| letter["offset"].as_u64().unwrap()).collect();
    assert!(places.into_iter().eq((1..=ROWS as u64).filter(|n| n % 100 == 0)), "a letter is missing or comes twice");
    assert_eq!(rows(&daemon.out("rows.jsonl")), ROWS / 100 * 99);
}

/// The condition of "effectively once": the key is made from the row. A random one is another one each time.
#[test]
fn a_key_made_from_the_row_survives_a_replay() {
    const ROWS: u64 = 2000;
    let cassandra = Cassandra::shared();
    let keyspace = cassandra.keyspace("keys");
    let mut daemon = Daemon::new();
    let ids = [("named", "config = { from = [\"value\"] }"), ("random", "grants = { random = true }")];
    for (table, id) in ids {
        cassandra.query(&format!("CREATE TABLE {keyspace}.{table} (id text PRIMARY KEY, value bigint)"));
        daemon.pipeline(
            table,
            &format!(
                "source = {{ type = \"rate\", rows_per_second = \"max\", rows = {ROWS} }}\n\
                 transform = [{{ plugin = \"uuid\", {id} }}]\n\
                 sink = [{{ type = \"cassandra\", nodes = [\"{}\"], keyspace = \"{keyspace}\", table = \"{table}\" }}]\n\
                 delivery = {{ checkpoint_interval = \"1h\", batch = {{ rows = 100 }} }}\n",
                cassandra.address()
            ),
        );
    }
    let count = |table: &str| cassandra.count(&format!("{keyspace}.{table}"));
    daemon.start();
    for (table, _) in ids {
        daemon.wait_state(table, "COMPLETED");
        assert_eq!(count(table), ROWS);
    }
    daemon.kill();
    // What a crash before the first checkpoint leaves: the rows, and nothing that knows of them.
    std::fs::remove_file(daemon.folder().join("state/acequia.redb")).unwrap();
    daemon.start();
    for (table, _) in ids {
        daemon.wait_state(table, "COMPLETED");
    }
    assert_eq!((count("named"), count("random")), (ROWS, 2 * ROWS));
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn without_its_checkpoint_a_pipeline_begins_anew_and_a_group_goes_on() {
    let kafka = Kafka::shared();
    let (topic, group) = (kafka.topic("anew", 1), unique("anew"));
    let mut daemon = Daemon::new();
    daemon.file("in.txt", "a\na\na\n");
    daemon.pipeline(
        "topic",
        &format!(
            "source = {{ type = \"kafka\", brokers = [\"{}\"], topics = [\"{topic}\"], group = \"{group}\", until = \"end\" }}\n\
             sink = [{{ type = \"file\", path = \"OUT/topic.jsonl\" }}]\n",
            kafka.address()
        ),
    );
    daemon.pipeline(
        "file",
        "source = { type = \"file\", path = \"DIR/in.txt\", format = \"text\" }\ntransform = [{ plugin = \"word-count\" }]\n\
         sink = [{ type = \"file\", path = \"OUT/file.jsonl\" }]\n",
    );
    for life in 0..2 {
        kafka.produce(&topic, [format!("{{\"n\":{}}}", 2 * life), format!("{{\"n\":{}}}", 2 * life + 1)]);
        let exit = daemon.once();
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        std::fs::remove_dir_all(daemon.folder().join("state")).unwrap();
    }
    assert_eq!(values_of(&daemon.out("topic.jsonl"), "n"), [0, 1, 2, 3], "the group knows");
    // All rows again, after what was there, and the state with them.
    let totals = values_of(&daemon.out("file.jsonl"), "count");
    let half = totals.len() / 2;
    assert!(half > 0 && totals[..half] == totals[half..] && totals[half - 1] == 3, "{totals:?}");
}

#[test]
fn another_table_is_read_from_its_beginning() {
    let cassandra = Cassandra::shared();
    let keyspace = cassandra.keyspace("another");
    let mut daemon = Daemon::new();
    for (table, first) in [("one", 0), ("two", 100)] {
        cassandra.query(&format!("CREATE TABLE {keyspace}.{table} (n int PRIMARY KEY)"));
        let insert = format!("INSERT INTO {keyspace}.{table} (n) VALUES (?)");
        cassandra.insert_each(&insert, (first..first + 100).map(|n| vec![json!(n)]));
        daemon.pipeline(
            "p",
            &format!(
                "source = {{ type = \"cassandra\", nodes = [\"{}\"], keyspace = \"{keyspace}\", table = \"{table}\" }}\n\
                 sink = [{{ type = \"file\", path = \"OUT/rows.jsonl\" }}]\n",
                cassandra.address()
            ),
        );
        // Twice: the second time there is nothing left to do.
        for _ in 0..2 {
            let exit = daemon.once();
            assert_eq!(exit.code, Some(0), "{}", exit.stderr);
            assert_eq!(rows(&daemon.out("rows.jsonl")), first as usize + 100);
        }
    }
    let mut values = values_of(&daemon.out("rows.jsonl"), "n");
    values.sort_unstable();
    assert!(values.into_iter().eq(0..200));
}
