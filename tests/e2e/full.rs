//! A disk that is full: of the dead letters, of the state. No row is lost for it (invariants 1, 3 and 6).
//!
//! The disk is a small one in memory that only the daemon sees (a mount namespace of its own); `/proc` leads to it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use acequia_tests::{Daemon, json_lines, rows, values_of, wait_until};

/// Start with a disk of so many MiB on a folder.
fn with_disk(daemon: Daemon, folder: &Path, size: u32) -> Daemon {
    let user = if rustix::process::getuid().is_root() { "" } else { "--user --map-root-user" };
    let folder = folder.display();
    // The shell becomes `unshare`, that a shell, and that the daemon: one process throughout.
    daemon.prelude(&format!(
        "exec unshare {user} --mount sh -c 'mount -t tmpfs -o size={size}m disk {folder} && exec \"$0\" \"$@\"' \"$0\" \"$@\""
    ))
}

/// A path as the daemon sees it.
fn seen(daemon: &Daemon, path: &Path) -> PathBuf {
    Path::new(&format!("/proc/{}/root", daemon.pid())).join(path.strip_prefix("/").unwrap())
}

/// Write until there is no room for another byte.
fn fill(file: &Path) {
    let mut filler = fs::File::create(file).unwrap();
    for size in [1 << 16, 1] {
        while filler.write_all(&vec![1; size]).is_ok() {}
    }
}

fn error_of(daemon: &Daemon, pipeline: &str) -> String {
    daemon.status(pipeline)["acequia"]["first_error"]["message"].as_str().unwrap_or_default().to_owned()
}

const LETTERS: &str = r#"
[source]
type = "file"
path = "DIR/in.jsonl"
follow = true

[[sink]]
type = "file"
path = "OUT/good.jsonl"

[errors]
on_error = "dead_letter"
[errors.dead_letter]
type = "file"
path = "DIR/disk/letters.jsonl"

[delivery]
checkpoint_interval = "50ms"
"#;

fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|at| if at % 10 == 7 { format!("poison {at}\n") } else { format!("{{\"value\":{at}}}\n") }).collect()
}

/// As it is in the checkpoint: rows of the source, and those of it that failed.
fn in_checkpoint(daemon: &Daemon) -> (u64, u64) {
    let folder = seen(daemon, &daemon.folder().join("state")).display().to_string();
    let exit = acequia_tests::run(&["state", "inspect", "letters", "--json", "--state", &folder]);
    let found: serde_json::Value = serde_json::from_str(&exit.stdout).unwrap_or_default();
    let counts = &found["pipelines"][0]["checkpoint"]["counts"]["source"];
    (counts["rows_in"].as_u64().unwrap_or(0), counts["dead"].as_u64().unwrap_or(0))
}

// invariant 3
#[test]
fn dead_letters_that_can_not_be_written_stop_the_pipeline_and_none_is_lost() {
    let daemon = Daemon::new();
    let disk = daemon.folder().join("disk");
    fs::create_dir(&disk).unwrap();
    let mut daemon = with_disk(daemon, &disk, 1);
    let input = daemon.file("in.jsonl", lines(0..1000));
    daemon.pipeline("letters", LETTERS);
    daemon.start();
    wait_until("the first thousand rows are in a checkpoint", || in_checkpoint(&daemon) == (1000, 100));
    let letters = seen(&daemon, &disk.join("letters.jsonl"));
    assert_eq!(rows(&letters), 100);

    let filler = seen(&daemon, &disk.join("filler"));
    fill(&filler);
    let mut more = fs::File::options().append(true).open(&input).unwrap();
    more.write_all(lines(1000..5000).as_bytes()).unwrap();
    wait_until("the pipeline says why it stands", || error_of(&daemon, "letters").contains("No space left"));
    let error = error_of(&daemon, "letters");
    assert!(error.contains("letters.jsonl"), "{error}");
    // It tries again and again, and gets no further.
    let tries = || {
        let status = daemon.status("letters");
        let stages = status["acequia"]["stages"].as_array().cloned().unwrap_or_default();
        let letters = stages.iter().find(|stage| stage["id"] == "dead-letter");
        letters.and_then(|stage| stage["retries"].as_u64()).unwrap_or(0)
    };
    let before = tries();
    wait_until("it has tried more than once", || tries() > before + 2);
    let (read, dead) = in_checkpoint(&daemon);
    let safe = rows(&letters) as u64;
    assert!(dead <= safe && read < 5000, "the checkpoint has {dead} dead rows of {read}, the disk {safe}");

    let tried = tries();
    fs::remove_file(&filler).unwrap();
    wait_until("it goes on by itself", || in_checkpoint(&daemon) == (5000, 500));
    let found = json_lines(&letters);
    let texts: BTreeSet<String> =
        found.iter().map(|letter| letter["row"].as_str().unwrap_or_default().to_owned()).collect();
    let wanted: BTreeSet<String> = (0..5000).filter(|at| at % 10 == 7).map(|at| format!("poison {at}")).collect();
    assert_eq!(texts, wanted);
    assert_eq!(found.len(), 500, "each once");
    assert_eq!(daemon.stop().code, Some(0));
    let values = values_of(&daemon.out("good.jsonl"), "value");
    assert!(values.iter().copied().eq((0..5000).filter(|at| at % 10 != 7)), "a row is missing or comes twice");
    println!("{} tries while the disk was full; 500 letters and {} rows in the end", tried, values.len());
}

/// The state of `word-count` grows with each row, so the file has to grow.
const GROWING: &str = r#"
[source]
type = "rate"
rows_per_second = 20000

[[transform]]
plugin = "select"
config = { cast = { value = "text" }, keep = ["value"] }

[[transform]]
plugin = "word-count"

[[sink]]
type = "file"
path = "OUT/words.txt"
format = "text"
value = "word"

[delivery]
checkpoint_interval = "50ms"
"#;

// invariants 1 and 6
#[test]
fn a_state_folder_that_is_full_for_a_while_costs_no_row() {
    let daemon = Daemon::new();
    let state = daemon.folder().join("state");
    let mut daemon = with_disk(daemon, &state, 64);
    daemon.pipeline("words", GROWING);
    daemon.start();
    daemon.wait_rows("words.txt", 1000);
    let filler = seen(&daemon, &state.join("filler"));
    fill(&filler);
    wait_until("the pipeline says why it stands", || error_of(&daemon, "words").contains("acequia.redb"));
    let error = error_of(&daemon, "words");
    assert!(error.contains("checkpoint") && error.contains("No space left"), "{error}");
    let checkpoint = || daemon.status("words")["acequia"]["checkpoint"]["number"].as_u64().unwrap_or(0);
    let before = checkpoint();
    fs::remove_file(&filler).unwrap();
    wait_until("it goes on by itself", || checkpoint() > before + 3);
    wait_until("it runs", || daemon.status("words")["acequia"]["state"] == "RUNNING");
    assert_eq!(daemon.stop().code, Some(0));
    let text = fs::read_to_string(daemon.out("words.txt")).unwrap();
    let count = text.lines().count();
    let values = text.lines().map(|line| line.parse::<usize>().unwrap());
    assert!(values.eq(0..count), "a row is missing, comes twice or is out of order");
    println!("{count} rows, each once; the first error was: {error}");
}
