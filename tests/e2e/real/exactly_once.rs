//! Kafka to Kafka, each row once, with the daemon killed again and again.

use acequia_tests::servers::{Consume, Kafka, unique};
use acequia_tests::{Daemon, eventually, rows};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

use super::read_so_far;

const KILLS: u64 = 10;
/// Rows that are sent for each life of the daemon.
const CHUNK: u64 = 120_000;

fn pipeline(input: &str, output: &str) -> String {
    let (address, group) = (Kafka::shared().address(), unique("exactly-once"));
    format!(
        "[source]\ntype = \"kafka\"\nbrokers = [\"{address}\"]\ntopics = [\"{input}\"]\ngroup = \"{group}\"\nformat = \"json\"\nmetadata = []\n\n\
         [[transform]]\nplugin = \"even-filter\"\n\n\
         [[sink]]\ntype = \"kafka\"\nbrokers = [\"{address}\"]\ntopic = \"{output}\"\nformat = \"json\"\ndelivery = \"exactly_once\"\n\n\
         [delivery]\ncheckpoint_interval = \"50ms\"\nbatch = {{ rows = 200 }}\n"
    )
}

/// What a reader sees who leaves out what was not committed.
fn committed(topic: &str) -> Vec<u64> {
    let values = Kafka::shared().values(topic, &Consume::default());
    values
        .iter()
        .map(|value| serde_json::from_str::<serde_json::Value>(value).unwrap()["value"].as_u64().unwrap())
        .collect()
}

// invariants 2 and 4
#[test]
fn every_even_row_is_in_the_topic_once_and_in_order() {
    let kafka = Kafka::shared();
    let (input, output) = (kafka.topic("once-in", 1), kafka.topic("once-out", 1));
    let mut daemon = Daemon::new();
    daemon.pipeline("copy", &pipeline(&input, &output));
    let mut random = StdRng::seed_from_u64(4);
    let mut lives = Vec::new();
    for life in 0..=KILLS {
        kafka.produce(&input, (life * CHUNK..(life + 1) * CHUNK).map(|value| format!("{{\"value\":{value}}}")));
        daemon.start();
        if life == KILLS {
            break;
        }
        // Somewhere in this life's rows; in every fourth one before it has read any.
        let target = life * CHUNK + random.random_range(0..CHUNK / 3);
        eventually("some rows are read", || {
            let seen = read_so_far(&daemon, "copy");
            (life % 4 == 3 || seen >= target).then_some(())
        });
        std::thread::sleep(Duration::from_millis(random.random_range(0..10)));
        lives.push(read_so_far(&daemon, "copy"));
        daemon.kill();
    }
    let all = (KILLS + 1) * CHUNK;
    // Status counts are part of the checkpoint, so they end at exactly all rows.
    eventually("the last row is confirmed", || {
        let status = daemon.status("copy");
        let stages = status["acequia"]["stages"].as_array()?.clone();
        (stages.first()?["rows_out"] == all && stages.last()?["rows_out"] == 0).then_some(())
    });
    assert_eq!(daemon.stop().code, Some(0));
    assert_eq!(rows(&daemon.dead_letters("copy")), 0);
    println!("{KILLS} kills after {lives:?} rows read, of {CHUNK} more each");
    let found = committed(&output);
    assert_eq!(found.len() as u64, all / 2);
    assert!(found.iter().copied().eq((0..all).step_by(2)), "once each, and in order");
}
