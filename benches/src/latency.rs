//! From a line on a socket, and from a record in Kafka, to its row in Cassandra, on an idle machine; and how the batches of the same pipeline grow when
//! it is not idle.

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use acequia_tests::servers::{Cassandra, Kafka};
use anyhow::{Context as _, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::prepared::PreparedStatement;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::daemon::{Daemon, Running};
use crate::measure::Spread;
use crate::metrics;
use crate::report::{Line, Section, Unit};

/// The pause between two lines, in milliseconds: any of these, so that lines meet no timer of the daemon in step.
const PAUSE: std::ops::Range<u64> = 5..60;
/// Lines before the first that counts: the statement is prepared, the server's code compiled.
const WARM: usize = 100;
/// The topic of the records.
const TOPIC: &str = "lines";
/// How long a row may take to come before this gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lines a second that the pipeline gets, and for how many seconds; at last, as many as it takes.
const LOADS: [(u64, u64); 4] = [(20, 10), (1_000, 5), (10_000, 5), (u64::MAX, 0)];
/// Lines where there is no rate.
const FLOOD: u64 = 200_000;

pub(crate) fn measure(daemon: &Daemon, lines: usize, rounds: usize) -> Result<Vec<Section>> {
    let cassandra = Cassandra::start();
    cassandra.query("CREATE KEYSPACE bench WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}");
    cassandra.query("CREATE TABLE bench.lines (id text PRIMARY KEY, sent bigint)");
    let kafka = Kafka::start();
    kafka.create_topic(TOPIC, 1, &[]);
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = run(daemon, cassandra.address(), kafka.address(), folder.path(), lines, rounds);
    let sections = runtime.block_on(work)?;
    Ok(sections)
}

async fn run(
    daemon: &Daemon,
    node: &str,
    broker: &str,
    folder: &Path,
    lines: usize,
    rounds: usize,
) -> Result<Vec<Section>> {
    let server = TcpListener::bind("127.0.0.1:0").await?;
    let pipelines = folder.join("pipelines");
    std::fs::create_dir(&pipelines)?;
    let sources = [
        ("lines", format!("type = \"socket\"\naddress = \"{}\"\n", server.local_addr()?)),
        ("records", format!("type = \"kafka\"\nbrokers = [\"{broker}\"]\ntopics = [\"{TOPIC}\"]\nmetadata = []\n")),
    ];
    for (name, source) in sources {
        let text = format!(
            "[source]\n{source}format = \"json\"\n\n[source.schema]\nid = \"text\"\nsent = \"int64\"\n\n\
             [[sink]]\ntype = \"cassandra\"\nnodes = [\"{node}\"]\nkeyspace = \"bench\"\ntable = \"lines\"\n"
        );
        std::fs::write(pipelines.join(format!("{name}.toml")), text)?;
    }
    let running = daemon.run(&pipelines, &folder.join("state"), &["--listen", "127.0.0.1:0"], false)?;
    let (client, _) =
        tokio::time::timeout(PATIENCE, server.accept()).await.context("the daemon does not connect")??;
    client.set_nodelay(true)?;
    let session = SessionBuilder::new().known_node(node).build().await?;
    let producer = ClientConfig::new()
        .set("bootstrap.servers", broker)
        .set("linger.ms", "0")
        .create_with_context(DefaultProducerContext)?;
    let mut bench = Bench {
        client,
        producer,
        look: session.prepare("SELECT WRITETIME(sent) FROM bench.lines WHERE id = ?").await?,
        insert: session.prepare("INSERT INTO bench.lines (id, sent) VALUES (?, ?)").await?,
        session,
        sent: 0,
    };
    for _ in 0..WARM {
        bench.line().await?;
        bench.record().await?;
        bench.direct().await?;
    }
    let mut idle: Vec<[Vec<f64>; 4]> = Vec::new();
    for _ in 0..rounds {
        let mut round: [Vec<f64>; 4] = Default::default();
        for _ in 0..lines.div_ceil(rounds) {
            pause().await;
            let (row, written) = bench.line().await?;
            pause().await;
            let record = bench.record().await?;
            pause().await;
            let direct = bench.direct().await?;
            for (times, time) in round.iter_mut().zip([row, written, record, direct]) {
                times.push(time);
            }
        }
        idle.push(round);
    }
    let mut loads = Vec::new();
    let admin = running.admin()?;
    for (rate, seconds) in LOADS {
        loads.push(load(&mut bench, &running, &admin, rate, seconds).await?);
    }
    drop(bench);
    running.stop()?;
    Ok(vec![latency(&idle, lines, rounds), batches(loads)])
}

struct Bench {
    client: TcpStream,
    producer: ThreadedProducer<DefaultProducerContext>,
    session: Session,
    look: PreparedStatement,
    insert: PreparedStatement,
    /// Lines so far.
    sent: u64,
}

impl Bench {
    /// Send a line and wait for its row. Returns the milliseconds until it could be read, and until the sink gave it its
    /// timestamp, which is right before it was sent to the server.
    async fn line(&mut self) -> Result<(f64, f64)> {
        let (id, text) = self.next();
        let (begin, clock) = (Instant::now(), micros());
        self.client.write_all(text.as_bytes()).await?;
        let written = self.wait(&id).await?;
        Ok((begin.elapsed().as_secs_f64() * 1e3, (written - clock) as f64 / 1e3))
    }

    /// The same with a record in the topic: milliseconds until its row could be read.
    async fn record(&mut self) -> Result<f64> {
        let (id, text) = self.next();
        let begin = Instant::now();
        let sent = self.producer.send(BaseRecord::<(), str>::to(TOPIC).payload(&text));
        sent.map_err(|(error, _)| error)?;
        self.wait(&id).await?;
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }

    /// Insert a row and look for it in the same way: what the server and the looking take. Milliseconds.
    async fn direct(&mut self) -> Result<f64> {
        let (id, _) = self.next();
        let begin = Instant::now();
        let insert = self.session.execute_unpaged(&self.insert, (&id, 0_i64));
        let (inserted, seen) = tokio::join!(insert, self.wait(&id));
        inserted?;
        seen?;
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }

    /// Look until the row is there, one look after the other. Returns its write time.
    async fn wait(&self, id: &str) -> Result<i64> {
        let begin = Instant::now();
        loop {
            let rows = self.session.execute_unpaged(&self.look, (id,)).await?.into_rows_result()?;
            if let Some((written,)) = rows.maybe_first_row::<(Option<i64>,)>()? {
                return written.context("a row without a value");
            }
            ensure!(begin.elapsed() < PATIENCE, "the row {id} does not come");
        }
    }

    fn next(&mut self) -> (String, String) {
        self.sent += 1;
        let id = format!("row-{}", self.sent);
        let text = format!("{{\"id\":\"{id}\",\"sent\":{}}}\n", self.sent);
        (id, text)
    }
}

/// One line of the second table: rows a second, rows a batch in the source and processor time a row, microseconds.
struct Load {
    name: String,
    rows: f64,
    batch: Option<f64>,
    cpu: f64,
}

/// Send lines at that rate, each on its own, and wait until the sink has taken the last.
async fn load(bench: &mut Bench, running: &Running, admin: &str, rate: u64, seconds: u64) -> Result<Load> {
    let before = counts(admin).await?;
    let (begin, cpu) = (Instant::now(), running.cpu()?);
    let count = if rate == u64::MAX { FLOOD } else { rate * seconds };
    let mut text = String::new();
    for number in 0..count {
        let line = bench.next().1;
        if rate == u64::MAX {
            // As a client with much to say does: as much as fits in a write.
            text.push_str(&line);
            if text.len() > 60_000 || number + 1 == count {
                bench.client.write_all(text.as_bytes()).await?;
                text.clear();
            }
        } else {
            let due = begin + Duration::from_secs_f64(number as f64 / rate as f64);
            tokio::time::sleep_until(due.into()).await;
            bench.client.write_all(line.as_bytes()).await?;
        }
    }
    let after = loop {
        let after = counts(admin).await?;
        if after.rows >= before.rows + count {
            break after;
        }
        ensure!(begin.elapsed() < PATIENCE + Duration::from_secs(seconds), "the sink does not take the rows");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let wall = begin.elapsed().as_secs_f64();
    let batches = after.batches.zip(before.batches).map(|(after, before)| after.saturating_sub(before).max(1));
    Ok(Load {
        name: if rate == u64::MAX { "as fast as they are taken".to_owned() } else { format!("{rate} lines a second") },
        rows: count as f64 / wall,
        batch: batches.map(|batches| count as f64 / batches as f64),
        cpu: (running.cpu()? - cpu) * 1e6 / count as f64,
    })
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// That the sink has taken.
    rows: u64,
    /// In which they came, if the daemon tells.
    batches: Option<u64>,
}

/// What the sink has counted.
async fn counts(admin: &str) -> Result<Counts> {
    let text = metrics::fetch(admin).await?;
    let value =
        |metric: &str| Ok(metrics::of_stage(&text, metric, "cassandra")?.get("lines").map(|value| *value as u64));
    let rows: Result<Option<u64>> = value("acequia_rows_in_total");
    Ok(Counts { rows: rows?.context("the sink counts no rows")?, batches: value("acequia_batches_total")? })
}

fn latency(rounds: &[[Vec<f64>; 4]], lines: usize, count: usize) -> Section {
    let of = [
        "socket line -> row can be read",
        "socket line -> sent to the server",
        "kafka record -> row can be read",
        "insert by the driver -> row can be read",
    ];
    let line = |(index, case): (usize, &str)| {
        let at = |part: f64| {
            let each = rounds.iter().filter_map(|round| round.get(index)).map(|times| percentile(times, part));
            Some(Spread::of(each))
        };
        Line { case: case.to_owned(), figures: vec![at(0.5), at(0.9), at(0.99), at(1.0)] }
    };
    Section {
        name: "latency",
        about: format!(
            "socket -> cassandra, kafka -> cassandra: {lines} JSON lines, each sent after a random pause of {} to {} ms, and the row looked for by its key, one look after \
             the other, until it is there. The second line goes by the timestamp that the sink gives the row. The last is a row that the driver inserts, \
             looked for in the same way, in turns: what server and looking take. Median and extremes of {count} rounds.",
            PAUSE.start,
            PAUSE.end - 1,
        ),
        of: "way",
        columns: vec![("p50", Unit::Millis), ("p90", Unit::Millis), ("p99", Unit::Millis), ("longest", Unit::Millis)],
        lines: of.into_iter().enumerate().map(line).collect(),
    }
}

fn batches(loads: Vec<Load>) -> Section {
    let one = |value: f64| Some(Spread::of([value]));
    let line =
        |load: Load| Line { case: load.name, figures: vec![one(load.rows), load.batch.and_then(one), one(load.cpu)] };
    Section {
        name: "latency, under load",
        about: format!(
            "The same pipeline with more to do: lines at a steady rate, each written on its own, and {FLOOD} lines as fast as they are taken. Batches as \
             the sink gets them; processor time is the daemon's."
        ),
        of: "load",
        columns: vec![
            ("rows a second", Unit::Count),
            ("rows a batch", Unit::Count),
            ("processor time a row", Unit::Micros),
        ],
        lines: loads.into_iter().map(line).collect(),
    }
}

/// The value below which that part of the values is.
fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or_default()
}

fn pause() -> impl Future<Output = ()> {
    // The clock's lowest digits are as good as a die here.
    let random = micros().unsigned_abs().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    tokio::time::sleep(Duration::from_millis(PAUSE.start + random % (PAUSE.end - PAUSE.start)))
}

fn micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    i64::try_from(since).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|part| percentile(&values, part)), [100.0, 198.0, 200.0]);
        assert_eq!(percentile(&[7.0], 0.5), 7.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }
}
