//! Resident memory of a daemon.

use anyhow::{Context as _, Result};

use crate::daemon::{Daemon, Memory};
use crate::measure::Spread;
use crate::report::{Line, Section, Unit};
use crate::servers;

/// What `make run` starts.
const QUICKSTART: &str = include_str!("../../examples/quickstart/even.toml");

/// Rows that each pipeline prints before the memory is looked at.
const ROWS: usize = 3;

pub(crate) fn measure(daemon: &Daemon, rounds: usize) -> Result<Section> {
    let mut lines = Vec::new();
    for pipelines in [1, 3, 100] {
        let memories = (0..rounds).map(|_| one(daemon, pipelines)).collect::<Result<Vec<_>>>()?;
        let case = if pipelines == 1 { "the quickstart".to_owned() } else { format!("{pipelines} of it") };
        lines.push(line(case, &memories));
    }
    let memories = servers::memory(daemon, rounds).context("real servers")?;
    lines.push(line("kafka -> file, kafka -> cassandra, kafka -> influxdb".to_owned(), &memories));
    Ok(Section {
        name: "memory",
        about: format!(
            "Resident memory of a daemon as `make run` starts it, with the admin listener and with compiled code in the cache, after {ROWS} rows a pipeline, \
             with real servers after a hundred thousand; the part of it that is not code (that, the kernel can drop and read again), and the most that there was at once. Median and extremes of {rounds} runs."
        ),
        of: "pipelines",
        columns: vec![("resident", Unit::Mebibytes), ("not code", Unit::Mebibytes), ("peak", Unit::Mebibytes)],
        lines,
    })
}

fn line(case: String, memories: &[Memory]) -> Line {
    let spread =
        |value: fn(&Memory) -> f64| Some(Spread::of(memories.iter().map(|memory| value(memory) / f64::from(1 << 20))));
    Line {
        case,
        figures: vec![spread(|memory| memory.resident), spread(|memory| memory.own), spread(|memory| memory.peak)],
    }
}

fn one(daemon: &Daemon, pipelines: usize) -> Result<Memory> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let (configs, state) = (folder.path().join("pipelines"), folder.path().join("state"));
    std::fs::create_dir(&configs)?;
    std::fs::write(configs.join("even0.toml"), QUICKSTART)?;
    // The first start compiles, which takes more memory for a moment than everything else ever.
    let mut first = daemon.run(&configs, &state, &["--listen", "127.0.0.1:0"], false)?;
    first.line()?;
    first.stop()?;
    for number in 1..pipelines {
        std::fs::write(configs.join(format!("even{number}.toml")), QUICKSTART)?;
    }
    let mut running = daemon.run(&configs, &state, &["--listen", "127.0.0.1:0"], false)?;
    for _ in 0..pipelines * ROWS {
        running.line()?;
    }
    let memory = running.memory()?;
    running.stop()?;
    Ok(memory)
}
