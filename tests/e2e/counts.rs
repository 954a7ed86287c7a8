//! Every row ends in exactly one of: confirmed, dropped, dead; and that can be read off the metrics (invariant 3).

use std::collections::BTreeMap;

use acequia_tests::{Daemon, json_lines, rows, run, wait_until};

/// 1000 lines: every hundredth is no number, and of the rest every third is too large for a number that is even.
fn lines() -> String {
    let line = |number: usize| match number % 100 {
        50 => "not a number\n".to_owned(),
        _ => format!("{number}\n"),
    };
    (0..1000).map(line).collect()
}

const TEXT: &str = r#"
[source]
type = "file"
path = "DIR/lines.txt"
format = "text"

# "not a number" fails here.
[[transform]]
plugin = "even-filter"
config = { column = "value" }

[[transform]]
plugin = "word-count"
config = { split = "whitespace" }

[[sink]]
type = "file"
path = "OUT/words.jsonl"

[[sink]]
type = "blackhole"

[errors.dead_letter]
type = "file"
path = "OUT/dead.jsonl"
"#;

type Counts = BTreeMap<(String, String), u64>;

/// `acequia_rows_*_total` by stage and kind.
fn counts(daemon: &Daemon, pipeline: &str) -> Counts {
    let metrics = daemon.rest().get("/metrics").unwrap();
    let mut counts = Counts::new();
    for line in metrics.as_str().unwrap().lines() {
        let Some(rest) = line.strip_prefix("acequia_rows_") else { continue };
        let (kind, rest) = rest.split_once("_total{").unwrap();
        let (labels, value) = rest.split_once("} ").unwrap();
        let labels = labels.split(',').map(|label| label.trim_matches('"').split_once("=\"").unwrap());
        let labels: BTreeMap<&str, &str> = labels.collect();
        if labels["pipeline"] == pipeline {
            counts.insert((labels["stage"].to_owned(), kind.to_owned()), value.parse().unwrap());
        }
    }
    counts
}

fn of(counts: &Counts, stage: &str) -> [u64; 5] {
    ["in", "added", "out", "dropped", "dead"].map(|kind| counts[&(stage.to_owned(), kind.to_owned())])
}

#[test]
fn the_sums_are_right_at_every_stage_and_over_restarts() {
    let mut daemon = Daemon::new();
    daemon.file("lines.txt", lines());
    daemon.pipeline("words", TEXT);
    daemon.start();
    daemon.wait_state("words", "COMPLETED");
    let before = counts(&daemon, "words");
    // in, added, out, dropped, dead. Ten lines are no numbers, 495 of the others are odd.
    assert_eq!(of(&before, "source"), [1000, 0, 1000, 0, 0]);
    assert_eq!(of(&before, "even-filter"), [1000, 0, 490, 500, 10]);
    let [rows_in, added, out, dropped, dead] = of(&before, "word-count");
    assert_eq!((rows_in, dead), (490, 0));
    assert_eq!(rows_in + added, out + dropped);
    let written = rows(&daemon.out("words.jsonl")) as u64;
    assert_eq!(out, written);
    assert_eq!(of(&before, "file"), [written, 0, written, 0, 0]);
    assert_eq!(of(&before, "blackhole"), [written, 0, written, 0, 0]);
    assert_eq!(of(&before, "dead-letter"), [10, 0, 10, 0, 0]);
    let letters = json_lines(&daemon.out("dead.jsonl"));
    let places: Vec<_> = letters.iter().map(|letter| letter["offset"].as_u64().unwrap()).collect();
    // Lines count from 1.
    assert_eq!(places, (0..10).map(|hundred| hundred * 100 + 51).collect::<Vec<_>>());
    for letter in &letters {
        assert_eq!(letter["stage"], "even-filter");
        assert_eq!(letter["pipeline"], "words");
        assert!(letter["error"].as_str().unwrap().contains("not a number"), "{letter}");
        assert!(letter["partition"].as_str().unwrap().ends_with("/lines.txt"), "{letter}");
    }
    // Over a crash and a restart the counts stay those of the checkpoint.
    daemon.kill();
    daemon.start();
    daemon.wait_state("words", "COMPLETED");
    assert_eq!(counts(&daemon, "words"), before);

    // `acequia status` adds them up.
    let address = daemon.rest().address;
    let status = run(&["status", "--address", &address]);
    assert_eq!(status.code, Some(0), "{}", status.stderr);
    let line = status.stdout.lines().find(|line| line.starts_with("words")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let dropped = (500 + dropped).to_string();
    assert_eq!(words, ["words", "COMPLETED", "1000", &written.to_string(), &dropped, "10"], "{}", status.stdout);
    assert_eq!(daemon.stop().code, Some(0));
}

/// While rows flow they hold at each checkpoint; between two batches nothing is counted, so they hold nearly always.
#[test]
fn the_sums_hold_while_rows_flow() {
    let mut daemon = Daemon::new();
    let text = r#"
[source]
type = "rate"
rows_per_second = 1000

[[transform]]
plugin = "even-filter"

[[sink]]
type = "file"
path = "OUT/rows.jsonl"

[delivery]
checkpoint_interval = "50ms"
"#;
    daemon.pipeline("rows", text);
    daemon.start();
    daemon.wait_rows("rows.jsonl", 100);
    wait_until("the sums hold and rows have come", || {
        let counts = counts(&daemon, "rows");
        let [rows_in, added, out, dropped, dead] = of(&counts, "even-filter");
        let sink = of(&counts, "file");
        of(&counts, "source")[2] == rows_in
            && rows_in > 0
            && rows_in + added == out + dropped + dead
            && sink[0] == out
            && sink[2] == out
    });
    assert_eq!(daemon.stop().code, Some(0));
    let written = rows(&daemon.out("rows.jsonl"));
    daemon.pipeline("rows", &text.replace("rows_per_second = 1000", "rows_per_second = 0.001"));
    daemon.start();
    daemon.wait_state("rows", "RUNNING");
    assert_eq!(of(&counts(&daemon, "rows"), "file")[2], written as u64, "what is counted is what is in the file");
}

/// As the plugin's page says: a million words of eight letters fit the default limit of its memory, snapshots included.
#[test]
fn a_million_words_fit_the_default_limit() {
    const WORDS: u64 = 1_000_000;
    // All different, and in no order: the factor has no divisor in common with the number of words of eight letters.
    let word = |number: u64| {
        let mut rest = number * 1_000_003 % 26u64.pow(8);
        let letter = || {
            let letter = b'a' + (rest % 26) as u8;
            rest /= 26;
            char::from(letter)
        };
        std::iter::repeat_with(letter).take(8).collect::<String>()
    };
    let line = |first: u64| (first..first + 8).map(word).collect::<Vec<_>>().join(" ") + "\n";
    let mut daemon = Daemon::new();
    daemon.file("lines.txt", (0..WORDS).step_by(8).map(line).collect::<String>());
    daemon.pipeline(
        "million",
        "[source]\ntype = \"file\"\npath = \"DIR/lines.txt\"\nformat = \"text\"\n\n[[transform]]\nplugin = \"word-count\"\n\n\
         [[sink]]\ntype = \"file\"\npath = \"OUT/words.csv\"\ncsv = { header = false }\n\n[delivery]\ncheckpoint_interval = \"20ms\"\n",
    );
    let exit = daemon.once();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(rows(&daemon.out("words.csv")), WORDS as usize, "each word is new");
}
