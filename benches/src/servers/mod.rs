//! Rows from Kafka into a file, Cassandra and InfluxDB, beside a loop that does nothing but call the driver.
//!
//! Client, server and the loop share this machine, so the server's own limit is in each figure: what tells is the ratio of
//! two figures of the same round.

pub(crate) mod bare;
mod memory;
mod rows;
mod topics;

use std::path::Path;
use std::process::Command;

use acequia_tests::servers::{Cassandra, InfluxDb, Kafka};
use anyhow::{Context as _, Result, ensure};

use crate::daemon::{Daemon, Usage, start};
use crate::measure::Spread;
use crate::report::{Line, Section, Unit};

/// The topic that [`fill`] fills.
pub(crate) const TOPIC: &str = "rows";

/// Where the rows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Through `even-filter` to a file.
    File,
    /// To a table.
    Cassandra,
    /// To a bucket.
    InfluxDb,
}

/// One side of a comparison; it is given the number of the round.
struct Contestant<'a> {
    name: &'static str,
    /// Which one it is compared with.
    with: usize,
    run: Box<dyn Fn(usize) -> Result<Usage> + 'a>,
}

pub(crate) use memory::measure as memory;
pub(crate) use topics::fill;

pub(crate) fn measure(daemon: &Daemon, target: Target, rows: u64, rounds: usize) -> Result<Section> {
    let kafka = Kafka::start();
    kafka.create_topic(TOPIC, 1, &[]);
    fill(kafka.address(), TOPIC, rows).context("the topic can't be filled")?;
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let scene = Scene { daemon, broker: kafka.address().to_owned(), folder: folder.path(), rows };
    match target {
        Target::File => file(&scene, &kafka, rounds),
        Target::Cassandra => cassandra(&scene, rounds),
        Target::InfluxDb => influxdb(&scene, rounds),
    }
}

/// The columns with their types, as it goes behind [`source`] for sinks that want more than numbers and texts.
pub(crate) const SCHEMA: &str = "[source.schema]\nvalue = \"int64\"\nsensor = \"text\"\ntime = \"timestamp\"\n\
                                 temperature = \"float64\"\nactive = \"boolean\"\n\n";

/// The source of the rows as a pipeline's file has it; `more` are keys of it.
pub(crate) fn source(broker: &str, group: &str, more: &str) -> String {
    format!(
        "[source]\ntype = \"kafka\"\nbrokers = [\"{broker}\"]\ntopics = [\"{TOPIC}\"]\ngroup = \"{group}\"\nformat = \"json\"\n\
         metadata = []\n{more}\n"
    )
}

/// What every contestant needs.
struct Scene<'a> {
    daemon: &'a Daemon,
    broker: String,
    folder: &'a Path,
    rows: u64,
}

impl Scene<'_> {
    /// A pipeline from the topic, with this behind its source, until the topic's end.
    fn pipeline(&self, name: &str, round: usize, rest: &str) -> Result<Usage> {
        let file = self.folder.join(format!("{name}.toml"));
        let text = source(&self.broker, &format!("{name}-{round}"), "until = \"end\"\n") + rest;
        std::fs::write(&file, text)?;
        let state = self.folder.join("state");
        // Each run from the first row on; the compiled code stays.
        let _ = std::fs::remove_file(state.join("acequia.redb"));
        self.daemon.run(&file, &state, &["--once"], false)?.wait()
    }

    /// The driver alone.
    fn bare(&self, arguments: &[&str]) -> Result<Usage> {
        let mut command = Command::new(std::env::current_exe().context("where this program is can't be told")?);
        command.arg("bare").args(arguments);
        start(command, self.folder.join("bare.log"))?.wait()
    }
}

fn file(scene: &Scene<'_>, kafka: &Kafka, rounds: usize) -> Result<Section> {
    let output = scene.folder.join("out.jsonl");
    let consume = |name: &str, round: usize| {
        let rows = scene.rows.to_string();
        scene.bare(&["consume", &scene.broker, TOPIC, &format!("{name}-{round}"), &rows])
    };
    let copy = |delivery: &str, round: usize| {
        let topic = format!("{delivery}-{round}");
        kafka.create_topic(&topic, 1, &[]);
        let sink = format!(
            "[[transform]]\nplugin = \"even-filter\"\n\n[[sink]]\ntype = \"kafka\"\nbrokers = [\"{}\"]\ntopic = \"{topic}\"\n\
             delivery = \"{delivery}\"\n",
            scene.broker
        );
        let usage = scene.pipeline(delivery, round, &sink)?;
        expect(topics::committed(&scene.broker, &topic)?, scene.rows.div_ceil(2))?;
        Ok(usage)
    };
    let transform = "[[transform]]\nplugin = \"even-filter\"\n\n[[sink]]\ntype = \"file\"\npath = \"out.jsonl\"\n";
    let contestants = vec![
        Contestant { with: 0, name: "bare consumer that counts", run: Box::new(|round| consume("bare", round)) },
        Contestant { with: 0, name: "the same again", run: Box::new(|round| consume("again", round)) },
        Contestant {
            with: 0,
            name: "kafka -> even-filter -> file",
            run: Box::new(|round| {
                let _ = std::fs::remove_file(&output);
                let usage = scene.pipeline("even", round, transform)?;
                expect(lines(&output)?, scene.rows.div_ceil(2))?;
                Ok(usage)
            }),
        },
        Contestant {
            with: 0,
            name: "the same, every column declared",
            run: Box::new(|round| {
                let _ = std::fs::remove_file(&output);
                let usage = scene.pipeline("declared", round, &format!("{SCHEMA}{transform}"))?;
                expect(lines(&output)?, scene.rows.div_ceil(2))?;
                Ok(usage)
            }),
        },
        Contestant {
            with: 0,
            name: "kafka -> blackhole",
            run: Box::new(|round| scene.pipeline("hole", round, "[[sink]]\ntype = \"blackhole\"\n")),
        },
        Contestant {
            with: 0,
            name: "the same, librdkafka's own fetch.queue.backoff.ms",
            run: Box::new(|round| {
                let properties = "[source.properties]\n\"fetch.queue.backoff.ms\" = \"1000\"\n\n";
                scene.pipeline("backoff", round, &format!("{properties}[[sink]]\ntype = \"blackhole\"\n"))
            }),
        },
        Contestant {
            with: 0,
            name: "kafka -> even-filter -> kafka, at least once",
            run: Box::new(|round| copy("at_least_once", round)),
        },
        Contestant {
            with: 6,
            name: "the same, exactly once (beside the line above)",
            run: Box::new(|round| copy("exactly_once", round)),
        },
    ];
    section(scene, "kafka", "a topic of one partition", contestants, rounds)
}

fn cassandra(scene: &Scene<'_>, rounds: usize) -> Result<Section> {
    let cassandra = Cassandra::start();
    let node = cassandra.address();
    cassandra.query("CREATE KEYSPACE bench WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}");
    for table in ["bare", "again", "acequia"] {
        cassandra.query(&format!(
            "CREATE TABLE bench.{table} (value bigint PRIMARY KEY, sensor text, time timestamp, temperature double, active boolean)"
        ));
    }
    let insert = |table: &str| scene.bare(&["insert", node, &format!("bench.{table}"), &scene.rows.to_string()]);
    let sink = format!(
        "{SCHEMA}[[sink]]\ntype = \"cassandra\"\nnodes = [\"{node}\"]\nkeyspace = \"bench\"\ntable = \"acequia\"\nconcurrency = {}\n",
        bare::CONCURRENCY
    );
    let contestants = vec![
        Contestant { with: 0, name: "bare driver", run: Box::new(|_| insert("bare")) },
        Contestant { with: 0, name: "the same again", run: Box::new(|_| insert("again")) },
        Contestant {
            with: 0,
            name: "kafka -> cassandra",
            run: Box::new(|round| scene.pipeline("cassandra", round, &sink)),
        },
    ];
    let section = section(scene, "cassandra", "inserts of 256 at a time", contestants, rounds)?;
    for table in ["bare", "again", "acequia"] {
        expect(cassandra.count(&format!("bench.{table}")), scene.rows)?;
    }
    Ok(section)
}

fn influxdb(scene: &Scene<'_>, rounds: usize) -> Result<Section> {
    let influxdb = InfluxDb::start();
    let (url, org, token) = (influxdb.url(), influxdb.org(), influxdb.token());
    let post = |bucket: &str| scene.bare(&["post", url, org, bucket, token, &scene.rows.to_string()]);
    for bucket in ["bare", "again", "acequia"] {
        influxdb.create_bucket(bucket);
    }
    let sink = format!(
        "{SCHEMA}[[sink]]\ntype = \"influxdb\"\nurl = \"{url}\"\norg = \"{org}\"\nbucket = \"acequia\"\ntoken = \"{token}\"\nmeasurement = \"bench\"\n\
         tags = [\"sensor\"]\ntime = \"time\"\n"
    );
    let contestants = vec![
        Contestant { with: 0, name: "bare posts of 5,000 points", run: Box::new(|_| post("bare")) },
        Contestant { with: 0, name: "the same again", run: Box::new(|_| post("again")) },
        Contestant {
            with: 0,
            name: "kafka -> influxdb",
            run: Box::new(|round| scene.pipeline("influxdb", round, &sink)),
        },
    ];
    let section = section(scene, "influxdb", "points, on one connection", contestants, rounds)?;
    for bucket in ["bare", "again", "acequia"] {
        let measurement = if bucket == "acequia" { "bench" } else { "bare" };
        expect(influxdb.count(bucket, measurement, "value"), scene.rows)?;
    }
    Ok(section)
}

/// Let each have its turn; one round more than is counted, since in the first the server and the caches are cold.
fn section(
    scene: &Scene<'_>,
    name: &'static str,
    what: &str,
    contestants: Vec<Contestant<'_>>,
    rounds: usize,
) -> Result<Section> {
    let mut usages: Vec<Vec<Usage>> = contestants.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        for turn in 0..contestants.len() {
            let index = (round + turn) % contestants.len();
            let (Some(contestant), Some(usages)) = (contestants.get(index), usages.get_mut(index)) else { continue };
            let usage = (contestant.run)(round).with_context(|| contestant.name.to_owned())?;
            if round > 0 {
                usages.push(usage);
            }
        }
    }
    let rows = scene.rows as f64;
    let lines = contestants.iter().zip(&usages).map(|(contestant, own)| {
        let spread = |value: &dyn Fn(&Usage) -> f64| Some(Spread::of(own.iter().map(value)));
        let other = usages.get(contestant.with).map(Vec::as_slice).unwrap_or_default();
        let ratio = Spread::of(other.iter().zip(own).map(|(bare, usage)| bare.wall / usage.wall));
        Line {
            case: contestant.name.to_owned(),
            figures: vec![
                spread(&|usage| rows / usage.wall / 1e6),
                Some(ratio),
                spread(&|usage| usage.cpu * 1e6 / rows),
                spread(&|usage| usage.wall),
                spread(&|usage| usage.peak / f64::from(1 << 20)),
            ],
        }
    });
    Ok(Section {
        name,
        about: format!(
            "{what}: {} JSON rows of about 108 bytes; server, loop and daemon share this machine. Wall and processor time are the whole process's, \
             start and stop included; the ratio is of the rows a second of the same round to the bare loop's, if the line does not name another. Median and extremes of {rounds} rounds, in turns.",
            scene.rows
        ),
        of: "process",
        columns: vec![
            ("rows", Unit::MillionsPerSecond),
            ("of the bare loop's", Unit::Ratio),
            ("processor time for a million rows", Unit::Seconds),
            ("wall", Unit::Seconds),
            ("peak memory", Unit::Mebibytes),
        ],
        lines: lines.collect(),
    })
}

fn lines(path: &Path) -> Result<u64> {
    use std::io::BufRead;
    let file = std::fs::File::open(path).with_context(|| format!("{} can't be read", path.display()))?;
    Ok(std::io::BufReader::new(file).split(b'\n').count() as u64)
}

fn expect(found: u64, expected: u64) -> Result<()> {
    ensure!(found == expected, "{found} rows arrived, not {expected}");
    Ok(())
}
