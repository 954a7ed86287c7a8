//! 100 reloads while 50,000 rows a second flow: every row is there once (invariant 7, and what other tools lose).

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use acequia_tests::{Daemon, plugin, wait_until};
use rustix::process::Signal;

const RELOADS: u64 = 100;

/// A version of the pipeline. All of its transforms keep every row.
#[derive(Clone, Copy)]
struct Version {
    rate: u64,
    batch: u64,
    amplitude: u64,
    file: &'static str,
    /// A key that the plugin does not know.
    wrong: Option<u64>,
}

impl Version {
    fn text(self) -> String {
        let Version { rate, batch, amplitude, file, wrong } = self;
        let mut config = format!("amplitude = {amplitude}");
        if let Some(wrong) = wrong {
            write!(config, ", amplitude{wrong} = 1").unwrap();
        }
        format!(
            r#"
[source]
type = "rate"
rows_per_second = {rate}

[delivery]
checkpoint_interval = "200ms"
batch = {{ rows = {batch} }}

[[transform]]
plugin = "select"
config = {{ drop = ["timestamp"] }}

[[transform]]
plugin = "./mine.wasm"
name = "mine"
config = {{ {config} }}

[[sink]]
type = "file"
path = "OUT/{file}.jsonl"
"#
        )
    }
}

/// How a reload is brought about.
#[derive(Clone, Copy)]
enum Way {
    /// The daemon sees it by itself.
    Watched,
    Hangup,
    Post,
}

struct Test {
    daemon: Daemon,
    generation: u64,
}

impl Test {
    /// Let the daemon know, and wait until the status shows what became of it.
    fn reload(&mut self, way: Way, error: Option<&str>) {
        match way {
            Way::Watched => {}
            Way::Hangup => self.daemon.signal(Signal::HUP),
            Way::Post => {
                let (status, body) = self.daemon.rest().reload();
                assert_eq!(status, if error.is_some() { 422 } else { 200 }, "{body}");
            }
        }
        self.generation += u64::from(error.is_none());
        let generation = self.generation;
        wait_until(&format!("generation {generation}, error {error:?}"), || {
            let status = &self.daemon.status("numbers")["acequia"];
            let last = &status["last_reload"];
            assert!(status["generation"].as_u64() <= Some(generation), "{status}");
            assert_eq!(status["restarts"], 0, "{status}");
            match error {
                Some(error) => last["kind"] == "rejected" && last["error"].as_str().unwrap().contains(error),
                None => status["generation"] == generation && last["kind"] != "rejected",
            }
        });
    }

    /// Wait until so many rows more have come.
    fn let_flow(&self, rows: u64) {
        let come = || self.daemon.status("numbers")["acequia"]["stages"][0]["rows_in"].as_u64().unwrap_or_default();
        let before = come();
        wait_until("rows flow", || come() >= before + rows);
    }

    fn put(&self, version: Version) {
        self.daemon.pipeline("numbers", &version.text());
    }

    /// Truncate and write, as some editors do.
    fn put_in_place(&self, version: Version) {
        std::fs::write(self.daemon.pipelines().join("numbers.toml"), self.daemon.expand(&version.text())).unwrap();
    }

    fn put_wasm(&self, bytes: &[u8]) {
        let new = self.daemon.file("new.wasm", bytes);
        std::fs::rename(new, self.daemon.pipelines().join("mine.wasm")).unwrap();
    }
}

#[test]
fn a_hundred_reloads_under_load_lose_no_row() {
    let waves = ["triangle-wave", "sine-wave"].map(|name| std::fs::read(plugin(name)).unwrap());
    let mut version = Version { rate: 50_000, batch: 8192, amplitude: 1, file: "a", wrong: None };
    let mut test = Test { daemon: Daemon::new(), generation: 1 };
    test.put_wasm(&waves[0]);
    test.put(version);
    test.daemon.start();
    test.daemon.wait_state("numbers", "RUNNING");
    let start = Instant::now();
    let mut broken = 0;
    for number in 0..RELOADS {
        test.let_flow(2000);
        let round = number / 10;
        match number % 10 {
            0 => {
                version.amplitude += 1;
                test.put(version);
                test.reload(Way::Watched, None);
            }
            1 => {
                version.rate = if version.rate == 50_000 { 50_500 } else { 50_000 };
                test.put(version);
                test.reload(Way::Post, None);
            }
            2 => {
                test.put_wasm(&waves[1]);
                test.reload(Way::Watched, None);
            }
            3 => {
                broken += 1;
                test.daemon.pipeline("numbers", &format!("[source]\ntype = \"rate\"\nrows_per_second = = {number}\n"));
                test.reload(Way::Hangup, Some("numbers.toml:3:19"));
            }
            4 => {
                version.amplitude += 1;
                test.put(version);
                test.reload(Way::Hangup, None);
            }
            5 => {
                version.file = if version.file == "a" { "b" } else { "a" };
                test.put_in_place(version);
                test.reload(Way::Watched, None);
            }
            6 => {
                broken += 1;
                test.put_wasm(&waves[0][..waves[0].len() / (2 + round as usize)]);
                test.reload(Way::Post, Some("mine.wasm"));
            }
            7 => {
                test.put_wasm(&waves[0]);
                test.reload(Way::Hangup, None);
            }
            8 => {
                broken += 1;
                version.wrong = Some(number);
                test.put_in_place(version);
                test.reload(Way::Watched, Some(&format!("amplitude{number}")));
            }
            _ => {
                version.wrong = None;
                version.batch = 4096 + 512 * (round % 4 + 1);
                test.put(version);
                test.reload(Way::Post, None);
            }
        }
    }
    let elapsed = start.elapsed();
    assert_eq!(test.daemon.stop().code, Some(0));
    let a = numbers(&test.daemon.out("a.jsonl"));
    let b = numbers(&test.daemon.out("b.jsonl"));
    let mut all = [a.clone(), b.clone()].concat();
    assert!(a.is_sorted() && b.is_sorted(), "rows are out of order");
    all.sort_unstable();
    let gap = all.iter().enumerate().find(|(index, value)| *index as u64 != **value);
    assert_eq!(gap, None, "a row is missing or comes twice: of {} rows, at this index stands that value", all.len());
    let rate = all.len() as f64 / elapsed.as_secs_f64();
    println!(
        "{RELOADS} reloads, {broken} of them broken, in {elapsed:.1?}: {} rows, each once ({rate:.0} rows/s), in {} and {}",
        all.len(),
        a.len(),
        b.len()
    );
    assert!(rate > 40_000.0, "only {rate} rows a second flowed");
}

/// The column `value` of every row, which must have a wave beside it.
fn numbers(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut waves = [0, 0];
    let mut numbers = Vec::new();
    for line in text.lines() {
        let row = line.strip_prefix("{\"value\":").and_then(|rest| rest.split_once(",\""));
        let (value, wave) = row.unwrap_or_else(|| panic!("a strange row: {line}"));
        waves[usize::from(wave.starts_with("sin\":"))] += 1;
        assert!(
            (wave.starts_with("sin\":") || wave.starts_with("tr\":")) && wave.ends_with('}'),
            "a strange row: {line}"
        );
        numbers.push(value.parse().unwrap());
    }
    assert!(text.ends_with('\n') && waves[0] > 0 && waves[1] > 0, "each plugin had its turn: {waves:?}");
    numbers
}
