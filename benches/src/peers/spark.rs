//! Rows that are counted up, transformed and dropped: Spark.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::installed::Installed;
use super::{Comparison, Contestant, Figures, tree};
use crate::daemon::{Daemon, start};

/// How many values of the triangle wave are compared.
const COMPARED: usize = 1000;

/// What every contestant needs.
struct Scene<'a> {
    daemon: &'a Daemon,
    installed: Installed,
    folder: &'a Path,
}

/// `rate` -> `even-filter` -> `blackhole`.
pub(super) fn even(daemon: &Daemon, rows: u64, rounds: usize) -> Result<Comparison> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let scene = Scene { daemon, installed: Installed::find()?, folder: folder.path() };
    let contestants = vec![
        Contestant { name: "Acequia: even-filter", run: Box::new(|_| scene.acequia("even-filter", rows, false)) },
        Contestant { name: "Acequia, on one core", run: Box::new(|_| scene.acequia("even-filter", rows, true)) },
        Contestant { name: "Spark: range, filter, noop", run: Box::new(|_| scene.spark(&["range"], rows)) },
    ];
    let written = rows.div_ceil(2);
    super::in_turns(contestants, rounds).and_then(|results| {
        let comparison = Comparison {
            name: "peers: rate",
            about: format!(
                "{rows} numbers counted up, the even ones kept, and dropped at the end; Spark with local[2]. From start to end of the process, and, without \
                 Spark's start, the job alone, after a small one."
            ),
            results,
        };
        comparison.expect(|_| written)?;
        Ok(comparison)
    })
}

/// `rate` -> `triangle-wave` -> `blackhole`. Spark has a tenth of the rows.
pub(super) fn triangle(daemon: &Daemon, rows: u64, rounds: usize) -> Result<Comparison> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let scene = Scene { daemon, installed: Installed::find()?, folder: folder.path() };
    scene.same_values()?;
    let few = (rows / 10).max(1);
    let contestants = vec![
        Contestant { name: "Acequia: triangle-wave", run: Box::new(|_| scene.acequia("triangle-wave", rows, false)) },
        Contestant { name: "Spark: udf", run: Box::new(|_| scene.spark(&["triangle", "pickle"], few)) },
        Contestant { name: "Spark: udf by Arrow", run: Box::new(|_| scene.spark(&["triangle", "arrow"], few)) },
        Contestant { name: "Spark: pandas_udf", run: Box::new(|_| scene.spark(&["triangle", "pandas"], few)) },
    ];
    super::in_turns(contestants, rounds).and_then(|results| {
        let comparison = Comparison {
            name: "peers: triangle",
            about: format!(
                "{rows} numbers counted up, a triangle wave of each added, and dropped at the end; {few} for Spark, with local[2] and a function in Python. \
                 The first {COMPARED} values are equal to the last bit. From start to end of the process, and, without Spark's start, the job alone, after a small one."
            ),
            results,
        };
        comparison.expect(|figures| figures.rows as u64)?;
        Ok(comparison)
    })
}

impl Scene<'_> {
    fn acequia(&self, plugin: &str, rows: u64, pinned: bool) -> Result<Figures> {
        let state = self.folder.join("state");
        let usage = {
            let pipeline = self.pipeline(plugin, rows, "[[sink]]\ntype = \"blackhole\"\n")?;
            // From the first row on; the compiled code stays.
            let _ = std::fs::remove_file(state.join("acequia.redb"));
            self.daemon.run(&pipeline, &state, &["--once"], pinned)?.wait()?
        };
        let inspected = self.daemon.inspect(&state)?;
        let written = inspected.pointer("/pipelines/0/checkpoint/sinks/blackhole/state/rows").and_then(Value::as_u64);
        let rows = rows as f64;
        Ok(Figures {
            rows,
            wall: usage.wall,
            steady: rows / usage.wall,
            cpu: usage.cpu,
            peak: usage.peak,
            written: written.context("the state folder has no count of the rows")?,
        })
    }

    fn pipeline(&self, plugin: &str, rows: u64, sink: &str) -> Result<std::path::PathBuf> {
        let path = self.folder.join(format!("{plugin}.toml"));
        let text = format!(
            "[source]\ntype = \"rate\"\nrows_per_second = \"max\"\nrows = {rows}\n\n[[transform]]\nplugin = \"{plugin}\"\n\n{sink}"
        );
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Run a job of jobs.py and read what it says.
    fn spark(&self, job: &[&str], rows: u64) -> Result<Figures> {
        let report = self.folder.join("spark.report");
        let mut command = self.installed.command("spark")?;
        command.arg(self.installed.script("spark/jobs.py")).args(job).arg(rows.to_string());
        let mut running = start(tree::above(&command, &report)?, self.folder.join("spark.log"))?;
        let said: Value = serde_json::from_str(&running.line()?.0).context("jobs.py printed no JSON")?;
        let usage = running.wait()?;
        let (cpu, peak) = tree::used(&report)?;
        let seconds = said["seconds"].as_f64().context("jobs.py says no time")?;
        let rows = rows as f64;
        let written = said["rows"].as_u64().context("jobs.py says no rows")?;
        Ok(Figures { rows, wall: usage.wall, steady: rows / seconds, cpu, peak, written })
    }

    /// Whether all compute the same.
    fn same_values(&self) -> Result<()> {
        let output = self.folder.join("values.jsonl");
        let sink = "[[sink]]\ntype = \"file\"\npath = \"values.jsonl\"\n";
        let pipeline = self.pipeline("triangle-wave", COMPARED as u64, sink)?;
        self.daemon.run(&pipeline, &self.folder.join("values"), &["--once"], false)?.wait()?;
        let text = std::fs::read_to_string(&output)?;
        let rows = text.lines().map(|line| serde_json::from_str::<Value>(line)?["tr"].as_f64().context("no tr"));
        let ours = rows.collect::<Result<Vec<f64>>>()?;
        ensure!(ours.len() == COMPARED, "{} values were written, not {COMPARED}", ours.len());

        let mut command = self.installed.command("spark")?;
        command.arg(self.installed.script("spark/jobs.py")).args(["values", &COMPARED.to_string()]);
        let mut running = start(command, self.folder.join("spark.log"))?;
        let theirs: Value = serde_json::from_str(&running.line()?.0).context("jobs.py printed no JSON")?;
        running.wait()?;
        for kind in ["pickle", "arrow", "pandas"] {
            let values = theirs[kind].as_array().with_context(|| format!("no values by {kind}"))?;
            let same = values.iter().map(Value::as_f64).eq(ours.iter().copied().map(Some));
            ensure!(same, "the triangle wave of Spark by {kind} is another");
        }
        Ok(())
    }
}
