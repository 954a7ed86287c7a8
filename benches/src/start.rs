//! From the start of the process to the first row out.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::daemon::Daemon;
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
            "From the start of the process to the first row on its standard output, seen from outside: rate -> even-filter -> console. \
             Median and extremes of {rounds} starts, in turns; {} where the plugin is compiled anew.",
            COLD.min(rounds)
        ),
        of: "start",
        columns: vec![("first row", Unit::Millis)],
        lines: vec![
            line("with the compiled plugin in the cache", warm),
            line("the same, the plugin compiled anew", cold),
            line("without a transform", without),
            line("`acequia --version`, from start to end", version),
        ],
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
