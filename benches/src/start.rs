//! From the start of the process to the first row out: on standard output, and in a table of Cassandra.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use acequia_tests::servers::Cassandra;
use anyhow::{Context as _, Result, ensure};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;

use crate::daemon::{Daemon, Running, start};
use crate::measure::Spread;
use crate::report::{Line, Section, Unit};

/// How often the plugin is compiled anew: that takes long, and says little more the tenth time.
const COLD: usize = 5;

const PIPELINE: &str = r#"
[source]
type = "rate"
rows_per_second = 1
rows = 1

[[transform]]
plugin = "even-filter"

[[sink]]
type = "console"
format = "json"
"#;

pub(crate) fn measure(daemon: &Daemon, rounds: usize) -> Result<Section> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let pipeline = folder.path().join("first.toml");
    let plain = folder.path().join("plain.toml");
    std::fs::write(&pipeline, PIPELINE)?;
    std::fs::write(&plain, PIPELINE.replace("[[transform]]\nplugin = \"even-filter\"\n", ""))?;
    let state = folder.path().join("state");
    let mut cold = Vec::new();
    for _ in 0..COLD.min(rounds) {
        let _ = std::fs::remove_dir_all(&state);
        cold.push(first_row(daemon, &pipeline, &state)?);
    }
    let (mut warm, mut without, mut version) = (Vec::new(), Vec::new(), Vec::new());
    let table = in_cassandra(daemon, folder.path(), rounds).context("cassandra")?;
    for _ in 0..rounds {
        warm.push(first_row(daemon, &pipeline, &state)?);
        without.push(first_row(daemon, &plain, &state)?);
        version.push(daemon.version(folder.path())?.wall);
    }
    let line = |case: &str, seconds: Vec<f64>| Line {
        case: case.to_owned(),
        figures: vec![Some(Spread::of(seconds.into_iter().map(|seconds| seconds * 1e3)))],
    };
    Ok(Section {
        name: "start",
        about: format!(
            "From the start of the process to the first row on its standard output, seen from outside: rate -> even-filter -> console; and to \
             the first row that can be read from a table of Cassandra, which is looked for all the time. Median and extremes of {rounds} starts, in turns; {} where the plugin is compiled anew.",
            COLD.min(rounds)
        ),
        of: "start",
        columns: vec![("first row", Unit::Millis)],
        lines: [
            line("with the compiled plugin in the cache", warm),
            line("the same, the plugin compiled anew", cold),
            line("without a transform", without),
            line("`acequia --version`, from start to end", version),
        ]
        .into_iter()
        .chain(table.into_iter().map(|(case, times)| line(case, times)))
        .collect(),
    })
}

fn first_row(daemon: &Daemon, pipeline: &Path, state: &Path) -> Result<f64> {
    // Each from the first row on.
    let _ = std::fs::remove_file(state.join("acequia.redb"));
    let mut running = daemon.run(pipeline, state, &["--once"], false)?;
    let (line, seconds) = running.line()?;
    ensure!(line.starts_with("{\"value\":0,"), "the first row is {line}");
    running.wait()?;
    Ok(seconds)
}

/// To a row in Cassandra: two pipelines, and a process that only connects, prepares and inserts.
fn in_cassandra(daemon: &Daemon, folder: &Path, rounds: usize) -> Result<Vec<(&'static str, Vec<f64>)>> {
    let cassandra = Cassandra::start();
    let node = cassandra.address();
    cassandra.query("CREATE KEYSPACE bench WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}");
    cassandra.query("CREATE TABLE bench.first (value bigint PRIMARY KEY, timestamp timestamp, name text, id text)");
    cassandra.query(
        "CREATE TABLE bench.bare (value bigint PRIMARY KEY, sensor text, time timestamp, temperature double, active boolean)",
    );
    let sink =
        format!("[[sink]]\ntype = \"cassandra\"\nnodes = [\"{node}\"]\nkeyspace = \"bench\"\ntable = \"first\"\n");
    let rate = PIPELINE.replace("[[sink]]\ntype = \"console\"\nformat = \"json\"\n", &sink);
    let file = format!(
        "[source]\ntype = \"file\"\npath = \"one.jsonl\"\n\n[[transform]]\nplugin = \"uuid\"\nconfig = {{ from = [\"name\"] }}\n\n{sink}"
    );
    std::fs::write(folder.join("one.jsonl"), "{\"value\":0,\"name\":\"Michael\"}\n")?;
    std::fs::write(folder.join("rate.toml"), rate)?;
    std::fs::write(folder.join("file.toml"), file)?;
    let state = folder.join("cassandra");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let session = runtime.block_on(SessionBuilder::new().known_node(node).build())?;
    let pipeline = |name: &str| {
        let _ = std::fs::remove_file(state.join("acequia.redb"));
        daemon.run(&folder.join(name), &state, &["--once"], false)
    };
    let bare = || {
        let mut command = Command::new(std::env::current_exe().context("where this program is can't be told")?);
        command.args(["bare", "insert", node, "bench.bare", "1"]);
        start(command, folder.join("bare.log"))
    };
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    // One round more: in the first the plugins are compiled, and the server is cold.
    for round in 0..=rounds {
        for (index, times) in times.iter_mut().enumerate() {
            let (table, begin): (_, &dyn Fn() -> Result<Running>) = match index {
                0 => ("first", &|| pipeline("rate.toml")),
                1 => ("first", &|| pipeline("file.toml")),
                _ => ("bare", &bare),
            };
            let seconds = runtime.block_on(first_in_table(&session, table, begin))?;
            if round > 0 {
                times.push(seconds);
            }
        }
    }
    let [rate, file, bare] = times;
    Ok(vec![
        ("rate -> even-filter -> cassandra", rate),
        ("file -> uuid -> cassandra", file),
        ("a process that connects, prepares and inserts a row", bare),
    ])
}

/// Start it with an empty table, and look for the row until it is there.
async fn first_in_table(session: &Session, table: &str, begin: &dyn Fn() -> Result<Running>) -> Result<f64> {
    session.query_unpaged(format!("DELETE FROM bench.{table} WHERE value = 0"), ()).await?;
    let look = session.prepare(format!("SELECT value FROM bench.{table} WHERE value = 0")).await?;
    let started = Instant::now();
    let running = begin()?;
    loop {
        let rows = session.execute_unpaged(&look, ()).await?.into_rows_result()?;
        if rows.maybe_first_row::<(i64,)>()?.is_some() {
            break;
        }
        ensure!(started.elapsed() < Duration::from_secs(60), "no row comes");
    }
    let seconds = started.elapsed().as_secs_f64();
    running.wait()?;
    Ok(seconds)
}
