//! Rows that were lost, or came to count before they were written.

use acequia_tests::servers::{Cassandra, Gate, InfluxDb, Kafka, Verdict, unique};
use acequia_tests::{Daemon, json_lines, wait_until};

use super::{committed, details, from_topic, numbered, table, to_bucket, to_table};

/// Theirs: what a sink's `consume` returned was thrown away, and the offset was committed when the rows were polled.
#[test]
fn iggy_2927_2928_an_offset_is_committed_once_the_sink_has_written() {
    let (kafka, influxdb) = (Kafka::shared(), InfluxDb::shared());
    let (topic, group, bucket) = (kafka.topic("iggy", 1), unique("iggy"), influxdb.bucket("iggy"));
    let gate = Gate::before(influxdb, |_| Verdict::Refuse(503, "busy"));
    let mut daemon = Daemon::new();
    daemon.pipeline("p", &format!("{}{}", from_topic(&topic, &group, ""), to_bucket(gate.url(), &bucket, "")));
    kafka.produce(&topic, numbered(0..100));
    daemon.start();
    wait_until("the rows are refused again and again", || gate.answered(503) >= 3);
    assert_eq!(committed(&group), 0);
    daemon.kill();
    gate.open();
    daemon.start();
    wait_until("every row is there", || influxdb.count(&bucket, "m", "n") == 100);
    wait_until("now they are committed", || committed(&group) == 100);
    assert_eq!(daemon.stop().code, Some(0));
}

/// Theirs: record N could not be delivered, N+1 was filtered out and N+2 delivered, and so N+2 was committed.
#[test]
fn vector_24215_no_offset_is_committed_past_a_record_that_waits() {
    let (kafka, influxdb) = (Kafka::shared(), InfluxDb::shared());
    let (topic, group, bucket) = (kafka.topic("vector", 1), unique("vector"), influxdb.bucket("vector"));
    let gate = Gate::before(influxdb, |body| match body.contains(" n=4i ") {
        true => Verdict::Refuse(503, "busy"),
        false => Verdict::Pass,
    });
    let transform = "[[transform]]\nplugin = \"even-filter\"\nconfig = { column = \"n\" }\n";
    let sink = to_bucket(gate.url(), &bucket, "batch = { rows = 1 }\nconcurrency = 4\n");
    let mut daemon = Daemon::new();
    daemon.pipeline("p", &format!("{}{transform}{sink}", from_topic(&topic, &group, "")));
    daemon.start();
    kafka.produce(&topic, numbered(0..4));
    wait_until("the first ones are committed", || committed(&group) == 4);
    kafka.produce(&topic, numbered(4..20));
    let later = || gate.written().iter().any(|written| written.status == Some(204) && written.body.contains(" n=6i "));
    wait_until("a later one is written, and this one refused", || later() && gate.answered(503) >= 3);
    assert_eq!(committed(&group), 4);
    gate.open();
    wait_until("all are committed", || committed(&group) == 20);
    assert_eq!(influxdb.count(&bucket, "m", "n"), 10);
    assert_eq!(daemon.stop().code, Some(0));
}

/// Theirs: one record of a batch could not be written, the task failed, and when it was started again it went on after that
/// record.
#[test]
fn kafka_connect_bigquery_68_a_record_that_stopped_the_pipeline_is_not_skipped_by_a_restart() {
    let (kafka, cassandra) = (Kafka::shared(), Cassandra::shared());
    let (topic, group, keyspace) = (kafka.topic("bigquery", 1), unique("bigquery"), table("bigquery"));
    let text = format!("{}{}", from_topic(&topic, &group, ""), to_table(&keyspace, ""));
    let mut daemon = Daemon::new();
    daemon.pipeline("p", &format!("{text}[errors]\non_error = \"stop\"\n"));
    // No number of 32 bits.
    let row = |n: u64| if n == 20 { "{\"n\":3000000000}".to_owned() } else { numbered(n..n + 1).collect() };
    kafka.produce(&topic, (0..50).map(row));
    for _ in 0..2 {
        daemon.start();
        let status = daemon.wait_state("p", "STOPPED");
        assert!(status.to_string().contains("3000000000"), "{status}");
        assert!(committed(&group) <= 20, "{}", committed(&group));
        assert_eq!(daemon.stop().code, Some(0));
    }
    daemon.pipeline("p", &text);
    daemon.start();
    wait_until("the others are there", || cassandra.count(&format!("{keyspace}.t")) == 49);
    wait_until("all are committed", || committed(&group) == 50);
    let letters = json_lines(&daemon.dead_letters("p"));
    assert_eq!((letters.len(), letters[0]["offset"].as_i64()), (1, Some(20)), "{letters:?}");
    assert_eq!(daemon.stop().code, Some(0));
}

/// Theirs: a record that can't be read, or can't be written, kills the task; started again it reads the same record again.
#[test]
fn stream_reactor_610_kafka_connect_elasticsearch_157_a_bad_record_costs_only_itself() {
    let (kafka, cassandra) = (Kafka::shared(), Cassandra::shared());
    let (topic, group, keyspace) = (kafka.topic("reactor", 1), unique("reactor"), table("reactor"));
    let mut daemon = Daemon::new();
    daemon.pipeline("p", &format!("{}{}", from_topic(&topic, &group, ""), to_table(&keyspace, "")));
    let row = |n: u64| match n {
        5 => "{\"n\": broken".to_owned(),
        7 => "{\"n\":3000000000}".to_owned(),
        n => numbered(n..n + 1).collect(),
    };
    kafka.produce(&topic, (0..10).map(row));
    daemon.start();
    let rows = || cassandra.count(&format!("{keyspace}.t"));
    wait_until("the good ones are there", || rows() == 8);
    kafka.produce(&topic, numbered(10..15));
    wait_until("later ones come too", || rows() == 13 && committed(&group) == 15);
    let status = details(&daemon, "p");
    assert_eq!((&status["state"], &status["restarts"]), (&"RUNNING".into(), &0.into()), "{status}");
    // Nor does it meet them again.
    assert_eq!(daemon.stop().code, Some(0));
    daemon.start();
    kafka.produce(&topic, numbered(15..16));
    wait_until("it goes on", || rows() == 14);
    let mut places: Vec<_> =
        json_lines(&daemon.dead_letters("p")).iter().map(|letter| letter["offset"].as_i64()).collect();
    places.sort_unstable();
    assert_eq!(places, [Some(5), Some(7)]);
    assert_eq!(daemon.stop().code, Some(0));
}
