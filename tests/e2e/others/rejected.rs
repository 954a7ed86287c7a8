//! Points that InfluxDB does not take: what can never be written, what can later, and what only looks as if it were.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use acequia_connector_api::format_timestamp;
use acequia_tests::servers::{Gate, InfluxDb, Verdict};
use acequia_tests::{Daemon, json_lines, wait_until};

use super::{details, numbered, stage, to_bucket};

/// From `in.jsonl` to the end.
const FILE: &str =
    "[source]\ntype = \"file\"\npath = \"DIR/in.jsonl\"\nschema = { n = \"int64\", at = \"timestamp\" }\n";

/// The places of the dead letters.
fn dead(daemon: &Daemon, pipeline: &str) -> Vec<i64> {
    let letters = json_lines(&daemon.dead_letters(pipeline));
    let mut places: Vec<_> = letters.iter().map(|letter| letter["offset"].as_i64().unwrap()).collect();
    places.sort_unstable();
    places
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.map(|line| line + "\n").collect()
}

/// Theirs: one point whose field has another type than it had before, and nothing was written any more, to no bucket.
#[test]
fn telegraf_11005_one_bad_point_keeps_no_other_from_any_bucket() {
    let influxdb = InfluxDb::shared();
    let (bucket, other) = (influxdb.bucket("conflict"), influxdb.bucket("other"));
    influxdb.write(&bucket, "us", "odd n=\"text\" 1767225600000000");
    let mut daemon = Daemon::new();
    let row = |n: u64| {
        let m = if n == 5 { "odd" } else { "m" };
        format!("{{\"n\":{n},\"m\":\"{m}\",\"at\":\"2026-01-01T00:00:00.{n:06}Z\"}}")
    };
    daemon.file("in.jsonl", lines((0..10).map(row)));
    let by_column = to_bucket(influxdb.url(), &bucket, "").replace("measurement = \"m\"", "measurement_column = \"m\"");
    daemon.pipeline("p", &format!("{}{by_column}", FILE.replace("n = ", "m = \"text\", n = ")));
    daemon.pipeline("other", &format!("{FILE}{}", to_bucket(influxdb.url(), &other, "")));
    let exit = daemon.once();
    assert_eq!(exit.code, Some(3), "{}", exit.stderr);
    assert_eq!((influxdb.count(&bucket, "m", "n"), influxdb.count(&other, "m", "n")), (9, 10));
    assert_eq!((dead(&daemon, "p"), dead(&daemon, "other")), (vec![6], vec![]));
}

/// Theirs: points older than the bucket keeps were offered to the server for ever, and new ones piled up behind them.
#[test]
fn telegraf_8571_what_can_never_be_written_is_not_tried_for_ever() {
    let influxdb = InfluxDb::shared();
    let bucket = influxdb.bucket_for("retention", Duration::from_secs(3600));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    let now = i64::try_from(now).unwrap();
    let row = |n: i64| {
        let at = if n % 2 == 0 { n } else { now + n };
        format!("{{\"n\":{n},\"at\":\"{}\"}}", format_timestamp(at))
    };
    let mut daemon = Daemon::new();
    daemon.file("in.jsonl", lines((0..20).map(row)));
    daemon.pipeline("p", &format!("{FILE}{}", to_bucket(influxdb.url(), &bucket, "")));
    daemon.start();
    let status = daemon.wait_state("p", "COMPLETED");
    assert_eq!(influxdb.count(&bucket, "m", "n"), 10);
    assert_eq!(dead(&daemon, "p"), (0..10).map(|n| 2 * n + 1).collect::<Vec<_>>());
    assert_eq!((&status["acequia"]["restarts"], &status["acequia"]["stages"][1]["retries"]), (&0.into(), &0.into()));
    assert_eq!(daemon.stop().code, Some(0));
}

/// Theirs: a 400 that is not InfluxDB's own (a proxy's, a wrong path) was logged as `Wrote batch`, and the points were gone.
#[test]
fn telegraf_16386_a_bad_request_is_no_success_and_loses_nothing() {
    let influxdb = InfluxDb::shared();
    let bucket = influxdb.bucket("request");
    let gate = Gate::before(influxdb, |_| Verdict::Refuse(400, "<html>no such page</html>"));
    let mut daemon = Daemon::new();
    daemon.file("in.jsonl", lines(numbered(0..10)));
    daemon.pipeline("p", &format!("{FILE}{}", to_bucket(gate.url(), &bucket, "")));
    daemon.start();
    wait_until("it is refused again and again", || gate.answered(400) >= 3);
    let status = details(&daemon, "p");
    assert!(status["first_error"]["message"].as_str().unwrap().contains("no such page"), "{status}");
    let sink = stage(&daemon, "p", "influxdb");
    assert_eq!((sink.rows_out, sink.dead, dead(&daemon, "p").len()), (0, 0, 0), "{sink:?}");
    gate.open();
    daemon.wait_state("p", "COMPLETED");
    assert_eq!((influxdb.count(&bucket, "m", "n"), dead(&daemon, "p").len()), (10, 0));
    assert_eq!(daemon.stop().code, Some(0));
}
