//! `kill -9` at any moment costs no row and doubles none (invariants 1 to 4).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use acequia_tests::{Daemon, json_lines, rows, wait_until};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A number that makes the moments of a test come again: `ACEQUIA_TEST_SEED`, else a new one each time. Printed.
fn moments(test: &str) -> StdRng {
    let seed = std::env::var("ACEQUIA_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("{test}: ACEQUIA_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Start the daemon and kill it, `kills` times, then let it run to its end. A moment counts either from the start of the
/// process, or from when it has written a row again. None may come after the end: the source must be slow enough.
fn kill_at_random(daemon: &mut Daemon, kills: usize, file: &str) {
    let mut random = moments(file);
    let start = Instant::now();
    let out = daemon.out(file);
    let mut seen = Vec::new();
    for kill in 0..kills {
        let before = rows(&out);
        daemon.spawn(&["--once"]);
        if kill == 0 || random.random_bool(0.7) {
            wait_until("rows are written again", || {
                assert!(daemon.is_running(), "the run ended before the last kill:\n{}", daemon.stderr());
                rows(&out) != before
            });
        }
        // The moment is the test's matter, not a wait for something.
        std::thread::sleep(random.random_range(Duration::ZERO..LATEST));
        assert!(daemon.is_running(), "the run ended before the last kill:\n{}", daemon.stderr());
        daemon.kill();
        seen.push(rows(&out));
    }
    let exit = daemon.once();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    println!("{file}: rows in the file at each kill: {seen:?}; {:.1?} in all", start.elapsed());
}

/// The rate comes by the clock from the first start on, so a run of 1,000,000 rows lasts 12.5 seconds at least.
const RATE: &str = r#"
[source]
type = "rate"
rows_per_second = 80000
rows = 1000000

[delivery]
checkpoint_interval = "100ms"
"#;

const ROWS: usize = 1_000_000;
const KILLS: usize = 20;
const LATEST: Duration = Duration::from_millis(250);

fn with(transforms: &str, sink: &str) -> String {
    format!("{RATE}\n{transforms}\n[[sink]]\ntype = \"file\"\n{sink}\n")
}

/// For each word how often it came, by the last total; each total of a word must be above the one before.
fn totals(path: &Path) -> BTreeMap<String, i64> {
    let mut totals = BTreeMap::new();
    for row in json_lines(path) {
        let (word, count) = (row["word"].as_str().unwrap().to_owned(), row["count"].as_i64().unwrap());
        let before = totals.insert(word, count).unwrap_or(0);
        assert!(before < count, "{row} after a total of {before}");
    }
    totals
}

#[test]
fn every_number_is_counted_once() {
    let mut daemon = Daemon::new();
    let transforms = r#"
[[transform]]
plugin = "select"
config = { keep = ["value"], cast = { value = "text" } }

[[transform]]
plugin = "word-count"
"#;
    daemon.pipeline("words", &with(transforms, "path = \"OUT/words.jsonl\""));
    kill_at_random(&mut daemon, KILLS, "words.jsonl");
    let totals = totals(&daemon.out("words.jsonl"));
    // Each number once: so there are as many rows as words, and every total is 1.
    assert_eq!(rows(&daemon.out("words.jsonl")), ROWS);
    assert_eq!(totals.len(), ROWS);
    let all_once = (0..ROWS).all(|number| totals.get(&number.to_string()) == Some(&1));
    assert!(all_once);
    println!("words.jsonl: {} words, each counted once", totals.len());
}

#[test]
fn totals_of_words_that_repeat_are_exact() {
    let mut daemon = Daemon::new();
    // From -250 up to 250 and down again in a thousand rows: in each thousand both ends once and all between twice.
    let transforms = r#"
[[transform]]
plugin = "triangle-wave"
config = { length = 1000, amplitude = 500 }

[[transform]]
plugin = "select"
config = { keep = ["tr"], cast = { tr = "text" } }

[[transform]]
plugin = "word-count"
config = { column = "tr" }
"#;
    daemon.pipeline("repeat", &with(transforms, "path = \"OUT/repeat.jsonl\""));
    kill_at_random(&mut daemon, KILLS, "repeat.jsonl");
    let totals = totals(&daemon.out("repeat.jsonl"));
    assert_eq!(totals.len(), 501);
    for (word, total) in &totals {
        let value: f64 = word.parse().unwrap();
        let expected = if value.abs() == 250.0 { 1000 } else { 2000 };
        assert_eq!(*total, expected, "{word}");
    }
    assert_eq!(totals.values().sum::<i64>(), 1_000_000);
    println!("repeat.jsonl: {} words, {} in all", totals.len(), totals.values().sum::<i64>());
}

#[test]
fn every_row_is_written_once() {
    let mut daemon = Daemon::new();
    let transforms = "[[transform]]\nplugin = \"even-filter\"\n";
    daemon.pipeline("rows", &with(transforms, "path = \"OUT/rows.txt\"\nformat = \"text\"\nvalue = \"value\""));
    kill_at_random(&mut daemon, KILLS, "rows.txt");
    let text = std::fs::read_to_string(daemon.out("rows.txt")).unwrap();
    let numbers = text.lines().map(|line| line.parse::<usize>().unwrap());
    assert!(numbers.eq((0..ROWS).step_by(2)), "a row is missing, comes twice or is out of order");
    println!("rows.txt: {} rows, each once and in order", ROWS / 2);
}

/// A crash before anything was stored, and crashes in the middle of starting, at moments that follow each other closely.
#[test]
fn killed_while_it_starts_and_before_the_first_checkpoint() {
    let mut daemon = Daemon::new();
    let text = r#"
[source]
type = "rate"
rows_per_second = 20000
rows = 60000

[delivery]
checkpoint_interval = "1h"

[[transform]]
plugin = "select"
config = { keep = ["value"], cast = { value = "text" } }

[[transform]]
plugin = "word-count"

[[sink]]
type = "file"
path = "OUT/early.jsonl"
"#;
    daemon.pipeline("early", text);
    for step in 0..30 {
        daemon.spawn(&["--once"]);
        std::thread::sleep(Duration::from_millis(step * 3));
        daemon.kill();
    }
    // Rows are in the file, and no checkpoint speaks of them: they are cut off and come again.
    for _ in 0..3 {
        daemon.spawn(&["--once"]);
        daemon.wait_rows("early.jsonl", 100);
        daemon.kill();
    }
    let exit = daemon.once();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(rows(&daemon.out("early.jsonl")), 60_000);
    let totals = totals(&daemon.out("early.jsonl"));
    assert!((0..60_000).all(|number| totals.get(&number.to_string()) == Some(&1)));
    // A crash after the end changes nothing either.
    daemon.start();
    daemon.wait_state("early", "COMPLETED");
    daemon.kill();
    assert_eq!(daemon.once().code, Some(0));
    assert_eq!(rows(&daemon.out("early.jsonl")), 60_000);
}

/// Pieces of it are decoded beside each other, on all cores.
#[test]
fn every_row_of_a_large_file_is_written_once() {
    let text: String = (0..ROWS).map(|row| format!("{{\"number\":{row},\"text\":\"row {row}\"}}\n")).collect();
    // On a fast machine it may be over before it can be killed.
    assert!((0..50).any(|_| copy_and_kill(&text) > 0), "the run was never killed");
}

/// Copy a file of these rows while the daemon is killed again and again, until it is faster. Returns how often it was.
fn copy_and_kill(text: &str) -> usize {
    let mut daemon = Daemon::new();
    daemon.file("large.jsonl", text);
    daemon.pipeline(
        "large",
        "[source]\ntype = \"file\"\npath = \"DIR/large.jsonl\"\n\n[[sink]]\ntype = \"file\"\npath = \"OUT/large.jsonl\"\n\n\
         [delivery]\ncheckpoint_interval = \"5ms\"\n",
    );
    let out = daemon.out("large.jsonl");
    let size = || std::fs::metadata(&out).map_or(0, |metadata| metadata.len());
    let (mut random, mut seen) = (moments("large.jsonl"), Vec::new());
    while seen.len() < KILLS {
        let before = size();
        daemon.spawn(&["--once"]);
        wait_until("rows are written again", || !daemon.is_running() || size() != before);
        // The moment is the test's matter, not a wait for something.
        std::thread::sleep(random.random_range(Duration::ZERO..Duration::from_millis(50)));
        if !daemon.is_running() {
            let exit = daemon.wait_exit();
            assert_eq!(exit.code, Some(0), "{}", exit.stderr);
            break;
        }
        daemon.kill();
        seen.push(size());
    }
    println!("large.jsonl: bytes in the file at each kill: {seen:?}");
    let exit = daemon.once();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(
        std::fs::read(&out).unwrap() == text.as_bytes(),
        "the rows are not those of the input, each once, in order"
    );
    seen.len()
}
