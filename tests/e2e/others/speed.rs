//! What makes other tools slow: not how long something takes, but how often it is done, and what waits for it.

use acequia_tests::servers::{Cassandra, Gate, InfluxDb, Kafka, Verdict};
use acequia_tests::{Daemon, wait_until};

use super::{details, stage, table, to_bucket, to_table};

/// `rows` rows with the columns `n` and `at`.
fn rate(rate: &str, rows: u64, more: &str) -> String {
    format!(
        "[source]\ntype = \"rate\"\nrows_per_second = {rate}\nrows = {rows}\n[[transform]]\nplugin = \"select\"\n\
         config = {{ rename = {{ value = \"n\", timestamp = \"at\" }} }}\n{more}\n"
    )
}

/// Theirs: with acknowledgements throughput falls to a third or a quarter. Here they are one flush and one stored record for
/// each interval, however many batches that was, and rows go on while one is under way.
#[test]
fn vector_10291_confirming_is_not_done_batch_by_batch_and_nothing_waits_for_it() {
    let influxdb = InfluxDb::shared();
    let bucket = influxdb.bucket("confirm");
    let gate = Gate::before(influxdb, |_| Verdict::Hold);
    let mut daemon = Daemon::new();
    let delivery =
        |interval: &str| format!("[delivery]\ncheckpoint_interval = \"{interval}\"\nbatch = {{ rows = 100 }}\n");
    // A thousand batches, and only their end to confirm.
    daemon.pipeline(
        "many",
        &rate("\"max\"", 100_000, &format!("[[sink]]\ntype = \"file\"\npath = \"OUT/rows.jsonl\"\n{}", delivery("1h"))),
    );
    // The first checkpoint waits for its answer; twenty milliseconds hold a batch or two.
    let sink = to_bucket(gate.url(), &bucket, "");
    daemon.pipeline("held", &rate("5000", 2000, &format!("{sink}{}", delivery("20ms"))));
    daemon.start();
    let status = daemon.wait_state("many", "COMPLETED");
    assert_eq!(stage(&daemon, "many", "file").rows_out, 100_000);
    // One at the start and one at the end.
    assert!(status["acequia"]["checkpoint"]["number"].as_u64() <= Some(2), "{status}");
    wait_until("the first checkpoint waits", || !gate.written().is_empty());
    let first = gate.written()[0].lines() as u64;
    wait_until("rows go on behind it", || stage(&daemon, "held", "source").rows_out >= first + 500);
    assert!(details(&daemon, "held")["checkpoint"].is_null());
    gate.open();
    daemon.wait_state("held", "COMPLETED");
    assert_eq!(influxdb.count(&bucket, "m", "n"), 2000);
    assert_eq!(daemon.stop().code, Some(0));
}

/// Theirs: the client sends what it is given, and whoever wants batches has to write them.
#[test]
fn influxdb2_11_points_are_sent_in_batches_by_rows_by_bytes_and_by_time() {
    let influxdb = InfluxDb::shared();
    let gates = [(); 3].map(|()| (Gate::before(influxdb, |_| Verdict::Pass), influxdb.bucket("batches")));
    let batches = ["rows = 1000, wait = \"1h\"", "rows = 100000, bytes = \"10KiB\", wait = \"1h\"", "wait = \"50ms\""];
    let mut daemon = Daemon::new();
    for (number, ((gate, bucket), batch)) in gates.iter().zip(batches).enumerate() {
        let sink = to_bucket(gate.url(), bucket, &format!("batch = {{ {batch} }}\n"));
        // The last one never ends: what has come waits for its time and no flush.
        let (speed, rows) = if number == 2 { ("0.001", 10) } else { ("\"max\"", 10_000) };
        let delivery = "[delivery]\ncheckpoint_interval = \"1h\"\n";
        daemon.pipeline(&format!("p{number}"), &rate(speed, rows, &format!("{sink}{delivery}")));
    }
    daemon.start();
    for (number, (_, bucket)) in gates.iter().take(2).enumerate() {
        daemon.wait_state(&format!("p{number}"), "COMPLETED");
        assert_eq!(influxdb.count(bucket, "m", "n"), 10_000);
    }
    wait_until("one comes by itself", || gates[2].0.answered(204) == 1);
    let by_rows = gates[0].0.written();
    assert!(by_rows.len() == 10 && by_rows.iter().all(|written| written.lines() == 1000), "{} requests", by_rows.len());
    let by_bytes = gates[1].0.written();
    let (last, others) = by_bytes.split_last().unwrap();
    assert!(
        others.iter().all(|written| (10 << 10..11 << 10).contains(&written.body.len())),
        "{} requests",
        by_bytes.len()
    );
    assert!(last.body.len() < 11 << 10);
    assert_eq!(daemon.stop().code, Some(0));
}

/// Theirs: whoever waits for each message to be delivered is a hundred times slower. Here the client keeps each batch back for a
/// second: one after the other these would take an hour.
#[test]
fn rust_rdkafka_464_no_message_waits_for_the_one_before() {
    const ROWS: u64 = 5000;
    let kafka = Kafka::shared();
    let topic = kafka.topic("flight", 1);
    let sink = format!(
        "[[sink]]\ntype = \"kafka\"\nbrokers = [\"{}\"]\ntopic = \"{topic}\"\nproperties = {{ \"linger.ms\" = 1000 }}\n\
         [delivery]\ncheckpoint_interval = \"1h\"\nbatch = {{ rows = 500 }}\n",
        kafka.address()
    );
    let mut daemon = Daemon::new();
    daemon.pipeline("p", &rate("\"max\"", ROWS, &sink));
    let exit = daemon.once();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(kafka.end_offsets(&topic)[&0], i64::try_from(ROWS).unwrap());
}

/// Theirs: rows of many partitions in one batch make the node that gets it pass them on, and are slower than one by one. Here
/// each row goes by itself to the node that has it, by a statement that is prepared.
#[test]
fn scylla_738_rows_go_one_by_one_by_a_prepared_statement() {
    const ROWS: u64 = 5000;
    let cassandra = Cassandra::shared();
    let keyspace = table("prepared");
    // The whole node's: no other test may send batches either.
    let batches = || cassandra.query("SELECT * FROM system_views.batch_metrics");
    let before = batches();
    let mut daemon = Daemon::new();
    daemon.pipeline("p", &rate("\"max\"", ROWS, &to_table(&keyspace, "concurrency = 64\n")));
    let exit = daemon.once();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(cassandra.count(&format!("{keyspace}.t")), ROWS);
    assert_eq!(batches(), before);
    let prepared = cassandra.query("SELECT query_string FROM system.prepared_statements");
    let ours: Vec<_> = prepared
        .iter()
        .filter_map(|row| row["query_string"].as_str())
        .filter(|text| text.contains(&keyspace))
        .collect();
    assert!(ours.len() == 1 && ours[0].starts_with("INSERT"), "{ours:?}");
    // The node does count them.
    let one = format!("INSERT INTO {keyspace}.t (n) VALUES");
    cassandra.query(&format!("BEGIN UNLOGGED BATCH {one} (-1); {one} (-2); APPLY BATCH"));
    wait_until("a batch is counted", || batches() != before);
}
