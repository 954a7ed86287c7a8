//! Several daemons with the same pipelines share a topic's partitions.

use std::collections::BTreeMap;

use acequia_tests::servers::{Cassandra, InfluxDb, Kafka, Produce, unique};
use acequia_tests::{Daemon, Proxy, Weather, eventually, eventually_or, json_lines, rows, wait_until};

use super::read_so_far;

const PARTITIONS: u32 = 6;
const CHUNK: u64 = 30_000;

/// Send the next rows, with keys, so that each partition gets some.
fn send(topic: &str, chunk: u64) {
    let how = Produce { key_separator: Some("=".to_owned()), ..Produce::default() };
    let rows = (chunk * CHUNK..(chunk + 1) * CHUNK).map(|value| format!("{value}={{\"value\":{value}}}"));
    Kafka::shared().produce_with(topic, &how, rows);
}

fn source(topic: &str, group: &str) -> String {
    let address = Kafka::shared().address();
    format!(
        "[source]\ntype = \"kafka\"\nbrokers = [\"{address}\"]\ntopics = [\"{topic}\"]\ngroup = \"{group}\"\nformat = \"json\"\n\
         metadata = [\"partition\", \"offset\"]\n\n\
         # A member that was killed is out of the group soon.\n\
         [source.properties]\n\"session.timeout.ms\" = 6000\n\n\
         [delivery]\ncheckpoint_interval = \"200ms\"\nbatch = {{ rows = 500 }}\n\n"
    )
}

/// Wait until the group has confirmed all that is in the topic. Returns how many rows that are.
#[track_caller]
fn wait_confirmed(topic: &str, group: &str) -> u64 {
    let ends = Kafka::shared().end_offsets(topic);
    let sent = ends.values().sum::<i64>();
    eventually_or(|| {
        let offsets = Kafka::shared().group_offsets(group);
        let confirmed = offsets.values().sum::<i64>();
        if confirmed == sent { Ok(()) } else { Err(format!("the group has {offsets:?} of {ends:?}")) }
    });
    u64::try_from(sent).unwrap()
}

/// Which partitions a group's members have now, by what status says they have read since they started.
fn has_read(daemon: &Daemon, name: &str) -> bool {
    read_so_far(daemon, name) > 0
}

/// One of two is killed and comes back, and a third one comes: no row is missing, and where the key is natural none is there
/// twice.
// invariants 1 and 4
#[test]
fn no_row_is_missing_when_one_is_killed_and_another_comes() {
    let (kafka, cassandra) = (Kafka::shared(), Cassandra::shared());
    let topic = kafka.topic("shared", PARTITIONS);
    let (group, keyspace) = (unique("shared"), cassandra.keyspace("shared"));
    cassandra.query(&format!("CREATE TABLE {keyspace}.rows (value bigint PRIMARY KEY, partition int, offset bigint)"));
    let text = format!(
        "{}[[sink]]\ntype = \"cassandra\"\nnodes = [\"{}\"]\nkeyspace = \"{keyspace}\"\ntable = \"rows\"\n",
        source(&topic, &group),
        cassandra.address()
    );
    let daemon = || {
        let mut daemon = Daemon::new();
        daemon.pipeline("shared", &text);
        daemon.start();
        daemon
    };
    send(&topic, 0);
    let mut first = daemon();
    let second = daemon();
    send(&topic, 1);
    wait_until("both have a share", || has_read(&first, "shared") && has_read(&second, "shared"));
    send(&topic, 2);
    first.kill();
    // The second one gets all partitions, once the first is given up.
    send(&topic, 3);
    first.start();
    let third = daemon();
    wait_until("the third has a share too", || {
        send(&topic, 4);
        has_read(&third, "shared")
    });
    wait_confirmed(&topic, &group);
    let rows = 5 * CHUNK;
    let query = format!("SELECT count(*) AS rows, sum(value) AS total FROM {keyspace}.rows");
    let found = cassandra.query(&query).remove(0);
    assert_eq!((found["rows"].as_u64(), found["total"].as_u64()), (Some(rows), Some(rows * (rows - 1) / 2)), "{found}");
    for mut daemon in [first, second, third] {
        assert_eq!(daemon.stop().code, Some(0));
    }
}

/// Daemons come and go in good order: a partition is confirmed to its last row before it changes hands, so each row is
/// written once, though the sink is a plain file.
// invariants 1 and 2
#[test]
fn a_partition_changes_hands_without_a_row_twice() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("handed", PARTITIONS);
    let group = unique("handed");
    let text = format!("{}[[sink]]\ntype = \"file\"\npath = \"OUT/rows.jsonl\"\n", source(&topic, &group));
    let daemon = || {
        let mut daemon = Daemon::new();
        daemon.pipeline("handed", &text);
        daemon.start();
        daemon
    };
    let mut chunk = 0;
    let mut send_next = || {
        send(&topic, chunk);
        chunk += 1;
    };
    let mut all = vec![daemon()];
    send_next();
    for _ in 0..3 {
        let new = daemon();
        eventually("the new one has a share", || {
            send_next();
            has_read(&new, "handed").then_some(())
        });
        all.push(new);
    }
    // The first one goes, in the middle of the next rows.
    send_next();
    assert_eq!(all[0].stop().code, Some(0));
    send_next();
    let sent = wait_confirmed(&topic, &group);
    for daemon in &mut all[1..] {
        assert_eq!(daemon.stop().code, Some(0));
    }
    let mut times: BTreeMap<u64, u64> = BTreeMap::new();
    for daemon in &all {
        let mut last: BTreeMap<i64, i64> = BTreeMap::new();
        for row in json_lines(&daemon.out("rows.jsonl")) {
            *times.entry(row["value"].as_u64().unwrap()).or_default() += 1;
            let (partition, offset) = (row["partition"].as_i64().unwrap(), row["offset"].as_i64().unwrap());
            let before = last.insert(partition, offset);
            assert!(before.is_none_or(|before| before < offset), "in order within a partition: {row} after {before:?}");
        }
    }
    let twice = times.values().filter(|times| **times > 1).count();
    assert_eq!((times.len() as u64, twice), (sent, 0), "rows, and how many of them came more than once");
}

/// A sink that is stuck for long has the partitions paused. Some of them go meanwhile, and come back: they are read on.
// invariant 1
#[test]
fn partitions_that_went_while_they_were_paused_are_read_when_they_are_back() {
    let (kafka, influxdb) = (Kafka::shared(), InfluxDb::shared());
    let topic = kafka.topic("paused", PARTITIONS);
    let (group, bucket) = (unique("paused"), influxdb.bucket("paused"));
    let proxy = Proxy::to(influxdb.url().trim_start_matches("http://"));
    let (mut stuck, mut other) = (Daemon::new(), Daemon::new());
    let sink = format!(
        "[[sink]]\ntype = \"influxdb\"\nurl = \"http://{}\"\norg = \"{}\"\ntoken = \"{}\"\nbucket = \"{bucket}\"\n\
         measurement = \"m\"\nfields = [\"value\"]\ntime_of_writing = true\n",
        proxy.address(),
        influxdb.org(),
        influxdb.token()
    );
    stuck.pipeline("paused", &format!("{}{sink}", source(&topic, &group)));
    other.pipeline(
        "paused",
        &format!("{}[[sink]]\ntype = \"file\"\npath = \"OUT/rows.jsonl\"\n", source(&topic, &group)),
    );
    stuck.start();
    send(&topic, 0);
    wait_confirmed(&topic, &group);
    proxy.set(Weather::Silent);
    // More than is in flight at once.
    send(&topic, 1);
    other.start();
    // Until it has them paused it does not hear that some are to go.
    wait_until("some are to go", || stuck.stderr().contains("partitions revoked"));
    proxy.set(Weather::Fair);
    // Those that went can only come from the other one.
    wait_confirmed(&topic, &group);
    send(&topic, 2);
    wait_confirmed(&topic, &group);
    assert_eq!(other.stop().code, Some(0));
    send(&topic, 3);
    wait_confirmed(&topic, &group);
    let written = rows(&other.out("rows.jsonl")) as u64;
    assert!(written > 0, "the other one had some");
    assert_eq!(read_so_far(&stuck, "paused") + written, 4 * CHUNK, "each row once");
    assert_eq!(stuck.stop().code, Some(0));
}
