//! What a daemon takes that reads from Kafka and writes to a file, to Cassandra and to InfluxDB, all at once.

use std::path::Path;
use std::time::{Duration, Instant};

use acequia_tests::servers::{Cassandra, InfluxDb, Kafka};
use anyhow::{Context as _, Result, ensure};

use super::{SCHEMA, TOPIC, lines, source, topics};
use crate::daemon::{Daemon, Memory};

/// Rows in the topic; each pipeline reads all of them.
const ROWS: u64 = 100_000;
/// How long they may take to arrive.
const PATIENCE: Duration = Duration::from_secs(120);
/// After how long without a row the memory is looked at once more.
const REST: Duration = Duration::from_secs(30);

/// The daemon's memory when all rows have arrived, and half a minute later, in each of some runs.
pub(crate) fn measure(daemon: &Daemon, runs: usize) -> Result<Vec<[Memory; 2]>> {
    let (kafka, cassandra, influxdb) = (Kafka::start(), Cassandra::start(), InfluxDb::start());
    kafka.create_topic(TOPIC, 1, &[]);
    topics::fill(kafka.address(), TOPIC, ROWS).context("the topic can't be filled")?;
    cassandra.query("CREATE KEYSPACE bench WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}");
    (0..runs).map(|run| one(daemon, &kafka, &cassandra, &influxdb, run)).collect()
}

fn one(daemon: &Daemon, kafka: &Kafka, cassandra: &Cassandra, influxdb: &InfluxDb, run: usize) -> Result<[Memory; 2]> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let (configs, state) = (folder.path().join("pipelines"), folder.path().join("state"));
    std::fs::create_dir(&configs)?;
    let table = format!("bench.run{run}");
    cassandra.query(&format!(
        "CREATE TABLE {table} (value bigint PRIMARY KEY, sensor text, time timestamp, temperature double, active boolean)"
    ));
    let bucket = format!("run{run}");
    influxdb.create_bucket(&bucket);
    let sinks = [
        ("file", "[[sink]]\ntype = \"file\"\npath = \"../out.jsonl\"\n".to_owned()),
        (
            "cassandra",
            format!(
                "{SCHEMA}[[sink]]\ntype = \"cassandra\"\nnodes = [\"{}\"]\nkeyspace = \"bench\"\ntable = \"run{run}\"\n",
                cassandra.address()
            ),
        ),
        (
            "influxdb",
            format!(
                "{SCHEMA}[[sink]]\ntype = \"influxdb\"\nurl = \"{}\"\norg = \"{}\"\nbucket = \"{bucket}\"\ntoken = \"{}\"\n\
                 measurement = \"bench\"\ntags = [\"sensor\"]\ntime = \"time\"\n",
                influxdb.url(),
                influxdb.org(),
                influxdb.token()
            ),
        ),
    ];
    for (name, sink) in sinks {
        let text = source(kafka.address(), &format!("{name}-{run}"), "") + &sink;
        std::fs::write(configs.join(format!("{name}.toml")), text)?;
    }
    let running = daemon.run(&configs, &state, &["--listen", "127.0.0.1:0"], false)?;
    let output = folder.path().join("out.jsonl");
    arrive("the file", || count(&output))?;
    arrive("Cassandra", || Ok(cassandra.count(&table)))?;
    arrive("InfluxDB", || Ok(influxdb.count(&bucket, "bench", "value")))?;
    let arrived = running.memory()?;
    std::thread::sleep(REST);
    let rested = running.memory()?;
    running.stop()?;
    Ok([arrived, rested])
}

fn count(path: &Path) -> Result<u64> {
    if path.exists() { lines(path) } else { Ok(0) }
}

/// Wait until all rows are there.
fn arrive(place: &str, count: impl Fn() -> Result<u64>) -> Result<()> {
    let begin = Instant::now();
    loop {
        let found = count()?;
        if found == ROWS {
            return Ok(());
        }
        ensure!(begin.elapsed() < PATIENCE, "{found} rows of {ROWS} have arrived in {place} after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
