//! Resident memory of a daemon, and what pipelines cost that have nothing to do.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::daemon::{Daemon, Memory};
use crate::measure::Spread;
use crate::report::{Line, Section, Unit};
use crate::servers;

/// What `make run` starts.
const QUICKSTART: &str = include_str!("../../examples/quickstart/even.toml");
/// So that it has one row and then nothing to do.
const RATE: (&str, &str) = ("rows_per_second = 2", "rows_per_second = 0.0001");

/// Rows that each pipeline prints before the memory is looked at; an idle one has no more than one.
const ROWS: usize = 3;
/// For how long it is looked at what idle pipelines use; and the time before that, in which the last checkpoint is stored.
const WATCH: Duration = Duration::from_secs(10);
const SETTLE: Duration = Duration::from_secs(3);

const MEBIBYTE: f64 = (1 << 20) as f64;

struct Case {
    name: &'static str,
    pipelines: usize,
    idle: bool,
}

const CASES: [Case; 6] = [
    Case { name: "the quickstart", pipelines: 1, idle: false },
    Case { name: "3 of it", pipelines: 3, idle: false },
    Case { name: "100 of it", pipelines: 100, idle: false },
    Case { name: "1 idle", pipelines: 1, idle: true },
    Case { name: "100 idle", pipelines: 100, idle: true },
    Case { name: "1,000 idle", pipelines: 1000, idle: true },
];

pub(crate) fn measure(daemon: &Daemon, rounds: usize) -> Result<Section> {
    let mut lines = Vec::new();
    for case in &CASES {
        let mut found = Vec::new();
        for _ in 0..rounds {
            found.push(one(daemon, case).with_context(|| case.name)?);
        }
        let spread = |value: fn(&Found) -> f64| Some(Spread::of(found.iter().map(value)));
        let idle = found.iter().filter_map(|found| found.idle).collect::<Vec<_>>();
        lines.push(Line {
            case: case.name.to_owned(),
            figures: vec![
                spread(|found| found.memory.resident / MEBIBYTE),
                spread(|found| found.memory.own / MEBIBYTE),
                spread(|found| found.memory.peak / MEBIBYTE),
                spread(|found| found.started * 1e3),
                spread(|found| found.starting * 1e3),
                (!idle.is_empty()).then(|| Spread::of(idle)),
            ],
        });
    }
    let memories = servers::memory(daemon, rounds).context("real servers")?;
    let names = ["kafka -> file, kafka -> cassandra, kafka -> influxdb", "the same, half a minute later"];
    for (index, name) in names.into_iter().enumerate() {
        let memories = memories.iter().filter_map(|memories| memories.get(index));
        let spread =
            |value: fn(&Memory) -> f64| Some(Spread::of(memories.clone().map(|memory| value(memory) / MEBIBYTE)));
        lines.push(Line {
            case: name.to_owned(),
            figures: vec![
                spread(|found| found.resident),
                spread(|found| found.own),
                spread(|found| found.peak),
                None,
                None,
                None,
            ],
        });
    }
    Ok(Section {
        name: "memory",
        about: format!(
            "Resident memory of a daemon as `make run` starts it, with the admin listener and with compiled code in the cache, after {ROWS} rows a pipeline, with real servers after a hundred thousand; \
             and the part of it that is not code (that, the kernel can drop and read again), and the most that there was at once. An idle pipeline is the quickstart with one row and then none. \
             The time until each pipeline has printed its first row, and the processor time until then; for idle ones, the processor time of {} s without a row, \
             as milliseconds a second. Median and extremes of {rounds} runs.",
            WATCH.as_secs()
        ),
        of: "pipelines",
        columns: vec![
            ("resident", Unit::Mebibytes),
            ("not code", Unit::Mebibytes),
            ("peak", Unit::Mebibytes),
            ("first row of each", Unit::Millis),
            ("processor time for it", Unit::Millis),
            ("a second of nothing", Unit::Millis),
        ],
        lines,
    })
}

struct Found {
    memory: Memory,
    /// Seconds until each has had its first row.
    started: f64,
    /// Seconds of processor time until then.
    starting: f64,
    /// Milliseconds of processor time a second.
    idle: Option<f64>,
}

fn one(daemon: &Daemon, case: &Case) -> Result<Found> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let (configs, state) = (folder.path().join("pipelines"), folder.path().join("state"));
    std::fs::create_dir(&configs)?;
    let text = if case.idle { QUICKSTART.replace(RATE.0, RATE.1) } else { QUICKSTART.to_owned() };
    std::fs::write(configs.join("even0.toml"), &text)?;
    // The first start compiles, which takes more memory for a moment than everything else ever.
    let mut first = daemon.run(&configs, &state, &["--listen", "127.0.0.1:0"], false)?;
    first.line()?;
    first.stop()?;
    std::fs::remove_file(state.join("acequia.redb"))?;
    for number in 1..case.pipelines {
        std::fs::write(configs.join(format!("even{number}.toml")), &text)?;
    }
    let mut running = daemon.run(&configs, &state, &["--listen", "127.0.0.1:0"], false)?;
    let mut started = 0.0;
    for _ in 0..case.pipelines {
        started = running.line()?.1;
    }
    let starting = running.cpu()?;
    let rows = if case.idle { 1 } else { ROWS };
    for _ in case.pipelines..case.pipelines * rows {
        running.line()?;
    }
    let mut idle = None;
    if case.idle {
        std::thread::sleep(SETTLE);
        let (before, begin) = (running.cpu()?, Instant::now());
        std::thread::sleep(WATCH);
        idle = Some((running.cpu()? - before) * 1e3 / begin.elapsed().as_secs_f64());
    }
    let memory = running.memory()?;
    running.stop()?;
    Ok(Found { memory, started, starting, idle })
}
