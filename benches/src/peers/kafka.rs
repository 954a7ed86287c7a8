//! A topic of JSON rows, the even ones into a file: Kafka Connect and Bento.
//!
//! The others do not end by themselves, so a run is measured from the start of the process until the last row is in the
//! file, and then it is killed: their stopping is not counted.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use acequia_tests::servers::{Kafka, free_port};
use anyhow::{Context as _, Result, ensure};

use super::arrival::{self, Arrival};
use super::installed::Installed;
use super::{Comparison, Contestant, Figures};
use crate::daemon::{Daemon, Running, Usage, start};
use crate::servers::{TOPIC, fill, source};

/// What every contestant needs.
struct Scene<'a> {
    daemon: &'a Daemon,
    installed: Installed,
    broker: String,
    folder: &'a Path,
    rows: u64,
}

/// What a contestant has to have written.
struct Expected {
    /// Every row, or every second one.
    step: u64,
    /// In the order of the topic. Bento keeps it only with one batch on its way at a time, which makes it slower.
    ordered: bool,
}

/// A worker's settings but for its own files: a consumer that asks for much at once, as one would for throughput.
const CONSUMER: &str = "consumer.max.poll.records=10000
consumer.fetch.min.bytes=100000
consumer.fetch.max.bytes=52428800
consumer.max.partition.fetch.bytes=10485760
consumer.receive.buffer.bytes=1048576
";

/// The heap that the scripts of Kafka's distribution give Kafka Connect, and a small one: with 128 MiB it does not start.
const USUAL_HEAP: [&str; 2] = ["-Xms256M", "-Xmx2G"];
const SMALL_HEAP: [&str; 2] = ["-Xms256M", "-Xmx256M"];

/// What else they start Java with.
const JAVA: [&str; 5] = [
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];

/// Every value parsed, and one field of it dropped.
const PARSED: &str = "value.converter=org.apache.kafka.connect.json.JsonConverter
value.converter.schemas.enable=false
transforms=one
transforms.one.type=org.apache.kafka.connect.transforms.ReplaceField$Value
transforms.one.exclude=active
";

/// Every value as text, past a filter of the one kind that there is: by topic, header or whether there is a value at all.
const TEXT: &str = "value.converter=org.apache.kafka.connect.storage.StringConverter
transforms=one
transforms.one.type=org.apache.kafka.connect.transforms.Filter
transforms.one.predicate=empty
predicates=empty
predicates.empty.type=org.apache.kafka.connect.transforms.predicates.RecordIsTombstone
";

pub(super) fn compare(daemon: &Daemon, rows: u64, rounds: usize) -> Result<Comparison> {
    let installed = Installed::find()?;
    let kafka = Kafka::start();
    kafka.create_topic(TOPIC, 1, &[]);
    fill(kafka.address(), TOPIC, rows).context("the topic can't be filled")?;
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let scene = Scene { daemon, installed, broker: kafka.address().to_owned(), folder: folder.path(), rows };
    let contestants = vec![
        Contestant { name: "Acequia: even-filter", run: Box::new(|round| scene.acequia(round)) },
        Contestant {
            name: "Kafka Connect: JsonConverter, ReplaceField",
            run: Box::new(|round| scene.connect("parsed", round, USUAL_HEAP, PARSED)),
        },
        Contestant {
            name: "Kafka Connect: StringConverter, Filter",
            run: Box::new(|round| scene.connect("text", round, USUAL_HEAP, TEXT)),
        },
        Contestant {
            name: "the same, a heap of 256 MiB",
            run: Box::new(|round| scene.connect("small", round, SMALL_HEAP, TEXT)),
        },
        Contestant { name: "Bento: batches to the end", run: Box::new(|round| scene.bento("batches", round, BATCHES)) },
        Contestant { name: "Bento: a write for each row", run: Box::new(|round| scene.bento("rows", round, "")) },
    ];
    super::in_turns(contestants, rounds).map(|results| Comparison {
        name: "peers: kafka",
        about: format!(
            "{rows} JSON rows of about 108 bytes from a topic of one partition, the even ones into a file. From the start of the process until \
             the last row is in the file, and, without the start, from the first row in the file to the last. Kafka Connect has no transform that could \
             filter by a value: it writes all rows, after a transform that drops a field, or a filter that all pass."
        ),
        results,
    })
}

impl Scene<'_> {
    fn acequia(&self, round: usize) -> Result<Figures> {
        let (file, output, state) = (self.folder.join("even.toml"), self.output("even"), self.folder.join("state"));
        let rest = "[[transform]]\nplugin = \"even-filter\"\n\n[[sink]]\ntype = \"file\"\npath = \"even.out\"\n";
        std::fs::write(
            &file,
            format!("{}{rest}", source(&self.broker, &format!("even-{round}"), "until = \"end\"\n")),
        )?;
        // From the first row on; the compiled code stays.
        let _ = std::fs::remove_file(state.join("acequia.redb"));
        let began = SystemTime::now();
        let running = self.daemon.run(&file, &state, &["--once"], false)?;
        self.finish(running, began, &output, &Expected { step: 2, ordered: true }, Running::wait)
    }

    /// A worker with one connector. What is in `more` is the connector's.
    fn connect(&self, name: &str, round: usize, heap: [&str; 2], more: &str) -> Result<Figures> {
        let (worker, connector) = (self.folder.join("worker.properties"), self.folder.join("sink.properties"));
        let (output, offsets) = (self.output(name), self.folder.join("offsets"));
        std::fs::write(
            &worker,
            format!(
                "bootstrap.servers={}\nlisteners=http://127.0.0.1:{}\noffset.storage.file.filename={}\n\
                 key.converter=org.apache.kafka.connect.storage.StringConverter\n\
                 value.converter=org.apache.kafka.connect.storage.StringConverter\n{CONSUMER}",
                self.broker,
                free_port(),
                offsets.display()
            ),
        )?;
        std::fs::write(
            &connector,
            format!(
                "name={name}-{round}\nconnector.class=org.apache.kafka.connect.file.FileStreamSinkConnector\ntasks.max=1\n\
                 topics={TOPIC}\nfile={}\n{more}",
                output.display()
            ),
        )?;
        let logging = self.installed.script("../../tests/servers/kafka/log4j2.properties");
        let mut command = self.installed.command("java")?;
        command.args(heap).args(JAVA).arg(format!("-Dlog4j2.configurationFile={}", logging.display()));
        command.arg("-cp").arg(self.installed.path("connect")?.join("*"));
        command.arg("org.apache.kafka.connect.cli.ConnectStandalone").arg(worker).arg(connector);
        self.peer(command, name, &Expected { step: 1, ordered: true })
    }

    /// What is in `more` comes behind the filter.
    fn bento(&self, name: &str, round: usize, more: &str) -> Result<Figures> {
        let (config, output) = (self.folder.join("bento.yaml"), self.output(name));
        std::fs::write(&config, bento(&self.broker, &format!("{name}-{round}"), more, &output))?;
        let mut command = self.installed.command("bento")?;
        command.arg("run").arg(config);
        self.peer(command, name, &Expected { step: 2, ordered: false })
    }

    /// Where the contestant of this name writes. What an earlier round wrote is gone.
    fn output(&self, name: &str) -> PathBuf {
        let path = self.folder.join(format!("{name}.out"));
        let _ = std::fs::remove_file(&path);
        path
    }

    fn peer(&self, command: Command, name: &str, expected: &Expected) -> Result<Figures> {
        let output = self.folder.join(format!("{name}.out"));
        let began = SystemTime::now();
        let running = start(command, self.folder.join(format!("{name}.log")))?;
        self.finish(running, began, &output, expected, Running::kill)
    }

    /// Wait for the rows, end the process, and look at what was written.
    fn finish(
        &self,
        running: Running,
        began: SystemTime,
        output: &Path,
        expected: &Expected,
        end: fn(Running) -> Result<Usage>,
    ) -> Result<Figures> {
        let written = self.rows.div_ceil(expected.step);
        let Arrival { first, last } = arrival::wait(&running, began, output, written)?;
        let usage = end(running)?;
        let seen = check(output, self.rows, expected.step, expected.ordered)?;
        ensure!(seen == written, "{seen} rows were written, not {written}");
        let rows = self.rows as f64;
        Ok(Figures { rows, wall: last, steady: rows / (last - first), cpu: usage.cpu, peak: usage.peak, written })
    }
}

/// One message for each batch, so that the file is written to in one piece.
const BATCHES: &str = "    - archive:
        format: lines
";

/// Its newer input for Kafka, with batches, and room for many of them at once.
fn bento(broker: &str, group: &str, more: &str, output: &Path) -> String {
    format!(
        "http:
  enabled: false
logger:
  level: WARN
input:
  kafka_franz:
    seed_brokers: [{broker}]
    topics: [{TOPIC}]
    consumer_group: {group}
    checkpoint_limit: 100000
    fetch_max_partition_bytes: 10MiB
    batching:
      count: 5000
      period: 100ms
pipeline:
  processors:
    - mapping: |
        root = if this.value % 2 != 0 {{ deleted() }}
{more}output:
  file:
    path: {}
    codec: lines
",
        output.display()
    )
}

/// How many rows are in a file; an error if one is there twice, is none of each `step`th, or is out of order where there
/// has to be one.
fn check(path: &Path, rows: u64, step: u64, ordered: bool) -> Result<u64> {
    let mut seen = vec![false; usize::try_from(rows.div_ceil(step))?];
    let (mut count, mut line) = (0, Vec::new());
    let mut file = BufReader::with_capacity(1 << 18, File::open(path)?);
    while file.read_until(b'\n', &mut line)? > 0 {
        let place = value(&line).filter(|value| value.is_multiple_of(step)).map(|value| value / step);
        let place = place.filter(|place| !ordered || *place == count).and_then(|place| usize::try_from(place).ok());
        let new = place.and_then(|place| seen.get_mut(place)).is_some_and(|seen| !std::mem::replace(seen, true));
        ensure!(new, "line {count} should not be there: {}", String::from_utf8_lossy(&line));
        line.clear();
        count += 1;
    }
    Ok(count)
}

/// The number behind the first `value`: of JSON, or of how Java prints a map.
fn value(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line).ok()?;
    let rest = text.split_once("value")?.1.trim_start_matches(['"', ':', '=', ' ']);
    let end = rest.find(|character: char| !character.is_ascii_digit())?;
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_told_by_their_number() {
        assert_eq!(value(br#"{"value":12,"sensor":"a"}"#), Some(12));
        assert_eq!(value(b"{sensor=a, value=12}"), Some(12));
        assert_eq!(value(b"{}"), None);
    }

    #[test]
    fn rows_that_are_wrong_or_out_of_order_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        std::fs::write(&path, "{\"value\":0}\n{\"value\":2}\n").unwrap();
        assert_eq!(check(&path, 4, 2, true).unwrap(), 2);
        assert!(check(&path, 4, 1, true).is_err());
        assert_eq!(check(&path, 4, 1, false).unwrap(), 2);
        std::fs::write(&path, "{\"value\":2}\n{\"value\":0}\n").unwrap();
        assert!(check(&path, 4, 2, true).is_err());
        assert_eq!(check(&path, 4, 2, false).unwrap(), 2);
        for wrong in ["{\"value\":2}\n{\"value\":2}\n", "{\"value\":4}\n", "{\"value\":1}\n"] {
            std::fs::write(&path, wrong).unwrap();
            assert!(check(&path, 4, 2, false).is_err(), "{wrong}");
        }
    }
}
