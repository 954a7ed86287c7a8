//! Plugins that misbehave in every way that we can think of. Whatever they do, the daemon lives on, its other pipelines go
//! on, every row is accounted for, and a message names pipeline, plugin and cause.

mod cache;
mod letters;
mod refused;
mod state;
mod ticks;

use std::path::PathBuf;

use acequia_tests::{Daemon, evil_plugin, rows, values_of, workspace};

/// A pipeline that has nothing to do with the evil ones, and must not notice them.
struct Neighbour;

impl Neighbour {
    fn add(daemon: &Daemon) -> Self {
        daemon.pipeline(
            "neighbour",
            r#"
            source = { type = "rate", rows_per_second = 500 }
            transform = [{ plugin = "even-filter" }]
            sink = [{ type = "file", path = "OUT/neighbour.jsonl" }]
            delivery = { checkpoint_interval = "50ms" }
            "#,
        );
        Neighbour
    }

    /// It brings new rows.
    #[track_caller]
    fn goes_on(&self, daemon: &mut Daemon) {
        assert!(daemon.is_running(), "the daemon has ended:\n{}", daemon.stderr());
        let before = rows(&daemon.out("neighbour.jsonl"));
        daemon.wait_rows("neighbour.jsonl", before + 50);
    }

    /// After the daemon's end: it has every even number from 0 on, once, and had no trouble.
    #[track_caller]
    fn is_whole(&self, daemon: &Daemon) {
        let values = values_of(&daemon.out("neighbour.jsonl"), "value");
        let even: Vec<i64> = (0..).step_by(2).take(values.len()).collect();
        assert_eq!(values, even);
        assert_eq!(rows(&daemon.dead_letters("neighbour")), 0);
    }
}

/// A daemon that finds the evil plugins too. The files of `fixtures/` are beside its pipelines' folder, as binaries.
pub fn daemon() -> Daemon {
    let folder = evil_plugin("evil").parent().map(PathBuf::from).unwrap_or_default();
    for name in ["evil-stateful", "evil-ticking"] {
        evil_plugin(name);
    }
    let daemon = Daemon::new().arg("--plugins").arg(&folder.display().to_string());
    for entry in std::fs::read_dir(workspace().join("tests/evil/fixtures")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        daemon.file(&format!("{name}.wasm"), wat::parse_file(&path).unwrap());
    }
    daemon
}

/// Without what differs from one run or one build to the next.
fn steady(daemon: &Daemon, text: &str) -> String {
    let mut text = text.replace(&daemon.folder().display().to_string(), "[folder]");
    for (pattern, replacement) in [
        // A plugin's own need of memory hangs on its compiler.
        (r"it wanted \d+ bytes", "it wanted [n] bytes"),
        (r"tests/evil/[a-z/]*lib\.rs:\d+:\d+", "tests/evil/src/lib.rs:[line]"),
        (r"offset \d+ of \d+", "offset [n]"),
        (r"range \d+\.\.\d+ is out of bounds \(bound = \d+\)", "range [n] is out of bounds"),
    ] {
        text = regex::Regex::new(pattern).unwrap().replace_all(&text, replacement).into_owned();
    }
    text
}

/// The log's lines that hold all of these.
pub fn log_lines(daemon: &Daemon, with: &[&str]) -> Vec<String> {
    let log = daemon.stderr();
    log.lines().filter(|line| with.iter().all(|text| line.contains(text))).map(str::to_owned).collect()
}
